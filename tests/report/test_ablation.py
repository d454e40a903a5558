"""Ablations: the plan, the table by hand, and one run on seconds of speech."""

import csv
import io
from pathlib import Path

import pytest
import yaml
from dump_builder import make_dump
from powsm_command import run_verb
from tiny_model import SETTINGS, make_tokens

from powsm.cli import ablate
from powsm.model.find import CheckpointError
from powsm.report import ablation
from powsm.report.ablation import Cost, Plan
from powsm.score.metrics import score_phones
from powsm.settings import ConfigError
from powsm.train import config

ROOT = Path(__file__).parents[2]
REF = {"u1_eng": "/p//a/", "u2_eng": "/t//a//k/"}  # 5 phones


def scores(first: str, second: str):
    return score_phones(
        hyp={"u1_eng": first, "u2_eng": second},
        ref=REF,
        langs=dict.fromkeys(REF, "eng"),
        cleaning="strict",
    )


WHAT = Path("decode_ctc_greedy/test/pr_ctc")


def test_table_holds_the_rates_and_their_paired_difference():
    decoded = {
        "base": {WHAT: scores("/p//a/", "/t//a//k/")},
        "worse": {WHAT: scores("/p/", "/t//a/")},  # a deletion each: 2 of 5
    }
    rows = ablation.measure(decoded, "base")
    per = {r.variant: r for r in rows if r.metric == "PER"}
    assert per["base"].value == 0.0 and per["base"].difference is None
    assert per["worse"].value == pytest.approx(40.0)
    assert per["worse"].difference.difference == pytest.approx(40.0)
    costs = {"base": Cost(10, 60.0), "worse": Cost(20, 90.0)}
    text = ablation.markdown(rows, costs, "base")
    assert "| worse | 20 | 1.5 |" in text
    assert "phone recognition, ctc_greedy, test (2 utterances)" in text
    assert "+40.00" in text
    table = list(csv.DictReader(io.StringIO(ablation.to_csv(rows, costs))))
    row = next(r for r in table if (r["variant"], r["metric"]) == ("worse", "PER"))
    assert (row["value"], row["difference"], row["updates"]) == ("40.0", "40.0", "20")


def test_a_single_utterance_has_no_interval_and_no_nan():
    one = {"base": {WHAT: scores("/p//a/", "").only({"u1_eng"})}}
    one["same"] = one["base"]
    rows = ablation.measure(one, "base")
    costs = dict.fromkeys(one, Cost(1, 60.0))
    texts = ablation.markdown(rows, costs, "base"), ablation.to_csv(rows, costs)
    assert not any("nan" in text for text in texts)
    assert "| same | 0.00 |  | +0.00 |  |  | 0.00 |  | +0.00 |  |  |" in texts[0]
    assert "same,decode_ctc_greedy,test,pr,ctc,PER,0.0,,,1,0.0,,,,1,60.0\n" in texts[1]


def test_a_score_that_the_reference_lacks_stands_without_difference():
    decoded = {"base": {}, "other": {WHAT: scores("/p//a/", "/t//a//k/")}}
    rows = ablation.measure(decoded, "base")
    assert rows and all(row.difference is None for row in rows)


