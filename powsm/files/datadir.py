"""Read, write and validate data directories: a file per property, a line per utterance.

Every file holds `utt_id value` lines, sorted by bytes (`LC_ALL=C sort`) and unique, so
that files can be walked side by side without holding any of them in memory. An empty
value (a transcript that says nothing) is the utt_id alone.
"""

import codecs
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tqdm import tqdm

from powsm.errors import PowsmError
from powsm.files.sort import count_values
from powsm.files.whole import atomic_write

# Speakers are in `utt2speaker`. Kaldi wants `utt2spk` in the same order by speaker
# and by utterance, which it is not where ids begin with the corpus: there, and in
# `spk2utt`, every utterance is a speaker of its own (`write_kaldi_speakers`).
KALDI_SPEAKERS = ("utt2spk", "spk2utt")
# One line an utterance in each.
UTTERANCE_FILES = (
    "wav.scp",
    "text",
    "text.ipa",
    "utt2lang",
    "utt2speaker",
    "utt2num_samples",
)
# IPAPack++'s simplified form of `text.ipa`; a line may have no value
CLEAN_LABELS = "text.ipa_clean"
# IPA of dev and test sets before any normalising; the paper's tables score against it
RAW_REFERENCES = "ref.raw.ipa"
# What of its corpus a set of `dump/raw` lacks: `left_out` by reason, `missing` parts
SET_FILE = "set.json"
# How the phones and texts of a set, or of a model's training set, were normalised
NORMALISER_FILE = "normaliser.json"
# The same for the task-prompted examples of `dump/raw`.
EXAMPLE_FILES = (
    "wav.scp",
    "text",
    "text.prev",
    "text.ctc",
    "utt2lang",
    "utt2speaker",
    "utt2num_samples",
)
# `eng\r` is no language, and `a.wav\r` no file
CRLF_FAULT = "the line ends in CR LF, as on Windows; save the file with LF alone"
_LANG = re.compile(r"[a-z]{3}")


class DataDirError(PowsmError):
    """A data directory that breaks the rules; the message names file and line."""


@dataclass(frozen=True)
class DataDirSummary:
    """What `validate` counted."""

    n_utts: int
    n_samples: int
    n_speakers: int
    langs: tuple[str, ...]


def read_scp(path: Path) -> Iterator[tuple[str, str]]:
    """Stream the `(key, value)` pairs of a file; a value may be empty.

    Raises:
        DataDirError: a line without key, out of order, given twice, or not UTF-8.
        FileNotFoundError: no such file.
    """
    previous = ""
    number = 0
    # Lines end at "\n" alone: a transcript may hold U+2028, "\r" or other line breaks.
    with open(path, "rb") as data:
        if data.peek(3).startswith(codecs.BOM_UTF8):
            raise DataDirError(f"{path}:1: a byte order mark; save it without one")
        file = io.TextIOWrapper(data, encoding="utf-8", newline="\n")
        try:
            for number, line in enumerate(file, 1):
                key, _, value = line.removesuffix("\n").partition(" ")
                if key <= previous:
                    raise DataDirError(_order_fault(f"{path}:{number}", key, previous))
                previous = key
                yield key, value
        except UnicodeDecodeError as err:
            raise DataDirError(
                f"{path}:{number + 1}: not UTF-8 text at or after this line ({err})"
            ) from err


