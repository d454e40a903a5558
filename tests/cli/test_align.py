"""`powsm align`: what it reads, what it writes, and what it refuses."""

import csv
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import torch
from dump_builder import make_dump
from powsm_command import run_verb
from praatio import textgrid
from tiny_model import CTC_SETTINGS, make_experiment, make_tokens

import powsm
from powsm.corpora.evaluation.textgrid import Interval
from powsm.decode.align_files import Segment, eaf
from powsm.decode.align_files import textgrid as textgrid_text
from powsm.decode.recordings.aligned import align_recording
from powsm.decode.recordings.words import Reader
from powsm.errors import PowsmError


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    root = tmp_path_factory.mktemp("align")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_experiment(root, make_tokens(root / "train", root / "tokens"))


@pytest.fixture(scope="module")
def model(exp):
    return powsm.load(exp)


@pytest.fixture
def here(exp, tmp_path, monkeypatch):
    """An empty working folder, with the model in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POWSM_MODEL", str(exp))
    return tmp_path


@pytest.fixture
def align(model, monkeypatch, capsys):
    """Run `powsm align` on the loaded model; its lines on standard output."""
    monkeypatch.setattr("powsm.cli.recordings.align.load_model", lambda options: model)

    def run(*arguments):
        run_verb("align", *arguments)
        return capsys.readouterr().out.splitlines()

    return run


def put(path, seconds=2.0, seed=0):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000))
    soundfile.write(path, samples, 16_000)


def refused(align, *arguments):
    """The line that the verb ends with."""
    with pytest.raises(SystemExit) as end:
        align(*arguments)
    assert re.match(r"powsm align: error: [^\n]+$", str(end.value.code))
    return end.value.code


def tiers_of(path):
    grid = textgrid.openTextgrid(str(path), False)
    return {tier.name: tier.entries for tier in grid.tiers}


def test_given_phones_are_lines_of_ctm(here, align, model):
    put("talk.wav")
    expected = model.align("talk.wav", "patat")
    lines = align("--phones", "pa tat", "talk.wav")
    assert [line.split()[4] for line in lines] == list("patat")
    starts = [float(line.split()[2]) for line in lines]
    assert starts == pytest.approx([s.start for s in expected], abs=1e-4)
    Path("said.txt").write_text("/p//a/ /t//a//t/\n")
    assert align("--phones", "said.txt", "talk.wav") == lines


def test_recordings_of_one_name_are_told_apart_in_lines_of_ctm(here, align):
    for name in ("in/a", "in/sub/a", "in/b"):
        put(f"{name}.wav")
        Path(f"{name}.txt").write_text("p")
    lines = align("--g2p", "none", "in")
    names = [line.split()[0] for line in lines]
    assert names == ["in/a.wav", "b", "in/sub/a.wav"]


def test_textgrid_has_words_phones_and_confidence(here, align, model):
    put("ខ្មែរ talk.wav")
    align("--phones", "pa tat", "--out", "o", "ខ្មែរ talk.wav")
    tiers = tiers_of("o/ខ្មែរ talk.TextGrid")
    assert list(tiers) == ["words", "phones", "confidence"]
    phones = [e for e in tiers["phones"] if e.label]
    words = [e for e in tiers["words"] if e.label]
    assert [e.label for e in phones] == list("patat")
    assert [e.label for e in words] == ["pa", "tat"]
    assert (words[0].start, words[1].end) == (phones[0].start, phones[-1].end)
    assert words[0].end == phones[1].end and words[1].start == phones[2].start
    sure = [e for e in tiers["confidence"] if e.label]
    assert [e[:2] for e in sure] == [e[:2] for e in phones]
    segments = model.align("ខ្មែរ talk.wav", "patat")
    assert [e.label for e in sure] == [f"{s.confidence:.2f}" for s in segments]


def test_single_phones_are_no_words(here, align):
    put("talk.wav")
    align("--phones", "p a t", "--out", "o", "talk.wav")
    assert list(tiers_of("o/talk.TextGrid")) == ["phones", "confidence"]


def test_every_format_says_the_same(here, align):
    put("talk.wav")
    how = ("--phones", "pa tat", "talk.wav")
    for form in ("csv", "json", "eaf", "ctm"):
        align("--format", form, *how)
    said = json.loads(Path("talk.json").read_text())
    phones = said["tiers"]["phones"]
    assert [row["label"] for row in said["tiers"]["words"]] == ["pa", "tat"]
    rows = list(csv.DictReader(io.StringIO(Path("talk.csv").read_text())))
    assert [row["tier"] for row in rows] == ["words"] * 2 + ["phones"] * 5
    assert [float(r["start_s"]) for r in rows[2:]] == [p["start"] for p in phones]
    root = ElementTree.parse("talk.eaf").getroot()
    assert [t.get("TIER_ID") for t in root.iter("TIER")] == [
        "words",
        "phones",
        "confidence",
    ]
    times = {
        slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE"))
        for slot in root.iter("TIME_SLOT")
    }
    marks = root.findall("TIER[@TIER_ID='phones']//ALIGNABLE_ANNOTATION")
    assert [times[m.get("TIME_SLOT_REF1")] for m in marks] == [
        round(1000 * p["start"]) for p in phones
    ]
    assert Path("talk.ctm").read_text().splitlines() == align(*how)


def test_folder_with_texts_beside_is_done_in_one_command(here, align, caplog):
    """What users of the Montreal Forced Aligner have: wav with lab, txt or TextGrid."""
    for name in ("a", "sub/b", "sub/c"):
        put(f"in/{name}.wav")
    Path("in/a.lab").write_text("pa, tat!")
    Path("in/sub/b.txt").write_text("\ufeffkik", encoding="utf-8")
    stretches = [Segment("pa", 0.25, 1.0, 1.0), Segment("tat", 1.25, 2.0, 1.0)]
    grid = textgrid_text({"speaker 1": stretches}, 2.0, "c")
    Path("in/sub/c.TextGrid").write_text(grid)
    caplog.set_level("INFO")
    how = ("--g2p", "espeak", "--lang", "Italian", "--out", "o", "in")
    align(*how)
    assert "3 of 3 recordings are aligned" in caplog.text
    found = {
        path.stem: [e.label for e in tiers_of(path)["words"] if e.label]
        for path in Path("o").rglob("*.TextGrid")
    }
    assert found == {"a": ["pa", "tat"], "b": ["kik"], "c": ["pa", "tat"]}
    tiers = tiers_of("o/sub/c.TextGrid")
    assert [tuple(e) for e in tiers["speaker 1"] if e.label] == [
        (0.25, 1.0, "pa"),
        (1.25, 2.0, "tat"),
    ]
    words = [entry for entry in tiers["words"] if entry.label]
    for word, said in zip(stretches, words, strict=True):
        assert word.start <= said.start < said.end <= word.end
    Path("o/a.TextGrid").write_text("mine")
    align(*how)
    assert Path("o/a.TextGrid").read_text() == "mine"
    assert "3 of 3 are done, with these options or others, or have a" in caplog.text
    assert "by you, such as o/a.TextGrid; --force writes over them" in caplog.text
    assert "older" not in caplog.text
    os.utime("o/a.TextGrid", (1, 1))
    align(*how)
    said = "1 of them are older than their recording or text, such as o/a.TextGrid"
    assert said in caplog.text and Path("o/a.TextGrid").read_text() == "mine"


def test_tier_of_elan_is_chosen_by_name(here, align):
    put("a.wav")
    tiers = {"words": [Segment("pa", 0.5, 1.5, 1.0)], "notes": []}
    Path("a.eaf").write_text(eaf(tiers))
    align("--g2p", "none", "--tier", "Words", "--format", "csv", "a.wav")
    rows = list(csv.DictReader(io.StringIO(Path("a.csv").read_text())))
    assert [(r["tier"], r["label"]) for r in rows] == [
        ("words (given)", "pa"),
        ("words", "pa"),
        ("phones", "p"),
        ("phones", "a"),
    ]
    assert all(0.5 <= float(row["start_s"]) < 1.5 for row in rows)
    message = refused(align, "--g2p", "none", "--out", "o", "a.wav")
    assert "which tier? found words, notes; choose by --tier" in message


@pytest.mark.parametrize("out", ["absolute", "link"])
def test_tier_is_not_replaced_by_another_name_of_its_folder(here, align, out):
    put("in/a.wav")
    grid = textgrid_text({"said": [Segment("pa", 0.5, 1.5, 1.0)]}, 2.0, "a")
    Path("in/a.TextGrid").write_text(grid)
    os.symlink("in", "link")
    out = here / "in" if out == "absolute" else out
    message = refused(align, "--g2p", "none", "--out", out, "--force", "in")
    assert "is what is aligned; write the results elsewhere" in message
    assert Path("in/a.TextGrid").read_text() == grid


def test_words_are_said_as_the_model_hears_them(here, align, model):
    put("talk.wav")
    how = {"task": "g2p", "text": "pa", "lang": "ita", "profile": "joint"}
    heard = model("talk.wav", **how)
    lines = align("--text", "pa", "--lang", "ita", "talk.wav")
    assert tuple(line.split()[4] for line in lines) == heard.phones != ()


def test_words_of_a_long_recording_are_heard_in_pieces(here, model, monkeypatch):
    """More than the model hears at once: cut between words, and none is lost."""
    speech = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 60 * 16_000))
    words = [f"pa{n}" for n in range(12)]
    heard = [  # 5 s each, half of which is a pause
        Segment(phone, 5 * n + k, 5 * n + k + 1.25, 1.0)
        for n in range(12)
        for k, phone in ((0, "p"), (1.25, "a"))
    ]
    monkeypatch.setattr(model, "align_phones", lambda *asked: heard)
    asked = []

    def answer(question, jobs, **how):
        asked.extend(jobs)
        results = model_answer(question, jobs, **how)
        said = [tuple("pa" * len(job.text_prev.split())) for job in jobs]
        return [
            replace(result, phones=phones)
            for result, phones in zip(results, said, strict=True)
        ]

    model_answer = model.answer
    monkeypatch.setattr(model, "answer", answer)
    (found,) = Reader(model).read([" ".join(words)], [speech.float()])
    assert [word.text for word in found] == words
    assert {word.phones for word in found} == {("p", "a")}
    assert len(asked) > 2 and all(job.seconds <= 20 for job in asked)
    assert sum(job.seconds for job in asked) < 60  # no more than the words and pauses


def test_word_that_no_piece_holds_is_named(model, monkeypatch):
    speech = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 30 * 16_000))
    heard = [Segment("p", 0.0, 1.0, 1.0), Segment("a", 1.0, 29.0, 1.0)]
    monkeypatch.setattr(model, "align_phones", lambda *asked: heard)
    (fault,) = Reader(model).read(["pa"], [speech.float()])
    assert "'pa' would take 30 s; is it the text of this recording?" in str(fault)


def test_english_of_espeak_has_the_allophones_of_training(model):
    # /p/ is aspirated at the start of a word, as stage 4 writes labels of a program
    (words,) = Reader(model, "espeak", "eng").read(["pea"], [])
    assert [word.phones for word in words] == [("pʰ", "iː")]


def test_phones_of_transcribe_are_not_taken_for_words(here, align):
    put("a.wav")
    grid = textgrid_text({"phones": [Segment("p", 0.0, 1.0, 1.0)]}, 2.0, "a")
    Path("a.TextGrid").write_text(grid)
    how = ("--out", "o", "a.wav")
    message = refused(align, "--g2p", "espeak", "--lang", "ita", *how)
    assert "a.TextGrid: no words, its only tier is phones, as `powsm trans" in message
    align("--g2p", "none", *how)
    assert [e.label for e in tiers_of("o/a.TextGrid")["phones"] if e.label] == ["p"]


def test_of_many_segments_that_cannot_be_aligned_ten_are_named(here, align):
    put("a.wav")
    stretches = [Segment("pat" * 20, n / 20, (n + 1) / 20, 1.0) for n in range(20)]
    stretches.append(Segment("pa", 1.0, 2.0, 1.0))
    Path("a.TextGrid").write_text(textgrid_text({"ipa": stretches}, 2.0, ""))
    message = refused(align, "--g2p", "none", "--format", "json", "a.wav")
    assert "a.wav: 20 of 21 segments are not aligned: 0.000 to 0.050 s: " in message
    assert message.count(" s: ") == 10 and message.rstrip().endswith("; ...")


def test_segment_that_cannot_be_aligned_is_named_and_left(here, align, caplog):
    put("a.wav")
    put("b.wav")
    for name in "ab":
        stretches = [Segment("pa", 0.0, 1.0, 1.0), Segment("pat" * 20, 1.0, 2.0, 1.0)]
        Path(f"{name}.TextGrid").write_text(textgrid_text({"ipa": stretches}, 2.0, ""))
    caplog.set_level("INFO")
    how = ("--g2p", "none", "--format", "json")
    message = refused(align, *how, "a.wav")
    assert "0 of 1 recordings are aligned, and 1 in part" in caplog.text
    assert "a.wav: 1 of 2 segments are not aligned: 1.000 to 2.000 s: 60 pho" in message
    said = json.loads(Path("a.json").read_text())["tiers"]
    assert [row["label"] for row in said["phones"]] == ["p", "a"]
    assert "1 of 2 recordings could not be used" in refused(
        align, *how, "a.wav", "b.wav"
    )


def test_stretch_behind_the_end_is_said(model):
    stretches = [Interval(0, 1, "pa"), Interval(1.9, 2.5, "ta"), Interval(1, 2.04, "t")]
    samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    speech = torch.from_numpy(samples)
    aligned = align_recording(Reader(model, "none"), "x", speech, stretches, "t")
    (fault,) = aligned.faults
    assert fault == "1.900 to 2.500 s: lies behind the end of the recording"
    assert [s.phone for s in aligned.tiers["phones"]] == ["p", "a", "t"]
    assert aligned.tiers["t"][-1].end == 2.0


def test_stretch_that_is_too_short_to_hear_does_not_take_the_others_along(model):
    stretches = [Interval(0, 1, "pa"), Interval(1, 1.01, "ta"), Interval(2.5, 3, "t")]
    samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    speech = torch.from_numpy(samples)
    aligned = align_recording(Reader(model, "model"), "x", speech, stretches, "t")
    short, behind = aligned.faults
    assert short.startswith("1.000 to 1.010 s: 'ta': 0.010 s is too short to encode")
    assert behind == "2.500 to 3.000 s: lies behind the end of the recording"
    assert aligned.tiers["phones"][-1].end <= 1.0


def test_python_aligns_words_as_the_command_does(here, align, model):
    put("talk.wav")
    how = {"lang": "ita", "g2p": "espeak"}
    aligned = powsm.align_words(model, "talk.wav", "pa tat", **how)
    align(
        "--lang", "ita", "--g2p", "espeak", "--text", "pa tat", "--out", "o", "talk.wav"
    )
    assert Path("o/talk.TextGrid").read_text() == aligned.to("textgrid")
    with pytest.raises(PowsmError, match="name it by --lang"):
        powsm.align_words(model, "talk.wav", "pa", g2p="espeak")
    with pytest.raises(PowsmError, match="format 'srt': expected one of textgrid"):
        aligned.to("srt")


def test_model_without_a_decoder_is_told_the_language(here, tmp_path, caplog):
    make_dump(tmp_path / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    tokens = make_tokens(tmp_path / "train", tmp_path / "tokens")
    model = powsm.load(make_experiment(tmp_path, tokens, base=CTC_SETTINGS))
    put("talk.wav")
    Path("ctc.yaml").write_text("decode: ctc\ntasks: [g2p]\n")
    how = {"task": "g2p", "text": "pa", "lang": "ita", "profile": "ctc.yaml"}
    heard = model("talk.wav", **how)
    assert heard.lang == "ita" and not caplog.messages
    # whose random weights say nothing; another would be aligned
    assert heard.phones == ()
    with pytest.raises(PowsmError, match="talk: 0 phones are said for the 1 words"):
        powsm.align_words(model, "talk.wav", "pa", lang="ita")


def test_gop_is_in_every_file_and_the_worst_phones_are_told(here, align, model, caplog):
    for name in "ab":
        put(f"in/{name}.wav", seed=ord(name))
        Path(f"in/{name}.txt").write_text("pa tat")
    caplog.set_level("INFO")
    how = ("--gop", "--g2p", "none", "in")
    align("--out", "o", *how)
    assert "10 phones judged; the worst said of 3:" in caplog.text
    rows = list(csv.DictReader(Path("o/worst.tsv").open(), delimiter="\t"))
    assert {row["phone"]: row["n"] for row in rows} == {"p": "2", "a": "4", "t": "4"}
    free = [float(row["gop_free"]) for row in rows]
    assert free == sorted(free)
    segments = model.align("in/a.wav", "pa tat", gop=True)
    tiers = tiers_of("o/a.TextGrid")
    expected = ["words", "phones", "confidence", "gop", "gop_free", "rival"]
    assert list(tiers) == expected
    for name in ("gop", "gop_free"):
        said = [e.label for e in tiers[name] if e.label]
        assert said == [f"{getattr(s, name):.2f}" for s in segments]
    assert [e.label for e in tiers["rival"] if e.label] == [s.rival for s in segments]
    align("--format", "csv", *how)
    align("--format", "json", *how)
    rows = list(csv.DictReader(Path("in/a.csv").open()))
    assert [row["gop"] for row in rows] == ["", "", *(str(s.gop) for s in segments)]
    phones = json.loads(Path("in/a.json").read_text())["tiers"]["phones"]
    assert [row["gop_free"] for row in phones] == [s.gop_free for s in segments]
    assert "gop" not in json.loads(Path("in/a.json").read_text())["tiers"]["words"][0]


@pytest.mark.parametrize(
    "how", [(), ("--format", "ctm"), ("--format", "ctm", "--out", "o")]
)
def test_ctm_has_no_place_for_gop(here, align, how):
    put("talk.wav")
    message = refused(align, "--gop", "--phones", "pat", *how, "talk.wav")
    assert "--gop: lines of CTM have no place" in message


def test_nearest_phones_are_said_and_marked(here, align, caplog):
    for name in "ab":
        put(f"{name}.wav")
        Path(f"{name}.txt").write_text("pa dad")
    how = ("--g2p", "none", "--out", "o")
    assert "no token for d; " in refused(align, *how, "a.wav")
    align(*how, "--nearest", "a.wav", "b.wav")
    assert "a.wav: 2 of 5 phones have no token: d by t (2)" in caplog.text
    assert "2 recordings: 4 of 10 phones have no token: d by t (4)" in caplog.text
    tiers = tiers_of("o/a.TextGrid")
    assert [e.label for e in tiers["phones"] if e.label] == list("padad")
    marks = [tuple(e) for e in tiers["nearest"] if e.label]
    places = [tuple(e)[:2] for e in tiers["phones"] if e.label == "d"]
    assert marks == [(*place, "t") for place in places]
    align(*how, "--nearest", "--force", "--format", "csv", "a.wav")
    rows = list(csv.DictReader(Path("o/a.csv").open()))
    assert [row["nearest"] for row in rows] == ["", "", "", "", "t", "", "t"]
