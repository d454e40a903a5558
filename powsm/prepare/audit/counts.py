"""Stage 2's numbers: what is in the sets of `data/`, in one streaming pass.

Everything is a count or a histogram that can be merged, so any number of processes
work on a set, and memory does not grow with it.
"""

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import regex
from tqdm import tqdm

from powsm.audio import SAMPLE_RATE
from powsm.files.audio_places import AudioRef
from powsm.files.chunks import Chunk, map_in_order, plan_chunks, read_rows
from powsm.files.whole import read_json
from powsm.languages import TABLE
from powsm.phones.orthography import DEFAULT_POLICY
from powsm.phones.unknown import Unknown
from powsm.prepare.filters import (
    LIMITS,
    Counts,
    Limits,
    audio_drop_reason,
    is_ctc_feasible,
)
from powsm.prepare.judge import (
    corpus_of,
    human_corpora,
    judge,
    label_files,
    labels_of_set,
)
from powsm.tasks import Example, examples

N_EXTREMES = 5  # slowest and fastest utterances remembered a language
N_FOREIGN = 3  # utterances with foreign letters remembered a language
MIN_UTTS_FOR_OUTLIERS = 20
DURATION_STEP_S = 0.5
RATE_STEP = 0.5  # phones per second

# scripts of the letters that an orthography is written with, by ISO 15924
_LETTERS = {"Jpan": ("Hani", "Hira", "Kana"), "Kore": ("Hang", "Hani")}


class Histogram:
    """Counts of values in equal bins from 0; the last bin takes all that is above."""

    def __init__(self, step: float, n_bins: int):
        self.step = step
        self.bins = np.zeros(n_bins, dtype=np.int64)

    def add(self, value: float) -> None:
        self.bins[min(int(value / self.step), len(self.bins) - 1)] += 1

    def merge(self, other: "Histogram") -> None:
        self.bins += other.bins

    @property
    def edges(self) -> np.ndarray:
        """Lower edges of the bins."""
        return np.arange(len(self.bins)) * self.step

    def quantile(self, share: float) -> float:
        """The value below which `share` lies, exact to a bin.

        >>> histogram = Histogram(step=1.0, n_bins=5)
        >>> for value in (0.5, 1.5, 1.7, 3.2):
        ...     histogram.add(value)
        >>> histogram.quantile(0.5)  # in the second bin, where half the values end
        1.5
        """
        filled = np.cumsum(self.bins)
        if filled[-1] == 0:
            return 0.0
        wanted = share * filled[-1]
        i = int(np.searchsorted(filled, max(wanted, 1e-9)))  # not an empty first bin
        before = filled[i] - self.bins[i]
        inside = (wanted - before) / self.bins[i] if self.bins[i] else 0.0
        return float((i + inside) * self.step)

    def count_outside(self, low: float, high: float) -> int:
        """Values in bins that lie wholly below `low` or start at or above `high`."""
        outside = (self.edges + self.step <= low) | (self.edges >= high)
        return int(self.bins[outside].sum())


@dataclass
class LangStats:
    """One language of one set."""

    n_utts: int = 0
    n_samples: int = 0
    n_phones: int = 0
    n_samples_labelled: int = 0  # of the utterances that the phones are of
    rate: Histogram = field(default_factory=lambda: Histogram(RATE_STEP, 81))
    slowest: list[tuple[float, str]] = field(default_factory=list)  # (-rate, utt_id)
    fastest: list[tuple[float, str]] = field(default_factory=list)  # (rate, utt_id)
    n_foreign: int = 0
    foreign: list[str] = field(default_factory=list)  # utt_id: letter

    def add_rate(self, rate: float, utt_id: str) -> None:
        self.rate.add(rate)
        _remember_largest(self.fastest, (rate, utt_id))
        _remember_largest(self.slowest, (-rate, utt_id))

    def look_for_foreign(self, utt_id: str, text: str, lang: str) -> None:
        """Count a text with a letter that this language does not write with."""
        if text and (found := foreign_letter(text, lang)):
            self.n_foreign += 1
            if len(self.foreign) < N_FOREIGN:
                self.foreign.append(f"{utt_id}: {found}")

    def merge(self, other: "LangStats") -> None:
        self.n_utts += other.n_utts
        self.n_samples += other.n_samples
        self.n_phones += other.n_phones
        self.n_samples_labelled += other.n_samples_labelled
        self.rate.merge(other.rate)
        for item in other.fastest:
            _remember_largest(self.fastest, item)
        for item in other.slowest:
            _remember_largest(self.slowest, item)
        self.n_foreign += other.n_foreign
        self.foreign.extend(other.foreign[: N_FOREIGN - len(self.foreign)])

    @property
    def rate_bounds(self) -> tuple[float, float] | None:
        """Phones a second that are plausible: 3 quartile ranges beyond the quartiles.

        They end where bins do, so that what lies outside can be counted. None for a
        language with too few utterances to tell.
        """
        if self.n_utts < MIN_UTTS_FOR_OUTLIERS:
            return None
        lower, upper = self.rate.quantile(0.25), self.rate.quantile(0.75)
        spread = max(upper - lower, RATE_STEP)
        low = math.floor(max(lower - 3 * spread, 0.0) / RATE_STEP) * RATE_STEP
        high = math.ceil((upper + 3 * spread) / RATE_STEP) * RATE_STEP
        return low, min(high, float(self.rate.edges[-1]))

    def rate_outliers(self) -> tuple[int, list[tuple[float, str]]]:
        """How many utterances lie outside the bounds, and the farthest of them."""
        if (bounds := self.rate_bounds) is None:
            return 0, []
        low, high = bounds
        outliers = [(rate, utt_id) for rate, utt_id in self.fastest if rate >= high]
        outliers += [(-rate, utt_id) for rate, utt_id in self.slowest if -rate < low]
        return self.rate.count_outside(low, high), sorted(outliers, reverse=True)


