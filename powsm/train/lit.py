"""The Lightning module: ESPnet's S2T model over batches of recordings.

The path of one update, in order:

1. `batches.plan_pass` has said which utterances make which batch, from (seed, pass)
   alone: the same on every rank, and after a break.
2. `loader.UtteranceLoader` takes those of this rank and update from the plan, and its
   processes read them: `dataset.UtteranceDataset` for audio, augmented where asked,
   and token ids, `dataset.collate` for a `model.batch.Batch`.
3. `on_before_batch_transfer` counts examples while lengths are on the CPU;
   `on_train_batch_start` seeds the step from (seed, step, rank), sets the CTC weight.
4. `training_step` runs `model.s2t.PowsmModel`: encoder and CTC head once for each
   recording, the decoder for each example. The loss is a mean over examples and
   counts by their number. `backward` adds to the gradients.
5. A batch that does not fit is taken in halves (`memory.UpdateInParts`), in 4.
6. 3 to 5 for every batch that this rank has of the update. Then
   `on_before_optimizer_step` adds gradients and statistics up over the ranks
   (`memory.mean_gradients`): the gradient is that of the mean over all examples. An
   update whose gradient is not finite is skipped.
7. Lightning clips, and steps optimiser and scheduler. `progress.Clock` writes a line,
   `checkpoints.ResumableCheckpoint` saves, or ends the run at a signal.

Every random number of a step comes from a counter, so a run that was killed and resumed
goes through the same steps as one that was not.
"""

import argparse
import logging
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import lightning as L
import numpy as np
import torch
from espnet2.train.lightning_espnet_model import LitESPnetModel

from powsm.audio import SAMPLE_RATE
from powsm.model.batch import Batch
from powsm.model.build import task_of_model
from powsm.model.kernels import choose_attention, choose_convolutions, compile_layers
from powsm.model.layout import LayoutMaker
from powsm.model.s2t_ctc import PowsmCtcModel, set_language_dropout
from powsm.prepare.index import ExampleIndex
from powsm.train.augment.apply import Augmenter
from powsm.train.augment.settings import Augment
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.plan import PLAN_VERSION
from powsm.train.dataset import UtteranceDataset, collate, text_encoder
from powsm.train.loader import UtteranceLoader
from powsm.train.memory import (
    Parts,
    StatSums,
    TrainingError,
    UpdateInParts,
    mean_gradients,
)
from powsm.train.parts.teacher import Teacher
from powsm.train.validation import Shown, Validation

log = logging.getLogger(__name__)

MAX_BAD_STEPS = 20  # in a row, before a run stops itself


