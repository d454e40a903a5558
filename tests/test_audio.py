"""Reading speech in place, and the arithmetic of samples and frames."""

import io
import logging
import multiprocessing
import resource
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from shar_builder import encode, write_tar

from powsm import audio
from powsm.audio import (
    AudioError,
    n_encoder_frames,
    n_samples_at_sample_rate,
    n_samples_of,
    read_audio,
)
from powsm.corpora.tarindex import TarIndex
from powsm.files import audio_places
from powsm.files.audio_places import AudioRef
from powsm.train.stock import AudioScp, register_with_espnet


def tone(n_samples: int, rate: int = 16_000) -> np.ndarray:
    return 0.1 * np.sin(2 * np.pi * 440 * np.arange(n_samples) / rate)


@pytest.fixture
def shard(tmp_path):
    """A tar file with one member of each format, and where they lie."""
    path = tmp_path / "recording.000000.tar"
    forms = ("FLAC", "WAV", "OGG", "MP3")
    write_tar(path, [(f"{form}.bin", encode(8000, form=form)) for form in forms])
    with TarIndex(path) as index:
        members = {m.name.split(".")[0]: m for m in index}
    return {form: f"{path}:{m.offset}:{m.size}" for form, m in members.items()}


def test_importing_audio_leaves_torch_alone():
    command = "import sys, powsm.audio; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0


@pytest.mark.parametrize("form", ["FLAC", "WAV"])
def test_read_audio_lossless_member(shard, form):
    speech = read_audio(shard[form])
    assert speech.dtype == np.float32
    # 16-bit: off by at most one step of 1/32768
    np.testing.assert_allclose(speech, tone(8000), atol=1 / 32768)


@pytest.mark.parametrize("form", ["OGG", "MP3"])
def test_read_audio_lossy_member(shard, form):
    speech = read_audio(shard[form])
    assert speech.shape == (8000,)
    # lossy codecs keep the tone: it correlates with the original
    assert np.corrcoef(speech[1000:7000], tone(8000)[1000:7000])[0, 1] > 0.95


def test_read_audio_plain_file(tmp_path):
    path = tmp_path / "a b.flac"
    path.write_bytes(encode(1600))
    assert read_audio(str(path)).shape == (1600,)


def test_read_audio_resamples_and_says_so_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(audio, "_announced_rates", set())
    path = tmp_path / "a.flac"
    path.write_bytes(encode(8001, rate=8_000))
    with caplog.at_level(logging.WARNING):
        first, second = read_audio(str(path)), read_audio(str(path))
    assert len(first) == 16_002 == n_samples_at_sample_rate(8001, 8_000)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first[200:-200], tone(16_002)[200:-200], atol=0.002)
    assert caplog.text.count("8000 Hz, resampled to 16000 Hz") == 1


def wav_of(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "0 bytes do not decode"),
        (b"not audio at all", "do not decode as audio"),
        (encode(1600)[:30], "do not decode as audio"),
        (wav_of(np.zeros((100, 2))), "2 channels, expected 1"),
        (wav_of(np.zeros(0)), "no samples"),
        (wav_of(np.array([0.0, np.nan])), "NaN or infinite"),
        (wav_of(np.array([0.0, -np.inf])), "NaN or infinite"),
    ],
    # names, since a WAV file of floats holds the time at which it was written
    ids=["empty", "text", "cut", "stereo", "no_samples", "nan", "infinite"],
)
def test_read_audio_bad_audio_is_named(tmp_path, data, fault):
    path = tmp_path / "bad.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=fault) as err:
        read_audio(str(path))
    assert str(err.value).startswith(f"{path}: ")


def test_read_audio_missing_file_is_named(tmp_path):
    for location in (f"{tmp_path}/no.flac", f"{tmp_path}/no.tar:512:10"):
        with pytest.raises(AudioError, match="No such file") as err:
            read_audio(location)
        assert str(err.value).startswith(f"{location}: ")


def test_read_audio_beyond_the_shard_is_named(tmp_path):
    path = tmp_path / "short.tar"
    path.write_bytes(bytes(600))
    with pytest.raises(AudioError, match="found 88 of 100 bytes"):  # 600 - 512
        read_audio(f"{path}:512:100")


def test_shards_are_kept_open_up_to_half_of_what_a_process_may_open(tmp_path):
    for i in range(100):
        (tmp_path / f"{i}.tar").write_bytes(b"audio")
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from powsm.files import audio_places as places\n"
        "for i in range(100):\n"
        "    location = f'{sys.argv[1]}/{i}.tar:0:5'\n"
        "    ref = places.AudioRef.parse(location)\n"
        "    assert places.read_bytes(ref, location) == b'audio'\n"
        "print(places._open_file.cache_info().currsize)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("32\n", "")


