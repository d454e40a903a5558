"""The phone inventory with its features, and all else that IPA text may hold.

The inventory is PanPhon's; the version that `pyproject.toml` pins decides token ids.
`phone_map.csv` spells characters as code points, so that no editor can compose
them; its kinds are "alias" (source and target) and the kinds of ignorable characters.
"""

import csv
import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from powsm.errors import PowsmError
from powsm.formatting import code_points

UNKNOWN = "unknown"  # kind of a character that no table explains
_VARIATION_SELECTORS = frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
_TABLE_KINDS = ("stress", "tone", "break", "diacritic", "invisible")


def panphon_file(name: str) -> Path:
    """A data file of the installed PanPhon, without importing it (slow)."""
    spec = find_spec("panphon")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("panphon is not installed; run pip install -e .")
    return Path(spec.origin).parent / "data" / name


def _read_panphon() -> list[list[str]]:
    """PanPhon's header ("ipa" and 24 features), then a row for each segment."""
    with open(panphon_file("ipa_all.csv"), encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _decode(code_points: str) -> str:
    return "".join(chr(int(point[2:], 16)) for point in code_points.split())


def read_phone_map(table: str) -> tuple[dict[str, str], dict[str, str]]:
    """Parse the table: aliases (source to target), and kinds of other characters.

    Raises:
        ValueError: a row names an unknown kind, repeats a source, or is not NFD.
    """
    aliases: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for number, row in enumerate(csv.DictReader(table.splitlines()), start=2):
        where = f"powsm/phones/phone_map.csv:{number}"
        source, target = _decode(row["source"]), _decode(row["target"])
        for text in (source, target):
            if not unicodedata.is_normalized("NFD", text):
                raise ValueError(f"{where}: {text!r} is not NFD; decompose it")
        if source in aliases or source in kinds:
            raise ValueError(f"{where}: {row['source']} has a row already; keep one")
        if row["kind"] == "alias":
            aliases[source] = target
        elif row["kind"] in _TABLE_KINDS:
            kinds[source] = row["kind"]
        else:
            raise ValueError(
                f"{where}: kind {row['kind']!r} is not known; use alias, "
                f"{', '.join(_TABLE_KINDS)}"
            )
    return aliases, kinds


_HEADER, *_ROWS = _read_panphon()
PANPHON_SEGMENTS = tuple(row[0] for row in _ROWS)  # 90 of them are not NFD
FEATURE_NAMES = tuple(_HEADER[1:])
# "-", "0" or "+" for each name
FEATURES = {unicodedata.normalize("NFD", row[0]): tuple(row[1:]) for row in _ROWS}
INVENTORY: tuple[str, ...] = tuple(FEATURES)
_PHONE_MAP = files("powsm.phones").joinpath("phone_map.csv").read_text(encoding="utf-8")
ALIASES, KINDS = read_phone_map(_PHONE_MAP)
PHONE_MAP_HASH = hashlib.sha256(_PHONE_MAP.encode()).hexdigest()[:8]


@lru_cache(maxsize=4096)
def kind_of(char: str) -> str:
    """Why a character that is in no phone may be ignored, or "unknown".

    >>> [kind_of(char) for char in "ˈ˥|,Q"]
    ['stress', 'tone', 'break', 'punctuation', 'unknown']
    """
    if char in KINDS:
        return KINDS[char]
    if char.isspace():
        return "space"
    category = unicodedata.category(char)
    if category == "Cf" or char in _VARIATION_SELECTORS:
        return "invisible"
    if category.startswith("P"):
        return "punctuation"
    return UNKNOWN


def build_trie(words: Iterable[str]) -> dict:
    """Nested dictionaries by character; the key "" marks the end of a word."""
    root: dict = {}
    for word in words:
        node = root
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return root


def longest_match_pattern(trie: dict) -> str:
    """Regular expression for the words of a trie; it prefers the longest.

    Characters with the same continuations share a branch, the largest group first:
    the inventory becomes a third shorter and a fifth faster than branch by branch.

    >>> longest_match_pattern(build_trie(["ta", "da", "t", "d"]))
    '[dt](?:a)?'
    """
    groups = defaultdict(list)
    for char, child in trie.items():
        if char:
            groups[longest_match_pattern(child)].append(char)
    if not groups:
        return ""
    branches = []
    for rest, chars in sorted(groups.items(), key=lambda item: -len(item[1])):
        first = "".join(map(re.escape, sorted(chars)))
        branches.append((f"[{first}]" if len(chars) > 1 else first) + rest)
    if "" in trie:
        return f"(?:{'|'.join(branches)})?"
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


# --- features -------------------------------------------------------------------------


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
                f"{phone!r} ({code_points(phone)})" for phone in unknown[:5]
            )
            raise UnknownPhoneError(
                f"{len(unknown)} phones have no features: {shown}; expected phones of "
                "PanPhon's table in NFD: segment the text with powsm.phones first"
            )
        return self.values[[self.index[phone] for phone in phones]]


def signed_features(phone: str) -> str:
    """The features that a phone has a value for, with their signs.

    Raises:
        UnknownPhoneError: it is not in the table.

    >>> signed_features("p").split()[:4]
    ['-syl', '-son', '+cons', '-cont']
    """
    table = feature_table()
    (values,) = table.of([phone]).tolist()
    signs = {-1: "-", 1: "+"}
    return " ".join(
        signs[value] + name
        for name, value in zip(table.names, values, strict=True)
        if value
    )


@cache
def feature_table() -> FeatureTable:
    """The table of the installed PanPhon.

    >>> table = feature_table()
    >>> p, b = table.of(["p", "b"])
    >>> [name for name, x, y in zip(table.names, p, b) if x != y]
    ['voi']
    """
    value_of = {"-": -1, "0": 0, "+": 1}
    return FeatureTable(
        names=FEATURE_NAMES,
        index={
            unicodedata.normalize("NFD", phone): number
            for number, phone in enumerate(PANPHON_SEGMENTS)
        },
        values=np.array([[value_of[v] for v in row[1:]] for row in _ROWS], np.int8),
    )
