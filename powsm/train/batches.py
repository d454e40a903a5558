"""Which utterances make which batch: by length, shuffled, known from a counter.

The unit is the utterance: its audio is read and encoded once, and all its examples
(pr, asr, g2p, p2g) come with it; the published recipe has them as independent rows.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from powsm.audio import SAMPLE_RATE
from powsm.errors import PowsmError
from powsm.files.compiled import jit

PLAN_VERSION = 2  # to be raised when a pass with the same options becomes another one
_POOL = 100_000  # utterances shuffled together before they are sorted by length
_OF_SPEED = 1  # number of the draw of speeds, independent of the order


@dataclass(frozen=True)
class BatchOptions:
    """How utterances become batches and batches become updates.

    Args:
        batch_seconds: most seconds of audio, padding included, in one batch, or `auto`:
            `update_seconds` divided among the batches of an update, whatever the GPU's
            memory is; batches of lengths that it does not hold are taken in parts, as
            many as a trial finds.
        update_batches: batches per optimiser update, over all ranks together: the
            effective batch does not depend on how many GPUs there are; a number of
            ranks that does not divide it cuts the update finer. Four or more
            make updates of equally many utterances; an update of one batch holds as
            many as its length allows, so that short ones weigh less over a pass.
        update_seconds: most seconds of an update, where batch_seconds is `auto`.
        language_temperature: T of sampling languages by (their hours)^(1/T): 1 takes
            every utterance once a pass, 2 the square root of the hours; a pass keeps
            its hours.
        window_share: share of the utterances that get silence before and after, up
            to a random length within `window_s`, counted as real frames; stock
            ESPnet inference pads every clip to the window.
        window_s: that window in seconds.
        shards_together: a batch takes its utterances from at most so many shards,
            drawn anew for every pass; 0 is from all. Few make a batch of one corpus.
        seed: of the order; with the pass it fixes every batch.
    """

    batch_seconds: float | str = 100.0
    update_batches: int = 1
    update_seconds: float | None = None
    language_temperature: float = 1.0
    window_share: float = 0.0
    window_s: float = 20.0
    shards_together: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.batch_seconds, str) and self.batch_seconds != "auto":
            raise PowsmError(
                f"batch_seconds is {self.batch_seconds!r}, expected a number or auto"
            )
        if (self.batch_seconds == "auto") != (self.update_seconds is not None):
            raise PowsmError(
                f"batch_seconds is {self.batch_seconds}, update_seconds "
                f"{self.update_seconds}: auto needs it, a number excludes it"
            )
        if not self.language_temperature > 0:
            raise PowsmError(
                f"language_temperature is {self.language_temperature}, expected more "
                "than 0: 1 leaves the languages as they are"
            )
        for name, value, is_right, expected in (
            (
                "update_batches",
                self.update_batches,
                self.update_batches >= 1,
                "1 or more",
            ),
            ("window_share", self.window_share, 0 <= self.window_share <= 1, "0 to 1"),
            ("window_s", self.window_s, self.window_s >= 0, "0 or more"),
            (
                "shards_together",
                self.shards_together,
                self.shards_together >= 0,
                "0 or more",
            ),
        ):
            if not is_right:
                raise PowsmError(f"{name} is {value}, expected {expected}")
        for name in ("batch_seconds", "update_seconds"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not value > 0:
                raise PowsmError(f"{name} is {value}, expected more than 0")

    def shared_by(self, n_ranks: int) -> "BatchOptions":
        """These options, with an update in as many batches as ranks can share.

        As they are where `update_batches` is a multiple of `n_ranks`; otherwise the
        same seconds of an update in more, and shorter, batches. `auto` becomes seconds.
        """
        n_batches = -(-self.update_batches // n_ranks) * n_ranks
        seconds = self.update_seconds
        if seconds is None:
            if n_batches == self.update_batches:
                return self
            seconds = self.batch_seconds * self.update_batches
        return replace(
            self,
            batch_seconds=seconds / n_batches,
            update_batches=n_batches,
            update_seconds=None,
        )


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


def sample_languages(
    n_samples: np.ndarray,
    langs: np.ndarray,
    temperature: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Utterance numbers of a pass in which languages have hours^(1/temperature).

    A language that is wanted 2.3 times comes whole twice, and three tenths of its
    utterances, drawn anew for every pass, once more.

    Args:
        n_samples: length of each utterance (n,).
        langs: a number for the language of each utterance (n,).
        temperature: see `BatchOptions`.
        rng: of this pass.

    Returns:
        About n utterance numbers int32, shuffled.
    """
    lang, times = _times_of_languages(n_samples, langs, temperature)
    chosen = []
    for number, often in enumerate(times):
        mine = np.flatnonzero(lang == number)
        whole = int(often)
        rest = round((often - whole) * mine.size)
        chosen += [np.tile(mine, whole), rng.permutation(mine)[:rest]]
    return rng.permutation(np.concatenate(chosen)).astype(np.int32)


def _times_of_languages(
    n_samples: np.ndarray, langs: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """The number of each utterance's language, and how often each language comes."""
    _, lang = np.unique(langs, return_inverse=True)
    hours = np.bincount(lang, weights=n_samples)
    wanted = hours ** (1.0 / temperature)
    return lang, wanted / wanted.sum() * hours.sum() / hours


def sample_weighted(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Utterance numbers of a pass in which each comes as often as it is wanted.

    One that is wanted 2.3 times comes twice and, with a chance of 0.3, once more; how
    many there are in all differs by less than one from pass to pass.

    Args:
        times: how often each utterance is wanted (n,).
        rng: of this pass.

    Returns:
        Utterance numbers int32, shuffled.
    """
    whole = np.floor(times).astype(np.int64)
    order = rng.permutation(times.size)
    steps = np.floor(np.cumsum((times - whole)[order]) + rng.random())
    once_more = order[np.diff(steps, prepend=0.0) > 0]
    chosen = np.concatenate([np.repeat(np.arange(times.size), whole), once_more])
    return rng.permutation(chosen).astype(np.int32)


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
    n = len(n_samples)
    most = int(options.batch_seconds * SAMPLE_RATE)
    check_longest(n_samples, speeds or (), options.batch_seconds)
    # int32 throughout: with 8 million utterances every array counts
    temperature = options.language_temperature
    if times is not None:
        if temperature != 1.0:
            lang, often = _times_of_languages(times * n_samples, langs, temperature)
            times = times * often[lang]
        if times.sum() < 1:
            raise PowsmError(
                f"the weights of {n} utterances add up to {times.sum():.2g}, so that "
                "a pass may have none; raise them"
            )
        utts = sample_weighted(times, rng)
    elif temperature != 1.0:
        utts = sample_languages(n_samples, langs, temperature, rng)
    else:
        utts = rng.permutation(n).astype(np.int32)
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
