#!/usr/bin/env python
"""`powsm transcribe` beside `espnet phonemize`, on one packed model, in one run.

Prints one JSON line; what is stock's has `stock_` before it. Each number is of phones
on the CPU with one thread a process:

  cold_s, cold_cpu_s, cold_mib   a new process transcribes one recording: seconds on the
                                 clock, of computing, and the largest memory
  folder_s, folder_cpu_s, folder_mib   a new process transcribes all of them;
                                 `espnet phonemize` takes one recording a process, so
                                 there is no such command of stock's
  warm_cpu_s                     computing of the loaded model for all of them; of
                                 stock's for --n_stock of them, and `warm_ratio` is that
                                 of the two for each recording
  load                           of the machine when the run began

Recordings are those of a set (--data), written as WAV; without, noise of 1 to 4 s.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from powsm.audio import SAMPLE_RATE, read_audio
from powsm.files.datadir import read_scp

BIN = Path(sys.executable).parent


def get_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="archive of stage 14; without, nothing is done")
    parser.add_argument("--data", type=Path, help="a test set in dump/raw")
    parser.add_argument("--lang", default="eng", help="told to stock, which wants one")
    parser.add_argument("--n_files", type=int, default=100)
    parser.add_argument("--n_stock", type=int, default=20, help="for its warm time")
    return parser.parse_args()


def write_recordings(folder: Path, n_files: int, data: Path | None) -> float:
    """Write the recordings; their seconds, all together."""
    if data is None:
        rng = np.random.default_rng(0)
        lengths = rng.integers(SAMPLE_RATE, 4 * SAMPLE_RATE, n_files)
        speech = [rng.normal(0, 0.1, n).astype(np.float32) for n in lengths]
    else:
        places = dict(read_scp(data / "wav.scp"))
        locations = list(dict.fromkeys(places.values()))[:n_files]
        speech = [read_audio(location) for location in locations]
    for number, samples in enumerate(speech):
        soundfile.write(folder / f"{number:03d}.wav", samples, SAMPLE_RATE)
    return sum(map(len, speech)) / SAMPLE_RATE


def run(command: list[str | Path]) -> tuple[float, float, float]:
    """Seconds on the clock, seconds of computing and MiB of a process."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{said}")
    seconds = time.perf_counter() - begin
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def processes(model: str, lang: str, folder: Path) -> dict[str, float]:
    """Costs of new processes: of one recording, and of the folder."""
    one = sorted(folder.iterdir())[0]
    ours = [BIN / "powsm", "transcribe", "--device", "cpu", "--model", model]
    stock = [BIN / "espnet", "phonemize", "--device", "cpu", "--model", model]
    found = {}
    for name, command in (
        ("cold", [*ours, one]),
        ("stock_cold", [*stock, "--language", lang, one]),
        ("folder", [*ours, folder]),
    ):
        for kind, value in zip(("s", "cpu_s", "mib"), run(command), strict=True):
            found[f"{name}_{kind}"] = round(value, 2)
    return found


def warm(model: str, stock_model, lang: str, folder: Path, n_stock: int) -> dict:
    """Computing of loaded models, after one recording each."""
    import powsm

    recordings = sorted(map(str, folder.iterdir()))
    symbols = {"lang_sym": f"<{lang}>", "task_sym": "<pr>"}
    ours = powsm.load(model, "cpu")
    begin = _after(ours.transcribe, recordings[0], times=False)
    ours.transcribe(recordings, times=False)
    ours_s = time.process_time() - begin
    begin = _after(stock_model.decode_long, recordings[0], **symbols)
    for path in recordings[:n_stock]:
        stock_model.decode_long(path, **symbols)
    stock_s = time.process_time() - begin
    n_stock = min(n_stock, len(recordings))
    return {
        "warm_cpu_s": round(ours_s, 3),
        "stock_warm_cpu_s": round(stock_s, 3),
        "stock_warm_files": n_stock,
        "warm_ratio": round((stock_s / n_stock) / (ours_s / len(recordings)), 1),
    }


def _after(transcribe, recording: str, **how) -> float:
    """Seconds of computing so far, when a first recording is done."""
    transcribe(recording, **how)
    return time.process_time()


def main() -> None:
    args = get_args()
    if args.model is None:
        print(json.dumps({"skipped": "give --model, an archive of stage 14"}))
        return
    load = round(os.getloadavg()[0], 2)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from espnet2.bin.s2t_inference import Speech2Text

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio_s = write_recordings(folder, args.n_files, args.data)
        result = {
            "files": len(list(folder.iterdir())),
            "audio_s": round(audio_s, 1),
            "load": load,
            **processes(args.model, args.lang, folder),
        }
        stock_model = Speech2Text.from_pretrained(args.model)
        result |= warm(args.model, stock_model, args.lang, folder, args.n_stock)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
