"""Ranks meet before the work: two gloo ranks, one of which may be missing or broken."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from powsm.cluster import ranks
from powsm.cluster.ranks import RankError, meet

HOST = socket.gethostname()
TIMEOUT_S = 1.0


def stall(*args) -> None:
    time.sleep(60)


def begin(rank: int, fault: str) -> str:
    """Make the group of a run after the meeting, this rank early or late."""
    time.sleep(1 if fault == "begins late" else 0)
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=20))
        dist.barrier()
        dist.destroy_process_group()
    except (dist.DistError, RuntimeError) as err:
        return str(err)
    return "begun"


def be_rank(rank: int, port: int, world_size: int, fault: str, answers) -> None:
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
    here |= {"LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in here.items()}
    if fault == "stall":
        ranks._all_reduce = stall
    try:
        hosts = meet(cuda=fault == "no GPU", timeout_s=TIMEOUT_S)
        answers.put((rank, begin(rank, fault) if "begins" in fault else hosts))
    except RankError as err:
        answers.put((rank, str(err)))


def run(faults: dict[int, str], world_size: int = 2) -> dict[int, object]:
    """What `meet` gives or says on each rank of `faults`; the others do not come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("fork")  # torch is imported already
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=be_rank, args=(rank, port, world_size, fault, answers))
        for rank, fault in faults.items()
    ]
    for process in processes:
        process.start()
    processes[0].join(30)
    for process, fault in zip(processes, faults.values(), strict=True):
        process.join(0 if fault == "stall" else 10)
        process.kill()
    got = {}
    while not answers.empty():
        rank, answer = answers.get()
        got[rank] = answer
    return got


def test_two_ranks_that_are_well():
    assert run({0: "", 1: ""}) == {0: [HOST, HOST], 1: [HOST, HOST]}


def test_rank_that_is_early_after_the_meeting_finds_the_run():
    assert run({0: "begins late", 1: "begins"}) == {0: "begun", 1: "begun"}


@pytest.mark.parametrize(
    ("world_size", "name"),
    [
        (2, f"rank 1 on host {HOST}"),  # the machine of rank 0
        (3, f"rank 1 on host {HOST} did not come; rank 2 (machine 1 of the run)"),
    ],
)
def test_a_rank_that_does_not_come_is_named(world_size, name):
    got = run({0: ""}, world_size)
    message = f"{name} did not come within 1 s (1 of {world_size} ranks are well)"
    assert got[0].startswith(message)


def test_rank_0_that_does_not_come_is_named():
    got = run({1: ""})
    assert f"rank 1 on host {HOST} found no rank 0 at 127.0.0.1:" in got[1]


def test_a_rank_without_its_gpu_is_named_by_all():
    got = run({0: "", 1: "no GPU"})
    assert got[0] == got[1]
    assert got[0].startswith(f"rank 1 on host {HOST}: ")
    assert "CUDA" in got[0] or "NVIDIA" in got[0]
    assert "(1 of 2 ranks are well)" in got[0]


def test_a_rank_that_stalls_in_the_all_reduce_is_named():
    got = run({0: "", 1: "stall"})
    expected = f"rank 1 on host {HOST} came, but failed or stalled in the all-reduce"
    assert got[0].startswith(expected)


# as NCCL does when a rank ends alone: it waits for the others, who wait for it
HANG = "import atexit, sys, time\natexit.register(time.sleep, 600)\n"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("sys.exit('powsm train: error: no room')", "powsm train: error: no room\n"),
        ("{}['a']", "KeyError: 'a'\n"),
    ],
)
def test_a_rank_with_an_error_does_not_wait_for_the_others(fault, message):
    program = f"{HANG}from powsm.cluster.ranks import leaving_at_errors\n"
    program += f"with leaving_at_errors(): {fault}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(message)


@pytest.mark.parametrize(
    ("world_size", "end"), [("1", ValueError("x")), ("2", SystemExit(75))]
)
def test_one_process_alone_and_ranks_that_stop_together_end_as_usual(
    monkeypatch, world_size, end
):
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(type(end)), ranks.leaving_at_errors():
        raise end
