"""What was heard in a recording: as text, JSON, TextGrid, CTM, CSV, SRT and EAF."""

import csv
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO

from powsm.audio_files import printable
from powsm.decode.align_files import Segment, ctm, eaf, textgrid
from powsm.errors import PowsmError
from powsm.tasks import PHONES, TASKS

# format -> ending of its files
ENDINGS = {
    "txt": ".txt",
    "json": ".json",
    "jsonl": ".jsonl",
    "textgrid": ".TextGrid",
    "ctm": ".ctm",
    "csv": ".csv",
    "srt": ".srt",
    "eaf": ".eaf",
}
WITH_SLASHES = ("txt", "json", "jsonl")  # phones as tokens, where asked for
ALIGNED_FORMS = ("textgrid", "csv", "eaf", "ctm", "json")  # of words and phones
_PHONE = re.compile(r"/([^/\s]+)/")  # in slashed text
_PAUSE_S = 0.5  # seconds without a phone that end what is said in one go
_MOST_CUE_S = 6.0  # seconds of speech that a reader takes in at once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """A stretch that the decoder heard by itself: its text, and times in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Result:
    """What a model heard in a recording.

    Attributes:
        text: what the task writes: IPA without slashes, or words.
        phones: the phones; empty for a task that writes words.
        lang: code of the language that the model was given, `unk` for none.
        score: log-probability of the output, summed over the pieces; None where
            nothing was found.
        segments: the phones with times, where these were asked for.
        pieces: what the decoder heard, where it was the decoder.
        duration_s: of the recording.
        name: of the recording.
        task: `pr asr g2p p2g`.
        slashed: the text in the form of the tokens, `/p//ɔ/`, as in `hyp.jsonl`.
        profile, weights: digests of how it was decoded, and of the model.
        blocks: what CTC heads after other encoder blocks say, by number of the block,
            where the profile asks for them.
    """

    text: str
    phones: tuple[str, ...]
    lang: str
    score: float | None
    segments: tuple[Segment, ...]
    pieces: tuple[Piece, ...]
    duration_s: float
    name: str
    task: str
    slashed: str
    profile: str
    weights: str
    blocks: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping, duration_s: float) -> "Result":
        """The result that a record of `powsm.decode.transcribe` holds."""
        task = record["task_sym"].strip("<>")
        slashed, is_phones = record["text"], TASKS[task].writes == PHONES
        return cls(
            text=plain(slashed) if is_phones else slashed,
            phones=tuple(_PHONE.findall(slashed)) if is_phones else (),
            lang=record["lang_sym"].strip("<>"),
            score=record["score"],
            segments=tuple(Segment(**row) for row in record.get("segments", ())),
            pieces=tuple(
                Piece(
                    plain(row["text"]) if is_phones else row["text"],
                    row["start_s"],
                    row["end_s"],
                )
                for row in record.get("pieces", ())
            ),
            duration_s=duration_s,
            name=record["utt_id"],
            task=task,
            slashed=slashed,
            profile=record["profile"],
            weights=record["weights"],
            blocks={int(n): plain(x) for n, x in record.get("blocks", {}).items()},
        )

    def __str__(self) -> str:
        return self.text

    def to_textgrid(self) -> str:
        """A Praat TextGrid: phones, or the words of each piece."""
        return self.to("textgrid")

    def to_json(self) -> str:
        """A JSON object."""
        return self.to("json")

    def to(self, form: str) -> str:
        """The text of a file; `form` is one of `ENDINGS`."""
        return render(self, form)

    def cues(self) -> list[Piece]:
        """What is said in one go, with times: the pieces, or phones between pauses."""
        if not self.segments:
            return [piece for piece in self.pieces if piece.text]
        cues: list[list[Segment]] = []
        for segment in self.segments:
            last = cues[-1] if cues else None
            if (
                last is None
                or segment.start - last[-1].end >= _PAUSE_S
                or segment.end - last[0].start > _MOST_CUE_S
            ):
                cues.append([])
            cues[-1].append(segment)
        return [
            Piece("".join(s.phone for s in cue), cue[0].start, cue[-1].end)
            for cue in cues
        ]


