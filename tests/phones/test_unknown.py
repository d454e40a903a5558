"""What a set loses of its IPA, and text that is hardly IPA."""

import logging

import pytest

from powsm.phones.normaliser import Normaliser
from powsm.phones.unknown import Unknown, judge_unknown

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
