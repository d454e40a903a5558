"""What a user may get wrong: one line each, the right status, nothing half-written."""

import io
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from dump_builder import make_dump
from powsm_command import run_verb
from tiny_model import make_experiment, make_tokens

from powsm.decode.align_files import Segment, eaf


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_experiment(root, make_tokens(root / "train", root / "tokens"))


@pytest.fixture
def here(exp, tmp_path, monkeypatch):
    """A working folder with good and bad recordings, and the model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POWSM_MODEL", raising=False)
    speech = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write("good.wav", speech, 16_000)
    data = Path("good.wav").read_bytes()
    nan, infinite = speech.copy(), speech.copy()
    nan[50], infinite[50] = np.nan, np.inf
    files = {
        "empty.wav": b"",
        "text.wav": b"this is no sound",
        "zeros.wav": bytes(40_000),
        "cut.wav": data[:9_000],
        "header.wav": data[:44],
        "half_header.wav": data[:20],
        "photo.jpg": b"\xff\xd8\xff\xe0" + bytes(100),
        "latin.txt": "caf\xe9".encode("latin-1"),
        "few.txt": b"p Q",
        "none.txt": b"\n",
        "bad.csv": b"a,b\n1,2\n",
        "two.csv": b"ISO6393,Phoneme\nita,p\ndeu,b\n",
        "mine.yaml": b"decode: [",
        "odd.yaml": b"decode: sing\n",
        "list.yaml": b"- a\n",
        "key.yaml": b"beam: 3\n",
    }
    for name, content in files.items():
        Path(name).write_bytes(content)
    flac = io.BytesIO()
    soundfile.write(flac, speech, 16_000, format="FLAC")
    Path("cut.flac").write_bytes(flac.getvalue()[:9_000])
    for name, samples in {
        "nan.wav": nan,
        "infinite.wav": infinite,
        "loud.wav": speech * 30_000,
        "none.wav": speech[:0],
        "blip.wav": speech[:500],
        "many.wav": np.stack([speech] * 48, 1),
        "two.wav": np.stack([speech] * 2, 1),
    }.items():
        soundfile.write(name, samples, 16_000, subtype="FLOAT")
    Path("folder").mkdir()
    soundfile.write("long.wav", np.tile(speech, 21), 16_000)
    (tmp_path / "model").symlink_to(exp)
    return tmp_path


def refused(*arguments, verb="transcribe"):
    """The line that a verb ends with; no file is new or changed then."""
    before = state()
    with pytest.raises(SystemExit) as end:
        run_verb(verb, *arguments)
    assert state() == before
    if end.value.code == 2:
        return "usage"
    assert isinstance(end.value.code, str), "a line, and so status 1"
    assert end.value.code.startswith(f"powsm {verb}: error: ")
    assert "\n" not in end.value.code and "Traceback" not in end.value.code
    return end.value.code


def state():
    return {
        str(path): path.lstat().st_mtime_ns
        for path in Path().rglob("*")
        if path.is_file()
    }


RECORDINGS = {
    "absent.wav": "cannot be read .No such file",
    "empty.wav": "0 bytes do not decode",
    "text.wav": "do not decode",
    "zeros.wav": "do not decode",
    "cut.wav": "cut off|promises|damaged",
    "cut.flac": "cut off|damaged|do not decode|can be decoded",
    "header.wav": "cut off|no samples|promises",
    "half_header.wav": "do not decode|cut off",
    "photo.jpg": "do not decode|audio streams",
    "nan.wav": "NaN or infinite",
    "infinite.wav": "NaN or infinite",
    "loud.wav": "integers were written as floats",
    "none.wav": "no samples",
    "blip.wav": "too short to encode; the model needs",
}


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("verb", ["transcribe", "lid", "align"])
def test_recording_that_cannot_be_used(here, verb, name):
    said = ["--phones", "pa"] if verb == "align" else []
    line = refused("--model", "model", *said, name, verb=verb)
    assert name in line
    assert re.search(RECORDINGS[name], line), line


QUESTIONS = {
    "no recording": ([], "usage"),
    "no such option": (["--beam", "3", "good.wav"], "usage"),
    "no such task": (["--task", "tts", "good.wav"], "usage"),
    "no such format": (["--format", "docx", "good.wav"], "usage"),
    "no such channel": (["--channel", "middle", "good.wav"], "usage"),
    "window that is no number": (["--window_s", "x", "good.wav"], "usage"),
    "folder without recordings": (["folder"], "no recordings in this folder"),
    "48 channels have no left": (["--channel", "left", "many.wav"], "have no left one"),
    "no such language": (["--lang", "klingonese", "good.wav"], "no such language"),
    "empty language": (["--lang", "", "good.wav"], "no such language"),
    "no such profile": (["--profile", "joynt", "good.wav"], "did you mean joint"),
    "no such profile file": (["--profile", "a.yaml", "good.wav"], "no such file"),
    "profile that is no YAML": (["--profile", "mine.yaml", "good.wav"], "valid YAML"),
    "profile of a list": (["--profile", "list.yaml", "good.wav"], "expected 'key"),
    "profile with an odd value": (
        ["--profile", "odd.yaml", "good.wav"],
        "expected one",
    ),
    "profile with an odd key": (["--profile", "key.yaml", "good.wav"], "unknown beam"),
    "CTC for words": (
        ["--profile", "ctc_greedy", "--task", "asr", "good.wav"],
        "always speaks phones",
    ),
    "g2p without its text": (["--task", "g2p", "good.wav"], "there is none"),
    "p2g without its text": (["--task", "p2g", "good.wav"], "there is none"),
    "p2g of no IPA": (["--task", "p2g", "--text", "Q", "good.wav"], "Q is no IPA"),
    "g2p of no word": (["--task", "g2p", "--text", "!", "good.wav"], "is a word"),
    "g2p of an empty text": (["--task", "g2p", "--text", "", "good.wav"], "is none"),
    "text of another encoding": (["--task", "g2p", "latin.wav"], "not UTF-8|cannot be"),
    "text for a task without": (["--text", "a", "good.wav"], "pr reads none"),
    "one text for two": (
        ["--task", "g2p", "--text", "a", "good.wav", "two.wav"],
        "of one recording and there are 2",
    ),
    "text of a long recording": (
        ["--task", "g2p", "--text", "a", "long.wav"],
        "cannot be cut into",
    ),
    "results in place of texts": (
        ["--task", "g2p", "--format", "txt", "good.wav"],
        "is the text that g2p reads",
    ),
    "ctm of words": (["--task", "asr", "--format", "ctm", "good.wav"], "ctm holds"),
    "phones of words": (
        ["--task", "asr", "--phones", "p a", "good.wav"],
        "says no phones",
    ),
    "phones that are no IPA": (["--phones", "p Q", "good.wav"], "Q is no IPA"),
    "phones of a bad file": (["--phones", "few.txt", "good.wav"], "few.txt: Q is no"),
    "phones of an empty file": (["--phones", "none.txt", "good.wav"], "no phones"),
    "phones of a file in latin-1": (["--phones", "latin.txt", "good.wav"], "not UTF-8"),
    "phones of a CSV without": (["--phones", "bad.csv", "good.wav"], "no column"),
    "phones of two languages": (["--phones", "two.csv", "good.wav"], "2 languages"),
    "phones of another language": (
        ["--phones", "two.csv:fra", "good.wav"],
        "fra is not in it",
    ),
    "phones of a folder without": (["--phones", "folder", "good.wav"], "no CSV"),
    "phones of no training": (["--phones", "zul", "good.wav"], "had no language"),
    "phones of no file": (["--phones", "absent.txt", "good.wav"], "no such file"),
    "window shorter than its overlap": (["--window_s", "1", "good.wav"], "overlap"),
    "negative window": (["--window_s", "-3", "good.wav"], "usage"),
    "window that is not finite": (["--window_s", "inf", "good.wav"], "usage"),
    "overlap that is no number": (["--overlap_s", "nan", "good.wav"], "usage"),
    "no overlap": (["--overlap_s", "0", "good.wav"], "usage"),
    "short overlap": (["--overlap_s", "0.1", "good.wav"], "overlap"),
    "force of no file": (["--force", "good.wav"], "--force: not used, no file is"),
    "slashes of words": (["--task", "asr", "--slashes", "good.wav"], "--slashes: not"),
    "slashes of a form without": (
        ["--slashes", "--format", "ctm", "good.wav"],
        "--slashes: not used, pr as ctm",
    ),
    "no such device": (["--device", "gpu", "good.wav"], "expected auto, cpu"),
    "out is a file": (["--out", "good.wav", "good.wav"], "File exists"),
    "out below a file": (["--out", "good.wav/x", "good.wav"], "Not a directory"),
    "two recordings, one result": (
        ["--out", "new", "good.wav", "sub/good.wav"],
        "would both be",
    ),
}


@pytest.mark.parametrize("what", QUESTIONS)
def test_question_that_makes_no_sense(here, what):
    Path("latin.wav").write_bytes(Path("good.wav").read_bytes())
    arguments, message = QUESTIONS[what]
    line = refused("--model", "model", *arguments)
    assert any(part in line for part in message.split("|")), line


ALIGNMENTS = {
    "phones and words": (["--phones", "a", "--text", "a", "good.wav"], "usage"),
    "no such g2p": (["--g2p", "rules", "good.wav"], "usage"),
    "no such format": (["--format", "srt", "good.wav"], "usage"),
    "each channel": (["--channel", "each", "good.wav"], "usage"),
    "nothing says what": (["good.wav"], "what is said? There is no file of its name"),
    "no such tier": (["--tier", "a", "good.wav"], "with .textgrid .eaf; write one"),
    "phones of two": (["--phones", "a", "good.wav", "two.wav"], "there are 2"),
    "phones by g2p": (["--phones", "a", "--g2p", "espeak", "good.wav"], "is IPA"),
    "espeak without a language": (
        ["--g2p", "espeak", "--text", "a", "good.wav"],
        "name it by --lang",
    ),
    "language that espeak lacks": (
        ["--g2p", "espeak", "--lang", "zul", "--text", "a", "good.wav"],
        "espeak-ng does not read zul (Zulu)",
    ),
    "no such language": (["--text", "a", "--lang", "klingonese", "good.wav"], "lang"),
    "profile for other tasks": (
        ["--text", "a", "--profile", "ctc_greedy", "good.wav"],
        "always speaks phones|prompt",
    ),
    "profile of phones that are given": (
        ["--phones", "pa", "--profile", "joint", "good.wav"],
        "--profile: not used, the phones are not the model's",
    ),
    "language of phones that are given": (
        ["--phones", "pa", "--lang", "eng", "good.wav"],
        "--lang: not used",
    ),
    "force of no file": (["--phones", "pa", "--force", "good.wav"], "--force: not"),
    "no IPA": (["--phones", "Q", "good.wav"], "Q is no IPA"),
    "phones that the model lacks": (["--phones", "ʘ", "good.wav"], "no token for ʘ"),
    "more phones than fit": (["--phones", "pa" * 99, "good.wav"], "198 phones need"),
    "no word": (["--text", "!", "good.wav"], "is a word"),
    "file without a text": (["--text", "none.txt", "good.wav"], "no text in it"),
    "file of another encoding": (["--text", "latin.txt", "good.wav"], "not UTF-8"),
    "tier of a broken file": (["--tier", "a", "cut.wav"], "no EAF of ELAN"),
    "results in place of a tier": (
        ["--format", "eaf", "blip.wav"],
        "blip.eaf is what is aligned",
    ),
    "out is a file": (["--phones", "a", "--out", "good.wav", "good.wav"], "File exist"),
}


@pytest.mark.parametrize("what", ALIGNMENTS)
def test_alignment_that_makes_no_sense(here, what):
    Path("cut.eaf").write_text("<a>")
    Path("blip.eaf").write_text(eaf({"t": [Segment("a", 0, 0.01, 1.0)]}))
    arguments, message = ALIGNMENTS[what]
    line = refused("--model", "model", *arguments, verb="align")
    assert any(part in line for part in message.split("|")), line


MODELS = {
    "absent": (lambda exp: shutil.rmtree(exp), "no such folder or archive"),
    "empty folder": (lambda exp: [p.unlink() for p in exp.iterdir()], "neither config"),
    "no weights": (lambda exp: only(exp.glob("*.pth")).unlink(), "no valid."),
    "empty weights": (lambda exp: cut(only(exp.glob("*.pth")), 0), ""),
    "cut weights": (lambda exp: cut(only(exp.glob("*.pth")), 5_000), ""),
    "weights of text": (lambda exp: fill(only(exp.glob("*.pth")), b"text"), ""),
    "weights of another": (
        lambda exp: torch.save({"a": torch.zeros(1)}, only(exp.glob("*.pth"))),
        "is left over|is missing",
    ),
    "weights that are a list": (
        lambda exp: torch.save([1], only(exp.glob("*.pth"))),
        "",
    ),
    "empty config": (lambda exp: cut(exp / "config.yaml", 0), "config.yaml"),
    "cut config": (lambda exp: cut(exp / "config.yaml", 300), ""),
    "config of bytes": (lambda exp: fill(exp / "config.yaml", b"\xff\x00"), "config"),
    "config of a list": (lambda exp: fill(exp / "config.yaml", b"- a\n"), "config"),
    "config of nothing it needs": (
        lambda exp: fill(exp / "config.yaml", b"bpemodel: broken/bpe.model\n"),
        "config",
    ),
    "no pieces": (
        lambda exp: (exp / "bpe.model").unlink(),
        "bpe.model, which is neither here",
    ),
    "empty pieces": (lambda exp: cut(exp / "bpe.model", 0), "bpe.model"),
    "pieces of text": (lambda exp: fill(exp / "bpe.model", b"text"), "bpe.model"),
    "broken normaliser": (
        lambda exp: fill(exp / "normaliser.json", b"{"),
        "normaliser.json",
    ),
}


def only(paths):
    (path,) = paths
    return path


def cut(path, n_bytes):
    path.write_bytes(path.read_bytes()[:n_bytes])


def fill(path, data):
    path.write_bytes(data)


@pytest.mark.parametrize("what", MODELS)
def test_model_that_is_not_whole(here, exp, what):
    shutil.copytree(exp, "broken")
    pieces = shutil.copy(exp.parent / "tokens/bpe.model", "broken")
    config = Path("broken/config.yaml")
    was = str(exp.parent / "tokens/bpe.model")
    config.write_text(config.read_text().replace(was, str(Path(pieces).resolve())))
    harm, message = MODELS[what]
    harm(Path("broken"))
    line = refused("--model", "broken", "good.wav")
    assert "broken" in line and any(part in line for part in message.split("|")), line


def test_unreadable_recording_and_unwritable_folder(here):
    if os.geteuid() == 0:
        pytest.skip("root reads and writes everything")
    Path("good.wav").chmod(0)
    assert "Permission denied" in refused("--model", "model", "good.wav")
    Path("good.wav").chmod(0o644)
    Path("shut").mkdir(mode=0o555)
    assert "Permission denied" in refused(
        "--model", "model", "--out", "shut", "good.wav"
    )


def test_disk_that_is_full_leaves_no_half_result(here, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = refused("--model", "model", "--format", "json", "good.wav")
    assert "No space left on device" in line and "good.json" in line


@pytest.mark.parametrize(("data", "is_terminal"), [(b"", False), (b"x", True)])
def test_standard_input_without_audio(here, monkeypatch, data, is_terminal):
    stdin = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: is_terminal)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert "expected audio" in refused("--model", "model", "-")


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("ipa", [], "usage"),
        ("ipa", [""], "no phones, expected IPA"),
        ("ipa", ["--policy", "none", "a"], "phone policy 'none' is not known"),
        ("ipa", ["--lang", "klingonese", "a"], "no such language"),
        ("ipa", ["\udcff"], "not UTF-8"),
        ("info", [], "usage"),
        ("info", ["absent"], "no such folder or archive"),
        ("info", ["folder"], "neither config.yaml"),
        ("info", ["good.wav"], "good.wav"),
        (
            "lid",
            ["--model", "model", "--n_best", "0", "good.wav"],
            "usage",
        ),
        ("lid", ["good.wav", "--model", "model", "--languages", "zul"], "<zul> is not"),
    ],
)
def test_other_verbs(here, verb, arguments, message):
    assert message in refused(*arguments, verb=verb)
