"""Whole files or none, and errors that say which file."""

import errno
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from powsm.files.lock import OwnedError
from powsm.files.whole import (
    DamagedError,
    atomic_folder,
    atomic_write,
    naming,
    read_json,
    read_json_lines,
    sha256_file,
    sweep_files,
)


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


def test_atomic_folder_of_two_processes_is_of_one(tmp_path):
    with (
        atomic_folder(tmp_path / "set") as making,
        pytest.raises(OwnedError, match=r"set is being written by pid \d+ on "),
    ):
        (making / "a").write_text("a")
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(_make_folder, tmp_path / "set").result()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["a"]
    _make_folder(tmp_path / "set")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["b"]


def _make_folder(path):
    with atomic_folder(path) as making:
        (making / "b").write_text("b")


def test_atomic_folder_behind_a_link_stays_there(tmp_path):
    (tmp_path / "disk" / "set").mkdir(parents=True)
    (tmp_path / "set").symlink_to(tmp_path / "disk" / "set")
    _make_folder(tmp_path / "set")
    assert (tmp_path / "set").is_symlink()
    assert (tmp_path / "disk" / "set" / "b").read_text() == "b"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "set"]


def test_older_folder_comes_back_after_a_kill_between_the_renames(tmp_path):
    path = tmp_path / "set"
    _make_folder(path)
    (tmp_path / ".set.old-x1").mkdir()
    (tmp_path / ".set.making-x1").mkdir()
    os.rename(path, tmp_path / ".set.old-x1" / "set")
    with pytest.raises(KeyboardInterrupt), atomic_folder(path):
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert (path / "b").read_text() == "b"


@pytest.mark.parametrize("name", ["☃" * 80, "[ab]*?", "-x", "a b"])
def test_atomic_names_of_all_kinds(tmp_path, name):
    for _ in range(2):
        (tmp_path / f".{name[:20]}.making-x1").mkdir(exist_ok=True)
        _make_folder(tmp_path / name)
    with atomic_write(tmp_path / name / ("ʃ" * 127)) as file:
        file.write("a")
    assert len(list((tmp_path / name).iterdir())) == 2


def test_sweep_files_takes_temporary_files_alone(tmp_path):
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from powsm.files.whole import atomic_write\n"
        "with atomic_write(Path(sys.argv[1]) / 'deep' / 'a.txt') as file:\n"
        "    file.write('half')\n    file.flush()\n    os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    (tmp_path / ".hidden").write_text("of the user")
    (tmp_path / "x.new").write_text("of the user")
    assert len(list((tmp_path / "deep").iterdir())) == 1
    sweep_files(tmp_path)
    assert list((tmp_path / "deep").iterdir()) == []
    assert len(list(tmp_path.iterdir())) == 3


def test_sweep_files_leaves_those_of_others_where_names_are_given(tmp_path):
    for name in (".a[1].json.x8.new", ".a1.json.x8.new", ".b.json.x8.new"):
        (tmp_path / name).write_text("half")
    sweep_files(tmp_path, below=False, of=["a[1].json", "c"])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".a1.json.x8.new", ".b.json.x8.new"]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"[1] 2"])
def test_damaged_json_names_file_and_remedy(tmp_path, damage):
    (tmp_path / "a.json").write_bytes(damage)
    with pytest.raises(DamagedError) as err:
        read_json(tmp_path / "a.json", "run stage 1 again")
    message = str(err.value)
    assert message.startswith(f"{tmp_path / 'a.json'}: damaged")
    assert message.endswith("; run stage 1 again") and "\n" not in message


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("[]", dict, "expected an object, found list"),
        ("{}", list, "expected a list, found dict"),
        ("3", dict, "expected an object, found int"),
        ('{"a": 1}', dict, "no b c in it"),
        ("[" * 100_000, list, "damaged"),
    ],
)
def test_json_of_something_else_names_what_it_is(tmp_path, text, kind, message):
    (tmp_path / "a.json").write_text(text)
    keys = ("a", "b", "c") if kind is dict else ()
    with pytest.raises(DamagedError, match=f"a.json: {message}.*; get it again$"):
        read_json(tmp_path / "a.json", "get it again", kind=kind, keys=keys)


def test_lines_of_json_name_the_one_that_is_damaged(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": "\u2028"}\n')
    assert read_json_lines(path, "", keys=("a",)) == [{"a": 1}, {"a": "\u2028"}]
    for line, message in ((b'{"a"', "damaged"), (b"{}", "no a in it"), (b"\xff", "")):
        path.write_bytes(b'{"a": 1}\n' + line)
        where = "a.jsonl:2" if message else "a.jsonl"
        with pytest.raises(DamagedError, match=f"{where}: {message}.*; cut it$"):
            read_json_lines(path, "cut it", keys=("a",))


def test_links_stay_links(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/a.txt").write_text("old")
    (tmp_path / "a.txt").symlink_to("disk/a.txt")
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("new")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "disk/a.txt").read_text() == "new"
    assert len(list((tmp_path / "disk").iterdir())) == 1
