"""Stage 2's report: what the data are, what will be dropped and what looks wrong.

`report.md` and `index.html` say the same; the page holds its pictures and reads on a
phone. The same data give the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from powsm.audio import SAMPLE_RATE, n_encoder_frames
from powsm.files.lock import owned
from powsm.files.whole import sweep_files, write_whole
from powsm.formatting import code_points, ranked
from powsm.languages import LANGUAGES, language_name
from powsm.prepare.audit.counts import LangStats, SetStats, hours_of, pooled
from powsm.prepare.audit.plots import PAPERS, draw
from powsm.prepare.audit.sections import Section, to_html, to_markdown
from powsm.prepare.filters import LIMITS, Limits

STAGE_4_UTTS_PER_S = 5_000  # of one process; measured on generated manifests
_N_SYMBOLS = 30  # rows of the unknown-symbol table


def write_report(
    folder: Path,
    sets: Mapping[str, SetStats],
    stage_1: Mapping[str, dict | None],
    limits: Limits = LIMITS,
) -> list[str]:
    """Write `report.md`, `index.html` and the PNGs.

    Args:
        folder: usually `data/report`.
        sets: what `counts.audit_set` counted, by set name.
        stage_1: `prepare.json` of each set, as `counts.stage_1_record` reads it.
        limits: by which train and dev were counted.

    Returns:
        Names of the files written.
    """
    pictures = {paper: draw(sets, paper) for paper in PAPERS}
    files = pictures[
        "light"
    ]  # report.md may be shown on any paper: they have their own
    sections = [
        _overview(sets),
        _by_language(sets),
        _by_corpus(sets),
        _durations(sets),
        *_rates(),
        _drops(sets, limits),
        *_stage_1_drops(stage_1),
        _unknown_symbols(sets),
        _audit(sets),
        _estimates(sets),
    ]
    with owned(folder):
        sweep_files(folder)
        for name, data in files.items():
            write_whole(folder / name, data)
        write_whole(folder / "report.md", to_markdown("Data report", sections))
        write_whole(folder / "index.html", to_html("Data report", sections, pictures))
    return ["report.md", "index.html", *files]


# --- sections -------------------------------------------------------------------------


def _hours_text(n_samples: int) -> str:
    hours = hours_of(n_samples)
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.3f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _overview(sets: Mapping[str, SetStats]) -> Section:
    total = pooled(list(sets.values()))
    text = (
        f"{total.n_utts:,} utterances, {_hours_text(total.n_samples)} hours, "
        f"{len(total.langs)} languages; corpora: {' '.join(sorted(total.corpora))}."
    )
    rows = [
        (
            dset,
            f"{stats.n_utts:,}",
            _hours_text(stats.n_samples),
            f"{len(stats.langs)}",
            f"{stats.n_samples / stats.n_utts / SAMPLE_RATE:.2f}",
            f"{stats.filtered.kept:,}",
            f"{stats.n_empty_text:,}",
            stats.labels,
        )
        for dset, stats in sets.items()
    ]
    header = ("set", "utterances", "hours", "languages", "mean s", "kept by stage 4")
    return Section("Overview", text, (*header, "without text", "labels"), rows)


def _by_language(sets: Mapping[str, SetStats]) -> Section:
    total = pooled(list(sets.values()))
    langs = sorted(total.langs, key=lambda lang: (-total.langs[lang].n_samples, lang))
    rows = []
    for lang in langs:
        stats = total.langs[lang]
        row = [lang, language_name(lang), f"{stats.n_utts:,}"]
        for dset in sets:
            counts = sets[dset].langs.get(lang)
            row.append(_hours_text(counts.n_samples) if counts else "-")
        seconds = stats.n_samples_labelled / SAMPLE_RATE
        rows.append((*row, f"{stats.n_phones / seconds:.1f}" if seconds else "-"))
    unseen = [lang for lang in langs if lang not in LANGUAGES]
    text = "Hours by set." + (
        f" Without a token of their own, prompted as `<unk>`: {' '.join(unseen)}."
        if unseen
        else ""
    )
    header = ("code", "language", "utterances", *sets, "phones/s")
    return Section(
        "Languages", text, header, rows, "hours.png", "Hours of each language."
    )


def _by_corpus(sets: Mapping[str, SetStats]) -> Section:
    rows = [
        (corpus, dset, f"{n_utts:,}", _hours_text(n_samples))
        for dset, stats in sets.items()
        for corpus, (n_utts, n_samples) in stats.corpora.items()
    ]
    return Section(
        "Corpora", "", ("corpus", "set", "utterances", "hours"), sorted(rows)
    )


def _durations(sets: Mapping[str, SetStats]) -> Section:
    rows = [
        (dset, *(f"{stats.durations.quantile(q):.1f}" for q in _QUANTILES))
        for dset, stats in sets.items()
    ]
    header = ("set", *(f"{q:.0%}" for q in _QUANTILES))
    text = "Seconds below which a share of the utterances lies."
    caption = (
        "Utterances by duration, as a share of their set; one bin is half a second."
    )
    return Section("Durations", text, header, rows, "durations.png", caption)


_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


def _rates() -> list[Section]:
    return [
        Section(
            "Phone rates",
            "Phones of the labels per second of audio.",
            picture="phone_rates.png",
            caption="Utterances by phone rate, as a share of their set.",
        ),
        Section(
            "Phone rates by language",
            "A language far from the others has other labels, or silence around its "
            "speech.",
            picture="phone_rates_by_language.png",
            caption="Phones per second: middle half of the utterances, and median.",
        ),
    ]


def _drops(sets: Mapping[str, SetStats], limits: Limits) -> Section:
    rows = [
        (dset, reason, f"{n:,}", _share(n, stats.n_utts), _first(stats, reason))
        for dset, stats in sets.items()
        for reason, n in ranked(stats.filtered.dropped)
    ]
    only = limits.only_languages
    text = (
        f"What stage 4 drops: train and dev keep {limits.min_duration_s:g} to "
        f"{limits.max_duration_s:g} s with {limits.max_phones:,} phones at most"
        f"{f', of {" ".join(sorted(only))} alone' if only else ''}, before --subset; "
        "test sets keep whatever can be scored."
    )
    header = ("set", "reason", "utterances", "share", "for example")
    caption = "Utterances that stage 4 will drop, by reason."
    return Section("Drops", text, header, rows, "drops.png", caption)


def _first(stats: SetStats, reason: str) -> str:
    return ", ".join(f"`{utt_id}`" for utt_id in stats.filtered.examples[reason][:2])


def _stage_1_drops(stage_1: Mapping[str, dict | None]) -> list[Section]:
    rows = []
    for dset, record in stage_1.items():
        if record is None:
            continue
        rows += [
            (dset, reason, f"{n:,}") for reason, n in ranked(record.get("dropped", {}))
        ]
        if n := record.get("n_partly_labelled"):
            rows.append((dset, "taken whole, the supervision is a part", f"{n:,}"))
        for bad in record.get("bad_shards", []):
            rows.append((dset, f"bad shard {bad['shard']}", bad["error"]))
    if not rows:
        return []
    text = "What stage 1 left out when it read the shards, or took as it should not be."
    header = ("set", "reason", "cuts")
    return [Section("Already in stage 1", text, header, rows)]


def _unknown_symbols(sets: Mapping[str, SetStats]) -> Section:
    unknown = pooled(list(sets.values())).unknown
    rates = (f"{dset} {s.unknown.rate:.4%}" for dset, s in sets.items())
    text = (
        f"{unknown.n_unknown:,} of {unknown.n_characters:,} IPA characters "
        f"({unknown.rate:.4%}) are in no phone and in no table. Stage 4 stops a set "
        f"above --max_unknown_rate: {', '.join(rates)}. Characters left out, by kind: "
        f"{unknown.by_kind() or 'none'}."
    )
    rows = [
        (
            f"`{symbol}`",
            code_points(symbol),
            f"{n:,}",
            "; ".join(f"`{context}`" for context in unknown.contexts[symbol]),
        )
        for symbol, n in ranked(unknown.symbols)[:_N_SYMBOLS]
    ]
    header = ("symbol", "code point", "times", "where")
    return Section("Unknown symbols", text, header, rows)


def _audit(sets: Mapping[str, SetStats]) -> Section:
    findings: list[tuple[int, Sequence[str]]] = []  # utterances, row
    for dset, stats in sets.items():
        if n := stats.n_ctc_infeasible:
            shown = ", ".join(f"`{utt_id}`" for utt_id in stats.ctc_infeasible)
            findings.append(
                (n, (dset, "-", "more phones than frames", f"{n:,}", shown))
            )
        for lang, lang_stats in sorted(stats.langs.items()):
            findings += _audit_language(dset, lang, lang_stats)
    text = (
        "Labels worth a look. Phone rates are out of line when they lie three quartile "
        "ranges beyond the quartiles of their language; foreign letters are those of "
        "another script than the language's."
    )
    header = ("set", "language", "finding", "utterances", "for example")
    rows = [row for _, row in sorted(findings, key=lambda item: -item[0])]
    return Section("Label audit", text, header, rows)


def _audit_language(
    dset: str, lang: str, stats: LangStats
) -> list[tuple[int, Sequence[str]]]:
    findings = []
    n_outliers, extremes = stats.rate_outliers()
    if n_outliers and stats.rate_bounds:
        low, high = stats.rate_bounds
        finding = f"phone rate outside {low:.1f}-{high:.1f} /s"
        shown = ", ".join(f"`{utt_id}` {rate:.1f}/s" for rate, utt_id in extremes)
        row = (dset, lang, finding, f"{n_outliers:,}", shown)
        findings.append((n_outliers, row))
    if stats.n_foreign:
        shown = ", ".join(f"`{findings}`" for findings in stats.foreign)
        count = f"{stats.n_foreign:,} ({_share(stats.n_foreign, stats.n_utts)})"
        row = (dset, lang, "foreign letters", count, shown)
        findings.append((stats.n_foreign, row))
    return findings


def _estimates(sets: Mapping[str, SetStats]) -> Section:
    total = pooled(list(sets.values()))
    train = sets.get("train", SetStats())
    minutes = total.n_utts / STAGE_4_UTTS_PER_S / 60
    time = f"{minutes:,.0f} min" if minutes >= 1 else "under a minute"
    frames = n_encoder_frames(train.filtered.kept_samples)
    audio = size(total.audio_bytes) if total.audio_bytes else "the size of the audio"
    rows = [
        ("3", "audio stays in its shards", "0 B", "none"),
        ("3", "copies, with --audio_format", audio, "as fast as the disk"),
        ("4", "examples", size(total.dump_bytes), f"{time} of one core"),
        ("5", f"{train.filtered.kept - train.filtered.no_text:,} texts", "1 MB", "-"),
        ("10", "statistics", "1 kB", "a sample of the audio"),
        (
            "11",
            f"an epoch: {_hours_text(train.filtered.kept_samples)} h, "
            f"{frames:,} encoder frames",
            "-",
            "see the training log",
        ),
    ]
    text = f"Time of stage 4 at {STAGE_4_UTTS_PER_S:,} utterances a second and core."
    return Section("Next stages", text, ("stage", "what", "disk", "time"), rows)


def size(n_bytes: int) -> str:
    """Bytes for people.

    >>> size(999), size(1_500_000), size(37_000_000_000)
    ('999 B', '1.5 MB', '37.0 GB')
    """
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
