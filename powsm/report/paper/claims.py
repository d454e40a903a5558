"""The paper's claims, the test of each, and whether it holds for given experiments.

Two ways of decoding are compared on the same utterances, with a paired interval and p;
a published number of another system is held against the interval of ours. What an
interval leaves open is undecided, and what cannot be tested says why. The difference of
two outputs that are both worse than none, as of a small model that repeats itself, says
nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from powsm.errors import PowsmError
from powsm.formatting import bounds, markdown_table
from powsm.report.compare import SIGNIFICANT
from powsm.report.paper.fill import Score, System, fill
from powsm.report.paper.spec import Query, Table, check_record
from powsm.score.rates import Scores
from powsm.settings import fits, load_yaml
from powsm.tasks import PHONES, plain_task

CLAIMS_FILE = "claims.yaml"
HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "undecided", "not tested"
NOTHING = "says nothing"
_TWO = "two experiments are the training of"
NO_OUTPUT = 100.0  # what every error rate of an empty output is at most


class ClaimError(PowsmError):
    """A claim that cannot be read; the message says where and what is wrong."""


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        name, statement, source: for readers.
        role: which sets it is about: a key of `sets`.
        metric: a rate; lower is better.
        first, second: profile and task of two decodings; the first should be lower.
        table, column: the cell of our row that is held against a number, instead.
        below, at_least: that number.
        trainings: the table whose rows are the trainings that it compares.
        first_row, second_row: those rows.
        profile: with which their models are decoded.
        untested: why nobody can test it.
    """

    name: str
    statement: str
    source: str
    role: str = ""
    metric: str = ""
    first: Mapping[str, str] | None = None
    second: Mapping[str, str] | None = None
    table: str = ""
    column: str = ""
    below: float | None = None
    at_least: float | None = None
    trainings: str = ""
    first_row: str = ""
    second_row: str = ""
    profile: str = ""
    untested: str = ""


class _SideKeys(TypedDict):
    profile: str
    task: str


class _ClaimsKeys(TypedDict):
    sets: Mapping
    claims: Sequence


@dataclass(frozen=True)
class Outcome:
    """What came of a claim for one experiment, or for a pair of them.

    Attributes:
        claim: which.
        system: the experiment, or both.
        verdict: one of `HOLDS FAILS OPEN UNTESTED NOTHING`.
        detail: numbers with their interval, or why it is not tested.
        command: what makes or repeats the test.
    """

    claim: Claim
    system: str
    verdict: str
    detail: str
    command: str


def load_claims(path: Path) -> tuple[list[Claim], dict[str, tuple[str, ...]]]:
    """Read `claims.yaml`.

    Returns:
        The claims in order, and the sets of each role.

    Raises:
        ClaimError: an unknown role.
        TableError: an unknown key, or a value of another type.
    """
    record = load_yaml(path)
    check_record(record, _ClaimsKeys, str(path))
    roles = {}
    for name, sets in record["sets"].items():
        if not fits(sets, list[str]):
            raise ClaimError(f"{path}: sets: {name}: {sets!r}, expected a list")
        roles[name] = tuple(sets)
    claims = []
    for raw in record["claims"]:
        check_record(raw, Claim, f"{path}: a claim", {"name", "statement", "source"})
        claim = Claim(**raw)
        for side in filter(None, (claim.first, claim.second)):
            check_record(side, _SideKeys, f"{path}: {claim.name}")
        if claim.role and claim.role not in roles:
            raise ClaimError(
                f"{path}: {claim.name}: role {claim.role!r}, expected one of "
                f"{' '.join(roles)}"
            )
        claims.append(claim)
    return claims, roles


def check_claims(
    claims: Sequence[Claim],
    roles: Mapping[str, Sequence[str]],
    systems: Sequence[System],
    tables: Callable[[str], Table],
    exps: Mapping[str, Path],
    dump: Path,
) -> list[Outcome]:
    """Test every claim for every experiment.

    Args:
        claims, roles: of `load_claims`, perhaps with other sets.
        systems: the experiments.
        tables: gives a table by its name.
        exps: folder of each system, for commands.
        dump: the sets' folder, for commands.
    """
    outcomes = []
    for claim in claims:
        if claim.untested:
            outcomes.append(Outcome(claim, "", UNTESTED, claim.untested, ""))
        elif claim.first_row:
            outcomes.append(_between_trainings(claim, roles, systems, tables))
        elif claim.trainings:
            outcomes.append(_convergence(claim, systems, tables))
        else:
            for system in systems:
                if claim.table:
                    outcomes.append(_against_number(claim, system, tables, exps, dump))
                else:
                    outcomes.append(_paired(claim, roles, system, exps, dump))
    return outcomes


