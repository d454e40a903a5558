"""GNOME's guide in many languages: shares, draws, and speech that is disturbed."""

import numpy as np
import pytest

from powsm.corpora.small import espeak, gnomehelp, gnomeworld
from powsm.languages import lang_code

PAGE = """<page xmlns="http://projectmallard.org/1.0/"><p>{}</p></page>"""
LETTERS = {"LATIN": "abc", "CYRILLIC": "абв", "GREEK": "αβγ"}


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """Three languages, five sentences each; three of them can be spoken."""
    chosen = {"C": gnomeworld.LANGUAGES["C"], "el": gnomeworld.LANGUAGES["el"]}
    chosen["tr"] = gnomeworld.LANGUAGES["tr"]
    monkeypatch.setattr(gnomeworld, "LANGUAGES", chosen)
    monkeypatch.setattr(gnomeworld, "MINUTES", 0.03)
    for folder, (_, _, script) in chosen.items():
        path = tmp_path / gnomehelp.PAGES / folder / "a.page"
        path.parent.mkdir(parents=True)
        words = [f"{letter * 3} {folder[0]}" for letter in LETTERS[script]]
        if script != "LATIN":
            words = [word[:3] for word in words]
        text = ". ".join([*words, "Press 9", words[0]]) + "."
        path.write_text(PAGE.format(text), encoding="utf-8")
    return tmp_path


def test_a_language_has_its_share_and_what_it_does_not_need_is_counted(guide):
    selection = gnomeworld.select(guide, seed=0)
    clips = selection.splits["train"]
    assert {clip.language for clip in clips} == {"en", "el", "tr"}
    for lang, code in (("eng", "en"), ("ell", "el"), ("tur", "tr")):
        n_clips = sum(clip.language == code for clip in clips)
        left_out = selection.left_out[lang]
        assert n_clips + left_out["not_needed"] == 3
        assert left_out["copy"] == 1
        assert left_out["digits"] == 1
        assert sum(left_out.values()) + n_clips == 5


def test_clips_are_the_same_for_a_seed_and_vary_with_it(guide):
    def drawn(seed):
        clips = gnomeworld.select(guide, seed).splits["train"]
        return [(c.clip_id, c.speaker, c.duration_s) for c in clips]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_disturbed_speech_keeps_its_length_and_hides_no_more_than_it_says():
    time = np.arange(16_000) / 16_000
    speech = np.round(16_384 * np.sin(2 * np.pi * 220 * time)).astype(np.int16)
    for seed in range(20):
        heard = gnomeworld.disturb(speech, np.random.default_rng(seed))
        assert heard.dtype == np.int16 and heard.shape == speech.shape
        assert np.abs(heard.astype(int)).max() > 32767 * 10 ** (-25 / 20) * 0.9
        # a steady tone through a linear filter stays one: the rest is noise
        basis = np.stack(
            [np.sin(2 * np.pi * 220 * time), np.cos(2 * np.pi * 220 * time)]
        )
        samples = heard[100:].astype(float)
        fit, *_ = np.linalg.lstsq(basis[:, 100:].T, samples, rcond=None)
        rest = samples - fit @ basis[:, 100:]
        snr_db = 10 * np.log10(np.mean((fit @ basis[:, 100:]) ** 2) / np.mean(rest**2))
        assert gnomeworld.SNR_DB[0] - 0.5 < snr_db < gnomeworld.SNR_DB[1] + 1.5


@pytest.mark.parametrize("folder", gnomeworld.LANGUAGES)
def test_every_language_has_a_voice_and_its_own_code(folder):
    code, lang, _ = gnomeworld.LANGUAGES[folder]
    assert lang_code(code) == lang
    assert espeak.voice_of(lang)
