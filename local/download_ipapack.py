#!/usr/bin/env python3
"""Stage 0: IPAPack++ from the hub -> downloads/<corpus>_shar/<split>/.

Files that are complete are not fetched again. A fault that can pass (a cut line, too
many requests) is tried again a few times with growing pauses; one that cannot (no such
repository, no access, no space, offline) ends the stage.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import filter_repo_objects

REPOSITORIES = tuple(f"anyspeech/ipapack_plus_{number}" for number in range(1, 7))
PASSING = {408, 429, 500, 502, 503, 504}  # HTTP states worth another try
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 600.0

log = logging.getLogger("download_ipapack")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--downloads", type=Path, default=Path("downloads"))
    add("--repositories", nargs="+", default=REPOSITORIES, help="data sets of the hub")
    add("--include", nargs="+", help="only these, such as 'fleurs_shar/*'")
    add("--exclude", nargs="+", help="all but these")
    add("--tries", type=int, default=8, help="of a repository, in a row")
    add("--nj", type=int, default=8, help="files at once")
    return parser.parse_args()


class IncompleteError(ValueError):
    """Files whose size here is not that of the hub."""


def is_passing(err: BaseException | None) -> bool:
    """Whether another try may do better; looks at the causes of an error, too."""
    while err is not None:
        if isinstance(err, OfflineModeIsEnabled):
            return False
        if isinstance(err, HfHubHTTPError):
            return err.response is not None and err.response.status_code in PASSING
        if isinstance(err, (IncompleteError, httpx.TransportError, TimeoutError)):
            return True
        err = err.__cause__
    return False


def with_tries(fetch: Callable[[], None], tries: int, pause=time.sleep) -> None:
    """Call `fetch` until it works, at most `tries` times.

    Raises:
        Exception: the last one of `fetch`, or the first that cannot pass.
    """
    for number in range(1, tries + 1):
        try:
            return fetch()
        except Exception as err:
            if number == tries or not is_passing(err):
                raise
            seconds = min(FIRST_PAUSE_S * 2 ** (number - 1), LONGEST_PAUSE_S)
            seconds *= random.uniform(0.5, 1.5)  # so that not all jobs come at once
            log.warning(
                "try %d of %d: %s; again in %.0f s", number, tries, err, seconds
            )
            pause(seconds)


def fetch(repository: str, args: argparse.Namespace) -> None:
    """Fetch what is missing of a repository, then compare every size with the hub's.

    The client has been seen to return part of a folder as success.

    Raises:
        IncompleteError: some files are not there or have another size.
    """
    snapshot_download(
        repository,
        repo_type="dataset",
        local_dir=args.downloads,
        allow_patterns=args.include,
        ignore_patterns=args.exclude,
        max_workers=args.nj,
    )
    tree = HfApi().list_repo_tree(repository, repo_type="dataset", recursive=True)
    wanted = filter_repo_objects(
        [entry for entry in tree if isinstance(entry, RepoFile)],
        allow_patterns=args.include,
        ignore_patterns=args.exclude,
        key=lambda entry: entry.path,
    )
    faults = []
    for entry in wanted:
        path = args.downloads / entry.path
        size = path.stat().st_size if path.exists() else 0
        if size != entry.size:
            faults.append(f"{entry.path}: {size} of {entry.size} bytes")
    if faults:
        raise IncompleteError(
            f"{len(faults)} incomplete files: {'; '.join(faults[:3])}"
        )


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for repository in args.repositories:
        log.info("%s -> %s", repository, args.downloads)
        try:
            with_tries(partial(fetch, repository, args), args.tries)
        except Exception as err:
            sys.exit(
                f"download_ipapack.py: error: {repository}: {type(err).__name__}: {err}"
            )


if __name__ == "__main__":
    main()
