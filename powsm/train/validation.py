"""What validation says of a model: losses by task, and phone errors of greedy CTC."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from powsm.decode.ctc_paths import ctc_greedy
from powsm.model.batch import Batch
from powsm.model.s2t import Encoded, PowsmModel
from powsm.model.s2t_ctc import N_PREFIX, PowsmCtcModel
from powsm.score.distance import PhonePairs
from powsm.vocabulary import code_points
from powsm.vocabulary.phone_sets import phones_of_tokens

N_SHOWN = 5  # recordings whose hypotheses are shown


class Shown(NamedTuple):
    """A recording of the validation data, what was heard and what was said."""

    utt_id: str
    hyp: str
    ref: str


class Validation:
    """Sums over the validation data of one rank, and figures over all ranks.

    Args:
        model: whose weights are validated.
        ctc_target: what its CTC head is taught, see `UtteranceDataset`.
    """

    def __init__(self, model: PowsmModel | PowsmCtcModel, ctc_target: str):
        self._model = model
        self._code_points: code_points.CodePoints | None = None
        if ctc_target.startswith(code_points.PREFIX):
            self._code_points = code_points.CodePoints(model.token_list)
        self._sums: dict[str, float] = defaultdict(float)
        self._weights: dict[str, int] = defaultdict(int)
        self._phones: dict[str, list] = defaultdict(list)  # by language
        self._shown: dict[int, Shown] = {}

    def add(
        self,
        batch: Batch,
        stats: dict[str, torch.Tensor],
        encoded: Encoded | None = None,
    ) -> None:
        """Count a batch with the statistics that the model gave for it.

        Args:
            encoded: its recordings, where they have been encoded one by one.
        """
        # one transfer for all of them: a GPU is waited for once
        values = torch.stack([x.double().reshape(()) for x in stats.values()]).tolist()
        weights = self._model.stat_weights(stats, batch.text)
        for key, value in zip(stats, values, strict=True):
            self._sums[key] += value * weights[key]
            self._weights[key] += weights[key]
        if self._model.ctc is not None:
            self._add_phones(batch, encoded)

    def _add_phones(self, batch: Batch, encoded: Encoded | None) -> None:
        """Greedy CTC of each recording beside its phones, the first of its targets."""
        model = self._model
        if isinstance(model, PowsmCtcModel):
            self._add_phones_of_pr(model, batch)
            return
        if encoded is None:
            memory, memory_lens = model.encode(batch.speech, batch.speech_lengths)
            memory = memory[0] if isinstance(memory, tuple) else memory
        else:
            memory, memory_lens = encoded.memory, encoded.lengths
        log_probs = model.ctc.log_softmax(memory)
        refs, lengths = batch.first_ctc_targets()
        self._compare(batch.utt_ids, log_probs, memory_lens, refs, lengths)

    def _add_phones_of_pr(self, model: PowsmCtcModel, batch: Batch) -> None:
        """Greedy CTC of the last head beside its target, of examples of phone
        recognition; the head says what an example's task asks for."""
        rows = model.rows_of_task(batch.text, "pr").nonzero()[:, 0]
        if not len(rows):
            return
        audio = batch.example_audio[rows]
        heads, lengths = model.heads(
            *(batch.speech[audio], batch.speech_lengths[audio]),
            *(batch.text_prev[rows], batch.text_prev_lengths[rows]),
            batch.text[rows, :N_PREFIX],
        )
        ids = [batch.utt_ids[i] for i in audio.tolist()]
        refs = batch.text[rows], batch.text_lengths[rows]
        if model.ctc_asr_only[-1]:  # it is taught the phones of CTC, without length
            rows = batch.ctc_rows[rows]
            refs = batch.text_ctc[rows], batch.text_ctc_lengths[rows]
        self._compare(ids, heads[max(heads)], lengths, *refs)

    def _compare(
        self,
        utt_ids: Sequence[str],
        log_probs: torch.Tensor,
        n_frames: torch.Tensor,
        refs: torch.Tensor,
        ref_lengths: torch.Tensor,
    ) -> None:
        """Keep the best path of each row (B, T, V) beside its reference (B, L)."""
        hyps = ctc_greedy(log_probs, n_frames, blank=self._model.blank_id)
        rows = zip(utt_ids, hyps, refs.tolist(), ref_lengths.tolist(), strict=True)
        for utt_id, hyp, ref, n in rows:
            pair = (self._phones_of(hyp.tokens), self._phones_of(ref[:n]))
            self._phones[utt_id.rpartition("_")[2]].append(pair)
            self._show(utt_id, *pair)

    def _show(self, utt_id: str, hyp: list[str], ref: list[str]) -> None:
        """Keep it where its id is among the first by checksum: as good as drawn."""
        shown = Shown(utt_id, " ".join(hyp), " ".join(ref))
        self._shown[zlib.crc32(utt_id.encode())] = shown
        if len(self._shown) > N_SHOWN:
            del self._shown[max(self._shown)]

    def shown(self) -> list[Shown]:
        """A few recordings of this rank, the same every time, sorted by utt_id."""
        return sorted(self._shown.values())

    def _phones_of(self, token_ids: Iterable[int]) -> list[str]:
        """Phones that the CTC head says, or is taught."""
        if self._code_points is not None:
            return self._code_points.phones(token_ids)
        return phones_of_tokens(self._model.token_list[i] for i in token_ids)

    def figures(self, world_size: int) -> dict[str, float]:
        """Means over the examples, and PER and PFER in percent, of all ranks together.

        `per_ctc` and `pfer_ctc` are over all phones; `per_ctc_eng` those of a language.
        """
        by_lang = {lang: _counts(pairs) for lang, pairs in self._phones.items()}
        mine = (dict(self._sums), dict(self._weights), by_lang)
        told: list = [mine]
        if world_size > 1:
            told = [None] * world_size
            torch.distributed.all_gather_object(told, mine)
        sums, weights, langs = (_add_up(part) for part in zip(*told, strict=True))
        figures = {key: float(value / weights[key]) for key, value in sums.items()}
        if langs:
            langs["all"] = sum(langs.values())
        for lang, (edits, distance, n_ref) in sorted(langs.items()):
            if n_ref == 0:  # trained on orthography alone
                continue
            tail = "" if lang == "all" else f"_{lang}"
            figures[f"per_ctc{tail}"] = float(100 * edits / n_ref)
            figures[f"pfer_ctc{tail}"] = float(100 * distance / n_ref)
        return figures


def _add_up(parts: tuple[dict, ...]) -> dict:
    total: dict = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total[key] + value if key in total else value
    return total


def _counts(pairs: list[tuple[list[str], list[str]]]) -> np.ndarray:
    """Phone edits, feature edit distance and reference phones of (hyp, ref) pairs."""
    phones = PhonePairs(hyp=[h for h, _ in pairs], ref=[r for _, r in pairs])
    edits = phones.edit_counts().sum()
    return np.array([edits, phones.distances("feature").sum(), phones.n_ref.sum()])
