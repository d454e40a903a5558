"""Recordings that a command is given: files, folders, standard input; and outputs."""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.audio_files import ENDINGS, printable, recordings_in
from powsm.cli.options import MODEL, add_shared, refuse_unused
from powsm.errors import PowsmError
from powsm.files.text import read_text

if TYPE_CHECKING:
    from powsm.decode.recordings.model import Model

log = logging.getLogger(__name__)

STDIN = "-"
DEFAULT_MODEL = "espnet/powsm"


class RecordingsError(PowsmError):
    """Recordings or outputs that cannot be told apart, or are missing."""


@dataclass(frozen=True)
class Source:
    """A recording to read.

    Attributes:
        path: the file; `-` is standard input.
        below: its path below the folder that was named, without its ending.
        is_namesake: another recording of the command differs by folder or ending alone.
    """

    path: Path
    below: Path
    is_namesake: bool = False

    @property
    def is_stdin(self) -> bool:
        return str(self.path) == STDIN

    @property
    def name(self) -> str:
        """What results call it; no other recording of the command has this name."""
        if self.is_stdin:
            return "stdin"
        return str(self.path) if self.is_namesake else self.below.name


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --model and --device."""
    what = f"{MODEL}; default: $POWSM_MODEL, else {DEFAULT_MODEL}"
    parser.add_argument("--model", help=what)
    add_shared(parser, "--model_file")
    device = "auto (a GPU where there is one), cpu or cuda"
    parser.add_argument("--device", default="auto", help=device)


def model_of(options: argparse.Namespace) -> str:
    return options.model or os.environ.get("POWSM_MODEL") or DEFAULT_MODEL


def load_model(options: argparse.Namespace) -> "Model":
    """The model of `add_model`, loaded without what decoding does not need."""
    from powsm.model.light import import_espnet

    import_espnet()
    from powsm.decode.recordings.model import load

    return load(model_of(options), options.device, options.model_file)


def sources_of(paths: Iterable[str]) -> list[Source]:
    """Every recording that is named, and those in folders that are, in order.

    A missing path is left to whoever reads it.

    Raises:
        RecordingsError: a folder without recordings, or no names.
    """
    sources: dict[str, Source] = {}
    for name in paths:
        path = Path(name)
        if name != STDIN and path.is_dir():
            inside = list(recordings_in(path, onerror=_raise))
            if not inside:
                raise RecordingsError(
                    f"{printable(path)}: no recordings in this folder; they are known "
                    f"by endings such as {' '.join(sorted(ENDINGS)[:6])}"
                )
            for file in inside:
                below = file.relative_to(path).with_suffix("")
                sources.setdefault(os.path.abspath(file), Source(file, below))
        elif name == STDIN:
            sources.setdefault(STDIN, Source(Path(STDIN), Path("stdin")))
        else:
            below = Path(path.stem or path.name)
            sources.setdefault(os.path.abspath(path), Source(path, below))
    names = Counter(source.below.name for source in sources.values())
    return [
        replace(source, is_namesake=names[source.below.name] > 1)
        for source in sources.values()
    ]


def _raise(err: OSError) -> None:
    raise err


def results_go_to(
    options: argparse.Namespace, sources: Sequence[Source], ending: str
) -> dict[Source, Path]:
    """The file to write for each recording; none where results go to standard output.

    Raises:
        PowsmError: two recordings have the same file, or --force has none.
    """
    if options.format is None and options.out is None:
        why = "no file is written without --format or --out"
        refuse_unused(options, "force", why=why)
        return {}
    return targets_of(sources, options.out, ending)


def targets_of(
    sources: Sequence[Source], out: Path | None, ending: str
) -> dict[Source, Path]:
    """The file to write for each recording: beside it, or below `out`.

    Two recordings that differ in their endings alone keep them: `a.wav.txt`.

    Raises:
        RecordingsError: two recordings would be written to one file.
    """

    def place(source: Source) -> Path:
        if out is not None:
            return out / source.below
        return Path.cwd() / source.name if source.is_stdin else _stem(source.path)

    places = {source: place(source) for source in sources}
    shared = Counter(places.values())
    targets = {}
    for source, path in places.items():
        kept = source.path.suffix if shared[path] > 1 else ""
        targets[source] = path.with_name(path.name + kept + ending)
    by_target: dict[Path, Source] = {}
    for source, target in targets.items():
        other = by_target.setdefault(target, source)
        if other is not source:
            raise RecordingsError(
                f"{printable(other.path)} and {printable(source.path)} would both be "
                f"{printable(target)}; name the folder above them, or call it twice"
            )
    return targets


def _stem(path: Path) -> Path:
    return path.with_name(path.stem or path.name)


def text_of(source: Source, ending: str) -> str | None:
    """The text file beside a recording; None where there is none.

    Raises:
        TextFileError: it is not UTF-8.
    """
    path = source.path.with_suffix(ending)
    return None if source.is_stdin or not path.is_file() else read_text(path)


def is_same(path: Path, other: Path) -> bool:
    """Whether two names, one of them perhaps through a link, are of one place."""
    return os.path.realpath(path) == os.path.realpath(other)


def say_done(done: Mapping[Path, Sequence[Path]], n_sources: int) -> None:
    """Say how many outputs are there, and which are older than what they are of.

    They stay: somebody may have corrected them by hand.

    Args:
        done: outputs, and what each was made of.
        n_sources: recordings in all.
    """
    if not done:
        return
    log.info(
        "%d of %d are done, with these options or others, or have a file of that name "
        "by you, such as %s; --force writes over them",
        *(len(done), n_sources, printable(next(iter(done)))),
    )
    stale = [path for path, of in done.items() if any(_is_older(path, p) for p in of)]
    if stale:
        log.warning(
            "%d of them are older than their recording or text, such as %s",
            *(len(stale), printable(stale[0])),
        )


def _is_older(path: Path, other: Path) -> bool:
    if not path.exists() or not other.exists():
        return False
    return path.stat().st_mtime_ns < other.stat().st_mtime_ns


def read_stdin() -> bytes:
    """All of standard input.

    Raises:
        RecordingsError: it is a terminal, or empty.
    """
    if sys.stdin.isatty():
        raise RecordingsError("-: standard input is a terminal, expected audio in it")
    data = sys.stdin.buffer.read()
    if not data:
        raise RecordingsError("-: nothing came on standard input, expected audio")
    return data


class Faults:
    """The recordings that could not be used, each named once when it is met."""

    def __init__(self, n_recordings: int):
        self.n_recordings = n_recordings
        self.first: str | None = None
        self.n = 0

    def add(self, fault: object) -> None:
        self.n += 1
        self.first = self.first or str(fault)
        if self.n_recordings > 1:  # of one, the end says it
            log.warning("%s", fault)

    def end(self) -> None:
        """Say how many; the status of the command is then not 0.

        Raises:
            RecordingsError: there were any.
        """
        if self.n and self.n_recordings == 1:
            raise RecordingsError(self.first)
        if self.n:
            raise RecordingsError(
                f"{self.n} of {self.n_recordings} recordings could not be used, see "
                "above"
            )


def place_of(source: Source) -> tuple[str, bytes | None]:
    """Where its samples are, and its bytes where it is standard input."""
    if source.is_stdin:
        return STDIN, read_stdin()
    # a name of the form of a place in an archive is a name here
    return os.path.join(".", source.path), None


def is_quiet() -> bool | None:
    """Progress is for a terminal, and not for one that shows the results."""
    return True if sys.stdout.isatty() or not sys.stderr.isatty() else None


def is_there(source: Source, faults: Faults) -> bool:
    """Whether a file can be opened, before a model is loaded for it."""
    if source.is_stdin:
        return True
    try:
        with open(source.path, "rb"):
            return True
    except OSError as err:
        faults.add(f"{printable(source.path)}: cannot be read ({err.strerror})")
        return False
