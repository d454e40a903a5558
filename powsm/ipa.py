"""Phones: the inventory, and the one normaliser that turns IPA text into phones.

Preparation, prompts, decoding and scoring all segment through `Normaliser`, so that
the model is taught, asked and judged in the same phones. Policies:

`strict` (default)
    NFD on both sides, aliases of `data/phone_map.csv`, longest match with rewind, the
    English rules on every word. Every character that ends up in no phone is reported.
`released`
    What the public recipe did for the published checkpoint, quirk for quirk: ASCII
    punctuation deleted, three aliases, a walk that does not rewind, an inventory that
    was not normalised, English rules that miss the first word.
`powsm_fix`
    `released` with the one change that the recipe of the text-normalised checkpoint
    made to it: no aspiration before s and ʃ, so untied affricates stay whole.

The inventory is PanPhon's; the version that `pyproject.toml` pins decides token ids.
"""

import csv
import hashlib
import importlib.metadata
import importlib.util
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from powsm.languages import lang_code

POLICIES = ("strict", "released", "powsm_fix")
SUPRASEGMENTALS = "ː\u02d1\u0306\u035c"  # long, half-long, breve, tie below
UNKNOWN = "unknown"  # kind of a dropped character that no table explains

_RULES_VERSION = 1  # raise it when code below changes what comes out
_CONTEXT = 3  # characters kept on either side of a dropped one
_CACHE_WORDS = 100_000  # words remembered; about 50 MiB when full
_CACHE_LENGTH = 40  # longer words hardly come back (text without spaces)


class PhoneFormatError(ValueError):
    """Text is not a sequence of phones between slashes."""


class Drop(NamedTuple):
    """A character of the input that is in no phone.

    Attributes:
        char: as written, after NFD.
        position: index in the NFD form of the input.
        context: the character with its neighbours.
        kind: "space", "stress", "tone", "break", "punctuation", "diacritic",
            "invisible", "markup": known, and ignored on purpose. "unknown": not known.
    """

    char: str
    position: int
    context: str
    kind: str


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Phones of a text, with an account of everything else that was in it.

    Attributes:
        phones: inventory phones, NFD.
        dropped: in order of appearance.
        aliases: the source of each alias that went into a phone, repeats included.
    """

    phones: tuple[str, ...]
    dropped: tuple[Drop, ...]
    aliases: tuple[str, ...]

    @property
    def unknown_count(self) -> int:
        """Dropped characters that are not known to be ignorable."""
        return sum(drop.kind == UNKNOWN for drop in self.dropped)

    def dropped_by_kind(self) -> Counter[str]:
        """How many characters each kind of drop took."""
        return Counter(drop.kind for drop in self.dropped)


class _Word(NamedTuple):
    """What one word becomes: positions count from the start of the word."""

    phones: tuple[str, ...]
    dropped: tuple[tuple[str, int, str], ...]  # char, position, kind
    aliases: tuple[str, ...]


# --- tables ---------------------------------------------------------------------------


def _read_inventory() -> tuple[str, ...]:
    """PanPhon's segments as its file spells them, without importing PanPhon (slow)."""
    spec = importlib.util.find_spec("panphon")
    path = Path(spec.submodule_search_locations[0]) / "data" / "ipa_all.csv"
    with open(path, encoding="utf-8", newline="") as file:
        return tuple(row["ipa"] for row in csv.DictReader(file))


def _decode(code_points: str) -> str:
    return "".join(chr(int(point[2:], 16)) for point in code_points.split())


def _read_phone_map() -> tuple[dict[str, str], dict[str, str], str]:
    """Aliases, kinds of ignorable characters, and a hash of the table."""
    text = files("powsm").joinpath("data/phone_map.csv").read_text(encoding="utf-8")
    aliases, kinds = {}, {}
    for row in csv.DictReader(text.splitlines()):
        source = _decode(row["source"])
        if row["kind"] == "alias":
            aliases[source] = _decode(row["target"])
        else:
            kinds[source] = row["kind"]
    return aliases, kinds, hashlib.sha256(text.encode()).hexdigest()[:8]


