#!/usr/bin/env python
"""Index, start and memory at the size of IPAPack++, on a generated dump folder.

Prints one JSON line:

  examples            four an utterance; 33,159,544 by default, as many as IPAPack++ has
  build_s             of the index, on the clock, and build_cpu_s; examples_per_s and
                      mb_per_s of the files, on the clock
  build_private_mib   memory of its own at the end of the build
  first_batch_s       from opening the current index to the first batch, in a process
                      of its own that has loaded its modules: the plan of the pass
                      (plan_s, plan_cpu_s), forking two workers, and one batch
  rank_private_mib    memory of its own of the process that holds the plan
  worker_private_mib  of the largest worker after --batches batches
  half                the same at half the size: times grow in proportion, the memory
                      of a worker does not

Lines are short, so that the files of 33 million examples fit (6 GB). Utterances of one
length share a recording of noise; the lengths follow IPAPack++'s, in steps of 0.5 s.
"""

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from powsm.audio import SAMPLE_RATE
from powsm.prepare.index import ExampleIndex, build_index
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.plan import plan_pass
from powsm.train.dataset import UtteranceDataset
from powsm.train.loader import UtteranceLoader

N_UTTS = 8_289_886
ENDINGS = ("asr", "g2p", "p2g", "pr")
_BLOCK = 100_000  # utterances written at a time
_STEP = SAMPLE_RATE // 2  # samples by which the lengths of the files differ


def write_dump(folder: Path, n_utts: int) -> None:
    """Five files with four lines an utterance, sorted; only the numbers differ."""
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * SAMPLE_RATE)
    for n_samples in range(SAMPLE_RATE, 20 * SAMPLE_RATE + 1, _STEP):
        path = folder / f"noise{n_samples:06}.wav"
        soundfile.write(path, noise[:n_samples], SAMPLE_RATE)
    values = {
        "wav.scp": [str(folder / "noiseLENGTH.wav")] * 4,
        "text": ["who is that", "/h//u//ɪ//z//ð//æ//t/"] * 2,
        "text.prev": ["<na>", "who is that", "/h//u//ɪ//z//ð//æ//t/", "<na>"],
        "text.ctc": ["/h//u//ɪ//z//ð//æ//t/"] * 4,
        "utt2num_samples": ["LENGTH"] * 4,
    }
    for name, texts in values.items():
        lines = [f"cv_uUTTERID_eng_{task} {text}\n"
                 for task, text in zip(ENDINGS, texts, strict=True)]  # fmt: skip
        template = "".join(lines).encode()
        rng = np.random.default_rng(1)
        with open(folder / name, "wb") as file:
            for first in range(0, n_utts, _BLOCK):
                n = min(_BLOCK, n_utts - first)
                block = np.tile(np.frombuffer(template, np.uint8), (n, 1))
                _write_digits(block, template, b"UTTERID", np.arange(first, first + n))
                seconds = np.clip(rng.gamma(2.83, 7.4 / 2.83, n), 1, 20)
                samples = (seconds * SAMPLE_RATE).astype(np.int64) // _STEP * _STEP
                _write_digits(block, template, b"LENGTH", samples)
                file.write(block.tobytes())


def _write_digits(
    block: np.ndarray, template: bytes, word: bytes, numbers: np.ndarray
) -> None:
    """Put zero-padded numbers where the template has `word`, row by row."""
    powers = 10 ** np.arange(len(word))[::-1]
    digits = (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)
    at = template.find(word)
    while at >= 0:
        block[:, at : at + len(word)] = digits
        at = template.find(word, at + 1)


def private_mib(pid: int | str = "self") -> float:
    """Memory of a process that no other shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = [int(line.split()[1]) for line in text.splitlines()
           if line.startswith("Private_")]  # fmt: skip
    return round(sum(kib) / 1024, 1)


def build(folder: Path) -> dict:
    before, start, cpu = private_mib(), time.perf_counter(), time.process_time()
    build_index(folder)
    return {
        "build_s": round(time.perf_counter() - start, 2),
        "build_cpu_s": round(time.process_time() - cpu, 2),
        "build_private_mib": round(private_mib() - before, 1),
    }


def encode(example: dict[str, str]) -> dict[str, np.ndarray]:
    return {key: np.arange(len(text)) for key, text in example.items()}


def start_training(folder: Path, n_batches: int) -> dict:
    start, cpu = time.perf_counter(), time.process_time()
    dataset = UtteranceDataset(ExampleIndex(folder), encode)
    options = BatchOptions(batch_seconds=40, update_batches=12, window_share=0.05)
    loader = UtteranceLoader(dataset, options, num_workers=2)
    planned, planned_cpu = time.perf_counter(), time.process_time()
    batches = iter(loader)
    next(batches)
    first = time.perf_counter()
    for _ in range(n_batches):
        next(batches)
    workers = [private_mib(p.pid) for p in multiprocessing.active_children()]
    return {
        "plan_s": round(planned - start, 2),
        "plan_cpu_s": round(planned_cpu - cpu, 2),
        "first_batch_s": round(first - start, 2),
        "rank_private_mib": private_mib(),
        "worker_private_mib": max(workers),
    }


def warm_up(folder: Path) -> None:
    """Compile what numba keeps, as after a first run on a machine."""
    small = folder / "small"
    small.mkdir()
    write_dump(small, 100)
    plan_pass(ExampleIndex(small).n_samples, BatchOptions(), 0)


def measure(n_utts: int, n_batches: int, root: Path) -> dict:
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 1000 * n_utts + 2**30:
            raise SystemExit(f"index.py: error: {root}: needs {n_utts / 1e6:.1f} GB")
        write_dump(folder, n_utts)
        texts = [path for path in folder.iterdir() if path.suffix != ".wav"]
        n_bytes = sum(path.stat().st_size for path in texts)
        result = {"examples": 4 * n_utts}
        warm_up(folder)
        result |= in_a_process(build, folder)
        result |= in_a_process(start_training, folder, n_batches)
    result["examples_per_s"] = round(4 * n_utts / result["build_s"])
    result["mb_per_s"] = round(n_bytes / 1e6 / result["build_s"])
    return result


def in_a_process(work: Callable[..., dict], *args: object) -> dict:
    """Fork, as a loader does with its workers: what is loaded already is shared."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, context) as fresh:
        return fresh.submit(work, *args).result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, default=N_UTTS)
    parser.add_argument(
        "--batches", type=int, default=200, help="before memory is read"
    )
    parser.add_argument("--quick", action="store_true", help="100,000 utterances")
    parser.add_argument("--folder", type=Path, help="to write in; default: temporary")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.quick:
        args.utterances, args.batches = 100_000, 20
    root = args.folder or Path(tempfile.gettempdir())
    result = measure(args.utterances, args.batches, root)
    result["half"] = measure(args.utterances // 2, args.batches, root)
    result["cpus"] = os.cpu_count()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
