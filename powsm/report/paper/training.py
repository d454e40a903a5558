"""Which training a row of a table is of, and whether a model is one of it.

A row names a configuration, and perhaps changes of it: what a model's own `config.yaml`
says is held against that. A model of another width, number of tasks, CTC weight or
length of training is another row, or none.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Required, TypedDict, get_type_hints

from powsm.errors import PowsmError
from powsm.files.datadir import NORMALISER_FILE
from powsm.files.whole import read_json
from powsm.model.find import GOES_ON_FILE
from powsm.settings import (
    apply_overrides,
    load_with_base,
    load_yaml,
    type_faults,
    value_at,
)
from powsm.tasks import PUBLISHED_TASKS, TASKS

# settings that make a model another one, with what ESPnet and we take without them
_DEFINING = {
    "encoder": None,
    "encoder_conf.input_layer": "conv2d",
    "encoder_conf.output_size": None,
    "encoder_conf.num_blocks": None,
    "encoder_conf.attention_heads": None,
    "encoder_conf.linear_units": None,
    "encoder_conf.cgmlp_linear_units": None,
    "encoder_conf.interctc_layer_idx": (),
    "decoder": "transformer",
    "decoder_conf.num_blocks": None,
    "decoder_conf.attention_heads": None,
    "decoder_conf.linear_units": None,
    "model_conf.ctc_weight": 0.5,
    "model_conf.ctc_weight_range": None,
    "model_conf.ctc_vocab": "all",
    "model_conf.interctc_weight": 0.0,
    "model_conf.interctc_vocab": "all",
    "model_conf.ctc_asr_only": None,
    "model_conf.consistency_weight": 0.0,
    "model_conf.teacher": None,
    "preprocessor_conf.lang_apply_prob": None,
    "ctc_target": "phones",
    "optim_conf.lr": None,
    "scheduler_conf.warmup_steps_list": None,
    "scheduler_conf.warmup_lr_list": None,
    "max_epoch": 40,
    "init_param": (),  # weights to begin with
    "augment": {},
    "utt2weight": None,  # labels left out or brought more often
    "batch_conf.language_temperature": 1.0,
}
_WITHOUT_DECODER = "e_branchformer_ctc"
SHOWN = 4  # differences named in a reason


class _Keys(TypedDict, total=False):
    config: str
    plan: str
    variant: str
    set: Sequence[str]
    subset: str
    text_policy: str


class _VariantKeys(TypedDict, total=False):
    """What is read here of a variant of an ablation plan, which has more."""

    name: Required[str]
    set: Sequence[str] | None
    subset: str
    goes_on_from: str | None


class _PlanKeys(TypedDict, total=False):
    config: Required[str]
    set: Sequence[str] | None
    subset: str
    variants: Required[Sequence[Mapping]]


class TrainingError(PowsmError):
    """A row's training that cannot be read; the message names file and key."""


@dataclass(frozen=True)
class Trained:
    """What a model says of its training.

    Attributes:
        settings: its `config.yaml`.
        normaliser: its `normaliser.json`: policies, and the subset and the limits of
            the data; empty where nothing was kept.
        began_at: name of the experiment from whose end it went on; empty if it began
            anew.
        before: that experiment, where it is still beside this one.
    """

    settings: Mapping
    normaliser: Mapping[str, Any]
    began_at: str = ""
    before: "Trained | None" = None

    @classmethod
    def read(cls, config_file: Path, normaliser: Mapping | None = None) -> "Trained":
        """From an experiment's `config.yaml`, and what is beside it."""
        beside = config_file.with_name(NORMALISER_FILE)
        if not normaliser and beside.exists():
            normaliser = read_json(beside, "restore it")
        settings = load_yaml(config_file)
        record = config_file.with_name(GOES_ON_FILE)
        if not record.exists():
            return cls(settings, normaliser or {})
        name = read_json(record, "restore it", keys=("exp",))["exp"]
        earlier = config_file.parent.resolve().parent / name / config_file.name
        before = cls.read(earlier) if earlier.exists() else None
        return cls(settings, normaliser or {}, name, before)

    @property
    def tasks(self) -> list[str]:
        """Those that its vocabulary has a symbol for."""
        tokens = self.settings.get("token_list")
        known = set(tokens) if isinstance(tokens, list | tuple) else None
        return [n for n, t in TASKS.items() if known is None or t.symbol in known]


