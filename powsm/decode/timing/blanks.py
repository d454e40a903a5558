"""Spans of frames grown into the blanks around them.

CTC says a phone in few frames, often one, and late, with blanks in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Where phones begin and end around the frames that say them, as a model says them.

    Of values in seconds, before the sound is looked at: CTC says a phone late. What
    stands here was chosen on boundaries that people set, VoxAngeles, and serves models
    that are not calibrated; egs2/mini_ipapack/s2t1/RESULTS.md has what it gives.

    Attributes:
        share: of blanks that are no pause, what belongs to the phone before them.
        earlier_s: and by how much the boundary lies before that place.
        before_s, after_s: blank that a phone takes at a pause or an edge.
    """

    share: float = 0.5
    earlier_s: float = 0.01
    before_s: float = 0.05
    after_s: float = 0.06


USUAL = Timing()
# least and most of each: a pause is longer than what the phones around it take
LIMITS = {
    "share": (0.0, 1.0),
    "earlier_s": (-0.02, 0.04),
    "before_s": (0.0, 0.08),
    "after_s": (0.0, 0.08),
}
_SHORTEST = 0.5  # frames of a phone, whatever its model was calibrated to


def intervals(
    spans: Sequence[tuple[int, int]],
    pauses: Sequence[bool],
    n_frames: int,
    frame_s: float,
    timing: Timing = USUAL,
) -> list[tuple[float, float]]:
    """Spans [start, end) grown into the blanks around them, in frames.

    Args:
        spans: in order.
        pauses: whether the blanks between each and the next are one.
        n_frames: of the recording.
        frame_s: seconds from one to the next.
        timing: of the model.

    >>> spans = [(2, 3), (5, 7), (20, 21)]
    >>> intervals(spans, [False, True], n_frames=30, frame_s=0.04)
    [(0.75, 3.75), (3.75, 8.5), (18.75, 22.5)]
    """
    if not spans:
        return []
    before, after = timing.before_s / frame_s, timing.after_s / frame_s
    starts, ends = [max(0, spans[0][0] - before)], []
    for number, is_pause in enumerate(pauses):
        end, (start, last) = spans[number][1], spans[number + 1]
        if is_pause:
            ends.append(end + after)
            starts.append(start - before)
        else:
            boundary = end + timing.share * (start - end) - timing.earlier_s / frame_s
            ends.append(min(max(boundary, starts[-1] + _SHORTEST), last))
            starts.append(ends[-1])
    ends.append(min(n_frames, spans[-1][1] + after))
    return list(zip(starts, ends, strict=True))
