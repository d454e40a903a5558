"""Published tables: their descriptions, filling them, and the commands around them."""

import contextlib
import csv
import io
import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from experiment_builder import (
    PHONES,
    SECONDS,
    TEXTS,
    make_dump,
    make_experiment,
    slashed,
    write_hyps,
)
from powsm_command import POWSM, run_verb

from powsm.cli.main import main
from powsm.corpora.evaluation.dump_set import PhoneSetError, write_phone_set
from powsm.corpora.evaluation.part import PartError, is_part_current, write_part
from powsm.errors import PowsmError
from powsm.files.datadir import EXAMPLE_FILES, read_scp, validate
from powsm.report.paper import render
from powsm.report.paper.claims import load_claims
from powsm.report.paper.fill import (
    Filled,
    Score,
    System,
    fill,
    hyp_file,
    is_measured_otherwise,
    score_of,
)
from powsm.report.paper.plan import (
    PUBLISHED_RTF,
    describe,
    plan,
    plan_queries,
    real_time_factor,
    size_faults,
)
from powsm.report.paper.sets import TestSet, load_sets
from powsm.report.paper.spec import Cell, Query, TableError, load_table
from powsm.report.paper.systems import ExperimentScores, confusion
from powsm.report.paper.training import TrainingError
from powsm.score.metrics import score_lid, score_phones
from powsm.score.rates import Scores
from powsm.score.results import read_results

ROOT = Path(__file__).parents[3]
CONF = ROOT / "conf"
OTHERS = ("sets.yaml", "claims.yaml")
TABLES = sorted(p for p in (CONF / "tables").glob("*.yaml") if p.name not in OTHERS)

SMALL_TABLE = """
title: Tones
paper: a paper, table 1
metric: PFER
task: pr
profile: ctc_greedy
source: the paper
columns:
  - {name: Tone, set: test_tone}
  - {name: Spanish, set: test_tone, lang: spa}
  - {name: Absent, set: test_absent}
  - {name: tones, mean_of: [Tone, Spanish]}
  - {name: everything, mean_of: [Tone, Absent]}
rows:
  - {name: Theirs, cells: {Tone: 12.50}}
  - {name: POWSM, ours: {}, cells: {Tone: 30.1, Spanish: {value: 9, source: a blog}}}
"""


@pytest.fixture
def small_table(tmp_path):
    path = tmp_path / "table_small.yaml"
    path.write_text(SMALL_TABLE)
    return load_table(path)


def tone_scores(query: Query) -> Scores | str:
    if query.set != "test_tone":
        return f"set not found: {query.set}"
    return score_phones(
        hyp={u: slashed(h) for u, (_, _, h) in PHONES.items()},
        ref={u: slashed(r) for u, (_, r, _) in PHONES.items()},
        langs={u: lang for u, (lang, _, _) in PHONES.items()},
    )


# --- the shipped descriptions ---------------------------------------------------------


def test_all_tables_of_the_paper_are_described():
    expected = {f"table{n}" for n in range(1, 14)} | {"figure2", "figure3"}
    assert {p.stem for p in TABLES} == expected | {"table_lid", "prism3"}


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_description_names_known_sets_and_profiles(path):
    table = load_table(path)
    sets = load_sets(CONF / "tables/sets.yaml")
    assert table.queries(), "no row of ours"
    for query in table.queries():
        assert query.set in sets
        if is_measured_otherwise(query.metric):
            continue
        profile = yaml.safe_load((CONF / f"{query.profile}.yaml").read_text())
        assert query.task in profile["tasks"]


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_published_means_are_those_of_the_published_cells(path):
    """A mistyped digit would show, at the precision the numbers are given in."""
    table = load_table(path)
    for row in table.rows:
        for column in table.columns:
            parts = [row.cells[n].value for n in column.mean_of if n in row.cells]
            if not parts or len(parts) < len(column.mean_of):
                continue
            if column.name not in row.cells:
                continue
            if path.stem == "table4" and row.name == "ZIPA-CR-Large":
                continue  # cells and mean come from different sources
            published = row.cells[column.name]
            n_digits = len(published.text.partition(".")[2])
            # the mean of rounded numbers, itself rounded
            slack = 1.01 * 10**-n_digits
            assert math.isclose(
                sum(parts) / len(parts), published.value, abs_tol=slack
            ), (row.name, column.name)


