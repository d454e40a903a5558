#!/usr/bin/env python3
"""Stage 14: pack a trained model for others, and check it the way they will load it.

Writes <exp>/packed, a folder for the Hub, and <exp>/<name>_<weights>.zip, ESPnet's
archive. Both must hold every parameter of the model and say to one clip of a test set
what the unpacked model says, in stock ESPnet.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import soundfile

from powsm.audio import SAMPLE_RATE, read_audio
from powsm.decode.batch import items
from powsm.files.whole import naming
from powsm.model.find import find_model
from powsm.publish.pack import check_with_stock, pack

log = logging.getLogger("pack")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--exp", type=Path, required=True, help="experiment folder")
    add("--model_file", type=Path, help="weights; default the average")
    add("--dump", type=Path, required=True, help="dump/raw")
    add("--profiles", type=Path, nargs="*", default=[], help="conf/decode_*.yaml")
    add("--hf_repo", default="", help="Hub tag that the model card speaks of")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        with naming(options.exp):
            run(options)
    except (ValueError, OSError) as err:
        raise SystemExit(f"pack.py: error: {err}") from err


def run(options: argparse.Namespace) -> None:
    sets = sorted(options.dump.glob("test_*")) or [options.dump / "dev"]
    item = items(sets[0], "pr")[0]
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
        soundfile.write(clip, read_audio(item.audio), SAMPLE_RATE, subtype="FLOAT")
        said = check_with_stock(packed, files, clip, item.lang_sym.strip("<>"))
    for task, text in said.items():
        log.info("stock ESPnet: %s %s", task, text)
    log.info("%s: %.1f MB", packed.archive, packed.archive.stat().st_size / 1e6)
    log.info("before stage 15, write the licence into %s/README.md", packed.folder)


if __name__ == "__main__":
    main()
