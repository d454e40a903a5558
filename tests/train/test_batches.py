"""Batches: every utterance once, of like length, in an order that is known."""

import hashlib

import numpy as np
import pytest

from powsm.errors import PowsmError
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.plan import plan_pass
from powsm.train.batches.sampling import sample_languages, sample_weighted

SECOND = 16_000


def random_lengths(n=1000):
    rng = np.random.default_rng(0)
    return (rng.gamma(3.0, 2.5, n).clip(0.5, 20) * SECOND).astype(np.int64)


def utterances(plan):
    return [key[0] for b in range(len(plan)) for key in plan.batch(b)]


def test_a_pass_holds_every_utterance_once_within_the_limit():
    lengths = random_lengths()
    options = BatchOptions(batch_seconds=60)
    plan = plan_pass(lengths, options, 0)
    assert sorted(utterances(plan)) == list(range(1000))
    for b in range(len(plan)):
        batch = plan.batch(b)
        assert len(batch) * max(key.total for key in batch) <= 60 * SECOND


def test_batches_hold_utterances_of_like_length():
    lengths = random_lengths()
    plan = plan_pass(lengths, BatchOptions(batch_seconds=60), 0)
    padded = sum(
        len(plan.batch(b)) * max(key.total for key in plan.batch(b))
        for b in range(len(plan))
    )
    # sorted by length, padding is a few per cent; unsorted batches would waste a third
    assert padded < 1.1 * lengths.sum()


def test_batches_touch_few_shards():
    """200,000 utterances of IPAPack++'s lengths in 200 shards, nine a batch or so."""
    rng = np.random.default_rng(1)
    lengths = random_lengths(200_000)
    shards = np.repeat(np.arange(200), rng.multinomial(200_000, [1 / 200] * 200))
    shards = rng.permutation(1000)[:200][shards]  # numbers with gaps, in any order
    touched, padded = {}, {}
    for together in (0, 1, 2):
        options = BatchOptions(
            batch_seconds=67, update_batches=8, shards_together=together
        )
        plan = plan_pass(lengths, options, 0, shards=shards)
        assert np.array_equal(np.sort(plan.utts), np.arange(200_000))
        batch = np.repeat(np.arange(len(plan.bounds) - 1), np.diff(plan.bounds))
        pairs = np.unique(batch * 1000 + shards[plan.utts]) // 1000
        touched[together] = np.bincount(pairs)
        longest = plan.total[plan.bounds[1:] - 1].astype(float)
        rows = longest * np.diff(plan.bounds)
        assert rows.max() <= 67 * SECOND
        padded[together] = rows.sum() / plan.total.sum(dtype=float)
    assert np.mean(touched[0]) > 6
    assert max(touched[1]) == 1 and max(touched[2]) == 2
    assert 1 < padded[0] < padded[2] < padded[1] < 1.03


def test_shards_together_are_drawn_anew_for_every_pass():
    lengths, shards = random_lengths(400), np.arange(400) // 20
    options = BatchOptions(batch_seconds=40, shards_together=2)

    def neighbours(number):
        plan = plan_pass(lengths, options, number, shards=shards)
        return {frozenset(shards[[key[0] for key in plan.batch(b)]])
                for b in range(len(plan))}  # fmt: skip

    first, again, other = neighbours(0), neighbours(0), neighbours(1)
    assert first == again != other


def test_a_pass_is_a_function_of_seed_and_number():
    lengths = random_lengths(200)
    options = BatchOptions(batch_seconds=40, seed=3)
    first, again = plan_pass(lengths, options, 5), plan_pass(lengths, options, 5)
    other = plan_pass(lengths, options, 6)
    assert utterances(first) == utterances(again) != utterances(other)


