"""From encoded bytes to samples and back: the one door to libsndfile and FFmpeg.

What libsndfile knows (WAV, FLAC, Ogg, MP3, ...) it decodes; everything else goes to
FFmpeg through PyAV. `powsm.files.audio_containers` says first what the bytes promise,
and what a decoder returns is held against that. Every fault is an `AudioError`.
"""

import logging
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.errors import PowsmError
from powsm.files.audio_containers import parts_of
from powsm.files.audio_streams import Buffer, ContainerFault, Part

if TYPE_CHECKING:  # stages that read no audio start in half the time without them
    import av
    import numpy as np
    import soundfile

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # samples of a channel that are decoded at a time
RATES_HZ = (1_000, 1_000_000)  # others are damage, and would fill the memory

# Endings by which a recording is known in a folder; a file that is named is always one
ENDINGS = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .m4a .mp4 .aac .wma .aif .aiff .aifc .au .snd "
    ".caf .sph .w64 .webm .mka .mkv .mov .avi .3gp .amr .wv .voc".split()
)

# FFmpeg's names of formats whose header knows the length that was written
_WITH_LENGTH = {"mov", "mp4", "matroska", "webm", "asf", "caf", "w64", "avi", "flac"}
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}


class AudioError(PowsmError):
    """Audio that cannot be used; the message names where it lies."""


def printable(location: str | Path) -> str:
    """A name as it can be written and logged, though it may not be UTF-8."""
    return str(location).encode("utf-8", "backslashreplace").decode()


