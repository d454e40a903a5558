"""Tux Paint's captions and recordings: copies, levels, captions that are not said."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from powsm.corpora.small import tuxpaint
from powsm.corpora.small.tuxpaint import fault, read_captions, read_level


def write_ogg(path: Path, duration_s: float, level: float = 0.1, channels: int = 1):
    """A tone of 400 Hz at 44.1 kHz with a root mean square of `level`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(44100 * duration_s)) / 44100
    tone = level * np.sqrt(2) * np.sin(2 * np.pi * 400 * t)
    soundfile.write(path, np.stack([tone] * channels, axis=1), 44100, format="OGG")


@pytest.fixture
def stamps(tmp_path):
    """Three stamps in Spanish and Russian; `frog2` is a copy of `frog` in Spanish."""
    folder = tmp_path / tuxpaint.STAMPS
    for name, spanish, russian in (
        ("frog", "Una rana.", "Лягушка."),
        ("frog2", "Una  rana.", "Жаба."),
        ("coin", "Un euro.", "Монета 1 евро."),
    ):
        folder.joinpath("a").mkdir(parents=True, exist_ok=True)
        folder.joinpath(f"a/{name}.txt").write_text(
            f"English.\nes.utf8={spanish}\nru.utf8={russian}\n", encoding="utf-8"
        )
        # another length, so that the files differ
        write_ogg(folder / f"a/{name}_desc_es.ogg", 1 + len(name) / 10)
        write_ogg(folder / f"a/{name}_desc_ru.ogg", 1.5 + len(name) / 10)
        write_ogg(folder / f"a/{name}_desc_nl.ogg", 1.0)  # not a language of ours
    shutil.copy(folder / "a/frog_desc_es.ogg", folder / "a/frog2_desc_es.ogg")
    return tmp_path


def test_read_captions_keeps_what_comes_after_the_first_sign(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("A = sign.\n\nes.utf8=  x = y \nru.utf8=\nno mark\n", "utf-8")
    assert read_captions(path) == {"es": "x = y", "ru": ""}


def test_select_drops_copies_and_splits_by_stamp_and_text(stamps):
    for seed in range(10):
        selection = tuxpaint.select(stamps, seed)
        splits = {c.clip_id: s for s, cs in selection.splits.items() for c in cs}
        assert sorted(splits) == [
            "rus-a-frog",
            "rus-a-frog2",
            "spa-a-coin",
            "spa-a-frog2",  # first of the two copies: "2" sorts before "_"
        ]
        assert splits["rus-a-frog2"] == splits["spa-a-frog2"]  # one stamp
    assert selection.left_out == {
        "spa": Counter(copy=1),
        "rus": Counter(digits=1, copy=0),
    }


def test_select_leaves_out_one_recording_with_two_captions(stamps):
    (stamps / tuxpaint.STAMPS / "a/frog2.txt").write_text("x\nes.utf8=Un sapo.\n")
    left_out = tuxpaint.select(stamps, 0).left_out["spa"]
    assert left_out["two_texts"] == 2


def test_select_without_stamps_names_the_package(tmp_path):
    with pytest.raises(FileNotFoundError, match="tuxpaint-stamps-default"):
        tuxpaint.select(tmp_path, 0)


@pytest.mark.parametrize(
    ("ipa", "duration_s", "reason"),
    [
        ("ˈuna rˈana", 1.0, None),
        ("ˈuna rˈana", 7 / 30, None),  # seven sounds, just slow enough
        ("ˈuna rˈana", 0.23, "too_fast"),
        ("ˈuna rˈana", 20.1, "too_long"),
        ("", 1.0, "no_text"),
    ],
)
def test_fault_of_speed_and_duration(ipa, duration_s, reason):
    assert fault("Una rana", "LATIN", ipa, duration_s) == reason


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("level", [0.01, 0.3])
def test_read_level_makes_levels_equal(tmp_path, level, channels):
    write_ogg(tmp_path / "a.ogg", 0.5, level, channels)
    samples = read_level(tmp_path / "a.ogg")
    assert samples.dtype == np.int16
    # FFmpeg takes 128 samples at 44.1 kHz off the beginning of this encoder's files
    assert len(samples) == pytest.approx(8000, abs=50)
    rms = np.sqrt(np.mean((samples / 32767.0) ** 2))
    assert rms == pytest.approx(0.1, rel=0.02)


def test_read_level_does_not_clip_a_click(tmp_path):
    samples = np.full(22050, 1e-4)
    samples[11000:11010] = 0.5
    soundfile.write(tmp_path / "a.wav", samples, 22050)
    assert np.abs(read_level(tmp_path / "a.wav")).max() <= 32767 * 0.99 + 1


def test_read_level_of_silence_or_of_no_audio_is_an_error(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), 16000)
    (tmp_path / "text.ogg").write_text("not audio")
    with pytest.raises(ValueError, match=r"silent\.wav: holds no sound"):
        read_level(tmp_path / "silent.wav")
    with pytest.raises(ValueError, match=r"text\.ogg: does not decode"):
        read_level(tmp_path / "text.ogg")
