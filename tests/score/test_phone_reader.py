"""Phones of transcripts: cleanings, phone maps, slashes."""

import pytest

from powsm.files.transcripts import TranscriptError
from powsm.phones.alphabets import phone_maps
from powsm.score.phone_reader import PhoneReader


@pytest.mark.parametrize("text", ["pʰɔsəm", "/pʰ//ɔ//s//ə//m/", "pʰ ɔ s ə m"])
@pytest.mark.parametrize("cleaning", ["strict", "released", "prism"])
def test_notations_give_the_same_phones(cleaning, text):
    read = PhoneReader(cleaning).read(text)
    assert read.phones == ("pʰ", "ɔ", "s", "ə", "m")
    assert read.unknown == ()


@pytest.mark.parametrize(
    ("text", "strict", "prism", "lost"),
    [
        ("ga", "ɡ a", "ɡ a", ""),  # the keyboard's g
        ("ʧa", "t͡ʃ a", "a", "ʧ"),  # PanPhon skips ligatures
        ("ˈpa.ˌta", "p a t a", "p a t a", ""),  # marks are no loss
        ("a:", "aː", "a", ""),  # the colon is ASCII punctuation there
        ("pQa", "p a", "p a", "Q"),
        ("\u00e7a", "c\u0327 a", "c\u0327 a", ""),  # NFC
    ],
)
def test_cleanings_differ_as_documented(text, strict, prism, lost):
    assert " ".join(PhoneReader().read(text).phones) == strict
    read = PhoneReader("prism").read(text)
    assert (" ".join(read.phones), "".join(read.unknown)) == (prism, lost)


def test_timit_map():
    """The cells that a public source gives (PRiSM's map of the 61 symbols)."""
    assert "timit" in phone_maps()
    read = PhoneReader(phone_map="timit").read
    published = {
        "ix": "ɨ",
        "ax-h": "ə̥",
        "axr": "ə˞",
        "er": "ɜ˞",
        "ux": "ʉ",
        "nx": "ɾ̃",
        "q": "ʔ",
        "ch": "t͡ʃ",
        "jh": "d͡ʒ",
    }
    for symbol, phone in published.items():
        assert read(symbol).phones == (phone,)
    assert read("h# pau bcl dcl gcl pcl tcl kcl").phones == ()
    # PanPhon has no lowered glottal stop: the mark is left out
    assert read("epi").phones == ("ʔ",)
    assert read("h# sh iy hv ae dcl y er").phones == tuple("ʃiɦæj") + ("ɜ˞",)


def test_timit_map_knows_all_61_symbols():
    symbols = (
        "b d g p t k dx q jh ch s sh z zh f th v dh m n ng em en eng nx l r w y hh hv "
        "el iy ih eh ey ae aa aw ay ah ao oy ow uh uw ux er ax ix axr ax-h pau epi h# "
        "bcl dcl gcl pcl tcl kcl"
    )
    assert len(symbols.split()) == 61
    assert PhoneReader(phone_map="timit").read(symbols).unknown == ()


def test_symbol_outside_the_map_is_an_error():
    with pytest.raises(TranscriptError, match="ɪ not in phone map 'timit'"):
        PhoneReader(phone_map="timit").read("sh ɪ")
    with pytest.raises(TranscriptError, match="use one of .*timit"):
        PhoneReader(phone_map="cmu")
    with pytest.raises(TranscriptError, match="use one of strict"):
        PhoneReader("none")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/t//ʃ//i/", "t ʃ i"),  # slashes keep t and ʃ apart
        ("/t͡ʃ//i/", "t͡ʃ i"),
        ("/t//ʃ//i", "t ʃ i"),  # decoding broke off
        ("/tʃi/", "t ʃ i"),  # phonemic slashes round raw IPA
        ("tʃi ga", "t ʃ i ɡ a"),
        ("/\u0129//g/", "i\u0303 ɡ"),  # other toolkits' spelling
        ("/p//æ//n/", "p æ n"),  # no English rules
        ("", ""),
    ],
)
def test_slashes_end_phones(text, expected):
    assert PhoneReader().read(text).phones == tuple(expected.split())
