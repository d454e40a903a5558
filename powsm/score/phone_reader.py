"""Transcripts of any system: read them from common file formats, make phones of them.

What is scored need not come from this project, so files are read by what they contain
and phones by a named cleaning, the same for hypothesis and reference.
"""

import csv
import json
import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TextIO

from powsm.errors import PowsmError
from powsm.phones.alphabets import AlphabetError, to_ipa
from powsm.phones.inventory import (
    INVENTORY,
    UNKNOWN,
    build_trie,
    longest_match_pattern,
)
from powsm.phones.normaliser import POLICIES, Normaliser

PRISM = "prism"
CLEANINGS = (*POLICIES, PRISM)

# Names under which public tools store the key and the transcript, in order.
ID_FIELDS = ("utt_id", "id", "key", "utt", "audio_id", "file")
HYP_FIELDS = ("hyp", "hypothesis", "pred", "prediction", "pred_text")
REF_FIELDS = ("ref", "reference", "gold", "target")
TEXT_FIELDS = ("text", "ipa", "phones", "transcript")

# <eng><pr><notimestamps> before the text; other systems write <unk> for a word
_PROMPT = re.compile(r"^(<[^<>\s]+>)*<(pr|asr|g2p|p2g)>(<[^<>\s]+>)*")
_CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class TranscriptError(PowsmError):
    """A file or text that cannot be read; the message says where and what to do."""


def read_transcripts(path: Path, fields: Sequence[str] = TEXT_FIELDS) -> dict[str, str]:
    """Read `utt_id -> text` from Kaldi text, JSONL, CSV or TSV.

    CSV and TSV are told by their extension, JSONL by its first character, and anything
    else is Kaldi text: the id, white space, the transcript (which may be missing: an
    empty one). The prompt symbols of this project's models are cut off.

    Args:
        path: UTF-8 file.
        fields: names of the transcript in JSONL and CSV; the first that is there
            counts. A list of words or phones is joined by spaces. The id is the first
            of `ID_FIELDS`.

    Raises:
        TranscriptError: no such field, an id given twice, bad JSON, a row of another
            length than its header, something that is no text, an empty file.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    transcripts: dict[str, str] = {}
    for where, utt_id, text in _read_rows(path, fields):
        if utt_id in transcripts:
            raise TranscriptError(f"{where}: {utt_id!r} is given twice; keep one")
        transcripts[utt_id] = strip_prompt(text)
    if not transcripts:
        raise TranscriptError(f"{path}: holds no transcript")
    return transcripts


def strip_prompt(text: str) -> str:
    """Text without the symbols a model of this project begins with.

    >>> strip_prompt("<eng><pr><notimestamps> /p//a/")
    '/p//a/'
    >>> strip_prompt("<unk> of another system")
    '<unk> of another system'
    """
    return _PROMPT.sub("", text.strip(), count=1).strip()


class PhoneText(NamedTuple):
    """Phones of a transcript and the characters that are in none, for no known reason.

    Stress marks, punctuation and the like are left out on purpose and not listed.
    """

    phones: tuple[str, ...]
    unknown: tuple[str, ...]


class PhoneReader:
    """Makes phones of transcripts, hypothesis and reference alike.

    Args:
        cleaning: a policy of `powsm.phones.normaliser`, or `prism`: spaces and ASCII
            punctuation deleted, NFD, g -> ɡ, then PanPhon's own segmentation, which
            skips what it does not know. That is how the published tables were scored.
        phone_map: the transcripts are not IPA but symbols of this alphabet between
            spaces; see `powsm.phones.alphabets`.

    Raises:
        TranscriptError: no such cleaning or map.

    >>> PhoneReader("prism").read("ˈwɔtɚ")  # published scoring loses this vowel
    PhoneText(phones=('w', 'ɔ', 't'), unknown=('ɚ',))
    >>> PhoneReader().read("ˈwɔtɚ")
    PhoneText(phones=('w', 'ɔ', 't', 'ə˞'), unknown=())
    >>> PhoneReader(phone_map="timit").read("h# sh iy dcl jh").phones
    ('ʃ', 'i', 'd͡ʒ')
    """

    def __init__(self, cleaning: str = "strict", phone_map: str | None = None):
        if cleaning not in CLEANINGS:
            raise TranscriptError(
                f"cleaning {cleaning!r} is not known; use one of {' '.join(CLEANINGS)}"
            )
        self._prism = cleaning == PRISM
        self._normaliser = Normaliser("strict" if self._prism else cleaning)
        self._phone_map = phone_map
        self._mapped("")

    def read(self, text: str) -> PhoneText:
        """Phones of one transcript.

        Raises:
            TranscriptError: a symbol that the phone map does not have.
        """
        text = self._mapped(text)
        if self._prism:
            return self._read_prism(text)
        # a slash ends a phone, as in powsm.phones.normaliser.read_phones
        segmentation = self._normaliser.segment(text.replace("/", " "))
        if segmentation.unknown_count == 0:
            return PhoneText(segmentation.phones, ())
        unknown = (d.char for d in segmentation.dropped if d.kind == UNKNOWN)
        return PhoneText(segmentation.phones, tuple(unknown))

    def _mapped(self, text: str) -> str:
        if self._phone_map is None:
            return text
        try:
            return to_ipa(text.split(), self._phone_map)
        except AlphabetError as err:
            raise TranscriptError(str(err)) from err

    def _read_prism(self, text: str) -> PhoneText:
        clean = text.replace(" ", "").translate(_NO_PUNCTUATION)
        clean = unicodedata.normalize("NFD", clean).replace("g", "ɡ")
        phones, skipped = [], []
        for phone, other in _panphon_segments().findall(clean):
            (phones if phone else skipped).append(phone or other)
        unknown = tuple(char for char in skipped if not self._is_ignorable(char))
        return PhoneText(tuple(phones), unknown)

    def _is_ignorable(self, char: str) -> bool:
        """Whether a character that PanPhon skips is no sound, like a stress mark.

        What our own policy can make a phone of, such as ɚ, is a loss.
        """
        segmentation = self._normaliser.segment(char)
        return not segmentation.phones and segmentation.unknown_count == 0


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@cache
def _panphon_segments() -> re.Pattern:
    """What PanPhon's `ipa_segs` finds: the longest phone, or one character to skip."""
    return re.compile(
        f"({longest_match_pattern(build_trie(INVENTORY))})|(.)", re.DOTALL
    )


