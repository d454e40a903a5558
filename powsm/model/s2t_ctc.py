"""The encoder-only model (POWSM-CTC) over unique recordings and their examples.

Language and task enter the encoder with the audio, so an example needs an encoder pass
of its own; what its recording shares with the other examples are the features and the
subsampling, which run once. Each CTC head's scores over the vocabulary are computed
once for the loss and for self-conditioning, where ESPnet computes them twice. Loss and
gradients equal ESPnet's on separate rows (tests/model/test_s2t_ctc.py), and the
parameters carry ESPnet's names, so weights move both ways.
"""

from collections.abc import Container, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from espnet2.asr.encoder.e_branchformer_ctc_encoder import EBranchformerCTCEncoder
from espnet2.legacy.nets.pytorch_backend.transformer.embedding import PositionalEncoding
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import (
    Conv2dSubsampling,
)
from espnet2.s2t.espnet_ctc_model import ESPnetS2TCTCModel
from espnet2.torch_utils.device_funcs import force_gatherable
from torch.amp import autocast

from powsm.errors import PowsmError
from powsm.languages import LANGUAGES, UNKNOWN_LANG_SYM
from powsm.model.batch import Batch
from powsm.model.ctc_heads import Head, PhoneColumns, disagreement, divergence
from powsm.tasks import PHONES, WORD_START, task_ids, tasks_writing
from powsm.vocabulary.symbols import special_symbols

N_PREFIX = 2  # positions before the frames: language and task


