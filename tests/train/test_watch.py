"""Training that is told to stop or hangs: saved and gone on with, or shown where."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import torch
import yaml
from tiny_model import SETTINGS, make_args, make_corpus

from powsm.cli.main import main
from powsm.train import checkpoints
from powsm.train.checkpoints import (
    ResumableCheckpoint,
    StoppedBySignal,
    newest_checkpoint,
)
from powsm.train.dataset import UtteranceDataset
from powsm.train.lit import LitPowsm
from powsm.train.progress import Watchdog
from powsm.train.run import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = make_corpus(tmp_path_factory.mktemp("corpus"))
    endless = SETTINGS | {"num_iters_per_epoch": 100_000, "log_interval": 1}
    endless |= {"num_workers": 1, "checkpoint_every_n_updates": 100_000}
    (root / "train.yaml").write_text(yaml.safe_dump(endless))
    return root


def run(corpus: Path, exp: Path) -> dict[str, torch.Tensor]:
    """Train two epochs of three updates, or what is left of them."""
    args = make_args(corpus / "tokens", exp, checkpoint_every_n_updates=1000)
    folders = {"train_folder": corpus / "dump/train"}
    train(args, **folders, valid_folder=corpus / "dump/dev", exp=exp)
    return torch.load(exp / "2epoch.pth", weights_only=True)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("exp"))


@pytest.mark.parametrize(
    ("number", "batch", "saved_at"),
    [
        (signal.SIGTERM, (0, 2), 2),  # first of the two batches of update 2
        (signal.SIGUSR1, (0, 5), 3),  # last batch of an epoch: after validation
        (signal.SIGUSR2, (1, 3), 5),
        (signal.SIGTERM, (1, 5), 6),  # nothing is left to train
        (signal.SIGINT, (0, 3), 2),  # Ctrl-C
        (signal.SIGHUP, (1, 2), 5),  # the terminal was closed
    ],
)
def test_signal_saves_and_training_goes_on_exactly(
    corpus, undisturbed, tmp_path, monkeypatch, number, batch, saved_at
):
    original = LitPowsm.on_train_batch_start

    def with_signal(module, data, batch_idx):
        if (module.current_epoch, batch_idx) == batch:
            os.kill(os.getpid(), number)
        original(module, data, batch_idx)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(LitPowsm, "on_train_batch_start", with_signal)
        message = f"{number.name}: saved at update {saved_at} in "
        with pytest.raises(StoppedBySignal, match=message):
            run(corpus, tmp_path)
    assert signal.getsignal(number) == before
    assert newest_checkpoint(tmp_path).stem == f"step{saved_at:09d}"
    weights = run(corpus, tmp_path)
    assert all(torch.equal(weights[key], undisturbed[key]) for key in undisturbed)


def command(corpus: Path, exp: Path) -> list[str]:
    """Stage 11 with a loading process a rank."""
    return [
        *("train", "--config", str(corpus / "train.yaml"), "--exp", str(exp)),
        *("--dump", str(corpus / "dump"), "--token_dir", str(corpus / "tokens")),
    ]


def await_training(printed: Path, group: int, is_alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while "update 2/" not in printed.read_text():
        if not is_alive() or time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            raise AssertionError(printed.read_text()[-3000:])
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_whole_process_group_spares_the_loading_process(
    corpus, tmp_path, number
):
    """As Slurm sends it to every process of a job, and a terminal at Ctrl-C."""
    printed = tmp_path / "printed"
    printed.touch()
    process = forked.start(main, command(corpus, tmp_path), output=printed)
    await_training(printed, process.pid, process.is_alive)
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == os.EX_TEMPFAIL
    assert f"{number.name}: saved at update " in printed.read_text()
    assert newest_checkpoint(tmp_path) is not None


def test_signal_to_one_of_two_ranks_stops_both(corpus, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc_per_node", "2", "-m", "powsm.cli.main"]
    arguments = [*torchrun, *command(corpus, tmp_path)]
    with open(tmp_path / "stderr", "w") as log:
        process = subprocess.Popen(arguments, stderr=log, start_new_session=True)
    await_training(tmp_path / "stderr", process.pid, lambda: process.poll() is None)
    listing = ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)]
    children = subprocess.run(listing, capture_output=True, text=True, check=True)
    ranks = [line for line in children.stdout.splitlines() if " train " in line]
    assert len(ranks) == 2
    os.kill(int(ranks[-1].split()[0]), signal.SIGUSR1)
    assert process.wait(60) != 0
    assert newest_checkpoint(tmp_path) is not None


def test_signal_ends_a_wait_for_data(corpus, tmp_path, monkeypatch):
    """No update comes to an end; what was saved before is named."""
    read = UtteranceDataset.__getitem__

    def hang(dataset, key):
        while "train" in str(dataset.index.folder) and (tmp_path / "hang").exists():
            time.sleep(0.1)
        return read(dataset, key)

    def save_and_hang(callback, *args):
        saves(callback, *args)
        (tmp_path / "hang").touch()
        os.kill(os.getpid(), signal.SIGTERM)

    saves = ResumableCheckpoint._save_checkpoint
    monkeypatch.setattr(UtteranceDataset, "__getitem__", hang)
    monkeypatch.setattr(ResumableCheckpoint, "_save_checkpoint", save_and_hang)
    monkeypatch.setattr(ResumableCheckpoint, "_stop", lambda callback, trainer: None)
    monkeypatch.setattr(checkpoints, "LONGEST_WAIT_S", 0.4)
    args = make_args(
        *(corpus / "tokens", tmp_path),
        num_workers=1,
        checkpoint_every_n_updates=1,
        num_iters_per_epoch=1000,
    )
    folders = {"train_folder": corpus / "dump/train"}
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(StoppedBySignal, match="SIGTERM: no data came for") as stop:
        train(args, **folders, valid_folder=corpus / "dump/dev", exp=tmp_path)
    (tmp_path / "hang").unlink()  # or the loading process outlives this one
    assert f"goes on from {newest_checkpoint(tmp_path)}" in str(stop.value)
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_stalled_rank_prints_its_stack_with_rank_and_host(capfd):
    def wait_for_the_disk():
        time.sleep(1.5)

    dog = Watchdog(stall_s=0.3)
    dog.setup(SimpleNamespace(global_rank=3), None, "fit")
    for _ in range(5):
        time.sleep(0.1)
        dog._beat()
    before = capfd.readouterr().err
    wait_for_the_disk()
    dog.teardown(None, None, "fit")
    after = capfd.readouterr().err
    assert "nothing moved" not in before
    assert after.startswith(f"rank 3 on host {os.uname().nodename}: nothing moved for")
    assert "in wait_for_the_disk" in after


def test_watchdog_takes_every_step_as_a_sign_of_life():
    dog = Watchdog()
    for name in (
        "on_train_batch_end",
        "on_validation_batch_end",
        "on_validation_end",
        "on_save_checkpoint",
    ):
        dog._last = 0.0
        getattr(dog, name)(None, None)
        assert dog._last > 0.0, name


@pytest.mark.parametrize(
    ("end", "why"),
    [("teardown", {"stage": "fit"}), ("on_exception", {"exception": OSError()})],
)
def test_watchdog_ends_with_the_run_however_that_ends(end, why):
    dog, before = Watchdog(), set(threading.enumerate())
    dog.setup(SimpleNamespace(global_rank=0), None, "fit")
    (thread,) = set(threading.enumerate()) - before
    getattr(dog, end)(None, None, **why)
    thread.join(30)
    assert not thread.is_alive()
