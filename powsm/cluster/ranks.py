"""The ranks of a run meet before the work: who came, and does an all-reduce work?

Each rank reports to a key-value store at the address of rank 0, so that a missing or
broken one can be named; torch.distributed alone says only that something timed out.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from powsm.errors import PowsmError

log = logging.getLogger(__name__)

MEET_S = 300.0  # seconds for all ranks to come, and again for the all-reduce
ERROR = "ranks: error: "  # before what the program of this module says
_LONGER_S = 120.0  # more for NCCL, so that it is this module that reports
_LEAVE_S = 3.0  # seconds for the others to tell what they saw, and to read it

# Rank 0's store stays open: the run makes its group at the same address, through the
# same server. One that closed in between would cut off a rank that is there early.
_KEPT: list[dist.Store] = []

_HERE = "127.0.0.1"
_SAVE_S = 600  # seconds that ranks have to save at a signal, before they are killed


class RankError(PowsmError):
    """Ranks that did not come, could not use their device, or broke the all-reduce."""


@contextmanager
def leaving_at_errors() -> Iterator[None]:
    """End this process at once if an error comes, where it is one of several ranks.

    The usual end of a process waits for NCCL, whose other ranks wait for this one: the
    fault would show after half an hour, and as theirs. SystemExit with a status of its
    own passes: all ranks leave together then.
    """
    try:
        yield
    except BaseException as err:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        if isinstance(err, SystemExit):
            if not isinstance(err.code, str):
                raise
            sys.stderr.write(f"{err.code}\n")
        else:
            traceback.print_exc()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def look_at_gpus(wanted: int) -> str:
    """What the first GPUs of this machine are, after a small sum on each of them.

    Raises:
        RankError: there are fewer, or one of them does not compute.
    """
    n_gpus = torch.cuda.device_count()
    if n_gpus < wanted:
        raise RankError(
            f"{n_gpus} found, {wanted} wanted: go where they are, or set --ngpu"
        )
    if not wanted:
        return "not used"
    for number in range(wanted):
        try:
            torch.ones(2, 2, device=f"cuda:{number}").matmul(
                torch.ones(2, 2).cuda(number)
            )
        except RuntimeError as err:
            message = f"number {number} does not compute: {_first_line(err)}"
            raise RankError(f"{message}: see nvidia-smi") from err
    names = sorted({torch.cuda.get_device_name(i) for i in range(wanted)})
    message = f"{wanted} of {n_gpus}: {', '.join(names)}"
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        message += ", without bfloat16 (slow with use_amp: true)"
    return message


def launch(command: Sequence[str], n_ranks: int) -> int:
    """Run a command as ranks 0 to `n_ranks` - 1 of this machine, and wait.

    By PyTorch's own launcher, as torchrun is: the ranks meet at 127.0.0.1, so the name
    of the machine need not resolve; they have time to save when a signal comes; and
    their end is a status, not a traceback beside what they said themselves.

    RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT tell each which it is.
    When one fails, the others are ended.

    Returns:
        0, the status of the rank that failed first, or 128 + number of a signal that
        ended the run.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("agent.server.api", "multiprocessing.api"):
        # their warnings say what the status and the ranks' own lines say
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n_ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{_HERE}:0",
        local_addr=_HERE,
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=_SAVE_S,
    )
    program, *arguments = command
    try:
        elastic_launch(config, program)(*arguments)
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as err:
        status = err.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status
    return 0


def meet(*, cuda: bool, timeout_s: float = MEET_S) -> list[str]:
    """Wait for all ranks, and sum a number over them.

    Rank, number of ranks and address come from RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR and MASTER_PORT, as torchrun and `powsm.cluster.jobs` set them. The
    process group is gone afterwards; the run makes its own. After an error a thread may
    still wait in it, and the process is to end by `leaving_at_errors`.

    Args:
        cuda: sum on this rank's GPU through NCCL, otherwise on the CPU through gloo.
        timeout_s: seconds to wait for the others, and for the sum.

    Returns:
        The host of each rank.

    Raises:
        RankError: names every rank at fault, with its host where that is known.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu")
    error = None
    if cuda:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        try:
            torch.cuda.set_device(device)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as err:  # as torch raises them
            error = _first_line(err)
    store = _open_store(rank, timeout_s)
    call = _RollCall(store, rank, world_size)
    try:
        hosts = call.answer("came", error, timeout_s)
        error = _all_reduce(call, device, timeout_s)
        call.answer("summed", error, 2 * timeout_s if error is None else _LEAVE_S)
    finally:
        call.leave()
    if rank == 0:
        _KEPT.append(store)
    log.info("%d ranks on %s", world_size, ", ".join(dict.fromkeys(hosts)))
    return hosts


def _open_store(rank: int, timeout_s: float) -> dist.Store:
    """The store at the address of rank 0; torchrun's agent may hold it already."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = dist.TCPStore(
            address,
            port,
            is_master=rank == 0 and not has_agent,
            wait_for_workers=False,
            multi_tenant=True,
            timeout=timedelta(seconds=timeout_s),
        )
    except (dist.DistError, RuntimeError) as err:
        raise RankError(
            f"rank {rank} on host {socket.gethostname()} found no rank 0 at "
            f"{address}:{port} within {timeout_s:.0f} s ({_first_line(err)}); look at "
            "the log of rank 0, and whether the machines reach each other"
        ) from err
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"powsm/meet/{attempt}", store)


