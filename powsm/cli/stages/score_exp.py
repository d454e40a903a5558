"""Stage 13: score everything an experiment decoded.

Reads <exp>/<profile>/<set>/<task>[_<decode>]/hyp.jsonl and the references of
<dump>/<set>. Writes <exp>/results.json, a list of records of whole sets and of each
language in them, and <exp>/results_by.csv, the same by corpus, speaker and duration.
"""

import argparse
import logging

from powsm.cli.options import add_shared
from powsm.score.phone_reader import CLEANINGS

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--exp", "--dump")
    add = parser.add_argument
    cleaning = "how text becomes phones; default: the policy the set was made with"
    add("--cleaning", choices=CLEANINGS, help=cleaning)
    add("--unit", choices=("utterance", "speaker"), default="utterance")


def run(options: argparse.Namespace) -> None:
    from powsm.files.lock import owned
    from powsm.files.whole import sweep_files
    from powsm.score.results import PARTS_FILE, RESULTS_FILE, score_experiment

    with owned(options.exp / RESULTS_FILE):
        sweep_files(options.exp, below=False, of=(RESULTS_FILE, PARTS_FILE))
        n_records = score_experiment(
            options.exp,
            options.dump,
            cleaning=options.cleaning,
            unit=options.unit,
            corpus_of=_corpus_of,
        )
    log.info("%d records in %s", n_records, options.exp / RESULTS_FILE)


def _corpus_of(utt_id: str) -> str:
    from powsm.prepare.judge import corpus_of

    try:
        return corpus_of(utt_id)
    except ValueError:  # a set that stage 4 did not make
        return utt_id.partition("_")[0]
