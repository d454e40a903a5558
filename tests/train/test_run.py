"""Training: what it writes, and that a break changes nothing."""

import json
import os
import shutil
import signal
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from dump_builder import make_dump
from espnet2.bin.s2t_inference import Speech2Text
from espnet2.tasks.s2t import S2TTask, model_choices
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from forked import run_ranks, start
from lightning.pytorch.callbacks import EMAWeightAveraging
from powsm_command import run_verb
from tiny_model import SETTINGS, make_args, make_corpus, make_tokens

from powsm.cli.main import main
from powsm.decode.profile import SearchOptions
from powsm.decode.recogniser import Recogniser
from powsm.decode.search import Searcher
from powsm.model.build import task_of_model
from powsm.model.ctc_heads import PhoneLinear
from powsm.model.find import find_model
from powsm.model.s2t import PowsmModel
from powsm.prepare.index import ExampleIndex
from powsm.settings import ConfigError
from powsm.train import checkpoints
from powsm.train.checkpoints import ResumableCheckpoint, newest_checkpoint
from powsm.train.dataset import UtteranceDataset, collate, text_encoder
from powsm.train.lit import LitPowsm
from powsm.train.loader import UtteranceLoader
from powsm.train.logged import loggers
from powsm.train.memory import TrainingError
from powsm.train.progress import Clock
from powsm.train.run import train
from powsm.vocabulary.phone_sets import is_phone

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


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


def test_experiment_decodes_by_its_own_tokens(corpus, finished, tmp_path):
    """Where stage 5 replaced those it was trained with, and when it has moved."""
    exp = tmp_path / "elsewhere"
    shutil.copytree(finished, exp, symlinks=True)
    tokens, away = corpus / "tokens", corpus / "away"
    before = (tokens / "bpe.model").read_bytes()
    tokens.rename(away)
    try:
        make_tokens(corpus / "dump/dev", tokens)
        assert (tokens / "bpe.model").read_bytes() != before
        for place in (finished, exp):
            files = find_model(place)
            assert files.bpe_model == place / "token_list/tokens/bpe.model"
            assert files.bpe_model.read_bytes() == before
            assert files.bpe_model.with_name("phones_by_lang.json").exists()
            Recogniser.load(files)
    finally:
        shutil.rmtree(tokens, ignore_errors=True)
        away.rename(tokens)


def test_wrong_type_that_a_layer_of_espnet_finds_is_one_line(corpus, tmp_path):
    fault = r'TypeCheckError: argument "dropout_rate" \(str\).*; see frontend_conf'
    with pytest.raises(ConfigError, match=fault):
        run(corpus, tmp_path, ctc_conf={"dropout_rate": "x"})


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
    fresh = (
        task_of_model("powsm")
        .build_model(make_args(corpus / "tokens", tmp_path))
        .state_dict()
    )
    first, second = (weights(tmp_path / f"{e}epoch.pth") for e in (1, 2))
    for key, value in fresh.items():
        if key.startswith("decoder."):
            assert torch.equal(first[key], value), key
    assert not torch.equal(first["ctc.ctc_lo.weight"], fresh["ctc.ctc_lo.weight"])
    moved = [k for k in fresh if not torch.equal(first[k], second[k])]
    assert "decoder.output_layer.weight" in moved
    assert "decoder.decoders.0.src_attn.linear_q.weight" in moved


def test_fused_optimiser_is_clipped_by_the_norm_that_is_logged(
    corpus, tmp_path, monkeypatch
):
    """Under autocast, where Lightning's own clipping refuses it."""
    seen = []
    clip = LitPowsm.configure_gradient_clipping

    def noted(self, optimizer, *args, **kwargs):
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        before = torch.nn.utils.get_total_norm(grads)
        clip(self, optimizer, *args, **kwargs)
        logged = self.trainer.callback_metrics["train/grad_norm"]
        after = torch.nn.utils.get_total_norm(grads)
        seen.append((float(before), float(logged), float(after)))

    monkeypatch.setattr(LitPowsm, "configure_gradient_clipping", noted)
    fused = {"optim_conf": {"lr": 0.003, "fused": True}, "use_amp": True}
    run(corpus, tmp_path, max_epoch=1, grad_clip=0.5, **fused)
    assert len(seen) == 3
    for before, logged, after in seen:
        assert before == logged > 0.5
        assert after == pytest.approx(0.5, rel=1e-4)


