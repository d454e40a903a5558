"""One word of IPA text into phones, by the rules of a policy.

`strict_word` loses nothing without saying so; `released_word` repeats the public
recipe. Both answer with a `Word`, whose phones are in the inventory and whose drops
name every other character. `powsm.phones.normaliser` puts words together into texts.
"""

import re
import string
import unicodedata
from functools import cache
from typing import NamedTuple

from powsm.languages import lang_code
from powsm.phones.inventory import (
    ALIASES,
    INVENTORY,
    KINDS,
    PANPHON_SEGMENTS,
    build_trie,
    kind_of,
    longest_match_pattern,
)

SUPRASEGMENTALS = "ː\u02d1\u0306\u035c"  # long, half-long, breve, tie below


class Word(NamedTuple):
    """What one word becomes.

    Attributes:
        phones: inventory phones.
        dropped: character, its position in the NFD word, its kind.
        aliases: the source of each alias that went into a phone.
    """

    phones: tuple[str, ...]
    dropped: tuple[tuple[str, int, str], ...]
    aliases: tuple[str, ...]


# --- strict ---------------------------------------------------------------------------

# tone letters are in the inventory, yet no phones of this policy
_PHONES = frozenset(phone for phone in INVENTORY if phone not in KINDS)
# A letter with its marks, or two with a tie. Nearly every phone has this form, and a
# maximal stretch that is a phone is the longest match.
_TIE = "\u0361"
_SIGNS = "ˈˌ.|˥˦˧˨˩"  # ignored and frequent; in no alias; in few phones, like ˩ˤ
_LETTERS = {phone[0] for phone in _PHONES} - {"ˀ", *_SIGNS}
_MARKS = {char for phone in _PHONES for char in phone} - _LETTERS - {_TIE, *_SIGNS}
_LETTER = f"[{''.join(sorted(_LETTERS))}][{''.join(sorted(_MARKS))}]*"
_LETTERS_WITH_MARKS = re.compile(f"{_LETTER}(?:{_TIE}{_LETTER})?")
_ALIAS = re.compile(
    "|".join(sorted(map(re.escape, ALIASES), key=lambda s: (-len(s), s)))
)
_ALIAS_ENDS = frozenset(source[-1] for source in ALIASES)
# <p:> and <<fp>> of corpora, <unk> of other recognisers, (en) of espeak
_MARKUP = re.compile(r"<+[^<>\s]+>+|\(((?:[a-z]{2}|cmn|yue)(?:-[a-z0-9]+)*)\)")


def _apply_aliases(word: str) -> tuple[list[str], list[int], list[tuple[int, str]]]:
    """Replace aliases; keep for each character where it came from.

    Returns:
        characters, the index in `word` of each, and (index in `word`, source) of each
        alias.
    """
    chars: list[str] = []
    origins: list[int] = []
    used: list[tuple[int, str]] = []
    end = 0
    for match in _ALIAS.finditer(word):
        chars += word[end : match.start()]
        origins += range(end, match.start())
        target = ALIASES[match[0]]
        used.append((match.start(), match[0]))
        chars += target
        origins += [match.start()] * len(target)
        end = match.end()
    chars += word[end:]
    origins += range(end, len(word))
    return chars, origins, used


def _in_canonical_order(chars: list[str]) -> list[int]:
    """Indices that put marks into NFD order: an alias may turn one upside down."""
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


@cache
def _phone_or_char() -> re.Pattern:
    """The longest phone, or one character to leave out; a tenth of a second to make."""
    phone = longest_match_pattern(build_trie(sorted(_PHONES)))
    return re.compile(f"({phone})|.", re.DOTALL)


def plain_word(word: str) -> tuple[str, ...] | None:
    """Phones of a word with nothing else but stress, tones and breaks; None for others.

    They are those of `strict_word`, at a fraction of the cost: no phone holds the end
    of an alias, so there is none to look for.

    >>> plain_word("ˈt͡ʃaː.na"), plain_word("ʧa")
    (('t͡ʃ', 'aː', 'n', 'a'), None)
    """
    phones = _LETTERS_WITH_MARKS.findall(word)
    if not _PHONES.issuperset(phones):
        return None
    n_others = len(word) - len("".join(phones))
    if n_others and n_others != word.count("ˈ"):  # all signs take longer to count
        if n_others != sum(map(word.count, _SIGNS)):
            return None
    return tuple(phones)


def _match(text: str) -> tuple[tuple[str, ...], list[int]]:
    """Longest match with rewind: the phones, and where the other characters stand."""
    plain = plain_word(text)
    if plain is not None:
        return plain, [i for i, char in enumerate(text) if char in _SIGNS]
    phones, others, position = [], [], 0
    for phone in _phone_or_char().findall(text):
        if phone:
            phones.append(phone)
            position += len(phone)
        else:
            others.append(position)
            position += 1
    return tuple(phones), others


def _strict_piece(piece: str, start: int) -> Word:
    """Segment text without spaces or markup that begins at `start` of its word."""
    if _ALIAS_ENDS.isdisjoint(piece):
        phones, others = _match(piece)
        dropped = tuple((piece[i], start + i, kind_of(piece[i])) for i in others)
        return Word(phones, dropped, ())
    chars, origins, used = _apply_aliases(piece)
    order = _in_canonical_order(chars)
    chars = [chars[k] for k in order]
    origins = [origins[k] for k in order]
    phones, others = _match("".join(chars))
    # in the order of the text, which the new order of the marks may not be
    dropped = tuple(
        (piece[origins[i]], start + origins[i], kind_of(chars[i]))
        for i in sorted(others, key=origins.__getitem__)
    )
    lost = {origins[i] for i in others}
    aliases = tuple(source for origin, source in used if origin not in lost)
    return Word(phones, dropped, aliases)


def strict_word(word: str) -> Word:
    """Segment one NFD word: aliases, then longest match with rewind."""
    if "<" not in word and "(" not in word:
        return _strict_piece(word, 0)
    pieces: list[Word] = []
    end = 0
    for mark in _MARKUP.finditer(word):
        if mark[1] is not None and lang_code(mark[1]) is None:
            continue
        pieces.append(_strict_piece(word[end : mark.start()], end))
        inside = range(mark.start(), mark.end())
        pieces.append(Word((), tuple((word[i], i, "markup") for i in inside), ()))
        end = mark.end()
    pieces.append(_strict_piece(word[end:], end))
    return Word(*(sum((p[field] for p in pieces), ()) for field in range(3)))


# --- the public recipe's walk ---------------------------------------------------------


_RELEASED_ALIASES = {"ʡ": "ʔ", "ᶑ": "ɗ", "g": "ɡ"}


@cache
def _released_trie() -> dict:
    return build_trie(PANPHON_SEGMENTS)


def released_word(word: str, suprasegmentals: bool) -> Word:
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
    dropped = tuple((c, k, kind_of(c)) for k, c in enumerate(word) if k not in kept)
    aliases = tuple(word[k] for k in sorted(kept) if word[k] in _RELEASED_ALIASES)
    return Word(tuple(phones), dropped, aliases)
