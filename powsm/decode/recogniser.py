"""A trained model with its tokenizer: encoding, prompts, and languages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from espnet2.s2t.espnet_model import ESPnetS2TModel

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.decode.ctc_paths import first_label_log_probs
from powsm.decode.profile import BATCH_S, DecodeError, Profile
from powsm.decode.search import language_log_probs
from powsm.decode.timing.blanks import USUAL, Timing
from powsm.decode.timing.stored import digest, read_timing
from powsm.languages import LANGUAGES, UNKNOWN_LANG_SYM
from powsm.model.ctc_heads import PhoneLinear
from powsm.model.find import CheckpointError, ModelFiles, find_model
from powsm.model.frames import FrameGrid
from powsm.model.s2t_ctc import PowsmCtcModel
from powsm.model.weights import load_model
from powsm.tasks import NA_SYM, NO_TIME_SYM
from powsm.vocabulary.code_points import PREFIX as CODE_POINTS
from powsm.vocabulary.tokenizer import Tokenizer

_MOST_S = 1280.0  # seconds of a batch: more gains nothing, and tables stay below 2^31
_SHARE = 0.8  # of the memory that is free, for a batch
_CELLS = 1 << 28  # of a table of CTC scores that exist at once


def _padded(
    speech: Sequence[torch.Tensor], window: str, n_heard: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Recordings as one batch (B, n_samples), and their lengths (B,).

    The end of a recording is mirrored behind it, as a centred spectrogram does with the
    end of its input, so that the last frame hears what it hears without a batch.

    Args:
        n_heard: samples behind a recording that a frame of it may hear.
    """
    if window == "published":
        n = int(WINDOW_S * SAMPLE_RATE)
        speech = [torch.nn.functional.pad(s[:n], (0, n - len(s[:n]))) for s in speech]
    lengths = torch.tensor([len(s) for s in speech])
    padded = torch.nn.utils.rnn.pad_sequence(list(speech), batch_first=True)
    for row, s in zip(padded, speech, strict=True):
        behind = row[len(s) :][:n_heard]
        mirrored = s.flip(0)[1 : 1 + len(behind)]
        behind[: len(mirrored)] = mirrored
    return padded, lengths


