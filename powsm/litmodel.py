"""The Lightning module: ESPnet's S2T model over utterance batches, and its validation.

Every random number of a step comes from a counter (seed, step, rank), so a run that was
killed and resumed goes through the same steps as one that was not.
"""

import argparse
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import lightning as L
import numpy as np
import torch
from espnet2.train.lightning_espnet_model import LitESPnetModel

from powsm.batches import BatchOptions
from powsm.ctc_prefix import ctc_greedy
from powsm.dataset import UtteranceDataset, UtteranceLoader
from powsm.distance import PhonePairs
from powsm.index import ExampleIndex
from powsm.model import PowsmTask
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
        self.ctc_weight = self.model.ctc_weight
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
        # a weight of 1 leaves the decoder out of the step altogether
        ctc_alone = self.trainer.global_step < self.args.ctc_only_updates
        self.model.ctc_weight = 1.0 if ctc_alone else self.ctc_weight

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
        self.model.ctc_weight = self.ctc_weight  # so that epochs compare
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
