"""What follows from lengths and token ids of a batch, known before a GPU sees it.

Which token is where, what it learns, which rows have a CTC target: a GPU that is asked
for such a number has to be waited for. So the processes that load the data work it
out, and the model only uses it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from powsm.model.frames import FrameGrid

_BLANK = 0  # of ESPnet's CTC


@dataclass(frozen=True)
class Packing:
    """Where each token is when the rows of a recording are laid end to end.

    The examples of U recordings become U rows of W places: queries of one recording
    share its keys and values, and a short transcript costs what it holds.

    Attributes:
        place: (N,) where each of the N tokens is among the U x W packed places.
        shape: (U, W).
        owner: (U, W) which row a place belongs to, -1 where it is left over.
    """

    place: torch.Tensor
    shape: tuple[int, int]
    owner: torch.Tensor

    @classmethod
    def of(cls, lens: torch.Tensor, audio: torch.Tensor, n_audio: int) -> "Packing":
        """Pack rows of `lens` (E,) tokens; `audio` (E,), rising, is their recording."""
        total = lens.new_zeros(n_audio).index_add(0, audio, lens)
        width = int(total.max())
        begin = audio * width + (lens.cumsum(0) - lens)
        begin = begin - (total.cumsum(0) - total)[audio]
        column = torch.arange(int(lens.max()), device=lens.device)
        is_token = column < lens[:, None]
        place = (begin[:, None] + column)[is_token]
        row = torch.nonzero(is_token, as_tuple=True)[0]
        owner = lens.new_full((n_audio * width,), -1).index_copy(0, place, row)
        return cls(place, (n_audio, width), owner.view(n_audio, width))

    def pack(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, ...) tokens to (U, W, ...), zeros where there is none."""
        places = self.shape[0] * self.shape[1]
        packed = tokens.new_zeros(places, *tokens.shape[1:])
        packed = packed.index_copy(0, self.place, tokens)
        return packed.view(*self.shape, *tokens.shape[1:])


def mask_of_rows(owner: torch.Tensor) -> torch.Tensor:
    """(U, W, W) bool, what a packed place sees: its own row up to itself.

    Places left over see one another: a query without a key would give NaN.
    """
    return (owner[:, :, None] == owner[:, None, :]).tril()


@dataclass(frozen=True)
class Frames:
    """Frames of U recordings.

    Attributes:
        n: encoder frames of each.
        is_frame: (U, T) bool, which of the encoder's are no padding.
        is_padding: (U, T') bool, which of the spectrogram's are.
    """

    n: tuple[int, ...]
    is_frame: torch.Tensor
    is_padding: torch.Tensor

    @classmethod
    def of(cls, n_samples: Sequence[int], grid: FrameGrid) -> Self:
        """Of recordings, in a batch as long as the longest."""
        n = tuple(map(grid.n_frames, n_samples))
        heard = torch.tensor(n_samples) // grid.hop + 1
        return cls(n, mask_of_lengths(torch.tensor(n)), ~mask_of_lengths(heard))


def mask_of_lengths(lengths: torch.Tensor, width: int | None = None) -> torch.Tensor:
    """(B, width) bool: which places are inside of rows of `lengths` (B,)."""
    width = int(lengths.max()) if width is None else width
    return torch.arange(width, device=lengths.device) < lengths[:, None]


