"""Run a command as several processes of this machine that train or decode together.

Each gets its rank as from torchrun (RANK, WORLD_SIZE, ...). A signal is handed on to
all of them, and they are waited for.
"""

import argparse

from powsm.cli.options import whole


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--n", type=whole(1), required=True, help="processes; one for each GPU")
    what = {"metavar": "-- PROGRAM ARGUMENT...", "help": "what each of them runs"}
    add("program", nargs=argparse.REMAINDER, **what)


def run(options: argparse.Namespace) -> int:
    from powsm.cluster.ranks import launch
    from powsm.errors import PowsmError

    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise PowsmError("expected a program behind --")
    return launch(program, options.n)
