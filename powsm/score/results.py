"""Scores and decoding times of an experiment, as stages 12 and 13 write them."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from powsm.errors import PowsmError
from powsm.score.rates import RATES
from powsm.tasks import DECODED_TASKS

RESULTS_FILE = "results.json"


class ResultsError(PowsmError):
    """Scores that are missing or not what stage 13 writes."""


@dataclass(frozen=True)
class Result:
    """One score, as in `results.json`.

    Attributes:
        set: dump folder, `test_doreco`.
        lang: ISO 639-3, or `all` for the pooled rate.
        task: `pr asr g2p p2g lid`.
        decode: `attention`, `joint` or `ctc`; empty for LID.
        metric: a key of `RATES`.
        value: in percent, but `mean_hamming` in phones.
        low, high: bounds of the 95 % interval; NaN where there is too little to tell.
        n_utts: utterances scored.
        n_units: what the metric divides by (phones, words, characters, utterances).
        profile: decode profile: `paper` for `conf/decode_paper.yaml`.
    """

    set: str
    lang: str
    task: str
    decode: str
    metric: str
    value: float
    low: float
    high: float
    n_utts: int
    n_units: int
    profile: str = ""

    @property
    def system(self) -> str:
        """Which way of decoding: the profile, which is more than the kind of search."""
        return self.profile or self.decode


@dataclass(frozen=True)
class Timing:
    """Seconds of audio and of computing of one decoded set."""

    profile: str
    set: str
    task: str
    audio_s: float
    compute_s: float

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of computing for a second of audio."""
        return self.compute_s / self.audio_s if self.audio_s else math.nan


def read_results(path: Path) -> tuple[Result, ...]:
    """Scores of `results.json`, sorted by set, task, way of decoding and metric.

    Raises:
        ResultsError: no such file, or a record with other fields.
    """
    if not path.exists():
        raise ResultsError(
            f"{path}: not there; run stage 13 (local/score_exp.py) first"
        )
    fields = Result.__dataclass_fields__
    results = []
    for number, record in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        missing = set(fields) - set(record) - {"profile"}
        if missing:
            raise ResultsError(
                f"{path}: record {number} has no {' '.join(sorted(missing))}; it needs "
                f"{' '.join(fields)}"
            )
        known = {key: record[key] for key in fields if key in record}
        known["profile"] = known.get("profile", "").removeprefix("decode_")
        for bound in ("value", "low", "high"):
            known[bound] = math.nan if known[bound] is None else float(known[bound])
        results.append(Result(**known))
    return tuple(sorted(results, key=_result_order))


def metric_order(metric: str) -> tuple[int, str]:
    names = list(RATES)
    return (names.index(metric) if metric in names else len(names), metric)


def _result_order(result: Result) -> tuple:
    tasks = list(DECODED_TASKS)
    task = tasks.index(result.task) if result.task in tasks else len(tasks)
    return (
        result.set,
        task,
        result.profile,
        result.decode,
        metric_order(result.metric),
        result.lang != "all",
        result.lang,
    )


def task_title(task: str) -> str:
    """What a reader is told of a task; one that is no longer known has its name."""
    return DECODED_TASKS[task].title if task in DECODED_TASKS else task


def ordered_metrics(results: Iterable[Result]) -> list[str]:
    """The metrics among results, most important first."""
    return sorted({result.metric for result in results}, key=metric_order)


def read_timings(exp: Path) -> tuple[Timing, ...]:
    """Times of every `<profile>/<set>/<task>_<decode>/timing.json`."""
    timings = []
    for path in sorted(exp.glob("*/*/*/timing.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        folder = path.parent
        timings.append(
            Timing(
                profile=folder.parents[1].name.removeprefix("decode_"),
                set=folder.parent.name,
                task=folder.name.partition("_")[0],
                audio_s=record["audio_s"],
                compute_s=record["compute_s"],
            )
        )
    return tuple(timings)