@dataclass(frozen=True)
class CtcTargets:
    """M CTC targets, each over a table of its own symbols alone.

    Attributes:
        symbols: (M, C) what the columns of each table are: the blank, then every label
            of the target once, then another symbol where the target has fewer.
        columns: (M, L) which column each label is; 0 behind a target's end.
        n_labels: of each of the M.
    """

    symbols: torch.Tensor
    columns: torch.Tensor
    n_labels: tuple[int, ...]

    @classmethod
    def of(cls, targets: Sequence[np.ndarray]) -> Self:
        """Of M >= 1 arrays of labels, among which the blank is not."""
        rows = [np.unique(labels, return_inverse=True) for labels in targets]
        width = max(len(found) for found, _ in rows)
        symbols = np.full((len(rows), 1 + width), _BLANK)
        columns = np.zeros((len(rows), max(map(len, targets))), dtype=np.int64)
        for row, (found, places) in enumerate(rows):
            # of as many symbols as a longer target has, this one lacks one
            lacking = np.setdiff1d(np.arange(len(found) + 2), [_BLANK, *found])
            symbols[row, 1:] = lacking[0]
            symbols[row, 1 : 1 + len(found)] = found
            columns[row, : len(places)] = 1 + places
        n_labels = tuple(map(len, targets))
        return cls(torch.from_numpy(symbols), torch.from_numpy(columns), n_labels)

    def labels(self) -> torch.Tensor:
        """All targets, one behind the other."""
        rows = zip(self.symbols, self.columns, self.n_labels, strict=True)
        return torch.cat([symbols[columns[:n]] for symbols, columns, n in rows])


