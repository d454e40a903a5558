"""The frozen `Utterance` record: one stretch of speech and all that is known of it."""

import re
from dataclasses import dataclass

from powsm.audio import SAMPLE_RATE
from powsm.errors import PowsmError

_ID = re.compile(r"[A-Za-z0-9.+@_-]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9.+_-]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LANG = re.compile(r"[a-z]{3}")


class UtteranceError(PowsmError):
    """A field of an utterance that breaks the rules below."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of speech by one speaker, as the corpus gives it.

    Attributes:
        utt_id: unique, sortable key `<corpus>_<recording>_<lang>`, see `make_utt_id`.
        corpus: a name in `powsm.corpora.table`.
        split: the corpus's own name of the part, e.g. `train` or `af_za-test`.
        lang: ISO 639-3 code.
        speaker: id, unique over all corpora.
        audio: `wav.scp` value, see `powsm.files.audio_places.AudioRef`.
        n_samples: length at `SAMPLE_RATE`, known without decoding.
        text: orthography as given, on one line; may be empty.
        ipa: transcription as given, on one line; never empty.
        ipa_clean: the corpus's own simplified form of it; may be empty.
        is_partly_labelled: its recording is longer than what the labels speak of.
    """

    utt_id: str
    corpus: str
    split: str
    lang: str
    speaker: str
    audio: str
    n_samples: int
    text: str
    ipa: str
    ipa_clean: str = ""
    is_partly_labelled: bool = False

    def __post_init__(self) -> None:
        if not (_ID.fullmatch(self.utt_id) and _ID.fullmatch(self.speaker)):
            raise UtteranceError(
                f"utt_id {self.utt_id!r} and speaker {self.speaker!r} must be letters, "
                "digits and .+@_- only; see make_utt_id"
            )
        if not _LANG.fullmatch(self.lang):
            raise UtteranceError(
                f"{self.utt_id}: lang {self.lang!r} is not an ISO 639-3 code like 'eng'"
            )
        if self.n_samples <= 0:
            raise UtteranceError(f"{self.utt_id}: n_samples {self.n_samples}, need > 0")
        if not self.ipa or not self.audio:
            field = "audio" if self.ipa else "ipa"
            raise UtteranceError(f"{self.utt_id}: {field} is empty")
        if any(one_line(s) != s for s in (self.text, self.ipa, self.ipa_clean)):
            raise UtteranceError(
                f"{self.utt_id}: text and ipa must be one line with single spaces; "
                "pass them through one_line"
            )

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / SAMPLE_RATE


def make_utt_id(corpus: str, recording: str, lang: str) -> str:
    """The key of an utterance, made of what it is and not of where it stood in a file.

    >>> make_utt_id("fleurs", "12 a/é", "fra")
    'fleurs_12@20a@2F@C3@A9_fra'
    """
    return f"{corpus}_{safe_id(recording)}_{lang}"


def safe_id(name: str) -> str:
    """`name` with each byte outside `[A-Za-z0-9.+_-]` written `@XX`, in hexadecimal.

    The `@` is escaped as well, so two names never become one. Ids stay whole words for
    shells, for file names and for the byte order of `LC_ALL=C`.

    >>> safe_id("speaker@home")
    'speaker@40home'
    """
    return _UNSAFE.sub(_escape, name)


def _escape(match: re.Match[str]) -> str:
    return "".join(f"@{byte:02X}" for byte in match[0].encode("utf-8"))


def one_line(text: str) -> str:
    """`text` without line breaks: every run of white space becomes one space.

    Control characters are white space, too: Kaldi's validate_data_dir.sh allows none.

    >>> one_line(" a\\n b\\0c ")
    'a b c'
    """
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text)
    return " ".join(text.split())
