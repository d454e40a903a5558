"""CTC heads over some of the tokens, and the consistency of two views by hand."""

import math

import pytest
import torch
from torch.nn import Linear

from powsm.model.ctc_heads import Head, PhoneColumns, disagreement

TOKENS = ["<blank>", "<unk>", "<eng>", "<pr>", "a", "/p/", "/ɔ/", "<eos>"]


def log_odds(*probabilities):
    """Logits (1, len, 2) whose first token has these probabilities."""
    return torch.tensor([[[math.log(p / (1 - p)), 0.0] for p in probabilities]])


def test_disagreement_is_the_symmetric_divergence_worked_out_by_hand():
    """Of (3/4, 1/4) and (1/4, 3/4): both ways 3/4 ln 3 - 1/4 ln 3 = ln 3 / 2; of
    (1/2, 1/2) and (3/4, 1/4): (ln(2/3) + ln 2) / 2 and 3/4 ln(3/2) - 1/4 ln 2."""
    views = torch.cat([log_odds(0.75, 0.5), log_odds(0.25, 0.75)])
    both = disagreement(views, torch.tensor([2, 2]))
    second = (math.log(2 / 3) + math.log(2)) / 2
    second += 0.75 * math.log(1.5) - 0.25 * math.log(2)
    assert both.item() == pytest.approx(math.log(3) / 2 + second / 2, rel=1e-5)
    first = disagreement(views, torch.tensor([1, 1]))  # the rest is padding
    assert first.item() == pytest.approx(math.log(3) / 2, rel=1e-5)


def test_disagreement_draws_each_view_to_the_other_as_it_stands():
    """The gradient of half a KL(aim || view) in its logits is (view - aim) / 2."""
    torch.manual_seed(0)
    logits = torch.randn(6, 4, 5, requires_grad=True)
    lengths = torch.tensor([4, 3, 1] * 2)
    disagreement(logits, lengths).sum().backward()
    one, two = logits.detach().softmax(-1).chunk(2)
    expected = torch.cat([one - two, two - one]) / 2
    for row, n in enumerate(lengths):
        expected[row, n:] = 0.0
    torch.testing.assert_close(logits.grad, expected, atol=1e-6, rtol=1e-5)


def test_views_that_say_the_same_do_not_disagree():
    torch.manual_seed(0)
    one = torch.randn(3, 4, 5)
    found = disagreement(torch.cat([one, one + 7]), torch.tensor([4, 3, 2] * 2))
    torch.testing.assert_close(found, torch.zeros(3), atol=1e-5, rtol=0)


def test_head_of_phones_equals_one_of_all_whose_other_tokens_never_speak():
    torch.manual_seed(0)
    columns = PhoneColumns(TOKENS, also={"<eng>", "<pr>", "<fra>"})
    assert columns.kept.tolist() == [0, 1, 2, 3, 5, 6]
    assert columns.rows(torch.tensor([2, 4, 6])).tolist() == [2, 1, 5]  # a is <unk>
    layer, back = Linear(4, len(TOKENS)), Linear(len(TOKENS), 4)
    hidden = torch.randn(2, 3, 4)
    some = Head.of(1, hidden, layer, columns)
    layer.bias.data[[4, 7]] = -1e4
    whole = Head.of(1, hidden, layer)
    spoken = columns.kept
    torch.testing.assert_close(
        some.log_probs()[..., spoken], whole.log_probs()[..., spoken]
    )
    assert (some.log_probs()[..., [4, 7]] < -9e3).all()
    torch.testing.assert_close(some.condition(back), whole.condition(back))
