"""The tasks: utterance -> prompted training examples, and back from output.

One utterance becomes up to four examples which share audio and CTC target:

    task  text (decoder target)            text.prev (prompt)   text.ctc
    pr    <eng><pr><notimestamps> /p//ɔ/   <na>                 /p//ɔ/
    asr   <eng><asr><notimestamps> paw     <na>                 /p//ɔ/
    g2p   <eng><g2p><notimestamps> /p//ɔ/  paw                  /p//ɔ/
    p2g   <eng><p2g><notimestamps> paw     /p//ɔ/               /p//ɔ/

A task is one row of `_ROWS`; examples, symbols, decode profiles, metrics and reports
follow from it.

Source: POWSM (arXiv 2510.24992) section 3 and its model card.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from powsm.errors import PowsmError
from powsm.languages import UNKNOWN_LANG_SYM, lang_sym
from powsm.phones.slashed import to_slashed

NO_TIME_SYM = "<notimestamps>"
NA_SYM = "<na>"  # in place of a prompt
WORD_START = "▁"  # U+2581, SentencePiece's mark for a space

Filling = Literal["phones", "text", "language", "nothing"]
PHONES: Filling = "phones"
TEXT: Filling = "text"
LANGUAGE: Filling = "language"
NOTHING: Filling = "nothing"


@dataclass(frozen=True)
class Task:
    """One task of the model.

    Attributes:
        name: as in ids of examples, decode profiles and results; `<name>` in prompts.
        title: what a reader is told.
        reads: what fills the prompt of an example.
        writes: what fills its target. A task that writes the language of an utterance
            is prompted with `<unk>` for it.
        metrics: rates of its output; the first that was scored sums up the task.
        first_pass: the task whose output, of the same audio, can be the prompt.
        sample: a prompt that shows what the task reads.
        teaches_words: whether its targets are the text that pieces are learned from;
            one task for each kind of text, or it would count twice.
        is_trained: whether stage 4 makes examples of it and the vocabulary holds its
            symbol.
    """

    name: str
    title: str
    reads: Filling
    writes: Filling
    metrics: tuple[str, ...]
    first_pass: str | None = None
    sample: str = NA_SYM
    teaches_words: bool = False
    is_trained: bool = True

    @property
    def symbol(self) -> str:
        return f"<{self.name}>"

    @property
    def is_prompted(self) -> bool:
        return self.reads != NOTHING

    @property
    def needs_text(self) -> bool:
        """Whether an utterance without orthography has no example."""
        return TEXT in (self.reads, self.writes)


_PHONE_METRICS = ("PFER", "PER")
_TEXT_METRICS = ("WER", "CER")
_LANGUAGE_METRICS = ("accuracy",)
_ROWS = (  # in the order of the symbols in the published vocabulary
    Task("asr", "speech recognition", NOTHING, TEXT, _TEXT_METRICS, teaches_words=True),
    Task("pr", "phone recognition", NOTHING, PHONES, _PHONE_METRICS),
    Task(
        *("g2p", "audio-guided grapheme to phone", TEXT, PHONES, _PHONE_METRICS),
        first_pass="asr",
        sample="tea",
    ),
    Task(
        *("p2g", "audio-guided phone to grapheme", PHONES, TEXT, _TEXT_METRICS),
        first_pass="pr",
        sample="/t//i/",
    ),
    Task(  # read off what the decoder says first, whatever it was trained on
        *("lid", "language identification", NOTHING, LANGUAGE, _LANGUAGE_METRICS),
        is_trained=False,
    ),
)
LID = "lid"
PUBLISHED_TASKS = ("asr", "pr", "g2p", "p2g")  # those of the paper's models and tables
TASKS: dict[str, Task] = {row.name: row for row in _ROWS if row.is_trained}
_ORDER = (PHONES, TEXT, LANGUAGE)
# What a profile can decode and stage 13 scores, in the order of reports.
DECODED_TASKS: dict[str, Task] = {
    row.name: row for row in sorted(_ROWS, key=lambda row: _ORDER.index(row.writes))
}

_TASK_SYMS = frozenset(task.symbol for task in TASKS.values())
_LEADING_SYM = re.compile(r"\s*(<[^<>\s]+>)")
_TIME_SYM = re.compile(r"<\d+\.\d\d>")
_CONTROL_SYMS = frozenset({"<sos>", "<eos>", "<sop>", "<blank>"})


def tasks_writing(filling: Filling) -> tuple[str, ...]:
    """Names of the tasks whose targets are phones, text or a language.

    >>> tasks_writing(PHONES)
    ('pr', 'g2p')
    """
    return tuple(name for name, task in TASKS.items() if task.writes == filling)


def plain_task(filling: Filling) -> str:
    """The task that writes phones, text or a language from speech alone.

    Every utterance has an example of the one that writes phones.

    >>> plain_task(PHONES), plain_task(TEXT), plain_task(LANGUAGE)
    ('pr', 'asr', 'lid')
    """
    rows = (row for row in _ROWS if row.writes == filling and not row.is_prompted)
    return next(rows).name


def task_ids(tokens: Sequence[str]) -> dict[str, int]:
    """Name -> token id of the tasks that a vocabulary has a symbol for."""
    known = {name: t.symbol for name, t in TASKS.items() if t.symbol in tokens}
    return {name: tokens.index(symbol) for name, symbol in known.items()}


def task_of(example_id: str) -> str:
    """The task of `<utt_id>_<task>`.

    >>> task_of("ls_1_eng_pr")
    'pr'
    """
    return example_id.rpartition("_")[2]


class Example(NamedTuple):
    """One row of stage 4's files: `example_id` is `<utt_id>_<task>`."""

    example_id: str
    text: str
    text_prev: str
    text_ctc: str


