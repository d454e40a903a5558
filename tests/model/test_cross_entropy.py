"""The loss without a table of scores: ESPnet's, with its gradients."""

import math

import pytest
import torch
from espnet2.legacy.nets.pytorch_backend.transformer.label_smoothing_loss import (
    LabelSmoothingLoss,
)

from powsm.model.cross_entropy import smoothed_cross_entropy

N, D, V = 7, 5, 11


def make(bias=True, dtype=torch.float64):
    torch.manual_seed(0)
    layer = torch.nn.Linear(D, V, bias=bias, dtype=dtype)
    hidden = torch.randn(N, D, dtype=dtype, requires_grad=True)
    return hidden, layer, torch.randint(0, V, (N,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cells", [1, 3 * V, 1 << 20])  # 7 runs, 3 runs, one
def test_loss_and_gradients_equal_espnet(smoothing, bias, cells):
    hidden, layer, target = make(bias)
    total, losses, _ = smoothed_cross_entropy(
        hidden, layer, target, smoothing, cells=cells
    )
    ours = torch.autograd.grad(3 * total, [hidden, *layer.parameters()])
    expected = LabelSmoothingLoss(V, -1, smoothing)(layer(hidden)[None], target[None])
    theirs = torch.autograd.grad(3 * expected, [hidden, *layer.parameters()])
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    assert losses.sum().item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_weights_of_tokens_scale_loss_and_gradients():
    hidden, layer, target = make()
    weight = torch.linspace(0, 3, N, dtype=torch.float64)
    total, losses, _ = smoothed_cross_entropy(
        hidden, layer, target, 0.1, weight, cells=2 * V
    )
    assert total.item() == pytest.approx((losses * weight).sum().item())
    ours = torch.autograd.grad(total, [hidden, *layer.parameters()])
    each = [
        torch.autograd.grad(
            smoothed_cross_entropy(hidden[n : n + 1], layer, target[n : n + 1], 0.1)[0],
            [hidden, *layer.parameters()],
        )
        for n in range(N)
    ]
    for number, grad in enumerate(ours):
        expected = sum(w * grads[number] for w, grads in zip(weight, each, strict=True))
        torch.testing.assert_close(grad, expected)


def test_a_table_worked_out_by_hand():
    """Scores 0, 0, ln 2 are probabilities 1/4, 1/4, 1/2."""
    layer = torch.nn.Linear(1, 3)
    layer.weight.data[:] = torch.tensor([[0.0], [0.0], [math.log(2)]])
    layer.bias.data.zero_()
    hidden = torch.ones(2, 1, requires_grad=True)
    total, losses, is_best = smoothed_cross_entropy(
        hidden, layer, torch.tensor([2, 0]), 0.0
    )
    assert losses.tolist() == pytest.approx([math.log(2), math.log(4)])
    assert is_best.tolist() == [True, False]
    total.backward()
    # p - q: (1/4, 1/4, -1/2) and (-3/4, 1/4, 1/2)
    assert layer.bias.grad.tolist() == pytest.approx([-0.5, 0.5, 0.0], abs=1e-7)
    assert hidden.grad[0].item() == pytest.approx(-math.log(2) / 2)


def test_without_a_gradient_the_loss_is_the_same():
    hidden, layer, target = make()
    with torch.no_grad():
        bare, _, _ = smoothed_cross_entropy(hidden, layer, target, 0.1)
    total, _, _ = smoothed_cross_entropy(hidden, layer, target, 0.1)
    assert bare.item() == total.item() and not bare.requires_grad


def test_a_frozen_layer_still_passes_gradients_on():
    hidden, layer, target = make()
    layer.requires_grad_(False)
    total, _, _ = smoothed_cross_entropy(hidden, layer, target, 0.1)
    total.backward()
    expected = make()[0]
    LabelSmoothingLoss(V, -1, 0.1)(layer(expected)[None], target[None]).backward()
    torch.testing.assert_close(hidden.grad, expected.grad)


def test_half_precision_by_autocast_is_near():
    hidden, layer, target = make(dtype=torch.float32)
    exact, _, _ = smoothed_cross_entropy(hidden, layer, target, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        half, _, _ = smoothed_cross_entropy(hidden, layer, target, 0.1, cells=2 * V)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=2e-2)
    a = torch.autograd.grad(exact, layer.weight)[0]
    b = torch.autograd.grad(half, layer.weight)[0]
    assert b.dtype == torch.float32
    assert (a - b).norm() < 2e-2 * a.norm()
