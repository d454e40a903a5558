"""Ablations: variants of one training that differ in a few settings, in one table."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Required, TypedDict, get_type_hints

from powsm.decode.profile import Profile
from powsm.files.datadir import NORMALISER_FILE
from powsm.files.whole import read_json
from powsm.formatting import bounds, markdown_table
from powsm.prepare.subset import SUBSET_HOURS
from powsm.score.intervals import Comparison
from powsm.score.rates import Scores, rate_notes
from powsm.score.results import task_title
from powsm.settings import ConfigError, load_yaml, type_faults
from powsm.tasks import DECODED_TASKS, TASKS
from powsm.train.config import load
from powsm.train.experiment.go_on import MAY_CHANGE
from powsm.vocabulary.code_points import PREFIX as CODE_POINTS

ALL_DATA = "all"
# settings that a variant may change without becoming another experiment
_FREE = ("max_epoch", "num_workers", "ngpu", "log_interval")


class _PlanKeys(TypedDict):
    config: str
    set: Sequence[str] | None
    profiles: Sequence[str]
    sets: Sequence[str]
    reference: str
    variants: Sequence


class _VariantKeys(TypedDict, total=False):
    name: Required[str]
    set: Sequence[str] | None
    subset: str | None
    goes_on_from: str | None


def folder_of(name: str) -> str:
    """Name of the experiment folder of a variant.

    >>> folder_of("0.3, then 0.5")
    '0.3_then_0.5'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("_")


@dataclass(frozen=True)
class Variant:
    """One training of an ablation.

    Attributes:
        name: as in the table.
        overrides: `key.sub=value` changes of the common settings.
        settings: the whole configuration that follows.
        subset: of the training data that the dump folder has to be, as stage 4's
            `--subset` has it, or `all`; None: whatever it is.
        goes_on_from: name of the variant from whose last epoch this one goes on, with
            its optimiser and schedule; empty if it begins anew.
    """

    name: str
    overrides: tuple[str, ...]
    settings: Mapping
    subset: str | None = None
    goes_on_from: str = ""

    @property
    def folder(self) -> str:
        """Name of its experiment folder."""
        return folder_of(self.name)

    def is_of(self, subset: str) -> bool:
        """Whether it is trained on a dump folder of that subset, `all` without one."""
        return self.subset is None or self.subset == subset

    def profiles(self, plan: "Plan") -> list[Path]:
        """The plan's profiles that this model can decode: no CTC head, no CTC."""
        weight = dict(self.settings.get("model_conf") or {}).get("ctc_weight")
        kinds = {0.0: {"attention"}, 1.0: {"ctc"}}.get(
            weight, {"attention", "joint", "ctc"}
        )
        profiles = {path: Profile.load(path) for path in plan.profiles}
        says_phones = not self.settings.get("ctc_target", "").startswith(CODE_POINTS)
        return [
            path
            for path, profile in profiles.items()
            if profile.decode in kinds and (says_phones or not profile.reads_ctc)
        ]

    def tasks(self) -> tuple[str, ...]:
        """The tasks it is trained on."""
        return tuple(self.settings.get("tasks") or TASKS)


