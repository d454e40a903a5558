"""Articulatory features of phones, from the table of the installed PanPhon."""

import csv
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from powsm.errors import PowsmError


class UnknownPhoneError(PowsmError):
    """A phone without features in PanPhon's table."""


@dataclass(frozen=True)
class FeatureTable:
    """PanPhon's features of every phone it knows.

    Attributes:
        names: the 24 features, in PanPhon's order.
        index: row of each phone, NFD.
        values: shape (n_phones, 24), int8: -1, 0 or +1.
    """

    names: tuple[str, ...]
    index: dict[str, int]
    values: np.ndarray

    def of(self, phones: Iterable[str]) -> np.ndarray:
        """Feature values of phones, shape (n, 24), int8.

        Raises:
            UnknownPhoneError: a phone that is not in the table; it is never skipped.
        """
        phones = list(phones)
        unknown = [phone for phone in phones if phone not in self.index]
        if unknown:
            shown = ", ".join(
                f"{phone!r} ({' '.join(f'U+{ord(char):04X}' for char in phone)})"
                for phone in unknown[:5]
            )
            raise UnknownPhoneError(
                f"{len(unknown)} phones have no features: {shown}; expected phones of "
                "PanPhon's table in NFD: segment the text with powsm.phones first"
            )
        return self.values[[self.index[phone] for phone in phones]]


@lru_cache(maxsize=1)
def feature_table() -> FeatureTable:
    """The table of the installed PanPhon, read once (its package is not imported).

    >>> table = feature_table()
    >>> p, b = table.of(["p", "b"])
    >>> [name for name, x, y in zip(table.names, p, b) if x != y]
    ['voi']
    """
    spec = find_spec("panphon")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("panphon is not installed; run scripts/setup_env.sh")
    path = Path(spec.origin).parent / "data" / "ipa_all.csv"
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    value_of = {"-": -1, "0": 0, "+": 1}
    phones = [unicodedata.normalize("NFD", row[0]) for row in rows]
    values = np.array([[value_of[v] for v in row[1:]] for row in rows], np.int8)
    return FeatureTable(
        names=tuple(header[1:]),
        index={phone: row for row, phone in enumerate(phones)},
        values=values,
    )
