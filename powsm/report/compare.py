"""Two experiments side by side: paired differences, and the settings that differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powsm.formatting import markdown_table
from powsm.score.decoded import decoded_sets
from powsm.score.intervals import Comparison
from powsm.score.rates import Scores, rate_notes
from powsm.score.results import task_title
from powsm.tasks import DECODED_TASKS

SIGNIFICANT = 0.05  # p below this is marked


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


def common_hyps(first: Path, second: Path) -> tuple[list[Path], list[Path]]:
    """Decoded sets: in both, and in one alone.

    Args:
        first, second: experiments with `<profile>/<set>/<task>[_<decode>]`, or the
            folders of two profiles in one, with `<set>/<task>[_<decode>]`.
    """
    places = [
        {decoded.folder.relative_to(folder) for decoded in decoded_sets(folder)}
        for folder in (first, second)
    ]
    return sorted(places[0] & places[1]), sorted(places[0] ^ places[1])


def compare_scores(
    what: Path, first: Scores, second: Scores, *, by_lang: bool
) -> list[Compared]:
    """Compare the main rates of a decoded set, pooled and perhaps by language.

    Raises:
        ScoreError: the utterances are not the same.
    """
    *profile, set_name, tag = what.parts
    task = tag.partition("_")[0]
    profile = [name.removeprefix("decode_") for name in profile]
    pairs = {"all": (first, second)}
    if by_lang:
        langs = second.by_lang()
        pairs |= {lang: (part, langs[lang]) for lang, part in first.by_lang().items()}
    return [
        Compared(
            what=", ".join((f"{set_name}: {task_title(task)}", *profile)),
            lang=lang,
            metric=metric,
            first=a.value(metric),
            second=b.value(metric),
            result=a.compare(b, metric),
        )
        for lang, (a, b) in pairs.items()
        for metric in DECODED_TASKS[task].metrics
        if not math.isnan(a.value(metric))
    ]


def config_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], head: str = ""
) -> list[tuple[str, str, str]]:
    """Settings that differ: (dotted key, value of the first, value of the second).

    >>> config_differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}})
    [('a.b', '1', '3'), ('c', '2', 'not set')]
    """
    found = []
    for key in sorted({*first, *second}):
        a, b = first.get(key, "not set"), second.get(key, "not set")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += config_differences(a, b, f"{head}{key}.")
        elif a != b:
            found.append((f"{head}{key}", str(a), str(b)))
    return found


def render(
    names: tuple[str, str],
    compared: Sequence[Compared],
    settings: Sequence[tuple[str, str, str]],
    unpaired: Sequence[Path],
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
            _interval(c.result),
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


def _interval(result: Comparison) -> str:
    if math.isnan(result.low) or math.isnan(result.high):
        return ""
    return f"[{result.low:+.2f}, {result.high:+.2f}]"


def _chance(p: float) -> str:
    if math.isnan(p):
        return ""
    return f"{p:.4f}" + (" *" if p < SIGNIFICANT else "")