@dataclass(frozen=True)
class Plan:
    """What an ablation's YAML file says.

    Attributes:
        config: training configuration that all variants change.
        profiles: decode profiles.
        sets: dump folders that are decoded.
        reference: name of the variant that the others are compared with.
        variants: what is trained.
    """

    config: Path
    profiles: tuple[Path, ...]
    sets: tuple[str, ...]
    reference: str
    variants: tuple[Variant, ...]

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan; files in it are named from its own folder.

        Raises:
            ConfigError: a key or name that does not exist, a variant given twice, or
                the faults of a variant's settings.
        """
        path = Path(path)
        plan = load_yaml(path)
        common_subset = plan.pop("subset", None)
        keys = set(get_type_hints(_PlanKeys))
        if wrong := sorted(map(str, set(plan) ^ keys)):
            raise ConfigError(
                f"{path}: {' '.join(wrong)} unknown or missing; an ablation has the "
                f"keys {' '.join(sorted(keys))}"
            )
        _check_types(plan, _PlanKeys, str(path))
        config = path.parent / plan["config"]
        variants = []
        for row in plan["variants"]:
            known = get_type_hints(_VariantKeys)
            if not isinstance(row, dict) or set(row) - set(known) or "name" not in row:
                raise ConfigError(
                    f"{path}: variant {row}: expected name and set, and perhaps subset "
                    "and goes_on_from"
                )
            _check_types(row, _VariantKeys, f"{path}: variant {row['name']}")
            overrides = (*(plan["set"] or ()), *(row.get("set") or ()))
            variant = Variant(
                row["name"],
                overrides,
                {"max_epoch": 40} | load(config, overrides),  # ESPnet's default
                row.get("subset", common_subset),
                row.get("goes_on_from") or "",
            )
            _check_subset(variant, path)
            _check_goes_on(variant, variants, path)
            variants.append(variant)
        folders = [v.folder for v in variants]
        if len(set(folders)) < len(folders):
            raise ConfigError(f"{path}: two variants share a name: {sorted(folders)}")
        if plan["reference"] not in {v.name for v in variants}:
            raise ConfigError(
                f"{path}: reference {plan['reference']!r} is none of the variants "
                f"{[v.name for v in variants]}"
            )
        return cls(
            config=config,
            profiles=tuple(path.parent / name for name in plan["profiles"]),
            sets=tuple(plan["sets"]),
            reference=plan["reference"],
            variants=tuple(variants),
        )


def _check_types(record: Mapping, kind: type, where: str) -> None:
    """A name such as 0.3 is a number unless it is in quotes."""
    if faults := type_faults(kind, record):
        raise ConfigError(f"{where}: {'; '.join(faults)}")


def _check_subset(variant: Variant, path: Path) -> None:
    known = (ALL_DATA, *SUBSET_HOURS)
    if variant.subset is not None and variant.subset not in known:
        raise ConfigError(
            f"{path}: variant {variant.name!r}: subset {variant.subset!r}, expected "
            f"one of {' '.join(known)}"
        )


def _check_goes_on(variant: Variant, earlier: Sequence[Variant], path: Path) -> None:
    """A training can go on from one before it, with other weights of its losses."""
    if not variant.goes_on_from:
        return
    where = f"{path}: variant {variant.name!r} goes on from {variant.goes_on_from!r}"
    before = next((v for v in earlier if v.name == variant.goes_on_from), None)
    if before is None:
        raise ConfigError(f"{where}, which no variant before it is called")
    if before.subset != variant.subset:
        raise ConfigError(f"{where}, which has other data: {before.subset}")
    epochs = [v.settings["max_epoch"] for v in (before, variant)]
    if epochs[1] <= epochs[0]:
        raise ConfigError(
            f"{where}: max_epoch is {epochs[1]}, expected more than the {epochs[0]} "
            "before"
        )
    free = {*_FREE, "model_conf", *MAY_CHANGE}
    changed = {*before.settings, *variant.settings} - free
    other = [k for k in changed if before.settings.get(k) != variant.settings.get(k)]
    models = [dict(v.settings.get("model_conf") or {}) for v in (before, variant)]
    other += [
        f"model_conf.{key}"
        for key in {*models[0], *models[1]}
        if f"model_conf.{key}" not in free and models[0].get(key) != models[1].get(key)
    ]
    if other:
        raise ConfigError(
            f"{where} with another {' '.join(sorted(other))}; only max_epoch and "
            f"{' '.join(MAY_CHANGE)} may change"
        )


def subset_of(train_set: Path) -> str:
    """The subset that a training set is, `all` if it is whole.

    Raises:
        DamagedError: its record of stage 4 cannot be read.
    """
    record = train_set / NORMALISER_FILE
    if not record.exists():
        return ALL_DATA
    return read_json(record, "run stage 4 again").get("subset") or ALL_DATA


def changed_settings(before: Mapping, now: Mapping) -> list[str]:
    """Keys in which a finished variant's settings differ from those it has now."""
    keys = {*before, *now} - set(_FREE)
    return sorted(k for k in keys if before.get(k) != now.get(k))


@dataclass(frozen=True)
class Cost:
    """What a variant's training took."""

    updates: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """One rate of one variant.

    Attributes:
        variant: its name.
        what: `<profile>/<set>/<task>_<decode>`.
        metric: the rate.
        value, low, high: in percent with its 95 % interval.
        n_utts: utterances scored.
        difference: variant minus reference, paired; None for the reference itself
            and where that has no such score.
    """

    variant: str
    what: Path
    metric: str
    value: float
    low: float
    high: float
    n_utts: int
    difference: Comparison | None


