"""Jobs of any cluster, on one that is played here."""

from pathlib import Path

import pytest

from powsm.cluster import jobs
from powsm.cluster.jobs import JobArray, JobState
from powsm.cluster.resources import ClusterError, Resources

RESOURCES = Resources(time_min=1, cpus=1, mem_gb=1, retries=2)


class PlayedCluster:
    """Jobs fare as told: command -> the states of its tries, one after the other."""

    def __init__(self, fates: dict[str, list[JobState]]):
        self.fates = fates
        self.of_job: dict[str, JobState] = {}
        self.submitted: list[list[str]] = []
        self.cancelled: list[str] = []

    def submit(self, commands):
        job_ids = []
        for (name,) in commands:
            job_ids.append(f"{name}{len(self.submitted)}")
            self.of_job[job_ids[-1]] = self.fates[name].pop(0)
        self.submitted.append([name for (name,) in commands])
        return job_ids

    def look(self, job_ids):
        return {job_id: self.of_job[job_id] for job_id in job_ids}

    def cancel(self, job_ids):
        self.cancelled += job_ids


def failed(fault: str = "no room") -> JobState:
    return JobState("failed", "FAILED", fault, Path("log"))


DONE = JobState("done", "COMPLETED")
SAVED = JobState("requeue", "PREEMPTED", "saved", Path("log"))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)


def run(cluster: PlayedCluster, folder: Path) -> None:
    commands = {name: [name] for name in cluster.fates}
    JobArray(4, commands, cluster, RESOURCES, folder).run()


def test_member_that_fails_is_submitted_again_alone(tmp_path):
    cluster = PlayedCluster({"a": [DONE], "b": [failed(), failed(), DONE]})
    run(cluster, tmp_path)
    assert cluster.submitted == [["a", "b"], ["b"], ["b"]]


def test_member_whose_tries_are_used_up_is_named_with_its_fault(tmp_path):
    cluster = PlayedCluster({"a": [DONE], "b": [failed()] * 3})
    with pytest.raises(ClusterError, match=r"1 of 2 job.*\n  b failed 3 .*: no room"):
        run(cluster, tmp_path)


def test_fault_without_a_word_is_a_fault(tmp_path):
    cluster = PlayedCluster({"a": [failed("")] * 3})
    with pytest.raises(ClusterError, match="1 of 1"):
        run(cluster, tmp_path)


def test_job_that_saved_at_its_limit_uses_up_no_try(tmp_path):
    cluster = PlayedCluster({"a": [SAVED] * 5 + [failed(), failed(), DONE]})
    run(cluster, tmp_path)
    assert len(cluster.submitted) == 8


def test_jobs_are_cancelled_when_the_caller_is_interrupted(tmp_path, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.time, "sleep", interrupt)
    cluster = PlayedCluster({"a": [DONE], "b": [JobState("waiting", "RUNNING")]})
    with pytest.raises(KeyboardInterrupt):
        run(cluster, tmp_path)
    assert cluster.cancelled == ["b0"]


def test_jobs_of_a_caller_that_died_are_waited_for(tmp_path, monkeypatch):
    cluster = PlayedCluster({"a": [JobState("waiting", "RUNNING")]})

    def die(seconds):
        raise OSError("the caller died")

    monkeypatch.setattr(jobs.time, "sleep", die)
    with pytest.raises(OSError):
        run(cluster, tmp_path)
    monkeypatch.setattr(
        jobs.time, "sleep", lambda seconds: cluster.of_job.update(a0=DONE)
    )
    run(cluster, tmp_path)
    assert cluster.submitted == [["a"]]
    with pytest.raises(ClusterError, match="job a0 of an earlier, different call"):
        cluster.of_job["a0"] = JobState("waiting", "RUNNING")
        JobArray(4, {"a": ["b"]}, cluster, RESOURCES, tmp_path).run()
