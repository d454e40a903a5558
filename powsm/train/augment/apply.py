"""Speed, reverberation and noise of a recording, from counters alone.

What becomes of a recording follows from the seed, its utt_id, the pass over the data
and how often it came in that pass before: the same with any number of ranks and
loading processes, and after a break. It is done once for all examples of a recording.
Targets hold no times (`<notimestamps>`), so that none has to be moved.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch

from powsm.audio import SAMPLE_RATE, resample
from powsm.train.augment.noise import sources
from powsm.train.augment.settings import Augment, Noise

_N_ROOMS = 100  # that are made up: one takes most of a second
_OF_NOISE, _OF_REVERB = 1, 2  # numbers of the draws, each independent of the others


def at_speed(speech: np.ndarray, factor: float) -> np.ndarray:
    """Speech (n_samples,) that is spoken `factor` times as fast, and as much higher."""
    return resample(speech, rate_of(factor), SAMPLE_RATE)


def rate_of(factor: float) -> int:
    """Hz at which a recording is taken to be, so that it becomes as much faster."""
    return round(factor * SAMPLE_RATE)


class Augmenter:
    """Reverberation and noise of recordings; their speed is in the plan of a pass.

    Args:
        settings: what is done.
        seed: of the training.
    """

    def __init__(self, settings: Augment, seed: int):
        self.settings = settings
        self._seed = seed
        self._sources = sources(settings.noise) if settings.noise else []

    def __call__(
        self, speech: np.ndarray, utt_id: str, draw: tuple[int, int]
    ) -> tuple[np.ndarray, list[str]]:
        """A recording (n_samples,) as it is learned from, and what was done to it.

        Args:
            draw: number of the pass, and how often the recording came in it before.
        """
        done = []
        mine = (self._seed, *draw, zlib.crc32(utt_id.encode()))
        reverb, noise = self.settings.reverb, self.settings.noise
        rng = np.random.default_rng((*mine, _OF_REVERB))
        if reverb is not None and rng.random() < reverb.prob:
            speech = _reverberant(speech, self._seed, int(rng.integers(_N_ROOMS)))
            done.append("reverb")
        rng = np.random.default_rng((*mine, _OF_NOISE))
        if noise is not None and rng.random() < noise.prob:
            source = self._sources[int(rng.integers(len(self._sources)))]
            speech = _with_noise(speech, source(speech.size, rng), noise, rng)
            done.append("noise")
        return speech, done


def _with_noise(
    speech: np.ndarray, noise: np.ndarray, settings: Noise, rng: np.random.Generator
) -> np.ndarray:
    """Speech with noise so far below it; silence and silent noise change nothing."""
    snr_db = rng.uniform(*settings.snr_db)
    # numpy's sum is the same with any number of threads, a BLAS' and torch's are not
    power, power_of_noise = (
        np.square(x, dtype=np.float64).sum() for x in (speech, noise)
    )
    if power == 0 or power_of_noise == 0:
        return speech
    gain = np.sqrt(power / power_of_noise) * 10 ** (-snr_db / 20)
    return speech + np.float32(gain) * noise


def _reverberant(speech: np.ndarray, seed: int, room: int) -> np.ndarray:
    """Speech in a room, as long, as loud and not later than it was."""
    from lhotse.augmentation.rir import ReverbWithImpulseResponse

    response = _response(seed, room)
    with _one_thread():
        reverb = ReverbWithImpulseResponse(rir_generator=lambda nsource: response)
        return reverb(speech[None], SAMPLE_RATE)[0]


@lru_cache(maxsize=_N_ROOMS)
def _response(seed: int, room: int) -> np.ndarray:
    """The impulse response (1, n_samples) of a made-up room."""
    from lhotse.augmentation.utils import FastRandomRIRGenerator

    seeds = np.random.SeedSequence((seed, room)).generate_state(3)
    room_seed, source_seed, torch_seed = map(int, seeds)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed)  # which it draws reflections by
        make = FastRandomRIRGenerator(
            sr=SAMPLE_RATE, room_seed=room_seed, source_seed=source_seed
        )
        return make(nsource=1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch with one thread, as loading processes have: more give other sums."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
