"""When phones begin and end, from the frames that say them and the sound."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from powsm.audio import SAMPLE_RATE
from powsm.decode.timing.blanks import USUAL, Timing, intervals
from powsm.decode.timing.change import finer_intervals
from powsm.decode.timing.pauses import is_pause
from powsm.model.frames import FrameGrid

if TYPE_CHECKING:
    from powsm.decode.recordings.stretches import Speech


def phone_times(
    places: Sequence[tuple[int, int]],
    n_frames: int,
    grid: FrameGrid,
    speech: "Speech",
    timing: Timing = USUAL,
    *,
    finer: bool = True,
) -> list[tuple[float, float]]:
    """(start, end) of each phone; neighbours without a pause share a boundary.

    Args:
        places: frames [start, end) that say each phone, in order.
        n_frames: of the recording.
        grid: of the model.
        speech: the recording, at 16 kHz.
        timing: of the model.
        finer: move boundaries to where the sound changes most near them.
    """
    frame_s = grid.step / SAMPLE_RATE
    blanks = [(end, start) for (_, end), (start, _) in pairwise(places)]
    pauses = [is_pause(speech, *map(grid.seconds, both)) for both in blanks]
    times = intervals(places, pauses, n_frames, frame_s, timing)

    def seconds(frame: float) -> float:
        # what lies before the first frame and after the last belongs to them
        if frame in (0, n_frames):
            return 0.0 if frame == 0 else len(speech) / SAMPLE_RATE
        return grid.seconds(frame)

    times = [(seconds(start), seconds(end)) for start, end in times]
    if finer:
        blanks_s = [(end - begin) * frame_s for begin, end in blanks]
        times = finer_intervals(times, blanks_s, speech)
    return times
