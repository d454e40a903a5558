"""From the recordings of a corpus with human transcripts to a Kaldi folder.

What every evaluation set needs once its own files are understood: stretches cut out of
long recordings, the corpus's labels kept as they are, everything counted that is left
out, and a folder that is there whole or not at all.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from powsm.audio import SAMPLE_RATE, n_samples_at_sample_rate, n_samples_of
from powsm.audio_files import AudioError, encode, open_sound
from powsm.corpora.utterance import one_line, safe_id
from powsm.errors import PowsmError
from powsm.files.datadir import write_scp
from powsm.files.text import open_text
from powsm.files.whole import atomic_folder, atomic_write

LEFT_OUT = "left_out.tsv"  # reason and id of what a set does not hold
_SHOWN = 5  # ids named in a log
_SLACK_S = 0.5  # by which labels may go on after the end of a recording


class CorpusError(PowsmError):
    """A corpus that is not what its name says; the message names folder or file."""


def read_table(path: Path, *columns: str, delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a corpus's table, as `numbered_rows` has them.

    Raises:
        CorpusError: a row with a fault, too.
    """
    rows = []
    for number, row in numbered_rows(path, *columns, delimiter=delimiter):
        if fault := row_fault(row):
            raise CorpusError(f"{path}:{number}: {fault}")
        rows.append(row)
    return rows


def row_fault(row: Mapping[str, str]) -> str | None:
    """What is wrong with a row: a quotation mark left open takes those below it in.

    >>> row_fault({"text": "a,b"}), row_fault({"text": "a\\nb"})[:25]
    (None, 'a line break in a field; ')
    """
    if any("\n" in field or "\r" in field for field in row.values()):
        return (
            "a line break in a field; close the quotation mark, or take the line "
            "break out"
        )
    return None


def numbered_rows(
    path: Path, *columns: str, delimiter: str = ","
) -> list[tuple[int, dict[str, str]]]:
    """The last line of each row of a corpus's table, and the row by column.

    A field that a row lacks is an empty text.

    In a table with tabs a quotation mark is a letter, as some are of X-SAMPA.

    Args:
        columns: those that are needed.

    Raises:
        CorpusError: no such column, two of one name, a row with more fields than there
            are columns, or no CSV.
        TextFileError: not UTF-8.
    """
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    with open_text(path, newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, quoting=quoting, restval="")
        try:
            if missing := [c for c in columns if c not in (reader.fieldnames or ())]:
                raise CorpusError(
                    f"{path}: no column {' '.join(missing)}; found "
                    f"{' '.join(reader.fieldnames or ()) or 'none'}"
                )
            names = Counter(filter(None, reader.fieldnames or ()))
            if twice := [name for name, n in names.items() if n > 1]:
                raise CorpusError(
                    f"{path}: two columns {' '.join(twice)}; rename or remove one"
                )
            rows = []
            for row in reader:
                if any(more := row.pop(None, [])):
                    raise CorpusError(
                        f"{path}:{reader.line_num}: {' '.join(more)!r} is in no column;"
                        f" quote a text that holds {delimiter!r}"
                    )
                rows.append((reader.line_num, row))
            return rows
        except csv.Error as err:
            raise CorpusError(f"{path}:{reader.line_num}: not CSV ({err})") from err


