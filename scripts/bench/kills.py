#!/usr/bin/env python3
"""Kill stages at random, and run two at once: the same bytes come out, or not.

A corpus is generated, and every stage runs once undisturbed. Then each stage is started
again and again in a folder that has all stages before it: killed after a random time
(kill -9 of the process alone, as the memory killer does it) and started again until it
ends; twice at the same moment; as a shell's child whose shell is killed, with a second
start while it goes on; and by a recipe's run.sh that is killed in the same way. After
each try all its files are compared with those of the undisturbed run, and nothing
hidden may be left. Of a training, what says how long it took is not compared.

A start is a fork of this process, which has the libraries already: so a stage begins at
once, and most kills meet its work, not its imports. run.sh starts as users start it.
Packing leaves out its look at stock ESPnet, which writes nothing and takes longest, but
where run.sh packs.

    scripts/bench/kills.py                  # 20 tries of each stage and way
    scripts/bench/kills.py --stages 2 11    # of these stages alone
    scripts/bench/kills.py --stages 14 --ways "run.sh killed"
    scripts/bench/kills.py --quick          # one try of stages 1 and 4, as a test does

Prints a line of JSON a stage: its tries and how many of each kind ended wrong. On
standard error it says how far it is and what was wrong.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"

import numpy as np  # noqa: E402
from shar_builder import make_cut, write_shard  # noqa: E402

REFUSED = "is being written by"
LONGEST_S = 900  # that a start may take; what takes longer hangs
UNDISTURBED = "a model"  # of random weights, which stages 12 to 14 need
# records hold times, and so does what a training logs; only run.sh leaves a run.sh
NOT_COMPARED = {".parts", ".index", "tensorboard", "train.log", "run.sh"}
TOKENS = "data/token_list/bpe_unigram55"
TRAINED, RANDOM = "trained", "exp"  # experiments
PROFILE = "conf/decode_ctc_greedy.yaml"
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


def write_recipe(folder: Path, corpus: Path) -> None:
    """What a recipe's folder holds: settings, and a run.sh of all stages with them."""
    import tiny_model
    import yaml

    for name in ("conf", "local", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    # few batches of validation, so that most kills meet updates
    batches = {"batch_seconds": 30, "update_batches": 1}
    settings = tiny_model.SETTINGS | {"batch_conf": batches}
    (folder / "train.yaml").write_text(yaml.safe_dump(settings))
    (folder / "cmd.sh").write_text("export cmd_backend=local\n")
    programs = shlex.quote(str(Path(sys.executable).parent))
    (folder / "path.sh").write_text(f"export PATH={programs}:${{PATH}}\n")
    options = {
        **{"downloads": corpus, "audio_format": "flac.ark", "nbpe": 55},
        **{"phones": "observed", "languages": "observed", "time_symbols": "false"},
        **{"config": "train.yaml", "test_sets": "test_cv", "decode_configs": PROFILE},
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    (folder / "run.sh").write_text(f'exec scripts/s2t.sh {shlex.join(words)} "$@"\n')


def commands(corpus: Path) -> dict[str, list[list[str]]]:
    """Stage -> scripts of local/ or verbs with options, run in the folder to fill."""
    tokens = "--nbpe 55 --phones observed --languages observed --time_step_s none"
    exp = f"--exp exp/{RANDOM} --dump dump/raw"
    stats = "exp/s2t_stats_raw"
    lines = {
        "1": f"prepare_data.py --downloads {corpus}",
        "2": "data_report.py",
        "3": "copy_audio.py --format flac.ark",
        "4": "prepare_dump.py",
        "5": f"tokens {tokens}",
        UNDISTURBED: UNDISTURBED,
        "10": f"stats --dump dump/raw/train --config train.yaml --out {stats}",
        "11": f"train --config train.yaml --dump dump/raw --token_dir {TOKENS} "
        f"--stats {stats} --exp exp/{TRAINED} --set ngpu=0",
        "12": f"decode {exp} --sets test_cv --device cpu --profiles {PROFILE}",
        "13": f"score-exp {exp} && report {exp}",
        "14": f"pack {exp} --profiles {PROFILE}",
    }
    return {
        stage: [command.split() for command in line.split(" && ")]
        for stage, line in lines.items()
    }


def load_libraries(stages: list[str]) -> None:
    """Import what stages take long to import, so that their forks need not."""
    modules = {
        "1": ("powsm.prepare.merge",),
        "2": ("powsm.prepare.audit.report",),
        "4": ("powsm.prepare.dump",),
        "5": ("powsm.vocabulary.train",),
        "10": ("tiny_model", "powsm.train.stats"),
        "11": ("powsm.train.run", "torch._dynamo", "torch.utils.tensorboard"),
        "12": ("powsm.decode.recogniser",),
        "13": ("powsm.score.results", "powsm.score.metrics", "powsm.report.page"),
        "14": ("powsm.publish.pack",),
    }
    for stage in stages:
        for module in modules.get(stage, ()):
            importlib.import_module(module)


def work_in(folder: Path, stage: list[list[str]], stderr: Path) -> None:
    """What a fork does: run the commands of a stage to their end."""
    os.chdir(folder)
    with open(stderr, "w") as file, open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for command in stage:
        run_here(command)


def run_here(command: list[str]) -> None:
    name, *options = command
    if name.endswith(".py"):
        sys.argv = command
        runpy.run_path(str(ROOT / "local" / name), run_name="__main__")
    elif command == UNDISTURBED.split():
        import tiny_model

        tiny_model.make_experiment(Path("exp"), Path(TOKENS))
    else:
        from powsm.cli.main import main
        from powsm.publish import pack

        pack.check_with_stock = lambda *files: {}  # see the top of this file
        main(command)


class Run:
    """A stage in a process of its own; `is_shell`: as the child of another one."""

    def __init__(self, stage: list[list[str]], folder: Path, *, is_shell: bool = False):
        self._stderr = new_file(folder)
        target = wait_for_child if is_shell else work_in
        fork = multiprocessing.get_context("fork")
        work = (folder, stage, self._stderr)
        self._process = fork.Process(target=target, args=work)
        self._process.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def end(self) -> str | None:
        """Wait for it; None, or why it did not go well."""
        self._process.join(LONGEST_S)
        if self._process.exitcode == 0:
            return None
        if self._process.exitcode is None:
            self.kill()
            return f"still at work after {LONGEST_S} s"
        return last_line(self._stderr)


def new_file(folder: Path) -> Path:
    """For what a start says on standard error."""
    fd, name = tempfile.mkstemp(dir=folder.parent, suffix=".err")
    os.close(fd)
    return Path(name)


def last_line(stderr: Path) -> str:
    """That it was refused, wherever it is said, or else what was said last."""
    lines = stderr.read_text().splitlines() or ["no message"]
    return next((line for line in lines if REFUSED in line), lines[-1])


def wait_for_child(*work: object) -> None:
    child = multiprocessing.get_context("fork").Process(target=work_in, args=work)
    child.start()
    child.join()


class Shell:
    """run.sh for one stage; who holds the file `held` open is not yet gone."""

    def __init__(self, stage: str, folder: Path, held: int | None = None):
        self._stderr = new_file(folder)
        exp = TRAINED if stage == "11" else RANDOM
        command = ["bash", "run.sh", "--stage", stage, "--stop_stage", stage]
        with open(self._stderr, "w") as file:
            self._process = subprocess.Popen(
                [*command, "--exp_name", exp],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=file,
                pass_fds=[] if held is None else [held],
            )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> str | None:
        """Wait for it; None, or why it did not go well."""
        status = self._process.wait(LONGEST_S)
        return last_line(self._stderr) if status else None


def differences(folder: Path, wanted: Path) -> list[str]:
    """What is not as in the undisturbed run; records hold times, and do not count."""

    def files(top: Path) -> dict[str, Path]:
        return {
            str(path.relative_to(top)): path
            for path in top.rglob("*")
            if path.is_file()
            and not NOT_COMPARED & set(path.relative_to(top).parts)
            and not path.name.startswith(".done_")
            and not path.name.endswith(("done.json", "timing.json"))
        }

    ours, theirs = files(folder), files(wanted)
    faults = [*(ours.keys() ^ theirs.keys())]
    for name in ours.keys() & theirs.keys():
        if ours[name].read_bytes() != theirs[name].read_bytes():
            if content(ours[name]) != content(theirs[name]):
                faults.append(name)
    kept = (".parts", ".index")
    hidden = [
        str(path)
        for path in folder.rglob(".*")
        if path.name not in kept and not path.name.startswith(".done_")
    ]
    return sorted(faults) + hidden


def content(path: Path) -> object:
    """What a file holds but for times, where its format or its purpose puts some in."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays}
    if path.suffix == ".ckpt":
        import torch

        state = torch.load(path, weights_only=True)
        del state["callbacks"]["Clock"]
        return comparable(state)
    if path.name == "history.jsonl":
        rows = map(json.loads, path.read_text().splitlines())
        return [row | {"seconds": 0} for row in rows]
    return path.read_bytes()


def comparable(state: object) -> object:
    """The same with bytes for tensors."""
    if isinstance(state, dict):
        return {key: comparable(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [comparable(value) for value in state]
    return state.numpy().tobytes() if hasattr(state, "numpy") else state


@dataclass
class Stage:
    """A stage that is tried, where, and how long it takes undisturbed."""

    name: str
    commands: list[list[str]]
    folder: Path
    took_s: float = 0.0

    def start(self, *, is_shell: bool = False) -> Run:
        return Run(self.commands, self.folder, is_shell=is_shell)


def killed(stage: Stage, rng: random.Random) -> list[str]:
    """Kill up to four starts at random times, then let one end."""
    for _ in range(rng.randrange(1, 5)):
        run = stage.start()
        time.sleep(rng.uniform(0.05, 1.1) * stage.took_s)
        run.kill()
    fault = stage.start().end()
    return [fault] if fault else []


def two_at_once(stage: Stage, rng: random.Random) -> list[str]:
    """Start a second one within the time of the first; one at least must end well."""
    first = stage.start()
    time.sleep(rng.choice([0.0, rng.uniform(0, stage.took_s)]))
    second = stage.start()
    ends = [first.end(), second.end()]
    faults = [fault for fault in ends if fault and REFUSED not in fault]
    return faults if None in ends else [*faults, "both failed"]


def shell_killed(stage: Stage, rng: random.Random) -> list[str]:
    """Kill the shell alone; start again while its program goes on, until let in."""
    with until_gone():
        shell = stage.start(is_shell=True)
        time.sleep(rng.uniform(0.1, 0.9) * stage.took_s)
        shell.kill()
        fault = until_let_in(stage.start)
    return [fault] if fault else []


def run_sh_killed(stage: Stage, rng: random.Random) -> list[str]:
    """Kill run.sh alone while its Python works; start run.sh again until let in."""
    with until_gone() as held:
        shell = Shell(stage.name, stage.folder, held)
        while shell.is_running() and not is_locked(stage.folder):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.9) * stage.took_s)
        shell.kill()
        fault = until_let_in(lambda: Shell(stage.name, stage.folder))
    return [fault] if fault else []


def is_locked(folder: Path) -> bool:
    """Whether a stage works there."""
    return any(n.endswith(".lock") for *_, names in os.walk(folder) for n in names)


def until_let_in(start: Callable[[], Run | Shell]) -> str | None:
    """Start until it is not refused; how that start ended."""
    while (fault := start().end()) and REFUSED in fault:
        time.sleep(0.1)
    return fault


@contextmanager
def until_gone() -> Iterator[int]:
    """Wait at the end for all that was begun with a file, which this gives, open."""
    ended, held = os.pipe()
    try:
        yield held
    finally:
        os.close(held)
        os.read(ended, 1)
        os.close(ended)


def stage_of(name: str) -> int:
    return 9 if name == UNDISTURBED else int(name)


WAYS = {
    "killed": killed,
    "two at once": two_at_once,
    "shell killed": shell_killed,
    "run.sh killed": run_sh_killed,
}


def attempt(
    stage: Stage, before: Path, wanted: Path, ways: list[str], n_tries: int, rng
) -> int:
    """Try a stage in some ways, and print what came of it; how many were wrong."""
    began = time.monotonic()
    n_wrong = dict.fromkeys(ways, 0)
    for way in ways:
        for number in range(1, n_tries + 1):
            # always the same path, as it is in the files that are compared
            shutil.rmtree(stage.folder)
            shutil.copytree(before, stage.folder, symlinks=True)
            faults = WAYS[way](stage, rng) + differences(stage.folder, wanted)
            n_wrong[way] += bool(faults)
            told = f"{way}, try {number} of {n_tries}: {faults[:3] or 'the same'}"
            print(f"stage {stage.name}, {told}", file=sys.stderr, flush=True)
    told = {"stage": stage.name, "tries": n_tries, "wrong": n_wrong}
    told["seconds"] = round(time.monotonic() - began)
    print(json.dumps(told), flush=True)
    return sum(n_wrong.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=20, help="of each stage and way")
    parser.add_argument("--quick", action="store_true", help="see above")
    names = ["1", "2", "3", "4", "5", "10", "11", "12", "13", "14"]
    parser.add_argument("--stages", nargs="+", choices=names, default=names)
    ways = list(WAYS)
    parser.add_argument("--ways", nargs="+", choices=ways, default=ways, metavar="WAY")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    if args.quick:
        args.stages, args.tries = ["1", "4"], 1
    last = max(map(stage_of, args.stages))
    n_wrong = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        top = Path(scratch).resolve()
        write_corpus(top / "downloads", args.seed, 20 if args.quick else 60)
        load_libraries(args.stages)
        work, before, wanted = top / "work", top / "before", top / "wanted"
        work.mkdir()
        write_recipe(work, top / "downloads")
        for name, lines in commands(top / "downloads").items():
            if stage_of(name) > last:
                break
            stage = Stage(name, lines, work)
            shutil.rmtree(before, ignore_errors=True)
            shutil.copytree(work, before, symlinks=True)  # with the times of files
            began = time.monotonic()
            if fault := stage.start().end():
                sys.exit(f"stage {name}, undisturbed: {fault}")
            stage.took_s = time.monotonic() - began
            shutil.rmtree(wanted, ignore_errors=True)
            shutil.copytree(work, wanted, symlinks=True)
            if name in args.stages:
                n_wrong += attempt(stage, before, wanted, args.ways, args.tries, rng)
                # go on with what the undisturbed run made
                shutil.rmtree(work)
                shutil.copytree(wanted, work, symlinks=True)
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
