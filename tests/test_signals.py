"""Signals reach the work: what run.sh started is told, waited for, and gone."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from powsm_command import POWSM

ROOT = Path(__file__).parents[1]
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]

DRIVER = """#!/usr/bin/env bash
set -euo pipefail
stage=1 stop_stage=2 skip_stages= dry_run=false
. scripts/common.sh
in_stage 1 "sleep"
run_stage . -- {command}
in_stage 2 "never"
run_stage . -- touch never
"""

# a stage with a worker that asks for more than a signal; each notes its pid
STAGE = """
import os, subprocess, sys, time
from powsm.cli.run import run_command

def run(options):
    worker = subprocess.Popen(["bash", "-c", "trap '' INT; sleep 100"])
    with open("pids.new", "w") as file:
        file.write(f"{os.getpid()} {worker.pid}")
    os.rename("pids.new", "pids")
    time.sleep(100)

run_command("powsm sleep", "", lambda parser: None, run, [])
"""

RANK = """
import os, time
import torch.distributed as dist
from powsm.cli.run import run_command

def run(options):
    dist.init_process_group("gloo")
    dist.barrier()
    file = "pids" + os.environ["RANK"]
    with open(file + ".new", "w") as out:
        out.write(str(os.getpid()))
    os.rename(file + ".new", file)
    time.sleep(100)

run_command("powsm sleep", "", lambda parser: None, run, [])
"""


def start(folder: Path, command: list[object], *before: str) -> subprocess.Popen:
    (folder / "scripts").symlink_to(ROOT / "scripts")
    driver = folder / "driver.sh"
    driver.write_text(DRIVER.format(command=shlex.join(map(str, command))))
    return subprocess.Popen(
        [*before, "bash", str(driver)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def await_pids(process: subprocess.Popen, *files: Path) -> list[int]:
    deadline = time.monotonic() + 120
    while not all(file.exists() for file in files):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return [int(pid) for file in files for pid in file.read_text().split()]


def assert_gone(pids: list[int]) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_a_stage_and_its_workers(tmp_path, number):
    process = start(tmp_path, [sys.executable, "-c", STAGE])
    pids = await_pids(process, tmp_path / "pids")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert_gone(pids)
    by = "" if number == signal.SIGINT else f" by {number.name}"
    assert f"\npowsm sleep: interrupted{by}\n" in stderr
    assert f"stopped by {number.name}" in stderr and "stage 1 failed" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "never").exists()


def test_lost_terminal_leaves_a_run_that_nohup_started(tmp_path):
    process = start(tmp_path, ["bash", "-c", "echo $$ >pids; sleep 2"], "nohup")
    await_pids(process, tmp_path / "pids")
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    assert (tmp_path / "never").exists()


def without_a_name() -> list[str]:
    """Before a command: run it on a machine whose own name resolves nowhere."""
    words = ["unshare", "--uts", "bash", "-c", 'hostname no.such.host; exec "$@"', "-"]
    allowed = subprocess.run([*words, "true"], capture_output=True).returncode == 0
    return words if allowed else []


def test_signal_ends_two_ranks_on_a_host_without_a_name(tmp_path):
    (tmp_path / "rank.py").write_text(RANK)
    command = [*POWSM, "ranks", "--n", 2, "--", sys.executable, "rank.py"]
    process = start(tmp_path, command, *without_a_name())
    pids = await_pids(process, tmp_path / "pids0", tmp_path / "pids1")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert_gone(pids)
    assert stderr.count("interrupted") == 1 and "Traceback" not in stderr


def test_ranks_end_with_the_status_of_the_first_that_fails(tmp_path):
    program = "import os, sys, time; time.sleep(60 * int(os.environ['RANK']))"
    program = f"{program}; sys.exit(75)"
    done = subprocess.run(
        [*POWSM, "ranks", "--n", "2", "--", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 75 and "Traceback" not in done.stderr
