"""Every example weighs the same: in an update, and over a pass by its duration."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from dump_builder import make_dump
from forked import run_ranks
from tiny_model import make_args, make_tokens

from powsm.audio import SAMPLE_RATE
from powsm.model.build import task_of_model
from powsm.model.s2t import PowsmModel
from powsm.prepare.index import ExampleIndex
from powsm.settings import load_with_base
from powsm.train import loader
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.plan import plan_pass
from powsm.train.dataset import UtteranceDataset, collate, text_encoder
from powsm.train.lit import LitPowsm
from powsm.train.run import train

ROOT = Path(__file__).parents[2]
# The longest of an update: 16 utterances of one length (where padding differs, ESPnet's
# convolutions see it, in any batch) are five batches of three and one of one; those
# without text have one example, the others four.
CORPUS = {"durations": [0.8] * 16, "no_text": (0, 2, 3, 7, 8, 9, 14)}
CHANGES = {
    "batch_conf": {"batch_seconds": 2.4, "update_batches": 6},
    "optim": "sgd",
    "optim_conf": {"lr": 1.0},  # the step is the gradient
    "grad_clip": 0.0,
    "num_iters_per_epoch": 1,
    "max_epoch": 1,
    "model_conf": {
        "ctc_weight": 0.3,
        "lsm_weight": 0.1,
        "guided_attention_weight": 2.0,
    },
    "keep_nbest_models": 1,
}


def update(root: Path, exp: Path, most: int, short: bool, changes: dict) -> None:
    """What a rank runs: an update in float64, and a note of all that went into it."""
    rank, taken, logged = os.environ["RANK"], [], {}
    torch.set_default_dtype(torch.float64)
    task = task_of_model("powsm")
    build, forward = task.build_model.__func__, PowsmModel.forward
    start, whole = LitPowsm.on_train_batch_start, loader.UtteranceLoader.__len__

    def exact(self, speech, **tensors):
        if self.training and len(speech) > most:
            raise torch.OutOfMemoryError("injected")
        return forward(self, speech=speech.double(), **tensors)

    def begin(self):
        if rank == "0":
            torch.save(self.model.state_dict(), exp / "before.pth")

    def note(self, batch, *args):
        taken.extend(batch.utt_ids)
        start(self, batch, *args)

    def log(self, figures, **options):
        logged.update({k: float(v) for k, v in figures.items()})

    def length(self):  # short: the epoch ends before its last update is whole
        return whole(self) - (short and self.batches_per_update > 1)

    task.build_model = classmethod(lambda cls, args: build(cls, args).double())
    LitPowsm.on_train_batch_start, LitPowsm.on_fit_start = note, begin
    LitPowsm.log_dict, PowsmModel.forward = log, exact
    loader.UtteranceLoader.__len__ = length
    (exp / rank).mkdir()
    folders = {f"{k}_folder": root / "dump" / k for k in ("train", "valid")}
    train(make_args(root / "tokens", exp / rank, **changes), exp=exp, **folders)
    (exp / f"told.{rank}").write_text(json.dumps([taken, logged]))


WHOLE, HALVED = 100, 1  # most recordings that fit into memory
CASES = {
    "whole": (WHOLE, False, CHANGES),
    "halved_and_short": (HALVED, True, CHANGES),
    "ctc_alone_and_short": (WHOLE, True, CHANGES | {"ctc_only_updates": 9}),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    make_dump(root / "dump/train", CORPUS["durations"], no_text=CORPUS["no_text"])
    make_dump(root / "dump/valid", [0.6], seed=2)
    make_tokens(root / "dump/train", root / "tokens")
    return root


def one_batch(corpus, tmp_path, utt_ids, weights, changes):
    """Gradient and statistics of all those utterances in one batch."""
    args = make_args(corpus / "tokens", tmp_path, **changes)
    index = ExampleIndex(corpus / "dump/train")
    dataset = UtteranceDataset(index, text_encoder(args))
    number = {index.utt_id(utt): utt for utt in range(len(index))}
    tensors = collate([dataset[(number[utt_id], 0, 0)] for utt_id in utt_ids]).tensors()
    torch.set_default_dtype(torch.float64)
    try:
        model = task_of_model("powsm").build_model(args).double()
        model.load_state_dict(weights)
        if args.ctc_only_updates:
            model.ctc_weight = 1.0
        tensors["speech"] = tensors["speech"].double()
        loss, stats, n_examples = model(**tensors)
        loss.backward()
    finally:
        torch.set_default_dtype(torch.float32)
    return dict(model.named_parameters()), stats, n_examples


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_update_is_one_batch_of_all_its_examples(corpus, tmp_path, case, ranks):
    most, short, changes = CASES[case]
    exp = tmp_path / "exp"
    exp.mkdir()
    run_ranks(ranks, update, corpus, exp, most, short, changes, folder=tmp_path)
    files = [(exp / f"told.{rank}").read_text() for rank in range(ranks)]
    told = [figures for _, figures in map(json.loads, files)]
    taken = sorted(utt_id for ids, _ in map(json.loads, files) for utt_id in ids)
    assert len(taken) == 16 if not short else 3 * (6 - ranks) - 2 <= len(taken) < 16
    before, after = (
        torch.load(exp / name, weights_only=True)
        for name in ("before.pth", "1epoch.pth")
    )
    gradient = {key: before[key] - after[key] for key in before}
    parameters, stats, n = one_batch(corpus, tmp_path, taken, before, changes)
    without_text = sum(int(utt_id[6:10]) in CORPUS["no_text"] for utt_id in taken)
    assert n == 4 * len(taken) - 3 * without_text
    moved = 0
    largest = max(p.grad.abs().max() for p in parameters.values() if p.grad is not None)
    for name, p in parameters.items():
        if p.grad is None:
            assert not gradient[name].any(), name
            continue
        error = (gradient[name] - p.grad).norm()
        # what is zero but for rounding, such as the bias of keys, by the whole's size
        assert error <= 1e-6 * p.grad.norm() + 1e-12 * largest, name
        moved += 1
    assert moved > 20
    for figures in told:  # the same on every rank
        for name in ("loss", "loss_ctc", "loss_att", "loss_guide", "loss_pr"):
            if name in stats:
                expected = pytest.approx(float(stats[name]), rel=1e-6)
                assert figures[f"train/{name}"] == expected, name


def ipapack_durations(n: int) -> np.ndarray:
    """Seconds with mean 7.4, deviation 4.4, quartiles 4.2, 5.7, 8.7, from 1 to 24."""
    shares = [0, 0.02, 0.25, 0.5, 0.75, 0.94, 0.99, 1]
    seconds = [1, 2, 4.2, 5.7, 8.7, 16.5, 19, 24]
    return np.interp((np.arange(n) + 0.5) / n, shares, seconds)


def class_weights(durations: np.ndarray, options: BatchOptions) -> dict:
    """Weight of an utterance over a pass, by duration, relative to the mean.

    An update is a mean over its utterances: each weighs one over their number.
    """
    samples = (durations * SAMPLE_RATE).astype(np.int64)
    plan = plan_pass(samples, options, 0)
    counts = np.diff(plan.bounds)
    updates = plan.order.reshape(-1, options.update_batches)
    of_batch = np.zeros(counts.size)
    of_batch[updates] = 1 / counts[updates].sum(1, keepdims=True)
    weights = np.zeros(durations.size)
    weights[plan.utts] = np.repeat(of_batch, counts)
    taken = weights > 0
    edges = [1, 2, 4, 6, 8, 12, 16, 20, 24.01]
    return {
        f"{low}-{high:.0f} s": weights[
            taken & (durations >= low) & (durations < high)
        ].mean()
        / weights[taken].mean()
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    }


def test_utterances_weigh_the_same_whatever_their_duration():
    """200,000 of IPAPack++'s shape with the fast configuration: it was 0.27 to 2.6."""
    durations = ipapack_durations(200_000)
    assert durations.mean() == pytest.approx(7.4, abs=0.15)
    assert durations.std() == pytest.approx(4.4, abs=0.25)
    conf = load_with_base(ROOT / "conf/train_powsm_fast.yaml")
    options = BatchOptions(**conf["batch_conf"], seed=conf["seed"]).shared_by(1)
    for name, weight in class_weights(durations, options).items():
        assert weight == pytest.approx(1, abs=0.01), name


@pytest.mark.parametrize(
    ("seconds", "batches"), [(134, 4), (89, 6), (34, 16), (17, 32)]
)
def test_as_many_batches_an_update_as_ranks_may_want(seconds, batches):
    durations = np.random.default_rng(1).permutation(ipapack_durations(20_000))
    options = BatchOptions(
        batch_seconds=max(seconds, 24.1), update_batches=batches, window_share=0.05
    )
    for name, weight in class_weights(durations, options).items():
        assert weight == pytest.approx(1, abs=0.02), name


def test_updates_hold_equally_many_utterances_and_cost_no_more_batches():
    samples = (ipapack_durations(50_000) * SAMPLE_RATE).astype(np.int64)
    options = BatchOptions(batch_seconds=67, update_batches=8)
    plan = plan_pass(samples, options, 0)
    counts = np.diff(plan.bounds)[plan.order].reshape(-1, 8).sum(1)
    assert counts.max() - counts.min() <= 3
    single = plan_pass(samples, BatchOptions(batch_seconds=67), 0)
    assert plan.bounds.size <= 1.02 * single.bounds.size
