#!/usr/bin/env python3
"""Throughput of the phone normaliser beside PanPhon's `ipa_segs`, on the same strings.

Usage: normaliser.py [--strings N]. Prints one JSON line.

Strings come from made-up languages, 5,000 strings and 5,000 words each. Words come back
as often as words do (Zipf's law, exponent 1), which the normaliser's memory of words
makes use of; `normaliser_ratio_new_words` is the ratio on words met once.
"""

import argparse
import gc
import itertools
import json
import random
import sys
import time
import warnings
from collections.abc import Callable

from powsm.phones.normaliser import Normaliser

_STRINGS_PER_LANGUAGE = 5_000
_N_WORDS = 5_000  # of a language
_TURN = 1_000  # strings
_ONSETS = "p b t d k ɡ m n ɲ f v s z ʃ ʒ h x l ɾ r j w t͡ʃ d͡ʒ t͡s pʰ kʲ t̪ st pl".split()
_NUCLEI = "a e i o u ə ɛ ɔ ɪ ʊ aː iː uː ɑ̃ ẽ y ø".split()
_CODAS = ("", "", "n", "s", "r", "t̪", "ŋ", "l̴")


def _words(rng: random.Random) -> list[str]:
    """The vocabulary of one language: one to four syllables from its own sounds."""
    onsets, nuclei = rng.sample(_ONSETS, 18), rng.sample(_NUCLEI, 9)
    return [
        "".join(
            rng.choice(onsets) + rng.choice(nuclei) + rng.choice(_CODAS)
            for _ in range(rng.randint(1, 4))
        )
        for _ in range(_N_WORDS)
    ]


def make_strings(n_strings: int, seed: int = 1) -> list[str]:
    """Utterances of 5 to 25 words, language by language as in a corpus."""
    rng = random.Random(seed)
    frequencies = list(
        itertools.accumulate(1 / rank for rank in range(1, _N_WORDS + 1))
    )
    strings: list[str] = []
    while len(strings) < n_strings:
        words = _words(rng)
        for _ in range(min(_STRINGS_PER_LANGUAGE, n_strings - len(strings))):
            length = rng.randint(5, 25)
            chosen = rng.choices(words, cum_weights=frequencies, k=length)
            strings.append(" ".join(chosen))
    return strings


def _cpu_seconds(segment: Callable[[str], object], strings: list[str]) -> float:
    start = time.process_time()
    for string in strings:
        segment(string)
    return time.process_time() - start


def measure(n_strings: int = 100_000) -> dict[str, float]:
    """Compare both on `n_strings` strings, on a sample of which they must agree.

    Returns:
        `normaliser_ratio`: CPU time of `ipa_segs` over ours; the same for words met
        once; `strings`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        from panphon import FeatureTable

    panphon = FeatureTable()
    strings = make_strings(n_strings)
    # words as long as those, but each one once
    new_words = [
        string.replace(" ", "") for string in strings[:: max(1, n_strings // 5_000)]
    ]
    return {
        "normaliser_ratio": _ratio(panphon.ipa_segs, strings),
        "normaliser_ratio_new_words": _ratio(panphon.ipa_segs, new_words),
        "strings": n_strings,
    }


def _ratio(ipa_segs: Callable[[str], list[str]], strings: list[str]) -> float:
    """CPU time of PanPhon over ours; in turns, as the machine may have other work.

    Garbage is not collected meanwhile, as `timeit` does it: one collection of all that
    the process holds takes a tenth of our time, in whosever turn it falls.
    """
    normaliser = Normaliser()
    theirs_s = ours_s = 0.0
    gc.collect()
    gc.disable()
    try:
        for start in range(0, len(strings), _TURN):
            turn = strings[start : start + _TURN]
            if list(normaliser.segment(turn[0]).phones) != ipa_segs(turn[0]):
                raise ValueError(f"phones of {turn[0]!r} are not PanPhon's")
            theirs_s += _cpu_seconds(ipa_segs, turn)
            ours_s += _cpu_seconds(normaliser.segment, turn)
    finally:
        gc.enable()
    return round(theirs_s / ours_s, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strings", type=int, default=100_000)
    json.dump(measure(parser.parse_args().strings), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
