"""A model in hand: `powsm.load` and what `import powsm` offers."""

import csv
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO, StringIO
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import torch
from dump_builder import make_dump
from tiny_model import make_experiment, make_tokens

import powsm
from powsm.audio import AudioError, resample
from powsm.decode.align_files import Segment
from powsm.decode.profile import Profile, SearchOptions
from powsm.decode.recordings.result import Piece, Result
from powsm.decode.transcribe import Job, transcribe
from powsm.errors import PowsmError
from powsm.model.find import CheckpointError

SPEECH = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
PHONES = ("p", "a", "t", "k")  # a model of random weights says any token else


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("load")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    exp = make_experiment(root, make_tokens(root / "train", root / "tokens"))
    return powsm.load(exp)


def test_import_offers_three_names_and_loads_none_of_their_modules():
    program = (
        "import powsm, sys\n"
        "assert {'load', 'segment_ipa', 'score_phones'} <= set(dir(powsm))\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not {name for name in loaded if name.startswith("powsm.")}
    assert not {"torch", "numpy", "yaml"} & loaded


def test_a_name_that_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'transcribe'"):
        powsm.transcribe  # noqa: B018


def test_segment_ipa_and_score_phones_are_offered():
    # strict: stress goes, the aspirate is one phone
    assert powsm.segment_ipa("ˈpʰa") == ("pʰ", "a")
    scores = powsm.score_phones(hyp=["/p//a/"], ref=["/b//a/"])
    assert scores.value("PER") == pytest.approx(50.0)


def test_file_and_samples_say_what_the_library_says(model, tmp_path):
    soundfile.write(tmp_path / "a.wav", SPEECH, 16_000, subtype="FLOAT")
    profile = Profile("decode_ctc_greedy", decode="ctc")
    job = Job("a", torch.from_numpy(SPEECH))
    (record,) = transcribe(model.recogniser, profile, "pr", [job])
    data = (tmp_path / "a.wav").read_bytes()
    for audio in (tmp_path / "a.wav", str(tmp_path / "a.wav"), data, BytesIO(data)):
        assert model(audio).slashed == record["text"]
    for samples in (
        SPEECH,
        torch.from_numpy(SPEECH),
        SPEECH.astype(np.float64),
        SPEECH[None],
        np.stack([SPEECH, SPEECH], 1),
    ):
        heard = model(samples)
        assert heard.slashed == record["text"]
        assert heard.text == record["text"].replace("/", "")
        assert heard.duration_s == 1.5
        assert heard.profile == record["profile"]


def test_integers_are_read_over_the_range_of_their_type(model):
    step = np.round(SPEECH.clip(-1, 1) * 2**7)  # 8 bits, so that all types hold it
    expected = model.emissions((step / 2**7).astype(np.float32)).log_probs
    for samples in (
        step.clip(-128, 127).astype(np.int8),
        (step.clip(-128, 127) + 128).astype(np.uint8),
        (step * 2**8).astype(np.int16),
        (step * 2**24).astype(np.int32),
    ):
        np.testing.assert_allclose(
            model.emissions(samples).log_probs, expected, atol=1e-4
        )


def test_the_shortest_recording_is_a_single_frame(model):
    assert model.emissions(SPEECH[: model.min_samples]).times.tolist() == [0.03]
    with pytest.raises(AudioError, match="too short to encode"):
        model(SPEECH[: model.min_samples - 1])


def test_integers_of_64_bits_are_refused(model):
    """NumPy makes them of a list of samples of 16 bits: they were near to silence."""
    samples = (SPEECH * 2**15).astype(np.int64)
    with pytest.raises(AudioError, match="type int64, expected integers of 8, 16 or"):
        model(samples)


def test_every_array_that_is_too_quiet_is_said(model, monkeypatch, caplog):
    """All are called `audio`: the first of a program was said alone."""
    for named in ("audio._announced_levels", "files.audio_channels._cut_off"):
        monkeypatch.setattr(f"powsm.{named}", set())
    for gain in (0.01, 0.02, 0.01):
        model(gain * SPEECH)
    for n_samples in (4_000, 5_000):
        model(np.repeat(np.sign(SPEECH[:n_samples]), 4))
    assert [message[:23] for message in caplog.messages] == [
        "audio: its level is -60",
        "audio: its level is -54",
        "audio: 88% of its sampl",
        "audio: 87% of its sampl",
    ]


def test_a_file_of_times_without_any_is_said(model, caplog):
    heard = replace(model(SPEECH, times=False), phones=("p",))
    assert heard.to("txt") and heard.to_json() and not caplog.messages
    heard.to_textgrid()
    (message,) = caplog.messages
    assert message == (
        "audio: its phones have no times (times=True), textgrid holds none of them"
    )


def test_a_list_is_decoded_together_and_keeps_its_order(model):
    parts = [SPEECH, SPEECH[:9_000], SPEECH[3_000:]]
    together = model(parts)
    assert [r.text for r in together] == [model(part).text for part in parts]
    assert [r.name for r in together] == ["audio[0]", "audio[1]", "audio[2]"]
    assert model([]) == []


def test_a_long_list_is_decoded_in_groups(model, monkeypatch):
    monkeypatch.setattr("powsm.decode.recordings.model.GROUP_FILES", 2)
    parts = [SPEECH[n * 1_000 :] for n in range(5)]
    assert [r.text for r in model(parts)] == [model(part).text for part in parts]


def test_emissions_and_times_fit_the_path(model):
    emissions = model.emissions(SPEECH)
    np.testing.assert_allclose(np.exp(emissions.log_probs).sum(1), 1, atol=1e-4)
    assert emissions.log_probs.shape == (len(emissions.times), len(emissions.tokens))
    # 24,000 samples: 151 spectrogram frames, 75, 37; the first middle at 30 ms
    assert len(emissions.times) == 37
    np.testing.assert_allclose(emissions.times[:2], [0.03, 0.07])
    path = [emissions.tokens[i] for i in emissions.log_probs.argmax(1)]
    labels = [token for token, _ in groupby(path) if token not in ("<blank>", "▁")]
    segments = model(SPEECH).segments
    assert segments and [s.phone for s in segments] == labels


def test_alignment_of_what_is_heard_is_that_of_the_result(model):
    heard = model(SPEECH)
    assert model.align(SPEECH) == list(heard.segments)
    aligned = model.align(SPEECH, ["p", "a"])
    assert [s.phone for s in aligned] == ["p", "a"]
    assert model.align(SPEECH, "/p//a/") == model.align(SPEECH, "pa") == aligned
    with pytest.raises(PowsmError, match="Q is no IPA"):
        model.align(SPEECH, "pQ")


def test_languages_are_those_of_the_model_and_sum_to_one(model):
    heard = model.languages(np.tile(SPEECH, 16))  # 24 s: two windows
    assert set(heard) == {sym.strip("<>") for sym in model.recogniser.languages()}
    assert sum(heard.values()) == pytest.approx(1, abs=1e-4)
    assert list(heard.values()) == sorted(heard.values(), reverse=True)


def test_languages_of_a_long_recording_are_the_mean_over_its_windows(model):
    window = 20 * 16_000
    speech = np.concatenate([np.tile(SPEECH, 14)[:window], np.tile(SPEECH / 9, 2)])
    first, second = model.languages(speech[:window]), model.languages(speech[window:])
    assert first != second
    mean = {code: (p + second[code]) / 2 for code, p in first.items()}
    assert model.languages(speech) == pytest.approx(mean, abs=2e-6)
    # less than a second says little
    assert model.languages(speech[: window + 15_999]) == first
    assert model.languages(speech[: window + 16_000]) != first


def test_threads_that_share_a_model_hear_what_one_hears(model):
    parts = [SPEECH[n * 1_000 :] for n in range(8)]
    alone = [model(part, task="asr").text for part in parts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda p: model(p, task="asr").text, parts)) == alone


