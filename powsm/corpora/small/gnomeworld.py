"""GNOME's user guide in 34 languages, spoken by espeak-ng: sounds for an open ear.

The package of `powsm.corpora.small.gnomehelp`, all translations whose letters espeak-ng
reads, up to ten minutes each, single words to short sentences. Korean and
Vietnamese are left out: there it writes q for [k] and letters for tones. Voice, rate,
pitch, level, tilt of the spectrum and noise are drawn for each sentence. What espeak-ng
makes of the letters is at once what is labelled and what is spoken, so the phones are
right also where the reading is poor; they are the synthesiser's: all is for training.
"""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.signal import lfilter
from tqdm import tqdm

from powsm.corpora.small import gnomehelp
from powsm.corpora.small.write_shar import Clip, Selection

PACKAGES = gnomehelp.PACKAGES
ESTIMATE = "speaking 6 hours in 34 languages, 460 MB, in six minutes"
REVISION = 3  # raise it when the choice of sentences or how they are spoken change
MINUTES = 10.0  # a language, by the words a minute that are asked for
MIN_WORDS, MAX_WORDS = 1, 8
SNR_DB = (8.0, 45.0)  # white noise below the speech
GAIN_DB = (-25.0, 0.0)  # of the speech
TILT = (-0.6, 0.6)  # pole of a first-order filter: dull to thin

LANGUAGES = {  # folder -> ISO 639-1, ISO 639-3, script
    **gnomehelp.LANGUAGES,
    "as": ("as", "asm", "BENGALI"),
    "ca": ("ca", "cat", "LATIN"),
    "cs": ("cs", "ces", "LATIN"),
    "da": ("da", "dan", "LATIN"),
    "de": ("de", "deu", "LATIN"),
    "el": ("el", "ell", "GREEK"),
    "fa": ("fa", "fas", "ARABIC"),
    "fi": ("fi", "fin", "LATIN"),
    "gu": ("gu", "guj", "GUJARATI"),
    "hi": ("hi", "hin", "DEVANAGARI"),
    "hr": ("hr", "hrv", "LATIN"),
    "hu": ("hu", "hun", "LATIN"),
    "id": ("id", "ind", "LATIN"),
    "kn": ("kn", "kan", "KANNADA"),
    "lt": ("lt", "lit", "LATIN"),
    "lv": ("lv", "lav", "LATIN"),
    "mr": ("mr", "mar", "DEVANAGARI"),
    "nl": ("nl", "nld", "LATIN"),
    "pa": ("pa", "pan", "GURMUKHI"),
    "pl": ("pl", "pol", "LATIN"),
    "pt_BR": ("pt", "por", "LATIN"),
    "ro": ("ro", "ron", "LATIN"),
    "sl": ("sl", "slv", "LATIN"),
    "sr": ("sr", "srp", "CYRILLIC"),
    "sv": ("sv", "swe", "LATIN"),
    "ta": ("ta", "tam", "TAMIL"),
    "te": ("te", "tel", "TELUGU"),
    "tr": ("tr", "tur", "LATIN"),
    "uk": ("uk", "ukr", "CYRILLIC"),
}


def select(root: Path, seed: int) -> Selection:
    """Choose sentences of each language in the unpacked package until it has its share.

    Args:
        root: the folder that holds `usr/share`.
        seed: of the choice, the voices and the noise.

    Raises:
        FileNotFoundError: a language has no pages below the folder.
    """
    selection = Selection(splits={"train": []})
    chosen = gnomehelp.texts_by_language(root, LANGUAGES, (MIN_WORDS, MAX_WORDS))
    for code, lang, texts, left_out in chosen:
        clips, left = share(texts, code, lang, seed, MINUTES)
        selection.splits["train"] += clips
        selection.left_out[lang] = left_out + left
    return selection


def share(
    texts: list[str], code: str, lang: str, seed: int, minutes: float
) -> tuple[list[Clip], Counter[str]]:
    """Disturbed speech of some texts in a language.

    Args:
        texts: to choose from, each once.
        code, lang: ISO 639-1 and ISO 639-3.
        seed: of the choice, the voices and the noise.
        minutes: to reach, by the words a minute that are asked for.

    Returns:
        The clips, and how many texts were not needed or not read.
    """
    left_out: Counter[str] = Counter()
    clips, seconds = [], 0.0
    order = sorted(texts, key=lambda text: _digest(f"{seed} {lang} {text}"))
    for text in tqdm(order, desc=f"speech {lang}", disable=None):
        if seconds >= 60 * minutes:
            left_out["not_needed"] += 1
            continue
        clip = gnomehelp.make_clip(text, code, lang, seed, disturb)
        if not clip.ipa:
            left_out["not_read"] += 1
            continue
        clips.append(clip)
        seconds += clip.duration_s
    return clips, left_out


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def disturb(speech: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Speech through some other microphone, room and recorder, drawn at random.

    Args:
        speech: int16 (n_samples,), not silent.
        draw: of tilt, level and noise.

    Returns:
        int16 (n_samples,), the noise `SNR_DB` below the speech.
    """
    tilted = lfilter([1.0], [1.0, draw.uniform(*TILT)], speech / 32768)
    tilted /= np.abs(tilted).max()
    power = np.mean(tilted**2)
    noise = draw.normal(
        0, np.sqrt(power * 10 ** (-draw.uniform(*SNR_DB) / 10)), len(speech)
    )
    gain = 10 ** (draw.uniform(*GAIN_DB) / 20)
    return np.round((gain * (tilted + noise)).clip(-1, 1) * 32767).astype(np.int16)