@dataclass(frozen=True)
class Recogniser:
    """A model with its tokenizer, ready to decode."""

    model: ESPnetS2TModel | PowsmCtcModel
    tokenizer: Tokenizer
    device: torch.device
    weights: str  # short hash of the weights' file
    timing: Timing = USUAL  # of its phones, see powsm.decode.timing

    @classmethod
    def load(cls, model: str | Path | ModelFiles, device: str = "cpu") -> "Recogniser":
        """Load a model.

        Args:
            model: what `powsm.model.find.find_model` found, or takes.

        Raises:
            CheckpointError: no such model, or a parameter that is missing, left over
                or of another shape.
        """
        files = model if isinstance(model, ModelFiles) else find_model(model)
        loaded = load_model(files, device)
        if not files.bpe_model.stat().st_size:
            raise CheckpointError(f"{files.bpe_model}: the file is empty")
        try:
            tokenizer = Tokenizer(files.bpe_model, loaded.token_list)
        except RuntimeError as err:  # of SentencePiece
            raise CheckpointError(
                f"{files.bpe_model}: not a SentencePiece model, or damaged"
            ) from err
        except ValueError as err:
            raise CheckpointError(str(err)) from err
        weights = digest(files.weights_file)
        timing = read_timing(files.config_file, weights)
        return cls(loaded, tokenizer, torch.device(device), weights, timing)

    def batch_seconds(self, profile: Profile) -> float:
        """Most seconds of audio, padding included, in a batch.

        Where the profile says `auto`, a GPU's free memory decides; when it is not
        enough after all, batches are halved.
        """
        if profile.batch_seconds != "auto":
            return profile.batch_seconds
        if self.device.type != "cuda":
            return BATCH_S
        free, _ = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_reserved(self.device)
        free += reserved - torch.cuda.memory_allocated(self.device)
        n_hyps = profile.search.beam_size
        fits = _SHARE * free / bytes_a_second(self.model, n_hyps)
        return max(WINDOW_S, min(fits, _MOST_S))

    def ctc_tables(self, memory: torch.Tensor) -> Iterator[torch.Tensor]:
        """Log-probabilities of the CTC head, float32, some recordings at a time.

        Args:
            memory: (B, T, D) encoder output.

        Returns:
            (n, T, V) each, n small enough for the table over all tokens to be.
        """
        ctc, n_cells = self.model.ctc, memory.size(1) * len(self.model.token_list)
        for part in memory.split(max(1, _CELLS // n_cells)):
            log_probs = ctc.log_softmax(part).float()
            is_of_phones = isinstance(ctc.ctc_lo, PhoneLinear)
            yield ctc.ctc_lo.as_read(log_probs) if is_of_phones else log_probs

    @torch.inference_mode()
    def encode(
        self, speech: Sequence[torch.Tensor], window: str = "own"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder output of recordings, of each as if it were alone.

        Args:
            speech: tensors (n_samples,), 16 kHz.
            window: `published` pads each to 20 s with silence, and cuts longer ones.

        Returns:
            (B, T, D) and the true lengths (B,).

        Raises:
            DecodeError: the model has no decoder; see `ctc_scores`.
        """
        if self.is_ctc_only:
            raise DecodeError(
                "this model has no decoder, and its encoder reads language, task and "
                "prompt with the audio: use decode: ctc"
            )
        padded, lengths = _padded(speech, window, self._n_heard)
        out, lens = self.model.encode(padded.to(self.device), lengths.to(self.device))
        return (out[0] if isinstance(out, tuple) else out), lens

    def check_ctc_says_phones(self) -> None:
        """To be called before the labels of the CTC head are read as tokens.

        Raises:
            DecodeError: there is no head, or training taught it code points, which
                have tokens of other meanings.
        """
        if self.model.ctc is None:
            raise DecodeError(
                "this model has no CTC head (model_conf.ctc_weight: 0), which gives "
                "phones their times and cuts long recordings: decode: attention, "
                f"without times, up to {WINDOW_S:g} s, is what it can be decoded with"
            )
        target = getattr(self.model, "ctc_target", "phones")
        if target.startswith(CODE_POINTS):
            raise DecodeError(
                f"the CTC head of this model says code points (ctc_target {target}), "
                "no phones: decode: attention, without ctc_weight and "
                "ctc_length_bound, is what it can be decoded with"
            )

    @property
    def _n_heard(self) -> int:
        return self.model.frontend.stft.n_fft // 2

    @property
    def is_ctc_only(self) -> bool:
        """Whether there is no decoder: language, task and prompt enter the encoder."""
        return isinstance(self.model, PowsmCtcModel)

    @property
    def finds_language(self) -> bool:
        """Whether training taught it to."""
        return not self.is_ctc_only or self.model.lang_apply_prob < 1.0

    def check(self, profile: Profile) -> None:
        """Refuse a profile that this model cannot do.

        Raises:
            DecodeError: see `Profile.check_model`.
        """
        profile.check_model(
            has_decoder=not self.is_ctc_only, finds_language=self.finds_language
        )
        if profile.blocks and (
            unknown := sorted(set(profile.blocks) - set(self.model.head_blocks))
        ):
            raise DecodeError(
                f"block {unknown[0]} has no CTC head; those of this model are after "
                f"blocks {' '.join(map(str, self.model.head_blocks))}"
            )

    def ctc_scores(
        self,
        speech: Sequence[torch.Tensor],
        langs: Sequence[str],
        task: str,
        texts: Sequence[str],
        window: str = "own",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the last head of a model without a decoder says; see `ctc_heads`."""
        heads, n_positions = self.ctc_heads(speech, langs, task, texts, window)
        return heads[max(heads)], n_positions

    @torch.inference_mode()
    def ctc_heads(
        self,
        speech: Sequence[torch.Tensor],
        langs: Sequence[str],
        task: str,
        texts: Sequence[str],
        window: str = "own",
        blocks: Sequence[int] = (),
    ) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """What the heads of a model without a decoder say, in one pass.

        Args:
            speech: tensors (n_samples,), 16 kHz.
            langs: language symbol of each.
            task: `pr asr g2p p2g`.
            texts: the prompt of each, or `<na>`.
            window: see `encode`.
            blocks: of further heads than the last. They say phones or text, as
                `ctc_asr_only` in training had it.

        Returns:
            By block, log-probabilities (B, N_PREFIX + T, V); and numbers of positions
            (B,). Two positions of language and task come before the frames.

        Raises:
            DecodeError: the model has no token for a language, or no such head.
        """
        speech, lengths = _padded(speech, window, self._n_heard)
        texts = [
            self._ids([NA_SYM]) if text == NA_SYM else self.tokenizer.encode(text)
            for text in texts
        ]
        prompts = [torch.tensor(ids) for ids in texts]
        prefix = [self._ids([lang, f"<{task}>"]) for lang in langs]
        ignored = self.model.ignore_id
        pad = torch.nn.utils.rnn.pad_sequence
        heads, n_positions = self.model.heads(
            speech.to(self.device),
            lengths.to(self.device),
            pad(prompts, batch_first=True, padding_value=ignored).to(self.device),
            torch.tensor([len(ids) for ids in prompts]).to(self.device),
            torch.tensor(prefix).to(self.device),
            blocks=blocks,
        )
        return heads, n_positions

    def languages_of(
        self,
        speech: Sequence[torch.Tensor],
        window: str = "own",
        among: Sequence[str] = (),
        task: str = "pr",
    ) -> list[list[tuple[str, float]]]:
        """Languages of recordings, as `detect_languages` gives them.

        Args:
            speech, window: see `encode`.
            among: see `detect_languages`.
            task: what a model without a decoder is asked meanwhile.

        Raises:
            DecodeError: the model was not taught to find languages, or has no token for
                one of them.
        """
        if not self.is_ctc_only:
            return self.detect_languages(*self.encode(speech, window), among)
        if not self.finds_language:
            raise DecodeError(
                "finding the language is nothing that this model was taught: it was "
                "given that of every example (lang_apply_prob: 1.0); name it, or train "
                "with lang_apply_prob below 1"
            )
        # as in training: a task, and no language
        asked = ([UNKNOWN_LANG_SYM] * len(speech), task, [NA_SYM] * len(speech))
        return self.detect_languages(*self.ctc_scores(speech, *asked, window), among)

    def _ids(self, symbols: Sequence[str]) -> list[int]:
        ids = self.tokenizer.token_ids
        for symbol in symbols:
            if symbol not in ids:
                raise DecodeError(
                    f"{symbol} is not in this model's vocabulary; use "
                    f"{UNKNOWN_LANG_SYM} for a language, another model for a task"
                )
        return [ids[symbol] for symbol in symbols]

    @contextmanager
    def precision(self, dtype: str) -> Iterator[None]:
        """Compute in `float32`, or with matrix products in `bfloat16`.

        ESPnet's positional tables take the type of what they are added to, and do not
        go back. They are put back here, so that a pass in bfloat16 leaves no rounding
        to the next one in float32.
        """
        tables = {
            module: module.pe
            for module in self.model.modules()
            if isinstance(getattr(module, "pe", None), torch.Tensor)
        }
        is_half = dtype == "bfloat16"
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=is_half):
                yield
        finally:
            if is_half:
                for module, table in tables.items():
                    module.pe = table

    def prompt(self, lang_sym: str, task: str, text_prev: str = NA_SYM) -> list[int]:
        """Token ids that an output starts from.

        Raises:
            DecodeError: the model has no token for the language, or for the task.
        """
        model = self.model
        prompt = [model.sos, *self._ids([lang_sym, f"<{task}>", NO_TIME_SYM])]
        if text_prev == NA_SYM:
            return prompt
        return [model.sop, *self.tokenizer.encode(text_prev), *prompt]

    def languages(self) -> list[str]:
        """Language symbols of the vocabulary, in its order."""
        known = [f"<{code}>" for code in LANGUAGES]
        return [sym for sym in known if sym in self.tokenizer.token_ids]

    def detect_languages(
        self, memory: torch.Tensor, lens: torch.Tensor, among: Sequence[str] = ()
    ) -> list[list[tuple[str, float]]]:
        """Languages of encoded recordings, likeliest first, with log-probabilities.

        Args:
            memory: (B, T, D) encoder output, or what the last head of a model without a
                decoder says, (B, T, V) of `ctc_scores`.
            lens: (B,) true numbers of frames.
            among: codes to choose from; empty: all that the model has.

        Raises:
            DecodeError: the model has no token for one of them, or for any language.
        """
        symbols = self.languages()
        if not symbols:
            raise DecodeError(
                "no language is in this model's vocabulary, so that it can hear none; "
                f"use {UNKNOWN_LANG_SYM}"
            )
        if among:
            # each once: twice it would take twice its share of the probability
            asked = list(dict.fromkeys(f"<{code}>" for code in among))
            if unknown := sorted(set(asked) - set(symbols)):
                raise DecodeError(
                    f"{' '.join(unknown)} is not in this model's vocabulary; it has "
                    f"{' '.join(symbols)}"
                )
            symbols = asked
        ids = [self.tokenizer.token_ids[sym] for sym in symbols]
        if self.is_ctc_only:
            blank = self.model.blank_id
            log_probs = first_label_log_probs(memory, lens, ids, blank=blank)
        else:
            log_probs = language_log_probs(self.model, memory, lens, ids)
        log_probs = log_probs.log_softmax(-1).cpu()  # in one transfer
        order = log_probs.argsort(dim=-1, descending=True)
        return [
            [(symbols[i], row[i]) for i in best]
            for row, best in zip(log_probs.tolist(), order.tolist(), strict=True)
        ]


def bytes_a_second(model: ESPnetS2TModel | PowsmCtcModel, n_hyps: int) -> float:
    """Memory that a second of audio takes while it is decoded, beside the weights.

    The convolutions of the encoder hold most, later keys and values of the decoder, as
    many tokens as frames. Both count twice: for what is made of them, and for gaps.
    Models without a decoder have a table of all tokens after every CTC head instead.

    Args:
        n_hyps: hypotheses of a search.
    """
    grid = FrameGrid.of(model)
    rate, n_bands = SAMPLE_RATE / grid.hop, model.frontend.output_size()
    n_numbers = rate * n_bands
    for conv in model.encoder.embed.modules():
        if isinstance(conv, torch.nn.Conv1d | torch.nn.Conv2d):
            rate /= conv.stride[0]
            if isinstance(conv, torch.nn.Conv2d):
                n_bands = (n_bands - conv.kernel_size[1]) // conv.stride[1] + 1
            else:
                n_bands = 1
            n_numbers += rate * n_bands * conv.out_channels
    if isinstance(model, PowsmCtcModel):
        n_numbers += 2 * rate * len(model.token_list)
    elif model.decoder is not None:  # which `model_conf.ctc_weight: 1` leaves out
        width = model.encoder.output_size()
        n_numbers += rate * 2 * len(model.decoder.decoders) * width * (1 + n_hyps)
    return 2 * 4 * n_numbers
