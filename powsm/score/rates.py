"""Rates as views of summed counts, with intervals, breakdowns and comparisons.

Every rate is a sum over a sum: an empty hypothesis deletes all of its reference, an
empty reference adds its insertions and nothing below the line.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from powsm.errors import PowsmError
from powsm.phones.unknown import Unknown
from powsm.score.distance import UNITS
from powsm.score.intervals import (
    LEVEL,
    Comparison,
    Interval,
    bootstrap_intervals,
    compare,
    sum_by_unit,
    wilson_interval,
)

Unit = Literal["utterance", "speaker"]

_SHOWN = 5  # utterances named in a message


class ScoreError(PowsmError):
    """Hypotheses and references that cannot be scored against each other."""


class Rate(NamedTuple):
    """How to get a rate from summed columns of counts.

    Attributes:
        numerator: columns that are added up.
        denominator: the column to divide by.
        units: so many units of the numerator make one.
        scale: 100 for percent.
        n_utts: the column that counts the utterances behind the rate.
        title: what it is, for the end of a report.
        higher_is_better: of two values; error rates are better when lower.
    """

    numerator: tuple[str, ...]
    denominator: str
    units: int = 1
    scale: int = 100
    n_utts: str = "n_utts"
    title: str = ""
    higher_is_better: bool = False


EDITS = ("substitutions", "deletions", "insertions")

ALL = "all"  # in place of a language: the whole set
CHANCE = "PFER_chance"
RATES: dict[str, Rate] = {  # in the order of a table's columns
    "PFER": Rate(
        ("feature_cost",),
        "n_ref",
        UNITS["feature"],
        title="100 x summed PanPhon feature edit distance / reference segments: the "
        'published tables. A gap costs less than 1. PRiSM\'s evaluator calls it "FER".',
    ),
    CHANCE: Rate(
        ("chance_cost",),
        "n_chance",
        UNITS["feature"],
        title="PFER of the same hypotheses against other utterances' references of "
        "like length (of the same language where it has several): what a system gets "
        "that did not listen.",
    ),
    "PER": Rate(
        EDITS,
        "n_ref",
        title="100 x (substitutions + deletions + insertions) / reference phones.",
    ),
    "PFER_hamming": Rate(
        ("hamming_cost",),
        "n_ref",
        UNITS["hamming"],
        title="as PFER with PanPhon's Hamming distance: a gap costs 1, a phone that "
        "differs in k of 24 features k/24. What the POWSM paper describes in words.",
    ),
    "mean_hamming": Rate(
        ("hamming_cost",),
        "n_utts",
        UNITS["hamming"],
        scale=1,
        title="mean Hamming feature edit distance of an utterance, in phones: not a "
        "percentage, grows with length. ZIPA, MultIPA and PRiSM's evaluator call this "
        '"PFER".',
    ),
    "FER": Rate(
        ("feature_cost",),
        "n_ref",
        UNITS["feature"],
        title="100 x feature edits / (24 x reference segments): PanPhon's and PRiSM's "
        "name for PFER.",
    ),
    "WER": Rate(
        ("word_substitutions", "word_deletions", "word_insertions"),
        "n_words",
        n_utts="n_word_utts",
        title="100 x word edits / reference words.",
    ),
    "CER": Rate(
        ("char_substitutions", "char_deletions", "char_insertions"),
        "n_chars",
        title="100 x character edits / reference characters.",
    ),
    "accuracy": Rate(
        ("n_correct",),
        "n_utts",
        title="share of utterances whose likeliest language is the reference's.",
        higher_is_better=True,
    ),
    "top_5": Rate(
        ("n_in_top_5",),
        "n_utts",
        title="share of utterances whose language is among the five likeliest.",
        higher_is_better=True,
    ),
}
PHONE_RATES = ("PER", "PFER", CHANCE, "PFER_hamming", "mean_hamming")
TEXT_RATES = ("WER", "CER")
LID_RATES = ("accuracy",)


def rate_notes(rates: Iterable[str]) -> str:
    """What each rate is, as a Markdown list, for wherever rates are printed."""
    return "\n".join(
        f"- `{name}`: {RATES[name].title}" for name in rates if name in RATES
    )


@dataclass(frozen=True, eq=False)
class Scores:
    """Counts of every utterance, and the rates they give.

    Attributes:
        utt_ids: one an utterance.
        columns: counts by name, int64, each of shape (n_utts,).
        rates: names of the rates these counts are for, keys of `RATES`.
        langs: language of each utterance, where known.
        speakers: speaker of each utterance, where known.
        unknown_hyp: what is in no phone of the hypotheses, by kind, and symbols that
            are left out for no known reason.
        unknown_ref: the same of references.
    """

    utt_ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    rates: tuple[str, ...]
    langs: tuple[str, ...] | None = None
    speakers: tuple[str, ...] | None = None
    unknown_hyp: Unknown = field(default_factory=Unknown)
    unknown_ref: Unknown = field(default_factory=Unknown)

    def __len__(self) -> int:
        return len(self.utt_ids)

    @property
    def has_speakers(self) -> bool:
        """Whether speakers are known; without one each utterance is its own."""
        return self.speakers is not None and self.speakers != self.utt_ids

    @property
    def counts(self) -> dict[str, int]:
        """Sum of every column."""
        return {name: int(column.sum()) for name, column in self.columns.items()}

    @property
    def values(self) -> dict[str, float]:
        """Every rate, pooled over all utterances."""
        return {name: self.value(name) for name in self.rates}

    def value(self, rate: str) -> float:
        """A pooled rate: percent, but phones for `mean_hamming`.

        NaN if there is nothing to divide by, such as no reference phone in the set.

        Raises:
            ScoreError: a rate that there is not, or of words where phones were scored.
        """
        numerator, denominator = self._fraction(rate)
        total = denominator.sum()
        if total == 0:
            return math.nan
        return float(RATES[rate].scale * numerator.sum() / total)

    def utterance_values(self, rate: str) -> np.ndarray:
        """The rate of each utterance alone, (n_utts,); NaN for an empty reference."""
        numerator, denominator = self._fraction(rate)
        values = np.full(len(self), np.nan)
        scale = RATES[rate].scale
        np.divide(scale * numerator, denominator, out=values, where=denominator > 0)
        return values

    def intervals(
        self,
        *,
        unit: Unit = "utterance",
        level: float = LEVEL,
    ) -> dict[str, Interval]:
        """A confidence interval of every rate, on the scale of the rate.

        Args:
            unit: what is taken to be independent: utterances, or speakers with all
                their utterances (wider, and honest where speakers differ).
            level: coverage aimed at.

        Raises:
            ScoreError: speakers are asked for and not known.
        """
        fractions = [self._units(rate, unit) for rate in self.rates]
        bounds = bootstrap_intervals(
            np.stack([numerator for numerator, _ in fractions], 1),
            np.stack([denominator for _, denominator in fractions], 1),
            level=level,
        )
        intervals = dict(zip(self.rates, bounds, strict=True))
        if unit == "utterance":
            # a share of independent trials has an interval that also holds at 100 %
            for rate in intervals.keys() & {"accuracy", "top_5"}:
                n_hits = int(self._fraction(rate)[0].sum())
                intervals[rate] = wilson_interval(n_hits, len(self), level)
        return {
            rate: Interval(*(RATES[rate].scale * bound for bound in interval))
            for rate, interval in intervals.items()
        }

    def by(self, labels: Mapping[str, str] | Sequence[str]) -> dict[str, "Scores"]:
        """Split by a label of each utterance, in order of the labels.

        Args:
            labels: by utt_id, or in the order of `utt_ids`.

        Raises:
            ScoreError: an utterance without label.
        """
        labels = np.array(aligned(labels, self.utt_ids, "labels"))
        return {
            str(label): self._rows(np.flatnonzero(labels == label))
            for label in np.unique(labels)
        }

    def by_lang(self) -> dict[str, "Scores"]:
        """Split by language; nothing where languages are not known."""
        return {} if self.langs is None else self.by(self.langs)

    def only(self, utt_ids: Collection[str]) -> "Scores":
        """Some of the utterances, in their order."""
        kept = [row for row, utt_id in enumerate(self.utt_ids) if utt_id in utt_ids]
        return self._rows(np.array(kept, np.int64))

    def records(
        self, *, set_name: str, task: str, decode: str, unit: Unit = "utterance"
    ) -> list[dict]:
        """Results as rows of a tidy table: pooled (lang "all"), then each language.

        A rate with nothing to divide by has no row. Bounds are None where there are too
        few utterances for them.

        Raises:
            ScoreError: a language is called as the pooled rows are.
        """
        if ALL in (self.langs or ()):
            raise ScoreError(
                f"a language is called {ALL!r}, which stands for the whole set; give "
                "its utterances another name, such as und"
            )
        where = {"set": set_name, "lang": ALL, "task": task, "decode": decode}
        return [
            {**where, "lang": lang, **row}
            for lang, scores in {ALL: self, **self.by_lang()}.items()
            for row in scores.rate_rows(unit)
        ]

    def rate_rows(self, unit: Unit = "utterance") -> list[dict]:
        """Every pooled rate that has something to divide by, with its bounds."""
        intervals = self.intervals(unit=unit)
        return [
            {
                "metric": rate,
                "value": value,
                "low": _none_if_nan(intervals[rate].low),
                "high": _none_if_nan(intervals[rate].high),
                "n_utts": int(self.columns[RATES[rate].n_utts].sum()),
                "n_units": int(self.columns[RATES[rate].denominator].sum()),
            }
            for rate, value in self.values.items()
            if not math.isnan(value)
        ]

    def compare(
        self, other: "Scores", rate: str, *, unit: Unit = "utterance"
    ) -> Comparison:
        """This system against another on the same utterances, on the scale of the rate.

        Raises:
            ScoreError: the utterances are not the same.
        """
        if self.utt_ids != other.utt_ids:
            check_same_ids(self.utt_ids, other.utt_ids, "first", "second")
            raise ScoreError("the two systems list their utterances in another order")
        fractions = [scores._units(rate, unit) for scores in (self, other)]
        difference = compare(
            tuple(numerator for numerator, _ in fractions),
            tuple(denominator for _, denominator in fractions),
        )
        scale = RATES[rate].scale
        return Comparison(*(scale * number for number in difference[:3]), difference.p)

    def _fraction(self, rate: str) -> tuple[np.ndarray, np.ndarray]:
        """Numerator and denominator of each utterance, whole numbers both."""
        how = RATES.get(rate)
        if how is None or not self.columns.keys() >= {*how.numerator, how.denominator}:
            raise ScoreError(
                f"rate {rate!r}: not of these scores, which have {' '.join(self.rates)}"
            )
        numerator = sum(self.columns[name] for name in how.numerator)
        return numerator, how.units * self.columns[how.denominator]

    def _units(self, rate: str, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
        counts = np.stack(self._fraction(rate), 1)
        if unit == "speaker":
            if self.speakers is None:
                raise ScoreError(
                    "intervals by speaker need to know the speakers; give their utt2spk"
                )
            counts = sum_by_unit(counts, np.array(self.speakers))
        return counts[:, 0], counts[:, 1]

    def _rows(self, rows: np.ndarray) -> "Scores":
        def pick(values):
            return None if values is None else tuple(values[row] for row in rows)

        return replace(
            self,
            utt_ids=pick(self.utt_ids),
            columns={name: column[rows] for name, column in self.columns.items()},
            langs=pick(self.langs),
            speakers=pick(self.speakers),
        )


def check_same_ids(
    first: Iterable[str], second: Iterable[str], first_name: str, second_name: str
) -> None:
    """Refuse sides whose utterances are not the same, naming some of one alone."""
    first, second = set(first), set(second)
    faults = [
        f"{len(ids)} of {len(whole)} in {where} alone: {_shown(ids)}"
        for ids, whole, where in (
            (first - second, first, first_name),
            (second - first, second, second_name),
        )
        if ids
    ]
    if faults:
        raise ScoreError(
            f"not the same utterances: {'; '.join(faults)}. Decode or select the same "
            "set on both sides: leaving some out would change the score"
        )


def _shown(ids: Iterable[str]) -> str:
    ids = sorted(ids)
    return " ".join(ids[:_SHOWN]) + (" ..." if len(ids) > _SHOWN else "")


def aligned[Label](
    labels: Mapping[str, Label] | Sequence[Label], utt_ids: tuple[str, ...], what: str
) -> tuple[Label, ...]:
    """Labels in the order of `utt_ids`, from a mapping or from a list in that order.

    Raises:
        ScoreError: an utterance without label, or with an empty one.
    """
    if not isinstance(labels, Mapping):
        if len(labels) != len(utt_ids):
            raise ScoreError(f"{len(labels)} {what} for {len(utt_ids)} utterances")
        labels = dict(zip(utt_ids, labels, strict=True))
    missing = [utt_id for utt_id in utt_ids if labels.get(utt_id, "") == ""]
    if missing:
        raise ScoreError(
            f"{what} lack {len(missing)} of {len(utt_ids)} utterances: "
            f"{_shown(missing)}"
        )
    return tuple(labels[utt_id] for utt_id in utt_ids)


def _none_if_nan(number: float) -> float | None:
    return None if math.isnan(number) else number
