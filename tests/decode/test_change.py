"""Boundaries that move to where the sound changes most."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.decode.timing import change
from powsm.decode.timing.change import finer_intervals, moved_to_change

RATE = 16_000
CHANGES_S = (0.203, 0.331, 0.487)
NEAR_S = 0.0125  # the end of a loud sound is heard for half a window longer


def sounds(level=0.1):
    """Silence, noise, a low tone and a high one, which begin at known times."""
    t = np.arange(RATE) / RATE
    draw = np.random.default_rng(0)
    parts = [
        1e-4 * draw.normal(size=RATE),
        draw.normal(size=RATE),
        np.sin(2 * np.pi * 300 * t),
        np.sin(2 * np.pi * 2500 * t),
    ]
    number = np.searchsorted(CHANGES_S, t, side="right")
    return torch.from_numpy(level * np.choose(number, parts)).float()


@pytest.mark.parametrize("level", [0.3, 0.003])
@pytest.mark.parametrize("off", [-0.018, 0.0, 0.011, 0.019])
def test_a_boundary_finds_the_change_at_any_level(level, off):
    places = [time + off for time in CHANGES_S]
    found = moved_to_change(places, [0.02] * 3, sounds(level))
    assert found == pytest.approx(CHANGES_S, abs=NEAR_S)


def test_a_change_out_of_reach_is_not_found():
    (found,) = moved_to_change([CHANGES_S[1] - 0.05], [0.02], sounds())
    assert abs(found - (CHANGES_S[1] - 0.05)) <= 0.0225
    (found,) = moved_to_change([CHANGES_S[1] - 0.05], [0.06], sounds())
    assert found == pytest.approx(CHANGES_S[1], abs=NEAR_S)


@pytest.mark.parametrize("speech", [torch.zeros(8000), torch.full((8000,), 0.5)])
def test_where_nothing_changes_a_boundary_stays(speech):
    times = [0.1, 0.2, 0.3, 0.4]
    assert moved_to_change(times, [0.02] * 4, speech) == pytest.approx(times, abs=0.003)


@settings(deadline=None, max_examples=30)
@given(
    steps=st.lists(st.floats(0.001, 0.08, allow_subnormal=False), max_size=12),
    reach=st.floats(0.0, 0.08, allow_subnormal=False),
)
def test_boundaries_keep_their_order_and_stay_inside(steps, reach):
    speech = sounds()[: int(RATE * (sum(steps) + 0.01))]
    times = np.cumsum(steps)
    found = moved_to_change(times, [reach] * len(times), speech)
    assert len(found) == len(times)
    assert (np.diff([-1e-9, *found]) > 0).all()
    assert not found or found[-1] <= len(speech) / RATE
    assert np.abs(np.array(found) - times).max(initial=0) <= reach + 0.0051


def test_many_boundaries_are_those_of_few(monkeypatch):
    times = np.arange(0.02, 0.98, 0.04)
    whole = moved_to_change(times, [0.02] * len(times), sounds())
    monkeypatch.setattr(change, "_CHUNK", 5)
    assert moved_to_change(times, [0.02] * len(times), sounds()) == pytest.approx(whole)


def test_intervals_share_their_boundaries_and_keep_their_pauses():
    intervals = [(0.18, 0.34), (0.34, 0.42), (0.47, 0.6)]
    first, second, third = finer_intervals(intervals, [0.0, 0.2], sounds())
    assert first[0] == pytest.approx(CHANGES_S[0], abs=NEAR_S)
    assert first[1] == second[0] == pytest.approx(CHANGES_S[1], abs=NEAR_S)
    assert second[1] < third[0] == pytest.approx(CHANGES_S[2], abs=NEAR_S)
    assert finer_intervals([], [], sounds()) == []


def test_a_boundary_in_long_blanks_moves_further():
    intervals = [(0.22, 0.37), (0.37, 0.48)]  # the change between them is at 0.331
    for blanks_s, expected in ((0.04, 0.37), (0.16, CHANGES_S[1])):
        first, second = finer_intervals(intervals, [blanks_s], sounds())
        assert first[1] == second[0] == pytest.approx(expected, abs=0.023)