def _remember_largest(heap: list[tuple[float, str]], item: tuple[float, str]) -> None:
    if len(heap) < N_EXTREMES:
        heapq.heappush(heap, item)
    elif item > heap[0]:
        heapq.heapreplace(heap, item)


@dataclass
class SetStats:
    """One set of `data/`."""

    n_utts: int = 0
    n_samples: int = 0
    n_empty_text: int = 0
    n_ctc_infeasible: int = 0
    ctc_infeasible: list[str] = field(default_factory=list)
    audio_bytes: int = 0  # as far as `wav.scp` says
    dump_bytes: int = 0  # what stage 4 will write
    durations: Histogram = field(default_factory=lambda: Histogram(DURATION_STEP_S, 61))
    langs: dict[str, LangStats] = field(default_factory=dict)
    corpora: dict[str, tuple[int, int]] = field(default_factory=dict)  # utts, samples
    filtered: Counts = field(default_factory=Counts)  # as stage 4 does
    unknown: Unknown = field(default_factory=Unknown)
    labels: str = "original"  # that were read

    def add_ctc_infeasible(self, utt_id: str) -> None:
        self.n_ctc_infeasible += 1
        if len(self.ctc_infeasible) < N_EXTREMES:
            self.ctc_infeasible.append(utt_id)

    def merge(self, other: "SetStats") -> None:
        self.n_utts += other.n_utts
        self.n_samples += other.n_samples
        self.n_empty_text += other.n_empty_text
        self.n_ctc_infeasible += other.n_ctc_infeasible
        room = N_EXTREMES - len(self.ctc_infeasible)
        self.ctc_infeasible.extend(other.ctc_infeasible[:room])
        self.audio_bytes += other.audio_bytes
        self.dump_bytes += other.dump_bytes
        self.durations.merge(other.durations)
        for lang, stats in other.langs.items():
            self.langs.setdefault(lang, LangStats()).merge(stats)
        for corpus, (n_utts, n_samples) in other.corpora.items():
            self.add_corpus(corpus, n_utts, n_samples)
        self.filtered.merge(other.filtered)
        self.unknown.merge(other.unknown)

    def add_corpus(self, corpus: str, n_utts: int, n_samples: int) -> None:
        utts, samples = self.corpora.get(corpus, (0, 0))
        self.corpora[corpus] = (utts + n_utts, samples + n_samples)


def audit_set(
    data_dir: Path,
    nj: int = 1,
    labels: str = "original",
    policy: str = "strict",
    text_policy: str = DEFAULT_POLICY,
    limits: Limits = LIMITS,
) -> SetStats:
    """Count everything the report shows of one set.

    Args:
        data_dir: `data/<set>`.
        nj: processes.
        labels: which of them are counted in train and dev, as stage 4 takes them.
        policy, text_policy: of phones and of the orthography, as of stage 4.
        limits: of train and dev, as of stage 4.

    Raises:
        DataDirError: the set breaks the rules; `datadir.validate` names the line.
    """
    dset = Path(data_dir).name
    labels = labels_of_set(dset, labels)
    stats = SetStats(labels=labels)
    chunks = plan_chunks(data_dir, label_files(labels))
    policies = {"policy": policy, "text_policy": text_policy}
    human = human_corpora(Path(data_dir))
    work = partial(audit_chunk, dset=dset, limits=limits, human=human, **policies)
    parts = map_in_order(work, chunks, nj)
    bar = {"total": len(chunks), "unit": "chunk", "disable": None}
    for part in tqdm(parts, desc=f"audit {dset}", **bar):
        stats.merge(part)
    return stats


