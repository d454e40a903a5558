"""Losses of an output layer, without a table of its scores or log-probabilities.

N tokens over V symbols make a table of N x V scores, which takes more memory than any
layer does (536 s of audio: 16,600 x 40,002) and which a loss in plain PyTorch passes
over some twenty times. Here the table exists for some thousand tokens at a time, and
the gradient is made beside the loss, while it is there.

A CTC target of L labels asks for at most L + 1 columns of its table. PyTorch's loss
runs over those; the gradient of a score is the probability of its symbol, less what
the loss expects of it, which is 0 in all other columns.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from powsm.model.features import full_precision
from powsm.model.layout import CtcTargets

CELLS = 1 << 28  # of the table that exist at once
_BESIDE = 8  # columns beside the hidden states, so that rows stay aligned


def smoothed_cross_entropy(
    hidden: torch.Tensor,
    layer: torch.nn.Linear,
    target: torch.Tensor,
    smoothing: float,
    cells: int = CELLS,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ESPnet's `LabelSmoothingLoss` on the scores `layer(hidden)`.

    Args:
        hidden: (N, D) what the output layer sees.
        layer: from D to V symbols; computed in the precision that autocast asks for.
        target: (N,) symbol ids.
        smoothing: mass spread evenly over the V - 1 other symbols.
        cells: of the table of scores that exist at a time.

    Returns:
        The sum of the losses, which has a gradient; the losses (N,), each the KL
        divergence from the smoothed target; and whether the target has the
        best score (N,) bool. The last two have no gradient.
    """
    options = (smoothing, precision_of(hidden), _wants_gradient(hidden, layer), cells)
    with full_precision(hidden.device.type):
        total, losses, is_best = _SmoothedCrossEntropy.apply(
            hidden, layer.weight, layer.bias, target[:, None], options
        )
    return total, losses.squeeze(1), is_best.squeeze(1)


def precision_of(hidden: torch.Tensor) -> torch.dtype:
    """What a matrix product with `hidden` is computed in: autocast may say another."""
    kind = hidden.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return hidden.dtype


def _wants_gradient(hidden: torch.Tensor, layer: torch.nn.Linear) -> bool:
    is_learned = hidden.requires_grad or layer.weight.requires_grad
    return torch.is_grad_enabled() and is_learned


def _runs(n: int, row_cells: int, cells: int) -> Iterator[slice]:
    """Rows of a table, as many at a time as have no more than so many cells."""
    step = max(1, cells // row_cells)
    return (slice(begin, begin + step) for begin in range(0, n, step))


class _SmoothedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, options):
        smoothing, dtype, wants_gradient, cells = options
        vocab = weight.size(0)
        other = smoothing / (vocab - 1)
        kept = 1.0 - smoothing - other  # mass of the target beyond that of the others
        masses = ((1.0 - smoothing, 1.0 - smoothing), (smoothing, other))
        entropy = sum(mass * math.log(p) for mass, p in masses if p)
        exact = torch.promote_types(dtype, torch.float32)
        losses = hidden.new_empty(target.shape, dtype=exact)
        is_best = torch.empty_like(target, dtype=torch.bool)
        layer = _LayerGradient(weight, bias, exact) if wants_gradient else None
        grad_hidden = torch.empty_like(hidden) if wants_gradient else None
        h, w = hidden.to(dtype), weight.to(dtype)
        b = None if bias is None else bias.to(dtype)
        # the sum of a token's scores needs no table: hidden times the sum of the rows
        w_sum = weight.sum(0).to(exact)
        of_others = -other * w_sum
        for rows in _runs(len(hidden), vocab, cells):
            logits = F.linear(h[rows], w, b)
            score = logits.gather(1, target[rows]).to(exact)
            most, best = logits.max(-1, keepdim=True)
            torch.eq(best, target[rows], out=is_best[rows])
            # in place: passes over the table are what it costs
            powers = logits.sub_(most).exp_()
            mass = powers.sum(-1, keepdim=True, dtype=exact)
            torch.sub(mass.log().add_(most), score, alpha=kept, out=losses[rows])
            if layer is None:
                continue
            # p - q, but for the mass that all symbols share, and times that of the row
            at_target = (score - most).exp_().sub_(mass, alpha=kept)
            powers.scatter_(1, target[rows], at_target.to(dtype))
            share = mass.reciprocal()
            product = powers @ w
            torch.addcmul(of_others, product, share, out=grad_hidden[rows])
            layer.add(powers, hidden[rows], share)
            del logits, powers
        total = (hidden.to(exact) @ w_sum)[:, None]
        if bias is not None:
            total += bias.sum()
        losses.sub_(total, alpha=other).add_(entropy)
        if layer is not None:
            layer.less(other, hidden)
            ctx.save_for_backward(grad_hidden, *layer.parts())
        ctx.mark_non_differentiable(losses, is_best)
        ctx.set_materialize_grads(False)
        return losses.sum(), losses, is_best

    @staticmethod
    def backward(ctx, grad_total, *_):
        hidden, weight, bias = _scaled(ctx.saved_tensors, grad_total)
        return hidden, weight, bias, None, None


