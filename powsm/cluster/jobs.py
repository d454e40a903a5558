"""Run a stage's commands as jobs of a cluster: arrays with bounded retries, requeue.

A member of an array that fails is submitted again alone, until it ends well or its
tries are used up; what it did so far is kept by the stage's own done-markers. How jobs
are submitted, watched and cancelled is a backend's business: `powsm.cluster.slurm`.
"""

import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from powsm.cluster.resources import ClusterError, Resources
from powsm.files.whole import DamagedError, read_json, write_json

log = logging.getLogger(__name__)

MAX_REQUEUES = 100  # after a time limit or preemption: each one gets further
_POLL_S = (0.5, 15.0)  # seconds between two looks at the queue, at first and later
_RECORD = "jobs.json"

State = Literal["waiting", "done", "failed", "requeue"]


@dataclass(frozen=True)
class JobState:
    """How a job fares.

    Attributes:
        state: waiting to run or running; done; failed; or requeue: it saved and ended,
            for a time limit or a preemption, and wants to go on.
        title: the cluster's own word for it, such as NODE_FAIL.
        fault: the last line of its log; only of jobs that ended without being done.
        log: where it wrote.
    """

    state: State
    title: str
    fault: str = ""
    log: Path | None = None


class Backend(Protocol):
    """What a cluster must offer; errors are `ClusterError`s in its own words."""

    def submit(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Start commands as jobs; their ids."""

    def look(self, job_ids: Sequence[str]) -> dict[str, JobState] | None:
        """How jobs fare; None when the cluster does not answer now."""

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End jobs."""


@dataclass
class Member:
    """One command of a stage, and the job that runs it now."""

    name: str
    argv: list[str]
    job_id: str = ""
    tries: int = 0
    requeues: int = 0
    title: str = "PENDING"
    log: Path | None = None
    fault: str | None = None
    ended: bool = False


class JobArray:
    """The commands of one stage as jobs.

    Args:
        stage: number of the stage, for messages.
        commands: name -> command.
        backend: the cluster.
        resources: of each job; here, how often a failed one is submitted again.
        folder: keeps the record of the jobs.
    """

    def __init__(
        self,
        stage: int,
        commands: Mapping[str, Sequence[str]],
        backend: Backend,
        resources: Resources,
        folder: Path,
    ):
        self.stage = stage
        self.members = [Member(name, list(argv)) for name, argv in commands.items()]
        self.backend = backend
        self.retries = resources.retries
        self.folder = Path(folder).absolute()

    def run(self) -> None:
        """Submit, wait, submit again what failed; cancel the jobs when interrupted.

        Jobs of an earlier call that still run, because the caller died, are waited
        for and not started twice.

        Raises:
            ClusterError: jobs that failed for good, with the log and last line of each.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._adopt()
        try:
            self._submit([m for m in self.members if not m.job_id])
            self._wait()
        except (KeyboardInterrupt, SystemExit):
            alive = [m.job_id for m in self.members if not m.ended and m.job_id]
            if alive:
                self.backend.cancel(alive)
                log.warning("interrupted: cancelled jobs %s", " ".join(alive))
            raise
        failed = [m for m in self.members if m.fault is not None]
        if failed:
            lines = [
                f"{m.name} failed {m.tries} time(s), last as job {m.job_id} "
                f"({m.title}): {m.fault}; its log: {m.log}"
                for m in failed
            ]
            raise ClusterError(
                f"stage {self.stage}: {len(failed)} of {len(self.members)} job(s) "
                "failed; what is finished stays\n  " + "\n  ".join(lines)
            )

    def _adopt(self) -> None:
        try:
            record = read_json(self.folder / _RECORD, "")
        except (OSError, DamagedError):
            return
        states = self.backend.look([job_id for job_id, _ in record.values()]) or {}
        wanted = {m.name: m for m in self.members}
        for name, (job_id, argv) in record.items():
            if job_id not in states or states[job_id].state != "waiting":
                continue
            member = wanted.get(name)
            if member is None or member.argv != argv:
                raise ClusterError(
                    f"stage {self.stage}: job {job_id} of an earlier, different call "
                    f"still runs on the same folder: scancel {job_id}, or let it end"
                )
            log.info("%s still runs as job %s", name, job_id)
            member.job_id = job_id

    def _submit(self, members: Sequence[Member]) -> None:
        if not members:
            return
        try:
            job_ids = self.backend.submit([m.argv for m in members])
        except ClusterError as err:
            raise ClusterError(f"stage {self.stage}: {err}") from err
        for member, job_id in zip(members, job_ids, strict=True):
            member.job_id, member.title = job_id, "PENDING"
            member.tries += 1
        log.info(
            "stage %d: submitted %s; logs in %s",
            self.stage,
            ", ".join(f"{m.name} as job {m.job_id}" for m in members[:4])
            + (f" and {len(members) - 4} more" if len(members) > 4 else ""),
            self.folder,
        )
        record = {m.name: (m.job_id, m.argv) for m in self.members if not m.ended}
        write_json(self.folder / _RECORD, record, indent=None)

    def _wait(self) -> None:
        started = time.monotonic()
        shown = ""
        while True:
            alive = [m for m in self.members if not m.ended]
            states = self.backend.look([m.job_id for m in alive])
            if states is not None:
                self._submit([m for m in alive if self._note(m, states[m.job_id])])
                counts = Counter(
                    "failed"
                    if m.fault is not None
                    else "done"
                    if m.ended
                    else m.title.lower()
                    for m in self.members
                )
                line = ", ".join(f"{n} {title}" for title, n in sorted(counts.items()))
                if line != shown:
                    log.info("stage %d: %s", self.stage, line)
                    shown = line
                if all(m.ended for m in self.members):
                    return
            low, high = _POLL_S
            time.sleep(min(high, low + (time.monotonic() - started) / 60))

    def _note(self, member: Member, job: JobState) -> bool:
        """Note how a member fares; True if it is to be submitted again."""
        member.title = job.title
        if job.state == "waiting":
            return False
        if job.state == "done":
            member.ended = True
            return False
        member.log = job.log
        if job.state == "requeue":
            member.requeues += 1
            member.tries -= 1  # it saved: no failure
        if member.tries > self.retries or member.requeues > MAX_REQUEUES:
            member.ended, member.fault = True, job.fault
            return False
        log.warning(
            "stage %d: %s, job %s, %s (%s), submitting it again; its log: %s",
            *(self.stage, member.name, member.job_id, job.title, job.fault, job.log),
        )
        return True


def exit_at_signals() -> None:
    """Let SIGTERM and Ctrl-C end this process through SystemExit, cancelling its jobs.

    A lost terminal (SIGHUP) ends it without: the jobs go on, and the next call waits
    for them.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
