"""A trained model with its tokenizer: encoding, prompts, and languages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from espnet2.s2t.espnet_model import ESPnetS2TModel

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.decode.profile import DecodeError
from powsm.decode.search import language_log_probs
from powsm.files.whole import sha256_file
from powsm.languages import LANGUAGES, UNKNOWN_LANG_SYM
from powsm.model.find import CheckpointError, ModelFiles, find_model
from powsm.model.weights import load_model
from powsm.tasks import NA_SYM, NO_TIME_SYM
from powsm.vocabulary.code_points import PREFIX as CODE_POINTS
from powsm.vocabulary.tokenizer import Tokenizer


@dataclass(frozen=True)
class Recogniser:
    """A model with its tokenizer, ready to decode."""

    model: ESPnetS2TModel
    tokenizer: Tokenizer
    device: torch.device
    weights: str  # short hash of the weights' file

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
        weights = sha256_file(files.weights_file)[:12]
        return cls(loaded, tokenizer, torch.device(device), weights)

    @torch.inference_mode()
    def encode(
        self, speech: Sequence[torch.Tensor], window: str = "own"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder output of recordings.

        Args:
            speech: tensors (n_samples,), 16 kHz.
            window: `published` pads each to 20 s with silence, and cuts longer ones.

        Returns:
            (B, T, D) and the true lengths (B,).
        """
        if window == "published":
            n = int(WINDOW_S * SAMPLE_RATE)
            speech = [
                torch.nn.functional.pad(s[:n], (0, n - len(s[:n]))) for s in speech
            ]
        lengths = torch.tensor([len(s) for s in speech])
        padded = torch.nn.utils.rnn.pad_sequence(list(speech), batch_first=True)
        out, lens = self.model.encode(padded.to(self.device), lengths.to(self.device))
        return (out[0] if isinstance(out, tuple) else out), lens

    def check_ctc_says_phones(self) -> None:
        """To be called before the labels of the CTC head are read as tokens.

        Raises:
            DecodeError: training taught it code points, which have tokens of other
                meanings.
        """
        target = getattr(self.model, "ctc_target", "phones")
        if target.startswith(CODE_POINTS):
            raise DecodeError(
                f"the CTC head of this model says code points (ctc_target {target}), "
                "no phones: decode: attention, without ctc_weight and "
                "ctc_length_bound, is what it can be decoded with"
            )

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
            DecodeError: the model has no token for the language.
        """
        ids = self.tokenizer.token_ids
        if lang_sym not in ids:
            raise DecodeError(
                f"{lang_sym} is not in this model's vocabulary; use {UNKNOWN_LANG_SYM}"
            )
        model = self.model
        prompt = [model.sos, ids[lang_sym], ids[f"<{task}>"], ids[NO_TIME_SYM]]
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
            memory: (B, T, D) encoder output.
            lens: (B,) true numbers of frames.
            among: codes to choose from; empty: all that the model has.

        Raises:
            DecodeError: the model has no token for one of them.
        """
        symbols = self.languages()
        if among:
            asked = [f"<{code}>" for code in among]
            if unknown := sorted(set(asked) - set(symbols)):
                raise DecodeError(
                    f"{' '.join(unknown)} is not in this model's vocabulary; it has "
                    f"{' '.join(symbols)}"
                )
            symbols = asked
        ids = [self.tokenizer.token_ids[sym] for sym in symbols]
        log_probs = language_log_probs(self.model, memory, lens, ids).log_softmax(-1)
        log_probs = log_probs.cpu()  # in one transfer
        order = log_probs.argsort(dim=-1, descending=True)
        return [
            [(symbols[i], row[i]) for i in best]
            for row, best in zip(log_probs.tolist(), order.tolist(), strict=True)
        ]
