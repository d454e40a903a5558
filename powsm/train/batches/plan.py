"""All batches of a pass: by length, shuffled, known from a counter.

The unit is the utterance: its audio is read and encoded once, and all its examples
(pr, asr, g2p, p2g) come with it; the published recipe has them as independent rows.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from powsm.audio import SAMPLE_RATE
from powsm.errors import PowsmError
from powsm.files.compiled import jit
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.sampling import sample_pass

PLAN_VERSION = 2  # to be raised when a pass with the same options becomes another one
_POOL = 100_000  # utterances shuffled together before they are sorted by length
_OF_SPEED = 1  # number of the draw of speeds, independent of the order


@jit
def _cut(
    lengths: np.ndarray, pools: np.ndarray, most: int, most_rows: int
) -> np.ndarray:
    """Where to cut lengths, sorted within the pools that begin at `pools`.

    So that count x longest <= most, and count <= most_rows.
    """
    cuts = np.empty(lengths.size + 1, np.int64)
    cuts[0] = 0
    n = 1
    start = 0
    longest = 0
    pool = 1
    for i in range(lengths.size):
        longest = max(longest, lengths[i])
        too_many = longest * (i - start + 1) > most or i - start >= most_rows
        is_first = pool < pools.size and i == pools[pool]
        pool += is_first
        if i > start and (too_many or is_first):
            cuts[n] = i
            n += 1
            start = i
            longest = lengths[i]
    cuts[n] = lengths.size
    return cuts[: n + 1].copy()


class Key(NamedTuple):
    """An utterance of a batch, as the data set is asked for it.

    Args:
        utt: its number.
        total: samples after padding with silence.
        lead: samples of that silence that stand before the speech.
        speed: how many times as fast it is spoken.
        draw: number of the pass, and how often the utterance came in it before; None
            where the recording is taken as it is.
    """

    utt: int
    total: int
    lead: int
    speed: float = 1.0
    draw: tuple[int, int] | None = None


@dataclass(frozen=True)
class Draws:
    """What augmentation is to be drawn from, for the utterances of a pass.

    Attributes:
        pass_number: of the pass.
        speed: how many times as fast each is spoken, float32.
        before: how often each came in the pass before, int32.
    """

    pass_number: int
    speed: np.ndarray
    before: np.ndarray

    @classmethod
    def of(
        cls, utts: np.ndarray, speeds: Sequence[float], seed: int, pass_number: int
    ) -> "Draws":
        """For utterance numbers in the order in which they were shuffled."""
        rng = np.random.default_rng([seed, pass_number, _OF_SPEED])
        factors = np.array([1.0, *speeds], np.float32)
        speed = factors[rng.integers(factors.size, size=utts.size)]
        order = np.argsort(utts, kind="stable")
        same = utts[order]
        first = np.searchsorted(same, same)  # where each utterance's own begin
        before = np.empty(utts.size, np.int32)
        before[order] = np.arange(utts.size) - first
        return cls(pass_number, speed, before)

    def samples(self, n_samples: np.ndarray) -> np.ndarray:
        """Samples of each at its speed, where it had `n_samples`; int32."""
        rate = np.rint(self.speed.astype(np.float64) * SAMPLE_RATE).astype(np.int64)
        return (-(-n_samples.astype(np.int64) * SAMPLE_RATE // rate)).astype(np.int32)


@dataclass(frozen=True)
class PassPlan:
    """All batches of one pass over the data, the same on every rank.

    Attributes:
        utts: utterance numbers in the order of the batches.
        total: samples each has after padding with silence.
        lead: samples of that silence before the speech.
        bounds: batch b is `utts[bounds[order[b]] : bounds[order[b] + 1]]`.
        order: the order in which the batches are taken.
        draws: for augmentation; None where recordings are taken as they are.
    """

    utts: np.ndarray
    total: np.ndarray
    lead: np.ndarray
    bounds: np.ndarray
    order: np.ndarray
    draws: Draws | None = None

    def __len__(self) -> int:
        return self.order.size

    def batch(self, b: int) -> list[Key]:
        """Batch number `b`."""
        start, end = self.bounds[self.order[b]], self.bounds[self.order[b] + 1]
        return [self._key(i) for i in range(start, end)]

    def _key(self, i: int) -> Key:
        key = Key(int(self.utts[i]), int(self.total[i]), int(self.lead[i]))
        if self.draws is None:
            return key
        draw = (self.draws.pass_number, int(self.draws.before[i]))
        # to the digits that a factor has in a configuration
        return key._replace(speed=round(float(self.draws.speed[i]), 6), draw=draw)


def plan_pass(
    n_samples: np.ndarray,
    options: BatchOptions,
    pass_number: int,
    langs: np.ndarray | None = None,
    speeds: Sequence[float] | None = None,
    shards: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> PassPlan:
    """Make the batches of pass `pass_number`; a pure function of its arguments.

    Utterances are shuffled, sorted by length within pools of 100,000, or of
    `shards_together` shards, and cut into batches of at most `batch_seconds`. Batches
    short and long make up updates of equally many utterances: the gradient of an update
    is the mean over its examples, and with updates of like length a second of short
    utterances would weigh less.

    Args:
        n_samples: length of each utterance (n,).
        options: how batches are made.
        pass_number: from 0.
        langs: a number for each utterance's language (n,), for `language_temperature`.
        speeds: of `augment`, beside the speed that recordings have; None where they are
            taken as they are. The order stays the same.
        shards: a number for each utterance's shard (n,), for `shards_together`.
        times: how often each utterance is wanted (n,); None is once. A language has
            the hours that they leave it.

    Raises:
        PowsmError: an utterance alone is longer than `batch_seconds`, or `times` come
            to less than one utterance.
    """
    rng = np.random.default_rng([options.seed, pass_number])
    most = int(options.batch_seconds * SAMPLE_RATE)
    check_longest(n_samples, speeds or (), options.batch_seconds)
    # int32 throughout: with 8 million utterances every array counts
    utts = sample_pass(n_samples, options.language_temperature, langs, times, rng)
    n = utts.size
    pools = np.arange(0, n, _POOL)
    if options.shards_together:
        utts, pools = _by_shards(utts, shards, options.shards_together, rng)
    total = np.asarray(n_samples)[utts].astype(np.int32)
    draws = None
    if speeds is not None:
        draws = Draws.of(utts, speeds, options.seed, pass_number)
        total = draws.samples(total)
    window = max(min(int(options.window_s * SAMPLE_RATE), most), 0)
    padded = rng.random(n) < options.window_share
    silence = rng.random(n) * (np.maximum(window - total, 0) + 1)
    silence = np.where(padded, silence, 0).astype(np.int32)
    lead = (rng.random(n) * (silence + 1)).astype(np.int32)
    total += silence
    for start, end in pairwise([*pools.tolist(), n]):
        pool = slice(start, end)
        by_length = np.argsort(total[pool], kind="stable")
        drawn = () if draws is None else (draws.speed, draws.before)
        for values in (utts, total, lead, *drawn):
            values[pool] = values[pool][by_length]
    bounds = _cut(total, pools, most, _most_rows(total, options))
    order = _order(np.diff(bounds), options.update_batches, rng)
    return PassPlan(utts, total, lead, bounds, order, draws)


def check_longest(
    n_samples: np.ndarray, speeds: Sequence[float], seconds: float
) -> None:
    """Refuse batches that do not hold the longest utterance at its slowest.

    Raises:
        PowsmError: names its length and what to change.
    """
    n = len(n_samples)
    slowest = min([1.0, *speeds])
    longest_s = 0 if n == 0 else n_samples.max() / SAMPLE_RATE / slowest
    if n == 0 or longest_s > seconds:
        slow = f" at speed {slowest:g}" if slowest < 1 else ""
        raise PowsmError(
            f"batch_seconds is {seconds}, the longest of {n} utterances has "
            f"{longest_s:.1f} s{slow}; raise batch_seconds or lower max_duration in "
            "stage 4"
        )


def _by_shards(
    utts: np.ndarray, shards: np.ndarray, together: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Utterances, shuffled, put beside those of their own shard and of a few others.

    Shards count in the order in which they first come, whatever their numbers are:
    those are of names, and a run goes on where its audio was moved.

    Returns:
        The utterances, and where each pool of `together` shards begins.
    """
    _, first, shard = np.unique(shards, return_index=True, return_inverse=True)
    place = rng.permutation(first.size)[np.argsort(np.argsort(first))[shard[utts]]]
    order = np.argsort(place, kind="stable")
    pool = place[order] // together
    return utts[order], np.flatnonzero(np.diff(pool, prepend=-1))


