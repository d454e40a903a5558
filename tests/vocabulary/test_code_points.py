"""Phones spelled in code points, for the CTC targets of figure 2."""

import pytest

from powsm.vocabulary.code_points import CodePointError, CodePoints

TOKENS = [
    "<blank>",
    "<unk>",
    "<eng>",
    "/p/",
    "/pʰ/",
    "/ʃ/",
    "/t/",
    "/t͡ʃ/",
    "▁a",
    "n",
    "b",
]


def test_a_mark_is_a_symbol_of_its_own():
    points = CodePoints(TOKENS)
    ids = points.encode("/pʰ//t͡ʃ/")
    assert len(ids) == 5  # p ʰ t ͡ ʃ
    assert [ids[0], ids[2], ids[4]] == [3, 6, 5]  # those that are phones themselves
    assert {TOKENS[ids[1]], TOKENS[ids[3]]} <= {"▁a", "n", "b"}  # pieces of orthography
    assert points.phones(ids) == ["pʰ", "t͡ʃ"]


def test_different_code_points_have_different_tokens_but_none_of_the_special_ones():
    points = CodePoints(TOKENS)
    ids = {char: points.encode(f"/{char}/")[0] for char in "pʰtʃ͡"}
    assert len(set(ids.values())) == 5
    assert not {0, 1, 2} & set(ids.values())


def test_tokens_that_spell_nothing_are_passed_over():
    assert CodePoints(TOKENS).phones([2, 3, 8, 6]) == ["p", "t"]


def test_too_few_tokens_or_a_phone_of_another_vocabulary_is_an_error():
    with pytest.raises(CodePointError, match="raise --nbpe"):
        CodePoints([t for t in TOKENS if t not in ("▁a", "n", "b")])
    with pytest.raises(CodePointError, match="is in no phone of the vocabulary"):
        CodePoints(TOKENS).encode("/q/")
