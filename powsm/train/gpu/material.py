"""Made-up recordings, tokens and batches of the usual lengths."""

import argparse
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.model.batch import Batch
from powsm.model.build import build
from powsm.settings import apply_overrides, load_with_base
from powsm.tasks import examples
from powsm.train import config
from powsm.train.dataset import text_encoder
from powsm.vocabulary.extend import NewTokens, extend_pieces
from powsm.vocabulary.symbols import phone_symbols, special_symbols
from powsm.vocabulary.train import train_sentencepiece, write_tokenizer

PHONES_PER_S, PIECES_PER_S = 10.8, 3.5  # of the mini corpus, in which we counted them
PHONES = "a e i o u ə ɛ ɔ ɪ ʊ p b t d k ɡ m n ŋ f v s z ʃ ʒ x h l r j w".split()
WORDS = [f"{a}{b}{c}" for a in "bdfk" for b in "aeiou" for c in "lmnrst"]
LANG = "eng"
_N_PIECES = 30
_SMALL = {
    "encoder_conf.num_blocks": 1,
    "encoder_conf.output_size": 32,
    "encoder_conf.attention_heads": 2,
    "encoder_conf.linear_units": 64,
    "encoder_conf.cgmlp_linear_units": 64,
    "decoder_conf.num_blocks": 1,
    "decoder_conf.attention_heads": 2,
    "decoder_conf.linear_units": 64,
    "use_amp": False,
    "num_workers": 0,
}
_DROPOUTS = (
    *("dropout_rate", "positional_dropout_rate", "attention_dropout_rate"),
    *("self_attention_dropout_rate", "src_attention_dropout_rate"),
)


@dataclass(frozen=True)
class Material:
    """What the sections work with.

    Args:
        config: training YAML of the model that is to be measured.
        device: where.
        folder: for files; the caller removes it.
        is_tiny: a model and batches of seconds on a CPU, for tests of the sections.
    """

    config: Path
    device: torch.device
    folder: Path
    is_tiny: bool

    @cached_property
    def token_dir(self) -> Path:
        """`tokens.txt` and `bpe.model`, of the published size where it is not tiny."""
        special = special_symbols([LANG], None)
        symbols = [*special, *phone_symbols(PHONES)]
        n_pieces = len(symbols) + 3 + _N_PIECES
        bpe = train_sentencepiece(WORDS * 20, n_pieces=n_pieces, symbols=symbols)
        n_more = 0 if self.is_tiny else 40_000 - n_pieces
        more = [f"▁unused{i}" for i in range(n_more)]
        folder = self.folder / "tokens"
        write_tokenizer(folder, extend_pieces(bpe, NewTokens([], [], more)), special)
        return folder

    @cached_property
    def stats(self) -> Path:
        """Mean and variance that leave features about as they are."""
        path = self.folder / "feats_stats.npz"
        sums = {"sum": np.zeros(80), "sum_square": np.full(80, 100.0)}
        np.savez(path, count=100, **sums)
        return path

    def settings(self, **changes) -> dict:
        """The configuration with made-up tokens; keys as those of `--set`."""
        if self.is_tiny:
            changes = _SMALL | changes
        lines = [f"{key}={value}" for key, value in changes.items()]
        values = apply_overrides(load_with_base(self.config), lines)
        values["init"] = None  # PyTorch's own, sooner
        return config.with_data(values, token_dir=self.token_dir, stats=self.stats)

    def arguments(self, **changes) -> argparse.Namespace:
        """All settings, ESPnet's defaults included."""
        return config.parse(self.settings(**changes), self.folder / "settings.yaml")

    def model(self, *, is_stock: bool = False, **changes) -> torch.nn.Module:
        """Ours, or ESPnet's, with random weights, always the same; on the CPU."""
        args = self.arguments(**changes)
        torch.manual_seed(0)
        return build(config.stock_config(args) if is_stock else vars(args))

    def without_chance(self) -> dict:
        """Changes of settings that leave out dropout and SpecAugment."""
        values = self.settings()
        changes = {
            f"{part}.{key}": 0.0
            for part in ("encoder_conf", "decoder_conf")
            for key in _DROPOUTS
            if key in values[part]
        }
        return changes | {"specaug": "null", "specaug_conf": "{}"}

    def batch(self, model: torch.nn.Module, seconds: Sequence[float]) -> Batch:
        """Recordings of noise with the examples of all four tasks, laid out."""
        from powsm.train.dataset import collate  # its index loads numba

        rng = np.random.default_rng(0)
        encode = text_encoder(self.arguments())
        items = []
        for number, duration in enumerate(seconds):
            rows = said(f"noise_u{number:05d}_{LANG}", duration, rng)
            speech = rng.normal(0, 0.1, int(duration * SAMPLE_RATE))
            items.append(
                {
                    "utt_id": f"noise_u{number:05d}_{LANG}",
                    "example_ids": [row.pop("id") for row in rows],
                    "speech": speech.astype(np.float32),
                    "examples": [encode(row) for row in rows],
                }
            )
        batch = collate(items)
        maker = getattr(model, "layout_maker", None)
        return batch if maker is None else replace(batch, layout=maker(batch))

    def dump(self, n_train: int, n_valid: int) -> Path:
        """Dump folders `train` and `dev` of noise, of IPAPack++'s lengths."""
        rng = np.random.default_rng(0)
        for name, n in (("train", n_train), ("dev", n_valid)):
            low, high = (1.0, 1.5) if self.is_tiny else (1.0, WINDOW_S)
            seconds = np.clip(rng.gamma(2.83, 2.61, n), low, high)
            _write_set(self.folder / "dump" / name, seconds, rng)
        return self.folder / "dump"


def said(utt_id: str, seconds: float, rng: np.random.Generator) -> list[dict[str, str]]:
    """`id text text_prev text_ctc` of an utterance's examples."""
    phones = list(rng.choice(PHONES, max(1, int(seconds * PHONES_PER_S))))
    text = " ".join(rng.choice(WORDS, max(1, int(seconds * PIECES_PER_S / 1.5))))
    return [
        {
            "id": example.example_id,
            "text": example.text,
            "text_prev": example.text_prev,
            "text_ctc": example.text_ctc,
        }
        for example in examples(utt_id, LANG, phones, phones, text)
    ]


def _write_set(folder: Path, seconds: np.ndarray, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    files = {"text": "text", "text.prev": "text_prev", "text.ctc": "text_ctc"}
    lines: dict[str, list[str]] = {
        name: [] for name in (*files, "wav.scp", "utt2num_samples")
    }
    for number, duration in enumerate(seconds):
        utt_id = f"noise_u{number:05d}_{LANG}"
        n_samples = int(duration * SAMPLE_RATE)
        path = folder / f"{utt_id}.wav"
        samples = rng.integers(-3000, 3000, n_samples, np.int16)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, n_samples, "NONE", ""))
            file.writeframes(samples.tobytes())
        for row in said(utt_id, duration, rng):
            for name, key in files.items():
                lines[name].append(f"{row['id']} {row[key]}\n")
            lines["wav.scp"].append(f"{row['id']} {path}\n")
            lines["utt2num_samples"].append(f"{row['id']} {n_samples}\n")
    for name, rows in lines.items():
        (folder / name).write_text("".join(sorted(rows)), encoding="utf-8")
