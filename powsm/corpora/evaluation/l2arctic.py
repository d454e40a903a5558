"""L2-ARCTIC: non-native English of 24 speakers, 3,599 sentences labelled by hand.

The reference is what the annotators heard (perceived phones), not what was meant: a
label `DH, D, s` is [d], `AH, sil, d` is nothing, `sil, AX, a` is [ə]. The spontaneous
part (suitcase_corpus) is not in the set. 3.6 s each make the published 3.66 h.

Licence: CC BY-NC 4.0. https://psi.engr.tamu.edu/l2-arctic-corpus/

Layout: `<SPEAKER>/{wav,annotation,transcript}/arctic_a0001.*` of release 5, at any
depth, or anyspeech's copy l2arctic_perceived, see `powsm.corpora.evaluation.published`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    LeftOut,
    Segment,
    Written,
)
from powsm.corpora.evaluation.published import write_published_or
from powsm.corpora.evaluation.textgrid import read_tier
from powsm.files.text import read_text
from powsm.phones.alphabets import read_alphabet, to_ipa, unstressed

ALPHABET = "arpabet"
NO_PHONE = frozenset({"", "SIL", "SP", "SPN", "ERR"})  # ERR: heard, but not identified

_SYMBOL = re.compile(r"[A-Za-z]+[0-2]?")


def prepare_l2arctic(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the set from a copy of anyspeech's or the original."""
    return write_published_or(_segments, source, out, allow_incomplete)


def perceived(label: str) -> str:
    """The ARPABET symbol that was heard; empty if none was.

    Stress digits and marks such as `*` (nearest English phone) are cut off; AH without
    stress is AX.

    >>> [perceived(label) for label in ("DH, D*, s", "AH, sil, d", "sil,AX,a", "EH1")]
    ['D', '', 'AX', 'EH']
    >>> [perceived(label) for label in ("AH0", "AH1", "AH", "IH0, AH0, s")]
    ['AX', 'AH', 'AH', 'AX']
    """
    parts = label.split(",")
    match = _SYMBOL.search(parts[1] if len(parts) > 1 else parts[0])
    symbol = unstressed(match[0].upper()) if match else ""
    return "" if symbol in NO_PHONE else symbol


def _segments(source: Path, left_out: LeftOut) -> Iterator[Segment]:
    grids = sorted(source.rglob("annotation/*.TextGrid"))
    grids = [path for path in grids if path.parts[-3] != "suitcase_corpus"]
    if not grids:
        raise CorpusError(
            f"{source}: neither Shar nor <SPEAKER>/annotation/*.TextGrid; unpack the "
            "speakers' archives"
        )
    known = read_alphabet(ALPHABET)
    for path in grids:
        speaker = path.parent.parent
        key = f"{speaker.name}-{path.stem}"
        audio = speaker / "wav" / f"{path.stem}.wav"
        if not audio.is_file():
            left_out.add("no_audio", key)
            continue
        labels = [i.label for i in read_tier(path.read_bytes(), "phones", where=path)]
        symbols = [symbol for label in labels if (symbol := perceived(label))]
        if unknown := sorted(set(symbols) - set(known)):
            left_out.add(f"unknown_label:{unknown[0]}", key)
            continue
        words = speaker / "transcript" / f"{path.stem}.txt"
        yield Segment(
            key=key,
            audio=audio,
            ipa=to_ipa(symbols, ALPHABET),
            raw=" ".join(label.replace(" ", "") for label in labels if label),
            lang="eng",
            speaker=speaker.name,
            text=read_text(words) if words.is_file() else "",
        )
