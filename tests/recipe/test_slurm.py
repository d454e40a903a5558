"""The mini recipe through a real Slurm of two nodes on this machine, jobs killed in it.

`tests/slurm.sh` starts and stops the cluster.
"""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from powsm_command import POWSM
from test_stages import RATES, command, hashes, prepare, run

from powsm.cluster.checks import check_cluster

pytestmark = [
    pytest.mark.recipe,
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons need root"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))),
        reason="Slurm is not installed: apt-get install slurm-wlm munge",
    ),
]

ROOT = Path(__file__).parents[2]
JOB_S = 600  # seconds to wait for anything of Slurm's


@pytest.fixture(scope="module")
def slurm():
    """A cluster that ends with this process, whatever ends it: its stdin closes."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    script = [str(ROOT / "tests/slurm.sh"), str(folder)]
    process = subprocess.Popen(
        script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield
    finally:
        process.stdin.close()
        process.wait(90)
    assert not folder.exists()


def running_jobs() -> list[tuple[str, str]]:
    """(id, name) of the jobs that run now."""
    queue = ["squeue", "--noheader", "--array", "--states=RUNNING", "-O"]
    queue.append("JobArrayID:40,Name:40")
    done = subprocess.run(queue, capture_output=True, text=True, check=True)
    return [tuple(line.split()) for line in done.stdout.splitlines()]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + JOB_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_job(name: str) -> str:
    """The id of the first running job of a name."""
    found: list[str] = []

    def look() -> bool:
        found.extend(job_id for job_id, job in running_jobs() if job == name)
        return bool(found)

    wait_until(look)
    return found[0]


def submit(root: Path, *options: str) -> list[str]:
    """`powsm submit` with small resources."""
    resources = "all: {time_min: 5, cpus: 1, mem_gb: 1, jobs: 3, retries: 1}\n"
    (root / "cluster.yaml").write_text(resources)
    program = [*POWSM, "submit"]
    program += ["--cluster", str(root / "cluster.yaml"), "--log", str(root / "log")]
    return [*program, *options]


def test_recipe_with_killed_jobs_equals_the_local_run(slurm, tmp_path, monkeypatch):
    """Training and a member of the decoding array are cancelled once while they run."""
    prepare(tmp_path)
    settings = yaml.safe_load((tmp_path / "train_tiny.yaml").read_text())
    settings["batch_conf"]["update_batches"] = 2  # a multiple of the two ranks
    (tmp_path / "train_tiny.yaml").write_text(yaml.safe_dump(settings))
    resources = {
        "all": {"time_min": 10, "cpus": 1, "mem_gb": 2, "jobs": 2},
        "stages": {4: {"cpus": 2}, 11: {"nodes": 2}},
    }
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(resources))
    local = ["--data", str(tmp_path / "local/data")]
    local += ["--dump", str(tmp_path / "local/dump/raw")]
    run(tmp_path, "--stage=1", "--stop_stage=4", "--skip_stages=2", *local)

    exp = tmp_path / "exp/tiny"
    cancelled = []

    def cancel() -> None:
        has_begun = {
            11: lambda: " an update is " in (exp / "train.log").read_text(),
            12: lambda: list(exp.glob("*/*/*/part.*.jsonl")),
        }
        for stage, condition in has_begun.items():
            job_id = wait_for_job(f"powsm-stage{stage}")
            wait_until((exp / "train.log").exists)
            wait_until(condition)
            subprocess.run(["scancel", job_id], check=True)
            cancelled.append(job_id)

    canceller = threading.Thread(target=cancel, daemon=True)
    canceller.start()
    monkeypatch.setenv("cmd_backend", "slurm")
    cluster = ["--cluster", str(tmp_path / "cluster.yaml")]
    done = subprocess.run(
        command(tmp_path, "--stage=1", *cluster),
        cwd=ROOT / "egs2/mini_ipapack/s2t1",
        capture_output=True,
        text=True,
        timeout=3 * JOB_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    canceller.join(JOB_S)
    assert len(cancelled) == 2
    for job_id in cancelled:
        assert f"job {job_id}, CANCELLED" in done.stderr

    expected = hashes(tmp_path / "local/dump")
    assert expected and hashes(tmp_path / "dump") == expected
    data = hashes(tmp_path / "data")  # and the report of stage 2
    assert hashes(tmp_path / "local/data").items() <= data.items()

    assert "2 rank(s) on cpu x 1 accumulated" in (exp / "train.log").read_text()
    records = json.loads((exp / "results.json").read_text())
    got = {(r["task"], r["decode"], r["metric"]) for r in records}
    assert RATES <= got
    for stage, folder in ((1, "exp"), (4, "exp"), (11, "exp/tiny"), (12, "exp/tiny")):
        assert list((tmp_path / folder / f"log/stage{stage}").glob("*_log.out"))


FAIL = """
if [ "$1" = well ]; then exit; fi
if [ "$1" = once ] && [ -f "seen.$1" ]; then exit; fi
touch "seen.$1"
echo "ValueError: $1 went wrong" >&2
exit 3
"""


def test_slurm_is_asked_before_the_run(slurm, tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "all: {time_min: 5, cpus: 1, mem_gb: 1}\nstages: {11: {nodes: 2}}\n"
    )
    good = check_cluster(path, [1, 11, 13])
    assert [finding.level for finding in good] == ["ok", "ok"]
    assert "on nodes 127.0.0.[2-3] in partition test" in good[1].message
    path.write_text(
        "all: {time_min: 5, cpus: 1, mem_gb: 1}\nstages: {11: {nodes: 3}}\n"
    )
    *_, bad = check_cluster(path, [11])
    assert bad.level == "fault"
    assert "stage 11: sbatch refuses --job-name=powsm-stage11" in bad.message
    assert "node configuration is not available" in bad.message


def test_failed_members_are_retried_alone_and_named(slurm, tmp_path):
    members = ["--each", "well", "once", "always"]
    job = ["--", "bash", "-c", FAIL, "job", "{}"]
    done = subprocess.run(
        submit(tmp_path, "--stage=4", *members, *job),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=JOB_S,
    )
    assert done.returncode == 1
    error = done.stderr[done.stderr.index("powsm submit: error: ") :]
    assert error.splitlines()[0] == (
        "powsm submit: error: stage 4: 1 of 3 job(s) failed; what is finished stays"
    )
    assert "always failed 2 time(s), last as job " in error
    assert "(FAILED): ValueError: always went wrong; its log: " in error
    log = Path(error.rpartition("its log: ")[2].strip())
    assert "ValueError: always went wrong" in log.read_text()
    assert done.stderr.count("submitting it again") == 2  # once and always


def test_ranks_may_end_long_after_another(slurm, tmp_path):
    """As rank 0 does, which writes what they made; the cluster's WaitTime is 1 s."""
    args = submit(tmp_path, "--stage=11", "--ranks")
    with open(tmp_path / "cluster.yaml", "a") as file:
        file.write("stages: {11: {nodes: 2}}\n")
    job = 'test "$RANK" = 1 || { sleep 4; echo written >> state; }'
    done = subprocess.run(
        [*args, "--", "bash", "-c", job],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=JOB_S,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "state").read_text() == "written\n"


