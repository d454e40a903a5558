"""Training examples from `dump/`: a memory-mapped index, batches by length, a loader.

What stands in `dump/raw/<set>` is what is trained on. The index holds only numbers
(where each line begins, how long each recording is), is built once, and is mapped
into memory, so that workers and ranks share its pages: a process's own memory does
not grow with the corpus.

The unit of a batch is the utterance: its audio is read and encoded once, and all
its examples (pr, asr, g2p, p2g) come with it (paper section 3 stores them as four
independent rows).
"""

import json
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from powsm.audio import SAMPLE_RATE, AudioError, read_audio

TEXT_FILES = ("text", "text.prev", "text.ctc")
_FILES = ("wav.scp", *TEXT_FILES, "utt2num_samples")
_INDEX_VERSION = 1
_SPACE, _NEWLINE, _UNDERSCORE, _ZERO = 32, 10, 95, 48
_POOL = 100_000  # utterances shuffled together before they are sorted by length
IGNORE_ID = -1  # padding of token ids, as in ESPnet's collate function

log = logging.getLogger(__name__)


class IndexMismatchError(ValueError):
    """Two files of a dump folder do not hold the same examples in the same order."""


# ---------------------------------------------------------------- the index


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


# ------------------------------------------------------------------ batches


@dataclass(frozen=True)
class BatchOptions:
    """How utterances become batches and batches become updates.

    Args:
        batch_seconds: most seconds of audio, padding included, in one batch.
        update_batches: batches per optimiser update, over all ranks together: the
            effective batch does not depend on how many GPUs there are.
        window_share: share of the utterances that get silence before and after, up
            to a random length within `window_s`, counted as real frames; stock
            ESPnet inference pads every clip to the window.
        window_s: that window in seconds.
        max_lead_s: most seconds of the silence that stand before the speech.
        seed: of the order; with the pass it fixes every batch.
    """

    batch_seconds: float = 100.0
    update_batches: int = 1
    window_share: float = 0.0
    window_s: float = 20.0
    max_lead_s: float = 20.0
    seed: int = 0


@numba.njit(cache=True)
def _cut(lengths: np.ndarray, pool: np.ndarray, most: int) -> np.ndarray:
    """Where to cut sorted lengths so that count x longest <= most, pool by pool."""
    cuts = np.empty(lengths.size + 1, np.int64)
    cuts[0] = 0
    n = 1
    start = 0
    longest = 0
    for i in range(lengths.size):
        longest = max(longest, lengths[i])
        too_many = longest * (i - start + 1) > most
        if i > start and (too_many or pool[i] != pool[start]):
            cuts[n] = i
            n += 1
            start = i
            longest = lengths[i]
    cuts[n] = lengths.size
    return cuts[: n + 1].copy()


@dataclass(frozen=True)
class PassPlan:
    """All batches of one pass over the data, the same on every rank.

    Attributes:
        utts: utterance numbers in the order of the batches.
        total: samples each has after padding with silence.
        lead: samples of that silence that stand before the speech.
        bounds: batch b is `utts[bounds[order[b]] : bounds[order[b] + 1]]`.
        order: the order in which the batches are taken.
    """

    utts: np.ndarray
    total: np.ndarray
    lead: np.ndarray
    bounds: np.ndarray
    order: np.ndarray

    def __len__(self) -> int:
        return self.order.size

    def batch(self, b: int) -> list[tuple[int, int, int]]:
        """Batch number `b`: (utterance number, total samples, lead samples)."""
        start, end = self.bounds[self.order[b]], self.bounds[self.order[b] + 1]
        return [
            (int(self.utts[i]), int(self.total[i]), int(self.lead[i]))
            for i in range(start, end)
        ]


