#!/usr/bin/env python3
"""Stage 1: downloads/<corpus>_shar -> data/{train,dev,test_<corpus>}.

Reads cuts and tar headers; no audio is read, copied or decoded. Run it again after a
failure: finished shards stay. To share the shards among the tasks of a job array, run
it with `--shards 0/16` to `--shards 15/16`, then once with `--merge`.
"""

import argparse
import logging
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from powsm.corpora.shar import find_shards
from powsm.files.lock import owned
from powsm.files.whole import naming
from powsm.prepare.merge import merge_parts, sweep_parts
from powsm.prepare.shards import PARTS, load_parts, make_parts


def share(text: str) -> tuple[int, int]:
    """`3/16` -> (3, 16)."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0/16 ... 15/16")
    return int(index), int(count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--downloads", type=Path, default="downloads")
    parser.add_argument("--data", type=Path, default="data")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--corpora", nargs="+", help="only these; default: all there")
    parser.add_argument(
        "--skip_bad_shards",
        action="store_true",
        help="go on without shards that cannot be used; prepare.json lists them",
    )
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument(
        "--shards", type=share, metavar="I/N", help="every N-th shard, without merging"
    )
    steps.add_argument("--merge", action="store_true", help="merge finished shards")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        with naming(args.data):
            prepare(args)
    except (ValueError, OSError, BrokenProcessPool) as err:
        sys.exit(f"prepare_data.py: error: {err}")


def prepare(args: argparse.Namespace) -> None:
    shards = find_shards(args.downloads, args.corpora)
    skip = args.skip_bad_shards
    if args.shards is not None:
        first, step = args.shards
        make_parts(shards[first::step], args.data, nj=args.nj, skip_bad_shards=skip)
        return
    with owned(args.data / PARTS):
        sweep_parts(args.data)
        if args.merge:
            parts = load_parts(shards, args.data, skip_bad_shards=skip)
        else:
            parts = make_parts(shards, args.data, nj=args.nj, skip_bad_shards=skip)
        merge_parts(parts, args.data)


if __name__ == "__main__":
    main()
