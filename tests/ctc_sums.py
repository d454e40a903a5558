"""Small CTC outputs, and the sum over every possible path through them."""

from collections import defaultdict
from itertools import product

import torch

BLANK, EOS = 0, 3
LABELS = (1, 2)


def random_log_probs(seed, n_utts=2, n_frames=5, n_tokens=4):
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(n_utts, n_frames, n_tokens, generator=generator)
    scores[..., EOS] = -30  # CTC heads never emit <eos>
    return scores.log_softmax(-1)


def collapse(path):
    """Remove repeats, then blanks."""
    new = [s for s, before in zip(path, (BLANK, *path), strict=False) if s != before]
    return tuple(s for s in new if s != BLANK)


def all_outputs(log_probs):
    """(T, V) -> {output: probability}, by adding up all V**T paths."""
    probs = log_probs.double().exp()
    outputs = defaultdict(float)
    for path in product(range(probs.size(1)), repeat=len(probs)):
        p = 1.0
        for t, symbol in enumerate(path):
            p *= float(probs[t, symbol])
        outputs[collapse(path)] += p
    return outputs
