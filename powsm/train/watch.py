"""Training that is told to stop saves first; training that hangs says where.

Both are Lightning callbacks. Batch systems announce the end of a job with a signal:
Slurm sends SIGTERM before it kills, and SIGUSR1 or SIGUSR2 when asked to (--signal).
"""

import faulthandler
import logging
import signal
import socket
import sys
import threading
import time
from types import FrameType

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STALL_S = 600.0  # seconds without a batch, checkpoint or validation step


class StoppedBySignal(Exception):
    """Training ended at a signal; its state is saved and it can go on from there."""


class ResumableCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints every so many updates, at the end of epochs, at a signal.

    The last update of an epoch is saved with the epoch, after its validation: Lightning
    goes on from a checkpoint between the two as if the next epoch were over. At a
    signal training is saved and ends. It may reach the ranks at different times, or one
    of them alone: they agree after every update.

    Args:
        options: of ModelCheckpoint.
    """

    def __init__(self, **options):
        super().__init__(save_on_train_epoch_end=True, **options)
        self._every_n_epochs = 1  # which ModelCheckpoint does not take beside updates
        self._signal: int | None = None
        self._is_stopping = False
        self._old_handlers: dict[int, object] = {}

    @property
    def state_key(self) -> str:
        """The same however often it saves, so that earlier files are known."""
        return type(self).__name__

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_start(trainer, module)
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:  # in place of Lightning's for SIGTERM
                self._old_handlers[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        asked = self._signal is not None
        self._is_stopping = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if self._is_stopping:
            self._every_n_train_steps = 1
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        self._stop(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        super().on_train_epoch_end(trainer, module)
        self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        if self._is_stopping:
            name = signal.Signals(self._signal).name if self._signal else "a signal"
            raise StoppedBySignal(
                f"{name}: saved at update {trainer.global_step} in {self.dirpath}; "
                "the same command goes on from there"
            )

    def teardown(self, trainer, module, stage: str) -> None:
        super().teardown(trainer, module, stage)
        while self._old_handlers:
            signal.signal(*self._old_handlers.popitem())


class Watchdog(L.Callback):
    """Prints the stack of every thread of a rank when nothing moves for too long.

    Training is not ended: a slow disk may come back, and a collective that does not
    has its own time limit.

    Args:
        stall_s: seconds without a sign of life.
    """

    def __init__(self, stall_s: float = STALL_S):
        self.stall_s = stall_s
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._rank = 0

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self._rank = trainer.global_rank
        self._last = time.monotonic()
        self._ended.clear()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def teardown(self, trainer, module, stage: str) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self.stall_s / 10):
            if time.monotonic() - self._last >= self.stall_s:
                sys.stderr.write(
                    f"rank {self._rank} on host {socket.gethostname()}: nothing moved "
                    f"for {self.stall_s:.0f} s; the stack of each thread:\n"
                )
                sys.stderr.flush()
                faulthandler.dump_traceback(all_threads=True)
                self._last = time.monotonic()

    def _beat(self, *args) -> None:
        self._last = time.monotonic()

    on_train_batch_start = on_train_batch_end = _beat
    on_validation_batch_end = on_validation_end = _beat
    on_save_checkpoint = _beat
