"""Tux Paint's captions in more languages, spoken."""

import pytest

from powsm.corpora.small import espeak, gnomeworld, stampworld, tuxpaint
from powsm.languages import lang_code

CAPTIONS = {
    "frog": "A frog.\nsk.utf8=Žaba.\nka.utf8=ბაყაყი.\n",
    "frog2": "A frog.\nsk.utf8=Žaba!\nka.utf8=Frog.\n",  # a copy; another script
    "coin": "A coin.\nsk.utf8=Minca 1 euro.\n",  # digits; no Georgian
    "long": "Long.\nsk.utf8=" + "áno " * 9 + "\n",
}


@pytest.fixture
def stamps(tmp_path, monkeypatch):
    chosen = {code: stampworld.LANGUAGES[code] for code in ("sk", "ka")}
    monkeypatch.setattr(stampworld, "LANGUAGES", chosen)
    folder = tmp_path / tuxpaint.STAMPS / "a"
    folder.mkdir(parents=True)
    for name, text in CAPTIONS.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_captions_are_spoken_once_and_the_others_counted(stamps):
    selection = stampworld.select(stamps, seed=0)
    clips = selection.splits["train"]
    assert [(clip.language, clip.text) for clip in clips] == [
        ("sk", "Žaba."),
        ("ka", "ბაყაყი."),
    ]
    assert all(clip.speaker.startswith("espeak-") for clip in clips)
    assert selection.left_out == {
        "slk": {"copy": 1, "digits": 1, "length": 1},
        "kat": {"script": 1, "no_text": 2},
    }


def test_without_captions_the_package_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tuxpaint-stamps-default"):
        stampworld.select(tmp_path, seed=0)


@pytest.mark.parametrize("code", stampworld.LANGUAGES)
def test_every_language_has_a_voice_and_is_in_no_other_corpus(code):
    lang, _ = stampworld.LANGUAGES[code]
    assert lang_code(code) == lang
    assert espeak.voice_of(lang)
    assert lang not in {lang for _, lang, _ in gnomeworld.LANGUAGES.values()}
