"""Tusom2021: words of East Tusom (Tangkhulic, India), transcribed phonetically.

The set of a language no model was trained on; the paper takes the transcription
without tones (1.16 h). East Tusom has no ISO 639-3 code of its own: `und`.

Licence: none is stated. https://github.com/dmort27/tusom2021

Layout: `data/mapping.yml` (file name -> `gloss no_tones tone_dias tone_letters`) and
`data/wav/<file name>`.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    Segment,
    Written,
    write_segments,
)
from powsm.languages import UNKNOWN_LANGUAGE

_MAPPING = "mapping.yml"


def prepare_tusom2021(source: Path, out: Path) -> Written:
    """Write the set from the repository's folder."""
    left_out: Counter[str] = Counter()
    return write_segments(out, _segments(Path(source), left_out), left_out)


def _segments(source: Path, left_out: Counter[str]) -> Iterator[Segment]:
    found = sorted(source.rglob(_MAPPING))
    if not found:
        raise CorpusError(f"{source}: no data/{_MAPPING}")
    for name, word in _read_words(found[0]).items():
        audio = found[0].parent / "wav" / name
        if not audio.is_file():
            left_out["no_audio"] += 1
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
    """The transcriptions by file name; nothing in a field is an empty text.

    YAML takes words such as `on`, `no` and `12` for other things than text.
    """
    try:
        words = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as err:
        raise CorpusError(f"{path}: not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(words, dict):
        raise CorpusError(f"{path}: found no mapping of file names to transcriptions")
    for name, word in words.items():
        for field in ("no_tones", "tone_letters"):
            text = word.get(field, "") if isinstance(word, dict) else None
            if isinstance(word, dict) and text is None:
                text = ""
            if not isinstance(name, str) or not isinstance(text, str):
                raise CorpusError(
                    f"{path}: {field} of {name!r} is {text!r}, expected text; put "
                    "quotation marks round it"
                )
            word[field] = text
    return words