def needed(claims: Sequence[Claim], roles: Mapping[str, Sequence[str]]) -> list[Query]:
    """The decodings that the paired claims compare, each once."""
    sides = [
        Query(
            side["profile"], set_and_langs(name)[0], side["task"], "all", claim.metric
        )
        for claim in claims
        for side in (claim.first, claim.second)
        if side is not None
        for name in roles[claim.role]
    ]
    return list(dict.fromkeys(sides))


def set_and_langs(name: str) -> tuple[str, list[str]]:
    """A set of a claim, and its languages that count; all do where none is named.

    >>> set_and_langs("test_asterisk:eng,fra"), set_and_langs("test_tusom2021")
    (('test_asterisk', ['eng', 'fra']), ('test_tusom2021', []))
    """
    set_name, _, langs = name.partition(":")
    return set_name, langs.split(",") if langs else []


def joined(parts: Sequence[Scores]) -> Scores:
    """The utterances of several sets as one."""
    return Scores(
        utt_ids=tuple(utt_id for part in parts for utt_id in part.utt_ids),
        columns={
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        },
        rates=parts[0].rates,
    )


def _of_sets(
    system: System, sets: Sequence[str], asked: Mapping[str, str], metric: str
) -> Scores | str:
    parts = []
    for name in sets:
        set_name, langs = set_and_langs(name)
        query = Query(asked["profile"], set_name, asked["task"], "all", metric)
        scores = system.score(query)
        if not isinstance(scores, Scores):
            return str(scores)
        by_lang = scores.by_lang() if langs else {}
        for lang in langs:
            if lang not in by_lang:
                return f"{set_name} has no utterance in {lang}"
        parts += [by_lang[lang] for lang in langs] or [scores]
    return joined(parts)


def _compared(
    claim: Claim, sets: Sequence[str], a: Scores, b: Scores
) -> tuple[str, str]:
    """Verdict and numbers of two decodings of which the first should be lower."""
    result = a.compare(b, claim.metric)
    interval = "without an interval"  # of fewer than two utterances
    if within := bounds(result.low, result.high, "+.2f"):
        interval = f"{within}, p {result.p:.4f}"
    detail = (
        f"{claim.metric} {a.value(claim.metric):.2f} and {b.value(claim.metric):.2f}, "
        f"difference {result.difference:+.2f} {interval}, "
        f"{len(a)} utterances of {' '.join(sets)}"
    )
    if min(a.value(claim.metric), b.value(claim.metric)) > NO_OUTPUT:
        return NOTHING, f"{detail}; an empty output would have fewer errors than either"
    # NaN, of fewer than two utterances, is neither
    if not (result.high < 0 or result.low > 0) or not result.p < SIGNIFICANT:
        return OPEN, detail
    return (HOLDS if result.difference < 0 else FAILS), detail


def _paired(
    claim: Claim,
    roles: Mapping[str, Sequence[str]],
    system: System,
    exps: Mapping[str, Path],
    dump: Path,
) -> Outcome:
    assert claim.first is not None and claim.second is not None
    sets = roles[claim.role]
    exp = exps[system.name]
    profiles = [side["profile"] for side in (claim.first, claim.second)]
    files = " ".join(f"conf/{profile}.yaml" for profile in profiles)
    command = (
        f"powsm decode --exp {exp} --dump {dump} --profiles {files} "
        f"--sets {' '.join(dict.fromkeys(set_and_langs(s)[0] for s in sets))}; "
        f"powsm compare {exp / profiles[0]} {exp / profiles[1]}"
    )
    sides = [
        _of_sets(system, sets, side, claim.metric)
        for side in (claim.first, claim.second)
    ]
    for side in sides:
        if isinstance(side, str):
            return Outcome(claim, system.name, UNTESTED, side, command)
    verdict, detail = _compared(claim, sets, *sides)
    return Outcome(claim, system.name, verdict, detail, command)


def _against_number(
    claim: Claim,
    system: System,
    tables: Callable[[str], Table],
    exps: Mapping[str, Path],
    dump: Path,
) -> Outcome:
    table = tables(claim.table)
    number = claim.table.removeprefix("table").strip("_")
    command = (
        f"powsm reproduce --table {number} --exp {exps[system.name]} --dump {dump}"
    )
    cells = [
        cell
        for cell in fill(table, [system])
        if cell.column == claim.column
        and any(row.name == cell.row and row.ours is not None for row in table.rows)
    ]
    cell = cells[0]
    if cell.ours is None:
        return Outcome(claim, system.name, UNTESTED, cell.why, command)
    if cell.is_incomplete:
        why = "a set lacks parts of its corpus; the number is of whole ones"
        return Outcome(claim, system.name, UNTESTED, why, command)
    verdict = _held_against(claim, cell.ours)
    within = bounds(cell.ours.low, cell.ours.high) or "without an interval"
    detail = f"{cell.ours.value:.2f} {within}"
    return Outcome(claim, system.name, verdict, detail, command)


