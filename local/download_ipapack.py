#!/usr/bin/env python3
"""Stage 0: IPAPack++ from the hub -> downloads/<corpus>_shar/<split>/.

Files that are here with their size are not fetched again, so a copy of one's own is
used as it is. A fault that can pass (a cut line, too many requests) is tried again with
growing pauses; one that cannot (no such data set, no access, no space, offline) ends
the stage, and so does the last try. The next run goes on inside the file.
"""

import argparse
import logging
from pathlib import Path

from powsm.cli.options import number, refuse_unused, whole
from powsm.cli.run import run_command
from powsm.corpora.ipapack import (
    REPOSITORIES,
    download,
    find_faults,
    read_manifest,
    select,
    update_manifest,
)
from powsm.hub import HubError, Patience, list_files

log = logging.getLogger("powsm")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--downloads", type=Path, default=Path("downloads"))
    add("--source", choices=sorted(REPOSITORIES), default="raw", help="which data sets")
    add("--repositories", nargs="+", help="data sets of the hub, in place of --source")
    wanted = {"nargs": "+", "action": "extend", "default": []}
    add("--include", **wanted, help="corpora, such as 'mls_*' or 'fleurs/hi_in-*'")
    add("--exclude", **wanted, help="all but these")
    add("--nj", type=whole(1), default=8, help="files at once")
    add(
        "--tries",
        type=whole(1),
        default=Patience.tries,
        help="of each file, in a row that bring nothing new",
    )
    add(
        "--first_pause",
        type=number(),
        default=Patience.first_pause_s,
        help="seconds after the first try; doubled after each",
    )
    add(
        "--verify",
        action="store_true",
        help="fetch nothing: read every byte of what earlier runs were asked for",
    )


def verify(args: argparse.Namespace) -> None:
    """Compare what is here with the manifests."""
    files = select(read_manifest(args.downloads), args.include, args.exclude)
    log.info("%s: reading %d files", args.downloads, len(files))
    faults = 0
    for fault in find_faults(files, args.downloads, hashes=True, nj=args.nj):
        log.error("%s", fault)
        faults += 1
    if faults:
        raise HubError(f"{faults} of {len(files)} files are not as on the hub")
    log.info("all %d files are as on the hub", len(files))


def fetch(args: argparse.Namespace) -> None:
    patience = Patience(tries=args.tries, first_pause_s=args.first_pause)
    listed = []
    for repository in args.repositories or REPOSITORIES[args.source]:
        files = list_files(repository, patience)
        size = sum(file.size for file in files)
        log.info("%s: %d files, %.1f GB", repository, len(files), size / 1e9)
        listed += files
    chosen = select(listed, args.include, args.exclude)
    try:
        update_manifest(args.downloads, listed, chosen)
    except OSError as err:  # a complete copy may be one that only its owner writes
        log.warning("no manifest is kept: %s", err)
    fetched = download(chosen, args.downloads, nj=args.nj, patience=patience)
    log.info("%d files, %d of them fetched now", len(chosen), fetched)


def run(args: argparse.Namespace) -> None:
    refuse_unused(
        args,
        "source",
        why="--repositories takes its place",
        unless=not args.repositories,
    )
    (verify if args.verify else fetch)(args)


if __name__ == "__main__":
    run_command(Path(__file__).name, __doc__, add_options, run)
