"""Alignment: times worked out by hand, files read back by other programs' parsers."""

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from ctc_stand_in import BLANK, START, A, P, T, speech_of, stand_in
from dump_builder import make_dump
from hypothesis import given
from hypothesis import strategies as st
from praatio import textgrid
from tiny_model import make_experiment, make_tokens

from powsm.align import (
    AlignError,
    Segment,
    align,
    write_ctm,
    write_json,
    write_textgrid,
)
from powsm.decode import Recogniser
from powsm.longform import LongFormError

#       0      1      2      3  4      5      6  7  8      9
PATH = [BLANK, START, BLANK, P, BLANK, BLANK, A, A, BLANK, T]
# frame t begins at 0.01 + 0.04 t; the model says p in frame 3, a in 6 and 7, t in 9.
# The blanks 4 5 are halved at frame 5, blank 8 at frame 8.5; p reaches two frames
# back, to 1; t goes on to the end of the audio, 10 * 0.04 + 0.03.
TIMES = [("p", 0.05, 0.21), ("a", 0.21, 0.35), ("t", 0.35, 0.43)]
CERTAIN = math.exp(8) / (math.exp(8) + 7)  # of 8 tokens


def times(segments):
    return [(s.phone, s.start, s.end) for s in segments]


@pytest.mark.parametrize("phones", [None, ("p", "a", "t")])
def test_times_are_those_of_the_frames(phones):
    segments = align(stand_in(), speech_of(PATH), phones)
    assert times(segments) == TIMES
    for segment in segments:
        assert segment.confidence == pytest.approx(CERTAIN, abs=1e-4)


def test_a_phone_that_was_not_said_is_placed_with_little_confidence():
    segments = align(stand_in(), speech_of(PATH), ("p", "i", "a", "t"))
    assert [s.phone for s in segments] == ["p", "i", "a", "t"]
    assert segments[1].confidence < 0.01 < 0.99 < segments[0].confidence
    assert segments[0].end <= segments[1].start < segments[1].end


def test_length_marks_are_kept_but_not_looked_for():
    segments = align(stand_in(), speech_of(PATH), ("p", "aː", "t"))
    assert times(segments)[1] == ("aː", 0.21, 0.35)


def test_a_phone_said_twice_is_two():
    path = [P, BLANK, P, A]
    assert [s.phone for s in align(stand_in(), speech_of(path))] == ["p", "p", "a"]
    twice = align(stand_in(), speech_of([BLANK, *path]), ("p", "p", "a"))
    assert [s.phone for s in twice] == ["p", "p", "a"]


def test_a_long_pause_belongs_to_nobody():
    segments = align(stand_in(), speech_of([P, *[BLANK] * 10, A]))
    assert segments[0].end == 0.13  # frame 1 + 2
    assert segments[1].start == 0.37  # frame 11 - 2


def test_silence_has_no_segments():
    assert align(stand_in(), speech_of([BLANK] * 5)) == []


@pytest.mark.parametrize(
    ("phones", "message"),
    [
        (("p", "x", "ʘ", "x"), "no token for x ʘ"),
        ((), "no phones to align"),
        (("p", "p", "a", "t", "p", "p", "a", "t"), "need 11 frames, the audio has 10"),
    ],
)
def test_phones_that_cannot_be_aligned(phones, message):
    with pytest.raises(AlignError, match=message):
        align(stand_in(), speech_of(PATH), phones)


def test_audio_too_short_to_encode_says_how_long_it_must_be():
    with pytest.raises(LongFormError, match=r"0.050 s .* needs 0.060 s"):
        align(stand_in(), torch.zeros(800))


@given(st.lists(st.sampled_from([BLANK, P, A, T]), min_size=1, max_size=30))
def test_segments_are_in_order_and_within_the_audio(path):
    speech = speech_of(path)
    ends = [0.0]
    for segment in align(stand_in(), speech):
        assert ends[-1] <= segment.start < segment.end
        ends.append(segment.end)
    assert ends[-1] <= round(len(speech) / 16_000, 4)


def test_a_whole_model_aligns_its_reference(tmp_path):
    make_dump(tmp_path / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    recogniser = Recogniser.load(
        make_experiment(tmp_path, make_tokens(tmp_path / "train", tmp_path / "tokens"))
    )
    phones = ("p", "a", "t")
    speech = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) / 10
    segments = align(recogniser, speech, phones)
    assert tuple(s.phone for s in segments) == phones
    assert all(0 <= s.start < s.end <= 1 and 0 < s.confidence < 1 for s in segments)
    align(recogniser, speech)


def test_script_aligns_a_set_and_names_what_it_cannot(tmp_path, monkeypatch, caplog):
    folder = make_dump(tmp_path / "dump/train", [0.6, 0.8, 1.0, 0.7], seed=1)
    exp = make_experiment(tmp_path, make_tokens(folder, tmp_path / "tokens"))
    (folder / "normaliser.json").write_text('{"policy": "strict"}')
    bad = folder / "wav/tiny_u0001_ita.wav"
    bad.write_text("this is no sound")
    script = Path(__file__).parents[1] / "local/align.py"
    arguments = ["--exp", exp, "--dump", folder.parent, "--set", "train"]
    monkeypatch.setattr(sys, "argv", list(map(str, [script, *arguments, "--ref=true"])))
    with caplog.at_level("INFO"):
        runpy.run_path(str(script), run_name="__main__")
    made = sorted(path.name for path in (exp / "align/train_ref").iterdir())
    assert made == [f"tiny_u000{n}.TextGrid" for n in ("0_eng", "2_eng", "3_ita")]
    assert f"{bad}: these 16 bytes do not decode as audio" in caplog.text
    assert "in 3 utterances, 1 could not be aligned" in caplog.text


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