TABLE_4 = """
Allosaurus        24.71 30.84 42.02 32.52 15.24 25.36 13.39 19.33 21.61 18.99
Allophant                                 16.05 24.13 11.91 14.38 18.28 16.95
W2V2Phoneme       17.25 13.88 31.92 21.02 12.50 18.57  9.86  9.90 13.60 12.89
MultIPA           18.28 15.23 30.53 21.35 18.69 23.31 15.52 15.64 21.34 18.90
ZIPA-CR-NS-Large  16.82 17.14 23.08 19.01 12.05 17.12  9.69 14.63 18.20 14.34
POWSM             17.06 17.11 21.96 18.71 12.63 18.33 11.32 11.86 17.84 14.40
"""


def test_table_4_has_the_published_numbers():
    rows = {row.name: row for row in load_table(CONF / "tables/table4.yaml").rows}
    for line in TABLE_4.strip().splitlines():
        name, *numbers = line.split()
        assert [cell.text for cell in rows[name].cells.values()] == numbers, name
    assert "ZIPA-CTC" in rows["ZIPA-CR-Large"].cells["DoReCo"].source


# --- faults ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: PFER\n", "metrik: PFER\n", r"unknown \['metrik'\]"),
        ("cells: {Tone: 12.50}", "cells: {Tune: 12.50}", r"unknown columns \['Tune'\]"),
        ("12.50", "nan", "found 'nan', expected a number; leave a blank cell out"),
        ("12.50", "about 12", "could not convert.*leave a blank cell out"),
        ("mean_of: [Tone, Absent]", "mean_of: [Tune]", r"mean of unknown \['Tune'\]"),
        ("name: Absent, set: test_absent", "name: Absent", "needs set or mean_of"),
        ("profile: ctc_greedy\n", "", "has no 'profile'"),
        ("rows:", "rows: []\nroes:", r"unknown \['roes'\]"),
        ("title: Tones", "title: [Tones]", r"title is \['Tones'\], expected text"),
        ("rows:", "rows: 3\nx:", "unknown"),
        ("columns:", "columns: {a: 1}\n_:", "unknown"),
        ("- {name: Tone, set: test_tone}", "- 3", "a column: found '3', expected"),
        ("name: Tone, set: test_tone", "name: Tone, set: [a]", "set is .* text"),
        ("mean_of: [Tone, Absent]", "mean_of: Tone", "mean_of is 'Tone', .* a list"),
        ("- {name: Theirs, cells: {Tone: 12.50}}", "- Theirs", "a row: found 'Theirs'"),
        ("cells: {Tone: 12.50}", "cells: [12.50]", "cells is .* 'key: value'"),
        ("cells: {Tone: 12.50}", "cells: {Tone: [1]}", "Theirs', Tone: value is"),
        ("ours: {}", "ours: {metric: [PFER]}", "ours: metric is"),
        ("ours: {}", "ours: 3", "ours is '3', expected 'key: value' lines"),
        ("ours: {}", "ours: {}, training: all", "training is 'all'"),
        ("ours: {}", "ours: {}, training: {set: a}", "training: set is 'a'"),
        (
            "ours: {}",
            "ours: {}, training: {plan: a.yaml}",
            "training: no plan",
        ),
        ("ours: {}", "ours: {}, blank: {Tone: [a]}", "blank: expected a reason"),
    ],
)
def test_faulty_description_is_refused(tmp_path, old, new, message):
    path = tmp_path / "table_x.yaml"
    path.write_text(SMALL_TABLE.replace(old, new, 1))
    with pytest.raises((TableError, TrainingError), match=message):
        load_table(path)


# --- filling --------------------------------------------------------------------------


def test_cells_are_filled_or_say_why_not(small_table):
    cells = {(c.row, c.column): c for c in fill(small_table, [MINI])}
    ours = cells["POWSM", "Tone"]
    # voicing of p (1/24) and four gaps over 12 reference phones
    assert ours.ours.value == pytest.approx(tone_scores_pfer("all"))
    assert cells["POWSM", "Spanish"].ours.value == pytest.approx(
        tone_scores_pfer("spa")
    )
    assert cells["POWSM", "Absent"].why == "set not found: test_absent"
    assert cells["POWSM", "everything"].why == "no score for Absent"
    assert "another's system" in cells["Theirs", "Tone"].why
    assert cells["Theirs", "Tone"].paper.text == "12.50"
    mean = (ours.ours.value + cells["POWSM", "Spanish"].ours.value) / 2
    assert cells["POWSM", "tones"].ours.value == pytest.approx(mean)


MINI = System("mini", tone_scores)


def tone_scores_pfer(lang: str) -> float:
    scores = tone_scores(Query("", "test_tone", "pr", lang, "PFER"))
    return (scores if lang == "all" else scores.by_lang()[lang]).value("PFER")


