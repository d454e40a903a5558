#!/usr/bin/env python
"""Speed and agreement of powsm.decode.search against stock ESPnet's Speech2Text.

Prints one JSON line. For each setting, in the same run and on the same utterances:

  ratio_batch1         time of Speech2Text as it comes (one utterance at a time in the
                       20 s window) / time of powsm.decode.search at true lengths
  ratio_batch8         the same against its own batch_decode of 8
  ratio_batch1_padded  like for like: powsm.decode.search given the 20 s window too
  ratio_batch8_padded
  identical            share of utterances with the same tokens in the padded window
  max_score_error      of these, in nats
  max_tie              of the others: largest difference of the scores of the two
                       outputs in nats; near 0 they are equally good
  rtf                  seconds a second of audio, encoder included; rtf_by_batch: of
                       powsm.decode.search at true lengths, by batch size

On one CPU thread (the default) seconds are CPU seconds, so other work on the machine
does not count; otherwise they are seconds on the clock.

The top level repeats the worst of the settings; ratios of those with CTC, if there are
any. Without --exp the model has the shape of a training config and random weights;
every output is then cut at --n_tokens, the same amount of work for all.
"""

import argparse
import copy
import itertools
import json
import logging
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from espnet2.bin.s2t_inference import Speech2Text
from espnet2.s2t.espnet_model import ESPnetS2TModel
from espnet2.tasks.s2t import S2TTask

from powsm.audio import SAMPLE_RATE, WINDOW_S, read_audio
from powsm.decode.search import Searcher, SearchOptions
from powsm.files.datadir import read_scp
from powsm.model.kernels import choose_convolutions
from powsm.train import config

STOCK_BATCH = 8
N_WINDOW = int(WINDOW_S * SAMPLE_RATE)


def get_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, help="experiment folder of stage 11")
    parser.add_argument("--data", type=Path, help="with --exp: a test set in dump/raw")
    parser.add_argument(
        "--quick", action="store_true", help="8 utterances of 12 tokens, no --exp"
    )
    parser.add_argument("--config", type=Path, default=Path("conf/train_mini.yaml"))
    change = "change a setting of the config, as in train.py"
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", help=change)
    parser.add_argument("--vocab_size", type=int, default=600, help="without --exp")
    parser.add_argument("--n_tokens", type=int, default=25, help="without --exp")
    parser.add_argument(
        "--mean_s",
        type=float,
        default=2.1,
        help="without --exp: seconds an utterance, 2.1 as the mini corpus; 7.4 with "
        "--n_tokens 80 is IPAPack++",
    )
    parser.add_argument("--n_utts", type=int, default=24)
    parser.add_argument(
        "--batch_size", type=int, default=32, help="of powsm.decode.search"
    )
    parser.add_argument("--batch_sizes", type=int, nargs="*", default=[], help="table")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--ctc_weights", type=float, nargs="+", default=[0.3])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.quick:
        args.exp, args.data, args.n_utts, args.n_tokens = None, None, 8, 12
    if bool(args.exp) != bool(args.data):
        parser.error("--exp and --data belong together")
    return args


def random_experiment(args: argparse.Namespace, folder: Path) -> Path:
    """Random weights, stretched so that distributions are peaked and never end."""
    settings = config.load(args.config, args.overrides)
    parsed = config.parse(settings, folder / "settings.yaml")
    parsed.normalize, parsed.normalize_conf = "utterance_mvn", {}
    special = ["<eng>", "<pr>", "<na>", "<notimestamps>", "<0.00>", "<20.00>"]
    pieces = [f"/p{i}/" for i in range(args.vocab_size - len(special) - 5)]
    tail = ["<sos>", "<eos>", "<sop>"]
    tokens = folder / "tokens.txt"
    tokens.write_text("\n".join(["<blank>", "<unk>", *special, *pieces, *tail]))
    parsed.token_list = str(tokens)
    parsed.token_type = "word"
    torch.manual_seed(0)
    stock = config.stock_config(parsed)
    model = S2TTask.build_model(argparse.Namespace(**stock))
    with torch.no_grad():
        model.decoder.output_layer.weight *= 4
        model.decoder.output_layer.bias[[0, model.eos]] -= 1000
        model.ctc.ctc_lo.weight *= 4
        model.ctc.ctc_lo.bias[0] += 5
    (folder / "config.yaml").write_text(yaml.safe_dump(stock))
    torch.save(model.state_dict(), folder / "valid.model.pth")
    return folder


