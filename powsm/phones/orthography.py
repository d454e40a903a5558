"""Orthography: the text normalisation behind the ASR, G2P and P2G tasks."""

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

import regex  # its \w holds combining marks; with `re` Indic vowel signs would go

from powsm.errors import PowsmError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceNormalizer

POLICIES = ("powsm_fix", "released")
DEFAULT_POLICY = "powsm_fix"

# Languages written without spaces, by policy, as the two public recipes list them.
_JOINED = {
    "powsm_fix": frozenset({"cmn", "jpn", "lao", "tha", "yue"}),
    "released": frozenset({"cmn", "jpn", "kor", "tha"}),
}
_SQUARE = regex.compile(r"[<\[][^>\]]*[>\]]")
_ROUND = regex.compile(r"\(([^)]+?)\)")
_NOT_KEPT = {
    "powsm_fix": regex.compile(r"[^\w\s\-']"),
    "released": regex.compile(r"[\p{P}\p{S}]"),
}


def joins(lang: str | None, policy: str = DEFAULT_POLICY) -> bool:
    """Whether a policy removes the spaces of a language: it then has no words to count.

    Stage 4 asks when it writes a text, scoring when it reads it.

    Args:
        lang: ISO 639-3.
        policy: one of `POLICIES`.

    Raises:
        PowsmError: the policy is not known.

    >>> joins("lao"), joins("kor"), joins("kor", "released")
    (True, False, True)
    """
    _check(policy)
    return lang in _JOINED[policy]


def _check(policy: str) -> None:
    if policy not in POLICIES:
        raise PowsmError(
            f"text policy {policy!r} is not known; use one of {', '.join(POLICIES)}"
        )


def normalise_text(text: str, lang: str | None, policy: str = DEFAULT_POLICY) -> str:
    """Normalise a transcript; one line in, one line out.

    `powsm_fix` (the retrained checkpoint): NFKC, lower case, the apostrophe ’ as ',
    only word characters, spaces, - and ' kept. `released` (the first checkpoint): all
    Unicode punctuation and symbols removed, case kept, then SentencePiece's nmt_nfkc,
    as the published tokenizer writes it. Both remove the spaces of languages written
    without any; runs of whitespace become one space.

    Args:
        text: raw transcript.
        lang: ISO 639-3.
        policy: one of `POLICIES`.

    Raises:
        PowsmError: the policy is not known.

    >>> normalise_text("Don’t  stop!", "eng")
    "don't stop"
    >>> normalise_text("Don’t stop!", "eng", policy="released")
    'Dont stop'
    >>> normalise_text("我 们", "cmn")
    '我们'
    """
    separator = "" if joins(lang, policy) else " "
    if policy == "powsm_fix":
        text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = _NOT_KEPT[policy].sub("", text)
    if policy == "released" and not text.isascii():
        text = _nmt_nfkc().normalize(text)
    return separator.join(text.split())


@cache
def _nmt_nfkc() -> "SentencePieceNormalizer":
    """The rule by which the published tokenizer reads text; it takes Thai and Lao am
    (U+0E33, U+0EB3) apart and makes half-width kana full-width."""
    from sentencepiece import SentencePieceNormalizer

    return SentencePieceNormalizer(rule_name="nmt_nfkc")


def whisper_basic(text: str) -> str:
    """Words as Whisper's basic normaliser compares them, which OWSM's recipes use.

    Lower case, NFKC; what is in brackets goes, and so do marks, symbols and
    punctuation, which leave a space.

    >>> whisper_basic("Don't [noise] (um) stop: 5 %")
    'don t stop 5'

    Source: openai/whisper, whisper/normalizers/basic.py.
    """
    text = _ROUND.sub("", _SQUARE.sub("", text.lower()))
    kept = (
        " " if unicodedata.category(char)[0] in "MSP" else char
        for char in unicodedata.normalize("NFKC", text)
    )
    return " ".join("".join(kept).lower().split())
