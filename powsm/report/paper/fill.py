"""Put an experiment's scores into a published table, and say what stays empty and why.

The published numbers have no interval, so a verdict uses ours alone: a published
number inside our interval agrees with it, unless that is so wide that much would.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from powsm.report.paper.spec import Cell, Column, Query, Row, Table
from powsm.score.decoded import HYP_FILE, decoded_sets
from powsm.score.intervals import wilson_interval
from powsm.score.rates import RATES, Scores

TAKEN_FOR = (
    "taken_for:"  # a metric: share of utterances whose language is taken for ...
)


@dataclass(frozen=True)
class Score:
    """A score of ours: percent, with the bounds of its 95 % interval (NaN: unknown)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Filled:
    """One cell of a table.

    Attributes:
        row, column: names.
        paper: the published number, None if blank.
        ours: our score, None if there is none.
        why: why there is none.
    """

    row: str
    column: str
    paper: Cell | None
    ours: Score | None
    why: str = ""

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
        if math.isnan(self.ours.low) or math.isnan(self.ours.high):
            return "no interval"
        if self.ours.low <= self.paper.value <= self.ours.high:
            is_wide = self.ours.high - self.ours.low > self.paper.value
            return "undecided" if is_wide else "agrees"
        if metric.startswith(TAKEN_FOR):
            return "differs"
        is_above = self.ours.value > self.paper.value
        return "better" if is_above == RATES[metric].higher_is_better else "worse"


def hyp_file(exp: Path, query: Query) -> Path | None:
    """The hypotheses that a cell needs, if they were decoded."""
    fitting = [
        decoded.folder / HYP_FILE
        for decoded in decoded_sets(exp / query.profile, [query.set])
        if decoded.task == query.task
    ]
    return fitting[0] if fitting else None


def fill(
    table: Table,
    score: Callable[[Query], Scores | str],
) -> list[Filled]:
    """Every cell of a table, row by row.

    Args:
        table: its description.
        score: gives the scores a query asks for, or the reason that there are none.
    """
    scores: dict[tuple[str, str, str], Scores | str] = {}

    def scored(query: Query) -> Scores | str:
        key = (query.profile, query.set, query.task)
        if key not in scores:
            scores[key] = score(query)
        return scores[key]

    cells = []
    for row in table.rows:
        found: dict[str, Filled] = {}
        for column in (c for c in table.columns if not c.mean_of):
            found[column.name] = _cell(table, row, column, scored)
        for column in (c for c in table.columns if c.mean_of):
            found[column.name] = _mean(row, column, found)
        cells += [found[column.name] for column in table.columns]
    return cells


def _cell(
    table: Table,
    row: Row,
    column: Column,
    scored: Callable[[Query], Scores | str],
) -> Filled:
    paper = row.cells.get(column.name)
    if row.ours is None:
        why = row.why or "another's system, not made by this recipe"
        return Filled(row.name, column.name, paper, None, why)
    query = table.query(row, column)
    scores = scored(query)
    if isinstance(scores, str):
        return Filled(row.name, column.name, paper, None, scores)
    if query.lang != "all":
        by_lang = scores.by_lang()
        if query.lang not in by_lang:
            why = f"{query.set} has no utterance in {query.lang}"
            return Filled(row.name, column.name, paper, None, why)
        scores = by_lang[query.lang]
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
    return Score(scores.value(metric), low, high)


def _mean(row: Row, column: Column, found: Mapping[str, Filled]) -> Filled:
    """Unweighted mean over sets, as the paper's averages are.

    The sets share no utterance, so the squares of their half intervals add up.
    """
    paper = row.cells.get(column.name)
    parts = [found[name] for name in column.mean_of]
    if row.ours is None:
        return Filled(row.name, column.name, paper, None, parts[0].why)
    empty = [part.column for part in parts if part.ours is None]
    if empty:
        why = f"no score for {', '.join(empty)}"
        return Filled(row.name, column.name, paper, None, why)
    scores = [part.ours for part in parts if part.ours is not None]
    n = len(scores)
    value = sum(s.value for s in scores) / n
    below = math.sqrt(sum((s.value - s.low) ** 2 for s in scores)) / n
    above = math.sqrt(sum((s.high - s.value) ** 2 for s in scores)) / n
    return Filled(
        row.name, column.name, paper, Score(value, value - below, value + above)
    )
