"""Goodness of pronunciation: how much better a given phone fits than any other.

Two scores of each phone, in nats; below 0 another phone fits better:

- `gop`, at the frames F that forced alignment gives phone p:
  mean over t in F of log P(p | t) - max over q of log P(q | t), q any other phone.
  The posterior form (Hu et al., Speech Communication 67, 2015) of the likelihood ratio
  of Witt and Young (Speech Communication 30, 2000); CTC's blank is no competitor.
- `gop_free`, free of the alignment, for phone i of the given phones l:
  log P(l) - max of log P(l') over all l' that have another phone in the place of i, or
  none, P summed over all paths of CTC. After Cao et al. (A framework for phoneme-level
  pronunciation assessment using CTC, Interspeech 2024), who sum where this takes the
  best, which is the rival that is told.

A long recording is cut between two phones into pieces of at most `MOST_FRAMES`, and
`gop_free` is of the piece.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from powsm.decode.pronunciation.replaced import replaced_log_probs

MOST_FRAMES = 500  # 20 s; the sums take frames x phones of memory
LEFT_OUT = "-"  # rival of a phone that is likelier not there


@dataclass(frozen=True)
class Goodness:
    """Of a phone; see the top.

    Attributes:
        gop: at its frames.
        gop_free: free of the alignment.
        rival: number of the phone that fits best in its place; None: no phone does.
    """

    gop: float
    gop_free: float
    rival: int | None


def goodness(
    log_probs: np.ndarray,
    labels: Sequence[int],
    spans: Sequence[tuple[int, int]],
    n_phones: int,
) -> list[Goodness]:
    """Both scores of each label.

    Args:
        log_probs: (T, C); column 0 is the blank, then come the phones, then columns
            that are no phones.
        labels: (L,) columns of what is said, in order.
        spans: (L,) frames [start, end) of each, by forced alignment.
        n_phones: all columns of phones.
    """
    phones = np.arange(1, n_phones + 1)
    found = []
    for first, last, begin, end in _pieces(spans, len(log_probs)):
        given, other = replaced_log_probs(
            log_probs[begin:end], np.array(labels[first:last]), phones
        )
        for n in range(first, last):
            label, (start, stop) = labels[n], spans[n]
            sums = other[n - first].copy()
            if label <= n_phones:
                sums[label - 1] = -np.inf
            best = int(sums.argmax())
            found.append(
                Goodness(
                    _at_frames(log_probs[start:stop, : n_phones + 1], label),
                    given - float(sums[best]),
                    best if best < n_phones else None,
                )
            )
    return found


def _at_frames(log_probs: np.ndarray, label: int) -> float:
    """Mean distance of a label to the best other phone; column 0 is the blank."""
    if label >= log_probs.shape[1]:
        return 0.0  # no phone, and so no other
    others = log_probs.copy()
    others[:, [0, label]] = -np.inf
    return float(np.mean(log_probs[:, label] - others.max(axis=1)))


def _pieces(
    spans: Sequence[tuple[int, int]], n_frames: int, most: int = MOST_FRAMES
) -> Iterator[tuple[int, int, int, int]]:
    """(first label, label behind the last, first frame, frame behind the last).

    A piece ends in the widest gap of its later half.

    >>> list(_pieces([(0, 1), (3, 4), (4, 5), (9, 10)], n_frames=12, most=8))
    [(0, 3, 0, 7), (3, 4, 7, 12)]
    """
    first = begin = 0
    while n_frames - begin > most and first < len(spans) - 1:
        last, widest = first + 1, -1
        for n in range(first + 1, len(spans)):
            gap = spans[n][0] - spans[n - 1][1]
            if spans[n][0] - begin > most and widest >= 0:
                break
            if gap > widest and spans[n][0] - begin > most // 2:
                last, widest = n, gap
        if widest < 0:
            break
        end = (spans[last - 1][1] + spans[last][0]) // 2
        yield first, last, begin, end
        first, begin = last, end
    yield first, len(spans), begin, n_frames
