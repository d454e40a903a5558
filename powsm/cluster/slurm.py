"""Run commands as Slurm jobs through submitit: arrays with bounded retries, requeue.

A member of an array that fails is submitted again alone, until it ends well or its
tries are used up; what it did so far is kept by the stage's own done-markers. Slurm
announces the time limit to a job with a signal: its command saves and the job queues
itself again. The state of the jobs is asked of squeue, which needs no accounting.
"""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.helpers import Checkpointable, TorchDistributedEnvironment, clean_env

from powsm.cluster.resources import ClusterError, Resources
from powsm.files.whole import atomic_write

log = logging.getLogger(__name__)

MAX_REQUEUES = 100  # after a time limit or preemption: each one gets further
SIGNAL_S = 480  # seconds from the signal to the time limit: room for a validation
_OWN_SIGNAL_S = 10  # seconds after which a command's signal came to it alone
_POLL_S = (0.5, 15.0)  # seconds between two looks at the queue, at first and later
_RECORD = "jobs.json"
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


@dataclass
class Member:
    """One command of a stage, and the job that runs it now."""

    name: str
    argv: list[str]
    job_id: str = ""
    tries: int = 0
    requeues: int = 0
    state: str = "PENDING"
    log: Path | None = None
    fault: str | None = None
    ended: bool = False


