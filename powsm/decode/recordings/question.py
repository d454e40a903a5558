"""What is asked of recordings: a task, a language, a way to decode."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from powsm.decode.profile import Profile, default_profile, find_profile, for_task
from powsm.errors import PowsmError
from powsm.languages import UNKNOWN_LANG_SYM, lang_code, lang_sym
from powsm.tasks import TASKS
from powsm.vocabulary.phone_sets import parse_phone_set, phone_set

log = logging.getLogger(__name__)

UNKNOWN, AUTO = "unk", "auto"  # instead of a language
G2P = ("model", "espeak", "none")  # how words become phones; none: they are IPA


@dataclass(frozen=True)
class Question:
    """What is asked of recordings.

    Attributes:
        task: `pr asr g2p p2g`.
        profile: how it is decoded.
        lang_sym: the language that the model is given, where `hears_lang` is false.
        hears_lang: whether the model says the language first.
    """

    task: str
    profile: Profile
    lang_sym: str
    hears_lang: bool

    @classmethod
    def of(
        cls,
        known: Sequence[str],
        task: str,
        lang: str,
        profile: Profile | str | Path | None,
        phones: str | Iterable[str] | None,
        has_text: bool,
        has_decoder: bool = True,
    ) -> "Question":
        """See `powsm.decode.recordings.model.Model.transcribe`.

        Args:
            known: symbols of the languages that the model has.
            has_text: whether texts are given.
            has_decoder: whether the CTC head is given no language, which a model
                without a decoder is.

        Raises:
            PowsmError: the question makes no sense; the message says what to change.
        """
        if task not in TASKS:
            raise PowsmError(f"task {task!r}: expected one of {' '.join(TASKS)}")
        if has_text and not TASKS[task].is_prompted:
            raise PowsmError(f"text: {task} reads none; leave it out")
        code = parse_lang(lang)
        if profile is None:
            profile = default_profile(task, has_decoder)
        elif not isinstance(profile, Profile):
            profile = find_profile(profile)
        if isinstance(phones, str):
            phones = phone_set(phones)
        elif phones is not None:
            phones = parse_phone_set(" ".join(phones), "phones")
        profile = for_task(profile, task, has_text=has_text, phones=phones)
        if profile.search.nbest > 1:
            log.warning(
                "search.nbest %d of %s is not used: of a recording the best is kept",
                *(profile.search.nbest, profile.name),
            )
        symbol = lang_sym(code) if code != AUTO else UNKNOWN_LANG_SYM
        if code == UNKNOWN:
            return cls(task, profile, symbol, False)
        if profile.decode == "ctc" and has_decoder:
            log.warning(
                "lang %s is not used: the CTC head, which %s reads, takes none",
                lang,
                profile.name,
            )
            return cls(task, profile, UNKNOWN_LANG_SYM, False)
        if profile.lang != "own":
            log.warning(
                "lang %s is not used: %s says lang: %s",
                lang,
                profile.name,
                profile.lang,
            )
            return cls(task, profile, symbol, False)
        if symbol not in known:
            symbol = UNKNOWN_LANG_SYM
        if code != AUTO and symbol == UNKNOWN_LANG_SYM:
            log.warning(
                "lang %s is not in this model's vocabulary; %s is used",
                lang,
                UNKNOWN_LANG_SYM,
            )
        return cls(task, profile, symbol, code == AUTO)


def parse_lang(lang: str) -> str:
    """`unk`, `auto`, or the code of a language by its code or name.

    Raises:
        PowsmError: no such language.
    """
    if lang in (UNKNOWN, AUTO):
        return lang
    code = lang_code(lang)
    if code is None:
        raise PowsmError(f"lang {lang!r}: no such language; try ISO 639-3")
    return code


def voice_for(g2p: str, lang: str) -> str | None:
    """The voice of espeak-ng that reads a language, where it is espeak that reads.

    Args:
        g2p: one of `G2P`.
        lang: code or name of the language, `unk` or `auto`.

    Raises:
        PowsmError: no such g2p or language, or espeak-ng does not read it.
    """
    if g2p not in G2P:
        raise PowsmError(f"g2p {g2p!r}: expected one of {' '.join(G2P)}")
    code = parse_lang(lang)
    if g2p != "espeak":
        return None
    from powsm.corpora.small.espeak import voice_of

    if code in (UNKNOWN, AUTO):
        raise PowsmError("g2p espeak reads one language; name it by --lang")
    return voice_of(code)
