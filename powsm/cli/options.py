"""Options that several commands have, each said once."""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.errors import PowsmError

if TYPE_CHECKING:
    from powsm.prepare.filters import Limits

MODEL = "experiment folder, packed folder or archive, or Hub tag"

_DEVICES = (None, "cpu", "cuda")

SHARED = {
    "--exp": {"type": Path, "required": True, "help": "experiment folder"},
    "--model": {"help": f"{MODEL}; default: --exp"},
    "--model_file": {"type": Path, "help": "weights; default: the average"},
    "--dump": {"type": Path, "required": True, "help": "dump/raw"},
    "--sets": {"nargs": "+", "required": True, "help": "folders in --dump"},
    "--profiles": {
        "type": Path,
        "nargs": "+",
        "required": True,
        "help": "conf/decode_*.yaml",
    },
    "--device": {"help": "cpu or cuda; default: cuda if there is one"},
    "--config": {"type": Path, "required": True, "help": "training YAML"},
    "--token_dir": {"type": Path, "required": True, "help": "of stage 5"},
    "--stats": {"type": Path, "help": "stage 10's folder, or a feats_stats.npz"},
    "--set": {
        "action": "extend",
        "nargs": "*",
        "default": [],
        "metavar": "KEY.SUB=VALUE",
        "dest": "overrides",
        "help": "change settings of the YAML",
    },
    "--downloads": {"type": Path, "default": Path("downloads")},
    "--data": {"type": Path, "default": Path("data"), "help": "folder of the sets"},
}


def whole(least: int = 0) -> Callable[[str], int]:
    """An option's type: a whole number from `least` up."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"{text!r}, expected a whole number of {least} or more"
            )
        return int(text)

    return read


def number(
    least: float = 0.0, most: float = math.inf, *, above: bool = False
) -> Callable[[str], float]:
    """An option's type: a number from `least`, or above it, to `most`."""
    wanted = f"a number {'above' if above else 'from'} {least:g}"
    wanted += f" to {most:g}" if math.isfinite(most) else ""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if (
            not least <= value <= most
            or math.isinf(value)
            or (above and value == least)
        ):
            raise argparse.ArgumentTypeError(f"{text!r}, expected {wanted}")
        return value

    return read


def refuse_unused(
    options: argparse.Namespace, *names: str, why: str, unless: bool = False
) -> None:
    """Refuse options that were given and that nothing would read.

    Args:
        options: of `run_command`, which says what was given.
        names: of the options, without their hyphens.
        why: what makes them useless, as "there is no --tier".
        unless: they are read after all.

    Raises:
        PowsmError: names those that were given.
    """
    given = [f"--{name}" for name in names if name in options.given]
    if given and not unless:
        them = "it" if len(given) == 1 else "them"
        raise PowsmError(f"{' '.join(given)}: not used, {why}; leave {them} out")


def refuse_one_name(profiles: Sequence[Path]) -> None:
    """Refuse profiles that would write over each other's results.

    Raises:
        PowsmError: two files have one name, which is that of the folder of results.
    """
    first: dict[str, Path] = {}
    for path in profiles:
        if (other := first.setdefault(path.name, path)) != path:
            raise PowsmError(
                f"--profiles {other} {path}: two of one name, and results are in a "
                "folder of that name; rename one"
            )


def add_shared(parser: argparse.ArgumentParser, *names: str, **changes) -> None:
    """Add options of `SHARED`; `changes` hold for all that are named."""
    for name in names:
        parser.add_argument(name, **SHARED[name] | changes)


def sets_of(options: argparse.Namespace, file: str) -> list[str]:
    """The sets that are asked for, or all of --data that have a file.

    Raises:
        PowsmError: there is none.
    """
    there = sorted(path.parent.name for path in options.data.glob(f"*/{file}"))
    if not (sets := options.sets or there):
        raise PowsmError(f"{options.data}: no set with a {file}; run stage 1 first")
    return sets


def add_shares(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --shards I/N and --merge, by which the tasks of a job array share a stage."""
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument(
        "--shards", type=share, metavar="I/N", help=f"every N-th {what}, no merging"
    )
    steps.add_argument("--merge", action="store_true", help="merge finished shards")


SHARED["--nj"] = {"type": whole(1), "default": 1, "help": "processes"}


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add what an utterance of train and dev must satisfy."""
    from powsm.prepare.filters import LIMITS  # imports numpy

    add = parser.add_argument
    least, most = LIMITS.min_duration_s, LIMITS.max_duration_s
    add("--min_duration", type=number(), default=least, help="seconds; train, dev")
    add("--max_duration", type=number(above=True), default=most, help="train, dev")
    add("--max_phones", type=whole(1), default=LIMITS.max_phones, help="train, dev")
    add("--langs", default="", help="ISO 639-3 codes; others are dropped; train, dev")


def limits_of(options: argparse.Namespace) -> "Limits":
    """The limits that were given.

    Raises:
        PowsmError: a language that is no ISO 639-3 code.
    """
    from powsm.prepare.filters import Limits, languages_named

    return Limits(
        options.min_duration,
        options.max_duration,
        options.max_phones,
        only_languages=languages_named(options.langs),
    )


def share(text: str) -> tuple[int, int]:
    """`3/16` -> (3, 16)."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0/16 ... 15/16")
    return int(index), int(count)


def device(wanted: str | None) -> str:
    """The device of this process: the one that is wanted, or a GPU if there is one.

    Raises:
        PowsmError: there is no such device.
    """
    import torch

    kind, _, number = ("cpu" if wanted is None else wanted).partition(":")
    if kind not in ("cpu", "cuda") or not (number.isdecimal() or wanted in _DEVICES):
        raise PowsmError(f"--device {wanted}: expected cpu, cuda or cuda:N")
    name = told = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda":  # one for each process
        number = os.environ.get("LOCAL_RANK", "0")
        name = f"cuda:{number}"
        told = name if "LOCAL_RANK" in os.environ else told
    if name.startswith("cuda") and int(number) >= torch.cuda.device_count():
        raise PowsmError(
            f"--device {told}: PyTorch finds {torch.cuda.device_count()} GPUs here: "
            "see nvidia-smi, or take --device cpu (of run.sh: --ngpu 0)"
        )
    return name
