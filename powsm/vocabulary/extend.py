"""Add to a vocabulary what a training set holds and it lacks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentencepiece.sentencepiece_model_pb2 import ModelProto

from powsm.languages import lang_sym
from powsm.tasks import WORD_START
from powsm.vocabulary.symbols import observed_symbols, phone_symbols
from powsm.vocabulary.train import words_of

_SymbolType = ModelProto.SentencePiece


@dataclass(frozen=True)
class NewTokens:
    """What a training set holds and a vocabulary lacks.

    Attributes:
        languages: symbols such as `<rus>`.
        phones: symbols such as `/sʲ/`.
        letters: characters of the orthography.
    """

    languages: list[str]
    phones: list[str]
    letters: list[str]

    @classmethod
    def find(cls, dump_set: Path, tokens: Sequence[str]) -> "NewTokens":
        """Compare a set of `dump/raw` with a token list."""
        known = set(tokens)
        languages, phones = observed_symbols(dump_set)
        letters = {letter for text in words_of(dump_set / "text") for letter in text}
        return cls(
            [s for s in map(lang_sym, languages) if s not in known],
            [s for s in phone_symbols(phones) if s not in known],
            sorted(letters - known - {" ", WORD_START}),
        )

    def describe(self) -> str:
        parts = [
            f"{len(added)} {name} ({' '.join(added[:8])}{' ...' * (len(added) > 8)})"
            for name, added in vars(self).items()
            if added
        ]
        return ", ".join(parts) or "nothing"


def extend_pieces(bpe_model: bytes, new: NewTokens) -> bytes:
    """Append pieces to a SentencePiece model; all others keep number and score.

    Symbols are never split; a letter is a piece less likely than all there are.
    """
    proto = ModelProto.FromString(bpe_model)
    lowest = min(piece.score for piece in proto.pieces)
    for symbol in (*new.languages, *new.phones):
        proto.pieces.add(piece=symbol, score=0.0, type=_SymbolType.USER_DEFINED)
    for letter in new.letters:
        proto.pieces.add(piece=letter, score=lowest - 1, type=_SymbolType.NORMAL)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return proto.SerializeToString()