def _read_rows(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (where, id, text) of each transcript."""
    try:
        # "\n" alone ends a line: a transcript may hold U+2028 and its like
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            if delimiter := _CSV_DELIMITERS.get(path.suffix.lower()):
                for where, row in _csv_rows(path, file, delimiter):
                    yield where, *_fields_of(row, fields, where)
                return
            first = ""
            for number, line in enumerate(file, 1):
                where = f"{path}:{number}"
                if not line.strip():
                    continue
                first = first or line.lstrip()[0]
                if first == "[":
                    raise TranscriptError(
                        f"{where}: a JSON list, expected an object a line (JSONL)"
                    )
                if first == "{":
                    yield where, *_fields_of(_parse_json(line, where), fields, where)
                else:
                    utt_id, *text = line.split(maxsplit=1)
                    yield where, utt_id, text[0].rstrip() if text else ""
    except UnicodeDecodeError as err:
        raise TranscriptError(f"{path}: not UTF-8 text ({err})") from err


def _csv_rows(
    path: Path, file: TextIO, delimiter: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, row) of a table with a header."""
    reader = csv.reader(file, delimiter=delimiter)
    header: list[str] = []
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            header = header or row
            if row is header or not row:
                continue
            if len(row) != len(header):
                raise TranscriptError(
                    f"{where}: {len(row)} fields where the header has {len(header)}; "
                    f"a text that holds {delimiter!r} needs quotes"
                )
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as err:
        where = f"{path}:{reader.line_num}"
        raise TranscriptError(f"{where}: not CSV ({err}); a quote left open?") from err


def _parse_json(line: str, where: str) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as err:
        raise TranscriptError(f"{where}: not JSON ({err}); one object a line") from err
    if not isinstance(row, dict):
        raise TranscriptError(f"{where}: found {line[:40]!r}, expected a JSON object")
    return row


def _fields_of(row: dict, fields: Sequence[str], where: str) -> tuple[str, str]:
    id_field = next((name for name in ID_FIELDS if name in row), None)
    text_field = next((name for name in fields if name in row), None)
    if id_field is None or text_field is None:
        wanted = ID_FIELDS if id_field is None else fields
        raise TranscriptError(
            f"{where}: fields {' '.join(map(str, row))}; expected one of "
            f"{' '.join(wanted)}"
        )
    text = row[text_field]
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = " ".join(text)
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise TranscriptError(
            f"{where}: {text_field} is {text!r:.40}, expected text or a list of texts"
        )
    return str(row[id_field]), text