# A command of whose start the job does not know yet is not waited for: sleep first.
SAVE = """
trap 'echo saved >> state; exit 75' TERM USR2
sleep 1
echo started >> state
if [ "$(grep -c started state)" = 2 ]; then exit; fi
sleep 100 & wait
"""


def test_signal_lets_a_job_save_and_queue_itself_again(slurm, tmp_path):
    process = subprocess.Popen(
        submit(tmp_path, "--stage=11", "--", "bash", "-c", SAVE),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    job_id = wait_for_job("powsm-stage11")
    wait_until((tmp_path / "state").exists)
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    _, told = process.communicate(timeout=JOB_S)
    assert process.returncode == 0, told
    assert "submitting it again" not in told  # the job did it itself
    states = (tmp_path / "state").read_text().split()
    assert (states[0], states[-1]) == ("started", "started") and "saved" in states
    assert (
        f"Requeued job {job_id}" in (tmp_path / f"log/{job_id}_0_log.out").read_text()
    )


def test_jobs_outlive_a_killed_driver_and_are_waited_for(slurm, tmp_path):
    job = "while [ ! -f go ]; do sleep 0.1; done; echo done >> state"
    args = submit(tmp_path, "--stage=12", "--", "bash", "-c", job)
    first = subprocess.Popen(args, cwd=tmp_path, stderr=subprocess.DEVNULL)
    job_id = wait_for_job("powsm-stage12")
    wait_until((tmp_path / "log/jobs.json").exists)
    first.kill()
    first.wait()
    other = subprocess.run(
        [*args, "more"], cwd=tmp_path, capture_output=True, text=True
    )
    assert other.returncode == 1
    assert f"job {job_id} of an earlier, different call still runs" in other.stderr
    told = tmp_path / "told"
    with open(told, "w") as file:
        again = subprocess.Popen(args, cwd=tmp_path, stderr=file)
    wait_until(lambda: f"still runs as job {job_id}" in told.read_text())
    (tmp_path / "go").touch()
    assert again.wait(JOB_S) == 0, told.read_text()
    assert (tmp_path / "state").read_text() == "done\n"
