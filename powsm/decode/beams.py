"""The state of a batched beam search: running hypotheses, and finished ones.

Shapes: B utterances, H hypotheses each (1 at first, then the beam size), S candidate
tokens a hypothesis, L tokens so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

END_STEPS = 3  # so many steps in a row must end badly before the search stops
END_MARGIN = -10.0  # nats below the best hypothesis: badly

_NEVER = float("-inf")


@dataclass(frozen=True)
class Hypothesis:
    """A finished output.

    Attributes:
        tokens: token ids after the prompt, without `<eos>`.
        score: weighted sum of `scores` plus penalties; that of `<eos>` is in it unless
            the length limit cut the hypothesis.
        scores: unweighted sum over the tokens by scorer, "decoder" and "ctc".
    """

    tokens: tuple[int, ...]
    score: float
    scores: dict[str, float]


@dataclass
class Beams:
    """The running hypotheses of a batch; a total of -inf marks an empty place."""

    tokens: Tensor  # (B, H, L) after the prompt
    parents: Tensor  # (B, H) which hypothesis of the last step each one extends
    total: Tensor  # (B, H)
    sums: dict[str, Tensor]  # scorer -> (B, H)
    ctc_gains: Tensor | None = None  # (B, H) what CTC gave the last token

    @classmethod
    def start(cls, n_utts: int, device: torch.device) -> "Beams":
        return cls(
            tokens=torch.zeros(n_utts, 1, 0, dtype=torch.long, device=device),
            parents=torch.zeros(n_utts, 1, dtype=torch.long, device=device),
            total=torch.zeros(n_utts, 1, dtype=torch.float64, device=device),
            sums={},
        )

    def select(
        self, ids: Tensor, total: Tensor, gains: dict[str, Tensor], n_hyps: int
    ) -> "Beams":
        """The best `n_hyps` of all candidates (B, H, S) of each utterance."""
        n_candidates = ids.size(-1)
        flat = total.flatten(1)
        best, places = flat.topk(min(n_hyps, flat.size(1)))
        parents = places // n_candidates
        new = ids.flatten(1).gather(1, places).unsqueeze(-1)
        old = self.tokens.gather(
            1, parents.unsqueeze(-1).expand(-1, -1, self.tokens.size(-1))
        )
        gains = {name: x.flatten(1).gather(1, places) for name, x in gains.items()}
        sums = {
            name: gain + self.sums[name].gather(1, parents) if self.sums else gain
            for name, gain in gains.items()
        }
        tokens = torch.cat([old, new], dim=-1)
        return Beams(tokens, parents, best, sums, gains.get("ctc"))

    def keep(self, utterances: Tensor) -> None:
        self.tokens = self.tokens[utterances]
        self.parents = self.parents[utterances]
        self.total = self.total[utterances]
        self.sums = {name: x[utterances] for name, x in self.sums.items()}
        if self.ctc_gains is not None:
            self.ctc_gains = self.ctc_gains[utterances]


class Reading:
    """What the host knows of the running hypotheses, step by step.

    One transfer a step brings it: a GPU that is asked for one number at a time is
    waited for each time.

    Attributes:
        last: (B, H) last tokens, as lists.
        parents: (B, H) which hypothesis of the last step each one extends.
        total: (B, H).
    """

    def __init__(self, n_utts: int):
        # a hypothesis is (the one that it extends, its last token)
        self._nodes: list[list[tuple | None]] = [[None] for _ in range(n_utts)]

    def read(self, beams: Beams) -> None:
        """Take over what a step has chosen."""
        floats = [
            x.double().view(torch.long) for x in (beams.total, *beams.sums.values())
        ]
        told = torch.stack([beams.tokens[..., -1], beams.parents, *floats]).cpu()
        self.last, self.parents = told[:2].tolist()
        self.total, *sums = told[2:].view(torch.float64).tolist()
        self._sums = dict(zip(beams.sums, sums, strict=True))
        self._nodes = [
            [(nodes[parent], token) for parent, token in zip(*rows, strict=True)]
            for nodes, *rows in zip(self._nodes, self.parents, self.last, strict=True)
        ]

    def keep(self, utterances: Sequence[int]) -> None:
        """Forget all utterances but these, of which the next step says the rest."""
        self.parents = [self.parents[b] for b in utterances]
        self._nodes = [self._nodes[b] for b in utterances]

    def hypothesis(self, b: int, k: int, eos: int) -> Hypothesis:
        tokens = []
        node = self._nodes[b][k]
        while node is not None:
            node, token = node
            tokens.append(token)
        if tokens[0] == eos:
            del tokens[0]
        scores = {name: rows[b][k] for name, rows in self._sums.items()}
        return Hypothesis(tuple(reversed(tokens)), self.total[b][k], scores)


class Output:
    """What one utterance has produced, and whether to search on.

    Args:
        maxlen: step at which every hypothesis is cut.
        minlen: hypotheses that end before this step are thrown away.
        n_prompt: tokens of the prompt.
        detects_end: stop once the last steps ended badly.
    """

    def __init__(self, maxlen: int, minlen: int, n_prompt: int, *, detects_end: bool):
        self.maxlen, self.minlen = maxlen, minlen
        self.is_done = False
        self._n_prompt = n_prompt
        self._detects_end = detects_end
        self._ended: list[Hypothesis] = []
        self._lengths: list[int] = []  # with <eos>, or the token that was cut after
        self._best_at: dict[int, float] = {}  # step -> best score that ended there

    def add(self, step: int, hyp: Hypothesis) -> None:
        self._ended.append(hyp)
        self._lengths.append(step + 1)
        self._best_at[step] = max(hyp.score, self._best_at.get(step, _NEVER))

    def finish_step(self, step: int, *, n_alive: int) -> None:
        self.is_done = n_alive == 0 or (self._detects_end and self._is_hopeless(step))

    def _is_hopeless(self, step: int) -> bool:
        """End detection: equation 50 of Watanabe et al. 2017, as ESPnet counts steps.

        The hypotheses looked at ended two to four steps ago.
        """
        best = max(self._best_at.values(), default=_NEVER)
        return all(
            self._best_at.get(step - 2 - m, best) - best < END_MARGIN
            for m in range(END_STEPS)
        )

    def best(self, n: int, *, normalize_length: bool) -> list[Hypothesis]:
        """The n best, by score per token if `normalize_length`."""
        pairs = list(zip(self._ended, self._lengths, strict=True))
        if normalize_length:
            # ESPnet counts prompt and <eos>, but not the first token
            pairs.sort(key=lambda p: -p[0].score / (self._n_prompt + p[1] - 1))
        else:
            pairs.sort(key=lambda p: -p[0].score)
        return [hyp for hyp, _ in pairs[:n]]