def ctc_loss(
    hidden: torch.Tensor,
    layer: torch.nn.Linear,
    targets: CtcTargets,
    is_frame: torch.Tensor,
    n_frames: Sequence[int],
    share: torch.Tensor,
    loss: torch.nn.CTCLoss,
    cells: int = CELLS,
) -> torch.Tensor:
    """The weighted sum of `loss` on the log-softmax of the scores `layer(hidden)`.

    Args:
        hidden: (M, T, D) what the output layer sees.
        layer: from D to V symbols; computed in the precision that autocast asks for.
        targets: of the M.
        is_frame: (M, T) bool, which of the frames are no padding.
        n_frames: the same as numbers.
        share: (M,) weight of each in the sum.
        loss: says what an impossible target costs; the sum is over its losses.
        cells: of the table of scores that are turned into probabilities at a time.
    """
    options = (
        *(n_frames, targets.n_labels, loss.zero_infinity),
        *(precision_of(hidden), _wants_gradient(hidden, layer), cells),
    )
    tensors = (targets.symbols[:, None], targets.columns, is_frame, share)
    with full_precision(hidden.device.type):
        return _ColumnsOfTargets.apply(
            hidden, layer.weight, layer.bias, *tensors, options
        )


class _ColumnsOfTargets(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, symbols, columns, is_frame, share, options):
        n_frames, n_labels, zero_infinity, dtype, wants_gradient, cells = options
        exact = torch.promote_types(dtype, torch.float32)
        h, w = hidden.to(dtype), weight.to(dtype)
        b = None if bias is None else bias.to(dtype)
        symbols = symbols.expand(-1, hidden.size(1), -1)  # (M, T, C)
        log_probs = hidden.new_empty(symbols.shape, dtype=exact)
        runs = list(_runs(len(hidden), hidden.size(1) * weight.size(0), cells))
        tables = []
        for rows in runs:
            logits = F.linear(h[rows], w, b)
            whole = F.log_softmax(logits, -1, dtype=exact)
            torch.gather(whole, 2, symbols[rows], out=log_probs[rows])
            tables.append(logits if wants_gradient else None)
            del logits, whole
        # what PyTorch's `ctc_loss` calls, once it has labels and lengths on the CPU
        given = (log_probs.transpose(0, 1), columns, n_frames, n_labels)
        losses, alphas = torch.ops.aten._ctc_loss(*given, 0, zero_infinity)
        share = share.to(exact)
        each = losses
        if zero_infinity:  # an impossible target costs nothing, and teaches nothing
            is_impossible = losses == math.inf
            each = losses.masked_fill(is_impossible, 0.0)
            share = share.masked_fill(is_impossible, 0.0)
        total = each @ share
        if not wants_gradient:
            return total
        # of log-probabilities: what they say less what is expected of a frame's symbols
        grad = torch.ops.aten._ctc_loss_backward(
            torch.ones_like(losses), *given, losses, alphas, 0, zero_infinity
        )
        p = log_probs.exp_()
        expected = p - grad.transpose(0, 1)
        # it sums to 1 but for rounding, which the backward pass of a log-softmax gives
        # to the probabilities as well
        summed = expected.sum(-1, keepdim=True)
        values = torch.addcdiv(p, expected, summed, value=-1)
        factor = summed * share[:, None, None] * is_frame[:, :, None]
        layer = _LayerGradient(weight, bias, exact)
        grad_hidden = torch.empty_like(hidden)
        for number, rows in enumerate(runs):
            powers = tables[number].softmax(-1, dtype=dtype)
            tables[number] = None
            powers.scatter_(2, symbols[rows], values[rows].to(dtype))
            torch.mul(powers @ w, factor[rows], out=grad_hidden[rows])
            flat = (x.flatten(0, 1) for x in (powers, hidden[rows], factor[rows]))
            layer.add(*flat)
            del powers
        ctx.save_for_backward(grad_hidden, *layer.parts())
        return total

    @staticmethod
    def backward(ctx, grad_total):
        hidden, weight, bias = _scaled(ctx.saved_tensors, grad_total)
        return hidden, weight, bias, None, None, None, None, None


class _LayerGradient:
    """That of the output layer, added up over runs of tokens."""

    def __init__(self, weight, bias, exact: torch.dtype):
        self._weight, self._has_bias, self._exact = weight, bias is not None, exact
        self._table = None

    def add(
        self, powers: torch.Tensor, hidden: torch.Tensor, share: torch.Tensor
    ) -> None:
        """Gradients (n, V) of scores, but for a factor of a token, `share` (n, 1).

        It goes to what the layer saw (n, D): to the table it would be another pass.
        """
        width = hidden.size(1)
        seen = powers.new_empty(len(hidden), width + _BESIDE * self._has_bias)
        torch.mul(hidden, share, out=seen[:, :width])
        seen[:, width:] = share  # a bias has an input of 1
        table = powers.T @ seen
        if self._table is None:
            self._table = table.to(self._exact)
        else:
            self._table += table

    def less(self, other: float, hidden: torch.Tensor) -> None:
        """Without the mass `other` that every symbol of a token (N, D) has."""
        width = hidden.size(1)
        self._table[:, :width].sub_(hidden.sum(0), alpha=other)
        self._table[:, width:].sub_(other * len(hidden))

    def parts(self) -> list[torch.Tensor]:
        """Those of weight and bias."""
        width = self._weight.size(1)
        table = self._table.to(self._weight.dtype)
        return [table[:, :width], *([table[:, width]] if self._has_bias else [])]


def _scaled(grads: Sequence[torch.Tensor], by: torch.Tensor) -> list:
    """Gradients of hidden states, weight and bias, or None where there is no bias."""
    return [*(grad * by.to(grad) for grad in grads), None][:3]
