"""A model in hand: `powsm.load` and what `import powsm` offers."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from dump_builder import make_dump
from tiny_model import make_experiment, make_tokens

import powsm
from powsm.audio import AudioError, resample
from powsm.decode.profile import DecodeError, Profile
from powsm.decode.transcribe import transcribe
from powsm.errors import PowsmError
from powsm.model.find import CheckpointError

SPEECH = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)


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
    record = transcribe(
        model.recogniser,
        Profile("decode_ctc_greedy", decode="ctc"),
        "pr",
        torch.from_numpy(SPEECH),
        utt_id="a",
        lang_sym="<eng>",
    )
    for audio in (tmp_path / "a.wav", str(tmp_path / "a.wav"), SPEECH):
        heard = model.transcribe(audio, lang="English")
        assert heard.text == record["text"]
        assert heard.lang_sym == "<eng>"
        assert heard.duration_s == 1.5
    assert model.transcribe(torch.from_numpy(SPEECH), lang="eng") == heard
    assert model.transcribe(SPEECH.astype(np.float64), lang="eng") == heard


def test_other_rates_are_resampled(model):
    heard = model.transcribe(SPEECH, rate=8_000)
    assert heard.duration_s == 3.0
    assert heard == model.transcribe(resample(SPEECH, 8_000, 16_000))


def test_phones_are_those_of_the_text(model):
    heard = model.transcribe(SPEECH)
    assert "".join(f"/{phone}/" for phone in heard.phones) in heard.text or (
        heard.text.count("/") == 2 * len(heard.phones)
    )
    assert model.transcribe(SPEECH, task="asr").phones == ()


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (
            np.zeros((2, 16_000), np.float32),
            r"shape \(2, 16000\); expected one channel",
        ),
        (np.zeros(16_000, np.int16), "int16 .*floating-point"),
        (np.full(16_000, np.nan, np.float32), "no finite numbers"),
        (np.zeros(100, np.float32), "too short to encode"),
        (np.zeros(0, np.float32), "too short to encode"),
        ("nowhere.wav", "nowhere.wav"),
    ],
)
def test_audio_that_cannot_be_used_is_refused(model, audio, message):
    with pytest.raises((AudioError, OSError), match=message):
        model.transcribe(audio)


def test_unknown_tasks_languages_and_models_are_refused(model, tmp_path):
    with pytest.raises(PowsmError, match="task 'tts': expected one of"):
        model.transcribe(SPEECH, task="tts")
    with pytest.raises(PowsmError, match="lang 'klingonese'"):
        model.transcribe(SPEECH, lang="klingonese")
    with pytest.raises(DecodeError, match="<deu> is not in this model's vocabulary"):
        model.transcribe(SPEECH, task="asr", lang="deu")
    with pytest.raises(CheckpointError):
        powsm.load(tmp_path / "nothing")
