"""Words with their phones: which phones of a sentence are whose."""

import pytest

from powsm.decode.recordings.words import WordsError, shared_out, words_of


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