def test_an_incomplete_set_gets_no_verdict(small_table):
    """Nor does a mean of which it is a part; another set keeps its own."""
    system = System("mini", tone_scores, incomplete=frozenset({"test_tone"}))
    cells = {(c.row, c.column): c for c in fill(small_table, [system])}
    for name in ("Tone", "tones"):
        assert cells["POWSM", name].is_incomplete
    assert not cells["POWSM", "Absent"].is_incomplete
    cell = replace(cells["POWSM", "Tone"], paper=Cell("10.0", ""))
    assert cell.verdict("PFER") == "incomplete set"


def test_interval_of_a_mean_is_narrower_than_of_its_parts():
    # 3 and 4 below: sqrt(9 + 16) / 2; 6 and 8 above: sqrt(36 + 64) / 2
    from powsm.report.paper.fill import _mean
    from powsm.report.paper.spec import Column, Row

    parts = {
        "a": Filled("r", "a", None, Score(10, 7, 16, chance=30)),
        "b": Filled("r", "b", None, Score(20, 16, 28, chance=50)),
    }
    column = Column("mean", mean_of=("a", "b"))
    mean = _mean(Row("r", {}, ours={}), column, parts).ours
    assert mean == Score(15, 12.5, 20, chance=40)


@pytest.mark.parametrize(
    ("paper", "ours", "metric", "verdict"),
    [
        ("10.0", Score(11, 9, 13), "PFER", "agrees"),
        ("10.0", Score(14, 12, 16), "PFER", "worse"),
        ("10.0", Score(14, 8, 19), "PFER", "undecided"),  # 11 points wide
        ("10.0", Score(8, 7, 9), "PFER", "better"),
        ("90.0", Score(95, 93, 97), "accuracy", "better"),
        ("42.6", Score(1, 0, 2), "taken_for:bak", "differs"),
        ("10.0", Score(8, math.nan, math.nan), "PFER", "no interval"),
        (
            "10.0",
            Score(19, 18, 20, chance=20),
            "PFER",
            "chance: nothing was recognised",
        ),
        ("10.0", Score(17, 16, 18, chance=20), "PFER", "worse"),
        ("200", Score(195, math.nan, math.nan), "hours", "agrees"),  # 2.5 %
        ("200", Score(193, math.nan, math.nan), "hours", "another size"),  # 3.5 %
        (None, Score(8, 7, 9), "PFER", "no published number"),
        ("10.0", None, "PFER", ""),
    ],
)
def test_verdicts(paper, ours, metric, verdict):
    cell = Filled("r", "c", Cell(paper, "") if paper else None, ours)
    assert cell.verdict(metric) == verdict


def test_shares_of_languages_heard_are_of_those_spoken():
    heard = {"a": "<eng>", "b": "<spa>", "c": "<spa>", "d": "<spa>"}
    langs = {"a": "eng", "b": "eng", "c": "spa", "d": "spa"}
    assert confusion(heard, langs) == [
        ["language", "n", "spa", "eng"],
        ["eng", "2", "50", "50"],
        ["spa", "2", "100", ""],
    ]


def test_sizes_are_of_utterances_and_of_a_copy(tmp_path):
    dump = make_dump(tmp_path).parent  # five utterances in four tasks, 0.6 s each
    hours = 5 * SECONDS / 3600
    for known in (TestSet(hours, "", n_utts=5), TestSet(9, "", copy_hours=hours)):
        assert size_faults(["test_tone"], dump, {"test_tone": known}) == []
    other = TestSet(hours, "", copy_hours=2 * hours)
    (fault,) = size_faults(["test_tone"], dump, {"test_tone": other})
    assert fault.endswith(" in a copy (-50 %)")


def test_share_taken_for_a_language():
    scores = score_lid(hyp=["eng", "eng", "bak"], ref=["tus", "tus", "tus"])
    scores.columns["taken_for:eng"] = scores.columns["n_utts"] * [1, 1, 0]
    found = score_of(scores, "taken_for:eng")
    assert found.value == pytest.approx(200 / 3)
    assert found.low < found.value < found.high
    assert score_of(scores, "taken_for:kin").value == 0.0  # nobody was


def test_hypotheses_of_a_task_are_found_whatever_the_search(tmp_path):
    exp, _ = make_experiment(tmp_path)
    query = Query("ctc_greedy", "test_tone", "pr", "all", "PFER")
    assert hyp_file(exp, query) == exp / "ctc_greedy/test_tone/pr_ctc/hyp.jsonl"
    assert hyp_file(exp, Query("ctc_greedy", "test_tone", "p", "all", "PFER")) is None


