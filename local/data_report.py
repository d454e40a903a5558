#!/usr/bin/env python3
"""Stage 2: validate every set of data/ and write data/report."""

import argparse
import logging
import sys
from pathlib import Path

from powsm.files.datadir import validate
from powsm.prepare.audit.counts import audit_set, stage_1_record
from powsm.prepare.audit.report import write_report

log = logging.getLogger("data_report")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the sets")
    add("--out", type=Path, help="<data>/report if unset")
    add("--sets", nargs="+", help="train dev test_x ...; all with a text.ipa if unset")
    add("--nj", type=int, default=1, help="processes")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    found = sorted(path.parent.name for path in args.data.glob("*/text.ipa"))
    sets = args.sets or found
    if not sets:
        raise ValueError(f"{args.data}: no set with a text.ipa; run stage 1 first")
    for dset in sets:
        summary = validate(args.data / dset)
        log.info(
            "%s: valid, %s utterances, %s speakers, languages %s",
            dset,
            f"{summary.n_utts:,}",
            f"{summary.n_speakers:,}",
            " ".join(summary.langs),
        )
    stats = {dset: audit_set(args.data / dset, args.nj) for dset in sets}
    records = {dset: stage_1_record(args.data / dset) for dset in sets}
    folder = args.out or args.data / "report"
    files = write_report(folder, stats, records)
    log.info("%s: %s", folder, " ".join(files))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as err:
        sys.exit(f"data_report.py: error: {err}")
