"""The one normaliser that turns IPA text into phones.

Preparation, prompts, decoding and scoring all segment through `Normaliser`, so that
the model is taught, asked and judged in the same phones. Policies:

`strict` (default)
    NFD on both sides, aliases of `phone_map.csv`, and for each letter or tied pair the
    phone that keeps most of its marks, in whatever order they come; the English rules
    on every word. Every character that ends up in no phone is reported.
`released`
    What the public recipe did for the published checkpoint, quirk for quirk: ASCII
    punctuation deleted, three aliases, a walk that does not rewind, an inventory that
    was not normalised, English rules that miss the first word.
`powsm_fix`
    `released` with the one change that the recipe of the text-normalised checkpoint
    made to it: no aspiration before s and ʃ, so untied affricates stay whole.

Tie bars: above, below, doubled, behind the second letter and espeak's joiner are one;
one that joins no phone is dropped; t + ʃ without a tie stays two phones, because they
may belong to two syllables or words.
"""

import importlib.metadata
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, repeat
from typing import NamedTuple

from powsm.errors import PowsmError
from powsm.phones.allophones import apply_english
from powsm.phones.clusters import SUPRASEGMENTALS, Word, plain_word
from powsm.phones.inventory import INVENTORY, PHONE_MAP_HASH, UNKNOWN
from powsm.phones.released import released_word
from powsm.phones.segment import mark_flags, strict_word

POLICIES = ("strict", "released", "powsm_fix")

# raise it when a change of code changes what comes out of a policy
_RULES_VERSIONS = {"strict": 3, "released": 1, "powsm_fix": 1}
_CONTEXT = 3  # characters kept on either side of a dropped one
# of words remembered, about 400,000 words: 150 MiB, less in scripts without spaces
_CACHE_CHARS = 4_000_000


class Drop(NamedTuple):
    """A character of the input that is in no phone.

    Attributes:
        char: as written, after NFD.
        position: index in the NFD form of the input.
        context: the character with up to three neighbours on either side.
        kind: "space", "stress", "tone", "break", "punctuation", "diacritic",
            "invisible", "markup": known, and ignored on purpose. "unknown": not known.
    """

    char: str
    position: int
    context: str
    kind: str


# A word is what is between two spaces; the public recipe knows U+0020 alone.
_WORD = {"strict": re.compile(r"\S+"), "released": re.compile("[^ ]+")}
_WORD["powsm_fix"] = _WORD["released"]


class _Words(dict):
    """Phones of the words met so far; a missing word is segmented when asked for.

    Attributes:
        losses: for a word that loses any characters, the kind of each.
        n_unknown: for a word that holds any, how many unknown characters it holds.
        n_chars: of all words here.
    """

    def __init__(
        self,
        plain: Callable[[str], tuple[tuple[str, ...], tuple[str, ...]] | None],
        segment: Callable[[str], Word],
    ) -> None:
        super().__init__()
        self.losses: dict[str, tuple[str, ...]] = {}
        self.n_unknown: dict[str, int] = {}
        self.n_chars = 0
        self._plain = plain
        self._segment = segment
        self._accounts: dict[str, Word] = {}

    def __missing__(self, text: str) -> tuple[str, ...]:
        plain = self._plain(text)
        if plain is None:
            phones, dropped, _ = self.account(text)
            losses = tuple([kind for _, _, kind in dropped])
            if UNKNOWN in losses:
                self.n_unknown[text] = losses.count(UNKNOWN)
        else:
            phones, losses = plain
        if losses:
            self.losses[text] = losses
        self[text] = phones
        self.n_chars += len(text)
        return phones

    def account(self, text: str) -> Word:
        """Phones, drops and aliases of a word."""
        word = self._accounts.get(text)
        if word is None:
            word = self._accounts[text] = self._segment(text)
        return word


