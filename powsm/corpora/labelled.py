"""Phones with the times that people set, from whatever file holds them.

TextGrid and EAF, whose tier has phones in IPA; TIMIT's `.PHN`; Buckeye's `.phones`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from powsm.audio import SAMPLE_RATE
from powsm.audio_files import printable
from powsm.corpora.evaluation import buckeye, timit
from powsm.corpora.evaluation.textgrid import Interval
from powsm.corpora.tiers import TIER_ENDINGS, TierError, read_first
from powsm.phones.alphabets import AlphabetError, to_ipa

LABEL_ENDINGS = (*TIER_ENDINGS, ".PHN", ".phn", ".phones")
_SILENT = {"sil", "sp", "spn"}  # of aligners; they are no phones s, i and l
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
    stems = [audio.with_suffix("")]
    if stems[0].suffix.lower() == ".wav":
        stems.append(stems[0].with_suffix(""))
    places = (
        stem.with_name(stem.name + end) for stem in stems for end in LABEL_ENDINGS
    )
    return next((path for path in places if path.is_file()), None)


def has_tiers(audio: Path) -> bool:
    """Whether what labels a recording is a TextGrid or EAF."""
    labels = labels_beside(audio)
    return labels is not None and labels.suffix in TIER_ENDINGS


def read_pieces(path: Path, tiers: Sequence[str]) -> list[Piece]:
    """The labelled pieces of a recording: all of it, or Buckeye's utterances.

    Args:
        tiers: of a TextGrid or EAF; the first that is there.

    Raises:
        TierError: no such tier, labels that overlap, or symbols that TIMIT or Buckeye
            does not have.
        CorpusError: lines of TIMIT or Buckeye that are none.
    """
    if path.suffix in TIER_ENDINGS:
        labels = read_first(path, tiers)
        return [Piece([x for x in labels if x.label.casefold() not in _SILENT])]
    try:
        if path.suffix == ".phones":
            utterances = buckeye.utterances(buckeye.read_labels(path))
            return [_of_buckeye(utterance) for utterance in utterances if utterance]
        rows = _with_closures(timit.read_labels(path))
        return [Piece(_ipa(rows, timit.ALPHABET))]
    except AlphabetError as err:
        raise TierError(f"{printable(path)}: {err}") from err


def _of_buckeye(utterance: Sequence[buckeye.Label]) -> Piece:
    phones = [label for label in utterance if label.is_phone]
    labels = _ipa(phones, buckeye.ALPHABET)
    return Piece(labels, utterance[0].start_s, utterance[-1].end_s)


def _ipa(rows: Sequence[tuple[float, float, str]], alphabet: str) -> list[Interval]:
    """Rows as IPA; what is no phone, as a pause of TIMIT, is left out."""
    labels = [
        Interval(start, end, to_ipa([label], alphabet)) for start, end, label in rows
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
