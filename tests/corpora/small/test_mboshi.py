"""Mboshi by its spelling: letters, tones, and files that cannot be used."""

import numpy as np
import pytest
import soundfile

from powsm.corpora.small import mboshi
from powsm.corpora.small.mboshi import SpellingError, spelling_to_ipa


@pytest.mark.parametrize(
    ("text", "ipa"),
    [
        ("kyéma yeékirá", "kjema jeːkiɾa"),  # tones go, one vowel twice is long
        ("adí sωndω", "adi sɔndɔ"),
        ("bhɛ", None),  # the letter is ε, Greek; this is Latin ɛ
        ("abhé ghá", "aβe ɣa"),
        ("nyama ngala", "ɲama ŋɡala"),
        ("tsá dzέ pfú bvo", "t͡sa d͡zɛ p͡fu b͡vo"),
        ("áéi, l'é.", "aei le"),  # unlike vowels stay two
        ("", ""),
    ],
)
def test_spelling_to_ipa(text, ipa):
    if ipa is None:
        with pytest.raises(SpellingError, match="ɛ"):
            spelling_to_ipa(text)
    else:
        assert spelling_to_ipa(text) == ipa


def test_select_takes_both_parts_and_counts_what_it_leaves_out(tmp_path):
    for part, name, text in (
        ("train", "abiayi_1", "wó adí"),
        ("train", "abiayi_2", "xyz"),  # x is no letter
        ("dev", "kouarata_1", "bhá"),
        ("dev", "kouarata_2", "bhá"),  # cut off
        ("dev", "kouarata_3", ""),
    ):
        path = tmp_path / mboshi.FOLDER / part / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(8_000, 0.1), 16_000)
        path.with_suffix(".mb.cleaned").write_text(text + "\n", encoding="utf-8")
        if name == "kouarata_2":
            path.write_bytes(path.read_bytes()[:4_000])
    selection = mboshi.select(tmp_path, seed=0)
    clips = selection.splits["train"]
    assert [(c.clip_id, c.speaker, c.ipa, c.duration_s) for c in clips] == [
        ("abiayi_1", "abiayi", "wo adi", 0.5),
        ("kouarata_1", "kouarata", "βa", 0.5),
    ]
    assert clips[0].read_samples().dtype == np.int16
    assert selection.left_out["mdw"] == {"spelling": 1, "cut_off": 1, "no_text": 1}


def test_a_folder_without_the_corpus_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="full_corpus_newsplit"):
        mboshi.select(tmp_path, seed=0)
