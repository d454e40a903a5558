"""X-SAMPA in IPA: rows of PanPhon, rows that it lacks, symbols that nobody has."""

import pytest

from powsm.phones.normaliser import Normaliser
from powsm.phones.xsampa import xsampa_to_ipa


@pytest.mark.parametrize(
    ("label", "phones"),
    [
        # Wells (1995), those that PanPhon has not
        ("v\\", ["ʋ"]),
        ("t_j", ["tʲ"]),
        ("a`", ["a\u02de"]),
        ("i:_~", ["i\u0303ː"]),
        ("=\\", ["ǂ"]),
        ("n_=", ["n\u0329"]),
        ("I\\", ["ɪ"]),
        ("a_R", ["a"]),
        # those that it has
        ("t`", ["ʈ"]),
        ("r\\`", ["ɻ"]),
        ("{", ["æ"]),
        ("?", ["ʔ"]),
        ("dZ", ["d͡ʒ"]),
        ("k_>", ["kʼ"]),
        ("A:", ["ɑː"]),
    ],
)
def test_label(label, phones):
    segmentation = Normaliser().segment(xsampa_to_ipa(label))
    assert list(segmentation.phones) == phones
    assert segmentation.unknown_count == 0


@pytest.mark.parametrize("label", ["k_Q", "$", "a^", "p#b$", "t_ja~$"])
def test_what_no_table_has_is_counted(label):
    assert Normaliser().segment(xsampa_to_ipa(label)).unknown_count > 0
