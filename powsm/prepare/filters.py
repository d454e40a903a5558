"""Keep or drop an utterance, with a counted reason.

Limits bind training and development sets. A test set keeps every utterance that
can be scored, so that rates are over the same utterances for everybody.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import eq
from pathlib import Path

from powsm.audio import SAMPLE_RATE, WINDOW_S, n_encoder_frames
from powsm.errors import PowsmError
from powsm.files.datadir import read_scp
from powsm.files.whole import read_json
from powsm.formatting import ranked
from powsm.languages import DROPPED_LANGUAGES, lang_code

MAX_PHONES = 300  # POWSM section 4.1
MIN_DURATION_S = 0.5
DROPS_FILE = "drops.json"  # hours and utterances that were kept, and why others not
N_EXAMPLES = 5  # utterance ids remembered for a reason


@dataclass(frozen=True)
class Limits:
    """What an utterance must satisfy; both ends of a range are allowed."""

    min_duration_s: float = MIN_DURATION_S
    max_duration_s: float = WINDOW_S
    max_phones: int = MAX_PHONES
    check_ctc: bool = True
    dropped_languages: frozenset[str] = frozenset(DROPPED_LANGUAGES)
    only_languages: frozenset[str] | None = None  # None keeps all others

    def for_set(self, dset: str) -> "Limits":
        """These limits, or only the indispensable ones when `dset` is a test set."""
        if not dset.startswith("test"):
            return self
        return replace(
            self,
            min_duration_s=0.0,
            max_duration_s=float("inf"),
            max_phones=1 << 62,
            check_ctc=False,
            only_languages=None,
        )

    def said(self) -> dict[str, object]:
        """The options that are not the default, by name."""
        only = self.only_languages
        options = {
            "min_duration": (self.min_duration_s, LIMITS.min_duration_s),
            "max_duration": (self.max_duration_s, LIMITS.max_duration_s),
            "max_phones": (self.max_phones, LIMITS.max_phones),
            "langs": (None if only is None else ",".join(sorted(only)), None),
        }
        return {name: said for name, (said, usual) in options.items() if said != usual}


LIMITS = Limits()  # the default


def languages_named(text: str) -> frozenset[str] | None:
    """The languages of `--langs`, "eng fra" or "eng,fra"; None where it names none.

    Raises:
        PowsmError: one is no ISO 639-3 code.
    """
    codes = text.replace(",", " ").split()
    for code in codes:
        if (known := lang_code(code)) != code:
            hint = f"; did you mean {known}?" if known else ""
            raise PowsmError(f"--langs {code}: expected ISO 639-3 codes{hint}")
    return frozenset(codes) or None


def check_languages(data_dir: Path, limits: Limits) -> None:
    """Refuse languages to keep of which a set has no utterance.

    Raises:
        PowsmError: names them and those that there are.
    """
    if limits.only_languages is None:
        return
    there = {language for _, language in read_scp(data_dir / "utt2lang")}
    if missing := sorted(limits.only_languages - there):
        raise PowsmError(
            f"--langs {' '.join(missing)}: no utterance in {data_dir}/utt2lang; it has "
            f"{' '.join(sorted(there))}"
        )


def min_ctc_frames(ctc_phones: Sequence[str]) -> int:
    """Encoder frames that a CTC target needs at least.

    One for SentencePiece's leading `▁`, one a phone, and a blank between equals.

    >>> min_ctc_frames(["p", "ɔ", "p"]), min_ctc_frames(["p", "p", "ɔ"])
    (4, 5)
    """
    repeats = sum(map(eq, ctc_phones, islice(ctc_phones, 1, None)))
    return 1 + len(ctc_phones) + repeats


def audio_drop_reason(limits: Limits, *, lang: str, n_samples: int) -> str | None:
    """Why language or duration rule the utterance out; None when they do not."""
    if lang in limits.dropped_languages:
        return "dropped_language"
    if limits.only_languages is not None and lang not in limits.only_languages:
        return "other_language"
    if n_samples < limits.min_duration_s * SAMPLE_RATE:
        return "too_short"
    if n_samples > limits.max_duration_s * SAMPLE_RATE:
        return "too_long"
    return None


def phones_drop_reason(
    limits: Limits, *, n_samples: int, phones: Sequence[str], ctc_phones: Sequence[str]
) -> str | None:
    """Why the phones rule the utterance out; None when they do not."""
    if not ctc_phones:
        return "no_phones"
    if len(phones) > limits.max_phones:
        return "too_many_phones"
    if limits.check_ctc and not is_ctc_feasible(n_samples, ctc_phones):
        return "ctc_infeasible"
    return None


def is_ctc_feasible(n_samples: int, ctc_phones: Sequence[str]) -> bool:
    """Whether the encoder makes enough frames of the audio for the target."""
    n_frames = n_encoder_frames(n_samples)
    # most utterances have room for a blank after every phone: no need to look closer
    return n_frames > 2 * len(ctc_phones) or n_frames >= min_ctc_frames(ctc_phones)


def kept_hours(folder: Path) -> float | None:
    """Hours of a set of stage 4, by its record; None if it is missing."""
    record = folder / DROPS_FILE
    if not record.is_file():
        return None
    return read_json(record, "run stage 4 again").get("kept_hours")


@dataclass
class Counts:
    """Kept and dropped utterances; `merge` in file order keeps results stable.

    `examples` holds the first ids of each reason; `no_text` counts utterances that
    stay but have no orthography, so only their PR example exists.
    """

    total: int = 0
    kept: int = 0
    kept_samples: int = 0
    no_text: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, utt_id: str) -> None:
        self.total += 1
        self.dropped[reason] += 1
        self._remember(reason, utt_id)

    def keep(self, utt_id: str, n_samples: int, has_text: bool) -> None:
        self.total += 1
        self.kept += 1
        self.kept_samples += n_samples
        if not has_text:
            self.no_text += 1
            self._remember("no_text", utt_id)

    def _remember(self, reason: str, utt_id: str) -> None:
        seen = self.examples.setdefault(reason, [])
        if len(seen) < N_EXAMPLES:
            seen.append(utt_id)

    def merge(self, other: "Counts") -> None:
        self.total += other.total
        self.kept += other.kept
        self.kept_samples += other.kept_samples
        self.no_text += other.no_text
        self.dropped.update(other.dropped)
        for reason, utt_ids in other.examples.items():
            for utt_id in utt_ids:
                self._remember(reason, utt_id)

    def summary(self) -> str:
        """One log line.

        >>> counts = Counts(total=10_000, kept=9_812)
        >>> counts.dropped.update(too_long=140, no_phones=48)
        >>> counts.summary()
        'kept 9,812 of 10,000 (too_long=140 no_phones=48)'
        """
        parts = [f"{reason}={n:,}" for reason, n in ranked(self.dropped)]
        if self.no_text:
            parts.append(f"kept without text: no_text={self.no_text:,}")
        tail = f" ({' '.join(parts)})" if parts else ""
        return f"kept {self.kept:,} of {self.total:,}{tail}"

    def as_dict(self) -> dict[str, object]:
        """For `drops.json`: the same bytes for the same input."""
        return {
            "total": self.total,
            "kept": self.kept,
            "kept_hours": round(self.kept_samples / SAMPLE_RATE / 3600, 4),
            "no_text": self.no_text,
            "dropped": dict(ranked(self.dropped)),
            "examples": {
                reason: self.examples[reason] for reason in sorted(self.examples)
            },
        }
