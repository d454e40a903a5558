"""A Transformer decoder that computes every key and value once.

ESPnet's decoder caches layer outputs, so each step projects the keys and values of
all earlier tokens and of all encoder frames again, for every hypothesis. Here
self-attention keys and values are kept per hypothesis, those of cross-attention per
utterance, where they serve all its hypotheses. Weights are ESPnet's own modules.

The cache grows by `_GROWTH` tokens, and attention reads all of it, so that the shapes
of a step are those of the last one: what is not there yet is masked.

Shapes: B utterances, H hypotheses each, N = B x H, L tokens so far, P longest prompt,
T encoder frames, D model size, V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from espnet2.legacy.nets.pytorch_backend.transformer.embedding import PositionalEncoding
from torch import Tensor

from powsm.errors import PowsmError
from powsm.model.features import on_device

_GROWTH = 64  # tokens by which the cache grows when it is full; it holds a multiple
_NEVER = float("-inf")


class CachedDecoder:
    """One decoding run: the prompts of a batch, then a token a hypothesis at a time.

    Args:
        decoder: ESPnet's Transformer decoder, in evaluation mode.
        memory: (B, T, D) encoder output.
        lens: (B,) true numbers of frames.
        prompts: token ids that each output starts from; lengths may differ.

    Attributes:
        logits: (B, H, V) scores of the next token, before the softmax; H is 1 until
            `feed` chooses more.

    Raises:
        PowsmError: the decoder is of a kind whose keys and values cannot be cached.
    """

    def __init__(
        self,
        decoder: TransformerDecoder,
        memory: Tensor,
        lens: Tensor,
        prompts: Sequence[Sequence[int]],
    ):
        check_decoder(decoder)
        self._decoder = decoder
        self._n_hyps = 1
        self._cross = [
            (_heads(layer.src_attn.linear_k(memory), layer.src_attn, "k"),
             _heads(layer.src_attn.linear_v(memory), layer.src_attn))
            for layer in decoder.decoders
        ]  # fmt: skip
        frames = torch.arange(memory.size(1), device=memory.device)
        seen = frames < lens.to(memory.device).unsqueeze(1)
        self._frame_bias = _bias(seen, memory.dtype)[:, None, None]
        self._prefill(memory, prompts)

    def _prefill(self, memory: Tensor, prompts: Sequence[Sequence[int]]) -> None:
        """Run all prompts at once, padded on the left so that they end together."""
        device = memory.device
        longest = max(len(prompt) for prompt in prompts)
        n_pads = [longest - len(prompt) for prompt in prompts]
        ids = [[0] * n + list(p) for n, p in zip(n_pads, prompts, strict=True)]
        self._n_pads = torch.tensor(n_pads, device=device)
        self._n_tokens = 0
        self._capacity = -(-(longest + 1) // _GROWTH) * _GROWTH
        # zeros, since a weight of zero times what memory happens to hold may be NaN
        self._own = [
            [memory.new_zeros(len(prompts), layer.self_attn.h, self._capacity,
                              layer.self_attn.d_k) for _ in "kv"]
            for layer in self._decoder.decoders
        ]  # fmt: skip
        position = torch.arange(longest, device=device)
        mask = position <= position.unsqueeze(1)  # (P, P) causal
        real = position >= self._n_pads.unsqueeze(1)
        # (B, capacity) added to scores: what is not there is not seen
        n_free = self._capacity - longest
        self._bias = F.pad(_bias(real, memory.dtype), (0, n_free), value=_NEVER)
        if any(n_pads):
            # a padding token sees itself, or its softmax would be empty
            own = torch.eye(longest, dtype=torch.bool, device=device)
            mask = (mask & real.unsqueeze(1)) | own
            mask = mask.unsqueeze(1)  # (B, 1, P, P)
        ids = torch.tensor(ids, device=device)
        places = (position - self._n_pads.unsqueeze(1)).clamp(min=0)
        hidden = self._run(ids, places, mask, longest)
        self.logits = self._decoder.output_layer(hidden[:, -1:])

    def feed(self, parents: Sequence[Sequence[int]], tokens: Tensor) -> None:
        """Go on with these hypotheses; sets `logits` for what follows them.

        Args:
            parents: (B, K) index of the hypothesis that each one extends, as numbers:
                a GPU that had to say what moves would be waited for.
            tokens: (B, K) the token it adds.
        """
        n_utts, n_hyps = tokens.shape
        self._reorder(parents)
        self._n_hyps = n_hyps
        places = (self._n_tokens - self._n_pads).repeat_interleave(n_hyps).unsqueeze(1)
        self._bias[:, self._n_tokens] = 0.0
        bias = self._bias.repeat_interleave(n_hyps, 0)[:, None, None]
        hidden = self._run(tokens.reshape(-1, 1), places, bias, self._capacity)
        self.logits = self._decoder.output_layer(hidden.view(n_utts, n_hyps, -1))

    def keep(self, utterances: Tensor) -> None:
        """Forget all utterances but these (indices into the present B)."""
        n_hyps = self._n_hyps
        hyps = torch.arange(n_hyps, device=utterances.device)
        rows = (utterances.unsqueeze(1) * n_hyps + hyps).view(-1)
        self._own = [[x[rows] for x in layer] for layer in self._own]
        self._cross = [(k[utterances], v[utterances]) for k, v in self._cross]
        self._n_pads = self._n_pads[utterances]
        self._bias = self._bias[utterances]
        self._frame_bias = self._frame_bias[utterances]

    def _reorder(self, parents: Sequence[Sequence[int]]) -> None:
        """Give each new hypothesis its parent's cache, and room for one more token."""
        if self._n_tokens == self._capacity:
            self._capacity += _GROWTH
            self._bias = F.pad(self._bias, (0, _GROWTH), value=_NEVER)
            self._own = [[F.pad(x, (0, 0, 0, _GROWTH)) for x in layer]
                         for layer in self._own]  # fmt: skip
        n_hyps, device = self._n_hyps, self._n_pads.device
        rows = [b * n_hyps + p for b, these in enumerate(parents) for p in these]
        if len(parents[0]) != n_hyps:
            chosen = on_device(torch.tensor(rows), device)
            self._own = [[x[chosen] for x in layer] for layer in self._own]
            return
        # most hypotheses extend the one in their own place: move only the others
        moved = [(i, row) for i, row in enumerate(rows) if i != row]
        if moved:
            into, sources = on_device(torch.tensor(moved).T.contiguous(), device)
            used = slice(0, self._n_tokens)
            for layer in self._own:
                for x in layer:
                    x[into, :, used] = x[sources, :, used]

    def _run(self, ids: Tensor, places: Tensor, mask: Tensor, n_read: int) -> Tensor:
        """(N, l) new tokens at their places, through all layers -> (N, l, D).

        `mask`, bool or added, is over the first `n_read` places of the cache.
        """
        embedding, positions = self._decoder.embed
        x = embedding(ids) * positions.xscale
        positions.extend_pe(x.new_empty(1, self._capacity))
        x = x + positions.pe[0][places]
        old = self._n_tokens
        self._n_tokens = new = old + ids.size(1)
        for layer, own, cross in zip(
            self._decoder.decoders, self._own, self._cross, strict=True
        ):
            residual = x
            x = layer.norm1(x) if layer.normalize_before else x
            attention = layer.self_attn
            own[0][:, :, old:new] = _heads(attention.linear_k(x), attention, "k")
            own[1][:, :, old:new] = _heads(attention.linear_v(x), attention)
            query = _heads(attention.linear_q(x), attention, "q")
            keys, values = own[0][:, :, :n_read], own[1][:, :, :n_read]
            x = residual + self._attend(attention, query, keys, values, mask)
            x = x if layer.normalize_before else layer.norm1(x)

            residual = x
            x = layer.norm2(x) if layer.normalize_before else x
            attention = layer.src_attn
            # the hypotheses of an utterance are the rows of one query matrix
            rows = x.view(len(cross[0]), -1, x.size(-1))
            query = _heads(attention.linear_q(rows), attention, "q")
            seen = self._attend(attention, query, *cross, self._frame_bias)
            x = residual + seen.view_as(x)
            x = x if layer.normalize_before else layer.norm2(x)

            residual = x
            x = layer.norm3(x) if layer.normalize_before else x
            x = residual + layer.feed_forward(x)
            x = x if layer.normalize_before else layer.norm3(x)
        return self._decoder.after_norm(x) if self._decoder.normalize_before else x

    @staticmethod
    def _attend(
        attention, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        seen = F.scaled_dot_product_attention(query, keys, values, mask)
        return attention.linear_out(seen.transpose(1, 2).flatten(2))


def _bias(is_seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to scores, made once for all layers."""
    bias = torch.zeros(is_seen.shape, dtype=dtype, device=is_seen.device)
    return bias.masked_fill(~is_seen, _NEVER)


def _heads(x: Tensor, attention, norm: str = "") -> Tensor:
    """(N, l, D) -> (N, heads, l, D / heads), normalised where the layer does so."""
    x = x.view(len(x), -1, attention.h, attention.d_k).transpose(1, 2)
    return getattr(attention, f"{norm}_norm")(x) if norm else x


def check_decoder(decoder: torch.nn.Module) -> None:
    if not isinstance(decoder, TransformerDecoder):
        raise PowsmError(
            f"the decoder is {type(decoder).__name__}; expected TransformerDecoder, "
            "the only kind that powsm.decode.search caches"
        )
    if type(decoder.embed[1]) is not PositionalEncoding or decoder.output_layer is None:
        raise PowsmError(
            "the decoder must have an output layer and absolute positions; found "
            f"{type(decoder.embed[1]).__name__}, output layer {decoder.output_layer}"
        )
    if any(layer.concat_after for layer in decoder.decoders):
        raise PowsmError(
            "the decoder uses concat_after, which powsm.decode.search does not"
        )
