"""Which rows of a table a model fills, by its own config.yaml; what a row costs."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from powsm.cluster.costs import count_parameters
from powsm.model.build import task_of_model
from powsm.report.paper import render
from powsm.report.paper.costs import training_cost
from powsm.report.paper.fill import Score, System, fill
from powsm.report.paper.spec import load_table
from powsm.report.paper.training import Trained, TrainingError, read_training
from powsm.settings import apply_overrides, load_with_base
from powsm.tasks import PUBLISHED_TASKS
from powsm.train import config

CONF = Path(__file__).parents[3] / "conf"


def table(name: str):
    return load_table(CONF / f"tables/{name}.yaml")


def trained(tmp_path, base="train_powsm_fast.yaml", *changes, **normaliser) -> Trained:
    """A model as its experiment's `config.yaml` describes it."""
    settings = config.load(CONF / base, changes)
    args = config.parse(settings, tmp_path / "settings.yaml")
    args.token_list = [f"<{task}>" for task in PUBLISHED_TASKS]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.stock_config(args)))
    return Trained.read(file, normaliser)


def rows(name: str, model: Trained) -> list[str]:
    return [row.name for row in table(name).rows_of(model)]


SMALL = (
    *("encoder_conf.output_size=384", "encoder_conf.attention_heads=6"),
    *("encoder_conf.cgmlp_linear_units=1536", "encoder_conf.linear_units=1536"),
    *("decoder_conf.attention_heads=6", "decoder_conf.linear_units=1536"),
)


@pytest.mark.parametrize(
    ("changes", "subset", "name", "filled"),
    [
        ((), "", "table4", ["POWSM"]),
        ((), "", "table12", ["full, 300 M, all"]),
        (("tasks=[pr]",), "250h", "table12", ["1 k h, 300 M, PR"]),
        (("tasks=[asr, pr]",), "250h", "table12", ["1 k h, 300 M, PR and ASR"]),
        ((), "250h", "table12", ["1 k h, 300 M, all"]),
        ((*SMALL, "tasks=[pr]"), "250h", "table12", ["1 k h, 100 M, PR"]),
        (SMALL, "", "table12", ["full, 100 M, all"]),
        ((*SMALL, "tasks=[pr]"), "", "table12", []),  # all data, one task: no row
        ((*SMALL, "tasks=[pr]"), "", "table4", []),
        (("max_epoch=20",), "", "table4", []),  # not trained to its end
        (("init_param=[init.pth]",), "", "table4", []),  # began with a model's weights
        ((), "10h", "table4", []),
        (("augment={speed: [1.1]}",), "", "table4", []),  # other recordings
        (("augment={}",), "", "table4", ["POWSM"]),
        (("utt2weight=data/clean.utt2weight",), "", "table4", []),  # other labels
        (("batch_conf.language_temperature=2.0",), "", "table4", []),  # other languages
        (("batch_conf.language_temperature=1",), "", "table4", ["POWSM"]),
        (("seed=7", "num_workers=8"), "", "table4", ["POWSM"]),  # no other model
        (("model_conf.ctc_weight=0.7",), "", "table5", ["training 0.7 from the start"]),
        (
            ("model_conf.ctc_weight=0.5", "max_epoch=50"),
            *("", "table5", []),  # from the start
        ),
        (("model_conf.ctc_weight=0.5",), "", "table5", []),
        (
            ("model_conf.ctc_weight_range=[0.1, 0.9]",),
            *("", "table5", ["training, drawn for each batch"]),
        ),
        (
            ("num_iters_per_epoch=3750", "max_epoch=12")
            + ("scheduler_conf.warmup_steps_list=[0, 8000, 16000]",)
            + ("ctc_target=code_points",),
            *("250h", "figure2", ["code points without length and break marks"]),
        ),
    ],
)
def test_a_model_fills_the_rows_of_its_training(
    tmp_path, changes, subset, name, filled
):
    normaliser = {"text_policy": "powsm_fix"} | ({"subset": subset} if subset else {})
    model = trained(tmp_path, "train_powsm_fast.yaml", *changes, **normaliser)
    assert rows(name, model) == filled


