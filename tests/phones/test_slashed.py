"""Phones between slashes, there and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.phones.inventory import INVENTORY
from powsm.phones.slashed import PhoneFormatError, from_slashed, to_slashed

PHONE = st.text(min_size=1, max_size=5).filter(
    lambda phone: "/" not in phone and not any(c.isspace() for c in phone)
)


@settings(deadline=None)
@given(st.lists(PHONE, max_size=10).map(tuple))
def test_from_slashed_is_the_inverse(sequence):
    assert from_slashed(to_slashed(sequence)) == sequence


def test_every_inventory_phone_survives():
    assert from_slashed(to_slashed(INVENTORY)) == INVENTORY


@pytest.mark.parametrize(
    "text", ["/", "//", "/a", "/ab", "a/", "/a/b/", "/a//", "/a / b/"]
)
def test_from_slashed_refuses_other_text(text):
    with pytest.raises(PhoneFormatError, match="PhoneReader"):
        from_slashed(text)


@pytest.mark.parametrize("phone", ["", "a/b", "a b", "\n"])
def test_to_slashed_refuses_what_it_could_not_read_back(phone):
    with pytest.raises(PhoneFormatError):
        to_slashed(["a", phone])
