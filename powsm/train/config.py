"""Training configurations: YAML, `--set` overrides, and all faults told at once.

A configuration holds ESPnet's own keys (`encoder_conf`, `optim`, ...) and the few of
`OUR_KEYS`. It is read by ESPnet's own parser, so defaults are ESPnet's. With
`base: ../train_x.yaml` a file holds only what it changes of another.
"""

import argparse
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from espnet2.tasks.abs_task import optim_classes, scheduler_classes
from espnet2.utils.nested_dict_action import NestedDictAction

from powsm.files.whole import atomic_write
from powsm.model.s2t import PowsmTask
from powsm.settings import ConfigError, apply_overrides, load_with_base, nearest
from powsm.train.batches import BatchOptions
from powsm.train.dataset import CTC_TARGETS

OUR_KEYS = (
    "iterator",
    "batch_conf",
    "tasks",
    "ctc_target",
    "ema_decay",
    "checkpoint_every_n_updates",
    "ctc_only_updates",
)
_MODEL_KEYS = (
    "task_weights",
    "guided_attention_weight",
    "guided_attention_width",
    "share_encoder",
    "ctc_weight_range",
    "ctc_vocab",
)


# what our loop and the model it builds read; ESPnet's parser knows many more
_READ_KEYS = {
    *OUR_KEYS,
    *("config", "output_dir", "seed", "ngpu", "num_workers", "log_interval"),
    *("max_epoch", "num_iters_per_epoch", "grad_clip", "use_amp", "init", "init_param"),
    *("freeze_param", "best_model_criterion", "keep_nbest_models", "input_size"),
    *("use_wandb", "wandb_project", "wandb_id", "wandb_entity", "wandb_name"),
    *("optim", "optim_conf", "scheduler", "scheduler_conf", "ctc_conf"),
    *("token_list", "token_type", "bpemodel"),
    *(choice.name for choice in PowsmTask.class_choices_list),
    *(f"{choice.name}_conf" for choice in PowsmTask.class_choices_list),
}


def get_parser() -> argparse.ArgumentParser:
    """ESPnet's S2T training parser with our options."""
    parser = PowsmTask.get_parser()
    group = parser.add_argument_group("POWSM")
    group.add_argument(
        "--iterator",
        choices=("utterances", "published"),
        default="utterances",
        help="utterances: one encoder pass for all examples of a recording, batches "
        "by length; published: one row per example, fixed window (the public recipe)",
    )
    group.add_argument(
        "--batch_conf",
        action=NestedDictAction,
        default={},
        help="powsm.train.batches.BatchOptions, for iterator utterances",
    )
    group.add_argument(
        "--tasks",
        nargs="+",
        default=None,
        help="train on these tasks only (pr asr g2p p2g); default all",
    )
    group.add_argument(
        "--ctc_target",
        choices=CTC_TARGETS,
        default="phones",
        help="what the CTC head learns; text is what the decoder says of each example",
    )
    group.add_argument(
        "--ema_decay",
        type=float,
        default=0.0,
        help="keep an exponential moving average of the weights, validate it and write "
        "it to <epoch>epoch.pth; 0 does not",
    )
    group.add_argument(
        "--checkpoint_every_n_updates",
        type=int,
        default=1000,
        help="write a resumable checkpoint this often, and at the end of each epoch",
    )
    group.add_argument(
        "--ctc_only_updates",
        type=int,
        default=0,
        help="train CTC alone for this many updates before the decoder joins; small "
        "corpora learn both sooner",
    )
    return parser


def _accepted(cls: type) -> set[str]:
    """Keyword arguments a class takes, those of its bases behind **kwargs included."""
    names: set[str] = set()
    for base in inspect.getmro(cls):
        init = base.__dict__.get("__init__")
        if init is None or base is object:
            continue
        parameters = inspect.signature(init).parameters
        names |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names


def faults(config: Mapping) -> list[str]:
    """Every unknown key or choice of a configuration, with the nearest valid name."""
    parser = get_parser()
    known = {action.dest for action in parser._actions}
    found = [
        f"unknown key {key!r}{nearest(key, known)}"
        for key in config
        if key not in known
    ]
    classes = [
        (choice.name, choice.classes, choice.default)
        for choice in PowsmTask.class_choices_list
    ]
    classes += [
        ("optim", optim_classes, "adadelta"),
        ("scheduler", scheduler_classes, None),
    ]
    for name, choices, default in classes:
        chosen = config.get(name, default)
        if chosen is not None and chosen not in choices:
            found.append(f"{name}: unknown {chosen!r}{nearest(str(chosen), choices)}")
            continue
        conf = config.get(f"{name}_conf") or {}
        if chosen is None:
            found += [f"{name}_conf: set, but {name} is not"] if conf else []
            continue
        accepted = _accepted(choices[chosen])
        found += [
            f"{name}_conf.{key}: {chosen} does not take it{nearest(key, accepted)}"
            for key in conf
            if key not in accepted
        ]
    accepted = set(BatchOptions.__dataclass_fields__)
    found += [
        f"batch_conf.{key}: unknown{nearest(key, accepted)}"
        for key in config.get("batch_conf") or {}
        if key not in accepted
    ]
    return found


def load(path: Path, overrides: Iterable[str] = ()) -> dict:
    """Read a training YAML and its base, apply overrides, check every key.

    Raises:
        ConfigError: lists all faults at once.
    """
    config = apply_overrides(load_with_base(path), overrides)
    if found := faults(config):
        lines = "\n  ".join(found)
        raise ConfigError(f"{path}: {len(found)} fault(s)\n  {lines}")
    return config


def parse(config: Mapping, config_file: Path) -> argparse.Namespace:
    """All settings, ESPnet's defaults included, read by ESPnet's own parser.

    Args:
        config: a checked configuration.
        config_file: where it is written for the parser, which reads files only.
    """
    with atomic_write(config_file) as file:
        yaml.safe_dump(dict(config), file, allow_unicode=True, sort_keys=False)
    return get_parser().parse_args(["--config", str(config_file)])


def not_read(args: argparse.Namespace) -> list[str]:
    """Settings as `key=value` that our loop would pass over, where not ESPnet's own."""
    parser = get_parser()
    return [
        f"{key}={value}"
        for key, value in sorted(vars(args).items())
        if key not in _READ_KEYS and value != parser.get_default(key)
    ]


def stock_config(args: argparse.Namespace) -> dict:
    """The settings as stock ESPnet reads them, ours kept apart under `powsm`.

    The model becomes `espnet`: the parameters are the same, so ESPnet's inference
    loads the experiment without this package. With `ctc_vocab: phones` it stays
    `powsm`, which stock ESPnet refuses by name.
    """
    config = dict(vars(args))
    config.pop("config", None)
    ours = {key: config.pop(key) for key in OUR_KEYS if key in config}
    model_conf = dict(config.get("model_conf") or {})
    ours["model"] = config["model"]
    ours["model_conf"] = {
        key: model_conf.pop(key) for key in _MODEL_KEYS if key in model_conf
    }
    if ours["model_conf"].get("ctc_vocab") == "phones":
        model_conf["ctc_vocab"] = "phones"
    else:
        config["model"] = "espnet"
    config["model_conf"] = model_conf
    config["powsm"] = ours
    return config
