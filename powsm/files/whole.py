"""Whole files or none: atomic writing and content hashes."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20  # bytes read at a time when hashing
_WRITE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def atomic_write(
    path: Path, mode: str = "w", encoding: str | None = "utf-8"
) -> Iterator[IO]:
    """Open a temporary file beside `path` that becomes `path` when the block ends.

    On an error the temporary file is removed and an older `path` stays as it was,
    so a reader never meets half a file.

    Args:
        path: the final name; its folder is made if it is missing.
        mode: "w" for text, "wb" for bytes.
        encoding: of text; ignored for bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "b" in mode:
        encoding = None
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        newline = None if "b" in mode else "\n"
        with (
            naming(path),
            os.fdopen(fd, mode, encoding=encoding, newline=newline) as file,
        ):
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner alone; results are for everybody
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` that takes its place when the block ends.

    On an error it is removed, and an older `path` stays as it was.
    """
    path = Path(path)
    making = path.with_name(f".{path.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield making
        shutil.rmtree(path, ignore_errors=True)
        os.replace(making, path)
    finally:
        shutil.rmtree(making, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the error of a full disk say what was being written.

    The system names no file when it refuses to write to one that is open.
    """
    try:
        yield
    except OSError as err:
        if err.errno in _WRITE_FAULTS and err.filename is None:
            err.filename = str(path)
        raise


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
