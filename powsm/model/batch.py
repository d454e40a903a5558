"""A batch: recordings, and the examples that are learned from each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Self

import torch

from powsm.model.layout import Layout


@dataclass
class Batch:
    """U recordings with E examples and M CTC targets.

    Token ids are int64 with -1 as padding, lengths and row numbers int64.

    Args:
        speech: (U, n_samples) float32 at `SAMPLE_RATE`, zeros as padding.
        speech_lengths: (U,) samples of each recording.
        text: (E, n_tokens) language, task, time, words or phones.
        text_lengths: (E,).
        text_prev: (E, n_tokens) the prompt, or the `<na>` token.
        text_prev_lengths: (E,).
        text_ctc: (M, n_tokens) CTC targets, one for each recording or more; of one
            recording that of phones comes first.
        text_ctc_lengths: (M,).
        example_audio: (E,) rising row numbers of `speech`; None means one example a
            recording, ESPnet's own layout.
        example_ctc: (E,) row numbers of `text_ctc`; None means one target a recording,
            the same for all its examples.
        utt_ids: of the U recordings; empty where nobody asks for them.
        done: what augmentation did to recordings, a name for each time.
        layout: what follows from the integers above; None lets the model make it.
    """

    speech: torch.Tensor
    speech_lengths: torch.Tensor
    text: torch.Tensor
    text_lengths: torch.Tensor
    text_prev: torch.Tensor
    text_prev_lengths: torch.Tensor
    text_ctc: torch.Tensor
    text_ctc_lengths: torch.Tensor
    example_audio: torch.Tensor | None = None
    example_ctc: torch.Tensor | None = None
    utt_ids: Sequence[str] = ()
    done: Sequence[str] = ()
    layout: Layout | None = None

    def __post_init__(self) -> None:
        if self.example_audio is None:
            rows = torch.arange(self.n_recordings, device=self.speech.device)
            self.example_audio = rows

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """From the keyword arguments of ESPnet's models; its `utt_id` is left out."""
        return cls(**{k: v for k, v in tensors.items() if k != "utt_id"})

    @property
    def n_recordings(self) -> int:
        """U."""
        return len(self.speech)

    @property
    def n_examples(self) -> int:
        """E."""
        return len(self.text)

    @property
    def ctc_rows(self) -> torch.Tensor:
        """(E,) which row of `text_ctc` each example has."""
        return self.example_audio if self.example_ctc is None else self.example_ctc

    def tensors(self) -> dict[str, torch.Tensor]:
        """The keyword arguments of a model, ESPnet's own as well."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: x for name, x in values if isinstance(x, torch.Tensor)}

    def arguments(self) -> dict:
        """The keyword arguments of `PowsmModel`: the tensors and the layout."""
        return self.tensors() | {"layout": self.layout}

    def to(self, device: torch.device) -> Self:
        """The same on a device; Lightning asks for this."""
        moved = {k: v.to(device, non_blocking=True) for k, v in self.tensors().items()}
        layout = None if self.layout is None else self.layout.to(device)
        return replace(self, **moved, layout=layout)

    def pin_memory(self) -> Self:
        """The same in memory that a GPU reads by itself; PyTorch's loader asks."""
        pinned = {name: x.pin_memory() for name, x in self.tensors().items()}
        layout = None if self.layout is None else self.layout.pin_memory()
        return replace(self, **pinned, layout=layout)

    def row_for_each_example(self) -> Self:
        """ESPnet's own layout: a recording and a target for each of the E examples."""
        audio, ctc = self.example_audio, self.ctc_rows
        return replace(
            self,
            speech=self.speech[audio],
            speech_lengths=self.speech_lengths[audio],
            text_ctc=self.text_ctc[ctc],
            text_ctc_lengths=self.text_ctc_lengths[ctc],
            example_audio=None,
            example_ctc=None,
            utt_ids=(),
            layout=None,
        )

    def twice(self) -> Self:
        """Every recording, target and example a second time, behind the first."""
        more = {"example_audio": self.n_recordings, "example_ctc": len(self.text_ctc)}
        both = {
            name: torch.cat([x, x + more.get(name, 0)])
            for name, x in self.tensors().items()
        }
        return replace(self, **both, utt_ids=(*self.utt_ids,) * 2, layout=None)

    def first_ctc_targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The first CTC target of each recording: (U, n_tokens) and lengths (U,)."""
        if self.example_ctc is None:
            return self.text_ctc, self.text_ctc_lengths
        rows = torch.zeros_like(self.speech_lengths).scatter_reduce(
            0, self.example_audio, self.example_ctc, reduce="amin", include_self=False
        )
        return self.text_ctc[rows], self.text_ctc_lengths[rows]

    def parts(self, n: int) -> list[Self]:
        """The recordings as `n` batches of about as many, at most one for each."""
        n = min(n, self.n_recordings)
        ends = [-(-self.n_recordings * i // n) for i in range(n + 1)]
        return [self._part(first, last) for first, last in pairwise(ends)]

    def halves(self) -> list[Self]:
        """U >= 2 recordings as two batches, the first with the odd one."""
        return self.parts(2)

    def _part(self, first: int, last: int) -> Self:
        audio = self.example_audio
        mine = (audio >= first) & (audio < last)
        first_ctc = int(self.ctc_rows[mine].min())
        last_ctc = int(self.ctc_rows[mine].max()) + 1
        rows = {
            "speech": slice(first, last),
            "text_ctc": slice(first_ctc, last_ctc),
            "text": mine,
            "text_prev": mine,
        }
        part = {"example_audio": audio[mine] - first}
        if self.example_ctc is not None:
            part["example_ctc"] = self.example_ctc[mine] - first_ctc
        for name, chosen in rows.items():
            lengths = getattr(self, f"{name}_lengths")[chosen]
            part[f"{name}_lengths"] = lengths
            part[name] = getattr(self, name)[chosen][:, : int(lengths.max())]
        return replace(self, **part, utt_ids=self.utt_ids[first:last], layout=None)
