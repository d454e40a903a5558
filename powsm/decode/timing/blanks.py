"""Spans of frames grown into the blanks around them.

CTC says a phone in few frames, often one, and late, with blanks in between.
"""

from collections.abc import Sequence
from itertools import pairwise

# Where phones begin and end around the frames that say them, in seconds, before the
# sound is looked at: CTC says a phone late. Chosen on boundaries that people set,
# VoxAngeles; egs2/mini_ipapack/s2t1/RESULTS.md has what they give on other languages.
SHARE = 0.5  # of blanks that are no pause, what belongs to the phone before them
EARLIER_S = 0.01  # and by how much the boundary lies before that place
BEFORE_S, AFTER_S = 0.05, 0.06  # blank that a phone takes at a pause or an edge


def intervals(
    spans: Sequence[tuple[int, int]],
    pauses: Sequence[bool],
    n_frames: int,
    frame_s: float,
) -> list[tuple[float, float]]:
    """Spans [start, end) grown into the blanks around them, in frames.

    Args:
        spans: in order.
        pauses: whether the blanks between each and the next are one.
        n_frames: of the recording.
        frame_s: seconds from one to the next.

    >>> spans = [(2, 3), (5, 7), (20, 21)]
    >>> intervals(spans, [False, True], n_frames=30, frame_s=0.04)
    [(0.75, 3.75), (3.75, 8.5), (18.75, 22.5)]
    """
    if not spans:
        return []
    before, after = BEFORE_S / frame_s, AFTER_S / frame_s
    starts, ends = [max(0, spans[0][0] - before)], []
    for ((_, end), (start, _)), is_pause in zip(pairwise(spans), pauses, strict=True):
        if is_pause:
            ends.append(end + after)
            starts.append(start - before)
        else:
            ends.append(end + SHARE * (start - end) - EARLIER_S / frame_s)
            starts.append(ends[-1])
    ends.append(min(n_frames, spans[-1][1] + after))
    return list(zip(starts, ends, strict=True))