def plain(slashed: str) -> str:
    """IPA without slashes; what is no phone stays.

    >>> plain("/p//ɔː/ <unk>")
    'pɔː <unk>'
    """
    return _PHONE.sub(r"\1", slashed)


class FormatError(PowsmError):
    """A result that a format cannot hold."""


def check_format(form: str, task: str) -> None:
    """Refuse a format that is not known, or that holds times which a task lacks.

    Raises:
        FormatError: names what there is.
    """
    if form not in ENDINGS:
        raise FormatError(f"format {form!r}: expected one of {' '.join(ENDINGS)}")
    if form == "ctm" and TASKS[task].writes != PHONES:
        raise FormatError(
            f"ctm holds the times of phones, which {task} does not give; use srt, "
            "textgrid, csv, eaf or json for the times of pieces"
        )


def render(result: Result, form: str, *, slashes: bool = False) -> str:
    """The text of a file.

    Args:
        form: one of `ENDINGS`.
        slashes: phones of txt and JSON in the form of the tokens.

    Raises:
        FormatError: see `check_format`.
    """
    check_format(form, result.task)
    if form not in WITH_SLASHES and result.phones and not result.segments:
        log.warning(
            "%s: its phones have no times (times=True), %s holds none of them",
            *(printable(result.name), form),
        )
    name, (tier, rows) = printable(result.name), _rows(result)
    if form == "txt":
        return (result.slashed if slashes else result.text) + "\n"
    if form in ("json", "jsonl"):
        indent = 2 if form == "json" else None
        record = _record(result, slashes)
        return json.dumps(record, ensure_ascii=False, indent=indent) + "\n"
    if form == "textgrid":
        return textgrid({tier: rows}, result.duration_s, name)
    if form == "ctm":
        return ctm(name, result.segments)
    if form == "csv":
        return _csv(tier, rows)
    return _srt(result.cues()) if form == "srt" else eaf({tier: rows})


def _record(result: Result, slashes: bool) -> dict:
    record = {
        "utt_id": printable(result.name),
        "task": result.task,
        "lang": result.lang,
        "text": result.slashed if slashes else result.text,
        "phones": list(result.phones),
        "score": result.score,
        "duration_s": round(result.duration_s, 4),
        "segments": [segment.row() for segment in result.segments],
        "pieces": [asdict(piece) for piece in result.pieces],
        "profile": result.profile,
        "weights": result.weights,
    }
    if result.blocks:
        record["blocks"] = {str(block): text for block, text in result.blocks.items()}
    if not result.phones and TASKS[result.task].writes != PHONES:
        del record["phones"], record["segments"]
    return record


def _rows(result: Result) -> tuple[str, list[Segment]]:
    """Name of the tier, and its rows: phones, or the texts of pieces."""
    if TASKS[result.task].writes == PHONES:
        return "phones", list(result.segments)
    return "text", [Segment(c.text, c.start, c.end, 1.0) for c in result.cues()]


def _csv(tier: str, rows: Sequence[Segment]) -> str:
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if tier == "phones":
        writer.writerow(("start_s", "end_s", "phone", "confidence"))
        writer.writerows((r.start, r.end, r.phone, r.confidence) for r in rows)
    else:
        writer.writerow(("start_s", "end_s", "text"))
        writer.writerows((r.start, r.end, r.phone) for r in rows)
    return file.getvalue()


def _srt(cues: Sequence[Piece]) -> str:
    return "\n".join(
        f"{number}\n{_clock(cue.start)} --> {_clock(cue.end)}\n{cue.text}\n"
        for number, cue in enumerate(cues, 1)
    )


def _clock(seconds: float) -> str:
    ms = round(seconds * 1000)
    hours, minutes, whole = ms // 3_600_000, ms // 60_000 % 60, ms // 1000 % 60
    return f"{hours:02}:{minutes:02}:{whole:02},{ms % 1000:03}"
