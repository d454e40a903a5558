"""The S2T model that encodes each recording once for all its task examples.

The published recipe stores an utterance as four rows (pr, asr, g2p, p2g) with the
same audio and the same CTC target, so three of four encoder passes repeat the
fourth. Here the encoder and the CTC head run once per recording and the decoder
runs on every example; loss and gradients equal ESPnet's on the four rows
(tests/model/test_s2t.py), and the parameters carry ESPnet's names, so weights move
between `model: espnet` and `model: powsm` both ways.
"""

from collections.abc import Iterable
from functools import cache

import torch
import torch.nn.functional as F
from espnet2.s2t.espnet_model import ESPnetS2TModel
from espnet2.torch_utils.device_funcs import force_gatherable
from torch.utils.checkpoint import checkpoint

from powsm.errors import PowsmError
from powsm.model.batch import Batch
from powsm.model.packing import Packing
from powsm.model.phone_ctc import PhoneLinear
from powsm.tasks import TASKS


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision made whole; float64 stays, so that tests can be exact."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def smoothed_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """ESPnet's label-smoothing loss of each token, without its (N, V) target table.

    Args:
        logits: (N, V) scores before the softmax.
        target: (N,) token ids.
        smoothing: mass spread evenly over the V - 1 other tokens.

    Returns:
        (N,) KL divergence from the smoothed target, as `LabelSmoothingLoss`.
    """
    vocab = logits.size(-1)
    logits = _at_least_float32(logits)
    log_z = logits.logsumexp(-1)
    log_target = logits.gather(1, target.unsqueeze(1)).squeeze(1) - log_z
    if smoothing == 0.0:
        return -log_target
    other = smoothing / (vocab - 1)
    log_all = logits.sum(-1) - vocab * log_z
    confidence = 1.0 - smoothing
    entropy = confidence * torch.tensor(confidence).log() + smoothing * (
        torch.tensor(other).log()
    )
    return entropy - (confidence - other) * log_target - other * log_all


class PowsmModel(ESPnetS2TModel):
    """ESPnet's S2T model over unique recordings and their examples.

    Args:
        task_weights: factor of a task's examples in the attention loss; a task that
            is not named has 1.
        guided_attention_weight: weight of a penalty on cross-attention far from the
            diagonal, in every decoder layer; helps small corpora to find the alignment
            (Tachibana et al., ICASSP 2018). 0 is off.
        guided_attention_width: tolerated distance from the diagonal, as a share of
            the utterance.
        share_encoder: False encodes a recording again for each of its examples, as
            the published recipe does: the same loss and gradients at several times
            the cost, for comparison.
        ctc_weight_range: draw the CTC weight of every batch evenly from between
            these two; the trainer does, from a counter.
        ctc_vocab: `all` tokens, or `phones`: see `powsm.model.phone_ctc`.
        **kwargs: those of `ESPnetS2TModel`.
    """

    def __init__(
        self,
        *args,
        task_weights: dict | None = None,
        guided_attention_weight: float = 0.0,
        guided_attention_width: float = 0.2,
        share_encoder: bool = True,
        ctc_weight_range: tuple[float, float] | None = None,
        ctc_vocab: str = "all",
        **kwargs,
    ):
        kwargs.setdefault("report_cer", False)
        kwargs.setdefault("report_wer", False)
        super().__init__(*args, **kwargs)
        unknown = set(task_weights or {}) - set(TASKS)
        if unknown:
            raise PowsmError(
                f"task_weights names {sorted(unknown)}; the tasks are {list(TASKS)}"
            )
        self.task_weights = {task: 1.0 for task in TASKS} | dict(task_weights or {})
        self.guided_attention_weight = guided_attention_weight
        self.guided_attention_width = guided_attention_width
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
        self._task_ids = {
            task: self.token_list.index(f"<{task}>")
            for task in TASKS
            if f"<{task}>" in self.token_list
        }
        for layer in self.decoder.decoders if self.decoder is not None else ():
            # flash-attn's kernel knows the causal mask only, not one of packed rows
            if layer.self_attn.use_flash_attn:
                layer.self_attn.use_sdpa = True
            if guided_attention_weight > 0:
                layer.src_attn.use_sdpa = False  # the penalty reads the weights

    def forward(
        self, speech: torch.Tensor, **tensors: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Loss of U recordings with E examples.

        Args:
            speech, tensors: those of a `powsm.model.batch.Batch`, which tells their
                shapes; ESPnet's own layout, a row an example, is one of them.

        Returns:
            Loss averaged over the E examples, statistics, and E as the weight.
        """
        batch = Batch.of({"speech": speech} | tensors)
        if not self.share_encoder:
            batch = batch.row_for_each_example()
        memory, memory_lens = self.encode(batch.speech, batch.speech_lengths)
        intermediate = []
        if isinstance(memory, tuple):
            memory, intermediate = memory

        stats: dict[str, torch.Tensor] = {}
        loss = 0.0
        if self.ctc_weight != 0.0:
            loss_ctc = self._ctc_losses(memory, memory_lens, intermediate, batch, stats)
            loss = self.ctc_weight * loss_ctc
        if self.ctc_weight != 1.0:
            loss_att = self._attention_loss(memory, memory_lens, batch, stats)
            loss = loss + (1 - self.ctc_weight) * loss_att
        if "loss_guide" in stats:
            loss = loss + self.guided_attention_weight * stats["loss_guide"]
        stats["loss"] = loss
        stats = {k: v.detach() for k, v in stats.items()}
        return force_gatherable((loss, stats, batch.n_examples), loss.device)

    @property
    def stat_names(self) -> list[str]:
        """Every statistic that a batch may have."""
        names = ["loss", "loss_ctc", "loss_interctc", "loss_att", "loss_guide", "acc"]
        return names + [
            f"{kind}_{t}" for t in self._task_ids for kind in ("loss", "acc")
        ]

    def stat_weights(self, stats: Iterable[str], text: torch.Tensor) -> dict[str, int]:
        """How many of the examples `text` (E, tokens) each statistic speaks for.

        All of them, but those of a task where its name ends in one, as `loss_g2p` does.
        """
        counts = {
            task: int((text[:, 1] == token).sum())
            for task, token in self._task_ids.items()
        }
        return {key: counts.get(key.rpartition("_")[2], len(text)) for key in stats}

    # ------------------------------------------------------------------- CTC

    def _ctc_losses(
        self,
        memory: torch.Tensor,
        memory_lens: torch.Tensor,
        intermediate: list[tuple[int, torch.Tensor]],
        batch: Batch,
        stats: dict,
    ) -> torch.Tensor:
        """CTC loss of the last layer, and of those between where ESPnet's asks."""
        counts = torch.bincount(batch.ctc_rows, minlength=batch.text_ctc.size(0))
        audio = torch.zeros_like(counts)
        audio[batch.ctc_rows] = batch.example_audio
        ctc = (memory_lens, batch.text_ctc, batch.text_ctc_lengths, counts, audio)
        loss = self._ctc_loss(memory, *ctc)
        stats["loss_ctc"] = loss.detach()
        if self.interctc_weight != 0.0 and intermediate:
            inter = [self._ctc_loss(hidden, *ctc) for _, hidden in intermediate]
            loss_inter = sum(inter) / len(inter)
            stats["loss_interctc"] = loss_inter.detach()
            share = self.interctc_weight
            loss = (1 - share) * loss + share * loss_inter
        return loss

    def _ctc_loss(
        self,
        hidden: torch.Tensor,
        lengths: torch.Tensor,
        target: torch.Tensor,
        target_lengths: torch.Tensor,
        counts: torch.Tensor,
        audio: torch.Tensor,
    ) -> torch.Tensor:
        """CTC loss, each target counted once per example, as four rows would be.

        Target m of `target` (M, L) is heard in row `audio[m]` of `hidden`.
        """
        valid = (target != self.na).all(1) & (counts > 0)
        if not valid.any():
            return hidden.sum() * 0.0
        target, target_lengths, counts, audio = (
            x[valid] for x in (target, target_lengths, counts, audio)
        )
        hidden, lengths = hidden[audio], lengths[audio]
        hidden = F.dropout(hidden, p=self.ctc.dropout_rate)
        labels = target[target != self.ignore_id]
        head = self.ctc.ctc_lo
        if isinstance(head, PhoneLinear):
            logits, labels = head.compact(hidden), head.rows(labels)
        else:
            logits = head(hidden)
        log_probs = _at_least_float32(logits.transpose(0, 1).log_softmax(2))
        losses = self.ctc.ctc_loss(log_probs, labels, lengths, target_lengths)
        return (losses * counts).sum() / counts.sum()

    # --------------------------------------------------------------- attention

    def _decoder_rows(
        self, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decoder input and output: `[<sop> prev] <sos> text` and `text <eos>`.

        Returns:
            Input (E, L), its lengths (E,), output (E, L) with -1 where nothing is
            learned, and the position of `<sos>` in each row (E,).
        """
        text, text_lens = batch.text, batch.text_lengths
        prev, prev_lens = batch.text_prev, batch.text_prev_lengths
        has_prev = (prev != self.na).all(1)
        start = torch.where(has_prev, prev_lens + 1, 0)
        lens = start + text_lens + 1
        width = int(lens.max())
        rows = torch.arange(text.size(0), device=text.device)
        ys_in = text.new_full((text.size(0), width), self.eos)
        ys_out = text.new_full((text.size(0), width), self.ignore_id)
        ys_in[has_prev, 0] = self.sop
        ys_in[rows, start] = self.sos
        mask = torch.arange(prev.size(1), device=text.device) < prev_lens[:, None]
        row, column = torch.nonzero(mask & has_prev[:, None], as_tuple=True)
        ys_in[row, column + 1] = prev[row, column]
        mask = torch.arange(text.size(1), device=text.device) < text_lens[:, None]
        row, column = torch.nonzero(mask, as_tuple=True)
        ys_in[row, start[row] + 1 + column] = text[row, column]
        ys_out[row, start[row] + column] = text[row, column]
        ys_out[rows, start + text_lens] = self.eos
        return ys_in, lens, ys_out, start

    def _attention_loss(
        self,
        memory: torch.Tensor,
        memory_lens: torch.Tensor,
        batch: Batch,
        stats: dict,
    ) -> torch.Tensor:
        ys_in, ys_lens, ys_out, start = self._decoder_rows(batch)
        n_examples = ys_in.size(0)
        packing = Packing.of(ys_lens, batch.example_audio, memory.size(0))
        row, column = torch.nonzero(packing.is_token, as_tuple=True)
        hidden = self._decode(memory, memory_lens, ys_in, packing)
        target = ys_out[row, column]
        learned = target != self.ignore_id
        logits = self.decoder.output_layer(hidden[learned])
        target = target[learned]
        losses = smoothed_cross_entropy(logits, target, self.criterion_att.smoothing)
        example = row[learned]
        per_example = losses.new_zeros(n_examples).index_add(0, example, losses)
        correct = (logits.argmax(-1) == target).float()

        task = batch.text[:, 1]
        weight = per_example.new_ones(n_examples)
        for name, token in self._task_ids.items():
            mine = task == token
            if mine.any():
                weight = torch.where(mine, self.task_weights[name], weight)
                stats[f"loss_{name}"] = per_example[mine].mean()
                stats[f"acc_{name}"] = correct[mine[example]].mean()
        stats["acc"] = correct.mean()
        total = (weight * per_example).sum()
        if self.criterion_att.normalize_length:
            loss = total / target.numel()
        else:
            loss = total / n_examples
        stats["loss_att"] = loss.detach()
        if self.guided_attention_weight > 0 and self.training:
            # where a token stands in its text: after <sos> and three prompt symbols
            begin = start + 3
            n_text = (ys_lens - begin).clamp(min=1)
            place = (column - begin[row] + 0.5) / n_text[row]
            guide = self._guide(packing.pack(place), memory_lens) * packing.pack(
                (place > 0).float()
            )
            stats["loss_guide"] = guide.sum() / n_examples
        return loss

    def _decode(
        self,
        memory: torch.Tensor,
        memory_lens: torch.Tensor,
        ys_in: torch.Tensor,
        packing: Packing,
    ) -> torch.Tensor:
        """Hidden states (N, D) of the N tokens before the output layer.

        ESPnet's own layers on packed rows; a token's position is that in its row.
        """
        decoder = self.decoder
        frames = torch.arange(memory.size(1), device=memory.device)
        memory_mask = (frames < memory_lens[:, None])[:, None, :]
        x = packing.pack(decoder.embed(ys_in)[packing.is_token])
        for number, layer in enumerate(decoder.decoders, 1):
            state = (x, packing.mask, memory, memory_mask)
            if number in decoder.gradient_checkpoint_layers:
                x = checkpoint(layer, *state, use_reentrant=False)[0]
            else:
                x = layer(*state)[0]
        hidden = packing.unpack(x)
        return decoder.after_norm(hidden) if decoder.normalize_before else hidden

    def _guide(self, place: torch.Tensor, memory_lens: torch.Tensor) -> torch.Tensor:
        """Cross-attention mass off the diagonal, per packed token, mean over layers.

        Args:
            place: (U, W) where each token stands in its text, 0 to 1.
            memory_lens: (U,) encoder frames.

        Returns:
            (U, W), each between 0 and 1.
        """
        layers = [layer.src_attn.attn for layer in self.decoder.decoders]
        time = torch.arange(layers[0].size(-1), device=place.device) + 0.5
        distance = place[:, :, None] - (time / memory_lens[:, None])[:, None, :]
        penalty = 1 - torch.exp(-((distance / self.guided_attention_width) ** 2) / 2)
        return sum((a.mean(1) * penalty).sum(-1) for a in layers) / len(layers)


def __getattr__(name: str) -> type:
    """`PowsmTask`, made when asked for: its import takes 5 CPU-seconds.

    Training needs it; a model that is only used is built by `powsm.model.build`.
    """
    if name == "PowsmTask":
        return _task()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _task() -> type:
    from espnet2.tasks.s2t import S2TTask, model_choices

    class PowsmTask(S2TTask):
        """ESPnet's S2T task, which knows `model: powsm`."""

    model_choices.classes.setdefault("powsm", PowsmModel)
    PowsmTask.__qualname__ = "PowsmTask"
    return PowsmTask
