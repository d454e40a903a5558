"""What a training costs with other settings than those whose costs are known."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from powsm.cli import cost
from powsm.cluster.costs import (
    count_parameters,
    experiment_gb,
    read_costs,
    training_row,
    work_of,
)
from powsm.errors import PowsmError
from powsm.model.build import task_of_model
from powsm.settings import apply_overrides, load_with_base
from powsm.train import config

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
KNOWN = {
    "time": "50 h",
    "disk": "29 GB",
    "memory": "52 GB a process",
    "GPU-hours": "200",
    "basis": "the paper",
    "config": "conf/train_powsm.yaml",
    "hours": "17133",
    "nbpe": "40000",
}
PUBLISHED = load_with_base(CONF / "train_powsm.yaml")
FAST = load_with_base(CONF / "train_powsm_fast.yaml")


def row(settings, n_gpus=4, **more):
    found = training_row(KNOWN, PUBLISHED, settings, n_gpus=n_gpus, **more)
    return {key: found[key] for key in ("time", "GPU-hours", "memory")}


@pytest.mark.parametrize(
    ("settings", "more", "expected"),
    [
        # as known; other GPUs share the same hours
        (PUBLISHED, {}, ("50 h", "200", "52 GB a process")),
        (PUBLISHED, {"n_gpus": 8}, ("25 h", "200", "52 GB a process")),
        # 9 of 45 epochs are a fifth of the work
        (PUBLISHED | {"max_epoch": 9}, {}, ("10 h", "40", "52 GB a process")),
        # half the rows: half the audio
        (PUBLISHED | {"batch_size": 32}, {}, ("25 h", "100", "52 GB a process")),
        # ESPnet's loop holds the texts: 1,713.3 h are a tenth of them
        (PUBLISHED, {"hours": 1713.3}, ("50 h", "200", "5 GB a process")),
        # 536 s of audio an update instead of 256 x 20 s, for as many examples
        (FAST, {}, ("5.2 to 50 h", "21 to 200", "8 GB a process")),
        # on a CPU nobody knows
        (PUBLISHED, {"n_gpus": 0}, ("not known", "not known", "52 GB a process")),
        # an epoch is all data: its length depends on them
        (
            FAST | {"num_iters_per_epoch": None},
            {},
            ("not known", "not known", "8 GB a process"),
        ),
    ],
)
def test_training_costs_what_its_settings_say(settings, more, expected):
    assert tuple(row(settings, **more).values()) == expected


def test_another_loop_than_the_configurations_is_heeded():
    by_ours, by_stock = (work_of(PUBLISHED, who) for who in ("powsm", "espnet"))
    assert by_stock == work_of(PUBLISHED) != by_ours
    assert by_ours.updates == 45 * 15_000  # which accumulates no batches


def test_measured_time_on_a_cpu_is_scaled(tmp_path):
    base = load_with_base(CONF / "train_mini.yaml")
    known = KNOWN | {"GPU-hours": "0", "time": "18 to 32 min", "memory": "3 GB"}
    twice = base | {"max_epoch": 2 * base["max_epoch"]}
    found = training_row(known, base, twice, n_gpus=0)
    assert (found["time"], found["memory"]) == ("36 to 64 min", "3 GB")
    assert training_row(known, base, base, n_gpus=0) == known


@pytest.mark.parametrize(
    ("name", "off"),  # the biases, of which a small network has more
    [("powsm_ctc", 0.01), ("mini_ctc", 0.02), ("mini", 0.02)],
)
def test_parameters_are_those_of_the_network(name, off, tmp_path):
    changes = ["normalize=utterance_mvn", "init=null"]  # which has no statistics
    settings = config.load(CONF / f"train_{name}.yaml", changes)
    args = config.parse(settings, tmp_path / "x.yaml")
    args.token_list = ["<blank>", "<unk>", "<na>", *(f"t{i}" for i in range(994))]
    args.token_list += ["<sos>", "<eos>", "<sop>"]
    with torch.device("meta"):
        model = task_of_model(args.model).build_model(args)
    n = sum(p.numel() for p in model.parameters())
    assert count_parameters(settings, 1000) == pytest.approx(n, rel=off)


def options(*given: str):
    parser = argparse.ArgumentParser()
    cost.add_options(parser)
    return parser.parse_args(
        ["--costs", str(ROOT / "egs2/powsm/s2t1/costs.yaml"), *given]
    )


def test_rows_follow_from_the_sets_that_are_there(tmp_path):
    for name, hours in (("train", 1713.3), ("test_a", 10.0), ("test_b", 20.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "drops.json").write_text(json.dumps({"kept_hours": hours}))
    given = ["--config", str(CONF / "train_powsm.yaml"), "--dump", str(tmp_path)]
    profiles = [str(CONF / f"decode_{x}.yaml") for x in ("paper", "paper_unk")]
    given += ["--profiles", *profiles, "--ngpu", "2"]
    rows = cost.cost_rows(options(*given))
    assert rows[11]["memory"] == "5 GB a process" and rows[11]["time"] == "100 h"
    # two profiles of one task each hear 30 h
    assert rows[12]["basis"].startswith("60.0 h of speech to hear")
    assert rows[12]["GPU-hours"] == "3.5"  # 60 x 0.058
    known = read_costs(ROOT / "egs2/powsm/s2t1/costs.yaml")
    assert rows[12]["disk"] == "45 MB"  # 60 h of 0.75 MB
    assert {n: r for n, r in rows.items() if n not in (11, 12)} == {
        n: r for n, r in known.items() if n not in (11, 12)
    }
    # a set that is asked for and not there: its size is not guessed
    rows = cost.cost_rows(options(*given, "--test_sets", "test_a", "test_c"))
    assert rows[12]["basis"].startswith(f"1 of 2 sets missing in {tmp_path}: test_c;")
    assert {**rows[12], "basis": ""} == {**known[12], "basis": ""}


def test_changes_of_the_command_count():
    given = ["--config", str(CONF / "train_powsm.yaml"), "--ngpu", "4"]
    rows = cost.cost_rows(options(*given, "--set", "max_epoch=9", "--subset", "250h"))
    assert (rows[11]["GPU-hours"], rows[11]["memory"]) == ("40", "4 GB a process")
    assert apply_overrides(PUBLISHED, ["max_epoch=9"])["max_epoch"] == 9


def test_the_vocabulary_is_that_of_the_recipe_unless_it_is_said():
    costs = str(ROOT / "egs2/mini_ipapack/s2t1/costs.yaml")
    given = ["--costs", costs, "--config", str(CONF / "train_mini.yaml")]
    assert cost.cost_rows(options(*given)) == read_costs(costs)
    more = cost.cost_rows(options(*given, "--nbpe", "40000"))
    assert "parameters (15 M)" in more[11]["basis"]


def test_a_subset_that_does_not_exist_is_refused():
    given = ["--config", str(CONF / "train_powsm.yaml"), "--subset", "5min"]
    with pytest.raises(PowsmError, match="--subset 5min: expected one of 10min 10h"):
        cost.cost_rows(options(*given))


SMALL = [
    *(f"encoder_conf.{k}=1536" for k in ("linear_units", "cgmlp_linear_units")),
    *("encoder_conf.output_size=384", "decoder_conf.linear_units=1536"),
]


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        # 109 of 343 M parameters
        (["--set", *SMALL], 0.317),
        # of 40,002 tokens 1,002 are left, with 3 x 768 weights each: 90 M fewer
        (["--nbpe", "1000"], 0.738),
    ],
)
def test_a_smaller_model_takes_less_everywhere(changes, share):
    """Training in time and on disk, and what is packed and sent of it."""
    rows = cost.cost_rows(
        options("--config", str(CONF / "train_powsm.yaml"), "--ngpu", "4", *changes)
    )
    n = count_parameters(PUBLISHED) * share
    assert float(rows[11]["GPU-hours"]) == pytest.approx(200 * share, rel=0.02)
    assert float(rows[11]["time"].split()[0]) == pytest.approx(50 * share, rel=0.02)
    # 15 models and the states of two checkpoints, 4 bytes a weight
    disks = {11: 21, 14: 2}
    for stage, copies in disks.items():
        size = float(rows[stage]["disk"].split()[0])
        assert size == pytest.approx(copies * 4 * n / 1e9, rel=0.03)
    assert float(rows[14]["memory"].split()[0]) == pytest.approx(4 * share, rel=0.03)
    assert "at 100 Mbit/s" in rows[15]["basis"]
    minutes = float(rows[15]["time"].split()[0])
    assert minutes == pytest.approx(2 * 32 * n / 100e6 / 60, rel=0.05)


def test_a_training_that_goes_on_costs_what_is_left(tmp_path):
    (tmp_path / "config.yaml").write_text("max_epoch: 45\n")
    given = ["--config", str(CONF / "train_powsm.yaml"), "--ngpu", "4"]
    given += ["--set", "max_epoch=50", "--goes_on_from", str(tmp_path)]
    row = cost.cost_rows(options(*given))[11]
    assert row["GPU-hours"] == "22"  # 5 of 45 epochs


@pytest.mark.parametrize("recipe", ["powsm", "powsm_ctc"])
def test_what_a_recipe_says_of_its_disk_is_what_its_configuration_takes(recipe):
    known = read_costs(ROOT / f"egs2/{recipe}/s2t1/costs.yaml")[11]
    settings = load_with_base(ROOT / known["config"])
    disk = experiment_gb(settings, work_of(settings))
    assert float(known["disk"].split()[0]) == pytest.approx(disk, rel=0.02)