def write_scp(path: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write `(key, value)` pairs, sorted and unique already: all of them or no file.

    Returns:
        Number of lines.

    Raises:
        DataDirError: rows out of order, white space in a key, line break in a value.
    """
    previous = ""
    n_rows = 0
    with atomic_write(path) as file:
        for key, value in rows:
            if key <= previous:
                raise DataDirError(_order_fault(str(path), key, previous))
            if "\n" in value or " " in key or "\t" in key or "\n" in key:
                raise DataDirError(
                    f"{path}: {key!r} {value!r} does not fit on one line"
                )
            previous = key
            file.write(f"{key} {value}\n" if value else f"{key}\n")
            n_rows += 1
    return n_rows


def write_kaldi_speakers(directory: Path) -> None:
    """Write `utt2spk` and `spk2utt` for the ids of `utt2speaker`."""
    for name in KALDI_SPEAKERS:
        ids = (utt_id for utt_id, _ in read_scp(directory / "utt2speaker"))
        write_scp(directory / name, ((utt_id, utt_id) for utt_id in ids))


def validate(directory: Path, files: Sequence[str] = UTTERANCE_FILES) -> DataDirSummary:
    """Check a data directory: sorted, unique, the same keys in every file.

    Memory does not grow with the number of utterances or speakers.

    Args:
        directory: holds `files`, `utt2spk` and `spk2utt`.
        files: `UTTERANCE_FILES` or `EXAMPLE_FILES`. Only a `text` of the former may be
            empty.

    Raises:
        DataDirError: the first fault, by file and line.
    """
    directory = Path(directory)
    files = (*files, *KALDI_SPEAKERS)
    missing = [name for name in files if not (directory / name).is_file()]
    if missing:
        raise DataDirError(
            f"{directory}: no {' '.join(missing)}; rerun the stage that makes it"
        )
    n_utts = n_samples = 0
    langs: set[str] = set()
    may_be_empty = {"text"} if "text.ipa" in files else set()
    with ExitStack() as stack:
        columns = [read_scp(directory / name) for name in files]
        for column in columns:
            stack.callback(column.close)
        rows = zip_longest(*columns, fillvalue=(None, ""))
        for row in tqdm(rows, desc=f"validate {directory}", unit="utt", disable=None):
            utt_id = row[0][0]
            n_utts += 1
            for name, (key, _) in zip(files, row, strict=True):
                if key != utt_id:
                    raise DataDirError(
                        f"{directory / name}:{n_utts}: found {_shown(key)}, expected "
                        f"{_shown(utt_id)} as in {files[0]}; all files need the same "
                        "keys: rerun the stage that makes them"
                    )
            values = {name: value for name, (_, value) in zip(files, row, strict=True)}
            for name, value in values.items():
                if not value.strip() and name not in may_be_empty:
                    raise DataDirError(
                        f"{directory / name}:{n_utts}: no value after {utt_id!r}"
                    )
                if value.endswith("\r"):
                    raise DataDirError(f"{directory / name}:{n_utts}: {CRLF_FAULT}")
            count = values["utt2num_samples"]
            if not count.isdecimal() or int(count) == 0:
                raise DataDirError(
                    f"{directory / 'utt2num_samples'}:{n_utts}: found {count!r}, "
                    "expected a number of samples above 0"
                )
            n_samples += int(count)
            if (lang := values["utt2lang"]) not in langs and not _LANG.fullmatch(lang):
                raise DataDirError(
                    f"{directory / 'utt2lang'}:{n_utts}: found {lang!r}, expected an "
                    "ISO 639-3 code like 'eng'"
                )
            langs.add(lang)
            for name in KALDI_SPEAKERS:
                if values[name] != utt_id:
                    raise DataDirError(
                        f"{directory / name}:{n_utts}: found {values[name]!r}, "
                        f"expected {utt_id!r}: speakers are in utt2speaker"
                    )
    if n_utts == 0:
        raise DataDirError(f"{directory}: no utterances; an empty set cannot be used")
    n_speakers = count_values(directory / "utt2speaker")
    return DataDirSummary(n_utts, n_samples, n_speakers, tuple(sorted(langs)))


def _order_fault(where: str, key: str, previous: str) -> str:
    if not key:
        return f"{where}: a line without a key"
    if key == previous:
        return f"{where}: {key!r} is given twice"
    return f"{where}: {key!r} comes after {previous!r}; sort it with LC_ALL=C sort"


def _shown(key: str | None) -> str:
    return "the end of the file" if key is None else repr(key)
