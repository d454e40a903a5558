"""Stage 11 with ESPnet's own training loop, on the same files.

The published way to train: one row an example, the audio encoded for each of them.
What only our loop knows is left out of the settings, and logged. Audio is read in
place, as ESPnet's data type `powsm_audio`.
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import yaml
from espnet2.tasks import s2t, s2t_ctc

from powsm.audio import AudioError, read_audio
from powsm.files.lock import owned
from powsm.files.whole import atomic_write
from powsm.model.build import CTC_ONLY_MODELS
from powsm.model.find import keep_normaliser, keep_tokens
from powsm.settings import ConfigError
from powsm.train import config
from powsm.train.experiment.record import check_experiment, keep_record
from powsm.vocabulary.tokenizer import Tokenizer

log = logging.getLogger(__name__)

CRITERIA = {"loss", "loss_ctc", "loss_att", "acc", "cer_ctc", "cer", "wer"}
CRITERIA |= {"total_count"}  # iterations so far: the latest epochs
_RANKS = (("RANK", "0"), ("WORLD_SIZE", "1"))
ESPNET_TYPE = "powsm_audio"  # the name under which ESPnet knows our reader


class AudioScp(Mapping[str, np.ndarray]):
    """A `wav.scp` as a mapping from utt_id to speech, decoded when asked for.

    This is the reader ESPnet's own commands use for the type `powsm_audio`.
    """

    def __init__(self, path: str | Path):
        self._locations: dict[str, str] = {}
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                utt_id, _, location = line.rstrip("\n").partition(" ")
                if not location or utt_id in self._locations:
                    fault = "given twice" if location else "has no audio after it"
                    raise AudioError(f"{path}:{number}: {utt_id!r} {fault}")
                self._locations[utt_id] = location

    def __getitem__(self, utt_id: str) -> np.ndarray:
        return read_audio(self._locations[utt_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)


def register_with_espnet() -> None:
    """Teach ESPnet the data type `powsm_audio`, in this process.

    From then on `wav.scp,speech,powsm_audio` is a valid triple for ESPnet's commands.
    Calling it again changes nothing.
    """
    from espnet2.train import dataset, iterable_dataset

    dataset.DATA_TYPES[ESPNET_TYPE] = {
        "func": AudioScp,
        "kwargs": [],
        "help": "Speech in audio files or inside tar shards, read in place."
        "\n\n"
        "   utterance_id_a shard.tar:1536:48210\n"
        "   utterance_id_b b.flac\n"
        "   ...",
    }
    iterable_dataset.DATA_TYPES[ESPNET_TYPE] = read_audio


# On import, not in a function: ESPnet spawns a process for each GPU, which imports this
# module to get at StockTask.
register_with_espnet()


class StockTask(s2t.S2TTask):
    """ESPnet's task, under a name whose import teaches ESPnet to read our audio."""


class StockCtcTask(s2t_ctc.S2TTask):
    """The same for models without a decoder."""


def stock_task(model: str | None) -> type:
    return StockCtcTask if model in CTC_ONLY_MODELS else StockTask