class JobArray:
    """The commands of one stage as jobs.

    Args:
        stage: number of the stage, for names.
        commands: name -> command.
        resources: of each job.
        folder: receives job scripts and logs.
        is_distributed: start a process for each GPU, with ranks.
    """

    def __init__(
        self,
        stage: int,
        commands: Mapping[str, Sequence[str]],
        resources: Resources,
        folder: Path,
        *,
        is_distributed: bool = False,
    ):
        self.stage = stage
        self.members = [Member(name, list(argv)) for name, argv in commands.items()]
        self.resources = resources
        self.folder = Path(folder).absolute()
        self.is_distributed = is_distributed

    def run(self) -> None:
        """Submit, wait, submit again what failed; cancel the jobs when interrupted.

        Jobs of an earlier call that still run, because the caller died, are waited
        for and not started twice.

        Raises:
            ClusterError: jobs that failed for good, with the log and last line of each.
        """
        _need_slurm()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._adopt()
        try:
            self._submit([m for m in self.members if not m.job_id])
            self._wait()
        except (KeyboardInterrupt, SystemExit):
            alive = [m.job_id for m in self.members if not m.ended and m.job_id]
            if alive:
                subprocess.run(["scancel", *alive], check=False)
                log.warning("interrupted: cancelled jobs %s", " ".join(alive))
            raise
        failed = [m for m in self.members if m.fault]
        if failed:
            lines = [
                f"{m.name} failed {m.tries} time(s), last as job {m.job_id} "
                f"({m.state}): {m.fault}; its log: {m.log}"
                for m in failed
            ]
            raise ClusterError(
                f"stage {self.stage}: {len(failed)} of {len(self.members)} job(s) "
                "failed; what is finished stays\n  " + "\n  ".join(lines)
            )

    def _adopt(self) -> None:
        try:
            record = json.loads((self.folder / _RECORD).read_text())
        except (OSError, ValueError):
            return
        states = query_states() or {}
        wanted = {m.name: m for m in self.members}
        for name, (job_id, argv) in record.items():
            if job_id not in states or states[job_id][0] in _ENDED_STATES:
                continue
            member = wanted.get(name)
            if member is None or member.argv != argv:
                raise ClusterError(
                    f"stage {self.stage}: job {job_id} of an earlier, different call "
                    f"still runs on the same folder: scancel {job_id}, or let it end"
                )
            log.info("%s still runs as job %s", name, job_id)
            self._attach(member, job_id)

    def _submit(self, members: Sequence[Member]) -> None:
        if not members:
            return
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
            # srun takes no --cpus-per-task from its job; one rank lost ends the rest
            srun_args=[f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1"],
        )
        try:
            with _outside_of_jobs(), executor.batch():
                jobs = [
                    executor.submit(Command(m.argv, self.is_distributed))
                    for m in members
                ]
        except (submitit.core.utils.FailedJobError, OSError) as err:
            reason = " ".join(str(err).split())
            raise ClusterError(f"stage {self.stage}: sbatch refused: {reason}") from err
        for member, job in zip(members, jobs, strict=True):
            self._attach(member, job.job_id)
            member.tries += 1
        log.info(
            "stage %d: submitted %s; logs in %s",
            self.stage,
            ", ".join(f"{m.name} as job {m.job_id}" for m in members[:4])
            + (f" and {len(members) - 4} more" if len(members) > 4 else ""),
            self.folder,
        )
        record = {m.name: (m.job_id, m.argv) for m in self.members if not m.ended}
        with atomic_write(self.folder / _RECORD) as file:
            json.dump(record, file)

    def _attach(self, member: Member, job_id: str) -> None:
        member.job_id = job_id
        member.state = "PENDING"
        member.log = submitit.core.utils.JobPaths(self.folder, job_id).stdout

    def _wait(self) -> None:
        started = time.monotonic()
        shown = ""
        while True:
            states = query_states()
            if states is not None:
                again = [
                    m for m in self.members if not m.ended and self._look(m, states)
                ]
                self._submit(again)
                counts = Counter(
                    "failed" if m.fault else "done" if m.ended else m.state.lower()
                    for m in self.members
                )
                line = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
                if line != shown:
                    log.info("stage %d: %s", self.stage, line)
                    shown = line
                if all(m.ended for m in self.members):
                    return
            low, high = _POLL_S
            time.sleep(min(high, low + (time.monotonic() - started) / 60))

    def _look(self, member: Member, states: Mapping[str, tuple[str, int]]) -> bool:
        """Note how a member fares; True if it is to be submitted again."""
        state, status = states.get(member.job_id, ("GONE", 0))
        member.state = state
        if state not in _ENDED_STATES and state != "GONE":
            return False
        paths = submitit.core.utils.JobPaths(self.folder, member.job_id)
        if state == "COMPLETED" or (state == "GONE" and paths.result_pickle.exists()):
            member.ended = True
            return False
        member.log = log_of_first_failure(self.folder, member.job_id)
        line = last_line(member.log) or f"no output; exit status {status}"
        if state == "PREEMPTED" or (state == "FAILED" and status == os.EX_TEMPFAIL):
            member.requeues += 1
            member.tries -= 1  # it saved: no failure
        is_last = member.tries > self.resources.retries
        if is_last or member.requeues > MAX_REQUEUES:
            member.ended, member.fault = True, line
            return False
        log.warning(
            "stage %d: %s, job %s, %s (%s), submitting it again; its log: %s",
            *(self.stage, member.name, member.job_id, state, line, member.log),
        )
        return True


def signal_delay_s(time_min: int) -> int:
    """Seconds before a job's time limit at which it is told to save.

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
    """The log of the rank that ended first, which srun tells in that of rank 0."""
    first = submitit.core.utils.JobPaths(folder, job_id).stdout
    if not first.is_file():
        return first
    told = first.read_text(encoding="utf-8", errors="replace")
    task = re.search(r"^srun: error: \S+: tasks? (\d+)", told, re.MULTILINE)
    if task is None:
        return first
    path = submitit.core.utils.JobPaths(folder, job_id, int(task[1])).stdout
    return path if path.is_file() else first


def last_line(path: Path | None) -> str:
    """The last line of a log that tells about the command, not about srun."""
    if path is None or not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 65_536))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    told = [line for line in lines if line.strip() and not line.startswith("srun: ")]
    return told[-1].strip() if told else ""


def exit_at_signals() -> None:
    """Let SIGTERM and Ctrl-C end this process through SystemExit, cancelling its jobs.

    A lost terminal (SIGHUP) ends it without: the jobs go on, and the next call waits
    for them.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
