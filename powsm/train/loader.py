"""Batches of an epoch in their order, for one rank, from any of them on."""

import io
import multiprocessing
import pickle
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize

import numpy as np
import torch
from torch.utils.data import DataLoader

from powsm.errors import PowsmError
from powsm.model.batch import Batch
from powsm.model.layout import LayoutMaker
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.plan import PassPlan
from powsm.train.dataset import UtteranceDataset, collate

# What asks training to save and end.
STOP_SIGNALS = (
    *(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2),  # of batch systems
    *(signal.SIGINT, signal.SIGHUP),  # Ctrl-C, and a terminal that is closed
)

_FILES = 256  # descriptors of a process, and more for each loading process
_FILES_A_WORKER = 16  # two batches of it under way, a descriptor each, and pipes
_ALIGNMENT = 64  # bytes; where a tensor begins in the memory of its batch

# When this process began to wait for a batch; None while it does not.
waiting_since: float | None = None


class LoadingError(PowsmError):
    """A batch that did not reach the training process; the message says what to do."""


class UtteranceLoader:
    """Batches of one epoch for one rank, beginning at any of them at once.

    An epoch is a stretch of the endless series of passes: epoch e of n updates
    begins at update e x n, wherever in a pass that is. Without a number of updates it
    is the whole updates of pass e.

    Args:
        dataset: what is read.
        options: how batches are made.
        updates_per_epoch: length of an epoch in updates; None makes it a pass.
        whole: every batch of one pass instead, by length, whatever `update_batches`
            is: for validation.
        epoch: number of the epoch, from 0.
        rank, world_size: this process among the ranks.
        first_step: how many of the epoch's batches on this rank are already done.
        updates_of_passes: updates of the passes from the first on, as far as they are
            known; those are not planned again to find where an epoch begins. What is
            found is added.
        num_workers: loading processes.
        layout_maker: what a model works out from lengths and ids, so that they do it.

    Raises:
        PowsmError: `update_batches` is not a multiple of `world_size`, unless `whole`.
    """

    def __init__(
        self,
        dataset: UtteranceDataset,
        options: BatchOptions,
        *,
        updates_per_epoch: int | None = None,
        whole: bool = False,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        first_step: int = 0,
        updates_of_passes: list[int] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        layout_maker: LayoutMaker | None = None,
    ):
        if not whole and options.update_batches % world_size:
            raise PowsmError(
                f"update_batches ({options.update_batches}) must be a multiple of the "
                f"number of ranks ({world_size})"
            )
        self.dataset = dataset
        self.options = options
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.first_step = first_step
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.layout_maker = layout_maker
        if whole:
            self.batches_per_update = 1
            self._first = (epoch, self._plan_whole(epoch), 0)
            self._updates = len(self._first[1]) // world_size
            return
        self.batches_per_update = options.update_batches // world_size
        if updates_per_epoch is None:
            self._first = (epoch, self._plan(epoch), 0)
            self._updates = len(self._first[1]) // options.update_batches
        else:
            known = [] if updates_of_passes is None else updates_of_passes
            self._first = self._find(epoch * updates_per_epoch, known)
            self._updates = updates_per_epoch

    def _plan(self, number: int) -> PassPlan:
        return self.dataset.plan(self.options, number)

    def _plan_whole(self, number: int) -> PassPlan:
        """Every batch, and to even the ranks out the first ones again."""
        plan = self._plan(number)
        self._n_batches = plan.bounds.size - 1
        rounds = -(-self._n_batches // self.world_size)
        order = np.resize(np.arange(self._n_batches), rounds * self.world_size)
        return replace(plan, order=order)

    def is_repeated(self, step: int) -> bool:
        """Whether batch `step` of a `whole` pass on this rank evens the ranks out."""
        return step * self.world_size + self.rank >= self._n_batches

    def _find(self, skip: int, known: list[int]) -> tuple[int, PassPlan, int]:
        """Where the update after the first `skip` is: pass, its plan, update there."""
        for number, updates in enumerate(known):
            if skip < updates:
                return number, self._plan(number), skip
            skip -= updates
        while True:
            plan = self._plan(len(known))
            known.append(len(plan) // self.options.update_batches)
            if skip < known[-1]:
                return len(known) - 1, plan, skip
            skip -= known[-1]

    def __len__(self) -> int:
        """Batches of the whole epoch on this rank, those already done included."""
        return self._updates * self.batches_per_update

    def _keys(self) -> Iterator[list[tuple[int, int, int]]]:
        number, plan, update = self._first
        size = self.batches_per_update * self.world_size
        for step in range(len(self)):
            if (update + 1) * size > len(plan):
                number += 1
                plan = self._plan(number)
                update = 0
            part = step % self.batches_per_update
            if step >= self.first_step:
                yield plan.batch(update * size + part * self.world_size + self.rank)
            if part == self.batches_per_update - 1:
                update += 1

    def __iter__(self) -> Iterator[Batch]:
        """Batches; see `handing_over` for the errors of loading processes."""
        if self.num_workers:
            _allow_files(_FILES + self.num_workers * _FILES_A_WORKER)
            # unlike atexit, it acts in processes that multiprocessing started, too
            Finalize(None, _end_workers, exitpriority=0)
        laid_out = partial(_laid_out, self.layout_maker)
        batches = iter(
            DataLoader(
                self.dataset,
                batch_sampler=self._keys(),
                collate_fn=partial(_handed, laid_out) if self.num_workers else laid_out,
                num_workers=self.num_workers,
                worker_init_fn=_leave_signals,
                pin_memory=self.pin_memory,
            )
        )
        while True:
            with handing_over(), _waiting():
                batch = next(batches, None)
                if isinstance(batch, _Handed):
                    batch = batch.taken()
            if batch is None:
                return
            yield batch


@contextmanager
def handing_over() -> Iterator[None]:
    """Tell in one line what keeps a batch from reaching the training process.

    Raises:
        PowsmError, OSError: of a loading process, which sends its whole traceback.
        LoadingError: a loading process was killed, which PyTorch tells by an error
            wherever the training process is.
    """
    try:
        yield
    except (PowsmError, OSError) as err:
        if not str(err).startswith("Caught "):
            raise
        module = "" if isinstance(err, OSError) else f"{type(err).__module__}."
        kind = f"{module}{type(err).__qualname__}: "
        message = str(err).rstrip().rpartition(kind)[2]
        raise type(err)(message) from err
    except RuntimeError as err:
        if not str(err).startswith("DataLoader worker"):
            raise
        how = " ".join(str(err).split()).rstrip(".").removeprefix("DataLoader worker ")
        raise LoadingError(
            f"a loading process ended: {how}; is there memory enough? Set num_workers "
            "lower; the same command goes on from the last checkpoint"
        ) from err


@contextmanager
def _waiting() -> Iterator[None]:
    global waiting_since
    waiting_since = time.monotonic()
    try:
        yield
    finally:
        waiting_since = None


def _allow_files(n: int) -> None:
    """Let this process, and those that it starts, open as many files.

    Raises:
        LoadingError: the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= n:
        return
    if hard != resource.RLIM_INFINITY and hard < n:
        raise LoadingError(
            f"a process may open {hard} files here, and loading needs {n}: raise the "
            "limit (ulimit -Hn), or set num_workers lower"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))


@dataclass(frozen=True)
class _Handed:
    """A batch on its way from a loading process, its tensors one stretch of memory.

    PyTorch would share each on its own, with a file and a greeting of both processes.

    Attributes:
        memory: how to find the shared bytes of all tensors.
        rest: the batch, with places in those bytes for tensors.
    """

    memory: bytes
    rest: bytes

    @classmethod
    def of(cls, batch: Batch) -> "_Handed":
        file = io.BytesIO()
        pickler = _WithoutTensors(file)
        pickler.dump(batch)
        memory = torch.empty(pickler.n_bytes, dtype=torch.uint8).share_memory_()
        for start, tensor in pickler.tensors:
            stretch = memory[start : start + tensor.nbytes]
            stretch.view(tensor.dtype).view(tensor.shape).copy_(tensor)
        return cls(bytes(ForkingPickler.dumps(memory)), file.getvalue())

    def taken(self) -> Batch:
        try:
            memory = pickle.loads(self.memory)
        except (OSError, EOFError) as err:  # whoever holds the memory is gone
            raise LoadingError(
                f"a loading process ended while it handed over a batch ({err}); is "
                "there memory enough? Set num_workers lower; the same command goes on "
                "from the last checkpoint"
            ) from err
        return _WithTensors(io.BytesIO(self.rest), memory).load()

    def pin_memory(self) -> Batch:
        """PyTorch's loader asks, in a thread."""
        return self.taken().pin_memory()


class _WithoutTensors(pickle.Pickler):
    """Writes where tensors are to lie in place of what they hold."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[tuple[int, torch.Tensor]] = []
        self.n_bytes = 0

    def persistent_id(self, obj):
        if not isinstance(obj, torch.Tensor):
            return None
        start = self.n_bytes
        self.tensors.append((start, obj))
        self.n_bytes += -(-obj.nbytes // _ALIGNMENT) * _ALIGNMENT
        return start, obj.nbytes, obj.dtype, tuple(obj.shape)


class _WithTensors(pickle.Unpickler):
    """Reads tensors off the memory that they lie in."""

    def __init__(self, file: io.BytesIO, memory: torch.Tensor):
        super().__init__(file)
        self._memory = memory

    def persistent_load(self, place) -> torch.Tensor:
        start, n_bytes, dtype, shape = place
        return self._memory[start : start + n_bytes].view(dtype).view(shape)


def _handed(laid_out: Callable[[Sequence[dict]], Batch], items: Sequence[dict]):
    """A batch ready to be sent, so that what goes wrong there is an error here.

    PyTorch leaves that to a thread, whose errors nobody sees: the batch never comes.
    """
    batch = laid_out(items)
    try:
        return _Handed.of(batch)
    except (OSError, RuntimeError) as err:
        remedy = "give it more (in a container --shm-size=8g), or set num_workers=0"
        if "AF_UNIX" in str(err):
            folder = tempfile.gettempdir()
            remedy = f"set TMPDIR to a shorter name than {folder}"
        message = " ".join(str(err).split())
        raise LoadingError(
            f"a loading process cannot hand over a batch ({message}): {remedy}"
        ) from err


def _laid_out(layout_maker: LayoutMaker | None, items: Sequence[dict]) -> Batch:
    batch = collate(items)
    if layout_maker is None:
        return batch
    return replace(batch, layout=layout_maker(batch))


def _leave_signals(worker: int) -> None:
    """Let the training process alone see signals: it saves, and needs its data."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """End what loads when an error ends training: Python would ask with SIGTERM."""
    if signal.getsignal(signal.SIGCHLD) is not None:  # PyTorch's takes it for an error
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        process.kill()