@dataclass(frozen=True)
class Training:
    """The training of a row.

    Attributes:
        config: configuration file.
        overrides: `key.sub=value` changes of it.
        subset: of the training data, as `--subset` has it; empty: all of them.
        text_policy: of the training text; empty: any.
        goes_on_from: the training from whose last epoch it goes on, with optimiser and
            schedule where they are; None if it begins anew.
        name: of its experiment, where the configuration's is not enough; or empty.
    """

    config: Path
    overrides: tuple[str, ...] = ()
    subset: str = ""
    text_policy: str = ""
    goes_on_from: "Training | None" = None
    name: str = ""

    def settings(self) -> dict:
        """The effective configuration."""
        return apply_overrides(load_with_base(self.config), self.overrides)

    def facts(self) -> dict[str, object]:
        """What defines it; a row that names no tasks has the published ones."""
        return facts(self.settings(), PUBLISHED_TASKS)

    def is_of_kind(self, model: Trained) -> bool:
        """Whether both have a decoder, or neither: one profile is for both."""
        encoders = (self.settings().get("encoder"), model.settings.get("encoder"))
        first, second = (encoder == _WITHOUT_DECODER for encoder in encoders)
        return first == second

    def differences(self, model: Trained) -> list[str]:
        """What makes a model another training than this; empty if nothing does."""
        wanted, there = self.facts(), facts(model.settings, model.tasks)
        differences = [
            f"{key} is {there[key]}, not {wanted[key]}"
            for key in wanted
            if there[key] != wanted[key]
        ]
        differences += self._other_beginning(model)
        subset = model.normaliser.get("subset") or ""
        if subset != self.subset:
            data = {name: name or "all data" for name in (subset, self.subset)}
            differences.append(f"trained on {data[subset]}, not {data[self.subset]}")
        differences += [
            f"stage 4 kept --{option} {value}"
            for option, value in (model.normaliser.get("limits") or {}).items()
        ]
        policy = model.normaliser.get("text_policy", "unknown")
        if self.text_policy and policy != self.text_policy:
            differences.append(f"text policy {policy}, not {self.text_policy}")
        return differences

    def _other_beginning(self, model: Trained) -> list[str]:
        """What differs in the training from whose end it goes on."""
        before = self.goes_on_from
        if before is None:
            return [f"it went on from {model.began_at}"] if model.began_at else []
        if not model.began_at:
            return [f"it began anew, not at the end of {before.name}"]
        if model.before is None:
            return [f"{model.began_at}, from which it went on, is not beside it"]
        differences = before.differences(model.before)
        return [
            f"in {model.began_at}, before it: {difference}"
            for difference in differences
        ]

    @property
    def epochs_before(self) -> int:
        """Epochs of the training that it goes on from."""
        before = self.goes_on_from
        return before.settings()["max_epoch"] if before is not None else 0

    def command(self) -> str:
        """How the paper's recipe trains it; a line a command.

        A training that goes on comes after the command of the one before.
        """
        if self.goes_on_from is not None:
            return f"{self.goes_on_from.command()}\n{self._run_sh()}"
        return self._run_sh()

    def _run_sh(self) -> str:
        # a recipe of its own, beside the one in whose folder the others are trained
        is_other = self.settings().get("encoder") == _WITHOUT_DECODER
        script = "../../powsm_ctc/s2t1/run.sh" if is_other else "./run.sh"
        words = [script, "--config", f"conf/{_below_conf(self.config)}"]
        for change in self.overrides:
            words += ["--set", change]
        words += ["--exp_name", self.name] if self.name else []
        if self.goes_on_from is not None:
            folder = f"exp/{self.subset}" if self.subset else "exp"
            words += ["--goes_on_from", f"{folder}/{self.goes_on_from.name}"]
            words += ["--stage", "11"]
        words += ["--ngpu", "4"]
        if self.text_policy:
            words += ["--text_policy", self.text_policy]
        if self.subset:
            name = self.subset
            words += ["--subset", name, "--dump", f"dump/{name}", "--expdir"]
            words += [f"exp/{name}", "--token_list", f"data/token_list_{name}"]
        return shlex.join(words)


