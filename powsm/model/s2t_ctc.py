"""The encoder-only model (POWSM-CTC) over unique recordings and their examples.

Language and task enter the encoder with the audio, so an example needs an encoder pass
of its own; what its recording shares with the other examples are the features and the
subsampling, which run once. Each CTC head's scores over the vocabulary are computed
once for the loss and for self-conditioning, where ESPnet computes them twice. Loss and
gradients equal ESPnet's on separate rows (tests/model/test_s2t_ctc.py), and the
parameters carry ESPnet's names, so weights move both ways.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from espnet2.asr.encoder.e_branchformer_ctc_encoder import EBranchformerCTCEncoder
from espnet2.legacy.nets.pytorch_backend.transformer.embedding import PositionalEncoding
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import (
    Conv2dSubsampling,
)
from espnet2.s2t.espnet_ctc_model import ESPnetS2TCTCModel
from espnet2.tasks.s2t_ctc import S2TTask, model_choices
from espnet2.torch_utils.device_funcs import force_gatherable
from torch.amp import autocast

from powsm.errors import PowsmError
from powsm.tasks import TASKS

N_PREFIX = 2  # positions before the frames: language and task


class PowsmCtcModel(ESPnetS2TCTCModel):
    """ESPnet's CTC model, which encodes what examples of a recording share once.

    Args:
        share_features: False computes features and subsampling again for each example,
            as the published recipe does, with SpecAugment drawn for each.
        **kwargs: those of `ESPnetS2TCTCModel`.
    """

    def __init__(self, *args, share_features: bool = True, **kwargs):
        kwargs.setdefault("report_cer", False)
        kwargs.setdefault("report_wer", False)
        super().__init__(*args, **kwargs)
        _check_encoder(self.encoder)
        heads = len(getattr(self.encoder, "interctc_layer_idx", ())) + 1
        if self.interctc_weight != 0.0 and len(self.ctc_asr_only) != heads:
            raise PowsmError(
                f"ctc_asr_only has {len(self.ctc_asr_only)} entries, but there are "
                f"{heads} CTC heads: those of interctc_layer_idx and the last"
            )
        self.share_features = share_features
        self._task_ids = {
            task: self.token_list.index(f"<{task}>")
            for task in TASKS
            if f"<{task}>" in self.token_list
        }

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
        prefix: torch.Tensor,
        prefix_lengths: torch.Tensor,
        example_audio: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Loss of U recordings with E examples.

        Args:
            speech: (U, samples), `speech_lengths` (U,).
            text: (E, tokens) with -1 as padding: language, task, then what the task
                asks for.
            text_prev: (E, tokens): the prompt, or the `<na>` token.
            text_ctc: (E, tokens): language, task, then the phones.
            prefix: (E, 2): language, or the symbol of an unknown one, and task.
            example_audio: (E,) row numbers of `speech`; None means one example a
                recording, ESPnet's own layout.

        Returns:
            Loss averaged over the E examples, statistics, and E as the weight.
        """
        if example_audio is None:
            example_audio = torch.arange(speech.size(0), device=speech.device)
        heads, lengths = self._heads(
            speech, speech_lengths, text_prev, text_prev_lengths, prefix, example_audio
        )
        targets = {False: (text, text_lengths), True: (text_ctc, text_ctc_lengths)}
        # the order of ctc_asr_only: intermediate heads as they come, then the last
        losses = [
            self._head_loss(hidden, logits, lengths, *targets[phones_only])
            for (_, hidden, logits), phones_only in zip(
                heads, self._phones_only(len(heads)), strict=True
            )
        ]
        stats = {
            f"loss_interctc_layer{layer}": loss.detach()
            for (layer, _, _), loss in zip(heads[:-1], losses[:-1], strict=True)
        }
        loss = losses[-1]
        stats["loss_ctc"] = loss.detach()
        if self.interctc_weight != 0.0 and len(losses) > 1:
            intermediate = sum(losses[:-1]) / (len(losses) - 1)
            loss = (1 - self.interctc_weight) * loss + (
                self.interctc_weight * intermediate
            )
        stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, text.size(0)), loss.device)

    def _phones_only(self, n_heads: int) -> Sequence[bool]:
        if self.interctc_weight == 0.0:  # intermediate heads, if any, are not taught
            return [False] * (n_heads - 1) + [self.ctc_asr_only[-1]]
        return self.ctc_asr_only

    def _head_loss(
        self,
        hidden: torch.Tensor,
        logits: torch.Tensor,
        lengths: torch.Tensor,
        target: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Mean CTC loss of the examples whose target is there.

        Args:
            hidden: (E, T, D) what the head reads.
            logits: (E, T, V) its scores without dropout.
            lengths: (E,) positions of each row, the prefix included.
            target: (E, L) token ids, -1 as padding; a row with `<na>` has none.
        """
        valid = (target != self.na).all(1)
        if not valid.any():
            return logits.sum() * 0.0
        if self.ctc.dropout_rate > 0:
            logits = self.ctc.ctc_lo(F.dropout(hidden, p=self.ctc.dropout_rate))
        if not valid.all():
            logits, lengths, target, target_lengths = (
                x[valid] for x in (logits, lengths, target, target_lengths)
            )
        log_probs = logits.transpose(0, 1).log_softmax(2).float()
        labels = target[target != self.ignore_id]
        return self.ctc.ctc_loss(log_probs, labels, lengths, target_lengths).mean()

    # ----------------------------------------------------------------- encoder

    def heads(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text_prev: torch.Tensor,
        text_prev_lengths: torch.Tensor,
        prefix: torch.Tensor,
        example_audio: torch.Tensor | None = None,
    ) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """Scores of every CTC head on the frames of the audio.

        Arguments are those of `forward`.

        Returns:
            Block number -> log-probabilities (E, T, V), the last block included; and
            the number of frames of each example (E,). The two positions of language
            and task are taken off.
        """
        if example_audio is None:
            example_audio = torch.arange(speech.size(0), device=speech.device)
        heads, lengths = self._heads(
            speech, speech_lengths, text_prev, text_prev_lengths, prefix, example_audio
        )
        return (
            {
                layer: logits[:, N_PREFIX:].float().log_softmax(-1)
                for layer, _, logits in heads
            },
            lengths - N_PREFIX,
        )

    def _heads(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text_prev: torch.Tensor,
        text_prev_lengths: torch.Tensor,
        prefix: torch.Tensor,
        example_audio: torch.Tensor,
    ) -> tuple[list[tuple[int, torch.Tensor, torch.Tensor]], torch.Tensor]:
        """(block, hidden, logits) of each CTC head, and positions of each row (E,)."""
        prompt = text_prev.masked_fill(text_prev == self.ignore_id, self.eos)
        memory, memory_lens, _ = self.prompt_encoder(
            self.pos_enc(self.embed(prompt)), text_prev_lengths
        )
        memory = self.prompt_proj(memory)
        columns = torch.arange(memory.size(1), device=memory.device)
        memory_mask = (columns < memory_lens[:, None])[:, None, :]

        if not self.share_features:
            speech, speech_lengths = (
                speech[example_audio],
                speech_lengths[example_audio],
            )
            example_audio = torch.arange(speech.size(0), device=speech.device)
        frames, n_frames = self._subsample(*self._features(speech, speech_lengths))
        frames, n_frames = frames[example_audio], n_frames[example_audio]
        x = torch.cat([self.embed_proj(self.embed(prefix)), frames], dim=1)
        lengths = n_frames + N_PREFIX
        x = self.encoder.embed.pos_enc(x)
        columns = torch.arange(x.size(1), device=x.device)
        mask = (columns < lengths[:, None])[:, None, :]

        encoder = self.encoder
        heads = []
        for number, layer in enumerate(encoder.encoders, 1):
            x, mask = layer(x, mask, memory=memory, memory_mask=memory_mask)
            if number in encoder.interctc_layer_idx:
                logits = self.ctc.ctc_lo(x)
                heads.append((number, x, logits))
                if encoder.interctc_use_conditioning:
                    x = x + encoder.conditioning_layer(F.softmax(logits, dim=-1))
        x = encoder.after_norm(x)
        heads.append((len(encoder.encoders), x, self.ctc.ctc_lo(x)))
        return heads, lengths

    def _features(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masked and normalised features (U, frames, mels) and their lengths."""
        with autocast(speech.device.type, enabled=False):
            feats, lengths = self._extract_feats(speech, speech_lengths)
            if self.specaug is not None and self.training:
                feats, lengths = self.specaug(feats, lengths)
            if self.normalize is not None:
                feats, lengths = self.normalize(feats, lengths)
        return feats, lengths

    def _subsample(
        self, feats: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames of 40 ms before positions are added (U, T, D), and how many (U,)."""
        embed = self.encoder.embed
        x = embed.conv(feats.unsqueeze(1))  # (U, channels, T, mels)
        x = embed.out(x.transpose(1, 2).flatten(2))
        for _ in range(2):  # two convolutions of width 3 and step 2
            lengths = (lengths - 3) // 2 + 1
        return x, lengths.clamp(min=0, max=x.size(1))


def _check_encoder(encoder: torch.nn.Module) -> None:
    embed = getattr(encoder, "embed", None)
    if (
        not isinstance(encoder, EBranchformerCTCEncoder)
        or type(embed) is not Conv2dSubsampling
        or type(embed.pos_enc) is not PositionalEncoding
    ):
        raise PowsmError(
            "model powsm_ctc needs encoder e_branchformer_ctc with input_layer conv2d "
            "and pos_enc_layer_type abs_pos; use model espnet_ctc for others"
        )


model_choices.classes.setdefault("powsm_ctc", PowsmCtcModel)


class PowsmCtcTask(S2TTask):
    """ESPnet's CTC task; `model: powsm_ctc` is registered by importing this module."""
