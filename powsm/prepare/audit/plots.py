"""Pictures of the data report, as PNG bytes; the same counts give the same bytes.

Sets come as `counts.SetStats` by name, and are pooled into train, dev and test.
"""

import io
from collections.abc import Mapping, Sequence

from powsm.formatting import COLOURS, ranked
from powsm.languages import language_name
from powsm.prepare.audit.counts import Histogram, LangStats, SetStats, hours_of, pooled

_COLOURS = dict(zip(("train", "dev", "test"), COLOURS, strict=False))
_MARKERS = {"train": "o", "dev": "D", "test": "s"}
_DPI = 110
_WIDTH = 5.2  # inches; wider ones are too small to read on a phone
PAPERS = ("light", "dark")
_INK = "#e6e9ed"  # on dark paper, as `sections` has it
_ON = {
    "light": {"grid.color": "#ddd"},
    "dark": {
        "grid.color": "#3a424c",
        **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "#14181d"),
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), _INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
    },
}


def draw(sets: Mapping[str, SetStats], paper: str) -> dict[str, bytes]:
    """All pictures by file name, for one of `PAPERS`."""
    from matplotlib import rc_context

    with rc_context(_ON[paper]):
        return {
            "hours.png": plot_hours(sets),
            "durations.png": plot_durations(sets),
            "phone_rates.png": plot_rates(sets),
            "phone_rates_by_language.png": plot_rates_by_language(sets),
            "drops.png": plot_drops(sets),
        }


def _figure(height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    # no version of matplotlib inside: the same data give the same bytes
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _legend(axes) -> None:
    """Above the plot, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)


def _kind(dset: str) -> str:
    return next((kind for kind in ("train", "dev") if dset.startswith(kind)), "test")


def _by_kind(sets: Mapping[str, SetStats]) -> dict[str, SetStats]:
    """Sets pooled into train, dev and test, in this order, those that exist."""
    kinds = {
        kind: [s for d, s in sets.items() if _kind(d) == kind] for kind in _COLOURS
    }
    return {kind: pooled(found) for kind, found in kinds.items() if found}


def _name_languages(axes, langs: Sequence[str]) -> None:
    names = [f"{language_name(lang)} ({lang})" for lang in langs]
    axes.set_yticks(range(len(langs)), names, fontsize=9)
    axes.set_ylim(-0.7, len(langs) - 0.3)
    axes.grid(linewidth=0.8)


def plot_hours(sets: Mapping[str, SetStats]) -> bytes:
    """Hours of each language, a mark for train, dev and test."""
    total = pooled(list(sets.values()))
    langs = sorted(total.langs, key=lambda lang: total.langs[lang].n_samples)
    figure, axes = _figure(1.5 + 0.24 * len(langs))
    for kind, stats in _by_kind(sets).items():
        places = [place for place, lang in enumerate(langs) if lang in stats.langs]
        hours = [hours_of(stats.langs[langs[place]].n_samples) for place in places]
        axes.plot(hours, places, _MARKERS[kind], color=_COLOURS[kind], label=kind)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    low, high = axes.get_xlim()
    # too few powers of ten for a scale
    between = "235" if high < 10 * low else "25" if high < 100 * low else ""
    axes.xaxis.set_minor_formatter(
        lambda value, _: f"{value:,g}" if f"{value:e}"[0] in between else ""
    )
    _name_languages(axes, langs)
    axes.set_xlabel("hours (logarithmic)")
    _legend(axes)
    return _png(figure)


def _plot_histograms(histograms: Mapping[str, Histogram], unit: str) -> bytes:
    """A line a kind of set, as shares; the axis ends where hardly anything is left."""
    figure, axes = _figure(3.2)
    longest = max(histogram.quantile(0.999) for histogram in histograms.values())
    for kind, histogram in histograms.items():
        share = 100 * histogram.bins / max(int(histogram.bins.sum()), 1)
        axes.stairs(
            share,
            [*histogram.edges, histogram.edges[-1] + histogram.step],
            color=_COLOURS[kind],
            label=kind,
            linewidth=1.8,
        )
    axes.set_xlim(0, longest + 1)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", linewidth=0.8)
    axes.set_xlabel(unit)
    axes.set_ylabel("% of utterances")
    _legend(axes)
    return _png(figure)


def plot_durations(sets: Mapping[str, SetStats]) -> bytes:
    """Utterances by duration."""
    kinds = _by_kind(sets)
    histograms = {kind: stats.durations for kind, stats in kinds.items()}
    return _plot_histograms(histograms, "seconds")


def plot_rates(sets: Mapping[str, SetStats]) -> bytes:
    """Utterances by phone rate."""
    histograms = {}
    for kind, stats in _by_kind(sets).items():
        total = LangStats()
        for lang_stats in stats.langs.values():
            total.merge(lang_stats)
        histograms[kind] = total.rate
    return _plot_histograms(histograms, "phones per second")


def plot_rates_by_language(sets: Mapping[str, SetStats]) -> bytes:
    """Quartiles of the phone rate of each language."""
    rates = {k: v.rate for k, v in pooled(list(sets.values())).langs.items()}
    langs = sorted(rates, key=lambda lang: (rates[lang].quantile(0.5), lang))
    figure, axes = _figure(1.1 + 0.24 * len(langs))
    for place, lang in enumerate(langs):
        low, median, high = (rates[lang].quantile(q) for q in (0.25, 0.5, 0.75))
        colour = _COLOURS["train"]
        axes.hlines(place, low, high, color=colour, linewidth=5, alpha=0.35)
        axes.plot(median, place, "o", color=colour, markersize=5)
    _name_languages(axes, langs)
    axes.set_xlim(left=0)
    axes.set_xlabel("phones per second")
    return _png(figure)


def plot_drops(sets: Mapping[str, SetStats]) -> bytes:
    """Utterances that stage 4 will drop, by reason."""
    kinds = _by_kind(sets)
    total = pooled(list(sets.values())).filtered.dropped
    reasons = [reason for reason, _ in reversed(ranked(total))]
    figure, axes = _figure(1.3 + 0.35 * max(len(reasons), 1))
    left = dict.fromkeys(reasons, 0)
    for kind, stats in kinds.items():
        counts = [stats.filtered.dropped[reason] for reason in reasons]
        if any(counts):
            axes.barh(
                reasons, counts, 0.6, [*left.values()], color=_COLOURS[kind], label=kind
            )
        for reason, count in zip(reasons, counts, strict=True):
            left[reason] += count
    for place, reason in enumerate(reasons):
        axes.text(total[reason], place, f" {total[reason]:,}", va="center", fontsize=9)
    axes.set_xlabel("utterances")
    if reasons:
        axes.margins(x=0.12)
        axes.set_ylim(-0.6, len(reasons) - 0.4)
        _legend(axes)
    else:
        axes.text(0.5, 0.5, "nothing is dropped", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
    return _png(figure)