def parse_json(text: str, where: Path | str) -> Any:
    """What a corpus's JSON says.

    Raises:
        CorpusError: it is none; names the file.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        raise CorpusError(f"{where}: not JSON ({err}); fetch it again") from err


@dataclass(frozen=True)
class Segment:
    """One utterance of a test set.

    Attributes:
        key: unique in the set, without white space.
        audio: a file, a `wav.scp` value of a place in a shard, or encoded bytes, which
            are written to a file.
        ipa: transcription, with spaces between labels; empty leaves the utterance out.
        raw: the labels as the corpus has them.
        lang: ISO 639-3; `und` where nothing is known.
        speaker: id within the corpus.
        text: orthography, if there is any.
        start_s, end_s: seconds; None for the whole recording.
    """

    key: str
    audio: Path | str | bytes
    ipa: str
    raw: str
    lang: str
    speaker: str
    text: str = ""
    start_s: float | None = None
    end_s: float | None = None


class LeftOut:
    """The utterances of a corpus that a set does not hold, and why.

    Attributes:
        ids: of each reason, in the order of the corpus.
        missing: parts of the corpus that this copy lacks, such as archives.
    """

    def __init__(self, allow_incomplete: bool = False) -> None:
        self.ids: dict[str, list[str]] = {}
        self.missing: tuple[str, ...] = ()
        self._allow_incomplete = allow_incomplete

    def miss(self, parts: Sequence[str], fault: str) -> None:
        """Note missing parts, or stop where that is not allowed.

        Raises:
            CorpusError: the fault and the parts.
        """
        self.missing = tuple(parts)
        if parts and not self._allow_incomplete:
            raise CorpusError(
                f"{fault}: {' '.join(parts)}; get them, or make a smaller set of what "
                "is there with --allow_incomplete"
            )

    def add(self, reason: str, utt_id: str) -> None:
        self.ids.setdefault(reason, []).append(utt_id)

    def counts(self) -> Counter[str]:
        """How many for each reason."""
        return Counter({reason: len(ids) for reason, ids in self.ids.items()})

    def named(self) -> str:
        """The first of each reason; `left_out.tsv` names all.

        >>> left_out = LeftOut()
        >>> left_out.add("no_audio", "u1")
        >>> left_out.named()
        'no_audio: u1'
        """
        return "; ".join(
            f"{reason}: {' '.join(ids[:_SHOWN])}{' ...' * (len(ids) > _SHOWN)}"
            for reason, ids in sorted(self.ids.items())
        )


@dataclass(frozen=True)
class Written:
    """What a set holds, and why what it does not hold was left out."""

    n_utts: int
    n_samples: int
    left_out: LeftOut
    n_without_text: int = 0

    @property
    def hours(self) -> float:
        """Of audio at `SAMPLE_RATE`."""
        return self.n_samples / SAMPLE_RATE / 3600

    def summary(self) -> str:
        """One line of counts.

        >>> left_out = LeftOut()
        >>> left_out.add("no_phone", "u1")
        >>> Written(2, 57_600_000, left_out).summary()
        'kept 2 of 3 utterances (no_phone=1), 1.00 h'
        """
        counts = self.left_out.counts()
        total = self.n_utts + counts.total()
        text = f"kept {self.n_utts:,} of {total:,} utterances"
        if reasons := [f"{why}={n}" for why, n in sorted(counts.items())]:
            text += f" ({' '.join(reasons)})"
        text += f", {self.hours:.2f} h"
        if self.n_without_text:
            text += f", {self.n_without_text:,} utterances without their words"
        return text


def write_segments(
    out: Path,
    segments: Iterable[Segment],
    left_out: LeftOut,
    max_duration_s: float | None = None,
) -> Written:
    """Write `wav.scp text.good text.raw text.asr text.lang utt2spk`, as PRiSM has them.

    Whole recordings of one channel are used where they are; everything else becomes a
    FLAC file in `out/audio`, several channels by their mean.

    Args:
        out: the folder; replaced as a whole.
        segments: the utterances, in any order.
        left_out: the utterances that `segments` does not yield; those without a phone
            or too long are added, and all are named in `left_out.tsv`.
        max_duration_s: longer utterances are left out.

    Raises:
        CorpusError: a key given twice, no utterance at all, or missing audio
            or ends before the segment does.
    """
    out = Path(out)
    rows: dict[str, list[tuple[str, str]]] = {}
    seen = set()
    n_samples = 0
    with atomic_folder(out) as making:
        for segment in segments:
            if segment.key in seen:
                raise CorpusError(f"{out.name}: {segment.key!r} is given twice")
            seen.add(segment.key)
            if not segment.ipa.strip():
                left_out.add("no_phone", segment.key)
                continue
            try:
                audio = _audio_of(segment, making, max_duration_s)
            except (AudioError, OSError) as err:
                raise CorpusError(f"{out.name}: {segment.key}: {err}") from err
            if audio is None:
                left_out.add("too_long", segment.key)
                continue
            location, length = audio
            n_samples += length
            for name, value in (
                ("wav.scp", location.replace(str(making), str(out.resolve()))),
                ("text.good", segment.ipa),
                ("text.raw", segment.raw),
                ("text.asr", segment.text),
                ("text.lang", segment.lang),
                ("utt2spk", safe_id(segment.speaker)),
            ):
                rows.setdefault(name, []).append((segment.key, one_line(value)))
        if not rows:
            raise CorpusError(
                f"{out.name}: no utterance is left; {Written(0, 0, left_out).summary()}"
            )
        for name, lines in rows.items():
            write_scp(making / name, sorted(lines))
        with atomic_write(making / LEFT_OUT) as file:
            for reason, ids in sorted(left_out.ids.items()):
                file.writelines(f"{reason}\t{one_line(utt_id)}\n" for utt_id in ids)
    n_without_text = sum(not text for _, text in rows["text.asr"])
    return Written(len(rows["wav.scp"]), n_samples, left_out, n_without_text)


def _audio_of(
    segment: Segment, folder: Path, max_duration_s: float | None
) -> tuple[str, int] | None:
    """Where an utterance's audio is, and its length; None if it is too long."""
    most = float("inf") if max_duration_s is None else max_duration_s * SAMPLE_RATE
    if isinstance(segment.audio, str):
        length = n_samples_of(segment.audio)
        return (segment.audio, length) if length <= most else None
    is_file = isinstance(segment.audio, Path)
    source = segment.audio.resolve() if is_file else segment.audio
    with open_sound(source, str(source) if is_file else segment.key) as file:
        first, last = _bounds(segment, file.frames, file.samplerate)
        length = n_samples_at_sample_rate(last - first, file.samplerate)
        if length > most:
            return None
        is_whole = (first, last) == (0, file.frames)
        if is_file and is_whole and file.channels == 1:
            return str(source), length
        file.seek(first)
        # integers stay the same integers; other codings are decoded
        dtype = "int16" if file.subtype.startswith("PCM_") else "float32"
        samples = file.read(last - first, dtype=dtype, always_2d=True)
        rate = file.samplerate
    if samples.shape[1] > 1:
        samples = samples.mean(axis=1)
        samples = np.rint(samples).astype("int16") if dtype == "int16" else samples
    path = folder / "audio" / f"{safe_id(segment.key)}.flac"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode(samples, rate))
    return str(path), length


def _bounds(segment: Segment, n_samples: int, rate: int) -> tuple[int, int]:
    """First sample of a segment and the one after its last."""
    first = round((segment.start_s or 0) * rate)
    last = n_samples if segment.end_s is None else round(segment.end_s * rate)
    if not 0 <= first < last <= n_samples + _SLACK_S * rate:
        raise CorpusError(
            f"{segment.key}: {segment.start_s} s to {segment.end_s} s is not inside "
            f"its recording of {n_samples / rate:.3f} s"
        )
    return first, min(last, n_samples)
