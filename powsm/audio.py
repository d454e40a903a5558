"""Sample rate, frame and duration arithmetic, and reading speech from where it lies.

A `wav.scp` value is a plain audio file or, for the corpora that come as tar shards,
`<shard>.tar:<offset>:<size>`: the bytes of one member, read in place. The tar file is
not parsed and nothing is unpacked. `<archive>.ark:<offset>` is ESPnet's own form, for
copies made with `--audio_format flac.ark`.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Self

from powsm.errors import PowsmError

if TYPE_CHECKING:  # stages that read no audio start in half the time without them
    import numpy as np

log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000  # Hz, of everything the model hears
N_FFT = 512  # samples, 32 ms: the window of the spectrogram
HOP_LENGTH = 160  # samples, 10 ms: one spectrogram frame
SUBSAMPLING = 4  # spectrogram frames to one encoder frame
FRAME_SHIFT_S = HOP_LENGTH * SUBSAMPLING / SAMPLE_RATE  # 0.04 s: one encoder frame
WINDOW_S = 20.0  # seconds of audio the published model takes at once

ESPNET_TYPE = "powsm_audio"  # the name under which ESPnet knows our reader
_OPEN_FILES = 64  # shards kept open by one process

_IN_SHARD = re.compile(r"(?P<path>.+):(?P<offset>\d+):(?P<size>\d+)")
_IN_ARK = re.compile(r"(?P<path>.+\.ark):(?P<offset>\d+)")
ARK_MARKER = b"AUDIO"  # then the width of the length in one byte, the length, the audio


class AudioError(PowsmError):
    """Audio that cannot be used; the message names where it lies."""


@dataclass(frozen=True, slots=True)
class AudioRef:
    """Where the encoded audio of one utterance lies.

    Attributes:
        path: an audio file, or a tar shard or ark that holds it.
        offset: first byte of the audio inside a shard, or of its entry in an ark;
            None for a plain file.
        size: bytes of audio inside a shard; None for a plain file and for an ark.

    >>> AudioRef.parse("mls_shar/dev/recording.000000.tar:512:48210").offset
    512
    >>> str(AudioRef.parse("clips/a.flac"))
    'clips/a.flac'
    """

    path: Path
    offset: int | None = None
    size: int | None = None

    @classmethod
    def parse(cls, location: str) -> Self:
        """The reference that a `wav.scp` value spells."""
        if match := _IN_SHARD.fullmatch(location):
            return cls(Path(match["path"]), int(match["offset"]), int(match["size"]))
        if match := _IN_ARK.fullmatch(location):
            return cls(Path(match["path"]), int(match["offset"]))
        return cls(Path(location))

    def __str__(self) -> str:
        if self.offset is None:
            return str(self.path)
        if self.size is None:
            return f"{self.path}:{self.offset}"
        return f"{self.path}:{self.offset}:{self.size}"


def location_in_shard(path: Path, offset: int, size: int) -> str:
    """The `wav.scp` value of `size` bytes of audio, `offset` bytes into a shard."""
    return f"{path}:{offset}:{size}"


def read_audio(location: str) -> "np.ndarray":
    """Decode one utterance.

    Audio of another rate is resampled, and the first file of each such rate is logged.

    Args:
        location: a `wav.scp` value, `<shard>.tar:<offset>:<size>` or a file; FLAC, WAV,
            OGG or MP3.

    Returns:
        Speech, shape (n_samples,), float32 at `SAMPLE_RATE`, in [-1, 1].

    Raises:
        AudioError: no such file, bytes beyond the end of the shard, not decodable, no
            samples, more than one channel, or a sample that is not a finite number.
    """
    import numpy as np
    import soundfile

    data = _read_bytes(AudioRef.parse(location), location)
    try:
        speech, rate = soundfile.read(BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as err:
        fault = getattr(err, "error_string", err)  # without the object read from
        raise AudioError(
            f"{location}: these {len(data)} bytes do not decode as audio ({fault}); "
            "FLAC, WAV, OGG and MP3 are read"
        ) from err
    n_samples, n_channels = speech.shape
    if n_channels != 1:
        raise AudioError(
            f"{location}: {n_channels} channels, expected 1; mix or split them first"
        )
    if n_samples == 0:
        raise AudioError(f"{location}: no samples; remove this utterance")
    speech = speech[:, 0]
    if not np.isfinite(speech).all():
        raise AudioError(f"{location}: holds NaN or infinite samples; encode it again")
    if rate != SAMPLE_RATE:
        speech = _resample(speech, rate, location)
    return speech


def n_samples_of(location: str) -> int:
    """Length of one utterance at `SAMPLE_RATE`, from the header of its audio.

    Args:
        location: a `wav.scp` value, see `read_audio`.

    Raises:
        AudioError: no such file, no audio, or more than one channel.
    """
    import soundfile

    ref = AudioRef.parse(location)
    try:
        source = ref.path
        if ref.offset is not None:
            source = BytesIO(_read_bytes(ref, location))
        info = soundfile.info(source)
    except (soundfile.SoundFileError, TypeError) as err:
        fault = getattr(err, "error_string", err)
        raise AudioError(f"{location}: cannot be read as audio ({fault})") from err
    if info.channels != 1:
        raise AudioError(
            f"{location}: {info.channels} channels, expected 1; mix or split them first"
        )
    return n_samples_at_sample_rate(info.frames, info.samplerate)


def n_samples_at_sample_rate(n_samples: int, rate: int) -> int:
    """Length of `n_samples` at `rate` Hz once it is resampled to `SAMPLE_RATE`.

    >>> n_samples_at_sample_rate(44_101, 44_100)  # torchaudio rounds up
    16001
    """
    return -(-n_samples * SAMPLE_RATE // rate)


def n_encoder_frames(n_samples: int) -> int:
    """Encoder frames of an utterance: centred spectrogram, two strided convolutions.

    Each convolution has kernel 3, stride 2 and no padding, so the edges cost a frame:
    20 s are 2001 spectrogram frames, then 1000, then 499 (not 500).

    Args:
        n_samples: at `SAMPLE_RATE`.

    Returns:
        Number of frames of `FRAME_SHIFT_S`; 0 for what is too short for the encoder.

    Source: ESPnet 202611, `Stft` with center and `Conv2dSubsampling`.

    >>> n_encoder_frames(int(WINDOW_S * SAMPLE_RATE))
    499
    """
    n_frames = n_samples // HOP_LENGTH + 1
    for _ in range(2):
        n_frames = (n_frames - 3) // 2 + 1
    return max(n_frames, 0)


class AudioScp(Mapping[str, "np.ndarray"]):
    """A `wav.scp` as a mapping from utt_id to speech, decoded when asked for.

    This is the reader ESPnet's own commands use for the type `powsm_audio`.
    """

    def __init__(self, path: str | Path):
        self._locations: dict[str, str] = {}
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                utt_id, _, location = line.rstrip("\n").partition(" ")
                if not location or utt_id in self._locations:
                    fault = "given twice" if location else "has no audio after it"
                    raise AudioError(f"{path}:{number}: {utt_id!r} {fault}")
                self._locations[utt_id] = location

    def __getitem__(self, utt_id: str) -> "np.ndarray":
        return read_audio(self._locations[utt_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)


def register_with_espnet() -> None:
    """Teach ESPnet the data type `powsm_audio`, in this process.

    From then on `wav.scp,speech,powsm_audio` is a valid triple for ESPnet's commands.
    Calling it again changes nothing.
    """
    from espnet2.train import dataset, iterable_dataset

    dataset.DATA_TYPES[ESPNET_TYPE] = {
        "func": AudioScp,
        "kwargs": [],
        "help": "Speech in audio files or inside tar shards, read in place."
        "\n\n"
        "   utterance_id_a shard.tar:1536:48210\n"
        "   utterance_id_b b.flac\n"
        "   ...",
    }
    iterable_dataset.DATA_TYPES[ESPNET_TYPE] = read_audio


class _OpenFile:
    """A file descriptor that closes when the last user lets go of it."""

    def __init__(self, path: Path):
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


# Reads name their offset (pread), so threads and forked workers may share a descriptor.
@lru_cache(maxsize=_OPEN_FILES)
def _open_file(path: Path) -> _OpenFile:
    return _OpenFile(path)


def _read_bytes(ref: AudioRef, location: str) -> bytes:
    try:
        if ref.offset is None:
            return ref.path.read_bytes()
        file = _open_file(ref.path)
        if ref.size is None:
            ref = _entry_of_ark(ref, os.pread(file.fd, 16, ref.offset), location)
        data = os.pread(file.fd, ref.size, ref.offset)
        while 0 < len(data) < ref.size:  # the system may hand over less than asked for
            more = os.pread(file.fd, ref.size - len(data), ref.offset + len(data))
            if not more:
                break
            data += more
    except OSError as err:
        raise AudioError(f"{location}: cannot be read ({err.strerror})") from err
    if len(data) < ref.size:
        raise AudioError(
            f"{location}: found {len(data)} of {ref.size} bytes; the file is shorter "
            "than when it was indexed: make it again, then rerun stage 1"
        )
    return data


def _entry_of_ark(ref: AudioRef, head: bytes, location: str) -> AudioRef:
    """Where the audio of an ark's entry lies, from the bytes at its offset."""
    start = len(ARK_MARKER) + 1
    if not head.startswith(ARK_MARKER) or len(head) < start:
        raise AudioError(f"{location}: no audio of ESPnet's ark format begins here")
    width = head[start - 1]
    size = int.from_bytes(head[start : start + width], "little")
    return AudioRef(ref.path, ref.offset + start + width, size)


_announced_rates: set[int] = set()


def _resample(speech: "np.ndarray", rate: int, location: str) -> "np.ndarray":
    import torch
    import torchaudio

    if rate not in _announced_rates:
        _announced_rates.add(rate)
        log.warning(
            "%s: %d Hz, resampled to %d Hz like all others of this rate",
            location,
            rate,
            SAMPLE_RATE,
        )
    resampled = torchaudio.functional.resample(
        torch.from_numpy(speech), orig_freq=rate, new_freq=SAMPLE_RATE
    )
    return resampled.numpy()