def test_a_model_of_some_languages_fills_no_row_and_says_which(tmp_path):
    model = trained(tmp_path, limits={"langs": "deu,eng", "max_duration": 15.0})
    assert rows("table4", model) == []
    (cell,) = {
        c.why
        for c in fill(table("table4"), [System("two", lambda query: None, model)])
        if c.row == "POWSM"
    }
    assert "stage 4 kept --langs deu,eng; stage 4 kept --max_duration 15.0" in cell


def test_the_published_loop_and_ours_are_the_same_row(tmp_path):
    stock = trained(tmp_path, "train_powsm.yaml")
    assert rows("table2", stock) == ["POWSM"]


@pytest.mark.parametrize(
    ("policy", "row"), [("released", "POWSM"), ("powsm_fix", "POWSM-fix")]
)
def test_text_policy_decides_between_powsm_and_its_repair(tmp_path, policy, row):
    model = trained(tmp_path, text_policy=policy)
    assert rows("table11", model) == [row]
    assert rows("table13", model) == [row]


def test_rows_say_who_fills_them_and_why_others_do_not(tmp_path):
    whole = trained(tmp_path)
    one = trained(tmp_path, "train_powsm_fast.yaml", "tasks=[pr]", subset="250h")
    systems = [
        System("all", lambda query: Score(20, 19, 21), whole),
        System("one", lambda query: Score(30, 29, 31), one),
    ]
    cells = fill(table("table12"), systems)
    filled = {(c.row, c.system) for c in cells if c.ours}
    assert filled == {("full, 300 M, all", "all"), ("1 k h, 300 M, PR", "one")}
    (why,) = {c.why for c in cells if c.row == "1 k h, 100 M, PR"}
    assert "all is another training: encoder_conf.output_size is 768, not 384" in why
    assert "one is another training: " in why
    assert (
        ". --any_training fills the row all the same, and says so. To train it: " in why
    )
    assert "To train it: ./run.sh --config conf/train_powsm_fast.yaml" in why


def test_a_model_of_another_training_is_let_in_when_asked_and_marked(tmp_path):
    one = trained(tmp_path, "train_powsm_fast.yaml", "tasks=[pr]")
    system = System("one", lambda query: Score(30, 29, 31), one, any_training=True)
    cells = [c for c in fill(table("table2"), [system]) if c.row == "POWSM"]
    assert {c.note for c in cells} == {
        "one is another training: tasks is pr, not asr g2p p2g pr"
    }
    assert cells[-1].verdict("PFER") == "another training"
    latex = render.to_latex(table("table2"), cells)
    assert "POWSM: one *" in latex
    assert "% * one is another training: tasks is pr, not asr g2p p2g pr" in latex


def test_row_that_goes_on_takes_the_run_that_did(tmp_path):
    """Two experiments side by side, the second begun at the end of the first."""
    fast, then = "train_powsm_fast.yaml", ("model_conf.ctc_weight=0.5", "max_epoch=50")
    for name in ("0.3", "0.5", "after_0.5"):
        (tmp_path / name).mkdir()
    trained(tmp_path / "0.3", fast)
    trained(tmp_path / "0.5", fast, "model_conf.ctc_weight=0.5")
    after = tmp_path / "after_0.5"
    trained(after, fast, *then)
    found = {}
    for before in ("0.3", "0.5", "gone"):
        (after / "goes_on_from.json").write_text(f'{{"exp": "{before}", "epoch": 45}}')
        found[before] = rows("table5", Trained.read(after / "config.yaml"))
    row = "training 0.3, then 0.5 to epoch 50"
    assert found == {"0.3": [row], "0.5": [], "gone": []}
    # and what went on is no training from the start
    trained(after, fast)
    assert "POWSM" not in rows("table4", Trained.read(after / "config.yaml"))


def test_a_model_that_says_nothing_of_its_training_fills_nothing():
    system = System("unknown", lambda query: Score(1, 0, 2), None)
    assert not [c for c in fill(table("table4"), [system]) if c.ours]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"config": "train_none.yaml"}, "no configuration"),
        ({"confg": "train_powsm.yaml"}, "unknown confg"),
        (
            {"plan": "ablation_table12.yaml", "variant": "3 B"},
            "has no variant '3 B'; it has 100 M, PR",
        ),
    ],
)
def test_trainings_that_do_not_exist(raw, message):
    with pytest.raises(TrainingError, match=message):
        read_training(raw, CONF, "row")