def _most_rows(total: np.ndarray, options: BatchOptions) -> int:
    """Most utterances of a batch, so that updates of equally many can be made.

    Two average batches or a third of an average update, whichever is more: the batches
    beside the fullest one hold some too. One or two batches cannot make up for one
    another, and stay as they are.
    """
    size = options.update_batches
    if size < 3:
        return total.size
    seconds = options.batch_seconds * size
    of_update = seconds * SAMPLE_RATE / max(float(total.mean()), 1.0)
    return max(1, int(of_update * max(1 / 3, 2 / size)))


def _order(counts: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """In which order batches of `counts` utterances are taken, `size` an update.

    What is left over is drawn anew in every pass, long and short alike. Where there is
    less than an update, batches are taken again, none twice more than another.
    """
    n = counts.size
    if n < size:
        again = [rng.permutation(n) for _ in range(-(-size // n))]
        taken = np.concatenate(again)[:size]
    else:
        taken = rng.permutation(n)[: n - n % size]
    updates = _even_updates(taken, counts, size)
    places = rng.permuted(np.tile(np.arange(size), (len(updates), 1)), axis=1)
    updates = np.take_along_axis(updates, places, axis=1)
    return updates[rng.permutation(len(updates))].ravel()


def _even_updates(taken: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """Updates of `size` batches each, all with about as many utterances.

    The fullest batch that is left goes to the update that has fewest so far. What all
    batches have is taken off first: otherwise an update that is ahead would wait, and
    have to take more batches than others at the end.

    Args:
        taken: numbers of batches, shuffled; a multiple of `size`.
        counts: utterances of every batch.

    Returns:
        Batch numbers (updates, size).
    """
    more = counts - counts.min()
    fullest_first = taken[np.argsort(-more[taken], kind="stable")]
    updates: list[list[int]] = [[] for _ in range(taken.size // size)]
    waiting = [(0, number) for number in range(len(updates))]  # a heap
    for batch in fullest_first.tolist():
        n, number = waiting[0]
        updates[number].append(batch)
        if len(updates[number]) == size:
            heapq.heappop(waiting)
        else:
            heapq.heapreplace(waiting, (n + int(more[batch]), number))
    return np.array(updates)
