"""Training configurations: YAML, `--set` overrides, and all faults told at once.

A configuration holds ESPnet's own keys (`encoder_conf`, `optim`, ...) and the few of
`OUR_KEYS`. It is read by ESPnet's own parser, so defaults are ESPnet's. With
`base: ../train_x.yaml` a file holds only what it changes of another.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str2bool, str_or_none

from powsm.files.whole import atomic_write
from powsm.model.build import CTC_ONLY_MODELS, task_of_model
from powsm.settings import ConfigError, apply_overrides, load_with_base
from powsm.train.dataset import CTC_TARGETS
from powsm.train.faults import faults

OUR_KEYS = (
    *("iterator", "batch_conf", "augment", "lora", "tasks", "ctc_target", "ema_decay"),
    *("checkpoint_every_n_updates", "checkpoint_every_minutes", "exchange_in_bfloat16"),
    *("compile", "ctc_only_updates", "stats_window", "utt2weight"),
)
# clips that mean and variance are taken from: as long as they are, or padded with
# silence to speech_length, as ESPnet's preprocessor pads in its stage 10, too
STATS_WINDOWS = ("own", "published")
_MODEL_KEYS = (
    *("guided_attention_weight", "share_encoder", "ctc_weight_range", "ctc_vocab"),
    *("consistency_weight", "interctc_vocab", "teacher", "teacher_weight"),
)
# with which no model of ESPnet's holds the parameters, or reads them the same way
_NOT_STOCK = {"ctc_vocab": "phones", "interctc_vocab": "phones"}


# what our loop reads, beside the parts of the model; ESPnet's parser knows many more
_READ_KEYS = {
    *OUR_KEYS,
    *("config", "output_dir", "seed", "ngpu", "num_workers", "log_interval"),
    *("max_epoch", "num_iters_per_epoch", "grad_clip", "use_amp", "init", "init_param"),
    *("freeze_param", "best_model_criterion", "keep_nbest_models", "input_size"),
    *("use_wandb", "wandb_project", "wandb_id", "wandb_entity", "wandb_name"),
    *("optim", "optim_conf", "scheduler", "scheduler_conf", "ctc_conf"),
    *("token_list", "token_type", "bpemodel"),
}


def get_parser(model: str | None = None) -> argparse.ArgumentParser:
    """The training parser of ESPnet's task for a model, with our options."""
    parser = task_of_model(model).get_parser()
    ours: dict[str, dict] = {
        # utterances: one encoder pass for all examples of a recording, batches by
        # length; published: one row per example, fixed window (the public recipe)
        "iterator": {"choices": ("utterances", "published"), "default": "utterances"},
        # powsm.train.batches.options.BatchOptions, for iterator utterances
        "batch_conf": {"action": NestedDictAction, "default": {}},
        # how often utterances come in a pass, powsm.prepare.weights; default: once
        "utt2weight": {"type": str_or_none},
        # train on these tasks only; default: all
        "tasks": {"nargs": "+"},
        # what the CTC head learns; text is what the decoder says of each example
        "ctc_target": {"choices": CTC_TARGETS, "default": "phones"},
        # keep an exponential moving average of the weights, validate it and write it
        # to <epoch>epoch.pth; 0 does not
        "ema_decay": {"type": float, "default": 0.0},
        # train CTC alone for this many updates before the decoder joins; small corpora
        # learn both sooner
        "ctc_only_updates": {"type": int, "default": 0},
        # mean and variance are those of clips at their own length, or padded with
        # silence to speech_length, as published
        "stats_window": {"choices": STATS_WINDOWS, "default": "own"},
        # powsm.train.augment.settings.Augment: speed, noise and reverberation of
        # recordings of training; none by default
        "augment": {"action": NestedDictAction, "default": {}},
        # powsm.train.parts.adapters.Lora: train adapters of this rank and what
        # --extend_vocab added, and nothing else; none by default
        "lora": {"action": NestedDictAction, "default": {}},
        # what changes neither the model nor the order and weight of its data
        # write a resumable checkpoint this often as well
        "checkpoint_every_n_updates": {"type": int},
        # write a resumable checkpoint this often, and at the end of each epoch
        "checkpoint_every_minutes": {"type": float, "default": 15.0},
        # gradients travel between ranks in 16 bits, as in the published training
        "exchange_in_bfloat16": {"type": str2bool, "default": False},
        # on a GPU, let PyTorch compile the layers of encoder and decoder
        "compile": {"type": str2bool, "default": False},
    }
    for name, how in ours.items():
        parser.add_argument(f"--{name}", **how)
    return parser


