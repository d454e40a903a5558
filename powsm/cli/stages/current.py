"""Ask whether a stage's command ended well before, on the same inputs: its record.

Prints nothing where it did. Else it prints the record that is to be kept when the
command has ended, of the inputs as they are now.
"""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--record", type=Path, required=True, help="of the command that ended")
    add("--stage", choices=("2", "5", "10", "11"), required=True)
    add("--inputs", type=Path, nargs="*", default=[], help="files and folders it reads")
    what = {"metavar": "-- PROGRAM ARGUMENT...", "help": "the command"}
    add("program", nargs=argparse.REMAINDER, **what)


def run(options: argparse.Namespace) -> None:
    from powsm.files.current import is_current, record_text, states_below

    stage = f"stage {options.stage}"
    inputs = states_below(options.inputs)
    made_from = {"command": options.program, "inputs": inputs}
    if not is_current(options.record, stage, made_from):
        print(record_text(stage, made_from, {}))
