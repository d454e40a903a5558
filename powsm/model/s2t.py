"""The S2T model that encodes each recording once for all its task examples.

The published recipe stores an utterance as four rows (pr, asr, g2p, p2g) with the
same audio and the same CTC target, so three of four encoder passes repeat the
fourth. Here the encoder and the CTC head run once per recording and the decoder
runs on every example; loss and gradients equal ESPnet's on the four rows
(tests/model/test_s2t.py), and the parameters carry ESPnet's names, so weights move
between `model: espnet` and `model: powsm` both ways.
"""

from collections.abc import Iterable
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
from powsm.model.layout import Layout, LayoutMaker
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


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision made whole; float64 stays, so that tests can be exact."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Encoded(NamedTuple):
    """Encoder output of U recordings.

    Attributes:
        memory: (U, T, D).
        lengths: (U,) frames of each recording, on the device of `memory`.
        n_frames: the same as numbers.
        between: (U, T, D) outputs of the layers that have a CTC loss of their own.
    """

    memory: torch.Tensor
    lengths: torch.Tensor
    n_frames: list[int]
    between: list[torch.Tensor]


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
        if ctc_vocab not in ("all", "phones"):
            raise PowsmError(f"ctc_vocab is {ctc_vocab!r}, expected all or phones")
        if ctc_vocab == "phones" and self.ctc is not None:
            size = self.ctc.ctc_lo.in_features
            self.ctc.ctc_lo = PhoneLinear(size, self.token_list)
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
        n_samples = batch.layout.n_samples
        if not self._knows_features:
            memory, lengths = self.encode(batch.speech, batch.speech_lengths)
            n_frames = lengths.tolist()
        else:
            feats, is_padding = features.features(self, batch.speech, n_samples)
            ctc = self.ctc if self.encoder.interctc_use_conditioning else None
            memory, lengths, _ = self.encoder(
                feats, batch.speech_lengths, masks=is_padding, ctc=ctc
            )
            n_frames = features.n_frames(self, n_samples)
        memory, between = memory if isinstance(memory, tuple) else (memory, [])
        return Encoded(memory, lengths, n_frames, [hidden for _, hidden in between])

    def losses(
        self, batch: Batch, encoded: Encoded
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """What `forward` returns, of a batch that is encoded."""
        stats: dict[str, torch.Tensor] = {}
        loss = 0.0
        if self.ctc_weight != 0.0:
            loss_ctc = self._ctc_losses(encoded, batch.layout, stats)
            loss = self.ctc_weight * loss_ctc
        if self.ctc_weight != 1.0:
            loss_att = self._attention_loss(encoded, batch.layout, stats)
            loss = loss + (1 - self.ctc_weight) * loss_att
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
        loss = self._ctc_loss(encoded.memory, encoded.n_frames, layout)
        stats["loss_ctc"] = loss.detach()
        if self.interctc_weight != 0.0 and encoded.between:
            inter = [
                self._ctc_loss(hidden, encoded.n_frames, layout)
                for hidden in encoded.between
            ]
            loss_inter = sum(inter) / len(inter)
            stats["loss_interctc"] = loss_inter.detach()
            share = self.interctc_weight
            loss = (1 - share) * loss + share * loss_inter
        return loss

    def _ctc_loss(
        self, hidden: torch.Tensor, n_frames: list[int], layout: Layout
    ) -> torch.Tensor:
        """CTC loss, each target counted once per example, as four rows would be."""
        if not layout.ctc_recordings:
            return hidden.sum() * 0.0
        if layout.ctc_audio is not None:
            hidden = hidden.index_select(0, layout.ctc_audio)
        lengths = [n_frames[u] for u in layout.ctc_recordings]
        hidden = F.dropout(hidden, p=self.ctc.dropout_rate)
        labels = layout.ctc_labels
        head, loss = self.ctc.ctc_lo, self.ctc.ctc_loss
        if isinstance(head, PhoneLinear):
            labels = head.columns.rows(labels)
        if isinstance(loss, torch.nn.CTCLoss):
            sizes = (lengths, layout.ctc_lengths)
            total = ctc_loss(hidden, head, labels, *sizes, layout.ctc_counts, loss)
            return total / layout.n_counted
        logits = head.compact(hidden) if isinstance(head, PhoneLinear) else head(hidden)
        log_probs = _at_least_float32(logits.transpose(0, 1).log_softmax(2))
        # on the CPU, where PyTorch wants to read them
        sizes = torch.tensor(lengths), torch.tensor(layout.ctc_lengths)
        losses = loss(log_probs, labels, *sizes)
        return (losses * layout.ctc_counts).sum() / layout.n_counted

    # --------------------------------------------------------------- attention

    def _attention_loss(
        self, encoded: Encoded, layout: Layout, stats: dict
    ) -> torch.Tensor:
        n_examples = layout.task.numel()
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
            row, column = layout.places // width, layout.places % width
            place = (column - begin[row] + 0.5) / n_text[row]
            pack = layout.packing.pack
            guide = self._guide(pack(place), encoded.lengths)
            guide = guide * pack((place > 0).float())
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
        task = layout.task[layout.example]
        sums = torch.stack([losses, is_best.to(losses), torch.ones_like(losses)], 1)
        sums = sums.new_zeros(len(self._task_ids) + 1, 3).index_add(0, task, sums)
        for number, name in enumerate(self._task_ids):
            if n := layout.n_tasks.get(name):
                stats[f"loss_{name}"] = sums[number, 0] / n
                stats[f"acc_{name}"] = sums[number, 1] / sums[number, 2]
        stats["acc"] = is_best.to(losses).mean()

    def _decode(self, encoded: Encoded, layout: Layout) -> torch.Tensor:
        """Hidden states (K, D) of the tokens that teach, before the output layer.

        ESPnet's own layers on packed rows; a token's position is that in its row.
        """
        decoder = self.decoder
        memory = encoded.memory
        # once for the keys and values of all layers
        memory = memory.to(precision_of(memory))
        frames = torch.arange(memory.size(1), device=memory.device)
        memory_mask = (frames < encoded.lengths[:, None])[:, None, :]
        packing, mask = layout.packing, layout.packing.mask
        rows = decoder.embed(layout.tokens).flatten(0, 1)
        x = packing.pack(rows.index_select(0, layout.places))
        for number, layer in enumerate(decoder.decoders, 1):
            state = (x, mask, memory, memory_mask)
            if number in decoder.gradient_checkpoint_layers:
                x = checkpoint(layer, *state, use_reentrant=False)[0]
            else:
                x = layer(*state)[0]
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
