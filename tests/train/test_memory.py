"""A batch that does not fit: halves that add up to the same step, or a clear error."""

import logging
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from dump_builder import make_dump
from forked import run_ranks
from tiny_model import make_args, make_tokens

from powsm.model.s2t import PowsmModel
from powsm.train import memory
from powsm.train.batches.options import BatchOptions
from powsm.train.dataset import collate
from powsm.train.lit import LitPowsm
from powsm.train.memory import TrainingError, UpdateInParts
from powsm.train.run import train

ROOT = Path(__file__).parents[2]
# plain gradient descent: unlike Adam's, its step shows the scale of the gradients
CHANGES = {
    "max_epoch": 1,
    "num_iters_per_epoch": 2,
    "optim": "sgd",
    "optim_conf": {"lr": 0.01},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    # of one length: where padding differs, ESPnet's convolutions see it, in any batch
    make_dump(root / "dump/train", [0.8] * 8, seed=1)
    make_dump(root / "dump/dev", [0.6, 0.9], seed=2)
    make_tokens(root / "dump/train", root / "tokens")
    return root


def run(corpus: Path, exp: Path, **changes) -> dict[str, torch.Tensor]:
    args = make_args(corpus / "tokens", exp, **(CHANGES | changes))
    train(
        args,
        train_folder=corpus / "dump/train",
        valid_folder=corpus / "dump/dev",
        exp=exp,
    )
    return torch.load(exp / "1epoch.pth", weights_only=True)


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory):
    """Weights of a training that always had enough memory."""
    return run(corpus, tmp_path_factory.mktemp("exp"))


def assert_close(found, expected):
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def small_memory(monkeypatch, fits):
    """The model runs out of memory in its forward pass unless `fits(speech)`."""
    forward = PowsmModel.forward
    sizes = []

    def limited(self, speech, *args, **kwargs):
        if self.training and not fits(speech):
            raise torch.OutOfMemoryError("injected")
        sizes.append(len(speech))
        return forward(self, speech, *args, **kwargs)

    monkeypatch.setattr(PowsmModel, "forward", limited)
    return sizes


def test_halves_hold_the_rows_of_the_batch():
    def item(name, samples, *lengths):
        examples = [
            {
                "text": np.arange(n) + 10 * n,
                "text_prev": np.arange(n),
                "text_ctc": np.arange(samples),
            }
            for n in lengths
        ]
        return {
            "utt_id": name,
            "example_ids": [f"{name}_{t}" for t in ("asr", "pr")[: len(lengths)]],
            "speech": np.ones(samples, np.float32),
            "examples": examples,
        }

    items = [item("a", 4, 2, 3), item("b", 5, 6), item("c", 3, 1, 4)]
    first, second = collate(items).halves()
    for part, these in ((first, items[:2]), (second, items[2:])):
        expected = collate(these)
        assert part.utt_ids == expected.utt_ids
        tensors = expected.tensors()
        assert part.tensors().keys() == tensors.keys()
        for key in tensors:
            assert torch.equal(getattr(part, key), tensors[key]), key


@pytest.mark.parametrize("most", [2, 1])
def test_forward_out_of_memory_gives_the_same_step(
    corpus, expected, tmp_path, monkeypatch, caplog, most
):
    """Where the second batch of an update adds to the gradients of the first."""
    sizes = small_memory(monkeypatch, lambda speech: len(speech) <= most)
    found = run(corpus, tmp_path)
    assert_close(found, expected)
    assert "out of memory at batch 0: taken in 2 parts" in caplog.text
    assert max(sizes[:-2]) == most  # the last two are validation


