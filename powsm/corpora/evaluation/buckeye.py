"""Buckeye: interviews with 40 people in Columbus, Ohio, phones labelled by hand.

The paper's set is anyspeech's copy (Shar, 7.88 h); how that copy was cut out of the
interviews is not published. From the original this module cuts by PRiSM's public rule:
at pauses of a second, into utterances of 0.5 to 20 s. It also cuts where the
interviewer speaks or a name is masked, and at the longest pause of what is still too
long. The set is then larger than the published one; labels become IPA by PRiSM's map
(`alphabet_buckeye.csv`).

Licence: free for non-commercial use, after registration.
https://buckeyecorpus.osu.edu

Layout: `s<NN><MM>.{wav,phones,words}` (`s0101a.phones`), unpacked, at any depth; or
anyspeech's copy, see `powsm.corpora.evaluation.published`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from powsm.audio import WINDOW_S
from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    LeftOut,
    Segment,
    Written,
)
from powsm.corpora.evaluation.published import write_published_or
from powsm.files.text import open_text
from powsm.phones.alphabets import read_alphabet, to_ipa

ALPHABET = "buckeye"
MIN_PAUSE_S = 1.0
MIN_DURATION_S = 0.5

_TIME = re.compile(r"-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_PAUSES = frozenset({"SIL", "NOISE", "VOCNOISE"})  # nobody speaks


class Label(NamedTuple):
    """A phone, or a label that is no phone: `SIL`, `IVER`, `{B_TRANS}`."""

    start_s: float
    end_s: float
    symbol: str

    @property
    def is_phone(self) -> bool:
        return self.symbol.islower()

    @property
    def ends_utterance(self) -> bool:
        """A long pause, or sound that the labels say nothing about."""
        if self.symbol in _PAUSES:
            return self.end_s - self.start_s >= MIN_PAUSE_S
        return not self.is_phone


def prepare_buckeye(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the set from a copy of anyspeech's or the original."""
    return write_published_or(_segments, source, out, allow_incomplete)


def _segments(source: Path, left_out: LeftOut) -> Iterator[Segment]:
    files = sorted(source.rglob("s*.phones"))
    if not files:
        raise CorpusError(
            f"{source}: neither Shar nor s0101a.phones and so on; unpack s01.zip to "
            "s40.zip and the archives in them"
        )
    known = read_alphabet(ALPHABET)
    for path in files:
        audio = path.with_suffix(".wav")
        if not audio.is_file():
            left_out.add("no_audio", path.stem)
            continue
        words = read_labels(path.with_suffix(".words"))
        for utterance in utterances(read_labels(path)):
            start_s, end_s = utterance[0].start_s, utterance[-1].end_s
            key = f"{path.stem}-{round(start_s * 1000):07d}"
            if end_s - start_s < MIN_DURATION_S:
                left_out.add("too_short", key)
                continue
            if end_s - start_s > WINDOW_S:
                left_out.add("too_long", key)  # no pause to cut at
                continue
            symbols = [label.symbol for label in utterance if label.is_phone]
            if unknown := sorted(set(symbols) - set(known)):
                left_out.add(f"unknown_label:{unknown[0]}", key)
                continue
            text = [
                word.symbol
                for word in words
                if start_s < (word.start_s + word.end_s) / 2 < end_s
                and not word.symbol.startswith(("<", "{"))
            ]
            yield Segment(
                key=key,
                audio=audio,
                ipa=to_ipa(symbols, ALPHABET),
                raw=" ".join(label.symbol for label in utterance),
                lang="eng",
                speaker=path.stem[:3],
                text=" ".join(text),
                start_s=start_s,
                end_s=end_s,
            )


def read_labels(path: Path) -> list[Label]:
    """Labels of a `.phones` or `.words` file: `end colour label; ...` after a `#`.

    Returns:
        Labels with a duration, in order; [] if there is no such file.
    """
    if not path.is_file():
        return []
    with open_text(path, errors="replace") as file:
        lines = file.read().splitlines()
    header = next((n for n, line in enumerate(lines) if line.strip() == "#"), -1)
    labels = []
    end_s = 0.0
    for number, line in enumerate(lines[header + 1 :], header + 2):
        fields = line.split(";")[0].split()
        if len(fields) < 2:
            continue
        if not _TIME.fullmatch(fields[0]):
            raise CorpusError(
                f"{path}:{number}: found {line[:40]!r}, expected end, colour and label"
            )
        start_s, end_s = end_s, float(fields[0])
        if end_s > start_s:
            symbol = fields[2].rstrip("+*") if len(fields) > 2 else "SIL"
            labels.append(Label(start_s, end_s, symbol))
    return labels


def utterances(labels: list[Label]) -> list[list[Label]]:
    """Stretches of speech between long pauses, without pauses at their ends."""
    stretches: list[list[Label]] = [[]]
    for label in labels:
        if label.ends_utterance:
            stretches.append([])
        else:
            stretches[-1].append(label)
    return [
        piece for stretch in stretches for piece in _at_most_a_window(_trimmed(stretch))
    ]


def _trimmed(stretch: list[Label]) -> list[Label]:
    places = [n for n, label in enumerate(stretch) if label.is_phone]
    return stretch[places[0] : places[-1] + 1] if places else []


def _at_most_a_window(stretch: list[Label]) -> list[list[Label]]:
    """Cut at the longest pause, again and again, while longer than the window."""
    if not stretch:
        return []
    pauses = [n for n, label in enumerate(stretch) if not label.is_phone]
    if stretch[-1].end_s - stretch[0].start_s <= WINDOW_S or not pauses:
        return [stretch]
    longest = max(pauses, key=lambda n: stretch[n].end_s - stretch[n].start_s)
    halves = (stretch[:longest], stretch[longest + 1 :])
    return [p for half in halves for p in _at_most_a_window(_trimmed(half))]
