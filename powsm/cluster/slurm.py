"""Slurm as the cluster of `powsm.cluster.jobs`, through submitit.

Slurm announces the time limit to a job with a signal: its command saves and the job
queues itself again. The state of jobs is asked of squeue, which needs no accounting.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import submitit
from submitit.helpers import Checkpointable, TorchDistributedEnvironment, clean_env

from powsm.cluster.jobs import MAX_REQUEUES, JobState
from powsm.cluster.resources import ClusterError, Resources

log = logging.getLogger(__name__)

SIGNAL_S = 480  # seconds from the signal to the time limit: room for a validation
_OWN_SIGNAL_S = 10  # seconds after which a command's signal came to it alone
_ENDED_STATES = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED "
    "REVOKED TIMEOUT".split()
)


class Command(Checkpointable):
    """A command that submitit runs in a job, in the folder it was submitted from.

    Args:
        argv: program and arguments.
        is_rank: tell torch.distributed which of the job's processes this is.
    """

    def __init__(self, argv: Sequence[str], is_rank: bool = False):
        self.argv = list(argv)
        self.is_rank = is_rank
        self.pid: int | None = None

    def __call__(self) -> None:
        """Run it.

        Raises:
            SystemExit: it failed; the job fails with its status.
        """
        if self.is_rank:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
            os.environ["GROUP_RANK"] = os.environ["SLURM_NODEID"]
        process = subprocess.Popen(self.argv)
        self.pid = process.pid
        status = process.wait()
        if status == os.EX_TEMPFAIL:
            if os.environ["SLURM_PROCID"] != "0":
                return  # rank 0 decides whether the job queues again
            # Slurm signals the command and us one by one: ours, which requeues, is due
            time.sleep(_OWN_SIGNAL_S)
        if status != 0:
            raise SystemExit(status if status > 0 else 128 - status)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """At Slurm's signal: let the command save and end; then submitit requeues."""
        # Slurm signals the command too, so it may be gone
        with suppress(ProcessLookupError, ChildProcessError):
            if self.pid is not None:
                os.kill(self.pid, signal.SIGTERM)
                # not wait(): the interrupted one of __call__ holds its lock
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Command(self.argv, self.is_rank))