_PANPHON_SEGMENTS = _read_inventory()
INVENTORY: tuple[str, ...] = tuple(
    dict.fromkeys(unicodedata.normalize("NFD", phone) for phone in _PANPHON_SEGMENTS)
)
_KNOWN = frozenset(INVENTORY)
_ALIASES, _KINDS, _MAP_HASH = _read_phone_map()
_RELEASED_ALIASES = {"ʡ": "ʔ", "ᶑ": "ɗ", "g": "ɡ"}


def _kind(char: str) -> str:
    """Why a character that is in no phone may be ignored, or "unknown"."""
    if char in _KINDS:
        return _KINDS[char]
    if char.isspace():
        return "space"
    if unicodedata.category(char).startswith("P"):
        return "punctuation"
    return UNKNOWN


# --- longest match --------------------------------------------------------------------


def _trie(words: Iterable[str]) -> dict:
    """Nested dictionaries by character; the key "" marks the end of a word."""
    root: dict = {}
    for word in words:
        node = root
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return root


def _trie_pattern(node: dict) -> str:
    """Regular expression for the words of a trie that prefers the longest."""
    leaves = [
        re.escape(char) for char, child in node.items() if char and list(child) == [""]
    ]
    branches = [
        re.escape(char) + _trie_pattern(child)
        for char, child in node.items()
        if char and list(child) != [""]
    ]
    if leaves:
        branches.append(f"[{''.join(leaves)}]" if len(leaves) > 1 else leaves[0])
    pattern = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    return f"(?:{pattern})?" if "" in node else pattern


_SEGMENT = re.compile(f"({_trie_pattern(_trie(INVENTORY))})|.", re.DOTALL)
_ALIAS = re.compile(
    "|".join(sorted(map(re.escape, _ALIASES), key=lambda s: (-len(s), s)))
)
# <p:> and <<fp>> of corpora, <unk> of other recognisers, (en) of espeak
_MARKUP = re.compile(r"<+[^<>\s]+>+|\(([a-z]{2,3}(?:-[a-z0-9]+)*)\)")


def _apply_aliases(word: str) -> tuple[list[str], list[int], list[tuple[int, str]]]:
    """Replace aliases; keep for each character where it came from.

    Returns:
        characters, the index in `word` of each, and (index in the result, source) of
        each alias. Marks are put back into canonical order, as a mark below may stand
        for one above.
    """
    chars: list[str] = []
    origins: list[int] = []
    used: list[tuple[int, str]] = []
    end = 0
    for match in _ALIAS.finditer(word):
        chars += word[end : match.start()]
        origins += range(end, match.start())
        target = _ALIASES[match[0]]
        used.append((match.start(), match[0]))
        chars += target
        origins += [match.start()] * len(target)
        end = match.end()
    chars += word[end:]
    origins += range(end, len(word))
    return chars, origins, used


def _in_canonical_order(chars: list[str]) -> list[int]:
    """Indices that put combining marks into NFD order."""
    order = list(range(len(chars)))
    start = 0
    for i in range(1, len(chars) + 1):
        if i == len(chars) or unicodedata.combining(chars[i]) == 0:
            marks = order[start + 1 : i]
            order[start + 1 : i] = sorted(
                marks, key=lambda k: unicodedata.combining(chars[k])
            )
            start = i
    return order


def _strict_piece(piece: str, start: int) -> _Word:
    """Segment text without spaces or markup that begins at `start` of its word."""
    chars, origins, used = _apply_aliases(piece)
    if used:
        order = _in_canonical_order(chars)
        chars = [chars[k] for k in order]
        origins = [origins[k] for k in order]
    phones, dropped, kept = [], [], set()
    for match in _SEGMENT.finditer("".join(chars)):
        if match[1] is not None:
            phones.append(match[1])
            kept.update(origins[match.start() : match.end()])
        else:
            origin = origins[match.start()]
            kind = _kind(match[0])
            dropped.append((piece[origin], start + origin, kind))
    aliases = tuple(source for origin, source in used if origin in kept)
    return _Word(tuple(phones), tuple(dropped), aliases)


