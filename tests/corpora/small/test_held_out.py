"""Languages for dev alone, and speakers for test alone."""

import numpy as np

from powsm.corpora.small import held_out
from powsm.corpora.small.held_out import hold_out
from powsm.corpora.small.write_shar import Clip, Selection


def clip(clip_id, language, speaker="a", minutes=1.0):
    def silence():
        return np.zeros(16_000, np.int16)

    return Clip(clip_id, language, speaker, "x", "x", 60 * minutes, silence)


def placed(selection):
    return {
        split: [c.clip_id for c in clips] for split, clips in selection.splits.items()
    }


def test_a_language_is_for_dev_alone_and_dev_for_it_alone(monkeypatch):
    monkeypatch.setattr(held_out, "DEV_MINUTES", 1.5)
    selection = Selection(
        splits={
            "train": [clip("ell-3", "el"), clip("ell-1", "el"), clip("spa-1", "es")],
            "dev": [clip("ell-2", "el"), clip("spa-2", "es")],
            "test": [clip("ell-4", "el"), clip("spa-3", "es")],
        }
    )
    chosen = hold_out(selection, dev_langs=["ell"])
    assert placed(chosen) == {
        "train": ["spa-1", "spa-2"],
        "dev": ["ell-1", "ell-2"],  # 1.5 minutes are reached with the second
        "test": ["ell-4", "spa-3"],
    }
    assert chosen.left_out == {"ell": {"held_out": 1}}


def test_a_speaker_is_for_test_alone_and_empty_splits_are_none():
    selection = Selection(
        splits={"train": [clip("a", "ca", "ana"), clip("b", "ca", "pau")], "dev": []}
    )
    chosen = hold_out(selection, test_speakers=["ana"])
    assert placed(chosen) == {"train": ["b"], "test": ["a"]}


def test_a_language_is_for_test_alone_and_dev_keeps_the_others():
    selection = Selection(
        splits={
            "train": [clip("rus-1", "ru"), clip("spa-1", "es")],
            "dev": [clip("rus-2", "ru"), clip("spa-2", "es")],
            "test": [clip("spa-3", "es")],
        }
    )
    chosen = hold_out(selection, test_langs=["rus"])
    assert placed(chosen) == {
        "train": ["spa-1"],
        "dev": ["spa-2"],
        "test": ["rus-1", "rus-2", "spa-3"],
    }


def test_six_minutes_of_a_language_are_for_dev():
    selection = Selection(splits={"train": [clip(f"ell-{n}", "el") for n in range(9)]})
    chosen = hold_out(selection, dev_langs=["ell"])
    assert placed(chosen) == {"dev": [f"ell-{n}" for n in range(6)]}
    assert chosen.left_out == {"ell": {"held_out": 3}}
