"""Getting packages: what killed downloads left is gone, and two do not meet."""

import hashlib
from types import SimpleNamespace

import pytest

from powsm.corpora.small import packages
from powsm.files.lock import OwnedError, lock_file

DATA = b"a package"
PACKAGE = packages.Package("sounds", "1-1", len(DATA), hashlib.sha256(DATA).hexdigest())


def apt_get(arguments, cwd):
    """What apt-get would do; a file only where it is no question."""
    if "--print-uris" not in arguments:
        with open(f"{cwd}/{PACKAGE.file_name}", "wb") as file:
            file.write(DATA)
    line = f"'http://x/y' {PACKAGE.file_name} {len(DATA)} SHA256:{PACKAGE.sha256}"
    return SimpleNamespace(returncode=0, stdout=line, stderr="")


def test_what_a_killed_download_left_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "_apt_get", apt_get)
    left = tmp_path / ".download-x3"
    left.mkdir()
    (left / "half.deb").write_bytes(b"ha")
    (path,) = packages.fetch_packages([PACKAGE], tmp_path)
    assert path.read_bytes() == DATA
    assert [file.name for file in tmp_path.iterdir()] == [PACKAGE.file_name]


def test_a_second_download_is_refused_and_sweeps_nothing(tmp_path, monkeypatch):
    def during(arguments, cwd):
        with pytest.raises(OwnedError, match="is being written by"):
            in_thread(packages.fetch_packages, [PACKAGE], tmp_path)
        return apt_get(arguments, cwd)

    monkeypatch.setattr(packages, "_apt_get", during)
    packages.fetch_packages([PACKAGE], tmp_path)
    assert not lock_file(tmp_path).exists()


def in_thread(work, *arguments):
    """The same in another thread, which holds no lock of this one."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result()
