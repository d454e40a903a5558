"""Language identification as a prompted task, from data to its score."""

import json
from pathlib import Path

from experiment_builder import PHONES, make_dump, write_hyps

from powsm.decode.profile import Profile
from powsm.report.experiment import read_experiment
from powsm.report.results_md import render
from powsm.score.results import score_experiment
from powsm.tasks import DECODED_TASKS, examples
from powsm.vocabulary.symbols import special_symbols

ROOT = Path(__file__).parents[1]


def test_from_example_to_report(tmp_path):
    [row] = examples("u", "eng", ["p"], ["p"], "", ["slid"])
    assert row == ("u_slid", "<unk><slid><notimestamps> <eng>", "<na>", "/p/")
    assert special_symbols(["eng"], None).count("<slid>") == 1
    profile = Profile.load(ROOT / "conf/decode_slid.yaml")
    assert profile.tag("slid") == "slid_attention"
    make_dump(tmp_path / "dump")
    exp = tmp_path / "exp"
    write_hyps(
        exp, profile.name, "test_tone", "slid_attention", dict.fromkeys(PHONES, "<eng>")
    )
    score_experiment(exp, tmp_path / "dump")
    pooled = json.loads((exp / "results.json").read_text())[0]
    # two of five utterances are English
    assert (pooled["metric"], pooled["value"], pooled["n_utts"]) == (
        "accuracy",
        40.0,
        5,
    )
    text = render(read_experiment(exp), tmp_path / "dump", "")
    assert f"test_tone: {DECODED_TASKS['slid'].title} | slid | accuracy | 40.0" in text
