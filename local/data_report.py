#!/usr/bin/env python3
"""Stage 2: validate every set of data/ and write data/report."""

import argparse
import logging
from pathlib import Path

from powsm.cli.options import add_limits, limits_of, sets_of, whole
from powsm.cli.run import run_command
from powsm.files.datadir import validate
from powsm.phones import normaliser as ipa
from powsm.phones import orthography
from powsm.prepare.audit.counts import audit_set, stage_1_record
from powsm.prepare.audit.report import write_report
from powsm.prepare.judge import LABELS, default_labels

log = logging.getLogger("powsm")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the sets")
    add("--out", type=Path, help="<data>/report if unset")
    add("--sets", nargs="+", help="train dev test_x ...; all with a text.ipa if unset")
    add("--policy", choices=ipa.POLICIES, default="strict", help="of phones")
    add("--labels", choices=LABELS, help="of train, dev; default: as --policy was made")
    add("--text_policy", choices=orthography.POLICIES, default="powsm_fix")
    add("--nj", type=whole(1), default=1, help="processes")
    add_limits(parser)


def run(args: argparse.Namespace) -> None:
    limits = limits_of(args)
    sets = sets_of(args, "text.ipa")
    for dset in sets:
        summary = validate(args.data / dset)
        log.info(
            "%s: valid, %s utterances, %s speakers, languages %s",
            dset,
            f"{summary.n_utts:,}",
            f"{summary.n_speakers:,}",
            " ".join(summary.langs),
        )
    labels = args.labels or default_labels(args.policy)
    how = (labels, args.policy, args.text_policy, limits)
    stats = {dset: audit_set(args.data / dset, args.nj, *how) for dset in sets}
    records = {dset: stage_1_record(args.data / dset) for dset in sets}
    folder = args.out or args.data / "report"
    files = write_report(folder, stats, records, limits)
    log.info("%s: %s", folder, " ".join(files))


if __name__ == "__main__":
    run_command(Path(__file__).name, __doc__, add_options, run)
