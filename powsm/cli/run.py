"""Running a command: its options, its log, and the one place that catches errors."""

import argparse
import logging
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from powsm.errors import PowsmError

BROKEN_PIPE = 141  # exit status for a reader that left, such as head: 128 + SIGPIPE


class _Stopped(KeyboardInterrupt):
    """A signal asks for the end, as Ctrl-C does."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


class _Help(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written, and the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_default = "default" in (action.help or "") or action.required
        if says_default or action.default in (None, False, [], "", argparse.SUPPRESS):
            return action.help
        return f"{action.help or ''} (default: %(default)s)".lstrip()


def run_command(
    name: str,
    about: str,
    add_options: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the options of a command and run it, then end the process if it failed.

    `run` gets what was parsed, as `command` the line that would do it again, and as
    `given` the names of the options that are in it.

    Args:
        name: what errors call it, as `powsm score` or `prepare_data.py`.
        about: its docstring, which --help shows.
        add_options: adds the options; it must not import what takes long.
        run: does the work, and gives a status that is not 0 where the work failed.
        arguments: of the command line, default: `sys.argv`.

    Raises:
        SystemExit: the status is not 0. `PowsmError` and `OSError` are shown as one
            line with status 1; other exceptions are faults of the program and pass.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog=name, description=about, formatter_class=_Help
    )
    add_options(parser)
    parser.set_defaults(command=shlex.join([*name.split(), *arguments]))
    options = parser.parse_args(arguments)
    options.given = _given(parser, arguments)
    set_up_log()
    with _leaving_ranks(), _stopping_at_signals():
        status = _run(name, run, options)
        if status:
            raise SystemExit(status)


def _given(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> set[str]:
    """Names of the options that the arguments hold, whatever their value."""
    defaults = [(action, action.default) for action in parser._actions]
    for action, _ in defaults:
        action.default = argparse.SUPPRESS
    try:
        return set(vars(parser.parse_args(arguments)))
    finally:
        for action, default in defaults:
            action.default = default


def _run(name: str, run: Callable, options: argparse.Namespace) -> int | str:
    """The status of `run`, or the line that says why it failed."""
    try:
        status = run(options) or 0
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        if os.environ.get("RANK", "0") == "0":  # the others end with it
            print(f"{name}: interrupted{by}", file=sys.stderr)
        return 128 + number  # as shells give it
    except BrokenPipeError as err:
        if not _is_stdout_closed():  # it was the pipe of another program
            return f"{name}: error: {err}"
        return BROKEN_PIPE
    except (PowsmError, OSError) as err:
        return f"{name}: error: {err}"
    return status


def _is_stdout_closed() -> bool:
    """Whether the reader of our output left; if so, nothing more is written to it."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


@contextmanager
def _stopping_at_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does: what is open is tidied up.

    A signal that is ignored stays so: nohup asks for that.
    """

    def stop(number: int, frame: object) -> None:
        raise _Stopped(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leaving_ranks():
    """One of several ranks that fails ends at once: see `leaving_at_errors`."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext()
    from powsm.cluster.ranks import leaving_at_errors

    return leaving_at_errors()


def set_up_log() -> None:
    """Log to stderr: our own messages, and of other libraries the warnings.

    Of several ranks, rank 0 says what all do, the others say what goes wrong.
    """
    rank = int(os.environ.get("RANK", "0"))
    logging.basicConfig(
        level=logging.WARNING if rank == 0 else logging.ERROR, format=_log_format(rank)
    )
    logging.getLogger("powsm").setLevel(logging.WARNING if rank else logging.INFO)


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Append the log to a file, too; without a message there is no file."""
    handler = logging.FileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(_log_format(0)))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _log_format(rank: int) -> str:
    return f"%(asctime)s {f'rank {rank}: ' if rank else ''}%(message)s"


def run_verb(*arguments: str | os.PathLike) -> None:
    """Run another verb in a process of its own, whose memory is gone afterwards.

    Raises:
        PowsmError: it failed, and said why.
    """
    command = [sys.executable, "-m", "powsm.cli.main", *map(str, arguments)]
    if subprocess.run(command, check=False).returncode:
        raise PowsmError(f"powsm {arguments[0]} failed, see above")
