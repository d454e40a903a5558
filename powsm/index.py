"""A memory-mapped index of a dump folder: random access without reading it.

What stands in `dump/raw/<set>` is what is trained on. The index holds only numbers
(where each line begins, how long each recording is), is built once, and is mapped
into memory, so that workers and ranks share its pages: a process's own memory does
not grow with the corpus.
"""

import json
import logging
import mmap
import os
import shutil
import tempfile
from pathlib import Path

import numba
import numpy as np

from powsm.audio import AudioError, read_audio

TEXT_FILES = ("text", "text.prev", "text.ctc")
_FILES = ("wav.scp", *TEXT_FILES, "utt2num_samples")
_INDEX_VERSION = 1
_SPACE, _NEWLINE, _UNDERSCORE, _ZERO = 32, 10, 95, 48

log = logging.getLogger(__name__)


class IndexMismatchError(ValueError):
    """Two files of a dump folder do not hold the same examples in the same order."""


@numba.njit(cache=True)
def _line_starts(data: np.ndarray) -> np.ndarray:
    n = 0
    for i in range(data.size):
        if data[i] == _NEWLINE:
            n += 1
    starts = np.empty(n + 1, np.int64)
    starts[0] = 0
    k = 1
    for i in range(data.size):
        if data[i] == _NEWLINE:
            starts[k] = i + 1
            k += 1
    return starts


@numba.njit(cache=True)
def _first_other_id(a, a_starts, b, b_starts) -> int:
    """First line at which two files name different examples, or -1."""
    for line in range(a_starts.size - 1):
        i, j = a_starts[line], b_starts[line]
        while True:
            end_a = a[i] == _SPACE or a[i] == _NEWLINE
            end_b = b[j] == _SPACE or b[j] == _NEWLINE
            if end_a and end_b:
                break
            if a[i] != b[j]:
                return line
            i += 1
            j += 1
    return -1


@numba.njit(cache=True)
def _groups(data, starts) -> np.ndarray:
    """Start of every run of lines whose ids agree up to the last underscore."""
    n = starts.size - 1
    group = np.empty(n + 1, np.int64)
    count = 0
    stem = 0  # length of the previous id's stem
    for line in range(n):
        i = starts[line]
        cut = i
        while data[i] != _SPACE and data[i] != _NEWLINE:
            if data[i] == _UNDERSCORE:
                cut = i
            i += 1
        length = cut - starts[line]
        same = line > 0 and length == stem
        if same:
            previous = starts[line - 1]
            for k in range(length):
                if data[previous + k] != data[starts[line] + k]:
                    same = False
                    break
        if not same:
            group[count] = line
            count += 1
        stem = length
    group[count] = n
    return group[: count + 1].copy()


@numba.njit(cache=True)
def _numbers(data, starts, lines) -> np.ndarray:
    """The number behind the id on each of `lines`; -1 where there is none."""
    values = np.empty(lines.size, np.int64)
    for k in range(lines.size):
        i = starts[lines[k]]
        while data[i] != _SPACE and data[i] != _NEWLINE:
            i += 1
        value = -1
        i += 1
        while i < starts[lines[k] + 1] - 1:
            digit = data[i] - _ZERO
            if digit < 0 or digit > 9:
                value = -1
                break
            value = max(value, 0) * 10 + digit
            i += 1
        values[k] = value
    return values


def _stamp(folder: Path) -> dict:
    stat = {name: (folder / name).stat() for name in _FILES}
    return {
        "version": _INDEX_VERSION,
        "files": {name: [s.st_size, s.st_mtime_ns] for name, s in stat.items()},
    }


