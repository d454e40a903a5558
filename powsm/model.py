"""The S2T model that encodes each recording once for all its task examples.

The published recipe stores an utterance as four rows (pr, asr, g2p, p2g) with the
same audio and the same CTC target, so three of four encoder passes repeat the
fourth. Here the encoder and the CTC head run once per recording and the decoder
runs on every example; loss and gradients equal ESPnet's on the four rows
(tests/test_model.py), and the parameters carry ESPnet's names, so weights move
between `model: espnet` and `model: powsm` both ways.
"""

import torch
import torch.nn.functional as F
from espnet2.legacy.nets.pytorch_backend.transformer.attention import (
    MultiHeadedAttention,
)
from espnet2.s2t.espnet_model import ESPnetS2TModel
from espnet2.tasks.s2t import S2TTask, model_choices
from espnet2.torch_utils.device_funcs import force_gatherable

from powsm.tasks import TASKS


class SharedMemoryAttention(MultiHeadedAttention):
    """Cross-attention of several target rows to one memory row.

    Each recording's rows are laid end to end as one longer query, so its keys and
    values are projected and held once. Queries do not see one another, so the
    result is that of repeating the memory.
    """

    def forward(self, query, key, value, mask, expand_kv=False):
        """Attend from (U x K, L, D) queries to (U, T, D) keys; K rows each."""
        rows, length, size = query.shape
        query = query.reshape(key.size(0), -1, size)
        out = super().forward(query, key, value, mask, expand_kv)
        return out.view(rows, length, size)


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
    logits = logits.float()
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
        **kwargs: those of `ESPnetS2TModel`.
    """

    def __init__(
        self,
        *args,
        task_weights: dict | None = None,
        guided_attention_weight: float = 0.0,
        guided_attention_width: float = 0.2,
        **kwargs,
    ):
        kwargs.setdefault("report_cer", False)
        kwargs.setdefault("report_wer", False)
        super().__init__(*args, **kwargs)
        unknown = set(task_weights or {}) - set(TASKS)
        if unknown:
            raise ValueError(
                f"task_weights names {sorted(unknown)}; the tasks are {list(TASKS)}"
            )
        self.task_weights = {task: 1.0 for task in TASKS} | dict(task_weights or {})
        self.guided_attention_weight = guided_attention_weight
        self.guided_attention_width = guided_attention_width
        self._task_ids = {
            task: self.token_list.index(f"<{task}>")
            for task in TASKS
            if f"<{task}>" in self.token_list
        }
        for layer in self.decoder.decoders if self.decoder is not None else ():
            # same parameters, another forward: weights stay interchangeable
            layer.src_attn.__class__ = SharedMemoryAttention
            if guided_attention_weight > 0:
                layer.src_attn.use_sdpa = False  # the penalty reads the weights

    def forward(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        text_prev: torch.Tensor,
        text_prev_lengths: torch.Tensor,
        text_ctc: torch.Tensor,
        text_ctc_lengths: torch.Tensor,
        example_audio: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Loss of U recordings with E examples.

        Args:
            speech: (U, samples), `speech_lengths` (U,).
            text: (E, tokens) with -1 as padding: language, task, time, words or phones.
            text_prev: (E, tokens): the prompt, or the `<na>` token.
            text_ctc: (U, tokens): the phones, the same for all examples.
            example_audio: (E,) rising row numbers of `speech`; None means one example
                a recording, ESPnet's own layout.

        Returns:
            Loss averaged over the E examples, statistics, and E as the weight.
        """
        if example_audio is None:
            example_audio = torch.arange(speech.size(0), device=speech.device)
        n_examples = text.size(0)
        counts = torch.bincount(example_audio, minlength=speech.size(0))
        memory, memory_lens = self.encode(speech, speech_lengths)
        intermediate = []
        if isinstance(memory, tuple):
            memory, intermediate = memory

        stats: dict[str, torch.Tensor | None] = {}
        loss_ctc = loss_att = None
        if self.ctc_weight != 0.0:
            ctc = (memory_lens, text_ctc, text_ctc_lengths, counts)
            loss_ctc = self._ctc_loss(memory, *ctc)
            stats["loss_ctc"] = loss_ctc.detach()
            if self.interctc_weight != 0.0 and intermediate:
                inter = [self._ctc_loss(hidden, *ctc) for _, hidden in intermediate]
                loss_inter = sum(inter) / len(inter)
                stats["loss_interctc"] = loss_inter.detach()
                loss_ctc = (
                    1 - self.interctc_weight
                ) * loss_ctc + self.interctc_weight * loss_inter
        if self.ctc_weight != 1.0:
            loss_att = self._attention_loss(
                memory,
                memory_lens,
                (text, text_lengths),
                (text_prev, text_prev_lengths),
                example_audio,
                counts,
                stats,
            )
        if loss_att is None:
            loss = loss_ctc
        elif loss_ctc is None:
            loss = loss_att
        else:
            loss = self.ctc_weight * loss_ctc + (1 - self.ctc_weight) * loss_att
        if "loss_guide" in stats:
            loss = loss + self.guided_attention_weight * stats["loss_guide"]
        stats["loss"] = loss
        stats = {k: v.detach() for k, v in stats.items()}
        return force_gatherable((loss, stats, n_examples), loss.device)

    # ------------------------------------------------------------------- CTC

    def _ctc_loss(
        self,
        hidden: torch.Tensor,
        lengths: torch.Tensor,
        target: torch.Tensor,
        target_lengths: torch.Tensor,
        counts: torch.Tensor,
    ) -> torch.Tensor:
        """CTC loss, each recording counted once per example, as four rows would be."""
        valid = (target != self.na).all(1) & (counts > 0)
        if not valid.any():
            return hidden.sum() * 0.0
        hidden, lengths, target, target_lengths, counts = (
            x[valid] for x in (hidden, lengths, target, target_lengths, counts)
        )
        logits = self.ctc.ctc_lo(F.dropout(hidden, p=self.ctc.dropout_rate))
        labels = target[target != self.ignore_id]
        log_probs = logits.transpose(0, 1).log_softmax(2).float()
        losses = self.ctc.ctc_loss(log_probs, labels, lengths, target_lengths)
        return (losses * counts).sum() / counts.sum()

    # --------------------------------------------------------------- attention

    def _decoder_rows(
        self,
        text: tuple[torch.Tensor, torch.Tensor],
        prev: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decoder input and output: `[<sop> prev] <sos> text` and `text <eos>`.

        Returns:
            Input (E, L), its lengths (E,), output (E, L) with -1 where nothing is
            learned, and the position of `<sos>` in each row (E,).
        """
        (text, text_lens), (prev, prev_lens) = text, prev
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
        text: tuple[torch.Tensor, torch.Tensor],
        prev: tuple[torch.Tensor, torch.Tensor],
        example_audio: torch.Tensor,
        counts: torch.Tensor,
        stats: dict,
    ) -> torch.Tensor:
        ys_in, ys_lens, ys_out, start = self._decoder_rows(text, prev)
        n_examples, per_audio = ys_in.size(0), int(counts.max())
        # lay the rows out as (U x K): a recording with fewer examples gets empty rows
        first = counts.cumsum(0) - counts
        slot = example_audio * per_audio + (
            torch.arange(n_examples, device=ys_in.device) - first[example_audio]
        )
        n_rows = memory.size(0) * per_audio
        rows_in = ys_in.new_full((n_rows, ys_in.size(1)), self.eos)
        rows_lens = ys_lens.new_ones(n_rows)
        rows_in[slot], rows_lens[slot] = ys_in, ys_lens

        hidden = self._decode(memory, memory_lens, rows_in, rows_lens)[slot]
        learned = ys_out != self.ignore_id
        logits = self.decoder.output_layer(hidden[learned])
        target = ys_out[learned]
        row = torch.nonzero(learned, as_tuple=True)[0]
        losses = smoothed_cross_entropy(logits, target, self.criterion_att.smoothing)
        per_example = losses.new_zeros(n_examples).index_add(0, row, losses)
        correct = (logits.argmax(-1) == target).float()

        task = text[0][:, 1]
        weight = per_example.new_ones(n_examples)
        for name, token in self._task_ids.items():
            mine = task == token
            if mine.any():
                weight = torch.where(mine, self.task_weights[name], weight)
                stats[f"loss_{name}"] = per_example[mine].mean()
                stats[f"acc_{name}"] = correct[mine[row]].mean()
        stats["acc"] = correct.mean()
        total = (weight * per_example).sum()
        if self.criterion_att.normalize_length:
            loss = total / learned.sum()
        else:
            loss = total / n_examples
        stats["loss_att"] = loss.detach()
        if self.guided_attention_weight > 0 and self.training:
            stats["loss_guide"] = self._guide(
                slot, per_audio, start, ys_lens, memory_lens
            )
        return loss

    def _decode(
        self,
        memory: torch.Tensor,
        memory_lens: torch.Tensor,
        ys_in: torch.Tensor,
        ys_lens: torch.Tensor,
    ) -> torch.Tensor:
        """Last decoder hidden states (U x K, L, D); the output layer comes later."""
        output_layer, self.decoder.output_layer = self.decoder.output_layer, None
        try:
            return self.decoder(memory, memory_lens, ys_in, ys_lens)[0]
        finally:
            self.decoder.output_layer = output_layer

    def _guide(
        self,
        slot: torch.Tensor,
        per_audio: int,
        start: torch.Tensor,
        ys_lens: torch.Tensor,
        memory_lens: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-attention mass off the diagonal: sum over text tokens, mean over rows.

        It is on the scale of the attention loss, which is a sum over tokens too.
        """
        layers = [layer.src_attn.attn for layer in self.decoder.decoders]
        n_audio, heads, _, frames = layers[0].shape
        width = layers[0].size(2) // per_audio
        # position within the text proper: after <sos> and the three prompt symbols
        begin = (start + 3)[:, None]
        position = torch.arange(width, device=slot.device)[None]
        n_text = (ys_lens[:, None] - begin).clamp(min=1)
        place = (position - begin + 0.5) / n_text
        is_text = (position >= begin) & (position < ys_lens[:, None])
        time = torch.arange(frames, device=slot.device) + 0.5
        lens = memory_lens[slot // per_audio]
        time = time[None] / lens[:, None]
        distance = place[:, :, None] - time[:, None, :]
        penalty = 1 - torch.exp(-((distance / self.guided_attention_width) ** 2) / 2)
        total = 0.0
        for attention in layers:
            rows = attention.view(n_audio, heads, per_audio, width, frames)
            rows = rows.transpose(1, 2).reshape(-1, heads, width, frames)[slot].mean(1)
            total = total + ((rows * penalty).sum(-1) * is_text).sum()
        return total / (slot.numel() * len(layers))


model_choices.classes.setdefault("powsm", PowsmModel)


class PowsmTask(S2TTask):
    """ESPnet's S2T task; `model: powsm` is registered when this module is imported."""
