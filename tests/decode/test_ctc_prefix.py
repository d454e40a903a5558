"""CTC prefix scores against sums over every possible path."""

from itertools import product

import pytest
import torch
from ctc_sums import BLANK, EOS, LABELS, all_outputs, random_log_probs

from powsm.decode import ctc_prefix
from powsm.decode.ctc_prefix import LOG_ZERO, HeadColumns, PrefixScorer, Table
from powsm.model.ctc_heads import PhoneLinear


def prefix_prob(outputs, prefix):
    return sum(p for out, p in outputs.items() if out[: len(prefix)] == prefix)


@pytest.mark.parametrize("whole_vocabulary", [False, True])
def test_prefix_scorer_equals_sum_over_paths(whole_vocabulary):
    log_probs = random_log_probs(0)
    lens = torch.tensor([5, 4])  # the second utterance is padded
    outputs = [all_outputs(x[:n]) for x, n in zip(log_probs, lens, strict=True)]
    scorer = PrefixScorer(Table(log_probs), lens, blank=BLANK, eos=EOS)
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
    table = Table(random_log_probs(1, 1, 2))
    scorer = PrefixScorer(table, torch.tensor([2]), blank=BLANK, eos=EOS)
    zero = torch.zeros(1, 1, dtype=torch.long)
    for token in (1, 2):
        ids = torch.tensor([[[token]]])
        scorer.advance(zero, ids[0], scorer.score(ids)[..., 0])
    assert scorer.score(torch.tensor([[[1, 2]]])).max() < LOG_ZERO / 2


def test_prefix_scorer_of_a_single_frame():
    """It says one label, or nothing."""
    log_probs = random_log_probs(3, 1, 1)
    scorer = PrefixScorer(Table(log_probs), torch.tensor([1]), blank=BLANK, eos=EOS)
    expected = log_probs[0, 0].double()
    expected[[EOS, BLANK]] = torch.tensor([expected[BLANK], -torch.inf]).double()
    for gains in (scorer.score(torch.arange(4).view(1, 1, 4)), scorer.score_all()):
        assert torch.allclose(gains[0, 0], expected)
    one = torch.tensor([[1]])
    scorer.advance(torch.zeros(1, 1, dtype=torch.long), one, gains[..., 1])
    for gains in (scorer.score(torch.tensor([[[1, 2]]])), scorer.score_all()[..., 1:3]):
        assert gains.max() < LOG_ZERO / 2


def test_prefix_scorer_keep_forgets_the_other_utterances():
    log_probs, lens = random_log_probs(2, 3), torch.tensor([5, 3, 4])
    ids = torch.tensor([1, 2, EOS]).expand(3, 1, 3)
    whole = PrefixScorer(Table(log_probs), lens, blank=BLANK, eos=EOS)
    part = PrefixScorer(Table(log_probs), lens, blank=BLANK, eos=EOS)
    for scorer in (whole, part):
        gains = scorer.score(ids)[..., 0]
        scorer.advance(torch.zeros(3, 1, dtype=torch.long), ids[..., 0], gains)
    part.keep(torch.tensor([1, 2]))
    assert torch.allclose(part.score(ids[1:]), whole.score(ids)[1:])
    assert torch.allclose(part.score_all(), whole.score_all()[1:], atol=1e-5)


@pytest.mark.parametrize("of_phones", [False, True])
def test_columns_of_a_head_are_those_of_its_table(of_phones, monkeypatch):
    monkeypatch.setattr(ctc_prefix, "_CELLS", 20)  # some frames at a time
    tokens = ["<blank>", "<unk>", "a", "/p/", "▁", "/t/", "<eos>"]
    torch.manual_seed(0)
    head = PhoneLinear(8, tokens) if of_phones else torch.nn.Linear(8, len(tokens))
    memory = torch.randn(3, 5, 8)
    with torch.no_grad():
        log_probs = head(memory).log_softmax(-1)
        if of_phones:  # a text of the decoder begins with ▁, which has no row
            log_probs = head.of_text(log_probs)
            assert torch.equal(log_probs[..., 4], log_probs[..., 1])
        table = Table(log_probs)
        columns = HeadColumns(head, memory)
        ids = torch.randint(0, len(tokens), (3, 2, 4))
        for rows in (torch.arange(3), torch.tensor([2, 0])):
            got, expected = columns.columns(ids[rows], 4), table.columns(ids[rows], 4)
            assert got.shape == (len(rows), 2, 4, 4) and got.dtype == torch.float64
            assert torch.allclose(got, expected, atol=2e-3 if of_phones else 1e-6)
            if len(rows) == 3:
                columns.keep(torch.tensor([2, 0]))
                table.keep(torch.tensor([2, 0]))
    assert torch.equal(HeadColumns(head, memory).best_path(), head(memory).argmax(-1))