def recordings_in(
    folder: Path, onerror: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Every recording below a folder, in order; hidden ones are left alone.

    Args:
        onerror: called where a folder cannot be read; default: it is passed over.
    """
    for place, folders, names in os.walk(folder, onerror=onerror):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in ENDINGS:
                yield Path(place, name)


def decode(data: bytes, location: str) -> tuple["np.ndarray", int]:
    """All samples of a file.

    Args:
        data: the whole file.
        location: its name, for errors.

    Returns:
        (samples, rate): float32 (n_samples, n_channels), and Hz.

    Raises:
        AudioError: cut off, damaged, no audio, or joined of unlike streams.
    """
    import numpy as np

    rate, blocks = decode_blocks(data, location, whole=True)
    blocks = list(blocks)
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks)), rate


def decode_blocks(
    data: Buffer, location: str, *, whole: bool = False
) -> tuple[int, Iterator["np.ndarray"]]:
    """The samples of a file, a block at a time, as `decode` gives them.

    Args:
        data: the file, which may be mapped.
        location: its name, for errors.
        whole: give each of the joined streams in one block.

    Returns:
        (rate, blocks): the first block is decoded at once, the others when asked for.
    """
    with _named(location, data):
        parts = parts_of(data)
    blocks = _blocks(parts, location, data, None if whole else BLOCK)
    rate, first = next(blocks)
    return rate, _of_one_rate(rate, first, blocks, location)


def _of_one_rate(
    rate: int,
    first: "np.ndarray",
    blocks: Iterator[tuple[int, "np.ndarray"]],
    location: str,
) -> Iterator["np.ndarray"]:
    yield first
    for other, block in blocks:
        if (other, block.shape[1]) != (rate, first.shape[1]):
            raise AudioError(
                f"{printable(location)}: streams of {rate} Hz, {first.shape[1]} "
                f"channels and of {other} Hz, {block.shape[1]} channels are joined; "
                "split them"
            )
        yield block


def _blocks(
    parts: list[Part], location: str, data: Buffer, most: int | None
) -> Iterator[tuple[int, "np.ndarray"]]:
    for part in parts:
        n_samples = 0
        with _named(location, data):
            for rate, block in _decode_part(part, most):
                n_samples += len(block)
                yield rate, block
            if part.n_samples is not None and n_samples < part.n_samples - part.slack:
                raise ContainerFault(
                    f"damaged: {n_samples} of {part.n_samples} samples can be decoded; "
                    "get it again"
                )


def _decode_part(part: Part, most: int | None) -> Iterator[tuple[int, "np.ndarray"]]:
    if not part.is_common:
        yield from _decode_by_ffmpeg(part.data)
        return
    import soundfile

    with soundfile.SoundFile(_as_file(part.data)) as file:
        rate = _sane(file.samplerate)
        # libsndfile guesses the length of an MP3 of several bit rates without a table
        if part.slack and file.frames < part.n_samples - part.slack:
            yield from _decode_by_ffmpeg(part.data)
            return
        while True:
            block = file.read(most or -1, dtype="float32", always_2d=True)
            yield rate, block
            if most is None or len(block) < most:
                return


def _as_file(data: Buffer) -> BytesIO | mmap.mmap:
    """Bytes to read and seek in; a name is no business of a decoder."""
    if isinstance(data, bytes):
        return BytesIO(data)
    data.seek(0)
    return data


def _sane(rate: int) -> int:
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise ContainerFault(
            f"a rate of {rate} Hz, expected {RATES_HZ[0]:,} to {RATES_HZ[1]:,}; "
            "its header is damaged"
        )
    return rate


def _decode_by_ffmpeg(data: Buffer) -> Iterator[tuple[int, "np.ndarray"]]:
    import av
    import numpy as np

    with av.open(_as_file(data), options=_STRICT) as container:
        if len(container.streams.audio) != 1:
            raise ContainerFault(
                f"{len(container.streams.audio)} audio streams, expected 1; if there "
                "are more, save the one that is meant by itself"
            )
        stream = container.streams.audio[0]
        stream.codec_context.options = _STRICT
        rate, n_samples, n_channels = _sane(stream.rate), 0, stream.channels
        for frame in container.decode(stream):
            if (frame.sample_rate, frame.layout.nb_channels) != (rate, n_channels):
                raise ContainerFault("rate or channels change in the middle; split it")
            n_samples += frame.samples
            yield rate, _samples_of(frame)
        length = stream.duration and float(stream.duration * stream.time_base)
        length = length or (container.duration or 0) / av.time_base
        names = set(container.format.name.split(","))
        # some codecs add a frame of their own delay, none may lose more than one
        if names & _WITH_LENGTH and n_samples / rate < length - 0.1:
            raise ContainerFault(
                f"cut off: its header promises {length:.3f} s, {n_samples / rate:.3f} "
                "s can be decoded; get it again"
            )
    if n_samples == 0:
        yield rate, np.zeros((0, n_channels), np.float32)


def _samples_of(frame: "av.AudioFrame") -> "np.ndarray":
    """float32 (n_samples, n_channels) of a frame in whatever form it has."""
    import numpy as np

    values = frame.to_ndarray()
    if frame.format.is_planar:
        values = values.T
    else:
        values = values.reshape(-1, frame.layout.nb_channels)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    return values.astype(np.float32)


@contextmanager
def _named(location: str, data: Buffer | None) -> Iterator[None]:
    """Every fault of a decoder as an `AudioError` that names the file."""
    try:
        yield
    except ContainerFault as err:
        raise AudioError(f"{printable(location)}: {err}") from err
    except Exception as err:
        if isinstance(err, PowsmError) or not isinstance(err, _decoder_errors()):
            raise
        fault = getattr(err, "error_string", None) or getattr(err, "strerror", err)
        what = "does not" if data is None else f"these {len(data)} bytes do not"
        raise AudioError(
            f"{printable(location)}: {what} decode as audio ({fault}); FLAC, WAV, OGG, "
            "MP3 and what FFmpeg opens are read"
        ) from err


def _decoder_errors() -> tuple[type[Exception], ...]:
    """What libsndfile, FFmpeg and their Python sides raise at bytes they dislike."""
    import av
    import soundfile

    return (
        *(soundfile.SoundFileError, av.FFmpegError, OSError, EOFError, TypeError),
        *(ValueError, LookupError, ArithmeticError, struct.error, RuntimeError),
    )


@contextmanager
def open_sound(source: Path | bytes, name: str) -> Iterator["soundfile.SoundFile"]:
    """A recording of which a stretch is wanted, as libsndfile gives it.

    What libsndfile would not read whole (joined streams, other codecs) is decoded
    first.

    Args:
        source: a file, or the bytes of one.
        name: for errors.

    Raises:
        AudioError: it cannot be used, also within the block.
    """
    import soundfile

    with mapped(source, name) as data:
        with _named(name, data):
            parts = parts_of(data)
        is_sure = parts[0].is_common and not parts[0].is_doubtful
        if len(parts) == 1 and is_sure and parts[0].data is data:
            opened = _as_file(data)
        else:
            samples, rate = decode(data, name)
            opened = BytesIO()
            soundfile.write(opened, samples, rate, format="WAV", subtype="FLOAT")
            opened.seek(0)
        with _named(name, data), soundfile.SoundFile(opened) as file:
            yield file


class _Mapped(mmap.mmap):
    """A mapped file that decoders may seek beyond, as in any other file."""

    def seek(self, at: int, whence: int = 0) -> int:
        try:
            super().seek(at, whence)
        except ValueError:
            super().seek(0, 2)
        return self.tell()


@contextmanager
def mapped(source: Path | bytes, name: str) -> Iterator[Buffer]:
    """The bytes of a file without reading them all.

    Raises:
        AudioError: no such file.
    """
    if isinstance(source, bytes):
        yield source
        return
    try:
        with open(source, "rb") as file:
            if not file.seek(0, 2):
                yield b""
                return
            data = _Mapped(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as err:
        raise AudioError(f"{printable(name)}: cannot be read ({err.strerror})") from err
    with data:
        yield data


def decode_as(path: Path, form: str) -> tuple["np.ndarray", int]:
    """Decode a file without a header, whose form must be known.

    Args:
        path: the file.
        form: FFmpeg's name of it, e.g. "g722".

    Returns:
        (samples, rate): (n_samples,) of the first channel in the codec's own type.

    Raises:
        AudioError: it does not decode.
    """
    import av
    import numpy as np

    with _named(str(path), None), av.open(str(path), format=form) as container:
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.int16)), rate


def decode_mixed(path: Path, rate: int) -> "np.ndarray":
    """Decode any file by FFmpeg alone: float32 (n_samples,) of all channels, at a rate.

    Raises:
        AudioError: it does not decode.
    """
    import av
    import numpy as np

    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    blocks = []
    with _named(str(path), None), av.open(str(path)) as container:
        for frame in (*container.decode(audio=0), None):
            blocks += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def duration_s_of(path: Path) -> float:
    """Length in seconds as the header of any file says it; 0 where it says nothing."""
    import av

    with _named(str(path), None), av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


def encode(
    samples: "np.ndarray", rate: int, form: str = "FLAC", subtype: str = "PCM_16"
) -> bytes:
    """Samples as a file in memory.

    Args:
        samples: int16 or float in [-1, 1], (n_samples,) or (n_samples, n_channels).
        rate: Hz.
        form, subtype: libsndfile's names.
    """
    import soundfile

    file = BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def flac_rate(data: bytes) -> int | None:
    """Rate of FLAC bytes in Hz; None for another form."""
    return int.from_bytes(data[18:21], "big") >> 4 if data[:4] == b"fLaC" else None
