#!/usr/bin/env python
"""Speed and agreement of our training step against stock ESPnet's on the same examples.

Prints one JSON line. Durations follow IPAPack++'s published distribution (mean 7.4 s,
standard deviation 4.4, quartiles 4.2 / 5.7 / 8.7), utterances over 20 s left out as in
stage 4; 10.8 phones and 3.5 word pieces a second; four examples an utterance. Reading,
preprocessing, forward, backward and AdamW are timed, in seconds of the process on one
thread, so other work on the machine does not count:

  published  ESPnetS2TModel, S2TPreprocessor with its 20 s window, ESPnet's unsorted
             sampler and collate function: what `espnet2.bin.s2t_train` runs
  rows       ESPnetS2TModel on our batches, one row an example: no window
  ours       powsm's model and loader

  ratio          published / ours in seconds an example; the smaller of the model sizes
  ratio_padding  published / rows: what the window costs
  ratio_shared   rows / ours: what encoding every example anew costs
  loss_rel_diff  of one batch with dropout and SpecAug off, padded and not, the larger
  grad_rel_diff  of the worst parameter: norm of the difference / norm of the gradient

The models are conf/train_powsm.yaml, or with --ctc_only conf/train_powsm_ctc.yaml,
with fewer and narrower blocks; PyTorch's attention takes the place of flash-attn, for
both. Of one without a decoder `ours` shares features and subsampling, not the encoder.
"""

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from espnet2.tasks import s2t, s2t_ctc
from espnet2.train.distributed_utils import DistributedOption
from scipy.stats import beta

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.model.batch import Batch
from powsm.model.build import task_of_model
from powsm.model.kernels import choose_convolutions
from powsm.model.s2t_ctc import N_PREFIX
from powsm.model.start_from import NewTokens, extend_pieces
from powsm.prepare.index import ExampleIndex
from powsm.settings import load_yaml
from powsm.tasks import examples
from powsm.train import config
from powsm.train.batches.options import BatchOptions
from powsm.train.dataset import UtteranceDataset
from powsm.train.lit import text_encoder
from powsm.train.loader import UtteranceLoader
from powsm.train.stock import ESPNET_TYPE, register_with_espnet
from powsm.vocabulary.symbols import phone_symbols, special_symbols
from powsm.vocabulary.train import train_sentencepiece, write_tokenizer

CONF = Path(__file__).parents[2] / "conf"
PHONES_PER_S, PIECES_PER_S = 10.8, 3.5
PHONES = "a e i o u ə ɛ ɔ ɪ ʊ p b t d k ɡ m n ŋ f v s z ʃ ʒ x h l r j w".split()


