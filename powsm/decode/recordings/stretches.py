"""Recordings of any length, of which only the stretch asked for is in memory."""

import os
import tempfile

import numpy as np
import torch
from torch import Tensor

from powsm.audio import (
    HOP_LENGTH,
    SAMPLE_RATE,
    AudioError,
    gain_to_level,
    speech_blocks,
)
from powsm.audio_files import printable

TRIM_DB = 40  # below the loudest part: silence
_TRIM_FRAME = 400  # samples, 25 ms
_STRETCH = 10_000 * HOP_LENGTH  # samples that are measured at once


class Recording:
    """A recording of any length, of which only the stretch asked for is in memory.

    It is decoded once, into a temporary file of 230 MB an hour. What reads speech takes
    it in the place of a tensor.

    Args:
        location, channel, data: see `powsm.audio.speech_blocks`.

    Raises:
        AudioError: it cannot be used.
    """

    def __init__(
        self, location: str, channel: str | int | None = None, data: bytes | None = None
    ):
        self._file = tempfile.TemporaryFile()
        for block in speech_blocks(location, channel, data):
            self._file.write(block.astype(np.float32).tobytes())
        self._file.flush()
        self._n_samples = self._file.tell() // 4
        if not self._n_samples:
            raise AudioError(
                f"{printable(location)}: no samples; remove this utterance"
            )

    def __len__(self) -> int:
        return self._n_samples

    def __getitem__(self, stretch: slice) -> Tensor:
        begin, end, step = stretch.indices(self._n_samples)
        assert step == 1, "a recording is read from sample to sample"
        samples = np.empty(max(end - begin, 0), np.float32)
        left, at = memoryview(samples).cast("B"), 4 * begin
        while left:  # Linux reads 2 GiB at once, 9 hours, and no more
            data = os.pread(self._file.fileno(), len(left), at)
            left[: len(data)] = data
            left, at = left[len(data) :], at + len(data)
        return torch.from_numpy(samples)


class Stretch:
    """A part of a recording that is read when it is asked for.

    Args:
        speech: the recording.
        begin, end: samples of it.
        gain: the factor of every sample.
    """

    def __init__(self, speech: Recording, begin: int, end: int, gain: float = 1.0):
        self._speech, self._begin, self._n_samples = speech, begin, end - begin
        self._gain = gain

    def __len__(self) -> int:
        return self._n_samples

    def __getitem__(self, stretch: slice) -> Tensor:
        begin, end, _ = stretch.indices(self._n_samples)
        read = self._speech[self._begin + begin : self._begin + end]
        return read if self._gain == 1 else read * self._gain


Speech = Tensor | Recording | Stretch


def stretch_of(speech: Speech, begin: int, end: int) -> Speech:
    """Samples [begin, end); of a recording they are not read yet."""
    return (
        speech[begin:end] if isinstance(speech, Tensor) else Stretch(speech, begin, end)
    )


def between(speech: Speech, begin_s: float, end_s: float | None) -> Speech:
    """What is said between two times; None is the end. Behind the end it is nothing."""
    if begin_s == 0 and end_s is None:
        return speech
    end = len(speech) if end_s is None else round(end_s * SAMPLE_RATE)
    end = min(end, len(speech))
    return stretch_of(speech, min(round(begin_s * SAMPLE_RATE), end), end)


def at_usual_level(speech: Speech) -> Speech:
    """Speech as loud as most is recorded, or as its highest peak allows."""
    gain = gain_to_level(
        speech[begin : begin + _STRETCH].numpy()
        for begin in range(0, len(speech), _STRETCH)
    )
    if isinstance(speech, Tensor):
        return speech * gain
    return Stretch(speech, 0, len(speech), float(gain))


def trim_silence(speech: Speech) -> tuple[Speech, float]:
    """Cut off the silence before and after the sound of a recording.

    Silence is what stays `TRIM_DB` below the loudest 25 ms.

    Args:
        speech: (n_samples,) at 16 kHz.

    Returns:
        The part with sound, all of it where no part is louder than another, and the
        second at which it begins.
    """
    if len(speech) < _TRIM_FRAME:
        return speech, 0.0
    # a stretch at a time: all frames at once would take seven times the recording. Into
    # one tensor: a small one for each stretch keeps the memory of the stretch before it
    power = torch.empty((len(speech) - _TRIM_FRAME) // HOP_LENGTH + 1)
    for begin in range(0, len(speech) - _TRIM_FRAME + 1, _STRETCH):
        part = speech[begin : begin + _STRETCH + _TRIM_FRAME - HOP_LENGTH]
        first = begin // HOP_LENGTH
        frames = part.unfold(0, _TRIM_FRAME, HOP_LENGTH)
        # a constant offset is no sound
        power[first : first + len(frames)] = frames.var(-1, correction=0)
    sound = (power >= power.max() * 10 ** (-TRIM_DB / 10)).nonzero()
    first, last = int(sound[0]), int(sound[-1])
    begin = first * HOP_LENGTH
    end = last * HOP_LENGTH + _TRIM_FRAME if last + 1 < len(power) else len(speech)
    return stretch_of(speech, begin, end), begin / SAMPLE_RATE
