"""Edit distances between phone sequences: PanPhon's numbers, thousands of times faster.

Three metrics, each with substitutions, insertions and deletions:

- `feature`: PanPhon's `feature_edit_distance`. A substitution costs half the summed
  difference of the 24 feature values (-1, 0, +1), over 24; a gap costs 1 for each
  feature that is + or - and one half for each that is 0, over 24, so less than 1.
- `hamming`: PanPhon's `hamming_feature_edit_distance`. A substitution costs the share
  of features that differ at all, a gap costs 1.
- `phone`: every edit costs 1, what a phone error rate counts.

All feature costs are whole 48ths of a phone (Hamming: 24ths). They are added as
integers here: sums are exact and do not depend on order or number of threads.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from powsm.phones.inventory import feature_table
from powsm.score.edit_kernels import align_pairs, sum_costs

Metric = Literal["feature", "hamming", "phone"]

# How many units of integer cost make one phone.
UNITS: dict[Metric, int] = {"feature": 48, "hamming": 24, "phone": 1}

_CELLS_PER_THREAD = 2_000_000  # fewer cells of the edit tables than this: one thread
_TABLE_ROWS = 1024  # rows of a cost table computed at a time


class AlignedPhones(NamedTuple):
    """One step of an alignment; None is the gap."""

    ref: str | None
    hyp: str | None


class PhonePairs:
    """Hypothesis and reference phones of many utterances, coded once for all metrics.

    Args:
        hyp: phones of each hypothesis; may be empty (all of the reference is deleted).
        ref: phones of each reference, as many sequences as `hyp`; may be empty.
        n_threads: threads to use; by default as many as this process may run on.

    Raises:
        ValueError: different numbers of hypotheses and references.

    >>> pairs = PhonePairs(hyp=[["b", "i", "m"]], ref=[["p", "y", "m"]])
    >>> pairs.distances("feature") * 24  # voicing; lip and rounding
    array([3.])
    >>> pairs.edit_counts()  # substitutions, deletions, insertions
    array([[2, 0, 0]])
    """

    def __init__(
        self,
        *,
        hyp: Sequence[Sequence[str]],
        ref: Sequence[Sequence[str]],
        n_threads: int | None = None,
    ):
        if len(hyp) != len(ref):
            raise ValueError(
                f"{len(hyp)} hypotheses for {len(ref)} references; give one for each"
            )
        index = Numbers()
        self._hyp, self._hyp_start = _code(hyp, index)
        self._ref, self._ref_start = _code(ref, index)
        self._phones = tuple(index)
        self._n_threads = n_threads or len(os.sched_getaffinity(0))

    def __len__(self) -> int:
        return len(self._ref_start) - 1

    @property
    def n_hyp(self) -> np.ndarray:
        """Phones of each hypothesis, shape (n_pairs,)."""
        return np.diff(self._hyp_start)

    @property
    def n_ref(self) -> np.ndarray:
        """Phones of each reference, shape (n_pairs,)."""
        return np.diff(self._ref_start)

    def costs(self, metric: Metric) -> np.ndarray:
        """Distances as whole numbers of `1 / UNITS[metric]`, shape (n_pairs,), int64.

        Raises:
            UnknownPhoneError: a phone without features (not for `phone`).
        """
        sub, gap = _cost_tables(self._phones, metric)
        cost = np.zeros(len(self), np.int64)

        def run(first: int, last: int) -> None:
            sum_costs(*self._coded, sub, gap, first, last, cost)

        self._in_threads(run)
        return cost

    def distances(self, metric: Metric) -> np.ndarray:
        """Distances in phones, not normalised, shape (n_pairs,), float64.

        Source: PanPhon 0.22.2 (Mortensen et al., COLING 2016).

        Raises:
            UnknownPhoneError: a phone without features (not for `phone`).
        """
        return self.costs(metric) / UNITS[metric]

    def edit_counts(self) -> np.ndarray:
        """Substitutions, deletions, insertions of each pair, shape (n_pairs, 3), int64.

        Where several alignments are equally cheap, the one rapidfuzz (and so jiwer)
        reports is counted.
        """
        counts = np.zeros((len(self), 3), np.int64)
        sub, gap = _cost_tables(self._phones, "phone")
        nothing = np.empty(0, np.int32)

        def run(first: int, last: int) -> None:
            align_pairs(
                *self._coded, sub, gap, first, last, counts, nothing, nothing, nothing
            )

        self._in_threads(run)
        return counts

    def alignments(self, metric: Metric = "feature") -> list[list[AlignedPhones]]:
        """The cheapest alignment of each pair, from the first phone to the last.

        Raises:
            UnknownPhoneError: a phone without features (not for `phone`).
        """
        counts = np.zeros((len(self), 3), np.int64)
        sub, gap = _cost_tables(self._phones, metric)
        # an alignment is at most as long as both sequences together
        steps = np.zeros(len(self), np.int32)
        path_ref = np.empty(len(self._ref) + len(self._hyp), np.int32)
        path_hyp = np.empty_like(path_ref)

        def run(first: int, last: int) -> None:
            align_pairs(
                *self._coded, sub, gap, first, last, counts, steps, path_ref, path_hyp
            )

        self._in_threads(run)
        names = (*self._phones, None)  # -1, the gap, picks None
        starts = self._hyp_start[:-1] + self._ref_start[:-1]
        return [
            [
                AlignedPhones(names[r], names[h])
                for r, h in zip(
                    path_ref[start : start + n].tolist(),
                    path_hyp[start : start + n].tolist(),
                    strict=True,
                )
            ]
            for start, n in zip(starts.tolist(), steps.tolist(), strict=True)
        ]

    @property
    def _coded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self._hyp, self._hyp_start, self._ref, self._ref_start

    def _in_threads(self, run: Callable[[int, int], None]) -> None:
        """Call `run(first, last)` over slices of the pairs that cost about the same."""
        n_cells = np.cumsum((self.n_hyp + 1) * (self.n_ref + 1))
        total = int(n_cells[-1]) if len(n_cells) else 0
        n_threads = min(self._n_threads, total // _CELLS_PER_THREAD)
        if n_threads <= 1:
            run(0, len(self))
            return
        n_slices = 4 * n_threads
        shares = np.arange(1, n_slices) * total / n_slices
        edges = [0, *np.searchsorted(n_cells, shares).tolist(), len(self)]
        with ThreadPoolExecutor(n_threads) as pool:
            # list() so that an error in a thread is raised here
            list(pool.map(run, edges[:-1], edges[1:]))


def distance(
    *, hyp: Sequence[str], ref: Sequence[str], metric: Metric = "feature"
) -> float:
    """Edit distance between two phone sequences, in phones, not normalised.

    For more than a few pairs, `PhonePairs` does the same much faster.

    Args:
        hyp: hypothesis phones, NFD, as `powsm.phones.normaliser` makes them.
        ref: reference phones.
        metric: "feature", "hamming" or "phone"; see the head of this module.

    Returns:
        Distance in [0, max(len(hyp), len(ref))].

    Raises:
        UnknownPhoneError: a phone has no features; it is never skipped.

    >>> round(24 * distance(hyp=["b"], ref=["p"]), 6)
    1.0
    >>> distance(hyp=[], ref=["p", "a"], metric="hamming")
    2.0
    """
    return float(PhonePairs(hyp=[hyp], ref=[ref]).distances(metric)[0])


class Numbers(dict[str, int]):
    """Numbers phones in the order in which they are first asked for."""

    def __missing__(self, phone: str) -> int:
        self[phone] = number = len(self)
        return number


def _code(
    sequences: Sequence[Sequence[str]], index: Numbers
) -> tuple[np.ndarray, np.ndarray]:
    """All phones as one array of numbers, and where each sequence starts and ends."""
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    start = np.concatenate([[0], np.cumsum(lengths)])
    codes = map(index.__getitem__, chain.from_iterable(sequences))
    return np.fromiter(codes, np.int32, start[-1]), start


def _cost_tables(
    phones: Sequence[str], metric: Metric
) -> tuple[np.ndarray, np.ndarray]:
    """Costs in units: of substitutions (n, n), uint8, and of gaps (n,), int32.

    Where every edit costs 1 the first table is empty: `n` may be a vocabulary of words.
    """
    n = len(phones)
    if metric == "phone":
        return np.empty((0, 0), np.uint8), np.ones(n, np.int32)
    values = feature_table().of(phones)
    if metric == "hamming":
        # one column for each value a feature can take: equal features meet in one
        columns = np.hstack([values == v for v in (-1, 0, 1)]).astype(np.float32)
        gap = np.full(n, values.shape[1], np.int32)
    elif metric == "feature":
        # -1, 0, +1 as 00, 10, 11: the difference of two values is the number of bits
        # in which they differ, |a| + |b| - 2 (a and b)
        columns = np.hstack([values >= 0, values >= 1]).astype(np.float32)
        gap = (values.shape[1] + np.count_nonzero(values, axis=1)).astype(np.int32)
    else:
        raise ValueError(f"metric {metric!r}; expected one of {', '.join(UNITS)}")
    sub = np.empty((n, n), np.uint8)
    size = columns.sum(axis=1)
    for first in range(0, n, _TABLE_ROWS):
        rows = slice(first, first + _TABLE_ROWS)
        common = columns[rows] @ columns.T
        if metric == "hamming":
            sub[rows] = values.shape[1] - common
        else:
            sub[rows] = size[rows, None] + size - 2 * common
    return sub, gap
