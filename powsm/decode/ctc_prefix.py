"""Reading the CTC head: prefix scores for joint search, greedy and prefix-beam.

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

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class CTCHypothesis:
    """Tokens read from the CTC head alone.

    Attributes:
        tokens: token ids, blanks and repeats removed.
        score: log-probability of the best path (greedy) or of all paths that the
            beam kept (prefix beam).
        spans: frames [start, end) of each token on the best path; empty for the
            prefix beam, which sums over paths.
    """

    tokens: tuple[int, ...]
    score: float
    spans: tuple[tuple[int, int], ...] = ()


def ctc_greedy(
    log_probs: Tensor, lens: Tensor, *, blank: int, allowed: Tensor | None = None
) -> list[CTCHypothesis]:
    """The best path: the likeliest symbol of each frame, repeats and blanks removed.

    Args:
        log_probs: (B, T, V).
        lens: (B,) true numbers of frames.
        blank: token id of the blank, always allowed.
        allowed: tokens that may come out, bool (V,) or one row an utterance (B, V).

    >>> x = torch.tensor([[0, 1, 1, 0, 1, 2]])  # the argmax of each frame
    >>> log_probs = torch.nn.functional.one_hot(x, 3).float().log_softmax(-1)
    >>> hyp = ctc_greedy(log_probs, torch.tensor([6]), blank=0)[0]
    >>> hyp.tokens, hyp.spans
    ((1, 1, 2), ((1, 3), (4, 5), (5, 6)))
    """
    log_probs = _masked(log_probs, blank, allowed)
    best, ids = log_probs.max(dim=-1)
    return [
        _collapse(path[:n], float(scores[:n].sum()), blank)
        for path, scores, n in zip(
            ids.tolist(), best.double().cpu(), lens.tolist(), strict=True
        )
    ]


def _collapse(path: Sequence[int], score: float, blank: int) -> CTCHypothesis:
    tokens, spans = [], []
    start = 0
    for t in range(1, len(path) + 1):
        if t == len(path) or path[t] != path[start]:
            if path[start] != blank:
                tokens.append(path[start])
                spans.append((start, t))
            start = t
    return CTCHypothesis(tuple(tokens), score, tuple(spans))


def ctc_prefix_beam(
    log_probs: Tensor,
    lens: Tensor,
    *,
    blank: int,
    beam_size: int = 10,
    tokens_per_frame: int = 20,
    allowed: Tensor | None = None,
) -> list[list[CTCHypothesis]]:
    """Prefix beam search: sums the paths that collapse to the same tokens.

    Args:
        log_probs: (B, T, V).
        lens: (B,) true numbers of frames.
        blank: token id of the blank, always allowed.
        beam_size: prefixes kept after each frame, and returned.
        tokens_per_frame: only the likeliest tokens of a frame extend prefixes.
        allowed: tokens that may come out, bool (V,) or one row an utterance (B, V).

    Returns:
        For each utterance its hypotheses, best first.

    Source: Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech
    Recognition using Bi-Directional Recurrent DNNs", algorithm 1, without a word list.
    """
    log_probs = _masked(log_probs, blank, allowed)
    n_tokens = min(tokens_per_frame, log_probs.size(-1))
    best, ids = log_probs.topk(n_tokens, dim=-1)
    blanks = log_probs[..., blank].double().cpu().tolist()
    best, ids = best.double().cpu().tolist(), ids.tolist()
    return [
        _prefix_beam(blanks[b][:n], ids[b][:n], best[b][:n], blank, beam_size)
        for b, n in enumerate(lens.tolist())
    ]


def _prefix_beam(
    blanks: list[float],
    ids: list[list[int]],
    values: list[list[float]],
    blank: int,
    beam_size: int,
) -> list[CTCHypothesis]:
    """One utterance. A prefix is (parent prefix, token), made once, so that equal
    prefixes are the same object and compare without walking along them."""
    root = (None, -1)
    interned: dict[tuple[int, int], tuple] = {}
    # prefix id -> (prefix, log p ending in blank, log p ending in its last token)
    beam = {id(root): (root, 0.0, _NEVER)}
    for frame_blank, frame_ids, frame_values in zip(blanks, ids, values, strict=True):
        grown: dict[int, list] = {}

        def add(prefix, by_blank, by_token, grown=grown):
            entry = grown.setdefault(id(prefix), [prefix, _NEVER, _NEVER])
            entry[1] = _log_add(entry[1], by_blank)
            entry[2] = _log_add(entry[2], by_token)

        for prefix, in_blank, in_token in beam.values():
            total = _log_add(in_blank, in_token)
            add(prefix, total + frame_blank, _NEVER)
            for token, value in zip(frame_ids, frame_values, strict=True):
                if token == blank or value == _NEVER:
                    continue
                source = total
                if token == prefix[1]:
                    add(prefix, _NEVER, in_token + value)
                    source = in_blank
                key = (id(prefix), token)
                child = interned.setdefault(key, (prefix, token))
                add(child, _NEVER, source + value)
        ranked = sorted(grown.items(), key=lambda item: -_total(item[1]))
        beam = {key: tuple(entry) for key, entry in ranked[:beam_size]}
    hyps = sorted(beam.values(), key=_total, reverse=True)
    return [CTCHypothesis(_spell(entry[0]), float(_total(entry))) for entry in hyps]


def _total(entry: Sequence) -> float:
    return _log_add(entry[1], entry[2])


def _log_add(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    return a if b == _NEVER else a + math.log1p(math.exp(b - a))


def _spell(prefix: tuple) -> tuple[int, ...]:
    tokens = []
    while prefix[0] is not None:
        prefix, token = prefix
        tokens.append(token)
    return tuple(reversed(tokens))


def _masked(log_probs: Tensor, blank: int, allowed: Tensor | None) -> Tensor:
    if allowed is None:
        return log_probs
    n_tokens = log_probs.size(-1)
    if allowed.dtype != torch.bool or allowed.size(-1) != n_tokens:
        raise ValueError(
            f"allowed: {allowed.dtype} of shape {tuple(allowed.shape)}; expected bool "
            f"of shape ({n_tokens},) or (batch, {n_tokens}), one value a token"
        )
    barred = ~allowed.to(log_probs.device)
    if barred.dim() == 2:
        barred = barred.unsqueeze(1)
    barred = barred.clone()
    barred[..., blank] = False
    return log_probs.masked_fill(barred, _NEVER)
