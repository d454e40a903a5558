#!/usr/bin/env python3
"""Stage 0 of the mini recipe: Debian packages -> downloads/<corpus>_shar.

A corpus that no package brings is named by a folder (--mboshi, --speechocean762) and
left out without.

Needs no root. Packages that are there and intact are not fetched again, and a corpus
that is complete is left alone: a second run ends at once.
"""

import argparse
import logging
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from powsm.cli.options import whole
from powsm.cli.run import run_command
from powsm.corpora.shar import find_shards, read_shard
from powsm.corpora.small import (
    asterisk,
    espeak,
    gnomehelp,
    gnomeworld,
    mboshi,
    speechocean,
    stampworld,
    tuxpaint,
    voices,
)
from powsm.corpora.small.held_out import hold_out
from powsm.corpora.small.packages import fetch_packages, unpack
from powsm.corpora.small.write_shar import is_current, write_corpus
from powsm.corpora.table import SHAR_SUFFIX
from powsm.errors import PowsmError
from powsm.files.lock import owned
from powsm.languages import lang_code

log = logging.getLogger("powsm")
BUILDERS = {
    "asterisk": asterisk,
    "tuxpaint": tuxpaint,
    "gnomehelp": gnomehelp,
    "gnomeworld": gnomeworld,
    "stampworld": stampworld,
    "voices": voices,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument(
        "--corpora",
        type=corpora,
        default="asterisk",
        help=f"names with commas between, of: {', '.join(BUILDERS)}",
    )
    parser.add_argument(
        "--corpus_dir",
        type=Path,
        help="folder with the unpacked packages (it holds usr/share): nothing is "
        "fetched. For machines without apt-get and dpkg-deb",
    )
    parser.add_argument(
        "--seed", type=whole(), default=0, help="of train, dev and test"
    )
    parser.add_argument("--mboshi", type=Path, help="the Mboshi corpus, for training")
    parser.add_argument(
        "--speechocean762", type=Path, help="that corpus: its own training part"
    )
    parser.add_argument(
        "--dev_langs",
        type=languages,
        default=[],
        help="ISO 639-3 codes with commas between: for dev alone, which has no others",
    )
    parser.add_argument(
        "--test_langs",
        type=languages,
        default=[],
        help="ISO 639-3 codes with commas between: all their speech is for test",
    )
    parser.add_argument(
        "--test_speakers",
        type=lambda text: text.split(","),
        default=[],
        help="all they said is for test, as volunteer-cat",
    )


def corpora(text: str) -> list[str]:
    """Names with commas between."""
    names = text.split(",")
    if unknown := [name for name in names if name not in BUILDERS]:
        message = f"no {' '.join(unknown)}; there is {', '.join(BUILDERS)}"
        raise argparse.ArgumentTypeError(message)
    return names


def languages(text: str) -> list[str]:
    """Codes with commas between."""
    codes = text.split(",")
    if unknown := [code for code in codes if lang_code(code) != code]:
        message = f"{' '.join(unknown)}: no ISO 639-3 code"
        hints = [known for code in unknown if (known := lang_code(code))]
        message += f"; did you mean {' '.join(hints)}?" if hints else ""
        raise argparse.ArgumentTypeError(message)
    return codes


def run(args: argparse.Namespace) -> None:
    names = ("dev_langs", "test_langs", "test_speakers")
    held_out = {name: getattr(args, name) for name in names if getattr(args, name)}
    if twice := set(args.dev_langs) & set(args.test_langs):
        raise PowsmError(
            f"--dev_langs and --test_langs: {' '.join(sorted(twice))} in both; a "
            "language is for one of them alone"
        )
    sources = [(name, BUILDERS[name], args.corpus_dir) for name in args.corpora]
    named = (("mboshi", mboshi), ("speechocean762", speechocean))
    sources += [
        (name, b, getattr(args, name)) for name, b in named if getattr(args, name)
    ]
    for name, builder, folder in sources:
        build(name, builder, args.downloads, folder, args.seed, held_out)
    there = languages_and_speakers(args.downloads) if held_out else set()
    for option, names in held_out.items():
        if absent := [name for name in names if name not in there]:
            log.warning("--%s: there is no speech of %s", option, " ".join(absent))


def build(
    name: str,
    builder,
    downloads: Path,
    corpus_dir: Path | None,
    seed: int,
    held_out: dict[str, list[str]],
) -> None:
    """Make `downloads/<name>_shar` unless it is there."""
    folder = downloads / f"{name}{SHAR_SUFFIX}"
    settings = {
        "corpus": name,
        "revision": builder.REVISION,
        "packages": [package.file_name for package in builder.PACKAGES],
        "seed": seed,
        "espeak-ng": espeak.version(),
        **held_out,
    }
    with owned(folder):
        if is_current(folder, settings):
            log.info("%s is complete: nothing to do", folder)
        else:
            _build(folder, builder, corpus_dir, settings, held_out)


def languages_and_speakers(downloads: Path) -> set[str]:
    """Those of all corpora in a folder."""
    shards = find_shards(downloads)
    said = [u for shard in shards for u in read_shard(shard, Counter())]
    speakers = {u.speaker.removeprefix(f"{u.corpus}_") for u in said}
    return speakers | {u.lang for u in said}


def _build(
    folder: Path, builder, corpus_dir: Path | None, settings: dict, held_out: dict
) -> None:
    downloads = folder.parent
    megabytes = sum(package.size for package in builder.PACKAGES) / 1e6
    log.info(
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
        if held_out:
            selection = hold_out(selection, **held_out)
        write_corpus(folder, selection.splits, settings)
    log.info("%s\n%s", folder, selection.table())


if __name__ == "__main__":
    run_command(Path(__file__).name, __doc__, add_options, run)