def test_checkpoints_come_by_time_and_compiling_is_left_to_gpus(
    corpus, tmp_path, monkeypatch, caplog
):
    """A minute an update, a checkpoint every second minute, none by number."""
    saved, now = [], iter(range(0, 60_000, 60))
    clock = SimpleNamespace(monotonic=lambda: float(next(now)))
    monkeypatch.setattr(checkpoints, "time", clock)
    save = ResumableCheckpoint._save_checkpoint

    def noted(self, trainer, filepath):
        saved.append(trainer.global_step)
        save(self, trainer, filepath)

    monkeypatch.setattr(ResumableCheckpoint, "_save_checkpoint", noted)
    changes = {"checkpoint_every_n_updates": None, "checkpoint_every_minutes": 2}
    changes |= {"max_epoch": 1, "num_iters_per_epoch": 6, "compile": True}
    run(corpus, tmp_path, **changes)
    assert saved == [2, 4, 6]  # the last with its epoch
    assert "compile: true is left out: only on a GPU" in caplog.text


def test_history_has_the_learning_rate_of_the_last_update(corpus, tmp_path):
    """Behind the end of its list, ESPnet's schedule goes on at another rate."""
    steps = {"warmup_steps_list": [0, 2], "warmup_lr_list": [0.0, 0.5]}
    schedule = {"scheduler": "piecewiselinearwarmuplr", "scheduler_conf": steps}
    run(corpus, tmp_path, max_epoch=1, num_iters_per_epoch=2, **schedule)
    (row,) = map(json.loads, (tmp_path / "history.jsonl").open())
    assert row["lr"] == 0.5


def test_validation_encodes_each_recording_once(corpus, tmp_path, monkeypatch):
    calls = {"encode": [], "losses": []}
    for name, seen in calls.items():
        whole = getattr(PowsmModel, name)

        def noted(self, *args, whole=whole, seen=seen):
            seen.append(self.training)
            return whole(self, *args)

        monkeypatch.setattr(PowsmModel, name, noted)
    run(corpus, tmp_path, max_epoch=1)
    assert calls["encode"] == calls["losses"]
    assert calls["losses"].count(True) == 6 < len(calls["losses"])


@pytest.mark.parametrize("every", [2, 3])  # 3 is the last batch of an epoch
def test_more_epochs_later_equal_all_at_once(corpus, finished, tmp_path, every):
    run(corpus, tmp_path, max_epoch=1, checkpoint_every_n_updates=every)
    assert newest_checkpoint(tmp_path).name == "step000000003.ckpt"
    run(corpus, tmp_path, max_epoch=2, checkpoint_every_n_updates=every)
    history = [json.loads(x)["epoch"] for x in (tmp_path / "history.jsonl").open()]
    assert history == [1, 2]
    assert_same(tmp_path / "2epoch.pth", finished / "2epoch.pth")


def test_resuming_plans_no_pass_that_is_over(corpus, tmp_path, monkeypatch):
    """But the first, whose length the log tells."""
    run(corpus, tmp_path, max_epoch=4)
    checkpoint = torch.load(newest_checkpoint(tmp_path), weights_only=False)
    updates_of_passes = checkpoint["passes"]["updates"]  # up to that of epoch 4
    assert len(updates_of_passes) >= 4 and sum(updates_of_passes) > 9
    planned = []
    plan = UtteranceDataset.plan

    def note(self, options, number):
        if self.index.folder == corpus / "dump/train":
            planned.append(number)
        return plan(self, options, number)

    monkeypatch.setattr(UtteranceDataset, "plan", note)
    run(corpus, tmp_path, max_epoch=5)
    assert planned.count(0) == 1
    assert min(set(planned) - {0}) >= len(updates_of_passes) - 1