@pytest.mark.parametrize("lang", ["auto", "unk", "eng", "English"])
def test_the_language_that_was_used_is_in_the_result(model, lang):
    heard = model(SPEECH, task="asr", lang=lang)
    first = next(iter(model.languages(SPEECH)))
    assert heard.lang == {"auto": first, "unk": "unk"}.get(lang, "eng")


def test_a_language_is_heard_at_the_level_of_the_profile(model, monkeypatch):
    power = []

    def heard(speech, among):
        power.append(float(speech[:].square().mean()))
        return {"ita": 1.0}

    monkeypatch.setattr(model, "heard_languages", heard)
    for level in ("own", "usual"):
        profile = Profile("mine", tasks=("asr",), level=level)
        assert model(SPEECH / 5, lang="auto", profile=profile).lang == "ita"
    assert power == pytest.approx([4e-4, 1e-2], rel=0.1)


def test_a_language_that_is_not_used_is_said_and_not_recorded(model, caplog):
    assert model(SPEECH, lang="ita").lang == "unk"
    assert "lang ita is not used: the CTC head" in caplog.text
    caplog.clear()
    assert model(SPEECH, task="asr", lang="deu").lang == "unk"
    assert "lang deu is not in this model's vocabulary; <unk> is used" in caplog.text
    caplog.clear()
    fixed = Profile("mine", tasks=("asr",), lang="<ita>")
    assert model(SPEECH, task="asr", lang="eng", profile=fixed).lang == "ita"
    assert "lang eng is not used: mine says lang: <ita>" in caplog.text


