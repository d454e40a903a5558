"""Archives of other people: checked member by member, then unpacked once."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from powsm.errors import PowsmError
from powsm.files.lock import owned
from powsm.files.whole import atomic_folder, sha256_file

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class ArchiveError(PowsmError):
    """An archive that is damaged, too large, or would write where it may not."""


def unpack(archive: Path) -> Path:
    """Unpack an archive once, into a cache folder named after its content.

    Raises:
        ArchiveError: it is no archive or a damaged one, a member would land
            outside, is a link or a device, or there is no room.
    """
    if not archive.name.endswith(ARCHIVES):
        raise ArchiveError(
            f"{archive}: a model is a folder or one of {' '.join(ARCHIVES)}"
        )
    out = _cache() / sha256_file(archive)[:16]
    if out.is_dir():
        return out
    with owned(out, wait=True):
        if not out.is_dir():  # else another process was faster
            with atomic_folder(out) as making:
                _extract(archive, making)
    return out


def _cache() -> Path:
    """Where archives are unpacked: below XDG_CACHE_HOME, or the home folder.

    Raises:
        ArchiveError: it cannot be written.
    """
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(home) / "powsm"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as err:  # RuntimeError: no home folder at all
        raise ArchiveError(
            f"there is no place to unpack an archive ({err}); set XDG_CACHE_HOME to a "
            "folder that you may write, or unpack it yourself and name the folder"
        ) from err
    return cache


def _extract(archive: Path, folder: Path) -> None:
    try:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as file:
                members = [
                    (m.filename, m.file_size, m.is_dir() or _is_plain(m.external_attr))
                    for m in file.infolist()
                ]
                _check_members(archive, members, folder)
                file.extractall(folder)
        else:
            with tarfile.open(archive) as file:
                members = [
                    (m.name, m.size, m.isfile() or m.isdir()) for m in file.getmembers()
                ]
                _check_members(archive, members, folder)
                file.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as err:
        raise ArchiveError(f"{archive}: not an archive, or damaged: {err}") from err


def _is_plain(external_attr: int) -> bool:
    kind = external_attr >> 28  # file type of the Unix mode; 0 where there is none
    return kind in (0, 0o10)


def _check_members(
    archive: Path, members: list[tuple[str, int, bool]], out: Path
) -> None:
    for name, _, is_plain in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name[:3]:
            raise ArchiveError(f"{archive}: member {name} would land outside")
        if not is_plain:
            raise ArchiveError(f"{archive}: member {name} is a link or a device")
    needed, free = sum(size for _, size, _ in members), shutil.disk_usage(out).free
    if needed > free:
        raise ArchiveError(
            f"{archive}: needs {needed / 1e9:.1f} GB unpacked, {out.parent} has "
            f"{free / 1e9:.1f} GB; set XDG_CACHE_HOME to a larger disk"
        )
