"""Symbols of the vocabulary, those that exist and those that a set holds.

Pieces, in this order (the published recipe's): SentencePiece's own `<unk> <s> </s>`,
`<na> <nospeech>`, languages, tasks, `<notimestamps>` and the times, phones `/x/` by
code point, then what unigram training finds in the orthography. The token list has
`<blank> <unk>` instead of the first three, and ends in `<sos> <eos> <sop>`: N pieces
make N + 2 tokens (40,000 and 40,002 as published).
"""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from powsm.audio import WINDOW_S
from powsm.errors import PowsmError
from powsm.languages import LANGUAGES, lang_sym
from powsm.phones.inventory import INVENTORY
from powsm.tasks import NA_SYM, NO_TIME_SYM, TASKS

BLANK_SYM, UNK_SYM = "<blank>", "<unk>"
SOS_SYM, EOS_SYM, SOP_SYM = "<sos>", "<eos>", "<sop>"
NO_SPEECH_SYM = "<nospeech>"
TIME_STEP_S = 0.02  # of the published vocabulary; data carry no timestamps


def time_symbols(step_s: float | None = TIME_STEP_S) -> list[str]:
    """`<0.00>` to `<20.00>`; None leaves the two ends, which ESPnet asks for.

    >>> time_symbols(None), len(time_symbols(0.02)), time_symbols(0.02)[1]
    (['<0.00>', '<20.00>'], 1001, '<0.02>')
    """
    step = WINDOW_S if step_s is None else step_s
    n_steps = round(WINDOW_S / step) if step > 0 else 0
    if step <= 0 or abs(n_steps * step - WINDOW_S) > 1e-9:
        raise PowsmError(f"time step {step_s} s does not divide {WINDOW_S} s")
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
