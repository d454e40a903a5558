"""The paper's allophones of English, applied to phone labels (POWSM, appendix).

1. Word-initial p t k are aspirated.
2. Word-initial b d ɡ are devoiced; d + ʒ becomes t + ʃ, d + z stays.
3. Dark l becomes plain l unless one of 13 vowels comes right before it.
4. i ɪ e ɛ æ u ʊ o ɔ ɑ are nasalised before m n ŋ.

No rule looks past a word boundary, so a word at a time is enough. The rules describe
labels and belong to them once: on their own output, rule 1 would undo rule 2.
"""

from collections.abc import Sequence

_LENGTH = "ː\u02d1"
_VOICELESS = frozenset("ptk")
_DEVOICED = {"b": "p", "d": "t", "ɡ": "k"}
_SIBILANTS = frozenset("sʃ")
_DARK_L = "l\u0334"
_VOWELS = frozenset(["i", "ɪ", "e", "ɛ", "æ", "u", "ʊ", "o", "ɔ", "ɑ", "ə", "ɜ˞", "ʌ"])
_NASALISED = frozenset("iɪeɛæuʊoɔɑ")
_NASALS = frozenset("mnŋ")
_TILDE = "\u0303"


def apply_english(
    word: Sequence[str],
    *,
    initial: bool = True,
    spare_sibilants: bool = True,
    strict: bool = True,
) -> tuple[str, ...]:
    """Apply the four rules to the phones of one word.

    Args:
        word: inventory phones.
        initial: whether rules 1 and 2 see a word boundary before the word.
        spare_sibilants: no aspiration before s or ʃ, as in an untied affricate.
        strict: a length mark hides no vowel, l or nasal, ɫ is a dark l, and d͡ʒ counts
            as d + ʒ; otherwise phones must equal those of the rules to the letter.

    >>> apply_english(["p", "æ", "n"])
    ('pʰ', 'æ̃', 'n')
    """
    phones = list(word)
    bare = [phone.rstrip(_LENGTH) for phone in phones] if strict else list(phones)
    if initial and phones:
        first = phones[0]
        after = phones[1] if len(phones) > 1 else ""
        if first in _VOICELESS and not (spare_sibilants and after in _SIBILANTS):
            phones[0] = first + "ʰ"
        elif first == "d" and after == "ʒ":
            phones[:2] = ["t", "ʃ"]
        elif first in _DEVOICED and (first, after) != ("d", "z"):
            phones[0] = _DEVOICED[first]
        elif strict and first == "d͡ʒ":
            phones[0] = "t͡ʃ"
    for i, phone in enumerate(bare):
        before = bare[i - 1] if i > 0 else ""
        if phone == _DARK_L or (strict and phone == "ɫ"):
            if before not in _VOWELS:
                phones[i] = "l" + phones[i][len(phone) :]
        elif phone in _NASALS and before in _NASALISED:
            phones[i - 1] = before + _TILDE + phones[i - 1][len(before) :]
    return tuple(phones)