def test_statistics_of_parts_are_those_of_the_batch(corpus, tmp_path, monkeypatch):
    """Where a task has examples in one part and none in the other."""
    (tmp_path / "tokens").symlink_to(corpus / "tokens")
    make_dump(tmp_path / "dump/train", [0.8] * 8, no_text=(0, 2, 3, 5, 6))
    make_dump(tmp_path / "dump/dev", [0.6], seed=2)
    logged = []

    def note(self, figures, **options):
        losses = {k: float(v) for k, v in figures.items() if "loss" in k}
        logged.append(losses)

    monkeypatch.setattr(LitPowsm, "log_dict", note)
    frozen = {"optim_conf": {"lr": 0.0}}
    run(tmp_path, tmp_path / "whole", **frozen)
    expected, logged[:] = list(logged), []
    small_memory(monkeypatch, lambda speech: len(speech) <= 1)
    run(tmp_path, tmp_path / "parts", **frozen)
    assert any("train/loss_g2p" in figures for figures in expected)
    for found, whole in zip(logged, expected, strict=True):
        assert found == pytest.approx(whole, rel=1e-4)


def test_what_did_not_fit_goes_back_without_autocast(corpus, tmp_path, monkeypatch):
    """As all backward passes do; Lightning calls the step inside of it."""
    backward = torch.Tensor.backward
    states = []

    def note(self, *args, **options):
        states.append(torch.is_autocast_enabled("cpu"))
        return backward(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "backward", note)
    small_memory(monkeypatch, lambda speech: len(speech) <= 2)
    run(corpus, tmp_path, use_amp=True)
    assert states and not any(states)


def test_backward_out_of_memory_gives_the_same_step(
    corpus, expected, tmp_path, monkeypatch, caplog
):
    """The decoder has its gradient already when the encoder runs out."""
    forward = PowsmModel.forward
    state = {"armed": False, "failed": 0}

    def fail_once(grad):
        if state["armed"]:
            state["armed"] = False
            state["failed"] += 1
            raise torch.OutOfMemoryError("injected")

    def watched(self, speech, *args, **kwargs):
        weight = next(self.encoder.parameters())
        if self.training and not hasattr(self, "_hooked"):
            self._hooked = weight.register_hook(fail_once)
        # each second batch of an update fails, when there are gradients of the first
        state["armed"] = self.training and len(speech) > 1 and weight.grad is not None
        return forward(self, speech, *args, **kwargs)

    monkeypatch.setattr(PowsmModel, "forward", watched)
    found = run(corpus, tmp_path)
    assert state["failed"] >= 2
    assert_close(found, expected)
    assert "out of memory at batch 1: taken in 2 parts" in caplog.text


class Kept(torch.autograd.Function):
    """Stands for the activations of a loss, and runs out of memory going back."""

    @staticmethod
    def forward(ctx, x, activations):
        ctx.activations = activations
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise torch.OutOfMemoryError("injected")


def test_activations_are_gone_when_the_update_is_done_again(
    corpus, tmp_path, monkeypatch
):
    """What did not fit must not take up the memory of what is to fit."""
    forward, do_again = PowsmModel.forward, UpdateInParts.do_again
    kept = []

    def large(self, speech, *args, **kwargs):
        loss, stats, weight = forward(self, speech, *args, **kwargs)
        if self.training and len(speech) > 1:
            activations = {"a"}  # a set can be referred to weakly
            kept.append(weakref.ref(activations))
            loss = Kept.apply(loss, activations)
        return loss, stats, weight

    def watched(self):
        assert kept and kept[-1]() is None
        return do_again(self)

    monkeypatch.setattr(PowsmModel, "forward", large)
    monkeypatch.setattr(UpdateInParts, "do_again", watched)
    run(corpus, tmp_path)


def test_single_recording_that_does_not_fit_is_named(corpus, tmp_path, monkeypatch):
    small_memory(monkeypatch, lambda speech: False)
    with pytest.raises(
        TrainingError, match=r"one recording, tiny_u000\d_...: 0.8 s and 4 examples"
    ):
        run(corpus, tmp_path)


AUTO = {"batch_seconds": "auto", "update_seconds": 6}
# the two batches of 3 s that an update of the other settings has
PLANNED = {"batch_conf": AUTO | {"update_batches": 2}}