def _below_conf(path: Path) -> str:
    parts = path.resolve().parts
    at = len(parts) - 1 - parts[::-1].index("conf") if "conf" in parts else -2
    return "/".join(parts[at + 1 :])


def facts(settings: Mapping, tasks: Iterable[str]) -> dict[str, object]:
    """What defines a training, by a configuration or by a model's `config.yaml`.

    `tasks` are those of a training that names none. An experiment's `config.yaml` keeps
    what stock ESPnet does not know under `powsm`.
    """
    ours = settings.get("powsm") or {}
    merged = {**settings, **ours}
    merged["model_conf"] = {
        **(settings.get("model_conf") or {}),
        **(ours.get("model_conf") or {}),
    }
    values: dict[str, object] = {}
    for key, default in _DEFINING.items():
        value = value_at(merged, key)
        value = default if value is None else value
        values[key] = tuple(value) if isinstance(value, list | tuple) else value
    if values["model_conf.ctc_weight_range"] is not None:
        values["model_conf.ctc_weight"] = "drawn"  # the fixed one is validation's alone
    values["tasks"] = " ".join(sorted(merged.get("tasks") or tasks))
    per_epoch = merged.get("num_iters_per_epoch")
    values["updates an epoch"] = per_epoch and per_epoch / (
        merged.get("accum_grad") or 1
    )
    return values


def read_training(raw: Mapping, folder: Path, where: str) -> Training:
    """A row's `training:`: `config`, or `plan` and `variant`, and what differs.

    Args:
        raw: the mapping, all values text or lists of text.
        folder: `conf/`.
        where: for messages.

    Raises:
        TrainingError: an unknown key, no such file or variant.
    """
    known = get_type_hints(_Keys)
    if unknown := sorted(set(raw) - set(known)):
        raise TrainingError(
            f"{where}, training: unknown {' '.join(unknown)}; known are "
            f"{' '.join(sorted(known))}"
        )
    if faults := type_faults(_Keys, raw):
        raise TrainingError(f"{where}, training: {'; '.join(faults)}")
    if "plan" in raw:
        if not (folder / raw["plan"]).is_file():
            raise TrainingError(f"{where}, training: no plan {folder / raw['plan']}")
        return _of_plan(folder / raw["plan"], raw.get("variant", ""), where)
    config = raw.get("config", "")
    if not (folder / config).is_file():
        raise TrainingError(f"{where}, training: no configuration {folder / config}")
    changes = tuple(raw.get("set", ()))
    subset, policy = raw.get("subset", ""), raw.get("text_policy", "")
    return Training(folder / config, changes, subset, policy)


def _of_plan(path: Path, name: str, where: str) -> Training:
    """The training of a variant of an ablation plan."""
    plan = load_yaml(path)
    _check(plan, _PlanKeys, str(path))
    for row in plan["variants"]:
        _check(row, _VariantKeys, f"{path}: a variant")
    variants = {row["name"]: row for row in plan["variants"]}
    if name not in variants:
        raise TrainingError(
            f"{where}, training: {path} has no variant {name!r}; it has "
            f"{', '.join(variants)}"
        )
    variant = variants[name]
    subset = variant.get("subset", plan.get("subset", ""))
    before = variant.get("goes_on_from")
    return Training(
        path.parent / plan["config"],
        (*(plan.get("set") or ()), *(variant.get("set") or ())),
        "" if subset == "all" else subset,
        goes_on_from=_of_plan(path, before, where) if before else None,
        name=re.sub(r"[^A-Za-z0-9.]+", "_", f"{path.stem} {name}"),
    )


def _check(record: Mapping, kind: type, where: str) -> None:
    """Refuse a part of a plan that lacks what is read, or has it of another type."""
    missing = sorted(kind.__required_keys__ - set(record))
    faults = [f"no {' '.join(missing)}"] if missing else []
    if faults := faults + type_faults(kind, record):
        raise TrainingError(f"{where}: {'; '.join(faults)}")


def why_not(name: str, differences: list[str]) -> str:
    """Why a model does not fill a row."""
    more = len(differences) - SHOWN
    shown = "; ".join(differences[:SHOWN]) + (f"; {more} more" if more > 0 else "")
    return f"{name} is another training: {shown}"
