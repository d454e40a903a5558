"""Rows of other systems: OWLS and OWSM-CTC through stock ESPnet, on tiny models."""

import json
from pathlib import Path

import pytest
from dump_builder import make_dump
from experiment_builder import TEXTS, write_hyps
from experiment_builder import make_dump as make_tone_dump
from tiny_model import CTC_SETTINGS, SETTINGS, make_experiment, make_tokens

from powsm.cli.main import main
from powsm.report.paper.fill import System
from powsm.report.paper.spec import TableError, load_table
from powsm.report.paper.systems import score_as_owsm
from powsm.score.decoded import DecodedSet

ROOT = Path(__file__).parents[3]
TABLE = """\
title: Speech recognition
paper: a paper
metric: WER
task: asr
profile: decode_asr_lowres
training: {config: train_powsm.yaml}
source: a page
columns:
  - {name: eng, set: test_tiny, lang: eng}
rows:
  - {name: OWLS, baseline: espnet/tiny_owls, cells: {}}
  - {name: OWSM-CTC, baseline: espnet/tiny_ctc, cells: {}}
  - {name: POWSM, ours: {}, cells: {}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("baselines")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    tokens = make_tokens(root / "train", root / "tokens")
    folder = make_dump(root / "dump/test_tiny", [0.6, 0.9], langs=("eng", "eng"))
    record = {"policy": "strict", "version": "strict/1", "text_policy": "powsm_fix"}
    (folder / "normaliser.json").write_text(json.dumps(record))
    # what OWSM's recipes do not compare: case, hyphens, punctuation
    refs = [line.split(" ")[0] for line in (folder / "ref.text").open()]
    (folder / "ref.text").write_text("".join(f"{u} well-known\n" for u in refs))
    for name, base in (("tiny_owls", SETTINGS), ("tiny_ctc", CTC_SETTINGS)):
        made = make_experiment(root / f"in_{name}", tokens, base=base)
        made.rename(root / name)
    (root / "conf/tables").mkdir(parents=True)
    (root / "conf/train_powsm.yaml").write_text("max_epoch: 45\n")
    (root / "conf/tables/table_x.yaml").write_text(TABLE)
    return root


def reproduce(recipe, capsys, *options: str) -> str:
    where = ["--dump", str(recipe / "dump"), "--conf", str(ROOT / "conf")]
    where += ["--table", str(recipe / "conf/tables/table_x.yaml"), "--device", "cpu"]
    assert main(["reproduce", *where, *options]) in (0, None)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "name", "row"),
    [("owls", "tiny_owls", "OWLS"), ("owsm_ctc", "tiny_ctc", "OWSM-CTC")],
)
def test_row_of_another_system_is_decoded_by_stock_espnet(
    recipe, capsys, kind, name, row
):
    out = recipe / f"out_{kind}"
    model = ("--baseline", kind, "--model", str(recipe / name), "--exp", str(out))
    said = reproduce(recipe, capsys, *model)
    hyps = out / "baseline/test_tiny/asr/hyp.jsonl"
    assert len(hyps.read_text().splitlines()) == 2
    assert f"| {row}: out_{kind} |" in said
    assert "another system's model" in said  # the other rows
    # a perfect output, but for what Whisper's normaliser leaves out
    records = [json.loads(line) for line in hyps.read_text().splitlines()]
    texts = (json.dumps(r | {"text": "Well known!"}) for r in records)
    hyps.write_text("".join(f"{text}\n" for text in texts))
    said = reproduce(recipe, capsys, *model)
    line = next(x for x in said.splitlines() if x.startswith(f"| {row}: out_"))
    assert float(line.split("|")[2]) == 0.0


def test_words_of_others_are_written_as_the_references(tmp_path):
    """By the released policy, don't is `dont` in references; whisper makes `don t`."""
    folder = make_tone_dump(tmp_path)
    record = {"policy": "released", "version": "1", "text_policy": "released"}
    (folder / "normaliser.json").write_text(json.dumps(record))
    texts = dict.fromkeys(TEXTS, "Don't stop the U.S.")
    written = [f"{u} Dont stop the US\n" for u in list(texts)[1:]]
    first = next(iter(texts))  # has no orthography
    (folder / "ref.text").write_text("".join([f"{first}\n", *written]))
    hyps = write_hyps(tmp_path / "exp", "baseline", "test_tone", "asr", texts)
    scores = score_as_owsm(DecodedSet(hyps), tmp_path)
    assert scores.value("WER") == 0.0 and len(scores) == 4


def test_rows_of_others_are_nobody_elses(recipe):
    table = load_table(recipe / "conf/tables/table_x.yaml")
    owls, ctc, ours = table.rows
    other = System("x", lambda query: "", baseline="exp/tiny_owls/")
    assert [other.is_of(row) for row in table.rows] == [True, False, False]
    assert other.differences(ours) and other.differences(ctc)
    assert not other.differences(owls)
    assert System("y", lambda query: "").differences(owls)
    # they are no part of what our own rows need
    assert {query.profile for query in table.queries()} == {"decode_asr_lowres"}
    assert {query.profile for query in table.queries([owls])} == {"baseline"}


def test_a_row_is_ours_or_anothers(tmp_path):
    path = tmp_path / "conf/tables/t.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(TABLE.replace("ours: {}", "ours: {}, baseline: a/b"))
    with pytest.raises(TableError, match="ours and baseline"):
        load_table(path)
