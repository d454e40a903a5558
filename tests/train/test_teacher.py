"""Learning from the CTC head of a model with a decoder."""

import copy
import shutil

import pytest
import torch
import yaml
from tiny_model import CTC_SETTINGS, SETTINGS, make_args, make_corpus, make_experiment

from powsm.model.ctc_heads import PhoneLinear
from powsm.model.find import CheckpointError, find_model
from powsm.model.weights import load_model
from powsm.settings import ConfigError
from powsm.train import config, run, stock
from powsm.train.dataset import collate
from powsm.train.experiment.record import ExperimentError
from powsm.train.lit import LitPowsm
from powsm.train.parts.teacher import Teacher
from powsm.vocabulary.phone_sets import is_phone


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = make_corpus(tmp_path_factory.mktemp("corpus"))
    make_experiment(root / "teacher", root / "tokens", seed=3)
    return root


def taught(corpus, **changes):
    conf = {"teacher": str(corpus / "teacher/exp"), "teacher_weight": 2.0} | changes
    return CTC_SETTINGS | {"model_conf": CTC_SETTINGS["model_conf"] | conf}


def module_of(corpus, tmp_path, **changes) -> LitPowsm:
    args = make_args(corpus / "tokens", tmp_path, taught(corpus, **changes))
    torch.manual_seed(0)
    return LitPowsm(args, corpus / "dump/train", corpus / "dump/dev")


@pytest.mark.parametrize("is_compact", [False, True])
def test_it_says_what_its_head_says_of_the_tokens_by_name(corpus, is_compact):
    model = load_model(find_model(corpus / "teacher/exp"))
    if is_compact:
        head = PhoneLinear(16, model.token_list)
        model.ctc.ctc_lo = head.requires_grad_(False)
    speech = torch.randn(2, 16000, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([16000, 9000])
    with torch.no_grad():
        scores = model.ctc.log_softmax(model.encode(speech, lengths)[0])
    blank, *others = model.token_list
    student = [blank, *reversed(others)]
    teacher = Teacher(model, student)
    names = [student[i] for i in teacher.token_ids]
    assert names == [blank, *(t for t in student if is_phone(t))]
    expected = scores[..., [model.token_list.index(name) for name in names]]
    torch.testing.assert_close(teacher(speech, lengths), expected.log_softmax(-1))


def test_student_alone_learns_and_is_kept(corpus, tmp_path):
    module = module_of(corpus, tmp_path)
    teacher = module.model.teacher
    frozen = {k: v.clone() for k, v in teacher._model.state_dict().items()}
    plain = module_of(corpus, tmp_path, teacher=None)
    assert module.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.model.state_dict().items():  # begin alike
        assert torch.equal(module.model.state_dict()[name], value), name
    module.train()
    assert not any(part.training for part in teacher._model.modules())
    data = module.dataset("train")
    batch = collate([data[key] for key in data.plan(module.batch_options, 0).batch(0)])
    (loss, stats, _), (expected, _, _) = (
        each.model(**batch.arguments()) for each in (module, plain)
    )
    apart = stats["loss_teacher"].item()
    assert apart > 0.1
    assert loss.item() == pytest.approx(expected.item() + 2.0 * apart, rel=1e-5)
    loss.backward(), expected.backward()
    grads = [
        torch.cat([p.grad.flatten() for p in each.parameters() if p.grad is not None])
        for each in (module, plain)
    ]
    assert not torch.allclose(*grads)
    assert all(p.grad is None for p in teacher._model.parameters())
    now = teacher._model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert copy.deepcopy(module.model).teacher is teacher  # as averages of weights do


def go_on(corpus, exp, **changes):
    settings = exp.parent / "train.yaml"
    settings.write_text(yaml.safe_dump(taught(corpus) | {"max_epoch": 1} | changes))
    return run.train_experiment(
        config.load(settings),
        train_folder=corpus / "dump/train",
        valid_folder=corpus / "dump/dev",
        token_dir=corpus / "tokens",
        stats=None,
        exp=exp,
    )


def test_training_goes_on_with_the_same_teacher_only(corpus, tmp_path):
    exp = tmp_path / "exp"
    go_on(corpus, exp)
    weights = torch.load(exp / "1epoch.pth", weights_only=True)
    stored = yaml.safe_load((exp / "config.yaml").read_text())
    assert stored["model"] == "espnet_ctc" and "teacher" not in stored["model_conf"]
    assert load_model(find_model(exp)).teacher is None  # it decodes without one
    first, last = sorted((exp / "checkpoints").glob("*.ckpt"))
    saved = torch.load(last, weights_only=True)["state_dict"]
    assert saved.keys() == {f"model.{name}" for name in weights}
    # a break after the second of three updates
    last.unlink(), (exp / "1epoch.pth").unlink(), (exp / "history.jsonl").unlink()
    go_on(corpus, exp)
    again = torch.load(exp / "1epoch.pth", weights_only=True)
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    assert first.exists()

    other = make_experiment(tmp_path / "other", corpus / "tokens", seed=4)
    with pytest.raises(ExperimentError, match=r"model_conf.teacher .*, now "):
        go_on(corpus, exp, **taught(corpus, teacher=str(other)))
    with pytest.raises(ExperimentError, match=r"teacher_weight 2.0, now 0.1"):
        go_on(corpus, exp, **taught(corpus, teacher_weight=0.1))
    kept = shutil.copytree(corpus / "teacher/exp", tmp_path / "kept")
    try:
        shutil.copy(other / "valid.loss.ave.pth", corpus / "teacher/exp")
        with pytest.raises(ExperimentError, match=r"something else: teacher \("):
            go_on(corpus, exp)
    finally:
        shutil.copytree(kept, corpus / "teacher/exp", dirs_exist_ok=True)


def test_missing_teacher_is_told_before_a_folder_is_made(corpus, tmp_path):
    missing = taught(corpus, teacher=str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        go_on(corpus, tmp_path / "exp", **missing)
    assert not (tmp_path / "exp/config.yaml").exists()


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (CTC_SETTINGS, {}, "has no decoder; expected a POWSM"),
        (SETTINGS, {"model_conf": {"ctc_weight": 0.0}}, "has no CTC head to learn"),
        (SETTINGS, {"ctc_target": "text"}, "with ctc_target: text, expected phones"),
        (
            SETTINGS,
            {"frontend_conf": SETTINGS["frontend_conf"] | {"hop_length": 320}},
            "has a frame every 80 ms, expected 40: the same frontend_conf",
        ),
    ],
)
def test_teacher_that_does_not_fit(corpus, tmp_path, base, changes, message):
    other = make_experiment(tmp_path, corpus / "tokens", base=base | changes)
    with pytest.raises(CheckpointError, match=message):
        module_of(corpus, tmp_path, teacher=str(other))


def test_teacher_of_other_phones(corpus, tmp_path):
    module = module_of(corpus, tmp_path)
    student = module.model
    student.token_list = [*student.token_list, "/ʘ/", "/ǃ/"]
    with pytest.raises(CheckpointError, match=r"exp has no token for /ʘ/ /ǃ/ of the"):
        Teacher.load(str(corpus / "teacher/exp"), student, "phones")


def test_espnets_loop_refuses_what_only_ours_does(corpus, tmp_path):
    conf = {"consistency_weight": 0.2}
    args = make_args(corpus / "tokens", tmp_path, taught(corpus, **conf))
    with pytest.raises(ConfigError) as refused:
        stock.stock_settings(args)
    assert str(refused.value) == (
        "only our own loop reads model_conf.consistency_weight model_conf.teacher: "
        "remove it, or train with --trainer powsm"
    )
