"""Intervals: coverage by simulation, degenerate cases, the paired comparison."""

import numpy as np
import pytest

from powsm.score import intervals
from powsm.score.intervals import (
    bootstrap_intervals,
    compare,
    sum_by_unit,
    wilson_interval,
)


def simulated_errors(rng, n_utts, rate):
    """Errors and phones of utterances of different length and difficulty."""
    n_ref = rng.integers(10, 80, n_utts)
    difficulty = rng.gamma(2.0, rate / 2.0, n_utts)  # skewed, mean `rate`
    return rng.poisson(n_ref * difficulty), n_ref


def column(counts):
    return np.asarray(counts)[:, None]


def test_interval_covers_the_true_rate():
    rng = np.random.default_rng(0)
    n_sets, hits, misses_low, misses_high = 1500, 0, 0, 0
    for seed in range(n_sets):
        errors, n_ref = simulated_errors(rng, n_utts=100, rate=0.15)
        ((low, high),) = bootstrap_intervals(
            column(errors), column(n_ref), n_resamples=1000, seed=seed
        )
        hits += low <= 0.15 <= high
        misses_low += high < 0.15
        misses_high += low > 0.15
    assert 0.93 <= hits / n_sets <= 0.97
    # a two-sided interval errs on either side: 2.5 % each
    assert max(misses_low, misses_high) / n_sets < 0.045


def test_interval_of_speakers_covers_where_that_of_utterances_does_not():
    """Utterances of a speaker share their difficulty: they are not independent."""
    rng = np.random.default_rng(0)
    n_sets, n_speakers, per_speaker = 300, 60, 10
    speakers = np.repeat(np.arange(n_speakers), per_speaker)
    hits = {"utterance": 0, "speaker": 0}
    for seed in range(n_sets):
        rate = np.repeat(rng.gamma(4.0, 0.15 / 4.0, n_speakers), per_speaker)
        n_ref = rng.integers(10, 80, len(rate))
        counts = np.stack([rng.poisson(n_ref * rate), n_ref], 1)
        for unit, rows in (
            ("utterance", counts),
            ("speaker", sum_by_unit(counts, speakers)),
        ):
            ((low, high),) = bootstrap_intervals(
                rows[:, :1], rows[:, 1:], n_resamples=500, seed=seed
            )
            hits[unit] += low <= 0.15 <= high
    assert hits["speaker"] / n_sets >= 0.90
    assert hits["utterance"] / n_sets < 0.80


