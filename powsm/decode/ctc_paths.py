"""Reading the CTC head alone: the best path, and a beam of prefixes.

Shapes: B utterances, T frames, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
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
    """

    tokens: tuple[int, ...]
    score: float


def ctc_greedy(
    log_probs: Tensor, lens: Tensor, *, blank: int, allowed: Tensor | None = None
) -> list[CTCHypothesis]:
    """The best path: the likeliest symbol of each frame, repeats and blanks removed.

    Args:
        log_probs: (B, T, V).
        lens: (B,) true numbers of frames.
        blank: token id of the blank, always allowed.
        allowed: tokens that may come out, bool (V,).

    >>> x = torch.tensor([[0, 1, 1, 0, 1, 2]])  # the argmax of each frame
    >>> log_probs = torch.nn.functional.one_hot(x, 3).float().log_softmax(-1)
    >>> ctc_greedy(log_probs, torch.tensor([6]), blank=0)[0].tokens
    (1, 1, 2)
    """
    log_probs = _masked(log_probs, blank, allowed)
    best, ids = log_probs.max(dim=-1)
    return [
        CTCHypothesis(_collapsed(path[:n], blank), float(scores[:n].sum()))
        for path, scores, n in zip(
            ids.tolist(), best.double().cpu(), lens.tolist(), strict=True
        )
    ]


