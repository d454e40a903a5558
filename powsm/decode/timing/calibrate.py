"""A model's timing, chosen on boundaries that people set.

What is chosen is how blanks are shared out before the sound is looked at; each choice
is judged after that, as `powsm align` places boundaries.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from powsm.decode.recordings.stretches import Speech
from powsm.decode.timing.blanks import LIMITS, USUAL, Timing
from powsm.decode.timing.times import phone_times
from powsm.model.frames import FrameGrid

_STEPS = {"share": 0.1, "earlier_s": 0.005, "before_s": 0.01, "after_s": 0.01}
_SCALES = (4, 2, 1)  # of the steps
# what is changed in one step: more of the blanks and an earlier place are much alike
_TOGETHER = [(name,) for name in _STEPS] + [("share", "earlier_s")]
_WITHIN_MS = (10, 20, 40)
_FAR_MS = 200.0  # of a boundary: the phone is another, and no timing mends that


@dataclass(frozen=True)
class Labelled:
    """A recording whose phones were found, with the times that people set.

    Attributes:
        places, n_frames, speech: see `phone_times`.
        begins, ends: by number of the phone, in seconds; others are not known. An end
            is known only where no phone follows at once.
        n_lacking: phones that the model lacks; the nearest stood for them.
    """

    places: Sequence[tuple[int, int]]
    n_frames: int
    speech: Speech
    begins: Mapping[int, float]
    ends: Mapping[int, float]
    n_lacking: int = 0

    @property
    def n_boundaries(self) -> int:
        return len(self.begins) + len(self.ends)

    def halves(self) -> "list[Labelled]":
        """Itself twice, with the labels of its first and of its second half."""
        middle = len(self.places) // 2

        def part(is_first: bool, times: Mapping[int, float]) -> dict[int, float]:
            return {n: s for n, s in times.items() if (n < middle) == is_first}

        return [
            replace(self, begins=part(first, self.begins), ends=part(first, self.ends))
            for first in (True, False)
        ]


def errors_ms(
    recordings: Sequence[Labelled], grid: FrameGrid, timing: Timing
) -> np.ndarray:
    """Signed error of each boundary, in ms; above 0 where it is found too late."""
    errors: list[float] = []
    for one in recordings:
        times = phone_times(one.places, one.n_frames, grid, one.speech, timing)
        errors += [times[n][0] - true for n, true in one.begins.items()]
        errors += [times[n][1] - true for n, true in one.ends.items()]
    return 1000 * np.array(errors)


def calibrate(
    recordings: Sequence[Labelled],
    grid: FrameGrid,
    tried: Callable[[Timing], None] = lambda timing: None,
) -> Timing:
    """The timing with the least mean error, those above 200 ms as if they were 200.

    From the usual one on, a value is changed by a step as long as that helps, by large
    steps first.

    Args:
        tried: called with each timing that was judged.
    """

    def judged(timing: Timing) -> float:
        tried(timing)
        return cost(errors_ms(recordings, grid, timing))

    best, least = USUAL, judged(USUAL)
    seen = {best}
    for scale in _SCALES:
        improves = True
        while improves:
            improves = False
            for timing in _neighbours(best, scale):
                if timing in seen:
                    continue
                seen.add(timing)
                if (now := judged(timing)) < least:
                    best, least, improves = timing, now, True
                    break
    return best


def cost(errors: np.ndarray) -> float:
    """Mean of errors in ms, with those above 200 as if they were 200."""
    return float(np.abs(errors).clip(max=_FAR_MS).mean())


def summary(errors: np.ndarray) -> dict[str, float]:
    """Of signed errors in ms: distances, bias, and shares within some; {} of none."""
    if not len(errors):
        return {}
    distance = np.abs(errors)
    values = {
        "n": len(errors),
        "median_ms": np.median(distance),
        "mean_ms": distance.mean(),
        "p90_ms": np.quantile(distance, 0.9),
        "bias_ms": np.median(errors),
    }
    for most in _WITHIN_MS:
        values[f"within_{most}ms"] = 100 * np.mean(distance <= most)
    return {key: round(float(value), 1) for key, value in values.items()}


def _neighbours(timing: Timing, scale: int) -> Iterator[Timing]:
    for names in _TOGETHER:
        for sign in (scale, -scale):
            new = {
                name: round(getattr(timing, name) + sign * _STEPS[name], 6)
                for name in names
            }
            limits = [(LIMITS[name], value) for name, value in new.items()]
            if all(low <= value <= high for (low, high), value in limits):
                yield replace(timing, **new)
