"""CTC heads: what they speak, all tokens or phones alone, and how far two are apart.

Of 40,002 tokens a head of phones is taught 6,368; the rest of its weights, 25 M in the
published model, never learn to speak. The scores of a head over blank and phones alone
are laid out over all tokens again, so whatever reads CTC scores works unchanged. Stock
ESPnet cannot load it.
"""

from collections.abc import Container, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F

from powsm.tasks import WORD_START
from powsm.vocabulary.phone_sets import is_phone

_NEVER = -1e4  # logit of a token that is not in the head; its probability is 0


class PhoneColumns(torch.nn.Module):
    """Which of all tokens a head of phones speaks: blank, `<unk>`, phones, and more.

    Args:
        tokens: all tokens of the model; blank is the first.
        also: further tokens, those of them that the model has.
    """

    def __init__(self, tokens: Sequence[str], also: Container[str] = ()):
        super().__init__()
        kept = [0] + [
            i
            for i, token in enumerate(tokens)
            if token == "<unk>" or is_phone(token) or token in also
        ]
        # numbers that stay on the CPU, for labels while data are loaded
        self.row_of_token = np.full(len(tokens), kept.index(tokens.index("<unk>")))
        self.row_of_token[kept] = np.arange(len(kept))
        self.n_tokens = len(tokens)
        self.register_buffer("kept", torch.tensor(kept), persistent=False)
        row_of = torch.tensor(self.row_of_token)
        self.register_buffer("row_of", row_of, persistent=False)

    def spread(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of all tokens (..., V) from those of the head's own."""
        out = logits.new_full((*logits.shape[:-1], self.n_tokens), _NEVER)
        return out.index_copy(-1, self.kept, logits)

    def rows(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The head's columns of token ids; a token without one is `<unk>`."""
        return self.row_of[token_ids]


class PhoneLinear(torch.nn.Linear):
    """The last layer of a CTC head, with rows for blank, `<unk>` and the phones.

    Targets of phones begin with `▁`, as texts of the decoder do; it has no row, so that
    the row of `<unk>` learns where it is, and scores it beside a decoder.

    Args:
        size: width of the encoder.
        tokens: all tokens of the model; blank is the first.
    """

    def __init__(self, size: int, tokens: Sequence[str]):
        columns = PhoneColumns(tokens)
        super().__init__(size, len(columns.kept))
        self.columns = columns
        self._start = tokens.index(WORD_START) if WORD_START in tokens else None
        self._unknown = tokens.index("<unk>")

    def of_tokens(self, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (..., D) and biases (...) of the logits of any tokens (...)."""
        rows = self.columns.rows(token_ids)
        has_own = self.columns.kept[rows] == token_ids
        if self._start is not None:
            has_own |= token_ids == self._start
        bias = self.bias[rows].masked_fill(~has_own, _NEVER)
        return self.weight[rows] * has_own[..., None], bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of all tokens (..., V) from hidden states (..., D)."""
        return self.columns.spread(self.compact(hidden))

    def of_text(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (..., V) by which texts of a decoder are scored."""
        if self._start is not None:
            log_probs[..., self._start] = log_probs[..., self._unknown]
        return log_probs

    def as_read(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (..., V) by which the head is read: `▁` for `<unk>`."""
        log_probs = self.of_text(log_probs)
        if self._start is not None:
            log_probs[..., self._unknown] = _NEVER
        return log_probs

    def compact(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of the head's own rows."""
        return super().forward(hidden)


class Head(NamedTuple):
    """A CTC head over a batch of E examples.

    Attributes:
        block: number of the encoder block that it reads.
        hidden: (E, T, D) what it reads.
        logits: (E, T, V) its scores without dropout.
        columns: which tokens they are of; None is all.
    """

    block: int
    hidden: torch.Tensor
    logits: torch.Tensor
    columns: PhoneColumns | None

    @classmethod
    def of(
        cls,
        block: int,
        hidden: torch.Tensor,
        layer: torch.nn.Linear,
        columns: PhoneColumns | None = None,
    ) -> Self:
        """Let a layer of all tokens, or some of its rows, read hidden states."""
        if columns is None:
            return cls(block, hidden, layer(hidden), None)
        weight, bias = layer.weight[columns.kept], layer.bias[columns.kept]
        return cls(block, hidden, F.linear(hidden, weight, bias), columns)

    def condition(self, layer: torch.nn.Linear) -> torch.Tensor:
        """(E, T, D) what the head says, for the blocks after it."""
        said = F.softmax(self.logits, dim=-1)
        if self.columns is None:
            return layer(said)
        return F.linear(said, layer.weight[:, self.columns.kept], layer.bias)

    def logits_of(self, token_ids: torch.Tensor) -> torch.Tensor:
        """(E, T, C) its scores of tokens (C,), which it speaks."""
        if self.columns is not None:
            token_ids = self.columns.rows(token_ids)
        return self.logits.index_select(-1, token_ids)

    def log_probs(self) -> torch.Tensor:
        """(E, T, V) of all tokens."""
        logits = self.logits.float()
        if self.columns is not None:
            logits = self.columns.spread(logits)
        return logits.log_softmax(-1)


def divergence(
    log_probs: torch.Tensor, aims: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """KL(aims || said) of each example in nats, added up over its positions.

    Args:
        log_probs: (E, T, V) what is said.
        aims: (E, T, V) what it is drawn to, log-probabilities as well.
        lengths: (E,) positions of each row; the rest does not count.

    Returns:
        (E,), at least 0.
    """
    apart = F.kl_div(log_probs, aims, reduction="none", log_target=True).sum(-1)
    columns = torch.arange(apart.size(1), device=apart.device)
    return apart.masked_fill(columns >= lengths[:, None], 0.0).sum(1)


def disagreement(logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """How far two views of an example are apart: symmetric KL divergence, in nats.

    Half of KL(b || a) + KL(a || b), added up over the positions, where each view is
    drawn to the other as it stands: no gradient goes through what is aimed at.

    Args:
        logits: (2E, T, V), the second view of the E examples behind the first.
        lengths: (2E,) positions of each row; the rest does not count.

    Returns:
        (E,), at least 0.

    Source: the consistency loss of CR-CTC (Yao et al., arXiv 2410.05101, section 3.1).
    """
    log_probs = logits.float().log_softmax(-1)
    aims = log_probs.detach().roll(len(log_probs) // 2, 0)
    return sum(divergence(log_probs, aims, lengths).chunk(2)) / 2
