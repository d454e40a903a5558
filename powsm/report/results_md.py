"""`RESULTS.md`: every score with its interval, its cost and what gave it."""

import math
from collections.abc import Sequence
from pathlib import Path

from powsm.corpora.table import CORPORA, TEST_PREFIX
from powsm.files.whole import write_whole
from powsm.formatting import markdown_table
from powsm.languages import language_name
from powsm.report.experiment import (
    Experiment,
    decoded_otherwise,
    other_normalisers,
    training_command,
    versions,
)
from powsm.score.chance import NOTHING_SHARE
from powsm.score.decoded import HYP_FILE, DumpSet, decoded_sets
from powsm.score.rates import CHANCE, rate_notes
from powsm.score.results import RESULTS_FILE, Result, ordered_metrics, task_title

# When a score is called weak, in percent. These are not thresholds of the paper: an
# error rate above them means that a reader cannot use the output without correcting it.
WEAK = {"PER": 40.0, "WER": 50.0, "CER": 30.0}
WEAK_LID = 90.0
WEAK_SHARE = 0.5  # of the rate of chance, for a PFER
FEW_UTTERANCES = 50  # intervals of fewer are known to be too narrow


def with_interval(result: Result | None) -> str:
    """`12.3 [11.0, 13.9]`; without bounds where there is too little to tell."""
    if result is None:
        return ""
    if math.isnan(result.value):
        return "undefined"
    digits = 2 if result.metric == "mean_hamming" else 1
    value = f"{result.value:.{digits}f}"
    if math.isnan(result.low) or math.isnan(result.high):
        return value
    return f"{value} [{result.low:.{digits}f}, {result.high:.{digits}f}]"


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


def groups(experiment: Experiment) -> list[tuple[str, str]]:
    """The (set, task) pairs that were scored, in order."""
    return list(dict.fromkeys((r.set, r.task) for r in experiment.results))


def weaknesses(experiment: Experiment, dump: Path) -> list[str]:
    """Plain statements of what the numbers cannot or should not be used for."""
    sets = list(dict.fromkeys(r.set for r in experiment.results))
    remarks = _of_what_was_scored(experiment, dump, sets)
    for set_name, task in groups(experiment):
        metric = experiment.main_metric(set_name, task)
        rows = experiment.select(set=set_name, task=task, metric=metric)
        pooled = [r for r in rows if r.lang == "all"]
        for result in pooled:
            if metric == "PFER":
                remarks += _weak_phones(result, chance_of(experiment, result))
            elif metric == "accuracy":
                symbols = experiment.lang_symbols
                remarks += _weak_lid(result, rows, symbols)
            else:
                remarks += _weak_result(result)
        ctc = next((r for r in pooled if r.decode == "ctc"), None)
        worse = [
            f"{r.system} {r.value:.1f}"
            for r in pooled
            if ctc and r.decode != "ctc" and ctc.high < r.low
        ]
        if worse:
            remarks.append(
                f"{set_name}, {task_title(task)}: with the decoder, {metric} is worse "
                f"than the {ctc.value:.1f} of the CTC head alone "
                f"({', '.join(worse)}): the decoder has not learned to follow the "
                "audio well."
            )
        remarks += _uneven_languages(rows, pooled, set_name, task)
    for set_name in sets:
        remarks += _weak_set(experiment, set_name)
    if not experiment.history:
        remarks.append("No training history was found: nothing is said of convergence.")
    elif _still_falling(experiment.history):
        remarks.append(
            "The validation loss was lowest at the last epoch: more training is likely "
            "to help."
        )
    return list(dict.fromkeys(remarks))


def _of_what_was_scored(
    experiment: Experiment, dump: Path, sets: Sequence[str]
) -> list[str]:
    """What keeps scores from comparing with others."""
    remarks = [
        f"{set_name}: its phones were made with another phone map than the one used in "
        "scoring; run stages 4 to 13 again before comparing."
        for set_name in other_normalisers(dump, sets)
    ]
    remarks += [
        f"{set_name}: an incomplete copy, without {' '.join(missing)}; its "
        "scores are no published ones."
        for set_name in sets
        if (missing := DumpSet(dump / set_name).missing)
    ]
    decodings = decoded_sets(experiment.path, sets)
    remarks += [
        f"{decoded.place} was decoded by an earlier version; run stages 12, 13 again."
        for decoded in decodings
        if decoded.is_of_earlier_version
    ]
    remarks += [
        f"{decoded.place} was decoded with other weights or settings than the newest; "
        "run stage 12 for it again before comparing."
        for decoded in decoded_otherwise(decodings)
    ]
    scored_at = (experiment.path / RESULTS_FILE).stat().st_mtime_ns
    remarks += [
        f"{decoded.place} was decoded after the scores here; run stage 13 again."
        for decoded in decodings
        if (decoded.folder / HYP_FILE).stat().st_mtime_ns > scored_at
    ]
    if cleanings := sorted({r.cleaning for r in experiment.results} - {""}):
        remarks.append(
            f"Phones were read by the cleaning {' '.join(cleanings)}, not by the "
            "policies of the sets; scores without it do not compare."
        )
    return remarks


