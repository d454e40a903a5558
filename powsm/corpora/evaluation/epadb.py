"""EpaDB: 50 speakers of Argentinian Spanish read English phrases, labelled by hand.

The paper's set is KoelLabs' copy, both of its splits (2.74 h), without what is longer
than 20 s. From the original this module reads the first annotator, who labelled
everything. One difference is known: the copy lost the difference between `Th`, an
aspirated [tʰ], and `TH`, [θ], and writes both [θʰ] (`SH` likewise [sʰ]).

Licence: free for research; its authors' tools name CC BY-NC-ND 4.0.
https://github.com/JazminVidal/EpaDB

Layout: `{train,test}/<speaker>/{annotations_1,waveforms}/<speaker>_<phrase>.*`, at any
depth; or KoelLabs/EpaDB, see `powsm.corpora.evaluation.published`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from powsm.audio import WINDOW_S
from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    LeftOut,
    Segment,
    Written,
)
from powsm.corpora.evaluation.published import write_published_or
from powsm.corpora.evaluation.textgrid import read_tier
from powsm.phones.alphabets import read_alphabet, to_ipa

ALPHABET = "epadb"
NO_PHONE = frozenset({"", "sil", "sp", "spn", "err", "none", "0"})

_MARKS = re.compile(r"(?<=[A-Za-z])[012]?[+*`]*$")  # of stress and of doubt


def prepare_epadb(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the set from KoelLabs' copy or the original."""
    return write_published_or(_segments, source, out, allow_incomplete, WINDOW_S)


def _segments(source: Path, left_out: LeftOut) -> Iterator[Segment]:
    grids = sorted(source.rglob("annotations_1/*.TextGrid"))
    if not grids:
        raise CorpusError(
            f"{source}: neither Parquet files nor <speaker>/annotations_1/*.TextGrid"
        )
    known = read_alphabet(ALPHABET)
    for path in grids:
        audio = path.parent.with_name("waveforms") / f"{path.stem}.wav"
        if not audio.is_file():
            left_out.add("no_audio", path.stem)
            continue
        data = path.read_bytes()
        labels = [i.label for i in read_tier(data, "annotation", where=path)]
        symbols = [_MARKS.sub("", label) for label in labels]
        symbols = [symbol for symbol in symbols if symbol.lower() not in NO_PHONE]
        if unknown := sorted(set(symbols) - set(known)):
            left_out.add(f"unknown_label:{unknown[0]}", path.stem)
            continue
        words = read_tier(data, "words", "transcription", where=path)
        yield Segment(
            key=path.stem,
            audio=audio,
            ipa=to_ipa(symbols, ALPHABET),
            raw=" ".join(label for label in labels if label),
            lang="eng",
            speaker=path.stem.partition("_")[0],
            text=" ".join(interval.label for interval in words if interval.label),
        )
