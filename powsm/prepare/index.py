"""An index of a dump folder: random access to its utterances without reading it.

`dump/raw/<set>` is what is trained on. The index holds only numbers:
where the lines of each utterance begin, and how long its recording is. Lines are read
from the files when they are wanted, so that the memory of a process does not grow with
the corpus, and the system's cache of the files serves all workers and ranks.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import pairwise, zip_longest
from pathlib import Path

import numpy as np

from powsm.audio import HOP_LENGTH, AudioError, read_audio
from powsm.errors import PowsmError
from powsm.files.current import is_current, states, write_record
from powsm.files.lock import owned
from powsm.files.whole import atomic_folder
from powsm.prepare.example_lines import NEWLINE, follow, has_suffix, langs_of, places_of

TEXT_FILES = ("text", "text.prev", "text.ctc")
_INDEXED = ("wav.scp", *TEXT_FILES)
_FILES = (*_INDEXED, "utt2num_samples")
_RECORD = "stamp.json"
_NUMBER = np.dtype("<i8")
_CHUNK = 1 << 16  # utterances indexed at a time

log = logging.getLogger(__name__)


class IndexMismatchError(PowsmError):
    """Two files of a dump folder do not hold the same examples in the same order."""


def build_index(folder: Path) -> Path:
    """Index a dump folder; a current index is left as it is.

    Args:
        folder: `dump/raw/<set>` with the files of stage 4.

    Returns:
        The folder `<folder>/.index`, with little-endian int64 numbers: `begins` holds
        where the lines of each utterance begin in each of `_INDEXED`, and a last row
        with their ends; `num_samples` the length of its audio in samples.

    Raises:
        FileNotFoundError: a file of stage 4 is missing.
        IndexMismatchError: the files disagree; names file, line and both ids.
    """
    folder = Path(folder)
    for name in _FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: not found; run stage 4 to write it"
            )
    made_from = states(folder / name for name in _FILES)
    index = folder / ".index"
    if is_current(index / _RECORD, "index", made_from):
        return index
    try:
        with owned(index, wait=True):
            # another process may have been faster
            if not is_current(index / _RECORD, "index", made_from):
                with atomic_folder(index) as making:
                    n_utts = _write_numbers(folder, making)
                    write_record(making / _RECORD, "index", made_from, making.iterdir())
                log.info("indexed %s: %d utterances", folder, n_utts)
    except OSError as err:  # numpy's says neither where nor why
        raise OSError(f"{index}: not written ({err}); is the disk full?") from err
    return index


def _write_numbers(folder: Path, out: Path) -> int:
    files = tuple(_bytes_of(folder / name) for name in _FILES)
    at = np.zeros(len(_FILES), np.int64)
    begins = np.empty((_CHUNK, len(_FILES)), np.int64)
    samples = np.empty(_CHUNK, np.int64)
    n_utts = 0
    with open(out / "begins", "wb") as rows, open(out / "num_samples", "wb") as lengths:
        while at[0] < files[0].size:
            n = follow(files, at, begins, samples)
            if n < 0:
                raise _mismatch(folder)
            if (samples[:n] <= 0).any():
                bad = np.flatnonzero(samples[:n] <= 0)[0]
                line = np.count_nonzero(files[-1][: begins[bad, -1]] == NEWLINE) + 1
                raise IndexMismatchError(
                    f"{folder}/utt2num_samples:{line}: expected '<id> <samples>' "
                    "with a positive whole number; run stage 4 again"
                )
            n_utts += n
            rows.write(begins[:n, : len(_INDEXED)].astype(_NUMBER).tobytes())
            lengths.write(samples[:n].astype(_NUMBER).tobytes())
        if (at != [data.size for data in files]).any():
            raise _mismatch(folder)
        rows.write(at[: len(_INDEXED)].astype(_NUMBER).tobytes())
    return n_utts


def _bytes_of(path: Path) -> np.ndarray:
    data = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.empty(0)
    if data.size == 0 or data[-1] != NEWLINE:
        raise IndexMismatchError(
            f"{path}: empty, or its last line has no end; run stage 4 again"
        )
    return data


def _mismatch(folder: Path) -> IndexMismatchError:
    """What is wrong with files that do not agree: a slow look from their beginning."""
    counts = []
    for name in _FILES:
        with open(folder / name, "rb") as file:
            counts.append(sum(1 for _ in file))
    for name, count in zip(_FILES, counts, strict=True):
        if count != counts[0]:
            return IndexMismatchError(
                f"{folder}: {_FILES[0]} has {counts[0]} lines, {name} has {count}; "
                "run stage 4 again"
            )
    for name in _FILES[1:]:
        with open(folder / _FILES[0], "rb") as one, open(folder / name, "rb") as other:
            for number, lines in enumerate(zip_longest(one, other), 1):
                first, theirs = (line.split(None, 1)[0].decode() for line in lines)
                if first != theirs:
                    return IndexMismatchError(
                        f"{folder / name}:{number}: found {theirs!r} where "
                        f"{_FILES[0]} has {first!r}; run stage 4 again"
                    )
    return IndexMismatchError(f"{folder}: changed while it was read; run it again")


class ExampleIndex:
    """Random access to the utterances of a dump folder and their examples.

    Args:
        folder: `dump/raw/<set>`.

    Attributes:
        n_samples: length of each utterance's audio, int64, shape (n_utts,).
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        index = build_index(self.folder)
        # files are found from the folder that was indexed: a set that is made anew
        # under this name meanwhile has other lines at the same places
        self._folder = os.open(self.folder, os.O_RDONLY)
        self._index = index.name
        self._open: dict[str, int] = {}
        self.n_samples = self._map(f"{self._index}/num_samples", _NUMBER)

    def __len__(self) -> int:
        return self.n_samples.size

    def __getstate__(self) -> dict:  # a spawned worker opens its own files
        return {"folder": self.folder, "inode": os.fstat(self._folder).st_ino}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["folder"])
        if os.fstat(self._folder).st_ino != state["inode"]:
            raise self._made_anew()

    def __del__(self):
        for file in (
            *getattr(self, "_open", {}).values(),
            getattr(self, "_folder", None),
        ):
            if file is not None:
                os.close(file)

    def _find(self, name: str) -> int:
        try:
            return os.open(name, os.O_RDONLY, dir_fd=self._folder)
        except FileNotFoundError as err:
            raise self._made_anew() from err

    def _made_anew(self) -> IndexMismatchError:
        return IndexMismatchError(
            f"{self.folder}: was made anew while it was read; run the command again"
        )

    def _map(self, name: str, dtype: np.dtype | type) -> np.ndarray:
        with os.fdopen(self._find(name), "rb") as file:
            return np.memmap(file, dtype, mode="r")

    def _read(self, name: str, begin: int, end: int) -> bytes:
        # not mapped: pages of a map count as the worker's own memory once it saw them
        if name not in self._open:
            self._open[name] = self._find(name)
        return os.pread(self._open[name], end - begin, begin)

    def _begins(self) -> np.ndarray:
        begins = self._map(f"{self._index}/begins", _NUMBER)
        return begins.reshape(-1, len(_INDEXED))

    def langs(self) -> np.ndarray:
        """A number for the language of each utterance, int32, shape (n_utts,)."""
        ids = self._map(_INDEXED[0], np.uint8)
        return langs_of(ids, self._begins()[: len(self), 0])

    def shards(self) -> np.ndarray:
        """A number for the archive of each utterance's audio, or for the folder of a
        plain file, uint64, shape (n_utts,)."""
        return places_of(
            self._map(_INDEXED[0], np.uint8), self._begins()[: len(self), 0]
        )

    def has_task(self, tasks: Iterable[str]) -> np.ndarray:
        """Which utterances have an example of one of these, bool, shape (n_utts,)."""
        ids = self._map(_INDEXED[0], np.uint8)
        suffixes = tuple(np.frombuffer(f"_{t}".encode(), np.uint8) for t in tasks)
        return has_suffix(ids, self._begins()[:, 0], suffixes)

    def utt_ids(self) -> Iterator[str]:
        """The id of every utterance, in order, without a read for each."""
        ids = self._map(_INDEXED[0], np.uint8)
        for begin, end in pairwise(self._begins()[:, 0].tolist()):
            example_id = ids[begin:end].tobytes().partition(b" ")[0]
            yield example_id.rpartition(b"_")[0].decode()

    def text_bytes(self) -> np.ndarray:
        """Length of the targets of each utterance in bytes, shape (n_utts,)."""
        return np.diff(self._begins()[:, _INDEXED.index("text")])

    def _lines(self, name: str, utt: int) -> list[tuple[str, str]]:
        """(example id, value) of an utterance's lines in one of the files."""
        row = len(_INDEXED) * _NUMBER.itemsize
        numbers = self._read(f"{self._index}/begins", utt * row, (utt + 2) * row)
        begin, end = np.frombuffer(numbers, _NUMBER)[
            _INDEXED.index(name) :: len(_INDEXED)
        ]
        text = self._read(name, begin, end).decode()
        pairs = (line.partition(" ") for line in text.split("\n")[:-1])
        return [(example_id, value) for example_id, _, value in pairs]

    def utt_id(self, utt: int) -> str:
        """Id of utterance number `utt`: an example's id without its task."""
        return self._lines("wav.scp", utt)[0][0].rpartition("_")[0]

    def audio(self, utt: int) -> str:
        """Where the audio of utterance number `utt` is: a `wav.scp` value."""
        return self._lines("wav.scp", utt)[0][1]

    def speech(self, utt: int) -> np.ndarray:
        """Decode the audio of utterance number `utt`: (n_samples,) float32, 16 kHz.

        Raises:
            AudioError: it cannot be used; names the set, the utterance and the place.
        """
        try:
            speech = read_audio(self.audio(utt))
        except AudioError as err:
            raise AudioError(f"{self.folder}: {self.utt_id(utt)}: {err}") from err
        n_expected = int(self.n_samples[utt])
        if len(speech) < n_expected - HOP_LENGTH:  # rounding of rates is less
            raise AudioError(
                f"{self.folder}: {self.utt_id(utt)}: {self.audio(utt)} has "
                f"{len(speech)} samples, utt2num_samples says {n_expected}; it was cut "
                "off since: get it again, or rerun from stage 1"
            )
        return speech

    def examples(self, utt: int) -> list[dict[str, str]]:
        """The examples of an utterance: dicts of `id text text_prev text_ctc`."""
        rows = [{"id": example_id} for example_id, _ in self._lines("wav.scp", utt)]
        for name in TEXT_FILES:
            for row, (_, value) in zip(rows, self._lines(name, utt), strict=True):
                row[name.replace(".", "_")] = value
        return rows
