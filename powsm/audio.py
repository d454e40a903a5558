"""Speech as the model hears it: sample rate, frames, level, resampling.

Where the bytes of an utterance lie is in `files.audio_places`, what they hold in
`audio_files`, what becomes of several channels in `files.audio_channels`.
"""

import logging
import mmap
from collections.abc import Iterable, Iterator
from math import gcd, isfinite
from typing import TYPE_CHECKING, TypeVar

from powsm.audio_files import (
    AudioError,
    decode,
    decode_blocks,
    mapped,
    open_sound,
    printable,
)
from powsm.files.audio_channels import chosen, several_channels
from powsm.files.audio_places import AudioRef, read_bytes
from powsm.files.audio_streams import Buffer

if TYPE_CHECKING:  # stages that read no audio start in half the time without them
    import numpy as np

    Samples = TypeVar("Samples")

log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000  # Hz, of everything the model hears
N_FFT = 512  # samples, 32 ms: the window of the spectrogram
HOP_LENGTH = 160  # samples, 10 ms: one spectrogram frame
WINDOW_S = 20.0  # seconds of audio the published model takes at once

LEVEL_DB = -20.0  # below full scale: what speech is recorded at
QUIET_DB = -36.0  # below it, a tenth of the usual level, scores are far worse
LOUD_DB = -1.0  # above it, with peaks above 1: no sound, but a variance of 1
MAX_PEAK = 8.0  # 18 dB above full scale; more is no sound but integers

_BLOCK = 1 << 18  # samples that are resampled at a time
_LEVEL_FRAME = 400  # samples, 25 ms
_MOST_NAMED = 10  # recordings of an odd level


def read_audio(
    location: str, channel: str | int | None = None, data: bytes | None = None
) -> "np.ndarray":
    """Decode one utterance.

    Audio of another rate is resampled, and the first file of each such rate is logged.

    Args:
        location: a `wav.scp` value, `<shard>.tar:<offset>:<size>` or a file; FLAC, WAV,
            OGG, MP3, and what FFmpeg opens.
        channel: what becomes of several channels, one of `CHANNELS` of
            `powsm.files.audio_channels`: their mean, one of two, or each by itself; or
            the number of one from 0; None refuses them.
        data: the bytes of the file, where they are in hand; errors name `location`.

    Returns:
        Speech, shape (n_samples,), float32 at `SAMPLE_RATE`, in [-1, 1]; for `each`
        (n_channels, n_samples).

    Raises:
        AudioError: no such file, bytes beyond the end of the shard, cut off or damaged,
            not decodable, no samples, several channels and no choice, samples that are
            not finite or far outside [-1, 1].
    """
    import numpy as np

    if data is None:
        data = read_bytes(AudioRef.parse(location), location)
    samples, rate = decode(data, location)
    if len(samples) == 0:
        # of a file without samples the number of channels says nothing
        raise AudioError(f"{printable(location)}: no samples; remove this utterance")
    (speech,) = chosen([samples], channel, location)
    speech = _check_values(speech, location)
    if rate == SAMPLE_RATE:
        return speech if channel != "each" else speech.T
    _announce(rate, location)
    if channel != "each":
        return resample(speech, rate, SAMPLE_RATE)
    return np.stack([resample(one, rate, SAMPLE_RATE) for one in speech.T])


def speech_blocks(
    location: str, channel: str | int | None = None, data: bytes | None = None
) -> Iterator["np.ndarray"]:
    """The samples of `read_audio`, a block at a time: of hours, in bounded memory.

    Args:
        location: see `read_audio`.
        channel: `mix`, `left`, `right`, or the number of one from 0; None refuses
            several channels.
        data: see `read_audio`.

    Yields:
        float32 (n_samples,) at `SAMPLE_RATE`.

    Raises:
        AudioError: see `read_audio`; damage shows when its block is reached.
    """
    if channel == "each":
        raise AudioError(
            "channel 'each' cannot be read in blocks; use one after the other"
        )
    ref = AudioRef.parse(location)
    source = data if data is not None else ref.path
    if data is None and ref.offset is not None:
        source = read_bytes(ref, location)
    with mapped(source, location) as bytes_of_file:
        rate, blocks = decode_blocks(bytes_of_file, location)
        given_back = _giving_back(blocks, bytes_of_file)
        mono = chosen(given_back, channel, location)
        checked = (_check_values(block, location) for block in mono)
        if rate == SAMPLE_RATE:
            yield from checked
        else:
            _announce(rate, location)
            yield from resample_blocks(checked, rate, SAMPLE_RATE)


def _giving_back(
    blocks: Iterable["np.ndarray"], bytes_of_file: Buffer
) -> Iterator["np.ndarray"]:
    """The same blocks; what was read of a mapped file does not stay in memory."""
    for block in blocks:
        if isinstance(bytes_of_file, mmap.mmap):
            bytes_of_file.madvise(mmap.MADV_DONTNEED)
        yield block