def measure(
    scores: Mapping[str, Mapping[Path, Scores]], reference: str
) -> list[Measured]:
    """The main rates of every variant, each beside the reference's.

    Args:
        scores: by variant and by what was decoded.
        reference: name of a variant.
    """
    rows = []
    for variant, decoded in scores.items():
        for what, utterances in decoded.items():
            intervals = utterances.intervals()
            other = scores[reference].get(what) if variant != reference else None
            for metric in DECODED_TASKS[what.name.partition("_")[0]].metrics:
                value = utterances.value(metric)
                if math.isnan(value):
                    continue
                rows.append(
                    Measured(
                        variant=variant,
                        what=what,
                        metric=metric,
                        value=value,
                        low=intervals[metric].low,
                        high=intervals[metric].high,
                        n_utts=len(utterances),
                        difference=utterances.compare(other, metric) if other else None,
                    )
                )
    return rows


def markdown(
    rows: Sequence[Measured],
    costs: Mapping[str, Cost],
    reference: str,
    left_out: Sequence[str] = (),
) -> str:
    """The ablation as Markdown: what each variant cost, then a table per decoding.

    Args:
        rows: of `measure`.
        costs: of each variant that is in the tables.
        reference: name of a variant.
        left_out: variants that are not, with the reason.
    """
    parts = [
        f"Rates in percent with 95 % bootstrap intervals. Differences are to "
        f"**{reference}** on the same utterances, with paired intervals; p is the "
        "chance of a difference as large if it were luck which of the two made which "
        "output. One training a variant: how much another seed moves it is not in "
        "these intervals.",
        markdown_table(
            ["variant", "updates", "minutes of training"],
            [
                [name, str(cost.updates), f"{cost.seconds / 60:.1f}"]
                for name, cost in costs.items()
            ],
        ),
    ]
    parts += [f"Not in these tables: {reason}." for reason in left_out]
    for what in dict.fromkeys(row.what for row in rows):
        profile, set_name, tag = what.parts
        task = tag.partition("_")[0]
        of_what = [row for row in rows if row.what == what]
        metrics = list(dict.fromkeys(row.metric for row in of_what))
        header = ["variant"]
        for metric in metrics:
            header += [metric, "95 %", "difference", "95 %", "p"]
        lines = []
        for variant in dict.fromkeys(row.variant for row in of_what):
            line = [variant]
            for metric in metrics:
                row = next(
                    r for r in of_what if (r.variant, r.metric) == (variant, metric)
                )
                line += _cells(row)
            lines.append(line)
        parts.append(
            f"## {task_title(task)}, {profile.removeprefix('decode_')}, {set_name} "
            f"({of_what[0].n_utts} utterances)"
        )
        parts.append(markdown_table(header, lines))
    parts += ["## Metrics", rate_notes(dict.fromkeys(row.metric for row in rows))]
    return "\n\n".join(parts) + "\n"


def _cells(row: Measured) -> list[str]:
    cells = [f"{row.value:.2f}", bounds(row.low, row.high)]
    if row.difference is None:
        return [*cells, "", "", ""]
    d = row.difference
    p = "" if math.isnan(d.p) else f"{d.p:.4f}"
    return [*cells, f"{d.difference:+.2f}", bounds(d.low, d.high, "+.2f"), p]


def to_csv(rows: Sequence[Measured], costs: Mapping[str, Cost]) -> str:
    """The same as tidy rows, one a rate."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        "variant profile set task decode metric value low high n_utts difference "
        "difference_low difference_high p updates train_seconds".split()
    )
    for row in rows:
        profile, set_name, tag = row.what.parts
        task, _, decode = tag.partition("_")
        d = row.difference
        cost = costs[row.variant]
        differences = (d.difference, d.low, d.high, d.p) if d else (math.nan,) * 4
        writer.writerow(
            [row.variant, profile, set_name, task, decode, row.metric]
            + [*map(_rounded, (row.value, row.low, row.high)), row.n_utts]
            + [*map(_rounded, differences)]
            + [cost.updates, round(cost.seconds, 1)]
        )
    return out.getvalue()


def _rounded(number: float) -> float | str:
    return "" if math.isnan(number) else round(number, 4)
