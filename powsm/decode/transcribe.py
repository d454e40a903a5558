"""Transcribe one recording of any length, where asked with the times of its phones."""

import logging
from collections.abc import Iterable
from dataclasses import asdict

import torch
from torch import Tensor

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.decode.align import AlignError, align, read_segments
from powsm.decode.align_files import Segment
from powsm.decode.batch import (
    Item,
    barred_phones,
    cut_batches,
    decode_batch,
)
from powsm.decode.longform import (
    OVERLAP_S,
    LongFormError,
    ctc_frames,
    cut_at_pauses,
)
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.model.frames import FrameGrid
from powsm.tasks import NA_SYM, PHONES, TASKS, parse_output, tasks_writing
from powsm.vocabulary.phone_sets import phones_of_tokens

log = logging.getLogger(__name__)

PHONE_TASKS = tasks_writing(PHONES)  # their output has phones, and so times


def transcribe(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    speech: Tensor,
    *,
    utt_id: str,
    lang_sym: str,
    window_s: float = WINDOW_S,
    overlap_s: float = OVERLAP_S,
    start_s: float = 0.0,
    with_times: bool = False,
) -> dict:
    """Decode a recording of any length.

    Args:
        recogniser: the model.
        profile: how to decode. With `decode: ctc` and no beam the merged windows are
            read; else the recording is cut at pauses and its pieces are decoded.
        task: `pr asr g2p p2g`.
        speech: (n_samples,) at 16 kHz.
        utt_id: of the recording.
        lang_sym: its language, where the profile says `lang: own`.
        window_s: seconds encoded at once, and the longest piece.
        overlap_s: see `powsm.decode.longform.ctc_frames`.
        start_s: where `speech` begins in the recording; all times count from the
            start of the recording.
        with_times: align the phones that were decoded.

    Returns:
        A record with the text. `pieces` has the text of each piece with its `start_s`
        and `end_s`; `segments` each phone with its times, if asked for. A piece whose
        phones do not fit its audio has no segments, and that is logged.

    Raises:
        LongFormError: see `ctc_frames`; a task that is prompted with a reference, which
            belongs to the whole and not to pieces; times of a task without phones.
    """
    if TASKS[task].is_prompted and profile.prev == "gold":
        raise LongFormError(
            f"{utt_id}: the prompt of {task} cannot be cut into pieces; use a decode "
            "profile with prev: predicted or prev: none"
        )
    if with_times and task not in PHONE_TASKS:
        raise LongFormError(
            f"{utt_id}: {task} gives no phones to align; times are for "
            f"{' '.join(PHONE_TASKS)}"
        )
    record = {
        "utt_id": utt_id,
        "lang_sym": lang_sym,
        "task_sym": f"<{task}>",
        "seconds": round(len(speech) / SAMPLE_RATE, 3),
        "profile": profile.digest(),
        "weights": recogniser.weights,
    }
    reads_path = profile.decode == "ctc" and profile.search.beam_size == 1
    barred = barred_phones(recogniser, profile.phones) if reads_path else ()
    found = ctc_frames(
        recogniser, speech, window_s=window_s, overlap_s=overlap_s, barred=barred
    )
    blank = recogniser.model.blank_id
    if reads_path:
        labels = torch.unique_consecutive(found.path)
        tokens = recogniser.tokenizer.tokens(labels[labels != blank].tolist())
        record["text"] = parse_output(tokens).text
        if with_times:
            segments = read_segments(recogniser, found, len(speech))
            record["segments"] = [_shifted(segment, start_s) for segment in segments]
        return record
    grid = FrameGrid.of(recogniser.model)
    window = int(window_s * SAMPLE_RATE)
    frames = [(0, len(found))]
    if len(speech) > window:
        # one frame less, since the ends of a piece hold samples of no frame
        most = grid.n_frames(window) - 1
        frames = cut_at_pauses(found.path.tolist(), blank, most)
    bounds = [0, *(grid.sample(end) for _, end in frames[:-1]), len(speech)]
    parts = {
        f"{utt_id}-{number:06d}": speech[begin:end]
        for number, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
    }
    decoded = _decode_parts(recogniser, profile, task, parts, lang_sym)
    pieces, segments = [], []
    for (key, part), begin in zip(parts.items(), bounds, strict=False):
        at_s = start_s + begin / SAMPLE_RATE
        times = {"start_s": at_s, "end_s": at_s + len(part) / SAMPLE_RATE}
        piece = {name: round(time_s, 4) for name, time_s in times.items()}
        pieces.append(piece | {k: decoded[key][k] for k in ("lang_sym", "text")})
        if with_times:
            found = _align_part(recogniser, part, decoded[key]["tokens"], key)
            segments += [_shifted(segment, at_s) for segment in found]
    glue = "" if task in PHONE_TASKS else " "
    record["text"] = glue.join(piece["text"] for piece in pieces if piece["text"])
    # where the profile says which language, all pieces have the same
    record["lang_sym"] = pieces[0]["lang_sym"]
    record["pieces"] = pieces
    if with_times:
        record["segments"] = segments
    return record


def _decode_parts(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    parts: dict[str, Tensor],
    lang_sym: str,
) -> dict[str, dict]:
    todo = [Item(key, "", len(part), lang_sym, NA_SYM) for key, part in parts.items()]
    return {
        record["utt_id"]: record
        for batch in cut_batches(todo, profile)
        for record in decode_batch(
            recogniser, profile, task, batch, [parts[item.utt_id] for item in batch]
        )
    }


def _align_part(
    recogniser: Recogniser, part: Tensor, tokens: Iterable[str], key: str
) -> list[Segment]:
    phones = phones_of_tokens(tokens)
    if not phones:
        return []
    try:
        return align(recogniser, part, phones)
    except AlignError as err:
        log.warning("%s: %s", key, err)
        return []


def _shifted(segment: Segment, by_s: float) -> dict:
    times = {"start": segment.start + by_s, "end": segment.end + by_s}
    return asdict(segment) | {name: round(time, 4) for name, time in times.items()}
