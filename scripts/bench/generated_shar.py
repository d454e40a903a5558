"""Corpora of any size in the real Shar layout, with audio that takes no disk.

Texts and transcriptions look real: words over each language's script, IPA with stress,
length, tie bars and diacritics. Words come back as they do in a language: after n words
12 n^0.6 of them were different (Heaps' law), which is twice what LibriSpeech has in 9.4
million words, as most languages inflect more than English; an old word comes back the
more often the earlier it came (Zipf's law, exponent 1). Languages share no word, and
the ids mix them, so that no run of utterances stays with the words of one.

An audio member is a hole in a sparse file, as long as the FLAC of that speech would be.
The same arguments give the same bytes.
"""

import gzip
import json
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from powsm.audio import SAMPLE_RATE
from powsm.languages import TABLE
from powsm.phones.orthography import joins

UTTERANCES_PER_SHARD = 5_000
_FLAC_BYTES_PER_SAMPLE = 1.1  # of 16-bit speech
_WORDS_PER_SECOND = 2.2
_HEAPS_FACTOR, _HEAPS_EXPONENT = 12, 0.6
_MOST_WORDS = 90_000  # of a language
_DRAWN_AT_ONCE = 500  # words of a language; more than an utterance has
_to_json = json.JSONEncoder(ensure_ascii=False).encode
_BLOCK = 512  # bytes of a tar header, and what members are padded to

_ONSETS = "p b t d k ɡ m n ɲ f v s z ʃ ʒ h x l ɾ r j w t͡ʃ d͡ʒ t͡s pʰ kʲ st pl".split()
_VOWELS = "a e i o u ə ɛ ɔ ɪ ʊ aː iː uː ɑ̃ y ø".split()
_CODAS = ("", "n", "s", "r", "t̪", "ŋ", "l")
_SYLLABLES = [o + v + c for o in _ONSETS for v in _VOWELS for c in _CODAS]

# First letter and number of letters of scripts; others are written in Latin letters.
_LETTERS = {
    "Arab": ("ا", 28),
    "Beng": ("ক", 30),
    "Cyrl": ("а", 32),
    "Deva": ("क", 36),
    "Ethi": ("ሀ", 60),
    "Geor": ("ა", 33),
    "Grek": ("α", 24),
    "Guru": ("ਕ", 25),
    "Hani": ("一", 400),
    "Jpan": ("あ", 80),
    "Kore": ("가", 400),
    "Laoo": ("ກ", 2),
    "Mlym": ("ക", 35),
    "Mymr": ("က", 33),
    "Orya": ("କ", 20),
    "Sinh": ("ක", 20),
    "Taml": ("க", 2),
    "Telu": ("క", 32),
    "Thai": ("ก", 46),
}


def write_corpora(
    downloads: Path, n_utts: int, seed: int = 1, new_words: bool = False
) -> int:
    """Write `<corpus>_shar/<split>/` shards that hold `n_utts` cuts between them.

    Languages take turns, corpora too; every fiftieth shard is a test set's, and so on.
    One cut in two hundred has no IPA, one in a thousand no audio.

    Args:
        new_words: no word ever comes back, the worst that can happen to a cache.

    Returns:
        Bytes of audio the tar files claim to hold.
    """
    rng = np.random.default_rng(seed)
    n_shards = max(3, math.ceil(n_utts / UTTERANCES_PER_SHARD))
    bounds = np.linspace(0, n_utts, n_shards + 1).astype(int)
    words = _NewWords() if new_words else _Words(rng)
    n_audio_bytes = 0
    for i in range(n_shards):
        corpus = ("cv", "fleurs", "cv", "tamil", "cv")[i % 5]
        split = {1: "dev", 2: "test"}.get(i % 50, "train")
        folder = downloads / f"{corpus}_shar" / split
        folder.mkdir(parents=True, exist_ok=True)
        cuts = _cuts(int(bounds[i]), int(bounds[i + 1]), rng, words)
        n_audio_bytes += _write_shard(folder, f"{i:06d}", cuts)
    return n_audio_bytes


