"""Long recordings: windows merge to what one window would have said."""

import os

import pytest
import soundfile
import torch
from ctc_stand_in import BLANK, A, P, T, speech_of, stand_in
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.decode.longform import (
    LongFormError,
    ctc_frames,
    ctc_frames_of_all,
    cut_at_pauses,
)
from powsm.decode.recordings import stretches
from powsm.decode.recordings.stretches import (
    Recording,
    Stretch,
    at_usual_level,
    between,
    trim_silence,
)


def random_path(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    choice = torch.randint(0, 6, (n,), generator=generator)
    return [(BLANK, BLANK, BLANK, P, A, T)[i] for i in choice.tolist()]


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 300),
    window_s=st.floats(1.0, 5.0),
    overlap_s=st.floats(0.5, 2.0),
    extra=st.integers(0, 639),
)
def test_windows_of_any_size_merge_to_the_unsplit_output(n, window_s, overlap_s, extra):
    overlap_s = min(overlap_s, window_s / 2.5)
    overlap_s = max(overlap_s, 0.5)
    window_s = max(window_s, 2.2 * overlap_s)
    speech = torch.cat([speech_of(random_path(n)), torch.zeros(extra)])
    recogniser = stand_in()
    whole = ctc_frames(recogniser, speech, (P, A), window_s=60)
    parts = ctc_frames(
        recogniser, speech, (P, A), window_s=window_s, overlap_s=overlap_s
    )
    assert parts.path.tolist() == whole.path.tolist()
    assert torch.equal(parts.scores, whole.scores)
    assert torch.equal(parts.columns, whole.columns)
    assert whole.columns.shape == (len(whole), 2)


def test_frames_at_the_edges_of_windows_are_not_used():
    path = random_path(400)
    path[:3], path[-3:] = [T] * 3, [T] * 3  # what edges say is true at the very ends
    recogniser = stand_in(edge_frames=3)
    found = ctc_frames(recogniser, speech_of(path), window_s=4, overlap_s=1)
    assert found.path.tolist() == path


def test_no_window_is_longer_than_asked():
    recogniser = stand_in()
    ctc_frames(recogniser, speech_of(random_path(1000)), window_s=3.3, overlap_s=1)
    assert len(recogniser.seen) > 10
    assert max(recogniser.seen) <= 3.3 * 16_000


def test_windows_of_several_recordings_are_read_in_batches():
    paths = [random_path(n, seed=n) for n in (30, 400, 120)]
    recogniser = stand_in()
    sizes, encode = [], recogniser.encode

    def encode_batch(speech):
        sizes.append(len(speech) * max(map(len, speech)))
        return encode(speech)

    recogniser.encode = encode_batch
    found = ctc_frames_of_all(
        recogniser, list(map(speech_of, paths)), window_s=4, overlap_s=1, batch_s=9
    )
    assert [frames.path.tolist() for frames in found] == paths
    assert 7 * 16_000 < max(sizes) <= 9 * 16_000  # two windows of 4 s
    assert len(sizes) < len(recogniser.seen)


@pytest.mark.parametrize(("window_s", "overlap_s"), [(20, 0.1), (5, 4), (0, 0)])
def test_windows_that_cannot_be_merged_are_refused(window_s, overlap_s):
    with pytest.raises(LongFormError, match="expected an overlap of 0.5 s or more"):
        ctc_frames(
            stand_in(), speech_of([P] * 9), window_s=window_s, overlap_s=overlap_s
        )


@given(
    st.lists(st.sampled_from([0, 0, 1]), min_size=1, max_size=100), st.integers(4, 30)
)
def test_pieces_are_the_path_and_none_is_long_or_tiny(path, most):
    pieces = cut_at_pauses(path, blank=0, most=most)
    assert [t for start, end in pieces for t in range(start, end)] == list(
        range(len(path))
    )
    sizes = [end - start for start, end in pieces]
    assert max(sizes) <= most
    assert len(path) <= most or min(sizes) >= most // 4