@pytest.mark.parametrize(
    ("earlier", "n_utts"),
    [
        ({"batch_conf": {"batch_seconds": 100}}, 6),
        ({"tasks": ["asr"]}, 6),
        ({}, 3),
        ({"utt2weight": "weights"}, 6),
    ],
    ids=["batches", "tasks", "data", "weights"],
)
def test_epochs_begin_where_they_would_when_what_passes_are_made_of_changed(
    corpus, tmp_path, monkeypatch, earlier, n_utts
):
    """Long passes taken for the short ones of before begin all epochs in one place."""
    dump = tmp_path / "dump"
    (tmp_path / "tokens").symlink_to(corpus / "tokens")
    make_dump(dump / "dev", [0.6], seed=2)
    make_dump(dump / "train", [0.6] * n_utts, no_text=range(3))
    (tmp_path / "weights").write_text("tiny_u0000_eng 0\ntiny_u0001_ita 0\n")
    monkeypatch.chdir(tmp_path)
    settings = {"num_iters_per_epoch": 2, "batch_conf": {"batch_seconds": 0.6}}
    run(tmp_path, tmp_path / "exp", max_epoch=2, **(settings | earlier))
    shutil.rmtree(dump / "train")
    make_dump(dump / "train", [0.6] * 6, no_text=range(3))
    begins = []
    find = UtteranceLoader._find

    def note(self, skip, known):
        found = find(self, skip, known)
        begins.append(found[::2])
        return found

    monkeypatch.setattr(UtteranceLoader, "_find", note)
    run(tmp_path, tmp_path / "exp", max_epoch=5, **settings)
    # six updates a pass; the first is of the epoch that the checkpoint ends
    assert begins == [(0, 2), (0, 4), (1, 0), (1, 2)]


def test_a_checkpoint_of_an_earlier_version_is_taken(corpus, finished, tmp_path):
    run(corpus, tmp_path, max_epoch=1)
    path = newest_checkpoint(tmp_path)
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint["passes"], checkpoint["batches_per_update"]
    torch.save(checkpoint, path)
    run(corpus, tmp_path, max_epoch=2)
    assert_same(tmp_path / "2epoch.pth", finished / "2epoch.pth")


def test_average_of_weights_is_kept_on_the_gpu(corpus, tmp_path, monkeypatch):
    """Lightning would make it where the model is before it moves to the GPU."""

    class Made(Exception):
        pass

    def trainer(callbacks, **options):
        raise Made(callbacks)

    monkeypatch.setattr(L, "Trainer", trainer)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(Made) as made:
        run(corpus, tmp_path, ngpu=1, ema_decay=0.9)
    (average,) = (c for c in made.value.args[0] if isinstance(c, EMAWeightAveraging))
    assert average._device == torch.device("cuda:1")


def test_a_finished_run_is_not_trained_again(corpus, finished):
    before = (finished / "2epoch.pth").stat().st_mtime_ns
    run(corpus, finished)
    assert (finished / "2epoch.pth").stat().st_mtime_ns == before


def command(corpus: Path, exp: Path, **changes) -> list[str]:
    """`powsm train` as stage 11 calls it, without the program."""
    exp.mkdir(parents=True, exist_ok=True)
    config = exp / "train.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | changes))
    return [
        *("train", "--config", str(config)),
        *("--dump", str(corpus / "dump"), "--token_dir", str(corpus / "tokens")),
        *("--exp", str(exp)),
    ]


def test_kill_in_mid_epoch_and_resume_gives_the_same_weights(
    corpus, finished, tmp_path
):
    """SIGKILL after the checkpoint at update 2 or 4: in the middle of an epoch."""
    args = command(corpus, tmp_path)
    process = start(main, args, output=tmp_path / "printed")
    while newest_checkpoint(tmp_path) is None and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert newest_checkpoint(tmp_path) is not None
    run_verb(*args)
    assert_same(tmp_path / "2epoch.pth", finished / "2epoch.pth")


def begin_from_update_4(earlier: Path, exp: Path) -> None:
    """As an experiment is left behind that was killed there."""
    (exp / "checkpoints").mkdir(parents=True)
    shutil.copy(earlier / "checkpoints/step000000004.ckpt", exp / "checkpoints")
    for name in ("history.jsonl", "1epoch.pth"):
        shutil.copy(earlier / name, exp)


