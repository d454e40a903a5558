"""Checkpoints to resume from: a kill in the middle of writing loses nothing."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from powsm.train.checkpoints import (
    AtomicCheckpointIO,
    ResumableCheckpoint,
    newest_checkpoint,
    remove_broken_off,
)
from powsm.train.memory import TrainingError

KILLED = """
import os, signal, sys
from powsm.train.checkpoints import AtomicCheckpointIO

class Killer:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)

big = [bytes(1000)] * 100
AtomicCheckpointIO().save_checkpoint({"a": big, "b": Killer()}, sys.argv[1])
"""


def test_kill_while_writing_leaves_the_checkpoint_before(tmp_path):
    folder = tmp_path / "checkpoints"
    whole = folder / "step000000002.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(2)}, whole)
    broken = str(folder / "step000000004.ckpt")
    done = subprocess.run([sys.executable, "-c", KILLED, broken])
    assert done.returncode == -9
    assert newest_checkpoint(tmp_path) == whole
    assert torch.equal(torch.load(whole)["a"], torch.ones(2))
    assert len(list(folder.iterdir())) == 2  # what was begun stands beside it
    remove_broken_off(tmp_path)
    assert list(folder.iterdir()) == [whole]


def test_nothing_is_written_outside_of_the_folder(tmp_path, monkeypatch):
    """The system's temporary folder may be another disk: a move from it is a copy."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    path = tmp_path / "checkpoints/step000000001.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)
    assert torch.load(path) == {"a": 1}


def test_newest_is_the_one_with_the_most_updates(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for step in (2, 10, 9):
        path = tmp_path / f"checkpoints/step{step:09d}.ckpt"
        AtomicCheckpointIO().save_checkpoint({}, path)
    assert newest_checkpoint(tmp_path).name == "step000000010.ckpt"


def test_ranks_that_find_different_checkpoints_are_refused(tmp_path, monkeypatch):
    """As on machines that do not share the folder of the experiment."""
    of_the_other = torch.tensor([0])

    def all_gather(told, mine):
        told[0].copy_(mine)
        told[1].copy_(of_the_other)

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(world_size=2, strategy=strategy)
    saver = ResumableCheckpoint(dirpath=tmp_path)
    saver.on_fit_start(trainer, None)  # both begin
    saver.on_load_checkpoint(trainer, None, {"global_step": 6})
    with pytest.raises(TrainingError, match=r"\(rank 0 at 6, rank 1 at 0\); put the"):
        saver.on_fit_start(trainer, None)
    of_the_other.fill_(6)
    saver.on_fit_start(trainer, None)
    trainer.world_size = 1
    saver.on_fit_start(trainer, None)
