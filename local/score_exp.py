#!/usr/bin/env python3
"""Stage 13: score everything an experiment decoded.

Reads <exp>/<profile>/<set>/<task>[_<decode>]/hyp.jsonl and the references of
<dump>/<set>. Writes <exp>/results.json, a list of records of whole sets and of each
language in them, and <exp>/results_by.csv, the same by corpus, speaker and duration.
"""

import argparse
import csv
import json
import logging
from pathlib import Path

from powsm.audio import SAMPLE_RATE
from powsm.files.transcripts import read_transcripts
from powsm.files.whole import atomic_write
from powsm.prepare.dump import corpus_of
from powsm.score.metrics import score_lid, score_phones, score_text
from powsm.score.phone_reader import CLEANINGS
from powsm.score.rates import Scores, duration_labels
from powsm.tasks import DECODED_TASKS, LANGUAGE, PHONES, TEXT

PART_FIELDS = "profile set task decode by label metric value low high n_utts n_units"

log = logging.getLogger("score_exp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--exp", type=Path, required=True, help="experiment folder")
    add("--dump", type=Path, required=True, help="dump/raw")
    cleaning = "how text becomes phones; default: the policy the set was made with"
    add("--cleaning", choices=CLEANINGS, default=None, help=cleaning)
    add("--unit", choices=("utterance", "speaker"), default="utterance")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run(options)
    except (ValueError, OSError) as err:
        raise SystemExit(f"score_exp.py: error: {err}") from err


def run(options: argparse.Namespace) -> None:
    hyp_paths = sorted(options.exp.glob("*/*/*/hyp.jsonl"))
    if not hyp_paths:
        raise ValueError(f"{options.exp}: no */*/*/hyp.jsonl; run stage 12 first")
    records, parts = [], []
    for hyp_path in hyp_paths:
        profile, set_name, tag = hyp_path.relative_to(options.exp).parts[:3]
        task, _, decode = tag.partition("_")
        scores = score(hyp_path, options.dump / set_name, task, options.cleaning)
        rows = scores.records(
            set_name=set_name,
            task=task,
            decode=decode or "attention",  # languages are what the decoder says first
            unit=options.unit,
        )
        records += [{**row, "profile": profile} for row in rows]
        where = {"profile": profile, "set": set_name, "task": task, "decode": decode}
        for by, labels in labels_of(options.dump / set_name, scores).items():
            for label, part in scores.by(labels).items():
                place = {**where, "by": by, "label": label}
                parts += [{**place, **row} for row in part.rate_rows(options.unit)]
        values = " ".join(f"{rate} {v:.2f}" for rate, v in scores.values.items())
        log.info(
            "%s %s %s: %s (%d utterances)", profile, set_name, tag, values, len(scores)
        )
    with atomic_write(options.exp / "results.json") as file:
        json.dump(records, file, ensure_ascii=False, indent=1)
        file.write("\n")
    with atomic_write(options.exp / "results_by.csv") as file:
        writer = csv.DictWriter(file, PART_FIELDS.split(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(parts)
    log.info("%d records in %s", len(records), options.exp / "results.json")


def labels_of(folder: Path, scores: Scores) -> dict[str, dict[str, str]]:
    """What scores are broken down by: kind -> label of each utterance."""
    n_samples = by_utterance(folder / "utt2num_samples")
    durations_s = {
        utt_id: int(n_samples[utt_id]) / SAMPLE_RATE for utt_id in scores.utt_ids
    }
    labels = {
        "corpus": {utt_id: _corpus_of(utt_id) for utt_id in scores.utt_ids},
        "duration": duration_labels(durations_s),
    }
    if scores.speakers != scores.utt_ids:  # the speaker of an utterance is known
        labels["speaker"] = dict(zip(scores.utt_ids, scores.speakers, strict=True))
    return labels


def _corpus_of(utt_id: str) -> str:
    try:
        return corpus_of(utt_id)
    except ValueError:  # a set that stage 4 did not make
        return utt_id.partition("_")[0]


def score(hyp_path: Path, folder: Path, task: str, cleaning: str | None) -> Scores:
    """Score one hypothesis file against the references of its set."""
    hyp = read_transcripts(hyp_path)
    langs = by_utterance(folder / "utt2lang")
    speakers = by_utterance(folder / "utt2spk")
    writes = DECODED_TASKS[task].writes if task in DECODED_TASKS else None
    if writes == LANGUAGE:
        with open(hyp_path, encoding="utf-8") as file:
            rows = map(json.loads, file)
            likeliest = {row["utt_id"]: [*row.get("languages", ())] for row in rows}
        return score_lid(hyp=hyp, ref=langs, likeliest=likeliest, speakers=speakers)
    if writes == PHONES:
        made_with = json.loads((folder / "normaliser.json").read_text("utf-8"))
        return score_phones(
            hyp=hyp,
            ref=read_transcripts(folder / "ref.ipa"),
            langs=langs,
            speakers=speakers,
            cleaning=cleaning or made_with["policy"],
        )
    if writes == TEXT:
        ref = read_transcripts(folder / "ref.text")
        return score_text(hyp=hyp, ref=ref, langs=langs, speakers=speakers)
    raise ValueError(
        f"{hyp_path}: task {task!r} has no score; known: {' '.join(DECODED_TASKS)}"
    )


def by_utterance(path: Path) -> dict[str, str]:
    """Values of a file with a line an example (`<utt_id>_<task>`), by utt_id."""
    return {
        example_id.removesuffix("_pr"): value
        for example_id, value in read_transcripts(path).items()
        if example_id.endswith("_pr")
    }


if __name__ == "__main__":
    main()
