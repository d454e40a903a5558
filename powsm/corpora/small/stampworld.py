"""Tux Paint's captions in 18 languages more, spoken by espeak-ng: short phrases.

Most captions of the package of `powsm.corpora.small.tuxpaint` have no recording. Those
in languages that `gnomeworld` lacks are spoken as its sentences are, up to twelve
minutes each: what is in a picture, so words that no manual has. All is for training.
"""

from pathlib import Path

from powsm.corpora.small import tuxpaint
from powsm.corpora.small.gnomehelp import choose_texts
from powsm.corpora.small.gnomeworld import share
from powsm.corpora.small.write_shar import Selection

PACKAGES = tuxpaint.PACKAGES
ESTIMATE = "speaking 3 hours in 18 languages, 220 MB, in three minutes"
REVISION = 2  # raise it when the choice of captions or how they are spoken change
MINUTES = 12.0  # a language, by the words a minute that are asked for
MAX_WORDS = 8

LANGUAGES = {  # ISO 639-1 as in the captions -> ISO 639-3, script
    "af": ("afr", "LATIN"),
    "am": ("amh", "ETHIOPIC"),
    "an": ("arg", "LATIN"),
    "cy": ("cym", "LATIN"),
    "eo": ("epo", "LATIN"),
    "eu": ("eus", "LATIN"),
    "ga": ("gle", "LATIN"),
    "gd": ("gla", "LATIN"),
    "hy": ("hye", "ARMENIAN"),
    "is": ("isl", "LATIN"),
    "ka": ("kat", "GEORGIAN"),
    "mk": ("mkd", "CYRILLIC"),
    "ml": ("mal", "MALAYALAM"),
    "ms": ("msa", "LATIN"),
    "nb": ("nob", "LATIN"),
    "sk": ("slk", "LATIN"),
    "sq": ("sqi", "LATIN"),
    "sw": ("swa", "LATIN"),
}


def select(root: Path, seed: int) -> Selection:
    """Choose captions of each language in the unpacked package, until it has its share.

    Args:
        root: the folder that holds `usr/share`.
        seed: of the choice, the voices and the noise.

    Raises:
        FileNotFoundError: there are no captions below the folder.
    """
    files = sorted((root / tuxpaint.STAMPS).rglob("*.txt"))
    if not files:
        raise FileNotFoundError(
            f"{root / tuxpaint.STAMPS} holds no captions: {root} does not hold the "
            f"unpacked package {PACKAGES[0].name}"
        )
    captions = [tuxpaint.read_captions(file) for file in files]
    selection = Selection(splits={"train": []})
    for code, (lang, script) in LANGUAGES.items():
        written = (by_lang.get(code, "") for by_lang in captions)
        texts, left_out = choose_texts(written, script, (1, MAX_WORDS))
        clips, left = share(texts, code, lang, seed, MINUTES)
        selection.splits["train"] += clips
        selection.left_out[lang] = left_out + left
    return selection
