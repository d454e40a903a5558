"""Batches of an epoch in their order, for one rank, from any of them on."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.util import Finalize

import numpy as np
from torch.utils.data import DataLoader

from powsm.audio import AudioError
from powsm.errors import PowsmError
from powsm.model.batch import Batch
from powsm.model.layout import LayoutMaker
from powsm.train.batches import BatchOptions, PassPlan
from powsm.train.dataset import UtteranceDataset, collate

# What asks training to save and end.
STOP_SIGNALS = (
    *(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2),  # of batch systems
    *(signal.SIGINT, signal.SIGHUP),  # Ctrl-C, and a terminal that is closed
)


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
        if self.num_workers:
            # unlike atexit, it acts in processes that multiprocessing started, too
            Finalize(None, _end_workers, exitpriority=0)
        try:
            yield from DataLoader(
                self.dataset,
                batch_sampler=_Keys(self._keys, len(self) - self.first_step),
                collate_fn=partial(_laid_out, self.layout_maker),
                num_workers=self.num_workers,
                worker_init_fn=_leave_signals,
                pin_memory=self.pin_memory,
            )
        except AudioError as err:
            # a loading process sends its whole traceback; the message ends it
            message = str(err).rstrip().rpartition("\n")[2]
            kind = f"{AudioError.__module__}.{AudioError.__qualname__}: "
            raise AudioError(message.removeprefix(kind)) from err


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
    for process in multiprocessing.active_children():
        process.kill()


class _Keys:
    """A batch sampler from a function that makes the iterator."""

    def __init__(self, make: Callable[[], Iterator], n: int):
        self._make = make
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator:
        return self._make()
