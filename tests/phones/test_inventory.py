"""The phone inventory, the table of other characters, and longest match by pattern."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.phones.inventory import (
    ALIASES,
    INVENTORY,
    KINDS,
    PANPHON_SEGMENTS,
    UNKNOWN,
    build_trie,
    kind_of,
    longest_match_pattern,
    read_phone_map,
)


def test_inventory_is_panphons_in_nfd():
    assert len(INVENTORY) == len(PANPHON_SEGMENTS) == 6367  # nothing to unify
    assert all(unicodedata.is_normalized("NFD", phone) for phone in INVENTORY)
    spelled = sum(not unicodedata.is_normalized("NFD", p) for p in PANPHON_SEGMENTS)
    assert spelled == 90
    assert INVENTORY[0] == "˩"  # PanPhon's own order


def test_aliases_lead_from_outside_the_inventory_into_it():
    letters = {char for phone in INVENTORY for char in phone}
    for source, target in ALIASES.items():
        assert unicodedata.is_normalized("NFD", source)
        assert unicodedata.is_normalized("NFD", target)
        assert source not in INVENTORY
        assert set(target) <= letters
        # no chains, so one pass is enough
        assert not any(other in target for other in ALIASES)


def test_table_has_one_row_a_character():
    assert not set(ALIASES) & set(KINDS)
    assert UNKNOWN not in KINDS.values()
    assert all(len(char) == 1 for char in KINDS)


@pytest.mark.parametrize(
    "row, fault",
    [
        ("U+0067,U+0261,alias,again", "csv:3: U\\+0067 has a row already"),
        ("U+0067,,stress,both", "csv:3: U\\+0067 has a row already"),
        ("U+00E7,U+0255,alias,composed", "csv:3: 'ç' is not NFD"),
        ("U+0021,,noise,no such kind", "csv:3: kind 'noise' is not known; use alias"),
    ],
)
def test_phone_map_faults_are_named(row, fault):
    table = f"source,target,kind,note\nU+0067,U+0261,alias,g\n{row}\n"
    with pytest.raises(ValueError, match=fault):
        read_phone_map(table)


def test_every_character_of_the_inventory_is_known():
    # a mark that fits nothing where it stands is not an unknown symbol
    letters = {phone for phone in INVENTORY if len(phone) == 1}
    marks = {char for phone in INVENTORY for char in phone} - letters
    assert {kind_of(mark) for mark in marks} == {"diacritic"}


def test_kind_of_falls_back_on_unicode():
    assert kind_of("\u2003") == "space"
    assert kind_of("«") == kind_of("。") == "punctuation"
    assert kind_of("Q") == kind_of("\u0489") == kind_of("😀") == UNKNOWN


@settings(deadline=None)
@given(
    st.lists(st.text("abc.[", min_size=1, max_size=4), min_size=1, max_size=8),
    st.text("abc.[", max_size=12),
)
def test_pattern_finds_the_longest_word(vocabulary, text):
    pattern = re.compile(longest_match_pattern(build_trie(vocabulary)))
    match = pattern.match(text)
    longest = max((w for w in vocabulary if text.startswith(w)), key=len, default=None)
    assert (match and match[0]) == longest
