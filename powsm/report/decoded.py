"""Decoded sets for the page: alignments, confusions, and which utterances to show."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from powsm.files.whole import read_json, sha256_file
from powsm.phones.inventory import feature_table
from powsm.phones.orthography import joins
from powsm.report.experiment import ReportError
from powsm.score.decoded import (
    DONE_FILE,
    HYP_FILE,
    DecodedSet,
    DumpSet,
    decoded_sets,
)
from powsm.score.distance import PhonePairs
from powsm.score.metrics import lid_confusion, score_text, tidy_text
from powsm.score.phone_reader import PhoneReader
from powsm.tasks import DECODED_TASKS, TEXT, strip_prompt

log = logging.getLogger(__name__)

ALIGN_FILE = Path("align/phones.jsonl")  # of `powsm align-set`
GAP = ""  # the other side of an inserted or deleted unit


@dataclass(frozen=True)
class AlignedSet:
    """A decoded set beside the references of its set.

    Attributes:
        profile: decode profile.
        set: dump folder, `test_doreco`.
        task: `pr asr g2p p2g lid`.
        policy: policy of the references: of phones, or of text.
        utt_ids: in order.
        hyps: what the model wrote for each.
        refs: slashed phones or IPA, orthography, or ISO 639-3 for LID.
        langs: ISO 639-3 of each.
        locations: `wav.scp` value of each.
        durations_s: of each.
        align_file: when each phone that was decoded is said, if `--align` asked for it.
    """

    profile: str
    set: str
    task: str
    policy: str
    utt_ids: tuple[str, ...]
    hyps: tuple[str, ...]
    refs: tuple[str, ...]
    langs: tuple[str, ...]
    locations: tuple[str, ...]
    durations_s: tuple[float, ...]
    align_file: Path

    def times(self, numbers: Collection[int]) -> dict[int, list[tuple]]:
        """(phone, start_s, end_s) of the phones of utterances that were aligned."""
        if not self.align_file.is_file() or self._is_of_other_phones():
            return {}
        wanted = {self.utt_ids[k]: k for k in numbers}
        by_ref = {}
        with open(self.align_file, encoding="utf-8") as lines:
            for line in lines:  # of a set, of which few are wanted
                row = json.loads(line)
                if row["utt_id"] in wanted:
                    by_ref[wanted[row["utt_id"]]] = [
                        (s["phone"], round(s["start"], 3), round(s["end"], 3))
                        for s in row["segments"]
                    ]
        return by_ref

    def _is_of_other_phones(self) -> bool:
        """Whether the set was decoded again since its phones were aligned."""
        folder = self.align_file.parent
        if not (done := folder / DONE_FILE).is_file():
            return False
        made_from = read_json(done, "run stage 12 again", keys=["made_from"])
        hyps = folder.parent / HYP_FILE
        if made_from["made_from"].get(HYP_FILE) == sha256_file(hyps):
            return False
        log.warning("%s: of phones that were decoded before; --align again", folder)
        return True

    @cached_property
    def alignments(self) -> list[list[tuple[str, str]]]:
        """(reference, hypothesis) of each step; `GAP` where one side has nothing.

        Phones are aligned by feature distance; words, or characters where words have
        no spaces, by equality.
        """
        pairs, metric = self._pairs
        return [
            [(step.ref or GAP, step.hyp or GAP) for step in steps]
            for steps in pairs.alignments(metric)
        ]

    @cached_property
    def errors(self) -> np.ndarray:
        """PFER or WER of each utterance alone, percent.

        CER where the language has no spaces. An empty reference counts as one phone, so
        that what was inserted shows.
        """
        if DECODED_TASKS[self.task].writes == TEXT:
            scores = score_text(
                hyp=self.hyps, ref=self.refs, langs=self.langs, text_policy=self.policy
            )
            wer, cer = map(scores.utterance_values, ("WER", "CER"))
            return np.nan_to_num(np.where(np.isnan(wer), cer, wer), nan=100.0)
        pairs, _ = self._pairs
        return 100 * pairs.distances("feature") / np.maximum(pairs.n_ref, 1)

    @property
    def error_name(self) -> str:
        """What `errors` holds."""
        if DECODED_TASKS[self.task].writes == TEXT:
            any_joined = any(joins(lang, self.policy) for lang in set(self.langs))
            return "WER (CER where words have no spaces)" if any_joined else "WER"
        return "PFER"

    @cached_property
    def _pairs(self) -> tuple[PhonePairs, str]:
        if DECODED_TASKS[self.task].writes == TEXT:
            # the kernel takes any units for "phones" when each edit costs 1
            joined = [joins(lang, self.policy) for lang in self.langs]
            hyp = list(map(_units_of_text, self.hyps, joined))
            ref = list(map(_units_of_text, self.refs, joined))
            return PhonePairs(hyp=hyp, ref=ref), "phone"
        reader = PhoneReader(self.policy)  # as stage 13 does
        hyp = [reader.read(strip_prompt(text)).phones for text in self.hyps]
        ref = [reader.read(strip_prompt(text)).phones for text in self.refs]
        return PhonePairs(hyp=hyp, ref=ref), "feature"

    def confusions(self) -> Counter[tuple[str, str, str]]:
        """How often each phone became which, by (language, reference, hypothesis)."""
        return Counter(
            (lang, ref, hyp)
            for lang, steps in zip(self.langs, self.alignments, strict=True)
            for ref, hyp in steps
        )

    def worst(self, n: int) -> list[int]:
        """Utterances with the highest error; of equals, longer ones first."""
        order = sorted(
            range(len(self.utt_ids)),
            key=lambda k: (-self.errors[k], -self.durations_s[k], self.utt_ids[k]),
        )
        return order[:n]

    def examples(self, n: int) -> list[int]:
        """Utterances that show as many of the confusions as fit, frequent ones first.

        Each confusion not yet shown brings the shortest utterance that has it.
        """
        where: dict[tuple[str, str], int] = {}
        counts: Counter[tuple[str, str]] = Counter()
        for k, steps in enumerate(self.alignments):
            for step in steps:
                if step[0] != step[1]:
                    counts[step] += 1
                    best = where.setdefault(step, k)
                    if self.durations_s[k] < self.durations_s[best]:
                        where[step] = k
        chosen: dict[int, None] = {}
        shown: set[tuple[str, str]] = set()
        for step, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            if step in shown:
                continue
            if len(chosen) == n:
                break
            chosen[where[step]] = None
            shown.update(self.alignments[where[step]])
        return list(chosen)

    def lid_matrix(self) -> list[tuple[str, str, int]]:
        """How often each language was taken for which: (reference, detected, count)."""
        counts = lid_confusion(hyp=self.hyps, ref=self.refs)
        return [(ref, hyp, n) for (ref, hyp), n in sorted(counts.items())]


def _units_of_text(text: str, join: bool) -> list[str]:
    """Words, or the characters of a language that has no spaces, as scored."""
    tidy = tidy_text(text, join)
    return list(tidy) if join else tidy.split()


def differences(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Features in which phones differ, as `voi - to +`, for pairs without a gap.

    >>> differences([("p", "b")])
    {('p', 'b'): 'voi - to +'}
    """
    table = feature_table()
    sign = {-1: "-", 0: "0", 1: "+"}
    marks = {}
    for ref, hyp in pairs:
        if GAP in (ref, hyp) or ref == hyp:
            continue
        values = table.of([ref, hyp])
        marks[ref, hyp] = ", ".join(
            f"{name} {sign[a]} to {sign[b]}"
            for name, a, b in zip(table.names, *values.tolist(), strict=True)
            if a != b
        )
    return marks


