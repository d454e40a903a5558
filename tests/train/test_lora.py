"""LoRA: what is trained, what stays to the bit, and that nobody else needs to know."""

import shutil
import sys

import pytest
import torch
from dump_builder import make_dump
from espnet2.tasks.s2t import S2TTask
from tiny_model import CTC_SETTINGS, SETTINGS, make_args, make_experiment, make_tokens

from powsm.model.build import task_of_model
from powsm.model.find import CheckpointError
from powsm.model.start_from import ADDED_FILE, added_tokens, start_from
from powsm.prepare.index import ExampleIndex
from powsm.publish.pack import pack
from powsm.settings import ConfigError
from powsm.train.dataset import UtteranceDataset, collate, text_encoder
from powsm.train.experiment.record import ExperimentError, check_experiment
from powsm.train.memory import TrainingError
from powsm.train.parts.adapters import Lora, add_adapters, faults, merged_state
from powsm.train.run import train
from powsm.vocabulary.tokenizer import read_token_list

LORA = {"rank": 2, "alpha": 4, "target_modules": ["linear_q", "linear_v"]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A model of two languages, and a third whose tokens were added to it in `init`."""
    root = tmp_path_factory.mktemp("lora")
    make_dump(root / "old", [0.6, 0.8, 1.0, 0.7], seed=1)
    make_dump(root / "new/train", [0.7, 0.9, 0.8, 0.6], langs=("rus",), seed=1)
    make_dump(root / "new/dev", [0.8], langs=("rus",), seed=2)
    for name in ("text", "text.prev", "text.ctc"):
        path = root / "new/train" / name
        path.write_text(path.read_text().replace("/t/", "/tʲ/"))
    record = '{"policy": "strict", "version": "strict/1", "text_policy": "fix"}'
    (root / "new/train/normaliser.json").write_text(record)
    make_experiment(root, make_tokens(root / "old", root / "tokens"))
    start_from(str(root / "exp"), root / "new/train", root / "init", extend_vocab=True)
    return root


def settings(corpus, exp, **changes):
    exp.mkdir(exist_ok=True)
    changes = {"lora": LORA, "init_param": [str(corpus / "init/init.pth")]} | changes
    return make_args(corpus / "init", exp, **changes)


def run(corpus, exp, **changes):
    args = settings(corpus, exp, **changes)
    folders = {f"{n}_folder": corpus / "new" / d for n, d in
               (("train", "train"), ("valid", "dev"))}  # fmt: skip
    train(args, exp=exp, **folders)
    return exp


@pytest.fixture(scope="module")
def tuned(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("exp") / "tuned")


def weights(path):
    return torch.load(path, weights_only=True)


def test_only_adapted_layers_and_new_tokens_change(corpus, tuned):
    before, after = weights(corpus / "init/init.pth"), weights(tuned / "2epoch.pth")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    ends = {".".join(key.split(".")[-2:]) for key in changed}
    rows = {"0.weight", "output_layer.weight", "output_layer.bias"}
    rows |= {"ctc_lo.weight", "ctc_lo.bias"}  # and of the decoder's embedding
    assert ends == {"linear_q.weight", "linear_v.weight"} | rows
    new = set(added_tokens(str(corpus / "init/init.pth")))
    assert {"<rus>", "/tʲ/"} <= new
    is_new = torch.tensor(
        [t in new for t in read_token_list(corpus / "init/tokens.txt")]
    )
    for key in ("decoder.embed.0.weight", "ctc.ctc_lo.bias"):
        assert torch.equal(before[key][~is_new], after[key][~is_new])
        assert not torch.equal(before[key][is_new], after[key][is_new])


def test_break_changes_nothing(corpus, tuned, tmp_path):
    run(corpus, tmp_path / "broken", max_epoch=1)
    # the model that it began with is not asked for again, but for its tokens
    run(corpus, tmp_path / "broken")
    whole, broken = (weights(x / "2epoch.pth") for x in (tuned, tmp_path / "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_packed_model_loads_in_stock_espnet_without_the_library(
    corpus, tuned, tmp_path, monkeypatch
):
    exp = tmp_path / "tuned"
    shutil.copytree(tuned, exp, symlinks=True)
    monkeypatch.setitem(sys.modules, "loralib", None)  # its import fails
    packed = pack(exp, train_set=corpus / "new/train")
    (config,) = packed.folder.glob("exp/*/config.yaml")
    (pth,) = packed.folder.glob("exp/*/*.pth")
    monkeypatch.chdir(packed.folder)
    model, args = S2TTask.build_model_from_file(config, pth)
    assert args.model == "espnet" and not any("lora" in k for k in model.state_dict())
    average = weights(tuned / "valid.loss.ave.pth")
    assert all(torch.equal(x, average[k]) for k, x in model.state_dict().items())


OF_PHONES = {"model_conf": SETTINGS["model_conf"] | {"ctc_vocab": "phones"}}
HEADS_OF_PHONES = {"interctc_vocab": "phones"}


@pytest.mark.parametrize(
    ("base", "heads"),
    [
        (SETTINGS, ()),
        (CTC_SETTINGS, ()),
        (SETTINGS, ("ctc_lo",)),
        (SETTINGS, ("ctc_lo", "output_layer")),
        (SETTINGS | OF_PHONES, ("ctc_lo",)),
        (CTC_SETTINGS, ("ctc_lo", "conditioning_layer")),
        (
            CTC_SETTINGS | {"model_conf": CTC_SETTINGS["model_conf"] | HEADS_OF_PHONES},
            ("ctc_lo", "conditioning_layer"),
        ),
    ],
)
def test_merged_model_computes_the_same(corpus, tmp_path, base, heads):
    """With adapters on the layers whose rows are read one by one as well."""
    lora = LORA | {"target_modules": [*LORA["target_modules"], *heads]}
    args = make_args(corpus / "init", tmp_path, base, lora=lora)
    index = ExampleIndex(corpus / "new/train")
    data = UtteranceDataset(index, text_encoder(args))
    batch = collate([data[utt, 0, 0] for utt in range(3)])
    torch.manual_seed(0)
    adapted = task_of_model(args.model).build_model(args).eval()
    plain = adapted.state_dict()
    before = adapted(**batch.arguments())[0]
    new = added_tokens(str(corpus / "init/init.pth"))
    add_adapters(adapted, Lora.of(lora), new)
    assert not adapted.training  # as it was
    assert torch.equal(adapted(**batch.arguments())[0], before)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    for p in trained:
        torch.nn.init.normal_(p, std=0.3)
    said = adapted(**batch.arguments())[0]
    assert abs(said - before) > 0.01
    said.backward()
    assert all(p.grad is not None and p.grad.any() for p in trained)
    state = merged_state(adapted)
    assert state.keys() == plain.keys()
    merged = task_of_model(args.model).build_model(args).eval()
    merged.load_state_dict(state)
    loss = merged(**batch.arguments())[0]
    assert float(loss.detach()) == pytest.approx(float(said.detach()), rel=1e-5)
    speech = (batch.speech, batch.speech_lengths)
    if base is SETTINGS:
        ours, theirs = (m.encode(*speech)[0] for m in (adapted, merged))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    # validation switches to evaluation and back: the library's own merging would round
    frozen = {
        n: p.clone() for n, p in adapted.named_parameters() if not p.requires_grad
    }
    adapted.train()
    adapted.eval()
    now = dict(adapted.named_parameters())
    assert all(torch.equal(now[name], p) for name, p in frozen.items())


def test_other_settings_and_faults_are_refused(corpus, tuned, tmp_path):
    folders = {"train_folder": corpus / "new/train", "valid_folder": corpus / "new/dev"}
    for changes, named in (
        ({"lora": LORA | {"rank": 3}}, "lora.rank 2, now 3"),
        ({"lora": {}}, "lora.alpha 4, now not set"),
    ):
        args = settings(corpus, tmp_path, **changes)
        with pytest.raises(ExperimentError, match=named):
            check_experiment(args, exp=tuned, **folders)
    for changes, error, named in (
        ({"init_param": []}, ConfigError, "lora trains adapters of a trained model"),
        (
            {"lora": LORA | {"target_modules": ["linear_x"]}},
            CheckpointError,
            "target_modules: linear_x: no layer has .* linear layers end in .*linear_q",
        ),
        (
            {"lora": LORA | {"target_modules": ["embed.0"]}},
            CheckpointError,
            "decoder.embed.0 is a Embedding, expected Linear",
        ),
        (
            {"freeze_param": ["encoder", "ctc"], "lora": {}},
            TrainingError,
            "ctc_only_updates trains encoder and CTC head",
        ),
    ):
        with pytest.raises(error, match=named):
            run(corpus, tmp_path / "refused", **changes)
    shutil.copytree(corpus / "init", tmp_path / "earlier")
    (tmp_path / "earlier" / ADDED_FILE).unlink()
    with pytest.raises(CheckpointError, match="no added_tokens.txt says which"):
        added_tokens(str(tmp_path / "earlier/init.pth"))


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"rnk": 2}, "lora.rnk: unknown; did you mean 'rank'?"),
        ({"rank": 0}, "lora.rank: 0, expected 1 or more"),
        ({"alpha": 0.5}, "lora.alpha is 0.5, expected a whole number"),
        ({"target_modules": []}, "lora.target_modules: expected names"),
        ({"target_modules": "linear_q"}, "lora.target_modules is 'linear_q', expected"),
    ],
)
def test_fault_is_one_line(conf, told):
    (line,) = faults(conf)
    assert line.startswith(told)


def test_missing_library_is_one_line(monkeypatch):
    monkeypatch.setattr("powsm.train.parts.adapters.find_spec", lambda name: None)
    (line,) = faults({"rank": 2})
    assert line == "lora: loralib is not installed: pip install 'powsm[lora]'"
