"""Run a stage's command as Slurm jobs and wait for them.

In the command, {} is the member's item of --each, or for its share 0/N ... of
the N jobs; {cpus} and {gpus} for what the stage asks for, {device} for cuda where it
has GPUs, else cpu. A command without {} is one job. Exit status 1 when a job
failed for good: the message names its log.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.cli.options import whole

if TYPE_CHECKING:
    from powsm.cluster.resources import Resources


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--cluster", type=Path, required=True, help="conf/cluster/*.yaml")
    add("--stage", type=whole(), required=True, help="whose resources to ask for")
    add("--log", type=Path, required=True, help="folder for logs and job scripts")
    add("--each", nargs="+", help="a job for each of these")
    add("--ranks", action="store_true", help="a process for each GPU, as ranks")
    what = {"metavar": "-- PROGRAM ARGUMENT...", "help": "what each job runs"}
    add("program", nargs=argparse.REMAINDER, **what)


def run(options: argparse.Namespace) -> None:
    from powsm.cluster.jobs import JobArray, exit_at_signals
    from powsm.cluster.resources import ClusterError, load_resources
    from powsm.cluster.slurm import Slurm

    exit_at_signals()
    stages = load_resources(options.cluster)
    if options.stage not in stages:
        known = " ".join(map(str, stages))
        raise ClusterError(f"stage {options.stage} runs as no job, only {known} do")
    resources = stages[options.stage]
    if resources.nodes > 1 and not options.ranks:
        raise ClusterError(
            f"{options.cluster}: stages.{options.stage}.nodes is {resources.nodes}, "
            "but a command without --ranks runs on one machine: set it to 1"
        )
    program = options.program[1:]
    items = options.each or [f"{i}/{resources.jobs}" for i in range(resources.jobs)]
    if "{}" not in program:
        items = ["the job"]
    commands = {item: filled(program, item, resources) for item in items}
    folder = options.log
    backend = Slurm(options.stage, resources, folder, is_distributed=options.ranks)
    JobArray(options.stage, commands, backend, resources, folder).run()


def filled(program: Sequence[str], item: str, resources: "Resources") -> list[str]:
    """A command with its placeholders replaced."""
    known = {
        "{}": item,
        "{cpus}": str(resources.cpus),
        "{gpus}": str(resources.gpus),
        "{device}": "cuda" if resources.gpus else "cpu",
    }
    return [_replaced(word, known) for word in program]


def _replaced(word: str, known: Mapping[str, str]) -> str:
    for placeholder, value in known.items():
        word = word.replace(placeholder, value)
    return word