def test_pieces_are_cut_in_the_middle_of_the_longest_pause():
    #       0  1  2  3  4  5  6  7  8  9  10 11 12 13
    path = [1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1]
    assert cut_at_pauses(path, blank=0, most=10) == [(0, 8), (8, 14)]
    path = [1, 1, 1, 1, 1, 0, 1, 1, 1, 1]  # a single blank is one
    assert cut_at_pauses(path, blank=0, most=8) == [(0, 5), (5, 10)]
    path = [1] * 18 + [0, 0, 1]  # behind that pause too little would be left
    assert cut_at_pauses(path, blank=0, most=20) == [(0, 16), (16, 21)]


def test_barred_tokens_are_not_on_the_path():
    path = random_path(40)
    found = ctc_frames(stand_in(), speech_of(path), barred=[P])
    expected = [BLANK if token == P else token for token in path]  # the next likely
    assert found.path.tolist() == expected


def test_only_silence_at_the_ends_is_trimmed():
    tone = 0.3 * torch.sin(torch.arange(16_000) / 5)
    quiet = 0.001 * torch.ones(8_000)  # 46 dB below
    speech = torch.cat([quiet, tone, quiet, tone, quiet])
    trimmed, start_s = trim_silence(speech)
    assert start_s == pytest.approx(0.5, abs=0.025)
    assert len(trimmed) == pytest.approx(16_000 + 8_000 + 16_000, abs=800)
    begin = round(start_s * 16_000)
    assert begin <= 8_000 and begin + len(trimmed) >= 48_000  # nothing of the sound
    assert torch.equal(trimmed, speech[begin : begin + len(trimmed)])


def test_silence_with_a_constant_offset_is_trimmed():
    loud, quiet = torch.randn(16_000) * 0.1, torch.randn(16_000) * 1e-4
    speech = torch.cat([quiet, loud, quiet]) + 0.05
    trimmed, start_s = trim_silence(speech)
    assert len(trimmed) == pytest.approx(16_000, abs=800)
    assert start_s == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("n_samples", [0, 100, 16_000])
def test_nothing_is_trimmed_from_silence(n_samples):
    trimmed, start_s = trim_silence(torch.zeros(n_samples))
    assert (len(trimmed), start_s) == (n_samples, 0.0)


def test_every_real_pause_is_cut_in_its_middle():
    #       0  1  2  3  4  5  6  7  8  9  10 11 12 13 14
    path = [0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0]
    # of the four blanks 6 to 9 the middle is 8; silence at the ends is no pause
    assert cut_at_pauses(path, blank=0, most=100, pause=3) == [(0, 8), (8, 15)]
    assert cut_at_pauses(path, blank=0, most=100, pause=5) == [(0, 15)]
    assert cut_at_pauses([0] * 9, blank=0, most=100, pause=3) == [(0, 9)]


@given(
    st.lists(st.sampled_from([0, 0, 0, 1]), min_size=1, max_size=100),
    st.integers(4, 30),
    st.integers(2, 6),
)
def test_pieces_between_pauses_are_the_path(path, most, pause):
    pieces = cut_at_pauses(path, 0, most, pause)
    assert [t for start, end in pieces for t in range(start, end)] == list(
        range(len(path))
    )
    assert all(0 < end - start <= most for start, end in pieces)


def test_a_recording_is_read_as_its_tensor_is(tmp_path):
    speech = speech_of(random_path(300)) / 100
    soundfile.write(tmp_path / "a.wav", speech.numpy(), 16_000, subtype="FLOAT")
    recording = Recording(str(tmp_path / "a.wav"))
    assert len(recording) == len(speech)
    assert torch.equal(recording[100:5000], speech[100:5000])
    assert torch.equal(recording[len(speech) - 5 :], speech[-5:])
    whole = ctc_frames(stand_in(), speech, window_s=4, overlap_s=1)
    by_window = ctc_frames(stand_in(), recording, window_s=4, overlap_s=1)
    assert torch.equal(by_window.scores, whole.scores)


