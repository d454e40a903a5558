"""What a set loses of its IPA, and text that is hardly IPA."""

import logging

import pytest

from powsm.phones.normaliser import Normaliser
from powsm.phones.unknown import Unknown, UnknownSymbolsError, judge_unknown

STRICT = Normaliser()


def count(text, n_times):
    unknown = Unknown()
    for i in range(n_times):
        unknown.add(f"u{i}", text, STRICT.segment(text))
    return unknown


@pytest.mark.parametrize(
    "text",
    [
        "the quick brown fox jumps over the lazy dog",
        "le garçon a mangé une pâte à l'œuf",  # ç and œ are IPA's as well
        "el niño comió piña",
        "brød og smør på færøyene",
        "ka ʻāina o hawaiʻi",  # the okina is no letter of IPA
    ],
)
def test_orthography_is_warned_of(text, caplog):
    unknown = count(text, 50)
    assert unknown.is_orthography
    judge_unknown(unknown, "data/test", 1.0)
    assert "data/test: none of" in caplog.text and f"u0: {text}" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "ðə kwɪk bɹaʊn fɒks",
        "amani ˈsana",  # stress alone
        "ana naːna",  # length alone
        "eθa kasa",
        "maŋa tama",
        "at͡sa",
    ],
)
def test_ipa_is_not_warned_of(text, caplog):
    caplog.set_level(logging.WARNING)
    unknown = count(text, 200)
    judge_unknown(unknown, "data/test", 1.0)
    assert not unknown.is_orthography and not caplog.records


def test_one_ipa_letter_in_a_set_and_few_words_are_enough():
    assert not count("amani", 50).is_orthography  # 250 characters: words may be so
    assert count("amani", 100).is_orthography
    whole = count("amani", 100)
    whole.merge(count("aʃa", 1))
    assert not whole.is_orthography


def test_losses_do_not_depend_on_how_a_set_is_cut():
    texts = ["ˈpa.Qta˥", "na", "kQ¤ ˌna", "", "t\u031aʰa"]
    whole, parts = Unknown(), Unknown()
    for i, text in enumerate(texts):
        whole.add(f"u{i}", text, STRICT.segment(text))
        part = Unknown()
        part.add(f"u{i}", text, STRICT.segment(text))
        parts.merge(part)
    assert parts == whole
    assert whole.kinds == {
        "stress": 2, "break": 1, "tone": 1, "unknown": 3, "diacritic": 1,
    }  # fmt: skip


def test_rate_by_hand_and_its_limit():
    """Q twice among the five characters of pQt Qa; a stress mark is known."""
    unknown = count("pQt Qa", 1)
    assert (unknown.n_unknown, unknown.n_characters) == (2, 5)
    assert unknown.rate == 0.4
    judge_unknown(unknown, "data/x", 0.4)
    with pytest.raises(UnknownSymbolsError, match="40.00% of the IPA .* at most 39.00"):
        judge_unknown(unknown, "data/x", 0.39)
    assert count("ˈpQt", 1).symbols == {"Q": 1}


def test_three_examples_of_a_symbol_are_kept_however_a_set_is_cut():
    whole, part = count("pQ", 2), count("Qt", 2)
    whole.merge(part)
    assert whole.contexts == {"Q": ["u0: pQ", "u1: pQ", "u0: Qt"]}
    assert whole.n_unknown == 4
