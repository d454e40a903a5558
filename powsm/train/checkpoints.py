"""What training writes: checkpoints to resume from, models of epochs, and averages.

All are written whole or not at all. Batch systems announce the end of a job with a
signal: Slurm sends SIGTERM before it kills, and SIGUSR1 or SIGUSR2 when asked to
(--signal). Ctrl-C and a closed terminal are signals as well.
"""

import json
import logging
import math
import pickle
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from powsm.files.whole import atomic_write, sweep_files
from powsm.score.results import HISTORY_FILE, read_history
from powsm.train import loader
from powsm.train.lit import LitPowsm
from powsm.train.memory import TrainingError
from powsm.train.parts.adapters import merged_state
from powsm.train.progress import Clock

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 20.0  # for a batch, after a signal that asks for the end


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their place and renamed into it.

    Lightning itself writes to the system's temporary folder and moves the file. From
    one file system to another, as to a cluster's scratch disk, such a move is a copy,
    and a kill in its middle leaves half a checkpoint under the newest name.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        save_whole(checkpoint, Path(path))


def save_whole(state: dict[str, Any], path: Path) -> None:
    """`torch.save` that leaves the old file or the new one, nothing between."""
    with atomic_write(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as err:
            if isinstance(err.__context__, OSError):  # which torch talks over
                raise err.__context__ from None
            raise


def checkpoints(exp: Path) -> list[Path]:
    """Those of an experiment, the one with the most updates first."""
    return sorted((exp / "checkpoints").glob("step*.ckpt"), reverse=True)


def newest_checkpoint(exp: Path) -> Path | None:
    """The checkpoint with the most updates, or None before the first."""
    return next(iter(checkpoints(exp)), None)


def checkpoint_to_resume(exp: Path, model: torch.nn.Module) -> Path | None:
    """The newest checkpoint that is whole and fits the model; None before the first.

    Raises:
        TrainingError: there are checkpoints, and none can be used.
    """
    faults = []
    for path in checkpoints(exp):
        fault = _fault(path, model)
        if fault is None:
            return path
        log.warning("%s: %s; the one before is looked at", path, fault)
        faults.append(f"{path.name} {fault}")
    if faults:
        raise TrainingError(
            f"{exp}/checkpoints: no checkpoint can be used ({'; '.join(faults)}); "
            "remove them to begin anew, or take another --exp_name"
        )
    return None


def _fault(path: Path, model: torch.nn.Module) -> str | None:
    """What is wrong with a checkpoint."""
    try:
        # mapped: what is not looked at is not read
        saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        weights = {
            name.removeprefix("model."): value
            for name, value in saved["state_dict"].items()
        }
        if not {"loops", "optimizer_states", "global_step"} <= saved.keys():
            return "is not one of this training"
    except (KeyError, TypeError, AttributeError):
        return "is not one of this training"
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError):
        return f"is damaged or half-written ({path.stat().st_size:,} bytes)"
    expected = model.state_dict()
    if other := sorted(expected.keys() ^ weights.keys()):
        return f"is of another model: {other[0]} is in one of them only"
    for name, value in expected.items():
        if value.shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, not {tuple(value.shape)}"
            return f"is of another model: {name} has shape {shapes}"
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            return f"holds NaN or infinity in {name}"
    return None


def remove_broken_off(exp: Path) -> None:
    """Remove what kills in the middle of writing left behind."""
    sweep_files(exp, below=False)  # other stages write below
    sweep_files(exp / "checkpoints")


class StoppedBySignal(Exception):
    """Training ended at a signal; its state is saved and it can go on from there."""


class ResumableCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints by updates, by time, at the end of epochs, at a signal.

    The last update of an epoch is saved with the epoch, after its validation: Lightning
    goes on from a checkpoint between the two as if the next epoch were over. At a
    signal training is saved and ends. It may reach the ranks at different times, or one
    of them alone: they agree after every update, as on when the time has come. Where no
    batch comes any more, so that no update ends, training ends without saving.

    Args:
        every_s: most seconds between two checkpoints; None leaves time out of it.
        options: of ModelCheckpoint.
    """

    def __init__(self, every_s: float | None = None, **options):
        super().__init__(save_on_train_epoch_end=True, **options)
        self._every_s = math.inf if every_s is None else every_s
        self._saved_at = time.monotonic()
        self._every_n_epochs = 1  # which ModelCheckpoint does not take beside updates
        self._signal: int | None = None
        self._is_stopping = False
        self._goes_on_at = 0  # updates that are done
        self._old_handlers: dict[int, object] = {}

    @property
    def state_key(self) -> str:
        """The same however often it saves, so that earlier files are known."""
        return type(self).__name__

    def on_load_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        self._goes_on_at = checkpoint["global_step"]

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Refuse ranks that found different checkpoints: they train different models.

        Raises:
            TrainingError: names the update of each of these ranks.
        """
        found = _of_ranks(trainer, self._goes_on_at)
        if len(set(found)) > 1:
            told = ", ".join(f"rank {rank} at {n}" for rank, n in enumerate(found))
            raise TrainingError(
                f"{self.dirpath}: ranks would go on from different updates ({told}); "
                "put the experiment in a folder that all machines share"
            )

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_start(trainer, module)
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in loader.STOP_SIGNALS:  # in place of Lightning's for SIGTERM
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                    self._old_handlers[number] = signal.signal(number, self._note)
            self._old_handlers[signal.SIGALRM] = signal.signal(
                signal.SIGALRM, self._look_at_wait
            )

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        signal.setitimer(signal.ITIMER_REAL, LONGEST_WAIT_S / 4, LONGEST_WAIT_S / 4)

    def _look_at_wait(self, number: int, frame: FrameType | None) -> None:
        """End a wait for data after a signal: no update would come to an end."""
        since = loader.waiting_since
        if since is not None and time.monotonic() - since > LONGEST_WAIT_S:
            newest = newest_checkpoint(Path(self.dirpath).parent)
            goes_on = f"goes on from {newest}" if newest else "begins anew"
            raise StoppedBySignal(
                f"{signal.Signals(self._signal).name}: no data came for "
                f"{LONGEST_WAIT_S:.0f} s, so the update under way is not saved; the "
                f"same command {goes_on}"
            )

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        asked = self._signal is not None
        is_time = time.monotonic() - self._saved_at >= self._every_s
        self._is_stopping, is_time = _any_rank(trainer, asked, is_time)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        by_updates = self._every_n_train_steps
        if self._is_stopping or is_time:
            self._every_n_train_steps = 1
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        self._every_n_train_steps = by_updates
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

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        """Save, and remove all but the last two, those of earlier runs as well.

        Lightning forgets, when it goes on, the checkpoint that it goes on from.
        """
        super()._save_checkpoint(trainer, filepath)
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            for path in checkpoints(Path(self.dirpath).parent)[self.save_top_k :]:
                path.unlink(missing_ok=True)

    def on_train_end(self, trainer, module) -> None:
        super().on_train_end(trainer, module)
        self._give_signals_back()  # before Lightning gives back its own

    def on_exception(self, trainer, module, exception: BaseException) -> None:
        super().on_exception(trainer, module, exception)
        self._give_signals_back()

    def _give_signals_back(self) -> None:
        if signal.SIGALRM in self._old_handlers:
            signal.setitimer(signal.ITIMER_REAL, 0)
        while self._old_handlers:
            signal.signal(*self._old_handlers.popitem())