@pytest.fixture
def plan_file(tmp_path):
    """A plan over the tiny model; the second variant has no CTC head."""
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / "decode_ctc.yaml").write_text("decode: ctc\ntasks: [pr]\n")
    (tmp_path / "decode_att.yaml").write_text(
        "decode: attention\ntasks: [pr, asr]\nsearch: {maxlenratio: -5}\n"
    )
    plan = {
        "config": "train.yaml",
        "set": ["max_epoch=1", "best_model_criterion=[[valid, acc, max]]"],
        "profiles": ["decode_ctc.yaml", "decode_att.yaml"],
        "sets": ["test"],
        "reference": "all tasks",
        "variants": [
            {"name": "all tasks"},
            {"name": "CTC 0", "set": ["model_conf.ctc_weight=0.0", "tasks=[pr]"]},
            {
                "name": "all, then 0.5",
                "set": ["model_conf.ctc_weight=0.5", "max_epoch=2"],
                "goes_on_from": "all tasks",
            },
            {"name": "ten minutes", "subset": "10min"},
        ],
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def test_variants_decode_what_their_model_can(plan_file):
    plan = Plan.load(plan_file)
    full, no_ctc, *_ = plan.variants
    assert [p.stem for p in full.profiles(plan)] == ["decode_ctc", "decode_att"]
    assert [p.stem for p in no_ctc.profiles(plan)] == ["decode_att"]
    assert no_ctc.folder == "CTC_0" and no_ctc.settings["max_epoch"] == 1


def test_a_plan_without_a_number_of_epochs_has_that_of_training(plan_file):
    settings = {k: v for k, v in SETTINGS.items() if k != "max_epoch"}
    (plan_file.parent / "train.yaml").write_text(yaml.safe_dump(settings))
    change = {"variants": [{"name": "a"}], "reference": "a", "set": None}
    plan = yaml.safe_load(plan_file.read_text()) | change
    plan_file.write_text(yaml.safe_dump(plan))
    (variant,) = Plan.load(plan_file).variants
    asked = config.parse(settings, plan_file.parent / "asked.yaml")
    assert variant.settings["max_epoch"] == asked.max_epoch
    exp = plan_file.parent / "exp"
    exp.mkdir()
    (exp / "history.jsonl").write_text('{"epoch": 39, "updates": 1}\n')
    assert not ablate.is_trained(variant, exp)  # KeyError, once anything was trained


def variants_of(second: dict) -> dict:
    """A change of the plan: two variants, a and this one."""
    return {"reference": "a", "variants": [{"name": "a"}, {"name": "c"} | second]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": []}, "variant unknown or missing"),
        ({"reference": "x"}, "reference 'x' is none of the variants"),
        ({"variants": [{"name": "a", "sets": []}]}, "expected name and set"),
        ({"variants": [{"name": "a b"}, {"name": "a-b"}]}, "share a name"),
        ({"variants": [{"name": 0.3}]}, "variant 0.3: name is 0.3, expected text"),
        ({"reference": 0.3}, "reference is 0.3, expected text"),
        ({"variants": None}, "variants is None, expected a list"),
        ({"variants": [7]}, "variant 7: expected name and set"),
        (variants_of({"set": "max_epoch=2"}), "set is 'max_epoch=2', expected a list"),
        ({"sets": "test_a"}, "sets is 'test_a', expected a list"),
        ({"set": ["max_epcoh=1"]}, "did you mean 'max_epoch'"),
        ({"subset": "250 h"}, "'all tasks': subset '250 h', expected one of all"),
        (variants_of({"goes_on_from": "b"}), "which no variant before it is called"),
        (
            variants_of({"goes_on_from": "a"}),
            "max_epoch is 1, expected more than the 1",
        ),
        (
            variants_of({"goes_on_from": "a", "subset": "10h", "set": ["max_epoch=2"]}),
            "which has other data: None",
        ),
        (
            variants_of({"goes_on_from": "a", "set": ["max_epoch=2", "seed=7"]}),
            "with another seed; only max_epoch and",
        ),
        (
            variants_of(
                {"goes_on_from": "a"}
                | {"set": ["max_epoch=2", "model_conf.lsm_weight=0.2"]}
            ),
            "with another model_conf.lsm_weight; only",
        ),
    ],
)
def test_faults_of_a_plan_are_told(plan_file, change, message):
    plan = yaml.safe_load(plan_file.read_text()) | change
    plan_file.write_text(yaml.safe_dump(plan))
    with pytest.raises(ConfigError, match=message):
        Plan.load(plan_file)


def test_changed_settings_leave_out_how_long():
    assert ablation.changed_settings({"seed": 1, "max_epoch": 2}, {"seed": 1}) == []
    assert ablation.changed_settings({"seed": 1}, {"seed": 2, "lr": 1}) == [
        "lr",
        "seed",
    ]


def test_teacher_that_is_missing_is_told_before_anything_is_trained(tmp_path):
    plan = Plan.load(ROOT / "conf/ablation_mini_ctc.yaml")
    with pytest.raises(CheckpointError, match="s2t_train_mini_bpe300: no such folder"):
        ablate.find_teachers(plan, tmp_path)
    exp = tmp_path / "taught_by_the_model_with_a_decoder"
    exp.mkdir()  # trained already
    (exp / "history.jsonl").write_text('{"epoch": 2, "updates": 400}\n')
    (exp / "valid.loss.ave.pth").touch()
    ablate.find_teachers(plan, tmp_path)


