"""Long stretches of blanks: pauses, or the sound of their neighbours."""

import numpy as np
import pytest
import torch

from powsm.decode.timing.pauses import is_pause

RATE = 16_000
GAP_S = (0.5, 0.8)  # of blanks, between a tone and a tone


def around(*parts, noise=1e-4):
    """Half a second of a tone, then (seconds, level) of noise, then the tone again."""
    draw = np.random.default_rng(0)
    tone = 0.1 * np.sin(2 * np.pi * 300 * np.arange(RATE // 2) / RATE)
    gap = [level * draw.normal(size=int(RATE * seconds)) for seconds, level in parts]
    speech = np.concatenate([tone, *gap, tone])
    speech += noise * draw.normal(size=len(speech))
    return torch.from_numpy(speech).float()


@pytest.mark.parametrize("gain", [1.0, 0.01])
@pytest.mark.parametrize(
    ("parts", "noise", "expected"),
    [
        ([(0.3, 0.0)], 1e-4, True),
        ([(0.3, 0.0)], 0.0, True),  # digital silence
        ([(0.3, 0.0)], 0.01, True),  # a room 17 dB below the speech
        ([(0.3, 0.02)], 1e-4, False),  # a fricative 11 dB below the vowels
        ([(0.08, 0.0), (0.22, 0.02)], 1e-4, False),  # a closure and its release
        ([(0.1, 0.02), (0.2, 0.0)], 1e-4, True),  # a fricative and a pause
    ],
)
def test_a_pause_is_as_quiet_as_it_gets_here(gain, parts, noise, expected):
    speech = gain * around(*parts, noise=noise)
    assert is_pause(speech, *GAP_S) is expected
    assert is_pause(torch.cat([speech * 0, speech]), 1.8, 2.1) is expected
    assert is_pause(speech + 0.1, *GAP_S) is expected  # of a sound card


def test_length_decides_where_it_can():
    speech = around((0.6, 0.02))
    assert not is_pause(around((0.16, 0.0)), 0.5, 0.66)
    assert not is_pause(speech, 0.5, 1.0)
    assert is_pause(speech, 0.5, 1.04)  # no phone is as long
    assert is_pause(around((0.5, 0.0)), 0.5, 1.0)  # as quiet as a pause, all the same


def test_nothing_but_digital_silence_is_a_pause():
    assert is_pause(torch.zeros(RATE), 0.3, 0.6)