def read_length(location):
    return len(read_audio(location))


def test_read_audio_survives_a_fork(shard):
    """Parent and children read the same descriptor, each at its own place."""
    read_audio(shard["FLAC"])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        lengths = pool.map(read_length, [shard["FLAC"], shard["WAV"]] * 20)
    assert lengths == [8000] * 40
    assert len(read_audio(shard["WAV"])) == 8000


@pytest.mark.parametrize(
    ("location", "path", "offset", "size"),
    [
        ("a.flac", "a.flac", None, None),
        ("s.tar:512:10", "s.tar", 512, 10),
        ("odd:1:2/s.tar:512:10", "odd:1:2/s.tar", 512, 10),
        ("a.ark:15", "a.ark", 15, None),  # ESPnet's form: the entry tells its size
    ],
)
def test_audio_ref_round_trip(location, path, offset, size):
    ref = AudioRef.parse(location)
    assert (str(ref.path), ref.offset, ref.size) == (path, offset, size)
    assert str(ref) == location


@pytest.mark.parametrize(
    ("n_samples", "n_frames"),
    [
        (320_000, 499),  # 20 s: 2001 frames, (2001-3)//2+1 = 1000, (1000-3)//2+1 = 499
        (16_000, 24),  # 101 frames -> 50 -> 24
        (960, 1),  # 7 frames -> 3 -> 1: the shortest that the encoder takes
        (959, 0),  # 6 frames -> 2 -> 0
        (0, 0),
    ],
)
def test_n_encoder_frames_by_hand(n_samples, n_frames):
    assert n_encoder_frames(n_samples) == n_frames


def test_n_encoder_frames_equals_espnet():
    torch = pytest.importorskip("torch")
    from espnet2.layers.stft import Stft
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import (
        Conv2dSubsampling,
    )

    stft = Stft(n_fft=audio.N_FFT, hop_length=audio.HOP_LENGTH, center=True)
    conv = Conv2dSubsampling(80, 2, 0.0, torch.nn.Identity())
    for n_samples in (1000, 1119, 1120, 15_999, 16_000, 16_001, 48_123):
        lengths = torch.tensor([n_samples])
        _, n_frames = stft(torch.zeros(1, n_samples), lengths)
        mask = torch.ones(1, 1, int(n_frames), dtype=torch.bool)
        _, mask = conv(torch.zeros(1, int(n_frames), 80), mask)
        assert int(mask.sum()) == n_encoder_frames(n_samples)


def test_audio_scp_bad_lines_are_named(tmp_path):
    path = tmp_path / "wav.scp"
    path.write_text("a x.flac\nb\n")
    with pytest.raises(AudioError, match=r"wav.scp:2: 'b' has no audio"):
        AudioScp(path)
    path.write_text("a x.flac\na y.flac\n")
    with pytest.raises(AudioError, match=r"wav.scp:2: 'a' given twice"):
        AudioScp(path)


@pytest.mark.parametrize(
    ("limit", "most"),
    [(1024, 512), (65_536, 2048), (resource.RLIM_INFINITY, 2048)],
)
def test_shards_stay_open_within_the_limit_of_the_process(monkeypatch, limit, most):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    assert audio_places._most_open() == most


def test_espnet_reads_shards(shard, tmp_path):
    dataset = pytest.importorskip("espnet2.train.dataset")
    from espnet2.train.iterable_dataset import IterableESPnetDataset

    register_with_espnet()
    register_with_espnet()
    path = tmp_path / "wav.scp"
    path.write_text("".join(f"{form} {place}\n" for form, place in shard.items()))
    triple = (str(path), "speech", "powsm_audio")
    utt_id, data = dataset.ESPnetDataset([triple])["WAV"]
    np.testing.assert_array_equal(data["speech"], read_audio(shard["WAV"]))
    streamed = dict(IterableESPnetDataset([triple]))
    assert list(streamed) == ["FLAC", "WAV", "OGG", "MP3"]
    np.testing.assert_array_equal(streamed["WAV"]["speech"], data["speech"])


def test_length_is_read_from_the_header(tmp_path, shard):
    for form in ("FLAC", "WAV"):
        assert n_samples_of(shard[form]) == len(read_audio(shard[form])) == 8000
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(44_101, 44_100), 44_100)
    assert n_samples_of(str(path)) == len(read_audio(str(path))) == 16_001
    soundfile.write(path, np.zeros((10, 2)), 16_000)
    with pytest.raises(AudioError, match="2 channels, expected 1"):
        n_samples_of(str(path))
    path.write_text("no audio")
    with pytest.raises(AudioError, match="these 8 bytes do not decode as audio"):
        n_samples_of(str(path))
