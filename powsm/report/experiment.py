"""Read an experiment folder: scores, training history, decoding times, provenance."""

import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

import powsm
from powsm.ipa import Normaliser

RESULTS_FILE = "results.json"
HISTORY_FILE = "history.jsonl"

TASKS = {  # task -> what a reader is told
    "pr": "phone recognition",
    "g2p": "audio-guided grapheme to phone",
    "asr": "speech recognition",
    "p2g": "audio-guided phone to grapheme",
    "lid": "language identification",
}
MAIN_METRICS = {  # task -> the first that was scored stands for the task
    "pr": ("PFER", "PER"),
    "g2p": ("PFER", "PER"),
    "asr": ("WER", "CER"),
    "p2g": ("WER", "CER"),
    "lid": ("accuracy",),
}
METRICS = {  # in the order of a table's columns
    "PFER": "100 x summed PanPhon `feature_edit_distance` / reference segments: the "
    "published tables. A gap costs less than 1.",
    "PER": "100 x (substitutions + deletions + insertions) / reference phones.",
    "PFER_hamming": "as PFER with PanPhon's Hamming distance: a gap costs 1, a phone "
    "that differs in k of 24 features k/24. What the POWSM paper describes in words.",
    "mean_hamming": "mean Hamming feature edit distance of an utterance, in phones: "
    "not a percentage, grows with length. ZIPA and MultIPA call this PFER.",
    "FER": "100 x feature edits / (24 x reference segments).",
    "WER": "100 x word edits / reference words.",
    "CER": "100 x character edits / reference characters.",
    "accuracy": "share of utterances whose likeliest language is the reference's.",
}


class ReportError(ValueError):
    """A folder that cannot be reported on; the message says what is missing."""


@dataclass(frozen=True)
class Result:
    """One score, as in `results.json`.

    Attributes:
        set: dump folder, `test_doreco`.
        lang: ISO 639-3, or `all` for the pooled rate.
        task: `pr asr g2p p2g lid`.
        decode: `attention`, `joint` or `ctc`; empty for LID.
        metric: a key of `METRICS`.
        value: in percent, but `mean_hamming` in phones.
        low, high: bounds of the 95 % interval; NaN where there is too little to tell.
        n_utts: utterances scored.
        n_units: what the metric divides by (phones, words, characters, utterances).
        profile: decode profile, `paper` of `conf/decode_paper.yaml`.
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


@dataclass(frozen=True)
class Experiment:
    """Everything the reports are made of."""

    path: Path
    results: tuple[Result, ...]
    history: tuple[dict, ...]  # one record an epoch
    config: dict
    timings: tuple[Timing, ...]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def select(self, **wanted: str) -> list[Result]:
        """Results whose attributes equal `wanted`, in order."""
        return [
            result
            for result in self.results
            if all(getattr(result, key) == value for key, value in wanted.items())
        ]

    def main_metric(self, set_name: str, task: str) -> str:
        """The metric that stands for a task on a set."""
        found = {r.metric for r in self.select(set=set_name, task=task)}
        wanted = [m for m in MAIN_METRICS.get(task, ()) if m in found]
        return wanted[0] if wanted else min(found, key=_metric_order)


def read_results(path: Path) -> tuple[Result, ...]:
    """Scores of `results.json`, sorted by set, task, way of decoding and metric.

    Raises:
        ReportError: no such file, or a record with other fields.
    """
    if not path.exists():
        raise ReportError(f"{path}: not there; run stage 13 (local/score_exp.py) first")
    fields = Result.__dataclass_fields__
    results = []
    for number, record in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        missing = set(fields) - set(record) - {"profile"}
        if missing:
            raise ReportError(
                f"{path}: record {number} has no {' '.join(sorted(missing))}; it needs "
                f"{' '.join(fields)}"
            )
        known = {key: record[key] for key in fields if key in record}
        for bound in ("value", "low", "high"):
            known[bound] = math.nan if known[bound] is None else float(known[bound])
        results.append(Result(**known))
    return tuple(sorted(results, key=_result_order))


def _metric_order(metric: str) -> tuple[int, str]:
    names = list(METRICS)
    return (names.index(metric) if metric in names else len(names), metric)


def _result_order(result: Result) -> tuple:
    tasks = list(TASKS)
    task = tasks.index(result.task) if result.task in tasks else len(tasks)
    return (
        result.set,
        task,
        result.profile,
        result.decode,
        _metric_order(result.metric),
        result.lang != "all",
        result.lang,
    )


def read_history(path: Path) -> tuple[dict, ...]:
    """Records of `history.jsonl`; none when training was ESPnet's own."""
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines if line.strip())


def read_timings(exp: Path) -> tuple[Timing, ...]:
    """Times of every `<profile>/<set>/<task>_<decode>/timing.json`."""
    timings = []
    for path in sorted(exp.glob("*/*/*/timing.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        folder = path.parent
        timings.append(
            Timing(
                profile=folder.parents[1].name,
                set=folder.parent.name,
                task=folder.name.partition("_")[0],
                audio_s=record["audio_s"],
                compute_s=record["compute_s"],
            )
        )
    return tuple(timings)


def read_experiment(exp: Path) -> Experiment:
    """Read an experiment folder after stage 13.

    Raises:
        ReportError: no scores, or files that are not what stages 11 to 13 write.
    """
    exp = Path(exp)
    results = read_results(exp / RESULTS_FILE)
    if not results:
        raise ReportError(f"{exp / RESULTS_FILE}: no scores in it; run stage 12 first")
    config = exp / "config.yaml"
    return Experiment(
        path=exp,
        results=results,
        history=read_history(exp / HISTORY_FILE),
        config=yaml.safe_load(config.read_text("utf-8")) if config.exists() else {},
        timings=read_timings(exp),
    )


def ordered_metrics(results: Iterable[Result]) -> list[str]:
    """The metrics among results, most important first."""
    return sorted({result.metric for result in results}, key=_metric_order)


# --- provenance -----------------------------------------------------------------------


def _package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_revision() -> str:
    """Revision of this checkout, `+changes` when files differ from it."""
    where = ["git", "-C", str(Path(powsm.__file__).parent)]
    try:
        revision = subprocess.run(
            [*where, "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            [*where, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return revision + ("+changes" if changed else "")


def versions(dump: Path, sets: Iterable[str]) -> dict[str, str]:
    """What this report was made with, and the normalisers of the sets."""
    found = {
        "powsm": powsm.__version__,
        "git revision": git_revision(),
        "Python": platform.python_version(),
        **{
            name: _package_version(name)
            for name in ("torch", "espnet", "lightning", "panphon", "jiwer")
        },
        "normaliser of scoring": Normaliser().version,
    }
    for set_name in sets:
        path = dump / set_name / "normaliser.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            found[f"normaliser of {set_name}"] = (
                f"{record['version']}, text {record['text_policy']}"
            )
    return found


def training_command(exp: Path) -> str:
    """The command that goes on with this experiment; empty if none was kept."""
    script = exp / "run.sh"
    if not script.exists():
        return ""
    lines = script.read_text(encoding="utf-8").splitlines()
    commands = [line.removeprefix("exec ") for line in lines if "s2t.sh" in line]
    return commands[-1].replace(' "$@"', "") if commands else ""
