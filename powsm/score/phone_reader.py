"""Phones of any system's transcripts, by a named cleaning, alike for hyp and ref."""

import re
import string
import unicodedata
from functools import cache
from typing import NamedTuple

from powsm.files.transcripts import TranscriptError
from powsm.phones.alphabets import AlphabetError, to_ipa
from powsm.phones.inventory import (
    INVENTORY,
    UNKNOWN,
    build_trie,
    kind_of,
    longest_match_pattern,
)
from powsm.phones.normaliser import POLICIES, Normaliser

PRISM = "prism"
CLEANINGS = (*POLICIES, PRISM)


class PhoneText(NamedTuple):
    """Phones of a transcript and what is in none of them.

    Attributes:
        phones: of the inventory.
        unknown: characters that are left out for no known reason.
        losses: kind of each character but spaces and slashes that is left out, such as
            stress marks and punctuation, "unknown" included; see `normaliser.Drop`.
    """

    phones: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


class PhoneReader:
    """Makes phones of transcripts, hypothesis and reference alike.

    Args:
        cleaning: a policy of `powsm.phones.normaliser`, or `prism`: spaces and ASCII
            punctuation deleted, NFD, g -> ɡ, then PanPhon's own segmentation, which
            skips what it does not know. That is how the published tables were scored.
        phone_map: the transcripts are not IPA but symbols of this alphabet between
            spaces; see `powsm.phones.alphabets`.

    Raises:
        TranscriptError: no such cleaning or map.

    >>> PhoneReader("prism").read("ˈwɔtɚ")  # published scoring loses this vowel
    PhoneText(phones=('w', 'ɔ', 't'), unknown=('ɚ',), losses=('stress', 'unknown'))
    >>> PhoneReader().read("ˈwɔtɚ")
    PhoneText(phones=('w', 'ɔ', 't', 'ə˞'), unknown=(), losses=('stress',))
    >>> PhoneReader(phone_map="timit").read("h# sh iy dcl jh").phones
    ('ʃ', 'i', 'd͡ʒ')
    """

    def __init__(self, cleaning: str = "strict", phone_map: str | None = None):
        if cleaning not in CLEANINGS:
            raise TranscriptError(
                f"cleaning {cleaning!r} is not known; use one of {' '.join(CLEANINGS)}"
            )
        self._prism = cleaning == PRISM
        self._normaliser = Normaliser("strict" if self._prism else cleaning)
        self._phone_map = phone_map
        self._mapped("")

    def read(self, text: str) -> PhoneText:
        """Phones of one transcript.

        Raises:
            TranscriptError: a symbol that the phone map does not have.
        """
        text = self._mapped(text)
        if self._prism:
            return self._read_prism(text)
        # a slash ends a phone: one rule reads /t//ʃ/, /tʃip/, tʃip, and a hypothesis
        # that breaks off inside a phone
        segmentation = self._normaliser.segment(text.replace("/", " "))
        losses = tuple(segmentation.losses())
        if UNKNOWN not in losses:
            return PhoneText(segmentation.phones, (), losses)
        unknown = (d.char for d in segmentation.dropped if d.kind == UNKNOWN)
        return PhoneText(segmentation.phones, tuple(unknown), losses)

    def _mapped(self, text: str) -> str:
        if self._phone_map is None:
            return text
        try:
            return to_ipa(text.split(), self._phone_map)
        except AlphabetError as err:
            raise TranscriptError(str(err)) from err

    def _read_prism(self, text: str) -> PhoneText:
        spaceless = text.replace(" ", "")
        clean = spaceless.translate(_NO_PUNCTUATION)
        n_punctuation = len(spaceless) - len(clean) - spaceless.count("/")
        clean = unicodedata.normalize("NFD", clean).replace("g", "ɡ")
        phones, skipped = [], []
        for phone, other in _panphon_segments().findall(clean):
            (phones if phone else skipped).append(phone or other)
        unknown = tuple(char for char in skipped if not self._is_ignorable(char))
        losses = ["punctuation"] * n_punctuation
        losses += (UNKNOWN if char in unknown else kind_of(char) for char in skipped)
        return PhoneText(tuple(phones), unknown, tuple(losses))

    def _is_ignorable(self, char: str) -> bool:
        """Whether a character that PanPhon skips is no sound, like a stress mark.

        What our own policy can make a phone of, such as ɚ, is a loss.
        """
        segmentation = self._normaliser.segment(char)
        return not segmentation.phones and segmentation.unknown_count == 0


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@cache
def _panphon_segments() -> re.Pattern:
    """What PanPhon's `ipa_segs` finds: the longest phone, or one character to skip."""
    return re.compile(
        f"({longest_match_pattern(build_trie(INVENTORY))})|(.)", re.DOTALL
    )