@pytest.fixture(scope="module")
def two_ranks(corpus, finished, tmp_path_factory):
    """The same experiment trained by two ranks: `whole`, and `later` from update 4."""
    root = tmp_path_factory.mktemp("two_ranks")
    begin_from_update_4(finished, root / "later")
    for name in ("whole", "later"):
        run_ranks(2, main, command(corpus, root / name), folder=root / name)
    return root


def assert_close(one: Path, other: Path) -> None:
    """Equal but for rounding.

    A key's bias adds the same to all scores of a query, so its gradient is 0 and what
    is computed is rounding; AdamW divides that by its own size, so here it moves.
    """
    ours, theirs = weights(one), weights(other)
    for key in ours:
        atol = 1e-3 if key.endswith("linear_k.bias") else 1e-5
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=atol)


def test_two_ranks_train_to_the_weights_of_one(finished, two_ranks):
    assert_close(two_ranks / "whole/2epoch.pth", finished / "2epoch.pth")
    # and validate on the same utterances, each counted once
    alone, together = (
        [json.loads(line) for line in (exp / "history.jsonl").read_text().splitlines()]
        for exp in (finished, two_ranks / "whole")
    )
    for one, two in zip(alone, together, strict=True):
        for key in ("loss", "loss_ctc", "loss_pr", "per_ctc", "pfer_ctc"):
            assert two[key] == pytest.approx(one[key], rel=1e-4), key


@pytest.mark.parametrize("ranks", [1, 2])
def test_other_number_of_ranks_goes_on_where_the_epoch_was(
    corpus, finished, two_ranks, tmp_path, ranks
):
    """From update 4 of 6, in the middle of the second epoch."""
    exp = two_ranks / "later"
    if ranks == 1:
        exp = tmp_path / "later"
        begin_from_update_4(two_ranks / "whole", exp)
        run(corpus, exp)
    history = [json.loads(x) for x in (exp / "history.jsonl").open()]
    assert [(r["epoch"], r["updates"]) for r in history] == [(1, 3), (2, 6)]
    assert_close(exp / "2epoch.pth", finished / "2epoch.pth")


def train_elsewhere(arguments: list[str]) -> None:
    """The second rank has another folder at the place of the experiment."""
    if os.environ["RANK"] == "1":
        arguments[arguments.index("--exp") + 1] += "_of_another_machine"
    main(arguments)


def test_ranks_that_find_different_checkpoints_are_refused(corpus, finished, tmp_path):
    """As on machines that do not share the folder of the experiment."""
    exp = shutil.copytree(finished, tmp_path / "exp")
    arguments = command(corpus, exp, max_epoch=3)
    with pytest.raises(
        AssertionError, match=r"different updates \(rank 0 at 6, rank 1 at 0\)"
    ):
        run_ranks(2, train_elsewhere, arguments, folder=tmp_path)
    assert not (exp / "3epoch.pth").exists()


def test_settings_with_faults_are_all_named_and_nothing_is_trained(corpus, tmp_path):
    args = command(corpus, tmp_path, max_epcoh=3, encoder_conf={"num_block": 2})
    with pytest.raises(SystemExit) as refused:
        run_verb(*args)
    assert "unknown key 'max_epcoh'; did you mean 'max_epoch'?" in refused.value.code
    assert "encoder_conf.num_block" in refused.value.code
    assert "num_blocks" in refused.value.code
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
    with pytest.raises(ConfigError, match="text_prev_apply_prob is 0.5"):
        text_encoder(args)


def test_settings_that_only_espnets_loop_reads_are_refused(corpus, tmp_path):
    with pytest.raises(ConfigError, match="accum_grad=4, patience=3: remove them"):
        run(corpus, tmp_path, patience=3, accum_grad=4)


def test_frozen_parameters_stay_and_the_others_move(corpus, tmp_path):
    run(corpus, tmp_path, freeze_param=["encoder", "ctc.ctc_lo.bias"], max_epoch=1)
    set_all_random_seed(SETTINGS["seed"])
    fresh = (
        task_of_model("powsm")
        .build_model(make_args(corpus / "tokens", tmp_path))
        .state_dict()
    )
    trained = weights(tmp_path / "1epoch.pth")
    moved = {key for key in fresh if not torch.equal(fresh[key], trained[key])}
    assert {"ctc.ctc_lo.weight", "decoder.output_layer.weight"} <= moved
    assert not [
        key for key in moved if key.startswith("encoder.") or "bias" in key[:16]
    ]


