"""Symbols, SentencePiece training, the token list, and encoding as ESPnet does it.

Pieces of the vocabulary, in this order (the published recipe's): SentencePiece's own
`<unk> <s> </s>`, `<na> <nospeech>`, languages, tasks, `<notimestamps>` and the times,
phones `/x/` by code point, then what unigram training finds in the orthography.
The token list has `<blank> <unk>` instead of the first three, and ends in
`<sos> <eos> <sop>`: N pieces make N + 2 tokens (40,000 and 40,002 as published).
"""

import io
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sentencepiece

from powsm.audio import WINDOW_S
from powsm.errors import PowsmError
from powsm.files.current import contents, is_current, write_record
from powsm.files.lock import owned
from powsm.files.whole import atomic_folder, atomic_write
from powsm.languages import LANGUAGES, lang_sym
from powsm.phones.normaliser import INVENTORY
from powsm.tasks import NA_SYM, NO_TIME_SYM, TASKS, WORD_START
from powsm.vocabulary.phone_sets import write_counts

BLANK_SYM, UNK_SYM = "<blank>", "<unk>"
SOS_SYM, EOS_SYM, SOP_SYM = "<sos>", "<eos>", "<sop>"
NO_SPEECH_SYM = "<nospeech>"
TIME_STEP_S = 0.02  # of the published vocabulary; data carry no timestamps
DONE_FILE = "tokenizer.done.json"

_N_SPM_SYMS = 3  # <unk> <s> </s>, which ESPnet's list replaces
_N_THREADS = 16  # not the machine's: the sums of training depend on their number
_MAX_SENTENCE_BYTES = 1 << 20  # SentencePiece would skip longer lines in silence
_SLASHED = re.compile(r"/[^/\s]+/")
_TOO_SMALL = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
_TOO_LARGE = re.compile(r"set it to a value <= (\d+)")


class VocabularySizeError(PowsmError):
    """A number of pieces that the symbols and the text do not allow."""


def time_symbols(step_s: float | None = TIME_STEP_S) -> list[str]:
    """`<0.00>` to `<20.00>`; None leaves the two ends, which ESPnet asks for.

    >>> time_symbols(None), len(time_symbols(0.02)), time_symbols(0.02)[1]
    (['<0.00>', '<20.00>'], 1001, '<0.02>')
    """
    step = WINDOW_S if step_s is None else step_s
    n_steps = round(WINDOW_S / step)
    if step <= 0 or abs(n_steps * step - WINDOW_S) > 1e-9:
        raise ValueError(f"time step {step_s} s does not divide {WINDOW_S} s")
    return [f"<{i * step:.2f}>" for i in range(n_steps + 1)]


def special_symbols(
    languages: Iterable[str] = LANGUAGES, time_step_s: float | None = TIME_STEP_S
) -> list[str]:
    """All symbols but phones; `languages` are ISO 639-3 codes with a token."""
    return [
        NA_SYM,
        NO_SPEECH_SYM,
        *(lang_sym(code) for code in sorted(set(languages))),
        *(task.symbol for task in TASKS.values()),
        NO_TIME_SYM,
        *time_symbols(time_step_s),
    ]


def phone_symbols(phones: Iterable[str] = INVENTORY) -> list[str]:
    """`/x/` for every phone, NFD, by code point as in the published recipe.

    >>> phone_symbols(["pʰ", "p", "ç"]) == ["/c\u0327/", "/p/", "/pʰ/"]
    True
    """
    return [f"/{phone}/" for phone in sorted({nfd(phone) for phone in phones})]


def nfd(phone: str) -> str:
    return unicodedata.normalize("NFD", phone)


def observed_symbols(dump_set: Path) -> tuple[list[str], list[str]]:
    """Language codes and phones that occur in a set of `dump/raw`, each sorted.

    Phones of `text.ctc` are included: `/ɔ/` may only occur as `/ɔː/` in `text`.
    """
    languages: set[str] = set()
    phones: set[str] = set()
    with open(dump_set / "utt2lang", encoding="utf-8", newline="\n") as file:
        languages.update(line.rstrip("\n").rpartition(" ")[2] for line in file)
    for name in ("text", "text.ctc"):
        seen: set[str] = set()
        with open(dump_set / name, encoding="utf-8", newline="\n") as file:
            for line in file:
                if line.endswith("/\n"):
                    # pieces between slashes; the spaces around are not phones
                    seen.update(line[line.index("/") : -1].split("/"))
        phones.update(seen)
    phones.discard("")
    known = [code for code in sorted(languages) if lang_sym(code) != UNK_SYM]
    return known, sorted(phones)