@dataclass(slots=True)  # frozen would cost a tenth of the throughput
class Segmentation:
    """Phones of a text, with an account of everything else that was in it.

    The account is made when it is asked for.

    Attributes:
        phones: inventory phones, NFD.
    """

    phones: tuple[str, ...]
    _text: str = field(repr=False)  # NFD
    _words: list[str] = field(repr=False)
    _known: _Words = field(repr=False, compare=False)
    _policy: str = field(repr=False)

    @property
    def dropped(self) -> tuple[Drop, ...]:
        """Every character that is in no phone, in order of appearance."""
        text, end = self._text, 0
        drops: list[tuple[int, str]] = []
        marked = mark_flags(text) if self._policy == "strict" else text
        for match in _WORD[self._policy].finditer(marked):
            start = match.start()
            drops += ((i, "space") for i in range(end, start))
            word = self._known.account(match[0])
            drops += ((start + i, kind) for _, i, kind in word.dropped)
            end = match.end()
        drops += ((i, "space") for i in range(end, len(text)))
        return tuple(
            Drop(text[i], i, text[max(0, i - _CONTEXT) : i + _CONTEXT + 1], kind)
            for i, kind in drops
        )

    def _accounts(self) -> Iterator[Word]:
        return map(self._known.account, self._words)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The source of each alias that went into a phone, repeats included."""
        return tuple(chain.from_iterable(word.aliases for word in self._accounts()))

    @property
    def unknown_count(self) -> int:
        """Dropped characters that are not known to be ignorable."""
        n_unknown = self._known.n_unknown
        if n_unknown.keys().isdisjoint(self._words):
            return 0
        return sum(n_unknown.get(word, 0) for word in self._words)

    def losses(self) -> Iterable[str]:
        """Kind of each dropped character but spaces; `dropped` says which and where.

        Remembered with each word: where nothing is lost it costs nothing.
        """
        losses = self._known.losses
        if losses.keys().isdisjoint(self._words):
            return ()
        return chain.from_iterable(map(losses.get, self._words, repeat(())))


def _plain_english_word(text: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    if plain := plain_word(text):
        return apply_english(plain[0]), plain[1]
    return None


class Normaliser:
    """Turns IPA text into inventory phones, and accounts for what it leaves out.

    Args:
        policy: one of `POLICIES`.
        english_rules: whether text in language `eng` gets the paper's allophones.

    Raises:
        PowsmError: the policy is not known.

    >>> normaliser = Normaliser()
    >>> normaliser.segment("ˈwɔtɚ").phones
    ('w', 'ɔ', 't', 'ə˞')
    >>> [(d.char, d.kind) for d in normaliser.segment("ˈwɔt?").dropped]
    [('ˈ', 'stress'), ('?', 'punctuation')]
    >>> Normaliser("released").segment("ˈwɔtɚ").phones
    ('w', 'ɔ', 't')
    """

    def __init__(self, policy: str = "strict", english_rules: bool = True) -> None:
        if policy not in POLICIES:
            raise PowsmError(
                f"phone policy {policy!r} is not known; use {', '.join(POLICIES)}"
            )
        self.policy = policy
        self.english_rules = english_rules
        # by (English, after a space, with suprasegmentals)
        self._words: dict[tuple[bool, bool, bool], _Words] = {}

    def __reduce__(self):
        return type(self), (self.policy, self.english_rules)  # without the words

    @property
    def version(self) -> str:
        """Everything that decides what comes out; stored with each experiment."""
        rules = "on" if self.english_rules else "off"
        panphon = importlib.metadata.version("panphon")
        return (
            f"{self.policy}/{_RULES_VERSIONS[self.policy]} english_rules={rules} "
            f"panphon={panphon} phone_map={PHONE_MAP_HASH}"
        )

    def segment(self, ipa: str, lang: str | None = None) -> Segmentation:
        """Phones of an IPA text.

        Args:
            ipa: any text; nothing in it is an error.
            lang: ISO 639-3; only `eng` matters.
        """
        return self._segment(ipa, lang, True)

    def ctc_phones(self, ipa: str, lang: str | None = None) -> tuple[str, ...]:
        """CTC target of an IPA text: no length and break marks.

        For `strict` this is `strip_suprasegmentals` of the segmentation. The public
        recipe takes the marks away first, which is not the same: a vowel with a
        length mark is nasalised in its CTC target alone.
        """
        if self.policy == "strict":
            return strip_suprasegmentals(self.segment(ipa, lang).phones)
        return self._segment(ipa, lang, False).phones

    def _segment(
        self, ipa: str, lang: str | None, suprasegmentals: bool
    ) -> Segmentation:
        if not unicodedata.is_normalized("NFD", ipa):
            ipa = unicodedata.normalize("NFD", ipa)
        english = self.english_rules and lang == "eng"
        known = self._known_words(english, True, suprasegmentals)
        if self.policy == "strict":
            texts = (mark_flags(ipa) if "(" in ipa else ipa).split()
            phones = tuple(chain.from_iterable(map(known.__getitem__, texts)))
            return Segmentation(phones, ipa, texts, known, "strict")
        texts = [text for text in ipa.split(" ") if text]
        phones = tuple(chain.from_iterable(map(known.__getitem__, texts)))
        if english and texts and ipa[0] != " ":
            # the recipe's word boundary is a space, and there is none before this word
            first = self._known_words(True, False, suprasegmentals)[texts[0]]
            phones = first + phones[len(first) :]
        return Segmentation(phones, ipa, texts, known, self.policy)

    def _known_words(
        self, english: bool, initial: bool, suprasegmentals: bool
    ) -> _Words:
        known = self._words.get((english, initial, suprasegmentals))
        if known is None or known.n_chars > _CACHE_CHARS:
            # a new memory: earlier segmentations still read their account in the old
            key = (english, initial, suprasegmentals)
            known = _Words(
                self._plain_word(english), lambda text: self._segment_word(text, *key)
            )
            self._words[key] = known
        return known

    def _plain_word(
        self, english: bool
    ) -> Callable[[str], tuple[tuple[str, ...], tuple[str, ...]] | None]:
        """What does `_segment_word` of words that need no account, at less cost."""
        if self.policy != "strict":
            return lambda text: None
        return _plain_english_word if english else plain_word

    def _segment_word(
        self, text: str, english: bool, initial: bool, suprasegmentals: bool
    ) -> Word:
        strict = self.policy == "strict"
        word = strict_word(text) if strict else released_word(text, suprasegmentals)
        if english:
            phones = apply_english(
                word.phones,
                initial=initial,
                spare_sibilants=self.policy != "released",
                strict=strict,
            )
            word = word._replace(phones=phones)
        return word


# --- without length and break marks ---------------------------------------------------


_INVENTORY = frozenset(INVENTORY)
_MARKS = str.maketrans("", "", SUPRASEGMENTALS)


@cache
def segment_ipa(
    ipa: str, lang: str | None = None, policy: str = "strict"
) -> tuple[str, ...]:
    """Phones of an IPA text; `Normaliser` returns what was left out as well.

    >>> segment_ipa("ˈwɔtɚ")
    ('w', 'ɔ', 't', 'ə˞')

    Args:
        ipa: any text; nothing in it is an error.
        lang: ISO 639-3; only `eng` matters.
        policy: one of `POLICIES`.

    Raises:
        PowsmError: the policy is not known.
    """
    return _normaliser(policy).segment(ipa, lang).phones


@cache
def _normaliser(policy: str) -> Normaliser:
    return Normaliser(policy)


def _without_marks(phone: str) -> tuple[str, ...]:
    bare = unicodedata.normalize("NFD", phone).translate(_MARKS)
    # jːʲ is in the inventory, jʲ is not: then what is left is segmented
    return (bare,) if bare in _INVENTORY else strict_word(bare).phones


class _Bare(dict):
    """Phones that are one phone without their marks as well."""

    def __missing__(self, phone: str) -> str:
        phones = _without_marks(phone)
        if len(phones) != 1:
            raise KeyError(phone)
        self[phone] = phones[0]
        return phones[0]


_BARE = _Bare()


def strip_suprasegmentals(phones: Iterable[str]) -> tuple[str, ...]:
    """Phones without length and break marks: what the CTC head is taught.

    >>> strip_suprasegmentals(("iː", "ă", "t͡ʃ"))
    ('i', 'a', 't͡ʃ')
    """
    phones = tuple(phones)
    try:
        return tuple(map(_BARE.__getitem__, phones))
    except KeyError:
        return tuple(chain.from_iterable(map(_without_marks, phones)))
