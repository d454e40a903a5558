#!/usr/bin/env python
"""Speed of decoding without a decoder: here, by stock ESPnet, and by our other model.

Prints one JSON line. Phone recognition of noise whose durations follow IPAPack++'s
(mean 7.4 s), by conf/train_mini_ctc.yaml and conf/train_mini.yaml with random weights,
which are spread so that they say much. `rtf` holds seconds a second of audio, by the
number of recordings that are decoded together:

  stock best path    `Speech2Text.best_path`, which takes one recording at a time
  stock prefix beam  `Speech2Text` and its `batch_decode`: 5 wide, in the 20 s window
  best path          here, at true lengths
  prefix beam        the same, 5 wide
  decoder alone      the model with a decoder, greedy, as many tokens as phones are said

  ratio_best_path    stock's best path, one at a time / ours
  ratio_beam         stock's prefix beam / ours, like batch with like
  ratio_attention    decoder alone / best path
  identical          share of recordings whose best path, all in one batch, is stock's

On one CPU thread, in seconds of the process: other work on the machine does not count.

With --exp and --data, a line for each task of a trained model and a test set, and no
times: how many recordings have the text of stock ESPnet by the best path, by its search
token by token, 30 wide, and by the beam of prefixes; and where the last differs by how
much what is said here is likelier, summed over all paths (`gains`; below 0 where stock
found the better one):

    scripts/bench/decode_ctc_only.py --exp exp/mini_ctc --data dump/raw/test_asterisk
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import yaml
from decode import seconds_and_result
from espnet2.bin.s2t_inference import Speech2Text
from train_step import PHONES_PER_S, Size, make_data

from powsm.audio import SAMPLE_RATE
from powsm.decode.batch import Item, decode_batch, items
from powsm.decode.profile import Profile, SearchOptions
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.samples import read_speech
from powsm.model.build import CTC_ONLY_MODELS, task_of_model
from powsm.model.find import find_model
from powsm.tasks import PUBLISHED_TASKS
from powsm.train import config

CONF = Path(__file__).parents[2] / "conf"
BEAM = 5
WIDE = 30  # where texts are compared
TASK = "pr"
_WAYS = {  # in which texts are compared
    "best_path": ("ctc", SearchOptions()),
    "stock_search": ("joint", SearchOptions(beam_size=WIDE, ctc_weight=1.0)),
    "prefix_beam": ("ctc", SearchOptions(beam_size=WIDE)),
}


def make_experiment(folder: Path, tokens: Path, config_file: Path) -> Path:
    """An experiment with random weights that never stop to speak."""
    folder.mkdir()
    settings = config.load(config_file) | {"normalize": "utterance_mvn"}
    settings = config.with_data(settings, token_dir=tokens, stats=None)
    args = config.parse(settings, folder / "settings.yaml")
    torch.manual_seed(0)
    model = task_of_model(args.model).build_model(args)
    with torch.no_grad():
        model.ctc.ctc_lo.weight *= 30
        model.ctc.ctc_lo.bias[0] += 0.5
        if args.model not in CTC_ONLY_MODELS:
            model.decoder.output_layer.weight *= 4
            model.decoder.output_layer.bias[[0, model.eos]] -= 1000
    torch.save(model.state_dict(), folder / "valid.x.ave.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump(config.stock_config(args)))
    return folder


def ours(
    recogniser: Recogniser, search: SearchOptions, todo: list, size: int
) -> list[dict]:
    """Records of recordings, so many at a time, longest first."""
    how = "ctc" if recogniser.is_ctc_only else "attention"
    profile = Profile("bench", decode=how, tasks=(TASK,), search=search)
    records = []
    for first in range(0, len(todo), size):
        batch, speech = zip(*todo[first : first + size], strict=True)
        records += decode_batch(recogniser, profile, TASK, batch, speech)
    return records


def stock_beam(stock: Speech2Text, todo: list, size: int) -> list:
    """The same by stock, which has a call of its own for one."""
    asked = {"lang_sym": "<eng>", "task_sym": f"<{TASK}>"}
    if size == 1:
        return [stock(speech, **asked) for _, speech in todo]
    found = []
    for first in range(0, len(todo), size):
        speech = [speech for _, speech in todo[first : first + size]]
        found += stock.batch_decode(speech, **asked)
    return found


def best_paths(stock: Speech2Text, todo: list) -> list[list[str]]:
    """Tokens of stock's best path."""
    asked = {"lang_sym": "<eng>", "task_sym": f"<{TASK}>"}
    return [stock.best_path(speech, **asked)[0][1] for _, speech in todo]


