"""What is wrong with a training configuration: all of it, by key, in words."""

import argparse
import inspect
import math
from collections.abc import Mapping

from espnet2.tasks.abs_task import optim_classes, scheduler_classes
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import int_or_none, str2bool, str_or_none

from powsm.audio import SAMPLE_RATE
from powsm.model.build import CTC_ONLY_MODELS, task_of_model
from powsm.settings import fits, hint_name, is_number, nearest, unknown_keys, value_at
from powsm.tasks import TASKS
from powsm.train.augment import settings as augmentation
from powsm.train.batches.options import BatchOptions
from powsm.train.parts import adapters


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Arguments a class takes, those of its bases behind **kwargs included."""
    taken: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(cls):
        init = base.__dict__.get("__init__")
        if init is None or base is object:
            continue
        parameters = inspect.signature(init).parameters
        taken = dict(parameters) | taken
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return taken


def _hint(parameter: inspect.Parameter) -> object:
    """What an argument takes, by its annotation or its default."""
    hint, default = parameter.annotation, parameter.default
    if hint is not parameter.empty and not isinstance(hint, str):
        return hint | None if default is None and hint in (int, float, str) else hint
    if parameter.name == "use_cross_attention":  # one for all blocks, or one each
        return bool | list
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float):
        return float
    return str if isinstance(default, str) else object


def _type_faults(
    name: str, conf: Mapping, parameters: Mapping[str, inspect.Parameter]
) -> list[str]:
    return [
        f"{name}.{key}: {value!r}, expected {hint_name(hint)}"
        for key, value in conf.items()
        if key in parameters and not fits(value, hint := _hint(parameters[key]))
    ]


def _conf_faults(config: Mapping) -> list[str]:
    """Choices that do not exist, and what their `*_conf` do not take."""
    classes = [
        (choice.name, choice.classes, choice.default)
        for choice in task_of_model(config.get("model")).class_choices_list
    ]
    classes += [
        ("optim", optim_classes, "adadelta"),
        ("scheduler", scheduler_classes, None),
    ]
    told = []
    for name, choices, default in classes:
        chosen = config.get(name, default)
        if str(chosen).lower() in ("none", "null", "nil"):  # as ESPnet reads them
            chosen = None
        if chosen is not None and not isinstance(chosen, str):
            continue  # told by its own type
        if chosen is not None and chosen not in choices:
            told.append(f"{name}: unknown {chosen!r}{nearest(str(chosen), choices)}")
            continue
        conf = config.get(f"{name}_conf") or {}
        if not isinstance(conf, Mapping):
            continue  # told by its own type
        if chosen is None:
            told += [f"{name}_conf: set, but {name} is not"] if conf else []
            continue
        parameters = _parameters(choices[chosen])
        told += [
            f"{name}_conf.{key}: {chosen} does not take it{nearest(key, parameters)}"
            for key in conf
            if key not in parameters
        ]
        told += _type_faults(f"{name}_conf", conf, parameters)
    conf = config.get("batch_conf") or {}
    if isinstance(conf, Mapping):
        fields = inspect.signature(BatchOptions).parameters
        told += unknown_keys("batch_conf", conf, fields)
        wrong = _type_faults("batch_conf", conf, fields)
        if not wrong and conf.keys() <= fields.keys():
            try:
                BatchOptions(**conf)
            except ValueError as err:
                wrong = [f"batch_conf: {err}"]
        told += wrong
    return told


def _key_faults(config: Mapping, parser: argparse.ArgumentParser) -> list[str]:
    """Unknown keys, and values of another type than the parser's."""
    actions = {action.dest: action for action in parser._actions}
    told = []
    for key, value in config.items():
        if key not in actions:
            told.append(f"unknown key {key!r}{nearest(str(key), actions)}")
        elif f"{key}_conf" in actions and isinstance(value, str):
            continue  # a class, which `_conf_faults` knows with its nearest name
        elif fault := _value_fault(actions[key], value):
            told.append(f"{key}: {value!r}, expected {fault}")
    return told


