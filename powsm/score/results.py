"""Scores, decoding times and training history of an experiment."""

import csv
import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from powsm.errors import PowsmError
from powsm.files.whole import (
    DamagedError,
    atomic_write,
    read_json,
    read_json_lines,
    write_json,
)
from powsm.score.decoded import DumpSet, decoded_sets
from powsm.score.rates import RATES, Scores, Unit
from powsm.settings import is_number
from powsm.tasks import DECODED_TASKS

RESULTS_FILE = "results.json"
PARTS_FILE = "results_by.csv"
HISTORY_FILE = "history.jsonl"
DURATION_EDGES_S = (2, 5, 10, 15)  # seconds; bins of the breakdown by duration
_PART_FIELDS = "profile set task decode by label metric value low high n_utts n_units"

_LATER_FIELDS = {"profile", "cleaning", "unit"}  # records of earlier versions lack them

log = logging.getLogger(__name__)


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
        cleaning: how text became phones; empty: by the policy of the set.
        unit: what the interval takes to be independent.
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
    cleaning: str = ""
    unit: str = "utterance"

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
            f"{path}: no such file; run stage 13 (powsm score-exp) first"
        )
    fields = Result.__dataclass_fields__
    results = []
    records = read_json(path, "run stage 13 again", kind=list)
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise ResultsError(f"{path}: record {number} is {record!r}, no object")
        missing = set(fields) - set(record) - _LATER_FIELDS
        if missing:
            raise ResultsError(
                f"{path}: record {number} has no {' '.join(sorted(missing))}; it needs "
                f"{' '.join(fields)}"
            )
        known = {key: record[key] for key in fields if key in record}
        known["profile"] = known.get("profile", "").removeprefix("decode_")
        for bound in ("value", "low", "high"):
            value = math.nan if known[bound] is None else known[bound]
            if not isinstance(value, int | float):
                raise ResultsError(f"{path}: record {number}: {bound} is {value!r}")
            known[bound] = float(value)
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
    """Times of everything that was decoded, where they were taken."""
    return tuple(
        Timing(
            profile=decoded.profile,
            set=decoded.set_name,
            task=decoded.task,
            audio_s=timing["audio_s"],
            compute_s=timing["compute_s"],
        )
        for decoded in decoded_sets(exp)
        if (timing := decoded.timing) is not None
    )


def read_history(exp: Path) -> list[dict]:
    """Records of training, one an epoch; none where training was ESPnet's own.

    Raises:
        DamagedError: a line is no record of one.
    """
    path = Path(exp) / HISTORY_FILE
    if not path.exists():
        return []
    remedy = "restore the file, or remove that line"
    rows = read_json_lines(path, remedy, keys=("epoch", "updates"))
    for number, row in enumerate(rows, 1):
        if not is_number(row["epoch"]):
            raise DamagedError(f"{path}:{number}: epoch is no number; {remedy}")
    return rows


def score_experiment(
    exp: Path,
    dump: Path,
    *,
    cleaning: str | None = None,
    unit: Unit = "utterance",
    corpus_of: Callable[[str], str] = lambda utt_id: utt_id.partition("_")[0],
) -> int:
    """Stage 13: score everything that was decoded.

    Writes `results.json`, a list of records of whole sets and of each language in them,
    and `results_by.csv`, the same by corpus, speaker and duration.

    Args:
        exp: experiment folder.
        dump: `dump/raw`.
        cleaning: how text becomes phones; None: the policy each set was made with.
        unit: what the intervals take to be independent; utterances where no speaker
            is known.
        corpus_of: corpus that an utt_id names.

    Returns:
        The number of records.

    Raises:
        ResultsError: nothing was decoded.
        DecodedError: a set or its references cannot be read.
        ScoreError: hypotheses that are not of the utterances of their set.
    """
    decoded = decoded_sets(exp)
    if not decoded:
        raise ResultsError(f"{exp}: nothing is decoded in it; run stage 12 first")
    records, parts = [], []
    for one in decoded:
        scores = one.score(dump, cleaning)
        profile = one.place.parts[0]
        over = unit if scores.has_speakers else "utterance"
        if over != unit:
            log.warning("%s: speakers are not known: over utterances", one.set_name)
        rows = scores.records(
            set_name=one.set_name,
            task=one.task,
            # languages are what the decoder says first
            decode=one.decode or "attention",
            unit=over,
        )
        how = {"profile": profile, "cleaning": cleaning or "", "unit": over}
        records += [{**row, **how} for row in rows]
        where = {"profile": profile, "set": one.set_name, "task": one.task}
        where["decode"] = one.decode
        durations_s = DumpSet(dump / one.set_name).durations_s
        for by, labels in _labels_of(scores, durations_s, corpus_of).items():
            for label, part in scores.by(labels).items():
                place = {**where, "by": by, "label": label}
                parts += [{**place, **row} for row in part.rate_rows(over)]
        values = " ".join(f"{rate} {v:.2f}" for rate, v in scores.values.items())
        log.info("%s: %s (%d utterances)", one.place, values, len(scores))
    write_json(exp / RESULTS_FILE, records)
    with atomic_write(exp / PARTS_FILE) as file:
        writer = csv.DictWriter(file, _PART_FIELDS.split(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(parts)
    return len(records)


def _labels_of(
    scores: Scores, durations_s: Mapping[str, float], corpus_of: Callable[[str], str]
) -> dict[str, dict[str, str]]:
    """What scores are broken down by: kind -> label of each utterance."""
    labels = {
        "corpus": {utt_id: corpus_of(utt_id) for utt_id in scores.utt_ids},
        "duration": duration_labels({u: durations_s[u] for u in scores.utt_ids}),
    }
    if scores.speakers != scores.utt_ids:  # the speaker of an utterance is known
        labels["speaker"] = dict(zip(scores.utt_ids, scores.speakers, strict=True))
    return labels


def duration_labels(durations_s: Mapping[str, float]) -> dict[str, str]:
    """The duration bin of each utterance, with names that sort by duration.

    >>> duration_labels({"a": 1.5, "b": 2.0, "c": 30.0})
    {'a': '00-02 s', 'b': '02-05 s', 'c': '15- s'}
    """
    names = [
        f"{low:02g}-{high:02g} s" for low, high in pairwise((0, *DURATION_EDGES_S))
    ]
    names.append(f"{DURATION_EDGES_S[-1]:02g}- s")
    return {
        utt_id: names[bisect_right(DURATION_EDGES_S, duration_s)]
        for utt_id, duration_s in durations_s.items()
    }
