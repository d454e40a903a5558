"""Phone alphabets: complete, in IPA that scoring knows, and refused when unknown."""

import unicodedata

import pytest

from powsm.phones.alphabets import (
    UNSPACED,
    AlphabetError,
    phone_maps,
    read_alphabet,
    to_ipa,
    units_of,
)
from powsm.score.phone_reader import PhoneReader


@pytest.mark.parametrize("name", sorted(set(phone_maps()) - UNSPACED))
def test_every_label_is_phones_that_scoring_knows(name):
    for label, phones in read_alphabet(name).items():
        read = PhoneReader("prism").read(phones)
        assert read.unknown == (), label
        # PanPhon has no nasal h and no lowered glottal stop: their marks are left out
        if label not in ("hhn", "epi"):
            assert " ".join(read.phones) == phones, label


@pytest.mark.parametrize("name", sorted(UNSPACED))
def test_every_unit_written_without_spaces_is_read(name):
    reader = PhoneReader("prism", phone_map=name)
    is_mark = {"Mn", "Lm", "Sk"}
    lost = []
    for unit, ipa in read_alphabet(name).items():
        if unicodedata.category(unit[0]) in is_mark:
            carriers = [reader.read(c + unit) for c in "tsanlme"]
            if not any(len(r.phones[-1]) > 1 and not r.losses for r in carriers):
                lost.append(unit)  # PanPhon has it on no such letter
            continue
        read = reader.read(unit)
        assert read.unknown == (), unit
        assert "".join(read.phones) == ipa, unit
        # a unit of several letters is the unit, not the letters
        assert units_of([f"a{unit}a"], name) == ["a", unit, "a"]
    assert len(lost) < 9, lost


@pytest.mark.parametrize(("name", "n"), [("allosaurus", 229), ("multipa", 292)])
def test_units_are_those_that_were_published(name, n):
    """By the README of the one, full_vocab_ipa.txt of the other."""
    more = {"multipa": {"i", "ĩ", "g"}}  # of its training data
    labels = set(read_alphabet(name)) - {
        unicodedata.normalize("NFD", label) for label in more.get(name, ())
    }
    assert len(labels) == n


@pytest.mark.parametrize(
    ("name", "labels", "ipa"),
    [
        ("arpabet", "HH AH L OW", "h ʌ l o ʊ"),
        ("buckeye", "dh ih nx er tq", "ð ɪ ɾ̃ ə˞ ʔ"),
        ("espeak", "h ɛ l oʊ w ɜː l d", "h ɛ l o ʊ w ɜː l d"),
        ("espeak", "ɹ iː dʒ ə n ɚ ᵻ z", "ɹ iː d͡ʒ ə n ə˞ ɪ z"),
        ("espeak", "ɑːɹ aɪɚ əl", "ɑː ɹ a ɪ ə˞ ə l"),  # units of several phones
        ("espeak", "ts.h i.ɜ tɕh iɛ5", "ʈ͡ʂʰ ɨ t͡ɕʰ i ɛ"),  # 吃 with tone 3, 切 with 5
        ("espeak", "yɛ5ʲ yɛ5", "y ɛ y ɛ"),
        ("espeak", "(en) S tS r. (fr)", "ʃ t͡ʃ ɽ"),  # ASCII names and switches
        ("epadb", "Th IY TH", "tʰ i θ"),  # capitals tell aspirated t from [θ]
        ("allosaurus", "æ l u s ɔ ɹ s", "æ l u s ɔ ɹ s"),  # its README's example
        ("allosaurus", "tʂʰ ә g uə bʲj", "ʈ͡ʂʰ ə ɡ u ə bʲ j"),  # ties, Cyrillic, ASCII
        ("multipa", "mɪstɚ t͡ʃʰ", "mɪstə˞t͡ʃʰ"),  # a unit, then a mark
        ("zipa", "▁gʲ ɛ ː", "ɡʲɛː"),  # pieces, with or without spaces
        ("timit", "h# ax-h bcl b", "ə̥ b"),  # silence and closure are no phones
    ],
)
def test_labels_as_ipa(name, labels, ipa):
    assert to_ipa(labels.split(), name) == ipa


def test_no_unit_of_espeak_is_lost():
    """All but tones, marks without a letter and switches of language are phones."""
    silent = {label for label, ipa in read_alphabet("espeak").items() if not ipa}
    assert {label for label in silent if not label.startswith("(")} == {"1", "ʲ"}


@pytest.mark.parametrize("label", sorted(read_alphabet("espeak")))
def test_units_of_espeak_in_either_normal_form(label):
    for form in ("NFC", "NFD"):
        written = unicodedata.normalize(form, label)
        assert to_ipa([written], "espeak") == read_alphabet("espeak")[label]


def test_unknown_label_and_alphabet_are_refused():
    with pytest.raises(AlphabetError, match="qq not in phone map 'timit'; expected"):
        to_ipa(["sh", "qq"], "timit")
    with pytest.raises(AlphabetError, match="ǁ not in phone map 'allosaurus'"):
        to_ipa(["a", "ǁ"], "allosaurus")
    with pytest.raises(AlphabetError, match=r"A \(U\+0041\) not in phone map 'zipa'"):
        to_ipa(["pAt"], "zipa")
    with pytest.raises(AlphabetError, match="use one of allosaurus arpabet"):
        read_alphabet("cmu")


def test_reduced_vowel_of_timit_is_prisms():
    assert to_ipa("ix ih".split(), "timit") == "ɨ ɪ"
