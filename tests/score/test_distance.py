"""Distances: hand-worked costs, PanPhon and rapidfuzz on random pairs, alignments."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from powsm.files import compiled
from powsm.phones.inventory import UnknownPhoneError, feature_table
from powsm.score import distance as distance_module
from powsm.score.distance import UNITS, PhonePairs, distance

PHONES = ("p", "b", "t͡ʃ", "pʰ", "a", "aː", "a\u0303", "s̪", "˥")
METRICS = tuple(UNITS)


@pytest.fixture(scope="module")
def panphon_distance():
    from panphon.distance import Distance

    return Distance()


@pytest.mark.parametrize(
    ("metric", "hyp", "ref", "in_24ths"),
    [
        ("feature", "b", "p", 1),  # voicing flips from - to +
        ("hamming", "b", "p", 1),
        ("phone", "b", "p", 24),
        # p has 20 features that are + or - and 4 that are 0: distr tense hitone hireg
        # (20 + 4 / 2) / 24 of a phone
        ("feature", "", "p", 22),
        ("hamming", "", "p", 24),
        # of the tone letter ˥ only hitone and hireg are specified: 2 + 22 / 2
        ("feature", "˥", "", 13),
        # p to ˥: half for each of the 20 specified features of p, and for the two tones
        ("feature", "˥", "p", 11),
        # any difference counts whole: 20 + 2
        ("hamming", "˥", "p", 22),
        ("feature", "aː", "a", 1),  # long
        ("feature", "", "", 0),
    ],
)
def test_distance_by_hand(metric, hyp, ref, in_24ths):
    got = distance(hyp=[hyp] if hyp else [], ref=[ref] if ref else [], metric=metric)
    assert got * 24 == pytest.approx(in_24ths, abs=1e-12)


def test_table_specifies_what_the_hand_worked_costs_assume():
    table = feature_table()
    (p,) = table.of(["p"])
    zero = [name for name, value in zip(table.names, p, strict=True) if value == 0]
    assert len(table.names) == 24
    assert zero == ["distr", "tense", "hitone", "hireg"]


def test_affricate_gap_costs_more_than_most():
    # distr is specified for t͡ʃ: (21 + 3 / 2) / 24; deletions do not all cost the same
    assert distance(hyp=[], ref=["t͡ʃ"]) == 0.9375
    assert distance(hyp=[], ref=["p"]) == pytest.approx(22 / 24)


def test_equal_to_panphon_on_random_pairs(panphon_distance):
    """20,000 pairs of the inventory: diacritics, ties, length, tones, no phone."""
    rng = random.Random(0)
    inventory = list(feature_table().index)
    # half of the pairs over few phones, so that matches and shifts matter
    few = rng.sample(inventory, 12)
    strings = [
        "".join(rng.choices(few if n % 2 else inventory, k=rng.randint(0, 5)))
        for n in range(20_000)
    ]
    # each string is the neighbour of the one two places on: same half
    hyp, ref = strings, strings[2:] + strings[:2]
    segments = panphon_distance.fm.ipa_segs
    pairs = PhonePairs(hyp=[segments(s) for s in hyp], ref=[segments(s) for s in ref])
    for metric, of_panphon in (
        ("feature", panphon_distance.feature_edit_distance),
        ("hamming", panphon_distance.hamming_feature_edit_distance),
    ):
        expected = [of_panphon(h, r) for h, r in zip(hyp, ref, strict=True)]
        np.testing.assert_allclose(
            pairs.distances(metric), expected, rtol=0, atol=1e-9, err_msg=metric
        )


def test_edit_counts_equal_to_rapidfuzz():
    """Not only the total: also which of several cheapest alignments is counted."""
    rng = random.Random(0)
    hyp, ref = [], []
    for n in range(3000):
        symbols = "abcdefgh"[: rng.randint(2, 8)]
        longest = 90 if n % 20 == 0 else 9  # beyond 64 it takes another path
        hyp.append(rng.choices(symbols, k=rng.randint(0, longest)))
        ref.append(rng.choices(symbols, k=rng.randint(0, longest)))
    expected = []
    for h, r in zip(hyp, ref, strict=True):
        tags = [op.tag for op in Levenshtein.editops(r, h)]
        expected.append([tags.count(t) for t in ("replace", "delete", "insert")])
    pairs = PhonePairs(hyp=hyp, ref=ref)
    np.testing.assert_array_equal(pairs.edit_counts(), expected)
    np.testing.assert_array_equal(pairs.costs("phone"), np.sum(expected, axis=1))


phones = st.lists(st.sampled_from(PHONES), max_size=7)


@settings(max_examples=200, deadline=None)
@given(hyp=phones, ref=phones, metric=st.sampled_from(METRICS))
def test_alignment_spells_both_sides_and_costs_the_distance(hyp, ref, metric):
    pairs = PhonePairs(hyp=[hyp], ref=[ref])
    (steps,) = pairs.alignments(metric)
    assert [step.ref for step in steps if step.ref is not None] == ref
    assert [step.hyp for step in steps if step.hyp is not None] == hyp
    cost = sum(
        distance(
            hyp=[] if step.hyp is None else [step.hyp],
            ref=[] if step.ref is None else [step.ref],
            metric=metric,
        )
        for step in steps
    )
    assert cost == pytest.approx(distance(hyp=hyp, ref=ref, metric=metric))


@settings(max_examples=200, deadline=None)
@given(a=phones, b=phones, c=phones, metric=st.sampled_from(METRICS))
def test_distance_is_a_metric(a, b, c, metric):
    d_ab = distance(hyp=a, ref=b, metric=metric)
    assert distance(hyp=a, ref=a, metric=metric) == 0
    assert d_ab == distance(hyp=b, ref=a, metric=metric)
    d_ac = distance(hyp=a, ref=c, metric=metric)
    assert d_ac <= d_ab + distance(hyp=b, ref=c, metric=metric) + 1e-12
    assert d_ab <= max(len(a), len(b))


def test_feature_alignment_pairs_similar_phones():
    # by phones alone [b] could stand for either; by features it is the voiced [p]
    (steps,) = PhonePairs(hyp=[["b"]], ref=[["a", "p"]]).alignments("feature")
    assert steps == [("a", None), ("p", "b")]


def test_threads_do_not_change_anything(monkeypatch):
    monkeypatch.setattr(distance_module, "_CELLS_PER_THREAD", 50)
    rng = random.Random(0)
    hyp, ref = ([rng.choices(PHONES, k=n % 11) for n in range(99)] for _ in range(2))
    one = PhonePairs(hyp=hyp, ref=ref, n_threads=1)
    many = PhonePairs(hyp=hyp, ref=ref, n_threads=3)
    for metric in METRICS:
        np.testing.assert_array_equal(one.costs(metric), many.costs(metric))
    np.testing.assert_array_equal(one.edit_counts(), many.edit_counts())
    assert one.alignments() == many.alignments()


def test_words_of_a_large_vocabulary_need_no_table():
    """A cost for each two of 200,000 words would be 40 GB."""
    words = [
        [f"w{n}" for n in range(first, first + 20)] for first in range(0, 200_000, 20)
    ]
    pairs = PhonePairs(hyp=words[1:] + words[:1], ref=words)
    assert (pairs.costs("phone") == 20).all()
    assert pairs.edit_counts()[0].tolist() == [20, 0, 0]
    assert len(pairs.alignments("phone")[0]) == 20


def test_no_pairs_give_no_distances():
    pairs = PhonePairs(hyp=[], ref=[])
    assert pairs.distances("feature").shape == (0,)
    assert pairs.edit_counts().shape == (0, 3)
    assert pairs.alignments() == []


def test_different_numbers_are_an_error():
    with pytest.raises(ValueError, match="1 hypotheses for 2 references"):
        PhonePairs(hyp=[["p"]], ref=[["p"], ["b"]])


def test_unknown_phone_is_named_and_never_skipped():
    pairs = PhonePairs(hyp=[["g"]], ref=[["ɡ"]])  # the keyboard's g
    with pytest.raises(UnknownPhoneError, match=r"'g' \(U\+0067\)"):
        pairs.distances("feature")
    assert pairs.distances("phone").tolist() == [1.0]


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    """An installation that nobody may write to, without a home folder."""
    asked = []

    def njit(**options):
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiled.numba, "njit", njit)
    assert compiled.jit(len) is len
    assert [options.get("cache", False) for options in asked] == [True, False]
