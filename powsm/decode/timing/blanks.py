"""Spans of frames grown into the blanks around them.

CTC says a phone in few frames, often one, and late, with blanks in between.
"""

from collections.abc import Sequence
from itertools import pairwise

# Where phones begin and end around the frames that say them, in seconds. Chosen on
# boundaries that people set, VoxAngeles, for three small models that agree: CTC says a
# phone late (egs2/mini_ipapack/s2t1/RESULTS.md has what it gives on other languages).
PAUSE_S = 0.16  # a longer stretch of blanks between two phones is a pause
SHARE = 0.2  # of a shorter one, what belongs to the phone before it
EARLIER_S = 0.01  # and by how much the boundary lies before that place
BEFORE_S, AFTER_S = 0.05, 0.06  # blank that a phone takes at a pause or an edge


def intervals(
    spans: Sequence[tuple[int, int]], n_frames: int, frame_s: float
) -> list[tuple[float, float]]:
    """Spans [start, end) grown into the blanks around them, in frames.

    >>> intervals([(2, 3), (6, 7), (20, 21)], n_frames=30, frame_s=0.04)
    [(0.75, 3.35), (3.35, 8.5), (18.75, 22.5)]
    """
    if not spans:
        return []
    before, after = BEFORE_S / frame_s, AFTER_S / frame_s
    starts, ends = [max(0, spans[0][0] - before)], []
    for (_, end), (start, _) in pairwise(spans):
        gap = start - end
        if gap * frame_s <= PAUSE_S:
            ends.append(end + SHARE * gap - EARLIER_S / frame_s)
            starts.append(ends[-1])
        else:
            ends.append(end + after)
            starts.append(start - before)
    ends.append(min(n_frames, spans[-1][1] + after))
    return list(zip(starts, ends, strict=True))