def measure(folder: Path, n_utts: int, sizes: Sequence[int]) -> dict:
    """Speeds of all ways on the same recordings.

    Args:
        folder: an empty one.
        n_utts: recordings.
        sizes: of batches; rows of `rtf`.
    """
    data = make_data(folder, Size(0, 0, 0, 600, n_utts))
    rows: list[tuple[Item, torch.Tensor]] = [
        (item, read_speech(item.audio, 960))
        for item in sorted(items(data, TASK), key=lambda i: -i.n_samples)
    ]
    audio_s = sum(len(speech) for _, speech in rows) / SAMPLE_RATE
    without = make_experiment(
        folder / "without", data / "tokens", CONF / "train_mini_ctc.yaml"
    )
    with_decoder = make_experiment(
        folder / "with", data / "tokens", CONF / "train_mini.yaml"
    )
    stock = Speech2Text(
        without / "config.yaml",
        without / "valid.x.ave.pth",
        bpemodel=str(data / "tokens/bpe.model"),
        beam_size=BEAM,
    )
    ctc, attention = Recogniser.load(without), Recogniser.load(with_decoder)
    n_tokens = round(PHONES_PER_S * audio_s / n_utts)
    as_many = SearchOptions(maxlenratio=-n_tokens)
    ways: dict[str, Callable] = {
        "best path": lambda n: ours(ctc, SearchOptions(), rows, n),
        "prefix beam": lambda n: ours(ctc, SearchOptions(beam_size=BEAM), rows, n),
        "decoder alone": lambda n: ours(attention, as_many, rows, n),
        "stock prefix beam": lambda n: stock_beam(stock, rows, n),
    }
    ours(ctc, SearchOptions(), rows[-1:], 1)  # warm up
    seconds, expected = seconds_and_result(lambda: best_paths(stock, rows))
    rtf: dict[str, dict[int, float]] = {"stock best path": {1: seconds / audio_s}}
    for name, way in ways.items():
        timed = {n: seconds_and_result(lambda n=n, way=way: way(n)) for n in sizes}
        rtf[name] = {n: seconds / audio_s for n, (seconds, _) in timed.items()}
        if name == "best path":
            said = [record["tokens"] for record in timed[max(sizes)][1]]
    same = [a == b for a, b in zip(said, expected, strict=True)]
    ours_s = rtf["best path"]
    ratios = {
        "ratio_best_path": {n: rtf["stock best path"][1] / ours_s[n] for n in sizes},
        "ratio_beam": {
            n: rtf["stock prefix beam"][n] / rtf["prefix beam"][n] for n in sizes
        },
        "ratio_attention": {n: rtf["decoder alone"][n] / ours_s[n] for n in sizes},
    }
    rounded = {k: {n: round(x, 1) for n, x in v.items()} for k, v in ratios.items()}
    return rounded | {
        "identical": sum(same) / len(same),
        "rtf": {k: {n: round(x, 4) for n, x in v.items()} for k, v in rtf.items()},
        "n_utts": n_utts,
        "audio_s": round(audio_s, 1),
        "n_tokens": round(sum(map(len, said)) / n_utts, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def compare(exp: Path, data: Path, n_utts: int) -> Iterator[dict]:
    """A trained model's texts beside stock's, task by task.

    Args:
        exp: experiment folder of stage 11.
        data: a test set in dump/raw; every k-th recording is taken.
        n_utts: recordings.
    """
    files = find_model(exp)
    stock = Speech2Text(
        str(files.config_file),
        str(files.weights_file),
        bpemodel=str(files.bpe_model),
        beam_size=WIDE,
    )
    recogniser = Recogniser.load(files)
    for task in PUBLISHED_TASKS:
        rows = items(data, task)
        rows = rows[:: max(1, len(rows) // n_utts)][:n_utts]
        same = dict.fromkeys(_WAYS, 0)
        gains = []
        for item in rows:
            speech = read_speech(item.audio, 960)
            asked = {"lang_sym": item.lang_sym, "task_sym": f"<{task}>"}
            path = stock.best_path(speech.numpy(), item.text_prev, **asked)[0][1]
            beam = stock(speech.numpy(), item.text_prev, **asked)[0][1]
            said = {}
            for name, (how, search) in _WAYS.items():
                profile = Profile("bench", decode=how, tasks=(task,), search=search)
                (record,) = decode_batch(recogniser, profile, task, [item], [speech])
                said[name] = record["tokens"]
            same["best_path"] += said["best_path"] == path
            same["stock_search"] += said["stock_search"] == beam
            same["prefix_beam"] += said["prefix_beam"] == beam
            if said["prefix_beam"] != beam:
                total = PathSums(recogniser, speech, item, task)
                gains.append(round(total(said["prefix_beam"]) - total(beam), 3))
        yield {"task": task, "n_utts": len(rows), "same": same, "gains": gains}


class PathSums:
    """Log-probability of a text, summed over all its CTC paths."""

    def __init__(
        self, recogniser: Recogniser, speech: torch.Tensor, item: Item, task: str
    ):
        self._ids = recogniser.tokenizer.token_ids
        self._scores, self._n = recogniser.ctc_scores(
            [speech], [item.lang_sym], task, [item.text_prev]
        )

    def __call__(self, tokens: Sequence[str]) -> float:
        target = torch.tensor([[self._ids[token] for token in tokens]])
        n_tokens = torch.tensor([target.size(1)])
        scores = self._scores.double().transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(
            scores, target, self._n, n_tokens, reduction="sum"
        )
        return -loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 recordings, 1 and 2")
    parser.add_argument("--n_utts", type=int, default=32)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--exp", type=Path, help="experiment folder of stage 11")
    parser.add_argument("--data", type=Path, help="with --exp: a test set in dump/raw")
    args = parser.parse_args()
    if bool(args.exp) != bool(args.data):
        parser.error("--exp and --data belong together")
    if args.quick:
        args.n_utts, args.batch_sizes = 3, [1, 2]
    logging.disable(logging.WARNING)
    sys.stdout, stdout = sys.stderr, sys.stdout  # ESPnet prints
    torch.set_num_threads(1)
    if args.exp:
        for row in compare(args.exp, args.data, args.n_utts):
            print(json.dumps(row), file=stdout, flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.n_utts, args.batch_sizes)
    print(json.dumps(result), file=stdout)


if __name__ == "__main__":
    main()
