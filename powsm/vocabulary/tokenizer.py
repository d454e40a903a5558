"""The token list, and encoding as ESPnet does it."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from powsm.errors import PowsmError
from powsm.tasks import WORD_START
from powsm.vocabulary.symbols import BLANK_SYM, EOS_SYM, SOP_SYM, SOS_SYM, UNK_SYM, nfd

N_SPM_SYMS = 3  # <unk> <s> </s>, which ESPnet's list replaces
_LANG_SYM = re.compile(r"<[a-z]{3}>(?=<)")  # before that of the task
_SLASHED = re.compile(r"/[^/\s]+/")


def token_list_of(model: bytes) -> list[str]:
    """The tokens of a SentencePiece model in ESPnet's order, blank first."""
    pieces = pieces_of(sentencepiece.SentencePieceProcessor(model_proto=model))
    return [BLANK_SYM, UNK_SYM, *pieces, SOS_SYM, EOS_SYM, SOP_SYM]


def pieces_of(processor: sentencepiece.SentencePieceProcessor) -> list[str]:
    ids = range(N_SPM_SYMS, processor.get_piece_size())
    return [processor.id_to_piece(i) for i in ids]


def read_token_list(path: Path) -> list[str]:
    """Tokens of a `tokens.txt`, in order."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in file]


def read_pieces(path: Path) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece model.

    Raises:
        PowsmError: the file is damaged, or none.
    """
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(path.read_bytes())
    except RuntimeError as err:
        raise PowsmError(f"{path}: damaged, or no SentencePiece model") from err
    if processor.get_piece_size() <= N_SPM_SYMS:
        raise PowsmError(f"{path}: no pieces in it; is it empty?")
    return processor


class Tokenizer:
    """Text to token ids and back, exactly as ESPnet's S2T preprocessor does it.

    `encode` starts with the id of `▁`, which SentencePiece puts before every text.
    ESPnet keeps it in `text.prev` and `text.ctc`, and cuts it off `text`: so does
    `encode_target`.
    """

    def __init__(self, bpe_model: Path, token_list: Path | Sequence[str]):
        """Load a model with its token list.

        Raises:
            PowsmError: the two do not belong together.
        """
        self.folder = Path(bpe_model).parent
        self._processor = read_pieces(Path(bpe_model))
        if isinstance(token_list, (str, Path)):
            token_list = read_token_list(Path(token_list))
        self.token_list = list(token_list)
        pieces = pieces_of(self._processor)
        if self.token_list[:2] != [BLANK_SYM, UNK_SYM] or (
            self.token_list[2 : 2 + len(pieces)] != pieces
        ):
            raise PowsmError(
                f"{bpe_model}: its {len(pieces)} pieces are not those of the token "
                f"list ({len(self.token_list)} tokens); take both from one folder"
            )
        self.token_ids = {token: i for i, token in enumerate(self.token_list)}

    def encode(self, text: str) -> list[int]:
        """Token ids; phones between slashes may come in any Unicode form."""
        text = _SLASHED.sub(lambda match: nfd(match[0]), text)
        # the list has <blank> <unk> for <unk> <s> </s>: one less, and <unk> is 1
        return [i - 1 if i >= N_SPM_SYMS else 1 for i in self._processor.encode(text)]

    def encode_target(self, text: str) -> list[int]:
        """Ids of a decoder target `<eng><pr><notimestamps> ...`, from `<eng>` on.

        No piece spells `<unk>`, the language that has no token: SentencePiece, and so
        stock ESPnet, cuts it into `<`, `u` and so on. Here it is the token it means,
        and so is a language that this vocabulary lacks, as of a dev set.
        """
        lang_sym = _LANG_SYM.match(text)
        if lang_sym and lang_sym[0] not in self.token_ids:
            text = UNK_SYM + text[lang_sym.end() :]
        if text.startswith(UNK_SYM):
            return [1, *self.encode(text.removeprefix(UNK_SYM))[1:]]
        return self.encode(text)[1:]

    def tokens(self, token_ids: Iterable[int]) -> list[str]:
        return [self.token_list[i] for i in token_ids]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Text of token ids; unlike SentencePiece's, `<unk>` stays readable."""
        text = "".join(self.tokens(token_ids)).replace(WORD_START, " ")
        return text.removeprefix(" ")
