"""Training curves as PNG files: loss by task, and validation error by language."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import EngFormatter  # noqa: E402

from powsm.files.whole import atomic_write
from powsm.formatting import COLOURS
from powsm.tasks import DECODED_TASKS

_DASHES = ("-", "--", ":", "-.")  # when the colours run out
_LABELLED_LINES = 28  # with more languages than this, only the mean has a name


def style(number: int) -> dict[str, str]:
    """Colour and dashes of a line, different for the first 28."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": _DASHES[number // len(COLOURS) % len(_DASHES)],
    }


def series(history: Sequence[dict], name: str) -> tuple[list[float], list[float]]:
    """Updates and values of one figure, over the epochs that have it."""
    rows = [record for record in history if name in record]
    return [r["updates"] for r in rows], [r[name] for r in rows]


def languages_of(history: Sequence[dict], metric: str) -> list[str]:
    """Languages for which `<metric>_<lang>` was measured in validation."""
    pattern = re.compile(rf"{metric}_(?P<lang>[a-z]{{3}})")
    matches = (pattern.fullmatch(key) for record in history for key in record)
    return sorted({match["lang"] for match in matches if match})


def _line(axes: Axes, history: Sequence[dict], name: str, label: str, **how) -> None:
    updates, values = series(history, name)
    if values:
        axes.plot(updates, values, label=label, marker=".", markersize=4, **how)


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("updates")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        n_columns = 1 if len(labels) <= 8 else 3
        axes.legend(handles, labels, fontsize="small", ncols=n_columns)


def _save(figure: Figure, path: Path) -> Path:
    with atomic_write(path, "wb") as file:
        # no date inside: the same history gives the same bytes
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return path


def plot_losses(history: Sequence[dict], path: Path) -> Path:
    """Loss in validation and its parts, loss by task, and accuracy by task."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    whole, tasks, accuracy = figure.subplots(1, 3)
    parts = (("loss", "total"), ("loss_ctc", "CTC"), ("loss_att", "attention"))
    for number, (name, label) in enumerate(parts):
        _line(whole, history, name, label, **style(number))
    for number, task in enumerate(t for t in DECODED_TASKS.values() if t.is_trained):
        _line(tasks, history, f"loss_{task.name}", task.name.upper(), **style(number))
        _line(accuracy, history, f"acc_{task.name}", task.name.upper(), **style(number))
        # no loss in training: batches are of equal length in audio, so their mean an
        # utterance is that of long ones; tokens are not so unequal
        training = {"color": style(number)["color"], "linestyle": ":", "linewidth": 1}
        _line(accuracy, history, f"train_acc_{task.name}", "_nolegend_", **training)
    accuracy.set_ylim(0, 1)
    _finish(whole, "Loss in validation", "nats an utterance")
    _finish(tasks, "Attention loss by task, validation", "nats an utterance")
    _finish(accuracy, "Token accuracy by task (dotted: training)", "share of tokens")
    return _save(figure, path)


def plot_validation(history: Sequence[dict], metric: str, path: Path) -> Path:
    """Validation error of the CTC head by language, in percent.

    Args:
        metric: `pfer_ctc` or `per_ctc`.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    langs = languages_of(history, metric)
    named = len(langs) <= _LABELLED_LINES
    for number, lang in enumerate(langs):
        label = lang if named else "_nolegend_"
        _line(axes, history, f"{metric}_{lang}", label, linewidth=1, **style(number))
    _line(axes, history, metric, "all languages", color="black", linewidth=2.5)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    name = metric.removesuffix("_ctc").upper()
    _finish(axes, f"{name} in validation, greedy CTC", f"{name} (%)")
    return _save(figure, path)


def plot_curves(
    histories: Mapping[str, Sequence[dict]], metric: str, unit: str, path: Path
) -> Path:
    """One figure of validation by epoch, a curve an experiment."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (label, history) in enumerate(histories.items()):
        rows = [record for record in history if metric in record]
        epochs, values = [r["epoch"] for r in rows], [r[metric] for r in rows]
        axes.plot(epochs, values, label=label, marker=".", **style(number))
    _finish(axes, "", unit)
    axes.set_xlabel("epoch")
    return _save(figure, path)


def write_plots(history: Sequence[dict], folder: Path) -> list[Path]:
    """All curves that the history has figures for."""
    if not history:
        return []
    written = [plot_losses(history, folder / "loss.png")]
    for metric in ("pfer_ctc", "per_ctc"):
        if any(metric in record for record in history):
            name = f"validation_{metric.removesuffix('_ctc')}.png"
            written.append(plot_validation(history, metric, folder / name))
    return written
