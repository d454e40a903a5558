"""What is up to date, and what makes it stale."""

import os
from pathlib import Path

import pytest

from powsm.files import current
from powsm.files.current import (
    contents,
    is_current,
    read_record,
    states,
    states_below,
    write_record,
)

MADE_FROM = {"inputs": {"text": "ab"}, "tasks": ("asr", "pr"), "rate": 0.1}


@pytest.fixture
def record(tmp_path):
    (tmp_path / "text").write_text("a b\n")
    path = tmp_path / "done.json"
    write_record(path, "dump", MADE_FROM, [tmp_path / "text"], {"kept": 3})
    return path


def test_same_inputs_and_outputs_are_current(record):
    assert read_record(record, "dump", MADE_FROM) == {"kept": 3}
    assert is_current(record, "dump", dict(reversed(MADE_FROM.items())))


@pytest.mark.parametrize(
    "made_from",
    [
        {**MADE_FROM, "rate": 0.2},
        {**MADE_FROM, "seed": 1},
        {"inputs": {"text": "ab"}, "rate": 0.1},
        {**MADE_FROM, "tasks": ("pr", "asr")},
    ],
)
def test_other_inputs_make_it_stale(record, made_from):
    assert not is_current(record, "dump", made_from)


def test_version_of_the_stage_makes_it_stale(record, monkeypatch):
    monkeypatch.setitem(current.VERSIONS, "tokens", 99)
    assert is_current(record, "dump", MADE_FROM)
    monkeypatch.setitem(current.VERSIONS, "dump", current.VERSIONS["dump"] + 1)
    assert not is_current(record, "dump", MADE_FROM)


def test_record_of_another_stage_is_stale(record):
    assert not is_current(record, "index", MADE_FROM)


@pytest.mark.parametrize("text", [None, "a b", "a b\n\n"])
def test_lost_or_changed_output_makes_it_stale(record, text):
    output = record.parent / "text"
    output.unlink() if text is None else output.write_text(text)
    assert not is_current(record, "dump", MADE_FROM)


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", "3", "{}", '{"stage": "dump"}', "\udcff"]
)
def test_damaged_record_is_stale(record, damage):
    record.write_bytes(damage.encode("utf-8", "surrogateescape"))
    assert not is_current(record, "dump", MADE_FROM)


@pytest.mark.parametrize("at", [0, 1, 20, -2])
def test_record_cut_off_is_stale(record, at):
    record.write_bytes(record.read_bytes()[:at])
    assert not is_current(record, "dump", MADE_FROM)


def test_missing_record_is_stale(tmp_path):
    assert not is_current(tmp_path / "none.json", "dump", MADE_FROM)


def test_contents_and_states(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    # of FIPS 180-2, appendix B.1
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert contents([file]) == {"a": sha256}
    assert states([file]) == {"a": [3, file.stat().st_mtime_ns]}
    with pytest.raises(FileNotFoundError):
        states([tmp_path / "b"])


def test_states_below_are_of_files_in_folders_that_are_there(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/.hidden").mkdir()
    for name in ("a/b/one", "a/.two", "a/.hidden/three", "four"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = states_below(tmp_path / name for name in ("link", "four", "absent"))
    assert [Path(path).name for path in found] == ["one", "four"]
    assert [size for size, _ in found.values()] == [7, 4]
    (tmp_path / "a/b/one").write_text("changed")  # of another time
    os.utime(tmp_path / "a/b/one", (1, 1))
    assert states_below([tmp_path / "link"])[str(tmp_path / "link/b/one")][1] == 10**9
