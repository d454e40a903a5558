#!/usr/bin/env python3
"""Run a stage's command as Slurm jobs and wait for them.

In the command, {} stands for the member's item of --each, or for its share 0/N ... of
the N jobs; {cpus} and {gpus} for what the stage asks for. A command without {} is one
job. Exit status 1 when a job failed for good: the message names its log.
"""

import argparse
import logging
import sys
from pathlib import Path

from powsm.cluster.jobs import JobArray, exit_at_signals
from powsm.cluster.resources import ClusterError, load_resources
from powsm.cluster.slurm import Slurm


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--cluster", type=Path, required=True, help="conf/cluster/*.yaml")
    add("--stage", type=int, required=True, help="whose resources to ask for")
    add("--log", type=Path, required=True, help="folder for logs and job scripts")
    add("--each", nargs="+", help="a job for each of these")
    add("--ranks", action="store_true", help="a process for each GPU, as ranks")
    add("command", nargs=argparse.REMAINDER, help="-- PROGRAM ARGUMENT...")
    options = parser.parse_args()
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s submit.py: %(message)s"
    )
    logging.getLogger("powsm").setLevel(logging.INFO)
    exit_at_signals()
    command = options.command[1:]
    try:
        resources = load_resources(options.cluster)[options.stage]
        if resources.nodes > 1 and not options.ranks:
            raise ClusterError(
                f"{options.cluster}: stages.{options.stage}.nodes is "
                f"{resources.nodes}, but this trainer (--trainer espnet) starts its "
                "processes on one machine: set it to 1, or take --trainer powsm"
            )
        items = options.each or [f"{i}/{resources.jobs}" for i in range(resources.jobs)]
        if "{}" not in command:
            items = ["the job"]
        known = {"{cpus}": str(resources.cpus), "{gpus}": str(resources.gpus)}
        commands = {
            item: [fill(word, known | {"{}": item}) for word in command]
            for item in items
        }
        backend = Slurm(
            options.stage, resources, options.log, is_distributed=options.ranks
        )
        array = JobArray(options.stage, commands, backend, resources, options.log)
        array.run()
    except ClusterError as err:
        sys.exit(f"submit.py: error: {err}")


def fill(word: str, known: dict[str, str]) -> str:
    """A word of the command with each placeholder replaced."""
    for placeholder, value in known.items():
        word = word.replace(placeholder, value)
    return word


if __name__ == "__main__":
    main()
