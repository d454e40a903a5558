"""Jobs on a cluster without one: resources, commands, logs. tests/recipe has Slurm."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from powsm_command import POWSM
from submitit.core.job_environment import SignalHandler

from powsm.cli.submit import filled
from powsm.cluster import slurm
from powsm.cluster.resources import ClusterError, Resources, load_resources
from powsm.cluster.slurm import Command, last_line, log_of_first_failure

ROOT = Path(__file__).parents[2]
FULL = "all: {time_min: 60, cpus: 2, mem_gb: 4}\n"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("conf/cluster/*.yaml")), ids=lambda p: p.stem
)
def test_shipped_resources_are_complete(path):
    assert list(load_resources(path)) == [1, 4, 11, 12]


def test_stage_overrides_all(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(FULL + "stages:\n  11: {gpus: 4, nodes: 2, time_min: 1440}\n")
    resources = load_resources(path)
    assert resources[1] == Resources(time_min=60, cpus=2, mem_gb=4)
    assert resources[11] == Resources(time_min=1440, cpus=2, mem_gb=4, gpus=4, nodes=2)
    assert resources[1].ranks == 1 and resources[11].ranks == 4


def test_all_faults_are_told_at_once(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "all: {time: 60, cpus: two, mem_gb: 4}\n"
        "stage: {}\n"
        "stages:\n"
        "  4: {nodes: 2}\n"
        "  11: {gpus: -1, partition: 7}\n"
        "  13: {}\n"
    )
    with pytest.raises(ClusterError) as caught:
        load_resources(path)
    message = str(caught.value)
    for fault in (
        "unknown key 'stage'",
        "all.time: unknown; did you mean 'time_min'?",
        "all.cpus: expected a whole number from 1 up, found 'two'",
        "stages.13: only stages 1, 4, 11, 12 run as jobs",
        "stages.1.time_min: missing, here and in all",
        "stages.11.gpus: expected a whole number from 0 up, found -1",
        "stages.11.partition: expected a text, found 7",
    ):
        assert fault in message, fault
    path.write_text(FULL + "stages: {4: {nodes: 2}}\n")
    with pytest.raises(ClusterError, match="only training, stage 11, runs on more"):
        load_resources(path)


@pytest.mark.parametrize("text", ["all: [", "all: 3\n", "stages: {1: 2}\n", ""])
def test_file_of_another_shape_is_refused(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=str(path)):
        load_resources(path)


def test_command_without_ranks_on_several_machines_is_refused(tmp_path):
    """It would start a training of its own on each, in one folder."""
    path = tmp_path / "c.yaml"
    path.write_text(FULL + "stages: {11: {nodes: 2}}\n")
    command = [*POWSM, "submit", "--log", str(tmp_path)]
    command += ["--cluster", str(path), "--stage", "11", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "stages.11.nodes is 2, but a command without --ranks" in done.stderr


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (2, "cuda")])
def test_placeholders_say_what_the_stage_asks_for(gpus, device):
    resources = Resources(time_min=60, cpus=3, mem_gb=4, gpus=gpus)
    program = ["x", "--device", "{device}", "ngpu={gpus}", "{cpus}", "--shards={}"]
    words = ["x", "--device", device, f"ngpu={gpus}", "3", "--shards=0/4"]
    assert filled(program, "0/4", resources) == words


def test_machine_without_slurm_says_what_to_do(tmp_path):
    command = [*POWSM, "submit", "--log", str(tmp_path)]
    command += ["--cluster", str(ROOT / "conf/cluster/default.yaml"), "--stage", "1"]
    done = subprocess.run(
        [*command, "--", "true"],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "powsm submit: error: cmd_backend is slurm, but this machine has no sbatch: "
        "log in to the cluster, or set cmd_backend=local in cmd.sh\n"
    )


@pytest.mark.parametrize(("time_min", "least_s"), [(5, 30), (60, 480), (1440, 480)])
def test_time_limit_is_told_early_and_known_from_a_preemption(time_min, least_s):
    """Submitit counts the one against its limit, and the other as often as it comes."""
    delay_s = slurm.signal_delay_s(time_min)
    assert delay_s >= least_s
    handler = SignalHandler(None, None, SimpleNamespace(_timeout_min=time_min))
    handler._start_time = time.time() - 60 * time_min + delay_s
    assert handler.has_timed_out()


@pytest.mark.parametrize(
    ("script", "status"), [("exit 3", 3), ("kill -9 $$", 137), ("exit 75", 75)]
)
def test_command_fails_with_the_status_of_its_program(script, status, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setattr(slurm, "_OWN_SIGNAL_S", 0)
    with pytest.raises(SystemExit) as caught:
        Command(["bash", "-c", script])()
    assert caught.value.code == status


def test_signal_that_comes_after_the_command_saved_still_requeues(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")

    def requeue(number, frame):  # submitit's ends the process, too
        raise InterruptedError("requeued")

    earlier = signal.signal(signal.SIGUSR2, requeue)
    try:
        script = "{ sleep 0.5; kill -USR2 $PPID; } >/dev/null & exit 75"
        with pytest.raises(InterruptedError, match="requeued"):
            Command(["bash", "-c", script])()
    finally:
        signal.signal(signal.SIGUSR2, earlier)


def test_rank_that_saved_leaves_the_requeue_to_rank_0(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert Command(["bash", "-c", "exit 75"])() is None


def test_last_line_of_a_log_is_what_the_command_said(tmp_path):
    log = tmp_path / "log"
    log.write_text("one\nValueError: no such set \n\nsrun: error: n1: task 0: Exited\n")
    assert last_line(log) == "ValueError: no such set"
    assert last_line(tmp_path / "none") == ""


def test_log_is_that_of_the_rank_that_failed_first(tmp_path):
    ranks = [tmp_path / f"17_{rank}_log.out" for rank in range(2)]
    assert log_of_first_failure(tmp_path, "17") == ranks[0]  # not written yet
    ranks[0].write_text("started\n")
    assert log_of_first_failure(tmp_path, "17") == ranks[0]
    ranks[0].write_text(
        "started\nsrun: error: n2: task 1: Exited with exit code 1\n"
        "srun: error: n1: task 0: Terminated\n"
    )
    ranks[1].write_text("powsm train: error: no GPU\n")
    assert log_of_first_failure(tmp_path, "17") == ranks[1]