class LitPowsm(LitESPnetModel):
    """ESPnet's Lightning module for the S2T task and utterance batches.

    Args:
        args: all settings, from `powsm.train.config.parse`.
        train_folder, valid_folder: dump folders of stage 4.
    """

    def __init__(
        self, args: argparse.Namespace, train_folder: Path, valid_folder: Path
    ):
        L.LightningModule.__init__(self)
        self.args = args
        self.folders = {"train": Path(train_folder), "valid": Path(valid_folder)}
        choose_attention()
        self.model = task_of_model(args.model).build_model(args=args)
        choose_convolutions(self.model)
        if isinstance(self.model, PowsmCtcModel):
            set_language_dropout(self.model, args.preprocessor_conf)
            if source := dict(args.model_conf).get("teacher"):
                self.model.teacher = Teacher.load(source, self.model, args.ctc_target)
        self.batch_options = BatchOptions(
            **({"seed": args.seed} | dict(args.batch_conf))
        )
        self.ctc_weight = self.model.ctc_weight
        self.bad_steps = 0
        self.lr = 0.0  # of the last update; the optimiser has that of the next
        self._update = UpdateInParts(self)
        self.parts = Parts()
        self._taken_in: list[Batch] = []  # parts of the batch under way, on the CPU
        self._sums = StatSums(self.model.stat_names)
        self._has_gradients = False  # already, before the backward pass
        self._seen: list[tuple[list[str], torch.Tensor]] = []  # in this update
        self._validation = Validation(self.model, self.args.ctc_target)
        self.valid_metrics: dict[str, float] = {}
        self.valid_shown: list[Shown] = []
        self._datasets: dict[str, UtteranceDataset] = {}
        self._passes: dict = {}  # what they are of, and their "updates"
        self._resumed: dict | None = None  # a checkpoint, until its loops are restored

    # ---------------------------------------------------------------- data

    def dataset(self, mode: str) -> UtteranceDataset:
        """The `train` or `valid` data, opened once."""
        if mode not in self._datasets:
            is_train = mode == "train"
            augment = Augment.of(self.args.augment) if is_train else None
            utt2weight = self.args.utt2weight if is_train else None
            self._datasets[mode] = UtteranceDataset(
                ExampleIndex(self.folders[mode]),
                text_encoder(self.args),
                self.args.tasks,
                self.args.ctc_target,
                augment and Augmenter(augment, self.args.seed),
                utt2weight and Path(utt2weight),
            )
        return self._datasets[mode]

    def train_dataloader(self) -> UtteranceLoader:
        """This epoch's batches, from where a checkpoint left off."""
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return self._loader(
            "train",
            self.batch_options,
            updates_per_epoch=self.args.num_iters_per_epoch,
            epoch=self.current_epoch,
            first_step=done if self.trainer.fit_loop.restarting else 0,
            updates_of_passes=self._updates_of_passes(),
        )

    def _loader(self, mode: str, options: BatchOptions, **how) -> UtteranceLoader:
        return UtteranceLoader(
            self.dataset(mode),
            options,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            num_workers=self.args.num_workers,
            pin_memory=self.device.type == "cuda",
            layout_maker=self._layout_maker(),
            **how,
        )

    def _updates_of_passes(self) -> list[int]:
        """Those known; none when the data, or how batches are made of them, changed."""
        n_samples = self.dataset("train").index.n_samples
        made_of = asdict(self.batch_options) | {
            "plan": PLAN_VERSION,
            "tasks": self.args.tasks,
            "utterances": len(n_samples),
            "samples": int(n_samples.sum()),
        }
        if (augment := self.dataset("train").augment) is not None:
            made_of["speeds"] = list(augment.settings.speed)
        if (times := self.dataset("train").times) is not None:
            made_of["times"] = zlib.crc32(times.tobytes())
        if self._passes.get("made_of") != made_of:
            self._passes = {"made_of": made_of, "updates": []}
        return self._passes["updates"]

    def _layout_maker(self) -> LayoutMaker | None:
        """None where the model has no use for layouts: encoder-only, or repeating."""
        if not getattr(self.model, "share_encoder", False):
            return None
        return getattr(self.model, "layout_maker", None)

    def val_dataloader(self) -> UtteranceLoader:
        """All of the validation data, in the same batches every time.

        The ranks take equally many: at the end some take a batch of another rank
        again, which `validation_step` does not count.
        """
        seconds = self.batch_options.batch_seconds
        return self._loader("valid", BatchOptions(batch_seconds=seconds), whole=True)

    def configure_optimizers(self):
        """ESPnet's optimizer and scheduler; Lightning wants no key for no scheduler."""
        chosen = super().configure_optimizers()
        if chosen["lr_scheduler"]["scheduler"] is None:
            del chosen["lr_scheduler"]
        return chosen

    def on_fit_start(self) -> None:
        if self._resumed is not None:
            self._count_anew(self._resumed)
            self._resumed = None
        if self.args.compile:
            self._compile()

    def _compile(self) -> None:
        """Compile the layers, where that works and is worth it."""
        fault = "only on a GPU is it worth its minutes"
        if self.device.type == "cuda":
            fault = compile_layers(self.model, self._try_step)
        if fault is not None:
            log.warning("compile: true is left out: %s", fault)

    def _try_step(self) -> None:
        """A step that changes nothing."""
        dataset = self.dataset("train")
        keys = dataset.plan(self.batch_options, 0).batch(0)
        batch = self.parts.of(collate([dataset[key] for key in keys]))[0]
        batch = batch.to(self.device)
        try:
            with self.trainer.precision_plugin.train_step_context():
                loss = self.model(**batch.arguments())[0]
            loss.backward()
        finally:
            for p in self.parameters():
                p.grad = None

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["batches_per_update"] = self.trainer.accumulate_grad_batches
        checkpoint["passes"] = self._passes

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._resumed = checkpoint
        self._passes = checkpoint.get("passes", {})

    def _count_anew(self, checkpoint: dict) -> None:
        """Turn a rank's batches so far into those of this run's ranks, by updates.

        Lightning counts batches, of which a rank has more or fewer in an update when
        the number of ranks is another, or `update_batches`.
        """
        now = self.trainer.accumulate_grad_batches
        before = checkpoint.get("batches_per_update", now)  # earlier files lack it
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            more = counts["ready"] // before * now - counts["ready"]
            for key in counts:  # "completed" is one behind while a checkpoint is made
                counts[key] += more

    # ------------------------------------------------------------------ steps

    def seed_step(self, step: int, part: int = 0) -> None:
        """Random numbers of a batch, or of a part of it, from counters."""
        counters = [self.args.seed, step, self.global_rank] + ([part] if part else [])
        seed = np.random.SeedSequence(counters)
        torch.manual_seed(int(seed.generate_state(1)[0]))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count while the lengths are on the CPU: a GPU would be waited for."""
        self.audio_seconds = float(batch.speech_lengths.sum()) / SAMPLE_RATE
        self.padded_seconds = batch.speech.numel() / SAMPLE_RATE
        self.n_examples = batch.n_examples
        self._stat_weights = self.model.stat_weights(self._sums.names, batch.text)
        parts = self.parts.of(batch) if self.trainer.training else []
        if len(parts) > 1 and (make := self._layout_maker()):
            parts = [replace(part, layout=make(part)) for part in parts]
        self._taken_in = parts
        return batch

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        self.seed_step(self.trainer.fit_loop.epoch_loop.total_batch_idx)
        begins = self.global_step < self.args.ctc_only_updates
        if begins and self.model.ctc is not None:
            # a weight of 1 leaves the decoder out of the step altogether
            self.model.ctc_weight = 1.0
        elif between := getattr(self.model, "ctc_weight_range", None):
            step = self.trainer.fit_loop.epoch_loop.total_batch_idx
            rng = np.random.default_rng([self.args.seed, step])
            self.model.ctc_weight = rng.uniform(*between)  # the same on every rank
        else:
            self.model.ctc_weight = self.ctc_weight

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        is_whole = len(self._taken_in) < 2
        self._update.hold(batch, step, () if is_whole else self._taken_in)
        loss = None
        try:
            if is_whole:
                loss, stats, _ = self.model(**batch.arguments())
        except torch.OutOfMemoryError:
            pass  # its frames hold tensors: go on outside of this clause
        self._has_gradients = loss is None
        if loss is None:
            again = self._update.do_again if is_whole else self._update.add_parts
            stats = again()
            loss = torch.zeros((), device=self.device, requires_grad=True)
        self.train_stats = stats
        self._seen.append((batch.utt_ids, stats["loss"]))
        self._sums.add(stats, self._stat_weights)
        return loss * self._update.weight(batch)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer) -> None:
        """Called between `training_step` and `backward`."""
        if not self._has_gradients:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of a batch, in parts where it does not fit.

        Raises:
            TrainingError: a single recording does not fit.
        """
        try:
            loss.backward()
            return
        except torch.OutOfMemoryError:
            pass  # as above
        # the caller holds the loss, and it the graph, whose memory is wanted
        loss.detach_()
        self._update.do_again()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The mean over all examples; an update without a finite one is skipped.

        Raises:
            TrainingError: many in a row had none.
        """
        self.lr = optimizer.param_groups[0]["lr"]
        unit, n_examples = self._update.clear()
        sums = mean_gradients(
            self.parameters(),
            n_examples=n_examples,
            divided_by=unit * self.trainer.accumulate_grad_batches,
            sums=self._sums.take(self.device),
            in_bfloat16=self.args.exchange_in_bfloat16,
        )
        means = self._sums.means(sums)
        self.log_dict({f"train/{name}": mean for name, mean in means.items()})
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        seen, self._seen = self._seen, []
        norm = self._norm = torch.nn.utils.get_total_norm(grads)
        self.log("train/grad_norm", norm)
        if torch.isfinite(norm):
            self.bad_steps = 0
            return
        self.bad_steps += 1
        self._tell_skipped(float(norm), seen)
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainingError(
                f"{MAX_BAD_STEPS} updates in a row had no finite gradient; lower the "
                "learning rate or look at the utterances named in the log"
            )
        for p in self.parameters():
            p.grad = None  # the optimiser leaves a parameter without gradient alone

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm that is known already.

        Lightning's own way computes it again, and refuses `optim_conf.fused` under
        autocast because of a scaling of gradients that bfloat16 does not have.
        """
        if gradient_clip_val:
            of = list(self.parameters())
            torch.nn.utils.clip_grads_with_norm_(of, gradient_clip_val, self._norm)

    def _tell_skipped(
        self, norm: float, seen: list[tuple[list[str], torch.Tensor]]
    ) -> None:
        """Each rank names those in batches without a finite loss, or all if none is."""
        bad = [ids for ids, loss in seen if not torch.isfinite(loss)]
        is_known = self.trainer.strategy.reduce_boolean_decision(bool(bad), all=False)
        named = bad if is_known else [ids for ids, _ in seen]
        if named:
            log.warning(
                "rank %d, step %d: gradient norm %s, update skipped (%d in a row); "
                "utterances: %s",
                *(self.global_rank, self.global_step, norm, self.bad_steps),
                " ".join(utt_id for ids in named for utt_id in ids),
            )

    # ------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        self.model.ctc_weight = self.ctc_weight  # so that epochs compare
        self._validation = Validation(self.model, self.args.ctc_target)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        model = self.model
        encoded = None
        if getattr(model, "share_encoder", False):
            batch = model.laid_out(batch)
            encoded = model.encode_batch(batch)
            _, stats, _ = model.losses(batch, encoded)
        else:
            _, stats, _ = model(**batch.arguments())
        if not self.trainer.val_dataloaders.is_repeated(batch_idx):
            self._validation.add(batch, stats, encoded)

    def on_validation_epoch_end(self) -> None:
        # each rank has the same figures
        self.valid_metrics = self._validation.figures(self.trainer.world_size)
        self.valid_shown = self._validation.shown()
        self.log_dict({f"valid/{k}": v for k, v in self.valid_metrics.items()})