class _RollCall:
    """Answers of all ranks, by topic, in a shared store."""

    def __init__(self, store: dist.Store, rank: int, world_size: int):
        self.store = store
        self.rank = rank
        self.world_size = world_size
        self.hosts: dict[int, str] = {}

    def answer(self, topic: str, error: str | None, timeout_s: float) -> list[str]:
        """Give this rank's answer and wait for those of the others.

        Returns:
            The host of each rank.

        Raises:
            RankError: a rank answered with an error or not in time.
        """
        try:
            silent, errors = self._collect(topic, error, timeout_s)
        except (dist.DistError, RuntimeError) as err:
            raise RankError(
                f"{self._name(0)} is gone, the others have lost touch with it "
                f"({_first_line(err)}); look at its log"
            ) from err
        if silent or errors:
            raise RankError(self._describe(topic, silent, errors, timeout_s))
        return [self.hosts[rank] for rank in range(self.world_size)]

    def _collect(
        self, topic: str, error: str | None, timeout_s: float
    ) -> tuple[set[int], dict[int, str]]:
        """Ranks that did not answer in time, and the errors of those that did."""
        report = {"host": socket.gethostname(), "error": error}
        self.store.set(f"{topic}/{self.rank}", json.dumps(report))
        deadline = time.monotonic() + timeout_s
        silent = set(range(self.world_size))
        errors = {}
        while True:
            for rank in sorted(silent):
                key = f"{topic}/{rank}"
                if self.store.check([key]):
                    answer = json.loads(self.store.get(key))
                    self.hosts[rank] = answer["host"]
                    if answer["error"]:
                        errors[rank] = answer["error"]
                    silent.discard(rank)
            if not silent or time.monotonic() > deadline:
                return silent, errors
            time.sleep(0.05)

    def _describe(
        self, topic: str, silent: set[int], errors: dict[int, str], timeout_s: float
    ) -> str:
        if silent and topic == "came":
            faults = [f"{self._name(rank)} did not come" for rank in sorted(silent)]
            faults[-1] += f" within {timeout_s:.0f} s"
        elif silent:  # the errors of the others come from its silence
            faults = [
                f"{self._name(rank)} came, but failed or stalled in the all-reduce"
                for rank in sorted(silent)
            ]
            errors = {}
        else:
            faults = []
        faults += [f"{self._name(rank)}: {errors[rank]}" for rank in sorted(errors)]
        n_good = self.world_size - len(silent) - len(errors)
        return (
            f"{'; '.join(faults)} ({n_good} of {self.world_size} ranks are well); look "
            "at the log and at the machine of each rank that is named"
        )

    def _name(self, rank: int) -> str:
        """`rank 3 on host n2`; ranks are numbered machine by machine."""
        per_host = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        first = rank - rank % per_host
        neighbours = range(first, first + per_host)
        host = next((self.hosts[r] for r in neighbours if r in self.hosts), None)
        if host is None:
            return f"rank {rank} (machine {rank // per_host} of the run)"
        return f"rank {rank} on host {host}"

    def leave(self) -> None:
        """Let rank 0, which may hold the store, go last of those that came."""
        deadline = time.monotonic() + _LEAVE_S
        with suppress(dist.DistError, RuntimeError):  # it may be gone
            left = self.store.add("left", 1)
            while self.rank == 0 and left < len(self.hosts):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)
                left = self.store.add("left", 0)


def _all_reduce(call: _RollCall, device: torch.device, timeout_s: float) -> str | None:
    """Sum rank + 1 over the ranks; what went wrong, or None.

    In a thread: NCCL may wait in a call that knows no time limit of ours.
    """
    answers: list[str | None] = []

    def run() -> None:
        answers.append(_sum_ranks(call, device, timeout_s))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers[0] if answers else f"no sum within {timeout_s:.0f} s"


def _sum_ranks(call: _RollCall, device: torch.device, timeout_s: float) -> str | None:
    number = torch.tensor([call.rank + 1.0], device=device)
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # of this thread
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            # a connection of its own: one that waits lets nobody else speak
            store=dist.PrefixStore("group", call.store.clone()),
            rank=call.rank,
            world_size=call.world_size,
            timeout=timedelta(seconds=timeout_s + _LONGER_S),
        )
        dist.all_reduce(number)
        total = number.item()  # waits for it
        # not after an error: it would wait for the others
        dist.destroy_process_group()
    except (dist.DistError, RuntimeError) as err:
        return _first_line(err)
    expected = call.world_size * (call.world_size + 1) / 2
    return None if total == expected else f"the sum is {total}, expected {expected}"


def _first_line(err: BaseException) -> str:
    return str(err).strip().partition("\n")[0]


def _main(cuda: str, timeout_s: str) -> None:
    """Meet and say who came, or say who is at fault and end with status 1."""
    with leaving_at_errors():
        try:
            hosts = meet(cuda=cuda == "cuda", timeout_s=float(timeout_s))
        except RankError as err:
            raise SystemExit(f"{ERROR}{err}") from err
    if os.environ["RANK"] == "0":  # torchrun gives all ranks one stdout
        names = ", ".join(dict.fromkeys(hosts))
        sys.stdout.write(f"{len(hosts)} ranks on {names}\n")


if __name__ == "__main__":  # under torchrun: -m powsm.cluster.ranks cuda|cpu SECONDS
    _main(*sys.argv[1:])