def test_outputs_that_no_result_holds_are_said(model, caplog):
    search = SearchOptions(beam_size=2, nbest=2, maxlenratio=-4)
    model(SPEECH, profile=Profile("mine", search=search))
    assert "search.nbest 2 of mine is not used" in caplog.text


def test_texts_prompt_in_the_form_of_training(model):
    for task, text, other in (
        ("p2g", "pa", "/p//a/"),
        ("g2p", "Don’t stop!", "don't stop"),
    ):
        heard = model(SPEECH, task=task, text=text)
        assert heard == model(SPEECH, task=task, text=other)
        together = model([SPEECH, SPEECH], task=task, text=[text, other])
        assert [r.text for r in together] == [heard.text] * 2


def test_formats_hold_the_phones_and_their_times(model):
    heard = model(SPEECH, phones=PHONES)
    assert heard.phones == tuple(s.phone for s in heard.segments) != ()
    row = json.loads(heard.to_json())
    assert row["phones"] == list(heard.phones)
    assert [Segment(**s) for s in row["segments"]] == list(heard.segments)
    tree = ElementTree.fromstring(heard.to("eaf"))
    values = [v.text for v in tree.iter("ANNOTATION_VALUE")]
    assert values == [s.phone for s in heard.segments]
    rows = list(csv.DictReader(heard.to("csv").splitlines()))
    assert [r["phone"] for r in rows] == values
    assert len(heard.to("ctm").splitlines()) == len(values)
    with pytest.raises(PowsmError, match="expected one of txt json"):
        heard.to("docx")


def result(segments=(), pieces=(), task="pr"):
    return Result(
        *("", (), "unk", None, tuple(segments), tuple(pieces), 90.0, "u", task),
        *("", "p", "w"),
    )


def test_subtitles_are_what_is_said_in_one_go():
    # a pause of 0.5 s ends a cue, and so do 6 s
    said = [Segment("p", 0, 0.1, 1.0), Segment("a", 0.1, 0.4, 1.0)]
    heard = result([*said, Segment("t", 0.9, 1.0, 1.0), Segment("i", 1.2, 7.0, 1.0)])
    assert heard.to("srt") == (
        "1\n00:00:00,000 --> 00:00:00,400\npa\n\n"
        "2\n00:00:00,900 --> 00:00:01,000\nt\n\n"
        "3\n00:00:01,200 --> 00:00:07,000\ni\n"
    )
    words = result(pieces=[Piece("who is", 61.5, 80)], task="asr")
    assert words.to("srt") == "1\n00:01:01,500 --> 00:01:20,000\nwho is\n"
    assert 'name = "text"' in words.to_textgrid()
    with pytest.raises(PowsmError, match="asr does not give"):
        words.to("ctm")


def test_other_rates_are_resampled(model):
    heard = model.transcribe(SPEECH, rate=8_000)
    assert heard.duration_s == 3.0
    assert heard == model.transcribe(resample(SPEECH, 8_000, 16_000))


