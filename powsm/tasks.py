"""The four tasks: utterance -> prompted training examples, and back from output.

One utterance becomes up to four examples which share audio and CTC target:

    task  text (decoder target)            text.prev (prompt)   text.ctc
    pr    <eng><pr><notimestamps> /p//ɔ/   <na>                 /p//ɔ/
    asr   <eng><asr><notimestamps> paw     <na>                 /p//ɔ/
    g2p   <eng><g2p><notimestamps> /p//ɔ/  paw                  /p//ɔ/
    p2g   <eng><p2g><notimestamps> paw     /p//ɔ/               /p//ɔ/

Source: POWSM (arXiv 2510.24992) section 3 and its model card.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from powsm.languages import LANGUAGES, UNKNOWN_LANG_SYM, lang_sym
from powsm.phones.slashed import to_slashed

TASKS = ("pr", "asr", "g2p", "p2g")
TASK_SYMS = {task: f"<{task}>" for task in TASKS}
TEXT_TASKS = frozenset({"asr", "g2p", "p2g"})  # these need orthography
NO_TIME_SYM = "<notimestamps>"
NA_SYM = "<na>"  # stands where a prompt would
WORD_START = "▁"  # U+2581, SentencePiece's mark for a space

_PHONES, _TEXT, _NOTHING = "phones", "text", "nothing"
_FILLINGS = {  # task -> what fills its target, its prompt
    "pr": (_PHONES, _NOTHING),
    "asr": (_TEXT, _NOTHING),
    "g2p": (_PHONES, _TEXT),
    "p2g": (_TEXT, _PHONES),
}
_TASKS_BY_SYM = {sym: task for task, sym in TASK_SYMS.items()}
_LEADING_SYM = re.compile(r"\s*(<[^<>\s]+>)")
_TIME_SYM = re.compile(r"<\d+\.\d\d>")
_CONTROL_SYMS = frozenset({"<sos>", "<eos>", "<sop>", "<blank>"})


class Example(NamedTuple):
    """One row of stage 4's files: `example_id` is `<utt_id>_<task>`."""

    example_id: str
    text: str
    text_prev: str
    text_ctc: str


@cache
def prompt_lang_sym(lang: str) -> str:
    """The prompt's language symbol: `<unk>` for a language that has no token.

    >>> prompt_lang_sym("eng"), prompt_lang_sym("tus")
    ('<eng>', '<unk>')
    """
    return lang_sym(lang) if lang in LANGUAGES else UNKNOWN_LANG_SYM


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
        text: normalised orthography; empty leaves the PR example alone.
        tasks: which of `TASKS` to make.

    Raises:
        ValueError: no phones, or a task that does not exist.

    >>> for example in examples("u", "eng", ["ɔː"], ["ɔ"], "awe", ["pr", "g2p"]):
    ...     print(*example, sep=" | ")
    u_g2p | <eng><g2p><notimestamps> /ɔː/ | awe | /ɔ/
    u_pr | <eng><pr><notimestamps> /ɔː/ | <na> | /ɔ/
    """
    if not phones or not ctc_phones:
        raise ValueError(f"{utt_id}: no phones; every task needs them, drop it before")
    slashed = _slashed(phones)
    ctc = slashed if ctc_phones == phones else _slashed(ctc_phones)
    fillings = {_PHONES: slashed, _TEXT: text, _NOTHING: NA_SYM}
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
    for task in sorted(tasks):
        if task not in _FILLINGS:
            raise ValueError(f"no task {task!r}; the tasks are {' '.join(TASKS)}")
        if has_text or task not in TEXT_TASKS:
            start = f"{prompt_lang_sym(lang)}<{task}>{NO_TIME_SYM} "
            forms.append((f"_{task}", start, *_FILLINGS[task]))
    return forms


@dataclass(frozen=True)
class ParsedOutput:
    """What the decoder said: symbols it emitted (None if missing) and the rest.

    `text` is slashed phones after pr and g2p, orthography after asr and p2g.
    """

    lang_sym: str | None
    task_sym: str | None
    text: str

    @property
    def task(self) -> str | None:
        return None if self.task_sym is None else _TASKS_BY_SYM[self.task_sym]


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
        is_task = symbol in _TASKS_BY_SYM
        if is_task and found_task is None:
            found_task = symbol
        elif not (
            symbol in _CONTROL_SYMS
            or symbol in (NO_TIME_SYM, NA_SYM)
            or _TIME_SYM.fullmatch(symbol)
        ):
            # a language comes once and before the task; what else stands here is text
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