def words_of(text_file: Path) -> Iterator[str]:
    """The orthography in the `text` of a `dump/raw` set, each text once."""
    task_syms = tuple(task.symbol for task in TASKS.values() if task.teaches_words)
    with open(text_file, encoding="utf-8", newline="\n") as file:
        for line in file:
            prompt, _, text = line.rstrip("\n").partition(f"{NO_TIME_SYM} ")
            if prompt.endswith(task_syms):
                yield text


def sample_texts(text_file: Path, n_texts: int, seed: int) -> Iterator[str]:
    """All of `words_of` in order, or `n_texts` of them, each equally likely.

    Two passes over the file, no memory: the n-th text is taken with the
    probability still needed over still to come (Knuth's selection sampling).
    """
    left = sum(1 for _ in words_of(text_file))
    wanted = min(n_texts, left)
    lottery = random.Random(seed)
    for text in words_of(text_file):
        if lottery.random() * left < wanted:
            wanted -= 1
            yield text
        left -= 1


def train_sentencepiece(
    texts: Iterable[str], *, n_pieces: int, symbols: Sequence[str], seed: int = 42
) -> bytes:
    """Train a unigram model; the same input gives the same bytes.

    Text is not normalised again ("identity"), so that NFD phones survive, and every
    character gets a piece.

    Args:
        texts: normalised orthography.
        n_pieces: of the whole vocabulary, symbols and `<unk> <s> </s>` included.
        symbols: pieces that are never split.
        seed: of SentencePiece's random numbers.

    Returns:
        The model file's bytes.

    Raises:
        VocabularySizeError: `n_pieces` cannot be reached; says what can.
        ValueError: no text.
    """
    repeated = [symbol for symbol, n in Counter(symbols).items() if n > 1]
    if repeated:
        raise ValueError(f"symbols given twice: {' '.join(sorted(repeated))}")
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(seed)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=filter(None, texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=n_pieces,
            user_defined_symbols=list(symbols),
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=_MAX_SENTENCE_BYTES,
            train_extremely_large_corpus=True,
            num_threads=_N_THREADS,
            minloglevel=2,
        )
    except RuntimeError as err:
        raise _explained(str(err), n_pieces, len(symbols)) from err
    return model.getvalue()


def _explained(message: str, n_pieces: int, n_symbols: int) -> ValueError:
    """SentencePiece's refusal in words that say what to do."""
    asked = f"--nbpe {n_pieces}, of which {n_symbols + _N_SPM_SYMS} are symbols"
    if found := _TOO_SMALL.search(message):
        return VocabularySizeError(
            f"{asked}: too few for the characters of the text; at least {found[1]}"
        )
    if found := _TOO_LARGE.search(message):
        return VocabularySizeError(
            f"{asked}: too many for this much text; at most {found[1]}"
        )
    if "sentences_.empty" in message:
        return ValueError("no orthography to learn pieces from; are all texts empty?")
    return ValueError(f"{asked}: SentencePiece refused: {message}")


def token_list_of(model: bytes) -> list[str]:
    """The tokens of a SentencePiece model in ESPnet's order, blank first."""
    pieces = _pieces(sentencepiece.SentencePieceProcessor(model_proto=model))
    return [BLANK_SYM, UNK_SYM, *pieces, SOS_SYM, EOS_SYM, SOP_SYM]


def _pieces(processor: sentencepiece.SentencePieceProcessor) -> list[str]:
    ids = range(_N_SPM_SYMS, processor.get_piece_size())
    return [processor.id_to_piece(i) for i in ids]


def write_tokenizer(folder: Path, model: bytes, nlsyms: Iterable[str]) -> int:
    """Write `bpe.model bpe.vocab tokens.txt nlsyms.txt`; returns the token count."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokens = token_list_of(model)
    with atomic_write(folder / "bpe.model", "wb") as file:
        file.write(model)
    with atomic_write(folder / "bpe.vocab") as file:
        for i in range(processor.get_piece_size()):
            file.write(f"{processor.id_to_piece(i)}\t{processor.get_score(i):g}\n")
    with atomic_write(folder / "nlsyms.txt") as file:
        file.writelines(f"{symbol}\n" for symbol in nlsyms)
    with atomic_write(folder / "tokens.txt") as file:
        file.writelines(f"{token}\n" for token in tokens)
    return len(tokens)


def read_token_list(path: Path) -> list[str]:
    """Tokens of a `tokens.txt`, in order."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in file]


