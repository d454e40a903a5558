#!/usr/bin/env python3
"""Boundary error of forced alignment, on generated speech with known phone times.

espeak-ng says invented sentences in eight languages by several voices and tells when
each of its sounds begins. The encoder and CTC head of a training config learn from
them; held-out sentences are aligned by `powsm.decode.align` and compared. Prints one
JSON line:

  median_ms, mean_ms   distance from the true beginning of a sound, reference aligned
  within_40ms          share of beginnings at most one encoder frame (40 ms) off
  bias_ms              median of the signed error; above 0: found too late
  own_median_ms        the model's own output aligned, where it is the true phone
  per                  phone error rate of that output, in percent

espeak-ng units of two phones, such as a diphthong, give one time, that of the first.
--quick trains for seconds, to see that everything runs; its numbers mean nothing.
"""

import argparse
import json
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly

from powsm.audio import SAMPLE_RATE, read_audio
from powsm.corpora.small.espeak import VOICES, synthesise
from powsm.decode.align import Segment, align
from powsm.decode.recogniser import Recogniser
from powsm.files.datadir import write_scp
from powsm.phones.normaliser import Normaliser, strip_suprasegmentals
from powsm.score.distance import PhonePairs
from powsm.tasks import examples
from powsm.train import config
from powsm.train.run import train
from powsm.vocabulary.train import TokenizerSettings, train_tokenizer

LANGS = ("eng", "deu", "fra", "ita", "pol", "por", "spa", "swe")
VARIANTS = ("", "+m2", "+m3", "+m7", "+f2", "+f4")  # of espeak-ng's voices
ONSETS = "p b t d k g f v s z m n l r w j sh ch st pr tr kl br".split() + [""]
VOWELS = "a e i o u ai ou ee".split()
CODAS = ["", "", "", *"n m l r s t k".split()]


@dataclass(frozen=True)
class Sound:
    """A phone and, for the first phone of an espeak-ng unit, its beginning."""

    phone: str
    start_s: float | None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=Path, default=Path("conf/train_mini.yaml"), help="the model")
    add("--n_train", type=int, default=2400, help="sentences of about 2 s")
    add("--n_test", type=int, default=160, help="held-out sentences")
    add("--updates", type=int, default=1000, help="of 25 s of audio each")
    add("--work", type=Path, help="keep data and model here; default: thrown away")
    add("--quick", action="store_true", help="3 updates")
    add("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.quick:
        args.n_train, args.n_test, args.updates = 100, 8, 3
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("powsm").setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(run(args, args.work or Path(scratch))))


def run(args: argparse.Namespace, work: Path) -> dict:
    rng = np.random.default_rng(0)
    sizes = {"train": args.n_train, "dev": 32, "test": args.n_test}
    sets = {name: make_set(work / name, n, rng) for name, n in sizes.items()}
    started = time.perf_counter()
    exp = train_model(args, work)
    train_s = time.perf_counter() - started
    recogniser = Recogniser.load(exp)
    modules = (recogniser.model.encoder, recogniser.model.ctc)
    n_parameters = sum(p.numel() for m in modules for p in m.parameters())
    return {
        **measure(recogniser, work / "test", sets["test"]),
        "params_m": round(n_parameters / 1e6, 2),
        "train_s": round(train_s),
        "voices": len(LANGS) * len(VARIANTS),
    }


def sentence(rng: np.random.Generator) -> str:
    """Three to five words of one to three syllables."""
    return " ".join(
        "".join(
            rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
            for _ in range(rng.integers(1, 4))
        )
        for _ in range(rng.integers(3, 6))
    )


