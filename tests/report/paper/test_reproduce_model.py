"""A table of the paper filled with a model from the Hub."""

import os
import subprocess
from pathlib import Path

import pytest
from dump_builder import make_dump
from powsm_command import POWSM
from published_model import files_of, make_published
from tiny_model import make_tokens

ROOT = Path(__file__).parents[3]
TABLE = """\
title: Phone recognition
paper: a paper
metric: PFER
task: pr
profile: decode_ctc_greedy
cleaning: prism
source: a page
columns:
  - {name: Tiny, set: test_tiny}
  - {name: TIMIT, set: test_timit}
rows:
  - {name: ours, ours: {}, cells: {Tiny: 90.0, TIMIT: 13.7}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A folder with a test set, a table, and a published model beside it."""
    root = tmp_path_factory.mktemp("reproduce")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    folder = make_dump(root / "dump/raw/test_tiny", [0.6, 0.9, 0.7], seed=2)
    (folder / "normaliser.json").write_text(
        '{"policy": "strict", "version": "strict/1", "text_policy": "powsm_fix"}'
    )
    (root / "table_x.yaml").write_text(TABLE)
    make_published(root / "model", make_tokens(root / "train", root / "tokens"))
    return root


def reproduce(recipe: Path, model: str, **env: str) -> str:
    done = subprocess.run(
        [*POWSM, "reproduce", "--table", "table_x.yaml", "--model", model]
        + ["--device", "cpu", "--conf", str(ROOT / "conf")],
        **{"cwd": recipe, "env": os.environ | {"TIMIT": ""} | env},
        **{"capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_model_of_the_hub_fills_our_column(recipe, hub):
    hub.add_repo("espnet/powsm", files_of(recipe / "model"), repo_type="model")
    said = reproduce(recipe, "espnet/powsm", HF_HOME=str(recipe / "cache"), **hub.env)
    # which normaliser the model knows, and that the set was made with another
    assert "trained on phones by policy released" in said
    assert "made with policy strict, the model was trained with released" in said
    assert "set not found: dump/raw/test_timit" in said
    decoded = recipe / "exp/espnet_powsm/decode_ctc_greedy/test_tiny/pr_ctc/hyp.jsonl"
    assert len(decoded.read_text().splitlines()) == 3
    row = next(x for x in said.splitlines() if x.startswith("| ours: espnet_powsm"))
    assert float(row.split("|")[2]) > 0 and row.split("|")[3].strip() == ""
