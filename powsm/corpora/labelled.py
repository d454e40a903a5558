"""Phones with the times that people set, from whatever file holds them.

TextGrid and EAF, whose tier has phones in IPA; TIMIT's `.PHN`; Buckeye's `.phones`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from powsm.audio import SAMPLE_RATE
from powsm.corpora.evaluation import buckeye, timit
from powsm.corpora.evaluation.textgrid import Interval
from powsm.corpora.tiers import TIER_ENDINGS, read_first
from powsm.phones.alphabets import to_ipa

LABEL_ENDINGS = (*TIER_ENDINGS, ".PHN", ".phn", ".phones")
_CLOSED = {  # what a closure of TIMIT is the beginning of
    **{f"{stop}cl": (stop,) for stop in "bgpk"},
    "dcl": ("d", "jh"),
    "tcl": ("t", "ch"),
}


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording all of whose phones are labelled.

    Attributes:
        labels: in IPA, in order of time, in seconds from the start of the recording.
        begin_s, end_s: of the stretch; None where it is the whole recording.
    """

    labels: list[Interval]
    begin_s: float = 0.0
    end_s: float | None = None


def labels_beside(audio: Path) -> Path | None:
    """The file that labels a recording: `SA1.PHN` of `SA1.WAV` or `SA1.WAV.wav`."""
    for stem in (audio.with_suffix(""), audio.with_suffix("").with_suffix("")):
        for ending in LABEL_ENDINGS:
            if (path := stem.with_name(stem.name + ending)).is_file():
                return path
    return None


def read_pieces(path: Path, tiers: Sequence[str]) -> list[Piece]:
    """The labelled pieces of a recording: all of it, or Buckeye's utterances.

    Args:
        tiers: of a TextGrid or EAF; the first that is there.

    Raises:
        TierError: no such tier, or labels that overlap.
        CorpusError: lines of TIMIT or Buckeye that are none.
        AlphabetError: symbols that TIMIT or Buckeye does not have.
    """
    if path.suffix in TIER_ENDINGS:
        return [Piece(read_first(path, tiers))]
    if path.suffix == ".phones":
        utterances = buckeye.utterances(buckeye.read_labels(path))
        return [
            Piece(_ipa(utterance, buckeye.ALPHABET), utterance[0][0], utterance[-1][1])
            for utterance in utterances
            if utterance
        ]
    return [Piece(_ipa(_with_closures(timit.read_labels(path)), timit.ALPHABET))]


def _ipa(rows: Sequence[tuple[float, float, str]], alphabet: str) -> list[Interval]:
    """Rows as IPA; what is no phone, as a pause, is left out."""
    is_phone = str.islower if alphabet == buckeye.ALPHABET else bool
    labels = [
        Interval(start, end, to_ipa([symbol], alphabet))
        for start, end, symbol in rows
        if is_phone(symbol)
    ]
    return [label for label in labels if label.label]


def _with_closures(rows: list[tuple[int, int, str]]) -> list[tuple[float, float, str]]:
    """Rows in seconds; a stop or affricate begins with its closure.

    >>> rows = [(0, 160, "tcl"), (160, 320, "t"), (320, 480, "iy")]
    >>> [row for row in _with_closures(rows) if row[2] != "tcl"]
    [(0.0, 0.02, 't'), (0.02, 0.03, 'iy')]
    """
    rows = list(rows)
    for number, (first, second) in enumerate(pairwise(rows)):
        if first[1] == second[0] and second[2] in _CLOSED.get(first[2], ()):
            rows[number + 1] = (first[0], *second[1:])
    return [(a / SAMPLE_RATE, b / SAMPLE_RATE, symbol) for a, b, symbol in rows]
