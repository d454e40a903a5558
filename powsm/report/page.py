"""`report/index.html`: one static file with everything in it, sound included.

The page makes no request: styles, script, scores, alignments, audio and spectrograms
are inside, and its content policy forbids the rest. Which utterances are inside is
bounded, and the page says how many were left out.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from powsm.cluster.costs import count_parameters
from powsm.corpora.table import TEST_PREFIX
from powsm.files.whole import write_whole
from powsm.languages import language_name
from powsm.phones.chart import PROPERTIES, classes
from powsm.prepare.filters import kept_hours
from powsm.report.clips import MAX_FREQUENCY_HZ, ClipBudget
from powsm.report.decoded import GAP, AlignedSet, differences, read_decoded
from powsm.report.experiment import Experiment, training_command, versions
from powsm.report.weak import weaknesses
from powsm.score.distance import Numbers
from powsm.score.rates import CHANCE, RATES
from powsm.score.results import Result
from powsm.tasks import DECODED_TASKS, LANGUAGE, PHONES

N_WORST = 30  # utterances with the highest error, of each decoded set
N_EXAMPLES = 2000  # utterances that show confusions, shared by the decoded sets
MOST_EXAMPLES = 300  # of one decoded set
MAX_CONFUSIONS = 20_000  # pairs of phones by language; with more, languages are pooled
MAX_CLIPS = 100  # utterances with sound and spectrogram, of all sets together
MAX_CLIP_BYTES = 10_000_000
_HIDDEN_SETTINGS = {"token_list"}  # thousands of lines

_OF_TIMING = ("set", "task", "profile", "audio_s", "compute_s")
_OF_RESULT = (
    "set",
    "lang",
    "task",
    "system",
    "metric",
    "value",
    "low",
    "high",
    "n_utts",
    "n_units",
)
_PARTS = ("report.html", "report.css", "clip.js", "report.js")


def page_data(experiment: Experiment, dump: Path, command: str) -> dict:
    """Everything the page shows, as JSON takes it."""
    sets = list(dict.fromkeys(r.set for r in experiment.results))
    systems, lid, langs = _decoded(experiment, dump, sets)
    langs |= {r.lang for r in experiment.results}
    budget = ClipBudget(MAX_CLIPS, MAX_CLIP_BYTES)
    order = list(DECODED_TASKS)
    systems.sort(key=lambda s: (s["set"], order.index(s["task"]), s["mean_error"]))
    _embed_clips(systems, budget)
    phones = Numbers()
    for system in systems:
        if DECODED_TASKS[system["task"]].writes == PHONES:
            _number_phones(system, phones)
    return {
        "name": experiment.name,
        "tasks": {name: task.title for name, task in DECODED_TASKS.items()},
        "metrics": {name: rate.title for name, rate in RATES.items()},
        "main_metrics": {
            name: [*task.metrics, *((CHANCE,) if "PFER" in task.metrics else ())]
            for name, task in DECODED_TASKS.items()
        },
        "chance": CHANCE,
        "languages": {lang: language_name(lang) for lang in sorted(langs - {"all"})},
        "headline": headline(experiment, dump),
        "higher_is_better": [n for n, rate in RATES.items() if rate.higher_is_better],
        "weak": weaknesses(experiment, dump),
        "results": [_result(r) for r in experiment.results],
        "timings": [
            {key: getattr(timing, key) for key in _OF_TIMING}
            for timing in experiment.timings
        ],
        "history": _finite(experiment.history),
        "phones": list(phones),
        "classes": [
            [PROPERTIES[name].index(classes(phone)[name]) for name in PROPERTIES]
            if phone != GAP
            else None
            for phone in phones
        ],
        "properties": PROPERTIES,
        "differences": _differences(systems, phones),
        "systems": systems,
        "lid": lid,
        **_clips(budget),
        "max_frequency_hz": MAX_FREQUENCY_HZ,
        "commands": [c for c in (training_command(experiment.path), command) if c],
        "versions": versions(dump, sets),
        "settings": {
            key: value
            for key, value in experiment.config.items()
            if key not in _HIDDEN_SETTINGS and value not in (None, {}, [])
        },
    }


def headline(experiment: Experiment, dump: Path) -> dict | None:
    """The best pooled score of the first task that was scored, and what it is of.

    All sections of the page begin with its set, task and profile.

    Args:
        dump: `dump/raw`, whose training set says how many hours there are.
    """
    pooled = [r for r in experiment.results if r.lang == "all"]
    scored = {r.task for r in pooled}
    task = next((name for name in DECODED_TASKS if name in scored), None)
    if task is None:
        return None
    sets = [r.set for r in pooled if r.task == task]
    # epochs were chosen by dev, which flatters
    set_name = next((name for name in sets if name.startswith(TEST_PREFIX)), sets[0])
    metric = experiment.main_metric(set_name, task)
    asked = {"set": set_name, "task": task, "metric": metric, "lang": "all"}
    rows = [r for r in experiment.select(**asked) if math.isfinite(r.value)]
    if not rows:
        return None
    sign = -1 if metric in RATES and RATES[metric].higher_is_better else 1
    best = min(rows, key=lambda r: sign * r.value)
    audio_s = [
        t.audio_s
        for t in experiment.timings
        if (t.set, t.task, t.profile) == (best.set, best.task, best.system)
    ]
    return {
        **_result(best),
        "n_systems": len(rows),
        "audio_s": audio_s[0] if audio_s else None,
        "n_parameters": _n_parameters(experiment.config),
        "train_hours": kept_hours(dump / "train"),
    }


def _n_parameters(config: Mapping) -> float | None:
    """Weights by the settings, biases left out; None for another kind of network."""
    try:
        return count_parameters(config, len(config["token_list"]))
    except (KeyError, TypeError):
        return None


def _decoded(
    experiment: Experiment, dump: Path, sets: Sequence[str]
) -> tuple[list[dict], list[dict], set[str]]:
    """Systems with their utterances, confusions of languages, languages named."""
    n_decoded = len(experiment.timings) or 1
    n_examples = min(MOST_EXAMPLES, N_EXAMPLES // n_decoded)
    systems, lid = [], []
    langs: set[str] = set()
    for decoded in read_decoded(experiment.path, dump, sets):  # one at a time in memory
        langs.update(decoded.langs)
        if DECODED_TASKS[decoded.task].writes != LANGUAGE:
            systems.append(_system(decoded, n_examples))
        else:
            counts = decoded.lid_matrix()
            langs.update(hyp for _, hyp, _ in counts)
            lid.append(
                {"set": decoded.set, "profile": decoded.profile, "counts": counts}
            )
    return systems, lid, langs


def _clips(budget: ClipBudget) -> dict:
    return {
        "clips": list(budget.clips.values()),
        "clip_limits": {
            "n": len(budget.clips),
            "bytes": budget.n_bytes,
            "max_clips": MAX_CLIPS,
            "max_bytes": MAX_CLIP_BYTES,
        },
    }


def _result(result: Result) -> dict:
    numbers = {key: _number(getattr(result, key)) for key in ("value", "low", "high")}
    return {key: getattr(result, key) for key in _OF_RESULT} | numbers


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _finite(history: Sequence[dict]) -> list[dict]:
    return [{k: _number(v) for k, v in record.items()} for record in history]


def _system(decoded: AlignedSet, n_examples: int) -> dict:
    """A decoded set with the utterances that the page can show."""
    worst = decoded.worst(N_WORST)
    is_phones = DECODED_TASKS[decoded.task].writes == PHONES
    shown = worst + (decoded.examples(n_examples) if is_phones else [])
    shown = list(dict.fromkeys(shown))
    place = {k: number for number, k in enumerate(shown)}
    times = decoded.times(shown) if is_phones else {}
    return {
        "set": decoded.set,
        "task": decoded.task,
        "profile": decoded.profile,
        "unit": "phone" if is_phones else "word",
        "error": decoded.error_name,
        "n_utts": len(decoded.utt_ids),
        "mean_error": _number(float(decoded.errors.mean())),
        "confusions": decoded.confusions() if is_phones else None,
        "worst": [place[k] for k in worst],
        "utterances": [
            {
                "id": decoded.utt_ids[k],
                "lang": decoded.langs[k],
                "seconds": decoded.durations_s[k],
                "error": _number(float(decoded.errors[k])),
                "location": decoded.locations[k],
                "steps": decoded.alignments[k],
                "times": times.get(k, []),
            }
            for k in shown
        ],
    }


def _embed_clips(systems: Sequence[dict], budget: ClipBudget) -> None:
    """Sound for the worst of every system first, then for what shows confusions.

    The location of an utterance becomes the number of its clip, or None.
    """
    ranked = [
        sorted(range(len(s["utterances"])), key=lambda k, s=s: k not in s["worst"])
        for s in systems
    ]
    longest = max(map(len, ranked), default=0)
    for rank in range(longest):
        for system, order in zip(systems, ranked, strict=True):
            if rank < len(order):
                budget.add(system["utterances"][order[rank]]["location"])
    number = {location: n for n, location in enumerate(budget.clips)}
    for system in systems:
        for utterance in system["utterances"]:
            utterance["clip"] = number.get(utterance.pop("location"))


def _number_phones(system: dict, phones: Numbers) -> None:
    """Replace phones by their numbers, which makes the page several times smaller."""
    counts: Counter[tuple[str, str, str]] = system["confusions"]
    if len(counts) > MAX_CONFUSIONS:
        pooled: Counter[tuple[str, str, str]] = Counter()
        for (_, ref, hyp), count in counts.items():
            pooled["all", ref, hyp] += count
        counts = pooled
    by_lang: dict[str, list[list[int]]] = {}
    for (lang, ref, hyp), count in sorted(counts.items()):
        by_lang.setdefault(lang, []).append([phones[ref], phones[hyp], count])
    system["confusions"] = by_lang
    for utterance in system["utterances"]:
        utterance["steps"] = [
            [phones[ref], phones[hyp]] for ref, hyp in utterance["steps"]
        ]


def _differences(systems: Sequence[dict], phones: Numbers) -> dict[str, str]:
    """Differing features of the pairs in the utterances shown, by `<ref> <hyp>`."""
    names = list(phones)
    pairs = {
        (names[ref], names[hyp])
        for system in systems
        if DECODED_TASKS[system["task"]].writes == PHONES
        for utterance in system["utterances"]
        for ref, hyp in utterance["steps"]
    }
    return {
        f"{phones[ref]} {phones[hyp]}": text
        for (ref, hyp), text in differences(sorted(pairs)).items()
    }


def render(data: dict) -> str:
    """The page, from `page_data`."""
    body, css, *scripts = map(part_of_page, _PARTS)
    return filled(body, data["name"], css, scripts, data)


def part_of_page(name: str) -> str:
    """The text of a file of this folder: HTML, CSS or JavaScript."""
    return files("powsm.report").joinpath(name).read_text(encoding="utf-8")


def filled(
    body: str, title: str, css: str, scripts: Sequence[str], data: Mapping
) -> str:
    """A page that holds all that it needs; its scripts find `data` as JSON."""
    html = part_of_page("frame.html").replace("{{ body }}\n", body)
    # "</script>" and "<!--" must not occur inside a script element
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, default=str)
    text = text.replace("<", "\\u003c")
    contents = {
        "title": title.replace("&", "&amp;").replace("<", "&lt;"),
        "style": css,
        "script": "\n".join(scripts),
        "data": text,
    }
    # in one go: what is filled in is no template
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: contents[found[1]], html)


def write(experiment: Experiment, dump: Path, command: str) -> Path:
    """Write `report/index.html` into the experiment folder."""
    path = experiment.path / "report" / "index.html"
    html = render(page_data(experiment, dump, command))
    write_whole(path, html)
    return path
