#!/usr/bin/env python3
"""Stage 4: data/<set> -> dump/raw/<set>: filter, normalise, four examples each."""

import argparse
import logging
from pathlib import Path

from powsm.cli.options import add_limits, limits_of, number, sets_of, whole
from powsm.cli.run import run_command
from powsm.files.current import warn_of_former
from powsm.files.whole import naming
from powsm.phones import normaliser as ipa
from powsm.phones import orthography
from powsm.phones.unknown import MAX_UNKNOWN_RATE
from powsm.prepare.dump import DONE_FILE, Settings, prepare_set
from powsm.prepare.filters import check_languages
from powsm.prepare.index import build_index
from powsm.prepare.judge import LABELS, default_labels
from powsm.prepare.subset import SUBSET_HOURS
from powsm.tasks import TASKS

log = logging.getLogger("powsm")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the sets")
    add("--dump", type=Path, default=Path("dump/raw"), help="where sets are written")
    add("--sets", nargs="+", help="train dev test_x ...; all with a text.ipa if unset")
    add("--nj", type=whole(1), default=1, help="processes")
    add("--policy", choices=ipa.POLICIES, default="strict", help="of phones")
    add("--labels", choices=LABELS, help="of train, dev; default: as --policy was made")
    add("--text_policy", choices=orthography.POLICIES, default="powsm_fix")
    add_limits(parser)
    rate = {"type": number(0, 1), "default": MAX_UNKNOWN_RATE}
    add("--max_unknown_rate", **rate, help="of characters")
    add("--subset", choices=list(SUBSET_HOURS), help="of train, stratified by language")
    add("--seed", type=whole(), default=42, help="of the subset")
    add("--tasks", default=",".join(TASKS), help="comma-separated")


def run(args: argparse.Namespace) -> None:
    settings = Settings(
        policy=args.policy,
        text_policy=args.text_policy,
        limits=limits_of(args),
        max_unknown_rate=args.max_unknown_rate,
        subset=args.subset,
        seed=args.seed,
        tasks=tuple(args.tasks.split(",")),
        labels=args.labels or default_labels(args.policy),
    )
    sets = sets_of(args, "text.ipa")
    if not args.sets:
        warn_of_former(args.dump, DONE_FILE, sets, "not in --data now")
    if "train" in sets:  # before a set is written
        check_languages(args.data / "train", settings.limits)
    for dset in sets:
        with naming(args.dump / dset):
            outcome = prepare_set(args.data / dset, args.dump / dset, settings, args.nj)
            build_index(args.dump / dset)  # which no rank of a training waits for then
        if outcome is None:
            log.info("%s: current, nothing to do", dset)
            continue
        log.info("%s: %s", dset, outcome.counts.summary())
        if outcome.unknown.symbols:
            rate, top = outcome.unknown.rate, outcome.unknown.top(5)
            log.info("%s: %.3f %% unknown IPA: %s", dset, 100 * rate, top)


if __name__ == "__main__":
    run_command(Path(__file__).name, __doc__, add_options, run)