@dataclass(frozen=True)
class Layout:
    """Of a batch of U recordings with E examples: its N decoder tokens, its CTC rows.

    Tensors are int64 unless said; what is in tuples stays on the CPU.

    Args:
        frames: of the recordings; None where a model has to say how many they have.
        n_samples: of each recording (U).
        tasks: number of each task that has examples, by name.
        task_sizes: (tasks of the model + 1, 2) examples and tokens that teach of each,
            at least 1; the last are those of other tasks.
        tokens: (E, L) what the decoder reads: `[<sop> prev] <sos> text`.
        lengths: (E,) of those rows.
        starts: (E,) where `<sos>` is in each row.
        packed: (U, W) which of E x L is at each packed place; the first where the
            place is left over.
        owner: (U, W) whose it is, see `Packing`.
        learned: (K,) where the tokens that teach are among the packed places.
        target: (K,) what comes after each.
        task: (K,) number of its task.
        ctc_targets: M of them; None where there are none.
        ctc_audio: (M,) the recording of each; None is recording m for target m.
        ctc_recordings: the same as numbers.
        ctc_share: (M,) float64, of the examples with a target those of each.
        n_examples: (1,) E.
    """

    frames: Frames | None
    n_samples: tuple[int, ...]
    tasks: Mapping[str, int]
    task_sizes: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    starts: torch.Tensor
    packed: torch.Tensor
    owner: torch.Tensor
    learned: torch.Tensor
    target: torch.Tensor
    task: torch.Tensor
    ctc_targets: CtcTargets | None
    ctc_audio: torch.Tensor | None
    ctc_recordings: tuple[int, ...]
    ctc_share: torch.Tensor
    n_examples: torch.Tensor

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self.each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in memory that a GPU reads by itself."""
        return self.each(lambda x: x.pin_memory())

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """The same with other tensors."""
        return _each(self, change)


def _each(part: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if torch.is_tensor(part):
        return change(part)
    if not is_dataclass(part):
        return part
    values = {f.name: _each(getattr(part, f.name), change) for f in fields(part)}
    return replace(part, **values)


@dataclass(frozen=True)
class LayoutMaker:
    """Makes layouts; small, so that it travels to the processes that load.

    Args:
        na: id of `<na>`: no prompt, or no CTC target.
        sop, sos, eos, padding: ids.
        tasks: token id of each task, by name.
        grid: of the encoder; None where frames do not follow from samples alone.
        ctc_rows: row of the CTC head for each token; None is its id.
    """

    na: int
    sop: int
    sos: int
    eos: int
    padding: int
    tasks: Mapping[str, int]
    grid: FrameGrid | None = None
    ctc_rows: np.ndarray | None = None

    def __call__(self, batch: Any) -> Layout:
        """The layout of a `Batch`, on the CPU; a batch on a GPU is waited for."""
        integers = {
            name: x.cpu() for name, x in batch.tensors().items() if name != "speech"
        }
        batch = replace(batch, **integers)
        n_samples = tuple(batch.speech_lengths.tolist())
        return Layout(
            frames=None if self.grid is None else Frames.of(n_samples, self.grid),
            n_samples=n_samples,
            n_examples=torch.tensor([batch.n_examples]),
            **self._decoder(batch),
            **self._ctc(batch),
        )

    def _decoder(self, batch: Any) -> dict:
        tokens, lengths, output, starts = self._rows(batch)
        packing = Packing.of(lengths, batch.example_audio, batch.n_recordings)
        is_token = mask_of_lengths(lengths, tokens.size(1))
        row, column = torch.nonzero(is_token, as_tuple=True)
        target = output[row, column]
        teaches = target != self.padding
        number = torch.full((batch.n_examples,), len(self.tasks))
        for task, token in enumerate(self.tasks.values()):
            number[batch.text[:, 1] == token] = task
        task = number[row[teaches]]
        n_tasks = 1 + len(self.tasks)
        sizes = [torch.bincount(each, minlength=n_tasks) for each in (number, task)]
        return {
            "tasks": {name: i for i, name in enumerate(self.tasks) if sizes[0][i]},
            "task_sizes": torch.stack(sizes, 1).clamp(min=1),
            "tokens": tokens,
            "lengths": lengths,
            "starts": starts,
            "packed": packing.pack(row * tokens.size(1) + column),
            "owner": packing.owner,
            "learned": packing.place[teaches],
            "target": target[teaches],
            "task": task,
        }

    def _rows(
        self, batch: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decoder input and output: `[<sop> prev] <sos> text` and `text <eos>`.

        Returns:
            Input (E, L), its lengths (E,), output (E, L) with padding where nothing is
            learned, and the position of `<sos>` in each row (E,).
        """
        text, text_lens = batch.text, batch.text_lengths
        prev, prev_lens = batch.text_prev, batch.text_prev_lengths
        has_prev = (prev != self.na).all(1)
        start = torch.where(has_prev, prev_lens + 1, 0)
        lens = start + text_lens + 1
        width = int(lens.max())
        rows = torch.arange(text.size(0))
        ys_in = text.new_full((text.size(0), width), self.eos)
        ys_out = text.new_full((text.size(0), width), self.padding)
        ys_in[has_prev, 0] = self.sop
        ys_in[rows, start] = self.sos
        mask = torch.arange(prev.size(1)) < prev_lens[:, None]
        row, column = torch.nonzero(mask & has_prev[:, None], as_tuple=True)
        ys_in[row, column + 1] = prev[row, column]
        mask = torch.arange(text.size(1)) < text_lens[:, None]
        row, column = torch.nonzero(mask, as_tuple=True)
        ys_in[row, start[row] + 1 + column] = text[row, column]
        ys_out[row, start[row] + column] = text[row, column]
        ys_out[rows, start + text_lens] = self.eos
        return ys_in, lens, ys_out, start

    def _ctc(self, batch: Any) -> dict:
        """Each target counts once per example, as four rows would."""
        target, lengths = batch.text_ctc, batch.text_ctc_lengths
        counts = torch.bincount(batch.ctc_rows, minlength=len(target))
        audio = torch.zeros_like(counts)
        audio[batch.ctc_rows] = batch.example_audio
        is_target = (target != self.na).all(1) & (counts > 0)
        rows = torch.nonzero(is_target).squeeze(1)
        each = tuple(audio[rows].tolist())
        is_each_once = each == tuple(range(batch.n_recordings))
        labels = [target[row, : lengths[row]].numpy() for row in rows]
        if self.ctc_rows is not None:
            labels = [self.ctc_rows[of_tokens] for of_tokens in labels]
        return {
            "ctc_targets": CtcTargets.of(labels) if labels else None,
            "ctc_audio": None if is_each_once else audio[rows],
            "ctc_recordings": each,
            "ctc_share": counts[rows].double() / counts[rows].sum(),
        }
