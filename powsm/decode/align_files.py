"""Alignments as files: Praat TextGrid, ELAN EAF, NIST CTM, JSON lines."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from powsm.audio_files import printable
from powsm.errors import PowsmError
from powsm.files.whole import atomic_write, write_whole

SLIVER_S = 0.001  # seconds; what is shorter is no pause


class AlignFileError(PowsmError):
    """Segments that cannot be written as they are; the message says which."""


@dataclass(frozen=True)
class Segment:
    """A phone in time.

    Attributes:
        phone: as given, or as the CTC head says it.
        start, end: seconds from the start of the recording.
        confidence: mean probability of the phone over the frames that say it, 0 to 1.
        nearest: the model's phone that stands for it, where it lacks the phone.
        gop, gop_free, rival: where they were asked for, how well it was said, and what
            fits best in its place (`-`: nothing); see
            `powsm.decode.pronunciation.goodness`.
    """

    phone: str
    start: float
    end: float
    confidence: float
    nearest: str | None = None
    gop: float | None = None
    gop_free: float | None = None
    rival: str | None = None

    def row(self) -> dict[str, Any]:
        """What is known of it, by name.

        >>> Segment("p", 0.1, 0.2, 0.9).row()
        {'phone': 'p', 'start': 0.1, 'end': 0.2, 'confidence': 0.9}
        """
        return {
            name: value for name, value in asdict(self).items() if value is not None
        }


def write_textgrid(path: Path, segments: Sequence[Segment], duration_s: float) -> None:
    """Write a Praat TextGrid (long text format) with one interval tier, `phones`.

    Pauses are intervals without text, so that the tier covers the recording and ends
    where the recording does. Gaps shorter than `SLIVER_S` are rounding, no pauses: they
    go to the phone before them.

    Raises:
        AlignFileError: segments that overlap, have no length or lie outside.
    """
    text = textgrid({"phones": segments}, duration_s, path)
    write_whole(path, text)


def textgrid(
    tiers: Mapping[str, Sequence[Segment]], duration_s: float, name: str | Path
) -> str:
    """A Praat TextGrid with an interval tier of each name; see `write_textgrid`.

    Args:
        name: of the recording or file, for errors.
    """
    duration_s = float(duration_s)  # NumPy's have a name when they are written
    text = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
        f"xmin = 0\nxmax = {duration_s!r}\ntiers? <exists>\nsize = {len(tiers)}\n"
        "item []:\n"
    )
    for place, (tier, segments) in enumerate(tiers.items(), 1):
        rows = _tier(name, segments, duration_s)
        text += (
            f'    item [{place}]:\n        class = "IntervalTier"\n'
            f'        name = "{_quoted(tier)}"\n'
            f"        xmin = 0\n        xmax = {duration_s!r}\n"
            f"        intervals: size = {len(rows)}\n"
        )
        for number, (start, end, label) in enumerate(rows, 1):
            text += (
                f"        intervals [{number}]:\n            xmin = {start!r}\n"
                f'            xmax = {end!r}\n            text = "{_quoted(label)}"\n'
            )
    return text


def _quoted(label: str) -> str:
    return label.replace('"', '""')


def _tier(
    name: str | Path, segments: Sequence[Segment], duration_s: float
) -> list[tuple[float, float, str]]:
    """(start, end, text) of intervals without gaps, the last one to the very end."""
    rows: list[tuple[float, float, str]] = []
    at = 0.0
    for segment in segments:
        start, end = max(float(segment.start), 0.0), float(segment.end)
        if abs(start - at) < SLIVER_S:
            start = at
        if abs(end - duration_s) < SLIVER_S:
            end = duration_s
        if not at <= start < end <= duration_s:
            raise AlignFileError(
                f"{name}: {segment.phone!r} from {segment.start} s to {segment.end} s, "
                f"expected times in order between {at} s and {duration_s} s"
            )
        if start > at:
            rows.append((at, start, ""))
        rows.append((start, end, segment.phone))
        at = end
    if at < duration_s or not rows:
        rows.append((at, duration_s, ""))
    return rows


def eaf(tiers: Mapping[str, Sequence[Segment]]) -> str:
    """ELAN's annotation document, format 3.0; times are whole milliseconds."""
    slots: list[str] = []
    rows: list[str] = []
    n_annotations = 0
    for tier, segments in tiers.items():
        name = escape(tier)
        rows.append(f'    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="{name}">')
        for segment in segments:
            n_annotations += 1
            for time_s in (segment.start, segment.end):
                slots.append(
                    f'        <TIME_SLOT TIME_SLOT_ID="ts{len(slots) + 1}" '
                    f'TIME_VALUE="{round(time_s * 1000)}"/>'
                )
            rows.append(
                "        <ANNOTATION><ALIGNABLE_ANNOTATION "
                f'ANNOTATION_ID="a{n_annotations}" '
                f'TIME_SLOT_REF1="ts{len(slots) - 1}" '
                f'TIME_SLOT_REF2="ts{len(slots)}"><ANNOTATION_VALUE>'
                f"{escape(segment.phone, quote=False)}</ANNOTATION_VALUE>"
                "</ALIGNABLE_ANNOTATION></ANNOTATION>"
            )
        rows.append("    </TIER>")
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<ANNOTATION_DOCUMENT AUTHOR="powsm" DATE="1970-01-01T00:00:00+00:00" '
            'FORMAT="3.0" VERSION="3.0">',
            '    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>',
            "    <TIME_ORDER>",
            *slots,
            "    </TIME_ORDER>",
            *rows,
            '    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" '
            'LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>',
            "</ANNOTATION_DOCUMENT>\n",
        ]
    )