def audit_chunk(
    chunk: Chunk,
    *,
    dset: str,
    limits: Limits = LIMITS,
    human: Collection[str] = (),
    policy: str = "strict",
    text_policy: str = DEFAULT_POLICY,
) -> SetStats:
    """The counts of one chunk; runs in a worker. The last four are as of `judge`."""
    stats = SetStats()
    limits = limits.for_set(dset)
    for utt_id, audio, text, ipa, lang, speaker, samples in read_rows(chunk):
        n_samples = int(samples)
        duration_s = n_samples / SAMPLE_RATE
        stats.n_utts += 1
        stats.n_samples += n_samples
        stats.durations.add(duration_s)
        stats.add_corpus(corpus_of(utt_id), 1, n_samples)
        stats.audio_bytes += AudioRef.parse(audio).size or 0
        lang_stats = stats.langs.setdefault(lang, LangStats())
        lang_stats.n_utts += 1
        lang_stats.n_samples += n_samples

        reason = audio_drop_reason(limits, lang=lang, n_samples=n_samples)
        if not ipa:  # of simplified labels
            stats.filtered.drop(reason or "no_ipa", utt_id)
            continue
        judged = judge(
            utt_id,
            ipa=ipa,
            text=text,
            lang=lang,
            n_samples=n_samples,
            limits=limits,
            policy=policy,
            text_policy=text_policy,
            human=human,
        )
        if not judged.is_human and reason is None:  # those that stage 4 looks at
            stats.unknown.add(utt_id, ipa, judged.segments)
        phones, ctc_phones = judged.phones, judged.ctc_phones
        lang_stats.n_phones += len(phones)
        lang_stats.n_samples_labelled += n_samples
        lang_stats.add_rate(len(phones) / duration_s, utt_id)
        if not is_ctc_feasible(n_samples, ctc_phones):
            stats.add_ctc_infeasible(utt_id)
        if not judged.text:
            stats.n_empty_text += 1
        lang_stats.look_for_foreign(utt_id, judged.text, lang)
        if judged.reason:
            stats.filtered.drop(judged.reason, utt_id)
            continue
        stats.filtered.keep(utt_id, n_samples, bool(judged.text))
        constant = f" {audio}\n {lang}\n {speaker}\n {samples}\n \n \n"
        rows = examples(utt_id, lang, phones, ctc_phones, judged.text)
        stats.dump_bytes += _bytes_of_examples(rows, constant)
        if not dset.startswith("train"):
            for reference in (judged.reference(ipa), ipa, judged.text):
                stats.dump_bytes += len(f"{utt_id} {reference}\n".encode())
    return stats


def _bytes_of_examples(rows: Sequence[Example], constant: str) -> int:
    """What the examples of an utterance take in `dump/raw`."""
    n_bytes = 0
    for row in rows:
        # ids of seven files and twice in Kaldi's two; spaces and line ends
        varying = f"{row.text} \n{row.text_prev} \n{row.text_ctc} \n"
        n_bytes += 11 * len(row.example_id) + len(constant) + len(varying.encode())
    return n_bytes


def foreign_letter(text: str, lang: str) -> str | None:
    """The first letter that the orthography of `lang` does not write with.

    None when there is none, and for a language whose script is not known.

    >>> foreign_letter("это слово cat", "rus"), foreign_letter("это", "rus")
    ('c', None)
    """
    if lang not in TABLE:
        return None
    match = _foreign_pattern(TABLE[lang].script).search(text)
    return match[0] if match else None


@cache
def _foreign_pattern(script: str) -> regex.Pattern:
    own = "".join(rf"--\p{{Script={name}}}" for name in _LETTERS.get(script, (script,)))
    shared = r"--\p{Script=Common}--\p{Script=Inherited}"
    return regex.compile(rf"(?V1)[\p{{L}}{own}{shared}]")


def hours_of(n_samples: int) -> float:
    """Hours of audio at `SAMPLE_RATE`."""
    return n_samples / SAMPLE_RATE / 3600


def stage_1_record(data_dir: Path) -> dict | None:
    """`prepare.json` of a set: what stage 1 dropped; None when there is none."""
    path = Path(data_dir) / "prepare.json"
    return read_json(path, "run stage 1 again") if path.is_file() else None


def pooled(sets: Sequence[SetStats]) -> SetStats:
    """The sum of several sets."""
    total = SetStats()
    for stats in sets:
        total.merge(stats)
    return total