@dataclass(frozen=True)
class Kind:
    """A model of the papers, as stock ESPnet has it and as we do."""

    config: Path
    task: type  # ESPnet's
    stock: str
    ours: str
    parts: tuple[str, str]
    rows: int  # of a stock batch

    def settings(self, size: "Size") -> dict[str, dict]:
        """Its parts at another size."""
        wide, width = 4 * size.width, size.width
        common = {"attention_heads": size.heads, "linear_units": wide}
        encoder = {"output_size": width, "cgmlp_linear_units": wide}
        encoder |= common | {"num_blocks": size.blocks}
        if self is POWSM:
            return {
                "encoder_conf": encoder,
                "decoder_conf": common | {"num_blocks": size.blocks},
            }
        # heads and cross-attention stand where they do in 18 blocks
        encoder["interctc_layer_idx"] = [size.blocks * n // 18 for n in (4, 8, 10, 14)]
        encoder["use_cross_attention"] = [n % 3 == 2 for n in range(size.blocks)]
        prompt = {"output_size": 2 * width // 3 // 8 * 8, "linear_units": 2 * width}
        return {
            "encoder_conf": encoder,
            "promptencoder_conf": {"attention_heads": size.heads} | prompt,
        }


POWSM = Kind(
    CONF / "train_powsm.yaml",
    s2t.S2TTask,
    "espnet",
    "powsm",
    ("encoder_conf", "decoder_conf"),
    rows=16,  # published: 64 over four GPUs
)
POWSM_CTC = Kind(
    CONF / "train_powsm_ctc.yaml",
    s2t_ctc.S2TTask,
    "espnet_ctc",
    "powsm_ctc",
    ("encoder_conf", "promptencoder_conf"),
    rows=4,  # of 20 s each: 16 take more than 7 GB
)


@dataclass(frozen=True)
class Size:
    """A model and the data it is measured on."""

    width: int
    heads: int
    blocks: int
    n_tokens: int
    n_utts: int
    batch_seconds: float = 40.0
    kind: Kind = POWSM


SIZES = [Size(144, 4, 4, 8_000, 12), Size(256, 4, 6, 8_000, 8)]
# three recordings alone do not fill a batch of like lengths: no batch takes all three
QUICK = [Size(64, 4, 2, 1_000, 3, 20.0), Size(96, 4, 2, 1_000, 3, 20.0)]
# five heads score every token, in 16 rows of 20 s: with 8,000 tokens that is 7 GB
CTC_SIZES = [
    Size(160, 4, 9, 2_000, 4, kind=POWSM_CTC),
    Size(304, 4, 9, 2_000, 4, kind=POWSM_CTC),
]
CTC_QUICK = [Size(32, 4, 9, 1_000, 3, 20.0, kind=POWSM_CTC)]
FULL = [Size(768, 12, 9, 40_000, 1)]  # one step: four rows, 7.4 s


def durations(n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` durations in seconds, evenly over the quantiles of IPAPack++.

    A quarter lies in each of 1-4.2, 4.2-5.7, 5.7-8.7 and 8.7-24 s. The first leans to
    its upper end and the last to its lower, as mean and standard deviation demand.
    """
    if n == 1:
        return np.array([7.4])
    quantile = (np.arange(n) + 0.5) / n
    part, rest = np.divmod(4 * quantile, 1)
    inside = np.select(
        [part == 0, part == 3],
        [beta.ppf(rest, 2.5, 1), beta.ppf(rest, 2.08, 3.76)],
        rest,
    )
    low = np.array([1.0, 4.2, 5.7, 8.7])
    high = np.array([4.2, 5.7, 8.7, 24.0])
    seconds = (low + (high - low) * inside[:, None])[np.arange(n), part.astype(int)]
    return rng.permutation(seconds[seconds <= WINDOW_S])


def make_data(folder: Path, size: Size) -> Path:
    """A dump folder of noise with made-up transcripts, and its tokens."""
    rng = np.random.default_rng(0)
    words = sorted({"".join(rng.choice(list("abcdefghijkl"), 5)) for _ in range(300)})
    rows: dict[str, list] = {name: [] for name in
        ("wav.scp", "text", "text.prev", "text.ctc", "utt2num_samples")}  # fmt: skip
    texts = []
    for number, seconds in enumerate(durations(size.n_utts, rng)):
        utt_id = f"noise_u{number:05d}_eng"
        speech = rng.normal(0, 0.1, int(seconds * SAMPLE_RATE))
        path = folder / f"{utt_id}.flac"
        soundfile.write(path, speech, SAMPLE_RATE)
        phones = list(rng.choice(PHONES, int(seconds * PHONES_PER_S)))
        text = " ".join(rng.choice(words, max(1, int(seconds * PIECES_PER_S))))
        texts.append(text)
        for example in examples(utt_id, "eng", phones, phones, text):
            rows["wav.scp"].append((example.example_id, path))
            rows["text"].append((example.example_id, example.text))
            rows["text.prev"].append((example.example_id, example.text_prev))
            rows["text.ctc"].append((example.example_id, example.text_ctc))
            rows["utt2num_samples"].append((example.example_id, len(speech)))
    for name, pairs in rows.items():
        lines = sorted(f"{key} {value}\n" for key, value in pairs)
        (folder / name).write_text("".join(lines))
    special = special_symbols(["eng"], None)
    symbols = [*special, *phone_symbols(PHONES)]
    bpe = train_sentencepiece(
        [*words * 20, *texts], n_pieces=len(symbols) + 3 + 250, symbols=symbols
    )
    left = size.n_tokens - len(symbols) - 3 - 250
    bpe = extend_pieces(bpe, NewTokens([], [], [f"▁unused{i}" for i in range(left)]))
    write_tokenizer(folder / "tokens", bpe, special)
    return folder


def settings(
    size: Size, folder: Path, *, ours: bool, dropout: bool
) -> argparse.Namespace:
    """The published settings at another size."""
    kind = size.kind
    model = kind.ours if ours else kind.stock
    attention = {"use_flash_attn": False, "use_sdpa": True}
    values = load_yaml(kind.config)
    for part, conf in kind.settings(size).items():
        values[part] |= conf | attention
    if not dropout:
        values |= {"specaug": None, "specaug_conf": {}}
        rates = ("dropout_rate", "positional_dropout_rate", "attention_dropout_rate")
        for part in kind.parts:
            conf = values[part]
            conf |= {key: 0.0 for key in conf if key.endswith("dropout_rate")}
        if kind is POWSM_CTC:  # whose prompt encoder has ESPnet's own
            values["promptencoder_conf"] |= dict.fromkeys(rates, 0.0)
    files = [
        [str(folder / "wav.scp"), "speech", ESPNET_TYPE],
        [str(folder / "text.prev"), "text_prev", "text"],
        [str(folder / "text.ctc"), "text_ctc", "text"],
        [str(folder / "text"), "text", "text"],
    ]
    values |= {
        "model": model,
        "normalize": "utterance_mvn",
        "token_list": str(folder / "tokens/tokens.txt"),
        "token_type": "bpe",
        "bpemodel": str(folder / "tokens/bpe.model"),
        "batch_size": kind.rows,
        "num_iters_per_epoch": None,
        "num_workers": 0,
        "ngpu": 0,
    }
    args = config.parse(values, folder / f"{model}.yaml")
    args.train_data_path_and_name_and_type = files
    args.train_shape_file = [str(folder / "utt2num_samples")]
    args.fold_length = [80_000]
    return args


def build(task: type, args: argparse.Namespace, like: torch.nn.Module | None = None):
    torch.manual_seed(0)
    model = task.build_model(args)
    if like is not None:
        model.load_state_dict(like.state_dict())
    return model


def as_rows(batch: dict, kind: Kind) -> dict:
    """Our batch as one row an example, ESPnet's layout."""
    batch = {k: v for k, v in batch.items() if not k.startswith("prefix")}
    rows = Batch.of(batch).row_for_each_example().tensors()
    del rows["example_audio"]
    if kind is POWSM_CTC:
        rows["prefix"] = rows["text"][:, :N_PREFIX]
        rows["prefix_lengths"] = torch.full_like(rows["text_lengths"], N_PREFIX)
    return rows


def stock_batches(args: argparse.Namespace, kind: Kind, *, train: bool = True):
    """What the stock loop trains on: its sampler, preprocessor and collate function."""
    np.random.seed(0)
    random.seed(0)
    if not train:  # no random silence: all rows of an utterance are the same audio
        args = argparse.Namespace(**vars(args))
        args.preprocessor_conf = args.preprocessor_conf | {"speech_init_silence": 0}
    factory = kind.task.build_iter_factory(args, DistributedOption(), "train")
    for _, batch in factory.build_iter(1, shuffle=False):
        yield batch


def our_batches(args: argparse.Namespace, folder: Path, size: Size):
    dataset = UtteranceDataset(ExampleIndex(folder), text_encoder(args))
    options = BatchOptions(batch_seconds=size.batch_seconds)
    for batch in UtteranceLoader(dataset, options):
        yield batch.tensors()


def seconds_an_example(model: torch.nn.Module, batches, n_batches: int | None) -> float:
    """Seconds of the process: reading, forward, backward and update."""
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
    n_examples, start = 0, time.process_time()
    for number, batch in enumerate(batches):
        if number == n_batches:
            break
        loss, _, weight = model(**batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()
        n_examples += int(weight)
    return (time.process_time() - start) / n_examples


def differences(
    mine: torch.nn.Module, stock: torch.nn.Module, batch: dict, kind: Kind
) -> tuple[float, float]:
    """Relative difference of the loss, and of the worst parameter's gradient."""
    losses = []
    for model, data in ((mine, batch), (stock, as_rows(batch, kind))):
        model.train()
        model.zero_grad()
        loss = model(**{key: value.clone() for key, value in data.items()})[0]
        loss.backward()
        losses.append(float(loss.detach()))
    grads = [(a.grad, b.grad) for a, b in zip(
        mine.parameters(), stock.parameters(), strict=True)
        if b.grad is not None]  # fmt: skip
    # where the true gradient is zero (keys' biases) both hold rounding errors
    rms = max(float(b.norm() / b.numel() ** 0.5) for _, b in grads)
    worst = max(
        float((a - b).norm() / max(b.norm(), 1e-4 * rms * b.numel() ** 0.5))
        for a, b in grads
    )
    return abs(losses[0] / losses[1] - 1), worst


def check(size: Size, folder: Path) -> tuple[float, float]:
    """Agreement on a batch at its own lengths and on one padded to the window."""
    kind = size.kind
    args = settings(size, folder, ours=False, dropout=False)
    stock = build(kind.task, args)
    mine = settings(size, folder, ours=True, dropout=False)
    mine = build(task_of_model(kind.ours), mine, like=stock)
    choose_convolutions(mine)
    unpadded = next(iter(our_batches(args, folder, size)))
    padded = next(iter(stock_batches(args, kind, train=False)))
    padded.pop("utt_id", None)
    n = len(padded["text"])
    padded["example_audio"] = torch.arange(n) // 4  # the four tasks come together
    padded["example_ctc"] = torch.arange(n)
    for name in ("speech", "speech_lengths"):
        padded[name] = padded[name][::4]
    found = [differences(mine, stock, batch, kind) for batch in (unpadded, padded)]
    return max(loss for loss, _ in found), max(grad for _, grad in found)


def measure(size: Size, folder: Path, n_batches: int | None) -> dict:
    kind = size.kind
    args = settings(size, folder, ours=False, dropout=True)
    mine_args = settings(size, folder, ours=True, dropout=True)
    stock = build(kind.task, args)
    published = stock_batches(args, kind)
    seconds = {"published": seconds_an_example(stock, published, n_batches)}
    rows = (as_rows(batch, kind) for batch in our_batches(args, folder, size))
    seconds["rows"] = seconds_an_example(stock, rows, n_batches)
    n_parameters = sum(p.numel() for p in stock.parameters())
    lengths = ExampleIndex(folder).n_samples
    del stock
    mine = build(task_of_model(kind.ours), mine_args)
    choose_convolutions(mine)
    batches = our_batches(args, folder, size)
    seconds["ours"] = seconds_an_example(mine, batches, n_batches)
    return {
        "params_m": round(n_parameters / 1e6, 1),
        "mean_utterance_s": round(float(lengths.mean()) / SAMPLE_RATE, 2),
        "ratio": round(seconds["published"] / seconds["ours"], 2),
        "ratio_padding": round(seconds["published"] / seconds["rows"], 2),
        "ratio_shared": round(seconds["rows"] / seconds["ours"], 2),
        "examples_per_s": {key: round(1 / value, 2) for key, value in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--quick",
        action="store_true",
        help="two small models, with the comparison of gradients for the first",
    )
    which.add_argument(
        "--full",
        action="store_true",
        help="one step of the published 350 M parameters, without the comparison of "
        "gradients; 20 GB of memory",
    )
    parser.add_argument(
        "--ctc_only", action="store_true", help="the model without a decoder"
    )
    args = parser.parse_args()
    if args.full and args.ctc_only:
        parser.error("--full is for the model with a decoder")
    logging.disable(logging.WARNING)
    sys.stdout, stdout = sys.stderr, sys.stdout  # ESPnet prints
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    register_with_espnet()
    sizes = CTC_SIZES if args.ctc_only else SIZES
    if args.quick:
        sizes = CTC_QUICK if args.ctc_only else QUICK
    elif args.full:
        sizes = FULL
    results, agreement = [], []
    compared = [] if args.full else sizes[:1] if args.quick else sizes
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            data = make_data(Path(folder), size)
            if size in compared:  # which also warms the process up, for all alike
                agreement.append(check(size, data))
            results.append(measure(size, data, 1 if args.full else None))
    slowest = min(results, key=lambda result: result["ratio"])
    line = {key: slowest[key] for key in ("ratio", "ratio_padding", "ratio_shared")}
    if agreement:
        loss, grad = (max(values) for values in zip(*agreement, strict=True))
        line |= {"loss_rel_diff": float(f"{loss:.1e}")}
        line |= {"grad_rel_diff": float(f"{grad:.1e}")}
    line |= {
        "sizes": results,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
    }
    print(json.dumps(line), file=stdout)


if __name__ == "__main__":
    main()
