#!/usr/bin/env python3
"""Stage 0 of the mini recipe: Debian packages -> downloads/<corpus>_shar.

Needs no root. Packages that are there and intact are not fetched again, and a corpus
that is complete is left alone: a second run ends at once.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from powsm.corpora.small import asterisk, espeak, gnomehelp, tuxpaint
from powsm.corpora.small.packages import fetch_packages, unpack
from powsm.corpora.small.write_shar import is_current, write_corpus
from powsm.corpora.table import SHAR_SUFFIX
from powsm.files.lock import owned

BUILDERS = {"asterisk": asterisk, "tuxpaint": tuxpaint, "gnomehelp": gnomehelp}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument(
        "--corpora",
        default="asterisk",
        help=f"names with commas between, of: {', '.join(BUILDERS)}",
    )
    parser.add_argument(
        "--corpus_dir",
        type=Path,
        help="folder with the unpacked packages (it holds usr/share): nothing is "
        "fetched. For machines without apt-get and dpkg-deb",
    )
    parser.add_argument("--seed", type=int, default=0, help="of train, dev and test")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    names = args.corpora.split(",")
    if unknown := [name for name in names if name not in BUILDERS]:
        parser.error(f"--corpora: no {unknown}; there is {', '.join(BUILDERS)}")
    try:
        for name in names:
            build(name, args.downloads, args.corpus_dir, args.seed)
    except (ValueError, OSError) as err:
        sys.exit(f"download_mini.py: error: {err}")


def build(name: str, downloads: Path, corpus_dir: Path | None, seed: int) -> None:
    """Make `downloads/<name>_shar` unless it is there."""
    builder = BUILDERS[name]
    folder = downloads / f"{name}{SHAR_SUFFIX}"
    settings = {
        "corpus": name,
        "revision": builder.REVISION,
        "packages": [package.file_name for package in builder.PACKAGES],
        "seed": seed,
        "espeak-ng": espeak.version(),
    }
    with owned(folder):
        if is_current(folder, settings):
            logging.info("%s is complete: nothing to do", folder)
        else:
            _build(folder, builder, corpus_dir, settings)


def _build(folder: Path, builder, corpus_dir: Path | None, settings: dict) -> None:
    downloads = folder.parent
    megabytes = sum(package.size for package in builder.PACKAGES) / 1e6
    logging.info(
        "%s: %s",
        folder,
        builder.ESTIMATE
        if corpus_dir
        else f"fetching {megabytes:.0f} MB, {builder.ESTIMATE}",
    )
    prefix = f".unpacked-{settings['corpus']}-"
    for left in downloads.glob(f"{prefix}*"):  # of runs that were killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=prefix) as root:
        if corpus_dir is None:
            unpack(fetch_packages(builder.PACKAGES, downloads / "deb"), Path(root))
        selection = builder.select(corpus_dir or Path(root), settings["seed"])
        write_corpus(folder, selection.splits, settings)
    logging.info("%s\n%s", folder, selection.table())


if __name__ == "__main__":
    main()
