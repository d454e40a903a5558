"""Stretches of noise: from a folder of recordings, white or pink."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from powsm.audio import SAMPLE_RATE, resample
from powsm.audio_files import AudioError, open_sound
from powsm.errors import PowsmError
from powsm.train.augment.settings import Noise, recordings

log = logging.getLogger(__name__)


class NoiseFolder:
    """Recordings of noise, of which a stretch is read at a time.

    Raises:
        PowsmError: there is none.
    """

    def __init__(self, folder: Path):
        self._paths = sorted(map(str, recordings(folder)))
        if not self._paths:
            raise PowsmError(f"augment.noise.folder: {folder}: no recording in it")
        log.info("augment.noise: %d recordings in %s", len(self._paths), folder)

    def __call__(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """(n_samples,) float32 at `SAMPLE_RATE`, the mean of the channels.

        A recording that is too short is taken from its beginning, again and again.

        Raises:
            AudioError: the recording that was drawn cannot be used.
        """
        path = self._paths[int(rng.integers(len(self._paths)))]
        with open_sound(Path(path), path) as file:
            rate = file.samplerate
            wanted = -(-n_samples * rate // SAMPLE_RATE)
            begin = int(rng.integers(max(file.frames - wanted, 0) + 1))
            file.seek(begin)
            noise = file.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
        if not noise.size or not np.isfinite(noise).all():
            fault = "holds NaN or infinite samples" if noise.size else "has no samples"
            raise AudioError(f"{path}: {fault}; remove it from augment.noise.folder")
        if rate != SAMPLE_RATE:
            noise = resample(noise, rate, SAMPLE_RATE)
        return np.resize(noise, n_samples)


def white(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise (n_samples,) with as much power in every hertz."""
    return rng.standard_normal(n_samples, dtype=np.float32)


def pink(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise (n_samples,) whose power falls by 3 dB an octave."""
    spectrum = np.fft.rfft(white(n_samples, rng))
    spectrum[0] = 0
    spectrum[1:] /= np.sqrt(np.arange(1, spectrum.size))
    return np.fft.irfft(spectrum, n_samples).astype(np.float32)


def sources(settings: Noise) -> list[Callable]:
    """What noise is taken from, each as often as the others."""
    made: list[Callable] = []
    if settings.folder is not None:
        made.append(NoiseFolder(Path(settings.folder)))
    return made + [{"white": white, "pink": pink}[name] for name in settings.colours]
