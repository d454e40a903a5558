"""The generated speech whose phone times scripts/bench/align.py takes for true."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from powsm.audio import SAMPLE_RATE, read_audio
from powsm.files.datadir import read_scp
from powsm.phones.slashed import from_slashed

BENCH = Path(__file__).parents[1] / "scripts/bench/align.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "train"
    bench = runpy.run_path(str(BENCH))
    return folder, bench["make_set"](folder, 8, np.random.default_rng(0))


def test_sounds_are_the_phones_that_training_reads(made):
    folder, sounds = made
    targets = dict(read_scp(folder / "text.ctc"))
    assert len(sounds) == 8
    for utt_id, expected in sounds.items():
        phones = tuple(sound.phone for sound in expected)
        assert from_slashed(targets[f"{utt_id}_pr"]) == phones


def test_times_rise_within_the_recording(made):
    folder, sounds = made
    for utt_id, expected in sounds.items():
        speech = read_audio(str(folder / "wav" / f"{utt_id}.flac"))
        starts = [s.start_s for s in expected if s.start_s is not None]
        assert len(starts) > len(expected) / 2
        assert starts == sorted(starts)
        assert 0 <= starts[0] < starts[-1] < len(speech) / SAMPLE_RATE
        # sound begins about where the first phone does
        loud = np.flatnonzero(np.abs(speech) > 0.05 * np.abs(speech).max())
        assert loud[0] / SAMPLE_RATE == pytest.approx(starts[0], abs=0.1)
