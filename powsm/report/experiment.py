"""Read an experiment folder: scores, training history, decoding times, provenance."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import powsm
from powsm.errors import PowsmError
from powsm.files.datadir import NORMALISER_FILE
from powsm.languages import LANGUAGES, lang_sym
from powsm.phones.normaliser import Normaliser
from powsm.score.decoded import HYP_FILE, DecodedSet, DumpSet
from powsm.score.rates import CHANCE
from powsm.score.results import (
    RESULTS_FILE,
    Result,
    Timing,
    metric_order,
    read_history,
    read_results,
    read_timings,
)
from powsm.settings import load_yaml
from powsm.tasks import DECODED_TASKS


class ReportError(PowsmError):
    """A folder that cannot be reported on; the message says what is missing."""


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

    @property
    def lang_symbols(self) -> frozenset[str]:
        """Language symbols of the model's vocabulary; empty where that is not known."""
        tokens = self.config.get("token_list")
        if not isinstance(tokens, list):
            return frozenset()
        return frozenset(tokens) & {lang_sym(code) for code in LANGUAGES}

    def select(self, **wanted: str) -> list[Result]:
        """Results whose attributes equal `wanted`, in order."""
        return [
            result
            for result in self.results
            if all(getattr(result, key) == value for key, value in wanted.items())
        ]

    def main_metric(self, set_name: str, task: str) -> str:
        """The metric that sums up a task on a set."""
        metrics = {r.metric for r in self.select(set=set_name, task=task)}
        main = DECODED_TASKS[task].metrics if task in DECODED_TASKS else ()
        wanted = [metric for metric in main if metric in metrics]
        return wanted[0] if wanted else min(metrics, key=metric_order)


def history_with_means(exp: Path) -> tuple[dict, ...]:
    """Records of training; none when it was ESPnet's own.

    A record holds the last batch of its epoch as `train_*`, which says little: the mean
    of what was logged for TensorBoard during the epoch takes its place.
    """
    records = read_history(exp)
    logged = _logged_scalars(exp / "tensorboard")
    before = 0
    history = []
    for record in records:
        kept = {k: v for k, v in record.items() if not k.startswith("train_")}
        for name, points in logged.items():
            values = [v for step, v in points if before < step <= record["updates"]]
            if values:
                kept[f"train_{name}"] = sum(values) / len(values)
        before = record["updates"]
        history.append(kept)
    return tuple(history)


def _logged_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(update, value) of every `train/*` that TensorBoard has; nothing without it."""
    if not any(folder.glob("events.*")):
        return {}
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(
        str(folder), size_guidance={event_accumulator.SCALARS: 0}
    )
    events.Reload()
    return {
        tag.removeprefix("train/"): [(e.step, e.value) for e in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith("train/")
    }


def read_experiment(exp: Path) -> Experiment:
    """Read an experiment folder after stage 13.

    Raises:
        ReportError: no scores at all.
        ResultsError: scores that are not what stage 13 writes.
    """
    exp = Path(exp)
    results = read_results(exp / RESULTS_FILE)
    if not results:
        raise ReportError(f"{exp / RESULTS_FILE}: no scores in it; run stage 12 first")
    config = exp / "config.yaml"
    return Experiment(
        path=exp,
        results=results,
        history=history_with_means(exp),
        config=load_yaml(config) if config.exists() else {},
        timings=read_timings(exp),
    )


# --- provenance -----------------------------------------------------------------------


def _package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_revision() -> str:
    """Revision of this checkout, `+changes` when files differ from it."""
    where = str(Path(powsm.__file__).parent)
    described = ["describe", "--always", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            ["git", "-C", where, *described, "--dirty=+changes"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return done.stdout.strip()


def versions(dump: Path, sets: Iterable[str]) -> dict[str, str]:
    """What this report was made with, and the normalisers of the sets."""
    named = {
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
        if (dump / set_name / NORMALISER_FILE).exists():
            record = DumpSet(dump / set_name).normaliser
            named[f"normaliser of {set_name}"] = (
                f"{record['version']}, text {record.get('text_policy', 'not known')}"
            )
    return named


def other_normalisers(dump: Path, sets: Iterable[str]) -> list[str]:
    """Sets whose phones were made by another version of the normaliser than this."""
    others = []
    for set_name in sets:
        if (dump / set_name / NORMALISER_FILE).exists():
            record = DumpSet(dump / set_name).normaliser
            made_with = _rules(record["version"])
            now = _rules(Normaliser(record["policy"]).version)
            if "phone_map=" in record["version"] and made_with != now:
                others.append(set_name)
    return others


def _rules(version: str) -> list[str]:
    """A version without the allophones of English, which human labels never get."""
    return [part for part in version.split() if not part.startswith("english_rules=")]


def groups(experiment: Experiment) -> list[tuple[str, str]]:
    """The (set, task) pairs that were scored, in order."""
    return list(dict.fromkeys((r.set, r.task) for r in experiment.results))


def chance_of(experiment: Experiment, result: Result) -> Result | None:
    """The rate of the same hypotheses against other references, beside a PFER."""
    if result.metric != "PFER":
        return None
    same_as = {key: getattr(result, key) for key in ("set", "task", "system", "lang")}
    same = experiment.select(**same_as, metric=CHANCE)
    return same[0] if same else None


def decoded_otherwise(decoded: Iterable[DecodedSet]) -> list[DecodedSet]:
    """Those of other weights, or settings of their profile, than the newest has."""

    def when(one: DecodedSet) -> int:
        return (one.folder / HYP_FILE).stat().st_mtime_ns

    made = []
    for one in sorted(decoded, key=when):
        first = next(iter(one.records()), {})
        found = {"": first.get("weights"), one.profile: first.get("profile")}
        made.append((one, {key: name for key, name in found.items() if name}))
    newest = {key: name for _, names in made for key, name in names.items()}
    return [one for one, names in made if not names.items() <= newest.items()]


def training_command(exp: Path) -> str:
    """The command that goes on with this experiment; empty if none was kept."""
    script = exp / "run.sh"
    if not script.exists():
        return ""
    lines = script.read_text(encoding="utf-8").splitlines()
    commands = [line.removeprefix("exec ") for line in lines if "s2t.sh" in line]
    return commands[-1].replace(' "$@"', "") if commands else ""