def build_index(folder: Path) -> Path:
    """Index a dump folder; a current index is left as it is.

    Args:
        folder: `dump/raw/<set>` with the files of stage 4.

    Returns:
        The folder `<folder>/.index`: `<file>.npy` holds where each line begins
        (int64, number of examples + 1), `groups.npy` the first line of each
        utterance (int64, number of utterances + 1), `num_samples.npy` the length
        of its audio in samples (int64).

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
    stamp = _stamp(folder)
    index = folder / ".index"
    try:
        if json.loads((index / "stamp.json").read_text()) == stamp:
            return index
    except (OSError, ValueError):
        pass
    building = Path(tempfile.mkdtemp(dir=folder, prefix=".index."))
    try:
        data = {}
        starts = {}
        for name in _FILES:
            data[name] = np.memmap(folder / name, np.uint8, mode="r")
            if data[name].size == 0 or data[name][-1] != _NEWLINE:
                raise IndexMismatchError(
                    f"{folder / name}: empty, or its last line has no end; "
                    "run stage 4 again"
                )
            starts[name] = _line_starts(data[name])
            np.save(building / f"{name}.npy", starts[name])
        _check_same_ids(folder, data, starts)
        groups = _groups(data["wav.scp"], starts["wav.scp"])
        samples = _numbers(
            data["utt2num_samples"], starts["utt2num_samples"], groups[:-1]
        )
        if (samples <= 0).any():
            line = int(groups[np.flatnonzero(samples <= 0)[0]])
            raise IndexMismatchError(
                f"{folder}/utt2num_samples:{line + 1}: expected '<id> <samples>' "
                "with a positive whole number; run stage 4 again"
            )
        np.save(building / "groups.npy", groups)
        np.save(building / "num_samples.npy", samples)
        (building / "stamp.json").write_text(json.dumps(stamp))
        shutil.rmtree(index, ignore_errors=True)
        os.rename(building, index)
    except BaseException as err:
        shutil.rmtree(building, ignore_errors=True)
        if isinstance(err, OSError):  # numpy's says neither where nor why
            raise OSError(f"{index}: not written ({err}); is the disk full?") from err
        raise
    log.info(
        "indexed %s: %d utterances, %d examples",
        folder,
        groups.size - 1,
        groups[-1],
    )
    return index


def _check_same_ids(folder: Path, data: dict, starts: dict) -> None:
    first = _FILES[0]
    for name in _FILES[1:]:
        if starts[name].size != starts[first].size:
            raise IndexMismatchError(
                f"{folder}: {first} has {starts[first].size - 1} lines, {name} has "
                f"{starts[name].size - 1}; run stage 4 again"
            )
        line = _first_other_id(data[first], starts[first], data[name], starts[name])
        if line >= 0:
            ids = [
                bytes(data[f][starts[f][line] : starts[f][line + 1]]).split(b" ")[0]
                for f in (first, name)
            ]
            raise IndexMismatchError(
                f"{folder / name}:{line + 1}: found {ids[1].decode().strip()!r} where "
                f"{first} has {ids[0].decode().strip()!r}; run stage 4 again"
            )


class ExampleIndex:
    """Random access to the utterances of a dump folder and their examples.

    Args:
        folder: `dump/raw/<set>`.

    Attributes:
        num_samples: length of each utterance's audio, int64, shape (n_utts,).
        n_examples: examples of each utterance, int64, shape (n_utts,).
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        index = build_index(self.folder)
        self._starts = {
            name: np.load(index / f"{name}.npy", mmap_mode="r")
            for name in _FILES
            if name != "utt2num_samples"
        }
        self.groups = np.load(index / "groups.npy", mmap_mode="r")
        self.num_samples = np.load(index / "num_samples.npy", mmap_mode="r")
        self._maps: dict[str, mmap.mmap] = {}

    def __len__(self) -> int:
        return self.num_samples.size

    def __getstate__(self) -> dict:
        # a spawned worker opens its own maps; the pages are shared all the same
        return {"folder": self.folder}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["folder"])

    @property
    def n_examples(self) -> np.ndarray:
        return np.diff(self.groups)

    def _line(self, name: str, line: int) -> tuple[str, str]:
        if name not in self._maps:
            with open(self.folder / name, "rb") as file:
                self._maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        starts = self._starts[name]
        text = self._maps[name][starts[line] : starts[line + 1] - 1].decode()
        example_id, _, value = text.partition(" ")
        return example_id, value

    def utt_id(self, utt: int) -> str:
        """Id of utterance number `utt`: an example's id without its task."""
        return self._line("wav.scp", int(self.groups[utt]))[0].rpartition("_")[0]

    def audio(self, utt: int) -> str:
        """Where the audio of utterance number `utt` stands: a `wav.scp` value."""
        return self._line("wav.scp", int(self.groups[utt]))[1]

    def speech(self, utt: int) -> np.ndarray:
        """Decode the audio of utterance number `utt`: (n_samples,) float32, 16 kHz.

        Raises:
            AudioError: it cannot be used; names the set, the utterance and the place.
        """
        try:
            return read_audio(self.audio(utt))
        except AudioError as err:
            raise AudioError(f"{self.folder}: {self.utt_id(utt)}: {err}") from err

    def examples(self, utt: int) -> list[dict[str, str]]:
        """The examples of an utterance: dicts of `id text text_prev text_ctc`."""
        rows = []
        for line in range(int(self.groups[utt]), int(self.groups[utt + 1])):
            row = {"id": self._line("wav.scp", line)[0]}
            for name in TEXT_FILES:
                row[name.replace(".", "_")] = self._line(name, line)[1]
            rows.append(row)
        return rows
