"""Mboshi: a Bantu language of Congo, three speakers in the field, read by its spelling.

The spelling of the linguists is close to the sounds, so phones are its letters by a
table: `bh gh ny ng y r` are [β ɣ ɲ ŋɡ j ɾ], `ω ε` are [ɔ ɛ], `ts dz pf bv` one sound
each, a doubled vowel is long; tones are left out. Its own dev part is for training,
too. About five hours; no package brings them.
https://github.com/besacier/mboshi-french-parallel-corpus (Godard et al., LREC 2018)
"""

import re
import unicodedata
from collections import Counter
from functools import partial
from pathlib import Path

from tqdm import tqdm

from powsm.audio import SAMPLE_RATE, AudioError
from powsm.corpora.small.write_shar import Clip, Selection, read_recording
from powsm.errors import PowsmError
from powsm.files.text import read_text

PACKAGES = ()
ESTIMATE = "writing about 270 MB in a minute"
REVISION = 1  # raise it when the choice of clips or their labels change
FOLDER = "full_corpus_newsplit"
PARTS = ("train", "dev")
SOUNDS = {
    **dict.fromkeys("abdefiklmnopstuvwz"),  # as they are written
    "bh": "β",
    "gh": "ɣ",
    "g": "ɡ",
    "ny": "ɲ",
    "ng": "ŋɡ",
    "y": "j",
    "r": "ɾ",
    "ω": "ɔ",
    "ε": "ɛ",
    "ts": "t͡s",
    "dz": "d͡z",
    "pf": "p͡f",
    "bv": "b͡v",
}
_VOWELS = "aeiouωε"
_LETTERS = re.compile(
    rf"(?P<long>[{_VOWELS}])(?P=long)|{'|'.join(sorted(SOUNDS, key=len, reverse=True))}"
)


def select(root: Path, seed: int) -> Selection:
    """All recordings that decode and whose spelling the table reads.

    Args:
        root: the repository, with `full_corpus_newsplit`.
        seed: changes nothing here.

    Raises:
        FileNotFoundError: the folder holds no recording.
    """
    folder = root / FOLDER
    recordings = [
        path for part in PARTS for path in sorted(folder.glob(f"{part}/*.wav"))
    ]
    if not recordings:
        raise FileNotFoundError(f"{folder}/{{{','.join(PARTS)}}} hold no *.wav")
    selection = Selection(splits={"train": []})
    left_out = selection.left_out["mdw"] = Counter()
    for path in tqdm(recordings, desc="mboshi", unit="clip", disable=None):
        text = " ".join(read_text(path.with_suffix(".mb.cleaned")).split())
        try:
            ipa, duration_s = (
                spelling_to_ipa(text),
                len(read_recording(path)) / SAMPLE_RATE,
            )
        except SpellingError:
            left_out["spelling"] += 1
            continue
        except AudioError:
            left_out["cut_off"] += 1
            continue
        if not ipa:
            left_out["no_text"] += 1
            continue
        clip = Clip(
            clip_id=path.stem,
            language="mdw",
            speaker=path.stem.split("_")[0],
            text=text,
            ipa=ipa,
            duration_s=duration_s,
            read_samples=partial(read_recording, path),
        )
        selection.splits["train"].append(clip)
    return selection


class SpellingError(PowsmError):
    """A text has letters that the spelling of Mboshi lacks."""


def spelling_to_ipa(text: str) -> str:
    """The sounds of a text, words separated by spaces.

    Raises:
        SpellingError: a letter is not in the table.

    >>> spelling_to_ipa("kyéma yeékirá Ikóó")
    'kjema jeːkiɾa ikoː'
    """
    bare = "".join(
        c
        for c in unicodedata.normalize("NFD", text.lower())
        if not unicodedata.combining(c)
    )
    return " ".join(filter(None, map(_word_to_ipa, bare.split())))


def _word_to_ipa(word: str) -> str:
    word = re.sub(r"[^\w]|_", "", word)
    sounds, place = [], 0
    while place < len(word):
        match = _LETTERS.match(word, place)
        if not match:
            raise SpellingError(f"{word!r}: {word[place]!r} is no letter of Mboshi")
        letters = match["long"] or match[0]
        sounds.append((SOUNDS[letters] or letters) + "ː" * bool(match["long"]))
        place = match.end()
    return "".join(sounds)
