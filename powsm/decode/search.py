"""Batched attention decoding with a key/value cache and joint CTC prefix scoring.

The results are those of ESPnet's `Speech2Text` (its `BatchBeamSearch` with decoder,
CTC, length-bonus and timestamp-filter scorers) at the same settings; the work is laid
out differently. Utterances and hypotheses are one batch, every utterance has its own
true length and its own prompt, keys and values are computed once
(`powsm.decode.cached_decoder`), the CTC recursion has no loop over frames
(`powsm.decode.ctc_prefix`), and finished utterances leave the batch.

Shapes: B utterances, H hypotheses each (1 at first, then the beam size K), S candidate
tokens a hypothesis, L tokens so far, T encoder frames, D model size, V vocabulary.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from espnet2.s2t.espnet_model import ESPnetS2TModel
from torch import Tensor

from powsm.decode.beams import Beams, Hypothesis, Output, Reading
from powsm.decode.cached_decoder import CachedDecoder, check_decoder
from powsm.decode.ctc_prefix import HeadColumns, PrefixScorer, Table
from powsm.decode.profile import SearchOptions
from powsm.errors import PowsmError
from powsm.model.ctc_heads import PhoneLinear
from powsm.model.features import on_device
from powsm.model.s2t_ctc import PowsmCtcModel

PRE_BEAM_RATIO = 1.5  # tokens that CTC scores for each hypothesis kept
RETRY_STEP = 0.1  # by which minlenratio falls when no hypothesis ended
BOUND_SLACK = 10  # tokens allowed beyond the CTC length bound
GUARD_PERIOD = 8  # tokens; longest stretch that the repetition guard recognises

_TIME_SYMBOL = re.compile(r"<\d+\.\d\d>")
_NEVER = float("-inf")


class Searcher:
    """Finds the best token sequences of encoded utterances.

    Args:
        model: in evaluation mode, with a Transformer decoder, or without one where
            `ctc_weight` is 1; on any device, float32 or bfloat16 (scores are always
            added up in float64).
        options: see `SearchOptions`.
        barred: token ids that never come out.

    Raises:
        PowsmError: the model cannot be searched with these options.
    """

    def __init__(
        self,
        model: ESPnetS2TModel | PowsmCtcModel,
        options: SearchOptions,
        barred: Sequence[int] = (),
    ):
        if model.training:
            raise ValueError("the model is in training mode; call model.eval() first")
        if model.ctc is None and options.ctc_weight + options.ctc_length_bound > 0:
            raise PowsmError(
                f"ctc_weight is {options.ctc_weight}, ctc_length_bound "
                f"{options.ctc_length_bound}, but the model has no CTC; set both to 0"
            )
        if options.ctc_weight < 1:
            check_decoder(model.decoder)
        self._model = model
        self._options = options
        tokens = model.token_list
        self._has_decoder = getattr(model, "decoder", None) is not None
        times = []  # no model without a decoder is asked for them
        if self._has_decoder:
            self._notimestamps = tokens.index("<notimestamps>")
            times = [i for i, t in enumerate(tokens) if _TIME_SYMBOL.fullmatch(t)]
        device = next(model.parameters()).device
        self._always_barred = torch.tensor([*times, *barred], device=device).long()
        # without a decoder, or with few tokens, CTC scores the whole vocabulary
        self._n_pre_beam = int(PRE_BEAM_RATIO * options.beam_size)
        self._is_pre_beam = options.ctc_weight < 1 and self._n_pre_beam < len(tokens)

    @torch.inference_mode()
    def search(
        self,
        encoder_out: Tensor,
        encoder_out_lens: Tensor,
        prompts: Sequence[Sequence[int]],
    ) -> list[list[Hypothesis]]:
        """Decode a batch.

        Args:
            encoder_out: (B, T, D), or of a model without a decoder what its last head
                says, (B, T, V) log-probabilities.
            encoder_out_lens: (B,) true numbers of frames, at least 1.
            prompts: for each utterance the token ids that its output starts from,
                `[<sop> previous text ...] <sos> <lang> <task> <notimestamps>`;
                lengths may differ. Without a decoder `<sos>` alone: its encoder has
                read the prompt.

        Returns:
            For each utterance up to `nbest` hypotheses, best first. The list is empty
            only when a minimum length let nothing end.

        Raises:
            PowsmError: sizes disagree, an utterance has no frame, or a prompt asks for
                time stamps.
        """
        self._check_batch(encoder_out, encoder_out_lens, prompts)
        lens = encoder_out_lens.to(encoder_out.device)
        ratio = self._options.minlenratio
        results = self._search(encoder_out, lens, prompts, ratio)
        while ratio >= RETRY_STEP and not all(results):
            ratio = max(0.0, ratio - RETRY_STEP)
            empty = [b for b, hyps in enumerate(results) if not hyps]
            again = self._search(
                encoder_out[empty], lens[empty], [prompts[b] for b in empty], ratio
            )
            for b, hyps in zip(empty, again, strict=True):
                results[b] = hyps
        return results

    def _check_batch(
        self, encoder_out: Tensor, lens: Tensor, prompts: Sequence[Sequence[int]]
    ) -> None:
        if not len(encoder_out) == len(lens) == len(prompts) > 0:
            raise ValueError(
                f"got {len(encoder_out)} encoder outputs, {len(lens)} lengths and "
                f"{len(prompts)} prompts; expected the same number, at least 1"
            )
        n_frames = encoder_out.size(1)
        for b, (n, prompt) in enumerate(zip(lens.tolist(), prompts, strict=True)):
            if not 1 <= n <= n_frames:
                raise PowsmError(
                    f"utterance {b} of the batch: {n} encoder frames; expected 1 to "
                    f"{n_frames}. Leave out utterances too short to encode"
                )
            if self._has_decoder and not {self._model.sos, self._notimestamps} <= set(
                prompt
            ):
                raise PowsmError(
                    f"prompt {b} of the batch: {list(prompt)} lacks <sos> "
                    f"({self._model.sos}) or <notimestamps> ({self._notimestamps}); "
                    "predicting time stamps is not supported"
                )

    def _search(
        self,
        memory: Tensor,
        lens: Tensor,
        prompts: Sequence[Sequence[int]],
        minlenratio: float,
    ) -> list[list[Hypothesis]]:
        options, model = self._options, self._model
        decoder = scorer = scores = None
        if options.ctc_weight < 1:
            decoder = CachedDecoder(model.decoder, memory, lens, prompts)
        if options.ctc_weight + options.ctc_length_bound > 0:
            scores = self._ctc_scores(memory)
        if options.ctc_weight > 0:
            scorer = PrefixScorer(scores, lens, blank=model.blank_id, eos=model.eos)
        limits = self._length_limits(lens, minlenratio, scores)
        outputs = [
            Output(maxlen, minlen, len(prompt), detects_end=options.maxlenratio == 0)
            for (maxlen, minlen), prompt in zip(limits, prompts, strict=True)
        ]
        running = outputs  # those not finished, in the order of the batch
        beams = Beams.start(len(memory), memory.device)
        reading = Reading(len(memory))
        for step in range(max(maxlen for maxlen, _ in limits)):
            beams = self._extend(beams, decoder, scorer)
            reading.read(beams)
            self._collect(beams, reading, running, step)
            kept = [b for b, output in enumerate(running) if not output.is_done]
            if not kept:
                break
            if len(kept) < len(running):
                running = [running[b] for b in kept]
                reading.keep(kept)
                rows = on_device(torch.tensor(kept), memory.device)
                for part in (beams, decoder, scorer):
                    if part is not None:
                        part.keep(rows)
            last = beams.tokens[..., -1]
            if decoder is not None:
                decoder.feed(reading.parents, last)
            if scorer is not None:
                scorer.advance(beams.parents, last, beams.ctc_gains)
        return [
            output.best(options.nbest, normalize_length=options.normalize_length)
            for output in outputs
        ]

    def _ctc_scores(self, memory: Tensor) -> Table | HeadColumns:
        if not self._has_decoder:
            return Table(memory)
        head = self._model.ctc.ctc_lo
        if self._is_pre_beam:
            return HeadColumns(head, memory)
        log_probs = F.log_softmax(head(memory).float(), dim=-1)
        is_of_phones = isinstance(head, PhoneLinear)
        return Table(head.as_read(log_probs) if is_of_phones else log_probs)

    def _length_limits(
        self, lens: Tensor, minlenratio: float, scores: Table | HeadColumns | None
    ) -> list[tuple[int, int]]:
        """(most, fewest) tokens of each utterance."""
        options = self._options
        bounds = lens.tolist()
        if options.maxlenratio < 0:
            bounds = [-int(options.maxlenratio)] * len(bounds)
        elif options.maxlenratio > 0:
            bounds = [max(1, int(options.maxlenratio * n)) for n in bounds]
        if options.ctc_length_bound > 0:
            path = scores.best_path()
            labels = _count_labels(path, lens, self._model.blank_id)
            bounds = [
                min(bound, int(options.ctc_length_bound * n) + BOUND_SLACK)
                for bound, n in zip(bounds, labels, strict=True)
            ]
        if minlenratio < 0:
            return [(bound, -int(minlenratio)) for bound in bounds]
        fewest = [int(minlenratio * n) for n in lens.tolist()]
        return list(zip(bounds, fewest, strict=True))

    def _extend(
        self,
        beams: Beams,
        decoder: CachedDecoder | None,
        scorer: PrefixScorer | None,
    ) -> Beams:
        """The best K one-token extensions of each utterance's hypotheses."""
        options = self._options
        barred = self._barred(beams)
        logits = norm = None
        if decoder is not None:
            logits = decoder.logits.float()
            norm = logits.logsumexp(-1, keepdim=True)
            logits = _bar(logits, self._always_barred, barred)
        if scorer is None:
            values, ids = logits.topk(min(options.beam_size, logits.size(-1)))
            gains = {"decoder": (values - norm).double()}
        elif self._is_pre_beam:
            values, ids = self._pre_beam(logits)
            gains = {"decoder": (values - norm).double(), "ctc": scorer.score(ids)}
        else:
            ids, gains = self._whole_vocabulary(logits, norm, scorer, barred)
        total = self._weigh(gains) + beams.total.unsqueeze(-1)
        return beams.select(ids, total, gains, options.beam_size)

    def _weigh(self, gains: dict[str, Tensor]) -> Tensor:
        weight = self._options.ctc_weight
        weights = {"decoder": 1 - weight, "ctc": weight}
        return (
            sum(weights[k] * gain for k, gain in gains.items()) + self._options.penalty
        )

    def _pre_beam(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Values and ids of the likeliest tokens, and of <eos>: CTC scores only these.

        When <eos> is among the likeliest, its second column is ruled out.
        """
        values, ids = logits.topk(self._n_pre_beam)
        eos = self._model.eos
        end = logits[..., eos : eos + 1]
        is_double = (ids == eos).any(-1, keepdim=True)
        values = torch.cat([values, end.masked_fill(is_double, _NEVER)], dim=-1)
        return values, torch.cat([ids, torch.full_like(ids[..., :1], eos)], dim=-1)

    def _whole_vocabulary(
        self,
        logits: Tensor | None,
        norm: Tensor | None,
        scorer: PrefixScorer,
        barred: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gains = {"ctc": scorer.score_all()}
        if logits is None:
            total = gains["ctc"] = _bar(gains["ctc"], self._always_barred, barred)
        else:
            gains["decoder"] = (logits - norm).double()
            total = self._weigh(gains)
        ids = total.topk(min(self._options.beam_size, total.size(-1))).indices
        return ids, {name: gain.gather(-1, ids) for name, gain in gains.items()}

    def _barred(self, beams: Beams) -> Tensor | None:
        """(B, H, n) tokens that would repeat a stretch once too often, or None."""
        n_times = self._options.repetition_guard
        tokens = beams.tokens
        columns = []
        for period in range(1, GUARD_PERIOD + 1):
            n_tail = period * (n_times + 1) - 1  # and the token to come
            if n_times == 0 or n_tail > tokens.size(-1):
                break
            tail = tokens[..., tokens.size(-1) - n_tail :]
            is_loop = (tail[..., period:] == tail[..., : n_tail - period]).all(-1)
            # where nothing loops the column names the blank, which no text holds
            column = torch.full_like(is_loop, self._model.blank_id, dtype=torch.long)
            columns.append(torch.where(is_loop, tail[..., -period], column))
        return torch.stack(columns, dim=-1) if columns else None

    def _collect(
        self, beams: Beams, reading: Reading, running: list[Output], step: int
    ) -> None:
        """Hand finished hypotheses to their outputs and take them off the beams."""
        eos = self._model.eos
        totals = reading.total
        for b, tokens in enumerate(reading.last):
            output = running[b]
            is_limit = step == output.maxlen - 1
            n_alive = 0
            for k, token in enumerate(tokens):
                if totals[b][k] == _NEVER:
                    continue
                if token != eos and not is_limit:
                    n_alive += 1
                elif step >= output.minlen:
                    output.add(step, reading.hypothesis(b, k, eos))
            output.finish_step(step, n_alive=n_alive)
        is_over = beams.tokens[..., -1] == eos
        beams.total = beams.total.masked_fill(is_over, _NEVER)


@torch.inference_mode()
def language_log_probs(
    model: ESPnetS2TModel,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    lang_ids: Sequence[int],
) -> Tensor:
    """What language the decoder hears: one step after `<sos>`.

    Args:
        model: in evaluation mode.
        encoder_out: (B, T, D).
        encoder_out_lens: (B,) true numbers of frames.
        lang_ids: token ids of the languages to choose among.

    Returns:
        (B, n_lang) float32 log-probabilities over the whole vocabulary; take the
        argmax to choose, `log_softmax` to compare among the given languages only.
    """
    prompts = [[model.sos]] * len(encoder_out)
    decoder = CachedDecoder(model.decoder, encoder_out, encoder_out_lens, prompts)
    log_probs = decoder.logits[:, 0].float().log_softmax(-1)
    return log_probs[:, list(lang_ids)]


def _bar(scores: Tensor, always: Tensor, barred: Tensor | None) -> Tensor:
    """(B, H, V) scores without the tokens `always` ruled out, and `barred` ones."""
    scores = scores.index_fill(-1, always, _NEVER)
    if barred is not None:
        scores = scores.scatter(-1, barred, _NEVER)
    return scores


def _count_labels(path: Tensor, lens: Tensor, blank: int) -> list[int]:
    """Number of labels on the best CTC path (B, T) of each utterance."""
    before = F.pad(path, (1, 0), value=blank)[:, :-1]
    frame = torch.arange(path.size(1), device=path.device)
    is_label = (path != blank) & (path != before) & (frame < lens.unsqueeze(1))
    return is_label.sum(1).tolist()