def test_rows_that_go_on_come_after_those_before_them():
    row = next(r for r in table("table5").rows if "0.7 to epoch 55" in r.name)
    lines = row.training.command().splitlines()
    assert len(lines) == 3 and all(line.startswith("./run.sh ") for line in lines)
    assert "--goes_on_from" not in lines[0]
    for before, line in zip(lines, lines[1:], strict=False):
        (name,) = re.findall(r"--goes_on_from exp/(\S+)", line)
        assert f"--exp_name {name} " in before
        assert "--stage 11" in line
    assert "--set max_epoch=55" in lines[-1]


# --- what it costs --------------------------------------------------------------------


@pytest.mark.parametrize("changes", [(), SMALL])
def test_parameters_are_those_of_the_network(tmp_path, changes):
    settings = config.load(
        CONF / "train_powsm.yaml", [*changes, "normalize=null", "init=null"]
    )
    args = config.parse(settings, tmp_path / "x.yaml")
    args.token_list = ["<blank>", "<unk>", "<na>", *(f"t{i}" for i in range(39_996))]
    args.token_list += ["<sos>", "<eos>", "<sop>"]
    with torch.device("meta"):
        model = task_of_model("powsm").build_model(args)
    n = sum(p.numel() for p in model.parameters())
    assert count_parameters(settings) == pytest.approx(n, rel=0.01)


def costs(name: str) -> dict:
    found = {r.name: r.training for r in table(name).rows if r.training}
    return {name: training_cost(training) for name, training in found.items()}


def test_the_published_training_costs_what_the_paper_says():
    cost = costs("table4")["POWSM"]
    assert cost.updates == 168_750
    assert cost.most_gpu_hours == cost.least_gpu_hours == pytest.approx(200, rel=0.01)
    assert cost.memory_gb == 52


def test_a_training_without_a_decoder_costs_what_its_authors_say():
    cost = costs("prism3")["POWSM-CTC"]
    assert cost.updates == 175_000
    assert cost.most_gpu_hours == pytest.approx(576, rel=0.01)
    assert "GPU-hours (80 GB, scaled from PRiSM's 576), at most 144 h on 4" in (
        cost.describe()
    )


def test_costs_follow_updates_parameters_and_audio():
    plain = costs("table12")["1 k h, 300 M, all"]
    small = costs("table12")["1 k h, 100 M, all"]
    assert small.most_gpu_hours / plain.most_gpu_hours == pytest.approx(
        small.parameters / plain.parameters
    )
    # 8 batches of 67 s for 256 examples of 20 s
    assert plain.least_gpu_hours / plain.most_gpu_hours == pytest.approx(536 / 5120)
    curves = costs("figure2")["phones without length and break marks"]
    assert curves.updates == 45_000
    more = costs("table5")["training 0.3, then 0.5 to epoch 50"]
    assert more.updates == 5 * 3750  # those after epoch 45
    assert "18,750 updates after 45 epochs that are not in this" in more.describe()


def test_grids_of_the_tuning_folder_are_in_the_plans():
    """The effective settings of files that the plans took the place of."""
    base = load_with_base(CONF / "train_powsm_fast.yaml")
    was = {  # file of conf/tuning/ -> its changes
        ("ablation_table5.yaml", "0.5"): ["model_conf.ctc_weight=0.5"],
        ("ablation_table5.yaml", "0.7"): ["model_conf.ctc_weight=0.7"],
        ("ablation_table5.yaml", "drawn"): ["model_conf.ctc_weight_range=[0.1, 0.9]"],
        **{
            ("ablation_figure2.yaml", name): [
                "num_iters_per_epoch=3750",
                "max_epoch=12",
                "scheduler_conf.warmup_steps_list=[0, 8000, 16000]",
                f"ctc_target={target}",
            ]
            for name, target in (
                ("phones with length", "phones_with_length"),
                ("mixed", "text"),
            )
        },
    }
    for (plan, variant), changes in was.items():
        training = read_training({"plan": plan, "variant": variant}, CONF, "x")
        assert training.settings() == apply_overrides(base, changes)