def plan_pass(
    num_samples: np.ndarray, options: BatchOptions, pass_number: int
) -> PassPlan:
    """Make the batches of pass `pass_number`; a pure function of its arguments.

    Utterances are shuffled, sorted by length within pools of 100,000, cut into
    batches of at most `batch_seconds`, and batches are shuffled by whole updates, so
    that the ranks of one update get batches of like length and finish together.

    Raises:
        ValueError: an utterance alone is longer than `batch_seconds`.
    """
    rng = np.random.default_rng([options.seed, pass_number])
    n = len(num_samples)
    most = int(options.batch_seconds * SAMPLE_RATE)
    if n == 0 or num_samples.max() > most:
        longest = 0 if n == 0 else num_samples.max() / SAMPLE_RATE
        raise ValueError(
            f"batch_seconds is {options.batch_seconds}, the longest of {n} utterances "
            f"has {longest:.1f} s; raise batch_seconds or lower max_duration in stage 4"
        )
    utts = rng.permutation(n)
    length = np.asarray(num_samples)[utts].astype(np.int64)
    window = max(min(int(options.window_s * SAMPLE_RATE), most), 0)
    room = np.maximum(window - length, 0)
    padded = rng.random(n) < options.window_share
    silence = np.where(padded, (rng.random(n) * (room + 1)).astype(np.int64), 0)
    most_lead = np.minimum(silence, int(options.max_lead_s * SAMPLE_RATE))
    lead = (rng.random(n) * (most_lead + 1)).astype(np.int64)
    total = length + silence
    pool = np.arange(n) // _POOL
    by_length = np.lexsort((total, pool))
    utts, total, lead = utts[by_length], total[by_length], lead[by_length]
    bounds = _cut(total, pool[by_length], most)
    # whole updates only: what is left over is small and differs in every pass
    n_batches = bounds.size - 1
    size = options.update_batches
    if n_batches < size:
        # less data than one update: batches are taken again
        order = np.resize(np.arange(n_batches), size)
    else:
        updates = rng.permutation(n_batches // size)
        first = rng.integers(n_batches % size + 1)
        order = (first + updates[:, None] * size + np.arange(size)).ravel()
    return PassPlan(utts, total, lead, bounds, order)


# ------------------------------------------------------------------- loader


class UtteranceDataset(Dataset):
    """Utterances with audio and tokens, addressed by (utt, total, lead).

    Args:
        index: the dump folder.
        encode: from `text text_prev text_ctc` strings of one example to int64 ids
            under the same names: ESPnet's S2TPreprocessor text step.
        tasks: keep only the examples whose id ends in one of these; None keeps all.
    """

    def __init__(
        self,
        index: ExampleIndex,
        encode: Callable[[dict[str, str]], dict[str, np.ndarray]],
        tasks: Sequence[str] | None = None,
    ):
        self.index = index
        self.encode = encode
        self.tasks = None if tasks is None else frozenset(tasks)

    def __getitem__(self, key: tuple[int, int, int]) -> dict:
        utt, total, lead = key
        speech = self.index.speech(utt)
        padded = np.zeros(max(total, lead + speech.size), np.float32)
        padded[lead : lead + speech.size] = speech
        rows = [
            row
            for row in self.index.examples(utt)
            if self.tasks is None or row["id"].rpartition("_")[2] in self.tasks
        ]
        tokens = [
            self.encode({k: v for k, v in row.items() if k != "id"}) for row in rows
        ]
        return {
            "utt_id": self.index.utt_id(utt),
            "example_ids": [row["id"] for row in rows],
            "speech": padded,
            "examples": tokens,
        }


def _pad(arrays: Sequence[np.ndarray], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(a) for a in arrays], dtype=torch.long)
    out = torch.full((len(arrays), int(lengths.max())), value, dtype=torch.long)
    for row, a in zip(out, arrays, strict=True):
        row[: len(a)] = torch.from_numpy(a)
    return out, lengths