def _value_fault(action: argparse.Action, value: object) -> str | None:
    """What the parser expects in place of a value; None where it fits."""
    if isinstance(action, NestedDictAction):
        fit = value is None or isinstance(value, Mapping)
        return None if fit else "'key: value' lines"
    if action.dest == "best_model_criterion":
        return _criteria_fault(value)
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        is_optional = action.default is None or "none" in str(action.type)
        is_optional |= None in (action.choices or ())
        return None if is_optional else _expected(action)
    if action.nargs in ("+", "*") and isinstance(value, list | tuple):
        values = list(value)
        if action.nargs == "+" and not values:
            return "a list that is not empty"
    else:
        values = [value]
    hints = {int: int, float: float, str: str, None: object}
    hints |= {str2bool: bool | str, int_or_none: int, str_or_none: str}
    hint = hints.get(action.type, object)
    if not all(fits(v, hint) for v in values):
        return _expected(action)
    if action.type is str2bool and isinstance(value, str):
        try:
            str2bool(value)
        except ValueError:
            return "true or false"
    choices = action.choices
    if choices is None or hint not in (str, object):
        return None
    if all(v in choices or str(v) in choices for v in values):
        return None
    return f"one of {' '.join(str(c) for c in choices)}"


def _expected(action: argparse.Action) -> str:
    hints = {int: int, int_or_none: int, float: float, str2bool: bool}
    return hint_name(hints.get(action.type, str))


def _criteria_fault(value: object) -> str | None:
    expected = "lists such as [valid, loss, min]"
    if not isinstance(value, list | tuple) or not value:
        return expected
    for criterion in value:
        if not isinstance(criterion, list | tuple) or len(criterion) != 3:
            return expected
        phase, name, mode = criterion
        if phase not in ("train", "valid") or not isinstance(name, str):
            return f"{expected}, of train or valid"
        if mode not in ("min", "max"):
            return f"{expected}: {mode!r} is neither min nor max"
    return None


# key: least and most value; the second is not taken itself where it is in _BELOW
_RANGES = {
    "max_epoch": (1, math.inf),
    "num_iters_per_epoch": (1, math.inf),
    "keep_nbest_models": (1, math.inf),
    "checkpoint_every_n_updates": (1, math.inf),
    "checkpoint_every_minutes": (0, math.inf),
    "log_interval": (1, math.inf),
    "ctc_only_updates": (0, math.inf),
    "ngpu": (0, math.inf),
    "num_workers": (0, math.inf),
    "seed": (0, 2**32 - 1),
    "ema_decay": (0, 1),
    "model_conf.ctc_weight": (0, 1),
    "model_conf.interctc_weight": (0, 1),
    "model_conf.lsm_weight": (0, 1),
    "model_conf.guided_attention_weight": (0, math.inf),
    "model_conf.consistency_weight": (0, math.inf),
    "model_conf.teacher_weight": (0, math.inf),
    "optim_conf.lr": (0, math.inf),
    "optim_conf.weight_decay": (0, math.inf),
    "optim_conf.eps": (0, math.inf),
    **{
        f"{part}_conf.{key}": (1, math.inf)
        for part in ("encoder", "decoder", "promptencoder")
        for key in ("num_blocks", "attention_heads", "linear_units", "output_size")
    },
    **{
        f"encoder_conf.{key}": (1, math.inf)
        for key in ("cgmlp_linear_units", "cgmlp_conv_kernel", "merge_conv_kernel")
    },
    **{
        f"{part}_conf.{key}": (0, 1)
        for part in ("encoder", "decoder", "promptencoder")
        for key in (
            *("dropout_rate", "positional_dropout_rate", "attention_dropout_rate"),
            *("self_attention_dropout_rate", "src_attention_dropout_rate"),
            "layer_drop_rate",
        )
    },
}
_BELOW = {"ema_decay", "model_conf.lsm_weight"}


def _range_faults(config: Mapping) -> list[str]:
    """Numbers that no training can have."""
    told = []
    for key, (least, most) in _RANGES.items():
        value = value_at(config, key)
        for number in value if isinstance(value, list) else [value]:
            if not is_number(number):
                continue  # not set, or told by its type
            if number < least or number > most or (key in _BELOW and number == most):
                wanted = f"{least} or more"
                if most < math.inf:
                    wanted = f"{least} to {'below ' if key in _BELOW else ''}{most}"
                told.append(f"{key}: {number}, expected {wanted}")
    return told


