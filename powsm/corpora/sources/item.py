"""One utterance of a source: where its audio lies, and what is known of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from powsm.audio import SAMPLE_RATE, AudioError, read_audio
from powsm.errors import PowsmError

SPLITS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}
_SLACK_S = 0.05  # seconds that a stretch may go on after the end of its recording
_ROUND = SAMPLE_RATE // 1000  # samples of the millisecond that ELAN rounds times to
_PEAK = 32_768  # of 16 bits


class SourceError(PowsmError):
    """A source that cannot be imported; the message says what to change."""


@dataclass(frozen=True)
class Item:
    """One utterance of a source.

    Attributes:
        key: its name in the source, unique there.
        where: the file, and the line where there is one, for messages.
        audio: a file or `wav.scp` value, or the bytes of a file.
        start_s, end_s: the stretch of the recording; None: all of it.
        channel: number of the one that is meant, from 0; None: all are mixed.
        text: orthography; may be empty.
        ipa: transcription; None where the source has none.
        lang, speaker: as the source says them; None where it does not.
        split: `train`, `dev` or `test`; None where the source does not say.
    """

    key: str
    where: str
    audio: str | bytes
    start_s: float | None = None
    end_s: float | None = None
    channel: int | None = None
    text: str = ""
    ipa: str | None = None
    lang: str | None = None
    speaker: str | None = None
    split: str | None = None

    def samples(self) -> np.ndarray:
        """int16 (n_samples,) at `SAMPLE_RATE`.

        A stretch that is all of a recording but for a millisecond is all of it.

        Raises:
            AudioError: it cannot be read, or the stretch lies outside.
        """
        if isinstance(self.audio, bytes):
            speech = read_audio(self.where, _chosen(self.channel), self.audio)
        else:
            speech = _read(self.audio, self.channel)
        start = round((self.start_s or 0) * SAMPLE_RATE)
        end = len(speech) if self.end_s is None else round(self.end_s * SAMPLE_RATE)
        if not 0 <= start < end <= len(speech) + _SLACK_S * SAMPLE_RATE:
            raise AudioError(
                f"{start / SAMPLE_RATE:.3f} to {end / SAMPLE_RATE:.3f} s is no stretch "
                f"of a recording of {len(speech) / SAMPLE_RATE:.3f} s"
            )
        if start <= _ROUND and abs(end - len(speech)) <= _ROUND:
            start, end = 0, len(speech)
        speech = np.round(speech[start:end].astype(np.float64) * _PEAK)
        return np.clip(speech, -_PEAK, _PEAK - 1).astype(np.int16)


@lru_cache(maxsize=1)  # the stretches of a recording follow each other
def _read(location: str, channel: int | None) -> np.ndarray:
    return read_audio(location, _chosen(channel))


def _chosen(channel: int | None) -> str | int:
    return "mix" if channel is None else channel


def joined(value: object) -> str:
    """A field of a source as text: a list of words or phones by spaces.

    >>> joined(["p", "a"]), joined(7)
    ('p a', '7')
    """
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def split_of(words: Iterable[str]) -> str | None:
    """The split that the parts of a name or path say; `train_dev` is held out.

    >>> split_of(["mine", "valid"]), split_of(["train", "dev"]), split_of(["trainer"])
    ('dev', 'dev', None)
    """
    said = {SPLITS.get(word.lower()) for word in words}
    return next((split for split in ("test", "dev", "train") if split in said), None)


def key_of(path: Path, source: Path) -> str:
    """The name of a recording: its path below a folder.

    >>> key_of(Path("s/ann/1.wav"), Path("s")), key_of(Path("x/2.wav"), Path("s"))
    ('ann-1', '2')
    """
    inside = path.relative_to(source) if path.is_relative_to(source) else path.name
    return "-".join(Path(inside).with_suffix("").parts)
