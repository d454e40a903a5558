"""Updates without a finite gradient: skipped, their utterances named, and bounded."""

import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from forked import run_ranks
from tiny_model import SETTINGS, make_args, make_corpus

from powsm.cli.main import main
from powsm.model.s2t import PowsmModel
from powsm.train import lit as litmodel
from powsm.train.lit import LitPowsm
from powsm.train.memory import TrainingError
from powsm.train.run import train

ROOT = Path(__file__).parents[2]
CHANGES = {"max_epoch": 1, "num_iters_per_epoch": 3, "ctc_only_updates": 0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def run(corpus: Path, exp: Path, **changes) -> dict[str, torch.Tensor]:
    args = make_args(corpus / "tokens", exp, **(CHANGES | changes))
    folders = {"train_folder": corpus / "dump/train"}
    train(args, **folders, valid_folder=corpus / "dump/dev", exp=exp)
    return torch.load(exp / "1epoch.pth", weights_only=True)


def spoil(monkeypatch, which, finite_loss=False):
    """Make the gradient of some batches NaN; gives the utterances of each batch."""
    batches = []
    step, forward = LitPowsm.training_step, PowsmModel.forward

    def recorded(self, batch, batch_idx):
        batches.append(list(batch.utt_ids))
        return step(self, batch, batch_idx)

    def spoiled(self, *args, **kwargs):
        loss, stats, weight = forward(self, *args, **kwargs)
        if self.training and len(batches) - 1 in which:
            if finite_loss:
                loss.register_hook(lambda grad: grad * torch.nan)
            else:
                loss = loss * torch.nan
                stats["loss"] = loss.detach()
        return loss, stats, weight

    monkeypatch.setattr(LitPowsm, "training_step", recorded)
    monkeypatch.setattr(PowsmModel, "forward", spoiled)
    return batches


def named(text: str) -> list[str]:
    return re.findall(r"update skipped.*utterances: (.*)", text)


@pytest.mark.parametrize("bad", [2, 3])
def test_update_is_skipped_and_the_batch_at_fault_named(
    corpus, tmp_path, monkeypatch, caplog, bad
):
    """Either batch of the second update of three: the first and third are done."""
    sgd = {"optim": "sgd", "optim_conf": {"lr": 0.01}}
    batches = spoil(monkeypatch, {bad})
    found = run(corpus, tmp_path, **sgd)
    assert named(caplog.text) == [" ".join(batches[bad])]
    assert "rank 0, step 1: gradient norm nan, update skipped (1 in a row)" in (
        caplog.text
    )
    assert len(batches) == 6
    assert all(torch.isfinite(value).all() for value in found.values())


def test_all_of_the_update_is_named_where_no_loss_is_at_fault(
    corpus, tmp_path, monkeypatch, caplog
):
    batches = spoil(monkeypatch, {2}, finite_loss=True)
    run(corpus, tmp_path)
    assert named(caplog.text) == [" ".join(batches[2] + batches[3])]


def test_skipped_update_changes_nothing(corpus, tmp_path, monkeypatch):
    """The weights after updates 1 and a skipped 2 are those after update 1."""
    spoil(monkeypatch, {2})
    two = run(corpus, tmp_path / "two", num_iters_per_epoch=2)
    one = run(corpus, tmp_path / "one", num_iters_per_epoch=1)
    assert all(torch.equal(two[key], one[key]) for key in one)


def test_training_stops_after_many_in_a_row(corpus, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(litmodel, "MAX_BAD_STEPS", 2)
    batches = spoil(monkeypatch, {0, 4, 5, 6, 8, 10})  # one, none, then three in a row
    with pytest.raises(TrainingError, match="2 updates in a row had no finite"):
        run(corpus, tmp_path, num_iters_per_epoch=6)
    assert len(batches) == 8
    assert [len(n.split()) for n in named(caplog.text)] == [
        len(batches[0]),
        len(batches[4] + batches[5]),
        len(batches[6]),
    ]


def train_spoiled(arguments: list[str], had: Path) -> None:
    """The loss of the second rank is NaN in the first update."""
    forward, step = PowsmModel.forward, LitPowsm.training_step
    seen, is_second = [], os.environ["RANK"] == "1"

    def spoiled(self, *args, **kwargs):
        loss, stats, weight = forward(self, *args, **kwargs)
        if self.training and len(seen) == 1 and is_second:
            loss = loss * torch.nan
            stats["loss"] = loss.detach()
        return loss, stats, weight

    def recorded(self, batch, batch_idx):
        seen.append(batch.utt_ids)
        if len(seen) == 1 and is_second:
            had.write_text(" ".join(batch.utt_ids))
        return step(self, batch, batch_idx)

    PowsmModel.forward, LitPowsm.training_step = spoiled, recorded
    main(arguments)


def test_the_rank_at_fault_names_its_own(corpus, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | CHANGES))
    arguments = [
        *("train", "--config", str(config)),
        *("--dump", str(corpus / "dump"), "--exp", str(tmp_path / "exp")),
        *("--token_dir", str(corpus / "tokens")),
    ]
    printed = run_ranks(2, train_spoiled, arguments, tmp_path / "had", folder=tmp_path)
    had = (tmp_path / "had").read_text()
    skipped = [line for line in printed.splitlines() if "update skipped" in line]
    assert len(skipped) == 1
    assert "rank 1, step 0: gradient norm nan" in skipped[0]
    assert skipped[0].endswith(f"utterances: {had}")
