"""Whole files or none, and errors that say which file."""

import errno
import hashlib
import os

import pytest

from powsm.files.whole import atomic_folder, atomic_write, naming, sha256_file


def test_atomic_write_replaces_whole_files_only(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as file:
        file.write("old\n")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old\n"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_folder_replaces_whole_folders_only(tmp_path):
    path = tmp_path / "set"
    with atomic_folder(path) as making:
        (making / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as making:
        (making / "b").write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in path.iterdir()] == ["a"]
    with atomic_folder(path) as making:
        (making / "c").write_text("new")
    assert [p.name for p in path.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as err, atomic_write(tmp_path / "a.txt") as file:
        file.write("x")
    place = tmp_path / "a.txt"
    assert str(err.value) == f"[Errno 28] No space left on device: '{place}'"
    assert list(tmp_path.iterdir()) == []


def test_naming_leaves_other_errors_alone(tmp_path):
    with pytest.raises(FileNotFoundError) as err, naming(tmp_path):
        open(tmp_path / "b")
    assert err.value.filename == str(tmp_path / "b")
    with pytest.raises(ConnectionError) as err, naming(tmp_path):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert err.value.filename is None


def test_sha256_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
