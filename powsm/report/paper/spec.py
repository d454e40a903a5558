"""Descriptions of published tables, `conf/tables/*.yaml`, checked when read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict, get_type_hints

from powsm.errors import PowsmError
from powsm.phones.alphabets import phone_maps
from powsm.report.paper.training import Trained, Training, read_training
from powsm.settings import load_yaml, type_faults

BASELINE = "baseline"  # in place of a profile, for models of others


class TableError(PowsmError):
    """A description with a fault; the message names file and place."""


@dataclass(frozen=True)
class Column:
    """What a column measures: a set, or the mean of other columns.

    Attributes:
        name: as published.
        set: dump folder; empty for a mean.
        lang: ISO 639-3, or `all`.
        mean_of: columns of which this is the unweighted mean.
        settings: `metric`, `task`, `profile`, `prompt` where they differ from the
            table's.
    """

    name: str
    set: str = ""
    lang: str = "all"
    mean_of: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A published number, with the digits it was published with, and its source."""

    text: str
    source: str

    @property
    def value(self) -> float:
        """The number; percent."""
        return float(self.text)


@dataclass(frozen=True)
class Row:
    """A system.

    Attributes:
        name: as published.
        cells: published numbers by column; a column that is not here is blank.
        ours: how this recipe decodes the row: settings that differ from the table's;
            None when it is another's system.
        training: what a model has to be trained as to fill the row; None: any model.
        baseline: Hub tag of the other's model, where stock ESPnet can decode it.
        phone_map: of the units of its outputs, where they come as files.
        blank: reason by column, where our row cannot be made in some columns alone.
        why: what keeps the recipe from making the row.
    """

    name: str
    cells: Mapping[str, Cell]
    ours: Mapping[str, str] | None = None
    training: Training | None = None
    baseline: str = ""
    phone_map: str = ""
    blank: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Query:
    """What has to be decoded and scored for one of our cells.

    `cleaning` and `references` are those of the table; without one, phones are scored
    against what the normaliser made, by the policy of the set.
    """

    profile: str
    set: str
    task: str
    lang: str
    metric: str
    cleaning: str | None = None
    references: str = "normalised"


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        name: file name without extension: `table4`.
        title: what it shows.
        paper: paper and number.
        source: where its cells were read, unless a cell says otherwise.
        cleaning: how text becomes phones in scoring; see `powsm.score.phone_reader`.
        references: `raw`, IPA before any normalising, or `normalised`.
        settings: `metric`, `task`, `profile`, `prompt` unless a row or column says
            otherwise. `prompt: unk` takes the profile's twin `<profile>_unk`, whose
            language is `<unk>`.
        columns: in published order.
        rows: in published order.
    """

    name: str
    title: str
    paper: str
    source: str
    cleaning: str | None
    references: str
    settings: Mapping[str, str]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    def query(self, row: Row, column: Column) -> Query:
        """What our cell needs; a row's settings win over a column's."""
        settings = {**self.settings, **column.settings, **(row.ours or {})}
        if row.baseline:
            settings["profile"] = BASELINE
        twin = "_unk" if settings.get("prompt") == "unk" else ""
        return Query(
            profile=settings["profile"] + twin,
            set=column.set,
            task=settings["task"],
            lang=column.lang,
            metric=settings["metric"],
            cleaning=self.cleaning,
            references=self.references,
        )

    def queries(self, rows: Iterable[Row] | None = None) -> list[Query]:
        """All that our rows, or some of them, need, each once, in order."""
        return list(
            dict.fromkeys(
                query
                for row in (self.rows if rows is None else rows)
                if row.ours is not None or (rows is not None and row.baseline)
                for query in self.queries_of(row)
            )
        )

    def queries_of(self, row: Row) -> list[Query]:
        """What the cells of a row need."""
        return [
            self.query(row, column)
            for column in self.columns
            if not column.mean_of and column.name not in row.blank
        ]

    def rows_of(self, model: Trained, any_training: bool = False) -> list[Row]:
        """The rows that a model of this training fills, or could if it were another."""
        return [
            row
            for row in self.rows
            if row.ours is not None
            and (
                row.training is None
                or (any_training and row.training.is_of_kind(model))
                or not row.training.differences(model)
            )
        ]


_SETTINGS = ("metric", "task", "profile", "prompt")


class _Settings(TypedDict, total=False):
    """What a table, a column or a row of ours may set."""

    metric: str
    task: str
    profile: str
    prompt: str


class _TableKeys(_Settings):
    title: str
    paper: str
    source: NotRequired[str]
    cleaning: NotRequired[str]
    references: NotRequired[str]
    training: NotRequired[Mapping]
    columns: Sequence
    rows: Sequence


class _ColumnKeys(_Settings):
    name: str
    set: NotRequired[str]
    lang: NotRequired[str]
    mean_of: NotRequired[Sequence[str]]


class _RowKeys(TypedDict):
    name: str
    cells: Mapping
    ours: NotRequired[Mapping]
    training: NotRequired[Mapping]
    baseline: NotRequired[str]
    blank: NotRequired[Mapping]
    why: NotRequired[str]
    phone_map: NotRequired[str]


class _CellKeys(TypedDict):
    value: str
    source: NotRequired[str]


def check_record(record: object, kind: type, where: str, required=frozenset()) -> None:
    """Refuse a mapping with other keys or other types of values than it may have.

    Args:
        record: as YAML gave it.
        kind: a TypedDict, which says what is required, or a dataclass.
        where: file and place, for messages.
        required: keys of a dataclass that must be there.

    Raises:
        TableError: names place, keys and what was expected.
    """
    known = get_type_hints(kind)
    if not isinstance(record, dict):
        raise TableError(f"{where}: found {record!r}, expected 'key: value' lines")
    required = getattr(kind, "__required_keys__", required)
    unknown, missing = set(record) - set(known), required - set(record)
    if unknown or missing:
        raise TableError(
            f"{where}: unknown {sorted(map(str, unknown))}, missing {sorted(missing)}; "
            f"known are {' '.join(sorted(known))}"
        )
    if faults := type_faults(kind, record):
        raise TableError(f"{where}: {'; '.join(faults)}")


def load_table(path: Path) -> Table:
    """Read the description of a table.

    Raises:
        TableError: an unknown key, a cell of a column that does not exist, a mean of
            unknown columns, or a cell of ours without profile, task or metric.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    record = load_yaml(path, values_as_text=True)
    check_record(record, _TableKeys, str(path))
    columns = tuple(_column(raw, path) for raw in record["columns"])
    names = [column.name for column in columns]
    for column in columns:
        if unknown := set(column.mean_of) - set(names):
            raise TableError(
                f"{path}: column {column.name!r} is the mean of unknown "
                f"{sorted(unknown)}"
            )
    source = record.get("source", "")
    training = record.get("training")
    rows = tuple(_row(raw, names, source, training, path) for raw in record["rows"])
    references = record.get("references", "normalised")
    if references not in ("raw", "normalised"):
        raise TableError(
            f"{path}: references: found {references!r}, expected raw or normalised"
        )
    table = Table(
        name=path.stem,
        title=record["title"],
        paper=record["paper"],
        source=source,
        cleaning=record.get("cleaning"),
        references=references,
        settings={key: record[key] for key in _SETTINGS if key in record},
        columns=columns,
        rows=rows,
    )
    try:
        table.queries()
    except KeyError as err:
        raise TableError(
            f"{path}: a row of ours has no {err}; set it for the table, a column or "
            "the row"
        ) from err
    return table


