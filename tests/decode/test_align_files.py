"""Files of alignments, read back by other programs."""

import json
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from praatio import textgrid

from powsm.decode.align_files import (
    AlignFileError,
    Segment,
    write_alignments,
    write_ctm,
    write_json,
    write_textgrid,
)

SEGMENTS = [Segment('"', 0.05, 0.21, 0.9), Segment("t͡ʃ", 0.21, 0.37, 0.25)]


def test_praat_parser_reads_the_textgrid(tmp_path):
    path = tmp_path / "u.TextGrid"
    write_textgrid(path, SEGMENTS, duration_s=0.43)
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    assert grid.tierNames == ("phones",)
    rows = [tuple(entry) for entry in grid.getTier("phones").entries]
    assert rows == [
        (0, 0.05, ""),
        (0.05, 0.21, '"'),
        (0.21, 0.37, "t͡ʃ"),
        (0.37, 0.43, ""),
    ]
    assert (grid.minTimestamp, grid.maxTimestamp) == (0, 0.43)


def test_textgrid_of_silence_is_one_pause(tmp_path):
    write_textgrid(tmp_path / "u.TextGrid", [], duration_s=1.5)
    grid = textgrid.openTextgrid(str(tmp_path / "u.TextGrid"), True)
    assert [tuple(e) for e in grid.getTier("phones").entries] == [(0, 1.5, "")]


def test_textgrid_of_times_of_numpy_is_that_of_plain_ones(tmp_path):
    for number in (float, np.float64):
        segments = [Segment("a", number(0.25), number(0.5), 1.0)]
        write_textgrid(tmp_path / number.__name__, segments, number(1.5))
    assert (tmp_path / "float64").read_text() == (tmp_path / "float").read_text()


def test_ctm_has_a_line_a_phone(tmp_path):
    write_ctm(tmp_path / "phones.ctm", {"u1": SEGMENTS[1:], "u2": []})
    assert (tmp_path / "phones.ctm").read_text() == "u1 1 0.2100 0.1600 t͡ʃ 0.2500\n"


def test_json_reads_back(tmp_path):
    write_json(tmp_path / "phones.jsonl", {"u1": SEGMENTS, "u2": []})
    rows = [json.loads(line) for line in (tmp_path / "phones.jsonl").open()]
    assert [Segment(**s) for s in rows[0]["segments"]] == SEGMENTS
    assert rows[1] == {"utt_id": "u2", "segments": []}


def test_every_recording_has_its_textgrid(tmp_path):
    durations_s = {"u1": 0.43, "u2": 1.5}
    write_alignments(tmp_path, {"u1": SEGMENTS, "u2": []}, durations_s)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["phones.ctm", "phones.jsonl", "u1.TextGrid", "u2.TextGrid"]
    for utt_id, duration_s in durations_s.items():
        grid = textgrid.openTextgrid(str(tmp_path / f"{utt_id}.TextGrid"), True)
        assert grid.maxTimestamp == duration_s


