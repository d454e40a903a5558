"""CTC prefix scores for joint search.

Joint decoding asks, for every hypothesis and a few candidate tokens, how likely the
CTC head finds a label sequence that *starts* with them (Watanabe et al. 2017,
"Hybrid CTC/Attention Architecture", algorithm 2). The usual code walks through the
frames in a loop. Here the two forward recursions are solved in closed form: with
C[t] the running sum of a token's log-probabilities,

    r[t] = x[t] + logaddexp(r[t-1], phi[t-1])
    <=>  r[t] = C[t] + logcumsumexp_{s<=t}(phi[s-1] - C[s-1])

so a step is a handful of tensor operations over (utterance, hypothesis, frame). They
run in float64: C reaches -10,000 nats, where float32 keeps three decimals.

Shapes: B utterances, H hypotheses each, S candidate tokens, T frames, V vocabulary.
"""

import torch
from torch import Tensor

LOG_ZERO = -1.0e10  # an impossible prefix; finite, so differences stay defined
_NEVER = float("-inf")


class PrefixScorer:
    """CTC prefix scores of all hypotheses of a batch of utterances.

    Every utterance holds the same number of hypotheses H: one at first, then as many
    as `advance` selects.

    Args:
        log_probs: (B, T, V) log-softmax output of the CTC head; kept, not copied.
        lens: (B,) true numbers of frames; frames beyond them are ignored.
        blank: token id of the CTC blank.
        eos: token id whose score is that of the prefix being the whole output.
    """

    def __init__(self, log_probs: Tensor, lens: Tensor, *, blank: int, eos: int):
        self._log_probs = log_probs
        self._probs: Tensor | None = None  # made at the first score_all
        self._blank, self._eos = blank, eos
        self._rows = torch.arange(len(log_probs), device=log_probs.device)
        self._lens = lens.to(log_probs.device)
        self._set_frames()
        blanks = log_probs[:, : self._n_frames, blank].double()
        self._blank_sum = blanks.cumsum(-1)  # (B, T): all blank so far
        self._r_blank = self._blank_sum.unsqueeze(1)  # (B, H, T) paths ending in blank
        self._r_sum = self._r_blank  # (B, H, T) and in any way
        self._psi = log_probs.new_zeros(len(log_probs), 1, dtype=torch.float64)
        self._last: Tensor | None = None  # (B, H) last tokens, None before the first
        self._x_last: Tensor | None = None  # (B, H, T) their log-probabilities

    def score(self, ids: Tensor) -> Tensor:
        """Log-probability that each candidate adds to its hypothesis.

        Args:
            ids: (B, H, S) candidate tokens, `eos` among them where wanted.

        Returns:
            (B, H, S) float64, log p(prefix + token ...) - log p(prefix ...).
        """
        x = self._columns(ids)  # (B, H, S, T)
        before = self._before(self._r_sum)  # (B, H, T-1)
        psi = torch.logsumexp(before.unsqueeze(2) + x[..., 1:], dim=-1)
        if self._last is None:
            psi = torch.logaddexp(psi, x[..., 0])
        else:
            repeated = ids == self._last.unsqueeze(-1)
            psi = torch.where(repeated, self._repeat_score().unsqueeze(-1), psi)
        psi = torch.where(ids == self._eos, self._end_score().unsqueeze(-1), psi)
        psi = psi.masked_fill(ids == self._blank, LOG_ZERO)
        return psi.clamp(min=LOG_ZERO) - self._psi.unsqueeze(-1)

    def score_all(self) -> Tensor:
        """The same for the whole vocabulary, (B, H, V), as one matrix product."""
        if self._probs is None:
            self._probs = self._log_probs.exp()
        before = self._before(self._r_sum)
        top = before.amax(-1, keepdim=True).clamp(min=LOG_ZERO)
        weights = (before - top).exp().to(self._probs.dtype)
        frames = slice(1, self._n_frames)
        psi = torch.stack(
            [
                w @ self._probs[row, frames]
                for w, row in zip(weights, self._rows.tolist(), strict=True)
            ]
        )
        psi = psi.double().log() + top
        if self._last is None:
            psi = torch.logaddexp(psi, self._log_probs[self._rows, None, 0].double())
        else:
            repeated = self._last.unsqueeze(-1)
            psi = psi.scatter(-1, repeated, self._repeat_score().unsqueeze(-1))
        psi[..., self._eos] = self._end_score()
        psi[..., self._blank] = LOG_ZERO
        return psi.clamp(min=LOG_ZERO) - self._psi.unsqueeze(-1)

    def advance(self, parents: Tensor, tokens: Tensor, gains: Tensor) -> None:
        """Make the chosen extensions the new hypotheses.

        Args:
            parents: (B, K) index of the hypothesis that each one extends.
            tokens: (B, K) the token it adds.
            gains: (B, K) what `score` gave for it.
        """
        over_frames = parents.unsqueeze(-1).expand(-1, -1, self._n_frames)
        r_sum = self._r_sum.gather(1, over_frames)
        x = self._columns(tokens.unsqueeze(-1)).squeeze(2)
        total = x.cumsum(-1)
        if self._last is None:
            first = torch.zeros_like(x[..., :1])
            phi = r_sum
        else:
            first = torch.full_like(x[..., :1], _NEVER)
            repeated = tokens == self._last.gather(1, parents)
            r_blank = self._r_blank.gather(1, over_frames)
            phi = torch.where(repeated.unsqueeze(-1), r_blank, r_sum)
        entered = torch.cat([first, (phi - total)[..., :-1]], dim=-1)
        r_label = total + torch.logcumsumexp(entered, dim=-1)
        blank_sum = self._blank_sum.unsqueeze(1)
        left = torch.cat(
            [torch.full_like(first, _NEVER), (r_label - blank_sum)[..., :-1]], dim=-1
        )
        self._r_blank = blank_sum + torch.logcumsumexp(left, dim=-1)
        self._r_sum = torch.logaddexp(r_label, self._r_blank)
        self._psi = self._psi.gather(1, parents) + gains
        self._last, self._x_last = tokens, x

    def keep(self, utterances: Tensor) -> None:
        """Forget all utterances but these (indices into the present B)."""
        self._rows = self._rows[utterances]
        self._lens = self._lens[utterances]
        self._set_frames()
        frames = slice(0, self._n_frames)
        self._blank_sum = self._blank_sum[utterances, frames]
        self._r_blank = self._r_blank[utterances, :, frames]
        self._r_sum = self._r_sum[utterances, :, frames]
        self._psi = self._psi[utterances]
        if self._last is not None:
            self._last = self._last[utterances]
            self._x_last = self._x_last[utterances, :, frames]

    def _set_frames(self) -> None:
        self._n_frames = int(self._lens.max())
        frame = torch.arange(1, self._n_frames, device=self._lens.device)
        outside = frame >= self._lens.unsqueeze(1)
        self._outside = outside.unsqueeze(1)  # (B, 1, T-1) frame t+1 is padding

    def _columns(self, ids: Tensor) -> Tensor:
        """(B, H, S) tokens -> (B, H, S, T) their log-probabilities, float64."""
        rows = self._rows.view(-1, 1, 1)
        return self._log_probs[:, : self._n_frames][rows, :, ids].double()

    def _before(self, r: Tensor) -> Tensor:
        """Paths up to frame t where frame t+1 can still emit, (B, H, T-1)."""
        return r[..., :-1].masked_fill(self._outside, _NEVER)

    def _repeat_score(self) -> Tensor:
        """(B, H): a repeated label needs a blank in between."""
        paths = self._before(self._r_blank) + self._x_last[..., 1:]
        return torch.logsumexp(paths, dim=-1)

    def _end_score(self) -> Tensor:
        """(B, H): the prefix is the whole output."""
        end = (self._lens - 1).view(-1, 1, 1).expand(-1, self._r_sum.size(1), 1)
        return self._r_sum.gather(-1, end).squeeze(-1)
