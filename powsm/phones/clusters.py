"""The phones of a letter, or of two under a tie, by the marks they hold.

A cluster is a letter or such a pair with all marks on it. It becomes the phone that
keeps most of it, whatever the order of the marks.
"""

import re
from functools import cache, lru_cache, partial
from operator import ne
from typing import NamedTuple

from powsm.phones.inventory import ALIASES, FEATURE_NAMES, FEATURES, INVENTORY, KINDS

SUPRASEGMENTALS = "ː\u02d1\u0306\u035c"  # long, half-long, breve, tie below

TIE = "\u0361"
GLOTTAL = "ˀ"  # the one mark that PanPhon writes on either side of a letter
LENGTH = "ː"
_LONG = FEATURE_NAMES.index("long")
# frequent and no part of a phone: a word of these and of whole phones is a plain one
_SIGNS = "ˈˌ.|˥˦˧˨˩"
# of two orders of marks that PanPhon has, the phone is written in this one
_MARK_ORDER = "ʲᶣʷˠˤⁿˡʼʰˀː"

# tone letters are in the inventory, yet no phones of the strict policy
LETTERS = {phone[0] for phone in INVENTORY if phone[0] not in KINDS}
MARKS = {c for phone in INVENTORY for c in phone} - LETTERS - {TIE, *_SIGNS}
# c with a cedilla, s with a caron: another letter, not a marked one
FORMS = {alias: target for alias, target in ALIASES.items() if len(alias) == 2}
FORMS["c\u0327"] = "c\u0327"


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


def _take_apart(phone: str) -> tuple[str, frozenset[str]]:
    """A phone's letters, with the tie between two, and its marks, each with a number.

    >>> letters, marks = _take_apart("t̪͡s̪ʰ")
    >>> letters, sorted(marks)
    ('t͡s', ['ʰ', '̪', '̪̪'])
    """
    before, base, marks = phone.startswith(GLOTTAL), "", []
    for char in phone[before:]:
        if char in LETTERS or char == TIE or base[-1:] + char in FORMS:
            base += char
        else:
            marks.append(char)
    numbered = {mark * (marks[:i].count(mark) + 1) for i, mark in enumerate(marks)}
    return base, frozenset(numbered | ({f"{GLOTTAL}x"} if before else set()))


def _by_base() -> dict[str, tuple[str, ...]]:
    """The phones of each letter or pair: those that keep most first, then quality.

    Of two that keep as many, the one whose marks change more features wins: kʰ of k̟ʰ,
    dˤ of d̠ˤ. Length is worth more than none (eː of e̞ː) and less than any other (ə˞ of
    ə˞ː): CTC targets have no length. PanPhon spells 637 phones in a second order; one
    is taken.
    """
    spellings: dict[str, dict[frozenset[str], list[str]]] = {}
    for phone in INVENTORY:
        if phone[0] not in KINDS or phone[0] == GLOTTAL:
            base, marks = _take_apart(phone)
            spellings.setdefault(base, {}).setdefault(marks, []).append(phone)

    def rank(base: str, marks: frozenset[str]) -> tuple[int, int, bool]:
        features = FEATURES[spellings[base][marks][0]]
        bare = FEATURES.get(base, features)
        changes = sum(map(ne, features, bare)) - (features[_LONG] != bare[_LONG])
        return -len(marks), -changes, LENGTH not in marks

    def order(phone: str) -> list[int]:
        return [_MARK_ORDER.find(char) for char in phone]

    return {
        base: tuple(
            min(rows[marks], key=order)
            for marks in sorted(rows, key=partial(rank, base))
        )
        for base, rows in spellings.items()
    }


BY_BASE = _by_base()
# one string object a phone: words remembered are smaller, and texts made of them sooner
_PHONES = {phone: phone for phones in BY_BASE.values() for phone in phones}
_LETTER = f"[{''.join(sorted(LETTERS))}][{''.join(sorted(MARKS))}]*+"
_LETTERS_WITH_MARKS = re.compile(f"{_LETTER}(?:{TIE}{_LETTER})?+")  # never given back


def plain_word(word: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """A word with nothing else but stress, tones and breaks; None for others.

    Returns:
        Phones, those of `strict_word` at a fraction of the cost, and the kind of each
        sign that is left out.

    >>> plain_word("ˈt͡ʃaː.na"), plain_word("ʧa")
    ((('t͡ʃ', 'aː', 'n', 'a'), ('stress', 'break')), None)
    """
    clusters = _LETTERS_WITH_MARKS.findall(word)
    phones = tuple(map(_PHONES.get, clusters))
    if None in phones:
        return None
    n_others = len(word) - len("".join(clusters))
    if not n_others:
        return phones, ()
    if n_others == word.count("ˈ"):  # looking for all signs takes longer
        return phones, ("stress",) * n_others
    kinds = tuple([KINDS[char] for char in word if char in _SIGNS])
    return (phones, kinds) if len(kinds) == n_others else None


class Cluster(NamedTuple):
    """The phones of one letter or pair.

    Attributes:
        rows: the marks of each phone, and the phone; those with most marks first.
        marks: all that any of them holds.
        implied: what all of them hold: t͡θ is dental in every phone of PanPhon's.
    """

    rows: tuple[tuple[frozenset[str], str], ...]
    marks: frozenset[str]
    implied: frozenset[str]


@cache
def cluster_of(base: str) -> Cluster:
    """The phones of a key of `BY_BASE`.

    Made when asked for, so that starting costs nothing for phones that never come.
    """
    rows = tuple((_take_apart(phone)[1], phone) for phone in BY_BASE[base])
    all_marks = [marks for marks, _ in rows]
    return Cluster(
        rows, frozenset().union(*all_marks), frozenset.intersection(*all_marks)
    )


@lru_cache(maxsize=1 << 16)
def choose(base: str, marks: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The phone that keeps most of a cluster, and the marks it keeps."""
    for kept, phone in cluster_of(base).rows:
        if kept <= marks:
            return phone, kept
    raise AssertionError(f"{base!r} has no phone")  # implied marks prevent it
