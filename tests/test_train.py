"""Training: what it writes, and that a break changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from dump_builder import make_dump
from espnet2.bin.s2t_inference import Speech2Text
from espnet2.tasks.s2t import S2TTask
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from tiny_model import SETTINGS, make_args, make_tokens

from powsm.index import ExampleIndex
from powsm.litmodel import TrainingError, text_encoder
from powsm.model import PowsmTask
from powsm.train import newest_checkpoint, train

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    make_dump(root / "dump/train", [0.6, 0.8, 1.0, 0.7, 0.9, 1.1, 0.5, 1.2], seed=1)
    make_dump(root / "dump/dev", [0.6, 0.9, 0.7], seed=2)
    make_tokens(root / "dump/train", root / "tokens")
    return root


def run(corpus: Path, exp: Path, **changes) -> Path:
    args = make_args(corpus / "tokens", exp, **changes)
    return train(
        args,
        train_folder=corpus / "dump/train",
        valid_folder=corpus / "dump/dev",
        exp=exp,
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """An experiment that ran to its end without a break."""
    exp = tmp_path_factory.mktemp("exp")
    run(corpus, exp)
    return exp


def test_experiment_folder_has_espnets_files(finished):
    assert {p.name for p in finished.glob("*.pth")} == {
        "1epoch.pth",
        "2epoch.pth",
        "valid.loss.ave_2best.pth",
        "valid.loss.ave.pth",
    }
    history = [json.loads(x) for x in (finished / "history.jsonl").open()]
    assert [(r["epoch"], r["updates"]) for r in history] == [(1, 3), (2, 6)]
    expected = {"loss", "loss_ctc", "loss_att", "acc", "per_ctc", "pfer_ctc_eng"}
    assert expected <= history[-1].keys()
    assert len(list((finished / "checkpoints").iterdir())) == 2  # the last two


def test_average_is_the_mean_of_the_epochs(finished):
    one, two = (weights(finished / f"{e}epoch.pth") for e in (1, 2))
    average = weights(finished / "valid.loss.ave_2best.pth")
    key = "decoder.output_layer.weight"
    torch.testing.assert_close(average[key], (one[key] + two[key]) / 2)


def test_stock_espnet_decodes_the_experiment(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["model"] == "espnet" and config["powsm"]["model"] == "powsm"
    decoder = Speech2Text(
        finished / "config.yaml",
        finished / "valid.loss.ave.pth",
        bpemodel=config["bpemodel"],
        beam_size=1,
        maxlenratio=-5,
        lang_sym="<eng>",
        task_sym="<pr>",
    )
    speech = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    for task in ("pr", "asr", "g2p", "p2g"):
        text, tokens, *_ = decoder(speech, task_sym=f"<{task}>")[0]
        assert tokens[:3] == ["<eng>", f"<{task}>", "<notimestamps>"]


def test_ctc_alone_comes_first_and_leaves_the_decoder_as_it_was(corpus, tmp_path):
    run(corpus, tmp_path, ctc_only_updates=3)  # an epoch of two
    set_all_random_seed(SETTINGS["seed"])
    fresh = PowsmTask.build_model(make_args(corpus / "tokens", tmp_path)).state_dict()
    first, second = (weights(tmp_path / f"{e}epoch.pth") for e in (1, 2))
    for key, value in fresh.items():
        if key.startswith("decoder."):
            assert torch.equal(first[key], value), key
    assert not torch.equal(first["ctc.ctc_lo.weight"], fresh["ctc.ctc_lo.weight"])
    moved = [k for k in fresh if not torch.equal(first[k], second[k])]
    assert "decoder.output_layer.weight" in moved
    assert "decoder.decoders.0.src_attn.linear_q.weight" in moved


def test_more_epochs_later_equal_all_at_once(corpus, finished, tmp_path):
    run(corpus, tmp_path, max_epoch=1)
    run(corpus, tmp_path, max_epoch=2)
    assert_same(tmp_path / "2epoch.pth", finished / "2epoch.pth")


def test_a_finished_run_is_not_trained_again(corpus, finished):
    before = (finished / "2epoch.pth").stat().st_mtime_ns
    run(corpus, finished)
    assert (finished / "2epoch.pth").stat().st_mtime_ns == before


def command(corpus: Path, exp: Path, **changes) -> list[str]:
    """local/train.py as stage 11 calls it."""
    exp.mkdir(parents=True, exist_ok=True)
    config = exp / "train.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | changes))
    return [
        *(str(ROOT / "local/train.py"), "--config", str(config)),
        *("--dump", str(corpus / "dump"), "--token_dir", str(corpus / "tokens")),
        *("--exp", str(exp)),
    ]


def test_kill_in_mid_epoch_and_resume_gives_the_same_weights(
    corpus, finished, tmp_path
):
    """SIGKILL after the checkpoint at update 2 or 4: in the middle of an epoch."""
    args = command(corpus, tmp_path)
    process = subprocess.Popen(
        [sys.executable, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while newest_checkpoint(tmp_path) is None and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert newest_checkpoint(tmp_path) is not None
    subprocess.run([sys.executable, *args], check=True, capture_output=True)
    assert_same(tmp_path / "2epoch.pth", finished / "2epoch.pth")


def test_two_ranks_train_to_the_weights_of_one(corpus, finished, tmp_path):
    args = command(corpus, tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "--nproc_per_node", "2", *args],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alone, together = weights(finished / "2epoch.pth"), weights(tmp_path / "2epoch.pth")
    for key in alone:
        torch.testing.assert_close(together[key], alone[key], rtol=1e-3, atol=1e-4)


def test_settings_with_faults_are_all_named_and_nothing_is_trained(corpus, tmp_path):
    args = command(corpus, tmp_path, max_epcoh=3, encoder_conf={"num_block": 2})
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown key 'max_epcoh'; did you mean 'max_epoch'?" in done.stderr
    assert "encoder_conf.num_block" in done.stderr and "num_blocks" in done.stderr
    assert not list(tmp_path.glob("*.pth"))


def test_text_becomes_the_tokens_of_espnets_preprocessor(corpus, tmp_path):
    args = make_args(corpus / "tokens", tmp_path)
    stock = S2TTask.build_preprocess_fn(args, train=True)
    encode = text_encoder(args)
    index = ExampleIndex(corpus / "dump/train")
    for utt in range(len(index)):
        for example in index.examples(utt):
            del example["id"]
            expected = stock._text_process(dict(example), 0)
            for name, ids in encode(example).items():
                np.testing.assert_array_equal(ids, expected[name], err_msg=name)


def test_random_loss_of_prompts_is_refused(corpus, tmp_path):
    conf = SETTINGS["preprocessor_conf"] | {"text_prev_apply_prob": 0.5}
    args = make_args(corpus / "tokens", tmp_path, preprocessor_conf=conf)
    with pytest.raises(TrainingError, match="text_prev_apply_prob is 0.5"):
        text_encoder(args)


def test_published_iterator_is_left_to_espnet(corpus, tmp_path):
    with pytest.raises(TrainingError, match="--trainer espnet"):
        run(corpus, tmp_path, iterator="published")
