"""The best path and the prefix beam against sums over every possible path."""

import math

import pytest
import torch
from ctc_sums import BLANK, all_outputs, random_log_probs
from hypothesis import given, settings
from hypothesis import strategies as st
from prefix_beam import prefix_beam

from powsm.decode.ctc_paths import ctc_greedy, ctc_prefix_beam


def test_greedy_one_frame_utterance_and_padding():
    path = torch.tensor([[2, 1, 1], [1, 1, 0]])
    log_probs = torch.nn.functional.one_hot(path, 4).double().log_softmax(-1)
    first, second = ctc_greedy(log_probs, torch.tensor([1, 3]), blank=BLANK)
    assert (first.tokens, second.tokens) == ((2,), (1,))
    # each frame's best symbol has e / (e + 3)
    assert second.score == pytest.approx(3 * (1 - math.log(math.e + 3)))


@pytest.mark.parametrize("only", [1, 2])
def test_greedy_bars_tokens_that_are_not_allowed(only):
    path = torch.tensor([[1, 2, 2]])
    log_probs = torch.nn.functional.one_hot(path, 4).float().log_softmax(-1)
    allowed = torch.arange(4) == only
    (hyp,) = ctc_greedy(log_probs, torch.tensor([3]), blank=BLANK, allowed=allowed)
    # where the inventory lacks the likeliest phone, any of the others may win the tie
    # with the blank; the barred one never comes
    assert set(hyp.tokens) == {only}


def test_the_blank_is_always_allowed():
    log_probs = torch.nn.functional.one_hot(torch.tensor([[1, BLANK, 1]]), 4).float()
    how = {"blank": BLANK, "allowed": torch.arange(4) == 1}
    sure = (9 * log_probs).log_softmax(-1), torch.tensor([3])
    assert ctc_greedy(*sure, **how)[0].tokens == (1, 1)
    assert ctc_prefix_beam(*sure, **how)[0][0].tokens == (1, 1)


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


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    lens=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    n_tokens=st.integers(2, 6),
    beam_size=st.integers(1, 8),
    per_frame=st.integers(1, 6),
    steps=st.sampled_from([2, 4, 1000]),
)
def test_prefix_beams_of_a_batch_are_those_one_by_one(
    seed, lens, n_tokens, beam_size, per_frame, steps
):
    """To the last bit, ties included: few different scores make many of them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lens), max(*lens, 1), n_tokens)
    log_probs = -torch.randint(1, steps + 1, shape, generator=generator) / 2
    is_never = torch.rand(shape, generator=generator) < 0.1
    log_probs = log_probs.masked_fill(is_never, float("-inf"))
    how = {"beam_size": beam_size, "tokens_per_frame": per_frame}
    found = ctc_prefix_beam(log_probs, torch.tensor(lens), blank=BLANK, **how)
    values, ids = log_probs.topk(min(per_frame, n_tokens), dim=-1)
    for b, n in enumerate(lens):
        rows = (x[b, :n].tolist() for x in (log_probs[..., BLANK], ids, values))
        assert found[b] == prefix_beam(*rows, BLANK, beam_size)