def test_frozen_parameters_that_are_not_there_are_named(corpus, tmp_path):
    with pytest.raises(TrainingError, match="freeze_param encodr: no parameter has"):
        run(corpus, tmp_path, freeze_param=["encodr"])


def test_machine_with_slurm_is_no_reason_to_warn(corpus, tmp_path, monkeypatch):
    srun = tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.touch(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(corpus, tmp_path / "exp", max_epoch=1)
    assert not [str(w.message) for w in caught if "srun" in str(w.message)]


def test_criterion_that_validation_does_not_have_ends_the_first_epoch(corpus, tmp_path):
    criterion = [["valid", "pfer_ctcx", "min"]]
    with pytest.raises(TrainingError, match="valid pfer_ctcx: .* no such figure.*acc"):
        run(corpus, tmp_path, best_model_criterion=criterion)
    assert not (tmp_path / "2epoch.pth").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "best_model_criterion": [["valid", "pfer_ctc", "min"]],
                "model_conf": {"ctc_weight": 0.0},
            },
            "valid pfer_ctc: there is no CTC",
        ),
        ({"best_model_criterion": [["train", "loss", "min"]]}, "expected one of valid"),
    ],
)
def test_criterion_that_cannot_be_is_told_before_training(
    corpus, tmp_path, changes, message
):
    with pytest.raises(TrainingError, match=message):
        run(corpus, tmp_path, **changes)
    assert not (tmp_path / "history.jsonl").exists()


def test_phone_error_rates_choose_the_epochs(corpus, tmp_path):
    criteria = [["valid", "pfer_ctc_eng", "min"], ["valid", "per_ctc", "max"]]
    run(corpus, tmp_path, best_model_criterion=criteria, keep_nbest_models=1)
    history = [json.loads(x) for x in (tmp_path / "history.jsonl").open()]
    for name, best in (("pfer_ctc_eng", min), ("per_ctc", max)):
        chosen = best(history, key=lambda row, name=name: row[name])["epoch"]
        average = weights(tmp_path / f"valid.{name}.ave_1best.pth")
        kept = weights(tmp_path / f"{chosen}epoch.pth")
        assert all(torch.equal(average[key], kept[key]) for key in kept)


def test_more_models_are_averaged_later_of_those_that_are_left(corpus, tmp_path):
    run(corpus, tmp_path, keep_nbest_models=1, max_epoch=3)
    assert {p.name for p in tmp_path.glob("?epoch.pth")} <= {"1epoch.pth", "3epoch.pth"}
    history = [json.loads(x) for x in (tmp_path / "history.jsonl").open()]
    losses = [row["loss"] for row in history]
    assert losses[2] < losses[1] < losses[0]  # so that only the last one is left
    run(corpus, tmp_path, keep_nbest_models=3, max_epoch=4)
    assert (tmp_path / "valid.loss.ave_2best.pth").exists()


def test_figures_are_means_over_examples_and_accuracies_over_tokens(corpus, tmp_path):
    """One utterance with all tasks and three with pr alone: two batches of two."""
    make_dump(tmp_path / "dump/dev", [1.0, 1.0, 1.4, 1.4], no_text=(1, 2, 3), seed=3)
    args = make_args(corpus / "tokens", tmp_path / "exp", max_epoch=1)
    folders = {
        "train_folder": corpus / "dump/train",
        "valid_folder": tmp_path / "dump/dev",
    }
    train(args, exp=tmp_path / "exp", **folders)
    record = json.loads((tmp_path / "exp/history.jsonl").read_text())
    model = task_of_model("powsm").build_model(args).eval()
    model.load_state_dict(weights(tmp_path / "exp/1epoch.pth"))
    dataset = UtteranceDataset(ExampleIndex(tmp_path / "dump/dev"), text_encoder(args))
    losses, right, n_tokens = [], 0.0, 0
    for utt in range(4):
        batch = collate([dataset[(utt, 0, 0)]])
        stats = model(**batch.tensors())[1]
        losses.append(float(stats["loss_pr"]))
        learned = int(batch.text_lengths.sum()) + batch.n_examples  # <eos>
        right, n_tokens = right + learned * float(stats["acc"]), n_tokens + learned
    assert record["loss_pr"] == pytest.approx(np.mean(losses), rel=1e-3)
    assert record["acc"] == pytest.approx(right / n_tokens, rel=1e-3)


