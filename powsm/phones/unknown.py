"""Characters of IPA text that become no phone: counted, with examples, and limited."""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from powsm.errors import PowsmError
from powsm.formatting import code_points, ranked
from powsm.phones.normaliser import UNKNOWN, Segmentation

log = logging.getLogger(__name__)

MAX_UNKNOWN_RATE = 0.01  # of the IPA characters of a set
_N_CONTEXTS = 3  # examples kept of an unknown symbol
_EXAMPLE_CHARS = 60
# What few orthographies write: letters of IPA and its marks. Those of Hawaiian
# (ʻ ʼ) are no evidence; ɛ ɔ ŋ of African orthographies look like IPA.
_IPA_ONLY = re.compile("[\u0250-\u02ba\u02bd-\u02ffθβχŋ\u0361\u0329]")
_FEW = 500  # characters, of which IPA of any language should have one of its own


class UnknownSymbolsError(PowsmError):
    """Too large a share of the IPA characters is not in the phone inventory."""


@dataclass
class Unknown:
    """Characters of the IPA strings that no phone was made of.

    Attributes:
        n_characters: of the IPA strings, spaces not counted.
        kinds: how many characters each kind of drop took; see `normaliser.Drop`.
        symbols: the unknown ones.
        contexts: up to three examples of each symbol.
        n_ipa: texts with a letter or mark that is IPA's own.
        example: the first text.
    """

    n_characters: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    symbols: Counter[str] = field(default_factory=Counter)
    contexts: dict[str, list[str]] = field(default_factory=dict)
    n_ipa: int = 0
    example: str = ""

    @property
    def n_unknown(self) -> int:
        return self.symbols.total()

    @property
    def rate(self) -> float:
        return self.n_unknown / self.n_characters if self.n_characters else 0.0

    def add(self, utt_id: str, ipa: str, segments: Segmentation) -> None:
        """Count a text and what its segmentation leaves out."""
        self.n_characters += len(ipa) - ipa.count(" ")
        self.n_ipa += _IPA_ONLY.search(ipa) is not None
        self.example = self.example or f"{utt_id}: {ipa[:_EXAMPLE_CHARS]}"
        if losses := segments.losses():
            self.kinds.update(losses)
        if segments.unknown_count:
            for drop in segments.dropped:
                if drop.kind == UNKNOWN:
                    self._count_symbol(drop.char, f"{utt_id}: {drop.context}")

    def count(
        self,
        utt_id: str,
        n_characters: int,
        losses: Iterable[str],
        unknown: Iterable[str],
    ) -> None:
        """Count a text of which no segmentation is there.

        Args:
            n_characters: of the text, spaces not counted.
            losses: kind of each character left out.
            unknown: the unknown ones.
        """
        self.n_characters += n_characters
        self.kinds.update(losses)
        for char in unknown:
            self._count_symbol(char, utt_id)

    def _count_symbol(self, char: str, context: str) -> None:
        self.symbols[char] += 1
        seen = self.contexts.setdefault(char, [])
        if len(seen) < _N_CONTEXTS:
            seen.append(context)

    @property
    def is_orthography(self) -> bool:
        """Whether nothing in many characters is IPA's own: it is hardly IPA."""
        return self.n_characters >= _FEW and self.n_ipa == 0 and bool(self.example)

    def merge(self, other: "Unknown") -> None:
        self.n_characters += other.n_characters
        self.n_ipa += other.n_ipa
        self.example = self.example or other.example
        self.kinds.update(other.kinds)
        self.symbols.update(other.symbols)
        for symbol, found in other.contexts.items():
            seen = self.contexts.setdefault(symbol, [])
            seen.extend(found[: _N_CONTEXTS - len(seen)])

    def by_kind(self) -> str:
        """Characters left out by kind, the most frequent first, without spaces.

        >>> Unknown(kinds=Counter(stress=9, diacritic=2, space=4)).by_kind()
        'stress=9 diacritic=2'
        """
        kinds = ((kind, n) for kind, n in ranked(self.kinds) if kind != "space")
        return " ".join(f"{kind}={n:,}" for kind, n in kinds)

    def top(self, n: int = 10) -> str:
        """The most frequent symbols, with code points.

        >>> Unknown(symbols=Counter({"g": 3})).top()
        "'g' (U+0067) 3 times"
        """
        return ", ".join(
            f"'{symbol}' ({code_points(symbol)}) {count:,} times"
            for symbol, count in ranked(self.symbols)[:n]
        )

    def as_dict(self) -> dict[str, object]:
        return {
            "n_characters": self.n_characters,
            "n_unknown": self.n_unknown,
            "rate": round(self.rate, 8),
            "dropped": dict(ranked(self.kinds)),
            "symbols": [
                {
                    "symbol": symbol,
                    "code_points": code_points(symbol),
                    "count": count,
                    "examples": self.contexts[symbol],
                }
                for symbol, count in ranked(self.symbols)
            ],
        }


def judge_unknown(unknown: Unknown, where: Path | str, max_rate: float) -> None:
    """Log what is lost of IPA; raise where too much is unknown, and name the worst.

    Lower-case orthography is made of letters that IPA has too, so it is only a warning.
    """
    if unknown.is_orthography:
        log.warning(
            "%s: none of %d characters is a letter or mark that only IPA has, such as "
            "ə ʃ ŋ ː ˈ; if this is orthography (%s), give IPA instead",
            *(where, unknown.n_characters, unknown.example),
        )
    if lost := unknown.by_kind():
        log.info("%s: of %d characters no phone: %s", where, unknown.n_characters, lost)
    if unknown.rate > max_rate:
        raise UnknownSymbolsError(
            f"{where}: {unknown.rate:.2%} of the IPA characters are unknown, "
            f"at most {max_rate:.2%} are allowed (--max_unknown_rate): "
            f"{unknown.top()}. Map them in powsm/phones/phone_map.csv, or allow more"
        )
