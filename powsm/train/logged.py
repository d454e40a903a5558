"""What a training tells beside losses: what it is, speed, memory, padding, examples."""

import argparse
import logging
import os
import uuid
from collections import Counter
from pathlib import Path

import lightning as L
import torch
from espnet2.layers.utterance_mvn import UtteranceMVN
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from powsm.files.whole import write_whole
from powsm.formatting import markdown_table
from powsm.tasks import TASKS
from powsm.train.lit import LitPowsm
from powsm.train.memory import TrainingError
from powsm.train.progress import Clock

log = logging.getLogger(__name__)


def loggers(args: argparse.Namespace, exp: Path) -> list[Logger]:
    """TensorBoard always; Weights & Biases where ESPnet's `use_wandb` asks for it."""
    made: list[Logger] = [TensorBoardLogger(exp, name="tensorboard", version="")]
    if args.use_wandb and int(os.environ.get("RANK", "0")) == 0:
        kept = exp / "wandb_id"  # a resumed training goes on in the same run
        run_id = args.wandb_id or uuid.uuid4().hex[:8]
        if kept.exists():
            run_id = kept.read_text()
        try:
            made.append(
                WandbLogger(
                    save_dir=exp,
                    project=args.wandb_project or "powsm",
                    name=args.wandb_name or exp.name,
                    entity=args.wandb_entity,
                    id=run_id,
                )
            )
        except ModuleNotFoundError as err:
            raise TrainingError(
                "use_wandb is true, but the package wandb is not installed: install it "
                "beside this one (pip install wandb), or set use_wandb to false"
            ) from err
        write_whole(kept, run_id)
    return made


class Logged(L.Callback):
    """A training to begin with, then speed, memory, padding, examples, augmentation.

    Every few updates `run/audio_hours_a_second` of all ranks together,
    `run/padding_share` of what this rank computed since the line before, and on a GPU
    `run/gpu_memory_gib`, the most that was taken in that time. At each validation a few
    recordings of the validation data with what greedy CTC hears. At the end of an epoch
    a line in the log on what augmentation did to the recordings of this rank.

    Args:
        clock: another callback of the same trainer, called before this one.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self._audio_s = self._padded_s = 0.0
        self._done: Counter[str] = Counter()
        self._n_recordings = 0

    def on_fit_start(self, trainer: L.Trainer, module: LitPowsm) -> None:
        """A line on what is trained, once batches have their size."""
        if not trainer.is_global_zero:
            return
        options = module.batch_options
        dataset = module.dataset("train")
        n_utts, hours = dataset.in_use()
        log.info(
            "%.1f M parameters; %d utterances, %.1f h; a pass is %d batches of up to "
            "%.0f s; an update is %d batches: %d rank(s) on %s x %d accumulated; "
            "tasks: %s",
            sum(p.numel() for p in module.model.parameters()) / 1e6,
            n_utts,
            hours,
            len(dataset.plan(options, 0)),
            options.batch_seconds,
            options.update_batches,
            trainer.world_size,
            module.device.type,
            trainer.accumulate_grad_batches,
            " ".join(module.args.tasks or TASKS),
        )
        if options.window_share and isinstance(module.model.normalize, UtteranceMVN):
            log.warning(
                "utterance_mvn normalises silence too; use global_mvn with padding"
            )

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self._audio_s += module.audio_seconds
        self._padded_s += module.padded_seconds
        self._done.update(batch.done)
        self._n_recordings += batch.n_recordings
        is_update = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_update or trainer.global_step % trainer.log_every_n_steps:
            return
        figures = {
            "run/audio_hours_a_second": self._clock.speed()[0]
            * trainer.world_size
            / 3600,
            "run/padding_share": 1 - self._audio_s / self._padded_s,
        }
        self._audio_s = self._padded_s = 0.0
        if module.device.type == "cuda":
            taken = torch.cuda.max_memory_allocated(module.device)
            figures["run/gpu_memory_gib"] = taken / 2**30
            torch.cuda.reset_peak_memory_stats(module.device)
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, module: LitPowsm) -> None:
        if module.dataset("train").augment is not None:
            log.info(
                "epoch %d: of %d recordings on rank %d were augmented: %s",
                trainer.current_epoch + 1,
                self._n_recordings,
                trainer.global_rank,
                ", ".join(f"{n} {what}" for what, n in sorted(self._done.items())),
            )
        self._done.clear()
        self._n_recordings = 0

    def on_validation_end(self, trainer: L.Trainer, module: LitPowsm) -> None:
        rows = [list(row) for row in module.valid_shown]
        if not rows or not trainer.is_global_zero:
            return
        titles = ["utt_id", "heard (greedy CTC)", "said"]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                table, step = markdown_table(titles, rows), trainer.global_step
                logger.experiment.add_text("valid/examples", table, step)
            elif isinstance(logger, WandbLogger):
                logger.log_text("valid/examples", columns=titles, data=rows)