def test_interval_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(0)
    errors, n_ref = simulated_errors(rng, n_utts=3000, rate=0.2)
    ((low, high),) = bootstrap_intervals(column(errors), column(n_ref))
    rate = errors.sum() / n_ref.sum()
    # linearised variance of a ratio of sums (Cochran, Sampling Techniques, ch. 6)
    error = np.std(errors - rate * n_ref) * np.sqrt(len(n_ref)) / n_ref.sum()
    assert low == pytest.approx(rate - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(rate + 1.96 * error, abs=0.2 * error)


def test_same_seed_same_interval_whatever_the_threads(monkeypatch):
    errors, n_ref = map(column, simulated_errors(np.random.default_rng(0), 50, 0.1))
    first = bootstrap_intervals(errors, n_ref, n_resamples=500, seed=1)
    monkeypatch.setattr(intervals, "_DRAWS_PER_THREAD", 1)
    monkeypatch.setattr(intervals.os, "sched_getaffinity", lambda pid: range(3))
    assert bootstrap_intervals(errors, n_ref, n_resamples=500, seed=1) == first
    assert bootstrap_intervals(errors, n_ref, n_resamples=500, seed=2) != first


def test_rates_of_one_call_do_not_disturb_each_other():
    errors, n_ref = map(column, simulated_errors(np.random.default_rng(0), 50, 0.1))
    alone = bootstrap_intervals(errors, n_ref, n_resamples=500)
    both = bootstrap_intervals(
        np.hstack([n_ref, errors]), np.hstack([n_ref, n_ref]), n_resamples=500
    )
    assert both[0] == (1.0, 1.0)  # a rate of one in every utterance
    assert both[1] == alone[0]


def test_many_units_are_grouped_and_give_nearly_the_same(monkeypatch):
    errors, n_ref = map(column, simulated_errors(np.random.default_rng(0), 4000, 0.1))
    monkeypatch.setattr(intervals, "_MAX_UNITS", 4000)
    ((low, high),) = bootstrap_intervals(errors, n_ref, n_resamples=4000)
    monkeypatch.setattr(intervals, "_MAX_UNITS", 1000)
    ((low_grouped, high_grouped),) = bootstrap_intervals(
        errors, n_ref, n_resamples=4000
    )
    assert low_grouped == pytest.approx(low, abs=0.15 * (high - low))
    assert high_grouped == pytest.approx(high, abs=0.15 * (high - low))


def test_surplus_units_are_grouped_at_random(monkeypatch):
    """Groups by place would hold as much of each part of a sorted set: too narrow."""
    monkeypatch.setattr(intervals, "_MAX_UNITS", 2)
    counts = np.array([[1.0], [2.0], [4.0], [8.0]])
    groups = [intervals._grouped(counts, seed).ravel() for seed in range(20)]
    assert {len(sums) for sums in groups} == {2}
    pairs = {frozenset(sums.tolist()) for sums in groups}
    assert pairs == {frozenset(pair) for pair in ((3, 12), (5, 10), (9, 6))}


def test_two_utterances_of_one_phone_have_an_interval():
    ((low, high),) = bootstrap_intervals(column([1, 0]), column([1, 1]))
    assert (low, high) == (0.0, 1.0)


def test_too_little_data_has_no_interval():
    one = np.array([[3]])
    assert np.isnan(bootstrap_intervals(one, one)).all()  # one utterance
    three = np.ones((3, 1))
    assert np.isnan(bootstrap_intervals(three, 0 * three)).all()  # no phones
    assert np.isnan(wilson_interval(0, 0)).all()


def test_resamples_without_a_reference_are_left_out():
    # all but one of the references are empty: many resamples have nothing to divide by
    low, high = bootstrap_intervals(
        np.array([[1], [2], [0]]), np.array([[9], [0], [0]]), n_resamples=200
    )[0]
    assert 0 <= low <= high < np.inf


def test_shapes_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match=r"\(3, 1\).*\(2, 1\)"):
        bootstrap_intervals(np.ones((3, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError):
        compare((np.ones(3), np.ones(2)), (np.ones(3), np.ones(2)))


EVENLY = np.linspace(0, 1, 10_001)  # resamples of which a share x lies below x
LOPSIDED = -np.array([4.0, -1, -1, -1, -1])


@pytest.mark.parametrize(
    ("estimate", "left_out", "expected"),
    [
        # Student's z for 4 degrees, two terms: 1.95996 + 2.37232 / 4 + 2.82250 / 16 =
        # 2.72945; times sqrt(5 / 4): 3.05162, of the normal distribution 0.11 %
        (0.5, np.array([1.0, -1, 1, -1, 0]), (0.00114, 0.99886)),
        # 60 % of the resamples are below: all moves by 2 x 0.25335
        (0.6, np.array([1.0, -1, 1, -1, 0]), (0.00546, 0.99981)),
        # acceleration (64 - 4) / (6 x 20^1.5) = 0.11180: -3.05162 / 1.34118 = -2.27533
        # and 3.05162 / 0.65882 = 4.63192
        (0.5, LOPSIDED, (0.01144, 1.0)),
    ],
)
def test_bca_by_hand(estimate, left_out, expected):
    found = intervals._bca(
        estimate=estimate, resampled=EVENLY, left_out=left_out, level=0.95
    )
    assert found == pytest.approx(expected, abs=1e-5)


def test_resamples_that_equal_the_estimate_count_half():
    """0, 0.5 and 1, a third each: half below 0.5, so nothing moves."""
    resampled = np.repeat([0.0, 0.5, 1.0], 1000)
    left_out = np.array([1.0, -1, 1, -1, 0])
    how = {"resampled": resampled, "left_out": left_out, "level": 0.5}
    low, high = intervals._bca(estimate=0.5, **how)
    # 0.67449 + 0.24534 / 4 + 0.07949 / 16 = 0.74079, widened 0.82823: 20 and 80 %
    assert (low, high) == (0.0, 1.0)
    low, high = intervals._bca(estimate=0.5, **{**how, "level": 0.2})
    assert (low, high) == (0.5, 0.5)


def test_wilson_by_hand():
    # z = 1.959964, z^2 = 3.841459; 10 of 20: centre (0.5 + 0.096036) / 1.192073 = 0.5,
    # half width 1.959964 * sqrt(0.0125 + 0.0024009) / 1.192073 = 0.200702
    assert wilson_interval(10, 20) == pytest.approx((0.299298, 0.700702), abs=1e-5)
    low, high = wilson_interval(20, 20)
    assert low == pytest.approx(20 / 23.841459, abs=1e-5)  # n / (n + z^2)
    assert high == 1.0


def test_sum_by_unit_keeps_the_total():
    counts = np.array([[1, 10], [2, 20], [4, 40]])
    sums = sum_by_unit(counts, np.array(["b", "a", "b"]))
    assert sums.tolist() == [[2, 20], [5, 50]]


def test_compare_by_hand():
    """Six utterances of ten phones on which the first system makes one error more.

    A swap of k utterances turns the difference of 6 errors into 6 - 2 k: as large in
    2 of the 2^6 = 64 ways, so p is close to 2 / 64 (and counts itself once).
    """
    b = np.array([2, 0, 3, 0, 4, 1])
    n_ref = np.full(6, 10)
    result = compare((b + 1, b), (n_ref, n_ref), n_resamples=20_000)
    assert result.difference == pytest.approx(0.1)
    assert result.p == pytest.approx(2 / 64, abs=0.004)
    # always one more: resampling utterances cannot change the difference
    assert (result.low, result.high) == pytest.approx((0.1, 0.1))


def test_a_difference_that_no_swap_reaches_is_not_impossible():
    """40 utterances: as large in 2 of 2^40 ways; the outputs themselves are one."""
    n_ref = np.full(40, 10)
    ones = np.ones(40, int)
    result = compare((ones, 0 * ones), (n_ref, n_ref), n_resamples=99)
    assert result.p == 1 / 100


def test_compare_a_system_with_itself():
    errors, n_ref = simulated_errors(np.random.default_rng(0), 50, 0.1)
    assert compare((errors, errors), (n_ref, n_ref)) == (0.0, 0.0, 0.0, 1.0)


def test_compare_pairs_the_utterances():
    """Errors that both systems share cancel: the paired interval is the narrow one."""
    rng = np.random.default_rng(0)
    errors, n_ref = simulated_errors(rng, 200, 0.3)
    better = np.maximum(errors - rng.integers(0, 2, 200), 0)
    result = compare((errors, better), (n_ref, n_ref))
    ((low, high),) = bootstrap_intervals(column(errors), column(n_ref))
    assert 0 < result.low < result.difference < result.high
    assert result.high - result.low < (high - low) / 5
    assert result.p < 0.001


def test_compare_finds_no_difference_in_one_case_of_twenty():
    rng = np.random.default_rng(0)
    n_sets, found, excluded = 600, 0, 0
    for seed in range(n_sets):
        n_ref = rng.integers(10, 80, 60)
        rate = rng.gamma(2.0, 0.1, 60)
        a, b = rng.poisson(n_ref * rate), rng.poisson(n_ref * rate)
        result = compare((a, b), (n_ref, n_ref), n_resamples=500, seed=seed)
        found += result.p <= 0.05
        excluded += not result.low <= 0 <= result.high
    assert 0.025 <= found / n_sets <= 0.075
    assert 0.025 <= excluded / n_sets <= 0.09
