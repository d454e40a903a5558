"""The programs of scripts/bench work, and find ours equal to what they compare with.

On a few examples, and without a look at any time.
"""

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from dump_builder import make_dump
from tiny_model import make_experiment, make_tokens

from powsm.publish.pack import pack

BENCH = Path(__file__).parents[1] / "scripts/bench"


@pytest.fixture
def load(monkeypatch):
    """The module of a program."""
    monkeypatch.syspath_prepend(BENCH)

    def load(name):
        spec = importlib.util.spec_from_file_location(
            f"bench_{name}", BENCH / f"{name}.py"
        )
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # workers look it up
        spec.loader.exec_module(module)
        return module

    return load


def test_scores_equal_panphon(load):
    result = load("score").compare_with_panphon(rounds=1)
    assert result["max_abs_diff"] < 1e-9


def test_stages_1_and_4_write_no_audio(load, tmp_path):
    result = load("prepare").measure(600, 1, tmp_path)
    assert result["utterances"] == 600
    assert result["audio_bytes_present"] > 0
    assert result["audio_bytes_written"] == 0


def test_normaliser_is_compared_with_panphon(load):
    assert load("normaliser").measure(50)["normaliser_ratio"] > 0


def test_dictionary_shows_what_segmentation_does(load, tmp_path):
    """Worked out by hand: a tone before a length, a doubled tie, a mark nobody has."""
    bench = load("segmentation")
    path = tmp_path / "words.tsv"
    path.write_text("a\tb r \u00e1\u02d0 t\nb\tt a t\u031a\nc\tp a\n", encoding="utf-8")
    result = bench.measure(bench.read_ipa(path))
    assert (result["words"], result["phones"]) == (3, 9)
    assert result["words_unlike_released"] == 0.3333  # bráːt
    assert result["changes"] == [[1, "a", "a\u02d0", "br\u00e1\u02d0t"]]
    assert result["words_losing_marks"] == 0.3333
    assert result["lost"] == [[1, "U+031A", "diacritic", "tat\u031a"]]


def test_index_is_built_and_read_by_workers(load, tmp_path):
    result = load("index").measure(30_000, 2, tmp_path)
    assert result["examples"] == 120_000
    assert {"first_batch_s", "worker_private_mib"} <= result.keys()


@pytest.mark.parametrize("sizes", ["QUICK", "CTC_QUICK"])
def test_training_step_equals_stock(load, tmp_path, sizes):
    bench = load("train_step")
    bench.register_with_espnet()
    size = getattr(bench, sizes)[0]
    loss, grad = bench.check(size, bench.make_data(tmp_path, size))
    assert loss < 1e-4 and grad < 1e-3


def test_decoding_equals_stock(load, monkeypatch, capsys):
    bench = load("decode")
    options = ["--n_utts", "2", "--beams", "1", "--n_tokens", "4", "--mean_s", "1"]
    config = BENCH.parents[1] / "conf/train_mini.yaml"
    monkeypatch.setattr(sys, "argv", ["decode.py", *options, "--config", str(config)])
    for module, name in ((bench.logging, "disable"), (bench.torch, "set_num_threads")):
        monkeypatch.setattr(module, name, lambda _: None)  # of the whole process
    assert bench.main() is None
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["identical"] == 1.0


