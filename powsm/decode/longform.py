"""Recordings of any length: overlapping windows for CTC, pieces cut at pauses for text.

The CTC head is read window by window. Two neighbours overlap, and the path changes
from one to the other where both say blank, as near to the middle of the overlap as
possible: the frames at the edge of a window, which lack context, are never used. What
is kept of a window is its best path and the columns asked for, not its vocabulary, so
memory does not grow with the length beyond the audio itself.

The decoder says nothing about time. For it the recording is cut at pauses of that path
into pieces no longer than a window, and each piece is decoded on its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.decode.profile import BATCH_S
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.stretches import Speech
from powsm.errors import PowsmError
from powsm.languages import UNKNOWN_LANG_SYM
from powsm.model.frames import FrameGrid
from powsm.model.s2t_ctc import N_PREFIX
from powsm.tasks import NA_SYM

OVERLAP_S = 4.0  # seconds that neighbouring windows share
MIN_OVERLAP_S = 0.5  # below this the edges of both windows would meet
PAUSE_S = 0.5  # seconds without a phone that end what is said in one go


class LongFormError(PowsmError):
    """A recording or window that cannot be used; the message says what to change."""


@dataclass(frozen=True)
class CTCFrames:
    """What the CTC head says about a recording.

    Attributes:
        path: (T,) the likeliest token of each frame.
        scores: (T,) its log-probability.
        columns: (T, C) log-probabilities of the tokens asked for.
    """

    path: Tensor
    scores: Tensor
    columns: Tensor

    def __len__(self) -> int:
        return len(self.path)

    def part(self, start: int, end: int | None = None) -> "CTCFrames":
        """Frames [start, end), a view."""
        cut = slice(start, end)
        return CTCFrames(self.path[cut], self.scores[cut], self.columns[cut])


def ctc_frames(
    recogniser: Recogniser, speech: Speech, tokens: Sequence[int] = (), **how
) -> CTCFrames:
    """Read the CTC head over a recording of any length: see `ctc_frames_of_all`."""
    return ctc_frames_of_all(recogniser, [speech], tokens, **how)[0]


def ctc_frames_of_all(
    recogniser: Recogniser,
    recordings: Sequence[Speech],
    tokens: Sequence[int] = (),
    *,
    window_s: float = WINDOW_S,
    overlap_s: float = OVERLAP_S,
    barred: Sequence[int] = (),
    batch_s: float = BATCH_S,
) -> list[CTCFrames]:
    """Read the CTC head over recordings of any length.

    Args:
        recogniser: the model.
        recordings: (n_samples,) each at 16 kHz, or recordings that are read by windows.
        tokens: ids whose log-probabilities are wanted in every frame.
        window_s: seconds encoded in one stretch; rounded down to whole frames.
        overlap_s: seconds shared by neighbours; rounded down to whole frames.
        barred: ids that the path never takes.
        batch_s: most seconds of windows that are encoded at once, with padding.

    Returns:
        Of each recording, one frame for each frame of the unsplit recording, on the
        CPU.

    Raises:
        LongFormError: too short to encode, or a window not longer than its overlap.
    """
    grid = FrameGrid.of(recogniser.model)
    for speech in recordings:
        if grid.n_frames(len(speech)) == 0:
            raise LongFormError(
                f"{len(speech) / SAMPLE_RATE:.3f} s of audio is too short to encode; "
                f"the model needs {grid.min_samples() / SAMPLE_RATE:.3f} s"
            )
    window, overlap = (int(s * SAMPLE_RATE) // grid.step for s in (window_s, overlap_s))
    if not MIN_OVERLAP_S <= overlap_s or not 2 * overlap <= window:
        raise LongFormError(
            f"windows of {window_s} s with an overlap of {overlap_s} s; expected an "
            f"overlap of {MIN_OVERLAP_S} s or more, and windows at least twice as long"
        )
    todo = [
        _Window(number, *place)
        for number, speech in enumerate(recordings)
        for place in _windows(len(speech), grid.step, window, overlap)
    ]
    pieces: list[dict[int, CTCFrames]] = [{} for _ in recordings]
    for batch in _batches(todo, int(batch_s * SAMPLE_RATE)):
        speech = [recordings[part.recording][part.begin : part.end] for part in batch]
        read = _read_windows(recogniser, speech, tokens, barred)
        for part, frames in zip(batch, read, strict=True):
            pieces[part.recording][part.first] = frames
    blank = recogniser.model.blank_id
    merged = [_merged(parts, blank) for parts in pieces]
    for speech, frames in zip(recordings, merged, strict=True):
        assert len(frames) == grid.n_frames(len(speech)), "windows leave no frame out"
    return merged


def _merged(windows: dict[int, CTCFrames], blank: int) -> CTCFrames:
    """The frames of a recording, of its windows by first frame."""
    pieces: list[CTCFrames] = []
    n_kept = 0  # frames of the recording that the pieces cover
    for first in sorted(windows):
        new = windows[first]
        if pieces:
            last = pieces.pop()
            n_shared = n_kept - first
            start = len(last) - n_shared
            cut = _cut(last.path[start:], new.path[:n_shared], blank)
            pieces.append(last.part(0, start + cut))
            new = new.part(cut)
            n_kept = first + cut
        pieces.append(new)
        n_kept += len(new)
    return CTCFrames(
        torch.cat([piece.path for piece in pieces]),
        torch.cat([piece.scores for piece in pieces]),
        torch.cat([piece.columns for piece in pieces]),
    )


class _Window(NamedTuple):
    """A stretch of the recording of a number: its first frame, and its samples."""

    recording: int
    first: int
    begin: int
    end: int


def _batches(windows: Sequence[_Window], most: int) -> Iterator[list[_Window]]:
    """Windows by length, longest first, of at most `most` samples with padding."""
    batch: list[_Window] = []
    for part in sorted(windows, key=lambda part: part.begin - part.end):
        if batch and (batch[0].end - batch[0].begin) * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def _windows(
    n_samples: int, step: int, window: int, overlap: int
) -> Iterator[tuple[int, int, int]]:
    """(first frame, first sample, end sample) of each window; sizes in frames."""
    for first in range(0, max(1, n_samples // step), window - overlap):
        begin, end = first * step, (first + window) * step
        yield first, begin, min(end, n_samples)
        if end >= n_samples:
            return


def _read_windows(
    recogniser: Recogniser,
    speech: Sequence[Tensor],
    tokens: Sequence[int],
    barred: Sequence[int],
) -> list[CTCFrames]:
    """What the head says of stretches; in halves where the memory is not enough."""
    try:
        return _read_batch(recogniser, speech, tokens, barred)
    except torch.OutOfMemoryError as err:
        if len(speech) == 1:
            raise LongFormError(
                f"{len(speech[0]) / SAMPLE_RATE:.1f} s of audio do not fit the memory "
                "of the device; use shorter windows"
            ) from err
    # outside the except block, where the failed tensors are no longer held
    torch.cuda.empty_cache()
    middle = len(speech) // 2
    return [
        frames
        for half in (speech[:middle], speech[middle:])
        for frames in _read_windows(recogniser, half, tokens, barred)
    ]


@torch.inference_mode()
def _read_batch(
    recogniser: Recogniser,
    speech: Sequence[Tensor],
    tokens: Sequence[int],
    barred: Sequence[int],
) -> list[CTCFrames]:
    recogniser.check_ctc_says_phones()
    if recogniser.is_ctc_only:  # which is asked for phones, of any language
        asked = ([UNKNOWN_LANG_SYM] * len(speech), "pr", [NA_SYM] * len(speech))
        log_probs, lens = recogniser.ctc_scores(speech, *asked)
        parts = [log_probs[:, N_PREFIX:].clone()]
        lens = lens - N_PREFIX
    else:
        memory, lens = recogniser.encode(speech)
        parts = recogniser.ctc_tables(memory)
    frames = []
    for log_probs in parts:
        columns = log_probs[..., list(tokens)]
        log_probs[..., list(barred)] = float("-inf")
        scores, path = log_probs.max(dim=-1)
        whole = CTCFrames(path.cpu(), scores.cpu(), columns.cpu())
        frames += zip(whole.path, whole.scores, whole.columns, strict=True)
    return [
        CTCFrames(*(x[:n] for x in row))
        for row, n in zip(frames, lens.tolist(), strict=True)
    ]


def _cut(before: Tensor, after: Tensor, blank: int) -> int:
    """Frame of an overlap at which the path changes from one window to the next.

    In the middle half: the frame nearest the middle where both say blank, else where
    both say the same, else the middle.

    >>> before = torch.tensor([0, 7, 7, 7, 0, 7, 7, 0, 7, 0])
    >>> _cut(before, before, 0), _cut(before, 7 - before, 0)
    (4, 5)
    >>> _cut(before, torch.tensor([0, 7, 0, 7, 7, 0, 0, 6, 7, 0]), 0)
    3
    >>> _cut(torch.zeros(10), torch.zeros(10), 0)
    5
    """
    n = len(before)
    quarter = n // 4
    same = before == after
    for allowed in (same & (before == blank), same):
        frames = [int(t) for t in allowed.nonzero() if quarter <= t < n - quarter]
        if frames:
            return min(frames, key=lambda t: abs(2 * t - n))
    return n // 2


def cut_at_pauses(
    path: Sequence[int], blank: int, most: int, pause: int | None = None
) -> list[tuple[int, int]]:
    """Pieces of a path, none longer than `most` frames, cut in the longest blanks.

    Args:
        path: the best token of each frame.
        blank: token id of the blank.
        most: frames, at least 4.
        pause: frames of blank between labels that are a real pause, which is always
            cut in its middle; None cuts only what is too long.

    Returns:
        [start, end) of each piece; together they are the path. Without `pause` a piece
        is at least a quarter of `most` long, unless the path itself is shorter.

    >>> cut_at_pauses([5, 0, 6, 7, 0, 0, 0, 8, 0, 9], blank=0, most=8)
    [(0, 5), (5, 10)]
    >>> cut_at_pauses([0, 0, 5, 0, 6, 0, 0, 7, 0, 0], blank=0, most=20, pause=2)
    [(0, 6), (6, 10)]
    """
    bounds = [0, *_pauses(path, blank, pause), len(path)]
    return [
        (begin + start, begin + end)
        for begin, behind in pairwise(bounds)
        for start, end in _cut_long(path[begin:behind], blank, most)
    ]


def _pauses(path: Sequence[int], blank: int, pause: int | None) -> list[int]:
    """The middles of all runs of `pause` blanks or more between two labels."""
    if pause is None:
        return []
    said = [t for t, token in enumerate(path) if token != blank]
    return [(a + 1 + b) // 2 for a, b in pairwise(said) if b - a - 1 >= pause]


def _cut_long(path: Sequence[int], blank: int, most: int) -> list[tuple[int, int]]:
    pieces = []
    start = 0
    while len(path) - start > most:
        # leave enough behind for the last piece to be one
        high = min(most, len(path) - start - most // 4)
        low = most // 2
        start_of_pause, n_pause = high, 0
        run = 0
        for t in range(low, high):
            run = run + 1 if path[start + t] == blank else 0
            if run > n_pause:
                start_of_pause, n_pause = t - run + 1, run
        end = start + start_of_pause + n_pause // 2
        pieces.append((start, end))
        start = end
    return [*pieces, (start, len(path))]
