"""What a table still needs: sets and decodings, with their time and disk."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from powsm.audio import SAMPLE_RATE
from powsm.cluster.costs import BYTES_AN_HOUR
from powsm.corpora.evaluation.part import is_part_current
from powsm.files.datadir import read_scp
from powsm.report.paper.fill import SIZE_TOLERANCE, hyp_file, is_measured_otherwise
from powsm.report.paper.sets import TestSet
from powsm.report.paper.spec import Query, Row, Table
from powsm.score.decoded import DumpSet
from powsm.score.results import read_timings
from powsm.tasks import PHONES, TASKS, plain_task

PUBLISHED_RTF = 0.058  # released model, greedy, one by one on an H200: third parties
_PCM_MB_AN_HOUR = 115  # 16 kHz, 16 bits; FLAC takes less


@dataclass(frozen=True)
class PlannedDecode:
    """A decoding that a table needs.

    Attributes:
        query: what is asked for; its lang and metric do not matter.
        is_done: the hypotheses are there.
        hours: of audio; None if neither the dump folder nor a paper tells.
        why_not: why it cannot be decoded; empty if it can.
        source: what the set has to be prepared from first; None if it is there, or
            nobody knows.
        part_of: the set of which it is made, if it is a part that is not there yet, or
            of which the set was made anew.
    """

    query: Query
    is_done: bool
    hours: float | None
    why_not: str
    source: Path | None = None
    part_of: str = ""


def plan(
    table: Table,
    exp: Path | None,
    dump: Path,
    sets: Mapping[str, TestSet],
    environment: Mapping[str, str] | None = None,
    rows: Iterable[Row] | None = None,
) -> list[PlannedDecode]:
    """The decodings that our rows of a table need, each once.

    Args:
        table: the table.
        exp: experiment folder, if there is one.
        dump: `dump/raw`.
        sets: what is known of them.
        environment: holds the variables that say where sets come from.
        rows: those that the experiment fills; default: all that are ours.
    """
    queries = [q for q in table.queries(rows) if not is_measured_otherwise(q.metric)]
    return plan_queries(queries, exp, dump, sets, environment)


def plan_queries(
    queries: Iterable[Query],
    exp: Path | None,
    dump: Path,
    sets: Mapping[str, TestSet],
    environment: Mapping[str, str] | None = None,
) -> list[PlannedDecode]:
    """The decodings that queries need, each once; arguments as those of `plan`."""
    wanted = {(q.profile, q.set, q.task): q for q in queries}
    return [_planned(q, exp, dump, sets, environment or {}) for q in wanted.values()]


def _planned(
    query: Query,
    exp: Path | None,
    dump: Path,
    sets: Mapping[str, TestSet],
    environment: Mapping[str, str],
) -> PlannedDecode:
    known = sets.get(query.set)
    folder = dump / query.set
    is_done = exp is not None and hyp_file(exp, query, sets) is not None
    why_not = part_of = ""
    source = None
    if not folder.is_dir():
        source = known.source(environment) if known else None
        whole = known.part_of if known else ""
        if whole and (dump / whole).is_dir():
            part_of = whole
        elif source is None:
            why_not = f"set not found: {dump / (whole or query.set)}"
            if known is not None:
                hint = f"{known.variable} in db.sh says where; " * bool(known.variable)
                why_not += f" ({hint}{known.access})"
    elif known and known.part_of and (dump / known.part_of).is_dir():
        if not is_part_current(dump / known.part_of, folder, known.langs):
            part_of, is_done = known.part_of, False
    if not why_not and exp is None:
        why_not = "no model given: --model"
    hours = _hours(folder, query.task)
    if part_of and known:
        hours = _hours(dump / part_of, query.task, known.langs)
    hours = hours or (known.hours if known else None)
    return PlannedDecode(query, is_done, hours, why_not, source, part_of)


def _hours(folder: Path, task: str, langs: Iterable[str] = ()) -> float | None:
    """Hours of a set, or of some of its languages."""
    by_lang = hours_by_lang(folder, task if task in TASKS else plain_task(PHONES))
    if by_lang is None:
        return None
    return sum(h for lang, h in by_lang.items() if not langs or lang in langs)


def hours_by_lang(
    folder: Path, task: str = plain_task(PHONES)
) -> dict[str, float] | None:
    """Hours of each language in a set of `dump/raw`; None if there is no such set."""
    if not (folder / "utt2num_samples").exists():
        return None
    lang_of = dict(read_scp(folder / "utt2lang"))
    n_samples: Counter[str] = Counter()
    for example_id, count in read_scp(folder / "utt2num_samples"):
        if example_id.endswith(f"_{task}"):
            n_samples[lang_of[example_id]] += int(count)
    return {lang: n / SAMPLE_RATE / 3600 for lang, n in n_samples.items()}


def results_folder(source: str, expdir: Path = Path("exp")) -> Path:
    """Where results of a model go: into an experiment itself, else `exp/<name>`.

    >>> str(results_folder("espnet/powsm")), str(results_folder("exp/x/packed"))
    ('exp/espnet_powsm', 'exp/x_packed')
    """
    path = Path(source)
    if (path / "config.yaml").exists():
        return path
    name = source
    if path.name == "packed":  # as stage 14 calls it
        name = f"{path.absolute().parent.name}_packed"
    elif path.exists():
        name = path.name.removesuffix(".zip")
    return expdir / re.sub(r"[^\w.-]", "_", name)


def size_faults(
    names: Iterable[str], dump: Path, sets: Mapping[str, TestSet]
) -> list[str]:
    """What is not as large as published, of the sets that are in a dump folder.

    A set of another size is another set: its scores are no reproduction.

    Returns:
        A line for each number that is more than 3 % from that of a complete copy, and
        one for a copy that lacks parts.
    """
    faults = []
    for name in dict.fromkeys(names):
        known = sets.get(name)
        if known is None or not (dump / name / "utt2num_samples").exists():
            continue
        hours = hours_by_lang(dump / name) or {}
        keys = (key for key, _ in read_scp(dump / name / "utt2num_samples"))
        n_utts = sum(key.endswith("_pr") for key in keys)
        sizes = [
            (name, "h", sum(hours.values()), known.copy_hours or known.hours),
            (name, "utterances", n_utts, known.n_utts),
            *(
                (f"{name} ({lang})", "h", hours.get(lang, 0.0), published)
                for lang, published in known.hours_by_lang.items()
            ),
        ]
        faults += [
            f"{what}: {found:,.4g} {unit} found, {published:,.4g} "
            f"{'in a copy' if unit == 'h' and known.copy_hours else 'published'} "
            f"({100 * (found / published - 1):+.0f} %)"
            for what, unit, found, published in sizes
            if published and abs(found / published - 1) > SIZE_TOLERANCE
        ]
        if missing := DumpSet(dump / name).missing:
            faults.append(f"{name}: incomplete, without {' '.join(missing)}")
    return faults


def real_time_factor(exp: Path | None) -> tuple[float, str]:
    """Seconds of computing for a second of audio, and where the number comes from."""
    timings = read_timings(exp) if exp is not None else ()
    audio_s = sum(timing.audio_s for timing in timings)
    if audio_s == 0:
        return PUBLISHED_RTF, "others' measurement of the released model on an H200"
    rtf = sum(timing.compute_s for timing in timings) / audio_s
    return rtf, "measured on what this experiment has decoded"


def describe(planned: Sequence[PlannedDecode], exp: Path | None) -> str:
    """The plan for people: a line a set or decoding, then time and disk in sum."""
    rtf, origin = real_time_factor(exp)
    sources = {p.query.set: p.source for p in planned if p.source is not None}
    lines = [f"prepare {name}: from {source}" for name, source in sources.items()]
    hours = absent = 0.0
    unknown = 0
    parts = {p.query.set: p.part_of for p in planned if p.part_of}
    lines += [f"prepare {name}: the part of {whole}" for name, whole in parts.items()]
    for decode in planned:
        query = decode.query
        what = f"{query.profile} {query.set} {query.task}"
        if decode.is_done:
            lines.append(f"have    {what}")
        elif decode.why_not:
            absent += decode.hours or 0.0
            unknown += decode.hours is None
            lines.append(f"cannot  {what}: {decode.why_not}")
        elif decode.hours is None:
            unknown += 1
            lines.append(f"decode  {what}: size not known")
        else:
            hours += decode.hours
            lines.append(f"decode  {what}: {decode.hours:.2f} h of audio")
    sizes = {p.query.set: p.hours or 0 for p in planned if p.source is not None}
    cut_mb = sum(sizes.values()) * _PCM_MB_AN_HOUR
    wanted = hours + absent
    minutes, mb = math.ceil(60 * wanted * rtf), wanted * BYTES_AN_HOUR / 1e6
    lines.append(
        f"in sum: {wanted:.2f} h of audio to decode, about {minutes} min at a "
        f"real-time factor of {rtf:.3f} ({origin}); {mb:.1f} MB of disk"
        + (f" and up to {cut_mb:,.0f} MB for recordings to be cut" if cut_mb else "")
        + (f"; {absent:.2f} h of it cannot be decoded yet" if absent else "")
        + (f"; {unknown} sets of unknown size are not in this" if unknown else "")
    )
    return "\n".join(lines)
