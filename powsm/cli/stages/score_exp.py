#!/usr/bin/env python3
"""Stage 13: score everything an experiment decoded.

Reads <exp>/<profile>/<set>/<task>[_<decode>]/hyp.jsonl and the references of
<dump>/<set>. Writes <exp>/results.json, a list of records of whole sets and of each
language in them, and <exp>/results_by.csv, the same by corpus, speaker and duration.
"""

import argparse
import logging
from pathlib import Path

from powsm.prepare.dump import corpus_of
from powsm.score.phone_reader import CLEANINGS
from powsm.score.results import RESULTS_FILE, score_experiment

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
        n_records = score_experiment(
            options.exp,
            options.dump,
            cleaning=options.cleaning,
            unit=options.unit,
            corpus_of=_corpus_of,
        )
        log.info("%d records in %s", n_records, options.exp / RESULTS_FILE)
    except (ValueError, OSError) as err:
        raise SystemExit(f"score_exp.py: error: {err}") from err


def _corpus_of(utt_id: str) -> str:
    try:
        return corpus_of(utt_id)
    except ValueError:  # a set that stage 4 did not make
        return utt_id.partition("_")[0]


if __name__ == "__main__":
    main()
