"""Tusom2021: words of East Tusom (Tangkhulic, India), transcribed phonetically.

The set of a language no model was trained on; the paper takes the transcription
without tones. 2,255 words, 0.864 h; the published 1.16 h are their samples at 16 kHz,
but most files are at 22.05 kHz. East Tusom has no ISO 639-3 code of its own: `und`.

Licence: none is stated. https://github.com/dmort27/tusom2021

Layout: `data/mapping.yml` (file name -> `gloss no_tones tone_dias tone_letters`) and
`data/wav/<file name>`.
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
from powsm.languages import UNKNOWN_LANGUAGE
from powsm.settings import load_yaml

_MAPPING = "mapping.yml"


def prepare_tusom2021(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the set from the repository's folder."""
    left_out = LeftOut(allow_incomplete)
    return write_segments(out, _segments(Path(source), left_out), left_out)


def _segments(source: Path, left_out: LeftOut) -> Iterator[Segment]:
    tables = sorted(source.rglob(_MAPPING))
    if not tables:
        raise CorpusError(f"{source}: no data/{_MAPPING}")
    words = _read_words(tables[0])
    for audio in sorted((tables[0].parent / "wav").glob("*.wav")):
        if audio.name not in words:
            left_out.add("no_transcript", audio.stem)
    for name, word in words.items():
        audio = tables[0].parent / "wav" / name
        if not audio.is_file():
            left_out.add("no_audio", Path(name).stem)
            continue
        yield Segment(
            key=Path(name).stem,
            audio=audio,
            ipa=word["no_tones"],
            raw=word["tone_letters"],
            lang=UNKNOWN_LANGUAGE,
            speaker="tusom",  # who speaks is not said
        )


def _read_words(path: Path) -> dict[str, dict[str, str]]:
    """The transcriptions by file name; all is text, [on] and [no] as well."""
    words = load_yaml(path, values_as_text=True)
    for name, word in words.items():
        if not isinstance(word, dict):
            raise CorpusError(f"{path}: {name}: found {word!r}, expected its words")
        for field in ("no_tones", "tone_letters"):
            text = word.setdefault(field, "")
            if not isinstance(text, str):
                raise CorpusError(
                    f"{path}: {field} of {name} is {text!r}, expected text"
                )
    return words
