"""Whole files or none: atomic writing and content hashes."""

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from powsm.errors import PowsmError
from powsm.files.lock import lock_file, owned

_CHUNK = 1 << 20  # bytes read at a time when hashing
_SHOWN = 40  # characters of a file's name that go into that of its temporary file
_TEMPORARY = ".new"  # end of the names of temporary files
_MAKING, _OLD = "making", "old"  # folders that are written, and that are replaced
_FORMER_KINDS = ("preparing", "making", "old")  # names of version 0.1
_WRITE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class DamagedError(PowsmError):
    """A file that is there and does not hold what it should."""


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` that becomes `path` when the block ends.

    On an error the temporary file is removed and an older `path` stays as it was,
    so a reader never meets half a file. A link to a file stays one: the file behind it
    is replaced.

    Args:
        path: the final name; its folder is made if it is missing.
        mode: "w" for text, which is UTF-8, "wb" for bytes.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name[:_SHOWN]}.", suffix=_TEMPORARY
    )
    try:
        how = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with naming(path), os.fdopen(fd, mode, **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _open_to_all(temporary, 0o666)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file at once, the way of `atomic_write`."""
    with atomic_write(path, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)


def write_json(path: Path, value: object, *, indent: int | None = 1) -> None:
    """Write a value as JSON at once, the way of `atomic_write`."""
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` that takes its place when the block ends.

    The folder is this process's own and `path` is locked meanwhile, so two processes
    never mix their files. On an error the folder is removed, and an older `path` stays
    as it was. What killed processes left is removed first. A link to a folder stays
    one: the folder behind it is replaced.

    Raises:
        OwnedError: another process is writing `path`.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with owned(path):
        _sweep_folders(path)
        making = _hidden_folder(path, _MAKING)
        try:
            yield making
            if not path.exists():
                os.rename(making, path)
                return
            old = _hidden_folder(path, _OLD)
            os.rename(path, old / path.name)
            os.rename(making, path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def sweep_files(
    folder: Path, *, below: bool = True, of: Collection[str] = ("",)
) -> None:
    """Remove what killed processes left of `atomic_write` in a folder.

    Only for who owns the folder, or the files: those of a process at work would go as
    well.

    Args:
        below: in the folders below it, too.
        of: names of the files that were to be written; default: all.
    """
    for name in of:
        pattern = f".{glob.escape(name[:_SHOWN])}*{_TEMPORARY}"
        search = Path(folder).rglob if below else Path(folder).glob
        for path in search(pattern):
            path.unlink(missing_ok=True)


def _sweep_folders(path: Path) -> None:
    """Remove what killed processes left of `atomic_folder`, but for the only copy."""
    for old in sorted(path.parent.glob(f"{_hidden(path, _OLD)}*")):
        if not path.exists() and (old / path.name).is_dir():
            os.rename(old / path.name, path)  # it was killed between two renames
        shutil.rmtree(old, ignore_errors=True)
    for making in path.parent.glob(f"{_hidden(path, _MAKING)}*"):
        shutil.rmtree(making, ignore_errors=True)
    for kind in _FORMER_KINDS:
        shutil.rmtree(path.with_name(f".{path.name}.{kind}"), ignore_errors=True)


def _hidden(path: Path, kind: str) -> str:
    """Beginning of the name of a working folder, as a pattern that glob takes whole."""
    return glob.escape(f"{lock_file(path).stem}.{kind}-")


def _hidden_folder(path: Path, kind: str) -> Path:
    prefix = f"{lock_file(path).stem}.{kind}-"
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
    _open_to_all(folder, 0o777)
    return folder


def _open_to_all(path: str | Path, mode: int) -> None:
    """Give what `tempfile` makes for its owner alone the rights of other files."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, mode & ~umask)


def read_json(
    path: Path, remedy: str, *, kind: type = dict, keys: Collection[str] = ()
) -> Any:
    """What a JSON file holds.

    Args:
        remedy: what to do about a damaged file, as "rerun stage 1".
        kind: of what it holds, dict or list.
        keys: that a dict must have; more may be there.

    Raises:
        DamagedError: it is no JSON, or holds something else; names the file.
        OSError: it cannot be read.
    """
    text = _read_text(path, remedy)
    return _checked(text, str(path), remedy, kind, keys)


def read_json_lines(
    path: Path, remedy: str, *, keys: Collection[str] = ()
) -> list[dict]:
    """What a file with a JSON object a line holds.

    Args:
        remedy: what to do about a damaged file.
        keys: that every object must have.

    Raises:
        DamagedError: a line is none; names file and line.
        OSError: it cannot be read.
    """
    return [
        _checked(line, f"{path}:{number}", remedy, dict, keys)
        for number, line in enumerate(_read_text(path, remedy).split("\n"), 1)
        if line.strip()
    ]


def _read_text(path: Path, remedy: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise DamagedError(f"{path}: damaged, not UTF-8 ({err}); {remedy}") from err


def _checked(
    text: str, where: str, remedy: str, kind: type, keys: Collection[str]
) -> Any:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as err:
        fault = f"damaged, no whole JSON ({err})"
        raise DamagedError(f"{where}: {fault}; {remedy}") from err
    if not isinstance(content, kind):
        wanted = "an object" if kind is dict else "a list"
        found = type(content).__name__
        raise DamagedError(f"{where}: expected {wanted}, found {found}; {remedy}")
    if kind is dict and (missing := [key for key in keys if key not in content]):
        raise DamagedError(f"{where}: no {' '.join(missing)} in it; {remedy}")
    return content


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