def test_transcribing_is_compared_with_stock(load, tmp_path):
    from dump_builder import make_dump
    from espnet2.bin.s2t_inference import Speech2Text
    from tiny_model import make_experiment, make_tokens

    make_dump(tmp_path / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    exp = make_experiment(tmp_path, make_tokens(tmp_path / "train", tmp_path / "token"))
    bench, folder = load("transcribe"), tmp_path / "wav"
    folder.mkdir()
    assert bench.write_recordings(folder, 2, tmp_path / "train") > 1
    search = {"beam_size": 1, "maxlenratio": -5.0}
    stock = Speech2Text(exp / "config.yaml", exp / "valid.loss.ave.pth", **search)
    found = bench.warm(str(exp), stock, "eng", folder, n_stock=1)
    assert found["stock_warm_files"] == 1 and found["warm_ratio"] > 0


def test_stages_that_are_killed_or_run_twice_write_the_same_bytes():
    command = [sys.executable, str(BENCH / "kills.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ways = ("killed", "two at once", "shell killed", "run.sh killed")
    counts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["stage"], row["tries"], row["wrong"]) for row in counts] == [
        (stage, 1, dict.fromkeys(ways, 0)) for stage in ("1", "4")
    ]


def test_decoding_without_a_decoder_equals_stock(load, tmp_path, monkeypatch):
    bench = load("decode_ctc_only")
    monkeypatch.setattr(bench, "BEAM", 2)  # of which speeds alone are measured
    result = bench.measure(tmp_path, 2, [1, 2])
    assert result["identical"] == 1.0 and result["n_tokens"] > 5
    for ratio in ("ratio_best_path", "ratio_beam", "ratio_attention"):
        assert result[ratio].keys() == {1, 2}


def test_texts_of_a_trained_model_are_compared_with_stock(load, tmp_path):
    from tiny_model import CTC_SETTINGS, make_corpus, make_experiment

    corpus = make_corpus(tmp_path / "corpus")
    exp = make_experiment(tmp_path, corpus / "tokens", base=CTC_SETTINGS)
    rows = list(load("decode_ctc_only").compare(exp, corpus / "dump/dev", 1))
    assert [row["task"] for row in rows] == ["asr", "pr", "g2p", "p2g"]
    for row in rows:
        assert row["n_utts"] == row["same"]["best_path"] == 1
        assert row["same"]["stock_search"] == 1
        assert len(row["gains"]) == 1 - row["same"]["prefix_beam"]


def test_level_is_measured_with_and_without_the_switch(load, tmp_path):
    from dump_builder import make_dump as make_train_dump
    from experiment_builder import make_dump
    from tiny_model import make_experiment, make_tokens

    make_train_dump(tmp_path / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    exp = make_experiment(tmp_path, make_tokens(tmp_path / "train", tmp_path / "token"))
    rows = list(load("level").measure(exp, make_dump(tmp_path), [1.0, 0.01]))
    pfer = {(gain, level): scores.value("PFER") for gain, level, scores in rows}
    assert len(pfer) == 4
    assert pfer[1.0, "usual"] == pytest.approx(pfer[0.01, "usual"], abs=1.0)


def test_packed_model_is_read_by_another_espnet(tmp_path):
    """By the one that is here, twice, and by one that does not start."""
    folder = make_dump(tmp_path / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    record = {"policy": "strict", "version": "strict/1", "text_policy": "powsm_fix"}
    (folder / "normaliser.json").write_text(json.dumps(record))
    exp = make_experiment(tmp_path / "x", make_tokens(folder, tmp_path / "tokens"))
    packed = pack(exp, train_set=folder).folder
    clip = next((folder / "wav").iterdir())
    (tmp_path / "broken/espnet2").mkdir(parents=True)
    (tmp_path / "broken/espnet2/__init__.py").write_text("import no_such_module")
    (tmp_path / "same").mkdir()
    command = [sys.executable, BENCH / "readers.py", "--model", packed, "--lang", "eng"]
    command += ["--tasks", "pr", "--readers", tmp_path / "same", tmp_path / "broken"]
    done = subprocess.run(
        [*command, "--", clip], capture_output=True, text=True, check=True
    )
    here, same, broken = map(json.loads, done.stdout.splitlines())
    assert here["loads"] and here["espnet"] == version("espnet")
    assert same["same_texts"] and same["texts"] == here["texts"]
    assert not broken["loads"] and not broken["same_texts"]
    assert broken["why"] == "ModuleNotFoundError: No module named 'no_such_module'"
