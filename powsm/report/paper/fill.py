"""Put an experiment's scores into a published table, and say what stays empty and why.

The published numbers have no interval, so a verdict uses ours alone: a published
number inside our interval agrees with it, unless that is so wide that much would.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from powsm.report.paper.sets import TestSet
from powsm.report.paper.spec import Cell, Column, Query, Row, Table, TableError
from powsm.report.paper.training import Trained, why_not
from powsm.score.chance import NOTHING_SHARE
from powsm.score.decoded import HYP_FILE, decoded_sets
from powsm.score.intervals import wilson_interval
from powsm.score.rates import CHANCE, RATES, Scores

TAKEN_FOR = (
    "taken_for:"  # a metric: share of utterances whose language is taken for ...
)

HOURS = "hours"  # a metric: size of a set
HISTORY = "valid:"  # a metric: of validation, by the last epoch
SIZE_TOLERANCE = 0.03  # between a set and its published size


@dataclass(frozen=True)
class Score:
    """A score of ours: percent, with the bounds of its 95 % interval (NaN: unknown).

    `chance` is what the same hypotheses score against other utterances' references,
    for PFER; NaN elsewhere.
    """

    value: float
    low: float
    high: float
    chance: float = math.nan


@dataclass(frozen=True)
class Filled:
    """One cell of a table.

    Attributes:
        row, column: names.
        paper: the published number, None if blank.
        ours: our score, None if there is none.
        why: why there is none.
        system: which model's score; empty where no model is the row's.
        note: how that model differs from the row's training, if it was let in.
        is_incomplete: a set lacks parts of its corpus.
    """

    row: str
    column: str
    paper: Cell | None
    ours: Score | None
    why: str = ""
    system: str = ""
    note: str = ""
    is_incomplete: bool = False

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, in points."""
        if self.ours is None or self.paper is None:
            return None
        return self.ours.value - self.paper.value

    def verdict(self, metric: str) -> str:
        """`agrees`, `better`, `worse`, or why there is nothing to say.

        An interval wider than the published number itself decides nothing.
        """
        if self.ours is None:
            return ""
        if self.paper is None:
            return "no published number"
        if self.note:
            return "another training"
        if self.is_incomplete:
            return "incomplete set"
        if self.ours.value > NOTHING_SHARE * self.ours.chance:
            return "chance: nothing was recognised"
        if metric == HOURS:
            is_same = abs(self.ours.value / self.paper.value - 1) <= SIZE_TOLERANCE
            return "agrees" if is_same else "another size"
        if math.isnan(self.ours.low) or math.isnan(self.ours.high):
            return "no interval"
        if self.ours.low <= self.paper.value <= self.ours.high:
            is_wide = self.ours.high - self.ours.low > self.paper.value
            return "undecided" if is_wide else "agrees"
        if metric.startswith(TAKEN_FOR):
            return "differs"
        is_above = self.ours.value > self.paper.value
        return "better" if is_above == RATES[metric].higher_is_better else "worse"


@dataclass(frozen=True)
class System:
    """A model whose scores a table may hold.

    Attributes:
        name: in the table.
        score: gives the scores a query asks for, or the reason that there are none.
        trained: how it was trained; None if unknown.
        any_training: fill rows of another training, too, and say so.
        incomplete: sets that lack parts of their corpus.
        baseline: the other's model that it is, by tag or folder; empty if it is ours.
        row: the row whose system's outputs these are, if they came as files.
    """

    name: str
    score: Callable[[Query], Scores | Score | str]
    trained: Trained | None = None
    any_training: bool = False
    incomplete: frozenset[str] = frozenset()
    baseline: str = ""
    row: str = ""

    def is_of(self, row: Row) -> bool:
        """Whether a row of others is this system's; a model by the end of its tag."""
        if self.row:
            return row.name == self.row
        names = (
            tag.rstrip("/").rpartition("/")[2] for tag in (row.baseline, self.baseline)
        )
        return bool(row.baseline) and len(set(names)) == 1

    def could_fill(self, row: Row) -> bool:
        """Whether it may stand in a row of another training, and can be decoded so."""
        is_known = row.training is not None and self.trained is not None
        is_other = is_known and not row.training.is_of_kind(self.trained)
        return self.any_training and not is_other

    def would_fill(self, row: Row) -> bool:
        """Whether `any_training` would let it in."""
        return replace(self, any_training=True).could_fill(row)

    def differences(self, row: Row) -> list[str]:
        """What keeps the model from being the row's; empty if it is."""
        if row.baseline or self.baseline or self.row:
            return [] if self.is_of(row) else ["another system's model"]
        if row.training is None:
            return []
        if self.trained is None:
            return ["no config.yaml says how it was trained"]
        return row.training.differences(self.trained)


def hyp_file(
    exp: Path, query: Query, sets: Mapping[str, TestSet] | None = None
) -> Path | None:
    """The hypotheses that a cell needs, if they were decoded; those of a whole set do
    for a part of it."""
    known = (sets or {}).get(query.set)
    for name in filter(None, (query.set, known.part_of if known else "")):
        for decoded in decoded_sets(exp / query.profile, [name]):
            if decoded.task == query.task:
                return decoded.folder / HYP_FILE
    return None


