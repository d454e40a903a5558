"""A table of the paper filled with a model from the Hub."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from dump_builder import make_dump
from experiment_builder import make_experiment as make_tones
from powsm_command import POWSM
from published_model import files_of, make_published
from tiny_model import CTC_SETTINGS, make_experiment, make_tokens

from powsm.cli import reproduce as cli
from powsm.cli.main import main
from powsm.report.paper.fill import System, fill
from powsm.report.paper.plan import plan_queries
from powsm.report.paper.sets import TestSet
from powsm.report.paper.spec import Query, TableError, load_table
from powsm.report.paper.systems import trained_of

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


def test_row_of_the_model_without_a_decoder_is_filled_by_such_models_alone(recipe):
    """Of the two rows of PRiSM's table that are ours."""
    folder = recipe / "dump/raw/test_tusom2021"
    make_dump(folder, [0.6, 0.9], seed=3)
    shutil.copy(folder / "ref.ipa", folder / "ref.raw.ipa")
    tokens = recipe / "tokens"
    made = {
        "with": make_experiment(recipe / "with", tokens),
        "without": make_experiment(recipe / "without", tokens, base=CTC_SETTINGS),
    }
    profiles = {"with": "decode_prism", "without": "decode_ctc_paper"}
    rows = {"with": "POWSM", "without": "POWSM-CTC"}
    for kind, exp in made.items():
        command = [*POWSM, "reproduce", "--table", "prism3", "--exp", str(exp)]
        command += ["--device", "cpu", "--conf", str(ROOT / "conf")]
        how = {"cwd": recipe, "capture_output": True, "text": True}
        done = subprocess.run(command, **how)
        assert done.returncode == 0, done.stderr[-2000:]
        assert not list(exp.glob("decode_*"))  # nothing that no row would show
        assert "exp is another training: encoder_conf.output_size is 16, not" in (
            done.stdout
        )
        done = subprocess.run([*command, "--any_training"], **how)
        assert done.returncode == 0, done.stderr[-2000:]
        assert [path.name for path in exp.glob("decode_*")] == [profiles[kind]]
        filled = [
            x for x in done.stdout.splitlines() if x.startswith("| ") and ": exp" in x
        ]
        assert len(filled) == 1 and filled[0].startswith(f"| {rows[kind]}: exp")
        assert float(filled[0].split("|")[8]) > 0


def test_what_other_settings_or_weights_decoded_is_decoded_again(tmp_path, monkeypatch):
    """`powsm decode` leaves alone what is current; without weights there is no more."""
    exp, dump = make_tones(tmp_path)
    calls = []
    monkeypatch.setattr(cli, "run_verb", lambda *command: calls.append(command))
    query = Query("ctc_greedy", "test_tone", "pr", "all", "PFER")
    options = SimpleNamespace(
        dump=dump, sets={}, conf=Path("conf"), device=None, baseline=None
    )

    def decode(model):
        calls.clear()
        planned = plan_queries([query], exp, dump, {})
        assert planned[0].is_done
        cli.decode(planned, cli._Model(exp, model), options)
        return [command[command.index("--sets") + 1] for command in calls]

    assert decode(str(exp)) == []
    assert decode("espnet/powsm") == ["test_tone"]
    (exp / "valid.acc.ave.pth").touch()
    assert decode(str(exp)) == ["test_tone"]
    # a part is read off what the whole set has
    (dump / "test_part").symlink_to(dump / "test_tone")
    query = replace(query, set="test_part")
    options.sets = {"test_part": TestSet(None, "", part_of="test_tone")}
    planned = plan_queries([query], exp, dump, options.sets)
    calls.clear()
    cli.decode([replace(planned[0], is_done=True)], cli._Model(exp, str(exp)), options)
    assert "test_tone" in calls[0] and "test_part" not in calls[0]


def test_a_model_that_is_named_is_not_the_experiment_of_its_results(recipe):
    own = make_experiment(recipe / "own", recipe / "tokens")
    other = make_experiment(recipe / "other", recipe / "tokens", base=CTC_SETTINGS)
    assert "decoder" in trained_of(own, str(own)).settings
    assert "decoder" not in trained_of(own, str(other)).settings


def test_experiments_of_one_name_are_refused(tmp_path):
    for folder in ("a/x", "b/x"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.yaml").write_text("{}")
    with pytest.raises(SystemExit, match="b/x: two folders of one name"):
        main(["reproduce", "--table", "4", "--conf", str(ROOT / "conf"), "--exp"]
             + [str(tmp_path / "a/x"), str(tmp_path / "b/x")])  # fmt: skip
    table = load_table(ROOT / "conf/tables/table4.yaml")
    with pytest.raises(TableError, match="two systems are called x"):
        fill(table, [System("x", lambda query: "")] * 2)
