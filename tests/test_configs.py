"""Every YAML file of conf/ is read by the code that will read it."""

from pathlib import Path

import pytest
import yaml

from powsm import settings
from powsm.decode.profile import DecodeError, Profile
from powsm.report.ablation import Plan
from powsm.train import config

CONF = Path(__file__).parents[1] / "conf"
TRAIN = sorted({*CONF.glob("train_*.yaml"), *CONF.glob("tuning/**/*.yaml")})
DECODE = sorted(CONF.glob("decode_*.yaml"))
ABLATIONS = sorted(CONF.glob("ablation_*.yaml"))


def test_every_file_of_conf_is_covered():
    covered = {
        *TRAIN,
        *DECODE,
        *ABLATIONS,
        *CONF.glob("tables/*.yaml"),
        *CONF.glob("cluster/*"),
    }
    assert set(CONF.rglob("*.yaml")) == covered
    assert TRAIN and DECODE


@pytest.mark.parametrize("path", TRAIN, ids=lambda p: p.stem)
def test_training_settings_pass_espnets_parser(path, tmp_path):
    args = config.parse(config.load(path), tmp_path / "settings.yaml")
    stock = config.stock_config(args)
    yaml.safe_dump(stock)  # can be written as config.yaml
    # ESPnet has no name for CTC heads over phones alone
    model_conf = stock["model_conf"]
    phones_only = "phones" in map(model_conf.get, ("ctc_vocab", "interctc_vocab"))
    is_ctc_only = args.model in ("espnet_ctc", "powsm_ctc")
    expected = "espnet_ctc" if is_ctc_only else "espnet"
    assert stock["model"] == (args.model if phones_only else expected)
    assert not set(config.OUR_KEYS) & stock.keys()


@pytest.mark.parametrize("path", [*TRAIN, *ABLATIONS], ids=lambda p: p.stem)
def test_training_settings_open_with_command_and_hardware(path):
    head = path.read_text().split("\n\n")[0]
    assert "command:" in head and "hardware:" in head, head


@pytest.mark.parametrize("path", TRAIN, ids=lambda p: p.stem)
def test_iterator_stands_in_the_file_itself_for_the_stage_driver(path):
    """scripts/s2t.sh reads that line without Python to choose the trainer."""
    published = "\niterator: published" in path.read_text()
    assert (config.load(path).get("iterator") == "published") == published


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda p: p.stem)
def test_ablations_name_settings_and_profiles_that_exist(path):
    plan = Plan.load(path)
    assert all(variant.profiles(plan) for variant in plan.variants)


@pytest.mark.parametrize("path", DECODE, ids=lambda p: p.stem)
def test_decode_profiles_load_and_differ(path):
    profile = Profile.load(path)
    assert profile.name == path.stem
    others = [Profile.load(p) for p in DECODE if p != path]
    assert profile.digest() not in {other.digest() for other in others}


@pytest.mark.parametrize("path", DECODE, ids=lambda p: p.stem)
def test_decode_profiles_stand_in_the_guide(path):
    guide = (CONF.parent / "docs/decode.md").read_text(encoding="utf-8")
    assert f"`{path.stem.removeprefix('decode_')}`" in guide


def write(tmp_path, text):
    path = tmp_path / "decode_x.yaml"
    path.write_text(text)
    return path


def test_unknown_decode_settings_are_all_named(tmp_path):
    path = write(tmp_path, "beam: 3\nsearch: {ctc_wight: 0.3}\n")
    with pytest.raises(DecodeError, match=r"unknown beam search.ctc_wight"):
        Profile.load(path)


def test_ctc_head_refuses_tasks_it_cannot_do(tmp_path):
    """Only a model can say so: without a decoder CTC does all tasks."""
    path = write(tmp_path, "decode: ctc\ntasks: [pr, asr]\n")
    profile = Profile.load(path)
    profile.check_model(has_decoder=False, finds_language=False)
    with pytest.raises(DecodeError, match="always speaks phones, it cannot do asr"):
        profile.check_model(has_decoder=True, finds_language=True)


def test_all_faults_of_a_training_file_are_told_at_once(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(
        "encoder: e_branchformer\nencoder_conf: {num_block: 2}\n"
        "batch_conf: {batch_second: 1}\noptimm: adamw\nscheduler: warmup\n"
    )
    with pytest.raises(settings.ConfigError) as caught:
        config.load(path)
    told = str(caught.value)
    assert "4 fault(s)" in told
    for wrong, right in (
        ("num_block", "num_blocks"),
        ("batch_second", "batch_seconds"),
        ("optimm", "optim"),
        ("warmup", "warmuplr"),
    ):
        assert wrong in told and f"did you mean '{right}'" in told


def test_a_file_holds_what_it_changes_of_its_base(tmp_path):
    (tmp_path / "train.yaml").write_text(
        "optim: adamw\noptim_conf: {lr: 1.0, betas: [0.9, 0.98]}\nseed: 1\n"
    )
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub/changed.yaml"
    path.write_text("base: ../train.yaml\noptim_conf: {lr: 0.5}\nmax_epoch: 3\n")
    assert config.load(path, ["seed=7"]) == {
        "optim": "adamw",
        "optim_conf": {"lr": 0.5, "betas": [0.9, 0.98]},
        "max_epoch": 3,
        "seed": 7,
    }


def test_a_base_has_a_base_and_keys_are_left_out(tmp_path):
    for name, text in {
        "a": "seed: 1\nbatch_size: 4\noptim: adamw\noptim_conf: {lr: 1.0, eps: 2}\n",
        "b": "base: a.yaml\nwithout: [batch_size]\noptim_conf: {lr: 0.5}\n",
        "c": "base: b.yaml\nseed: 3\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert config.load(tmp_path / "c.yaml") == {
        "seed": 3,
        "optim": "adamw",
        "optim_conf": {"lr": 0.5, "eps": 2},
    }


def test_bases_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(settings.ConfigError, match="has this file as a base itself"):
        config.load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: none.yaml\n", "none.yaml: no such file"),
        ("base: a.yaml\n", "has this file as a base itself"),
        ("base: b.yaml\nwithout: [optimm]\n", "has no optimm; did you mean 'optim'"),
        ("without: [optim]\n", "there is no base to take keys from"),
        ("base: b.yaml\noptim_conf: {lrr: 1}\n", "did you mean 'lr'"),
        ("base: b.yaml\nbasse: 1\n", "unknown key 'basse'"),
    ],
)
def test_bases_that_make_no_sense(tmp_path, text, message):
    (tmp_path / "b.yaml").write_text("optim: adamw\n")
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(settings.ConfigError, match=message):
        config.load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("seed", "expected key.sub=value"),
        ("seed.x=1", "seed is 1, it has no keys below it"),
    ],
)
def test_overrides_that_make_no_sense(pair, message):
    with pytest.raises(settings.ConfigError, match=message):
        settings.apply_overrides({"seed": 1}, [pair])


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("optim_conf:\n    lr: 1e-4\n    eps: 1.0e-6\n    name: 1e\n")
    assert settings.load_yaml(path)["optim_conf"] == {
        "lr": 1e-4,
        "eps": 1e-6,
        "name": "1e",
    }
    changes = ["a=-2E5", "b=[0.0,1e-4]", "c=e5"]
    assert settings.apply_overrides({}, changes) == {
        "a": -2e5,
        "b": [0.0, 1e-4],
        "c": "e5",
    }
