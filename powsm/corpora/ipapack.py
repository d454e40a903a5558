"""Shar folders from the Hugging Face hub, complete or with one line that says why not.

Not by `huggingface_hub`'s own download: that of 1.33 starts a file over when its
process died, compares no hash, and after an error takes a folder that is there for the
whole. Its session, token, offline switch and errors are used.

A file is fetched beside its place as `.<name>.<hash>.part`, goes on where a break or a
kill left it, and is renamed when size and hash are those of the hub. What a folder is
to hold is in `manifest/<repository>.tsv`, so `find_faults` needs no network.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Event, Lock
from typing import BinaryIO

from tqdm import tqdm

from powsm.files.whole import atomic_write, naming
from powsm.hub import (
    FAULTS,
    CorruptedError,
    HubError,
    IncompleteError,
    Patience,
    RemoteFile,
    StoppedError,
    explain,
    open_file,
)

REPOSITORIES = {  # of IPAPack++: what the paper used; the part for training of ZIPA
    "raw": tuple(f"anyspeech/ipapack_plus_{number}" for number in range(1, 7)),
    "train": tuple(f"anyspeech/ipapack_plus_train_{number}" for number in range(1, 5)),
}
MANIFESTS = "manifest"  # folder beside the corpora
_CHUNK = 1 << 20  # bytes read at a time when hashing

logger = logging.getLogger(__name__)


def select(
    files: Iterable[RemoteFile],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[RemoteFile]:
    """Files of the corpora wanted, by path.

    Args:
        include: patterns of a corpus, "mls_*", or of a split, "fleurs/hi_in-*"; ()
            means all.
        exclude: the same, of what to leave out.

    Raises:
        HubError: a pattern fits nothing, two data sets differ in a file, or
            nothing is left.
    """
    by_path: dict[str, RemoteFile] = {}
    for file in files:
        other = by_path.setdefault(file.path, file)
        if other.hash != file.hash:
            raise HubError(
                f"{file.path} is one file in {other.repository} and another in "
                f"{file.repository}: give each a folder of its own (--downloads)"
            )
    names = {p: {f.corpus, f"{f.corpus}/{f.split}"} for p, f in by_path.items()}
    everything = set().union(*names.values())
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(name, pattern) for name in everything):
            corpora = sorted(name for name in everything if "/" not in name)
            raise HubError(
                f"no corpus fits '{pattern}': there is {' '.join(corpora) or 'none'}"
            )

    def fits(path: str, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(n, p) for n in names[path] for p in patterns)

    chosen = [
        by_path[path]
        for path in sorted(by_path)
        if (not include or fits(path, include)) and not fits(path, exclude)
    ]
    if not chosen:
        raise HubError("nothing is left after --include and --exclude")
    return chosen


# What there is to be here


def read_manifest(folder: Path) -> list[RemoteFile]:
    """All files that a folder is to hold, by path.

    Raises:
        HubError: there is no manifest, or a line of one is damaged.
    """
    files = []
    for path in sorted((folder / MANIFESTS).glob("*.tsv")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            cells = line.split("\t")
            if len(cells) != 5 or not cells[3].isdigit():
                raise HubError(f"{path}:{number}: not a line of a manifest")
            files.append(RemoteFile(*cells[:3], int(cells[3]), cells[4]))
    if not files:
        raise HubError(
            f"{folder / MANIFESTS}: no manifest yet, so nothing is known of what "
            "should be here; stage 0 writes it"
        )
    return sorted(files, key=lambda file: file.path)


def update_manifest(
    folder: Path, listed: Iterable[RemoteFile], chosen: Iterable[RemoteFile]
) -> None:
    """Note what a folder is to hold: what is chosen now, and was before.

    Args:
        listed: every file that the hub has. What was chosen before and is missing
            any more is forgotten.
        chosen: some of them.
    """
    now = {file.path: file for file in listed}
    try:
        before = read_manifest(folder)
    except HubError:
        before = []
    kept = {file.path for file in before} | {file.path for file in chosen}
    for repository in sorted({file.repository for file in now.values()}):
        text = "".join(
            f"{f.repository}\t{f.revision}\t{f.path}\t{f.size}\t{f.hash}\n"
            for path, f in sorted(now.items())
            if path in kept and f.repository == repository
        )
        path = folder / MANIFESTS / f"{repository.replace('/', '--')}.tsv"
        if text and not (path.exists() and path.read_text(encoding="utf-8") == text):
            with atomic_write(path) as out:
                out.write(text)


def find_faults(
    files: Iterable[RemoteFile], folder: Path, *, hashes: bool = False, nj: int = 1
) -> Iterator[str]:
    """One line for each file that is not here as it should be.

    Args:
        hashes: read every byte; else sizes alone are compared.
        nj: files that are read at once.
    """

    def look(file: RemoteFile) -> str | None:
        path = folder / file.path
        if not path.is_file():
            return f"{path}: is missing; stage 0 fetches it"
        if (size := path.stat().st_size) != file.size:
            return f"{path}: {size:,} of {file.size:,} bytes; stage 0 fetches it again"
        if hashes and _digest(path, file.hasher()).hexdigest() != file.hash:
            return f"{path}: not the bytes of the hub; remove it, stage 0 fetches it"
        return None

    with ThreadPoolExecutor(nj) as pool:
        yield from filter(None, pool.map(look, files))


# The download


def download(
    files: Sequence[RemoteFile],
    folder: Path,
    *,
    nj: int = 8,
    patience: Patience,
    stop: Event | None = None,
) -> int:
    """Fetch the files that are not here with their size.

    A file whose bytes are wrong at every try does not keep the others from coming. Any
    other fault that lasts ends all workers; what has come stays for the next time.

    Args:
        nj: files at once.
        stop: set by the caller to end early.

    Returns:
        How many were fetched.

    Raises:
        HubError: not everything is here.
    """
    missing = [f for f in files if _size(folder / f.path) != f.size]
    here = sum(min(_size(file.part(folder)) or 0, file.size) for file in missing)
    total = sum(file.size for file in missing)
    _check_space(folder, total - here)
    gigabytes = (total - here) / 1e9
    logger.info("%s: %d files to fetch, %.1f GB", folder, len(missing), gigabytes)
    stop = stop or Event()
    corrupted = []
    lock = Lock()
    bar = tqdm(total=total, initial=here, unit="B", unit_scale=True, disable=None)

    def advance(size: int) -> None:
        with lock:
            bar.update(size)

    def work(file: RemoteFile) -> None:
        patience.persist(
            lambda: fetch(file, folder, advance, stop),
            file.path,
            stop,
            # a line that is cut again and again may take its time, in hundredths
            lambda: 100 * (_size(file.part(folder)) or 0) // max(1, file.size),
        )

    with bar, ThreadPoolExecutor(nj) as pool:
        futures = {pool.submit(work, file): file for file in missing}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except CorruptedError as err:
                    corrupted.append(str(err))
        except (*FAULTS, IncompleteError, OSError) as err:
            raise HubError(explain(err, futures[future].path)) from err
        except StoppedError as err:
            raise HubError("stopped: run the stage again to go on") from err
        finally:  # nothing is left to stop when all went well
            stop.set()
            pool.shutdown(cancel_futures=True)
    if faults := list(find_faults(files, folder)):
        first = (corrupted or faults)[0]
        raise HubError(f"{len(faults)} of {len(files)} files are not here: {first}")
    return len(missing)


def fetch(
    file: RemoteFile, folder: Path, advance: Callable[[int], None], stop: Event
) -> None:
    """One try at a file: go on where its part ends; land it when its hash is right.

    Args:
        advance: called with every gain in bytes, and with losses.
        stop: looked at between pieces.

    Raises:
        IncompleteError: the answer ended early; the part is kept.
        CorruptedError: the hash is wrong; the part is emptied.
        BlockingIOError: another process is fetching this file.
        OSError and `powsm.hub.FAULTS`: as they come; the part is kept.
    """
    part = file.part(folder)
    part.parent.mkdir(parents=True, exist_ok=True)
    with naming(part), open(part, "a+b") as out:
        _lock(out)
        digest = _digest(part, file.hasher())
        if out.tell() < file.size:
            digest = _receive(file, out, digest, advance, stop)
        if (size := out.tell()) < file.size:
            raise IncompleteError(
                f"the answer ended at {size:,} of {file.size:,} bytes"
            )
        if digest.hexdigest() != file.hash:
            _empty(out)
            advance(-size)
            raise CorruptedError(f"{file.path}: not the bytes of its hash on the hub")
        os.fsync(out.fileno())
        part.replace(folder / file.path)


def _receive(
    file: RemoteFile, out: BinaryIO, digest, advance: Callable[[int], None], stop: Event
):
    """Append what is missing; the digest of all that `out` holds then."""
    start = out.tell()
    with open_file(file, start) as answer:
        if start and answer.status_code != 206:  # no ranges here: from the start again
            _empty(out)
            advance(-start)
            start, digest = 0, file.hasher()
        # pieces as they arrive: those of a fixed size are lost when the line is cut
        for chunk in answer.iter_raw():
            chunk = chunk[: file.size - start]
            out.write(chunk)
            out.flush()
            digest.update(chunk)
            start += len(chunk)
            advance(len(chunk))
            if stop.is_set() and start < file.size:  # what has come is kept
                raise StoppedError
    return digest


def _lock(out: BinaryIO) -> None:
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks, as Lustre can be: the hash will tell
        logger.debug("no locks here", exc_info=True)


def _empty(out: BinaryIO) -> None:
    out.seek(0)
    out.truncate()


def _digest(path: Path, digest):
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _check_space(folder: Path, need: int) -> None:
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if (free := shutil.disk_usage(parent).free) < need:
        raise HubError(
            f"{folder}: {need / 1e9:,.1f} GB to fetch, {free / 1e9:,.1f} GB free: make "
            "room, choose corpora (--include) or another folder (IPAPACK_PLUS in db.sh)"
        )
