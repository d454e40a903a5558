"""Phone alphabets: complete, in IPA that scoring knows, and refused when unknown."""

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
        ("epadb", "Th IY TH", "tʰ i θ"),  # capitals tell aspirated t from [θ]
        ("timit", "h# ax-h bcl b", "ə̥ b"),  # silence and closure are no phones
    ],
)
def test_labels_as_ipa(name, labels, ipa):
    assert to_ipa(labels.split(), name) == ipa


def test_unknown_label_and_alphabet_are_refused():
    with pytest.raises(AlphabetError, match="qq not in phone map 'timit'; expected"):
        to_ipa(["sh", "qq"], "timit")
    with pytest.raises(AlphabetError, match="use one of arpabet buckeye epadb timit"):
        read_alphabet("cmu")


def test_reduced_vowel_of_timit_is_prisms():
    assert to_ipa("ix ih".split(), "timit") == "ɨ ɪ"
