"""An experiment is what it was trained on: refused by name, with nothing written."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from dump_builder import make_dump
from tiny_model import SETTINGS, make_tokens

from powsm.files.lock import OwnedError, owned
from powsm.train import config, run
from powsm.train.checkpoints import (
    checkpoint_to_resume,
    checkpoints,
    newest_checkpoint,
)
from powsm.train.experiment.go_on import GoOnError, origin
from powsm.train.experiment.record import ExperimentError
from powsm.train.memory import TrainingError

CHANGES = {
    "normalize": "global_mvn",
    "num_iters_per_epoch": 1,
    "max_epoch": 2,
    "checkpoint_every_n_updates": 1,
    "keep_nbest_models": 1,
}


def write_stats(path: Path, mean: float) -> None:
    sums = {"sum": np.full(80, 100 * mean), "sum_square": np.full(80, 1000.0)}
    np.savez(path, count=100, **sums)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A recipe's folder with an experiment of two epochs."""
    root = tmp_path_factory.mktemp("recipe")
    make_dump(root / "dump/train", [0.6, 0.8, 1.0, 0.7], seed=1)
    make_dump(root / "dump/dev", [0.6], seed=2)
    for name in ("train", "dev"):
        record = {"policy": "strict", "version": "strict/1", "text_policy": "fix"}
        (root / "dump" / name / "normaliser.json").write_text(json.dumps(record))
    make_tokens(root / "dump/train", root / "tokens")
    write_stats(root / "stats.npz", 0.0)
    (root / "train.yaml").write_text(yaml.safe_dump(SETTINGS | CHANGES))
    go_on(root)
    return root


@pytest.fixture
def recipe(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "recipe", symlinks=True))


def go_on(
    root: Path, *overrides: str, exp: str = "exp", goes_on_from: str = ""
) -> Path:
    return run.train_experiment(
        config.load(root / "train.yaml", overrides),
        train_folder=root / "dump/train",
        valid_folder=root / "dump/dev",
        token_dir=root / "tokens",
        stats=root / "stats.npz",
        exp=root / exp,
        goes_on_from=root / goes_on_from if goes_on_from else None,
    )


