"""Training the model without a decoder: our loop, ESPnet's loop, their tokens."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from espnet2.tasks.s2t_ctc import S2TTask, model_choices
from espnet2.train.preprocessor import S2TCTCPreprocessor
from forked import run_ranks, start
from powsm_command import run_verb
from tiny_model import CTC_SETTINGS, make_args, make_corpus

from powsm.cli.main import main
from powsm.decode.recogniser import Recogniser
from powsm.model.batch import Batch
from powsm.prepare.index import ExampleIndex
from powsm.settings import ConfigError, apply_overrides
from powsm.train import config
from powsm.train.checkpoints import newest_checkpoint
from powsm.train.dataset import UtteranceDataset, collate, text_encoder
from powsm.train.faults import faults
from powsm.train.lit import LitPowsm
from powsm.train.validation import Validation


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def command(corpus: Path, exp: Path, *options: str, **changes) -> list[str]:
    exp.mkdir(parents=True, exist_ok=True)
    (exp / "train.yaml").write_text(yaml.safe_dump(CTC_SETTINGS | changes))
    return [
        *("train", "--config", str(exp / "train.yaml")),
        *("--dump", str(corpus / "dump"), "--token_dir", str(corpus / "tokens")),
        *("--exp", str(exp), *options),
    ]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    exp = tmp_path_factory.mktemp("exp")
    run_verb(*command(corpus, exp))
    return exp


def test_run_ends_with_espnets_files_and_figures_of_the_last_head(finished):
    history = [json.loads(x) for x in (finished / "history.jsonl").open()]
    assert [(r["epoch"], r["updates"]) for r in history] == [(1, 3), (2, 6)]
    figures = {"loss_ctc", "loss_interctc_layer2", "loss_pr", "loss_p2g", "per_ctc"}
    assert figures <= history[-1].keys()
    for r in history:  # of CTC_SETTINGS: half of the last head, half of the other
        assert r["loss"] == pytest.approx(
            (r["loss_ctc"] + r["loss_interctc_layer2"]) / 2, rel=1e-5
        )
        assert r["loss_ctc"] > 0
    stored = yaml.safe_load((finished / "config.yaml").read_text())
    assert stored["model"] == "espnet_ctc" and stored["powsm"]["model"] == "powsm_ctc"
    one, two = (weights(finished / f"{n}epoch.pth") for n in (1, 2))
    still = [k for k in one if torch.equal(one[k], two[k])]
    # what learns nothing: the spectrogram's matrix
    assert [k for k in still if not k.startswith("frontend.")] == []


def test_kill_in_mid_epoch_and_resume_gives_the_same_weights(
    corpus, finished, tmp_path
):
    args = command(corpus, tmp_path)
    process = start(main, args, output=tmp_path / "printed")
    while newest_checkpoint(tmp_path) is None and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert newest_checkpoint(tmp_path) is not None
    run_verb(*args)
    resumed, expected = (weights(x / "2epoch.pth") for x in (tmp_path, finished))
    for key, value in expected.items():
        assert torch.equal(resumed[key], value), key


def test_two_ranks_train_to_the_weights_of_one(corpus, finished, tmp_path):
    run_ranks(2, main, command(corpus, tmp_path), folder=tmp_path)
    together, alone = (weights(x / "2epoch.pth") for x in (tmp_path, finished))
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=1e-3, atol=1e-4)
    figures = [
        [json.loads(line) for line in (exp / "history.jsonl").open()]
        for exp in (finished, tmp_path)
    ]
    for one, two in zip(*figures, strict=True):
        for key in ("loss", "loss_ctc", "loss_pr", "per_ctc", "pfer_ctc"):
            assert two[key] == pytest.approx(one[key], rel=1e-4), key


def test_levers_train_together_and_stock_refuses_heads_of_phones(
    corpus, tmp_path, monkeypatch
):
    switches = {"consistency_weight": 0.2, "interctc_vocab": "phones"}
    masks = {"apply_time_warp": False, "time_mask_width_ratio_range": [0.0, 0.1]}
    run_verb(
        *command(
            *(corpus, tmp_path),
            model_conf=CTC_SETTINGS["model_conf"] | switches,
            specaug="specaug",
            specaug_conf=masks | {"num_time_mask": 2},
            max_epoch=1,
        )
    )
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert stored["model"] == "powsm_ctc"
    assert stored["model_conf"]["interctc_vocab"] == "phones"
    assert stored["powsm"]["model_conf"] == switches
    model = Recogniser.load(tmp_path).model
    assert model.phones is not None and model.consistency_weight == 0.0
    monkeypatch.delitem(model_choices.classes, "powsm_ctc")  # as without ours
    with pytest.raises(ValueError, match="--model powsm_ctc"):
        S2TTask.build_model_from_file(tmp_path / "config.yaml")


def test_stock_loop_trains_it(corpus, tmp_path):
    left_out = ("batch_conf", "checkpoint_every_n_updates")
    settings = {k: v for k, v in CTC_SETTINGS.items() if k not in left_out} | {
        "iterator": "published",
        "batch_type": "unsorted",
        "batch_size": 4,
        "num_iters_per_epoch": 2,
        "best_model_criterion": [["valid", "total_count", "max"]],
        "keep_nbest_models": 2,
    }
    args = command(corpus, tmp_path)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    run_verb(*args)
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert stored["model"] == "espnet_ctc"
    assert weights(tmp_path / "valid.total_count.ave.pth")["embed.weight"].size(1) == 8


# ------------------------------------------------------------------ tokens


def test_tokens_are_those_of_espnets_preprocessor(corpus, tmp_path):
    args = make_args(corpus / "tokens", tmp_path, CTC_SETTINGS)
    conf = dict(args.preprocessor_conf)
    stock = S2TCTCPreprocessor(
        train=True,
        token_type="bpe",
        token_list=args.token_list,
        bpemodel=args.bpemodel,
        **conf,
    )
    encode = text_encoder(args)
    index = ExampleIndex(corpus / "dump/train")
    tasks = set()
    for utt in range(len(index)):
        for row in index.examples(utt):
            example = {k: v for k, v in row.items() if k != "id"}
            expected = stock._text_process(dict(example))
            prefix = expected.pop("prefix")
            got = encode(example)
            assert got.keys() == expected.keys()
            for name, ids in expected.items():
                np.testing.assert_array_equal(got[name], ids, err_msg=name)
            np.testing.assert_array_equal(got["text"][:2], prefix)
            tasks.add(row["id"].rpartition("_")[2])
    assert tasks == {"pr", "asr", "g2p", "p2g"}


def make_batch(corpus, args):
    index = ExampleIndex(corpus / "dump/train")
    data = UtteranceDataset(index, text_encoder(args))
    return collate([data[utt, 0, 0] for utt in range(3)])


def test_phones_of_an_example_begin_with_its_own_task(corpus, tmp_path):
    args = make_args(corpus / "tokens", tmp_path, CTC_SETTINGS)
    batch = make_batch(corpus, args)
    targets = batch.text_ctc[batch.ctc_rows]
    assert torch.equal(targets[:, :2], batch.text[:, :2])
    assert len(set(batch.text[:, 1].tolist())) == 4


@pytest.mark.parametrize(("heads", "per"), [([True, False], 50), ([True, True], 0)])
def test_phone_errors_are_against_what_the_last_head_is_taught(
    corpus, tmp_path, monkeypatch, heads, per
):
    """It says the phones of the CTC target; the text has another in place of one."""
    model_conf = CTC_SETTINGS["model_conf"] | {"ctc_asr_only": heads}
    args = make_args(corpus / "tokens", tmp_path, CTC_SETTINGS, model_conf=model_conf)
    model = LitPowsm(args, corpus / "dump/train", corpus / "dump/dev").model.eval()
    lang, pr, p, t = map(model.token_list.index, ("<eng>", "<pr>", "/p/", "/t/"))
    tokens = {"text": [lang, pr, p, t], "text_prev": [model.na]}
    tokens["text_ctc"] = [lang, pr, p, p]
    ids = {name: torch.tensor([row]) for name, row in tokens.items()}
    sizes = {f"{name}_lengths": torch.tensor([len(tokens[name])]) for name in tokens}
    speech = torch.zeros(1, 16000), torch.tensor([16000])
    batch = Batch(*speech, **ids, **sizes, utt_ids=["a_1_eng"])
    path = torch.nn.functional.one_hot(torch.tensor([[p, 0, p]]), model.vocab_size)
    said = {3: path.float().log_softmax(-1)}, torch.tensor([3])
    monkeypatch.setattr(model, "heads", lambda *_, **__: said)
    validation = Validation(model, "phones")
    validation.add(batch, {"loss": torch.zeros(())})
    assert validation.figures(1)["per_ctc"] == per


def test_language_is_told_as_often_as_the_settings_say(corpus, tmp_path):
    conf = CTC_SETTINGS["preprocessor_conf"]
    told = {}
    for share in (1.0, 0.5, 0.0):
        args = make_args(
            *(corpus / "tokens", tmp_path, CTC_SETTINGS),
            preprocessor_conf=conf | {"lang_apply_prob": share},
        )
        model = LitPowsm(args, corpus / "dump/train", corpus / "dump/dev").model
        text = make_batch(corpus, args).text[:1].expand(2000, -1)
        torch.manual_seed(0)
        prefix = model.train()._prefix(text)
        assert torch.equal(prefix[:, 1], text[:, 1])
        assert set(prefix[:, 0].tolist()) <= {1, int(text[0, 0])}  # 1 is <unk>
        told[share] = (prefix[:, 0] == text[:, 0]).double().mean().item()
        assert torch.equal(model.eval()._prefix(text), text[:, :2])
    assert (told[1.0], told[0.0]) == (1.0, 0.0)
    assert told[0.5] == pytest.approx(0.5, abs=0.05)  # 4 standard deviations


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("ctc_only_updates=5", "ctc_only_updates: the model has no decoder"),
        ("ctc_target=text", "ctc_target: text, expected phones or phones_with_length"),
        ("model_conf.ctc_asr_only=[true]", "ctc_asr_only: 1 values, expected 2"),
        ("encoder_conf.interctc_layer_idx=[3]", "[3], expected blocks between 1 and 2"),
        ("encoder_conf.use_cross_attention=[true]", "1 values, expected one for each"),
        ("model_conf.ctc_weight=0.3", "model_conf.ctc_weight: powsm_ctc does not take"),
        (
            "promptencoder_conf.attention_heads=3",
            "3 does not divide prompt",
        ),
        ("decoder=transformer", "unknown key 'decoder'"),
    ],
)
def test_settings_that_it_cannot_have_are_refused(tmp_path, pair, message):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(CTC_SETTINGS))
    with pytest.raises(ConfigError) as refused:
        config.load(path, [pair])
    assert message in str(refused.value).replace("interctc_layer_idx: 3", "[3]")


def test_settings_of_the_published_kinds_pass():
    for pair in (
        "encoder_conf.use_cross_attention=true",
        "encoder_conf.use_cross_attention=[0, 0, 1]",
        "model_conf={interctc_weight: 0.0, ctc_asr_only: [false]}",
        "ctc_target=phones_with_length",
    ):
        changed = apply_overrides(CTC_SETTINGS, [pair])
        assert faults(changed, config.get_parser("powsm_ctc")) == []


def test_prompts_that_are_dropped_at_random_are_refused(corpus, tmp_path):
    conf = CTC_SETTINGS["preprocessor_conf"] | {"text_prev_apply_prob": 0.5}
    args = make_args(corpus / "tokens", tmp_path, CTC_SETTINGS, preprocessor_conf=conf)
    with pytest.raises(ConfigError, match=r"text_prev_apply_prob is 0.5"):
        text_encoder(args)
