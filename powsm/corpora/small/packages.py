"""Debian packages as a source of speech: fetched and unpacked without root.

`apt-get download` needs no privileges: it takes the .deb from the mirror that the
machine is set up for and checks it against the signed package lists. What it fetched is
checked again here, before anything is unpacked, against the size and SHA-256 that those
lists state, so that a file kept from an earlier run is trusted for the same reason.
"""

import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from powsm.errors import PowsmError
from powsm.files.lock import owned
from powsm.files.whole import sha256_file

logger = logging.getLogger(__name__)

ATTEMPTS = 4  # tries of a download before giving up
FIRST_WAIT_S = 2.0  # doubled after each failure

_FETCHING = ".download-"  # names of folders that a download is in
# "'URI' FILE SIZE SHA256:HEX", the line of `apt-get --print-uris`
_URI_LINE = re.compile(r"'[^']+' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<hash>\w{64})")
# what to do on a machine without these packages
ADVICE = (
    "On a machine without Debian's packages, unpack them elsewhere "
    "(apt-get download NAME; dpkg-deb -x NAME_*.deb DIR), copy the folder DIR, which "
    "holds usr/share, and point --corpus_dir to it"
)


class PackageError(PowsmError):
    """A package cannot be had on this machine, or is not what it should be."""


@dataclass(frozen=True)
class Package:
    """A Debian package in the version that the corpus was checked with.

    Attributes:
        name: of the binary package.
        version: as in the file name.
        size: of the .deb in bytes.
        sha256: of the .deb.
    """

    name: str
    version: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version}_all.deb"


def fetch_packages(
    packages: Sequence[Package],
    folder: Path,
    *,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Get .deb files into a folder; those already there and intact are kept.

    Args:
        packages: what to get.
        folder: where the files go; made if it is missing.
        wait: how to pause between attempts, seconds.

    Returns:
        One path a package, in the order given.

    Raises:
        PackageError: `apt-get` is missing, knows no such package, cannot reach its
            mirror after `ATTEMPTS` tries, or delivered a damaged file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [p for p in packages if not _is_intact(folder / p.file_name, p)]
    for package in packages:
        if package not in missing:
            logger.info("%s is there and intact", package.file_name)
    files = {p.name: folder / p.file_name for p in packages if p not in missing}
    if missing:
        files |= _download(missing, folder, wait)
    return [files[p.name] for p in packages]


def _is_intact(path: Path, package: Package) -> bool:
    return (
        path.is_file()
        and path.stat().st_size == package.size
        and sha256_file(path) == package.sha256
    )


def _download(
    packages: Sequence[Package], folder: Path, wait: Callable[[float], None]
) -> dict[str, Path]:
    """Download into a temporary folder, verify, move into place."""
    names = [p.name for p in packages]
    with (
        owned(folder, wait=True),  # another corpus may need the same
        tempfile.TemporaryDirectory(dir=_swept(folder), prefix=_FETCHING) as temporary,
    ):
        offers = _offers(names, temporary)
        for package in packages:
            if offers[package.name] != package:
                logger.warning(
                    "this machine offers %s in version %s, the corpus was checked with "
                    "%s: the counts may differ from the documented ones",
                    *(package.name, offers[package.name].version, package.version),
                )
        for attempt in range(1, ATTEMPTS + 1):
            result = _apt_get(["download", *names], temporary)
            if result.returncode == 0:
                break
            if attempt == ATTEMPTS:
                raise PackageError(_explain(result.stderr))
            pause_s = FIRST_WAIT_S * 2 ** (attempt - 1)
            logger.warning(
                "download failed (attempt %d of %d), next one in %g s: %s",
                *(attempt, ATTEMPTS, pause_s, _last_line(result.stderr)),
            )
            wait(pause_s)
        paths = {}
        for package in offers.values():
            got = Path(temporary) / package.file_name
            if not _is_intact(got, package):
                size = got.stat().st_size if got.is_file() else 0
                raise PackageError(
                    f"{package.file_name}: {size} bytes arrived that are not the "
                    f"{package.size} bytes of the package list (SHA-256 "
                    f"{package.sha256[:12]}...); run the stage again"
                )
            paths[package.name] = folder / package.file_name
            os.replace(got, paths[package.name])
    return paths


def _swept(folder: Path) -> Path:
    """The folder without what killed downloads left; only for who owns it."""
    for left in folder.glob(f"{_FETCHING}*"):
        shutil.rmtree(left, ignore_errors=True)
    return folder


def _offers(names: Sequence[str], cwd: str) -> dict[str, Package]:
    """What the machine's package lists say about packages.

    Must run in an empty folder: apt-get is silent about a file that it finds there.
    """
    result = _apt_get(["download", "--print-uris", *names], cwd)
    if result.returncode != 0:
        raise PackageError(_explain(result.stderr))
    offers = {}
    for match in _URI_LINE.finditer(result.stdout):
        # apt writes the ":" of an epoch as %3a; these packages have none
        name, version, _ = match["file"].split("_", 2)
        offers[name] = Package(name, version, int(match["size"]), match["hash"])
    if absent := sorted(set(names) - offers.keys()):
        raise PackageError(
            f"apt-get names no file with a SHA-256 for {', '.join(absent)}; it said: "
            f"{_last_line(result.stdout + result.stderr)!r}. {ADVICE}"
        )
    return offers


def _apt_get(arguments: Sequence[str], cwd: str) -> subprocess.CompletedProcess:
    if not shutil.which("apt-get"):
        raise PackageError(f"there is no apt-get on this machine. {ADVICE}")
    return subprocess.run(
        ["apt-get", "-q", *arguments],
        cwd=cwd,
        env=os.environ | {"LC_ALL": "C"},  # messages are matched below
        capture_output=True,
        text=True,
    )


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["nothing"])[-1]


def _explain(stderr: str) -> str:
    """One line for a failure of apt-get: what happened and the way out."""
    errors = [line for line in stderr.splitlines() if line.startswith("E:")]
    message = (errors or [_last_line(stderr)])[0].removeprefix("E: ")
    if "Unable to locate package" in stderr or "has no installation candid" in stderr:
        cause = (
            "the package lists of this machine are empty, old, or not Debian's. "
            "`apt-get update` renews them; that needs root"
        )
    elif "404" in stderr:
        cause = (
            "the mirror has another version than the package lists of this machine. "
            "`apt-get update` renews them; that needs root"
        )
    elif "Could not resolve" in stderr or "Could not connect" in stderr:
        cause = "the mirror cannot be reached; this machine may be offline"
    else:
        cause = "apt-get failed"
    return f"{message}: {cause}. {ADVICE}"


def unpack(paths: Sequence[Path], folder: Path) -> None:
    """Unpack .deb files over each other into a folder, as `dpkg-deb -x` does.

    Raises:
        PackageError: `dpkg-deb` is missing or refuses a file.
    """
    if not shutil.which("dpkg-deb"):
        raise PackageError(f"there is no dpkg-deb on this machine. {ADVICE}")
    for path in paths:
        result = subprocess.run(
            ["dpkg-deb", "-x", str(path), str(folder)], capture_output=True, text=True
        )
        if result.returncode != 0:
            raise PackageError(f"{path}: {_last_line(result.stderr)}")
