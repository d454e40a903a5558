"""Speed and time left, and a bar on a terminal only."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from dump_builder import make_dump
from powsm_command import POWSM, run_verb
from tiny_model import SETTINGS, make_tokens

from powsm.train.progress import Bar, Clock

ROOT = Path(__file__).parents[2]


def batches(clock, monkeypatch, ends, audio_s=6.0, n_examples=4):
    """Let batches end at these seconds of the clock."""
    trainer = SimpleNamespace(
        global_step=0,
        num_training_batches=99,
        accumulate_grad_batches=1000,
        estimated_stepping_batches=100,
        world_size=2,
        callback_metrics={"train/loss": 1.5},
    )
    module = SimpleNamespace(
        audio_seconds=audio_s, n_examples=n_examples, train_stats={}
    )
    for end in ends:
        monkeypatch.setattr("time.monotonic", lambda end=end: end)
        clock.on_train_batch_end(trainer, module, None, None, 0)
    return trainer, module


def test_speed_is_that_of_the_recent_batches(monkeypatch):
    clock = Clock(1)
    assert clock.speed() == (0.0, 0.0)
    # a slow start of 1,000 s is forgotten after 50 batches of 3 s
    batches(clock, monkeypatch, [0, 1000, *range(1003, 1153, 3)])
    assert clock.speed() == pytest.approx((6 / 3, 4 / 3))


def test_bar_shows_all_ranks_and_the_time_to_the_end(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    clock = Clock(1)
    trainer, module = batches(clock, monkeypatch, [1.0, 3.0])
    trainer.global_step = 25  # a quarter in 3 s
    assert Bar(clock).get_metrics(trainer, module) == {
        "loss": "1.50",
        "examples/s": "4.0",  # two ranks of 4 in 2 s
        "audio": "0.00167 h/s",  # two ranks of 6 s in 2 s
        "left": "0:00:09",
    }


def test_line_gives_the_mean_over_the_examples_since_the_last(caplog):
    caplog.set_level("INFO")
    clock = Clock(2)
    trainer = SimpleNamespace(
        global_step=0,
        num_training_batches=99,
        accumulate_grad_batches=1,
        estimated_stepping_batches=4,
        callback_metrics={"train/grad_norm": torch.tensor(5.0)},
    )
    ctc_alone = [(1, {"loss": 7.0, "loss_att": None}), (3, {"loss": 3.0})]
    together = [(2, {"loss": 4.0, "loss_att": 1.0}), (2, {"loss": 6.0, "loss_att": 2})]
    for batch_idx, (n_examples, stats) in enumerate(ctc_alone + together):
        trainer.global_step += 1
        module = SimpleNamespace(
            audio_seconds=6.0, n_examples=n_examples, train_stats=stats
        )
        clock.on_train_batch_end(trainer, module, None, None, batch_idx)
    first, second = (record.getMessage() for record in caplog.records)
    assert "update 2/4: loss=4.000 grad_norm=5.000," in first  # (7 + 3 * 3) / 4
    assert "update 4/4: loss=5.000 loss_att=1.500 grad_norm=5.000," in second


def test_bar_appears_on_a_terminal_and_nowhere_else(tmp_path, capfd):
    make_dump(tmp_path / "dump/train", [0.6, 0.8, 1.0, 0.7, 0.9, 1.1], seed=1)
    make_dump(tmp_path / "dump/dev", [0.6], seed=2)
    make_tokens(tmp_path / "dump/train", tmp_path / "tokens")
    config = tmp_path / "train.yaml"
    config.write_text(
        yaml.safe_dump(SETTINGS | {"max_epoch": 1, "num_iters_per_epoch": 4})
    )

    def command(exp):
        return [
            *("train", "--config", str(config)),
            *("--dump", str(tmp_path / "dump"), "--exp", str(tmp_path / exp)),
            *("--token_dir", str(tmp_path / "tokens")),
        ]

    master, slave = pty.openpty()
    rows_and_columns = struct.pack("HHHH", 40, 200, 0, 0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, rows_and_columns)
    process = subprocess.Popen(
        [*POWSM, *command("watched")], stdout=slave, stderr=subprocess.PIPE
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        seen += data
    process.communicate()
    assert process.returncode == 0
    assert re.search(
        rb"examples/s=\d+\.\d, audio=[\d.e-]+ h/s, left=\d+:\d\d:\d\d", seen
    )

    run_verb(*command("file"))  # where pytest collects what is printed
    out, err = capfd.readouterr()
    assert "examples/s=" not in out + err and "%|" not in out + err
    assert (tmp_path / "file/1epoch.pth").exists()