def test_what_is_between_two_times_ends_with_the_recording(tmp_path):
    speech = torch.linspace(-0.5, 0.5, 16_000)
    soundfile.write(tmp_path / "a.wav", speech.numpy(), 16_000, subtype="FLOAT")
    recording = Recording(str(tmp_path / "a.wav"))
    cases = {(0.25, 0.5): (4_000, 8_000), (0.5, None): (8_000, 16_000)}
    cases |= {(0.5, 2.0): (8_000, 16_000), (2.0, 3.0): (0, 0), (2.0, None): (0, 0)}
    for times, (begin, end) in cases.items():
        for whole in (speech, recording):
            part = between(whole, *times)
            assert len(part) == end - begin
            assert torch.equal(part[:], speech[begin:end])


def test_a_recording_is_read_to_the_end_of_what_is_asked_for(tmp_path, monkeypatch):
    """Of more than 2 GiB, 9 hours, Linux reads these and no more."""
    speech = torch.randn(10_000) / 10
    soundfile.write(tmp_path / "a.wav", speech.numpy(), 16_000, subtype="FLOAT")
    recording, pread = Recording(str(tmp_path / "a.wav")), os.pread
    few = lambda file, n, at: pread(file, min(n, 1_001), at)  # noqa: E731
    monkeypatch.setattr(os, "pread", few)
    assert torch.equal(recording[:], speech)
    assert torch.equal(recording[100:9_000], speech[100:9_000])
    assert recording[500:100].shape == (0,)


def test_trimming_measures_long_recordings_in_stretches():
    quiet = torch.full((2_000_000,), 1e-4)
    loud = 0.3 * torch.sin(torch.arange(3_000_000) / 5)
    trimmed, start_s = trim_silence(torch.cat([quiet, loud, quiet]))
    assert start_s == pytest.approx(125, abs=0.03)
    assert len(trimmed) == pytest.approx(3_000_000, abs=800)


@pytest.mark.parametrize("n_samples", [400, 1_600, 16_159, 16_240, 20_001])
def test_trimming_is_the_same_by_stretches_of_any_length(monkeypatch, n_samples):
    generator = torch.Generator().manual_seed(n_samples)
    speech = torch.randn(n_samples, generator=generator)
    speech[: n_samples // 3] *= 1e-3
    expected, begins_s = trim_silence(speech)
    for n_frames in (1, 7, 100):
        monkeypatch.setattr(stretches, "_STRETCH", n_frames * 160)
        trimmed, start_s = trim_silence(speech)
        assert start_s == begins_s and torch.equal(trimmed, expected)


def test_a_recording_is_trimmed_and_made_louder_as_its_tensor_is(tmp_path):
    tone = 0.003 * torch.sin(torch.arange(1_700_000) / 5)  # more than is read at once
    speech = torch.cat([torch.zeros(8_000), tone, torch.zeros(8_000)])
    soundfile.write(tmp_path / "a.wav", speech.numpy(), 16_000, subtype="FLOAT")
    recording = Recording(str(tmp_path / "a.wav"))
    trimmed, start_s = trim_silence(recording)
    expected, begins_s = trim_silence(speech)
    assert start_s == begins_s and isinstance(trimmed, Stretch)
    assert torch.equal(trimmed[:], expected)
    assert torch.equal(trimmed[1_000:2_000], expected[1_000:2_000])
    louder = at_usual_level(recording)
    assert isinstance(louder, Stretch) and len(louder) == len(speech)
    assert torch.allclose(louder[:], at_usual_level(speech), atol=1e-6)
    assert float(louder[20_000:40_000].square().mean()) == pytest.approx(0.01, 0.01)
    assert not at_usual_level(torch.zeros(500)).any()
