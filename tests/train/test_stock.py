"""`--trainer espnet`: ESPnet's own loop on the same files, to a model that decodes."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from dump_builder import make_dump
from powsm_command import run_verb
from tiny_model import SETTINGS, make_tokens

from powsm.decode.batch import decode_batch, items
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.decode.search import SearchOptions
from powsm.model.find import find_model

# with two GPUs and more ESPnet trains in spawned processes; here in one, on the CPU
SPAWNED = """
import sys, torch
from powsm.cli.main import main
from powsm.train.stock import StockTask

def spawn(cmd):
    context = torch.multiprocessing.get_context("spawn")
    process = context.Process(target=StockTask.main, kwargs={"cmd": cmd})
    process.start()
    process.join()
    sys.exit(process.exitcode)

if __name__ == "__main__":
    whole = StockTask.main
    StockTask.main = spawn
    main()
"""
PUBLISHED = {
    "model": "espnet",
    "iterator": "published",
    "batch_type": "unsorted",
    "batch_size": 4,
    "accum_grad": 2,
    "num_iters_per_epoch": 2,
    "max_epoch": 2,
    "valid_max_cache_size": 0,
    "best_model_criterion": [["valid", "pfer_ctc", "min"]],  # ours alone
    "keep_nbest_models": 2,
}


def test_stock_loop_ends_its_epochs_and_its_average_decodes(tmp_path):
    for name, seed in (("train", 1), ("dev", 2), ("test", 3)):
        make_dump(tmp_path / "dump" / name, [0.6, 0.8, 1.0], seed=seed)
    tokens = make_tokens(tmp_path / "dump/train", tmp_path / "tokens")
    left_out = ("batch_conf", "checkpoint_every_n_updates")
    settings = {k: v for k, v in SETTINGS.items() if k not in left_out} | PUBLISHED
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    exp = tmp_path / "exp"
    (tmp_path / "spawned.py").write_text(SPAWNED)
    command = [
        *(sys.executable, str(tmp_path / "spawned.py"), "train"),
        *("--config", str(tmp_path / "train.yaml"), "--dump", str(tmp_path / "dump")),
        *("--token_dir", str(tokens), "--exp", str(exp)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "best_model_criterion [['valid', 'pfer_ctc', 'min']] becomes" in done.stderr
    assert "num_att_plot becomes 0" in done.stderr
    assert {"1epoch.pth", "2epoch.pth", "valid.acc.ave.pth"} <= {
        path.name for path in exp.iterdir()
    }
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["model"] == "espnet" and config["batch_size"] == 4

    files = find_model(exp)
    assert files.bpe_model == exp / "token_list/tokens/bpe.model"
    assert config["bpemodel"] == str(files.bpe_model)
    recogniser = Recogniser.load(files)
    search = SearchOptions(beam_size=1, maxlenratio=-5)
    profile = Profile("decode_x", decode="attention", search=search)
    for task in ("pr", "p2g"):
        batch = items(tmp_path / "dump/test", task)
        rng = np.random.default_rng(0)
        speech = [torch.from_numpy(rng.normal(0, 0.1, 9600)).float() for _ in batch]
        rows = decode_batch(recogniser, profile, task, batch, speech)
        assert [row["task_sym"] for row in rows] == [f"<{task}>"] * 3

    before = {path: path.read_bytes() for path in exp.iterdir() if path.is_file()}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings | {"seed": 7}))
    for changes, named in (
        (["--set", "max_epoch=1"], "seed 1, now 7; max_epoch 1, but 2 epochs are done"),
        (["--trainer", "powsm", "--set", "iterator=utterances"], ""),
        (["--dump", str(tmp_path / "other")], "seed 1, now 7; training set ("),
    ):
        if "--dump" in changes:
            shutil.copytree(tmp_path / "dump", tmp_path / "other")
            make_dump(tmp_path / "other/new", [0.6, 0.8], seed=9)
            shutil.copy(tmp_path / "other/new/text", tmp_path / "other/train")
        with pytest.raises(SystemExit) as refused:
            run_verb(*command[2:], *changes)
        assert named in refused.value.code and "\n" not in refused.value.code
        assert {p: p.read_bytes() for p in exp.iterdir() if p.is_file()} == before