def test_silence_up_to_the_window_counts_as_length():
    lengths = random_lengths(2000)
    options = BatchOptions(batch_seconds=60, window_share=0.3, window_s=20.0)
    plan = plan_pass(lengths, options, 0)
    grown = 0
    for b in range(len(plan)):
        for utt, total, lead, *_ in plan.batch(b):
            assert lengths[utt] <= total <= max(20 * SECOND, lengths[utt])
            assert 0 <= lead <= total - lengths[utt]
            grown += total > lengths[utt]
    assert 0.25 < grown / 2000 < 0.35


def test_an_utterance_longer_than_a_batch_is_an_error():
    with pytest.raises(ValueError, match="batch_seconds is 10, the longest of 2"):
        plan_pass(np.array([SECOND, 11 * SECOND]), BatchOptions(batch_seconds=10), 0)


def times_taken(lengths, options, n_passes):
    counts = np.zeros(len(lengths))
    for number in range(n_passes):
        chosen = utterances(plan_pass(lengths, options, number))
        counts += np.bincount(chosen, minlength=len(lengths))
    return counts / n_passes


def test_what_is_left_over_is_long_as_often_as_short():
    """Twelve batches and updates of eight: two thirds of each length are taken."""
    lengths = np.sort(random_lengths(80))
    options = BatchOptions(batch_seconds=60, update_batches=8)
    assert 8 < len(plan_pass(lengths, BatchOptions(batch_seconds=60), 0)) < 16
    taken = times_taken(lengths, options, 600)
    for part in np.split(taken, 5):  # by length
        assert part.mean() == pytest.approx(taken.mean(), abs=0.1)
    assert taken.max() <= 1


def test_less_than_an_update_is_taken_evenly_more_than_once():
    lengths = np.sort(random_lengths(35))
    n = len(plan_pass(lengths, BatchOptions(batch_seconds=60), 0))
    assert 4 < n < 8
    options = BatchOptions(batch_seconds=60, update_batches=8)
    counts = np.bincount(utterances(plan_pass(lengths, options, 0)))
    assert counts.min() == 1 and counts.max() == 2
    taken = times_taken(lengths, options, 600)
    for part in np.split(taken, 5):
        assert part.mean() == pytest.approx(8 / n, abs=0.1)


def test_temperature_gives_languages_their_root_of_hours():
    """16 h and 1 h at temperature 2: 4 to 1 of the 17 h."""
    samples = np.full(170, 360 * SECOND)
    langs = np.array([7] * 160 + [9] * 10)
    chosen = sample_languages(samples, langs, 2.0, np.random.default_rng(0))
    counts = np.bincount(chosen, minlength=170)
    assert counts[:160].sum() == 136 and set(counts[:160]) == {0, 1}  # 17 h x 4/5
    assert counts[160:].sum() == 34 and set(counts[160:]) == {3, 4}  # 17 h x 1/5


def test_temperature_counts_hours_and_not_utterances():
    """16 of an hour and 60 of a minute: 13.6 h and 3.4 h, however many that are."""
    samples = np.array([3600 * SECOND] * 16 + [60 * SECOND] * 60)
    langs = np.array([0] * 16 + [1] * 60)
    chosen = sample_languages(samples, langs, 2.0, np.random.default_rng(0))
    counts = np.bincount(chosen, minlength=76)
    assert counts[:16].sum() == 14  # 0.85 of each
    assert counts[16:].sum() == 204 and set(counts[16:]) == {3, 4}  # 3.4 of each


def test_temperature_1_takes_every_utterance_once():
    samples = random_lengths(50)
    rng = np.random.default_rng(0)
    chosen = sample_languages(samples, np.arange(50) % 3, 1.0, rng)
    assert sorted(chosen) == list(range(50))


def test_temperature_draws_anew_in_each_pass_and_the_same_again():
    lengths, langs = random_lengths(300), np.arange(300) % 30 // 29
    options = BatchOptions(batch_seconds=60, language_temperature=3.0)
    first, again, other = (plan_pass(lengths, options, p, langs) for p in (0, 0, 1))
    assert utterances(first) == utterances(again)
    rare = [sorted(u for u in utterances(p) if langs[u]) for p in (first, other)]
    assert len(rare[0]) == len(rare[1]) > 10 * 2  # of ten utterances
    common = [{u for u in utterances(p) if not langs[u]} for p in (first, other)]
    assert common[0] != common[1]


