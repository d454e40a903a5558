"""Rows of tokens laid end to end."""

import torch

from powsm.model.layout import Packing, mask_of_rows


def make_packing():
    """Recording 0 has rows of 2 and 1 tokens, recording 1 one row of 4."""
    return Packing.of(torch.tensor([2, 1, 4]), torch.tensor([0, 0, 1]), 2)


def test_rows_of_a_recording_stand_end_to_end():
    packed = make_packing().pack(torch.tensor([1, 2, 3, 4, 5, 6, 7]))
    assert packed.tolist() == [[1, 2, 3, 0], [4, 5, 6, 7]]


def test_a_token_sees_its_own_row_up_to_itself():
    mask = mask_of_rows(make_packing().owner).int().tolist()
    # the fourth place of recording 0 is empty and sees itself alone
    assert mask[0] == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert mask[1] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_a_recording_without_rows_stays_empty():
    packing = Packing.of(torch.tensor([1, 2]), torch.tensor([0, 2]), 3)
    assert packing.pack(torch.tensor([5, 6, 7])).tolist() == [[5, 0], [0, 0], [6, 7]]
    assert mask_of_rows(packing.owner).any(-1).all()  # no query is without a key