def _shape_faults(config: Mapping) -> list[str]:
    """Sizes that do not go together."""
    told = []
    for part, wide in (
        ("encoder", "encoder"),
        ("decoder", "encoder"),
        ("promptencoder", "promptencoder"),
    ):
        size = value_at(config, f"{wide}_conf.output_size")
        heads = value_at(config, f"{part}_conf.attention_heads")
        if all(isinstance(n, int) and n > 0 for n in (size, heads)) and size % heads:
            told.append(
                f"{part}_conf.attention_heads: {heads} does not divide "
                f"{wide}_conf.output_size ({size})"
            )
    rate = value_at(config, "frontend_conf.fs")
    if rate is not None and str(rate) not in (str(SAMPLE_RATE), "16k"):
        told.append(f"frontend_conf.fs: {rate!r}, expected {SAMPLE_RATE}, as audio has")
    for key in ("cgmlp_conv_kernel", "merge_conv_kernel"):
        width = value_at(config, f"encoder_conf.{key}")
        if isinstance(width, int) and width > 0 and width % 2 == 0:
            told.append(f"encoder_conf.{key}: {width}, expected an odd number")
    tasks = config.get("tasks")
    tasks = tasks if isinstance(tasks, list | None) else [tasks]
    if tasks:
        unknown = [task for task in tasks if task not in TASKS]
        told += [
            f"tasks: unknown {task!r}{nearest(str(task), TASKS)}; the tasks are "
            f"{' '.join(TASKS)}"
            for task in unknown
        ]
        if len(set(map(str, tasks))) < len(tasks):
            told.append(f"tasks: {' '.join(map(str, tasks))} names one twice")
    return told


def _ctc_only_faults(config: Mapping) -> list[str]:
    """What a model without a decoder cannot be asked for, and its heads."""
    if config.get("model") not in CTC_ONLY_MODELS:
        return []
    told = []
    if config.get("ctc_only_updates"):
        told.append("ctc_only_updates: the model has no decoder that could join later")
    target = config.get("ctc_target")
    if target is not None and target not in ("phones", "phones_with_length"):
        told.append(
            f"ctc_target: {target}, expected phones or phones_with_length; "
            "model_conf.ctc_asr_only says which heads learn text instead"
        )
    blocks = value_at(config, "encoder_conf.num_blocks")
    layers = value_at(config, "encoder_conf.interctc_layer_idx") or []
    if not isinstance(blocks, int) or not isinstance(layers, list):
        return told
    if wrong := [n for n in layers if is_number(n) and not 0 < n < blocks]:
        told.append(
            f"encoder_conf.interctc_layer_idx: {wrong[0]}, expected blocks between 1 "
            f"and {blocks - 1}"
        )
    heads = value_at(config, "model_conf.ctc_asr_only")
    has_heads = bool(value_at(config, "model_conf.interctc_weight"))
    n_heads = len(layers) + 1
    if has_heads and isinstance(heads, list) and len(heads) != n_heads:
        told.append(
            f"model_conf.ctc_asr_only: {len(heads)} values, expected {n_heads}: one "
            "for each of encoder_conf.interctc_layer_idx and one for the last block"
        )
    crossed = value_at(config, "encoder_conf.use_cross_attention")
    if isinstance(crossed, list) and len(crossed) != blocks:
        told.append(
            f"encoder_conf.use_cross_attention: {len(crossed)} values, expected one "
            f"for each of {blocks} blocks"
        )
    return told


def faults(config: Mapping, parser: argparse.ArgumentParser) -> list[str]:
    """Every fault of a configuration: unknown keys and choices with the nearest valid
    name, values of another type, numbers out of range, sizes that do not fit.

    Args:
        config: settings of a training YAML, its base and overrides in place.
        parser: that knows every key, `powsm.train.config.get_parser`.
    """
    augment, lora = (config.get(key) or {} for key in ("augment", "lora"))
    return [
        *_key_faults(config, parser),
        *(augmentation.faults(augment) if isinstance(augment, Mapping) else ()),
        *(adapters.faults(lora) if lora and isinstance(lora, Mapping) else ()),
        *_conf_faults(config),
        *_range_faults(config),
        *_shape_faults(config),
        *_ctc_only_faults(config),
    ]
