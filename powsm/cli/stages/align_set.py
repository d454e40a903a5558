"""Align the phones that stage 12 decoded, or the references, with the recordings.

Writes a Praat TextGrid for each recording, phones.ctm and phones.jsonl: of decoded
phones to <exp>/<profile>/<set>/<task>_<decode>/align, of references to
<exp>/align/<set>. What cannot be aligned is named, counted and left out; what is
current is left alone.
"""

import argparse
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from powsm.cli.options import add_shared, device
from powsm.errors import PowsmError

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--exp", help="for the results")
    add_shared(parser, "--model", "--model_file", "--dump", "--sets")
    phones = parser.add_mutually_exclusive_group(required=True)
    what = "YAML: align what they decoded"
    phones.add_argument("--profiles", type=Path, nargs="+", help=what)
    phones.add_argument(
        "--ref", action="store_true", help="align the phones of ref.ipa"
    )
    add_shared(parser, "--device")


def run(options: argparse.Namespace) -> None:
    from powsm.model.light import import_espnet

    import_espnet()
    from powsm.decode.recogniser import Recogniser
    from powsm.decode.timing.blanks import USUAL
    from powsm.decode.timing.stored import read_timing
    from powsm.files.current import is_current, write_record
    from powsm.files.whole import sha256_file
    from powsm.model.find import find_model
    from powsm.score.decoded import DONE_FILE

    model = find_model(options.model or options.exp, options.model_file)
    weights = sha256_file(model.weights_file)
    timing = read_timing(model.config_file, weights[:12])
    calibrated = {} if timing == USUAL else {"timing": asdict(timing)}
    recogniser = None
    for out, folder, source in todo(options):
        made_from = {"weights": weights, source.name: sha256_file(source), **calibrated}
        done = out / DONE_FILE
        if is_current(done, "aligned", made_from):
            log.info("%s is current", out)
            continue
        if recogniser is None:
            recogniser = Recogniser.load(model, device(options.device))
        align_set(recogniser, folder, read_source(source), out)
        write_record(done, "aligned", made_from, out.glob("phones.*"))


def todo(options: argparse.Namespace) -> list[tuple[Path, Path, Path]]:
    """(folder for the alignments, dump folder, file with the phones) of each result."""
    folders = [options.dump / name for name in options.sets]
    if options.ref:
        out = options.exp / "align"
        return [(out / f.name, f, f / "ref.ipa") for f in folders]
    from powsm.decode.batch import items
    from powsm.decode.profile import Profile
    from powsm.score.decoded import HYP_FILE, decoded_folder
    from powsm.tasks import PHONES, tasks_writing

    profiles = [Profile.load(path) for path in options.profiles]
    tasks = sorted(
        {task for p in profiles for task in p.tasks} & set(tasks_writing(PHONES))
    )
    if not tasks:
        wanted = " or ".join(tasks_writing(PHONES))
        raise PowsmError(f"none of the profiles decodes phones: {wanted}")
    results = []
    for task, folder in itertools.product(tasks, folders):
        if not items(folder, task):  # as a set without texts has no g2p
            log.info("%s: no %s example, nothing to align", folder, task)
            continue
        for profile in profiles:
            if task not in profile.tasks:
                continue
            out = decoded_folder(
                options.exp, profile.name, folder.name, profile.tag(task)
            )
            if not (out / HYP_FILE).exists():
                raise PowsmError(
                    f"{out / HYP_FILE} is missing: decode {folder.name} with "
                    f"{profile.name} first (stage 12)"
                )
            results.append((out / "align", folder, out / HYP_FILE))
    return sorted(results)


def read_source(path: Path) -> Mapping[str, Sequence[str]]:
    """Phones by utt_id, of hypotheses or of references, made as the set was."""
    from powsm.files.transcripts import read_transcripts
    from powsm.score.decoded import HYP_FILE, DecodedSet, DumpSet
    from powsm.score.phone_reader import PhoneReader
    from powsm.vocabulary.phone_sets import phones_of_tokens

    if path.name == HYP_FILE:
        return {
            row["utt_id"]: phones_of_tokens(row["tokens"])
            for row in DecodedSet(path.parent).records()
            if "error" not in row
        }
    reader = PhoneReader(DumpSet(path.parent).normaliser["policy"])
    return {
        utt_id: reader.read(text).phones
        for utt_id, text in read_transcripts(path).items()
    }


def align_set(
    recogniser, folder: Path, phones: Mapping[str, Sequence[str]], out: Path
) -> None:
    """Align each recording of a set; what cannot be aligned is logged and left out."""
    from tqdm import tqdm

    from powsm.audio import SAMPLE_RATE, AudioError
    from powsm.decode.align import AlignError, align
    from powsm.decode.align_files import write_alignments
    from powsm.decode.batch import items
    from powsm.decode.recordings.samples import read_speech
    from powsm.model.frames import FrameGrid
    from powsm.tasks import PHONES, plain_task

    shortest = FrameGrid.of(recogniser.model).min_samples()
    aligned, durations_s = {}, {}
    failed = 0
    for item in tqdm(
        items(folder, plain_task(PHONES)), desc=str(out), unit="utt", disable=None
    ):
        try:
            speech = read_speech(item.audio, shortest)
            wanted = phones.get(item.utt_id, ())
            aligned[item.utt_id] = align(recogniser, speech, wanted) if wanted else []
            durations_s[item.utt_id] = len(speech) / SAMPLE_RATE
        except (AlignError, AudioError) as err:
            log.warning("%s: %s", item.utt_id, err)
            failed += 1
    write_alignments(out, aligned, durations_s)
    log.info(
        "%s: %d phones in %d utterances, %d could not be aligned",
        *(out, sum(map(len, aligned.values())), len(aligned), failed),
    )
