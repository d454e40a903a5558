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

A search looks at some tens of tokens a frame. Their scores are computed when they are
asked for (`HeadColumns`), since a table of 40,002 tokens would take 80 MB for 20 s of
audio, twice that while it is made. What scores the whole vocabulary has the table.

Shapes: B utterances, H hypotheses each, S candidate tokens, T frames, V vocabulary, D
model size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from powsm.model.ctc_heads import PhoneLinear

LOG_ZERO = -1.0e10  # an impossible prefix; finite, so differences stay defined
_NEVER = float("-inf")
_CELLS = 1 << 26  # of a table of scores that exist at once


class Table:
    """Log-probabilities of all tokens, kept and not copied.

    Args:
        log_probs: (B, T, V).
    """

    def __init__(self, log_probs: Tensor):
        self._log_probs = log_probs
        self._probs: Tensor | None = None  # made at the first `sums`
        self._rows = torch.arange(len(log_probs), device=log_probs.device)

    def columns(self, ids: Tensor, n_frames: int) -> Tensor:
        """(B, H, S) tokens -> (B, H, S, T) their log-probabilities, float64."""
        rows = self._rows.view(-1, 1, 1)
        return self._log_probs[:, :n_frames][rows, :, ids].double()

    def sums(self, weights: Tensor) -> Tensor:
        """(B, H, V) float64: probabilities of frames 1 on, weighted by (B, H, T-1)."""
        if self._probs is None:
            self._probs = self._log_probs.exp()
        frames = slice(1, weights.size(-1) + 1)
        weights = weights.to(self._probs.dtype)
        each = zip(weights, self._rows.tolist(), strict=True)
        return torch.stack([w @ self._probs[row, frames] for w, row in each]).double()

    def first_frame(self) -> Tensor:
        """(B, 1, V) float64 log-probabilities."""
        return self._log_probs[self._rows, None, 0].double()

    def best_path(self) -> Tensor:
        """(B, T) the likeliest token of each frame."""
        return self._log_probs.argmax(-1)

    def keep(self, utterances: Tensor) -> None:
        """Forget all utterances but these (indices into the present B)."""
        self._rows = self._rows[utterances]


class HeadColumns:
    """Log-probabilities of a CTC head for the tokens that are asked for.

    Args:
        head: from D to V tokens.
        memory: (B, T, D) encoder output.
    """

    def __init__(self, head: torch.nn.Linear, memory: Tensor):
        self._head, self._memory = head, memory
        is_compact = isinstance(head, PhoneLinear)
        step = max(1, _CELLS // head.out_features)
        norms, paths = [], []
        for part in memory.flatten(0, 1).split(step):
            logits = head.compact(part) if is_compact else head(part)
            norms.append(logits.float().logsumexp(-1))
            paths.append(logits.argmax(-1))
        shape = memory.shape[:2]
        self._norm = torch.cat(norms).view(shape)
        path = torch.cat(paths).view(shape)
        self._path = head.columns.kept[path] if is_compact else path

    def columns(self, ids: Tensor, n_frames: int) -> Tensor:
        """See `Table.columns`."""
        head = self._head
        if isinstance(head, PhoneLinear):
            weight, bias = head.of_tokens(ids.flatten(1))
        else:
            weight, bias = head.weight[ids.flatten(1)], head.bias[ids.flatten(1)]
        memory = self._memory[:, :n_frames].transpose(1, 2)
        logits = torch.baddbmm(bias.unsqueeze(-1), weight, memory).float()
        return (
            (logits - self._norm[:, None, :n_frames])
            .double()
            .unflatten(1, ids.shape[1:])
        )

    def best_path(self) -> Tensor:
        """See `Table.best_path`."""
        return self._path

    def keep(self, utterances: Tensor) -> None:
        """See `Table.keep`."""
        self._memory = self._memory[utterances]
        self._norm = self._norm[utterances]


class PrefixScorer:
    """CTC prefix scores of all hypotheses of a batch of utterances.

    Every utterance holds the same number of hypotheses H: one at first, then as many
    as `advance` selects.

    Args:
        scores: log-probabilities of the CTC head; `score_all` needs a `Table`.
        lens: (B,) true numbers of frames; frames beyond them are ignored.
        blank: token id of the CTC blank.
        eos: token id whose score is that of the prefix being the whole output.
    """

    def __init__(
        self, scores: Table | HeadColumns, lens: Tensor, *, blank: int, eos: int
    ):
        self._scores = scores
        self._blank, self._eos = blank, eos
        self._lens = lens
        self._set_frames()
        blanks = lens.new_full((len(lens), 1, 1), blank)
        # (B, T): all blank so far
        self._blank_sum = self._columns(blanks)[:, 0, 0].cumsum(-1)
        self._r_blank = self._blank_sum.unsqueeze(1)  # (B, H, T) paths ending in blank
        self._r_sum = self._r_blank  # (B, H, T) and in any way
        self._psi = self._blank_sum.new_zeros(len(lens), 1)
        self._last: Tensor | None = None  # (B, H) last tokens, None before the first
        self._x_last: Tensor | None = None  # (B, H, T) their log-probabilities

    def score(self, ids: Tensor) -> Tensor:
        """Log-probability that each candidate adds to its hypothesis.

        Args:
            ids: (B, H, S) candidate tokens, `eos` among them where wanted.

        Returns:
            (B, H, S) float64, log p(prefix + token ...) - log p(prefix ...); minus
            infinity for the blank, which is in no output.
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
        psi = psi.clamp(min=LOG_ZERO).masked_fill(ids == self._blank, _NEVER)
        return psi - self._psi.unsqueeze(-1)

    def score_all(self) -> Tensor:
        """The same for the whole vocabulary, (B, H, V), as one matrix product."""
        before = self._before(self._r_sum)
        # of a single frame there is none before
        top = F.pad(before, (0, 1), value=LOG_ZERO).amax(-1, keepdim=True)
        psi = self._scores.sums((before - top).exp()).log() + top
        if self._last is None:
            psi = torch.logaddexp(psi, self._scores.first_frame())
        else:
            repeated = self._last.unsqueeze(-1)
            psi = psi.scatter(-1, repeated, self._repeat_score().unsqueeze(-1))
        psi[..., self._eos] = self._end_score()
        psi = psi.clamp(min=LOG_ZERO)
        psi[..., self._blank] = _NEVER
        return psi - self._psi.unsqueeze(-1)

    def advance(self, parents: Tensor, tokens: Tensor, gains: Tensor) -> None:
        """Make the chosen extensions the new hypotheses.

        Args:
            parents: (B, K) index of the hypothesis that each one extends.
            tokens: (B, K) the token it adds.
            gains: (B, K) what `score` gave for it; minus infinity where it never is.
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
        self._psi = self._psi.gather(1, parents) + gains.clamp(min=LOG_ZERO)
        self._last, self._x_last = tokens, x

    def keep(self, utterances: Tensor) -> None:
        """Forget all utterances but these (indices into the present B)."""
        self._scores.keep(utterances)
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
        return self._scores.columns(ids, self._n_frames)

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
