"""Phones with times: CTC alignment of given phones, or of what the CTC head says.

    segments = align(recogniser, speech)                    # its own phones
    segments = align(recogniser, speech, ("p", "ɔ", "m"))   # these phones
    segments = align(recogniser, speech, ("p", "ɔ"), gop=True)   # and how well said
    powsm.decode.align_files.write_textgrid(path, segments, duration_s=2.5)

The CTC head says a phone in few frames, often one, and blank in between. Two phones
share the blanks between them, but for many that are silent, a pause. Times come from
the model's own frame grid (`powsm.model.frames`), of 40 ms, and move to where the sound
changes most near them (`powsm.decode.timing.change`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from powsm.decode.align_files import Segment
from powsm.decode.longform import CTCFrames, ctc_frames
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.stretches import Speech
from powsm.decode.timing.times import phone_times
from powsm.errors import PowsmError
from powsm.model.frames import FrameGrid
from powsm.tasks import WORD_START
from powsm.vocabulary.nearest import nearest_phones
from powsm.vocabulary.phone_sets import is_phone

_SYMBOL = re.compile(r"<[^<>\s]+>")  # a language, a task: no phone


class AlignError(PowsmError):
    """Phones that cannot be aligned; the message says which and why."""


def align(
    recogniser: Recogniser,
    speech: Speech,
    phones: Sequence[str] | None = None,
    *,
    gop: bool = False,
    nearest: bool = False,
    finer: bool = True,
) -> list[Segment]:
    """When each phone is said.

    Args:
        recogniser: a model with its tokenizer.
        speech: (n_samples,) at 16 kHz, of any length, or a recording.
        phones: what is said, as `powsm.phones.normaliser` segments it; None takes what
            the CTC head says. Length marks are kept in the result, and not looked for
            in the sound: a head beside a decoder is taught none, and of one without a
            decoder a phone of any length counts.
        gop: judge how well each phone was said; all columns of phones are kept then,
            24 kB a frame of 6,000.
        nearest: let the nearest phone by features stand for one that the model lacks.
        finer: move boundaries to where the sound changes most near them.

    Returns:
        One segment a phone, in order, none overlapping. It is empty when the head
        says nothing.

    Raises:
        AlignError: no phones, phones that the model does not know, or more than fit;
            no phones that could be judged.
        LongFormError: the audio is too short to encode.
    """
    if phones is None:
        if gop:
            raise AlignError("how well phones are said is of given ones; give them")
        frames = ctc_frames(recogniser, speech)
        return read_segments(recogniser, frames, speech, finer=finer)
    targets = _targets(recogniser, phones, nearest)
    tokens = recogniser.tokenizer.token_list
    lengths = _lengths(recogniser)
    all_phones = []
    if gop:
        all_phones = list(lengths) or [n for n, t in enumerate(tokens) if is_phone(t)]
    forced = _forced(recogniser, speech, targets, all_phones, lengths)
    spans, frames = forced.spans, forced.frames
    found = _segments(recogniser, targets.names, spans, len(frames), speech, finer)
    found = [
        replace(segment, nearest=other)
        for segment, other in zip(found, targets.nearest, strict=True)
    ]
    if not gop:
        return found
    names = [_phone_of(tokens[n]) for n in all_phones]
    return _judged(found, frames.columns, forced.labels, spans, names)


def forced_frames(
    recogniser: Recogniser, speech: Speech, phones: Sequence[str]
) -> tuple[list[tuple[int, int]], int, int]:
    """The frames [start, end) that say each of the phones, and how many there are.

    The third is how many phones the model lacks; the nearest stand for them.

    Args and Raises: see `align`.
    """
    targets = _targets(recogniser, phones, nearest=True)
    forced = _forced(recogniser, speech, targets, (), _lengths(recogniser))
    places = [(start, end) for _, start, end, _ in forced.spans[1:]]  # not of `▁`
    n_lacking = sum(other is not None for other in targets.nearest)
    return places, len(forced.frames), n_lacking


@dataclass(frozen=True)
class _Forced:
    """Targets in frames: their columns of the scores, spans, and all that CTC says."""

    labels: list[int]
    spans: list[tuple[int, int, int, float]]
    frames: CTCFrames


def _lengths(recogniser: Recogniser) -> dict[int, list[int]]:
    """Of a model without a decoder: each bare phone, and it in all its lengths.

    What its last head is taught is the text of the task, in which phones have their
    lengths; that of a head beside a decoder has none.
    """
    if not recogniser.is_ctc_only:
        return {}
    return _by_length(tuple(recogniser.tokenizer.token_list))


@lru_cache(maxsize=1)  # of 40,000 tokens it takes 11 ms, for each word of a tier
def _by_length(tokens: tuple[str, ...]) -> dict[int, list[int]]:
    from powsm.phones.normaliser import strip_suprasegmentals

    found: dict[str, list[int]] = {}
    for number, token in enumerate(tokens):
        if is_phone(token):
            bare = "".join(strip_suprasegmentals((_phone_of(token),)))
            found.setdefault(bare, []).append(number)
    names = {token: number for number, token in enumerate(tokens)}
    return {names.get(f"/{p}/", same[0]): same for p, same in found.items()}


def _forced(
    recogniser: Recogniser,
    speech: Speech,
    targets: "_Targets",
    others: Sequence[int],
    lengths: Mapping[int, Sequence[int]],
) -> _Forced:
    """The likeliest frames of targets; `others` are tokens whose columns are kept.

    The column of a token in `lengths` is the sum over those it names.
    """
    wanted = [*others, *targets.ids]
    columns = list(dict.fromkeys([recogniser.model.blank_id, *wanted]))
    column_of = {token: column for column, token in enumerate(columns)}
    labels = [column_of[token] for token in targets.ids]
    groups = [lengths.get(token, (token,)) for token in columns]
    frames = ctc_frames(recogniser, speech, [token for g in groups for token in g])
    if lengths:
        parts = frames.columns.split([len(group) for group in groups], dim=1)
        sums = torch.stack([part.logsumexp(dim=1) for part in parts], dim=1)
        frames = replace(frames, columns=sums)
    path, scores = _force(frames.columns, labels)
    return _Forced(labels, _spans(path, scores, blank=0), frames)


def _judged(
    segments: Sequence[Segment],
    log_probs: Tensor,
    labels: Sequence[int],
    spans: Sequence[tuple[int, int, int, float]],
    names: Sequence[str],
) -> list[Segment]:
    """Segments with how well they were said; the first label, `▁`, has none."""
    from powsm.decode.pronunciation.goodness import LEFT_OUT, goodness  # has numba

    places = [(start, end) for _, start, end, _ in spans]
    of_labels = goodness(log_probs.numpy(), labels, places, len(names))
    return [
        replace(
            segment,
            gop=round(of.gop, 4),
            gop_free=round(of.gop_free, 4),
            rival=LEFT_OUT if of.rival is None else names[of.rival],
        )
        for segment, of in zip(segments, of_labels[1:], strict=True)
    ]


def read_segments(
    recogniser: Recogniser, frames: CTCFrames, speech: Speech, *, finer: bool = True
) -> list[Segment]:
    """When the CTC head says what it says.

    Args:
        recogniser: the model.
        frames: what `powsm.decode.longform.ctc_frames` read from a recording.
        speech: the recording.
        finer: see `align`.
    """
    spans = _spans(frames.path, frames.scores, recogniser.model.blank_id)
    names = [recogniser.tokenizer.token_list[token] for token, *_ in spans]
    names = [_phone_of(name) for name in names]
    return _segments(recogniser, names, spans, len(frames), speech, finer)


def _segments(
    recogniser: Recogniser,
    names: Sequence[str],
    spans: Sequence[tuple[int, int, int, float]],
    n_frames: int,
    speech: Speech,
    finer: bool,
) -> list[Segment]:
    """Segments of spans, which are named; `▁` and symbols as `<eng>` are no phones."""
    kept = [
        (name, span)
        for name, span in zip(names, spans, strict=True)
        if name != WORD_START and not _SYMBOL.fullmatch(name)
    ]
    places = [(start, end) for _, (_, start, end, _) in kept]
    grid, timing = FrameGrid.of(recogniser.model), recogniser.timing
    times = phone_times(places, n_frames, grid, speech, timing, finer=finer)
    return [
        Segment(name, round(start, 4), round(end, 4), round(confidence, 4))
        for (name, (*_, confidence)), (start, end) in zip(kept, times, strict=True)
    ]


def _phone_of(token: str) -> str:
    return token.strip("/") or token


@dataclass(frozen=True)
class _Targets:
    """What is aligned.

    Attributes:
        names, ids: (L,) tokens with their names; training puts `▁` before the phones.
        nearest: (L - 1,) of each phone what stands for it; None: it does itself.
    """

    names: list[str]
    ids: list[int]
    nearest: list[str | None]


def _targets(recogniser: Recogniser, phones: Sequence[str], nearest: bool) -> _Targets:
    # half a second, which what the head says itself does not need
    from powsm.phones.normaliser import strip_suprasegmentals

    known = recogniser.tokenizer.token_ids
    # a break mark alone has no sound
    said = [(p, bare) for p in phones for bare in strip_suprasegmentals((p,))]
    if not said:
        raise AlignError("no phones to align; leave them out to hear the model's own")
    unknown = {bare: phone for phone, bare in said if f"/{bare}/" not in known}
    stand_in: dict[str, str] = {}
    if nearest and unknown:
        names = [_phone_of(token) for token in known if is_phone(token)]
        stand_in = nearest_phones(unknown, names)
    if missing := {phone for bare, phone in unknown.items() if bare not in stand_in}:
        raise AlignError(
            f"the model has no token for {' '.join(sorted(missing))}; write these "
            "phones as ones of its token list, as the normaliser segments it"
            + ("" if nearest else ", or let the nearest stand for them (--nearest)")
        )
    return _Targets(
        [WORD_START, *(phone for phone, _ in said)],
        [known[t] for t in (WORD_START, *(f"/{stand_in.get(b, b)}/" for _, b in said))],
        [stand_in.get(bare) for _, bare in said],
    )


def _force(log_probs: Tensor, targets: list[int]) -> tuple[Tensor, Tensor]:
    """(path, scores) of the likeliest path that says the targets; blank is column 0.

    Args:
        log_probs: (T, C).
        targets: columns, in order.
    """
    from powsm.decode.forced import forced_path  # its numba takes a second to load

    n_repeats = sum(a == b for a, b in zip(targets[:-1], targets[1:], strict=True))
    needed = len(targets) + n_repeats
    if len(log_probs) < needed:
        raise AlignError(
            f"{len(targets) - 1} phones need {needed} frames, the audio has "
            f"{len(log_probs)}; the transcript is not of this audio, or only part of it"
        )
    path = torch.from_numpy(forced_path(log_probs.numpy(), np.array(targets)))
    return path, log_probs.gather(1, path[:, None])[:, 0]


def _spans(
    path: Tensor, scores: Tensor, blank: int
) -> list[tuple[int, int, int, float]]:
    """(token, first frame, end frame, mean probability) of each label of a path.

    >>> path = torch.tensor([0, 3, 3, 0, 3, 5])
    >>> [span[:3] for span in _spans(path, torch.zeros(6), blank=0)]
    [(3, 1, 3), (3, 4, 5), (5, 5, 6)]
    """
    tokens, counts = torch.unique_consecutive(path, return_counts=True)
    ends = counts.cumsum(0).tolist()
    probs = scores.exp()
    return [
        (token, end - n, end, float(probs[end - n : end].mean()))
        for token, n, end in zip(tokens.tolist(), counts.tolist(), ends, strict=True)
        if token != blank
    ]
