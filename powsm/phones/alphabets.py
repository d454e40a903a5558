"""Phone alphabets of corpora and other recognisers, and what they are in IPA.

A table is `powsm/phones/alphabet_<name>.csv`: a label, its phones with spaces between
them (none for a label that is no sound), and who says so. Labels are NFD.

`espeak` holds the units of wav2vec 2.0 models that were taught espeak-ng's phonemes
(Xu et al., Simple and Effective Zero-shot Cross-lingual Phoneme Recognition, 2021).
"""

import csv
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from powsm.errors import PowsmError

_SHOWN = 5  # unknown labels named in an error


class AlphabetError(PowsmError):
    """A label that an alphabet does not have, or an alphabet that there is not."""


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
    return {unicodedata.normalize("NFD", row["symbol"]): row["phones"] for row in rows}


def to_ipa(labels: Iterable[str], alphabet: str) -> str:
    """Labels as IPA, with spaces between the phones.

    Raises:
        AlphabetError: labels that the alphabet does not have.

    >>> to_ipa("h# sh iy dcl jh".split(), "timit")
    'ʃ i d͡ʒ'
    """
    table = read_alphabet(alphabet)
    labels = [unicodedata.normalize("NFD", label) for label in labels]
    missing = sorted({label for label in labels if label not in table})
    if missing:
        raise AlphabetError(
            f"{' '.join(missing[:_SHOWN])} not in phone map {alphabet!r}; "
            f"expected symbols like {' '.join(sorted(table)[:_SHOWN])}, with "
            "spaces between them"
        )
    return " ".join(table[label] for label in labels if table[label])


def unstressed(symbol: str) -> str:
    """An ARPABET symbol without its stress digit, which first decides AH: AX or AH.

    CMU's dictionary writes [ə] as AH0 and [ʌ] as AH1 and AH2.

    >>> [unstressed(symbol) for symbol in ("AH0", "AH1", "AH", "IY2", "S")]
    ['AX', 'AH', 'AH', 'IY', 'S']
    """
    return "AX" if symbol == "AH0" else symbol.rstrip("0123456789")
