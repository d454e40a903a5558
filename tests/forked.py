"""Processes of tests that have PyTorch, ESPnet and Lightning when they begin.

To import them takes 5 s, more than most of what is trained here. These processes are
forked from a server of `multiprocessing` that has imported them and no more. Programs
that start as users start them, torchrun's ranks among them, are in the tests of
recipes, of `powsm decode` and of signals.
"""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["powsm.train.run", "tiny_model"])


def start(
    function: Callable,
    *arguments: object,
    output: Path,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Begin `function(*arguments)` in a process that leads a group of its own.

    Args:
        function: of a module; what it patches is patched there alone.
        output: file of its stdout and stderr.
        environment: what it has beside this process's variables.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1"} | (environment or {})
    variables.pop("PYTEST_CURRENT_TEST", None)
    what = (function, arguments, output, variables, os.getcwd())
    process = _SERVER.Process(target=_begin, args=what)
    process.start()
    return process


def _begin(function, arguments, output, variables, folder) -> None:
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method(None, force=True)  # of this server's children
    torch.set_num_threads(1)
    function(*arguments)


def run_ranks(
    n_ranks: int, function: Callable, *arguments: object, folder: Path
) -> str:
    """Run `function(*arguments)` as ranks that find each other as torchrun's do.

    Args:
        folder: of `rank<N>.txt`, what each of them prints.

    Returns:
        What rank 0, rank 1 and so on printed.

    Raises:
        AssertionError: one of them failed; the others are ended.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "tests",
        "WORLD_SIZE": str(n_ranks),
        "LOCAL_WORLD_SIZE": str(n_ranks),
    }
    files = [folder / f"rank{rank}.txt" for rank in range(n_ranks)]
    ranks = [
        start(
            function,
            *arguments,
            output=file,
            environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank, file in enumerate(files)
    ]
    while any(rank.is_alive() for rank in ranks):
        if any(rank.exitcode for rank in ranks):
            for rank in ranks:
                rank.kill()
        time.sleep(0.02)
    printed = "".join(file.read_text() for file in files)
    assert not any(rank.exitcode for rank in ranks), printed[-3000:]
    return printed