def _any_rank(trainer: L.Trainer, *claims: bool) -> list[bool]:
    """Whether each claim is true on some rank, in one exchange."""
    if trainer.world_size == 1:
        return list(claims)
    told = torch.tensor(claims, dtype=torch.int32, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return [bool(claim) for claim in told.tolist()]


def _of_ranks(trainer: L.Trainer, number: int) -> list[int]:
    """A number of each rank."""
    if trainer.world_size == 1:
        return [number]
    mine = torch.tensor([number], device=trainer.strategy.root_device)
    told = [torch.empty_like(mine) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(told, mine)
    return torch.cat(told).tolist()


class EpochModels(L.Callback):
    """ESPnet's `<epoch>epoch.pth` files, their history, and the n-best averages.

    Args:
        exp: the experiment folder.
        criteria: ESPnet's `best_model_criterion`: (phase, name, min or max).
        nbest: how many models are averaged.
        clock: says how long training took so far.
    """

    def __init__(self, exp: Path, criteria: list, nbest: int, clock: Clock):
        self.exp = exp
        self.clock = clock
        self.criteria = [c for c in criteria if c[0] == "valid"]
        if not self.criteria:
            raise TrainingError(
                f"best_model_criterion {criteria}: expected one of validation, such as "
                "[[valid, loss, min]]"
            )
        self.nbest = nbest
        self.history_file = exp / HISTORY_FILE

    def history(self) -> list[dict]:
        """One record an epoch: epoch, updates, seconds and every validation figure."""
        return read_history(self.exp)

    def best(self, name: str, mode: str) -> list[int]:
        """Epochs with the n best values of a criterion, best first.

        Those whose weights are gone, since fewer or others were kept, do not count.
        """
        rows = [
            row
            for row in self.history()
            if math.isfinite(row.get(name, math.nan))
            and (self.exp / f"{row['epoch']}epoch.pth").exists()
        ]
        rows.sort(key=lambda r: (r[name] if mode == "min" else -r[name], r["epoch"]))
        return [row["epoch"] for row in rows[: self.nbest]]

    def on_validation_epoch_end(self, trainer: L.Trainer, module: LitPowsm) -> None:
        """Save the weights that were validated: Lightning's averaging, which comes
        after this callback, takes its own away again at this moment."""
        if trainer.is_global_zero:
            path = self.exp / f"{trainer.current_epoch + 1}epoch.pth"
            save_whole(merged_state(module.model), path)

    def on_validation_end(self, trainer: L.Trainer, module: LitPowsm) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        record = {
            "epoch": epoch,
            "updates": trainer.global_step,
            "seconds": round(self.clock.seconds, 1),
            "lr": module.lr,
        }
        train = trainer.callback_metrics
        for key in ("loss", "loss_ctc", "loss_att", "acc"):
            if f"train/{key}" in train:
                record[f"train_{key}"] = float(train[f"train/{key}"])
        record |= {k: float(v) for k, v in module.valid_metrics.items()}
        for _, name, _ in self.criteria:
            if name not in record:
                raise self._no_figure(name, sorted(module.valid_metrics))
        rows = [r for r in self.history() if r["epoch"] < epoch] + [record]
        with atomic_write(self.history_file) as file:
            file.writelines(json.dumps(r) + "\n" for r in rows)
        keep = {epoch}
        for _, name, mode in self.criteria:
            keep |= set(self.best(name, mode))
        for path in self.exp.glob("*epoch.pth"):
            if int(path.name.removesuffix("epoch.pth")) not in keep:
                path.unlink()
        shown = ("loss", "loss_ctc", "loss_att", "acc", "per_ctc", "pfer_ctc")
        log.info(
            "epoch %d, %d updates, %.0f s: %s",
            epoch,
            trainer.global_step,
            record["seconds"],
            " ".join(f"{k}={record[k]:.3f}" for k in shown if k in record),
        )

    def _no_figure(self, name: str, known: list[str]) -> TrainingError:
        return TrainingError(
            f"best_model_criterion valid {name}: validation has no such figure, but "
            f"{' '.join(known)}"
        )

    def average(self) -> Path:
        """Write `valid.<criterion>.ave_<n>best.pth` for each criterion.

        Returns:
            The file of the first criterion.

        Raises:
            TrainingError: no epoch that was kept has a value of a criterion.
        """
        written = []
        for phase, name, mode in self.criteria:
            epochs = self.best(name, mode)
            if not epochs:
                raise TrainingError(
                    f"best_model_criterion {phase} {name}: none of the epochs kept has "
                    f"a finite value; see {self.history_file}"
                )
            average: dict[str, torch.Tensor] = {}
            for epoch in epochs:
                path = self.exp / f"{epoch}epoch.pth"
                state = torch.load(path, map_location="cpu", weights_only=True)
                for key, value in state.items():
                    share = value / len(epochs) if value.is_floating_point() else value
                    if key in average and value.is_floating_point():
                        average[key] = average[key] + share
                    else:
                        average[key] = share
            path = self.exp / f"{phase}.{name}.ave_{len(epochs)}best.pth"
            save_whole(average, path)
            link = self.exp / f"{phase}.{name}.ave.pth"
            link.unlink(missing_ok=True)
            link.symlink_to(path.name)
            written.append(path)
            log.info("averaged epochs %s into %s", epochs, path)
        return written[0]