def test_phones_are_those_of_the_text(model):
    heard = model.transcribe(SPEECH, phones=PHONES)
    assert heard.slashed.count("/") == 2 * len(heard.phones) > 0
    prompted = {"task": "asr", "lang": "eng"}
    assert model.transcribe(SPEECH, **prompted).phones == ()


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 3, 4), np.float32), r"shape \(2, 3, 4\), expected"),
        (np.zeros((300, 300), np.float32), "64 channels at most"),
        (np.float32(1), r"float32, expected a path|shape \(\)"),
        (np.zeros(16_000, bool), "type bool"),
        (np.zeros(16_000, complex), "type complex128"),
        (np.array(["a"] * 16_000), "type <U1"),
        (np.full(16_000, np.nan, np.float32), "NaN or infinite"),
        (np.full(16_000, np.inf), "NaN or infinite"),
        (np.r_[np.zeros(16_000), np.inf], "NaN or infinite"),
        (np.r_[np.zeros(16_000), -np.inf], "NaN or infinite"),
        (np.full(16_000, 3_000.0), "divide them by 32768"),
        (np.zeros(100, np.float32), "too short to encode"),
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((0, 2), np.float32), "no samples"),
        ([0.0, 0.1], "a list of numbers"),
        (17, "int, expected a path"),
        (None, "NoneType, expected a path"),
        (StringIO("a"), "expected one opened as 'rb'"),
        (b"", "0 bytes do not decode"),
        (b"no sound", "8 bytes do not decode"),
        ("nowhere.wav", "nowhere.wav: cannot be read"),
        (".", "a folder, expected a recording"),
    ],
)
def test_audio_that_cannot_be_used_is_refused(model, audio, message):
    with pytest.raises(AudioError, match=message) as caught:
        model.transcribe(audio)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"task": "tts"}, "task 'tts': expected one of"),
        ({"lang": "klingonese"}, "lang 'klingonese': no such language"),
        ({"profile": "joynt"}, "decode profile joynt: .* did you mean joint"),
        ({"profile": "no.yaml"}, "decode profile no.yaml: no such file"),
        ({"profile": "ctc_greedy", "task": "asr"}, "always speaks phones"),
        ({"text": "a"}, "text: pr reads none"),
        ({"task": "g2p"}, "audio: g2p reads a text prompt and there is none"),
        ({"task": "g2p", "text": "!!"}, "nothing of the text '!!' is a word"),
        ({"task": "p2g", "text": "Q"}, "Q is no IPA"),
        ({"task": "p2g", "text": ["a", "p"]}, "2 texts of 1 recordings"),
        ({"rate": 0}, "rate 0, expected"),
        ({"rate": 16e3}, "rate 16000.0, expected a whole number"),
        ({"rate": True}, "rate True"),
        ({"channel": "middle"}, "channel 'middle', expected one of"),
        ({"channel": "each"}, "channel 'each' gives several"),
        ({"phones": ["Q"]}, "none of the phones|no IPA"),
        ({"phones": "deu"}, "deu: no such file, and training had"),
    ],
)
def test_questions_that_make_no_sense_are_refused(model, how, message):
    with pytest.raises(PowsmError, match=message) as caught:
        model(SPEECH, **how)
    assert "\n" not in str(caught.value)


def test_models_and_devices_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(CheckpointError):
        powsm.load(tmp_path / "nothing")
    for device in ("gpu", "cuda:x", "cpu:a"):
        with pytest.raises(PowsmError, match="expected auto, cpu"):
            powsm.load(tmp_path, device=device)
    if not torch.cuda.is_available():
        with pytest.raises(PowsmError, match="no GPU that PyTorch can use"):
            powsm.load(tmp_path, device="cuda")


def test_the_page_on_python_runs_from_top_to_bottom(model, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs/python.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 8
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/x").symlink_to(model.files.config_file.parent)
    soundfile.write("talk.wav", np.tile(SPEECH, 2)[:32_000], 16_000)
    soundfile.write("other.wav", SPEECH, 16_000)
    session: dict = {}
    exec(compile("\n".join(blocks), str(page), "exec"), session)
    assert session["heard"].duration_s == 1.0
    assert "xmax = 2.0" in Path("talk.TextGrid").read_text("utf-8")
    assert set(session["few"].phones) <= {"p", "a"}
    assert session["words"].lang == "ita"


def test_types_are_offered_to_checkers():
    assert (Path(powsm.__file__).parent / "py.typed").is_file()
