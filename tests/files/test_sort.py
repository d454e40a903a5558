"""Sorting by GNU sort gives what Python's sort of bytes gives."""

import random
import tracemalloc
from itertools import groupby, islice

import pytest

from powsm.files import sort as bigsort
from powsm.files.sort import merge_sorted, write_spk2utt


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


@pytest.mark.parametrize("speakers", [["b", "a b", "a", "é", "a-", "b1"], ["one"]])
def test_spk2utt_is_utt2spk_turned_round(tmp_path, speakers):
    rows = sorted((f"utt{i:03d}", speakers[i % len(speakers)]) for i in range(100))
    utt2spk = tmp_path / "utt2spk"
    utt2spk.write_text("".join(f"{utt} {speaker}\n" for utt, speaker in rows))
    write_spk2utt(utt2spk, tmp_path / "spk2utt")
    pairs = sorted((speaker.encode(), utt) for utt, speaker in rows)
    expected = [
        f"{speaker.decode()} {' '.join(utt for _, utt in group)}\n"
        for speaker, group in groupby(pairs, key=lambda pair: pair[0])
    ]
    assert (tmp_path / "spk2utt").read_text() == "".join(expected)


def test_empty_file_stays_empty(tmp_path):
    (tmp_path / "utt2spk").touch()
    write_spk2utt(tmp_path / "utt2spk", tmp_path / "spk2utt")
    assert (tmp_path / "spk2utt").read_bytes() == b""


def test_memory_does_not_grow_with_the_file(tmp_path):
    utt2spk = tmp_path / "utt2spk"
    utt2spk.write_text("".join(f"utt{i:06d} one\n" for i in range(500_000)))
    tracemalloc.start()
    write_spk2utt(utt2spk, tmp_path / "spk2utt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # the lines as objects take 30