def _strict_word(word: str) -> _Word:
    """Segment one NFD word: aliases, then longest match with rewind."""
    pieces: list[_Word] = []
    end = 0
    for mark in _MARKUP.finditer(word):
        if mark[1] is not None and lang_code(mark[1]) is None:
            continue
        pieces.append(_strict_piece(word[end : mark.start()], end))
        inside = range(mark.start(), mark.end())
        pieces.append(_Word((), tuple((word[i], i, "markup") for i in inside), ()))
        end = mark.end()
    pieces.append(_strict_piece(word[end:], end))
    if len(pieces) == 1:
        return pieces[0]
    return _Word(*(sum((p[field] for p in pieces), ()) for field in range(3)))


# --- the public recipe's walk ---------------------------------------------------------


@cache
def _released_trie() -> dict:
    return _trie(_PANPHON_SEGMENTS)


def _released_word(word: str, suprasegmentals: bool) -> _Word:
    """Segment one word the way the public recipe does, losses included.

    The walk goes down the trie as far as it can, keeps the last whole phone on the way
    and goes on where it stopped: what it read after that phone is lost. Then it skips
    to the next character that can begin a phone.
    """
    root = _released_trie()
    gone = set(string.punctuation)
    if not suprasegmentals:
        gone.update(SUPRASEGMENTALS)
    places = [i for i, char in enumerate(word) if char not in gone]
    chars = [_RELEASED_ALIASES.get(word[i], word[i]) for i in places]
    phones: list[str] = []
    kept: set[int] = set()
    i = 0
    while i < len(chars):
        node, start, end = root, i, i
        while i < len(chars) and chars[i] in node:
            node = node[chars[i]]
            i += 1
            if "" in node:
                end = i
        if end > start:
            phones.append("".join(chars[start:end]))
            kept.update(places[start:end])
        while i < len(chars) and chars[i] not in root:
            i += 1
    dropped = tuple((c, k, _kind(c)) for k, c in enumerate(word) if k not in kept)
    aliases = tuple(word[k] for k in sorted(kept) if word[k] in _RELEASED_ALIASES)
    return _Word(tuple(phones), dropped, aliases)


# --- English --------------------------------------------------------------------------

_LENGTH = "ː\u02d1"
_VOICELESS = frozenset("ptk")
_DEVOICED = {"b": "p", "d": "t", "ɡ": "k"}
_DARK_L = "l\u0334"
_VOWELS = frozenset(["i", "ɪ", "e", "ɛ", "æ", "u", "ʊ", "o", "ɔ", "ɑ", "ə", "ɜ˞", "ʌ"])
_NASALISED = frozenset("iɪeɛæuʊoɔɑ")
_NASALS = frozenset("mnŋ")
_TILDE = "\u0303"


