"""Lines in sorted order, more of them than fit in memory: GNU sort, by bytes."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

MEMORY = "256M"
MAX_OPEN = 200  # files open at once; a process may usually open 1,024
_BUFFER = 1 << 20


def merge_sorted(paths: Sequence[Path], scratch: Path) -> Iterator[bytes]:
    """The lines of sorted files in one order, as bytes with their newline.

    Args:
        paths: one file or more, each sorted by bytes.
        scratch: folder for temporary files, which more than `MAX_OPEN` files need.

    Raises:
        OSError: a file cannot be read, or the disk is full.
    """
    options = ["-m", f"--batch-size={MAX_OPEN}", "--files0-from=-"]
    return _sort(options, scratch, b"\0".join(map(os.fsencode, paths)))


def count_values(path: Path) -> int:
    """How many different values the lines `key value` of a file have.

    Raises:
        OSError: the file cannot be read, or the disk is full.
    """
    return sum(1 for _ in _sort(["-u", "-k2", str(path)], path.parent))


def _sort(options: list[str], scratch: Path, names: bytes = b"") -> Iterator[bytes]:
    """Run sort and give its lines; `names` goes to its standard input."""
    with subprocess.Popen(
        ["sort", "-S", MEMORY, "-T", str(scratch), *options],
        bufsize=_BUFFER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    ) as sort:
        try:
            sort.stdin.write(names)
            sort.stdin.close()
            yield from sort.stdout
            fault = sort.stderr.read().decode(errors="replace").strip()
            if sort.wait():
                raise OSError(fault or f"sort ended with status {sort.returncode}")
        finally:
            sort.kill()  # its reader may have stopped early