def train(
    settings: Mapping,
    *,
    train_folder: Path,
    valid_folder: Path,
    token_dir: Path,
    stats: Path | None,
    exp: Path,
) -> None:
    """Train by the task of `espnet2.bin.s2t_train`.

    Ranks that torchrun or Slurm started (RANK, WORLD_SIZE) are taken as they are;
    otherwise ESPnet starts a process for each GPU itself.

    Args:
        settings: of the training YAML, `powsm.train.config.load`.
        train_folder: examples of stage 4, and `valid_folder` as well.
        token_dir: of stage 5.
        stats: feats_stats.npz of stage 10, for `normalize: global_mvn`.
        exp: experiment folder; a training in it is gone on with.

    Raises:
        ConfigError, ExperimentError: see `look`.
        OwnedError: another process trains there.
    """
    rank, world_size = (int(os.environ.get(key, d)) for key, d in _RANKS)
    folders = {"train_folder": train_folder, "valid_folder": valid_folder}
    settings = look(settings, **folders, token_dir=token_dir, stats=stats, exp=exp)
    for name, folder in (("train", train_folder), ("valid", valid_folder)):
        settings[f"{name}_data_path_and_name_and_type"] = [
            [str(folder / "wav.scp"), "speech", ESPNET_TYPE],
            [str(folder / "text.prev"), "text_prev", "text"],
            [str(folder / "text.ctc"), "text_ctc", "text"],
            [str(folder / "text"), "text", "text"],
        ]
        settings[f"{name}_shape_file"] = [str(folder / "utt2num_samples")]
    settings |= {
        "output_dir": str(exp),
        "resume": True,
        "multiprocessing_distributed": settings["ngpu"] > 1,
    }
    if world_size > 1:  # a launcher gave each rank a process, which has one device
        settings["multiprocessing_distributed"] = False
        settings["dist_backend"] = "nccl" if settings["ngpu"] else "gloo"
        settings["ngpu"] = min(1, settings["ngpu"])
    settings_file = exp / (f".settings.{rank}.yaml" if rank else "settings.yaml")
    with nullcontext() if rank else owned(exp):
        if rank == 0:  # whose settings become config.yaml
            kept = keep_tokens(Path(settings["bpemodel"]), exp)
            settings["bpemodel"] = str(kept)
        with atomic_write(settings_file) as file:
            yaml.safe_dump(settings, file, allow_unicode=True, sort_keys=False)
        if rank == 0:
            keep_normaliser(train_folder, exp)
            keep_record(argparse.Namespace(**settings), exp=exp, **folders)
        stock_task(settings["model"]).main(cmd=["--config", str(settings_file)])


def look(
    settings: Mapping,
    *,
    train_folder: Path,
    valid_folder: Path,
    token_dir: Path,
    stats: Path | None,
    exp: Path,
) -> dict:
    """Settings as ESPnet's loop takes them, where an experiment may be trained so.

    Nothing is written.

    Raises:
        ConfigError: a token list with faults, or a setting of our own loop.
        ExperimentError: the experiment was trained with something else.
    """
    config.check_tokens(token_dir / "tokens.txt")
    settings = config.with_data(settings, token_dir=token_dir, stats=stats)
    with tempfile.TemporaryDirectory() as scratch:
        settings = stock_settings(config.parse(settings, Path(scratch) / "s.yaml"))
    settings["fold_length"] = [80000]
    args = argparse.Namespace(**settings)
    folders = {"train_folder": train_folder, "valid_folder": valid_folder}
    check_experiment(args, exp=exp, **folders)
    Tokenizer(token_dir / "bpe.model", token_dir / "tokens.txt")  # which fit
    return settings


def stock_settings(args) -> dict:
    """The settings of ESPnet's own parser, changed where its loop cannot follow."""
    settings = config.stock_config(args)
    ours = settings["powsm"]
    asked = [key for key in ("augment", "lora", "utt2weight") if ours.get(key)]
    asked += [
        f"model_conf.{key}"
        for key in ("consistency_weight", "teacher")
        if ours["model_conf"].get(key)
    ]
    if asked:
        raise ConfigError(
            f"only our own loop reads {' '.join(asked)}: remove it, or train with "
            "--trainer powsm"
        )
    log.info("not used by ESPnet's loop: %s", ours)
    parser = stock_task(settings["model"]).get_parser()
    stock_keys = {action.dest for action in parser._actions}
    settings = {key: settings[key] for key in settings if key in stock_keys}
    criteria = settings["best_model_criterion"]
    known = [c for c in criteria if c[1] in CRITERIA]
    if known != criteria:
        is_ctc_only = settings["model"] in CTC_ONLY_MODELS
        known = known or [["valid", "total_count" if is_ctc_only else "acc", "max"]]
        log.info("best_model_criterion %s becomes %s", criteria, known)
    settings["best_model_criterion"] = known
    if settings["num_att_plot"] and keeps_no_attention(settings):
        log.info("num_att_plot becomes 0: this attention keeps no weights to plot")
        settings["num_att_plot"] = 0
    return settings


def keeps_no_attention(settings: Mapping) -> bool:
    """Whether attention is flash-attn's or PyTorch's: ESPnet's plots fail on both."""
    names = ("encoder_conf", "decoder_conf", "promptencoder_conf")
    parts = [settings[name] for name in names if name in settings]
    return any(part.get(f"use_{x}") for part in parts for x in ("flash_attn", "sdpa"))