# where the second of two ranks runs out of memory, and the settings of its training
FAULTS = {
    "forward": ("forward", CHANGES),
    "backward": ("backward", CHANGES),
    "planned": ("forward", CHANGES | PLANNED),
}


def train_limited(root: Path, exp: Path, where: str, changes: dict) -> None:
    """What a rank runs: the second one runs out of memory, forward or going back."""
    rank, forward = os.environ["RANK"], PowsmModel.forward

    def fail_going_back(weight):
        def fail(grad):
            handle.remove()
            raise torch.OutOfMemoryError("injected")

        handle = weight.register_hook(fail)

    def limited(self, speech, *args, **kwargs):
        if self.training and len(speech) > 1 and rank == "1":
            if where == "forward":
                raise torch.OutOfMemoryError("injected")
            fail_going_back(next(self.encoder.parameters()))
        return forward(self, speech, *args, **kwargs)

    PowsmModel.forward = limited
    logging.getLogger().addHandler(logging.StreamHandler())
    (exp / rank).mkdir()
    folders = {"train_folder": root / "dump/train", "valid_folder": root / "dump/dev"}
    train(make_args(root / "tokens", exp / rank, **changes), exp=exp, **folders)


@pytest.mark.parametrize("name", FAULTS)
def test_one_of_two_ranks_runs_out_of_memory(corpus, tmp_path, expected, name):
    """Ranks still exchange gradients, and end with the weights of one rank alone."""
    exp = tmp_path / "exp"
    exp.mkdir()
    logged = run_ranks(2, train_limited, corpus, exp, *FAULTS[name], folder=tmp_path)
    # a rank that finds its parts at the start never runs out of memory again
    assert ("taken in 2 parts" in logged) == (name != "planned")
    found = torch.load(exp / "1epoch.pth", weights_only=True)
    assert_close(found, expected)


@pytest.fixture(scope="module")
def spread(tmp_path_factory, corpus):
    """Recordings of two lengths: batches of 3 s hold three of 0.9 s or seven of 0.4 s.

    Each batch has recordings of one length alone, so that parts see the same padding.
    """
    root = tmp_path_factory.mktemp("spread")
    make_dump(root / "dump/train", [0.9] * 6 + [0.4] * 14, seed=1)
    make_dump(root / "dump/dev", [0.6, 0.9], seed=2)
    (root / "tokens").symlink_to(corpus / "tokens")
    return root


def batches_of(monkeypatch):
    """Recordings of every batch that is trained on, in their order."""
    hold, held = UpdateInParts.hold, []

    def noted(self, batch, *args):
        held.append(batch.utt_ids)
        hold(self, batch, *args)

    monkeypatch.setattr(UpdateInParts, "hold", noted)
    return held


def test_auto_takes_each_range_of_lengths_in_the_parts_that_fit(
    spread, tmp_path, monkeypatch, caplog
):
    """The same batches and weights as with any memory; short ones stay whole."""
    held = batches_of(monkeypatch)
    expected = run(spread, tmp_path / "enough", **PLANNED)
    whole, held[:] = list(held), []
    sizes = []

    def fits(speech):  # seven of 0.4 s take less than three of 0.9 s
        sizes.append(speech.shape)
        return len(speech) * speech.size(1) ** 2 <= 2 * 14_400**2

    small_memory(monkeypatch, fits)
    caplog.set_level("INFO", logger="powsm")
    found = run(spread, tmp_path / "small", **PLANNED)
    assert "auto is 3.0 s, 2 batches an update" in caplog.text
    assert "up to 0.4 s: 1, 0.9 s: 2" in caplog.text
    assert "out of memory" not in caplog.text  # the training itself had enough
    assert held == whole and len(held) == 4
    assert (7, 6_400) in sizes and (3, 14_400) in sizes and (2, 14_400) in sizes
    assert_close(found, expected)


