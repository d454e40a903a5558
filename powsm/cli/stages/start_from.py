#!/usr/bin/env python3
"""Stage 5 with --init_from: vocabulary, weights and statistics of another model."""

import argparse
import logging
import sys
from pathlib import Path

from powsm.files.whole import naming
from powsm.model.find import MODEL_HELP
from powsm.model.start_from import start_from

log = logging.getLogger("start_from")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--init_from", required=True, help=MODEL_HELP)
    parser.add_argument("--dump_set", type=Path, required=True, help="dump/raw/train")
    parser.add_argument("--out", type=Path, required=True, help="folder to write in")
    parser.add_argument(
        "--extend_vocab",
        action="store_true",
        help="add languages, phones and letters that its tokens lack",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with naming(args.out):
        told = start_from(
            args.init_from, args.dump_set, args.out, extend_vocab=args.extend_vocab
        )
    log.info("%s: %s", args.out, told)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as err:
        sys.exit(f"start_from.py: error: {err}")
