"""run_finetune.sh: one language, then another from its model, and the comparison."""

import subprocess
from pathlib import Path

import pytest
import yaml
from synthetic import make_corpus
from tiny_model import SETTINGS

pytestmark = pytest.mark.recipe

RECIPE = Path(__file__).parents[2] / "egs2/mini_ipapack/s2t1"


@pytest.mark.parametrize("options", [["--dry-run", "--stage", "12"], ["--help"]])
def test_plan_ends_well_and_compares_nothing(tmp_path, options):
    comparison = tmp_path / "exp/finetune/COMPARISON.md"
    comparison.parent.mkdir(parents=True)
    comparison.write_text("of an earlier run\n")
    done = subprocess.run(
        ["env", f"root={tmp_path}", "./run_finetune.sh", *options],
        cwd=RECIPE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert comparison.read_text() == "of an earlier run\n"


def test_new_language_from_a_trained_model(tmp_path):
    make_corpus(tmp_path / "downloads", ("eng", "ita"), n_train=6, n_dev=2, n_test=2)
    settings = SETTINGS | {
        "normalize": "global_mvn",
        "scheduler": "piecewiselinearwarmuplr",
        "scheduler_conf": {},
        "batch_conf": {"batch_seconds": 10, "update_batches": 1},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    options = ["--stage", "1", "--skip_stages", "2 13", "--nbpe", "58"]
    options += ["--config", str(tmp_path / "tiny.yaml"), "--stats_hours", "0.01"]
    options += ["--set", "max_epoch=1", "--set", "num_iters_per_epoch=1"]
    done = subprocess.run(
        [
            "env",
            "old=ita",
            "new=eng",
            f"root={tmp_path}",
            "./run_finetune.sh",
            *options,
        ],
        cwd=RECIPE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "mean and variance stay those of" in done.stderr
    exp = tmp_path / "exp/finetune"
    text = (exp / "COMPARISON.md").read_text()
    assert ", eng | PFER |" in text and ", ita | PFER |" in text
    old, new = (
        yaml.safe_load((exp / name / "config.yaml").read_text())["token_list"]
        for name in ("old", "new")
    )
    added = set(new) - set(old)
    assert set(old) < set(new) and "<eng>" in added
    assert any(token.startswith("/") for token in added)
