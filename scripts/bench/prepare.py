#!/usr/bin/env python3
"""How fast, in how much memory, stages 1 and 4 prepare a generated corpus.

Prints one JSON line. Speeds are utterances per second of processor time, user and
system, of both commands from their start to their end, so that other users of the
machine do not count (much: caches are shared); `wall_s` says what the clock said.
Takes 10 kB of disk an utterance, half of it for the generated shards.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from generated_shar import write_corpora

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS_UTTERANCES = 8_289_886  # IPAPack++
CORES = 16  # of the machine the extrapolation is for
AUDIO_SUFFIXES = {".ark", ".flac", ".mp3", ".ogg", ".tar", ".wav"}


def run(script: str, *options: str) -> tuple[float, float]:
    """Run a stage; seconds of processor time and of the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, str(REPOSITORY / "local" / script), *options]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{script} failed:\n{result.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, time.perf_counter() - start


def measure(
    n_utts: int, nj: int, folder: Path, new_words: bool = False
) -> dict[str, float]:
    """Generate `n_utts` utterances in `folder`, then run stages 1 and 4 on them."""
    downloads, data, dump = folder / "downloads", folder / "data", folder / "dump"
    n_audio_bytes = write_corpora(downloads, n_utts, new_words=new_words)
    prepare = ("--downloads", str(downloads), "--data", str(data), "--nj", str(nj))
    stage1_cpu_s, stage1_s = run("prepare_data.py", *prepare)
    examples = ("--data", str(data), "--dump", str(dump), "--nj", str(nj))
    stage4_cpu_s, stage4_s = run("prepare_dump.py", *examples)
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    speed = n_utts / (stage1_cpu_s + stage4_cpu_s)
    written = (p for out in (data, dump) for p in out.rglob("*") if p.is_file())
    return {
        "utterances": n_utts,
        "utt_per_s_core": round(speed),
        "stage1_utt_per_s_core": round(n_utts / stage1_cpu_s),
        "stage4_utt_per_s_core": round(n_utts / stage4_cpu_s),
        "wall_s": round(stage1_s + stage4_s, 1),
        "nj": nj,
        "peak_rss_mib": round(peak_kib / 1024),
        "audio_bytes_present": n_audio_bytes,
        "audio_bytes_written": sum(
            p.stat().st_size for p in written if p.suffix in AUDIO_SUFFIXES
        ),
        "corpus_hours_on_16_cores": round(CORPUS_UTTERANCES / speed / CORES / 3600, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--nj", type=int, default=1, help="processes of each stage")
    parser.add_argument(
        "--quick", action="store_true", help="10,000 utterances, within 50 s"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to work; default: a temporary folder"
    )
    parser.add_argument(
        "--new_words", action="store_true", help="the worst case: no word comes back"
    )
    args = parser.parse_args()
    n_utts = 10_000 if args.quick else args.utterances
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-") as folder:
        result = measure(n_utts, args.nj, Path(folder), args.new_words)
    from normaliser import measure as measure_normaliser  # large: after the others

    result |= measure_normaliser(2_000 if args.quick else 100_000)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