def write_ctm(path: Path, alignments: Mapping[str, Sequence[Segment]]) -> None:
    """Write NIST CTM: `<utt_id> 1 <start> <duration> <phone> <confidence>` a line.

    White space would end a field, `;;` begins a comment: in names they are written as
    in an URL, `my%20talk`, and `urllib.parse.unquote` gives the name back.
    """
    with atomic_write(path) as file:
        for utt_id, segments in alignments.items():
            file.write(ctm(utt_id, segments))


def ctm(utt_id: str, segments: Sequence[Segment]) -> str:
    """The lines of a recording; see `write_ctm`."""
    name = _field(utt_id)
    return "".join(
        f"{name} 1 {s.start:.4f} {s.end - s.start:.4f} {_field(s.phone)} "
        f"{s.confidence:.4f}\n"
        for s in segments
    )


def _field(text: str) -> str:
    """Text as one field of a line that is not a comment, and can be read back."""
    if not re.search(r"[\s%\ud800-\udfff]|^;;|^$", text):
        return text
    return "".join(
        quote(c, safe="", errors="surrogateescape")
        if c.isspace() or c in "%;" or "\ud800" <= c <= "\udfff"
        else c
        for c in text
    )


def write_json(path: Path, alignments: Mapping[str, Sequence[Segment]]) -> None:
    """Write one JSON object a line: `utt_id` and its `segments`."""
    with atomic_write(path) as file:
        for utt_id, segments in alignments.items():
            row = {"utt_id": utt_id, "segments": [s.row() for s in segments]}
            line = json.dumps(row, ensure_ascii=False)
            if not line.isascii() and printable(line) != line:
                line = json.dumps(row)  # a name that is not UTF-8
            file.write(line + "\n")


def write_alignments(
    folder: Path,
    alignments: Mapping[str, Sequence[Segment]],
    durations_s: Mapping[str, float],
) -> None:
    """Write `<utt_id>.TextGrid` of each recording, `phones.ctm` and `phones.jsonl`.

    A name with a slash gets its folders.

    Raises:
        AlignFileError: a name that leads out of the folder; see `write_textgrid`.
    """
    for utt_id, segments in alignments.items():
        if utt_id.startswith("/") or ".." in utt_id.split("/"):
            raise AlignFileError(f"{folder}: {printable(utt_id)!r} leads out of it")
        write_textgrid(folder / f"{utt_id}.TextGrid", segments, durations_s[utt_id])
    write_ctm(folder / "phones.ctm", alignments)
    write_json(folder / "phones.jsonl", alignments)