def _held_against(claim: Claim, ours: Score) -> str:
    if math.isnan(ours.low) or math.isnan(ours.high):
        return OPEN
    if claim.at_least is not None:
        if ours.low >= claim.at_least:
            return HOLDS
        return OPEN if ours.high >= claim.at_least else FAILS
    assert claim.below is not None
    if ours.high < claim.below:
        return HOLDS
    return OPEN if ours.low < claim.below else FAILS


def _who_are(
    table: Table, name: str, systems: Sequence[System]
) -> tuple[list[System], str]:
    """The experiments that are a row's training, and the command that makes one."""
    row = next(row for row in table.rows if row.name == name)
    assert row.training is not None
    return [s for s in systems if not s.differences(row)], row.training.command()


def _between_trainings(
    claim: Claim,
    roles: Mapping[str, Sequence[str]],
    systems: Sequence[System],
    tables: Callable[[str], Table],
) -> Outcome:
    """Two trainings, decoded alike: no clear trend is an interval around zero."""
    table = tables(claim.trainings)
    sides: list[Any] = []
    commands = []
    for row in (claim.first_row, claim.second_row):
        of_row, command = _who_are(table, row, systems)
        commands.append(command)
        if len(of_row) != 1:
            none = f"no experiment is the training of {row!r}"
            why = f"{_TWO} {row!r}; name one" if of_row else none
            return Outcome(claim, "", UNTESTED, why, command)
        (system,) = of_row
        asked = {"profile": claim.profile, "task": plain_task(PHONES)}
        scores = _of_sets(system, roles[claim.role], asked, claim.metric)
        if isinstance(scores, str):
            return Outcome(claim, system.name, UNTESTED, scores, command)
        sides.append((system.name, scores))
    verdict, detail = _compared(claim, roles[claim.role], sides[0][1], sides[1][1])
    if verdict in (HOLDS, FAILS):
        verdict = FAILS
    elif verdict == OPEN and len(sides[0][1]) > 1:  # one utterance has no interval
        verdict = HOLDS
    name = " and ".join(name for name, _ in sides)
    return Outcome(claim, name, verdict, detail, "; ".join(commands))


def _convergence(
    claim: Claim, systems: Sequence[System], tables: Callable[[str], Table]
) -> Outcome:
    """The first row of a figure of curves should be the lowest at the last epoch.

    A single training a row: another seed may change the order, so there is no interval.
    """
    table = tables(claim.trainings)
    filled = [cell for cell in fill(table, systems) if cell.ours]
    values = {cell.row: cell.ours.value for cell in filled if cell.ours}
    first = table.rows[0].name
    others = [value for row, value in values.items() if row != first]
    command = "powsm reproduce --table figure2 --exp EXP..."
    if len(values) < len(filled):
        rows = Counter(cell.row for cell in filled)
        why = f"{_TWO} {rows.most_common(1)[0][0]!r}; name one"
        return Outcome(claim, "", UNTESTED, why, command)
    if first not in values or not others:
        why = f"needs experiments of {first!r} and of another row of figure 2"
        return Outcome(claim, "", UNTESTED, why, command)
    detail = ", ".join(f"{row}: {value:.2f}" for row, value in values.items())
    verdict = HOLDS if values[first] < min(others) else FAILS
    return Outcome(claim, "", verdict, f"{detail} (one seed)", command)


def render_claims(outcomes: Sequence[Outcome]) -> str:
    """The claims as Markdown: a table, then the command of each test."""
    rows = [
        [o.claim.name, o.claim.statement, o.claim.source, o.system, o.verdict, o.detail]
        for o in outcomes
    ]
    head = ["claim", "statement", "where", "experiment", "verdict", "test"]
    parts = [
        "# The paper's claims",
        "Differences are paired over the utterances of all sets named, with a 95 % "
        f"bootstrap interval; a claim holds when p is below {SIGNIFICANT} and the "
        "interval lies on its side of zero, or of the published number. Phones of two "
        "decodings are scored against what the normaliser made of the references, and "
        "those that are held against a published number as its table is.",
        markdown_table(head, rows),
        "## Commands",
        "\n".join(
            f"- {o.claim.name}{', ' + o.system if o.system else ''}: `{o.command}`"
            for o in outcomes
            if o.command
        ),
    ]
    return "\n\n".join(parts) + "\n"