def _collapsed(path: Sequence[int], blank: int) -> tuple[int, ...]:
    return tuple(token for token, _ in groupby(path) if token != blank)


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
        allowed: tokens that may come out, bool (V,).

    Returns:
        For each utterance its hypotheses, best first.

    Source: Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech
    Recognition using Bi-Directional Recurrent DNNs", algorithm 1, without a word list.
    """
    log_probs = _masked(log_probs, blank, allowed)
    n_tokens = min(tokens_per_frame, log_probs.size(-1))
    best, ids = log_probs.topk(n_tokens, dim=-1)
    blanks = log_probs[..., blank].double().cpu().numpy()
    best, ids = best.double().cpu().numpy(), ids.cpu().numpy()
    # the longest first, so that those under way are the first rows
    lens = np.asarray(lens.tolist())
    order = np.argsort(-lens, kind="stable")
    beams = _PrefixBeams(len(order), beam_size, blank)
    for t in range(int(lens.max(initial=0))):
        going = order[: np.count_nonzero(lens > t)]
        beams.read(blanks[going, t], ids[going, t], best[going, t])
    found = dict(zip(order.tolist(), beams.hypotheses(), strict=True))
    return [found[b] for b in range(len(order))]


class _PrefixBeams:
    """The prefixes of B utterances, K or fewer each, read frame by frame.

    A prefix has a number of its own, made once for each (parent, token), so that equal
    prefixes have equal numbers. Sums and ties are those of a walk over the prefixes,
    best first, and over the tokens of each.
    """

    def __init__(self, n_utts: int, beam_size: int, blank: int):
        shape = (n_utts, beam_size)
        self._blank = blank
        self._is_used = np.zeros(shape, bool)
        self._node, self._parent, self._token = np.full((3, *shape), -1)
        self._by_blank, self._by_token = np.full((2, *shape), _NEVER)
        # the empty prefix, number 0 of each
        self._is_used[:, 0], self._node[:, 0], self._by_blank[:, 0] = True, 0, 0.0
        self._spelt: list[list[tuple[int, int]]] = [[(-1, -1)] for _ in range(n_utts)]
        self._numbers: list[dict[tuple[int, int], int]] = [{} for _ in range(n_utts)]

    def read(self, blanks: np.ndarray, ids: np.ndarray, values: np.ndarray) -> None:
        """Go on by one frame of the first n utterances.

        Args:
            blanks: (n,) log-probability of the blank.
            ids: (n, S) tokens that may extend a prefix, without repetition.
            values: (n, S) their log-probabilities.
        """
        n, n_beams = len(ids), self._node.shape[1]
        by_blank, by_token = self._by_blank[:n], self._by_token[:n]
        token, is_used = self._token[:n], self._is_used[:n]
        total = np.logaddexp(by_blank, by_token)
        may_come = (ids != self._blank) & (values > _NEVER)
        is_again = (ids[:, None] == token[..., None]) & may_come[:, None]
        value = values[:, None]
        # slot 0 of a prefix is itself; slot 1 + s is the longer one with token s
        again = np.where(is_again, by_token[..., None] + value, _NEVER).max(-1)
        source = np.where(is_again, by_blank[..., None], total[..., None])
        longer = source + value
        there = np.empty((n, n_beams, 1 + ids.shape[1]), bool)
        there[..., 0] = is_used
        there[..., 1:] = is_used[..., None] & may_come[:, None]
        same_as = np.full(there.shape, -1)
        same_as[..., 0] = np.arange(n_beams)
        still = total + blanks[:, None]
        self._merge(ids, may_come, longer, again, there, same_as)
        sums = np.concatenate([np.empty((n, n_beams, 1)), longer], axis=-1)
        own = np.logaddexp(still, again)
        row = np.arange(n)[:, None, None]
        sums = np.where(same_as >= 0, own[row, same_as], sums)
        # NaN comes last, behind what is there with no probability
        key = np.where(there, -sums, np.nan).reshape(n, -1)
        best = np.argsort(key, axis=-1, kind="stable")[:, :n_beams]
        self._choose(best, there, same_as, ids, longer, still, again)

    def _merge(self, ids, may_come, longer, again, there, same_as) -> None:
        """Let a longer prefix that is in the beam already be one with that one."""
        n = len(ids)
        node, parent = self._node[:n], self._parent[:n]
        is_parent = (node[..., None] == parent[:, None]) & self._is_used[:n, None]
        utt, k, j = np.nonzero(is_parent & self._is_used[:n, :, None])
        hit = (ids[utt] == self._token[utt, j][:, None]) & may_come[utt]
        is_hit = hit.any(-1)
        utt, k, j, s = (x[is_hit] for x in (utt, k, j, hit.argmax(-1)))
        again[utt, j] = np.logaddexp(again[utt, j], longer[utt, k, s])
        # it stands where the walk comes upon it first
        comes_before = k < j
        there[utt, k, 1 + s] = comes_before
        same_as[utt, k, 1 + s] = j
        there[utt, j, 0] = ~comes_before

    def _choose(self, best, there, same_as, ids, longer, still, again) -> None:
        n, _, n_slots = there.shape
        row = np.arange(n)[:, None]
        k, slot = best // n_slots, best % n_slots
        is_used = there[row, k, slot]
        own = same_as[row, k, slot]
        is_new = own < 0
        s = slot - 1

        def pick(old: np.ndarray, new) -> np.ndarray:
            return np.where(is_new, new, old[row, own])

        node = pick(self._node[:n], -1)
        parent = pick(self._parent[:n], self._node[row, k])
        token = pick(self._token[:n], ids[row, s])
        by_blank = pick(still, _NEVER)
        by_token = pick(again, longer[row, k, s])
        for b, i in zip(*np.nonzero(is_new & is_used), strict=True):
            spelt, numbers = self._spelt[b], self._numbers[b]
            key = (int(parent[b, i]), int(token[b, i]))
            node[b, i] = number = numbers.setdefault(key, len(spelt))
            if number == len(spelt):
                spelt.append(key)
        for name, x in (("is_used", is_used), ("node", node), ("parent", parent),
                        ("token", token), ("by_blank", by_blank),
                        ("by_token", by_token)):  # fmt: skip
            getattr(self, f"_{name}")[:n] = x

    def hypotheses(self) -> list[list[CTCHypothesis]]:
        totals = np.logaddexp(self._by_blank, self._by_token)
        return [
            [
                CTCHypothesis(self._spell(b, k), float(totals[b, k]))
                for k in np.flatnonzero(is_used)
            ]
            for b, is_used in enumerate(self._is_used)
        ]

    def _spell(self, b: int, k: int) -> tuple[int, ...]:
        tokens = []
        node = int(self._node[b, k])
        while node > 0:
            node, token = self._spelt[b][node]
            tokens.append(token)
        return tuple(reversed(tokens))


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


def _masked(log_probs: Tensor, blank: int, allowed: Tensor | None) -> Tensor:
    if allowed is None:
        return log_probs
    n_tokens = log_probs.size(-1)
    if allowed.dtype != torch.bool or allowed.shape != (n_tokens,):
        raise ValueError(
            f"allowed: {allowed.dtype} of shape {tuple(allowed.shape)}; expected bool "
            f"of shape ({n_tokens},), one value a token"
        )
    barred = ~allowed.to(log_probs.device)
    barred[blank] = False
    return log_probs.masked_fill(barred, _NEVER)
