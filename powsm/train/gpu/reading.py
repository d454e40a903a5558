"""How fast the audio of a training set is read, in the order of training."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from powsm.audio import SAMPLE_RATE
from powsm.errors import PowsmError
from powsm.files.audio_places import AudioRef, read_bytes
from powsm.prepare.index import ExampleIndex
from powsm.train import config
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.plan import plan_pass

MOST_S = 30.0  # seconds that the disk is asked for
# Seconds of audio that a GPU trains on in a second, at the published size: estimated,
# docs/speed.md; layers as they are, and compiled.
NEEDS = {"as it is": 2_710, "compiled": 3_230}


def check_io(settings: Path, overrides: Sequence[str], folder: Path) -> dict:
    """Read the audio of the first batches of a pass; nothing is decoded.

    What is read is dropped from this machine's cache before, and read a second time
    from it: `cold` and `warm`. (A file server keeps a cache of its own, which nothing
    here empties.) As many threads read as a GPU has loading processes.

    Args:
        settings: a training configuration; its batches and workers count.
        overrides: `--set` of it.
        folder: the dump folder of a training set.

    Raises:
        PowsmError: the settings are wrong, or there is nothing to read.
    """
    loaded = config.load(settings, overrides)
    options = BatchOptions(**loaded.get("batch_conf") or {}).shared_by(1)
    index = ExampleIndex(folder)
    shards = index.shards() if options.shards_together else None
    langs = None if options.language_temperature == 1.0 else index.langs()
    plan = plan_pass(index.n_samples, options, 0, langs, shards=shards)
    batches = [[key[0] for key in plan.batch(b)] for b in range(min(len(plan), 2_000))]
    threads = max(1, loaded.get("num_workers", 1))
    cold = _read(index, batches, threads, is_cold=True)
    warm = _read(index, batches[: cold["batches"]], threads, is_cold=False)
    n_bytes, n_reads, seconds = (cold[k] for k in ("bytes", "reads", "seconds"))
    files = [len({_path(index, utt) for utt in batch}) for batch in batches[:200]]
    return {
        "threads": threads,
        "reads": n_reads,
        "bytes_a_read": round(n_bytes / n_reads),
        "bytes_a_second_of_audio": round(n_bytes / seconds),
        "files_a_batch": round(float(np.mean(files)), 2),
        "cold": _speed(cold),
        "warm": _speed(warm),
        "a_gpu_needs": {
            name: {
                "audio_s_a_second": need,
                "mb_a_second": round(need * n_bytes / seconds / 1e6, 1),
                "reads_a_second": round(need * n_reads / seconds),
            }
            for name, need in NEEDS.items()
        },
    }


def _path(index: ExampleIndex, utt: int) -> Path:
    return AudioRef.parse(index.audio(utt)).path


def _read(
    index: ExampleIndex, batches: Sequence[list[int]], threads: int, *, is_cold: bool
) -> dict:
    """Read batch by batch until the time is over."""
    n_bytes = n_reads = n_batches = n_samples = 0
    passed = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for utts in batches:
            places = [index.audio(utt) for utt in utts]
            if is_cold:
                for place in places:
                    _forget(AudioRef.parse(place))
            begin = time.perf_counter()
            sizes = list(pool.map(_size, places))
            passed += time.perf_counter() - begin
            n_bytes, n_reads = n_bytes + sum(sizes), n_reads + len(sizes)
            n_samples += int(index.n_samples[utts].sum())
            n_batches += 1
            if passed > MOST_S:
                break
    if not n_reads:
        raise PowsmError(f"{index.folder}: no batch to read")
    return {
        "bytes": n_bytes,
        "reads": n_reads,
        "batches": n_batches,
        "seconds": n_samples / SAMPLE_RATE,
        "passed": passed,
    }


def _speed(read: dict) -> dict:
    passed = read["passed"]
    return {
        "mb_a_second": round(read["bytes"] / passed / 1e6, 1),
        "reads_a_second": round(read["reads"] / passed),
        "audio_s_a_second": round(read["seconds"] / passed),
    }


def _size(place: str) -> int:
    return len(read_bytes(AudioRef.parse(place), place))


def _forget(ref: AudioRef) -> None:
    """Ask the system to drop what it keeps of an utterance's audio."""
    file = os.open(ref.path, os.O_RDONLY)
    try:
        advice = os.POSIX_FADV_DONTNEED
        os.posix_fadvise(file, ref.offset or 0, ref.size or 0, advice)
    finally:
        os.close(file)