def _english(
    word: Sequence[str], initial: bool, spare_sibilants: bool, strict: bool
) -> tuple[str, ...]:
    """The paper's allophones of English, on the phones of one word.

    1. word-initial p t k are aspirated; 2. word-initial b d ɡ (and dʒ) are devoiced;
    3. dark l becomes plain unless a vowel comes before it; 4. vowels before m n ŋ
    are nasalised (not ə ʌ ɜ˞).

    Args:
        word: phones.
        initial: whether rules 1 and 2 see a word boundary before the word.
        spare_sibilants: no aspiration before s or ʃ.
        strict: a length mark hides no vowel, ɫ is a dark l, d͡ʒ counts as d + ʒ.
    """
    phones = list(word)
    bare = [phone.rstrip(_LENGTH) for phone in phones] if strict else phones
    if initial and phones:
        first = phones[0]
        after = phones[1] if len(phones) > 1 else ""
        if first in _VOICELESS and not (spare_sibilants and after in ("s", "ʃ")):
            phones[0] = first + "ʰ"
        elif first == "d" and after == "ʒ":
            phones[:2] = ["t", "ʃ"]
        elif first in _DEVOICED and (first, after) != ("d", "z"):
            phones[0] = _DEVOICED[first]
        elif strict and first == "d͡ʒ":
            phones[0] = "t͡ʃ"
    for i in range(len(phones)):
        before = bare[i - 1] if i > 0 else ""
        if phones[i] == _DARK_L or (strict and bare[i] == "ɫ"):
            if before not in _VOWELS:
                phones[i] = "l" + phones[i][len(bare[i]) :]
        elif bare[i] in _NASALS and before in _NASALISED:
            phones[i - 1] = before + _TILDE + phones[i - 1][len(before) :]
    return tuple(phones)


# --- the normaliser -------------------------------------------------------------------

_SPACE_SEPARATED = {True: re.compile(r"\S+"), False: re.compile(r"[^ ]+")}


class Normaliser:
    """Turns IPA text into inventory phones, and accounts for what it leaves out.

    Args:
        policy: one of `POLICIES`.
        english_rules: whether text in language `eng` gets the paper's allophones.

    Raises:
        ValueError: the policy is not known.

    >>> normaliser = Normaliser()
    >>> normaliser.segment("ˈwɔtɚ").phones
    ('w', 'ɔ', 't', 'ə˞')
    >>> [(d.char, d.kind) for d in normaliser.segment("ˈwɔ?t").dropped]
    [('ˈ', 'stress'), ('?', 'punctuation')]
    >>> Normaliser("released").segment("ˈwɔtɚ").phones
    ('w', 'ɔ', 't')
    """

    def __init__(self, policy: str = "strict", english_rules: bool = True) -> None:
        if policy not in POLICIES:
            raise ValueError(
                f"phone policy {policy!r} is not known; use {', '.join(POLICIES)}"
            )
        self.policy = policy
        self.english_rules = english_rules
        self._strict = policy == "strict"
        self._spare_sibilants = policy != "released"
        # words by (English, after a space, with suprasegmentals)
        self._words: dict[tuple[bool, bool, bool], dict[str, _Word]] = {}

    @property
    def version(self) -> str:
        """Everything that decides what comes out; stored with each experiment."""
        rules = "on" if self.english_rules else "off"
        panphon = importlib.metadata.version("panphon")
        return (
            f"{self.policy}/{_RULES_VERSION} english_rules={rules} "
            f"panphon={panphon} phone_map={_MAP_HASH}"
        )

    def segment(self, ipa: str, lang: str | None = None) -> Segmentation:
        """Phones of an IPA text.

        Args:
            ipa: any text; nothing in it is an error.
            lang: ISO 639-3; only `eng` matters.
        """
        return self._segment(ipa, lang, suprasegmentals=True)

    def ctc_phones(self, ipa: str, lang: str | None = None) -> tuple[str, ...]:
        """CTC target of an IPA text: no length and break marks.

        For `strict` this is `strip_suprasegmentals` of the segmentation. The public
        recipe takes the marks away first, which is not the same: a vowel with a
        length mark is nasalised in its CTC target alone.
        """
        if self._strict:
            return strip_suprasegmentals(self.segment(ipa, lang).phones)
        return self._segment(ipa, lang, suprasegmentals=False).phones

    def _segment(self, ipa: str, lang: str | None, suprasegmentals: bool):
        if not unicodedata.is_normalized("NFD", ipa):
            ipa = unicodedata.normalize("NFD", ipa)
        english = self.english_rules and lang == "eng"
        phones: list[str] = []
        dropped: list[Drop] = []
        aliases: list[str] = []
        end = 0
        for match in _SPACE_SEPARATED[self._strict].finditer(ipa):
            start = match.start()
            for i in range(end, start):
                dropped.append(_drop(ipa, ipa[i], i, "space"))
            end = match.end()
            initial = self._strict or start > 0
            word = self._word(match[0], english, initial, suprasegmentals)
            phones += word.phones
            if word.dropped:
                for char, position, kind in word.dropped:
                    dropped.append(_drop(ipa, char, start + position, kind))
            if word.aliases:
                aliases += word.aliases
        for i in range(end, len(ipa)):
            dropped.append(_drop(ipa, ipa[i], i, "space"))
        return Segmentation(tuple(phones), tuple(dropped), tuple(aliases))

    def _word(
        self, text: str, english: bool, initial: bool, suprasegmentals: bool
    ) -> _Word:
        known = self._words.setdefault((english, initial, suprasegmentals), {})
        word = known.get(text)
        if word is not None:
            return word
        if self._strict:
            word = _strict_word(text)
        else:
            word = _released_word(text, suprasegmentals)
        if english:
            phones = _english(word.phones, initial, self._spare_sibilants, self._strict)
            word = word._replace(phones=phones)
        if len(text) <= _CACHE_LENGTH:
            if len(known) >= _CACHE_WORDS:
                known.clear()
            known[text] = word
        return word


