"""Reading the CTC head alone: the best path, and a beam of prefixes.

Shapes: B utterances, T frames, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_NEVER = float("-inf")


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


def first_label_log_probs(
    log_probs: Tensor, lens: Tensor, tokens: Sequence[int], *, blank: int
) -> Tensor:
    """How likely each of some tokens is the first label that comes out.

    That is the sum over frames of the token's probability there, with blanks before.

    Args:
        log_probs: (B, T, V).
        lens: (B,) true numbers of frames.
        tokens: C ids, without the blank.
        blank: token id of the blank.

    Returns:
        (B, C) log-probabilities.

    >>> probs = torch.tensor([[[0.5, 0.3, 0.2], [0.25, 0.25, 0.5]]])  # blank first
    >>> first_label_log_probs(probs.log(), torch.tensor([2]), [1, 2], blank=0).exp()
    tensor([[0.4250, 0.4500]])
    """
    silent = log_probs[..., blank].cumsum(1)
    silent = torch.cat([torch.zeros_like(silent[:, :1]), silent[:, :-1]], dim=1)
    scores = log_probs[..., list(tokens)] + silent[..., None]
    frames = torch.arange(log_probs.size(1), device=log_probs.device)
    outside = frames >= lens.to(log_probs.device)[:, None]
    return scores.masked_fill(outside[..., None], _NEVER).logsumexp(1)


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
