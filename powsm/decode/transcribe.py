"""Transcribe one recording of any length, where asked with the times of its phones."""

import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from powsm.audio import SAMPLE_RATE, WINDOW_S, AudioError, resample
from powsm.decode.align import AlignError, align, read_segments
from powsm.decode.align_files import Segment
from powsm.decode.batch import (
    Item,
    barred_phones,
    cut_batches,
    decode_batch,
    read_speech,
)
from powsm.decode.longform import (
    OVERLAP_S,
    CTCFrames,
    LongFormError,
    ctc_frames,
    cut_at_pauses,
)
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.errors import PowsmError
from powsm.languages import lang_code, lang_sym
from powsm.model.find import find_model
from powsm.model.frames import FrameGrid
from powsm.tasks import NA_SYM, PHONES, TASKS, parse_output, tasks_writing
from powsm.vocabulary.phone_sets import phones_of_tokens

log = logging.getLogger(__name__)

_PHONE = re.compile(r"/([^/\s]+)/")  # in slashed text

PHONE_TASKS = tasks_writing(PHONES)  # their output has phones, and so times


# How a model is read when nothing else is asked for: as conf/decode_ctc_greedy.yaml
# and conf/decode_attention.yaml say, without a prompt.
_PHONES = Profile(name="ctc_greedy", decode="ctc", tasks=("pr",))


def _default_profile(task: str) -> Profile:
    if task in _PHONES.tasks:
        return _PHONES
    prev = "none" if TASKS[task].is_prompted else "gold"
    return Profile(name="attention", tasks=(task,), prev=prev)


@dataclass(frozen=True)
class Transcript:
    """What a model hears in a recording.

    Attributes:
        text: what the task writes: slashed phones, or words.
        phones: the phones; empty for a task that writes words.
        lang_sym: symbol of the language that the model was told, such as `<eng>`.
        duration_s: of the recording.
    """

    text: str
    phones: tuple[str, ...]
    lang_sym: str
    duration_s: float


class Model:
    """A trained model in hand, as `powsm.load` gives it.

    Attributes:
        source: how it was named, with the revision if it is from the Hub.
        recogniser: the network with its tokenizer.
    """

    def __init__(self, source: str, recogniser: Recogniser):
        self.source = source
        self.recogniser = recogniser
        self._min_samples = FrameGrid.of(recogniser.model).min_samples()

    def __repr__(self) -> str:
        return f"powsm.load({self.source!r})"

    def transcribe(
        self,
        audio: str | Path | np.ndarray | Tensor,
        *,
        rate: int = SAMPLE_RATE,
        task: str = "pr",
        lang: str = "unk",
        profile: Profile | None = None,
    ) -> Transcript:
        """Transcribe one recording of any length.

        Args:
            audio: a file, or floating-point samples (n_samples,) in -1 to 1.
            rate: of the samples, Hz; a file says its own.
            task: `pr asr g2p p2g`.
            lang: code or name of the language; `unk`: not known.
            profile: how to decode; default: the best path of the CTC head for phones,
                the decoder alone and greedy for the other tasks.

        Raises:
            AudioError: the recording cannot be read or used.
            DecodeError: the model has no token for the language.
            PowsmError: there is no such task or language.
        """
        if task not in TASKS:
            raise PowsmError(f"task {task!r}: expected one of {' '.join(TASKS)}")
        code = None if lang == "unk" else lang_code(lang)
        if code is None and lang != "unk":
            raise PowsmError(f"lang {lang!r}: no such language; try ISO 639-3")
        if isinstance(audio, str | Path):
            utt_id = Path(audio).stem
            speech = read_speech(str(audio), self._min_samples)
        else:
            utt_id, speech = "audio", self._samples(audio, rate)
        profile = replace(profile or _default_profile(task), tasks=(task,))
        record = transcribe(
            self.recogniser,
            profile,
            task,
            speech,
            utt_id=utt_id,
            lang_sym=lang_sym(code),
        )
        text = record["text"]
        phones = _PHONE.findall(text) if task in PHONE_TASKS else ()
        duration_s = len(speech) / SAMPLE_RATE
        return Transcript(text, tuple(phones), record["lang_sym"], duration_s)

    def _samples(self, audio: np.ndarray | Tensor, rate: int) -> Tensor:
        """Samples (n_samples,) as the model hears them, float32 at `SAMPLE_RATE`."""
        samples = np.asarray(audio)
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise AudioError(
                f"audio: {samples.dtype} of shape {samples.shape}; expected one "
                "channel of floating-point samples in -1 to 1, shape (n_samples,)"
            )
        if not np.isfinite(samples).all():
            raise AudioError("audio: samples that are no finite numbers")
        samples = samples.astype(np.float32)
        if rate != SAMPLE_RATE:
            samples = resample(samples, rate, SAMPLE_RATE)
        if len(samples) < self._min_samples:
            raise AudioError(
                f"audio: {len(samples) / SAMPLE_RATE:.3f} s is too short to encode; "
                f"the model needs {self._min_samples / SAMPLE_RATE:.3f} s"
            )
        return torch.from_numpy(samples)


def load(model: str | Path, device: str | None = None) -> Model:
    """Load a model to transcribe with.

    Args:
        model: experiment folder, packed folder or archive, or Hub tag.
        device: `cpu`, `cuda`; default: a GPU where there is one.

    Raises:
        CheckpointError: there is no such model, or it does not load as it is.
    """
    files = find_model(model)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Model(files.source, Recogniser.load(files, device))


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
    if reads_path:
        return record | _read_path(recogniser, found, len(speech), start_s, with_times)
    bounds = _piece_bounds(recogniser, found, len(speech), int(window_s * SAMPLE_RATE))
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
            aligned = _align_part(recogniser, part, decoded[key]["tokens"], key)
            segments += [_shifted(segment, at_s) for segment in aligned]
    glue = "" if task in PHONE_TASKS else " "
    record["text"] = glue.join(piece["text"] for piece in pieces if piece["text"])
    # where the profile says which language, all pieces have the same
    record["lang_sym"] = pieces[0]["lang_sym"]
    record["pieces"] = pieces
    if with_times:
        record["segments"] = segments
    return record


def _read_path(
    recogniser: Recogniser,
    frames: CTCFrames,
    n_samples: int,
    start_s: float,
    with_times: bool,
) -> dict:
    """Text, and where asked the segments, of the best path of merged windows."""
    labels = torch.unique_consecutive(frames.path)
    labels = labels[labels != recogniser.model.blank_id].tolist()
    read = {"text": parse_output(recogniser.tokenizer.tokens(labels)).text}
    if with_times:
        segments = read_segments(recogniser, frames, n_samples)
        read["segments"] = [_shifted(segment, start_s) for segment in segments]
    return read


def _piece_bounds(
    recogniser: Recogniser, frames: CTCFrames, n_samples: int, window: int
) -> list[int]:
    """First samples of the pieces that the decoder hears, and the end of the last."""
    if n_samples <= window:
        return [0, n_samples]
    grid = FrameGrid.of(recogniser.model)
    # one frame less, since the ends of a piece hold samples of no frame
    most = grid.n_frames(window) - 1
    pieces = cut_at_pauses(frames.path.tolist(), recogniser.model.blank_id, most)
    return [0, *(grid.sample(end) for _, end in pieces[:-1]), n_samples]


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
