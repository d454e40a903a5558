"""Long recordings: windows merge to what one window would have said."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from ctc_stand_in import BLANK, A, P, T, speech_of, stand_in
from dump_builder import make_dump
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import make_experiment, make_tokens

from powsm.decode import Recogniser
from powsm.longform import LongFormError, ctc_frames, cut_at_pauses, transcribe
from powsm.profile import Profile
from powsm.search import SearchOptions

CTC = Profile("decode_ctc", decode="ctc")


def random_path(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    choice = torch.randint(0, 6, (n,), generator=generator)
    return [(BLANK, BLANK, BLANK, P, A, T)[i] for i in choice.tolist()]


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 300),
    window_s=st.floats(1.0, 5.0),
    overlap_s=st.floats(0.5, 2.0),
    extra=st.integers(0, 639),
)
def test_windows_of_any_size_merge_to_the_unsplit_output(n, window_s, overlap_s, extra):
    overlap_s = min(overlap_s, window_s / 2.5)
    overlap_s = max(overlap_s, 0.5)
    window_s = max(window_s, 2.2 * overlap_s)
    speech = torch.cat([speech_of(random_path(n)), torch.zeros(extra)])
    recogniser = stand_in()
    whole = ctc_frames(recogniser, speech, (P, A), window_s=60)
    parts = ctc_frames(
        recogniser, speech, (P, A), window_s=window_s, overlap_s=overlap_s
    )
    assert parts.path.tolist() == whole.path.tolist()
    assert torch.equal(parts.scores, whole.scores)
    assert torch.equal(parts.columns, whole.columns)
    assert whole.columns.shape == (len(whole), 2)


def test_frames_at_the_edges_of_windows_are_not_used():
    path = random_path(400)
    path[:3], path[-3:] = [T] * 3, [T] * 3  # what edges say is true at the very ends
    recogniser = stand_in(edge_frames=3)
    found = ctc_frames(recogniser, speech_of(path), window_s=4, overlap_s=1)
    assert found.path.tolist() == path


def test_no_window_is_longer_than_asked():
    recogniser = stand_in()
    ctc_frames(recogniser, speech_of(random_path(1000)), window_s=3.3, overlap_s=1)
    assert len(recogniser.seen) > 10
    assert max(recogniser.seen) <= 3.3 * 16_000


@pytest.mark.parametrize(("window_s", "overlap_s"), [(20, 0.1), (5, 4), (0, 0)])
def test_windows_that_cannot_be_merged_are_refused(window_s, overlap_s):
    with pytest.raises(LongFormError, match="expected an overlap of 0.5 s or more"):
        ctc_frames(
            stand_in(), speech_of([P] * 9), window_s=window_s, overlap_s=overlap_s
        )


@given(
    st.lists(st.sampled_from([0, 0, 1]), min_size=1, max_size=100), st.integers(4, 30)
)
def test_pieces_are_the_path_and_none_is_long_or_tiny(path, most):
    pieces = cut_at_pauses(path, blank=0, most=most)
    assert [t for start, end in pieces for t in range(start, end)] == list(
        range(len(path))
    )
    sizes = [end - start for start, end in pieces]
    assert max(sizes) <= most
    assert len(path) <= most or min(sizes) >= most // 4


def test_pieces_are_cut_in_the_middle_of_the_longest_pause():
    #       0  1  2  3  4  5  6  7  8  9  10 11 12 13
    path = [1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1]
    assert cut_at_pauses(path, blank=0, most=10) == [(0, 8), (8, 14)]


def test_ctc_text_of_a_long_recording():
    path = [P, BLANK, A, A, BLANK] * 60  # 12 s
    record = transcribe(
        stand_in(),
        CTC,
        "pr",
        speech_of(path),
        utt_id="u",
        lang_sym="<eng>",
        window_s=3,
        overlap_s=1,
    )
    assert record["text"] == "/p//a/" * 60
    assert record["seconds"] == pytest.approx(12.03)


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    root = tmp_path_factory.mktemp("longform")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_experiment(root, make_tokens(root / "train", root / "tokens"))


@pytest.fixture(scope="module")
def recogniser(exp):
    return Recogniser.load(exp)


SEARCH = SearchOptions(maxlenratio=-4)
SHORT = {"utt_id": "u", "lang_sym": "<eng>", "window_s": 2.05, "overlap_s": 0.77}


@pytest.mark.parametrize("task", ["pr", "asr"])
def test_the_decoder_hears_pieces(recogniser, task):
    speech = torch.randn(7 * 16_000, generator=torch.Generator().manual_seed(0)) / 10
    profile = Profile("decode_a", tasks=("pr", "asr"), search=SEARCH)
    record = transcribe(recogniser, profile, task, speech, **SHORT)
    pieces = record["pieces"]
    assert (pieces[0]["start_s"], pieces[-1]["end_s"]) == (0, 7)
    for one, two in zip(pieces[:-1], pieces[1:], strict=True):
        assert one["end_s"] == two["start_s"]
        assert one["end_s"] - one["start_s"] <= 2.05
    glue = "" if task == "pr" else " "
    assert record["text"] == glue.join(p["text"] for p in pieces if p["text"])


@pytest.mark.parametrize(
    ("n_samples", "n_pieces"), [(16_000, 1), (32_800, 1), (32_801, 2)]
)
def test_pieces_are_never_longer_than_the_window(recogniser, n_samples, n_pieces):
    profile = Profile("decode_a", search=SEARCH)
    record = transcribe(recogniser, profile, "pr", torch.zeros(n_samples), **SHORT)
    pieces = record["pieces"]
    assert len(pieces) == n_pieces
    assert all(p["end_s"] - p["start_s"] <= 2.05 for p in pieces)


def test_a_reference_prompt_cannot_be_cut(recogniser):
    profile = Profile("decode_a", tasks=("p2g",), search=SEARCH)
    speech = torch.zeros(16_000)
    with pytest.raises(LongFormError, match="prev: predicted"):
        transcribe(recogniser, profile, "p2g", speech, **SHORT)
    chained = replace(profile, prev="predicted")
    assert transcribe(recogniser, chained, "p2g", speech, **SHORT)["pieces"]


ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / "local/transcribe.py")


def test_script_decodes_what_it_can(exp, tmp_path, monkeypatch, caplog):
    noise = np.random.default_rng(0).normal(0, 0.1, 25 * 16_000)
    soundfile.write(tmp_path / "talk.wav", noise, 16_000)
    soundfile.write(tmp_path / "blip.wav", noise[:800], 16_000)
    out = tmp_path / "out.jsonl"
    profile = ROOT / "conf/decode_ctc_greedy.yaml"
    arguments = ["--model", exp, "--profile", profile, "--lang", "ita", "--out", out]
    files = [tmp_path / "blip.wav", tmp_path / "talk.wav"]
    monkeypatch.setattr(sys, "argv", list(map(str, [SCRIPT, *arguments, *files])))
    with caplog.at_level("INFO"):
        runpy.run_path(SCRIPT, run_name="__main__")
    (record,) = map(json.loads, out.open(encoding="utf-8"))
    told = (record["utt_id"], record["lang_sym"], record["seconds"])
    assert told == ("talk", "<ita>", 25.0)
    assert "blip.wav: 0.050 s is too short to encode" in caplog.text
    assert "1 of 2 recordings" in caplog.text