def _where(result: Result) -> str:
    name = task_title(result.task)
    return f"{result.set}, {name}" + (f", {result.system}" if result.decode else "")


def _weak_phones(result: Result, chance: Result | None) -> list[str]:
    """How much of the way from chance to the reference a system went."""
    where = f"{_where(result)}: PFER {result.value:.1f}"
    if chance is None:
        return [
            f"{where} without the rate of chance beside it; run stage 13 again: alone "
            "it does not say whether anything was recognised."
        ]
    beside = f"other utterances' references give {chance.value:.1f}"
    if result.value > NOTHING_SHARE * chance.value:
        return [f"{where}, and {beside}: chance, nothing was recognised."]
    if result.high >= chance.low:  # false where there are too few for an interval
        return [f"{where}, and {beside}: not certainly better than chance."]
    if result.value > WEAK_SHARE * chance.value:
        return [
            f"{where} is more than half of chance ({beside}); the output is not usable "
            "as it is."
        ]
    return []


def _weak_lid(
    result: Result, rows: Sequence[Result], symbols: frozenset[str]
) -> list[str]:
    """Accuracy over the languages that the model can name, and the ones it cannot."""
    by_lang = [r for r in rows if r.system == result.system and r.lang != "all"]
    if not symbols or not by_lang:
        known, unknown = [result], []
    else:
        known = [r for r in by_lang if f"<{r.lang}>" in symbols]
        unknown = [r for r in by_lang if f"<{r.lang}>" not in symbols]
    lines = []
    if unknown:
        lines.append(
            f"{_where(result)}: {sum(r.n_utts for r in unknown)} utterances are in "
            f"languages that the model has no symbol for, and cannot be right: "
            f"{' '.join(r.lang for r in unknown)}."
        )
    if known:
        n_utts = sum(r.n_utts for r in known)
        accuracy = sum(r.value * r.n_utts for r in known) / n_utts
        if accuracy < WEAK_LID:
            among = " among the languages with a symbol" if unknown else ""
            lines.append(
                f"{_where(result)}: accuracy {accuracy:.1f}{among} is below "
                f"{WEAK_LID:.0f}."
            )
    return lines


def _weak_result(result: Result) -> list[str]:
    where = _where(result)
    limit = WEAK.get(result.metric)
    if limit is None or result.value <= limit:
        return []
    is_lost = result.value > 2 * limit
    use = "is not usable as it is" if is_lost else "needs correction by hand"
    fault = f"{result.metric} {result.value:.1f} is above {limit:.0f}"
    return [f"{where}: {fault}; the output {use}."]


def _uneven_languages(
    rows: list[Result], pooled: list[Result], set_name: str, task: str
) -> list[str]:
    """Languages whose error is certainly above one and a half times the pooled one."""
    remarks = []
    for whole in pooled:
        if whole.metric == "accuracy":
            continue
        limit = 1.5 * whole.value
        worse = [
            f"{r.lang} {r.value:.1f}"
            for r in rows
            if r.system == whole.system and r.lang != "all" and r.low > limit
        ]
        if worse:
            remarks.append(
                f"{set_name}, {task_title(task)}, {whole.system}: far above the "
                f"pooled {whole.metric} of {whole.value:.1f}: {', '.join(worse)}."
            )
    return remarks


def _weak_set(experiment: Experiment, set_name: str) -> list[str]:
    remarks = []
    results = experiment.select(set=set_name)
    few = {r.lang for r in results if r.n_utts < FEW_UTTERANCES} - {"all"}
    n_utts = max(r.n_utts for r in results)
    if n_utts < FEW_UTTERANCES:
        remarks.append(
            f"{set_name}: only {n_utts} utterances; the intervals are too narrow."
        )
    elif few:
        remarks.append(
            f"{set_name}: fewer than {FEW_UTTERANCES} utterances in "
            f"{' '.join(sorted(few))}; read single languages with care."
        )
    corpus = CORPORA.get(set_name.removeprefix(TEST_PREFIX))
    if corpus is not None and corpus.labels == "g2p":
        remarks.append(
            f"{set_name}: the reference phones were made by a G2P program from the "
            "orthography, so phone scores say how well the model imitates it, not how "
            "well it hears."
        )
    return remarks


def _still_falling(history: Sequence[dict]) -> bool:
    losses = [record["loss"] for record in history if "loss" in record]
    return len(losses) > 1 and losses[-1] == min(losses)


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


def chance_of(experiment: Experiment, result: Result) -> Result | None:
    """The rate of the same hypotheses against other references, beside a PFER."""
    if result.metric != "PFER":
        return None
    same_as = {key: getattr(result, key) for key in ("set", "task", "system", "lang")}
    same = experiment.select(**same_as, metric=CHANCE)
    return same[0] if same else None


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
    for name in [n for n in ("loss", "pfer_ctc") if n in last]:
        best = min(experiment.history, key=lambda record: record.get(name, math.inf))
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
