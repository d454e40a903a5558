"""Boundaries moved to where the sound changes most, finer than the frames of CTC.

The spectrum is looked at every 5 ms. How much the sound changes at a place is the
distance between the mean log mel spectra of the 30 ms before it and after it; near a
boundary, the place of most change is taken. Chosen on half of the languages of
VoxAngeles, measured on the other half, and the other way round:
egs2/mini_ipapack/s2t1/RESULTS.md.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from powsm.audio import N_FFT, SAMPLE_RATE

if TYPE_CHECKING:
    from powsm.decode.recordings.stretches import Speech

# By how much boundaries may move: between two phones a share of the blanks there,
# within limits; and where a phone begins or ends beside a pause, of which CTC is less
# sure.
REACH, REACH_S, MOST_REACH_S = 0.4, 0.02, 0.16
BEGIN_REACH_S, END_REACH_S = 0.06, 0.04
_HOP = 80  # samples, 5 ms
_WINDOW = 320  # samples, 20 ms
_SIDE = 6  # hops that are compared on either side
_PRIOR = 0.05  # nats that a place at the reach must be better than one in the middle
_N_MELS = 40
_FLOOR = 1e-4  # of the loudest band around a boundary
_CHUNK = 100  # boundaries looked at together, 50 MB at most


def finer_intervals(
    intervals_s: Sequence[tuple[float, float]],
    blanks_s: Sequence[float],
    speech: "Speech",
) -> list[tuple[float, float]]:
    """Intervals of phones with their boundaries where the sound changes most.

    Args:
        intervals_s: (start, end) of each, in order; neighbours without a pause share a
            boundary, and still do.
        blanks_s: how long CTC says nothing between each and the next.
        speech: at 16 kHz.
    """
    places, reaches = [], []
    for n, (start, end) in enumerate(intervals_s):
        if not places or places[-1] != start:
            places.append(start)
            reaches.append(BEGIN_REACH_S)
        is_shared = n + 1 < len(intervals_s) and intervals_s[n + 1][0] == end
        places.append(end)
        if is_shared:
            reaches.append(min(max(REACH_S, REACH * blanks_s[n]), MOST_REACH_S))
        else:
            reaches.append(END_REACH_S)
    new = dict(zip(places, moved_to_change(places, reaches, speech), strict=True))
    return [(new[start], new[end]) for start, end in intervals_s]


def moved_to_change(
    times_s: Sequence[float], reaches_s: Sequence[float], speech: "Speech"
) -> list[float]:
    """Boundaries where the sound changes most, in their order.

    Args:
        times_s: in order; none moves half the way to its neighbour.
        reaches_s: by how much each may move.
        speech: at 16 kHz.

    Returns:
        One time each; where nothing changes, what it was, to 2.5 ms.
    """
    places = np.asarray(times_s, float) * SAMPLE_RATE / _HOP
    reaches = np.asarray(reaches_s, float) * SAMPLE_RATE / _HOP
    near = np.diff(places, prepend=-np.inf, append=np.inf) / 2
    found = []
    for first in range(0, len(places), _CHUNK):
        part = slice(first, first + _CHUNK)
        place, reach = places[part, None], reaches[part, None]
        before, after = near[:-1][part, None], near[1:][part, None]
        most = int(np.ceil(reach.max()))
        at = np.rint(place - 0.5).astype(int)
        to = at + np.arange(-most, most + 1) + 0.5
        change = _changes(_frames(speech, at[:, 0] - most - _SIDE, most + _SIDE))
        off = to - place
        is_inside = (to >= 0) & (to <= len(speech) / _HOP)
        change -= _PRIOR * (off / reach.clip(1)) ** 2
        is_free = is_inside & (abs(off) <= reach + 0.5)
        is_free &= (-off < before) & (off < after)
        change[~is_free] = -np.inf
        best = np.take_along_axis(to, change.argmax(1)[:, None], 1)
        found += np.where(is_free.any(1), best[:, 0], place[:, 0]).tolist()
    return [place * _HOP / SAMPLE_RATE for place in found]


def _frames(speech: "Speech", firsts: np.ndarray, half: int) -> Tensor:
    """(N, 2 * half, _WINDOW) windows around every hop from `firsts` on; 0 outside."""
    n_samples = (2 * half - 1) * _HOP + _WINDOW
    stretches = torch.zeros(len(firsts), n_samples)
    for row, first in zip(stretches, firsts.tolist(), strict=True):
        begin = first * _HOP - _WINDOW // 2
        part = speech[max(begin, 0) : max(begin + n_samples, 0)]
        row[max(-begin, 0) :][: len(part)] = part
    return stretches.unfold(1, _WINDOW, _HOP)


def _changes(frames: Tensor) -> np.ndarray:
    """(N, frames - 2 * _SIDE + 1) of (N, frames, _WINDOW): how much changes between."""
    window, bands = _filters()
    power = torch.fft.rfft(frames * window, N_FFT).abs().square()
    mel = power @ bands
    loudest = mel.amax(dim=(1, 2), keepdim=True)
    logs = (mel + _FLOOR * loudest + 1e-12).log()
    sums = torch.nn.functional.pad(logs.cumsum(1), (0, 0, 1, 0))
    means = (sums[:, _SIDE:] - sums[:, :-_SIDE]) / _SIDE
    return (means[:, _SIDE:] - means[:, :-_SIDE]).square().mean(2).sqrt().numpy()


@cache
def _filters() -> tuple[Tensor, Tensor]:
    bands = melscale_fbanks(N_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, _N_MELS, SAMPLE_RATE)
    return torch.hann_window(_WINDOW), bands