def _drop(text: str, char: str, position: int, kind: str) -> Drop:
    context = text[max(0, position - _CONTEXT) : position + _CONTEXT + 1]
    return Drop(char, position, context, kind)


# --- phones as text -------------------------------------------------------------------

_STRIP = str.maketrans("", "", SUPRASEGMENTALS)


@cache
def _stripped(phone: str) -> tuple[str, ...]:
    bare = unicodedata.normalize("NFD", phone).translate(_STRIP)
    if bare in _KNOWN:
        return (bare,)
    return _strict_piece(bare, 0).phones


def strip_suprasegmentals(phones: Iterable[str]) -> tuple[str, ...]:
    """Phones without length and break marks: what the CTC head is taught.

    >>> strip_suprasegmentals(("iː", "ă", "t͡ʃ"))
    ('i', 'a', 't͡ʃ')
    """
    return tuple(bare for phone in phones for bare in _stripped(phone))


def to_slashed(phones: Iterable[str]) -> str:
    """Phones as the model writes them.

    Raises:
        PhoneFormatError: a phone is empty or holds a slash or a space.

    >>> to_slashed(("pʰ", "ɔ"))
    '/pʰ//ɔ/'
    """
    phones = tuple(phones)
    for phone in phones:
        if not phone or "/" in phone or any(char.isspace() for char in phone):
            raise PhoneFormatError(
                f"phone {phone!r} cannot stand between slashes: expected text without "
                "slashes and spaces; segment it with powsm.ipa.Normaliser first"
            )
    return "".join(f"/{phone}/" for phone in phones)


def from_slashed(text: str) -> tuple[str, ...]:
    """The exact inverse of `to_slashed`.

    Raises:
        PhoneFormatError: the text is anything else.

    >>> from_slashed("/pʰ//ɔ/")
    ('pʰ', 'ɔ')
    """
    if not text:
        return ()
    phones = tuple(text[1:-1].split("//"))
    if len(text) < 3 or to_slashed(phones) != text:
        raise PhoneFormatError(
            f"{text!r} is not a sequence of phones like '/pʰ//ɔ/'; read text of any "
            "other form with powsm.ipa.read_phones"
        )
    return phones


def read_phones(text: str, normaliser: Normaliser) -> tuple[str, ...]:
    """Phones of a hypothesis or reference, in slashes or in any other notation.

    A slash ends a phone in both, so one rule reads `/t//ʃ/`, `/tʃip/` and `tʃip`, and
    a hypothesis that breaks off inside a phone. English rules are not applied: they
    belong to labels, once.

    >>> read_phones("/t//ʃ//i//p", Normaliser())
    ('t', 'ʃ', 'i', 'p')
    """
    return normaliser.segment(text.replace("/", " ")).phones
