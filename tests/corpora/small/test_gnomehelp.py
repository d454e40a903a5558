"""Sentences of GNOME's user guide and their synthetic speech."""

import numpy as np
import pytest

from powsm.corpora.small import espeak, gnomehelp

PAGE = """<?xml version="1.0" encoding="utf-8"?>
<page xmlns="http://projectmallard.org/1.0/" type="topic" id="a">
  <info><desc>{0}</desc><credit><name>Nobody says this</name></credit></info>
  <title>{1}</title>
  <p>{2} <gui>{3}</gui></p>
</page>
"""
TEXTS = {
    "C": ("Call a friend.", "Press one key", "Wait. Wait for the", "second beep!"),
    "es": ("Llame a un amigo.", "Press one key", "Uno.", "Espere el tono!"),
    "fr": ("Appelez un ami.", "Une touche", "Tapez 9 fois.", "Un son"),
    "it": ("Call a friend.", "Un tasto", "Un tasto.", "Due toni"),
    "ru": ("Позвоните другу.", "Одна клавиша", "Файл README", "один"),
}


@pytest.fixture
def guide(tmp_path):
    for folder, texts in TEXTS.items():
        path = tmp_path / gnomehelp.PAGES / folder / "a" / "a.page"
        path.parent.mkdir(parents=True)
        path.write_text(PAGE.format(*texts), encoding="utf-8")
    return tmp_path


def test_read_sentences_joins_inline_elements_and_cuts_at_full_stops(guide):
    sentences = list(gnomehelp.read_sentences(guide / gnomehelp.PAGES / "C"))
    assert sentences == [
        "Call a friend.",
        "Press one key",
        "Wait.",
        "Wait for the second beep!",
    ]


def test_select_keeps_each_translated_sentence_once_and_counts_the_rest(guide):
    selection = gnomehelp.select(guide, seed=0)
    assert list(selection.splits) == ["train"]
    assert [(c.language, c.text) for c in selection.splits["train"]] == [
        ("en", "Call a friend."),
        ("en", "Press one key"),
        ("en", "Wait for the second beep!"),
        ("es", "Llame a un amigo."),
        ("es", "Espere el tono!"),
        ("fr", "Appelez un ami."),
        ("fr", "Une touche"),
        ("fr", "Un son"),
        ("it", "Un tasto"),
        ("it", "Due toni"),
        ("ru", "Позвоните другу."),
        ("ru", "Одна клавиша"),
    ]
    assert selection.left_out == {
        "eng": {"length": 1},  # "Wait."
        "spa": {"untranslated": 1, "length": 1},
        "fra": {"digits": 1},
        "ita": {"untranslated": 1, "copy": 1},
        "rus": {"script": 1},  # "Файл README один" is one sentence
    }


def test_clips_are_the_same_for_a_seed_and_vary_with_it(guide):
    def voices(seed):
        clips = gnomehelp.select(guide, seed).splits["train"]
        return [(c.clip_id, c.speaker) for c in clips]

    assert voices(0) == voices(0)
    assert {i for i, _ in voices(0)} == {i for i, _ in voices(1)}
    assert voices(0) != voices(1)


def test_speak_gives_16_khz_speech_that_a_higher_rate_makes_shorter():
    slow = gnomehelp.speak("Press one key", "en-us+m1", rate_wpm=130, pitch=50)
    fast = gnomehelp.speak("Press one key", "en-us+m1", rate_wpm=210, pitch=50)
    assert (slow.dtype, slow.ndim) == (np.int16, 1)
    assert np.abs(slow).max() > 3000
    assert 0.5 < len(fast) / 16_000 < len(slow) / 16_000 < 2.5


def test_every_variant_is_a_voice_of_espeak():
    for variant in gnomehelp.VARIANTS:
        espeak.synthesise("a", f"en-us+{variant}")


def test_pages_that_are_missing_or_broken_are_named(guide):
    page = guide / gnomehelp.PAGES / "C" / "a" / "a.page"
    page.write_text("<page>", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.page: not well-formed XML"):
        gnomehelp.select(guide, seed=0)
    page.unlink()
    with pytest.raises(FileNotFoundError, match="gnome-user-docs"):
        gnomehelp.select(guide, seed=0)
