"""Copies of the audio hold the same samples, for ESPnet and for our reader."""

import contextlib
import io
import os
import resource
import tarfile

import numpy as np
import pytest
import soundfile
from datadir_builder import make_data_dir

from powsm.audio import AudioError, read_audio
from powsm.files.datadir import read_scp, validate
from powsm.prepare.copy_audio import DONE_FILE, copy_set

N_SAMPLES = 4_000


def speech_of(i):
    return np.random.default_rng(i).integers(-9_000, 9_000, N_SAMPLES, dtype=np.int16)


@pytest.fixture
def data(tmp_path):
    """Two utterances in a tar shard, one in a WAV file."""
    rows = {}
    shard = tmp_path / "recording.000000.tar"
    with tarfile.open(shard, "w") as tar:
        for i in range(2):
            buffer = io.BytesIO()
            soundfile.write(buffer, speech_of(i), 16_000, format="FLAC")
            member = tarfile.TarInfo(f"{i}.flac")
            member.size = len(buffer.getvalue())
            buffer.seek(0)
            tar.addfile(member, buffer)
    with tarfile.open(shard) as tar:
        for i, member in enumerate(tar):
            location = f"{shard}:{member.offset_data}:{member.size}"
            rows[f"cv_{i}_eng"] = {"audio": location, "n_samples": N_SAMPLES}
    soundfile.write(tmp_path / "2.wav", speech_of(2), 16_000)
    rows["cv_2_eng"] = {"audio": tmp_path / "2.wav", "n_samples": N_SAMPLES}
    return make_data_dir(tmp_path / "data" / "train", rows)


@pytest.mark.parametrize("audio_format", ["flac.ark", "wav"])
def test_copies_hold_the_same_samples(data, audio_format):
    assert copy_set(data, audio_format) == 3
    validate(data)
    for i, (utt_id, location) in enumerate(read_scp(data / "wav.scp")):
        assert utt_id == f"cv_{i}_eng"
        assert str(data / "audio") in location
        assert np.array_equal(read_audio(location) * 32768, speech_of(i))
    assert copy_set(data, audio_format) is None


@pytest.mark.parametrize(
    ("audio_format", "name"),
    [("flac.ark", "000000.ark"), ("wav", "000000/cv_0_eng.wav")],
)
def test_full_disk_names_the_copy_and_leaves_none(data, audio_format, name):
    before = (data / "wav.scp").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(OSError) as fault:
            copy_set(data, audio_format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert fault.value.filename == str(data / "audio" / audio_format / name)
    assert (data / "wav.scp").read_bytes() == before
    assert list((data / "audio").iterdir()) == []


def test_stock_espnet_reads_the_ark(data):
    from espnet2.train.dataset import DATA_TYPES

    copy_set(data, "flac.ark")
    load = DATA_TYPES["kaldi_ark"]["func"]
    reader = load(str(data / "wav.scp"))
    for i in range(3):
        assert np.allclose(reader[f"cv_{i}_eng"] * 32768, speech_of(i))


def test_flac_of_a_shard_is_not_encoded_again(data):
    location = dict(read_scp(data / "wav.scp"))["cv_0_eng"]
    path, offset, size = location.rsplit(":", 2)
    with open(path, "rb") as file:
        file.seek(int(offset))
        original = file.read(int(size))
    copy_set(data, "flac.ark")
    assert original in (data / "audio" / "flac.ark" / "000000.ark").read_bytes()


def test_copies_of_copies(data):
    copy_set(data, "flac.ark")
    assert copy_set(data, "wav") == 3
    location = dict(read_scp(data / "wav.scp"))["cv_1_eng"]
    assert np.array_equal(read_audio(location) * 32768, speech_of(1))
    assert not list((data / "audio").rglob("*.ark"))


def test_bad_audio_changes_nothing(data):
    before = (data / "wav.scp").read_bytes()
    path = dict(read_scp(data / "wav.scp"))["cv_2_eng"]
    with open(path, "wb") as file:
        file.write(b"not audio")
    with pytest.raises(AudioError, match="2.wav"):
        copy_set(data, "flac.ark")
    assert (data / "wav.scp").read_bytes() == before
    assert not list((data / "audio").iterdir())
    assert not [path for path in data.rglob(".*")]


def test_truncated_ark_is_named(data):
    copy_set(data, "flac.ark")
    ark = data / "audio" / "flac.ark" / "000000.ark"
    ark.write_bytes(ark.read_bytes()[:-100])
    location = dict(read_scp(data / "wav.scp"))["cv_2_eng"]
    with pytest.raises(AudioError, match="000000.ark"):
        read_audio(location)
    with pytest.raises(AudioError, match="no audio of ESPnet's ark format"):
        read_audio(f"{ark}:1")


def test_unknown_format_is_refused(data):
    with pytest.raises(ValueError, match=r"'mp3'.*flac\.ark"):
        copy_set(data, "mp3")


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_second_format_survives_a_death_at_any_rename(data, monkeypatch, at):
    """`wav.scp` names audio that is there, whichever rename was the last."""
    copy_set(data, "wav")
    calls = 0

    class Died(BaseException):
        pass

    def dying(original):
        def rename(*args):
            nonlocal calls
            calls += 1
            if calls == at:
                raise Died
            return original(*args)

        return rename

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    with contextlib.suppress(Died):
        copy_set(data, "flac.ark")
    monkeypatch.undo()
    for i, (_, location) in enumerate(read_scp(data / "wav.scp")):
        assert np.array_equal(read_audio(location) * 32768, speech_of(i))
    copy_set(data, "flac.ark")
    for i, (_, location) in enumerate(read_scp(data / "wav.scp")):
        assert "flac.ark" in location
        assert np.array_equal(read_audio(location) * 32768, speech_of(i))
    assert [path.name for path in (data / "audio").iterdir()] == ["flac.ark"]


def test_lost_record_copies_nothing_again(data):
    copy_set(data, "flac.ark")
    ark = data / "audio" / "flac.ark" / "000000.ark"
    before = ark.stat().st_mtime_ns, (data / "wav.scp").read_bytes()
    (data / DONE_FILE).unlink()
    copy_set(data, "flac.ark")
    assert (ark.stat().st_mtime_ns, (data / "wav.scp").read_bytes()) == before


def test_copies_of_version_0_1_are_replaced(data):
    """They lay in `audio` itself."""
    copy_set(data, "flac.ark")
    (data / "audio" / "flac.ark" / "000000.ark").rename(data / "audio" / "000000.ark")
    (data / "audio" / "flac.ark").rmdir()
    scp = (data / "wav.scp").read_text().replace("audio/flac.ark/", "audio/")
    (data / "wav.scp").write_text(scp)
    assert copy_set(data, "flac.ark") == 3
    assert [path.name for path in (data / "audio").iterdir()] == ["flac.ark"]
    for i, (_, location) in enumerate(read_scp(data / "wav.scp")):
        assert np.array_equal(read_audio(location) * 32768, speech_of(i))
