"""Recordings of any length from the command line and the library."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from ctc_stand_in import BLANK, A, P, speech_of, stand_in
from dump_builder import make_dump
from powsm_command import run_verb
from praatio import textgrid
from tiny_model import make_experiment, make_tokens

from powsm.decode.align import align
from powsm.decode.longform import LongFormError
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.decode.search import SearchOptions
from powsm.decode.transcribe import transcribe

CTC = Profile("decode_ctc", decode="ctc")


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


def test_times_of_a_long_recording_are_those_of_its_path():
    speech = speech_of([P, BLANK, A, A, BLANK] * 60)
    asked = {"utt_id": "u", "lang_sym": "<eng>", "window_s": 3, "overlap_s": 1}
    record = transcribe(stand_in(), CTC, "pr", speech, with_times=True, **asked)
    expected = [vars(segment) for segment in align(stand_in(), speech)]
    assert record["segments"] == expected
    later = transcribe(
        stand_in(), CTC, "pr", speech, with_times=True, start_s=10, **asked
    )
    starts = [segment["start"] for segment in later["segments"]]
    assert starts == [round(segment["start"] + 10, 4) for segment in expected]


def test_times_of_pieces_count_from_the_start_of_the_recording(recogniser):
    speech = torch.randn(7 * 16_000, generator=torch.Generator().manual_seed(0)) / 10
    profile = Profile("decode_a", search=SEARCH)
    record = transcribe(
        recogniser, profile, "pr", speech, with_times=True, start_s=1.5, **SHORT
    )
    at = 1.5
    for piece in record["pieces"]:
        assert piece["start_s"] == pytest.approx(at, abs=1e-3)
        at = piece["end_s"]
    assert at == pytest.approx(8.5, abs=1e-3)
    said = re.findall(r"/([^/<]+)/", record["text"])  # a random model says more
    assert [segment["phone"] for segment in record["segments"]] == said
    ends = [1.5]
    for segment in record["segments"]:
        assert ends[-1] <= segment["start"] < segment["end"] <= 8.5
        ends.append(segment["end"])


def test_words_have_no_times(recogniser):
    profile = Profile("decode_a", tasks=("asr",), search=SEARCH)
    with pytest.raises(LongFormError, match="asr gives no phones"):
        transcribe(
            recogniser, profile, "asr", torch.zeros(16_000), with_times=True, **SHORT
        )


def test_a_ctc_beam_reads_pieces(recogniser):
    speech = torch.randn(5 * 16_000, generator=torch.Generator().manual_seed(0)) / 10
    beam = replace(CTC, search=SearchOptions(beam_size=3))
    assert len(transcribe(recogniser, beam, "pr", speech, **SHORT)["pieces"]) > 1
    assert "pieces" not in transcribe(recogniser, CTC, "pr", speech, **SHORT)


ROOT = Path(__file__).parents[2]
CTC_FILE = ROOT / "conf/decode_ctc_greedy.yaml"


@pytest.fixture
def run_script(exp, tmp_path):
    """Run `powsm transcribe` with these arguments; its records."""

    def run(*arguments, profile=CTC_FILE):
        out = tmp_path / "out.jsonl"
        options = ["--model", exp, "--profile", profile, "--out", out, *arguments]
        run_verb("transcribe", *options)
        return list(map(json.loads, out.open(encoding="utf-8")))

    return run


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000))


def test_each_bad_file_has_its_line_and_the_rest_is_decoded(
    run_script, tmp_path, caplog
):
    def put(name, samples, rate=16_000, **how):
        soundfile.write(tmp_path / name, samples, rate, **how)
        return tmp_path / name

    nan = noise(1.0)
    nan[50] = np.nan
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no sound")
    bad = {
        tmp_path / "empty.wav": "these 0 bytes do not decode as audio",
        tmp_path / "text.wav": "these 16 bytes do not decode as audio",
        tmp_path / "absent.wav": "cannot be read (No such file or directory)",
        put("blip.wav", noise(0.05)): "0.050 s is too short to encode; the model needs",
        put("nan.wav", nan, subtype="FLOAT"): "holds NaN or infinite samples",
        put("two.wav", np.stack([noise(1)] * 2, 1), 8_000): "2 channels, expected 1",
    }
    good = [put("talk.wav", noise(25)), put("hush.wav", np.zeros(16_000))]
    with caplog.at_level("INFO"):
        records = run_script("--lang", "ita", *bad, *good)
    assert [record["utt_id"] for record in records] == ["talk", "hush"]
    assert {record["lang_sym"] for record in records} == {"<ita>"}
    assert [record["seconds"] for record in records] == [25.0, 1.0]
    for path, fault in bad.items():
        (line,) = (line for line in caplog.messages if str(path) in line)
        assert fault in line and "\n" not in line
    assert "2 of 8 recordings" in caplog.text
    with pytest.raises(SystemExit, match="none of the recordings could be used"):
        run_script(tmp_path / "empty.wav")


def test_silence_is_trimmed_when_asked_and_times_stay_those_of_the_file(
    run_script, tmp_path
):
    silence = np.zeros(16_000)
    soundfile.write(
        tmp_path / "talk.wav", np.concatenate([silence, noise(1), silence]), 16_000
    )
    (whole,) = run_script(tmp_path / "talk.wav")
    assert whole["seconds"] == 3.0
    out = tmp_path / "times"
    (trimmed,) = run_script(
        "--trim_silence", "--align", out, "--task", "pr", tmp_path / "talk.wav"
    )
    assert trimmed["seconds"] == pytest.approx(1.0, abs=0.05)
    grid = textgrid.openTextgrid(str(out / "talk.TextGrid"), True)
    assert grid.maxTimestamp == 3.0
    rows = [entry for entry in grid.getTier("phones").entries if entry.label]
    assert [entry.label for entry in rows] == [
        segment["phone"] for segment in trimmed["segments"]
    ]
    assert all(0.97 <= entry.start < entry.end <= 2.03 for entry in rows)


def test_phones_of_a_language_or_a_file_alone_come_out(run_script, tmp_path):
    soundfile.write(tmp_path / "talk.wav", noise(3), 16_000)
    (tmp_path / "few.txt").write_text("p a")
    (found,) = run_script("--phones", tmp_path / "few.txt", tmp_path / "talk.wav")
    assert set(found["text"].split("/")) <= {"", " ", "p", "a"}
    run_script("--phones", "ita", tmp_path / "talk.wav")
    with pytest.raises(SystemExit, match="error: deu: no such file"):
        run_script("--phones", "deu", tmp_path / "talk.wav")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "asr", "a.wav"], "always speaks phones"),
        (["--lang", "nosuch", "a.wav"], "--lang nosuch: no such language"),
        (["a.wav", "b/a.wav"], "several recordings are named a"),
    ],
)
def test_questions_that_make_no_sense_are_refused(run_script, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run_script(*arguments)
