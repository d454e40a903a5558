"""What is taken for a recording: a path, the bytes of a file, or samples."""

from collections.abc import Sized
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from powsm.audio import (
    MAX_PEAK,
    SAMPLE_RATE,
    AudioError,
    at_level,
    read_audio,
    resample,
    warn_of_level,
)
from powsm.audio_files import RATES_HZ, printable
from powsm.decode.recordings.stretches import Recording
from powsm.files.audio_channels import CHANNELS, SIDES, chosen

Audio = str | Path | bytes | BinaryIO | np.ndarray | Tensor

MOST_CHANNELS = 64  # of an array; more is a shape that was meant otherwise
_QUIET_S = 600  # seconds of which the level is measured


def speech_of(
    audio: Audio,
    *,
    rate: int = SAMPLE_RATE,
    channel: str | None = "mix",
    min_samples: int,
    name: str = "audio",
    is_levelled: bool = False,
) -> Tensor | Recording:
    """Speech as a model hears it, of whatever holds it.

    Args:
        audio: a file by its path, its bytes, or opened as `rb`; or samples: integers
            over the range of their type, of 32 bits at most, or floating-point numbers
            in -1 to 1, of shape (n_samples,), (n_samples, n_channels) or (n_channels,
            n_samples).
        rate: of samples, Hz; a file says its own.
        channel: `mix`, `left` or `right`; None refuses several channels.
        min_samples: the shortest that the model encodes.
        name: for errors, where `audio` is no path.
        is_levelled: it will be brought to the usual level, as far as its peaks allow.

    Raises:
        AudioError: it cannot be used; says why.
    """
    if channel == "each":
        raise AudioError("channel 'each' gives several recordings; take left and right")
    if channel is not None and channel not in CHANNELS:
        raise AudioError(
            f"channel {channel!r}, expected one of {' '.join(CHANNELS[:-1])}"
        )
    if isinstance(audio, str | Path):
        name = str(audio)
        if Path(audio).is_dir():
            raise AudioError(f"{printable(name)}: a folder, expected a recording")
        speech = Recording(name, channel)
    elif isinstance(audio, bytes | bytearray | memoryview):
        speech = Recording(name, channel, bytes(audio))
    elif hasattr(audio, "read"):
        speech = Recording(name, channel, _bytes_of(audio, name))
    elif isinstance(audio, np.ndarray | Tensor):
        speech = _tensor(audio, rate, channel, name)
    else:
        raise AudioError(
            f"{name}: {type(audio).__name__}, expected a path, a file opened as 'rb', "
            "or samples as a NumPy array or tensor"
        )
    return long_enough(speech, min_samples, name, is_levelled=is_levelled)


def long_enough(
    speech: Tensor | Recording,
    min_samples: int,
    name: str,
    *,
    is_levelled: bool = False,
) -> Tensor | Recording:
    """The same speech; one of an odd level is logged.

    Args:
        is_levelled: see `speech_of`.

    Raises:
        AudioError: it is shorter than `min_samples`.
    """
    check_length(speech, min_samples, name)
    heard = speech[: _QUIET_S * SAMPLE_RATE].numpy()
    warn_of_level(heard, name, is_levelled=is_levelled)
    return speech


def check_length(speech: Sized, min_samples: int, name: str) -> None:
    """Refuse speech that is shorter than `min_samples`.

    Raises:
        AudioError: it is.
    """
    if len(speech) < min_samples:
        raise AudioError(
            f"{printable(name)}: {len(speech) / SAMPLE_RATE:.3f} s is too short to "
            f"encode; the model needs {min_samples / SAMPLE_RATE:.3f} s"
        )


def read_speech(
    location: str, min_samples: int, *, is_levelled: bool = False
) -> torch.Tensor:
    """Speech (n_samples,) of one utterance, long enough to encode.

    A recording of an odd level is logged.

    Args:
        location: see `powsm.audio.read_audio`.
        min_samples: the shortest that the model encodes.
        is_levelled: bring the speech to the usual level first.

    Raises:
        AudioError: it cannot be read, or is shorter than `min_samples`.
    """
    speech = read_audio(location)
    warn_of_level(speech, location, is_levelled=is_levelled)
    if is_levelled:
        speech = at_level(speech)
    check_length(speech, min_samples, location)
    return torch.from_numpy(speech)


def _bytes_of(file: BinaryIO, name: str) -> bytes:
    data = file.read()
    if not isinstance(data, bytes):
        raise AudioError(f"{name}: a file of text, expected one opened as 'rb'")
    return data


def _tensor(
    audio: np.ndarray | Tensor, rate: int, channel: str | None, name: str
) -> Tensor:
    if isinstance(audio, Tensor):
        audio = audio.detach().cpu()
        if audio.dtype == torch.bfloat16:
            audio = audio.float()
        audio = audio.numpy()
    samples = _one_channel(_floats(_two_axes(audio, name), name), channel, name)
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise AudioError(f"{name}: rate {rate!r}, expected a whole number of Hz")
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise AudioError(
            f"{name}: rate {rate}, expected {RATES_HZ[0]:,} to {RATES_HZ[1]:,} Hz"
        )
    if rate != SAMPLE_RATE:
        samples = resample(samples, int(rate), SAMPLE_RATE)
    return torch.from_numpy(np.ascontiguousarray(samples))


def _two_axes(samples: np.ndarray, name: str) -> np.ndarray:
    """(n_samples, n_channels); of two axes the shorter one is that of channels."""
    shape = samples.shape
    if not samples.size:
        raise AudioError(f"{name}: no samples")
    if samples.ndim == 1:
        samples = samples[:, None]
    elif samples.ndim == 2 and shape[0] < shape[1]:
        samples = samples.T
    if samples.ndim != 2 or not 1 <= samples.shape[1] <= MOST_CHANNELS:
        raise AudioError(
            f"{name}: samples of shape {shape}, expected (n_samples,), (n_samples, "
            f"n_channels) or (n_channels, n_samples), {MOST_CHANNELS} channels at most"
        )
    return samples


def _floats(samples: np.ndarray, name: str) -> np.ndarray:
    """float32 in -1 to 1, integers by the range of their type."""
    kind, n_bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind not in "iuf" or kind in "iu" and n_bits > 32:
        raise AudioError(
            f"{name}: samples of type {samples.dtype}, expected integers of 8, 16 or "
            "32 bits over their whole range, or floating-point numbers"
        )
    if kind == "f":
        low, high = float(samples.min()), float(samples.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise AudioError(f"{name}: holds NaN or infinite samples")
        if max(-low, high) > MAX_PEAK:
            raise AudioError(
                f"{name}: samples up to {max(-low, high):.6g}, expected [-1, 1]; these "
                "are integers as floats: divide them by 32768 (16 bit)"
            )
        return samples.astype(np.float32)
    half = 2.0 ** (n_bits - 1)
    middle = half if kind == "u" else 0.0
    return ((samples.astype(np.float64) - middle) / half).astype(np.float32)


def _one_channel(samples: np.ndarray, channel: str | None, name: str) -> np.ndarray:
    n_channels = samples.shape[1]
    if channel == "mix":
        (mixed,) = chosen([samples], channel, name)
        return mixed
    if n_channels == 1:
        return samples[:, 0]
    if channel is None or n_channels > 2:
        raise AudioError(
            f"{name}: {n_channels} channels, expected {1 if channel is None else 2} "
            "at most; use channel mix, or take one of them"
        )
    return samples[:, SIDES.index(channel)]