def make_set(
    folder: Path, n_sentences: int, rng: np.random.Generator
) -> dict[str, list[Sound]]:
    """Write a dump folder of generated speech; the sounds of each sentence."""
    normaliser = Normaliser(english_rules=False)
    (folder / "wav").mkdir(parents=True)
    names = ("wav.scp", "text", "text.prev", "text.ctc")
    names += ("utt2num_samples", "utt2lang", "utt2speaker")
    rows = {name: {} for name in names}
    sounds = {}
    for number in range(n_sentences):
        lang = LANGS[number % len(LANGS)]
        text = sentence(rng)
        voice = VOICES[lang] + str(rng.choice(VARIANTS))
        samples, rate, events = synthesise(text, voice)
        speech = resample_poly(samples, SAMPLE_RATE, rate)
        utt_id = f"espeak_{number:06d}_{lang}"
        path = folder / "wav" / f"{utt_id}.flac"
        soundfile.write(path, speech, SAMPLE_RATE)
        sounds[utt_id] = [
            Sound(phone, None if i else event.start_s)
            for event in events
            for i, phone in enumerate(
                strip_suprasegmentals(normaliser.segment(event.phone).phones)
            )
        ]
        phones = [sound.phone for sound in sounds[utt_id]]
        for example in examples(utt_id, lang, phones, phones, text):
            key, *values = example
            values = (str(path), *values, str(len(speech)), lang, voice)
            for name, value in zip(names, values, strict=True):
                rows[name][key] = value
    for name, pairs in rows.items():
        write_scp(folder / name, sorted(pairs.items()))
    return sounds


def train_model(args: argparse.Namespace, work: Path) -> Path:
    """Train encoder and CTC head alone; the experiment folder."""
    tokens = TokenizerSettings(
        n_pieces=250,
        only_observed_phones=True,
        only_observed_languages=True,
        time_step_s=None,
    )
    train_tokenizer(work / "train", work / "tokens", tokens)
    n_epochs = max(1, args.updates // 200)
    n_warm = min(100, args.updates // 10)
    settings = config.load(args.config)
    settings |= {
        "model_conf": {"ctc_weight": 1.0},
        "tasks": ["pr"],
        "normalize": "utterance_mvn",
        "scheduler_conf": {
            "warmup_steps_list": [0, n_warm, args.updates],
            "warmup_lr_list": [0.0, 0.0025, 0.0],
        },
        "max_epoch": n_epochs,
        "num_iters_per_epoch": args.updates // n_epochs,
        "keep_nbest_models": 1,
        "num_workers": 0,
        "token_list": str(work / "tokens/tokens.txt"),
        "token_type": "bpe",
        "bpemodel": str(work / "tokens/bpe.model"),
    }
    exp = work / "exp"
    exp.mkdir(exist_ok=True)
    parsed = config.parse(settings, exp / "settings.yaml")
    train(parsed, train_folder=work / "train", valid_folder=work / "dev", exp=exp)
    return exp


def measure(recogniser: Recogniser, folder: Path, sounds: dict) -> dict:
    errors: list[float] = []
    own: list[list[Segment]] = []
    for utt_id, expected in sounds.items():
        audio = str(folder / "wav" / f"{utt_id}.flac")
        speech = torch.from_numpy(read_audio(audio))
        found = align(recogniser, speech, [sound.phone for sound in expected])
        errors += [
            segment.start - sound.start_s
            for segment, sound in zip(found, expected, strict=True)
            if sound.start_s is not None
        ]
        own.append(align(recogniser, speech))
    pairs = PhonePairs(
        hyp=[[segment.phone for segment in segments] for segments in own],
        ref=[[sound.phone for sound in expected] for expected in sounds.values()],
    )
    own_errors = []
    for segments, expected, aligned in zip(
        own, sounds.values(), pairs.alignments("feature"), strict=True
    ):
        hyps, refs = iter(segments), iter(expected)
        for pair in aligned:
            segment = next(hyps) if pair.hyp is not None else None
            sound = next(refs) if pair.ref is not None else None
            if segment and sound and segment.phone == sound.phone:
                if sound.start_s is not None:
                    own_errors.append(segment.start - sound.start_s)
    ms = 1000 * np.array(errors)
    counts = pairs.edit_counts().sum()
    return {
        "median_ms": round(float(np.median(abs(ms))), 1),
        "mean_ms": round(float(abs(ms).mean()), 1),
        "within_40ms": round(float((abs(ms) <= 40).mean()), 3),
        "bias_ms": round(float(np.median(ms)), 1),
        "own_median_ms": round(1000 * float(np.median(np.abs(own_errors))), 1)
        if own_errors
        else None,
        "per": round(100 * float(counts) / float(pairs.n_ref.sum()), 1),
        "n_sounds": len(errors),
        "n_utts": len(sounds),
    }


if __name__ == "__main__":
    main()
