"""Several channels of a recording become one, and what is lost by it is said.

So is what was lost when it was recorded: samples that are cut off at full scale.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from powsm.audio_files import AudioError, printable

if TYPE_CHECKING:  # stages that read no audio start in half the time without it
    import numpy as np

log = logging.getLogger(__name__)

SIDES = ("left", "right")
CHANNELS = ("mix", *SIDES, "each")

_SILENT_DB = 40.0  # below the loudest channel: one in which nobody speaks
_LOST_DB = 10.0  # below the loudest channel: the mean of channels that cancel
_FULL = 0.98  # the largest value of µ-law: what is cut off there does not change
_CUT_OFF = 0.01  # of all samples: recorded 10 dB too loud, or more
_MOST_NAMED = 10  # recordings, of each fault


def chosen(
    blocks: Iterable["np.ndarray"], channel: str | int | None, location: str
) -> Iterator["np.ndarray"]:
    """(n_samples,) of each block (n_samples, n_channels); as it is for `each`.

    Once all blocks are read, it is logged of a mix if channels are silent, which makes
    the mean quieter than what is said, or cancel each other; and of a recording that
    is no part of a corpus, for which a channel is chosen, if it is clipped.

    Args:
        channel: see `powsm.audio.read_audio`.

    Raises:
        AudioError: several channels and no choice, or no such channel.
    """
    power, n_cut, n = _Power(), 0, 0
    for block in blocks:
        if channel is not None:
            n_cut, n = n_cut + _n_cut_off(block), n + block.size
        if channel == "mix" and block.shape[1] > 1:
            mixed = block.mean(axis=1)
            power.add(block, mixed)
            yield mixed
        else:
            yield _one(block, channel, location)
    _say(power.fault(), location, n, _with_lost_channels)
    if n_cut > n * _CUT_OFF:
        share = f"{n_cut / n:.0%} of its samples are cut off at full scale"
        fault = f"{share}; results will be worse, record it with less gain"
        _say(fault, location, n, _cut_off)


_with_lost_channels: set[tuple] = set()
_cut_off: set[tuple] = set()


def _say(fault: str | None, location: str, n_samples: int, named: set[tuple]) -> None:
    # arrays have all the same name
    if fault is None or (location, n_samples, fault) in named:
        return
    named.add((location, n_samples, fault))
    if len(named) <= _MOST_NAMED:
        more = " (others are not named)" if len(named) == _MOST_NAMED else ""
        log.warning("%s: %s%s", printable(location), fault, more)


def _n_cut_off(block: "np.ndarray") -> int:
    """How many samples, of any channel, are followed by the same one at full scale."""
    is_full = (block[1:] >= _FULL) | (block[1:] <= -_FULL)
    return int((is_full & (block[1:] == block[:-1])).sum()) if is_full.any() else 0


class _Power:
    """How strong channels and their mean are, each without its constant offset."""

    def __init__(self):
        self._n, self._sums, self._squares = 0, 0.0, 0.0

    def add(self, block: "np.ndarray", mixed: "np.ndarray") -> None:
        import numpy as np

        self._n += len(block)
        columns = (*block.T, mixed)
        self._sums += np.array([np.sum(x, dtype=np.float64) for x in columns])
        self._squares += np.array(
            [np.einsum("i,i", x, x, dtype=np.float64) for x in columns]
        )

    def fault(self) -> str | None:
        """What the mean loses, if anything."""
        import numpy as np

        if not self._n:
            return None
        with np.errstate(invalid="ignore"):  # infinite samples are refused elsewhere
            power = self._squares / self._n - (self._sums / self._n) ** 2
        channels, mixed = power[:-1], max(power[-1], 0.0)
        loudest = channels.max()
        if loudest <= 1e-10:  # 100 dB below full scale: nothing is said in any
            return None
        n_silent = int((channels < loudest * 10 ** (-_SILENT_DB / 10)).sum())
        if not (n_silent or mixed < loudest * 10 ** (-_LOST_DB / 10)):
            return None
        n_channels = len(channels)
        what = f"silence in {n_silent} of its {n_channels} channels"
        if not n_silent:
            what = f"its {n_channels} channels cancel each other"
        below_db = 10 * np.log10(loudest / max(mixed, loudest * 1e-10))
        way = SIDES[int(channels.argmax())] if n_channels == 2 else "each"
        return (
            f"{what}: their mean is {below_db:.0f} dB quieter than the loudest; "
            f"choose channel {way}"
        )


def _one(
    samples: "np.ndarray", channel: str | int | None, location: str
) -> "np.ndarray":
    """A channel of (n_samples, n_channels); for `each` they stay as they are."""
    n_channels = samples.shape[1]
    if isinstance(channel, int):
        if channel >= n_channels:
            raise AudioError(
                f"{printable(location)}: no channel {channel}, it has {n_channels}"
            )
        return samples[:, channel]
    if channel is not None and channel not in CHANNELS:
        raise AudioError(f"channel {channel!r}, expected one of {' '.join(CHANNELS)}")
    if channel == "each":
        return samples
    if n_channels == 1:
        return samples[:, 0]
    if channel is None:
        raise several_channels(n_channels, location)
    if n_channels > 2:
        raise AudioError(
            f"{printable(location)}: {n_channels} channels have no {channel} one; use "
            "mix or each"
        )
    return samples[:, SIDES.index(channel)]


def several_channels(n_channels: int, location: str) -> AudioError:
    """The fault of a recording whose channels nobody chose among."""
    return AudioError(
        f"{printable(location)}: {n_channels} channels, expected 1; choose channel "
        f"{', '.join(CHANNELS)}, or mix or split them first"
    )
