#!/usr/bin/env python3
"""Align a set's recordings: phones with start, end and confidence.

Writes <exp>/align/<set>/<utt_id>.TextGrid, or phones.ctm, or phones.jsonl; with the
reference as phones the folder is <set>_ref. What cannot be aligned is named, counted
and left out.
"""

import argparse
import json
import logging
from pathlib import Path

from tqdm import tqdm

from powsm.align import AlignError, align, write_ctm, write_json, write_textgrid
from powsm.audio import SAMPLE_RATE, AudioError
from powsm.checkpoint import MODEL_HELP, find_model
from powsm.decode import Recogniser, items, read_speech
from powsm.frames import FrameGrid
from powsm.ipa import Normaliser, read_phones
from powsm.transcripts import read_transcripts

log = logging.getLogger("align")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--exp", type=Path, required=True, help="folder for the results")
    add("--model", help=f"{MODEL_HELP}; default: --exp")
    add("--model_file", type=Path, help="weights; default the average")
    add("--dump", type=Path, required=True, help="dump/raw")
    add("--set", required=True, help="folder in --dump")
    own = "true: phones of ref.ipa; false: those that the CTC head says"
    add("--ref", choices=("true", "false"), default="false", help=own)
    add("--format", choices=("textgrid", "ctm", "json"), default="textgrid")
    add("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run(options)
    except (ValueError, OSError) as err:
        raise SystemExit(f"align.py: {err}") from err


def run(options: argparse.Namespace) -> None:
    folder = options.dump / options.set
    model = find_model(options.model or options.exp, options.model_file)
    log.info("%s", model.describe())
    recogniser = Recogniser.load(model, options.device)
    phones = references(folder) if options.ref == "true" else None
    shortest = FrameGrid.of(recogniser.model).min_samples()
    name = options.set if phones is None else f"{options.set}_ref"
    out = options.exp / "align" / name
    found = {}
    n_failed = 0
    for item in tqdm(items(folder, "pr"), desc="align", unit="utt", disable=None):
        try:
            speech = read_speech(item.audio, shortest)
            wanted = None if phones is None else phones[item.utt_id]
            found[item.utt_id] = align(recogniser, speech, wanted)
        except (AlignError, AudioError) as err:
            log.warning("%s: %s", item.utt_id, err)
            n_failed += 1
            continue
        if options.format == "textgrid":
            path = out / f"{item.utt_id}.TextGrid"
            write_textgrid(path, found[item.utt_id], len(speech) / SAMPLE_RATE)
    if options.format == "ctm":
        write_ctm(out / "phones.ctm", found)
    elif options.format == "json":
        write_json(out / "phones.jsonl", found)
    n_phones = sum(map(len, found.values()))
    log.info(
        "%s: %d phones in %d utterances, %d could not be aligned",
        *(out, n_phones, len(found), n_failed),
    )
    if not found:
        raise ValueError(f"{folder}: nothing could be aligned")


def references(folder: Path) -> dict[str, tuple[str, ...]]:
    """Reference phones by utt_id, made the way the set was."""
    made_with = folder / "normaliser.json"
    if not made_with.exists():
        raise ValueError(f"{made_with} is missing; run stage 4 again")
    normaliser = Normaliser(json.loads(made_with.read_text("utf-8"))["policy"])
    return {
        utt_id: read_phones(text, normaliser)
        for utt_id, text in read_transcripts(folder / "ref.ipa").items()
    }


if __name__ == "__main__":
    main()
