"""`powsm lid`, `powsm ipa` and `powsm info`."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from dump_builder import make_dump
from powsm_command import run_verb
from safetensors.numpy import save_file
from tiny_model import make_args, make_experiment, make_tokens

import powsm
from powsm.cli.info import n_parameters
from powsm.errors import PowsmError
from powsm.model.build import task_of_model


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    root = tmp_path_factory.mktemp("in_hand")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_experiment(root, make_tokens(root / "train", root / "tokens"))


def test_phones_have_features_and_what_is_left_out_a_reason(capsys):
    # strict: stress goes; ɚ is written ə˞; Q is no IPA
    with pytest.raises(SystemExit) as end:
        run_verb("ipa", "ˈwɔQtɚ")
    assert end.value.code == 1
    out, err = capsys.readouterr()
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[1] for row in rows] == ["w", "ɔ", "t", "ə˞"]
    assert rows[3][2] == "U+0259 U+02DE"
    assert "-voi" in rows[2][3].split() and "+voi" in rows[0][3].split()
    assert err.splitlines() == [
        "left out: 'ˈ' (U+02C8) at 0 in 'ˈwɔQ': stress",
        "left out: 'Q' (U+0051) at 3 in 'ˈwɔQtɚ': unknown",
    ]


def test_known_marks_are_no_fault_and_slashes_can_be_asked_for(capsys):
    run_verb("ipa", "--slashes", "/ˈpʰɔ/")
    assert capsys.readouterr().out == "/pʰ//ɔ/\n"


def test_languages_of_recordings(exp, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    speech = np.random.default_rng(0).normal(0, 0.1, 24_000)
    soundfile.write("talk.wav", speech, 16_000)
    run_verb("lid", "talk.wav", "--model", exp, "--device", "cpu", "--n_best", "2")
    name, *heard = capsys.readouterr().out.split("\t")
    expected = list(powsm.load(exp, "cpu").languages("talk.wav").items())[:2]
    assert name == "talk.wav"
    assert heard[::2] == [code for code, _ in expected]
    assert list(map(float, heard[1::2])) == pytest.approx(
        [probability for _, probability in expected], abs=1e-4
    )


def test_info_is_what_the_model_holds(exp, capsys):
    run_verb("info", "--json", exp)
    facts = json.loads(capsys.readouterr().out)
    tokens = powsm.load(exp, "cpu").recogniser.tokenizer.token_list
    assert facts["tokens"] == len(tokens)
    assert set(facts["phones"]) == {
        t.strip("/") for t in tokens if t[0] == t[-1] == "/"
    }
    assert facts["tasks"] == ["asr", "pr", "g2p", "p2g"]
    assert {f"<{code}>" for code in facts["languages"]} <= set(tokens)
    assert facts["parameters"] is None  # a .pth, which only torch reads
    run_verb("info", exp)
    assert "phones  " in capsys.readouterr().out


def test_parameters_are_counted_by_the_header(tmp_path):
    arrays = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}
    save_file(arrays, tmp_path / "m.safetensors")
    assert n_parameters(tmp_path / "m.safetensors") == 17
    (tmp_path / "m.safetensors").write_bytes(b"12345")
    with pytest.raises(PowsmError, match="damaged, no header"):
        n_parameters(tmp_path / "m.safetensors")


@pytest.mark.parametrize("normalize", ["utterance_mvn", "global_mvn"])
def test_what_is_not_learnt_is_no_parameter(tmp_path, normalize):
    """The mel filters are saved with the weights: 20,560 numbers of every model."""
    dump = make_dump(tmp_path / "d", [0.6, 0.8, 1.0, 0.7], seed=1)
    tokens = make_tokens(dump, tmp_path / "t")
    stats = tmp_path / "stats.npz"
    np.savez(stats, count=2, sum=np.ones(80), sum_square=np.ones(80))
    conf = {"stats_file": str(stats)} if normalize == "global_mvn" else {}
    args = make_args(tokens, tmp_path, normalize=normalize, normalize_conf=conf)
    model = task_of_model(args.model).build_model(args)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    n_learnt = sum(p.numel() for p in model.parameters())
    assert n_parameters(tmp_path / "m.safetensors") == n_learnt


@pytest.mark.parametrize("arguments", [("ipa", "pa"), ("info", "{exp}")])
def test_neither_ipa_nor_info_loads_torch(exp, arguments):
    arguments = [a.format(exp=exp) for a in arguments]
    program = (
        "import sys; from powsm.cli.main import main\n"
        f"main({arguments!r})\n"
        "sys.exit(' '.join({'torch', 'espnet2'} & {*sys.modules}) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