class Slurm:
    """Submits, watches and cancels the jobs of a stage.

    Args:
        stage: number of the stage, for the jobs' names.
        resources: of each job.
        folder: receives job scripts and logs.
        is_distributed: start a process for each GPU, with ranks.

    Raises:
        ClusterError: this machine has no Slurm.
    """

    def __init__(
        self,
        stage: int,
        resources: Resources,
        folder: Path,
        *,
        is_distributed: bool = False,
    ):
        _need_slurm()
        self.stage = stage
        self.resources = resources
        self.folder = Path(folder).absolute()
        self.is_distributed = is_distributed

    def submit(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Start commands as members of one array; their ids.

        Raises:
            ClusterError: sbatch refused.
        """
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=MAX_REQUEUES)
        cpus = self.resources.cpus
        executor.update_parameters(
            **_parameters(
                self.stage, self.resources, is_distributed=self.is_distributed
            ),
            array_parallelism=self.resources.jobs,
            stderr_to_stdout=True,
            signal_delay_s=signal_delay_s(self.resources.time_min),
            additional_parameters={"requeue": True},
            # srun takes no --cpus-per-task from its job; a rank that fails ends the
            # others, and one that ends well does not, whatever the site's WaitTime is
            srun_args=[f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1", "--wait=0"],
        )
        try:
            with _outside_of_jobs(), executor.batch():
                jobs = [
                    executor.submit(Command(argv, self.is_distributed))
                    for argv in commands
                ]
        except (submitit.core.utils.FailedJobError, OSError) as err:
            reason = " ".join(str(err).split())
            raise ClusterError(f"sbatch refused: {reason}") from err
        return [job.job_id for job in jobs]

    def look(self, job_ids: Sequence[str]) -> dict[str, JobState] | None:
        """How jobs fare; None when Slurm does not answer."""
        states = query_states()
        if states is None:
            return None
        return {
            job_id: self._state(job_id, *states.get(job_id, ("GONE", 0)))
            for job_id in job_ids
        }

    def _state(self, job_id: str, title: str, status: int) -> JobState:
        if title not in _ENDED_STATES and title != "GONE":
            return JobState("waiting", title)
        paths = submitit.core.utils.JobPaths(self.folder, job_id)
        if title == "COMPLETED" or (title == "GONE" and paths.result_pickle.exists()):
            return JobState("done", title)
        log_path = log_of_first_failure(self.folder, job_id)
        saved = title == "PREEMPTED" or (title == "FAILED" and status == os.EX_TEMPFAIL)
        return JobState(
            "requeue" if saved else "failed",
            title,
            last_line(log_path) or f"no output; exit status {status}",
            log_path,
        )

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End jobs, running or waiting."""
        subprocess.run(["scancel", *job_ids], check=False)


def signal_delay_s(time_min: int) -> int:
    """Seconds before a job's time limit at which it is asked to save.

    At most a sixth of its time: submitit takes an earlier signal for a preemption.
    """
    return min(SIGNAL_S, 10 * time_min)


def _parameters(
    stage: int, wanted: Resources, *, is_distributed: bool
) -> dict[str, object]:
    """Keyword arguments of submitit's sbatch script."""
    parameters: dict[str, object] = {
        "job_name": f"powsm-stage{stage}",
        "time": wanted.time_min,
        "nodes": wanted.nodes,
        "ntasks_per_node": wanted.ranks if is_distributed else 1,
        "cpus_per_task": wanted.cpus,
        "mem": f"{round(1024 * wanted.mem_gb)}M",
        "gpus_per_node": wanted.gpus or None,
        "partition": wanted.partition,
        "account": wanted.account,
        "qos": wanted.qos,
        "constraint": wanted.constraint,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _need_slurm() -> None:
    for program in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise ClusterError(
                f"cmd_backend is slurm, but this machine has no {program}: log in to "
                "the cluster, or set cmd_backend=local in cmd.sh"
            )


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the job this process may itself run in, but not where Slurm is."""
    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield


def ask_slurm(stage: int, resources: Resources) -> str:
    """When and where Slurm would start a job of a stage; none is submitted.

    Raises:
        ClusterError: it would not; the message is Slurm's.
    """
    _need_slurm()
    parameters = _parameters(stage, resources, is_distributed=stage == 11)
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in parameters.items()]
    command = ["sbatch", "--test-only", *flags, "--wrap=true"]
    with _outside_of_jobs():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = done.stderr.strip().rpartition("\n")[2].removeprefix("sbatch: ")
    if done.returncode != 0:
        raise ClusterError(f"stage {stage}: sbatch refuses {' '.join(flags)}: {answer}")
    return answer


def query_states() -> dict[str, tuple[str, int]] | None:
    """The user's jobs that Slurm remembers: id -> (state, exit status).

    Members of an array have ids like 17_3. None when Slurm does not answer.
    """
    columns = "JobArrayID:40,State:20,exit_code:20"
    command = ["squeue", "--me", "--states=all", "--array", "--noheader", "-O", columns]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        log.warning("squeue: %s; asking again", done.stderr.strip())
        return None
    states = {}
    for line in done.stdout.splitlines():
        job_id, state, status = line.split()
        states[job_id] = (state, os.waitstatus_to_exitcode(int(status)))
    return states


def log_of_first_failure(folder: Path, job_id: str) -> Path:
    """The log of the rank that ended first, which srun names in that of rank 0."""
    first = submitit.core.utils.JobPaths(folder, job_id).stdout
    if not first.is_file():
        return first
    log = first.read_text(encoding="utf-8", errors="replace")
    task = re.search(r"^srun: error: \S+: tasks? (\d+)", log, re.MULTILINE)
    if task is None:
        return first
    path = submitit.core.utils.JobPaths(folder, job_id, int(task[1])).stdout
    return path if path.is_file() else first


def last_line(path: Path | None) -> str:
    """The last line of a log that is about the command, not about srun."""
    if path is None or not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 65_536))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    told = [line for line in lines if line.strip() and not line.startswith("srun: ")]
    return told[-1].strip() if told else ""
