"""A tiny corpus of synthetic speech in the layout of IPAPack++, for tests of stages.

Its sentences are drawn from small word lists, its speech and its phones come from
espeak-ng: a model can learn it in seconds, and no score on it says anything about
real speech. It takes the place of the mini corpus, whose folder name it has, since a
corpus that is in no table is refused.
"""

import random
from functools import partial
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from powsm.audio import SAMPLE_RATE
from powsm.corpora.small import espeak
from powsm.corpora.small.write_shar import Clip, write_corpus

# language -> (code of the cuts, words)
WORDS = {
    "eng": ("en", "the old dog saw two small boats near a green tree today".split()),
    "fra": ("fr", "le vieux chien voit deux petits bateaux sous un arbre vert".split()),
    "ita": ("it", "il cane vecchio vede due piccole barche sotto un albero".split()),
    "spa": ("es", "el perro viejo mira dos barcos cerca de un árbol verde".split()),
}
SPEAKERS = {"f": "+f2", "m": "+m3"}  # speaker suffix -> variant of the voice


def make_corpus(
    root: Path,
    languages: tuple[str, ...] = ("eng", "ita"),
    n_train: int = 12,
    n_dev: int = 3,
    n_test: int = 3,
) -> Path:
    """Write `<root>/asterisk_shar/{train,dev,test}`, about a minute with the defaults.

    Args:
        root: a downloads folder.
        languages: keys of `WORDS`.
        n_train: clips a language in train; likewise `n_dev`, `n_test`.

    Returns:
        `<root>/asterisk_shar`.
    """
    sizes = {"train": n_train, "dev": n_dev, "test": n_test}
    splits: dict[str, list[Clip]] = {split: [] for split in sizes}
    for language in languages:
        chance = random.Random(language)
        seen: set[str] = set()
        for split, n_clips in sizes.items():
            while (
                sum(c.language == WORDS[language][0] for c in splits[split]) < n_clips
            ):
                sentence = " ".join(
                    chance.sample(WORDS[language][1], chance.randint(3, 6))
                )
                if sentence not in seen:
                    seen.add(sentence)
                    splits[split].append(_clip(language, len(seen), sentence))
    folder = root / "asterisk_shar"
    write_corpus(folder, splits, {"corpus": "synthetic"})
    return folder


def _clip(language: str, number: int, sentence: str) -> Clip:
    suffix = sorted(SPEAKERS)[number % len(SPEAKERS)]
    voice = espeak.VOICES[language]
    samples = speak(sentence, voice + SPEAKERS[suffix])
    return Clip(
        clip_id=f"{language}-{number:03d}",
        language=WORDS[language][0],
        speaker=f"{language}-{suffix}",
        text=sentence.capitalize() + ".",
        ipa=espeak.text_to_ipa(sentence, voice),
        duration_s=len(samples) / SAMPLE_RATE,
        read_samples=partial(np.copy, samples),
    )


def speak(text: str, voice: str) -> np.ndarray:
    """Synthetic speech, int16 (n_samples,) at `SAMPLE_RATE`."""
    samples, rate, _ = espeak.synthesise(text, voice)
    samples = resample_poly(samples, SAMPLE_RATE, rate)  # reduces 16000/22050 itself
    return (np.clip(samples, -1, 1) * 32767).astype(np.int16)
