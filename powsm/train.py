"""Train: Lightning around ESPnet's task and model, with ESPnet's experiment folder.

Lightning brings ranks, precision, accumulation, checkpoints and loggers. What is
kept from ESPnet is what its users and its inference read: `config.yaml`,
`<epoch>epoch.pth`, `valid.<criterion>.ave_<n>best.pth`, `train.log`.

Every random number of a step comes from a counter (seed, step, rank), and the order
of the data from (seed, pass), so a run that was killed and resumed goes through the
same steps as one that was not.
"""

import argparse
import json
import logging
import math
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import lightning as L
import numpy as np
import torch
import yaml
from espnet2.layers.utterance_mvn import UtteranceMVN
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train.lightning_espnet_model import LitESPnetModel
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from powsm.batches import BatchOptions, plan_pass
from powsm.config import stock_config
from powsm.ctc_prefix import ctc_greedy
from powsm.dataset import UtteranceDataset, UtteranceLoader
from powsm.distance import PhonePairs
from powsm.files import atomic_write
from powsm.index import ExampleIndex
from powsm.model import PowsmTask
from powsm.tasks import TASKS
from powsm.tokenizer import Tokenizer

log = logging.getLogger(__name__)

MAX_BAD_STEPS = 20  # in a row, before a run stops itself


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says what to change."""


def text_encoder(args: argparse.Namespace) -> Callable[[dict], dict]:
    """ESPnet's S2T text preprocessing: strings of an example to int64 token ids.

    The tokens are those of `S2TPreprocessor`, but for `<unk>` as the language of a
    prompt, which ESPnet cuts into characters.

    Raises:
        TrainingError: the settings drop prompts or times at random.
    """
    for key in ("text_prev_apply_prob", "time_apply_prob"):
        value = dict(args.preprocessor_conf).get(key, 0.5)
        if value != 1.0:
            raise TrainingError(
                f"preprocessor_conf.{key} is {value}; g2p and p2g need their prompt, "
                "and the data hold no times: set it to 1.0, as the paper does"
            )
    tokenizer = Tokenizer(args.bpemodel, args.token_list)
    encode = {
        "text": tokenizer.encode_target,
        "text_prev": tokenizer.encode,
        "text_ctc": tokenizer.encode,
    }

    def encode_example(example: dict[str, str]) -> dict[str, np.ndarray]:
        return {
            name: np.array(encode[name](text), np.int64)
            for name, text in example.items()
        }

    return encode_example


class LitPowsm(LitESPnetModel):
    """ESPnet's Lightning module for the S2T task and utterance batches.

    Args:
        args: all settings, from `powsm.config.parse`.
        train_folder, valid_folder: dump folders of stage 4.
    """

    def __init__(
        self, args: argparse.Namespace, train_folder: Path, valid_folder: Path
    ):
        L.LightningModule.__init__(self)
        self.args = args
        self.folders = {"train": Path(train_folder), "valid": Path(valid_folder)}
        self.model = PowsmTask.build_model(args=args)
        self.batch_options = BatchOptions(
            **({"seed": args.seed} | dict(args.batch_conf))
        )
        self.bad_steps = 0
        self.valid_totals: dict[str, float] = {}
        self.valid_phones: dict[str, list] = {}
        self._datasets: dict[str, UtteranceDataset] = {}

    # ---------------------------------------------------------------- data

    def dataset(self, mode: str) -> UtteranceDataset:
        """The `train` or `valid` data, opened once."""
        if mode not in self._datasets:
            self._datasets[mode] = UtteranceDataset(
                ExampleIndex(self.folders[mode]),
                text_encoder(self.args),
                self.args.tasks,
            )
        return self._datasets[mode]

    def train_dataloader(self) -> UtteranceLoader:
        """This epoch's batches, from where a checkpoint left off."""
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return UtteranceLoader(
            self.dataset("train"),
            self.batch_options,
            updates_per_epoch=self.args.num_iters_per_epoch,
            epoch=self.current_epoch,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            first_step=done if self.trainer.fit_loop.restarting else 0,
            num_workers=self.args.num_workers,
        )

    def val_dataloader(self) -> UtteranceLoader:
        """All of the validation data, in the same batches every time."""
        seconds = self.batch_options.batch_seconds
        return UtteranceLoader(
            self.dataset("valid"),
            BatchOptions(batch_seconds=seconds, update_batches=self.trainer.world_size),
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            num_workers=self.args.num_workers,
        )

    def configure_optimizers(self):
        """ESPnet's optimizer and scheduler; Lightning wants no key for no scheduler."""
        chosen = super().configure_optimizers()
        if chosen["lr_scheduler"]["scheduler"] is None:
            del chosen["lr_scheduler"]
        return chosen

    # ------------------------------------------------------------------ steps

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        seed = np.random.SeedSequence([self.args.seed, step, self.global_rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))

    def training_step(self, batch, batch_idx: int) -> torch.Tensor | None:
        utt_ids, batch = batch
        loss, stats, weight = self.model(**batch)
        self.audio_seconds = float(batch["speech_lengths"].sum()) / 16_000
        self.log_dict(
            {f"train/{k}": v for k, v in stats.items() if v is not None},
            batch_size=int(weight),
        )
        self._last_utt_ids = utt_ids
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Skip an update whose gradient is not finite, and stop after many."""
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        self.log("train/grad_norm", norm)
        if torch.isfinite(norm):
            self.bad_steps = 0
            return
        self.bad_steps += 1
        log.warning(
            "step %d: gradient norm %s, update skipped (%d in a row); utterances: %s",
            self.global_step,
            float(norm),
            self.bad_steps,
            " ".join(self._last_utt_ids),
        )
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainingError(
                f"{MAX_BAD_STEPS} updates in a row had no finite gradient; lower the "
                "learning rate or look at the utterances named in the log"
            )
        for p in self.parameters():
            p.grad = None  # the optimiser leaves a parameter without gradient alone

    # ------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        self.valid_totals = defaultdict(float)
        self.valid_phones = defaultdict(list)

    def validation_step(self, batch, batch_idx: int) -> None:
        utt_ids, batch = batch
        _, stats, weight = self.model(**batch)
        totals = self.valid_totals
        for key, value in stats.items():
            if value is not None:
                totals[key] += float(value) * float(weight)
                totals[f"weight of {key}"] += float(weight)
        if self.model.ctc is None:
            return
        memory, memory_lens = self.model.encode(
            batch["speech"], batch["speech_lengths"]
        )
        memory = memory[0] if isinstance(memory, tuple) else memory
        tokens = self.model.token_list
        log_probs = self.model.ctc.log_softmax(memory)
        hyps = ctc_greedy(log_probs, memory_lens, blank=self.model.blank_id)
        for utt_id, hyp, ref, n in zip(
            utt_ids,
            hyps,
            batch["text_ctc"].tolist(),
            batch["text_ctc_lengths"].tolist(),
            strict=True,
        ):
            pair = (
                _phones(tokens[i] for i in hyp.tokens),
                _phones(tokens[i] for i in ref[:n]),
            )
            self.valid_phones[utt_id.rpartition("_")[2]].append(pair)

    def on_validation_epoch_end(self) -> None:
        totals = dict(self.valid_totals)
        by_lang = {lang: _counts(pairs) for lang, pairs in self.valid_phones.items()}
        if self.trainer.world_size > 1:
            gathered: list = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, (totals, by_lang))
            totals, by_lang = defaultdict(float), defaultdict(lambda: np.zeros(3))
            for some_totals, some_langs in gathered:
                for key, value in some_totals.items():
                    totals[key] += value
                for key, value in some_langs.items():
                    by_lang[key] += value
        metrics = {
            key: value / totals[f"weight of {key}"]
            for key, value in totals.items()
            if not key.startswith("weight of ")
        }
        if by_lang:
            by_lang["all"] = sum(by_lang.values())
            for lang, (edits, distance, n_ref) in sorted(by_lang.items()):
                tail = "" if lang == "all" else f"_{lang}"
                metrics[f"per_ctc{tail}"] = 100 * edits / n_ref
                metrics[f"pfer_ctc{tail}"] = 100 * distance / n_ref
        # each rank has the same sums by now
        self.log_dict({f"valid/{k}": float(v) for k, v in metrics.items()})
        self.valid_metrics = metrics


def _phones(tokens: Iterable[str]) -> list[str]:
    """The phones among tokens `/x/`; the CTC head is taught nothing else."""
    return [t[1:-1] for t in tokens if len(t) > 2 and t[0] == t[-1] == "/"]


def _counts(pairs: list[tuple[list[str], list[str]]]) -> np.ndarray:
    """Phone edits, feature edit distance and reference phones of (hyp, ref) pairs."""
    phones = PhonePairs(hyp=[h for h, _ in pairs], ref=[r for _, r in pairs])
    edits = phones.edit_counts().sum()
    return np.array([edits, phones.distances("feature").sum(), phones.n_ref.sum()])


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
        self.nbest = nbest
        self.history_file = exp / "history.jsonl"

    def history(self) -> list[dict]:
        """One record an epoch: epoch, updates, seconds and every validation figure."""
        if not self.history_file.exists():
            return []
        lines = self.history_file.read_text().splitlines()
        return [json.loads(line) for line in lines]

    def best(self, name: str, mode: str) -> list[int]:
        """Epochs with the n best values of a criterion, best first."""
        rows = [r for r in self.history() if math.isfinite(r.get(name, math.nan))]
        rows.sort(key=lambda r: (r[name] if mode == "min" else -r[name], r["epoch"]))
        return [row["epoch"] for row in rows[: self.nbest]]

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
        rows = [r for r in self.history() if r["epoch"] < epoch] + [record]
        _save(module.model.state_dict(), self.exp / f"{epoch}epoch.pth")
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

    def average(self) -> Path:
        """Write `valid.<criterion>.ave_<n>best.pth` for each criterion.

        Returns:
            The file of the first criterion.

        Raises:
            TrainingError: no epoch has a value of a criterion.
        """
        written = []
        for phase, name, mode in self.criteria:
            epochs = self.best(name, mode)
            if not epochs:
                raise TrainingError(
                    f"best_model_criterion {phase} {name}: no epoch has it; the "
                    f"validation figures are {sorted(self.history()[-1])}"
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
            _save(average, path)
            link = self.exp / f"{phase}.{name}.ave.pth"
            link.unlink(missing_ok=True)
            link.symlink_to(path.name)
            written.append(path)
            log.info("averaged epochs %s into %s", epochs, path)
        return written[0]


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    with atomic_write(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as err:
            if isinstance(err.__context__, OSError):  # which torch talks over
                raise err.__context__ from None
            raise


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


def _strategy(world_size: int):
    if world_size == 1:
        return "auto"
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    return DDPStrategy(process_group_backend=backend)


def train(
    args: argparse.Namespace, *, train_folder: Path, valid_folder: Path, exp: Path
) -> Path:
    """Train to `max_epoch`, going on from the newest checkpoint in `exp`.

    Args:
        args: all settings, from `powsm.config.parse`.
        train_folder, valid_folder: dump folders of stage 4.
        exp: the experiment folder.

    Returns:
        The averaged model of the first criterion.

    Raises:
        TrainingError: gradients stay infinite, or a criterion does not exist.
    """
    if args.iterator == "published":
        raise TrainingError(
            "iterator: published is ESPnet's own sampler with one row per example; "
            "train with --trainer espnet, or set iterator=utterances"
        )
    exp.mkdir(parents=True, exist_ok=True)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    args.output_dir = str(exp)
    set_all_random_seed(args.seed)
    torch.set_flush_denormal(True)  # numbers near zero cost a CPU a hundred times more
    module = LitPowsm(args, train_folder, valid_folder)
    options = module.batch_options
    if options.update_batches % world_size:
        raise TrainingError(
            f"batch_conf.update_batches is {options.update_batches}, not a multiple of "
            f"the {world_size} ranks; change one of them"
        )
    accumulate = options.update_batches // world_size
    clock = Clock(args.log_interval or 50)
    module.trained_seconds = lambda: clock.seconds
    models = EpochModels(exp, args.best_model_criterion, _nbest(args))
    resumable = ModelCheckpoint(
        dirpath=exp / "checkpoints",
        filename="step{step:09d}",
        auto_insert_metric_name=False,
        every_n_train_steps=args.checkpoint_every_n_updates,
        save_top_k=2,
        monitor="step",
        mode="max",
        save_last=False,
    )
    trainer = L.Trainer(
        accelerator="auto" if args.ngpu > 0 else "cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=world_size // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy=_strategy(world_size),
        precision="bf16-mixed" if args.use_amp else "32-true",
        max_epochs=args.max_epoch,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=args.grad_clip if args.grad_clip > 0 else None,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        log_every_n_steps=10,
        callbacks=[clock, models, resumable, LearningRateMonitor()],
        logger=TensorBoardLogger(exp, name="tensorboard", version=""),
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )
    if trainer.is_global_zero:
        with atomic_write(exp / "config.yaml") as file:
            yaml.safe_dump(
                stock_config(args), file, allow_unicode=True, sort_keys=False
            )
        _announce(module, accumulate, world_size)
    # it is: train_dataloader starts where the checkpoint's counters say
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
    trainer.fit(module, ckpt_path=newest_checkpoint(exp))
    return models.average() if trainer.is_global_zero else exp


def _nbest(args: argparse.Namespace) -> int:
    nbest = args.keep_nbest_models
    return max(nbest) if isinstance(nbest, list) else nbest


def newest_checkpoint(exp: Path) -> Path | None:
    """The checkpoint with the most updates, or None before the first."""
    checkpoints = sorted((exp / "checkpoints").glob("step*.ckpt"))
    return checkpoints[-1] if checkpoints else None


def _announce(module: LitPowsm, accumulate: int, world_size: int) -> None:
    options = module.batch_options
    index = module.dataset("train").index
    plan = plan_pass(index.num_samples, options, 0)
    hours = index.num_samples.sum() / 16_000 / 3600
    parameters = sum(p.numel() for p in module.model.parameters())
    log.info(
        "%.1f M parameters; %d utterances, %.1f h; a pass is %d batches of up to "
        "%.0f s; an update is %d batches: %d rank(s) x %d accumulated; tasks: %s",
        parameters / 1e6,
        len(index),
        hours,
        len(plan),
        options.batch_seconds,
        options.update_batches,
        world_size,
        accumulate,
        " ".join(module.args.tasks or TASKS),
    )
    if isinstance(module.model.normalize, UtteranceMVN) and options.window_share:
        log.warning("utterance_mvn normalises silence too; use global_mvn with padding")
