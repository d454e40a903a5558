"""Rows of tokens laid end to end, so that a decoder does no work on padding."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Packing:
    """Where each token stands when the rows of a recording are laid end to end.

    The examples of U recordings become U rows of W places: queries of one recording
    share its keys and values, and a short transcript costs what it holds.

    Attributes:
        is_token: (E, L) which places of the padded rows hold one of the N tokens.
        place: (N,) where each of them stands among the U x W packed places.
        shape: (U, W).
        mask: (U, W, W) bool, what a place sees: its own row up to itself.
    """

    is_token: torch.Tensor
    place: torch.Tensor
    shape: tuple[int, int]
    mask: torch.Tensor

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
        # places left over see one another: a query without a key would give NaN
        owner = lens.new_full((n_audio * width,), -1).index_copy(0, place, row)
        owner = owner.view(n_audio, width)
        mask = (owner[:, :, None] == owner[:, None, :]).tril()
        return cls(is_token, place, (n_audio, width), mask)

    def pack(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, ...) tokens to (U, W, ...), zeros where there is none."""
        places = self.shape[0] * self.shape[1]
        packed = tokens.new_zeros(places, *tokens.shape[1:])
        packed = packed.index_copy(0, self.place, tokens)
        return packed.view(*self.shape, *tokens.shape[1:])

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """(U, W, ...) back to (N, ...) tokens, row by row."""
        return packed.flatten(0, 1)[self.place]