_seen_phones: set[str] = set()  # those that `to_slashed` has accepted


def _slashed(phones: Sequence[str]) -> str:
    """`to_slashed`, which looks at every character, at the cost of new phones only."""
    if not _seen_phones.issuperset(phones):
        to_slashed(phones)
        _seen_phones.update(phones)
    return f"/{'//'.join(phones)}/"


def examples(
    utt_id: str,
    lang: str,
    phones: Sequence[str],
    ctc_phones: Sequence[str],
    text: str,
    tasks: Iterable[str] = TASKS,
) -> list[Example]:
    """The training examples of one utterance, sorted by `example_id`.

    Args:
        utt_id: the utterance's id.
        lang: ISO 639-3 code; one without a token gets `<unk>`.
        phones: all phones with their length marks.
        ctc_phones: the phones without length and break marks.
        text: normalised orthography; empty leaves the tasks that need none.
        tasks: which of `TASKS` to make.

    Raises:
        ValueError: no phones.
        PowsmError: a task that does not exist.

    >>> for example in examples("u", "eng", ["ɔː"], ["ɔ"], "awe", ["pr", "g2p"]):
    ...     print(*example, sep=" | ")
    u_g2p | <eng><g2p><notimestamps> /ɔː/ | awe | /ɔ/
    u_pr | <eng><pr><notimestamps> /ɔː/ | <na> | /ɔ/
    """
    if not phones or not ctc_phones:
        raise ValueError(f"{utt_id}: no phones; every task needs them, drop it before")
    slashed = _slashed(phones)
    ctc = slashed if ctc_phones == phones else _slashed(ctc_phones)
    fillings = {PHONES: slashed, TEXT: text, LANGUAGE: lang_sym(lang), NOTHING: NA_SYM}
    return [
        Example(utt_id + end, start + fillings[target], fillings[prompt], ctc)
        for end, start, target, prompt in _forms(lang, bool(text), tuple(tasks))
    ]


@cache
def _forms(
    lang: str, has_text: bool, tasks: tuple[str, ...]
) -> list[tuple[str, str, str, str]]:
    """What the examples of an utterance are made of, sorted by task.

    Returns:
        End of the id, start of the target; what fills target and prompt.
    """
    forms = []
    for name in sorted(tasks):
        if name not in TASKS:
            raise PowsmError(f"no task {name!r}; the tasks are {' '.join(TASKS)}")
        task, symbol = TASKS[name], lang_sym(lang)
        if task.needs_text and not has_text:
            continue
        if task.writes == LANGUAGE:
            if symbol == UNKNOWN_LANG_SYM:
                continue  # nothing that the model could answer
            symbol = UNKNOWN_LANG_SYM
        start = f"{symbol}{task.symbol}{NO_TIME_SYM} "
        forms.append((f"_{name}", start, task.writes, task.reads))
    return forms


@dataclass(frozen=True)
class ParsedOutput:
    """What the decoder said: symbols it emitted (None if missing) and the rest.

    `text` is what the task writes: slashed phones, orthography or a language.
    """

    lang_sym: str | None
    task_sym: str | None
    text: str


def parse_output(output: str | Sequence[str]) -> ParsedOutput:
    """Take the prompt symbols off a decoded text, or off a list of tokens.

    Timestamps, `<notimestamps>`, `<sos>` and `<eos>` vanish. Nothing is guessed:
    a symbol that the decoder left out is None, and the text stays whole.

    >>> parse_output("<eng><pr><notimestamps> /p//ɔ/")
    ParsedOutput(lang_sym='<eng>', task_sym='<pr>', text='/p//ɔ/')
    >>> parse_output(["<unk>", "<asr>", "<notimestamps>", "▁who", "▁is"]).text
    'who is'
    >>> parse_output("/p//ɔ/")
    ParsedOutput(lang_sym=None, task_sym=None, text='/p//ɔ/')
    """
    if not isinstance(output, str):
        output = "".join(output)
    output = output.replace(WORD_START, " ")
    found_lang = found_task = None
    while match := _LEADING_SYM.match(output):
        symbol = match[1]
        is_task = symbol in _TASK_SYMS
        if is_task and found_task is None:
            found_task = symbol
        elif not (
            symbol in _CONTROL_SYMS
            or symbol in (NO_TIME_SYM, NA_SYM)
            or _TIME_SYM.fullmatch(symbol)
        ):
            # a language comes once and before the task; what else is here is text
            if is_task or found_lang is not None or found_task is not None:
                break
            found_lang = symbol
        output = output[match.end() :]
    output = _TIME_SYM.sub(" ", output)
    for symbol in _CONTROL_SYMS:
        output = output.replace(symbol, " ")
    return ParsedOutput(found_lang, found_task, " ".join(output.split()))


def strip_prompt(text: str) -> str:
    """Text without the symbols a model of this project begins with.

    What names no task is another system's, and stays as it is.

    >>> strip_prompt("<eng><pr><notimestamps> /p//a/")
    '/p//a/'
    >>> strip_prompt("<unk> of another system")
    '<unk> of another system'
    """
    if text.lstrip().startswith("<"):
        parsed = parse_output(text)
        if parsed.task_sym is not None:
            return parsed.text
    return text.strip()
