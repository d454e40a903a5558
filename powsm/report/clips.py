"""Audio and spectrograms as data URIs, within a budget of bytes."""

import base64
import logging
from dataclasses import dataclass, field
from io import BytesIO

import matplotlib

matplotlib.use("Agg")
import numpy as np  # noqa: E402
from matplotlib.image import imsave  # noqa: E402

from powsm.audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, read_audio  # noqa: E402
from powsm.audio_files import AudioError, encode  # noqa: E402

log = logging.getLogger(__name__)

MAX_FREQUENCY_HZ = SAMPLE_RATE // 2
_RANGE_DB = 70  # below the loudest point; quieter is white
_WINDOW = 160  # samples, 10 ms: broad-band, so that formants and bursts show


def spectrogram(speech: np.ndarray) -> np.ndarray:
    """Level of each frequency over time, 0 (quiet) to 1.

    Args:
        speech: (n_samples,) at `SAMPLE_RATE`.

    Returns:
        Shape (N_FFT / 2 + 1, n_frames), highest frequency first, as a picture has it.
    """
    n_frames = len(speech) // HOP_LENGTH + 1
    padded = np.pad(speech, (_WINDOW // 2, _WINDOW))
    starts = np.arange(n_frames) * HOP_LENGTH
    frames = padded[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    # a little pre-emphasis: speech falls by some 6 dB an octave
    frames[:, 1:] -= 0.97 * frames[:, :-1]
    power = np.abs(np.fft.rfft(frames, N_FFT)) ** 2
    level = 10 * np.log10(np.maximum(power, 1e-12))
    level = 1 + (level - level.max()) / _RANGE_DB
    return np.clip(level, 0, 1).T[::-1]


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def audio_uri(speech: np.ndarray) -> str:
    """Speech as MP3, which every browser plays."""
    return _data_uri("audio/mpeg", encode(speech, SAMPLE_RATE, "MP3", "MPEG_LAYER_III"))


def spectrogram_uri(speech: np.ndarray) -> str:
    """The spectrogram as WebP, black on white."""
    buffer = BytesIO()
    imsave(
        buffer,
        spectrogram(speech),
        cmap="gray_r",
        vmin=0,
        vmax=1,
        format="webp",
        pil_kwargs={"quality": 50},
    )
    return _data_uri("image/webp", buffer.getvalue())


@dataclass
class ClipBudget:
    """Clips embedded so far; an utterance asked for twice is embedded once.

    Attributes:
        max_clips: most utterances with sound.
        max_bytes: most characters of data URIs, all together.
        clips: by the `wav.scp` value; `audio` and `image` are data URIs.
        unread: `wav.scp` values of audio that cannot be read.
    """

    max_clips: int
    max_bytes: int
    clips: dict[str, dict[str, str]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)

    @property
    def n_bytes(self) -> int:
        """Characters of all data URIs."""
        return sum(len(uri) for clip in self.clips.values() for uri in clip.values())

    def add(self, location: str) -> bool:
        """Embed an utterance if it still fits and can be read; whether it is in."""
        if location in self.clips:
            return True
        if len(self.clips) >= self.max_clips or location in self.unread:
            return False
        try:
            speech = read_audio(location)
        except AudioError as err:
            log.warning("the page has no sound of an utterance: %s", err)
            self.unread.add(location)
            return False
        clip = {"audio": audio_uri(speech), "image": spectrogram_uri(speech)}
        if self.n_bytes + sum(map(len, clip.values())) > self.max_bytes:
            return False
        self.clips[location] = clip
        return True
