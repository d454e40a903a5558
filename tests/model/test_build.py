"""A network built part by part is the one that ESPnet's task builds."""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dump_builder import make_dump
from published_model import make_published
from tiny_model import CTC_SETTINGS, make_args, make_tokens

from powsm.model.build import CTC_ONLY_MODELS, build, task_of_model
from powsm.model.find import find_model
from powsm.model.s2t import PowsmModel
from powsm.model.s2t_ctc import PowsmCtcModel
from powsm.settings import load_with_base, load_yaml
from powsm.train.config import stock_config

CONF = Path(__file__).parents[2] / "conf"
TRAIN_CONFIGS = sorted({*CONF.glob("train_*.yaml"), *CONF.glob("tuning/*.yaml")})
SMALL = {
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "cgmlp_linear_units": 32,
        "linear_units": 32,
        "num_blocks": 3,
    },
    "decoder_conf": {"attention_heads": 2, "linear_units": 32, "num_blocks": 2},
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    root = tmp_path_factory.mktemp("build")
    folder = make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_tokens(folder, root / "tokens")


def settings_of(path: Path, tokens: Path, out: Path) -> argparse.Namespace:
    """The settings of a training configuration, its layers made small and few."""
    conf = load_with_base(path)
    is_ctc_only = conf["model"] in CTC_ONLY_MODELS
    for part, sizes in SMALL.items():
        if part in conf or not (is_ctc_only and part == "decoder_conf"):
            conf[part] = conf.get(part, {}) | sizes
    if is_ctc_only:  # three blocks, two heads before the last
        for part in ("encoder_conf", "promptencoder_conf", "model_conf"):
            conf[part] = CTC_SETTINGS[part]
        return make_args(
            tokens, out, CTC_SETTINGS, **conf | {"normalize": "utterance_mvn"}
        )
    if conf["encoder_conf"].get("interctc_layer_idx"):
        conf["encoder_conf"]["interctc_layer_idx"] = [1, 2]
    if conf.get("normalize") == "global_mvn":
        frames = np.random.default_rng(0).normal(-10, 3, (200, 80))
        stats = out / "stats.npz"
        np.savez(stats, count=200, sum=frames.sum(0), sum_square=(frames**2).sum(0))
        conf["normalize_conf"] = {"stats_file": str(stats)}
    return make_args(tokens, out, **conf)


def both(config: dict) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The network by the builder and by the task, from one seed."""
    torch.manual_seed(3)
    own = build(config)
    torch.manual_seed(3)
    if config.get("model") in CTC_ONLY_MODELS:  # which the builder makes ours
        config = config | {"model": "powsm_ctc"}
    task = task_of_model(config.get("model"))
    return own, task.build_model(argparse.Namespace(**config))


def assert_same(own: torch.nn.Module, stock: torch.nn.Module) -> None:
    """Same class, same parameters under the same names, same outputs.

    Outputs to rounding: convolutions are computed in another layout of memory.
    """
    assert type(own) is type(stock)
    assert own.token_list == stock.token_list
    mine, theirs = own.state_dict(), stock.state_dict()
    assert list(mine) == list(theirs)
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
    if isinstance(own, PowsmCtcModel):
        return  # the same class with the same parameters; it encodes with a prompt
    speech = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)) / 10
    lens = torch.tensor([16_000, 12_000])
    ys = torch.tensor([[own.sos, 3, 4, 5], [own.sos, 4, 3, 2]])
    outputs = []
    for model in (own.eval(), stock.eval()):
        with torch.inference_mode():
            memory, memory_lens = model.encode(speech, lens)
            memory = memory[0] if isinstance(memory, tuple) else memory
            scores, _ = model.decoder(memory, memory_lens, ys, torch.tensor([4, 3]))
            outputs.append((memory, model.ctc.log_softmax(memory), scores))
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "path", TRAIN_CONFIGS, ids=lambda path: str(path.relative_to(CONF))
)
def test_every_training_configuration_is_built_as_by_the_task(
    path, tokens, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    args = settings_of(path, tokens, tmp_path)
    for config in (vars(args), stock_config(args)):  # in training, and as it is stored
        assert_same(*both(config | {"init": None}))
    assert "built by ESPnet's task" not in caplog.text


@pytest.mark.parametrize("normalize", ["global_mvn", "utterance_mvn", None])
def test_published_layout_is_built_as_by_the_task(tokens, tmp_path, normalize):
    files = find_model(make_published(tmp_path / "published", tokens))
    config = load_yaml(files.config_file)
    for part in ("encoder_conf", "decoder_conf"):
        config[part]["use_flash_attn"] = False
    config["normalize"] = normalize
    config["normalize_conf"] = (
        {"stats_file": str(files.stats_file)} if normalize == "global_mvn" else {}
    )
    config["init"] = None
    assert_same(*both(config))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("encoder", "rnn", "encoder=rnn"),
        ("preencoder", "linear", "preencoder=linear"),
        ("init", "xavier_uniform", "init=xavier_uniform"),
    ],
)
def test_what_the_table_lacks_is_built_by_the_task(
    tokens, tmp_path, caplog, key, value, told
):
    caplog.set_level(logging.INFO, "powsm.model.build")
    changes = {key: value}
    if key == "preencoder":
        changes["preencoder_conf"] = {"input_size": 80, "output_size": 40}
    if key == "encoder":
        changes["encoder_conf"] = {"hidden_size": 16, "output_size": 16}
    config = vars(make_args(tokens, tmp_path, **changes))
    own, stock = both(config)
    assert isinstance(own, PowsmModel)
    assert list(own.state_dict()) == list(stock.state_dict())
    (line,) = caplog.messages
    assert told in line


def test_attention_is_never_left_to_cudnn(tokens, tmp_path):
    torch.backends.cuda.enable_cudnn_sdp(True)
    build(vars(make_args(tokens, tmp_path)))
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_choice_that_nobody_knows_is_refused(tokens, tmp_path):
    config = vars(make_args(tokens, tmp_path)) | {"encoder": "rnnn", "init": None}
    with pytest.raises(ValueError, match="rnnn"):
        build(config)


def test_loading_a_model_leaves_the_task_and_its_imports_alone(tokens, tmp_path):
    """What only training and TTS need costs 5 CPU-seconds and more."""
    root = make_published(tmp_path / "published", tokens)
    program = (
        "import sys\n"
        "from powsm.model.find import find_model\n"
        "from powsm.model.weights import load_model\n"
        f"load_model(find_model({str(root)!r}))\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "espnet2.s2t.espnet_model" in loaded
    slow = {"espnet2.tasks.s2t", "scipy.stats", "matplotlib", "lhotse", "lightning"}
    assert not slow & loaded