def random_utterances(n: int, mean_s: float) -> list[tuple[np.ndarray, str]]:
    """Noise; durations spread like IPAPack++'s (standard deviation 0.6 of the mean)."""
    rng = np.random.default_rng(0)
    seconds = np.clip(mean_s * rng.gamma(2.83, 1 / 2.83, size=n), 0.8, WINDOW_S)
    return [
        (rng.normal(0, 0.1, int(s * SAMPLE_RATE)).astype(np.float32), "<eng>")
        for s in seconds
    ]


def read_utterances(data: Path, n: int) -> list[tuple[np.ndarray, str]]:
    """Every k-th `pr` example of a set in dump/raw, with its language symbol."""
    langs = dict(read_scp(data / "utt2lang"))
    rows = [row for row in read_scp(data / "wav.scp") if row[0].endswith("_pr")]
    rows = rows[:: max(1, len(rows) // n)][:n]
    return [(read_audio(place), f"<{langs[key]}>") for key, place in rows]


def seconds_and_result(work) -> tuple[float, list]:
    is_alone = torch.get_num_threads() > 1 or torch.cuda.is_initialized()
    clock = time.perf_counter if is_alone else time.process_time
    start = clock()
    result = work()
    return clock() - start, result


def stock_batches(utterances: list, size: int) -> list[list[int]]:
    """Speech2Text takes one language a call."""
    by_lang = defaultdict(list)
    for i, (_, lang) in enumerate(utterances):
        by_lang[lang].append(i)
    return [ids[i : i + size] for ids in by_lang.values()
            for i in range(0, len(ids), size)]  # fmt: skip


def run_stock(stock: Speech2Text, utterances: list, size: int) -> list:
    results = [None] * len(utterances)
    for ids in stock_batches(utterances, size):
        lang = utterances[ids[0]][1]
        speech = [utterances[i][0] for i in ids]
        if size == 1:
            batch = [stock(speech[0], lang_sym=lang)]
        else:
            batch = stock.batch_decode(speech, lang_sym=lang)
        for i, hyps in zip(ids, batch, strict=True):
            results[i] = hyps[0][4]
    return results


def run_ours(
    stock: Speech2Text,
    model: ESPnetS2TModel,
    searcher: Searcher,
    utterances: list,
    size: int,
    *,
    pad: bool,
) -> list:
    """Encode and search, longest first."""
    results = [None] * len(utterances)
    order = sorted(range(len(utterances)), key=lambda i: -len(utterances[i][0]))
    for first in range(0, len(order), size):
        ids = order[first : first + size]
        speech = [torch.from_numpy(utterances[i][0][:N_WINDOW]) for i in ids]
        if pad:
            speech = [F.pad(x, (0, N_WINDOW - len(x))) for x in speech]
        lens = torch.tensor([len(x) for x in speech])
        batch = torch.nn.utils.rnn.pad_sequence(speech, batch_first=True)
        with torch.inference_mode():
            encoded = model.encode(batch.to(stock.device), lens.to(stock.device))
        prompts = [stock._build_hyp_primer(utterances[i][1]) for i in ids]
        for i, hyps in zip(ids, searcher.search(*encoded, prompts), strict=True):
            results[i] = hyps[0]
    return results


def measure(stock: Speech2Text, options: SearchOptions, utterances: list, args) -> dict:
    model, size = copy.deepcopy(stock.s2t_model), args.batch_size
    choose_convolutions(model)  # as a model is loaded here
    searcher = Searcher(model, options)
    run_stock(stock, utterances[:1], 1)  # warm up
    run_ours(stock, model, searcher, utterances[:1], 1, pad=False)
    one_s, expected = seconds_and_result(lambda: run_stock(stock, utterances, 1))
    eight_s, _ = seconds_and_result(lambda: run_stock(stock, utterances, STOCK_BATCH))
    padded_s, got = seconds_and_result(
        lambda: run_ours(stock, model, searcher, utterances, size, pad=True)
    )
    true_s, _ = seconds_and_result(
        lambda: run_ours(stock, model, searcher, utterances, size, pad=False)
    )
    errors, ties, n_tokens = [], [], []
    for hyp, want in zip(got, expected, strict=True):
        ids = want.yseq.tolist()
        ids = ids[ids.index(model.sos) + 4 :]
        ids = tuple(i for i in ids if i != model.eos)
        n_tokens.append(len(ids))
        error = abs(hyp.score - float(want.score))
        (errors if ids == hyp.tokens else ties).append(error)
    audio_s = sum(len(x) for x, _ in utterances) / SAMPLE_RATE
    by_batch = {
        n: seconds_and_result(
            lambda n=n: run_ours(stock, model, searcher, utterances, n, pad=False)
        )[0]
        for n in args.batch_sizes
    }
    return {
        "beam_size": options.beam_size,
        "ctc_weight": options.ctc_weight,
        "ratio_batch1": round(one_s / true_s, 1),
        "ratio_batch8": round(eight_s / true_s, 1),
        "ratio_batch1_padded": round(one_s / padded_s, 1),
        "ratio_batch8_padded": round(eight_s / padded_s, 1),
        "identical": len(errors) / len(utterances),
        "max_score_error": float(f"{max(errors, default=0):.1e}"),
        "max_tie": float(f"{max(ties, default=0):.1e}"),
        "rtf": round(true_s / audio_s, 4),
        "rtf_by_batch": {n: round(s / audio_s, 4) for n, s in by_batch.items()},
        "rtf_padded": round(padded_s / audio_s, 4),
        "rtf_batch1": round(one_s / audio_s, 4),
        "rtf_batch8": round(eight_s / audio_s, 4),
        "tokens": round(float(np.mean(n_tokens)), 1),
    }


def run(args: argparse.Namespace, exp: Path, utterances: list) -> dict:
    maxlenratio = 0.0 if args.exp else -float(args.n_tokens)
    settings = []
    for beam, weight in itertools.product(args.beams, args.ctc_weights):
        stock = Speech2Text(
            exp / "config.yaml",
            sorted(exp.glob("valid.*.pth"))[-1],
            beam_size=beam,
            ctc_weight=weight,
            maxlenratio=maxlenratio,
            task_sym="<pr>",
            device=args.device,
        )
        options = SearchOptions(beam, weight, maxlenratio=maxlenratio)
        settings.append(measure(stock, options, utterances, args))
    with_ctc = [s for s in settings if s["ctc_weight"] > 0] or settings
    return {
        "ratio_batch1": min(s["ratio_batch1"] for s in with_ctc),
        "ratio_batch8": min(s["ratio_batch8"] for s in with_ctc),
        "identical": min(s["identical"] for s in settings),
        "max_tie": max(s["max_tie"] for s in settings),
        "rtf": max(s["rtf"] for s in settings),
        "settings": settings,
        "n_utts": len(utterances),
        "audio_s": round(sum(len(x) for x, _ in utterances) / SAMPLE_RATE, 1),
        "batch_size": args.batch_size,
        "params_m": round(sum(p.numel() for p in stock.s2t_model.parameters()) / 1e6),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    args = get_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    if args.exp:
        result = run(args, args.exp, read_utterances(args.data, args.n_utts))
    else:
        with tempfile.TemporaryDirectory() as folder:
            exp = random_experiment(args, Path(folder))
            result = run(args, exp, random_utterances(args.n_utts, args.mean_s))
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