def content(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def swap_two_tokens(root: Path) -> None:
    path = root / "tokens/tokens.txt"
    lines = path.read_text().splitlines()
    lines[-3], lines[-2] = lines[-2], lines[-3]  # as many as before
    path.write_text("\n".join(lines) + "\n")


def other_languages(root: Path) -> None:
    shutil.rmtree(root / "dump/train")
    make_dump(root / "dump/train", [0.6, 0.8, 1.0, 0.9], seed=5)
    shutil.copy(root / "dump/dev/normaliser.json", root / "dump/train")


def other_text(root: Path) -> None:
    """As long as before, word for word."""
    path = root / "dump/train/text.ctc"
    first = path.read_text().splitlines()[0].split("/")[1]
    edit(path, f"/{first}/", f"/{'t' if first != 't' else 'k'}/")


def other_policy(root: Path) -> None:
    edit(root / "dump/train/normaliser.json", '"strict"', '"released"')


def edited_yaml(root: Path) -> None:
    edit(root / "train.yaml", "lr: 0.003", "lr: 0.001")


REFUSED = {
    "optim_conf.lr 0.003, now 0.001": edited_yaml,
    "token ": swap_two_tokens,
    "policy strict, now released": other_policy,
    "training set (": other_languages,
    "training set ( ": other_text,
    "statistics (": lambda root: write_stats(root / "stats.npz", 0.5),
    "SentencePiece model (": lambda root: (root / "tokens/bpe.model").write_bytes(
        (root / "tokens/bpe.model").read_bytes() + b"\0"
    ),
    "validation set (": lambda root: edit(root / "dump/dev/text", "<pr>", "<PR>"),
    "max_epoch 1, but 2 epochs are done": ["max_epoch=1"],
    "seed 1, now 2": ["seed=2"],
    "model_conf.ctc_weight 0.3, now 0.5": ["model_conf.ctc_weight=0.5"],
    "encoder_conf.num_blocks 2, now 3": ["encoder_conf.num_blocks=3"],
    "model_conf.guided_attention_weight not set, now 1.0": [
        "model_conf.guided_attention_weight=1.0"
    ],
    "tasks not set, now ['pr']": ["tasks=[pr]"],
    "ctc_target phones, now text": ["ctc_target=text"],
    "stats_window own, now published": ["stats_window=published"],
    "augment.speed not set, now [0.9]": ["augment.speed=[0.9]"],
    "batch_conf: 6 s of audio an update, now 9": ["batch_conf.update_batches=3"],
    "batch_conf.language_temperature not set, now 2.0": [
        "batch_conf.language_temperature=2.0"
    ],
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_differs_is_named_and_nothing_is_written(recipe, named):
    change = REFUSED[named]
    overrides = change if isinstance(change, list) else []
    if callable(change):
        change(recipe)
    before = content(recipe / "exp")
    with pytest.raises(ExperimentError) as refused:
        go_on(recipe, *overrides)
    message = str(refused.value)
    assert named.rstrip() in message and "\n" not in message
    assert "--exp_name" in message and "max_epoch upwards" in message
    assert content(recipe / "exp") == before


def test_other_noise_in_the_folder_is_named(recipe):
    """Which recording is drawn follows from the names and lengths of all of them."""
    noise = recipe / "noise"
    noise.mkdir()
    write_noise = functools.partial(soundfile.write, samplerate=16_000)
    write_noise(noise / "fan.wav", np.full(800, 0.1))
    augment = f"augment={{noise: {{folder: {noise}, prob: 1}}}}"
    go_on(recipe, augment, exp="noisy")
    (noise / "fan.wav").touch()
    go_on(recipe, augment, exp="noisy")
    write_noise(noise / "rain.wav", np.full(800, 0.1))
    with pytest.raises(ExperimentError, match=rf"something else: noise \({noise}\)"):
        go_on(recipe, augment, exp="noisy")


def test_other_weights_in_the_same_file_are_named(recipe):
    path = recipe / "utt2weight"
    first = (recipe / "dump/train/wav.scp").read_text().split("_pr ")[0].split()[-1]
    utt_id = first.removesuffix("_asr").removesuffix("_g2p").removesuffix("_p2g")
    path.write_text(f"{utt_id} 2\n")
    go_on(recipe, f"utt2weight={path}", exp="weighted")
    go_on(recipe, f"utt2weight={path}", exp="weighted")
    path.write_text(f"{utt_id} 3\n")
    with pytest.raises(
        ExperimentError, match=rf"something else: utt2weight \({path}\)"
    ):
        go_on(recipe, f"utt2weight={path}", exp="weighted")
    with pytest.raises(ExperimentError, match="utt2weight not set, now"):
        go_on(recipe, f"utt2weight={path}")


def test_several_differences_are_named_at_once(recipe):
    with pytest.raises(ExperimentError, match="seed 1, now 2.*training set"):
        other_text(recipe)
        go_on(recipe, "seed=2")


def test_what_may_change_goes_on(recipe):
    """More epochs, another cut of the same update, other places of the same files."""
    moved = recipe.with_name("moved")
    recipe.rename(moved)
    write_stats(moved / "stats.npz", 0.0)  # again: the file has another time
    go_on(
        moved,
        *("max_epoch=3", "log_interval=7", "keep_nbest_models=2"),
        *("batch_conf.batch_seconds=1.5", "batch_conf.update_batches=4"),
    )
    assert (moved / "exp/3epoch.pth").exists()


def test_an_experiment_without_weights_may_change(recipe):
    shutil.rmtree(recipe / "exp/checkpoints")
    for path in (recipe / "exp").glob("*.pth"):
        path.unlink()
    (recipe / "exp/history.jsonl").unlink()
    go_on(recipe, "seed=2", "max_epoch=1")
    assert yaml.safe_load((recipe / "exp/config.yaml").read_text())["seed"] == 2


def test_a_training_that_failed_at_once_leaves_no_record_that_binds_the_next(recipe):
    """Data made anew after it were once said to be something else on going on."""
    exp = recipe / "exp"
    for path in [*exp.glob("*.pth"), *exp.glob("checkpoints/*")]:
        path.unlink()
    record = exp / "trained_on.json"
    earlier = record.read_text()
    other_text(recipe)
    go_on(recipe)
    assert record.read_text() != earlier
    go_on(recipe, "max_epoch=3")


def test_an_experiment_of_an_earlier_version_goes_on_and_says_what_is_not_compared(
    recipe, caplog
):
    caplog.set_level("INFO", logger="powsm")
    (recipe / "exp/trained_on.json").unlink()
    go_on(recipe)
    (line,) = [m for m in caplog.messages if "not compared" in m]
    assert "statistics and corpus (no trained_on.json)" in line
    assert not (recipe / "exp/trained_on.json").exists()  # it is not known
    with pytest.raises(ExperimentError, match="seed 1, now 2"):
        go_on(recipe, "seed=2")
    swap_two_tokens(recipe)
    with pytest.raises(ExperimentError, match="token .* now "):
        go_on(recipe)


HOLDER = """
import sys, time
from pathlib import Path
from powsm.files.lock import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_training_in_the_same_folder_is_refused(recipe):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(recipe / "exp")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        before = content(recipe / "exp")
        with pytest.raises(OwnedError, match=f"is being written by pid {holder.pid}"):
            go_on(recipe)
        assert content(recipe / "exp") == before
    finally:
        holder.kill()
        holder.wait()
    with owned(recipe / "exp"):  # it ended with its process
        pass


def tiny(weights: Path) -> torch.nn.Module:
    """A module with the weights of the experiment, without building the model."""
    module = torch.nn.Module()
    state = torch.load(weights, weights_only=True)
    module.state_dict = lambda: state
    return module


def damage(path: Path, how: str) -> None:
    size = path.stat().st_size
    if how == "truncated":
        os.truncate(path, size // 2)
    elif how == "empty":
        os.truncate(path, 0)
    elif how == "foreign":
        torch.save({"weights": torch.ones(3)}, path)
    elif how == "text":
        path.write_text("not a checkpoint\n" * 100)
    else:
        saved = torch.load(path, weights_only=True)
        name = "model.decoder.output_layer.bias"
        if how == "nan":
            saved["state_dict"][name][0] = torch.nan
        else:
            saved["state_dict"][name] = torch.zeros(3)
        torch.save(saved, path)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("truncated", "is damaged or half-written"),
        ("empty", "is damaged or half-written (0 bytes)"),
        ("text", "is damaged or half-written"),
        ("foreign", "is not one of this training"),
        ("nan", "holds NaN or infinity in decoder.output_layer.bias"),
        ("shape", "decoder.output_layer.bias has shape (3,), not"),
    ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_taken(
    recipe, caplog, how, named
):
    newest, before = checkpoints(recipe / "exp")
    model = tiny(recipe / "exp/2epoch.pth")
    assert checkpoint_to_resume(recipe / "exp", model) == newest
    damage(newest, how)
    assert checkpoint_to_resume(recipe / "exp", model) == before
    (line,) = [m for m in caplog.messages if str(newest) in m]
    assert named in line
    damage(before, how)
    with pytest.raises(TrainingError, match="no checkpoint can be used") as refused:
        checkpoint_to_resume(recipe / "exp", model)
    message = str(refused.value)
    assert newest.name in message and before.name in message and "\n" not in message


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(recipe, trained):
    """To the weights that it would have had."""
    damage(newest_checkpoint(recipe / "exp"), "truncated")
    (recipe / "exp/2epoch.pth").unlink()
    go_on(recipe)
    for name in ("2epoch.pth",):
        ours, theirs = (
            torch.load(root / "exp" / name, weights_only=True)
            for root in (recipe, trained)
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_two_checkpoints_are_left_however_often_a_run_goes_on(recipe):
    for epoch in (3, 4, 5):
        go_on(recipe, f"max_epoch={epoch}")
    names = [path.name for path in checkpoints(recipe / "exp")]
    assert names == ["step000000005.ckpt", "step000000004.ckpt"]


# --- an experiment that goes on from another, as "0.3, then 0.5" of table 5 -----------


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def test_going_on_is_as_if_the_first_training_had_gone_on(recipe):
    """Optimiser, schedule and place in the data are those of the training before."""
    go_on(recipe, "max_epoch=3", exp="next", goes_on_from="exp")
    go_on(recipe, "max_epoch=3")
    ours, theirs = (weights(recipe / f"{exp}/3epoch.pth") for exp in ("next", "exp"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert origin(recipe / "next") == {"exp": "exp", "epoch": 2, "updates": 2}
    assert origin(recipe / "exp") is None


def test_another_weight_of_ctc_is_meant_there_and_nowhere_else(recipe):
    more = ("model_conf.ctc_weight=0.5", "max_epoch=3")
    with pytest.raises(ExperimentError, match="ctc_weight 0.3, now 0.5"):
        go_on(recipe, *more)
    before = content(recipe / "exp")
    go_on(recipe, *more, exp="next", goes_on_from="exp")
    assert content(recipe / "exp") == before
    saved = yaml.safe_load((recipe / "next/config.yaml").read_text())
    assert saved["model_conf"]["ctc_weight"] == 0.5 and saved["max_epoch"] == 3
    history = (recipe / "next/history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in history] == [1, 2, 3]
    # the average is over its own epochs
    assert sorted(p.name for p in (recipe / "next").glob("*epoch.pth")) == [
        "3epoch.pth"
    ]
    # it goes on by itself, with the same command and without the option
    go_on(recipe, *more, exp="next", goes_on_from="exp")
    go_on(recipe, more[0], "max_epoch=4", exp="next")
    with pytest.raises(ExperimentError, match="ctc_weight 0.5, now 0.3"):
        go_on(recipe, "max_epoch=5", exp="next", goes_on_from="exp")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ((), {}, "max_epoch is 2, but .*exp has 2 epochs already; raise it"),
        (("max_epoch=3", "seed=7"), {}, "seed 1, now 7.*model_conf.ctc_weight"),
        (("max_epoch=3",), {"goes_on_from": "none"}, "no checkpoints/step"),
        (("max_epoch=3",), {"exp": "exp"}, "cannot go on from itself"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused(recipe, changes, options, message):
    with pytest.raises((GoOnError, ExperimentError), match=message):
        go_on(recipe, *changes, **{"exp": "next", "goes_on_from": "exp"} | options)
    assert not list((recipe / "next").glob("**/*.ckpt"))


def test_training_that_is_not_finished_is_not_gone_on_from(recipe):
    edit(recipe / "exp/config.yaml", "max_epoch: 2", "max_epoch: 4")
    with pytest.raises(GoOnError, match="is at epoch 2 of 4, update 2"):
        go_on(recipe, "max_epoch=5", exp="next", goes_on_from="exp")


def test_experiment_with_weights_of_its_own_is_not_written_over(recipe):
    shutil.copytree(recipe / "exp", recipe / "next")
    with pytest.raises(GoOnError, match="next has weights and began anew"):
        go_on(recipe, "max_epoch=3", exp="next", goes_on_from="exp")


def test_other_weights_to_begin_with_are_another_training(recipe):
    """Models of the same name and size, such as two that were packed."""
    first = recipe / "init.pth"
    (kept,) = (recipe / "exp").glob("*epoch.pth")
    shutil.copy(kept, first)
    how = (f"init_param=[{first}]", "max_epoch=1")
    go_on(recipe, *how, exp="begun")
    go_on(recipe, *how, exp="begun")
    before = content(recipe / "begun")
    state = torch.load(kept, weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, first)
    with pytest.raises(
        ExperimentError, match=r"something else: first weights \(.*init"
    ):
        go_on(recipe, *how, exp="begun")
    assert content(recipe / "begun") == before
