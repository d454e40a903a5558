"""How well given phones were said: against sums over every path, and by hand."""

import math

import numpy as np
import pytest
from ctc_stand_in import BLANK, START, A, I, P, T, speech_of, stand_in
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.decode.align import AlignError, align
from powsm.decode.pronunciation.goodness import goodness
from powsm.decode.pronunciation.replaced import replaced_log_probs
from powsm.phones.inventory import UnknownPhoneError
from powsm.vocabulary.nearest import nearest_phones


def random_log_probs(seed, n_frames, n_columns, spread=3.0):
    scores = np.random.default_rng(seed).normal(size=(n_frames, n_columns)) * spread
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def all_outputs(log_probs):
    """{labels: probability}, by going through every path."""
    sums = {}
    n_frames, n_columns = log_probs.shape
    for number in range(n_columns**n_frames):
        path = [number // n_columns**t % n_columns for t in range(n_frames)]
        labels = tuple(
            p for p, b in zip(path, [0, *path], strict=False) if p not in (0, b)
        )
        score = math.exp(log_probs[np.arange(n_frames), path].sum())
        sums[labels] = sums.get(labels, 0.0) + score
    return sums


def log_of(sums, labels):
    return math.log(sums[labels]) if labels in sums else -math.inf


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_frames=st.integers(1, 5),
    labels=st.lists(st.integers(1, 3), min_size=1, max_size=5),
)
def test_replaced_and_left_out_are_the_sums_over_all_paths(seed, n_frames, labels):
    log_probs = random_log_probs(seed, n_frames, 4)
    sums = all_outputs(log_probs)
    found, other = replaced_log_probs(log_probs, np.array(labels), np.array([1, 2, 3]))
    assert found == pytest.approx(log_of(sums, tuple(labels)))
    for i in range(len(labels)):
        changed = [(*labels[:i], q, *labels[i + 1 :]) for q in (1, 2, 3)]
        changed.append((*labels[:i], *labels[i + 1 :]))
        assert other[i] == pytest.approx([log_of(sums, c) for c in changed])


def test_sums_of_hundreds_of_unlikely_frames_do_not_vanish():
    """Put back in its place, each label gives the sum of them all."""
    log_probs = random_log_probs(1, 300, 20, spread=12.0)
    labels = np.random.default_rng(2).integers(1, 20, 90)
    found, other = replaced_log_probs(log_probs, labels, np.arange(1, 20))
    assert found < -1000
    again = other[np.arange(90), labels - 1]
    assert again == pytest.approx([found] * 90, rel=1e-9)


def test_goodness_takes_the_best_other_phone_and_no_blank():
    # the last column, of `▁`, is no phone
    probs = np.array([[0.4, 0.1, 0.15, 0.35], [0.1, 0.5, 0.1, 0.3]])
    (one,) = goodness(np.log(probs), [1], [(0, 2)], n_phones=2)
    assert one.gop == pytest.approx((math.log(0.1 / 0.15) + math.log(0.5 / 0.1)) / 2)
    # 1: b1 1b 11, 2: b2 2b 22, none: bb
    assert one.gop_free == pytest.approx(math.log(0.26 / 0.07))
    assert one.rival == 1


def test_long_recordings_are_judged_in_pieces():
    """Where blanks and phones are certain, the pieces give what the whole gives."""
    labels = list(np.random.default_rng(4).integers(1, 6, 70))
    log_probs = np.full((1400, 6), -40.0)
    log_probs[:, 0] = 0.0
    spans = [(20 * n + 4, 20 * n + 6) for n in range(70)]
    for label, (start, end) in zip(labels, spans, strict=True):
        log_probs[start:end] = random_log_probs(start, 2, 6, spread=1.0)
        log_probs[start:end, label] = 0.0
        log_probs[start:end, 0] = -40.0
    cut = goodness(log_probs, labels, spans, n_phones=5)
    assert len(cut) == 70
    for n in range(0, 70, 3):
        start, end = spans[n]
        (alone,) = goodness(log_probs[start - 4 : end + 4], [labels[n]], [(4, 6)], 5)
        assert cut[n].gop == alone.gop
        assert cut[n].gop_free == pytest.approx(alone.gop_free, abs=1e-6)
        assert cut[n].rival == alone.rival


PATH = [BLANK, START, BLANK, P, BLANK, I, BLANK, T]


def test_align_judges_each_phone_and_names_its_rival():
    p, a, t = align(stand_in(), speech_of(PATH), ("p", "a", "t"), gop=True)
    assert p.gop == pytest.approx(8) and p.gop_free > 0  # certain by 8 nats
    assert a.gop == pytest.approx(-8) and a.gop_free < -3 and a.rival == "i"
    assert t.rival in ("p", "a", "i", "-") and t.gop_free > 0
    plain = align(stand_in(), speech_of(PATH), ("p", "a", "t"))
    assert [(s.start, s.end, s.confidence) for s in plain] == [
        (s.start, s.end, s.confidence) for s in (p, a, t)
    ]
    assert {"gop", "gop_free", "rival", "nearest"}.isdisjoint(plain[0].row())


def test_a_phone_that_was_left_out_has_no_rival():
    path = [BLANK, START, BLANK, P, BLANK, BLANK, T]
    judged = align(stand_in(), speech_of(path), ("p", "a", "t"), gop=True)
    assert judged[1].rival == "-" and judged[1].gop_free < -3


def test_what_was_not_given_is_not_judged():
    with pytest.raises(AlignError, match="give them"):
        align(stand_in(), speech_of(PATH), gop=True)


def test_the_nearest_phone_stands_for_one_that_is_lacking():
    speech = speech_of([BLANK, START, P, BLANK, A, BLANK, T])
    given = ("pʰ", "aː", "d")
    with pytest.raises(AlignError, match="no token for d pʰ; .*--nearest"):
        align(stand_in(), speech, given)
    found = align(stand_in(), speech, given, nearest=True)
    assert [s.phone for s in found] == list(given)
    assert [s.nearest for s in found] == ["p", None, "t"]
    plain = align(stand_in(), speech, ("p", "a", "t"))
    assert [(s.start, s.end) for s in found] == [(s.start, s.end) for s in plain]


def test_nearest_phones_are_known_ones():
    assert nearest_phones([], ["p"]) == nearest_phones(["p"], ["xyz"]) == {}
    assert nearest_phones(["b"], ["b", "p"]) == {"b": "b"}
    with pytest.raises(UnknownPhoneError, match="have no features"):
        nearest_phones(["xyz"], ["p"])
