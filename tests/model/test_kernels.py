"""Convolutions in another layout of memory compute what PyTorch's own compute."""

import copy

import pytest
import torch

from powsm.model.kernels import choose_convolutions

GENERATOR = torch.Generator().manual_seed(0)


def grouped(**settings):
    return torch.nn.Conv1d(6, 6, **{"kernel_size": 5, "groups": 6} | settings)


def both(module):
    """A module as PyTorch computes it and as it is computed here."""
    ours = torch.nn.Sequential(copy.deepcopy(module))
    choose_convolutions(ours)
    assert type(ours[0]) is not type(module) and isinstance(ours[0], type(module))
    assert list(ours[0].state_dict()) == list(module.state_dict())
    return module, ours


def outputs_and_gradients(module, x):
    x = x.detach().requires_grad_()
    y = module(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    (y * weights).sum().backward()
    return [y, x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize(
    "module",
    [
        grouped(padding=2),
        grouped(padding=2, bias=False),
        grouped(padding="same"),
        grouped(padding="valid"),
        grouped(stride=2, padding=1),
        grouped(dilation=3, padding=6),
        grouped(kernel_size=4),
        grouped(groups=3, padding=2),
        grouped(padding=2, padding_mode="reflect"),
        torch.nn.Conv2d(6, 4, 3, 2),
        torch.nn.Conv2d(6, 4, 3, padding=1, bias=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_and_gradients_are_those_of_pytorch(module, dtype):
    theirs, ours = both(copy.deepcopy(module).to(dtype))
    shape = (3, 6, 17) if isinstance(module, torch.nn.Conv1d) else (3, 6, 17, 9)
    x = torch.randn(shape, generator=GENERATOR, dtype=dtype)
    if len(shape) == 3:  # as ESPnet calls it
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    expected, found = outputs_and_gradients(theirs, x), outputs_and_gradients(ours, x)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_bfloat16():
    theirs, ours = both(grouped(padding=2))
    x = torch.randn(2, 6, 11, generator=GENERATOR)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = theirs(x), ours(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(expected, found)


def test_a_recording_without_a_batch_is_convolved_too():
    theirs, ours = both(grouped(padding=2))
    x = torch.randn(6, 11, generator=GENERATOR)
    torch.testing.assert_close(theirs(x), ours(x))


def test_channels_that_mix_are_left_alone():
    module = torch.nn.Sequential(torch.nn.Conv1d(6, 6, 3))
    choose_convolutions(module)
    assert type(module[0]) is torch.nn.Conv1d
