"""The paper's claims: what tests them, and what each test says."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from experiment_builder import PHONES, make_experiment, slashed

from powsm.report.paper.claims import (
    FAILS,
    HOLDS,
    NOTHING,
    OPEN,
    UNTESTED,
    Claim,
    ClaimError,
    _held_against,
    check_claims,
    joined,
    load_claims,
    needed,
    render_claims,
)
from powsm.report.paper.fill import Score, System
from powsm.report.paper.spec import Query, TableError, load_table
from powsm.report.paper.systems import ExperimentScores
from powsm.report.paper.training import Trained
from powsm.score.metrics import score_phones
from powsm.score.results import read_history
from powsm.settings import load_yaml

CONF = Path(__file__).parents[3] / "conf"
DUMP = Path("dump/mine")
CLAIM = Claim(
    *("c", "a is lower than b", "table 0", "seen", "PFER"),
    first={"profile": "a", "task": "pr"},
    second={"profile": "b", "task": "pr"},
)


def scores(errors: int):
    """60 utterances of two phones; the first `errors` of them are not recognised."""
    ids = [f"u{i:02}" for i in range(60)]
    return score_phones(
        hyp={u: "" if i < errors else "/p//i/" for i, u in enumerate(ids)},
        ref=dict.fromkeys(ids, "/p//i/"),
    )


def outcome(errors: dict, claim=CLAIM):
    system = System("x", lambda query: scores(errors[query.profile]))
    where = ([claim], {"seen": ["test_a"]}, [system])
    (result,) = check_claims(*where, load_table, {"x": Path("exp/x")}, DUMP)
    return result


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ({"a": 5, "b": 40}, HOLDS),
        ({"a": 40, "b": 5}, FAILS),
        ({"a": 20, "b": 21}, OPEN),  # one utterance of 60
        ({"a": 20, "b": 20}, OPEN),
    ],
)
def test_paired_claims_hold_by_their_interval(errors, verdict):
    result = outcome(errors)
    assert result.verdict == verdict
    assert "60 utterances" in result.detail and "p " in result.detail
    assert "powsm compare exp/x/a exp/x/b" in result.command


@pytest.mark.parametrize(
    ("lengths", "verdict"),
    [
        ({"a": 6, "b": 9}, NOTHING),
        ({"a": 9, "b": 6}, NOTHING),
        ({"a": 1, "b": 9}, HOLDS),  # one of the two hears something
    ],
)
def test_outputs_worse_than_none_say_nothing(lengths, verdict):
    def repeated(query):
        hyp = "/p//i/" * lengths[query.profile]
        return score_phones(
            hyp={f"u{i}": hyp for i in range(60)},
            ref={f"u{i}": "/p//i/" for i in range(60)},
        )

    where = ([CLAIM], {"seen": ["test_a"]}, [System("x", repeated)])
    (result,) = check_claims(*where, load_table, {"x": Path("exp/x")}, DUMP)
    assert result.verdict == verdict
    assert ("an empty output" in result.detail) == (verdict == NOTHING)


def test_languages_of_a_set_are_compared_alone():
    def of_two_languages(query):
        assert query.set == "test_a"
        n_wrong = {"a": 5, "b": 25}[query.profile]
        ids = [f"u{i:02}" for i in range(60)]
        return score_phones(
            hyp={u: "" if i < n_wrong else "/p//i/" for i, u in enumerate(ids)},
            ref=dict.fromkeys(ids, "/p//i/"),
            langs={u: "ita" if i < 30 else "rus" for i, u in enumerate(ids)},
        )

    def tried(name):
        where = ([CLAIM], {"seen": [name]}, [System("x", of_two_languages)])
        assert [query.set for query in needed(*where[:2])] == ["test_a"] * 2
        (result,) = check_claims(*where, load_table, {"x": Path("exp/x")}, DUMP)
        return result

    italian = tried("test_a:ita")
    assert italian.verdict == HOLDS and "30 utterances of test_a:ita" in italian.detail
    assert (
        "--dump dump/mine " in italian.command and "--sets test_a;" in italian.command
    )
    assert tried("test_a:rus").verdict == OPEN  # neither has an error in it
    assert "60 utterances of test_a:ita,rus" in tried("test_a:ita,rus").detail
    assert tried("test_a:ita,spa").detail == "test_a has no utterance in spa"


def test_a_single_utterance_leaves_a_claim_undecided_without_an_interval():
    one = scores(0).only({"u00"})
    where = ([CLAIM], {"seen": ["test_a"]}, [System("x", lambda query: one)])
    (result,) = check_claims(*where, load_table, {"x": Path("exp/x")}, DUMP)
    assert result.verdict == OPEN
    told = "PFER 0.00 and 0.00, difference +0.00 without an interval, 1 utterances"
    assert result.detail.startswith(told)


def test_what_is_not_decoded_is_not_tested():
    system = System("x", lambda query: "test_a is not decoded")
    roles, exps = {"seen": ["test_a"]}, {"x": Path("x")}
    (result,) = check_claims([CLAIM], roles, [system], load_table, exps, DUMP)
    assert (result.verdict, result.detail) == (UNTESTED, "test_a is not decoded")


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (Score(2.5, 2.4, 2.6), HOLDS),
        (Score(2.9, 2.8, 3.0), FAILS),
        (Score(2.7, 2.5, 2.9), OPEN),
    ],
)
def test_a_published_number_is_held_against_the_interval(ours, verdict):
    table = load_table(CONF / "tables/table2.yaml")
    claim = Claim("c", "s", "t", table="table2", column="eng", below=2.70)
    rows = tuple(
        type(row)(row.name, row.cells, row.ours, None, row.blank, row.why)
        for row in table.rows
    )
    any_model = type(table)(**{**vars(table), "rows": rows})
    system = System("x", lambda query: ours)
    exps = {"x": Path("exp/x")}
    (result,) = check_claims([claim], {}, [system], lambda name: any_model, exps, DUMP)
    assert result.verdict == verdict


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (Score(93.0, 92.3, 94.0), HOLDS),
        (Score(93.0, 92.0, 94.0), OPEN),
        (Score(92.0, 91.0, 92.3), OPEN),
        (Score(91.0, 90.0, 92.0), FAILS),
    ],
)
def test_a_share_is_at_least_the_published_one_by_its_interval(ours, verdict):
    assert _held_against(Claim("c", "s", "t", at_least=92.3), ours) == verdict


@pytest.mark.parametrize("bound", ["below", "at_least"])
def test_a_number_without_interval_is_undecided(bound):
    claim = Claim("c", "s", "t", **{bound: 2.70})
    assert _held_against(claim, Score(2.5, math.nan, math.nan)) == OPEN


@pytest.mark.parametrize("profiles", ["ab", "ba"])
def test_one_utterance_decides_nothing(profiles):
    hyps = dict(zip(profiles, ("/p//i/", "/p/"), strict=True))

    def of_one(query):
        return score_phones(hyp={"u": hyps[query.profile]}, ref={"u": "/p//i/"})

    where = ([CLAIM], {"seen": ["test_a"]}, [System("x", of_one)])
    (result,) = check_claims(*where, load_table, {"x": Path("exp/x")}, DUMP)
    assert result.verdict == OPEN


def test_an_incomplete_set_is_not_held_against_a_published_number():
    table = load_table(CONF / "tables/table_lid.yaml")
    rows = tuple(replace(row, training=None) for row in table.rows)
    claim = Claim("c", "s", "t", table="table_lid", column="FLEURS, seen languages")
    claim = replace(claim, at_least=92.3)

    def verdict(incomplete):
        system = System("x", lambda query: Score(99, 98, 100), incomplete=incomplete)
        where = ([claim], {}, [system], lambda name: replace(table, rows=rows))
        (result,) = check_claims(*where, {"x": Path("exp/x")}, DUMP)
        return result.verdict

    assert verdict(frozenset()) == HOLDS
    assert verdict(frozenset({"test_fleurs"})) == UNTESTED


def test_phones_are_held_against_a_published_number_as_its_table_reads_them(tmp_path):
    exp, dump = make_experiment(tmp_path)
    hyps = {u: slashed(hyp) for u, (_, _, hyp) in PHONES.items()}
    raw = "".join(f"{u} {hyps[u] or 'a'}\n" for u in hyps)  # the outputs, but for one
    (dump / "test_tone/ref.raw.ipa").write_text(raw)
    path = tmp_path / "table.yaml"
    path.write_text(
        "{title: t, paper: p, metric: PFER, task: pr, profile: ctc_greedy, "
        "cleaning: prism, references: raw, columns: [{name: a, set: test_tone}], "
        "rows: [{name: ours, ours: {}, cells: {}}]}"
    )
    claim = Claim("c", "s", "t", table="table", column="a", below=100)
    system = System("x", ExperimentScores(exp, dump, {}))
    exps = {"x": exp}
    (result,) = check_claims(
        [claim], {}, [system], lambda n: load_table(path), exps, DUMP
    )
    ours = score_phones(
        hyp=hyps, ref={u: hyps[u] or "a" for u in hyps}, cleaning="prism"
    )
    assert result.detail.startswith(f"{ours.value('PFER'):.2f} [")


def test_a_small_model_does_not_test_a_claim_about_the_published_one():
    claims, roles = load_claims(CONF / "tables/claims.yaml")
    claim = next(c for c in claims if c.name == "in-domain average")
    system = System("small", lambda query: Score(1, 0, 2))
    exps = {"small": Path("exp/small")}
    (result,) = check_claims(
        [claim],
        roles,
        [system],
        lambda n: load_table(CONF / f"tables/{n}.yaml"),
        exps,
        DUMP,
    )
    assert (
        result.command == "powsm reproduce --table 2 --exp exp/small --dump dump/mine"
    )
    assert result.verdict == UNTESTED and "small is another training" in result.detail


def test_every_claim_of_the_paper_is_listed_with_profiles_that_exist():
    claims, roles = load_claims(CONF / "tables/claims.yaml")
    assert {c.name for c in claims} >= {
        *("in-domain average", "unseen languages", "low-resource ASR", "PR-P2G"),
        *("language identification", "more CTC, unseen languages"),
        *("more CTC, seen languages", "encoder targets", "number of tasks"),
    }
    for query in needed(claims, roles):
        assert (CONF / f"{query.profile}.yaml").is_file()
    for claim in claims:
        if claim.table or claim.trainings:
            load_table(CONF / f"tables/{claim.table or claim.trainings}.yaml")
    results = check_claims(
        claims, roles, [], lambda n: load_table(CONF / f"tables/{n}.yaml"), {}, DUMP
    )
    text = render_claims(results)
    assert "no source gives OWLS's cells" in text  # untested, and why


def curve(name, row, value):
    """A system that is a row of figure 2, with its last validation."""
    training = row.training
    trained = Trained(training.settings(), {"subset": training.subset})
    return System(name, lambda query: Score(value, math.nan, math.nan), trained)


@pytest.mark.parametrize(
    ("values", "verdict", "detail"),
    [
        ((20.0, 25.0, 30.0), HOLDS, ": 20.00, "),
        ((25.0, 20.0, 30.0), FAILS, "30.00 (one seed)"),  # below one of two
        ((20.0,), UNTESTED, "needs experiments of"),
        ((None, 20.0), UNTESTED, "needs experiments of"),
    ],
)
def test_curves_hold_where_the_first_row_ends_lowest(values, verdict, detail):
    table = load_table(CONF / "tables/figure2.yaml")
    claims, roles = load_claims(CONF / "tables/claims.yaml")
    claim = next(c for c in claims if c.name == "encoder targets")
    systems = [
        curve(f"exp{n}", table.rows[n], value)
        for n, value in enumerate(values)
        if value is not None
    ]
    where = (lambda n: table, {}, DUMP)
    (result,) = check_claims([claim], roles, systems, *where)
    assert result.verdict == verdict and detail in result.detail
    again = curve("again", table.rows[len(values) - 1], 99.0)
    (result,) = check_claims([claim], roles, [*systems, again], *where)
    assert result.verdict == UNTESTED and "two experiments are the" in result.detail


def of_rows(n_utts, *errors):
    """What table 12 says of the trainings of two rows with so many errors each; a
    third one is of the second row, too."""
    table = load_table(CONF / "tables/table12.yaml")
    claims, _ = load_claims(CONF / "tables/claims.yaml")
    claim = next(c for c in claims if c.name == "number of tasks")
    rows = {row.name: row.training for row in table.rows}
    systems = []
    names = (claim.first_row, claim.second_row, claim.second_row)
    for name, n in zip(names, errors, strict=False):
        training = rows[name]
        trained = Trained(
            training.settings(),
            {"subset": training.subset, "text_policy": training.text_policy},
        )
        found = scores(n).only({f"u{i:02}" for i in range(n_utts)})
        systems.append(System(f"exp {n}", lambda query, found=found: found, trained))
    where = ([claim], {"unseen": ["test_a"]}, systems[::-1], lambda _: table)
    (result,) = check_claims(*where, {}, DUMP)
    return result


@pytest.mark.parametrize(
    ("n_utts", "errors", "verdict"),
    [
        (60, (20, 21), HOLDS),  # no clear trend
        (60, (5, 40), FAILS),
        (60, (40, 5), FAILS),
        (1, (0, 1), OPEN),  # one utterance says nothing of a trend
    ],
)
def test_no_trend_is_an_interval_around_zero(n_utts, errors, verdict):
    result = of_rows(n_utts, *errors)
    assert (result.verdict, result.system) == (
        verdict,
        f"exp {errors[0]} and exp {errors[1]}",
    )
    assert f" {verdict} |" in render_claims([result])


def test_no_trend_needs_both_trainings():
    result = of_rows(60, 20)
    assert result.verdict == UNTESTED
    assert result.detail == "no experiment is the training of '1 k h, 300 M, PR'"


def test_no_trend_is_not_said_of_the_first_of_two_experiments_of_a_row():
    result = of_rows(60, 20, 21, 60)
    assert result.verdict == UNTESTED
    two = "two experiments are the training of '1 k h, 300 M, PR'; name one"
    assert result.detail == two


def test_a_training_that_has_not_ended_has_no_last_epoch(tmp_path):
    exp, dump = make_experiment(tmp_path)
    last = read_history(exp)[-1]
    scores = ExperimentScores(exp, dump, {})
    query = Query("decode_ctc_paper", "dev", "pr", "all", "valid:per_ctc")
    config = load_yaml(exp / "config.yaml")
    for more, expected in ((0, last["per_ctc"]), (1, None)):
        n_epochs = last["epoch"] + more
        settings = {**config, "max_epoch": n_epochs}
        (exp / "config.yaml").write_text(yaml.safe_dump(settings))
        found = scores(query)
        if expected is not None:
            assert isinstance(found, Score) and found.value == expected
        else:
            assert f"trained for {last['epoch']} of {n_epochs} epochs; go on" in found


def test_sets_are_pooled():
    ids = list(PHONES)
    parts = [
        score_phones(
            hyp={u: slashed(PHONES[u][2]) for u in some},
            ref={u: slashed(PHONES[u][1]) for u in some},
        )
        for some in (ids[:2], ids[2:])
    ]
    whole = score_phones(
        hyp={u: slashed(PHONES[u][2]) for u in ids},
        ref={u: slashed(PHONES[u][1]) for u in ids},
    )
    assert joined(parts).value("PFER") == whole.value("PFER")
    assert joined(parts).utt_ids == whole.utt_ids


def test_faulty_claims_are_refused(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text("sets: {seen: [a]}\nclaims: []\nroles: {}\n")
    with pytest.raises(TableError, match=r"claims.yaml: unknown \['roles'\]"):
        load_claims(path)
    path.write_text("sets: {seen: [a]}\nclaims: [{name: x, statment: y, source: z}]\n")
    with pytest.raises(TableError, match=r"a claim: unknown \['statment'\]"):
        load_claims(path)
    path.write_text(
        "sets: {seen: [a]}\n"
        "claims: [{name: x, statement: y, source: z, role: unseen}]\n"
    )
    with pytest.raises(ClaimError, match="role 'unseen', expected one of seen"):
        load_claims(path)
