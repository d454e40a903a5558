"""Files of alignments, read back by other programs."""

import json
import shutil
import subprocess

import pytest
from praatio import textgrid

from powsm.decode.align_files import (
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
