"""The loss without a table of scores: ESPnet's, with its gradients."""

import math

import numpy as np
import pytest
import torch
from espnet2.legacy.nets.pytorch_backend.transformer.label_smoothing_loss import (
    LabelSmoothingLoss,
)

from powsm.model.layout import CtcTargets
from powsm.model.losses import ctc_loss, smoothed_cross_entropy

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


def ctc_batch(dtype=torch.float64):
    """Repeats, a target that does not fit (4 equal labels, 5 frames), an empty one.

    Returns:
        Hidden states, layer, targets, frames as mask and numbers, labels and their
        numbers.
    """
    torch.manual_seed(1)
    layer = torch.nn.Linear(D, V, dtype=dtype)
    hidden = torch.randn(4, 9, D, dtype=dtype, requires_grad=True)
    targets = [[3, 3, 5], [7, 1, 7, 2, 2], [4, 4, 4, 4], []]
    n_frames = [9, 8, 5, 6]
    frames = (torch.arange(9) < torch.tensor(n_frames)[:, None], n_frames)
    labels = (torch.tensor(sum(targets, [])), torch.tensor([len(t) for t in targets]))
    columns = CtcTargets.of([np.array(t, dtype=np.int64) for t in targets])
    return hidden, layer, columns, frames, labels


def of_pytorch(log_probs, frames, labels, loss):
    """Losses of the M targets over log-probabilities (M, T, V)."""
    sizes = (torch.tensor(frames[1]), labels[1])
    return loss(log_probs.transpose(0, 1), labels[0], *sizes)


@pytest.mark.parametrize("cells", [1, 2 * 9 * V, 1 << 20])  # one, two, all at once
@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [4, 3, 2, 1]])
def test_ctc_loss_and_gradients_equal_pytorch(cells, weights):
    hidden, layer, targets, frames, labels = ctc_batch()
    loss = torch.nn.CTCLoss(reduction="none", zero_infinity=True)
    scale = torch.tensor(weights)
    total = ctc_loss(hidden, layer, targets, *frames, scale, loss, cells)
    ours = torch.autograd.grad(3 * total, [hidden, *layer.parameters()])
    each = of_pytorch(layer(hidden).log_softmax(-1), frames, labels, loss)
    assert each[2] == 0 < min(each[0], each[1], each[3])
    expected = (each * scale).sum()
    theirs = torch.autograd.grad(3 * expected, [hidden, *layer.parameters()])
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        bare = ctc_loss(hidden, layer, targets, *frames, scale, loss, cells)
    assert bare.item() == pytest.approx(expected.item(), rel=1e-12)


def test_ctc_of_bfloat16_is_as_exact_as_a_table():
    """What a table in half precision rounds, this rounds no further."""
    hidden, layer, targets, frames, labels = ctc_batch(torch.float32)
    loss = torch.nn.CTCLoss(reduction="none", zero_infinity=True)
    scale = torch.ones(4, dtype=torch.long)
    wanted = [hidden, *layer.parameters()]

    def of_table() -> torch.Tensor:
        log_probs = layer(hidden).float().log_softmax(-1)
        return of_pytorch(log_probs, frames, labels, loss).sum()

    exact = torch.autograd.grad(of_table(), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        table = of_table()
        total = ctc_loss(hidden, layer, targets, *frames, scale, loss)
    assert total.item() == pytest.approx(table.item(), rel=1e-5)
    theirs = torch.autograd.grad(table, wanted)
    ours = torch.autograd.grad(total, wanted)
    for a, b, c in zip(ours, theirs, exact, strict=True):
        assert (a - c).norm() < 2 * (b - c).norm() + 1e-6 * c.norm()


def test_ctc_without_a_label():
    hidden, layer, _, frames, _ = ctc_batch()
    loss = torch.nn.CTCLoss(reduction="none", zero_infinity=True)
    nothing = CtcTargets.of([np.zeros(0, dtype=np.int64)] * 4)
    scale = torch.ones(4, dtype=torch.long)
    total = ctc_loss(hidden, layer, nothing, *frames, scale, loss)
    blanks = layer(hidden).log_softmax(-1)[..., 0]
    expected = -sum(row[:n].sum() for row, n in zip(blanks, [9, 8, 5, 6], strict=True))
    assert total.item() == pytest.approx(expected.item())


def test_an_impossible_target_without_zero_infinity_is_infinite():
    hidden, layer, targets, frames, labels = ctc_batch()
    loss = torch.nn.CTCLoss(reduction="none")
    each = of_pytorch(layer(hidden).log_softmax(-1), frames, labels, loss)
    assert each.isinf().tolist() == [False, False, True, False]
    total = ctc_loss(hidden, layer, targets, *frames, torch.ones(4), loss)
    assert total.item() == math.inf


def test_ctc_of_a_long_recording_rounds_as_pytorchs():
    """Of thousands of nats, what is expected of a frame sums to 1 no more."""
    torch.manual_seed(2)
    layer = torch.nn.Linear(D, V)
    hidden = 5 * torch.randn(1, 900, D)
    labels = np.random.default_rng(0).integers(1, V, 200)
    frames = (torch.ones(1, 900, dtype=torch.bool), [900])
    of = (torch.from_numpy(labels), torch.tensor([200]))
    loss = torch.nn.CTCLoss(reduction="none", zero_infinity=True)

    def gradients(total):
        return torch.cat([g.flatten() for g in torch.autograd.grad(total, parts)])

    parts = [layer.weight, layer.bias]
    targets = CtcTargets.of([labels])
    ours = gradients(ctc_loss(hidden, layer, targets, *frames, torch.ones(1), loss))
    log_probs = layer(hidden).log_softmax(-1)
    theirs = gradients(of_pytorch(log_probs, frames, of, loss).sum())
    parts = [x.double() for x in parts]
    log_probs = torch.nn.functional.linear(hidden.double(), *parts).log_softmax(-1)
    exact = gradients(of_pytorch(log_probs, frames, of, loss).sum())
    rounding = (theirs - exact).norm()
    assert (ours - theirs).norm() < rounding / 10
    assert rounding > 5e-4 * exact.norm()  # or this would say nothing
