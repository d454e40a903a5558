"""Recordings of any length, decoded together."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import soundfile
import torch
from ctc_stand_in import BLANK, A, P, speech_of, stand_in
from dump_builder import make_dump
from tiny_model import make_experiment, make_tokens

from powsm.decode.align import align
from powsm.decode.longform import LongFormError
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.stretches import Recording, Stretch
from powsm.decode.search import SearchOptions
from powsm.decode.transcribe import Job, _pieces
from powsm.decode.transcribe import transcribe as transcribe_all

CTC = Profile("decode_ctc", decode="ctc")


def transcribe(recogniser, profile, task, speech, *, start_s=0.0, **how):
    """The record of one recording of English, named u."""
    job = Job("u", speech, "<eng>", start_s=start_s)
    (record,) = transcribe_all(recogniser, profile, task, [job], **how)
    return record


def test_ctc_text_of_a_long_recording():
    path = [P, BLANK, A, A, BLANK] * 60  # 12 s
    recogniser, how = stand_in(), {"window_s": 3, "overlap_s": 1}
    record = transcribe(recogniser, CTC, "pr", speech_of(path), **how)
    assert max(recogniser.seen) == 3 * 16_000
    assert record["text"] == "/p//a/" * 60
    assert record["seconds"] == pytest.approx(12.03)


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    root = tmp_path_factory.mktemp("longform")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_experiment(root, make_tokens(root / "train", root / "tokens"))


@pytest.fixture(scope="module")
def recogniser(exp):
    return Recogniser.load(exp)


SEARCH = SearchOptions(maxlenratio=-4)
SHORT = {"window_s": 2.05, "overlap_s": 0.77}


@pytest.mark.parametrize("task", ["pr", "asr"])
def test_the_decoder_hears_pieces(recogniser, task):
    speech = torch.randn(7 * 16_000, generator=torch.Generator().manual_seed(0)) / 10
    profile = Profile("decode_a", tasks=("pr", "asr"), search=SEARCH)
    record = transcribe(recogniser, profile, task, speech, **SHORT)
    pieces = record["pieces"]
    assert (pieces[0]["start_s"], pieces[-1]["end_s"]) == (0, 7)
    for one, two in zip(pieces[:-1], pieces[1:], strict=True):
        assert one["end_s"] == two["start_s"]
        assert one["end_s"] - one["start_s"] <= 2.05
    glue = "" if task == "pr" else " "
    assert record["text"] == glue.join(p["text"] for p in pieces if p["text"])


def test_pieces_of_different_languages_are_said(recogniser, monkeypatch, caplog):
    """The result names the one of most seconds, not that of the first piece."""
    profile = Profile("decode_a", tasks=("asr",), lang="detected", search=SEARCH)
    found = iter(["<eng>", "<ita>", "<ita>", "<ita>", "<ita>"])

    def of_number(self, memory, lens, among=()):
        return [[(next(found), 0.0)] for _ in memory]

    monkeypatch.setattr(Recogniser, "detect_languages", of_number)
    record = transcribe(recogniser, profile, "asr", torch.zeros(5 * 16_000), **SHORT)
    assert {p["lang_sym"] for p in record["pieces"]} == {"<eng>", "<ita>"}
    assert record["lang_sym"] == "<ita>"
    assert "u: its pieces are heard as of different languages: <ita>" in caplog.text


@pytest.mark.parametrize(
    ("n_samples", "n_pieces"), [(16_000, 1), (32_800, 1), (32_801, 2)]
)
def test_pieces_are_never_longer_than_the_window(recogniser, n_samples, n_pieces):
    profile = Profile("decode_a", search=SEARCH)
    record = transcribe(recogniser, profile, "pr", torch.zeros(n_samples), **SHORT)
    pieces = record["pieces"]
    assert len(pieces) == n_pieces
    assert all(p["end_s"] - p["start_s"] <= 2.05 for p in pieces)


def test_a_reference_prompt_cannot_be_cut(recogniser):
    profile = Profile("decode_a", tasks=("p2g",), search=SEARCH)
    speech = torch.zeros(16_000)
    with pytest.raises(LongFormError, match="prev: predicted"):
        transcribe(recogniser, profile, "p2g", speech, **SHORT)
    chained = replace(profile, prev="predicted")
    assert transcribe(recogniser, chained, "p2g", speech, **SHORT)["pieces"]


def test_times_of_a_long_recording_are_those_of_its_path():
    speech = speech_of([P, BLANK, A, A, BLANK] * 60)
    asked = {"window_s": 3, "overlap_s": 1}
    record = transcribe(stand_in(), CTC, "pr", speech, with_times=True, **asked)
    expected = [segment.row() for segment in align(stand_in(), speech)]
    assert record["segments"] == expected
    later = transcribe(
        stand_in(), CTC, "pr", speech, with_times=True, start_s=10, **asked
    )
    starts = [segment["start"] for segment in later["segments"]]
    assert starts == [round(segment["start"] + 10, 4) for segment in expected]


def test_times_of_pieces_count_from_the_start_of_the_recording(recogniser):
    speech = torch.randn(7 * 16_000, generator=torch.Generator().manual_seed(0)) / 10
    profile = Profile("decode_a", search=SEARCH)
    record = transcribe(
        recogniser, profile, "pr", speech, with_times=True, start_s=1.5, **SHORT
    )
    at = 1.5
    for piece in record["pieces"]:
        assert piece["start_s"] == pytest.approx(at, abs=1e-3)
        at = piece["end_s"]
    assert at == pytest.approx(8.5, abs=1e-3)
    said = re.findall(r"/([^/<]+)/", record["text"])  # a random model says more
    assert [segment["phone"] for segment in record["segments"]] == said
    ends = [1.5]
    for segment in record["segments"]:
        assert ends[-1] <= segment["start"] < segment["end"] <= 8.5
        ends.append(segment["end"])


def test_words_have_no_times(recogniser):
    profile = Profile("decode_a", tasks=("asr",), search=SEARCH)
    with pytest.raises(LongFormError, match="asr gives no phones"):
        transcribe(
            recogniser, profile, "asr", torch.zeros(16_000), with_times=True, **SHORT
        )


def test_a_ctc_beam_reads_pieces(recogniser):
    speech = torch.randn(5 * 16_000, generator=torch.Generator().manual_seed(0)) / 10
    beam = replace(CTC, search=SearchOptions(beam_size=3))
    assert len(transcribe(recogniser, beam, "pr", speech, **SHORT)["pieces"]) > 1
    assert "pieces" not in transcribe(recogniser, CTC, "pr", speech, **SHORT)


def test_recordings_decoded_together_say_what_each_says_alone(recogniser):
    generator = torch.Generator().manual_seed(0)
    speech = [torch.randn(n, generator=generator) / 10 for n in (50_000, 16_000, 9_000)]
    for profile in (CTC, Profile("decode_a", search=SEARCH)):
        jobs = [Job(str(n), samples, "<eng>") for n, samples in enumerate(speech)]
        records = transcribe_all(recogniser, profile, "pr", jobs, **SHORT)
        assert [record["utt_id"] for record in records] == ["0", "1", "2"]
        alone = [transcribe(recogniser, profile, "pr", s, **SHORT) for s in speech]
        assert [r["text"] for r in records] == [r["text"] for r in alone]


def test_the_decoder_hears_no_real_pause_of_a_long_recording():
    # 0.6 s of blank between two phones is 15 frames: a pause, cut in its middle
    path = [P, *[BLANK] * 15, A, *[BLANK] * 3, A, *[BLANK] * 60]
    frames = SimpleNamespace(path=torch.tensor(path))
    job = Job("u", torch.zeros(len(path) * 640 + 480))
    parts = _pieces(stand_in(), job, frames, window=16_000 * 20)
    assert [round(part.start_s, 2) for part in parts] == [0.0, 0.01 + 8 * 0.04]
    assert sum(len(part.speech) for part in parts) == len(job.speech)


def test_a_text_prompts_a_recording_of_a_window_and_no_longer_one(recogniser):
    profile = Profile("decode_a", tasks=("p2g",), search=SEARCH)
    job = Job("talk", torch.zeros(16_000), "<eng>", "/p//a/")
    assert transcribe_all(recogniser, profile, "p2g", [job])[0]["pieces"]
    with pytest.raises(LongFormError, match="talk: the text of 1.0 s cannot be cut"):
        transcribe_all(recogniser, profile, "p2g", [job], window_s=0.9)


def test_pieces_of_a_recording_are_read_when_they_are_decoded(recogniser, tmp_path):
    """So that hours take the memory of a batch."""
    speech = 0.1 * torch.randn(5 * 16_000, generator=torch.Generator().manual_seed(0))
    soundfile.write(tmp_path / "a.wav", speech.numpy(), 16_000, subtype="FLOAT")
    recording = Recording(str(tmp_path / "a.wav"))
    profile = Profile("decode_a", search=SEARCH)
    how = {"window_s": 2.0, "overlap_s": 0.5}
    said = transcribe(recogniser, profile, "pr", recording, **how)
    assert said == transcribe(recogniser, profile, "pr", speech, **how)
    assert len(said["pieces"]) > 1
    path = torch.zeros(120, dtype=torch.long)
    job = Job("u", recording)
    parts = _pieces(recogniser, job, SimpleNamespace(path=path), 32_000)
    assert len(parts) > 1 and all(isinstance(part.speech, Stretch) for part in parts)


def test_quiet_recordings_are_made_louder_where_the_profile_says_so(
    recogniser, monkeypatch
):
    encode, levels = Recogniser.encode, []

    def heard(self, speech, window="own"):
        levels.append(float(speech[0].square().mean().sqrt()))
        return encode(self, speech, window)

    monkeypatch.setattr(Recogniser, "encode", heard)
    speech = 0.05 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    usual = replace(CTC, level="usual")
    for profile in (CTC, usual):
        for gain in (1.0, 0.01):
            transcribe(recogniser, profile, "pr", speech * gain)
    assert levels == pytest.approx([0.05, 0.0005, 0.1, 0.1], rel=0.1)
    assert usual.digest() != CTC.digest()