# --- forms ----------------------------------------------------------------------------


def test_markdown_has_grid_comparison_and_reasons(small_table):
    cells = fill(small_table, [MINI])
    text = render.markdown(small_table, cells)
    assert "| Theirs | 12.50 | – | – | – | – |" in text
    assert "| POWSM: mini |" in text
    assert "- POWSM: mini (Absent): set not found: test_absent." in text
    assert "- POWSM, Spanish: a blog" in text
    # 30.1 is inside the interval around 31.4, but five utterances make it wide
    row = next(r for r in text.splitlines() if r.startswith("| POWSM: Tone |"))
    assert row.endswith("| undecided |") and "| +1.3" in row


def test_markdown_shows_rows_that_are_called_as_symbols_are(small_table):
    rows = tuple(replace(row, name=f"<{row.name}>") for row in small_table.rows)
    table = replace(small_table, rows=rows)
    text = render.markdown(table, fill(table, [System("exp", tone_scores)]))
    assert r"| \<Theirs> |" in text and "<" not in text.replace(r"\<", "")
    assert "`chance` is" in text
    other = replace(table, settings={**table.settings, "metric": "PER"})
    assert "`chance` is" not in render.markdown(
        other, fill(other, [System("exp", tone_scores)])
    )


def test_csv_has_a_line_a_cell(small_table):
    cells = fill(small_table, [MINI])
    rows = list(csv.DictReader(io.StringIO(render.to_csv(small_table, cells))))
    assert len(rows) == 10
    assert tuple(rows[0]) == render.CSV_FIELDS
    spanish = rows[6]
    assert (spanish["lang"], spanish["paper"], spanish["paper_source"]) == (
        "spa",
        "9",
        "a blog",
    )


def test_latex_escapes_and_has_as_many_cells_as_columns(small_table):
    system = System("m_1 & co", tone_scores)
    text = render.to_latex(small_table, fill(small_table, [system]))
    assert r"m\_1 \& co" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in body} == {5, 6}  # chance
    # the comparison, with difference, interval and verdict, and what is empty
    assert text.count("{tabular}") == 4
    assert (
        r"cell & paper & ours & difference & 95 \% interval & chance & verdict \\"
        in text
    )
    assert r"% - POWSM: m_1 & co (Absent): set not found: test_absent." in text


# --- plan -----------------------------------------------------------------------------


def test_plan_counts_hours_and_names_what_is_missing(tmp_path, small_table):
    exp, dump = make_experiment(tmp_path)
    planned = plan(small_table, exp, dump, {})
    by_set = {p.query.set: p for p in planned}
    assert by_set["test_tone"].is_done
    assert by_set["test_tone"].hours == pytest.approx(5 * 0.6 / 3600)
    assert by_set["test_absent"].why_not.startswith("set not found")
    text = describe(planned, exp)
    assert "have    ctc_greedy test_tone pr" in text and "0.00 h of audio" in text
    # 0.6 s of computing for 6 s of audio, in two decodings
    assert real_time_factor(exp)[0] == pytest.approx(0.1)
    assert real_time_factor(None)[0] == PUBLISHED_RTF


def test_plan_prepares_sets_whose_variable_names_a_folder(tmp_path, small_table):
    exp, dump = make_experiment(tmp_path)
    sets = {"test_absent": TestSet(2.0, "for money", variable="ABSENT")}
    planned = plan(small_table, exp, dump, sets, {"ABSENT": "/corpora/absent"})
    text = describe(planned, exp)
    assert "prepare test_absent: from /corpora/absent" in text
    assert "decode  ctc_greedy test_absent pr: 2.00 h of audio" in text
    assert "up to 230 MB for recordings to be cut" in text  # 115 MB an hour
    for environment in ({}, {"ABSENT": ""}):
        (missing,) = (
            p.why_not
            for p in plan(small_table, exp, dump, sets, environment)
            if p.query.set == "test_absent"
        )
        assert missing.endswith("(ABSENT in db.sh says where; for money)")


def test_profile_is_named_without_its_prefix(tmp_path):
    exp, _ = make_experiment(tmp_path)
    path = exp / "results.json"
    path.write_text(path.read_text().replace('"ctc_greedy"', '"decode_ctc_greedy"'))
    assert {r.profile for r in read_results(path)} == {"ctc_greedy", "lid"}


# --- commands -------------------------------------------------------------------------