def test_published_iterator_is_left_to_espnet(corpus, tmp_path):
    with pytest.raises(TrainingError, match="--trainer espnet"):
        run(corpus, tmp_path, iterator="published")


class Killer:
    """Ends the process that writes it, by SIGKILL."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def train_to_the_second_checkpoint(arguments: list[str]) -> None:
    save, saved = checkpoints.save_whole, []

    def killed(state, path):
        saved.extend([path] if path.suffix == ".ckpt" else [])
        if len(saved) == 2:
            state = state | {"zz": Killer()}
        save(state, path)

    checkpoints.save_whole = killed
    main(arguments)


def test_kill_while_a_checkpoint_is_written_loses_nothing(corpus, finished, tmp_path):
    """SIGKILL in the middle of the second checkpoint: the first one is resumed."""
    args = command(corpus, tmp_path)
    printed = tmp_path / "printed"
    process = start(train_to_the_second_checkpoint, args, output=printed)
    process.join()
    assert process.exitcode == -signal.SIGKILL, printed.read_text()[-2000:]
    assert newest_checkpoint(tmp_path).name == "step000000002.ckpt"
    assert list((tmp_path / "checkpoints").glob(".step*"))  # half of one
    run_verb(*args)
    assert_same(tmp_path / "2epoch.pth", finished / "2epoch.pth")
    assert not list((tmp_path / "checkpoints").glob(".step*"))


def test_average_of_weights_is_validated_written_and_resumed(
    corpus, finished, tmp_path, monkeypatch
):
    updates = []
    original = Clock.on_train_batch_end

    def recorded(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step > len(updates):
            state = module.model.state_dict()
            updates.append({k: v.clone() for k, v in state.items()})
        original(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(Clock, "on_train_batch_end", recorded)
    exp = tmp_path / "whole"
    run(corpus, exp, ema_decay=0.5)
    key = "decoder.output_layer.weight"
    expected = updates[0][key]  # 0.5 of the average, 0.5 of the weights, six times
    for state in updates[1:]:
        expected = (expected + state[key]) / 2
    torch.testing.assert_close(weights(exp / "2epoch.pth")[key], expected)
    # training itself went its way: it is not the average that is trained on
    torch.testing.assert_close(updates[-1][key], weights(finished / "2epoch.pth")[key])

    # from the middle of the second epoch again
    newest_checkpoint(exp).unlink()
    assert newest_checkpoint(exp).name == "step000000004.ckpt"
    (exp / "2epoch.pth").rename(tmp_path / "before.pth")
    run(corpus, exp, ema_decay=0.5)
    assert_same(exp / "2epoch.pth", tmp_path / "before.pth")


def test_average_of_weights_leaves_the_rows_of_the_phones_alone(
    corpus, tmp_path, monkeypatch
):
    """They are whole numbers; their mean in floats was one too low in validation."""
    step = LitPowsm.validation_step
    validated = []

    def recorded(self, batch, batch_idx):
        validated.append(self.model.ctc.ctc_lo.columns.kept.tolist())
        step(self, batch, batch_idx)

    monkeypatch.setattr(LitPowsm, "validation_step", recorded)
    conf = SETTINGS["model_conf"] | {"ctc_vocab": "phones"}
    run(corpus, tmp_path, ema_decay=0.9995, model_conf=conf)
    tokens = (corpus / "tokens/tokens.txt").read_text().splitlines()
    expected = PhoneLinear(1, tokens).columns.kept.tolist()
    assert len(validated) >= 2
    assert all(kept == expected for kept in validated)


def test_gpu_that_is_not_there_is_not_replaced_by_the_cpu(corpus, tmp_path):
    with pytest.raises(TrainingError, match="ngpu is 1, but PyTorch finds no GPU on"):
        run(corpus, tmp_path, ngpu=1)


def test_wandb_is_a_switch_and_says_when_it_is_missing(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(TrainingError, match="wandb is not installed.*use_wandb"):
        run(corpus, tmp_path, use_wandb=True)


def test_wandb_goes_on_in_the_same_run(corpus, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        "powsm.train.logged.WandbLogger", lambda **conf: made.append(conf)
    )
    args = make_args(corpus / "tokens", tmp_path, use_wandb=True)
    loggers(args, tmp_path)
    loggers(args, tmp_path)
    first, second = made
    assert first == second and first["id"]
    assert (first["project"], first["name"]) == ("powsm", tmp_path.name)


def test_random_ctc_weight_is_resumed_and_validation_keeps_its_own(
    corpus, tmp_path, monkeypatch
):
    seen = []
    losses = PowsmModel.losses

    def recorded(self, *args, **kwargs):
        seen.append((self.training, self.ctc_weight))
        return losses(self, *args, **kwargs)

    monkeypatch.setattr(PowsmModel, "losses", recorded)
    conf = SETTINGS["model_conf"] | {"ctc_weight_range": [0.1, 0.9]}
    run(corpus, tmp_path, model_conf=conf, ctc_only_updates=0)
    drawn = [weight for training, weight in seen if training]
    assert len(drawn) == 12  # 6 updates of 2 batches, each with a weight of its own
    assert len(set(drawn)) == 12 and all(0.1 < w < 0.9 for w in drawn)
    assert {weight for training, weight in seen if not training} == {0.3}
    before = weights(tmp_path / "2epoch.pth")
    newest_checkpoint(tmp_path).unlink()
    seen.clear()
    run(corpus, tmp_path, model_conf=conf, ctc_only_updates=0)
    assert [w for training, w in seen if training] == drawn[8:]
    after = weights(tmp_path / "2epoch.pth")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_ctc_over_phones_alone_is_decoded_here_and_refused_by_stock(
    corpus, tmp_path, monkeypatch
):
    conf = SETTINGS["model_conf"] | {"ctc_vocab": "phones"}
    run(corpus, tmp_path, model_conf=conf, max_epoch=1)
    recogniser = Recogniser.load(tmp_path)
    tokens = recogniser.model.token_list
    head = weights(tmp_path / "1epoch.pth")["ctc.ctc_lo.weight"]
    assert head.shape[0] == sum(map(is_phone, tokens)) + 2 < len(tokens)
    with torch.inference_mode():
        memory, _ = recogniser.encode([torch.zeros(16000)])
        log_probs = recogniser.model.ctc.log_softmax(memory)
    assert log_probs.shape[-1] == len(tokens)
    # phones as the decoder says them begin with ▁; without a score for it by CTC, joint
    # search ended every text before it began
    text = [tokens.index(t) for t in ("▁", "/p/", "/a/")]
    for pre_beam in (True, False):
        searcher = Searcher(recogniser.model, SearchOptions(ctc_weight=0.3))
        searcher._is_pre_beam = pre_beam
        with torch.inference_mode():
            scores = searcher._ctc_scores(memory)
            said = scores.columns(torch.tensor([[text]]), memory.size(1))
        assert (said.exp().sum(-1) > 0).all()
    monkeypatch.delitem(model_choices.classes, "powsm")  # as without ours
    with pytest.raises(ValueError, match="--model powsm"):
        S2TTask.build_model_from_file(tmp_path / "config.yaml")


@pytest.mark.parametrize("target", ["code_points", "text"])
def test_ctc_over_phones_alone_learns_no_other_targets(corpus, tmp_path, target):
    conf = SETTINGS["model_conf"] | {"ctc_vocab": "phones"}
    with pytest.raises(ConfigError, match=f"ctc_target {target} needs more tokens"):
        run(corpus, tmp_path, ctc_target=target, model_conf=conf)


@pytest.mark.parametrize("target", ["phones_with_length", "code_points", "text"])
def test_other_ctc_targets_train_and_validate(corpus, tmp_path, target):
    run(corpus, tmp_path, ctc_target=target, max_epoch=1)
    (record,) = [json.loads(x) for x in (tmp_path / "history.jsonl").open()]
    assert np.isfinite(record["loss_ctc"]) and np.isfinite(record["per_ctc"])
