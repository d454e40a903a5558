"""Which stretches of blanks between two phones are pauses, by how loud they are.

CTC says a long phone in one frame, so that a long stretch of blanks may as well be the
sound of its neighbours. A pause is as quiet as the quietest of what is around it.
Chosen on half of the languages of VoxAngeles, and on pairs of its words joined:
egs2/mini_ipapack/s2t1/RESULTS.md.
"""

from typing import TYPE_CHECKING

import torch

from powsm.audio import SAMPLE_RATE, without_offset

if TYPE_CHECKING:
    from powsm.decode.recordings.stretches import Speech

SHORTEST_S, LONGEST_S = 0.16, 0.5  # of blanks: up to the first no pause, above always
_AROUND_S = 1.0  # what is heard on either side, to know what is quiet here
_SILENCE = 10  # frames of it that make a pause, longer than most closures of a stop
_QUIET = 0.3  # of the way from the quietest sound here to the loudest, in decibels
_LEAST_DB, _MOST_DB = 12.0, 60.0  # of that way; with less nothing here is silent
_ZERO_DB = -95.0  # digital silence, beside which a quiet room is loud
_HOP, _WINDOW = 160, 320  # samples, 10 and 20 ms


def is_pause(speech: "Speech", begin_s: float, end_s: float) -> bool:
    """Whether blanks between two phones are a pause, and not the phones' own sound.

    Args:
        speech: at 16 kHz.
        begin_s, end_s: where the blanks begin and end.
    """
    if not SHORTEST_S < round(end_s - begin_s, 6) <= LONGEST_S:
        return end_s - begin_s > LONGEST_S
    first = max(0, round((begin_s - _AROUND_S) * SAMPLE_RATE))
    level = _level_db(speech[first : round((end_s + _AROUND_S) * SAMPLE_RATE)])
    heard = level[level > _ZERO_DB]
    if not len(heard):
        return True
    low, high = heard.quantile(torch.tensor([0.05, 0.95])).tolist()
    way = min(high - low, _MOST_DB)
    most = high - (1 - _QUIET) * way if way >= _LEAST_DB else _ZERO_DB
    begin, end = (round(s * SAMPLE_RATE - first) // _HOP for s in (begin_s, end_s))
    is_quiet = level[begin:end] <= most
    return bool(is_quiet.unfold(0, _SILENCE, 1).all(1).any())


def _level_db(samples: torch.Tensor) -> torch.Tensor:
    """(frames,) of (n_samples,): how loud each is."""
    padded = torch.nn.functional.pad(without_offset(samples.float()), (0, _WINDOW))
    power = padded.unfold(0, _WINDOW, _HOP).square().mean(1)
    return 10 * (power + 1e-10).log10()
