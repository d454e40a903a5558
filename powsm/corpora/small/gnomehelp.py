"""GNOME's user guide, spoken by espeak-ng: synthetic speech in five languages.

Sentences of `gnome-user-docs` (CC-BY-SA-3.0), each spoken once in one of thirteen
voices, at its own rate and pitch: 7 hours of varied words for a decoder that
memorises the hour of real prompts. All of it is for training; its phones are the
synthesiser's own, so a score on it would say nothing about real speech.
https://packages.debian.org/source/stable/gnome-user-docs
"""

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from powsm.audio import SAMPLE_RATE, resample
from powsm.corpora.small import espeak
from powsm.corpora.small.packages import Package
from powsm.corpora.small.text_faults import text_fault, text_key
from powsm.corpora.small.write_shar import Clip, Selection
from powsm.errors import PowsmError

PACKAGES = (
    Package(
        "gnome-user-docs",
        "43.0-2",
        8523220,
        "0d635a840747958ca84da778b40d341f1155603851f922c9a171f5a181d6a39f",
    ),
)
ESTIMATE = "speaking 7 hours, 540 MB, in five minutes"
REVISION = 2  # raise it when the choice of sentences or how they are spoken change
PAGES = "usr/share/help"
LANGUAGES = {  # folder -> ISO 639-1, ISO 639-3, script
    "C": ("en", "eng", "LATIN"),
    "es": ("es", "spa", "LATIN"),
    "fr": ("fr", "fra", "LATIN"),
    "it": ("it", "ita", "LATIN"),
    "ru": ("ru", "rus", "CYRILLIC"),
}
VARIANTS = (*(f"m{i}" for i in range(1, 9)), *(f"f{i}" for i in range(1, 6)))
RATES_WPM = (130, 210)
PITCHES = (25, 75)  # espeak-ng's scale, 0 to 99; 50 is the voice's own
MIN_WORDS, MAX_WORDS = 2, 12  # prompts are short, and 20 would be twice the hours

_MALLARD = "{http://projectmallard.org/1.0/}"
_SPOKEN = {f"{_MALLARD}{tag}" for tag in ("p", "title", "desc")}
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+")


def select(root: Path, seed: int) -> Selection:
    """Choose and label the sentences in the unpacked package.

    Args:
        root: the folder that holds `usr/share`.
        seed: of voice, rate and pitch; the sentences do not depend on it.

    Raises:
        FileNotFoundError: a language has no pages below the folder.
    """
    selection = Selection(splits={"train": []})
    chosen = texts_by_language(root, LANGUAGES, (MIN_WORDS, MAX_WORDS))
    for code, lang, texts, left_out in chosen:
        selection.left_out[lang] = left_out
        progress = tqdm(texts, desc=f"gnomehelp {lang}", disable=None)
        selection.splits["train"] += [make_clip(t, code, lang, seed) for t in progress]
    return selection


def texts_by_language(
    root: Path, languages: Mapping[str, tuple[str, str, str]], n_words: tuple[int, int]
) -> Iterator[tuple[str, str, list[str], Counter[str]]]:
    """ISO 639-1, ISO 639-3 and `choose_texts` of each language, English first."""
    english: set[str] = set()
    for folder, (code, lang, script) in languages.items():
        sentences = read_sentences(root / PAGES / folder)
        texts, left_out = choose_texts(sentences, script, n_words, english)
        english = english or {text_key(text) for text in texts}
        yield code, lang, texts, left_out


def choose_texts(
    sentences: Iterable[str],
    script: str,
    n_words: tuple[int, int],
    english: Container[str] = (),
) -> tuple[list[str], Counter[str]]:
    """Sentences of a language that can be spoken as they are written, each once.

    Args:
        sentences: of the language.
        script: of its letters, as Unicode names begin.
        n_words: fewest and most words of a sentence.
        english: keys of the English sentences: those are not translated.

    Returns:
        The sentences in their order, and why others were left out.
    """
    texts: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for text in sentences:
        key = text_key(text)
        reason = text_fault(text, script)
        if not reason and (key in english or key in texts):
            reason = "untranslated" if key in english else "copy"
        if not reason and not n_words[0] <= len(text.split()) <= n_words[1]:
            reason = "length"
        if reason:
            left_out[reason] += 1
        else:
            texts[key] = text
    return list(texts.values()), left_out


def read_sentences(folder: Path) -> Iterator[str]:
    """Sentences of the Mallard pages in a folder, in order of file names.

    Raises:
        FileNotFoundError: there is no page.
        PowsmError: a page is not XML.
    """
    pages = sorted(folder.rglob("*.page"))
    if not pages:
        raise FileNotFoundError(
            f"{folder} holds no *.page: it is not of the package {PACKAGES[0].name}"
        )
    for page in pages:
        try:
            tree = ElementTree.parse(page)
        except ElementTree.ParseError as err:
            raise PowsmError(f"{page}: not well-formed XML: {err}") from err
        for element in tree.iter():
            if element.tag in _SPOKEN:
                yield from _SENTENCE_END.split(
                    " ".join("".join(element.itertext()).split())
                )


def speak(text: str, voice: str, rate_wpm: int, pitch: int) -> np.ndarray:
    """int16 (n_samples,) at 16 kHz of a text."""
    samples, rate, _ = espeak.synthesise(text, voice, rate_wpm=rate_wpm, pitch=pitch)
    speech = resample(samples, rate, SAMPLE_RATE)
    return np.round(speech.clip(-1, 1) * 32767).astype(np.int16)


def make_clip(
    text: str,
    code: str,
    lang: str,
    seed: int,
    disturb: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
) -> Clip:
    """A text spoken in a voice, at a rate and a pitch that are drawn for it.

    Args:
        code, lang: ISO 639-1 and ISO 639-3.
        seed: of the draws, together with language and text.
        disturb: makes int16 (n_samples,) of what was spoken, with draws of its own.
    """
    digest = hashlib.sha256(f"{lang} {text}".encode()).hexdigest()
    draw = np.random.default_rng([seed, int(digest[:16], 16)])
    variant = VARIANTS[draw.integers(len(VARIANTS))]
    voice = espeak.voice_of(lang)
    rate_wpm = int(draw.integers(*RATES_WPM))
    pitch = int(draw.integers(*PITCHES))
    spoken = partial(speak, text, f"{voice}+{variant}", rate_wpm, pitch)
    return Clip(
        clip_id=f"{lang}-{digest[:16]}",
        language=code,
        speaker=f"espeak-{lang}-{variant}",
        text=text,
        ipa=espeak.text_to_ipa(text, voice),
        duration_s=60 * len(text.split()) / rate_wpm,
        read_samples=partial(_disturbed, spoken, disturb, draw.integers(1 << 62))
        if disturb
        else spoken,
    )


def _disturbed(spoken: Callable, disturb: Callable, seed: int) -> np.ndarray:
    return disturb(spoken(), np.random.default_rng(seed))
