"""Phone alphabets: complete, in IPA that scoring knows, and refused when unknown."""

import unicodedata

import pytest

from powsm.phones.alphabets import (
    AlphabetError,
    phone_maps,
    read_alphabet,
    to_ipa,
)
from powsm.score.phone_reader import PhoneReader


@pytest.mark.parametrize("name", phone_maps())
def test_every_label_is_phones_that_scoring_knows(name):
    for label, phones in read_alphabet(name).items():
        read = PhoneReader("prism").read(phones)
        assert read.unknown == (), label
        # PanPhon has no nasal h and no lowered glottal stop: their marks are left out
        if label not in ("hhn", "epi"):
            assert " ".join(read.phones) == phones, label


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
    with pytest.raises(AlphabetError, match="arpabet buckeye epadb espeak timit"):
        read_alphabet("cmu")


def test_reduced_vowel_of_timit_is_prisms():
    assert to_ipa("ix ih".split(), "timit") == "ɨ ɪ"
