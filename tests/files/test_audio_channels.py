"""What is lost of a recording, by its mix or by its microphone, is said."""

import numpy as np
import pytest
import soundfile

from powsm.audio import read_audio, speech_blocks
from powsm.decode.recordings.samples import speech_of

SPEECH = 0.1 * np.random.default_rng(0).standard_normal(16_000)
OTHER = 0.1 * np.random.default_rng(1).standard_normal(16_000)
NOTHING = 1e-4 * np.random.default_rng(2).standard_normal(16_000)
OFFSET = NOTHING + 0.3  # a cheap card, with nothing in its input


@pytest.fixture(autouse=True)
def nobody_is_named(monkeypatch):
    for named in ("_with_lost_channels", "_cut_off"):
        monkeypatch.setattr(f"powsm.files.audio_channels.{named}", set())


@pytest.mark.parametrize(
    ("channels", "fault"),
    [
        # half the amplitude: 20 log10(2) = 6.0 dB
        ([SPEECH, 0 * SPEECH], "silence in 1 of its 2 channels: their mean is 6 dB"),
        ([NOTHING, SPEECH], "than the loudest; choose channel right"),
        ([OFFSET, SPEECH], "than the loudest; choose channel right"),
        # 20 log10(4) = 12.0 dB
        ([SPEECH, *[NOTHING] * 3], "in 3 of its 4 channels: their mean is 12 dB"),
        ([SPEECH, -SPEECH], "its 2 channels cancel each other: their mean is 100 dB"),
        # (1 - 0.9) / 2 of the amplitude: 20 log10(20) = 26.0 dB
        ([SPEECH, -0.9 * SPEECH], "cancel each other: their mean is 26 dB quieter"),
    ],
)
def test_mix_that_loses_speech_is_said_once(tmp_path, caplog, channels, fault):
    samples = np.stack(channels, axis=1)
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    mixed = read_audio(str(path), "mix")
    assert [fault in message for message in caplog.messages] == [True]
    assert caplog.messages[0].startswith(f"{path}: ")
    np.testing.assert_array_equal(
        np.concatenate(list(speech_blocks(str(path), "mix"))), mixed
    )
    assert len(caplog.messages) == 1
    speech_of(samples, min_samples=1000, name="array")
    assert fault in caplog.messages[1]


@pytest.mark.parametrize(
    "channels",
    [
        [SPEECH, SPEECH],
        [SPEECH, OTHER],  # two speakers: 3 dB
        [SPEECH, 0.1 * OTHER],  # one is far from the microphone
        [0 * SPEECH, 0 * SPEECH],  # nothing to lose
    ],
)
def test_mix_that_loses_little_is_not_mentioned(tmp_path, caplog, channels):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack(channels, axis=1), 16_000)
    read_audio(str(path), "mix")
    assert not caplog.messages


def test_recordings_with_a_silent_channel_are_named_ten_times(tmp_path, caplog):
    for number in range(12):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.stack([SPEECH, 0 * SPEECH], axis=1), 16_000)
        read_audio(str(path), "mix")
    assert len(caplog.messages) == 10
    assert caplog.messages[-1].endswith("(others are not named)")


def test_channel_that_is_chosen_loses_nothing(tmp_path, caplog):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([SPEECH, 0 * SPEECH], axis=1), 16_000)
    for channel in ("left", "each", 0):
        read_audio(str(path), channel)
    assert not caplog.messages


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "FLOAT", "ULAW"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_clipping_is_said(tmp_path, caplog, subtype, rate):
    """Of noise whose sixteenth part is above full scale, and of noise that is not."""
    noise = np.random.default_rng(0).standard_normal(rate)
    speech = np.convolve(noise, np.ones(20) / 20**0.5, "same")  # no two leaps alike
    for name, gain in (("good", 0.2), ("loud", 0.6)):
        path = tmp_path / f"{name}.wav"
        samples = np.clip(gain * speech, -1, 0.9999)
        soundfile.write(path, samples, rate, subtype=subtype)
        list(speech_blocks(str(path), "mix"))
        read_audio(str(path), "mix")
    messages = [m for m in caplog.messages if "resampled" not in m]
    assert [m.partition(": ")[0] for m in messages] == [str(tmp_path / "loud.wav")]
    assert "% of its samples are cut off at full scale" in messages[0]


def test_utterances_of_a_corpus_are_not_held_against_full_scale(tmp_path, caplog):
    """They are read over and over."""
    soundfile.write(tmp_path / "a.wav", np.ones(16_000), 16_000)
    read_audio(str(tmp_path / "a.wav"))
    assert not caplog.messages
