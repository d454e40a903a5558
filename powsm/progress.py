"""How far training is and how fast: seconds over all restarts, lines in the log."""

import logging
import time

import lightning as L

from powsm.litmodel import LitPowsm

log = logging.getLogger(__name__)


class Clock(L.Callback):
    """Training time over all restarts, and a line in the log every so often.

    Args:
        every: updates between two lines.
    """

    def __init__(self, every: int):
        self.every = every
        self.before = 0.0  # seconds of earlier runs
        self.started = time.monotonic()
        self._window = [time.monotonic(), 0.0]  # since when, seconds of audio

    @property
    def seconds(self) -> float:
        """Seconds of training, earlier runs included."""
        return self.before + time.monotonic() - self.started

    def on_train_start(self, trainer: L.Trainer, module: LitPowsm) -> None:
        self.started = time.monotonic()

    def state_dict(self) -> dict:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        self.before = state["seconds"]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self._window[1] += module.audio_seconds
        step = trainer.global_step
        last = batch_idx + 1 == trainer.num_training_batches
        at_update = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not at_update or (step % self.every and not last):
            return
        passed = time.monotonic() - self._window[0]
        speed = self._window[1] / max(passed, 1e-9)
        metrics = trainer.callback_metrics
        figures = " ".join(
            f"{key}={float(metrics[f'train/{key}']):.3f}"
            for key in ("loss", "loss_ctc", "loss_att", "acc", "grad_norm")
            if f"train/{key}" in metrics
        )
        total = trainer.estimated_stepping_batches
        left = (total - step) * self.seconds / max(step, 1)
        log.info(
            "update %d/%d: %s, %.0f s of audio a second, %.1f min left",
            step,
            total,
            figures,
            speed,
            left / 60,
        )
        self._window = [time.monotonic(), 0.0]
