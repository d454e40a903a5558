"""Archives: unpacked once, or refused with nothing left behind."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from powsm.files.archives import ArchiveError, unpack


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "powsm"


def test_what_is_no_archive_is_told(tmp_path):
    (tmp_path / "model.pth").touch()
    with pytest.raises(ArchiveError, match="a model is a folder or one of .zip"):
        unpack(tmp_path / "model.pth")


def tar_with(path: Path, info: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as file:
        file.addfile(info, io.BytesIO(b"x" * info.size))
    return path


def member(name: str, **settings) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in settings.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (member("../evil"), "member ../evil would land outside"),
        (member("/etc/evil"), "member /etc/evil would land outside"),
        (member("a/b", type=tarfile.SYMTYPE, linkname="/etc"), "a/b is a link"),
        (member("dev", type=tarfile.CHRTYPE), "dev is a link or a device"),
    ],
)
def test_members_that_would_do_harm_are_refused(tmp_path, cache, info, message):
    archive = tar_with(tmp_path / "model.tar", info)
    with pytest.raises(ArchiveError, match=message):
        unpack(archive)
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("../evil", 0o100644, "would land outside"),
        ("C:/evil", 0o100644, "would land outside"),
        ("a\\..\\..\\evil", 0o100644, "would land outside"),
        ("link", 0o120777, "is a link"),
    ],
)
def test_zip_members_that_would_do_harm_are_refused(
    tmp_path, cache, name, mode, message
):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo("x")
        info.filename = name
        info.external_attr = mode << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match=message):
        unpack(archive)
    assert not list(cache.iterdir())


def test_archive_larger_than_the_disk_is_refused_before_it_is_unpacked(
    tmp_path, monkeypatch
):
    archive = tar_with(tmp_path / "model.tar", member("big", size=4000))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3999))
    with pytest.raises(ArchiveError, match="set XDG_CACHE_HOME"):
        unpack(archive)


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_archive_that_is_cut_short_leaves_nothing(tmp_path, cache, kind):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(os.urandom(50_000))
    archive = Path(shutil.make_archive(str(tmp_path / "w"), kind, tmp_path / "model"))
    archive.write_bytes(archive.read_bytes()[:-5000])
    with pytest.raises(ArchiveError, match="not an archive, or damaged"):
        unpack(archive)
    assert not list(cache.iterdir())


def test_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """As of a user without a home folder; a file stands in for it."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    archive = tar_with(tmp_path / "model.tar", member("a", size=1))
    with pytest.raises(ArchiveError, match="no place to unpack .*set XDG_CACHE_HOME"):
        unpack(archive)