def level_db(speech: "np.ndarray") -> float:
    """Level of what is said, in dB below full scale; minus infinity for silence.

    It is the mean power of the stretches of 25 ms that are at most 30 dB below the
    loudest one, so that pauses do not count.

    >>> import numpy as np
    >>> tone = np.sin(np.arange(16_000) * 0.3).astype(np.float32)
    >>> round(level_db(np.concatenate([0.1 * tone, 0 * tone])), 1)  # power 0.01 / 2
    -23.0
    """
    return _level_of(_powers(speech))


def gain_to_level(parts: Iterable["np.ndarray"]) -> "np.float32":
    """The factor that makes speech as loud as most is, or as its peak allows.

    Args:
        parts: the speech, in parts of whole seconds but for the last.
    """
    import numpy as np

    powers, peak = [], 0.0
    for part in parts:
        powers.append(_powers(part))
        peak = max(peak, float(np.abs(part).max()))
    if not peak:
        return np.float32(1)
    gain = 10 ** ((LEVEL_DB - _level_of(np.concatenate(powers))) / 20)
    return np.float32(min(gain, 0.99 / peak))


def at_level(speech: "np.ndarray") -> "np.ndarray":
    """Speech made as loud as most is, or as its highest peak allows."""
    return speech * gain_to_level([speech])


def without_offset(speech: "Samples") -> "Samples":
    """Samples without the constant that cheap sound cards add, which is no sound.

    Digital silence between them stays what it is.

    Args:
        speech: (n_samples,), an array or tensor.

    >>> import numpy as np
    >>> without_offset(np.array([0.5, 0.0, 0.25])).tolist()
    [0.125, 0.0, -0.125]
    """
    is_there = speech != 0
    return speech - speech.sum() / max(int(is_there.sum()), 1) * is_there


def _powers(speech: "np.ndarray") -> "np.ndarray":
    """Mean power of each stretch of 25 ms; a rest that is shorter is left out."""
    import numpy as np

    speech = without_offset(speech)
    n = len(speech) // _LEVEL_FRAME * _LEVEL_FRAME
    frames = speech[:n].reshape(-1, _LEVEL_FRAME) if n else speech[None]
    return np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / frames.shape[1]


def _level_of(power: "np.ndarray") -> float:
    import numpy as np

    if not power.any():
        return float("-inf")
    return float(10 * np.log10(power[power >= power.max() / 1000].mean()))


def warn_of_level(
    speech: "np.ndarray", location: str, *, is_levelled: bool = False
) -> None:
    """Log a recording whose speech is far from the level of those learnt from.

    Args:
        is_levelled: it is heard as `at_level` makes it.
    """
    heard = at_level(speech) if is_levelled else speech
    level, peak = level_db(heard), float(abs(heard).max())
    is_usual = QUIET_DB <= level and (level <= LOUD_DB or peak <= 1)
    which = (location, len(speech), level)  # arrays have all the same name
    if is_usual or which in _announced_levels:
        return
    _announced_levels.add(which)
    n_named = len(_announced_levels)
    if n_named <= _MOST_NAMED:
        fault = f"its level is {level:.0f} dB, speech is near {LEVEL_DB:.0f}; "
        if not isfinite(level):
            fault = "silence from beginning to end"
        elif is_levelled:
            fault += "its peaks leave no room to make it louder"
        else:
            if level > LOUD_DB:
                fault += f"samples reach {peak:.3g}, expected [-1, 1]; "
            fault += "results will be worse without level: usual in the decode profile"
        more = " (others are not named)" if n_named == _MOST_NAMED else ""
        log.warning("%s: %s%s", printable(location), fault, more)