def fill(table: Table, systems: Sequence[System]) -> list[Filled]:
    """Every cell of a table: row by row, in each the systems that are the row's.

    A row that is nobody's comes once, with the reason. A model fills the rows of its
    own training alone: a small one, or one of a single task, is no published POWSM.

    Raises:
        TableError: two systems of one name.
    """
    names = [system.name for system in systems]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TableError(f"two systems are called {' '.join(twice)}; rename a folder")
    memory: dict[tuple[str, Query], Scores | Score | str] = {}

    def scored(system: System, query: Query) -> Scores | Score | str:
        # one decoding is scored once, however many languages and metrics are shown
        if not is_measured_otherwise(query.metric):
            query = replace(query, lang="all", metric="")
        if (system.name, query) not in memory:
            memory[system.name, query] = system.score(query)
        return memory[system.name, query]

    cells = []
    for row in table.rows:
        differences = {s.name: s.differences(row) for s in systems}
        own = [
            s
            for s in systems
            if not differences[s.name] and (row.ours is not None or s.is_of(row))
        ]
        if row.ours is not None:
            own += [s for s in systems if differences[s.name] and s.could_fill(row)]
        if not own:
            why = why_nobody(row, systems)
            cells += [
                Filled(row.name, c.name, row.cells.get(c.name), None, why)
                for c in table.columns
            ]
        for system in own:
            note = (
                why_not(system.name, differences[system.name])
                if differences[system.name]
                else ""
            )
            score = partial(scored, system)
            less = _incomplete_columns(table, system.incomplete)
            cells += [
                replace(
                    cell,
                    system=system.name,
                    note=note,
                    is_incomplete=cell.column in less,
                )
                for cell in _row_cells(table, row, score)
            ]
    return cells


def _incomplete_columns(table: Table, incomplete: frozenset[str]) -> frozenset[str]:
    """Columns of incomplete sets, and means of such."""
    less = {column.name for column in table.columns if column.set in incomplete}
    means = {c.name for c in table.columns if less.intersection(c.mean_of)}
    return frozenset(less | means)


def is_measured_otherwise(metric: str) -> bool:
    """Whether a metric comes from a dump folder or a history, not from hypotheses."""
    return metric == HOURS or metric.startswith(HISTORY)


def why_nobody(row: Row, systems: Sequence[System]) -> str:
    """Why no system is a row's, and what would change that."""
    if row.baseline:
        return f"another's system: --baseline KIND --model {row.baseline} decodes it"
    if row.ours is None:
        files = f"--outputs '{row.name}=FOLDER' takes its outputs" * bool(row.phone_map)
        return row.why or files or "another's system, not made by this recipe"
    if not systems:
        return "no model given: --model or --exp"
    why = "; ".join(why_not(s.name, s.differences(row)) for s in systems)
    if any(s.would_fill(row) for s in systems):
        why += ". --any_training fills the row all the same, and says so"
    if row.training is not None:
        why += f". To train it: {row.training.command()}"
    return why


def _row_cells(
    table: Table, row: Row, score: Callable[[Query], Scores | Score | str]
) -> list[Filled]:
    by_name: dict[str, Filled] = {}
    for column in (c for c in table.columns if not c.mean_of):
        by_name[column.name] = _cell(table, row, column, score)
    for column in (c for c in table.columns if c.mean_of):
        by_name[column.name] = _mean(row, column, by_name)
    return [by_name[column.name] for column in table.columns]


def _cell(
    table: Table,
    row: Row,
    column: Column,
    scored: Callable[[Query], Scores | Score | str],
) -> Filled:
    paper = row.cells.get(column.name)
    if column.name in row.blank:
        return Filled(row.name, column.name, paper, None, row.blank[column.name])
    query = table.query(row, column)
    scores = scored(query)
    if isinstance(scores, str):
        return Filled(row.name, column.name, paper, None, scores)
    if isinstance(scores, Score):
        return Filled(row.name, column.name, paper, scores)
    if query.lang != "all":
        by_lang = scores.by_lang()
        if query.lang not in by_lang:
            why = f"{query.set} has no utterance in {query.lang}"
            return Filled(row.name, column.name, paper, None, why)
        scores = by_lang[query.lang]
    if not (query.metric in scores.rates or query.metric.startswith(TAKEN_FOR)):
        why = f"{query.task} has no {query.metric}, but {' '.join(scores.rates)}"
        return Filled(row.name, column.name, paper, None, why)
    ours = score_of(scores, query.metric)
    if math.isnan(ours.value):
        why = f"{query.set} has nothing that {query.metric} could be divided by"
        return Filled(row.name, column.name, paper, None, why)
    return Filled(row.name, column.name, paper, ours)


def score_of(scores: Scores, metric: str) -> Score:
    """Value and interval of a metric, in percent."""
    if metric.startswith(TAKEN_FOR):
        # no column: no utterance was taken for that language
        n_taken = int(scores.columns[metric].sum()) if metric in scores.columns else 0
        low, high = wilson_interval(n_taken, len(scores))
        return Score(100 * n_taken / len(scores), 100 * low, 100 * high)
    low, high = scores.intervals()[metric]
    has_chance = metric == "PFER" and CHANCE in scores.rates
    chance = scores.value(CHANCE) if has_chance else math.nan
    return Score(scores.value(metric), low, high, chance)


def _mean(row: Row, column: Column, by_name: Mapping[str, Filled]) -> Filled:
    """Unweighted mean over sets, as the paper's averages are.

    The sets share no utterance, so the squares of their half intervals add up.
    """
    paper = row.cells.get(column.name)
    parts = [by_name[name] for name in column.mean_of]
    empty = [part.column for part in parts if part.ours is None]
    if empty:
        why = f"no score for {', '.join(empty)}"
        return Filled(row.name, column.name, paper, None, why)
    scores = [part.ours for part in parts if part.ours is not None]
    n = len(scores)
    value = sum(s.value for s in scores) / n
    below = math.sqrt(sum((s.value - s.low) ** 2 for s in scores)) / n
    above = math.sqrt(sum((s.high - s.value) ** 2 for s in scores)) / n
    chance = sum(s.chance for s in scores) / n
    mean = Score(value, value - below, value + above, chance)
    return Filled(row.name, column.name, paper, mean)
