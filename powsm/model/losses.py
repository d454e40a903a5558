"""Losses of an output layer, without a table of its scores or log-probabilities.

N tokens over V symbols make a table of N x V scores, which takes more memory than any
layer does (536 s of audio: 16,600 x 40,002) and which a loss in plain PyTorch passes
over some twenty times. Here the table exists for some thousand tokens at a time, and
the gradient is made beside the loss, while it is there.

A CTC target of L labels asks for L + 1 columns of its table. PyTorch's loss runs over
those; the gradient of a score is the probability of its symbol, less what the loss
expects of it, which is 0 in all other columns.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from powsm.model.features import on_device

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
    wants_gradient = torch.is_grad_enabled() and (
        hidden.requires_grad or layer.weight.requires_grad
    )
    return _SmoothedCrossEntropy.apply(
        hidden,
        layer.weight,
        layer.bias,
        target,
        (smoothing, precision_of(hidden), wants_gradient, cells),
    )


def precision_of(hidden: torch.Tensor) -> torch.dtype:
    """What a matrix product with `hidden` is computed in: autocast may say another."""
    kind = hidden.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return hidden.dtype


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
        losses = hidden.new_empty(len(hidden), dtype=exact)
        is_best = torch.empty_like(target, dtype=torch.bool)
        layer = _Layer(weight, bias, exact) if wants_gradient else None
        grad_hidden = torch.empty_like(hidden) if wants_gradient else None
        w = weight.to(dtype)
        b = None if bias is None else bias.to(dtype)
        # the sum of a token's scores needs no table: hidden times the sum of the rows
        w_sum = weight.sum(0)
        b_sum = 0.0 if bias is None else bias.sum()
        step = max(1, cells // vocab)
        for begin in range(0, len(hidden), step):
            rows = slice(begin, begin + step)
            h, t = hidden[rows].to(dtype), target[rows, None]
            logits = F.linear(h, w, b)
            score = logits.gather(1, t).squeeze(1).to(exact)
            most, best = logits.max(-1)
            is_best[rows] = best == target[rows]
            # in place: passes over the table are what it costs
            powers = logits.sub_(most[:, None]).exp_()
            mass = powers.sum(-1, dtype=exact)
            norm = most.to(exact) + mass.log()
            log_target = score - norm
            losses[rows] = entropy - kept * log_target
            if other:
                total = h.to(exact) @ w_sum.to(exact) + b_sum
                losses[rows] -= other * (total - vocab * norm)
            if layer is None:
                continue
            # p - q, but for the mass that all symbols share: `_Layer.less`
            table = _Table(powers, mass)
            table.put(t, (log_target.exp() - kept)[:, None])
            grad_h = table.times(w)
            if other:
                grad_h -= other * w_sum
            grad_hidden[rows] = grad_h
            layer.add(table, h, torch.ones_like(score))
            del table, powers, logits
        if layer is not None:
            grads = layer.less(other)
            ctx.save_for_backward(grad_hidden, *grads)
        ctx.mark_non_differentiable(losses, is_best)
        return losses.sum(), losses, is_best

    @staticmethod
    def backward(ctx, grad_total, *_):
        hidden, *layer = (g * grad_total.to(g) for g in ctx.saved_tensors)
        weight, bias = (*layer, None)[:2]
        return hidden, weight, bias, None, None


def ctc_loss(
    hidden: torch.Tensor,
    layer: torch.nn.Linear,
    labels: torch.Tensor,
    n_frames: Sequence[int],
    n_labels: Sequence[int],
    scale: torch.Tensor,
    loss: torch.nn.CTCLoss,
    cells: int = CELLS,
) -> torch.Tensor:
    """The weighted sum of `loss` on the log-softmax of the scores `layer(hidden)`.

    Args:
        hidden: (M, T, D) what the output layer sees.
        layer: from D to V symbols; computed in the precision that autocast asks for.
        labels: targets, one behind the other.
        n_frames, n_labels: of each of the M.
        scale: (M,) numbers: weight of each in the sum.
        loss: with reduction `none`; its blank is not among the labels.
        cells: of the table of scores that are turned into probabilities at a time.
    """
    wants_gradient = torch.is_grad_enabled() and (
        hidden.requires_grad or layer.weight.requires_grad
    )
    target = _padded(labels, n_labels, loss.blank)
    return _ColumnsOfTargets.apply(
        hidden,
        layer.weight,
        layer.bias,
        target,
        scale,
        (list(n_frames), list(n_labels), loss, precision_of(hidden), wants_gradient),
        cells,
    )


def _padded(labels: torch.Tensor, n_labels: Sequence[int], blank: int) -> torch.Tensor:
    """(M, L) targets with blanks behind them, of targets one behind the other."""
    lengths = torch.tensor(n_labels)
    column = torch.arange(int(lengths.max()))
    place = (lengths.cumsum(0) - lengths)[:, None] + column
    is_there = column < lengths[:, None]
    place = on_device(torch.where(is_there, place, 0), labels.device)
    is_there = on_device(is_there, labels.device)
    if not len(labels):
        return place
    return labels[place].masked_fill(~is_there, blank)


def _first_columns(target: torch.Tensor, blank: int) -> torch.Tensor:
    """(M, L) column of each label behind that of the blank.

    Equal labels of a target share one: CTC asks whether neighbours are equal.
    """
    if not target.numel():
        return target
    places = torch.arange(target.size(1), device=target.device)
    is_same = target[:, :, None] == target[:, None, :]
    first = torch.where(is_same, places, target.size(1)).amin(-1) + 1
    return first.masked_fill(target == blank, 0)


class _ColumnsOfTargets(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, scale, options, cells):
        n_frames, n_labels, loss, dtype, wants_gradient = options
        exact = torch.promote_types(dtype, torch.float32)
        w = weight.to(dtype)
        b = None if bias is None else bias.to(dtype)
        symbols = F.pad(target, (1, 0), value=loss.blank)  # (M, C)
        first = _first_columns(target, loss.blank)
        step = max(1, cells // (hidden.size(1) * weight.size(0)))
        runs = [slice(m, m + step) for m in range(0, len(hidden), step)]
        tables, columns = [], []
        for rows in runs:
            logits = F.linear(hidden[rows].to(dtype), w, b)
            log_p = F.log_softmax(logits, -1, dtype=exact)
            columns.append(log_p.gather(2, _over(symbols[rows], log_p)))
            tables.append(logits if wants_gradient else None)
            del logits, log_p
        columns = torch.cat(columns).transpose(0, 1).detach()  # (T, M, C)
        with torch.set_grad_enabled(wants_gradient):
            columns.requires_grad_(wants_gradient)
            losses = loss(
                columns, first, torch.tensor(n_frames), torch.tensor(n_labels)
            )
            summed = losses.sum()
        total = (losses.detach() * scale).sum()
        if not wants_gradient:
            return total
        # scores of the target's columns: probability less expectation
        torch.autograd.backward(summed)  # `grad` fails where operations are counted
        grad = columns.grad
        # what is expected sums to 1 but for rounding, which the backward pass of a
        # log-softmax takes off again
        p = columns.detach().exp()
        excess = 1.0 + (grad - p).sum(-1, keepdim=True)
        grad = (grad - p * excess) / (1.0 - excess)
        share = F.pad(first, (1, 0))[:, None].expand(-1, hidden.size(1), -1)
        grad = grad.transpose(0, 1).gather(2, share)
        layer = _Layer(weight, bias, exact)
        frame = torch.arange(hidden.size(1))
        is_frame = on_device(frame < torch.tensor(n_frames)[:, None], hidden.device)
        # an impossible target costs nothing where the loss says so, and teaches nothing
        factor = is_frame * (scale * (losses.detach() != 0))[:, None]
        factor = factor * (1.0 - excess.transpose(0, 1).squeeze(2))
        grad_hidden = torch.empty_like(hidden)
        for number, rows in enumerate(runs):
            powers = tables[number].softmax(-1, dtype=dtype).flatten(0, 1)
            tables[number] = None
            table = _Table(powers, torch.ones_like(factor[rows]).flatten())
            del powers
            symbol = _over(symbols[rows], hidden[rows]).flatten(0, 1)
            table.put(symbol, grad[rows].flatten(0, 1))
            by = factor[rows].flatten()
            grad_h = table.times(w) * by[:, None]
            grad_hidden[rows] = grad_h.view_as(hidden[rows])
            layer.add(table, hidden[rows].flatten(0, 1), by)
        ctx.save_for_backward(grad_hidden, *layer.less(0.0))
        return total

    @staticmethod
    def backward(ctx, grad_total):
        hidden, *layer = (g * grad_total.to(g) for g in ctx.saved_tensors)
        weight, bias = (*layer, None)[:2]
        return hidden, weight, bias, None, None, None, None


def _over(symbols: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """(m, C) columns of each row, for each of its frames (m, T, C)."""
    return symbols[:, None].expand(-1, table.size(1), -1)


class _Table:
    """Probabilities of V symbols for each of n tokens, but for a factor of a token.

    What reads the table divides by it: to divide the table would be another pass.

    Args:
        powers: (n, V).
        mass: (n,) what a row of them adds up to.
    """

    def __init__(self, powers: torch.Tensor, mass: torch.Tensor):
        self._powers, self._mass = powers, mass

    def put(self, symbols: torch.Tensor, values: torch.Tensor) -> None:
        """Write values (n, C) instead of the probabilities of symbols (n, C)."""
        values = values * self._mass[:, None]
        self._powers.scatter_(1, symbols, values.to(self._powers.dtype))

    def times(self, weight: torch.Tensor) -> torch.Tensor:
        """(n, D) the table times (V, D), in `exact`."""
        return (self._powers @ weight) / self._mass[:, None]

    def weigh(self, hidden: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """(V, D) the table, each token by its factor (n,), times hidden (n, D)."""
        share = (factor / self._mass)[:, None]
        return self._powers.T @ (hidden * share).to(self._powers.dtype)


class _Layer:
    """Gradients of the output layer, added up over runs of tokens."""

    def __init__(self, weight, bias, exact: torch.dtype):
        self._like = weight
        self._has_bias = bias is not None
        shape = (weight.size(0), weight.size(1) + _BESIDE * self._has_bias)
        self._table = weight.new_zeros(shape, dtype=exact)
        self._hidden = weight.new_zeros(shape[1], dtype=exact)

    def add(self, table: _Table, hidden: torch.Tensor, factor: torch.Tensor) -> None:
        """Tokens with hidden states (n, D), weighted by a factor (n,)."""
        hidden = hidden.to(factor)
        if self._has_bias:  # which has an input of 1
            hidden = F.pad(hidden, (0, _BESIDE))
            hidden[:, -_BESIDE] = 1.0
        self._table += table.weigh(hidden, factor)
        self._hidden += factor @ hidden

    def less(self, other: float) -> list[torch.Tensor]:
        """The gradients, without the mass `other` that every symbol of a token has."""
        if other:
            self._table -= other * self._hidden
        width = self._like.size(1)
        grads = [self._table[:, :width].to(self._like.dtype)]
        if self._has_bias:
            grads.append(self._table[:, width].to(self._like.dtype))
        return grads
