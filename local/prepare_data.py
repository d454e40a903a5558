#!/usr/bin/env python3
"""Stage 1: downloads/<corpus>_shar -> data/{train,dev,test_<corpus>}.

Reads cuts and tar headers; no audio is read, copied or decoded. Run it again after a
failure: finished shards stay. To share the shards among the tasks of a job array, run
it with `--shards 0/16` to `--shards 15/16`, then once with `--merge`.
"""

import argparse
from pathlib import Path

from powsm.cli.options import add_shared, add_shares
from powsm.cli.run import run_command
from powsm.corpora.shar import find_shards
from powsm.files.lock import owned
from powsm.files.whole import naming
from powsm.prepare.merge import merge_parts, sweep_parts
from powsm.prepare.shards import PARTS, load_parts, make_parts


def add_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--downloads", "--data", "--nj")
    parser.add_argument("--corpora", nargs="+", help="only these; default: all there")
    parser.add_argument("--skip_corpora", nargs="+", default=[], help="all but these")
    parser.add_argument(
        "--skip_bad_shards",
        action="store_true",
        help="go on without shards that cannot be used; prepare.json lists them",
    )
    add_shares(parser, "shard")


def run(args: argparse.Namespace) -> None:
    with naming(args.data):
        prepare(args)


def prepare(args: argparse.Namespace) -> None:
    shards = find_shards(args.downloads, args.corpora, args.skip_corpora)
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
    run_command(Path(__file__).name, __doc__, add_options, run)
