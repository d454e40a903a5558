"""The phone inventory and the table of everything else that IPA text may hold.

The inventory is PanPhon's; the version that `pyproject.toml` pins decides token ids.
`phone_map.csv` spells characters as code points, so that no editor can compose
them; its kinds are "alias" (source and target) and the kinds of ignorable characters.
"""

import csv
import hashlib
import importlib.util
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

UNKNOWN = "unknown"  # kind of a character that no table explains
_TABLE_KINDS = ("stress", "tone", "break", "diacritic", "invisible")


def _read_panphon() -> tuple[str, ...]:
    """PanPhon's segments as its file spells them, without importing PanPhon (slow)."""
    spec = importlib.util.find_spec("panphon")
    path = Path(spec.submodule_search_locations[0]) / "data" / "ipa_all.csv"
    with open(path, encoding="utf-8", newline="") as file:
        return tuple(row["ipa"] for row in csv.DictReader(file))


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


PANPHON_SEGMENTS = _read_panphon()  # 90 of them are not NFD
INVENTORY: tuple[str, ...] = tuple(
    dict.fromkeys(unicodedata.normalize("NFD", phone) for phone in PANPHON_SEGMENTS)
)
_PHONE_MAP = files("powsm.phones").joinpath("phone_map.csv").read_text(encoding="utf-8")
ALIASES, KINDS = read_phone_map(_PHONE_MAP)
PHONE_MAP_HASH = hashlib.sha256(_PHONE_MAP.encode()).hexdigest()[:8]


def kind_of(char: str) -> str:
    """Why a character that is in no phone may be ignored, or "unknown".

    >>> [kind_of(char) for char in "ˈ˥|,Q"]
    ['stress', 'tone', 'break', 'punctuation', 'unknown']
    """
    if char in KINDS:
        return KINDS[char]
    if char.isspace():
        return "space"
    if unicodedata.category(char).startswith("P"):
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
