"""Words with their phones: which phones of a sentence are whose."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powsm.decode.recordings.words import (
    WordsError,
    runs_of_words,
    shared_out,
    words_of,
)


def shares(words, phones, expected):
    return [
        "".join(word.phones) for word in shared_out(words.split(), phones, expected)
    ]


@pytest.mark.parametrize(
    ("phones", "expected", "shared"),
    [
        ("patat", ["pa", "tat"], ["pa", "tat"]),
        ("batad", ["pa", "tat"], ["ba", "tad"]),  # alike is enough
        ("pasatat", ["pa", "tat"], ["pasa", "tat"]),  # what is added stays before
        ("pt", ["pa", "tat"], ["p", "t"]),
        ("tt", ["pa", "tat"], ["t", "t"]),  # every word gets a phone
        ("tat", ["tat", "a", "i"], ["t", "a", "t"]),
        ("papapa", ["", "pa"], ["papa", "pa"]),  # by length: "word" and "by"
    ],
)
def test_phones_are_shared_out(phones, expected, shared):
    words = {2: "word by", 3: "a b c"}[len(expected)]
    assert shares(words, phones, expected) == shared
    assert "".join(shared) == phones


def test_fewer_phones_than_words_are_refused():
    with pytest.raises(WordsError, match="1 phones are said for the 2 words of 'a b'"):
        shares("a b", "p", ["p", "p"])


def test_words_without_what_stands_around_them():
    text = "«Ça va?» — non… l'eau, 3 fois; ខ្មែរ។ ’tis rock-’n’-roll"
    expected = "Ça va non l'eau 3 fois ខ្មែរ ’tis rock-’n’-roll".split()
    assert words_of(text) == expected
    with pytest.raises(WordsError, match="is a word"):
        words_of("… – !")


TENTHS = st.integers(1, 25), st.sampled_from([0, 0, 1, 6, 40])  # of a word, a pause


@given(st.lists(st.tuples(*TENTHS), min_size=1, max_size=12), st.integers(10, 60))
def test_runs_hold_every_word_and_are_as_long_as_is_heard(words, most):
    spans, at = [], 0.0
    for word, pause in words:
        spans.append((at + pause / 10, at + (pause + word) / 10))
        at = spans[-1][1]
    runs = runs_of_words(spans, most / 10)
    assert [w for first, end, *_ in runs for w in range(first, end)] == [
        *range(len(spans))
    ]
    for first, end, start_s, stop_s in runs:
        assert start_s <= spans[first][0] and spans[end - 1][1] <= stop_s
        assert end - first == 1 or stop_s - start_s <= most / 10 + 1e-9
        # the pause around it is heard, half a second at most
        assert spans[first][0] - start_s <= 0.5 + 1e-9
    for (*_, stop_s), (_, _, start_s, _) in pairwise(runs):
        assert stop_s <= start_s + 1e-9


def test_a_run_ends_in_the_longest_pause_of_its_later_half():
    spans = [(0, 1), (2, 3), (3, 4), (4.6, 5.6), (5.7, 6.7), (7.5, 9)]
    # the pause of a second comes too early, that of 0.6 before the fourth word
    assert runs_of_words(spans, most_s=7.0) == [
        (0, 3, 0, pytest.approx(4.3)),
        (3, 6, pytest.approx(4.3), 9.5),
    ]
