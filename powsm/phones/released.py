"""One word of IPA text into phones as the public recipe did it, losses included."""

import string
from functools import cache

from powsm.phones.clusters import SUPRASEGMENTALS, Word
from powsm.phones.inventory import PANPHON_SEGMENTS, build_trie, kind_of

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