@pytest.mark.skipif(shutil.which("praat") is None, reason="praat is not installed")
def test_praat_itself_reads_the_textgrid(tmp_path):
    write_textgrid(tmp_path / "u.TextGrid", SEGMENTS, duration_s=0.43)
    (tmp_path / "read.praat").write_text(
        f'Read from file: "{tmp_path}/u.TextGrid"\n'
        "n = Get number of intervals: 1\n"
        "writeInfoLine: n\n"
        "for i to n\n"
        "    text$ = Get label of interval: 1, i\n"
        "    start = Get start time of interval: 1, i\n"
        '    appendInfoLine: fixed$(start, 2), " ", text$\n'
        "endfor\n"
    )
    done = subprocess.run(
        ["praat", "--run", "--utf8", str(tmp_path / "read.praat")],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().split("\n")
    assert lines[:5] == ["4", "0 ", '0.05 "', "0.21 t\u0361\u0283", "0.37 "]


def tier_of(path):
    grid = textgrid.openTextgrid(
        str(path), includeEmptyIntervals=True, reportingMode="error"
    )
    return [tuple(entry) for entry in grid.getTier("phones").entries], grid.maxTimestamp


@given(
    n_samples=st.integers(1_000, 200_000_000),
    cuts=st.lists(
        st.floats(0, 1, exclude_max=True, allow_subnormal=False), min_size=2, max_size=8
    ),
)
@settings(deadline=None, max_examples=60)
def test_textgrid_ends_with_the_file_and_holds_no_slivers(n_samples, cuts):
    """Times are rounded to 4 decimals, as in files of alignments, the end is not."""
    duration_s = n_samples / 16_000
    times = sorted({int(cut * duration_s * 100) / 100 for cut in cuts})
    times.append(round(duration_s, 4))  # up to 0.05 ms before or behind the end
    pairs = [(a, b) for a, b in pairwise(times) if b - a > 0.005][:3]
    pairs += [(times[-1] - 0.004, times[-1])] if not pairs else []
    segments = [Segment("a", start, end, 1.0) for start, end in pairs]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "u.TextGrid"
        write_textgrid(path, segments, duration_s)
        rows, end_s = tier_of(path)
    assert end_s == duration_s == rows[-1][1]
    assert rows[0][0] == 0
    for row, following in pairwise(rows):
        assert row[1] == following[0]
    assert all(end - start >= 0.001 for start, end, _ in rows)
    assert [text for *_, text in rows if text] == ["a"] * len(segments)


def test_textgrid_of_a_rounded_end():
    """16,001 samples are 1.0000625 s, which rounds to 1.0001 s: behind the end."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "u.TextGrid"
        segments = [Segment("a", 0.00004, 0.5, 1.0), Segment("b", 0.5005, 1.0001, 1.0)]
        write_textgrid(path, segments, 16_001 / 16_000)
        assert tier_of(path) == ([(0, 0.5, "a"), (0.5, 1.0000625, "b")], 1.0000625)


@pytest.mark.parametrize(
    "times", [[(0.1, 0.3), (0.2, 0.4)], [(0.2, 0.2)], [(0.3, 0.1)], [(0.1, 1.2)]]
)
def test_segments_that_make_no_tier_are_refused(tmp_path, times):
    segments = [Segment("a", start, end, 1.0) for start, end in times]
    with pytest.raises(AlignFileError, match="'a' from .* expected times in order"):
        write_textgrid(tmp_path / "u.TextGrid", segments, 1.0)
    assert not list(tmp_path.iterdir())


NAMES = [
    *("plain", "ä_ñ_語", "my talk", "a\tb", "50% off", ";; no comment", "a\u00a0b"),
    *("a\u2028b", "x" * 240, "-", "1", os.fsdecode(b"caf\xe9"), "a/b"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_kept(tmp_path, name):
    write_alignments(tmp_path, {name: SEGMENTS}, {name: 0.43})
    lines = (tmp_path / "phones.ctm").read_text(encoding="utf-8").split("\n")[:-1]
    assert [len(line.split()) for line in lines] == [6, 6]
    assert not lines[0].startswith(";;")
    assert unquote(lines[0].split()[0], errors="surrogateescape") == name
    rows = (tmp_path / "phones.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(row)["utt_id"] for row in rows] == [name]
    assert (tmp_path / f"{name}.TextGrid").is_file()


def test_plain_names_stay_as_they_are_in_ctm(tmp_path):
    write_ctm(tmp_path / "a.ctm", {"ä;b": SEGMENTS[1:]})
    assert (tmp_path / "a.ctm").read_text().startswith("ä;b 1 0.2100 0.1600 t͡ʃ ")


@pytest.mark.parametrize("name", ["../a", "/a", "b/../../a"])
def test_a_name_does_not_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(AlignFileError, match="leads out of it"):
        write_alignments(tmp_path / "out", {name: SEGMENTS}, {name: 0.43})
