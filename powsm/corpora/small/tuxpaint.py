"""Tux Paint stamps: volunteers name pictures in nine languages, from a Debian package.

About two hours, one to ten words a clip, recorded at home: levels differ by 20 dB and
so are made equal here. A stamp `NAME.png` has its captions in `NAME.txt` (first line
English, then `XX.utf8=caption`) and recordings in `NAME_desc_XX.ogg`. Licence GPL-2.
https://packages.debian.org/source/stable/tuxpaint-stamps

Who speaks is not known: all recordings of a language count as one speaker.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.audio_files import decode_mixed, duration_s_of
from powsm.corpora.small import espeak
from powsm.corpora.small.packages import Package
from powsm.corpora.small.split import split_prompts
from powsm.corpora.small.text_faults import text_fault, text_key
from powsm.corpora.small.write_shar import Clip, Selection
from powsm.errors import PowsmError
from powsm.files.text import read_text

PACKAGES = (
    Package(
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        160880444,
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    ),
)
ESTIMATE = "writing about 150 MB in three minutes"
REVISION = 2  # raise it when the choice of clips or their labels change
STAMPS = "usr/share/tuxpaint/stamps"
LANGUAGES = {  # ISO 639-1 as in the file names -> ISO 639-3, script
    "be": ("bel", "CYRILLIC"),
    "bg": ("bul", "CYRILLIC"),
    "ca": ("cat", "LATIN"),
    "da": ("dan", "LATIN"),
    "el": ("ell", "GREEK"),
    "es": ("spa", "LATIN"),
    "fr": ("fra", "LATIN"),
    "ro": ("ron", "LATIN"),
    "ru": ("rus", "CYRILLIC"),
}
MAX_SOUNDS_PER_S = 30.0  # faster is a caption that is longer than what is said
LEVEL = 10 ** (-20 / 20)  # root mean square of full scale: -20 dB
MAX_PEAK = 0.99

_RECORDING = re.compile(r"(?P<stamp>.+)_desc_(?P<code>[a-z]+)\.ogg")


@dataclass(frozen=True)
class _Recording:
    stamp: str  # path below STAMPS without the language
    code: str
    path: Path
    text: str


def select(root: Path, seed: int) -> Selection:
    """Choose, split by stamp and label the recordings in the unpacked package.

    Args:
        root: the folder that holds `usr/share`.
        seed: of the split.

    Raises:
        FileNotFoundError: there are no stamps below the folder.
    """
    if not (root / STAMPS).is_dir():
        raise FileNotFoundError(
            f"{root / STAMPS} is missing: {root} does not hold the unpacked package "
            f"{PACKAGES[0].name}"
        )
    selection = Selection()
    by_audio: dict[str, list[_Recording]] = {}
    for recording in _recordings(root / STAMPS):
        digest = hashlib.sha256(recording.path.read_bytes()).hexdigest()
        by_audio.setdefault(recording.code + digest, []).append(recording)

    kept: list[tuple[_Recording, str, float]] = []
    bar = tqdm(by_audio.values(), desc="tuxpaint labels", unit="clip", disable=None)
    for copies in bar:
        recording = copies[0]
        lang, script = LANGUAGES[recording.code]
        left_out = selection.left_out.setdefault(lang, Counter())
        if len({text_key(copy.text) for copy in copies}) > 1:
            left_out["two_texts"] += len(copies)
            continue
        left_out["copy"] += len(copies) - 1
        ipa = espeak.text_to_ipa(recording.text, espeak.VOICES[lang])
        duration_s = duration_s_of(recording.path)
        if reason := fault(recording.text, script, ipa, duration_s):
            left_out[reason] += 1
        else:
            kept.append((recording, ipa, duration_s))

    split_of = split_prompts(((r.stamp, r.text) for r, _, _ in kept), seed)
    for recording, ipa, duration_s in kept:
        lang, _ = LANGUAGES[recording.code]
        clip = Clip(
            clip_id=f"{lang}-{recording.stamp.replace('/', '-')}",
            language=recording.code,
            speaker=f"volunteer-{lang}",
            text=recording.text,
            ipa=ipa,
            duration_s=duration_s,
            read_samples=partial(read_level, recording.path),
        )
        selection.splits[split_of[recording.stamp]].append(clip)
    return selection


def fault(text: str, script: str, ipa: str, duration_s: float) -> str | None:
    """Why a recording cannot be used with its caption, in one word; None if it can."""
    if reason := text_fault(text, script):
        return reason
    if duration_s > WINDOW_S:
        return "too_long"
    # letters without modifiers: "tʃʲ" are two sounds here, which is near enough
    n_sounds = sum(unicodedata.category(c) in ("Ll", "Lo") for c in ipa)
    if n_sounds == 0:
        return "no_text"
    return "too_fast" if n_sounds > MAX_SOUNDS_PER_S * duration_s else None


def read_captions(path: Path) -> dict[str, str]:
    """Captions of a stamp by language code; English, on the first line, is left out."""
    captions = {}
    for line in read_text(path).splitlines()[1:]:
        code, mark, caption = line.partition(".utf8=")
        if mark:
            captions[code] = " ".join(caption.split())
    return captions


def read_level(path: Path) -> np.ndarray:
    """Decode to int16 (n_samples,) at 16 kHz, one channel, at `LEVEL`.

    Raises:
        AudioError: the file does not decode.
        PowsmError: it is silent.
    """
    samples = decode_mixed(path, SAMPLE_RATE)
    if not samples.any():
        raise PowsmError(f"{path}: holds no sound")
    gain = LEVEL / np.sqrt(np.mean(samples**2))
    gain = min(gain, MAX_PEAK / np.abs(samples).max())
    return np.round(samples * gain * 32767).astype(np.int16)


def _recordings(stamps: Path) -> Iterator[_Recording]:
    """Every recording in a language of the table that has a caption, in order."""
    for path in sorted(stamps.rglob("*_desc_*.ogg")):
        match = _RECORDING.fullmatch(path.name)
        if not match or match["code"] not in LANGUAGES:
            continue
        captions = path.with_name(f"{match['stamp']}.txt")
        if captions.is_file():
            yield _Recording(
                stamp=str(path.parent.relative_to(stamps) / match["stamp"]),
                code=match["code"],
                path=path,
                text=read_captions(captions).get(match["code"], ""),
            )