def _check_values(speech: "np.ndarray", location: str) -> "np.ndarray":
    """The same speech, unless its values are no sound."""
    import numpy as np

    if not len(speech):
        return speech
    # one pass over the samples: NaN and infinity show in the extremes as well
    low, high = float(speech.min()), float(speech.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise AudioError(
            f"{printable(location)}: holds NaN or infinite samples; encode it again"
        )
    if max(-low, high) > MAX_PEAK:
        raise AudioError(
            f"{printable(location)}: samples up to {max(-low, high):.6g}, expected "
            "[-1, 1]; integers were written as floats: divide them by 32768 (16 bit)"
        )
    return speech


def n_channels_of(location: str, data: bytes | None = None) -> int:
    """Channels of a recording, of which no more than the beginning is decoded.

    Args:
        location, data: see `speech_blocks`.

    Raises:
        AudioError: it cannot be read.
    """
    source = AudioRef.parse(location).path if data is None else data
    with mapped(source, location) as bytes_of_file:
        _, blocks = decode_blocks(bytes_of_file, location)
        first = next(iter(blocks), None)
        return 1 if first is None else first.shape[1]


def n_samples_of(location: str) -> int:
    """Length of one utterance at `SAMPLE_RATE`.

    It is that of the header, which is held against the bytes; where a header promises
    nothing, all is decoded.

    Args:
        location: a `wav.scp` value, see `read_audio`.

    Raises:
        AudioError: no such file, no audio, or more than one channel.
    """
    ref = AudioRef.parse(location)
    is_file = ref.offset is None and ref.path.exists()
    source = ref.path if is_file else read_bytes(ref, location)
    with open_sound(source, location) as file:
        if file.channels != 1:
            raise several_channels(file.channels, location)
        return n_samples_at_sample_rate(file.frames, file.samplerate)


def n_samples_at_sample_rate(n_samples: int, rate: int) -> int:
    """Length of `n_samples` at `rate` Hz once it is resampled to `SAMPLE_RATE`.

    >>> n_samples_at_sample_rate(44_101, 44_100)  # torchaudio rounds up
    16001
    """
    return -(-n_samples * SAMPLE_RATE // rate)


def resample(speech: "np.ndarray", rate: int, new_rate: int) -> "np.ndarray":
    """Speech at another rate: see `resample_blocks`."""
    import numpy as np

    return np.concatenate(list(resample_blocks([speech], rate, new_rate)))


_ROLLOFF, _ZEROS = 0.99, 6  # torchaudio's defaults: cut-off, and zero crossings a side


def resample_blocks(
    blocks: Iterable["np.ndarray"], rate: int, new_rate: int
) -> Iterator["np.ndarray"]:
    """Resample a stream by a sinc with a Hann window, in bounded memory.

    The filter is that of `torchaudio.functional.resample` with its defaults, which
    keeps one row of coefficients for each of `new_rate / gcd` phases over a whole
    period: 4.8 GB from 16,001 to 16,000 Hz. Here a phase keeps what is not zero.

    Args:
        blocks: float32 (n_samples,) each.
        rate: Hz of the blocks.
        new_rate: Hz of the result.

    Yields:
        float32; all of them together have ceil(n_samples * new_rate / rate) samples,
        and are the same however the input is cut.
    """
    import numpy as np
    from scipy.signal import upfirdn

    new, old = new_rate // gcd(rate, new_rate), rate // gcd(rate, new_rate)
    base = min(new, old) * _ROLLOFF
    reach = int(np.ceil(_ZEROS * old / base))  # input samples on each side
    # the filter on the grid of both rates, so long that the first output falls on it
    skip = -(-2 * reach * new // old)
    middle = skip * old - reach * new
    at = np.arange(-middle, middle + 1) * (base / (new * old))
    window = np.where(np.abs(at) < _ZEROS, np.cos(np.pi * at / _ZEROS / 2) ** 2, 0)
    taps = np.sinc(at) * window * (base / old)
    # whole periods, so that every block begins in the same phase
    period = max(1, _BLOCK // old)
    held, n_in, n_out = np.zeros(reach, np.float32), 0, 0

    def resampled(n: int) -> np.ndarray:
        part = upfirdn(taps, held.astype(np.float64), new, old)
        return part[skip : skip + n].astype(np.float32)

    for block in blocks:
        n_in += len(block)
        held = np.concatenate([held, block])
        while len(held) >= 2 * reach + period * old:
            rest = held
            held = rest[: 2 * reach + period * old]
            yield resampled(period * new)
            n_out += period * new
            held = rest[period * old :]
    held = np.concatenate([held, np.zeros(reach, np.float32)])
    yield resampled(-(-n_in * new_rate // rate) - n_out)


def n_encoder_frames(n_samples: int) -> int:
    """Encoder frames of an utterance: centred spectrogram, two strided convolutions.

    Each convolution has kernel 3, stride 2 and no padding, so the edges cost a frame:
    20 s are 2001 spectrogram frames, then 1000, then 499 (not 500).

    Args:
        n_samples: at `SAMPLE_RATE`.

    Returns:
        Number of frames of 40 ms; 0 for what is too short for the encoder.

    Source: ESPnet 202611, `Stft` with center and `Conv2dSubsampling`.

    >>> n_encoder_frames(int(WINDOW_S * SAMPLE_RATE))
    499
    """
    n_frames = n_samples // HOP_LENGTH + 1
    for _ in range(2):
        n_frames = (n_frames - 3) // 2 + 1
    return max(n_frames, 0)


_announced_rates: set[int] = set()
_announced_levels: set[tuple] = set()


def _announce(rate: int, location: str) -> None:
    if rate not in _announced_rates:
        _announced_rates.add(rate)
        log.warning(
            "%s: %d Hz, resampled to %d Hz like all others of this rate",
            printable(location),
            rate,
            SAMPLE_RATE,
        )
