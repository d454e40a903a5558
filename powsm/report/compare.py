"""Two experiments side by side: paired differences, and the settings that differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powsm.errors import PowsmError
from powsm.formatting import bounds, markdown_table
from powsm.score.decoded import HYP_FILE, DecodedSet, decoded_sets
from powsm.score.intervals import Comparison
from powsm.score.rates import Scores, rate_notes
from powsm.score.results import task_title
from powsm.tasks import DECODED_TASKS

SIGNIFICANT = 0.05  # p below this is marked


class CompareError(PowsmError):
    """Two decodings that do not compare; the message names both."""


@dataclass(frozen=True)
class Compared:
    """One rate of both experiments on the same utterances.

    Attributes:
        what: profile, set and task.
        lang: ISO 639-3, or `all`.
        metric: the rate.
        first, second: the rate of either experiment.
        result: first minus second, its interval and p.
    """

    what: str
    lang: str
    metric: str
    first: float
    second: float
    result: Comparison


@dataclass(frozen=True)
class Pair:
    """Two decodings of one set that say the same kind of thing.

    Attributes:
        what: set, task and profile, or both of each where they differ.
        first, second: the decodings.
    """

    what: str
    first: DecodedSet
    second: DecodedSet

    @property
    def of_other_utterances(self) -> bool:
        """Whether one of them leaves out utterances without orthography."""
        first, second = (DECODED_TASKS[s.task] for s in (self.first, self.second))
        return first.needs_text != second.needs_text


def pair_decoded(first: Path, second: Path) -> tuple[list[Pair], list[str]]:
    """Decodings to compare, and those that only one side has.

    The same place in both comes first. Of what is left, two that say the same kind of
    thing of one set make a pair if there is no other candidate: speech recognition and
    P2G, or two profiles.

    Args:
        first, second: experiments, folders of a profile in one, or of one decoding,
            `<profile>/<set>/<task>[_<decode>]`.
    """
    sides = [_by_place(folder) for folder in (first, second)]
    pairs = []
    for place in sorted(sides[0].keys() & sides[1].keys()):
        a, b = (side.pop(place) for side in sides)
        pairs.append(Pair(_what(a, b), a, b))
    kinds: dict[tuple[str, str], tuple[list[DecodedSet], list[DecodedSet]]] = {}
    for number, side in enumerate(sides):
        for decoded in side.values():
            key = (decoded.set_name, decoded.writes)
            kinds.setdefault(key, ([], []))[number].append(decoded)
    unpaired = []
    for ours, theirs in kinds.values():
        if len(ours) == len(theirs) == 1:
            pairs.append(Pair(_what(ours[0], theirs[0]), ours[0], theirs[0]))
        else:
            unpaired += [str(d.place) for d in (*ours, *theirs)]
    return pairs, sorted(unpaired)


def _by_place(folder: Path) -> dict[Path, DecodedSet]:
    if (folder / HYP_FILE).exists():
        return {Path("this"): DecodedSet(folder)}
    return {d.folder.relative_to(folder): d for d in decoded_sets(folder)}


def _what(a: DecodedSet, b: DecodedSet) -> str:
    """Set, task and profile of a pair."""

    def either(x: str, y: str) -> str:
        return x if x == y else f"{x} / {y}"

    if a.set_name != b.set_name:
        raise CompareError(
            f"{a.folder} and {b.folder} are of different sets; a difference is taken "
            "on the same utterances"
        )
    if a.writes != b.writes:
        raise CompareError(
            f"{a.folder} writes {a.writes}, {b.folder} {b.writes}; nothing compares"
        )
    task = either(task_title(a.task), task_title(b.task))
    return f"{a.set_name}: {task}, {either(a.profile, b.profile)}"


def compare_scores(
    pair: Pair, first: Scores, second: Scores, *, by_lang: bool
) -> list[Compared]:
    """Compare the main rates of a pair, pooled and perhaps by language.

    Raises:
        ScoreError: the utterances are not the same.
    """
    pairs = {"all": (first, second)}
    if by_lang:
        langs = second.by_lang()
        pairs |= {lang: (part, langs[lang]) for lang, part in first.by_lang().items()}
    return [
        Compared(
            what=pair.what,
            lang=lang,
            metric=metric,
            first=a.value(metric),
            second=b.value(metric),
            result=a.compare(b, metric),
        )
        for lang, (a, b) in pairs.items()
        for metric in DECODED_TASKS[pair.first.task].metrics
        if metric in a.rates and metric in b.rates and not math.isnan(a.value(metric))
    ]


def config_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], head: str = ""
) -> list[tuple[str, str, str]]:
    """Settings that differ: (dotted key, value of the first, value of the second).

    >>> config_differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}})
    [('a.b', '1', '3'), ('c', '2', 'not set')]
    """
    differences = []
    for key in sorted({*first, *second}):
        a, b = first.get(key, "not set"), second.get(key, "not set")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            differences += config_differences(a, b, f"{head}{key}.")
        elif a != b:
            differences.append((f"{head}{key}", str(a), str(b)))
    return differences


def render(
    names: tuple[str, str],
    compared: Sequence[Compared],
    settings: Sequence[tuple[str, str, str]],
    unpaired: Sequence[str],
) -> str:
    """The comparison as Markdown."""
    first, second = names
    rows = [
        [
            c.what + ("" if c.lang == "all" else f", {c.lang}"),
            c.metric,
            f"{c.first:.2f}",
            f"{c.second:.2f}",
            f"{c.result.difference:+.2f}",
            bounds(c.result.low, c.result.high, "+.2f"),
            _chance(c.result.p),
        ]
        for c in compared
    ]
    parts = [
        f"# {first} and {second}",
        "Both decoded the same utterances. The difference is first minus second, in "
        "points, with a paired 95 % bootstrap interval; p is the chance of a "
        "difference as large, either way, if for each utterance it were luck which "
        f"system made which output. * marks p below {SIGNIFICANT}; of many rows, some "
        "are below it by chance.",
        markdown_table(
            ["set: task, profile", "metric", first, second, "difference", "95 %", "p"],
            rows,
        ),
    ]
    parts.append(rate_notes(dict.fromkeys(c.metric for c in compared)))
    if settings:
        parts.append("## Settings that differ")
        parts.append(markdown_table(["setting", first, second], settings))
    if unpaired:
        parts.append("## Decoded by one of them alone")
        parts.append("\n".join(f"- {path}" for path in unpaired))
    return "\n\n".join(parts) + "\n"


def _chance(p: float) -> str:
    if math.isnan(p):
        return ""
    return f"{p:.4f}" + (" *" if p < SIGNIFICANT else "")