def run(*arguments: object) -> subprocess.CompletedProcess:
    """A verb in this process, which has loaded what it needs."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            run_verb(*arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            stderr.write("" if isinstance(end.code, int) else f"{end.code}\n")
    return subprocess.CompletedProcess(
        arguments, status, stdout.getvalue(), stderr.getvalue()
    )


def test_reproduce_fills_a_table_from_what_is_decoded(tmp_path):
    exp, dump = make_experiment(tmp_path)
    path = tmp_path / "table_small.yaml"
    path.write_text(SMALL_TABLE)
    done = run("reproduce", "--table", path, "--exp", exp, "--dump", dump)
    assert done.returncode == 0, done.stderr
    assert "| POWSM: s2t_tiny | 31." in done.stdout
    written = {p.name for p in (exp / "tables").iterdir()}
    assert written == {f"table_small.{ext}" for ext in ("md", "csv", "tex")}


def test_reproduce_names_the_tables_there_are():
    done = run("reproduce", "--table", "99", "--dry_run")
    assert done.returncode == 1
    assert "no table '99'" in done.stderr and "prism3 table1 table10" in done.stderr


def test_compare_shows_paired_differences_and_settings(tmp_path):
    first, dump = make_experiment(tmp_path, "first")
    second, _ = make_experiment(tmp_path, "second")
    (second / "config.yaml").write_text(yaml.safe_dump({"seed": 7}))
    write_hyps(second, "joint", "test_tone", "pr_joint", {})
    done = run("compare", first, second, "--dump", dump, "--by_lang")
    assert done.returncode == 0, done.stderr
    assert "| test_tone: phone recognition, ctc_greedy | PFER | 31." in done.stdout
    assert "ctc_greedy, spa |" in done.stdout
    assert "| seed | 42 | 7 |" in done.stdout
    assert "- joint/test_tone/pr_joint" in done.stdout


def test_compare_takes_two_profiles_of_one_experiment(tmp_path):
    exp, dump = make_experiment(tmp_path)
    refs = {utt_id: slashed(ref) for utt_id, (_, ref, _) in PHONES.items()}
    write_hyps(exp, "decode_other", "test_tone", "pr_ctc", refs)  # without an error
    done = run(
        "compare",
        *(exp / "ctc_greedy", exp / "decode_other", "--dump", dump),
    )
    assert done.returncode == 0, done.stderr
    what = "| test_tone: phone recognition, ctc_greedy / other | PFER | 31."
    assert what in done.stdout
    assert "| 0.00 | +31." in done.stdout


def test_compare_pairs_speech_recognition_with_p2g(tmp_path):
    exp, dump = make_experiment(tmp_path)
    right = dict(TEXTS)
    wrong = right | {"tone_a_eng": "word"}  # one word of ten is missing
    write_hyps(exp, "decode_asr_lowres", "test_tone", "asr_attention", wrong)
    tag = "p2g_attention_predicted"
    write_hyps(exp, "decode_pr_p2g", "test_tone", tag, right)
    done = run("compare", exp / "decode_asr_lowres", exp / "decode_pr_p2g")
    assert done.returncode == 1 and "--dump" in done.stderr
    sides = (exp / "decode_asr_lowres", exp / "decode_pr_p2g")
    done = run("compare", *sides, "--dump", dump)
    assert done.returncode == 0, done.stderr
    row = next(x for x in done.stdout.splitlines() if "| WER |" in x)
    assert "speech recognition / audio-guided phone to grapheme" in row
    assert "| 10.00 | 0.00 | +10.00 |" in row


def test_compare_of_phones_and_g2p_is_on_what_has_orthography(tmp_path, caplog):
    exp, dump = make_experiment(tmp_path)
    texts = (dump / "test_tone/ref.text").read_text().replace("_eng word a", "_eng")
    (dump / "test_tone/ref.text").write_text(texts)
    hyps = {u: slashed(hyp) for u, (_, _, hyp) in PHONES.items() if u != "tone_a_eng"}
    g2p = write_hyps(exp, "decode_x", "test_tone", "g2p_attention", hyps)
    sides = (exp / "ctc_greedy/test_tone/pr_ctc", g2p)
    done = run("compare", *sides, "--dump", dump)
    assert done.returncode == 0, done.stderr
    assert "on the 4 utterances with orthography" in caplog.text
    row = next(x for x in done.stdout.splitlines() if "| PER |" in x)
    assert "| 50.00 | 50.00 | +0.00 |" in row  # 5 errors in 10 phones


def test_compare_of_parts_of_experiments_says_whose_and_what_differs(tmp_path):
    sides = []
    for seed, name in enumerate(("first", "second")):
        exp, dump = make_experiment(tmp_path, name)
        (exp / "config.yaml").write_text(yaml.safe_dump({"seed": seed}))
        sides.append(exp / "ctc_greedy")
    out = tmp_path / "texts/difference.md"
    done = run("compare", *sides, "--dump", dump, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"| metric | {sides[0]} | {sides[1]} | difference |" in done.stdout
    assert "| seed | 0 | 1 |" in done.stdout
    assert out.read_text() == done.stdout.removesuffix("\n")


def test_compare_refuses_different_sets_and_kinds(tmp_path):
    exp, dump = make_experiment(tmp_path)
    text = write_hyps(exp, "a", "test_tone", "asr_attention", TEXTS)
    phones = exp / "ctc_greedy/test_tone/pr_ctc"
    done = run("compare", text, phones, "--dump", dump)
    assert done.returncode == 1 and "writes text" in done.stderr


def test_words_are_not_scored_against_another_text_policy(tmp_path):
    exp, dump = make_experiment(tmp_path)
    write_hyps(exp, "decode_x", "test_tone", "asr_attention", TEXTS)
    made_with = {"policy": "released", "text_policy": "released"}
    (exp / "normaliser.json").write_text(json.dumps(made_with))
    record = {"policy": "strict", "version": "x", "text_policy": "powsm_fix"}
    (dump / "test_tone/normaliser.json").write_text(json.dumps(record))
    done = run("compare", exp / "decode_x", exp / "decode_x", "--dump", dump)
    assert done.returncode == 1
    assert "writes text by policy released" in done.stderr
    assert "--text_policy released" in done.stderr
    (exp / "normaliser.json").write_text(json.dumps(record))
    done = run("compare", exp / "decode_x", exp / "decode_x", "--dump", dump)
    assert done.returncode == 0, done.stderr


def test_phones_of_a_table_are_scored_against_raw_references(tmp_path):
    exp, dump = make_experiment(tmp_path)
    path = tmp_path / "table_small.yaml"
    path.write_text(SMALL_TABLE.replace("task: pr\n", "task: pr\nreferences: raw\n"))
    options = ("--table", path, "--exp", exp, "--dump", dump, "--conf", ROOT / "conf")
    done = run("reproduce", *options)
    assert done.returncode == 1 and "ref.raw.ipa is missing" in done.stderr
    hyps = {u: slashed(hyp) for u, (_, _, hyp) in PHONES.items()}
    raw = "".join(f"{u} {hyp}\n" if hyp else f"{u} \n" for u, hyp in hyps.items())
    raw = raw.replace("tone_e_spa \n", "tone_e_spa a\n")
    (dump / "test_tone/ref.raw.ipa").write_text(raw)
    done = run("reproduce", *options)
    # all but one phone of ten are as said; [a], deleted, costs less than 1
    row = next(x for x in done.stdout.splitlines() if "| POWSM: s2t_tiny |" in x)
    assert 5 < float(row.split("|")[2]) < 10, done.stderr
    assert "IPA that went through no normaliser" in done.stdout


def test_scores_of_phones_stand_beside_chance():
    heard = Score(20.0, 18.0, 22.0, chance=30.0)
    nothing = Score(28.0, 26.0, 29.0, chance=30.0)  # more than 0.9 of chance
    paper = Cell("20.50", "")
    assert Filled("r", "c", paper, heard).verdict("PFER") == "agrees"
    assert Filled("r", "c", paper, nothing).verdict("PFER").startswith("chance")
    assert Filled("r", "c", None, heard).verdict("PFER") == "no published number"


def test_claims_are_tested_on_what_an_experiment_has_decoded(tmp_path):
    """By hand: the first search has no error, the second those of PHONES."""
    exp, dump = make_experiment(tmp_path)
    right = {utt_id: slashed(ref) for utt_id, (_, ref, _) in PHONES.items()}
    wrong = {utt_id: slashed(hyp) for utt_id, (_, _, hyp) in PHONES.items()}
    for weight, texts in (("07", right), ("03", wrong)):
        profile = f"decode_beam1_{weight}_unk"
        write_hyps(exp, profile, "test_tone", "pr_joint_unk", texts)
    done = subprocess.run(
        [
            *(*POWSM, "reproduce", "--claims", "--dry_run", "--exp", str(exp)),
            *("--conf", str(CONF), "--dump", str(dump)),
            *("--seen", "test_tone", "--unseen", "test_tone"),
            *("--words", "test_tone", "--g2p", "test_tone"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = {row.split("|")[1].strip(): row for row in done.stdout.splitlines()[4:]
            if row.count("|") > 4}  # fmt: skip
    assert "| undecided | PFER 0.00 and 3" in rows["more CTC, unseen languages"]
    assert "5 utterances" in rows["more CTC, unseen languages"]
    assert "is not decoded by decode_pr_p2g" in rows["PR-P2G"]
    assert f"powsm reproduce --table 2 --exp {exp}" in done.stdout
    assert (exp / "tables/claims.md").exists()


def test_a_part_of_a_set_holds_the_languages_it_names(tmp_path):
    _, dump = make_experiment(tmp_path)
    for name in ("text.prev", "text.ctc"):
        rows = read_scp(dump / "test_tone/text")
        (dump / "test_tone" / name).write_text("".join(f"{k} x\n" for k, _ in rows))
    assert write_part(dump / "test_tone", dump / "test_part", ["spa"]) == 12
    langs = dict(read_scp(dump / "test_part/utt2lang"))
    assert set(langs.values()) == {"spa"} and len(langs) == 12  # 3 in four tasks
    validate(dump / "test_part", EXAMPLE_FILES)
    refs = dict(read_scp(dump / "test_part/ref.ipa"))
    assert refs.keys() == {"tone_c_spa", "tone_d_spa", "tone_e_spa"}
    # made anew when the set was, and for other languages
    whole, part = dump / "test_tone", dump / "test_part"
    assert is_part_current(whole, part, ["spa"])
    assert not is_part_current(whole, part, ["spa", "eng"])
    known = {"test_part": TestSet(None, "", part_of="test_tone", langs=("spa",))}
    query = Query("ctc_greedy", "test_part", "pr", "all", "PFER")
    (planned,) = plan_queries([query], None, dump, known)
    assert planned.part_of == ""
    refs = (whole / "ref.text").read_text()
    (whole / "ref.text").write_text(refs.replace("word", "words"))
    (planned,) = plan_queries([query], None, dump, known)
    assert planned.part_of == "test_tone" and not planned.is_done
    write_part(whole, part, ["spa"])
    assert "words" in (part / "ref.text").read_text()
    assert is_part_current(whole, part, ["spa"])
    with pytest.raises(PartError, match="no utterance in fra"):
        write_part(dump / "test_tone", dump / "test_part", ["fra"])


def test_a_metric_that_a_task_has_not_leaves_its_cells_empty(tmp_path, small_table):
    exp, dump = make_experiment(tmp_path)
    score = ExperimentScores(exp, dump, {})
    settings = small_table.settings | {"metric": "WER", "profile": "ctc_greedy"}
    columns = tuple(replace(c, set="test_tone") for c in small_table.columns[:1])
    table = replace(small_table, settings=settings, columns=columns)
    whys = {cell.why for cell in fill(table, [System("x", score)])}
    assert "pr has no WER, but PER PFER PFER_chance PFER_hamming mean_hamming" in whys


def test_a_part_of_a_decoded_set_is_scored_alone(tmp_path):
    exp, dump = make_experiment(tmp_path)
    known = {"test_part": TestSet(None, "", part_of="test_tone", langs=("spa",))}
    score = ExperimentScores(exp, dump, known)
    asked = {"pr": ("ctc_greedy", "PFER"), "lid": ("lid", "accuracy")}
    for task, (profile, metric) in asked.items():
        scores = score(Query(profile, "test_part", task, "all", metric))
        assert scores.utt_ids == ("tone_c_spa", "tone_d_spa", "tone_e_spa")
    assert scores.counts["taken_for:ita"] == 1
    known["test_part"] = replace(known["test_part"], langs=("fra",))
    why = score(Query("lid", "test_part", "lid", "all", "accuracy"))
    assert why == "test_part has no utterance of its languages"


@pytest.mark.parametrize("number", [*range(1, 14), "figure2", "figure3", "lid"])
def test_every_table_answers_and_a_small_model_fills_none_of_its_rows(
    number, tmp_path, capsys
):
    exp, dump = make_experiment(tmp_path)
    where = ["--exp", str(exp), "--dump", str(dump), "--conf", str(ROOT / "conf")]
    assert main(["reproduce", "--table", str(number), *where]) in (0, None)
    said = capsys.readouterr().out
    if number in (1, 9, 10):
        assert "set not found: " in said
    else:
        assert "s2t_tiny is another training: " in said
        assert "No cell of ours could be filled." in said


def test_plan_names_the_rows_that_a_model_leaves_and_what_would_fill_them(
    tmp_path, capsys
):
    exp, dump = make_experiment(tmp_path)
    where = ["--exp", str(exp), "--dump", str(dump), "--conf", str(ROOT / "conf")]
    command = ["reproduce", "--table", "prism3", "--dry_run", *where]
    left = {}
    for more in ((), ("--any_training",)):
        assert main([*command, *more]) in (0, None)
        lines = capsys.readouterr().out.splitlines()
        left[more] = [x for x in lines if x.startswith("leaves ")]
    powsm, without = left[()]
    assert powsm.startswith("leaves POWSM: s2t_tiny is another training: ")
    assert "--any_training fills the row all the same" in powsm
    assert "--any_training" not in without  # which has no decoder
    assert "To train it: ../../powsm_ctc/s2t1/run.sh --config conf/train_po" in without
    assert left["--any_training",] == [without]


def test_compare_of_nothing_in_common_says_so(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    done = run("compare", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 1
    assert "no decoded set in common" in done.stderr


# --- test sets of human transcripts ---------------------------------------------------


def phone_folder(tmp_path: Path, **files: str) -> Path:
    """A folder as PRiSM publishes them, with two recordings of 0.6 s."""
    _, dump = make_experiment(tmp_path / "source")
    folder = tmp_path / "test_x"
    folder.mkdir()
    for name, source in (("b", "tone_a_eng"), ("a", "tone_b_eng")):
        audio = (dump / f"audio/{source}.wav").read_bytes()
        (folder / f"{name}.wav").write_bytes(audio)
    defaults = {
        "wav.scp": "b b.wav\na/1 a.wav\n",
        "text.good": "b pʰiː\na/1 bat\n",
        "text.lang": "b <tus>\na/1 eng\n",
    }
    for name, text in (defaults | files).items():
        (folder / name).write_text(text)
    return folder


def test_phone_set_can_be_decoded_and_scored(tmp_path):
    out = tmp_path / "dump/test_x"
    made = write_phone_set(phone_folder(tmp_path), out)
    assert (made.n_utts, made.dropped) == (2, ())
    validate(out, EXAMPLE_FILES)
    rows = dict(read_scp(out / "text"))
    # a language without a token is <unk> in the prompt, and keeps its code in the id
    assert rows["x_b_tus_pr"] == "<unk><pr><notimestamps> /pʰ//iː/"
    assert dict(read_scp(out / "text.ctc"))["x_b_tus_pr"] == "/pʰ//i/"
    assert dict(read_scp(out / "ref.ipa")) == {
        "x_a@2F1_eng": "bat",
        "x_b_tus": "pʰiː",
    }


def test_phone_set_without_languages_is_undetermined(tmp_path):
    folder = phone_folder(tmp_path)
    (folder / "text.lang").unlink()
    write_phone_set(folder, tmp_path / "dump/test_x")
    langs = dict(read_scp(tmp_path / "dump/test_x/utt2lang"))
    assert set(langs.values()) == {"und"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"text.good": "b pa\n"}, "1 utterances are in only one of .*a/1"),
        ({"wav.scp": "b b.wav\na/1 sox a.wav |\n"}, "a/1 is a pipe"),
        ({"wav.scp": "b b.wav\na/1 c.wav\n"}, "no file c.wav"),
        ({"text.good": "b 1\na/1 2\n"}, "no transcript holds a phone"),
    ],
)
def test_faulty_phone_set_is_refused(tmp_path, files, message):
    folder = phone_folder(tmp_path, **files)
    with pytest.raises(PhoneSetError, match=message):
        write_phone_set(folder, tmp_path / "dump/test_x")
    assert not (tmp_path / "dump/test_x").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims: []", r"missing \['sets'\]"),
        ("sets: 3\nclaims: []", "sets is 3, expected 'key: value' lines"),
        ("sets: {seen: a}\nclaims: []", "sets: seen: 'a', expected a list"),
        ("sets: {}\nclaims: {a: 1}", "claims is .* expected a list"),
        ("sets: {}\nclaims: [3]", "a claim: found 3, expected 'key: value' lines"),
        ("sets: {}\nclaims: [{name: a}]", r"missing \['source', 'statement'\]"),
        (
            "sets: {}\nclaims: [{name: a, statement: b, source: c, below: x}]",
            "below is 'x', expected a number",
        ),
        (
            "sets: {}\nclaims: [{name: a, statement: b, source: c, first: {task: pr}}]",
            r"a: unknown \[\], missing \['profile'\]",
        ),
    ],
)
def test_faulty_claims_are_refused(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(PowsmError, match=message) as refused:
        load_claims(path)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)