class _Words:
    """The next words of a language, as numbers; each language counts its own."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._n_drawn = [0] * len(TABLE)
        self._ahead: list[list[int]] = [[] for _ in TABLE]

    def next(self, language: int, n_words: int) -> list[int]:
        if len(self._ahead[language]) < n_words:
            self._ahead[language] += self._draw(language)
        found, self._ahead[language] = (
            self._ahead[language][:n_words],
            self._ahead[language][n_words:],
        )
        return found

    def _draw(self, language: int) -> list[int]:
        n_before = self._n_drawn[language]
        self._n_drawn[language] += _DRAWN_AT_ONCE
        n = np.arange(n_before, n_before + _DRAWN_AT_ONCE + 1)
        n_different = np.minimum(n, _HEAPS_FACTOR * n**_HEAPS_EXPONENT).astype(int)
        before, after = n_different[:-1], n_different[1:]
        # log-uniform ranks are Zipf's law with exponent one
        old = np.exp(self._rng.random(len(before)) * np.log(np.maximum(before, 1)))
        ranks = np.where(after > before, after, old.astype(int))
        return (language * _MOST_WORDS + ranks % _MOST_WORDS).tolist()


class _NewWords:
    """Words that nobody has met before."""

    def __init__(self) -> None:
        self._n_so_far = 0

    def next(self, language: int, n_words: int) -> range:
        self._n_so_far += n_words
        return range(self._n_so_far - n_words, self._n_so_far)


def _cuts(
    start: int, stop: int, rng: np.random.Generator, words: _Words | _NewWords
) -> Iterator[dict]:
    languages = list(TABLE.values())
    durations = np.clip(rng.lognormal(1.85, 0.55, stop - start), 0.3, 24)
    for i, duration in zip(range(start, stop), durations, strict=True):
        language = languages[i % len(languages)]
        n_samples = int(duration * SAMPLE_RATE)
        n_words = 1 + int(duration * _WORDS_PER_SECOND)
        numbers = words.next(i % len(languages), n_words)
        letters = _LETTERS.get(language.script, ("a", 26))
        spelled = [_spelling(number % _MOST_WORDS, *letters) for number in numbers]
        yield _cut(
            f"clip-{i * 2654435761 % 2**32:010d}-{i}",  # ids in no order
            n_samples,
            language=(language.spellings or (language.code,))[0],
            speaker=f"speaker{i % 5003}",
            text=("" if joins(language.code) else " ").join(spelled),
            ipa="" if i % 200 == 7 else " ".join(map(_word, numbers)),
            has_audio=i % 1000 != 11,
        )


@lru_cache(maxsize=100_000)
def _word(number: int) -> str:
    """Two syllables, or three for numbers above eight million; each its own word."""
    rest, first = divmod(number, len(_SYLLABLES))
    third, second = divmod(rest, len(_SYLLABLES))
    last = _SYLLABLES[third] if third else ""
    return f"ˈ{_SYLLABLES[first]}{_SYLLABLES[(first + second) % len(_SYLLABLES)]}{last}"


@lru_cache(maxsize=100_000)
def _spelling(rank: int, first: str, n_letters: int) -> str:
    """Up to five letters that go with a word's rank."""
    return "".join(
        chr(ord(first) + rank // k % n_letters) for k in (1, 3, 7, 31, 97)[: 1 + rank]
    )


def _cut(
    cut_id: str,
    n_samples: int,
    *,
    language: str,
    speaker: str,
    text: str,
    ipa: str,
    has_audio: bool,
) -> dict:
    duration_s = n_samples / SAMPLE_RATE
    simple = ipa.replace(" ", "").replace("ˈ", "")
    cut = {
        "id": cut_id,
        "start": 0,
        "duration": duration_s,
        "channel": 0,
        "supervisions": [
            {
                "id": cut_id,
                "recording_id": cut_id,
                "start": 0,
                "duration": duration_s,
                "channel": 0,
                "text": simple,
                "language": language,
                "speaker": speaker,
                "custom": {
                    "orthographic": text,
                    "original": ipa,
                    "phones": simple,
                    "clean": simple,
                },
            }
        ],
        "custom": {"shard_origin": "generated"},
        "type": "MonoCut",
    }
    if has_audio:
        cut["recording"] = {
            "id": cut_id,
            "sources": [{"type": "shar", "channels": [0], "source": ""}],
            "sampling_rate": SAMPLE_RATE,
            "num_samples": n_samples,
            "duration": duration_s,
            "channel_ids": [0],
        }
    return cut


def _write_shard(folder: Path, number: str, cuts: Iterator[dict]) -> int:
    n_audio_bytes = 0
    with (
        open(folder / f"cuts.{number}.jsonl.gz", "wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as lines,
        open(folder / f"recording.{number}.tar", "wb") as tar,
    ):
        for cut in cuts:
            lines.write(_to_json(cut).encode() + b"\n")
            if "recording" not in cut:
                tar.write(_header(f"{cut['id']}.nodata", 0))
                tar.write(_header(f"{cut['id']}.nometa", 0))
                continue
            n_samples = cut["recording"]["num_samples"]
            size = int(n_samples * _FLAC_BYTES_PER_SAMPLE)
            n_audio_bytes += size
            tar.write(_header(f"{cut['id']}.flac", size))
            tar.seek(-(-size // _BLOCK) * _BLOCK, 1)
            manifest = _to_json(cut["recording"]).encode()
            tar.write(_header(f"{cut['id']}.json", len(manifest)))
            tar.write(manifest.ljust(-(-len(manifest) // _BLOCK) * _BLOCK, b"\0"))
        tar.write(bytes(2 * _BLOCK))
    return n_audio_bytes


def _header(name: str, size: int) -> bytes:
    """A ustar header; `tarfile` makes the same in ten times the time."""
    start = name.encode().ljust(100, b"\0") + b"0000644\0" + 2 * b"0000000\0"
    start += b"%011o\0" % size + b"00000000000\0"
    end = b"0".ljust(101, b"\0") + b"ustar\00000"
    checksum = sum(start) + 8 * ord(" ") + sum(end)
    return (start + b"%06o\0 " % checksum + end).ljust(_BLOCK, b"\0")