def test_utterances_come_as_often_as_they_are_wanted():
    times = np.array([0.0, 1.0, 2.3, 0.4, 3.0])
    counts = np.zeros(5)
    sizes = set()
    for number in range(2000):
        chosen = sample_weighted(times, np.random.default_rng(number))
        sizes.add(chosen.size)
        counts += np.bincount(chosen, minlength=5)
    assert counts[[0, 1, 4]].tolist() == [0, 2000, 6000]
    assert counts[[2, 3]] / 2000 == pytest.approx([2.3, 0.4], abs=0.04)
    assert sizes <= {6, 7}  # 6.7 on average


def test_weights_that_may_leave_a_pass_empty_are_refused():
    lengths = np.full(12, SECOND)
    with pytest.raises(PowsmError, match="12 utterances add up to 0.12, so that a pas"):
        plan_pass(lengths, BatchOptions(), 0, times=np.full(12, 0.01))


def test_weights_and_languages_go_together():
    """A language has the share of its hours that the weights leave it."""
    lengths, langs = np.full(400, SECOND), np.arange(400) % 4 // 3  # 300 and 100
    times = np.where(langs == 0, 1 / 3, 1.0)  # 100 and 100
    options = BatchOptions(batch_seconds=60, language_temperature=2.0)
    plans = [plan_pass(lengths, options, p, langs, times=times) for p in (0, 0, 1)]
    first, again, other = map(utterances, plans)
    assert first == again != other
    assert np.bincount(langs[first]).tolist() == [100, 100]
    options = BatchOptions(batch_seconds=60)
    once = utterances(plan_pass(lengths, options, 0, times=np.ones(400)))
    assert sorted(once) == list(range(400))


@pytest.mark.parametrize(
    ("ranks", "seconds", "batches"),
    [(1, 134.0, 4), (2, 134.0, 4), (4, 134.0, 4), (8, 67.0, 8), (3, 536 / 6, 6)],
)
def test_auto_divides_an_update_among_its_batches(ranks, seconds, batches):
    options = BatchOptions(batch_seconds="auto", update_seconds=536, update_batches=4)
    options = options.shared_by(ranks)
    assert (options.batch_seconds, options.update_batches) == (seconds, batches)
    assert options.shared_by(ranks) == options


@pytest.mark.parametrize(
    ("ranks", "seconds", "batches"),
    [
        (1, 67, 8),
        (8, 67, 8),
        (3, 536 / 9, 9),  # the next that three can share
        (16, 33.5, 16),  # more ranks than batches
    ],
)
def test_any_number_of_ranks_shares_an_update_of_the_same_length(
    ranks, seconds, batches
):
    options = BatchOptions(batch_seconds=67, update_batches=8).shared_by(ranks)
    assert options.update_batches == batches
    assert options.batch_seconds == pytest.approx(seconds)


def test_without_augmentation_batches_are_those_of_before_there_was_any():
    lengths = (np.arange(400) * 7919 % 300 + 20) * 800
    digest = hashlib.sha256()
    for options in (
        BatchOptions(batch_seconds=60, update_batches=4, seed=3),
        BatchOptions(batch_seconds=60, window_share=0.3, language_temperature=2.0),
    ):
        for number in (0, 3):
            plan = plan_pass(lengths, options, number, np.arange(400) % 3)
            keys = [key for b in range(len(plan)) for key in plan.batch(b)]
            assert {(key.speed, key.draw) for key in keys} == {(1.0, None)}
            digest.update(repr([tuple(key)[:3] for key in keys]).encode())
    assert digest.hexdigest()[:16] == "1912be810efc3ff8"
