"""A CTC head over blank and phones alone, in the place of one over all tokens.

Of 40,002 tokens the CTC head is taught 6,368; the rest of its weights, 25 M in the
published model, never learn to speak. The head's scores are laid out over all tokens
again, so whatever reads CTC scores works unchanged. Stock ESPnet cannot load it.
"""

from collections.abc import Sequence

import torch

from powsm.vocabulary.phone_sets import is_phone

_NEVER = -1e4  # logit of a token that is not in the head; its probability is 0


class PhoneLinear(torch.nn.Linear):
    """The last layer of a CTC head, with rows for blank, `<unk>` and the phones.

    Args:
        size: width of the encoder.
        tokens: all tokens of the model; blank is the first.
    """

    def __init__(self, size: int, tokens: Sequence[str]):
        kept = [0] + [
            i for i, token in enumerate(tokens) if token == "<unk>" or is_phone(token)
        ]
        super().__init__(size, len(kept))
        row_of = torch.full((len(tokens),), kept.index(tokens.index("<unk>")))
        row_of[kept] = torch.arange(len(kept))
        self.n_tokens = len(tokens)
        self.register_buffer("kept", torch.tensor(kept), persistent=False)
        self.register_buffer("row_of", row_of, persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of all tokens (..., V) from hidden states (..., D)."""
        logits = self.compact(hidden)
        out = logits.new_full((*logits.shape[:-1], self.n_tokens), _NEVER)
        return out.index_copy(-1, self.kept, logits)

    def compact(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of the head's own rows."""
        return super().forward(hidden)

    def rows(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The head's rows of token ids; a token without one is `<unk>`."""
        return self.row_of[token_ids]