def read_decoded(exp: Path, dump: Path, sets: Collection[str]) -> Iterator[AlignedSet]:
    """Everything that was decoded of the sets asked for.

    Raises:
        DecodedError: a set that is not in `dump`, or whose references are missing.
        ReportError: a hypothesis without reference.
    """
    for decoded in decoded_sets(exp, sets):
        yield _with_references(decoded, DumpSet(dump / decoded.set_name))


def _with_references(decoded: DecodedSet, truth: DumpSet) -> AlignedSet:
    records = decoded.records()
    refs = truth.references(decoded.writes)
    utt_ids = tuple(record["utt_id"] for record in records)
    missing = [u for u in utt_ids if u not in refs or u not in truth.locations]
    if missing:
        raise ReportError(
            f"{decoded.folder}: {len(missing)} utterances are not in {truth.folder}: "
            f"{' '.join(missing[:3])}; decode the set again (stage 12)"
        )
    is_text = decoded.writes == TEXT
    return AlignedSet(
        profile=decoded.profile,
        set=decoded.set_name,
        task=decoded.task,
        policy=truth.text_policy if is_text else truth.normaliser["policy"],
        utt_ids=utt_ids,
        hyps=tuple(record["text"] for record in records),
        refs=tuple(refs[u] for u in utt_ids),
        langs=tuple(truth.langs[u] for u in utt_ids),
        locations=tuple(truth.locations[u] for u in utt_ids),
        durations_s=tuple(round(truth.durations_s[u], 3) for u in utt_ids),
        align_file=decoded.folder / ALIGN_FILE,
    )
