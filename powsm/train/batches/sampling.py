"""Which utterances come in a pass, and how often: by language, and by weight."""

import numpy as np

from powsm.errors import PowsmError


def sample_pass(
    n_samples: np.ndarray,
    temperature: float,
    langs: np.ndarray | None,
    times: np.ndarray | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Utterance numbers of a pass int32, shuffled.

    Args:
        n_samples: length of each utterance (n,).
        temperature: of languages, see `BatchOptions`; 1 leaves them as they are.
        langs: a number for each utterance's language (n,), where it is not 1.
        times: how often each utterance is wanted (n,); None is once. A language has
            the hours that they leave it.
        rng: of this pass.

    Raises:
        PowsmError: `times` come to less than one utterance.
    """
    if times is None:
        if temperature == 1.0:
            return rng.permutation(len(n_samples)).astype(np.int32)
        return sample_languages(n_samples, langs, temperature, rng)
    if temperature != 1.0:
        lang, often = _times_of_languages(times * n_samples, langs, temperature)
        times = times * often[lang]
    if times.sum() < 1:
        raise PowsmError(
            f"the weights of {len(n_samples)} utterances add up to "
            f"{times.sum():.2g}, so that a pass may have none; raise them"
        )
    return sample_weighted(times, rng)


def sample_languages(
    n_samples: np.ndarray,
    langs: np.ndarray,
    temperature: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Utterance numbers of a pass in which languages have hours^(1/temperature).

    A language that is wanted 2.3 times comes whole twice, and three tenths of its
    utterances, drawn anew for every pass, once more.

    Args:
        n_samples: length of each utterance (n,).
        langs: a number for the language of each utterance (n,).
        temperature: see `BatchOptions`.
        rng: of this pass.

    Returns:
        About n utterance numbers int32, shuffled.
    """
    lang, times = _times_of_languages(n_samples, langs, temperature)
    chosen = []
    for number, often in enumerate(times):
        mine = np.flatnonzero(lang == number)
        whole = int(often)
        rest = round((often - whole) * mine.size)
        chosen += [np.tile(mine, whole), rng.permutation(mine)[:rest]]
    return rng.permutation(np.concatenate(chosen)).astype(np.int32)


def _times_of_languages(
    n_samples: np.ndarray, langs: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """The number of each utterance's language, and how often each language comes."""
    _, lang = np.unique(langs, return_inverse=True)
    hours = np.bincount(lang, weights=n_samples)
    wanted = hours ** (1.0 / temperature)
    return lang, wanted / wanted.sum() * hours.sum() / hours


def sample_weighted(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Utterance numbers of a pass in which each comes as often as it is wanted.

    One that is wanted 2.3 times comes twice and, with a chance of 0.3, once more; how
    many there are in all differs by less than one from pass to pass.

    Args:
        times: how often each utterance is wanted (n,).
        rng: of this pass.

    Returns:
        Utterance numbers int32, shuffled.
    """
    whole = np.floor(times).astype(np.int64)
    order = rng.permutation(times.size)
    steps = np.floor(np.cumsum((times - whole)[order]) + rng.random())
    once_more = order[np.diff(steps, prepend=0.0) > 0]
    chosen = np.concatenate([np.repeat(np.arange(times.size), whole), once_more])
    return rng.permutation(chosen).astype(np.int32)
