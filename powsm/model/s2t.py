"""The S2T model that encodes each recording once for all its task examples.

The published recipe stores an utterance as four rows (pr, asr, g2p, p2g) with the
same audio and the same CTC target, so three of four encoder passes repeat the
fourth. Here the encoder and the CTC head run once per recording and the decoder
runs on every example; loss and gradients equal ESPnet's on the four rows
(tests/model/test_s2t.py), and the parameters carry ESPnet's names, so weights move
between `model: espnet` and `model: powsm` both ways.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoderLayer
from espnet2.asr.layers.cgmlp import ConvolutionalSpatialGatingUnit
from espnet2.legacy.nets.pytorch_backend.conformer.swish import Swish
from espnet2.legacy.nets.pytorch_backend.transformer.decoder_layer import DecoderLayer
from espnet2.s2t.espnet_model import ESPnetS2TModel
from espnet2.torch_utils.device_funcs import force_gatherable
from torch.utils.checkpoint import checkpoint

from powsm.errors import PowsmError
from powsm.model import features
from powsm.model.batch import Batch
from powsm.model.ctc_heads import PhoneLinear
from powsm.model.frames import FrameGrid
from powsm.model.layout import Layout, LayoutMaker, mask_of_lengths, mask_of_rows
from powsm.model.losses import ctc_loss, precision_of, smoothed_cross_entropy
from powsm.tasks import task_ids


def _norms_before_products(module: torch.nn.Module) -> list[str]:
    """Norms whose output goes into matrix products and convolutions alone."""
    if isinstance(module, EBranchformerEncoderLayer):
        names = ("norm_ff_macaron", "norm_mha", "norm_mlp", "norm_ff")
        return [name for name in names if hasattr(module, name)]
    if isinstance(module, ConvolutionalSpatialGatingUnit):
        return ["norm"]
    if isinstance(module, DecoderLayer) and module.normalize_before:
        return ["norm1", "norm2", "norm3"]
    return []


def _as_products_want(_norm, _given: tuple, out: torch.Tensor) -> torch.Tensor:
    """Cast once what autocast would cast for every product that reads it."""
    kind = out.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):  # as the compiler knows it
        return out.to(torch.get_autocast_dtype(kind))
    return out


def _run(number: int, layer: torch.nn.Module, of: torch.nn.Module, *state):
    """A layer of an encoder or decoder, which says of which little is to be kept."""
    if number in of.gradient_checkpoint_layers:
        return checkpoint(layer, *state, use_reentrant=False)
    return layer(*state)


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision made whole; float64 stays, so that tests can be exact."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Encoded(NamedTuple):
    """Encoder output of U recordings.

    Attributes:
        memory: (U, T, D).
        is_frame: (U, T) bool, which frames are no padding.
        n_frames: how many of each recording.
        between: (U, T, D) outputs of the layers that have a CTC loss of their own.
    """

    memory: torch.Tensor
    is_frame: torch.Tensor
    n_frames: Sequence[int]
    between: list[torch.Tensor]

    @property
    def lengths(self) -> torch.Tensor:
        """(U,) `n_frames` on the device of `memory`."""
        return self.is_frame.sum(1)


GUIDE_WIDTH = 0.2  # distance from the diagonal that is tolerated, of the utterance


class PowsmModel(ESPnetS2TModel):
    """ESPnet's S2T model over unique recordings and their examples.

    Args:
        guided_attention_weight: weight of a penalty on cross-attention far from the
            diagonal, in every decoder layer; helps small corpora to find the alignment
            (Tachibana et al., ICASSP 2018). 0 is off.
        share_encoder: False encodes a recording again for each of its examples, as
            the published recipe does: the same loss and gradients at several times
            the cost, for comparison.
        ctc_weight_range: draw the CTC weight of every batch evenly from between
            these two; the trainer does, from a counter.
        ctc_vocab: `all` tokens, or `phones`: see `powsm.model.ctc_heads`.
        **kwargs: those of `ESPnetS2TModel`.
    """

    def __init__(
        self,
        *args,
        guided_attention_weight: float = 0.0,
        share_encoder: bool = True,
        ctc_weight_range: tuple[float, float] | None = None,
        ctc_vocab: str = "all",
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.guided_attention_weight = guided_attention_weight
        self.share_encoder = share_encoder
        self.ctc_weight_range = ctc_weight_range
        if ctc_weight_range is not None:
            low, high = ctc_weight_range
            if not 0 < low < high < 1:
                raise PowsmError(
                    f"ctc_weight_range is {list(ctc_weight_range)}, expected two "
                    "rising numbers between 0 and 1"
                )
        self._ctc_rows = None
        if ctc_vocab not in ("all", "phones"):
            raise PowsmError(f"ctc_vocab is {ctc_vocab!r}, expected all or phones")
        if ctc_vocab == "phones" and self.ctc is not None:
            size = self.ctc.ctc_lo.in_features
            self.ctc.ctc_lo = PhoneLinear(size, self.token_list)
            self._ctc_rows = self.ctc.ctc_lo.columns.row_of_token
        self._task_ids = task_ids(self.token_list)
        for layer in self.decoder.decoders if self.decoder is not None else ():
            # flash-attn's kernel knows the causal mask only, not one of packed rows
            if layer.self_attn.use_flash_attn:
                layer.self_attn.use_sdpa = True
            # the penalty reads the weights; otherwise nobody does, and a table of
            # (U, heads, W, frames) of them is most of what a batch of long clips holds
            layer.src_attn.use_sdpa = guided_attention_weight == 0
        for module in self.modules():
            for name, part in module.named_children():
                if type(part) is Swish:  # one operator, and nothing kept but its input
                    setattr(module, name, torch.nn.SiLU())
            for name in _norms_before_products(module):
                getattr(module, name).register_forward_hook(_as_products_want)
        self._knows_features = features.is_known(self)

    @property
    def layout_maker(self) -> LayoutMaker:
        """Makes what a `Batch` may bring along, so that the model need not ask."""
        return LayoutMaker(
            na=self.na,
            sop=self.sop,
            sos=self.sos,
            eos=self.eos,
            padding=self.ignore_id,
            tasks=self._task_ids,
            grid=FrameGrid.of(self) if self._knows_features else None,
            ctc_rows=self._ctc_rows,
        )

    def forward(
        self, speech: torch.Tensor, **tensors: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Loss of U recordings with E examples.

        Args:
            speech, tensors: those of a `powsm.model.batch.Batch`, which documents their
                shapes; ESPnet's own layout, a row an example, is one of them.

        Returns:
            Loss averaged over the E examples, statistics, and E as the weight.
        """
        batch = self.laid_out(Batch.of({"speech": speech} | tensors))
        return self.losses(batch, self.encode_batch(batch))

    def laid_out(self, batch: Batch) -> Batch:
        """A batch with its layout, in rows as `share_encoder` has them."""
        if not self.share_encoder:
            batch = batch.row_for_each_example()
        if batch.layout is None:
            layout = self.layout_maker(batch).to(batch.speech.device)
            batch = replace(batch, layout=layout)
        return batch

    def encode_batch(self, batch: Batch) -> Encoded:
        """Encoder output of a batch that is laid out, equal to that of `encode`."""
        frames = batch.layout.frames
        if frames is None:
            memory, lengths = self.encode(batch.speech, batch.speech_lengths)
            memory, between = memory if isinstance(memory, tuple) else (memory, [])
            between = [hidden for _, hidden in between]
            is_frame = mask_of_lengths(lengths, memory.size(1))
            n_frames = lengths.tolist()
        else:
            speech = batch.speech[:, : max(batch.layout.n_samples)]
            feats = features.features(self, speech, frames.is_padding)
            memory, between = self._encoder(feats, frames.is_frame)
            is_frame, n_frames = frames.is_frame, frames.n
        return Encoded(memory, is_frame, n_frames, between)

    def _encoder(
        self, feats: torch.Tensor, is_frame: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What ESPnet's encoder says, and between layers, where frames are known.

        ESPnet's follows a mask through the strides of its convolutions.
        """
        encoder = self.encoder
        mask, between = is_frame[:, None], []
        x, _ = _run(0, encoder.embed, encoder, feats, None)
        for number, layer in enumerate(encoder.encoders, 1):
            if self.training and float(torch.rand(1)) < encoder.layer_drop_rate:
                continue
            x, _ = _run(number, layer, encoder, x, mask)
            if number in encoder.interctc_layer_idx:
                hidden, *positions = x if isinstance(x, tuple) else (x,)
                between.append(hidden)
                if encoder.interctc_use_conditioning:
                    said = self.ctc.softmax(hidden)
                    hidden = hidden + encoder.conditioning_layer(said)
                    x = (hidden, *positions) if positions else hidden
        x = x[0] if isinstance(x, tuple) else x
        return encoder.after_norm(x), between

    def losses(
        self, batch: Batch, encoded: Encoded
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """What `forward` returns, of a batch that is encoded."""
        stats: dict[str, torch.Tensor] = {}
        if self.ctc_weight != 0.0:
            loss = self._ctc_losses(encoded, batch.layout, stats)
        if self.ctc_weight != 1.0:
            loss_att = self._attention_loss(encoded, batch.layout, stats)
            share = self.ctc_weight
            loss = torch.lerp(loss_att, loss, share) if share != 0.0 else loss_att
        if "loss_guide" in stats:
            loss = loss + self.guided_attention_weight * stats["loss_guide"]
        stats["loss"] = loss
        stats = {k: v.detach() for k, v in stats.items()}
        return force_gatherable((loss, stats, batch.layout.n_examples), loss.device)

    @property
    def stat_names(self) -> list[str]:
        """Every statistic that a batch may have."""
        names = ["loss", "loss_ctc", "loss_interctc", "loss_att", "loss_guide", "acc"]
        return names + [
            f"{kind}_{t}" for t in self._task_ids for kind in ("loss", "acc")
        ]

    def stat_weights(self, stats: Iterable[str], text: torch.Tensor) -> dict[str, int]:
        """How many of the examples `text` (E, tokens) each statistic speaks for.

        All, or those of the task that its name ends in; of an accuracy their tokens.
        """
        n_tokens = (text != self.ignore_id).sum(1) + 1  # <eos>
        weights = {}
        for key in stats:
            kind, _, task = key.partition("_")
            rows = text[:, 1] == self._task_ids[task] if task in self._task_ids else ...
            n = n_tokens[rows]
            weights[key] = int(n.sum()) if kind == "acc" else len(n)
        return weights

    # ------------------------------------------------------------------- CTC

    def _ctc_losses(
        self, encoded: Encoded, layout: Layout, stats: dict
    ) -> torch.Tensor:
        """CTC loss of the last layer, and of those between where ESPnet's asks."""
        loss = self._ctc_loss(encoded.memory, encoded, layout)
        stats["loss_ctc"] = loss.detach()
        if self.interctc_weight != 0.0 and encoded.between:
            inter = [self._ctc_loss(x, encoded, layout) for x in encoded.between]
            loss_inter = sum(inter) / len(inter)
            stats["loss_interctc"] = loss_inter.detach()
            share = self.interctc_weight
            loss = (1 - share) * loss + share * loss_inter
        return loss

    def _ctc_loss(
        self, hidden: torch.Tensor, encoded: Encoded, layout: Layout
    ) -> torch.Tensor:
        """CTC loss, each target counted once per example, as four rows would be."""
        targets, is_frame = layout.ctc_targets, encoded.is_frame
        if targets is None:
            return hidden.sum() * 0.0
        if (audio := layout.ctc_audio) is not None:
            hidden, is_frame = (x.index_select(0, audio) for x in (hidden, is_frame))
        lengths = [encoded.n_frames[u] for u in layout.ctc_recordings]
        hidden = F.dropout(hidden, p=self.ctc.dropout_rate)
        head, loss = self.ctc.ctc_lo, self.ctc.ctc_loss
        if isinstance(loss, torch.nn.CTCLoss):
            frames = (is_frame, lengths)
            return ctc_loss(hidden, head, targets, *frames, layout.ctc_share, loss)
        logits = head.compact(hidden) if isinstance(head, PhoneLinear) else head(hidden)
        log_probs = _at_least_float32(logits.transpose(0, 1).log_softmax(2))
        # on the CPU, where PyTorch wants to read them
        sizes = torch.tensor(lengths), torch.tensor(targets.n_labels)
        losses = loss(log_probs, targets.labels(), *sizes)
        return (losses * layout.ctc_share).sum()

    # --------------------------------------------------------------- attention

    def _attention_loss(
        self, encoded: Encoded, layout: Layout, stats: dict
    ) -> torch.Tensor:
        n_examples = len(layout.tokens)
        hidden = self._decode(encoded, layout)
        total, losses, is_best = smoothed_cross_entropy(
            hidden,
            self.decoder.output_layer,
            layout.target,
            self.criterion_att.smoothing,
        )
        self._count(losses, is_best, layout, stats)
        by_token = self.criterion_att.normalize_length
        loss = total / (layout.target.numel() if by_token else n_examples)
        stats["loss_att"] = loss.detach()
        if self.guided_attention_weight > 0 and self.training:
            # where a token is in its text: after <sos> and three prompt symbols
            begin = layout.starts + 3
            n_text = (layout.lengths - begin).clamp(min=1)
            width = layout.tokens.size(1)
            row, column = layout.packed // width, layout.packed % width
            # below 0 where a place is left over, too: it has a first token
            place = (column - begin[row] + 0.5) / n_text[row]
            guide = self._guide(place, encoded.lengths) * (place > 0)
            stats["loss_guide"] = guide.sum() / n_examples
        return loss

    def _count(
        self,
        losses: torch.Tensor,
        is_best: torch.Tensor,
        layout: Layout,
        stats: dict,
    ) -> None:
        """Loss of an example, and accuracy of a token, over all and by task."""
        each = torch.stack([losses, is_best.to(losses)], 1)
        sums = each.new_zeros(layout.task_sizes.shape)
        means = sums.index_add_(0, layout.task, each) / layout.task_sizes
        for name, number in layout.tasks.items():
            stats[f"loss_{name}"], stats[f"acc_{name}"] = means[number]
        stats["acc"] = each[:, 1].mean()

    def _decode(self, encoded: Encoded, layout: Layout) -> torch.Tensor:
        """Hidden states (K, D) of the tokens that teach, before the output layer.

        ESPnet's own layers on packed rows; a token's position is that in its row.
        """
        decoder = self.decoder
        memory = encoded.memory
        # once for the keys and values of all layers
        memory = memory.to(precision_of(memory))
        state = (mask_of_rows(layout.owner), memory, encoded.is_frame[:, None])
        rows = decoder.embed(layout.tokens).flatten(0, 1)
        x = rows.index_select(0, layout.packed.flatten())
        x = x.view(*layout.packed.shape, -1)
        for number, layer in enumerate(decoder.decoders, 1):
            x = _run(number, layer, decoder, x, *state)[0]
        hidden = x.flatten(0, 1).index_select(0, layout.learned)
        return decoder.after_norm(hidden) if decoder.normalize_before else hidden

    def _guide(self, place: torch.Tensor, memory_lens: torch.Tensor) -> torch.Tensor:
        """Cross-attention mass off the diagonal, per packed token, mean over layers.

        Args:
            place: (U, W) where each token is in its text, 0 to 1.
            memory_lens: (U,) encoder frames.

        Returns:
            (U, W), each between 0 and 1.
        """
        layers = [layer.src_attn.attn for layer in self.decoder.decoders]
        time = torch.arange(layers[0].size(-1), device=place.device) + 0.5
        distance = place[:, :, None] - (time / memory_lens[:, None])[:, None, :]
        penalty = 1 - torch.exp(-((distance / GUIDE_WIDTH) ** 2) / 2)
        return sum((a.mean(1) * penalty).sum(-1) for a in layers) / len(layers)