def test_statistics_of_planned_parts_are_those_of_the_batch(
    spread, tmp_path, monkeypatch
):
    logged = []

    def note(self, figures, **options):
        logged.append({k: float(v) for k, v in figures.items() if "loss" in k})

    monkeypatch.setattr(LitPowsm, "log_dict", note)
    frozen = PLANNED | {"optim_conf": {"lr": 0.0}}
    run(spread, tmp_path / "whole", **frozen)
    expected, logged[:] = list(logged), []
    small_memory(monkeypatch, lambda speech: len(speech) <= 2)
    run(spread, tmp_path / "parts", **frozen)
    for found, whole in zip(logged, expected, strict=True):
        assert found == pytest.approx(whole, rel=1e-4)


def test_a_part_that_does_not_fit_after_all_is_taken_in_smaller_ones(
    spread, tmp_path, monkeypatch, caplog
):
    expected = run(spread, tmp_path / "enough", **PLANNED)
    monkeypatch.setattr(memory, "_fewest_parts", lambda *_: 2)
    small_memory(monkeypatch, lambda speech: len(speech) <= 2)
    found = run(spread, tmp_path / "small", **PLANNED)
    assert "taken in 3 parts" in caplog.text
    assert_close(found, expected)


def test_auto_tries_the_hardest_batches_of_every_range(corpus, tmp_path, monkeypatch):
    """The longest, the fullest and the one with most text, languages drawn anew."""
    make_dump(
        tmp_path / "dump/train",
        [0.4] * 8 + [0.8] * 8,
        no_text=tuple(i for i in range(16) if i not in (3, 13)),
    )
    make_dump(tmp_path / "dump/dev", [0.6], seed=2)
    tried = []
    fit = memory._fit

    def recorded(trainer, module, batches, n_parts):
        tried.append({utt_id[:10] for batch in batches for utt_id in batch.utt_ids})
        return fit(trainer, module, batches, n_parts)

    monkeypatch.setattr(memory, "_fit", recorded)
    (tmp_path / "tokens").symlink_to(corpus / "tokens")
    run(tmp_path, tmp_path / "exp", batch_conf=AUTO | {"update_seconds": 0.8})
    assert len(tried) == 2
    assert "tiny_u0003" in tried[0] and "tiny_u0013" in tried[1]
    assert max(tried[0]) < "tiny_u0008" <= min(tried[1])
    tried.clear()
    langs = AUTO | {"update_seconds": 0.8, "language_temperature": 2.0}
    run(tmp_path, tmp_path / "langs", batch_conf=langs)
    assert tried


def test_auto_of_another_number_of_ranks_goes_on(corpus, tmp_path, monkeypatch, caplog):
    """More memory, or another card, later: nothing that was found is kept."""
    small_memory(monkeypatch, lambda speech: len(speech) <= 2)
    run(corpus, tmp_path, batch_conf=AUTO)
    monkeypatch.undo()
    caplog.set_level("INFO", logger="powsm")
    run(corpus, tmp_path, batch_conf=AUTO, max_epoch=2)
    assert "up to 0.8 s: 1" in caplog.text
    assert (tmp_path / "2epoch.pth").exists()


def test_auto_names_a_recording_that_does_not_fit(corpus, tmp_path, monkeypatch):
    small_memory(monkeypatch, lambda speech: False)
    with pytest.raises(TrainingError, match="one recording, tiny_u.*: 0.8 s and 4 ex"):
        run(corpus, tmp_path, batch_conf=AUTO)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"batch_seconds": "auto"}, "auto needs it"),
        ({"batch_seconds": 3, "update_seconds": 6}, "a number excludes it"),
        ({"batch_seconds": "most"}, "expected a number or auto"),
        ({"language_temperature": 0}, "expected more than 0"),
    ],
)
def test_batch_options_that_make_no_sense(conf, message):
    with pytest.raises(ValueError, match=message):
        BatchOptions(**conf)
