"""Label-smoothed cross-entropy of an output layer, without a table of its scores.

N tokens over V symbols make a table of N x V scores, which takes more memory than any
layer does (536 s of audio: 16,600 x 40,002) and which a loss in plain PyTorch passes
over some twenty times. Here the table exists for some thousand tokens at a time, and
the gradient is made beside the loss, while it is there.
"""

import math

import torch
import torch.nn.functional as F

CELLS = 1 << 27  # of the table that exist at once


def smoothed_cross_entropy(
    hidden: torch.Tensor,
    layer: torch.nn.Linear,
    target: torch.Tensor,
    smoothing: float,
    weight: torch.Tensor | None = None,
    cells: int = CELLS,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ESPnet's `LabelSmoothingLoss` on the scores `layer(hidden)`.

    Args:
        hidden: (N, D) what the output layer sees.
        layer: from D to V symbols; computed in the precision that autocast asks for.
        target: (N,) symbol ids.
        smoothing: mass spread evenly over the V - 1 other symbols.
        weight: (N,) of each token in the sum; None is 1.
        cells: of the table of scores that exist at a time.

    Returns:
        The weighted sum of the losses, which has a gradient; the losses (N,), each
        the KL divergence from the smoothed target; and whether the target has the
        best score (N,) bool. The last two have no gradient.
    """
    kind = hidden.device.type
    has_cast = torch.amp.is_autocast_available(kind)
    is_cast = has_cast and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if is_cast else hidden.dtype
    wants_gradient = torch.is_grad_enabled() and (
        hidden.requires_grad or layer.weight.requires_grad
    )
    return _SmoothedCrossEntropy.apply(
        *(hidden, layer.weight, layer.bias, target, weight),
        (smoothing, dtype, wants_gradient, cells),
    )


class _SmoothedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, scale, options):
        smoothing, dtype, wants_gradient, cells = options
        vocab = weight.size(0)
        other = smoothing / (vocab - 1)
        kept = 1.0 - smoothing - other  # mass of the target beyond that of the others
        masses = ((1.0 - smoothing, 1.0 - smoothing), (smoothing, other))
        entropy = sum(mass * math.log(p) for mass, p in masses if p)
        exact = torch.promote_types(dtype, torch.float32)
        losses = hidden.new_empty(len(hidden), dtype=exact)
        is_best = torch.empty_like(target, dtype=torch.bool)
        layer = _Layer(weight, bias, exact) if wants_gradient else None
        grad_hidden = torch.empty_like(hidden) if wants_gradient else None
        w = weight.to(dtype)
        b = None if bias is None else bias.to(dtype)
        step = max(1, cells // vocab)
        for begin in range(0, len(hidden), step):
            rows = slice(begin, begin + step)
            h, t = hidden[rows].to(dtype), target[rows, None]
            logits = F.linear(h, w, b)
            is_best[rows] = logits.argmax(-1) == target[rows]
            log_p = F.log_softmax(logits, -1, dtype=exact)
            del logits
            log_target = log_p.gather(1, t).squeeze(1)
            losses[rows] = entropy - kept * log_target
            if other:
                losses[rows] -= other * log_p.sum(-1)
            if layer is None:
                continue
            # p - q, but for the mass that all symbols share: `_Layer.less`
            table = log_p.exp_()
            table.scatter_add_(1, t, torch.full_like(log_target, -kept)[:, None])
            table = table.to(dtype)
            factor = None if scale is None else scale[rows, None].to(dtype)
            grad_h = table @ w
            if other:
                grad_h -= other * w.sum(0)
            if factor is not None:
                grad_h *= factor
                h = h * factor
            grad_hidden[rows] = grad_h
            layer.add(table, h, factor)
            del table, log_p
        total = (losses if scale is None else losses * scale).sum()
        if layer is not None:
            grads = layer.less(other)
            ctx.save_for_backward(grad_hidden, *grads)
        ctx.mark_non_differentiable(losses, is_best)
        return total, losses, is_best

    @staticmethod
    def backward(ctx, grad_total, *_):
        hidden, *layer = (g * grad_total.to(g) for g in ctx.saved_tensors)
        weight, bias = (*layer, None)[:2]
        return hidden, weight, bias, None, None, None


class _Layer:
    """Gradients of the output layer, added up over runs of tokens."""

    def __init__(self, weight, bias, exact: torch.dtype):
        self._like = weight
        self._weight = torch.zeros_like(weight, dtype=exact)
        self._bias = None if bias is None else torch.zeros_like(bias, dtype=exact)
        self._hidden = weight.new_zeros(weight.size(1), dtype=exact)
        self._mass = weight.new_zeros((), dtype=exact)

    def add(self, table, hidden, factor) -> None:
        """Tokens with `table` (n, V) and `hidden` (n, D), weighted by `factor`."""
        if table.dtype == self._weight.dtype:
            self._weight.addmm_(table.T, hidden)
        else:
            self._weight += table.T @ hidden
        self._hidden += hidden.sum(0)
        if self._bias is not None:
            ones = table.new_ones(len(table), 1) if factor is None else factor
            self._bias += (table.T @ ones).squeeze(1)
            self._mass += ones.sum()

    def less(self, other: float) -> list[torch.Tensor]:
        """The gradients, without the mass `other` that every symbol of a token has."""
        if other:
            self._weight -= other * self._hidden
            if self._bias is not None:
                self._bias -= other * self._mass
        grads = [self._weight] + ([] if self._bias is None else [self._bias])
        return [g.to(self._like.dtype) for g in grads]
