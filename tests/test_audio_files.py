"""Awkward files: every byte is heard, or the file is refused in one line."""

import io
import os
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from powsm.audio import (
    AudioError,
    at_level,
    level_db,
    n_samples_of,
    read_audio,
    resample,
    resample_blocks,
    speech_blocks,
    warn_of_level,
)
from powsm.audio_files import decode_blocks, open_sound
from powsm.files.audio_streams import _ogg_crc

RATE = 16_000
N = 16_000  # samples of every recording here: a second


def speech(seed: int = 0, n: int = N, rate: int = RATE) -> np.ndarray:
    """A tone with noise: no two stretches of it are alike."""
    noise = np.random.default_rng(seed).standard_normal(n)
    tone = np.sin(2 * np.pi * 440 * np.arange(n) / rate)
    return (0.1 * tone + 0.01 * noise).astype(np.float32)


def file_of(form: str, subtype: str | None = None, samples=None, rate=RATE) -> bytes:
    samples = speech(rate=rate) if samples is None else samples
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def media(form: str, codec: str, layout: str = "mono", n: int = N, streams: int = 1):
    """A file that FFmpeg writes."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        tracks = [
            container.add_stream(codec, rate=RATE, layout=layout)
            for _ in range(streams)
        ]
        for track in tracks:
            n_channels = 2 if layout == "stereo" else 1
            samples = np.round(speech(n=n) * 32767).astype(np.int16)
            packed = np.repeat(samples, n_channels)[None]
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            frame.sample_rate = RATE
            frame.pts = 0
            resampler = av.AudioResampler(
                track.format.name, layout, RATE, frame_size=track.frame_size or 1024
            )
            for part in (*resampler.resample(frame), *resampler.resample(None), None):
                for packet in track.encode(part):
                    container.mux(packet)
    return file.getvalue()


WAV = file_of("WAV")
FLAC = file_of("FLAC")
VORBIS = file_of("OGG", "VORBIS")
OPUS = file_of("OGG", "OPUS")
MP3 = file_of("MP3")
HEAD = 44  # bytes before the samples of WAV


def wav_with_size(size: int, data: bytes = WAV) -> bytes:
    return data[:40] + struct.pack("<I", size) + data[44:]


def flac_of_length(n_samples: int) -> bytes:
    """FLAC whose header says another length."""
    field = int.from_bytes(FLAC[18:26], "big") >> 36 << 36 | n_samples
    return FLAC[:18] + field.to_bytes(8, "big") + FLAC[26:]


def spoilt(data: bytes, at: float = 0.5, n: int = 40) -> bytes:
    """Some bytes in the middle are others."""
    begin = int(len(data) * at)
    turned = bytes(255 - byte for byte in data[begin : begin + n])
    return data[:begin] + turned + data[begin + n :]


def pages_of(data: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def without_page(data: bytes, number: int) -> bytes:
    pages = pages_of(data)
    return b"".join(pages[:number] + pages[number + 1 :])


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data


LONG_VORBIS = file_of("OGG", "VORBIS", speech(n=10 * N))
LONG_MP3_STREAMS = MP3 + MP3 + MP3
ID3 = b"ID3\x04\0\0\0\0\0\x20" + bytes(32)
STEREO = np.stack([speech(0), speech(1)], axis=1)
XING = MP3.find(b"Info") if b"Info" in MP3 else MP3.find(b"Xing")
# the first frame of such an MP3 is its table; without it, it is a bare stream
FRAMES_ONLY = MP3[MP3.find(MP3[:2], 4) :]

# name -> bytes, samples heard (at 16 kHz) or the line that refuses them
AWKWARD = {
    # WAV: sizes that are not known, or wrong
    "wav_size_0": (wav_with_size(0), N),
    "wav_size_open": (wav_with_size(0xFFFFFFFF), N),
    "wav_riff_size_0": (WAV[:4] + bytes(4) + WAV[8:], N),
    "wav_both_sizes_open": (
        WAV[:4] + b"\xff" * 4 + wav_with_size(0xFFFFFFFF)[8:],
        N,
    ),
    "wav_size_too_large": (wav_with_size(2 * N + 2), "cut off: .* 32002 bytes"),
    "wav_size_2_GB": (wav_with_size(0x7FFFFFFF), "cut off: .* 2147483647 bytes"),
    "wav_size_too_small": (wav_with_size(1000), "31000 bytes behind the end"),
    "wav_cut": (WAV[:20_000], "cut off: .* 32000 bytes of samples, .* has 19956"),
    "wav_cut_in_header": (WAV[:30], "cut off"),
    "wav_header_alone": (WAV[:HEAD], "cut off: .* has 0"),
    "wav_no_samples": (file_of("WAV", samples=np.zeros(0)), "no samples"),
    "wav_no_data_chunk": (WAV[:36], "no samples: there is no chunk 'data'"),
    "wav_joined": (WAV + WAV, "32044 bytes behind the end of the samples"),
    "wav_notes_behind": (WAV + chunk(b"LIST", b"INFOISFT1234"), N),
    "wav_size_0_notes_behind": (
        WAV[:40] + bytes(4) + chunk(b"LIST", b"INFOISFT1234"),
        "no samples",
    ),
    "wav_zeros_behind": (WAV + bytes(100), N),
    "wav_notes_before": (
        WAV[:36] + chunk(b"JUNK", bytes(500)) + WAV[36:],
        N,
    ),
    "wav_rf64": (file_of("RF64"), N),
    "wav_24_bit": (file_of("WAV", "PCM_24"), N),
    "wav_8_bit": (file_of("WAV", "PCM_U8"), N),
    "wav_alaw": (file_of("WAV", "ALAW"), N),
    "wav_ima_adpcm": (
        file_of("WAV", "IMA_ADPCM"),
        16 * 1017,
    ),  # whole blocks of 512 bytes
    "wav_mp3_inside": (media("wav", "libmp3lame"), (N, N + 2304)),
    "wav_float": (file_of("WAV", "FLOAT"), N),
    "wav_float_loud": (file_of("WAV", "FLOAT", 15 * speech()), N),
    "wav_float_of_integers": (
        file_of("WAV", "FLOAT", np.round(32767 * speech())),
        r"samples up to \d+, expected \[-1, 1\]; integers were written as floats",
    ),
    "wav_double_of_integers": (
        file_of("WAV", "DOUBLE", np.round(2**23 * speech())),
        "integers were written as floats",
    ),
    "wav_nan": (
        file_of("WAV", "FLOAT", np.append(speech(), np.float32(np.nan))),
        "NaN or infinite",
    ),
    "wav_16001_hz": (file_of("WAV", rate=16_001, samples=speech(n=16_001)), N),
    "wav_15999_hz": (file_of("WAV", rate=15_999), 16_002),  # ceil(16000 / 15999 s)
    "wav_rate_0": (WAV[:24] + bytes(4) + WAV[28:], "rate of 0 Hz|do not decode"),
    "wav_rate_4_GHz": (WAV[:24] + b"\xff" * 4 + WAV[28:], "a rate of|do not decode"),
    "wav_stereo": (file_of("WAV", samples=STEREO), "2 channels, expected 1; choose"),
    # other forms whose header knows the length
    "aiff": (file_of("AIFF"), N),
    "aiff_cut": (file_of("AIFF")[:20_000], "cut off"),
    "au": (file_of("AU"), N),
    "au_cut": (file_of("AU")[:20_000], "cut off"),
    "caf": (file_of("CAF"), N),
    "caf_cut": (file_of("CAF")[:20_000], "cut off|damaged"),
    "w64": (file_of("W64"), N),
    "w64_cut": (file_of("W64")[:20_000], "cut off|damaged"),
    "sphere": (file_of("NIST"), N),
    "sphere_cut": (file_of("NIST")[:20_000], "damaged: .* of 16000 samples"),
    # FLAC
    "flac": (FLAC, N),
    "flac_open": (flac_of_length(0), N),
    "flac_open_cut": (flac_of_length(0)[:15_000], "do not decode|damaged"),
    "flac_says_less": (flac_of_length(1000), N),
    "flac_says_more": (flac_of_length(N + 1000), "damaged|do not decode"),
    "flac_joined": (FLAC + file_of("FLAC", samples=speech(1)), 2 * N),
    "flac_cut": (FLAC[: len(FLAC) * 2 // 3], "do not decode|damaged"),
    "flac_header_alone": (FLAC[:86], "do not decode|damaged"),
    "flac_spoilt": (spoilt(FLAC), "do not decode|damaged"),
    "flac_behind_id3": (ID3 + FLAC, N),
    "flac_in_ogg": (media("ogg", "flac"), N),
    # Ogg
    "vorbis": (VORBIS, N),
    "vorbis_joined": (VORBIS + file_of("OGG", "VORBIS", speech(1)), 2 * N),
    "vorbis_three_joined": (3 * VORBIS, 3 * N),
    "vorbis_cut": (VORBIS[: len(VORBIS) * 2 // 3], "cut off"),
    "vorbis_spoilt": (spoilt(LONG_VORBIS), "damaged: the Ogg page at byte"),
    "vorbis_page_missing": (without_page(LONG_VORBIS, 5), "damaged: an Ogg page is"),
    "vorbis_last_page_missing": (
        b"".join(pages_of(LONG_VORBIS)[:-1]),
        (8 * N, 10 * N),
    ),
    "vorbis_text_behind": (VORBIS + b"and text", "8 bytes behind the end of the Ogg"),
    "opus": (OPUS, N),
    "opus_joined": (OPUS + file_of("OGG", "OPUS", speech(1)), 2 * N),
    "opus_spoilt": (spoilt(OPUS), "damaged: the Ogg page at byte"),
    "opus_joined_to_vorbis": (VORBIS + OPUS, 2 * N),
    "vorbis_joined_other_rate": (
        VORBIS + file_of("OGG", "VORBIS", speech(rate=8000), rate=8000),
        "streams of 16000 Hz, 1 channels and of 8000 Hz",
    ),
    # MP3
    "mp3": (MP3, N),
    "mp3_joined": (MP3 + file_of("MP3", samples=speech(1)), 2 * N),
    "mp3_three_joined": (LONG_MP3_STREAMS, 3 * N),
    "mp3_joined_with_tags": (ID3 + MP3 + ID3 + MP3, 2 * N),
    "mp3_bare_stream_behind": (MP3 + FRAMES_ONLY, (2 * N, 2 * N + 2304)),
    "mp3_tag_behind": (MP3 + b"TAG" + bytes(125), N),
    "mp3_cut_in_a_frame": (MP3[:-50], "cut off"),
    "mp3_cut_in_half": (MP3[: len(MP3) // 2], "cut off"),
    "mp3_zeros_inside": (MP3[:2000] + bytes(400) + MP3[2400:], "belong to nothing"),
    "mp3_text_behind": (
        MP3 + b"this is no frame",
        "16 bytes behind the end of the MP3",
    ),
    # what FFmpeg opens
    "aac_adts": (media("adts", "aac"), (N, N + 2048)),
    "m4a": (media("ipod", "aac"), (N, N + 1024)),
    "m4a_cut": (media("ipod", "aac", n=10 * N)[:20_000], "do not decode|cut off"),
    "webm": (media("webm", "libopus"), (N, N + 960)),
    "webm_cut": (media("webm", "libopus", n=10 * N)[:20_000], "cut off|do not decode"),
    "matroska_flac": (media("matroska", "flac"), N),
    "matroska_two_streams": (
        media("matroska", "flac", streams=2),
        "2 audio streams, expected 1",
    ),
    "m4a_stereo": (media("ipod", "aac", "stereo"), "2 channels, expected 1"),
    # no audio at all
    "empty": (b"", "these 0 bytes do not decode as audio"),
    "zeros": (bytes(5000), "do not decode as audio"),
    "text": (b"not audio at all\n" * 40, "do not decode as audio"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "0 audio streams|do not decode"),
    "fLaC_alone": (b"fLaC", "do not decode as audio"),
    "OggS_alone": (b"OggS", "cut off|damaged"),
    "RIFF_alone": (b"RIFF", "do not decode as audio|cut off"),
}


# refused for their samples; a header alone tells how many there are
LENGTH_IS_KNOWN = {
    *("wav_float_of_integers", "wav_double_of_integers", "wav_nan", "flac_spoilt"),
    *("wav_no_samples", "wav_size_0_notes_behind"),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_every_byte_is_heard_or_the_file_is_named(name, tmp_path):
    data, expected = AWKWARD[name]
    path = tmp_path / name
    path.write_bytes(data)
    if isinstance(expected, str):
        for read in (read_audio, n_samples_of):
            if read is n_samples_of and name in LENGTH_IS_KNOWN:
                continue
            with pytest.raises(AudioError, match=expected) as err:
                read(str(path))
            assert str(err.value).startswith(f"{path}: ")
            assert "\n" not in str(err.value)
        return
    least, most = expected if isinstance(expected, tuple) else (expected, expected)
    heard = read_audio(str(path))
    assert heard.dtype == np.float32
    assert least <= len(heard) <= most
    assert n_samples_of(str(path)) == len(heard)
    loudness = np.sqrt(np.mean(heard**2))
    assert loudness > 0.05  # of a tone of 0.1: 0.07, and no silence in its place


@pytest.mark.parametrize("name", [k for k, v in AWKWARD.items() if "joined" in k])
def test_joined_streams_are_heard_in_their_order(name, tmp_path):
    data, expected = AWKWARD[name]
    if isinstance(expected, str):
        pytest.skip("refused")
    (tmp_path / name).write_bytes(data)
    heard = read_audio(str(tmp_path / name))
    second = speech(1 if name.split("_")[0] + "_joined" == name else 0)
    for part, original in ((heard[:N], speech(0)), (heard[N : 2 * N], second)):
        middle = slice(2000, N - 2000)
        assert np.corrcoef(part[middle], original[middle])[0, 1] > 0.9


def test_blocks_are_the_samples_of_the_whole(tmp_path):
    for data in (WAV, FLAC, 3 * VORBIS, MP3, media("webm", "libopus", n=10 * N)):
        path = tmp_path / "a"
        path.write_bytes(data)
        rate, blocks = decode_blocks(data, "a")
        whole = np.concatenate(list(blocks))[:, 0]
        if rate != RATE:
            whole = resample(whole, rate, RATE)
        np.testing.assert_array_equal(whole, read_audio(str(path)))


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ("left", STEREO[:, 0]),
        ("right", STEREO[:, 1]),
        ("mix", STEREO.mean(axis=1)),
        ("each", STEREO.T),
    ],
)
def test_channel_of_two(tmp_path, channel, expected):
    path = tmp_path / "a.wav"
    path.write_bytes(file_of("WAV", "FLOAT", STEREO))
    np.testing.assert_array_equal(read_audio(str(path), channel), expected)
    path.write_bytes(file_of("WAV", "FLOAT", STEREO, rate=8000))
    assert read_audio(str(path), channel).shape == (*expected.shape[:-1], 2 * N)
    path.write_bytes(WAV)  # of one channel any choice is that one
    heard = read_audio(str(path), channel)
    np.testing.assert_array_equal(np.atleast_2d(heard)[0], read_audio(str(path)))


def test_channels_that_are_not_there(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(file_of("WAV", samples=np.zeros((100, 3))))
    assert read_audio(str(path), "mix").shape == (100,)
    assert read_audio(str(path), "each").shape == (3, 100)
    with pytest.raises(AudioError, match="3 channels have no left one; use mix or"):
        read_audio(str(path), "left")
    with pytest.raises(AudioError, match="channel 'centre', expected one of mix left"):
        read_audio(str(path), "centre")


def test_a_film_is_heard(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(media("mp4", "aac", "stereo"))
    assert N <= len(read_audio(str(path), "mix")) <= N + 1024


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 22_050, 44_100, 48_000])
def test_resampling_is_that_of_torchaudio(rate):
    samples = speech(n=rate + 7, rate=rate)
    expected = torchaudio.functional.resample(
        torch.from_numpy(samples).double(), rate, RATE
    )
    found = resample(samples, rate, RATE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


@pytest.mark.parametrize("rate", [16_001, 15_999, 44_101, 7_919])
def test_resampling_of_an_odd_rate_keeps_the_tone(rate):
    """Rates without a common factor: torchaudio would take gigabytes."""
    at = np.arange(3 * rate)
    found = resample(np.sin(2 * np.pi * 440 * at / rate).astype(np.float32), rate, RATE)
    assert len(found) == -(-3 * rate * RATE // rate)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / RATE)
    np.testing.assert_allclose(found[100:-100], expected[100:-100], atol=0.002)


def test_resampling_is_the_same_however_the_input_is_cut():
    samples = speech(n=700_001, rate=44_100)
    pieces = np.split(samples, [0, 1, 5, 300_000, 699_999])
    for rate in (44_100, 16_001, 8_000):
        whole = resample(samples, rate, RATE)
        found = np.concatenate(list(resample_blocks(pieces, rate, RATE)))
        np.testing.assert_array_equal(found, whole)


ODD_NAMES = [
    "talk:30:15",
    ":30:15",
    "a.tar:30:15",
    "a.ark:15",
    "ä b\tc.wav",
    "x" * 240 + ".wav",
    os.fsdecode(b"caf\xe9.wav"),
    "-",
    "%s.wav",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_a_file_of_any_name_is_read(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for location in (name, f"{tmp_path}/{name}"):
        with open(location, "wb") as file:
            file.write(WAV)
        assert len(read_audio(location)) == n_samples_of(location) == N
        with open(location, "wb") as file:
            file.write(WAV[:1000])
        with pytest.raises(AudioError, match="cut off") as err:
            read_audio(location)
        str(err.value).encode("utf-8")  # can be logged and written


def test_a_stretch_of_a_joined_file(tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes(3 * VORBIS)
    with open_sound(path, str(path)) as file:
        assert (file.frames, file.samplerate) == (3 * N, RATE)
        file.seek(2 * N)
        assert len(file.read()) == N
    with (
        pytest.raises(AudioError, match="No such file"),
        open_sound(tmp_path / "b", "b"),
    ):
        pass


def test_checksum_of_a_page():
    page = pages_of(VORBIS)[0]
    assert _ogg_crc(page[:22] + bytes(4) + page[26:]) == page[22:26]


def test_blocks_of_a_stereo_file_of_another_rate(tmp_path):
    path = tmp_path / "a.wav"
    samples = np.stack([speech(0, 3 * 44_100), speech(1, 3 * 44_100)], axis=1)
    path.write_bytes(file_of("WAV", samples=samples, rate=44_100))
    for channel in ("mix", "left"):
        blocks = list(speech_blocks(str(path), channel))
        np.testing.assert_array_equal(
            np.concatenate(blocks), read_audio(str(path), channel)
        )
    for number, whole in enumerate(read_audio(str(path), "each")):
        blocks = list(speech_blocks(str(path), number))
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
    with pytest.raises(AudioError, match="2 channels, expected 1"):
        list(speech_blocks(str(path)))
    with pytest.raises(AudioError, match="'each' cannot be read in blocks"):
        list(speech_blocks(str(path), "each"))


def test_file_that_is_read_in_blocks_does_not_stay_in_memory(tmp_path):
    def mapped_mb() -> int:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"RssFile:\s+(\d+) kB", status)[1]) // 1000

    path = tmp_path / "a.wav"
    path.write_bytes(file_of("WAV", samples=np.zeros(30_000_000, np.float32)))
    before = mapped_mb()
    grown = [mapped_mb() - before for _ in speech_blocks(str(path))]
    assert len(grown) > 20 and path.stat().st_size == 60_000_044
    assert max(grown) < 20


def test_level_is_that_of_what_is_said():
    """A sine of amplitude 0.1 has the power 0.005: 23 dB below 1, without pauses."""
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(N) / RATE)).astype(np.float32)
    for pauses in (0, N, 10 * N):
        quiet = np.zeros(pauses, np.float32)
        found = level_db(np.concatenate([quiet, tone, quiet]))
        assert found == pytest.approx(-23, 0.01)
    assert level_db(tone / 10) == pytest.approx(-43, 0.01)
    assert level_db(np.zeros(N, np.float32)) == level_db(np.zeros(3)) == -np.inf
    assert level_db(at_level(tone / 10)) == pytest.approx(-20, 0.01)
    spiky = np.append(tone, np.float32(1))  # a peak that leaves no room
    assert np.abs(at_level(spiky)).max() <= 1
    assert not at_level(np.zeros(N, np.float32)).any()


def test_offset_is_no_sound():
    """What a sound card adds is not heard, and digital silence beside it is none."""
    quiet = speech() / 100
    offset = np.float32(0.1)
    for heard in (quiet + offset, np.append(quiet + offset, np.zeros(N, np.float32))):
        assert level_db(heard) == pytest.approx(level_db(quiet), 0.01)
    assert level_db(np.full(N, offset)) < -100


def test_peaks_that_hold_a_level_back_are_said(caplog, monkeypatch):
    monkeypatch.setattr("powsm.audio._announced_levels", set())
    quiet = speech() / 20
    warn_of_level(quiet, "quiet.wav", is_levelled=True)
    quiet[N // 2] = 1  # a click
    warn_of_level(quiet, "click.wav", is_levelled=True)
    (message,) = caplog.messages
    assert message.startswith("click.wav: its level is -")
    assert message.endswith("; its peaks leave no room to make it louder")


def test_speech_of_variance_1_is_said(caplog, monkeypatch):
    monkeypatch.setattr("powsm.audio._announced_levels", set())
    sound = speech()
    normal = (sound - sound.mean()) / sound.std()
    for heard in (normal, np.sign(sound), 1.4 * sound / abs(sound).max() / 4):
        warn_of_level(heard, "talk.wav")  # the second is cut off
    warn_of_level(normal, "talk.wav", is_levelled=True)
    (message,) = caplog.messages
    assert message.startswith("talk.wav: its level is ")
    assert "samples reach " in message and "expected [-1, 1]; results will" in message


def test_silence_is_called_so(caplog, monkeypatch):
    monkeypatch.setattr("powsm.audio._announced_levels", set())
    warn_of_level(np.zeros(N, np.float32), "empty.wav")
    assert caplog.messages == ["empty.wav: silence from beginning to end"]


def test_quiet_recordings_are_named_ten_times(caplog, monkeypatch):
    monkeypatch.setattr("powsm.audio._announced_levels", set())
    warn_of_level(speech(), "usual.wav")
    for number in range(20):
        warn_of_level(speech() / 10, f"{number}.wav")
        warn_of_level(speech() / 10, f"{number}.wav")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 10
    assert messages[0].startswith("0.wav: its level is -43 dB, speech is near -20")
    assert "others are not named" in messages[-1]
