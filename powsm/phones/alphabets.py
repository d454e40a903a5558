"""Phone alphabets of corpora and other recognisers, and what they are in IPA.

A table is `powsm/phones/alphabet_<name>.csv`: a label, its phones with spaces between
them (none for a label that is no sound), and who says so. Labels are NFD. A label that
is a mark alone stands on a dotted circle, so that no editor composes it.

`espeak` holds the units of wav2vec 2.0 models that were taught espeak-ng's phonemes
(Xu et al., Simple and Effective Zero-shot Cross-lingual Phoneme Recognition, 2021),
`allosaurus` those that its README lists, `multipa` those of its full vocabulary and
`zipa` the 127 pieces of its tokenizer. The last two write no spaces between units.
"""

import csv
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib.resources import files

from powsm.errors import PowsmError
from powsm.formatting import code_points

UNSPACED = frozenset({"multipa", "zipa"})  # the longest label that fits is a unit
_CIRCLE = "\N{DOTTED CIRCLE}"
_SHOWN = 5  # unknown labels named in an error


class AlphabetError(PowsmError):
    """A label that an alphabet does not have, or an unknown alphabet."""


def phone_maps() -> tuple[str, ...]:
    """Names of the alphabets that can be mapped to IPA."""
    names = (file.name for file in files("powsm.phones").iterdir())
    maps = (re.fullmatch(r"alphabet_(\w+)\.csv", name) for name in names)
    return tuple(sorted(match[1] for match in maps if match))


@cache
def read_alphabet(name: str) -> dict[str, str]:
    """Label -> phones with spaces between them.

    Raises:
        AlphabetError: no alphabet of that name.
    """
    if name not in phone_maps():
        raise AlphabetError(
            f"phone map {name!r} is not known; use one of {' '.join(phone_maps())}"
        )
    table = files("powsm.phones").joinpath(f"alphabet_{name}.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    nfd = partial(unicodedata.normalize, "NFD")
    return {
        nfd(row["symbol"].removeprefix(_CIRCLE)): row["phones"].removeprefix(_CIRCLE)
        for row in rows
    }


def units_of(labels: Iterable[str], alphabet: str) -> list[str]:
    """The units of a transcript, given word by word; each is a label of the alphabet.

    Raises:
        AlphabetError: something that the alphabet does not have.

    >>> units_of(["pʰɔsː"], "zipa")
    ['p', 'ʰ', 'ɔ', 's', 'ː']
    """
    table = read_alphabet(alphabet)
    units = [unicodedata.normalize("NFD", label) for label in labels]
    if alphabet in UNSPACED:
        units = [unit for word in units for unit in _longest_units(alphabet)(word)]
    if missing := sorted({unit for unit in units if unit not in table}):
        named = (
            f"{unit} ({code_points(unit)})" if alphabet in UNSPACED else unit
            for unit in missing[:_SHOWN]
        )
        between = "" if alphabet in UNSPACED else ", with spaces between them"
        raise AlphabetError(
            f"{' '.join(named)} not in phone map {alphabet!r}; "
            f"expected symbols like {' '.join(sorted(table)[:_SHOWN])}{between}"
        )
    return units


@cache
def _longest_units(alphabet: str) -> Callable[[str], list[str]]:
    longest_first = sorted(read_alphabet(alphabet), key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, longest_first), "."])).findall


def to_ipa(labels: Iterable[str], alphabet: str) -> str:
    """Labels as IPA, with spaces between the phones where the labels have some.

    Raises:
        AlphabetError: labels that the alphabet does not have.

    >>> to_ipa("h# sh iy dcl jh".split(), "timit")
    'ʃ i d͡ʒ'
    >>> to_ipa(["gʲ", "ɛː"], "zipa")
    'ɡʲɛː'
    """
    table = read_alphabet(alphabet)
    between = "" if alphabet in UNSPACED else " "
    return between.join(table[u] for u in units_of(labels, alphabet) if table[u])


def unstressed(symbol: str) -> str:
    """An ARPABET symbol without its stress digit, which first decides AH: AX or AH.

    CMU's dictionary writes [ə] as AH0 and [ʌ] as AH1 and AH2.

    >>> [unstressed(symbol) for symbol in ("AH0", "AH1", "AH", "IY2", "S")]
    ['AX', 'AH', 'AH', 'IY', 'S']
    """
    return "AX" if symbol == "AH0" else symbol.rstrip("0123456789")
