"""Learn a vocabulary: the orthography of a training set through SentencePiece."""

import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sentencepiece

from powsm.errors import PowsmError
from powsm.files.current import contents, is_current, write_record
from powsm.files.lock import owned
from powsm.files.text import open_text
from powsm.files.whole import atomic_folder, atomic_write, write_whole
from powsm.languages import LANGUAGES
from powsm.phones.normaliser import INVENTORY
from powsm.tasks import NO_TIME_SYM, TASKS
from powsm.vocabulary.phone_sets import write_counts
from powsm.vocabulary.symbols import (
    TIME_STEP_S,
    observed_symbols,
    phone_symbols,
    special_symbols,
)
from powsm.vocabulary.tokenizer import N_SPM_SYMS, token_list_of

DONE_FILE = "tokenizer.done.json"

_N_THREADS = 16  # not the machine's: the sums of training depend on their number
_MAX_SENTENCE_BYTES = 1 << 20  # SentencePiece would skip longer lines in silence
_TOO_SMALL = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
_TOO_LARGE = re.compile(r"set it to a value <= (\d+)")


class VocabularySizeError(PowsmError):
    """A number of pieces that the symbols and the text do not allow."""


def words_of(text_file: Path) -> Iterator[str]:
    """The orthography in the `text` of a `dump/raw` set, each text once."""
    task_syms = tuple(task.symbol for task in TASKS.values() if task.teaches_words)
    with open_text(text_file, newline="\n") as file:
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
        PowsmError: no text.
    """
    repeated = [symbol for symbol, n in Counter(symbols).items() if n > 1]
    if repeated:
        raise PowsmError(f"symbols given twice: {' '.join(sorted(repeated))}")
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


def _explained(message: str, n_pieces: int, n_symbols: int) -> PowsmError:
    """SentencePiece's refusal in words that say what to do."""
    asked = f"--nbpe {n_pieces}, of which {n_symbols + N_SPM_SYMS} are symbols"
    if sizes := _TOO_SMALL.search(message):
        return VocabularySizeError(
            f"{asked}: too few for the characters of the text; at least {sizes[1]}"
        )
    if sizes := _TOO_LARGE.search(message):
        return VocabularySizeError(
            f"{asked}: too many for this much text; at most {sizes[1]}"
        )
    if "sentences_.empty" in message:
        return PowsmError("no orthography to learn pieces from; are all texts empty?")
    return PowsmError(f"{asked}: SentencePiece refused: {message}")


def write_tokenizer(folder: Path, model: bytes, nlsyms: Iterable[str]) -> int:
    """Write `bpe.model bpe.vocab tokens.txt nlsyms.txt`; returns the token count."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokens = token_list_of(model)
    write_whole(folder / "bpe.model", model)
    with atomic_write(folder / "bpe.vocab") as file:
        for i in range(processor.get_piece_size()):
            file.write(f"{processor.id_to_piece(i)}\t{processor.get_score(i):g}\n")
    with atomic_write(folder / "nlsyms.txt") as file:
        file.writelines(f"{symbol}\n" for symbol in nlsyms)
    with atomic_write(folder / "tokens.txt") as file:
        file.writelines(f"{token}\n" for token in tokens)
    return len(tokens)


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
        is in `folder`.

    Raises:
        OwnedError: another process is writing this vocabulary.
        VocabularySizeError: the number of pieces does not fit symbols and text.
        PowsmError: no orthography.
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
            changed = _learn(dump_set, making, settings)
            write_record(making / DONE_FILE, "tokens", made_from, making.iterdir())
    return changed


def _learn(dump_set: Path, folder: Path, settings: TokenizerSettings) -> str:
    """Write all files of a vocabulary; a line on what was made."""
    if next(words_of(dump_set / "text"), None) is None:
        raise PowsmError(
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
    n_learned = settings.n_pieces - len(symbols) - N_SPM_SYMS
    return (
        f"{n_tokens:,} tokens ({len(set(languages))} languages, {len(phones)} phones, "
        f"{n_learned} pieces of orthography)"
    )
