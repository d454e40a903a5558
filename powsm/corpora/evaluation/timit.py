"""TIMIT: 630 speakers of American English read ten sentences each, labelled by hand.

All 6,300 utterances are a test set here, as in PRiSM: a model that knows no TIMIT can
be scored on all of it. Labels become IPA by PRiSM's map (`alphabet_timit.csv`):
closures and silences vanish.

Licence: LDC user agreement. https://catalog.ldc.upenn.edu/LDC93S1

Layout: `{TRAIN,TEST}/DR<n>/<speaker>/<sentence>.{WAV,PHN,TXT}`, in capitals or not, at
any depth. Audio is NIST SPHERE or RIFF; copies that were converted may call it
`.WAV.wav`.
"""

from collections.abc import Iterator
from pathlib import Path

from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    LeftOut,
    Segment,
    Written,
    write_segments,
)
from powsm.files.text import read_text
from powsm.phones.alphabets import to_ipa

ALPHABET = "timit"


def prepare_timit(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the set from the LDC's folder; see
    `powsm.corpora.evaluation.kaldi_folder`."""
    left_out = LeftOut(allow_incomplete)
    return write_segments(out, _segments(Path(source), left_out), left_out)


def _segments(source: Path, left_out: LeftOut) -> Iterator[Segment]:
    labels = sorted(p for p in source.rglob("*") if p.suffix.lower() == ".phn")
    if not labels:
        raise CorpusError(
            f"{source}: no .PHN file; expected TRAIN/DR1/FCJF0/SA1.PHN and so on"
        )
    for path in labels:
        audio = _beside(path, ".WAV.wav", ".WAV", ".wav")
        split, _, speaker, sentence = (part.lower() for part in path.parts[-4:])
        key = f"{split}-{speaker}-{Path(sentence).stem}"
        if audio is None:
            left_out.add("no_audio", key)
            continue
        symbols = [symbol for _, _, symbol in read_labels(path)]
        words = _beside(path, ".TXT", ".txt")
        yield Segment(
            key=key,
            audio=audio,
            ipa=to_ipa(symbols, ALPHABET),
            raw=" ".join(symbols),
            lang="eng",
            speaker=speaker,
            # "0 46797 She had your dark suit ..."
            text=" ".join(read_text(words).split()[2:]) if words else "",
        )


def read_labels(path: Path) -> list[tuple[int, int, str]]:
    """Start, end, both in samples, and symbol of each line of a label file."""
    labels = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            raise CorpusError(
                f"{path}:{number}: found {line[:40]!r}, expected start, end and symbol"
            )
        labels.append((int(fields[0]), int(fields[1]), fields[2]))
    return labels


def _beside(path: Path, *suffixes: str) -> Path | None:
    candidates = (path.with_name(path.stem + suffix) for suffix in suffixes)
    return next((p for p in candidates if p.is_file()), None)
