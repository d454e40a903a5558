#!/usr/bin/env python3
"""Make evaluation sets with human phone transcripts ready for decoding and scoring.

Each set is read from the folder its variable in db.sh names (TIMIT for test_timit, see
conf/tables/sets.yaml), or from --source. The folder holds the corpus as it is sold or
published, or a Kaldi folder as PRiSM publishes them (wav.scp, text.good, text.lang).
Writes <dump>/<set>, and <data>/eval/<set> with the corpus's own labels in text.raw.
"""

import argparse
import logging
import os
from pathlib import Path

from powsm.cli.options import number
from powsm.cli.run import run_command
from powsm.corpora.evaluation.dump_set import TEXT_POLICY
from powsm.corpora.evaluation.sets import prepare_eval_set
from powsm.errors import PowsmError
from powsm.phones.orthography import POLICIES
from powsm.phones.unknown import MAX_UNKNOWN_RATE
from powsm.report.paper.plan import size_faults
from powsm.report.paper.sets import SETS_FILE, load_sets

log = logging.getLogger("powsm")
ROOT = Path(__file__).resolve().parents[1]


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--set", nargs="+", required=True, help="test_timit, or timit for short")
    add("--source", type=Path, help="folder of one set; default: the set's variable")
    add("--data", type=Path, default=Path("data"), help="for the Kaldi folders")
    add("--dump", type=Path, default=Path("dump/raw"), help="where sets are decoded")
    add("--lang", help="language of a Kaldi folder in which no file says it")
    text_policy = "of the orthography: that of the model to be scored"
    add("--text_policy", choices=POLICIES, default=TEXT_POLICY, help=text_policy)
    incomplete = "make a smaller set of a copy that lacks parts of the corpus"
    add("--allow_incomplete", action="store_true", help=incomplete)
    unknown = "largest share of IPA characters that may be unknown"
    add("--max_unknown_rate", type=number(0, 1), default=MAX_UNKNOWN_RATE, help=unknown)


def run(options: argparse.Namespace) -> None:
    names = [f"test_{name.removeprefix('test_')}" for name in options.set]
    if options.source and len(names) > 1:
        raise PowsmError("--source is the folder of one set, the others need db.sh")
    sets = load_sets(ROOT / "conf/tables" / SETS_FILE)
    for name in names:
        known = sets.get(name)
        source = options.source or (known and known.source(os.environ))
        if source is None:
            way_out = "give --source"
            if known:
                variable = f"set {known.variable} in db.sh; " * bool(known.variable)
                way_out = f"{variable}{known.access}"
            raise PowsmError(f"{name}: where it lies is not known; {way_out}")
        made = prepare_eval_set(
            name,
            source,
            options.data,
            options.dump,
            lang=options.lang,
            text_policy=options.text_policy,
            max_unknown_rate=options.max_unknown_rate,
            allow_incomplete=options.allow_incomplete,
        )
        log.info("%s: %d utterances, %.2f h", name, made.n_utts, made.hours)
    for fault in size_faults(names, options.dump, sets):
        log.warning("%s", fault)


if __name__ == "__main__":
    run_command(Path(__file__).name, __doc__, add_options, run)
