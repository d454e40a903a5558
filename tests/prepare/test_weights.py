"""Weights of utterances: made of phones and decoded phones, read by training."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
from datadir_builder import make_data_dir
from dump_builder import make_dump
from powsm_command import run_verb

from powsm.errors import PowsmError
from powsm.prepare.dump import Settings, prepare_set
from powsm.prepare.index import ExampleIndex
from powsm.prepare.weights import (
    WeightError,
    balance_phones,
    count_phones,
    dump_phones,
    read_weights,
    times_of,
)
from powsm.score.decoded import DumpSet

COMMON = [(f"u{n}", ("a", "t")) for n in range(8)]
RARE = [("v0", ("q", "a")), ("v1", ("q", "q", "q"))]


@pytest.fixture
def folder(tmp_path):
    return make_dump(tmp_path / "raw/train", [0.5, 1.0, 0.75, 1.5, 0.6], no_text=(2,))


def weights_of(rows, temperature, most=100.0):
    return dict(balance_phones(rows, count_phones(rows), temperature, most))


def test_rare_phones_bring_their_utterances_more_often():
    weights = weights_of(COMMON + RARE, 2.0)
    assert weights["v1"] > weights["v0"] > 1 > weights["u0"]
    assert len({weights[f"u{n}"] for n in range(8)}) == 1
    # a: 9, t: 8, q: 4 of 21; wanted by their roots
    scale = 21 / (3 + 8**0.5 + 2)
    assert weights["v1"] == pytest.approx(scale * 2 / 4)
    assert weights["u0"] == pytest.approx(scale * (3 / 9 + 8**0.5 / 8) / 2)


def test_over_all_phones_of_the_set_the_mean_weight_is_one():
    rows = COMMON + RARE
    weights = weights_of(rows, 3.0)
    n_phones = {utt_id: len(said) for utt_id, said in rows}
    total = sum(weights[utt_id] * n for utt_id, n in n_phones.items())
    assert total == pytest.approx(sum(n_phones.values()))


def test_one_leaves_all_as_it_is_and_most_is_the_limit():
    assert set(weights_of(COMMON + RARE, 1.0).values()) == {1.0}
    assert max(weights_of(COMMON + RARE, 9.0, most=1.25).values()) == 1.25
    assert weights_of([("silent", ())], 2.0) == {"silent": 1.0}


def test_phones_of_a_dump_are_those_of_each_utterance_once(folder):
    rows = list(dump_phones(folder))
    assert [utt_id for utt_id, _ in rows] == list(ExampleIndex(folder).utt_ids())
    assert [len(said) for _, said in rows] == [2, 4, 3, 6, 2]
    index = ExampleIndex(folder)
    assert list(index.utt_ids()) == [index.utt_id(n) for n in range(len(index))]


def test_times_are_one_where_nothing_is_said(folder, tmp_path, caplog):
    ids = list(ExampleIndex(folder).utt_ids())
    path = tmp_path / "utt2weight"
    path.write_text(f"{ids[1]} 0\n{ids[3]} 2.5\nzz 3\n")
    with caplog.at_level(logging.WARNING):
        times = times_of(ExampleIndex(folder), path)
    assert times.tolist() == [1, 0, 1, 2.5, 1]
    assert "1 of its 3 utterances are not in" in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a 1\nb much\n", ":2: found 'much', expected '<utt_id> <times>'"),
        ("a -1\n", ":1: found '-1'"),
        ("a nan\n", ":1: found 'nan'"),
        ("a inf\n", ":1: found 'inf'"),
        ("a 101\n", "a number from 0 to 100"),
        ("a\n", ":1: found ''"),
        ("b 1\na 1\n", ":2: "),
        ("zz 1\n", "none of its 1 utterances is in"),
    ],
)
def test_bad_files_are_named(folder, tmp_path, lines, message):
    path = tmp_path / "utt2weight"
    path.write_text(lines)
    with pytest.raises(PowsmError) as told:
        times_of(ExampleIndex(folder), path)
    assert message in str(told.value) and str(path) in str(told.value)


def test_nothing_left_or_no_file_is_refused(folder, tmp_path):
    path = tmp_path / "utt2weight"
    ids = ExampleIndex(folder).utt_ids()
    path.write_text("".join(f"{utt_id} 0\n" for utt_id in ids))
    with pytest.raises(WeightError, match="every utterance of .*train has weight 0"):
        times_of(ExampleIndex(folder), path)
    with pytest.raises(WeightError, match="no such file; powsm weigh writes one"):
        read_weights(tmp_path / "absent")


def decode(folder, exp, texts):
    """A decoded set with these texts, one an utterance."""
    decoded = exp / "decode_ctc/train/pr_ctc"
    decoded.mkdir(parents=True)
    record = folder / "normaliser.json"
    record.exists() or record.write_text('{"policy": "strict", "version": "1"}')
    ids = ExampleIndex(folder).utt_ids()
    rows = [
        json.dumps({"utt_id": u, "text": t}) for u, t in zip(ids, texts, strict=True)
    ]
    (decoded / "hyp.jsonl").write_text("\n".join(rows) + "\n")
    return decoded


def test_verb_leaves_out_what_a_model_hears_otherwise(folder, tmp_path, caplog):
    refs = [f"/{'//'.join(said)}/" for _, said in dump_phones(folder)]
    decoded = decode(folder, tmp_path / "exp", [*refs[:3], "/m/", refs[4]])
    out = tmp_path / "train.utt2weight"
    with caplog.at_level(logging.INFO):
        options = ("--decoded", decoded, "--most_pfer", 60, "--out", out)
        run_verb("weigh", folder, *options)
    ids = list(ExampleIndex(folder).utt_ids())
    assert out.read_text() == f"{ids[3]} 0\n"
    assert "1 of 5 utterances left out, 0 others not once" in caplog.text
    run_verb("weigh", folder, *options, "--phone_temperature", 2, "--most", 1.5)
    weights = read_weights(out)
    assert weights[ids[3]] == 0 and len(weights) > 1
    kept = [row for row in dump_phones(folder) if row[0] != ids[3]]
    expected = weights_of(kept, 2.0, 1.5)
    for utt_id in weights.keys() - {ids[3]}:
        assert weights[utt_id] == pytest.approx(expected[utt_id], rel=1e-3)


def test_verb_needs_no_references_that_stage_4_does_not_write(tmp_path):
    rows = {
        "cv_1_deu": {"ipa": "paːta"},
        "cv_2_deu": {"ipa": "tata", "text": ""},
        "cv_3_deu": {"ipa": "kaka"},
    }
    folder = tmp_path / "raw/train"
    prepare_set(make_data_dir(tmp_path / "data/train", rows), folder, Settings())
    assert not (folder / "ref.ipa").exists()
    texts = ["/p//aː//t//a/", "/t//a//t//a/", "/m//m//m//m//m//m/"]
    decoded = decode(folder, tmp_path / "exp", texts)
    truth = DumpSet(folder)
    assert [*truth.references("phones").values()] == [*texts[:2], "/k//a//k//a/"]
    assert [*truth.references("text").values()] == ["paw", "", "paw"]
    assert [*truth.with_text(truth.langs)] == ["cv_1_deu", "cv_3_deu"]
    out = tmp_path / "weights"
    options = ("--decoded", decoded, "--most_pfer", 10, "--out", out)
    run_verb("weigh", folder, *options)
    assert out.read_text() == "cv_3_deu 0\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to weigh by"),
        (["--decoded", "exp/decode_ctc/train/pr_ctc"], "go together"),
        (["--most_pfer", "60"], "go together"),
        (["--most", "2"], "--most: not used"),
        (["--phone_temperature", "0.5"], "expected a number from 1"),
        (
            ["--decoded", "exp/x/dev/pr_ctc", "--most_pfer", "60"],
            "of set dev, expected",
        ),
        (["--decoded", "exp/x/train/asr_x", "--most_pfer", "60"], "writes no phones"),
        (["--decoded", "exp/x/train/pr_ctc", "--most_pfer", "60"], "hyp.jsonl"),
    ],
)
def test_verb_refuses_what_it_cannot_weigh_by(
    folder, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as told:
        run_verb("weigh", folder, "--out", "weights", *options)
    assert message in f"{told.value} {capsys.readouterr().err}"
    assert not (tmp_path / "weights").exists()


def test_verb_leaves_nothing_where_all_would_go(folder, tmp_path):
    decoded = decode(folder, tmp_path / "exp", ["/m//m//m//m/"] * 5)
    out = tmp_path / "weights"
    with pytest.raises(SystemExit, match="all 5 utterances would be left out"):
        run_verb("weigh", folder, "--decoded", decoded, "--most_pfer", 1, "--out", out)
    assert not out.exists()


def test_weights_and_counts_are_of_the_same_phones(folder):
    counted = count_phones(dump_phones(folder))
    assert counted == Counter(p for _, said in dump_phones(folder) for p in said)
    assert np.isclose(sum(counted.values()), 17)
