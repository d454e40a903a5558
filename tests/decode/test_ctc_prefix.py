"""CTC prefix scores and decoders against sums over every possible path."""

import math
from collections import defaultdict
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.decode.ctc_prefix import (
    LOG_ZERO,
    PrefixScorer,
    ctc_greedy,
    ctc_prefix_beam,
)

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


def prefix_prob(outputs, prefix):
    return sum(p for out, p in outputs.items() if out[: len(prefix)] == prefix)


@pytest.mark.parametrize("whole_vocabulary", [False, True])
def test_prefix_scorer_equals_sum_over_paths(whole_vocabulary):
    log_probs = random_log_probs(0)
    lens = torch.tensor([5, 4])  # the second utterance is padded
    outputs = [all_outputs(x[:n]) for x, n in zip(log_probs, lens, strict=True)]
    scorer = PrefixScorer(log_probs, lens, blank=BLANK, eos=EOS)
    prefixes = [[()], [()]]  # per utterance, per hypothesis
    # two hypotheses: 1 2 2 (a repetition) and 2 1 1 in one utterance, crossed over in
    # the other, so that parents, repeats and order all matter
    plan = [
        ([[0, 0], [0, 0]], [[1, 2], [2, 1]]),
        ([[0, 1], [1, 0]], [[2, 1], [2, 2]]),
        ([[0, 1], [0, 1]], [[2, 1], [2, 1]]),
    ]
    for parents, tokens in [*plan, (None, None)]:
        n_hyps = len(prefixes[0])
        ids = torch.tensor([1, 2, BLANK, EOS]).expand(2, n_hyps, 4)
        if whole_vocabulary:
            gains = scorer.score_all().gather(-1, ids)
        else:
            gains = scorer.score(ids)
        for b, k in product(range(2), range(n_hyps)):
            prefix = prefixes[b][k]
            p = prefix_prob(outputs[b], prefix) if prefix else 1.0
            for column, label in enumerate(LABELS):
                if p == 0:
                    continue
                expected = prefix_prob(outputs[b], (*prefix, label)) / p
                got = float(gains[b, k, column].exp())
                assert got == pytest.approx(expected, rel=1e-4, abs=1e-12)
            assert gains[b, k, 2] < LOG_ZERO / 2
            end = outputs[b].get(prefix, 0.0) / p
            assert float(gains[b, k, 3].exp()) == pytest.approx(end, rel=1e-4)
        if parents is None:
            break
        parents, tokens = torch.tensor(parents), torch.tensor(tokens)
        chosen = gains.gather(1, parents.unsqueeze(-1).expand(-1, -1, 4))
        chosen = chosen.gather(-1, (tokens - 1).unsqueeze(-1)).squeeze(-1)
        scorer.advance(parents, tokens, chosen)
        prefixes = [
            [(*prefixes[b][parents[b, k]], int(tokens[b, k])) for k in range(2)]
            for b in range(2)
        ]


def test_prefix_scorer_more_labels_than_frames_is_impossible():
    scorer = PrefixScorer(
        random_log_probs(1, 1, 2), torch.tensor([2]), blank=BLANK, eos=EOS
    )
    zero = torch.zeros(1, 1, dtype=torch.long)
    for token in (1, 2):
        ids = torch.tensor([[[token]]])
        scorer.advance(zero, ids[0], scorer.score(ids)[..., 0])
    assert scorer.score(torch.tensor([[[1, 2]]])).max() < LOG_ZERO / 2


def test_prefix_scorer_keep_forgets_the_other_utterances():
    log_probs, lens = random_log_probs(2, 3), torch.tensor([5, 3, 4])
    ids = torch.tensor([1, 2, EOS]).expand(3, 1, 3)
    whole = PrefixScorer(log_probs, lens, blank=BLANK, eos=EOS)
    part = PrefixScorer(log_probs, lens, blank=BLANK, eos=EOS)
    for scorer in (whole, part):
        gains = scorer.score(ids)[..., 0]
        scorer.advance(torch.zeros(3, 1, dtype=torch.long), ids[..., 0], gains)
    part.keep(torch.tensor([1, 2]))
    assert torch.allclose(part.score(ids[1:]), whole.score(ids)[1:])
    assert torch.allclose(part.score_all(), whole.score_all()[1:], atol=1e-5)


def test_greedy_one_frame_utterance_and_padding():
    path = torch.tensor([[2, 1, 1], [1, 1, 0]])
    log_probs = torch.nn.functional.one_hot(path, 4).double().log_softmax(-1)
    first, second = ctc_greedy(log_probs, torch.tensor([1, 3]), blank=BLANK)
    assert (first.tokens, first.spans) == ((2,), ((0, 1),))
    assert (second.tokens, second.spans) == ((1,), ((0, 2),))
    # each frame's best symbol has e / (e + 3)
    assert second.score == pytest.approx(3 * (1 - math.log(math.e + 3)))


def test_greedy_allowed_tokens_may_differ_by_utterance():
    path = torch.tensor([[1, 2, 2], [1, 2, 2]])
    log_probs = torch.nn.functional.one_hot(path, 4).float().log_softmax(-1)
    allowed = torch.tensor([[False, False, True, False], [False, True, False, False]])
    hyps = ctc_greedy(log_probs, torch.tensor([3, 3]), blank=BLANK, allowed=allowed)
    # where the inventory lacks the likeliest phone, any of the others may win the tie
    # with the blank; the barred one never comes
    assert [set(h.tokens) for h in hyps] == [{2}, {1}]


def test_allowed_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"allowed: .*expected bool of shape \(4,\)"):
        ctc_greedy(
            random_log_probs(0),
            torch.tensor([5, 5]),
            blank=BLANK,
            allowed=torch.ones(3, dtype=torch.bool),
        )


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), n_frames=st.integers(1, 5))
def test_prefix_beam_wide_enough_equals_sum_over_paths(seed, n_frames):
    log_probs = random_log_probs(seed, 1, n_frames)
    expected = all_outputs(log_probs[0])
    (hyps,) = ctc_prefix_beam(
        log_probs, torch.tensor([n_frames]), blank=BLANK, beam_size=1000
    )
    assert sum(math.exp(h.score) for h in hyps) == pytest.approx(1, abs=1e-4)
    for hyp in hyps[:5]:
        assert math.exp(hyp.score) == pytest.approx(
            expected[hyp.tokens], rel=1e-4, abs=1e-12
        )
    assert hyps[0].score == max(h.score for h in hyps)


def test_prefix_beam_finds_what_greedy_misses():
    # blank is likelier than "1" in both frames (0.6 > 0.4), but the three paths
    # that read "1" have 0.64 together
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    lens = torch.tensor([2])
    assert ctc_greedy(log_probs, lens, blank=BLANK)[0].tokens == ()
    best = ctc_prefix_beam(log_probs, lens, blank=BLANK, beam_size=2)[0][0]
    assert best.tokens == (1,)
    assert best.score == pytest.approx(math.log(0.64), abs=1e-6)


def test_prefix_beam_allowed_bars_the_rest():
    allowed = torch.tensor([False, True, False, False])
    hyps = ctc_prefix_beam(
        random_log_probs(3), torch.tensor([5, 4]), blank=BLANK, allowed=allowed
    )
    assert all(set(h.tokens) <= {1} for utterance in hyps for h in utterance)
