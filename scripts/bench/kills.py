#!/usr/bin/env python3
"""Kill stages at random, and run two at once: the same bytes come out, or not.

A corpus is generated, and every stage runs once undisturbed. Then each stage is started
again and again in a folder that has all stages before it: killed after a random time
(kill -9 of the process alone, as the memory killer does it) and started again until it
ends; twice at the same moment; and as a shell's child whose shell is killed, with a
second start while it goes on. After each try all its files are compared with those of
the undisturbed run, and nothing hidden may be left.

    scripts/bench/kills.py           # 20 tries each, a quarter of an hour and more
    scripts/bench/kills.py --quick   # one try of stages 1 and 4 each, as a test does it
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"

import numpy as np  # noqa: E402
from shar_builder import make_cut, write_shard  # noqa: E402

REFUSED = "is being written by"
POWSM = [sys.executable, "-m", "powsm.cli.main"]
UNDISTURBED = "a model"  # of random weights, which stages 10 and 12 need
WORDS = "the a small cat dog sat ran on under old new tree house and or but".split()
PHONES = "p t k a i u s m n l ɹ ə ɛ ɪ ʃ".split()


def write_corpus(folder: Path, seed: int, n_utts: int) -> None:
    """Three sets in ten shards."""
    rng = random.Random(seed)
    for split, n_shards in (("train", 6), ("dev", 2), ("test", 2)):
        for number in range(n_shards):
            cuts = [
                make_cut(
                    f"{number}-{i:03d}",
                    n_samples=rng.randrange(16_000, 40_000),
                    speaker=f"s{i % 7}",
                    text=" ".join(rng.choices(WORDS, k=6)),
                    ipa=" ".join(rng.choices(PHONES, k=12)),
                    phones="",
                )
                for i in range(n_utts)
            ]
            write_shard(folder / "cv_shar" / split, cuts, f"{number:06d}")


def commands(corpus: Path) -> dict[str, list[str]]:
    """Stage -> command, run in the folder that it is to fill."""
    stages = {
        "1": ("prepare_data.py", "--downloads", str(corpus)),
        "3": ("copy_audio.py",),
        "4": ("prepare_dump.py",),
    }
    tokens = "tokens --nbpe 55 --phones observed --languages observed".split()
    tokens += ["--time_step_s", "none"]
    token_dir = "data/token_list/bpe_unigram55"
    verbs = {
        "5": tokens,
        "10": "stats --dump dump/raw/train --config train.yaml --out exp/stats".split(),
        "12": "decode --exp exp --dump dump/raw --sets test_cv --device cpu".split()
        + ["--profiles", str(ROOT / "conf/decode_ctc_greedy.yaml")],
    }
    experiment = (
        "import sys, yaml; from pathlib import Path; "
        f"sys.path.insert(0, {str(ROOT / 'tests')!r}); import tiny_model; "
        f"tiny_model.make_experiment(Path(), Path({token_dir!r})); "
        "Path('train.yaml').write_text(yaml.safe_dump(tiny_model.SETTINGS))"
    )
    return (
        {
            stage: [sys.executable, str(ROOT / "local" / script), *options]
            for stage, (script, *options) in stages.items()
        }
        | {"5": POWSM + verbs["5"]}
        | {UNDISTURBED: [sys.executable, "-c", experiment]}
        | {stage: POWSM + verbs[stage] for stage in ("10", "12")}
    )


def start(command: list[str], folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(command: list[str], folder: Path) -> str | None:
    """Run to the end; None, or why it did not go well."""
    run = start(command, folder)
    stderr = run.communicate()[1]
    return None if run.returncode == 0 else (stderr.splitlines() or [""])[-1]


def differences(folder: Path, wanted: Path) -> list[str]:
    """What is not as in the undisturbed run; records hold times, and do not count."""

    def files(top: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(top)): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file()
            and not {".parts", ".index"} & set(path.parts)
            and not path.name.endswith(("done.json", "timing.json", ".npz"))
        }

    mine, theirs = files(folder), files(wanted)
    faults = [n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n)]
    for path in wanted.rglob("*.npz"):  # which holds a time
        with (
            np.load(path) as theirs_,
            np.load(folder / path.relative_to(wanted)) as ours,
        ):
            if any((ours[key] != theirs_[key]).any() for key in theirs_):
                faults.append(str(path.relative_to(wanted)))
    kept = (".parts", ".index")
    hidden = [str(p) for p in folder.rglob(".*") if p.name not in kept]
    return sorted(faults) + hidden


def killed(command: list[str], folder: Path, took_s: float, rng) -> list[str]:
    """Kill up to four starts at random times, then let one end."""
    for _ in range(rng.randrange(1, 5)):
        run = start(command, folder)
        time.sleep(rng.uniform(0.2, 1.1) * took_s)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    fault = finish(command, folder)
    return [fault] if fault else []


def two_at_once(command: list[str], folder: Path, took_s: float, rng) -> list[str]:
    """Start a second one within the time of the first; one at least must end well."""
    first = start(command, folder)
    time.sleep(rng.choice([0.0, rng.uniform(0, took_s)]))
    second = start(command, folder)
    ends = [(run.communicate()[1], run.returncode) for run in (first, second)]
    faults = [text for text, status in ends if status and REFUSED not in text]
    return (
        faults if any(status == 0 for _, status in ends) else [*faults, "both failed"]
    )


def shell_killed(command: list[str], folder: Path, took_s: float, rng) -> list[str]:
    """Kill the shell alone; start again while its program goes on, until let in."""
    shell = subprocess.Popen(
        ["bash", "-c", '"$@"; exit $?', "bash", *command],
        **{"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
    )
    time.sleep(rng.uniform(0.1, 0.9) * took_s)
    shell.kill()
    shell.wait()
    for _ in range(600):
        fault = finish(command, folder)
        if fault is None:
            return []
        if REFUSED not in fault:
            return [fault]
        time.sleep(0.1)
    return ["refused for a minute"]


def stage_of(name: str) -> int:
    return 9 if name == UNDISTURBED else int(name)


WAYS = {"killed": killed, "two at once": two_at_once, "shell killed": shell_killed}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=20, help="of each stage and way")
    parser.add_argument("--quick", action="store_true", help="see above")
    stages = ["1", "3", "4", "5", "10", "12"]
    parser.add_argument("--stages", nargs="+", choices=stages, default=stages)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    if args.quick:
        args.stages, args.tries = ["1", "4"], 1
    n_tries, n_wrong = args.tries, 0
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        top = Path(scratch)
        write_corpus(top / "downloads", args.seed, 20 if args.quick else 60)
        stages = commands(top / "downloads")
        work, before, wanted = top / "work", top / "before", top / "wanted"
        work.mkdir()
        for stage, command in stages.items():
            if not any(stage_of(s) >= stage_of(stage) for s in args.stages):
                break
            shutil.rmtree(before, ignore_errors=True)
            shutil.copytree(work, before)  # copies keep the times of files
            began = time.monotonic()
            if fault := finish(command, work):
                sys.exit(f"stage {stage}, undisturbed: {fault}")
            took_s = time.monotonic() - began
            shutil.rmtree(wanted, ignore_errors=True)
            shutil.copytree(work, wanted)
            if stage not in args.stages:
                continue
            for way, attempt in WAYS.items():
                wrong = []
                for _ in range(n_tries):
                    # always the same path, as it is in the files that are compared
                    shutil.rmtree(work)
                    shutil.copytree(before, work)
                    faults = attempt(command, work, took_s, rng)
                    faults += differences(work, wanted)
                    wrong += [faults] if faults else []
                print(
                    f"stage {stage}, {way}: {len(wrong)} of {n_tries} wrong", flush=True
                )
                for faults in wrong:
                    print(f"    {faults[:3]}", flush=True)
                n_wrong += len(wrong)
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
