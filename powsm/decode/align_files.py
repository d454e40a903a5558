"""Alignments as files: Praat TextGrid, NIST CTM, JSON lines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from powsm.files.whole import atomic_write


@dataclass(frozen=True)
class Segment:
    """A phone in time.

    Attributes:
        phone: as given, or as the CTC head says it.
        start, end: seconds from the start of the recording.
        confidence: mean probability of the phone over the frames that say it, 0 to 1.
    """

    phone: str
    start: float
    end: float
    confidence: float


def write_textgrid(path: Path, segments: Sequence[Segment], duration_s: float) -> None:
    """Write a Praat TextGrid (long text format) with one interval tier, `phones`.

    Pauses are intervals without text, so that the tier covers the recording.
    """
    rows, at = [], 0.0
    for segment in segments:
        if segment.start > at:
            rows.append((at, segment.start, ""))
        rows.append((segment.start, segment.end, segment.phone))
        at = segment.end
    if at < duration_s:
        rows.append((at, duration_s, ""))
    with atomic_write(path) as file:
        file.write(
            'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
            f"xmin = 0\nxmax = {duration_s:.10g}\ntiers? <exists>\nsize = 1\nitem []:\n"
            '    item [1]:\n        class = "IntervalTier"\n        name = "phones"\n'
            f"        xmin = 0\n        xmax = {duration_s:.10g}\n"
            f"        intervals: size = {len(rows)}\n"
        )
        for number, (start, end, text) in enumerate(rows, 1):
            quoted = text.replace('"', '""')
            file.write(
                f"        intervals [{number}]:\n            xmin = {start:.10g}\n"
                f'            xmax = {end:.10g}\n            text = "{quoted}"\n'
            )


def write_ctm(path: Path, alignments: Mapping[str, Sequence[Segment]]) -> None:
    """Write NIST CTM: `<utt_id> 1 <start> <duration> <phone> <confidence>` a line."""
    with atomic_write(path) as file:
        for utt_id, segments in alignments.items():
            for s in segments:
                file.write(
                    f"{utt_id} 1 {s.start:.4f} {s.end - s.start:.4f} {s.phone} "
                    f"{s.confidence:.4f}\n"
                )


def write_json(path: Path, alignments: Mapping[str, Sequence[Segment]]) -> None:
    """Write one JSON object a line: `utt_id` and its `segments`."""
    with atomic_write(path) as file:
        for utt_id, segments in alignments.items():
            row = {"utt_id": utt_id, "segments": [asdict(s) for s in segments]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_alignments(
    folder: Path,
    alignments: Mapping[str, Sequence[Segment]],
    durations_s: Mapping[str, float],
) -> None:
    """Write `<utt_id>.TextGrid` of each recording, `phones.ctm` and `phones.jsonl`."""
    for utt_id, segments in alignments.items():
        write_textgrid(folder / f"{utt_id}.TextGrid", segments, durations_s[utt_id])
    write_ctm(folder / "phones.ctm", alignments)
    write_json(folder / "phones.jsonl", alignments)
