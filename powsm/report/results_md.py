"""`RESULTS.md`: every score with its interval, its cost and what gave it."""

import math
from collections.abc import Sequence
from pathlib import Path

from powsm.files.whole import write_whole
from powsm.formatting import bounds, markdown_table
from powsm.languages import language_name
from powsm.report.experiment import (
    Experiment,
    chance_of,
    groups,
    training_command,
    versions,
)
from powsm.report.weak import weaknesses
from powsm.score.rates import CHANCE, rate_notes
from powsm.score.results import Result, ordered_metrics, task_title


def with_interval(result: Result | None) -> str:
    """`12.3 [11.0, 13.9]`; without bounds where there is too little to tell."""
    if result is None:
        return ""
    if math.isnan(result.value):
        return "undefined"
    digits = 2 if result.metric == "mean_hamming" else 1
    value = f"{result.value:.{digits}f}"
    return f"{value} {bounds(result.low, result.high, f'.{digits}f')}".rstrip()


def duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> duration(5.24), duration(184), duration(3720)
    ('5.2 s', '3 min 04 s', '1 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def render(experiment: Experiment, dump: Path, command: str) -> str:
    """The text of `RESULTS.md`.

    Args:
        experiment: what stages 11 to 13 left.
        dump: `dump/raw`, for the normalisers of the sets.
        command: the command that writes this report.
    """
    sets = list(dict.fromkeys(r.set for r in experiment.results))
    units = {r.unit for r in experiment.results}
    over = " over speakers" * ("speaker" in units)
    over += " (utterances where these are not known)" * (len(units) > 1)
    parts = [
        f"# {experiment.name}",
        "Rates are in percent, from summed counts, with 95 % bootstrap intervals"
        f"{over} in brackets; for error rates, less is better. Phones are scored "
        "against what the normaliser made of the references; the paper's tables "
        "(`powsm reproduce`) are scored against IPA that went through none.",
        *_headlines(experiment),
        "## What is weak",
        "\n".join(
            f"- {line}" for line in weaknesses(experiment, dump) or ["Nothing found."]
        ),
    ]
    for set_name, task in groups(experiment):
        parts += _group_section(experiment, set_name, task)
    parts += _cost_section(experiment)
    parts += _training_section(experiment)
    parts += ["## Commands and versions"]
    commands = [c for c in (training_command(experiment.path), command) if c]
    if len(commands) == 1:
        parts.append("The command of training was not kept (no `run.sh` here).")
    parts.append("```bash\n" + "\n".join(commands) + "\n```")
    rows = versions(dump, sets).items()
    parts.append(markdown_table(["", "at the time of this report"], rows))
    parts.append("## Metrics")
    used = ordered_metrics(experiment.results)
    parts.append(rate_notes(used))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _headlines(experiment: Experiment) -> list[str]:
    rows = []
    for set_name, task in groups(experiment):
        metric = experiment.main_metric(set_name, task)
        pooled = experiment.select(set=set_name, task=task, metric=metric, lang="all")
        for result in pooled:
            rows.append(
                [
                    f"{set_name}: {task_title(task)}",
                    result.system,
                    metric,
                    with_interval(result),
                    with_interval(chance_of(experiment, result)),
                    str(result.n_utts),
                ]
            )
    header = ["set: task", "decode", "metric", "score", "chance", "utts"]
    return [markdown_table(header, rows)]


def _group_section(experiment: Experiment, set_name: str, task: str) -> list[str]:
    results = experiment.select(set=set_name, task=task)
    systems = list(dict.fromkeys(r.system for r in results))
    metrics = ordered_metrics(results)
    by_column = {(r.system, r.metric, r.lang): r for r in results}
    title = f"## {set_name}: {task_title(task)}"
    overall = markdown_table(
        ["decode", *metrics, "utterances", "reference units"],
        [
            [
                system,
                *(with_interval(by_column.get((system, m, "all"))) for m in metrics),
                *_sizes([by_column.get((system, m, "all")) for m in metrics]),
            ]
            for system in systems
        ],
    )
    langs = sorted({r.lang for r in results} - {"all"})
    if not langs:
        return [title, overall]
    # those that are reported elsewhere; results.json has them all
    shown = metrics[: 3 if CHANCE in metrics else 2]
    columns = [(system, m) for system in systems for m in shown]
    by_language = markdown_table(
        ["language", "utts", *(f"{m} {system}".strip() for system, m in columns)],
        [
            [
                f"{lang} ({language_name(lang)})",
                str(max(r.n_utts for r in results if r.lang == lang)),
                *(with_interval(by_column.get((s, m, lang))) for s, m in columns),
            ]
            for lang in langs
        ],
    )
    return [title, overall, by_language]


def _sizes(results: Sequence[Result | None]) -> list[str]:
    present = [r for r in results if r is not None]
    if not present:
        return ["", ""]
    units = dict.fromkeys(r.n_units for r in present)  # in the order of the metrics
    return [str(present[0].n_utts), " / ".join(f"{n:,}" for n in units)]


def _cost_section(experiment: Experiment) -> list[str]:
    if not experiment.timings:
        return ["## Decoding time", "No decoding times were found (`timing.json`)."]
    header = ["set: task", "profile", "audio (s)", "computing (s)", "RTF"]
    rows = [
        [f"{t.set}: {task_title(t.task)}", t.profile]
        + [f"{t.audio_s:,.1f}", f"{t.compute_s:,.1f}", f"{t.rtf:.4f}"]
        for t in experiment.timings
    ]
    return [
        "## Decoding time",
        "Seconds of computing for a second of audio is the real-time factor (RTF): "
        "under 1 is faster than speech. Loading the model is not in it.",
        markdown_table(header, rows),
    ]


def _training_section(experiment: Experiment) -> list[str]:
    if not experiment.history:
        return []
    last = experiment.history[-1]
    lines = [
        f"{last['epoch']} epochs, {last['updates']:,} updates, "
        f"{duration(last['seconds'])}."
    ]
    for name in ("loss", "pfer_ctc"):
        # NaN, of an epoch that diverged, is no lower than what comes after it
        known = [r for r in experiment.history if not math.isnan(r.get(name, math.nan))]
        if not known or name not in last:
            continue
        best = min(known, key=lambda record: record[name])
        lines.append(
            f"Best validation {name}: {best[name]:.2f}, epoch {best['epoch']} "
            f"({duration(best['seconds'])})."
        )
    pictures = sorted((experiment.path / "images").glob("*.png"))
    return [
        "## Training",
        " ".join(lines),
        "\n".join(
            f"![{path.stem.replace('_', ' ')}](images/{path.name})" for path in pictures
        ),
    ]


def write(experiment: Experiment, dump: Path, command: str) -> Path:
    """Write `RESULTS.md` into the experiment folder."""
    path = experiment.path / "RESULTS.md"
    text = render(experiment, dump, command)
    write_whole(path, text)
    return path
