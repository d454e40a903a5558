"""Voices of flite and Festival: programs that stand in for them say tones."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from powsm.corpora.small import gnomehelp, voices
from powsm.corpora.small.gnomeworld import LANGUAGES
from powsm.errors import PowsmError

PAGE = """<page xmlns="http://projectmallard.org/1.0/"><p>{}</p></page>"""
SENTENCES = {
    "C": ["Open it", 'The "name"', "Close a file"],
    "it": ["Apri il file", "È qui", "Œufs ș"],  # the last is not in latin-1
}
# like both programs: a tone of a tenth of a second a word; nothing for "a file"
PROGRAM = """#!{python}
import re, sys, wave
import numpy as np
def say(text, file):
    if text == "Close a file.":
        return
    n = 1600 * len(text.split())
    tone = (8000 * np.sin(np.arange(n) / 5)).astype("<i2")
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16000, n, "NONE", ""))
        out.writeframes(tone.tobytes())
if "flite" in sys.argv[0]:
    say(sys.argv[sys.argv.index("-t") + 1], sys.argv[sys.argv.index("-o") + 1])
elif sys.argv[2] == "(print (voice.list))":
    print("(kal_diphone {known})")
else:
    script = open(sys.argv[2], encoding="latin-1").read()
    assert script.startswith("(voice_lp_diphone)"), script
    for text, file in re.findall(r'^\\(say "(.*)" "(.*)"\\)$', script, re.MULTILINE):
        say(re.sub(r"\\\\(.)", r"\\1", text), file)
"""


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """The guide in two languages, and two voices."""
    chosen = [v for v in voices.VOICES if v.name in ("slt", "lp_diphone")]
    monkeypatch.setattr(voices, "VOICES", tuple(chosen))
    for folder, sentences in SENTENCES.items():
        path = tmp_path / gnomehelp.PAGES / folder / "a.page"
        path.parent.mkdir(parents=True)
        text = "".join(f"{sentence}. " for sentence in [*sentences, "Press 9"])
        path.write_text(PAGE.format(text), encoding="utf-8")
    return tmp_path


def install(folder: Path, monkeypatch, *programs: str, known: str = "lp_diphone"):
    """Put the programs on the path, and nothing else."""
    for name in programs:
        file = folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            PROGRAM.replace("{python}", sys.executable).replace("{known}", known)
        )
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"))


def test_each_voice_says_the_sentences_of_its_language(guide, monkeypatch):
    install(guide, monkeypatch, "flite", "festival")
    selection = voices.select(guide, seed=0)
    clips = {clip.clip_id: clip for clip in selection.splits["train"]}
    assert sorted(clips) == [
        "lp-diphone-0000",
        "lp-diphone-0001",
        "slt-0000",
        "slt-0001",
    ]
    said = {(clip.speaker, clip.text.rstrip(".")) for clip in clips.values()}
    assert said == {
        ("flite-slt", "Open it"),
        ("flite-slt", 'The "name"'),
        ("festival-lp-diphone", "Apri il file"),
        ("festival-lp-diphone", "È qui"),
    }
    for clip in clips.values():
        speech = clip.read_samples()
        assert speech.dtype == np.int16 and speech.any()
        assert speech.size == round(clip.duration_s * 16_000)
        assert speech.size == 1600 * len(clip.text.split())
    assert {c.language for c in clips.values()} == {"en", "it"}
    assert clips["slt-0000"].ipa.isascii() is False
    left_out = selection.left_out
    assert left_out["slt"]["not_said"] == 1 and left_out["slt"]["digits"] == 1
    assert left_out["lp_diphone"]["not_said"] == 1


def test_a_voice_stops_at_its_share_and_a_seed_gives_the_same(guide, monkeypatch):
    install(guide, monkeypatch, "flite", "festival")
    monkeypatch.setattr(voices, "MINUTES", 0.1 / 60)
    monkeypatch.setattr(voices, "_AT_ONCE", 1)

    def drawn(seed):
        selection = voices.select(guide, seed)
        samples = [c.read_samples().tobytes() for c in selection.splits["train"]]
        return samples, [c.text for c in selection.splits["train"]], selection

    first, texts, selection = drawn(0)
    assert len(texts) == 2  # one a voice
    assert selection.left_out["lp_diphone"]["not_needed"] == 1
    assert drawn(0)[:2] == (first, texts)
    assert any(drawn(seed)[0] != first for seed in (1, 2))


def test_what_is_not_installed_is_named_before_anything_is_said(guide, monkeypatch):
    install(guide, monkeypatch, "flite")
    with pytest.raises(PowsmError, match="voices needs festival: install"):
        voices.select(guide, seed=0)
    install(guide, monkeypatch, "festival", known="ked_diphone")
    with pytest.raises(PowsmError, match="voices needs festvox-italp16k: install"):
        voices.select(guide, seed=0)
    os.remove(guide / "bin/flite")
    with pytest.raises(PowsmError, match="needs festvox-italp16k flite: install"):
        voices.select(guide, seed=0)


def test_voices_are_of_languages_that_the_guide_has():
    assert len({voice.name for voice in voices.VOICES}) == len(voices.VOICES) == 17
    for voice in voices.VOICES:
        assert voice.folder in LANGUAGES and "é".encode(voice.encoding)
