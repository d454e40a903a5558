"""The command line in tests: a verb as a program, and a verb in this process."""

import sys

from powsm.cli.main import main

POWSM = [sys.executable, "-m", "powsm.cli.main"]


def run_verb(*arguments: object) -> None:
    """Run a verb in this process, as starting another takes seconds."""
    main([str(argument) for argument in arguments])
