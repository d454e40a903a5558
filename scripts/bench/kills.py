#!/usr/bin/env python3
"""Kill stages at random, and run two at once: the same bytes come out, or not.

A corpus is generated, and every stage runs once undisturbed. Then each stage is started
again and again in a folder that has all stages before it: killed after a random time
(kill -9 of the process alone, as the memory killer does it) and started again until it
ends; twice at the same moment; and as a shell's child whose shell is killed, with a
second start while it goes on. After each try all its files are compared with those of
the undisturbed run, and nothing hidden may be left. Of a training these are the
weights and settings; what it logs holds times.

A start is a fork of this process, which has the libraries already: so a stage begins at
once, and most kills meet its work, not its imports.

    scripts/bench/kills.py           # 20 tries each, about an hour of one core
    scripts/bench/kills.py --quick   # one try of stages 1 and 4 each, as a test does it
"""

import argparse
import importlib
import multiprocessing
import os
import random
import runpy
import shutil
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
UNDISTURBED = "a model"  # of random weights, which stages 10 to 14 need
# records hold times, and so does what a training logs
NOT_COMPARED = {".parts", ".index", "tensorboard", "history.jsonl", "train.log"}
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
    """Stage -> a script of local/ or a verb with options, run in the folder to fill."""
    token_dir = "data/token_list/bpe_unigram55"
    tokens = "--nbpe 55 --phones observed --languages observed --time_step_s none"
    sets = f"--sets test_cv --device cpu --profiles {ROOT}/conf/decode_ctc_greedy.yaml"
    lines = {
        "1": f"prepare_data.py --downloads {corpus}",
        "2": "data_report.py",
        "3": "copy_audio.py",
        "4": "prepare_dump.py",
        "5": f"tokens {tokens}",
        UNDISTURBED: token_dir,
        "10": "stats --dump dump/raw/train --config train.yaml --out exp/stats",
        "11": "train --config train.yaml --dump dump/raw --exp trained "
        f"--token_dir {token_dir}",
        "12": f"decode --exp exp --dump dump/raw {sets}",
        "13": "score-exp --exp exp --dump dump/raw",
        "14": "pack --exp exp --dump dump/raw",
    }
    return {stage: line.split() for stage, line in lines.items()}


def load_libraries(stages: list[str]) -> None:
    """Import what stages take long to import, so that their forks need not."""
    modules = {
        "1": ("powsm.prepare.merge",),
        "2": ("powsm.prepare.audit.report",),
        "4": ("powsm.prepare.dump",),
        "5": ("powsm.vocabulary.train",),
        "10": ("tiny_model", "powsm.train.stats"),
        "11": ("powsm.train.run",),
        "12": ("powsm.decode.recogniser",),
        "13": ("powsm.score.results", "powsm.score.metrics"),
        "14": ("powsm.publish.pack",),
    }
    for stage in stages:
        for module in modules.get(stage, ()):
            importlib.import_module(module)


def work_in(folder: Path, command: list[str], stderr: Path) -> None:
    """What a fork does: run a command to its end."""
    name, *options = command
    os.chdir(folder)
    with open(stderr, "w") as file, open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if name.endswith(".py"):
        sys.argv = [name, *options]
        runpy.run_path(str(ROOT / "local" / name), run_name="__main__")
    elif name.startswith("data/token_list"):
        make_model(Path(name))
    else:
        from powsm.cli.main import main

        main(command)


def make_model(token_dir: Path) -> None:
    import tiny_model
    import yaml

    tiny_model.make_experiment(Path(), token_dir)
    Path("train.yaml").write_text(yaml.safe_dump(tiny_model.SETTINGS))


class Run:
    """A command in a process of its own; `is_shell`: as the child of another one."""

    def __init__(self, command: list[str], folder: Path, *, is_shell: bool = False):
        fd, name = tempfile.mkstemp(dir=folder.parent, suffix=".err")
        os.close(fd)
        self._stderr = Path(name)
        target = wait_for_child if is_shell else work_in
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=target, args=(folder, command, Path(name)))
        self._process.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def end(self) -> str | None:
        """Wait for it; None, or why it did not go well."""
        self._process.join()
        if self._process.exitcode == 0:
            return None
        return (self._stderr.read_text().splitlines() or ["no message"])[-1]


def wait_for_child(*work: object) -> None:
    child = multiprocessing.get_context("fork").Process(target=work_in, args=work)
    child.start()
    child.join()


def finish(command: list[str], folder: Path) -> str | None:
    """Run to the end; None, or why it did not go well."""
    return Run(command, folder).end()


def differences(folder: Path, wanted: Path) -> list[str]:
    """What is not as in the undisturbed run; records hold times, and do not count."""

    def files(top: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(top)): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file()
            and not NOT_COMPARED & set(path.relative_to(top).parts)
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
        run = Run(command, folder)
        time.sleep(rng.uniform(0.05, 1.1) * took_s)
        run.kill()
    fault = finish(command, folder)
    return [fault] if fault else []


def two_at_once(command: list[str], folder: Path, took_s: float, rng) -> list[str]:
    """Start a second one within the time of the first; one at least must end well."""
    first = Run(command, folder)
    time.sleep(rng.choice([0.0, rng.uniform(0, took_s)]))
    second = Run(command, folder)
    ends = [first.end(), second.end()]
    faults = [fault for fault in ends if fault and REFUSED not in fault]
    return faults if None in ends else [*faults, "both failed"]


def shell_killed(command: list[str], folder: Path, took_s: float, rng) -> list[str]:
    """Kill the shell alone; start again while its program goes on, until let in."""
    ended, is_open_in_child = os.pipe()
    shell = Run(command, folder, is_shell=True)
    os.close(is_open_in_child)
    time.sleep(rng.uniform(0.1, 0.9) * took_s)
    shell.kill()
    fault = finish(command, folder)
    while fault and REFUSED in fault:
        time.sleep(0.1)
        fault = finish(command, folder)
    os.read(ended, 1)  # until the program is gone, too
    os.close(ended)
    return [fault] if fault else []


def stage_of(name: str) -> int:
    return 9 if name == UNDISTURBED else int(name)


WAYS = {"killed": killed, "two at once": two_at_once, "shell killed": shell_killed}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=20, help="of each stage and way")
    parser.add_argument("--quick", action="store_true", help="see above")
    stages = ["1", "2", "3", "4", "5", "10", "11", "12", "13", "14"]
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
        load_libraries(args.stages)
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
