"""English allophones on the phones of one word (whole texts are in test_ipa)."""

import pytest

from powsm.phones.allophones import apply_english

TILDE, DARK_L = "\u0303", "l\u0334"


@pytest.mark.parametrize(
    "word, expected",
    [
        # 1. aspiration, word-initial only, not of a stop that opens an affricate
        ("p a p", "pʰ a p"),
        ("t ʃ a", "t ʃ a"),
        ("k s a", "k s a"),
        ("s p a", "s p a"),
        ("t s", "t s"),  # two phones are a word as well
        # 2. devoicing
        ("b a b", "p a b"),
        ("d ʒ a", "t ʃ a"),
        ("d z a", "d z a"),
        ("d z", "d z"),
        ("d͡ʒ a", "t͡ʃ a"),
        # 3. dark l
        (DARK_L, "l"),
        (f"ɪ {DARK_L}", f"ɪ {DARK_L}"),
        (f"iː {DARK_L}", f"iː {DARK_L}"),
        (f"a {DARK_L}", "a l"),
        (f"t͡ʃ {DARK_L}", "t͡ʃ l"),
        (f"a {DARK_L}ː", "a lː"),
        # 4. nasalisation
        ("ɪ n", f"ɪ{TILDE} n"),
        ("iː n", f"i{TILDE}ː n"),
        ("ɪ nː", f"ɪ{TILDE} nː"),
        ("ɪ ŋ", f"ɪ{TILDE} ŋ"),
        ("ɑ m", f"ɑ{TILDE} m"),
        ("ə n", "ə n"),
        ("m ɪ", "m ɪ"),
        # together
        (f"b ɪ m {DARK_L} ʌ m", f"p ɪ{TILDE} m l ʌ m"),
        ("", ""),
    ],
)
def test_apply_english(word, expected):
    assert apply_english(word.split()) == tuple(expected.split())


def test_apply_english_without_a_boundary_leaves_the_first_phone():
    assert apply_english(["p", "ɪ"], initial=False) == ("p", "ɪ")
    assert apply_english(["d", "ʒ"], initial=False) == ("d", "ʒ")


def test_apply_english_to_the_letter():
    options = {"strict": False, "spare_sibilants": False}
    assert apply_english(["t", "ʃ"], **options) == ("tʰ", "ʃ")
    assert apply_english(["d͡ʒ", "iː", "n"], **options) == ("d͡ʒ", "iː", "n")
    assert apply_english(["a", "ɫ"], **options) == ("a", "ɫ")
    assert apply_english(["a", "ɫ"]) == ("a", "l")


def test_rules_belong_to_labels_once():
    # a second time, rule 1 takes what rule 2 made for its own input
    once = apply_english(["b", "ɪ"])
    assert once == ("p", "ɪ")
    assert apply_english(once) == ("pʰ", "ɪ")
