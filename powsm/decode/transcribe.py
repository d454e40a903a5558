"""Transcribe recordings of any length together, where asked with times of phones."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.audio_files import printable
from powsm.decode.align import AlignError, align, read_segments
from powsm.decode.align_files import Segment
from powsm.decode.batch import Item, barred_phones, cut_batches, decode_batch, record_of
from powsm.decode.longform import (
    OVERLAP_S,
    PAUSE_S,
    CTCFrames,
    LongFormError,
    ctc_frames_of_all,
    cut_at_pauses,
)
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.stretches import Speech, at_usual_level, stretch_of
from powsm.languages import UNKNOWN_LANG_SYM
from powsm.model.frames import FrameGrid
from powsm.tasks import NA_SYM, PHONES, TASKS, parse_output, tasks_writing
from powsm.vocabulary.phone_sets import phones_of_tokens

log = logging.getLogger(__name__)

PHONE_TASKS = tasks_writing(PHONES)  # their output has phones, and so times


@dataclass(frozen=True)
class Job:
    """A recording to decode.

    Attributes:
        utt_id: its name in records and errors.
        speech: (n_samples,) at 16 kHz, or a recording that is read by stretches.
        lang_sym: its language, where the profile says `lang: own`.
        text_prev: the prompt of a task that reads one.
        start_s: where `speech` begins in the recording, whose times count from there.
    """

    utt_id: str
    speech: Speech
    lang_sym: str = UNKNOWN_LANG_SYM
    text_prev: str = NA_SYM
    start_s: float = 0.0

    @property
    def seconds(self) -> float:
        return len(self.speech) / SAMPLE_RATE

    def check_prompt(
        self, profile: Profile, task: str, window_s: float = WINDOW_S
    ) -> None:
        """Refuse a job whose task reads a text that it lacks, or that cannot be cut.

        Raises:
            LongFormError: says which.
        """
        if not TASKS[task].is_prompted or profile.prev != "gold":
            return
        other = "or a decode profile with prev: predicted or prev: none"
        if self.text_prev == NA_SYM:
            raise LongFormError(
                f"{self.utt_id}: {task} reads a {TASKS[task].reads} prompt and there "
                f"is none; give a text, {other}"
            )
        if self.seconds > window_s:
            raise LongFormError(
                f"{self.utt_id}: the text of {self.seconds:.1f} s cannot be cut into "
                f"pieces of {window_s:g} s; cut the recording, {other}"
            )


def transcribe(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    jobs: Sequence[Job],
    *,
    window_s: float = WINDOW_S,
    overlap_s: float = OVERLAP_S,
    with_times: bool = False,
) -> list[dict]:
    """Decode recordings of any length, in batches over all of them.

    Up to a window long, a recording is decoded as stage 12 does it. A longer one is
    read by the CTC head in windows that overlap; for the decoder it is cut at every
    real pause of that path, and wherever a piece would be too long.

    Args:
        recogniser: the model.
        profile: how to decode.
        task: `pr asr g2p p2g`.
        jobs: the recordings.
        window_s: seconds encoded in one stretch, and the longest piece.
        overlap_s: see `powsm.decode.longform.ctc_frames_of_all`.
        with_times: align the phones that were decoded.

    Returns:
        A record each, as a line of `hyp.jsonl`. `pieces` has the text of each piece
        that the decoder heard with its `start_s` and `end_s`; `segments` each phone
        with its times, if asked for; `blocks` what further heads say. A piece whose
        phones do not fit its audio has no segments, and that is logged.

    Raises:
        LongFormError: see `ctc_frames_of_all` and `Job.check_prompt`; times of a task
            without phones.
        DecodeError: see `decode_batch`.
    """
    recogniser.check(profile)
    for job in jobs:
        job.check_prompt(profile, task, window_s)
    if with_times and task not in PHONE_TASKS:
        raise LongFormError(
            f"{task} gives no phones to align; times are for {' '.join(PHONE_TASKS)}"
        )
    if profile.window == "published" and window_s > WINDOW_S:
        raise LongFormError(
            f"windows of {window_s:g} s, and decode profile {profile.name} with "
            f"window: published hears {WINDOW_S:g} s and no more; take shorter ones"
        )
    if profile.level == "usual":
        jobs = [replace(job, speech=at_usual_level(job.speech)) for job in jobs]
    records = [
        record_of(recogniser, profile, task, job.utt_id, job.lang_sym)
        | {"seconds": round(job.seconds, 3)}
        for job in jobs
    ]
    # without a decoder it depends on language and task: `decode_batch` reads it
    reads_path = is_path(profile) and not recogniser.is_ctc_only
    barred = barred_phones(recogniser, profile.phones) if reads_path else ()
    window = int(window_s * SAMPLE_RATE)
    read = [n for n, job in enumerate(jobs) if reads_path or len(job.speech) > window]
    paths = ctc_frames_of_all(
        recogniser,
        [jobs[n].speech for n in read],
        window_s=window_s,
        overlap_s=overlap_s,
        barred=barred,
        batch_s=recogniser.batch_seconds(profile),
    )
    frames = dict(zip(read, paths, strict=True))
    if reads_path:
        for n, job in enumerate(jobs):
            records[n] |= _read_path(recogniser, frames[n], job, with_times)
        return records
    pieces = {
        n: _pieces(recogniser, job, frames.get(n), window) for n, job in enumerate(jobs)
    }
    decoded = _decode_pieces(recogniser, profile, task, pieces)
    for n, record in enumerate(records):
        record |= _joined(recogniser, task, pieces[n], decoded, with_times)
    return records


def is_path(profile: Profile) -> bool:
    """Whether a profile reads the best path of the CTC head, at true lengths."""
    return (
        profile.decode == "ctc"
        and profile.search.beam_size == 1
        and (profile.window, profile.dtype) == ("own", "float32")
    )


def _read_path(
    recogniser: Recogniser, frames: CTCFrames, job: Job, with_times: bool
) -> dict:
    """Text, and where asked the segments, of the best path of merged windows."""
    labels = torch.unique_consecutive(frames.path)
    labels = labels[labels != recogniser.model.blank_id].tolist()
    read = {
        "text": parse_output(recogniser.tokenizer.tokens(labels)).text,
        "score": round(float(frames.scores.double().sum()), 4),
    }
    if with_times:
        segments = read_segments(recogniser, frames, job.speech)
        read["segments"] = [_shifted(segment, job.start_s) for segment in segments]
    return read


def _pieces(
    recogniser: Recogniser, job: Job, frames: CTCFrames | None, window: int
) -> list[Job]:
    """What the decoder hears of a recording; frames only of one that must be cut."""
    bounds = [0, len(job.speech)]
    if frames is not None:
        grid = FrameGrid.of(recogniser.model)
        parts = cut_at_pauses(
            frames.path.tolist(),
            recogniser.model.blank_id,
            # one frame less, since the ends of a piece hold samples of no frame
            grid.n_frames(window) - 1,
            int(PAUSE_S * SAMPLE_RATE) // grid.step,
        )
        bounds[1:1] = [grid.sample(end) for _, end in parts[:-1]]
    return [
        Job(
            f"{job.utt_id}-{number:06d}",
            stretch_of(job.speech, begin, end),
            job.lang_sym,
            job.text_prev,
            job.start_s + begin / SAMPLE_RATE,
        )
        for number, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
    ]


def _decode_pieces(
    recogniser: Recogniser, profile: Profile, task: str, pieces: dict[int, list[Job]]
) -> dict[int, dict]:
    """The record of every piece, by the identity of the piece."""
    parts = {str(number): part for number, part in enumerate(sum(pieces.values(), []))}
    todo = [
        Item(key, "", len(part.speech), part.lang_sym, part.text_prev)
        for key, part in parts.items()
    ]
    return {
        id(parts[record["utt_id"]]): record
        for batch in cut_batches(todo, profile, recogniser.batch_seconds(profile))
        for record in decode_batch(
            recogniser, profile, task, batch, [parts[i.utt_id].speech[:] for i in batch]
        )
    }


def _joined(
    recogniser: Recogniser,
    task: str,
    parts: Sequence[Job],
    decoded: dict[int, dict],
    with_times: bool,
) -> dict:
    """Text, pieces and where asked segments of a recording, of those of its pieces."""
    pieces, segments = [], []
    heard = [decoded[id(part)] for part in parts]
    for part, record in zip(parts, heard, strict=True):
        times = {"start_s": part.start_s, "end_s": part.start_s + part.seconds}
        piece = {name: round(time_s, 4) for name, time_s in times.items()}
        kept = ("lang_sym", "text", "blocks")
        pieces.append(piece | {k: record[k] for k in kept if k in record})
        if with_times:
            aligned = _align_part(recogniser, part, record["tokens"])
            segments += [_shifted(segment, part.start_s) for segment in aligned]
    glue = "" if task in PHONE_TASKS else " "
    scores = [record["score"] for record in heard if record["score"] is not None]
    joined = {
        "text": glue.join(piece["text"] for piece in pieces if piece["text"]),
        "score": round(sum(scores), 4) if scores else None,
        "lang_sym": _lang_of(parts, heard),
        "pieces": pieces,
    }
    if blocks := [piece["blocks"] for piece in pieces if "blocks" in piece]:
        joined["blocks"] = {
            block: _glued([texts[block] for texts in blocks]) for block in blocks[0]
        }
    return joined | ({"segments": segments} if with_times else {})


def _lang_of(parts: Sequence[Job], heard: Sequence[dict]) -> str:
    """The language of most seconds; pieces differ where each says its own."""
    seconds: Counter[str] = Counter()
    for part, record in zip(parts, heard, strict=True):
        seconds[record["lang_sym"]] += part.seconds
    ranked = seconds.most_common()
    if len(ranked) > 1:
        log.warning(
            "%s: its pieces are heard as of different languages: %s",
            printable(parts[0].utt_id.rpartition("-")[0]),
            ", ".join(f"{sym} {seconds_of:.1f} s" for sym, seconds_of in ranked),
        )
    return ranked[0][0]


def _glued(texts: Sequence[str]) -> str:
    """Phones between slashes one behind the other, words with spaces."""
    said = [text for text in texts if text]
    return ("" if all(text.startswith("/") for text in said) else " ").join(said)


def _align_part(
    recogniser: Recogniser, part: Job, tokens: Iterable[str]
) -> list[Segment]:
    phones = phones_of_tokens(tokens)
    if not phones:
        return []
    try:
        return align(recogniser, part.speech, phones)
    except AlignError as err:
        log.warning("%s: %s", part.utt_id, err)
        return []


def _shifted(segment: Segment, by_s: float) -> dict:
    times = {"start": segment.start + by_s, "end": segment.end + by_s}
    return segment.row() | {name: round(time, 4) for name, time in times.items()}