def test_one_command_trains_decodes_and_scores_and_then_reuses(
    plan_file, tmp_path, monkeypatch, caplog
):
    """The reference by processes, as users have it, what follows in this one."""
    start = ablate.run_verb

    def run_or_start(*words):
        is_reference = words[words.index("--exp") + 1] == out / "all_tasks"
        (start if is_reference else run_verb)(*words)

    monkeypatch.setattr(ablate, "run_verb", run_or_start)
    for name, seed in (("train", 1), ("dev", 2), ("test", 3)):
        folder = make_dump(tmp_path / "dump" / name, [0.6, 0.8, 1.0, 0.7], seed=seed)
        (folder / "normaliser.json").write_text(
            '{"policy": "strict", "text_policy": "powsm_fix", "version": "strict/2"}'
        )
    make_tokens(tmp_path / "dump/train", tmp_path / "tokens")
    out = tmp_path / "out"
    command = [
        *("--plan", str(plan_file), "--dump", str(tmp_path / "dump")),
        *("--token_dir", str(tmp_path / "tokens"), "--out", str(out)),
    ]
    # a variant whose batches are too short is told before another is trained, and what
    # was begun with other settings and never trained is in nobody's way
    plan = yaml.safe_load(plan_file.read_text())
    plan["variants"][1]["set"].append("batch_conf.batch_seconds=0.9")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(plan))
    with pytest.raises(SystemExit, match=r"CTC 0: batch_seconds is 0.9, the longest"):
        run_verb("ablate", *command, "--plan", str(wrong))
    assert not out.exists()
    (out / "CTC_0").mkdir(parents=True)
    (out / "CTC_0/variant.yaml").write_text("seed: 7\n")

    run_verb("ablate", *command)
    rows = list(csv.DictReader((out / "ablation.csv").open()))
    shown = {(r["variant"], r["profile"], r["task"]) for r in rows}
    assert shown == {
        ("all tasks", "decode_ctc", "pr"),
        ("all tasks", "decode_att", "pr"),
        ("all tasks", "decode_att", "asr"),
        ("CTC 0", "decode_att", "pr"),  # it was not taught asr
        ("all, then 0.5", "decode_ctc", "pr"),
        ("all, then 0.5", "decode_att", "pr"),
        ("all, then 0.5", "decode_att", "asr"),
    }
    compared = {r["variant"] for r in rows if r["difference"]}
    assert compared == {"CTC 0", "all, then 0.5"}
    # three updates an epoch: the one that goes on has those of the first in it
    assert {r["updates"] for r in rows if "then" in r["variant"]} == {"6"}
    assert "goes on from epoch 1" in caplog.text
    reason = f"ten minutes: of 10min data, and {tmp_path}/dump/train is all"
    assert reason in caplog.text
    assert f"Not in these tables: {reason}." in (out / "ablation.md").read_text()

    # the second time nothing is trained, and another setting is refused
    called = []
    monkeypatch.setattr(ablate, "run_verb", lambda verb, *_: called.append(verb))
    before = (out / "ablation.csv").read_bytes()
    run_verb("ablate", *command)
    assert set(called) == {"decode"}  # which finds its results current
    assert (out / "ablation.csv").read_bytes() == before
    plan = yaml.safe_load(plan_file.read_text())
    later = plan["variants"][2].pop("goes_on_from")
    plan_file.write_text(yaml.safe_dump(plan))
    with pytest.raises(SystemExit, match="0.5 went on from all_tasks; remove"):
        run_verb("ablate", *command)
    plan["variants"][2]["goes_on_from"] = later
    plan["set"].append("seed=7")
    plan_file.write_text(yaml.safe_dump(plan))
    with pytest.raises(SystemExit, match="trained with other seed"):
        run_verb("ablate", *command)

    # with a dump folder of another part, what is trained is not trained again
    plan["set"].pop()
    plan["reference"] = "ten minutes"
    plan_file.write_text(yaml.safe_dump(plan))
    with pytest.raises(SystemExit, match="reference is not trained, ten minutes: of"):
        run_verb("ablate", *command)
