"""Transcripts of any system, read from common file formats by what they contain."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from powsm.errors import PowsmError
from powsm.files.text import TextFileError, open_text

# Names under which public tools store the key and the transcript, in order.
ID_FIELDS = ("utt_id", "id", "key", "utt", "audio_id", "file")
HYP_FIELDS = ("hyp", "hypothesis", "pred", "prediction", "pred_text")
REF_FIELDS = ("ref", "reference", "gold", "target")
TEXT_FIELDS = ("text", "ipa", "phones", "transcript")

_CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TRN = ".trn"  # of NIST's sclite, and of ESPnet beside its scores
_TRN_LINE = re.compile(r"(.*)\(([^()\s]+)\)")


class TranscriptError(PowsmError):
    """A file or text that cannot be read; the message says where and what to do."""


def read_transcripts(
    path: Path, fields: Sequence[str] = TEXT_FIELDS, *, wants_fields: bool = False
) -> dict[str, str]:
    """Read `utt_id -> text` from Kaldi text, JSONL, CSV, TSV or sclite's trn.

    CSV, TSV and trn are known by their extension, JSONL by its first character, and
    anything else is Kaldi text: the id, white space, the transcript (which may be
    missing: an empty one). White space alone ends an id. In a TSV a quotation mark is a
    letter like others; a trn has the id in brackets behind the text. JSONL of PRiSM's
    inference holds both sides: `pred` is a hypothesis and `target` a reference. What a
    model of this project writes keeps its prompt symbols: `powsm.tasks.strip_prompt`
    takes them off.

    Args:
        path: UTF-8 file.
        fields: names of the transcript in JSONL and CSV; the first that is there
            counts. A list of words or phones is joined by spaces. The id is the first
            of `ID_FIELDS`.
        wants_fields: refuse a file that has none, as plain text.

    Raises:
        TranscriptError: no such field, or none, an id given twice, bad JSON, a row of
            another length than its header, something that is no text, an empty file.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    transcripts: dict[str, str] = {}
    for where, utt_id, text in _read_rows(path, fields, wants_fields):
        if utt_id in transcripts:
            raise TranscriptError(f"{where}: {utt_id!r} is given twice; keep one")
        transcripts[utt_id] = text.strip()
    if not transcripts:
        raise TranscriptError(f"{path}: holds no transcript")
    return transcripts


def _read_rows(
    path: Path, fields: Sequence[str], wants_fields: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield (where, id, text) of each transcript."""
    try:
        # "\n" alone ends a line: a transcript may hold U+2028 and its like
        with open_text(path, newline="\n") as file:
            if delimiter := _CSV_DELIMITERS.get(path.suffix.lower()):
                for where, row in _csv_rows(path, file, delimiter):
                    yield where, *_fields_of(row, fields, where)
                return
            first = ""
            used: list[str] = []
            for number, line in enumerate(file, 1):
                where = f"{path}:{number}"
                if not line.strip():
                    continue
                first = first or line.lstrip()[0]
                if wants_fields and (path.suffix.lower() == _TRN or first not in "[{"):
                    raise TranscriptError(
                        f"{where}: plain text, which has no field {' '.join(fields)}; "
                        "name none, or give JSONL, CSV or TSV"
                    )
                if path.suffix.lower() == _TRN:
                    if not line.startswith(";;"):  # sclite's comments
                        yield where, *_parse_trn(line, where)
                    continue
                if first == "[":
                    raise TranscriptError(
                        f"{where}: a JSON list, expected an object a line (JSONL)"
                    )
                if first == "{":
                    for row in _rows_of(_parse_json(line, where), where):
                        # one field for all rows: another may hold the other side
                        found = [f for f in fields if f in row][:1]
                        used = used or found
                        if used and found != used:
                            raise TranscriptError(
                                f"{where}: fields {' '.join(map(str, row))}; expected "
                                f"{' '.join(used)}, as in the rows before it"
                            )
                        yield where, *_fields_of(row, used or fields, where)
                else:
                    utt_id, *text = line.split(maxsplit=1)
                    yield where, utt_id, text[0].rstrip() if text else ""
    except TextFileError as err:
        raise TranscriptError(str(err)) from err


def _csv_rows(
    path: Path, file: TextIO, delimiter: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, row) of a table with a header."""
    # in a TSV a quotation mark is a letter, as in stress of X-SAMPA
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(file, delimiter=delimiter, quoting=quoting)
    header: list[str] = []
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            header = header or row
            if row is header and (twice := {n for n in row if row.count(n) > 1}):
                raise TranscriptError(
                    f"{where}: the header names {' '.join(sorted(twice))!r} twice; "
                    "keep one"
                )
            if row is header or not row:
                continue
            if len(row) != len(header):
                raise TranscriptError(
                    f"{where}: {len(row)} fields where the header has {len(header)}; "
                    f"a text that holds {delimiter!r} needs quotes"
                )
            if any("\n" in field or "\r" in field for field in row):
                raise TranscriptError(
                    f"{where}: a line break in a field; close the quotation mark, or "
                    "take the line break out"
                )
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as err:
        where = f"{path}:{reader.line_num}"
        raise TranscriptError(f"{where}: not CSV ({err}); a quote left open?") from err


def _parse_trn(line: str, where: str) -> tuple[str, str]:
    match = _TRN_LINE.fullmatch(line.strip())
    if match is None:
        raise TranscriptError(
            f"{where}: found {line.strip()[-40:]!r}, expected the text and then the id "
            "in brackets: the cat (spk1-utt1)"
        )
    return match[2], match[1].rstrip()


def _parse_json(line: str, where: str) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as err:
        raise TranscriptError(f"{where}: not JSON ({err}); one object a line") from err
    if not isinstance(row, dict):
        raise TranscriptError(f"{where}: found {line[:40]!r}, expected a JSON object")
    return row


def _rows_of(record: dict, where: str) -> list[dict]:
    """The rows of a line of JSON: itself, or those of PRiSM's inference.

    PRiSM writes `{key: {"pred": [{"processed_transcript": ...}], "passthrough":
    {"utt_id": ..., "target": ...}}}`, with one or more keys a line.
    """
    values = record.values()
    if not record or not all(
        isinstance(value, dict) and {"pred", "passthrough"} <= set(value)
        for value in values
    ):
        return [record]
    rows = []
    for key, value in record.items():
        about = value["passthrough"]
        try:
            row = {
                "utt_id": about.get("utt_id", key),
                "hyp": value["pred"][0]["processed_transcript"],
            }
        except (AttributeError, IndexError, KeyError, TypeError) as err:
            raise TranscriptError(
                f"{where}: {key!r} has no pred[0].processed_transcript, which PRiSM's "
                "output has"
            ) from err
        rows.append(row | ({"ref": about["target"]} if "target" in about else {}))
    return rows


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