def check_tokens(path: Path) -> None:
    """Refuse a token list in which a token is missing or there twice.

    Raises:
        ConfigError: names file, line and token.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: not UTF-8 ({err}); run stage 5 again") from err
    if lines[-1] == "":
        lines.pop()
    first: dict[str, int] = {}
    for number, token in enumerate(lines, 1):
        if not token:
            raise ConfigError(f"{path}:{number}: an empty line; run stage 5 again")
        if token in first:
            raise ConfigError(
                f"{path}:{number}: token {token!r} is on line {first[token]} already; "
                "run stage 5 again"
            )
        first[token] = number
    if not lines:
        raise ConfigError(f"{path}: no tokens; run stage 5 again")
    # as ESPnet's models look them up
    if missing := [t for t in ("<blank>", "<unk>", "<sos>", "<eos>") if t not in first]:
        raise ConfigError(f"{path}: no {' '.join(missing)} in it; run stage 5 again")


def load(path: Path, overrides: Iterable[str] = ()) -> dict:
    """Read a training YAML and its base, apply overrides, check every key.

    Raises:
        ConfigError: lists all faults at once.
    """
    config = apply_overrides(load_with_base(path), overrides)
    told = faults(config, get_parser(config.get("model")))
    if len(told) == 1:
        raise ConfigError(f"{path}: {told[0]}")
    if told:
        lines = "\n  ".join(told)
        raise ConfigError(f"{path}: {len(told)} fault(s)\n  {lines}")
    return config


def with_data(settings: Mapping, *, token_dir: Path, stats: Path | None) -> dict:
    """Settings with the places of the tokens and statistics that they are used with."""
    settings = dict(settings) | {
        "token_list": str(token_dir / "tokens.txt"),
        "token_type": "bpe",
        "bpemodel": str(token_dir / "bpe.model"),
    }
    if settings.get("normalize") == "global_mvn":
        settings["normalize_conf"] = {"stats_file": str(stats)}
    return settings


def parse(config: Mapping, config_file: Path) -> argparse.Namespace:
    """All settings, ESPnet's defaults included, read by ESPnet's own parser.

    Args:
        config: a checked configuration.
        config_file: where it is written for the parser, which reads files only.
    """
    with atomic_write(config_file) as file:
        yaml.safe_dump(dict(config), file, allow_unicode=True, sort_keys=False)
    parser = get_parser(config.get("model"))
    return parser.parse_args(["--config", str(config_file)])


def not_read(args: argparse.Namespace) -> list[str]:
    """Settings as `key=value` that our loop would pass over, where not ESPnet's own."""
    parser = get_parser(args.model)
    parts = [choice.name for choice in task_of_model(args.model).class_choices_list]
    read = {*_READ_KEYS, *parts, *(f"{part}_conf" for part in parts)}
    return [
        f"{key}={value}"
        for key, value in sorted(vars(args).items())
        if key not in read and value != parser.get_default(key)
    ]


def stock_config(args: argparse.Namespace) -> dict:
    """The settings as stock ESPnet reads them, ours kept apart under `powsm`.

    The model becomes `espnet` or `espnet_ctc`: the parameters are the same, so
    ESPnet's inference loads the experiment without this package. With heads over phones
    alone it stays `powsm` or `powsm_ctc`, which stock ESPnet refuses by name.
    """
    config = dict(vars(args))
    config.pop("config", None)
    ours = {key: config.pop(key) for key in OUR_KEYS if key in config}
    model_conf = dict(config.get("model_conf") or {})
    ours["model"] = config["model"]
    ours["model_conf"] = {
        key: model_conf.pop(key) for key in _MODEL_KEYS if key in model_conf
    }
    kept = {k: v for k, v in ours["model_conf"].items() if _NOT_STOCK.get(k) == v}
    model_conf |= kept
    if not kept:
        is_ctc_only = config["model"] in CTC_ONLY_MODELS
        config["model"] = "espnet_ctc" if is_ctc_only else "espnet"
    config["model_conf"] = model_conf
    config["powsm"] = ours
    return config
