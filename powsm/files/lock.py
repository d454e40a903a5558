"""Who is writing what: a lock that ends with its process and says who holds it.

A lock of `dump/raw/train` is the file `dump/raw/.train.lock`, held by a POSIX record
lock. The system drops such a lock when its process ends, however that happens, and NFS
passes it on to other machines. The file itself says host, process, start and command.
What a killed process leaves is a file that nobody has locked: the next one takes it.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from powsm.errors import PowsmError

_BUSY = {errno.EAGAIN, errno.EACCES}  # of a lock that somebody else holds
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_LONGEST_NAME = 200  # bytes of a name; that of its lock holds the hash of a longer one
_LONGEST_COMMAND = 300  # characters of a command that are shown
_RECORD_WAIT_S = 1.0  # for the record of a process that locked a moment ago
_POLL_S = 0.2

log = logging.getLogger(__name__)

# Lock file -> (process, thread) that holds it. The system lets a process lock what it
# has locked already, and drops the lock when any of its descriptors is closed.
_held: dict[Path, tuple[int, int]] = {}
_held_guard = threading.Lock()


class OwnedError(PowsmError):
    """Another process is writing what this one is to write."""


@dataclass(frozen=True)
class _Owner:
    host: str
    pid: int
    since: str
    command: str

    @classmethod
    def this_process(cls) -> Self:
        command = shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]])
        return cls(
            host=os.uname().nodename,
            pid=os.getpid(),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            command=command[:_LONGEST_COMMAND],
        )

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.since} ({self.command})"


def lock_file(path: Path) -> Path:
    """Where the lock of `path` is: beside it, so that `path` can be replaced.

    It is that of the file or folder behind a link.

    >>> lock_file(Path("dump/raw/train")).name
    '.train.lock'
    """
    path = Path(path).resolve()
    name = path.name.lstrip(".")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.lock")


@contextmanager
def owned(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes `path` until the block ends.

    A block inside another one of the same path and thread changes nothing.

    Args:
        path: file or folder that is to be written; it need not be there yet.
        shared: let others in that ask for a shared lock as well, as the tasks of a
            job array do; who wants `path` alone is refused.
        wait: wait for the end of another process instead of being refused.

    Raises:
        OwnedError: another process holds it; names process, host, start and command.
    """
    file = lock_file(path)
    here = (os.getpid(), threading.get_ident())
    with _held_guard:
        holder = _held.get(file)
        if holder is None or holder[0] != here[0]:  # a fork inherits no lock
            _held[file], holder = here, None
    if holder == here:
        yield
        return
    if holder is not None:
        raise OwnedError(f"{path} is being written by another thread of this process")
    fd = None
    try:
        fd = _lock(path, file, shared, wait)
        yield
    finally:
        if fd is not None:
            _release(fd, file, shared)
        _held.pop(file, None)


def _lock(path: Path, file: Path, shared: bool, wait: bool) -> int | None:
    """A descriptor that holds the lock; None where the file system has no locks."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    is_waiting = False
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(fd, kind | fcntl.LOCK_NB)
        except OSError as err:
            os.close(fd)
            if err.errno in _NO_LOCKS:
                log.warning(
                    "%s: this file system has no locks (%s): see to it that no other "
                    "process writes it",
                    path,
                    err.strerror,
                )
                return None
            if err.errno not in _BUSY:
                raise
        else:
            if not _is_same_file(fd, file):  # its holder removed it at its end
                os.close(fd)
                continue
            try:
                _write_record(fd)
            except OSError:
                _release(fd, file, shared)
                raise
            return fd
        owner = _read_record(file)
        if not wait:
            raise OwnedError(
                f"{path} is being written by {owner}; wait for its end or stop it"
            )
        if not is_waiting:
            log.info("%s is being written by %s: waiting for its end", path, owner)
            is_waiting = True
        time.sleep(_POLL_S)


def _is_same_file(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(file))
    except FileNotFoundError:
        return False


def _write_record(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(asdict(_Owner.this_process())).encode() + b"\n", 0)
    os.fsync(fd)


def _read_record(file: Path) -> str:
    """Who holds the lock, as far as its file says.

    Only for files that this process has not locked: closing one drops the lock.
    """
    end = time.monotonic() + _RECORD_WAIT_S
    while True:
        try:
            return str(_Owner(**json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):  # it was just locked, or just released
            if time.monotonic() > end:
                return f"another process, which left no record in {file}"
            time.sleep(0.02)


def _release(fd: int, file: Path, shared: bool) -> None:
    try:
        if shared:  # the last one removes the file
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_same_file(fd, file):
            os.unlink(file)
    except OSError:  # others hold it, or the folder is gone: nothing to tidy
        pass
    finally:
        os.close(fd)