def _column(raw: Any, path: Path) -> Column:
    check_record(raw, _ColumnKeys, f"{path}: a column")
    if ("set" in raw) == ("mean_of" in raw):
        raise TableError(f"{path}: column {raw['name']!r} needs set or mean_of")
    return Column(
        name=raw["name"],
        set=raw.get("set", ""),
        lang=raw.get("lang", "all"),
        mean_of=tuple(raw.get("mean_of", ())),
        settings={key: raw[key] for key in _SETTINGS if key in raw},
    )


def _row(
    raw: Any, columns: list[str], source: str, training: Mapping | None, path: Path
) -> Row:
    check_record(raw, _RowKeys, f"{path}: a row")
    where = f"{path}: row {raw['name']!r}"
    if unknown := set(raw["cells"]) - set(columns):
        raise TableError(f"{where}: cells of unknown columns {sorted(unknown)}")
    cells = {}
    for name, cell in raw["cells"].items():
        if not isinstance(cell, dict):
            cell = {"value": cell}
        check_record(cell, _CellKeys, f"{where}, {name}")
        cells[name] = Cell(cell["value"], cell.get("source", source))
        try:
            if not math.isfinite(cells[name].value):
                raise ValueError(f"found {cells[name].text!r}, expected a number")
        except ValueError as err:
            raise TableError(f"{where}, {name}: {err}; leave a blank cell out") from err
    blank = raw.get("blank", {})
    if not all(isinstance(reason, str) for reason in blank.values()):
        raise TableError(f"{where}: blank: expected a reason by column")
    if unknown := set(blank) - set(columns):
        raise TableError(f"{where}: blank: unknown columns {sorted(unknown)}")
    ours = raw.get("ours")
    row = Row(
        raw["name"],
        cells,
        ours,
        baseline=raw.get("baseline", ""),
        phone_map=raw.get("phone_map", ""),
        blank=blank,
        why=raw.get("why", ""),
    )
    if ours is not None and (row.baseline or row.phone_map):
        fault = "ours and baseline or phone_map; a row is one of them"
        raise TableError(f"{where}: {fault}")
    if row.phone_map and row.phone_map not in phone_maps():
        raise TableError(
            f"{where}: phone_map: found {row.phone_map!r}, expected one of "
            f"{' '.join(phone_maps())}"
        )
    if ours is None:
        return row
    check_record(ours, _Settings, f"{where}, ours")
    if training := raw.get("training", training):
        return replace(row, training=read_training(training, path.parents[1], where))
    return row
