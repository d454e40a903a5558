"""How far training is, how fast, and whether it moves: log, bar and watchdog."""

import datetime
import faulthandler
import logging
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from powsm.train.lit import LitPowsm

log = logging.getLogger(__name__)

STALL_S = 600.0  # seconds without a batch, checkpoint or validation step
_RECENT = 50  # batches over which speed is taken
_FIGURES = ("loss", "loss_ctc", "loss_att", "acc")


class _Batch(NamedTuple):
    end: float  # seconds of the monotonic clock
    audio_s: float
    n_examples: int


class Clock(L.Callback):
    """Training time over all restarts, speed, and a line in the log every so often.

    Args:
        every: updates between two lines.
    """

    def __init__(self, every: int):
        self.every = every
        self.before = 0.0  # seconds of earlier runs
        self.started = time.monotonic()
        self._recent: deque[_Batch] = deque(maxlen=_RECENT + 1)
        self._since_line: list[tuple[int, Mapping[str, torch.Tensor | None]]] = []

    @property
    def seconds(self) -> float:
        """Seconds of training, earlier runs included."""
        return self.before + time.monotonic() - self.started

    def speed(self) -> tuple[float, float]:
        """Seconds of audio, and examples, that this rank takes in a second."""
        batches = list(self._recent)[1:]  # the first one's beginning is not known
        if not batches:
            return 0.0, 0.0
        passed = max(batches[-1].end - self._recent[0].end, 1e-9)
        audio_s = sum(b.audio_s for b in batches)
        return audio_s / passed, sum(b.n_examples for b in batches) / passed

    def seconds_left(self, trainer: L.Trainer) -> float:
        """Until the last update, at the speed of all updates so far."""
        total, step = trainer.estimated_stepping_batches, trainer.global_step
        return (total - step) * self.seconds / max(step, 1)

    def on_train_start(self, trainer: L.Trainer, module: LitPowsm) -> None:
        self.started = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, module: LitPowsm) -> None:
        self._recent.clear()  # validation lies between

    def state_dict(self) -> dict:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        self.before = state["seconds"]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self._recent.append(
            _Batch(time.monotonic(), module.audio_seconds, module.n_examples)
        )
        self._since_line.append((module.n_examples, module.train_stats))
        step = trainer.global_step
        last = batch_idx + 1 == trainer.num_training_batches
        at_update = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not at_update or (step % self.every and not last):
            return
        figures = {key: self._mean(key) for key in _FIGURES}
        self._since_line.clear()
        if (norm := trainer.callback_metrics.get("train/grad_norm")) is not None:
            figures["grad_norm"] = float(norm)
        log.info(
            "update %d/%d: %s, %.0f s of audio a second, %.1f min left",
            step,
            trainer.estimated_stepping_batches,
            " ".join(f"{k}={v:.3f}" for k, v in figures.items() if v is not None),
            self.speed()[0],
            self.seconds_left(trainer) / 60,
        )

    def _mean(self, key: str) -> float | None:
        """Over the examples since the last line; a batch differs by its length."""
        found = [
            (n, float(stats[key]))
            for n, stats in self._since_line
            if stats.get(key) is not None
        ]
        n_examples = sum(n for n, _ in found)
        return sum(n * x for n, x in found) / n_examples if n_examples else None


class Bar(TQDMProgressBar):
    """Lightning's bar with examples and hours of audio a second, and time to the end.

    Args:
        clock: another callback of the same trainer.
    """

    def __init__(self, clock: Clock):
        super().__init__()
        self._clock = clock

    def get_metrics(self, trainer: L.Trainer, module: LitPowsm) -> dict[str, str]:
        audio_s, examples = (n * trainer.world_size for n in self._clock.speed())
        left = datetime.timedelta(seconds=round(self._clock.seconds_left(trainer)))
        loss = trainer.callback_metrics.get("train/loss")
        return {
            "loss": "" if loss is None else f"{float(loss):.2f}",
            "examples/s": f"{examples:.1f}",
            "audio": f"{audio_s / 3600:.3g} h/s",
            "left": str(left),
        }


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

    def on_exception(self, trainer, module, exception: BaseException) -> None:
        self._ended.set()  # Lightning does not tear down a run that ended like this

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