class Tokenizer:
    """Text to token ids and back, exactly as ESPnet's S2T preprocessor does it.

    `encode` starts with the id of `▁`, which SentencePiece puts before every text.
    ESPnet keeps it in `text.prev` and `text.ctc`, and cuts it off `text`: so does
    `encode_target`.
    """

    def __init__(self, bpe_model: Path, token_list: Path | Sequence[str]):
        """Load a model with its token list.

        Raises:
            ValueError: the two do not belong together.
        """
        self.folder = Path(bpe_model).parent
        self._processor = sentencepiece.SentencePieceProcessor(
            model_proto=Path(bpe_model).read_bytes()
        )
        if isinstance(token_list, (str, Path)):
            token_list = read_token_list(Path(token_list))
        self.token_list = list(token_list)
        pieces = _pieces(self._processor)
        if self.token_list[:2] != [BLANK_SYM, UNK_SYM] or (
            self.token_list[2 : 2 + len(pieces)] != pieces
        ):
            raise ValueError(
                f"{bpe_model}: its {len(pieces)} pieces are not those of the token "
                f"list ({len(self.token_list)} tokens); take both from one folder"
            )
        self.token_ids = {token: i for i, token in enumerate(self.token_list)}

    def encode(self, text: str) -> list[int]:
        """Token ids; phones between slashes may come in any Unicode form."""
        text = _SLASHED.sub(lambda match: nfd(match[0]), text)
        # the list has <blank> <unk> for <unk> <s> </s>: one less, and <unk> is 1
        return [i - 1 if i >= _N_SPM_SYMS else 1 for i in self._processor.encode(text)]

    def encode_target(self, text: str) -> list[int]:
        """Ids of a decoder target `<eng><pr><notimestamps> ...`, from `<eng>` on.

        No piece spells `<unk>`, the language that has no token: SentencePiece, and so
        stock ESPnet, cuts it into `<`, `u` and so on. Here it is the token it means.
        """
        if text.startswith(UNK_SYM):
            return [1, *self.encode(text.removeprefix(UNK_SYM))[1:]]
        return self.encode(text)[1:]

    def tokens(self, token_ids: Iterable[int]) -> list[str]:
        return [self.token_list[i] for i in token_ids]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Text of token ids; unlike SentencePiece's, `<unk>` stays readable."""
        text = "".join(self.tokens(token_ids)).replace(WORD_START, " ")
        return text.removeprefix(" ")


@dataclass(frozen=True)
class TokenizerSettings:
    """Everything but the text that decides the vocabulary."""

    n_pieces: int = 40_000
    only_observed_phones: bool = False
    only_observed_languages: bool = False
    time_step_s: float | None = TIME_STEP_S
    max_sentences: int = 35_000_000
    seed: int = 42


def train_tokenizer(
    dump_set: Path, folder: Path, settings: TokenizerSettings
) -> str | None:
    """Stage 5: learn the vocabulary from a set of `dump/raw`.

    Returns:
        A line on what was made, or None when the same text and settings made what
        stands in `folder`.

    Raises:
        OwnedError: another process is writing this vocabulary.
        VocabularySizeError: the number of pieces does not fit symbols and text.
        ValueError: no orthography.
    """
    inputs = ("text", "text.ctc", "utt2lang")
    made_from = {
        "inputs": contents(dump_set / name for name in inputs),
        "settings": asdict(settings),
        "sentencepiece": sentencepiece.__version__,
        "panphon_phones": len(INVENTORY),
    }
    with owned(folder):
        if is_current(folder / DONE_FILE, "tokens", made_from):
            return None
        with atomic_folder(folder) as making:
            told = _learn(dump_set, making, settings)
            write_record(making / DONE_FILE, "tokens", made_from, making.iterdir())
    return told


def _learn(dump_set: Path, folder: Path, settings: TokenizerSettings) -> str:
    """Write all files of a vocabulary; a line on what was made."""
    if next(words_of(dump_set / "text"), None) is None:
        raise ValueError(
            f"{dump_set}/text: no example of "
            f"{' '.join(t.name for t in TASKS.values() if t.teaches_words)}, so no "
            "orthography to learn pieces from; are all texts of data/ empty, or was "
            "stage 4 run without the task?"
        )
    languages, phones = LANGUAGES, INVENTORY
    if settings.only_observed_languages or settings.only_observed_phones:
        seen_languages, seen_phones = observed_symbols(dump_set)
        languages = seen_languages if settings.only_observed_languages else languages
        phones = seen_phones if settings.only_observed_phones else phones
    special = special_symbols(languages, settings.time_step_s)
    symbols = [*special, *phone_symbols(phones)]
    texts = sample_texts(dump_set / "text", settings.max_sentences, settings.seed)
    model = train_sentencepiece(
        texts, n_pieces=settings.n_pieces, symbols=symbols, seed=settings.seed
    )
    n_tokens = write_tokenizer(folder, model, special)
    write_counts(dump_set, folder)
    n_learned = settings.n_pieces - len(symbols) - _N_SPM_SYMS
    return (
        f"{n_tokens:,} tokens ({len(set(languages))} languages, {len(phones)} phones, "
        f"{n_learned} pieces of orthography)"
    )
