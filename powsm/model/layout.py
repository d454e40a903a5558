"""What follows from lengths and token ids of a batch, known before a GPU sees it.

Which token is where, what it learns, which rows have a CTC target: a GPU that is asked
for such a number has to be waited for. So the processes that load the data work it
out, and the model only uses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch


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

    @property
    def mask(self) -> torch.Tensor:
        """(U, W, W) bool, what a place sees: its own row up to itself.

        Places left over see one another: a query without a key would give NaN.
        """
        return (self.owner[:, :, None] == self.owner[:, None, :]).tril()

    def pack(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, ...) tokens to (U, W, ...), zeros where there is none."""
        places = self.shape[0] * self.shape[1]
        packed = tokens.new_zeros(places, *tokens.shape[1:])
        packed = packed.index_copy(0, self.place, tokens)
        return packed.view(*self.shape, *tokens.shape[1:])

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """(U, W, ...) back to (N, ...) tokens, row by row."""
        return packed.flatten(0, 1).index_select(0, self.place)


@dataclass(frozen=True)
class Layout:
    """Of a batch of U recordings with E examples: its N decoder tokens, its CTC rows.

    Tensors are int64; what is in tuples stays on the CPU.

    Args:
        n_samples: of each recording (U).
        n_tasks: how many examples each task has, by name; the others are missing.
        tokens: (E, L) what the decoder reads: `[<sop> prev] <sos> text`.
        lengths: (E,) of those rows.
        starts: (E,) where `<sos>` is in each row.
        places: (N,) where the tokens are in E x L.
        packing: where they are when they are laid end to end.
        learned: (K,) where the tokens that teach are among the packed places.
        example: (K,) whose they are.
        target: (K,) what comes after each.
        task: (E,) number of its task among the model's, or one more than there are.
        ctc_audio: (M,) the recording of each; None is recording m for target m.
        ctc_counts: (M,) examples of each.
        ctc_labels: targets, one behind the other.
        ctc_lengths: of each of the M targets.
        ctc_recordings: of each, as numbers.
        n_counted: examples of all of them together.
        n_examples: (1,) E.
    """

    n_samples: tuple[int, ...]
    n_tasks: Mapping[str, int]
    tokens: torch.Tensor
    lengths: torch.Tensor
    starts: torch.Tensor
    places: torch.Tensor
    packing: Packing
    learned: torch.Tensor
    example: torch.Tensor
    target: torch.Tensor
    task: torch.Tensor
    ctc_audio: torch.Tensor | None
    ctc_counts: torch.Tensor
    ctc_labels: torch.Tensor
    ctc_lengths: tuple[int, ...]
    ctc_recordings: tuple[int, ...]
    n_counted: int
    n_examples: torch.Tensor

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in memory that a GPU reads by itself."""
        return self._each(lambda x: x.pin_memory())

    def _each(self, change) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {k: change(v) for k, v in values.items() if torch.is_tensor(v)}
        owner = change(self.packing.owner)
        place = change(self.packing.place)
        packing = replace(self.packing, owner=owner, place=place)
        return replace(self, **changed, packing=packing)


@dataclass(frozen=True)
class LayoutMaker:
    """Makes layouts; small, so that it travels to the processes that load.

    Args:
        na: id of `<na>`: no prompt, or no CTC target.
        sop, sos, eos, padding: ids.
        tasks: token id of each task, by name.
    """

    na: int
    sop: int
    sos: int
    eos: int
    padding: int
    tasks: Mapping[str, int]

    def __call__(self, batch: Any) -> Layout:
        """The layout of a `Batch`, on the CPU; a batch on a GPU is waited for."""
        integers = {
            name: x.cpu() for name, x in batch.tensors().items() if name != "speech"
        }
        batch = replace(batch, **integers)
        n_samples = tuple(batch.speech_lengths.tolist())
        task = torch.full((batch.n_examples,), len(self.tasks))
        n_tasks = {}
        for number, (name, token) in enumerate(self.tasks.items()):
            rows = batch.text[:, 1] == token
            if n := int(rows.sum()):
                n_tasks[name] = n
                task[rows] = number
        return Layout(
            n_samples=n_samples,
            n_tasks=n_tasks,
            task=task,
            n_examples=torch.tensor([batch.n_examples]),
            **self._decoder(batch),
            **self._ctc(batch),
        )

    def _decoder(self, batch: Any) -> dict:
        tokens, lengths, output, starts = self._rows(batch)
        packing = Packing.of(lengths, batch.example_audio, batch.n_recordings)
        is_token = torch.arange(tokens.size(1)) < lengths[:, None]
        row, column = torch.nonzero(is_token, as_tuple=True)
        target = output[row, column]
        teaches = target != self.padding
        return {
            "tokens": tokens,
            "lengths": lengths,
            "starts": starts,
            "places": row * tokens.size(1) + column,
            "packing": packing,
            "learned": packing.place[teaches],
            "example": row[teaches],
            "target": target[teaches],
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
        target, lengths, counts, audio = (
            x[rows] for x in (target, lengths, counts, audio)
        )
        each = tuple(audio.tolist())
        is_each_once = each == tuple(range(batch.n_recordings))
        return {
            "ctc_audio": None if is_each_once else audio,
            "ctc_counts": counts,
            "ctc_labels": target[target != self.padding],
            "ctc_lengths": tuple(lengths.tolist()),
            "ctc_recordings": each,
            "n_counted": int(counts.sum()),
        }