def collate(items: Sequence[dict]) -> tuple[list[str], dict[str, torch.Tensor]]:
    """One batch of U utterances with E examples in all.

    Returns:
        The utterance ids and a dict with `speech` (U, samples) float32, `text_ctc`
        (U, tokens), `text` and `text_prev` (E, tokens), their `*_lengths`, and
        `example_audio` (E,): which row of `speech` an example belongs to.
    """
    items = [item for item in items if item["examples"]]
    speech_lengths = torch.tensor([item["speech"].size for item in items])
    speech = torch.zeros(len(items), int(speech_lengths.max()))
    for row, item in zip(speech, items, strict=True):
        row[: item["speech"].size] = torch.from_numpy(item["speech"])
    batch = {"speech": speech, "speech_lengths": speech_lengths}
    batch["text_ctc"], batch["text_ctc_lengths"] = _pad(
        [item["examples"][0]["text_ctc"] for item in items], IGNORE_ID
    )
    examples = [example for item in items for example in item["examples"]]
    for name in ("text", "text_prev"):
        batch[name], batch[f"{name}_lengths"] = _pad(
            [example[name] for example in examples], IGNORE_ID
        )
    batch["example_audio"] = torch.repeat_interleave(
        torch.arange(len(items)), torch.tensor([len(i["examples"]) for i in items])
    )
    return [item["utt_id"] for item in items], batch


class UtteranceLoader:
    """Batches of one epoch for one rank, beginning at any of them at once.

    An epoch is a stretch of the endless series of passes: epoch e of n updates
    begins at update e x n, wherever in a pass that is.

    Args:
        dataset: what is read.
        options: how batches are made.
        updates_per_epoch: length of an epoch in updates; None takes one whole pass.
        epoch: number of the epoch, from 0.
        rank, world_size: this process among the ranks.
        first_step: how many of the epoch's batches on this rank are already done.
        num_workers: loading processes.

    Raises:
        ValueError: `update_batches` is not a multiple of `world_size`.
    """

    def __init__(
        self,
        dataset: UtteranceDataset,
        options: BatchOptions,
        *,
        updates_per_epoch: int | None = None,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        first_step: int = 0,
        num_workers: int = 0,
    ):
        if options.update_batches % world_size:
            raise ValueError(
                f"update_batches ({options.update_batches}) must be a multiple of the "
                f"number of ranks ({world_size})"
            )
        self.dataset = dataset
        self.options = options
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.first_step = first_step
        self.num_workers = num_workers
        self.batches_per_update = options.update_batches // world_size
        lengths = dataset.index.num_samples
        if updates_per_epoch is None:
            self._passes = [(epoch, plan_pass(lengths, options, epoch), 0)]
            self._updates = len(self._passes[0][1]) // options.update_batches
        else:
            self._passes = self._stretch(lengths, epoch * updates_per_epoch)
            self._updates = updates_per_epoch

    def _stretch(self, lengths: np.ndarray, skip: int) -> list:
        number = 0
        while True:
            plan = plan_pass(lengths, self.options, number)
            updates = len(plan) // self.options.update_batches
            if skip < updates:
                return [(number, plan, skip)]
            skip -= updates
            number += 1

    def __len__(self) -> int:
        """Batches of the whole epoch on this rank, those already done included."""
        return self._updates * self.batches_per_update

    def _keys(self) -> Iterator[list[tuple[int, int, int]]]:
        number, plan, update = self._passes[0]
        size = self.options.update_batches
        for step in range(len(self)):
            if (update + 1) * size > len(plan):
                number += 1
                plan = plan_pass(self.dataset.index.num_samples, self.options, number)
                update = 0
            part = step % self.batches_per_update
            if step >= self.first_step:
                yield plan.batch(update * size + part * self.world_size + self.rank)
            if part == self.batches_per_update - 1:
                update += 1

    def __iter__(self) -> Iterator[tuple[list[str], dict[str, torch.Tensor]]]:
        try:
            yield from DataLoader(
                self.dataset,
                batch_sampler=_Keys(self._keys, len(self) - self.first_step),
                collate_fn=collate,
                num_workers=self.num_workers,
                pin_memory=torch.cuda.is_available(),
            )
        except AudioError as err:
            # a loading process sends its whole traceback; the message ends it
            message = str(err).rstrip().rpartition("\n")[2]
            kind = f"{AudioError.__module__}.{AudioError.__qualname__}: "
            raise AudioError(message.removeprefix(kind)) from err


class _Keys:
    """A batch sampler from a function that makes the iterator."""

    def __init__(self, make: Callable[[], Iterator], n: int):
        self._make = make
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator:
        return self._make()
