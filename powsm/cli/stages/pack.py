"""Stage 14: pack a trained model for others, and check it the way they will load it.

Writes <exp>/packed, a folder for the Hub, and <exp>/<name>_<weights>.zip, ESPnet's
archive. Both must hold every parameter of the model and say to one clip of a test set
what the unpacked model says, in stock ESPnet.
"""

import argparse
import logging
import tempfile
from pathlib import Path

from powsm.cli.options import add_shared, refuse_one_name

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--exp", "--model_file", "--dump")
    add_shared(parser, "--profiles", nargs="*", default=[], required=False)
    add = parser.add_argument
    add("--hf_repo", default="", help="Hub tag that the model card speaks of")


def run(options: argparse.Namespace) -> None:
    from powsm.files.whole import naming

    refuse_one_name(options.profiles)
    with naming(options.exp):
        pack_and_check(options)


def pack_and_check(options: argparse.Namespace) -> None:
    """Pack, decode a clip with stock ESPnet, and log what it says."""
    from powsm.model.light import import_espnet

    import_espnet()
    from powsm.audio import SAMPLE_RATE, read_audio
    from powsm.audio_files import encode
    from powsm.decode.batch import items
    from powsm.model.find import find_model
    from powsm.publish.pack import check_with_stock, pack
    from powsm.settings import load_yaml
    from powsm.tasks import PHONES, UNKNOWN_LANG_SYM, plain_task

    sets = sorted(options.dump.glob("test_*")) or [options.dump / "dev"]
    item = items(sets[0], plain_task(PHONES))[0]
    files = find_model(options.exp, options.model_file)
    packed = pack(
        options.exp,
        model_file=options.model_file,
        train_set=options.dump / "train",
        profiles=options.profiles,
        hf_repo=options.hf_repo,
    )
    log.info("%s: %.1f M parameters", packed.folder, packed.n_parameters / 1e6)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.wav"
        speech = read_audio(item.audio)
        clip.write_bytes(encode(speech, SAMPLE_RATE, "WAV", "FLOAT"))
        # which may be a language of a test set alone
        is_known = item.lang_sym in load_yaml(files.config_file)["token_list"]
        lang_sym = item.lang_sym if is_known else UNKNOWN_LANG_SYM
        outputs = check_with_stock(packed, files, clip, lang_sym.strip("<>"))
    for task, text in outputs.items():
        log.info("stock ESPnet: %s %s", task, text)
    log.info("%s: %.1f MB", packed.archive, packed.archive.stat().st_size / 1e6)
    log.info("before stage 15, write the licence into %s/README.md", packed.folder)