class PowsmCtcModel(ESPnetS2TCTCModel):
    """ESPnet's CTC model, which encodes what examples of a recording share once.

    Args:
        consistency_weight: above 0 every update hears its recordings twice, under masks
            drawn anew, and each head is also taught to say the same of both (CR-CTC,
            arXiv 2410.05101); see `disagreement`. 0 is off.
        interctc_vocab: `all`, or `phones`: heads between that are taught phones speak
            blank, `<unk>`, phones and what stands before them alone, and condition the
            blocks after them by these. They share the weights of the last head.
        teacher: a trained model with a decoder, which the trainer loads; None is off.
        teacher_weight: of KL(teacher || student) between what its CTC head says of
            blank and phones and what the heads say that are taught phones.

    Attributes:
        lang_apply_prob: how often an example of training is given its language, as in
            ESPnet's `preprocessor_conf`. Below 1 the model learns to find it.
        teacher: in training a `powsm.train.parts.teacher.Teacher`, no part of this.
    """

    ctc_weight = 1.0  # there is no decoder
    lang_apply_prob = 1.0
    teacher = None

    def __init__(
        self,
        *args,
        consistency_weight: float = 0.0,
        interctc_vocab: str = "all",
        teacher: str | None = None,
        teacher_weight: float = 0.5,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        _check_encoder(self.encoder)
        heads = len(self.head_blocks)
        if self.interctc_weight != 0.0 and len(self.ctc_asr_only) != heads:
            raise PowsmError(
                f"ctc_asr_only has {len(self.ctc_asr_only)} entries, but there are "
                f"{heads} CTC heads: those of interctc_layer_idx and the last"
            )
        self.consistency_weight = consistency_weight
        if consistency_weight > 0 and self.specaug is None:
            raise PowsmError(
                f"consistency_weight is {consistency_weight}, but without specaug both "
                "views of a recording are the same; set one of the two"
            )
        self.teacher_weight = teacher_weight
        self.phones: PhoneColumns | None = None
        if interctc_vocab not in ("all", "phones"):
            fault = f"interctc_vocab is {interctc_vocab!r}, expected all or phones"
            raise PowsmError(fault)
        if interctc_vocab == "phones":
            before = special_symbols(LANGUAGES, None)
            self.phones = PhoneColumns(self.token_list, also={*before, WORD_START})
        self._task_ids = task_ids(self.token_list)

    def forward(
        self,
        speech: torch.Tensor,
        prefix: torch.Tensor | None = None,
        prefix_lengths: torch.Tensor | None = None,
        **tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Loss of U recordings with E examples.

        Args:
            speech, tensors: those of a `powsm.model.batch.Batch`, which documents their
                shapes; ESPnet's own layout, a row an example, is one of them. A target
                of `text` begins with language and task, and so does one of `text_ctc`.
            prefix: (E, 2) what the encoder is given as language and task; None takes
                them from `text`.
            prefix_lengths: (E,) always 2, which ESPnet passes along.

        Returns:
            Loss averaged over the E examples, statistics, and E as the weight.
        """
        batch = Batch.of({"speech": speech} | tensors)
        n_examples = batch.n_examples
        prefix = self._prefix(batch.text) if prefix is None else prefix
        said = None
        if self.training and self.teacher is not None:
            said = self.teacher(batch.speech, batch.speech_lengths)
        is_consistent = self.training and self.consistency_weight > 0
        if is_consistent:
            batch, prefix = batch.twice(), torch.cat([prefix, prefix])
        heard = (batch.speech, batch.speech_lengths)
        prompts = (batch.text_prev, batch.text_prev_lengths)
        heads, lengths = self._heads(*heard, *prompts, prefix, batch.example_audio)
        rows = batch.ctc_rows
        targets = {
            False: (batch.text, batch.text_lengths),
            True: (batch.text_ctc[rows], batch.text_ctc_lengths[rows]),
        }
        # the order of ctc_asr_only: intermediate heads as they come, then the last
        phones_only = self._phones_only(len(heads))
        losses = [
            self._head_losses(head, lengths, *targets[is_phones])
            for head, is_phones in zip(heads, phones_only, strict=True)
        ]
        means = [each.sum() / max(int(valid.sum()), 1) for each, valid in losses]
        names = [f"loss_interctc_layer{head.block}" for head in heads[:-1]]
        stats = dict(zip([*names, "loss_ctc"], map(torch.detach, means), strict=True))
        stats |= self._task_losses(*losses[-1], batch.text)
        loss = self._over_heads(means)
        if is_consistent:
            each = [disagreement(head.logits, lengths).mean() for head in heads]
            consistency = self._over_heads(each)
            stats["loss_consistency"] = consistency.detach()
            loss = loss + self.consistency_weight * consistency
        if said is not None:
            apart = self._apart_from_teacher(heads, lengths, said, batch)
            stats["loss_teacher"] = apart.detach()
            loss = loss + self.teacher_weight * apart
        stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, n_examples), loss.device)

    def _apart_from_teacher(
        self,
        heads: Sequence[Head],
        lengths: torch.Tensor,
        said: torch.Tensor,
        batch: Batch,
    ) -> torch.Tensor:
        """How far the heads are from a teacher, where they are taught phones.

        Blank and phones are compared as if a head spoke no other token, and frames
        alone: language, task and time stay free to be said where they fit.

        Args:
            said: (U, T, C) log-probabilities of the teacher for each recording.
        """
        said = said[batch.example_audio % len(said)]  # heard twice: both the same
        writes_phones = sum(
            self.rows_of_task(batch.text, task) for task in tasks_writing(PHONES)
        ).bool()
        each = []
        for head, is_phones in zip(heads, self._phones_only(len(heads)), strict=True):
            logits = head.logits_of(self.teacher.token_ids)[:, N_PREFIX:]
            log_probs = logits.float().log_softmax(-1)
            apart = divergence(log_probs, said, lengths - N_PREFIX)
            each.append((apart if is_phones else apart * writes_phones).mean())
        return self._over_heads(each)

    def _over_heads(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """What a loss of each head is together, that of the last block coming last."""
        *between, loss = values
        share = self.interctc_weight
        if share != 0.0 and between:
            loss = (1 - share) * loss + share * (sum(between) / len(between))
        return loss

    def _prefix(self, text: torch.Tensor) -> torch.Tensor:
        """Language and task (E, 2) of targets; in training some languages are withheld.

        Random numbers come from PyTorch's generator, which a training run seeds for
        each of its steps.
        """
        prefix = text[:, :N_PREFIX].clone()
        if self.training and self.lang_apply_prob < 1.0:
            is_given = torch.rand(len(prefix)) <= self.lang_apply_prob
            unknown = self.token_list.index(UNKNOWN_LANG_SYM)
            prefix[:, 0].masked_fill_(~is_given.to(prefix.device), unknown)
        return prefix

    @property
    def head_blocks(self) -> tuple[int, ...]:
        """Blocks with a CTC head after them, the last included."""
        return (*self.encoder.interctc_layer_idx, len(self.encoder.encoders))

    @property
    def stat_names(self) -> list[str]:
        """Every statistic that a batch may have."""
        names = ["loss", "loss_ctc", "loss_consistency", "loss_teacher"]
        names += [f"loss_interctc_layer{block}" for block in self.head_blocks[:-1]]
        return names + [f"loss_{task}" for task in self._task_ids]

    def stat_weights(self, stats: Iterable[str], text: torch.Tensor) -> dict[str, int]:
        """How many of the examples `text` (E, tokens) each statistic speaks for.

        All of them, but those of a task where its name ends in one, as `loss_g2p` does.
        """
        n_of = {t: int(self.rows_of_task(text, t).sum()) for t in self._task_ids}
        return {key: n_of.get(key.rpartition("_")[2], len(text)) for key in stats}

    def rows_of_task(self, text: torch.Tensor, task: str) -> torch.Tensor:
        """Which of the examples `text` (E, tokens) are of a task: bool (E,)."""
        return text[:, 1] == self._task_ids.get(task, -1)

    def _task_losses(
        self, losses: torch.Tensor, valid: torch.Tensor, text: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The last head's mean loss of each task that has examples."""
        rows = {t: self.rows_of_task(text, t) & valid for t in self._task_ids}
        present = {task: which for task, which in rows.items() if which.any()}
        return {f"loss_{t}": losses[r].mean().detach() for t, r in present.items()}

    def _phones_only(self, n_heads: int) -> Sequence[bool]:
        if self.interctc_weight == 0.0:  # intermediate heads, if any, are not taught
            return [False] * (n_heads - 1) + [self.ctc_asr_only[-1]]
        return self.ctc_asr_only

    def _head_losses(
        self,
        head: Head,
        lengths: torch.Tensor,
        target: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """CTC loss of each example, zero where there is no target.

        Args:
            head: of E examples.
            lengths: (E,) positions of each row, the prefix included.
            target: (E, L) token ids, -1 as padding; a row with `<na>` has none.

        Returns:
            Losses (E,), and which examples have a target (E,).
        """
        valid = (target != self.na).all(1)
        logits = head.logits
        if not valid.any():
            return logits.sum((1, 2)) * 0.0, valid
        if self.ctc.dropout_rate > 0:
            hidden = F.dropout(head.hidden, p=self.ctc.dropout_rate)
            logits = Head.of(0, hidden, self.ctc.ctc_lo, head.columns).logits
        if not valid.all():
            logits, lengths, target, target_lengths = (
                x[valid] for x in (logits, lengths, target, target_lengths)
            )
        log_probs = logits.transpose(0, 1).log_softmax(2).float()
        labels = target[target != self.ignore_id]
        if head.columns is not None:
            labels = head.columns.rows(labels)
        losses = self.ctc.ctc_loss(log_probs, labels, lengths, target_lengths)
        if len(losses) < len(valid):
            rows = valid.nonzero()[:, 0]
            losses = losses.new_zeros(len(valid)).index_copy(0, rows, losses)
        return losses, valid

    def heads(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text_prev: torch.Tensor,
        text_prev_lengths: torch.Tensor,
        prefix: torch.Tensor,
        example_audio: torch.Tensor | None = None,
        *,
        blocks: Container[int] | None = None,
    ) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """Scores of the CTC heads; arguments are those of `forward`.

        Args:
            blocks: heads that are wanted beside the last; None is all.

        Returns:
            Block -> log-probabilities (E, N_PREFIX + T, V), that of the last at the
            end; and the number of positions of each example (E,). CTC is taught over
            all of them, so what a head says is read from all.
        """
        if example_audio is None:
            example_audio = torch.arange(speech.size(0), device=speech.device)
        heads, lengths = self._heads(
            speech, speech_lengths, text_prev, text_prev_lengths, prefix, example_audio
        )
        scores = {
            head.block: head.log_probs()
            for head in heads
            if blocks is None or head is heads[-1] or head.block in blocks
        }
        return scores, lengths

    def _heads(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text_prev: torch.Tensor,
        text_prev_lengths: torch.Tensor,
        prefix: torch.Tensor,
        example_audio: torch.Tensor,
    ) -> tuple[list[Head], torch.Tensor]:
        """Every CTC head, the last block's behind the others, and positions (E,)."""
        prompt = text_prev.masked_fill(text_prev == self.ignore_id, self.eos)
        memory, memory_lens, _ = self.prompt_encoder(
            self.pos_enc(self.embed(prompt)), text_prev_lengths
        )
        memory = self.prompt_proj(memory)
        memory_mask = _mask(memory_lens, memory)

        frames, n_frames = self._subsample(*self._features(speech, speech_lengths))
        frames, n_frames = frames[example_audio], n_frames[example_audio]
        x = torch.cat([self.embed_proj(self.embed(prefix)), frames], dim=1)
        lengths = n_frames + N_PREFIX
        x = self.encoder.embed.pos_enc(x)
        mask = _mask(lengths, x)

        encoder = self.encoder
        phones_only = self._phones_only(len(self.head_blocks))
        heads: list[Head] = []
        for number, layer in enumerate(encoder.encoders, 1):
            x, mask = layer(x, mask, memory=memory, memory_mask=memory_mask)
            if number in encoder.interctc_layer_idx:
                columns = self.phones if phones_only[len(heads)] else None
                head = Head.of(number, x, self.ctc.ctc_lo, columns)
                heads.append(head)
                if encoder.interctc_use_conditioning:
                    x = x + head.condition(encoder.conditioning_layer)
        x = encoder.after_norm(x)
        heads.append(Head.of(len(encoder.encoders), x, self.ctc.ctc_lo))
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


def _mask(lengths: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(E, 1, T) bool: which places of `like` (E, T, ...) are inside of a row."""
    places = torch.arange(like.size(1), device=like.device)
    return (places < lengths[:, None])[:, None, :]


def set_language_dropout(model: PowsmCtcModel, preprocessor_conf: Mapping) -> None:
    """Tell a model how often ESPnet's settings leave the language out of training."""
    # 0.5 is the default of ESPnet's S2TCTCPreprocessor
    model.lang_apply_prob = float(preprocessor_conf.get("lang_apply_prob", 0.5))


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
