"""The model of each epoch under ESPnet's file names, and averages of the best."""

import json
import logging
import math
from pathlib import Path

import lightning as L
import torch

from powsm.files.whole import atomic_write
from powsm.train.checkpoints import save_whole
from powsm.train.lit import LitPowsm
from powsm.train.memory import TrainingError

log = logging.getLogger(__name__)


class EpochModels(L.Callback):
    """ESPnet's `<epoch>epoch.pth` files, their history, and the n-best averages.

    Args:
        exp: the experiment folder.
        criteria: ESPnet's `best_model_criterion`: (phase, name, min or max).
        nbest: how many models are averaged.
    """

    def __init__(self, exp: Path, criteria: list, nbest: int):
        self.exp = exp
        self.criteria = [c for c in criteria if c[0] == "valid"]
        if not self.criteria:
            raise TrainingError(
                f"best_model_criterion {criteria}: expected one of validation, such as "
                "[[valid, loss, min]]"
            )
        self.nbest = nbest
        self.history_file = exp / "history.jsonl"

    def history(self) -> list[dict]:
        """One record an epoch: epoch, updates, seconds and every validation figure."""
        if not self.history_file.exists():
            return []
        lines = self.history_file.read_text().splitlines()
        return [json.loads(line) for line in lines]

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
            save_whole(module.model.state_dict(), path)

    def on_validation_end(self, trainer: L.Trainer, module: LitPowsm) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        record = {
            "epoch": epoch,
            "updates": trainer.global_step,
            "seconds": round(module.trained_seconds(), 1),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
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
                state = torch.load(
                    self.exp / f"{epoch}epoch.pth",
                    map_location="cpu",
                    weights_only=True,
                )
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
