"""Sorting by GNU sort gives what Python's sort of bytes gives."""

import random
import tracemalloc
from itertools import islice

import pytest

from powsm.files import sort as bigsort
from powsm.files.sort import count_values, merge_sorted


@pytest.fixture
def lines():
    draw = random.Random(0)
    letters = "aAzé中\U0001f600_-. \t"
    words = {"".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(900)}
    return sorted(f"{i}{word}\n".encode() for i, word in enumerate(words))


@pytest.mark.parametrize("max_open", [2, 200])
def test_merged_lines_are_in_order(lines, tmp_path, monkeypatch, max_open):
    monkeypatch.setattr(bigsort, "MAX_OPEN", max_open)
    paths = [tmp_path / f"part {i}" for i in range(7)]
    for i, path in enumerate(paths):
        path.write_bytes(b"".join(lines[i::7]))
    assert list(merge_sorted(paths, tmp_path)) == lines
    assert sorted(tmp_path.iterdir()) == paths


def test_merge_that_is_not_read_to_its_end_leaves_nothing(lines, tmp_path):
    path = tmp_path / "part"
    path.write_bytes(b"".join(lines) * 500)
    merged = merge_sorted([path], tmp_path)
    assert list(islice(merged, 3)) == lines[:3]
    merged.close()
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match="cannot read.*no_such_part"):
        list(merge_sorted([tmp_path / "no_such_part"], tmp_path))


@pytest.mark.parametrize("values", [["b", "a b", "a", "é", "a-", "b1"], ["one"], []])
def test_different_values_are_counted(tmp_path, values):
    rows = [(f"utt{i:03d}", values[i % len(values)]) for i in range(100) if values]
    path = tmp_path / "utt2speaker"
    path.write_text("".join(f"{utt} {value}\n" for utt, value in rows))
    assert count_values(path) == len(values)


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "utt2speaker"
    path.write_text("".join(f"utt{i:06d} {i}\n" for i in range(500_000)))
    tracemalloc.start()
    assert count_values(path) == 500_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # the lines as objects take 30
