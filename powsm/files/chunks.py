"""Cut the files of a data directory into the same runs of utterances, for workers.

The files of `data/<set>` hold the same keys in the same order, but lines of different
length. A chunk names the bytes of each file that belong to one run of utterances; the
cuts depend on `wav.scp` alone, never on the number of workers, so results joined in
order are the same for any number of them.
"""

import mmap
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

from powsm.files.datadir import CRLF_FAULT, DataDirError

CHUNK_BYTES = 1 << 20  # of wav.scp: about 10,000 utterances
_KEYS_FROM = "wav.scp"


@dataclass(frozen=True)
class Chunk:
    """A run of utterances: for each file the first byte and the byte after the last."""

    index: int
    ranges: tuple[tuple[Path, int, int], ...]


def plan_chunks(
    directory: Path, files: Sequence[str], chunk_bytes: int = CHUNK_BYTES
) -> list[Chunk]:
    """Cut `files` (the first is `wav.scp`) of a data directory at the same utterances.

    Reads a few pages a cut: a binary search in each sorted file.

    Raises:
        DataDirError: a file is missing or empty, has lines that end in CR LF, or lacks
            the key of a cut.
    """
    if files[0] != _KEYS_FROM:
        raise ValueError(f"the first file must be {_KEYS_FROM}, found {files[0]}")
    paths = [Path(directory) / name for name in files]
    for path in paths:
        if not path.is_file() or path.stat().st_size == 0:
            raise DataDirError(f"{path}: missing or empty; rerun stage 1")
    maps = []
    try:
        for path in paths:
            with open(path, "rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if maps[-1].readline().endswith(b"\r\n"):
                raise DataDirError(f"{path}:1: {CRLF_FAULT}")
        cuts = [[0] for _ in paths]
        keys_from = maps[0]
        position = chunk_bytes
        while position < len(keys_from):
            start = keys_from.find(b"\n", position) + 1
            if start in (0, len(keys_from)):
                break
            key = _key_at(keys_from, start)
            for path, data, cut in zip(paths, maps, cuts, strict=True):
                line = _line_of(data, key)
                if line is None:
                    raise DataDirError(
                        f"{path}: no line for {key.decode()!r} of {paths[0]}; all "
                        "files need the same sorted keys: rerun stage 1"
                    )
                cut.append(line)
                data.madvise(mmap.MADV_DONTNEED)  # pages read count as memory used
            position = start + chunk_bytes
        for data, cut in zip(maps, cuts, strict=True):
            cut.append(len(data))
    finally:
        for data in maps:
            data.close()
    return [
        Chunk(
            i,
            tuple(
                (path, cut[i], cut[i + 1])
                for path, cut in zip(paths, cuts, strict=True)
            ),
        )
        for i in range(len(cuts[0]) - 1)
    ]


def _key_at(data: mmap.mmap, start: int) -> bytes:
    end = data.find(b"\n", start)
    return data[start : end if end >= 0 else len(data)].partition(b" ")[0]


def _line_of(data: mmap.mmap, key: bytes) -> int | None:
    """Where the line of `key` starts in a sorted file."""
    low, high = 0, len(data)  # line starts; the line, if any, lies in [low, high)
    while low < high:
        middle = (low + high) // 2
        start = data.rfind(b"\n", low, middle) + 1 or low
        key_here = _key_at(data, start)
        if key_here == key:
            return start
        if key_here < key:
            end = data.find(b"\n", start)
            low = end + 1 if end >= 0 else len(data)
        else:
            high = start
    return None


def read_rows(chunk: Chunk) -> Iterator[tuple[str, ...]]:
    """The utterances of a chunk: utt_id, then the value in each file, in their order.

    Raises:
        DataDirError: the files differ in their keys, or hold bytes that are not UTF-8.
    """
    columns = []
    for path, start, stop in chunk.ranges:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(stop - start)
        try:
            # not splitlines: a transcript may hold U+2028 or other line breaks
            columns.append(data.decode("utf-8").removesuffix("\n").split("\n"))
        except UnicodeDecodeError as err:
            raise DataDirError(
                f"{path}: not UTF-8 text at byte {start + err.start} ({err.reason})"
            ) from err
    keys_path = chunk.ranges[0][0]
    for (path, _, _), column in zip(chunk.ranges, columns, strict=True):
        if len(column) != len(columns[0]):
            raise DataDirError(
                f"{path}: {len(column):,} lines where {keys_path} has "
                f"{len(columns[0]):,}; all files need the same keys: rerun stage 1"
            )
    for lines in zip(*columns, strict=True):
        utt_id, _, value = lines[0].partition(" ")
        values = [utt_id, value]
        for (path, _, _), line in zip(chunk.ranges[1:], lines[1:], strict=True):
            key, _, value = line.partition(" ")
            if key != utt_id:
                raise DataDirError(
                    f"{path}: found {key!r}, expected {utt_id!r} as in {keys_path}; "
                    "all files need the same sorted keys: rerun stage 1"
                )
            values.append(value)
        yield tuple(values)


def map_in_order[Item, Result](
    work: Callable[[Item], Result], items: Iterable[Item], nj: int
) -> Iterator[Result]:
    """`map(work, items)` by `nj` processes, results in the order of the items.

    A few items a process are under way at a time, so memory stays flat; one process
    works without starting another. A worker that is killed raises BrokenProcessPool;
    when the caller is killed or interrupted its workers end.
    """
    if nj <= 1:
        yield from map(work, items)
        return
    # spawned, not forked: the parent may run threads (progress bars, torch)
    context = get_context("spawn")
    with ProcessPoolExecutor(nj, context, initializer=_end_with_parent) as pool:
        under_way: deque[Future[Result]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) >= 3 * nj:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as err:
            raise ChildProcessError(
                f"one of {nj} worker processes was killed; if the machine ran out of "
                "memory, run again with fewer (--nj)"
            ) from err
        except (KeyboardInterrupt, GeneratorExit):
            for worker in active_children():  # the pool would wait for what they do
                worker.kill()
            raise
        finally:
            for future in under_way:
                future.cancel()


def _end_with_parent() -> None:
    """Let a worker end when the process that started it is killed.

    It would otherwise wait for its next task for ever. Ctrl-C, which the terminal
    sends to all of them, is left to that process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
