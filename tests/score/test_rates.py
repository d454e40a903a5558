"""Rates as views of counts: breakdowns, records, comparison of systems."""

import numpy as np
import pytest

from powsm.score.metrics import score_lid, score_phones, score_text
from powsm.score.rates import RATES, ScoreError, Scores
from powsm.score.results import duration_labels

REF = {"x_1_deu": "pa", "x_2_eng": "kat", "y_3_eng": "ta"}
HYP = {"x_1_deu": "ba", "x_2_eng": "kad", "y_3_eng": "ta"}
LANGS = {"x_1_deu": "deu", "x_2_eng": "eng", "y_3_eng": "en"}
SPEAKERS = {"x_1_deu": "s1", "x_2_eng": "s2", "y_3_eng": "s2"}


@pytest.fixture
def scores():
    return score_phones(hyp=HYP, ref=REF, langs=LANGS, speakers=SPEAKERS)


def test_every_rate_names_columns_that_scorers_fill(scores):
    for name in scores.rates:
        rate = RATES[name]
        assert {*rate.numerator, rate.denominator, rate.n_utts} <= set(scores.columns)


def test_parts_add_up_to_the_whole(scores):
    for labels in (LANGS, SPEAKERS, ["a", "b", "a"]):
        parts = scores.by(labels).values()
        for name, total in scores.counts.items():
            assert sum(part.counts[name] for part in parts) == total


def test_by_lang_pools_spellings_and_sorts(scores):
    by_lang = scores.by_lang()
    assert list(by_lang) == ["deu", "eng"]
    # eng: one substitution in kat and ta
    assert by_lang["eng"].value("PER") == 20.0
    assert by_lang["eng"].speakers == ("s2", "s2")


def test_by_label_that_is_missing_is_an_error(scores):
    with pytest.raises(ScoreError, match="labels lack 2 of 3 utterances: x_2_eng y_3"):
        scores.by({"x_1_deu": "a"})


@pytest.mark.parametrize("of", ["langs", "speakers"])
def test_an_empty_label_is_a_missing_one(of):
    """As a line of utt2lang or utt2spk that holds an id and nothing else."""
    names = {"langs": LANGS, "speakers": SPEAKERS}[of] | {"y_3_eng": ""}
    for labels in (names, list(names.values())):
        message = rf"{of} lack 1 of 3 utterances: (y_3_eng|2)$"
        is_named = labels is names
        hyp, ref = (s if is_named else list(s.values()) for s in (HYP, REF))
        with pytest.raises(ScoreError, match=message):
            score_phones(hyp=hyp, ref=ref, **{of: labels})


def test_a_language_does_not_take_the_place_of_the_whole_set():
    """ISO 639-3 has a language `all`, and so have the rows of what is pooled."""
    scores = score_phones(hyp=HYP, ref=REF, langs=LANGS | {"x_1_deu": "all"})
    with pytest.raises(ScoreError, match="a language is called 'all', which stands"):
        scores.records(set_name="test_x", task="pr", decode="ctc")


def test_duration_bins_include_their_lower_edge():
    assert duration_labels({"a": 4.99, "b": 5.0, "c": 0.0, "d": 99.0}) == {
        "a": "02-05 s",
        "b": "05-10 s",
        "c": "00-02 s",
        "d": "15- s",
    }


def test_records_are_tidy(scores):
    rows = scores.records(set_name="test_x", task="pr", decode="ctc")
    assert [row["lang"] for row in rows[::5]] == ["all", "deu", "eng"]
    assert rows[0] == {
        "set": "test_x",
        "lang": "all",
        "task": "pr",
        "decode": "ctc",
        "metric": "PER",
        "value": pytest.approx(100 * 2 / 7),
        "low": pytest.approx(rows[0]["low"]),
        "high": pytest.approx(rows[0]["high"]),
        "n_utts": 3,
        "n_units": 7,
    }
    assert rows[0]["low"] <= rows[0]["value"] <= rows[0]["high"]
    one_utterance = rows[5]
    assert (one_utterance["lang"], one_utterance["low"]) == ("deu", None)


def test_a_rate_of_words_is_of_the_utterances_that_have_words():
    scores = score_text(hyp=["a b", "你"], ref=["a c", "你"], langs=["eng", "cmn"])
    rows = {row["metric"]: row for row in scores.rate_rows()}
    assert {rate: row["n_utts"] for rate, row in rows.items()} == {"WER": 1, "CER": 2}
    assert scores.only({"1"}).utt_ids == ("1",) and scores.only({"1"}).value("CER") == 0


def test_intervals_over_speakers_need_speakers(scores):
    assert set(scores.intervals(unit="speaker")) == set(scores.rates)
    unknown = score_phones(hyp=HYP, ref=REF)
    with pytest.raises(ScoreError, match="need to know the speakers"):
        unknown.intervals(unit="speaker")


def test_interval_is_on_the_scale_of_its_rate():
    rng = np.random.default_rng(0)
    n_ref = rng.integers(20, 60, 200)
    columns = {
        "n_utts": np.ones(200, np.int64),
        "n_ref": n_ref,
        "hamming_cost": 24 * rng.poisson(n_ref * 0.1),
    }
    rates = ("PFER_hamming", "mean_hamming")
    scores = Scores(tuple(map(str, range(200))), columns, rates)
    for rate, (low, high) in scores.intervals().items():
        value = scores.value(rate)
        assert low < value < high
        assert high - low < value / 2
    assert scores.value("PFER_hamming") == pytest.approx(10, abs=1)  # percent
    assert scores.value("mean_hamming") == pytest.approx(4, abs=0.5)  # phones


def test_compare_two_systems(scores):
    perfect = score_phones(hyp=REF, ref=REF)
    result = scores.compare(perfect, "PER")
    assert result.difference == pytest.approx(100 * 2 / 7)
    assert result.low <= result.difference <= result.high
    assert 0 < result.p <= 1
    assert scores.compare(scores, "PFER").p == 1.0


def test_rates_of_single_utterances_by_hand():
    scores = score_phones(hyp=["b", "", "pa"], ref=["p", "", "pat"])
    values = scores.utterance_values("PER")
    assert values[[0, 2]] == pytest.approx([100.0, 100 / 3]) and np.isnan(values[1])


def test_compare_is_of_the_units_asked_for():
    """Four utterances on which one system is right, of two speakers: 16 ways to swap
    utterances and 4 to swap speakers, of which two are as large."""
    ref = dict.fromkeys("abcd", "pa")
    who = {"speakers": {"a": "x", "b": "x", "c": "y", "d": "y"}}
    wrong = score_phones(hyp=dict.fromkeys(ref, "ta"), ref=ref, **who)
    right = score_phones(hyp=ref, ref=ref, **who)
    assert wrong.compare(right, "PER").p == pytest.approx(2 / 16, abs=0.02)
    by_speaker = wrong.compare(right, "PER", unit="speaker")
    assert by_speaker.p == pytest.approx(2 / 4, abs=0.03)
    assert by_speaker.difference == 50.0


def test_interval_of_languages_over_speakers_is_no_interval_of_trials():
    """All right: by utterance Wilson's interval, by speaker that of the speakers."""
    langs = ["eng"] * 20
    scores = score_lid(hyp=langs, ref=langs, speakers=[str(n // 4) for n in range(20)])
    assert round(scores.intervals()["accuracy"].low, 1) == 83.9
    assert scores.intervals(unit="speaker")["accuracy"] == (100.0, 100.0)
    assert round(scores.intervals(level=0.5)["accuracy"].low, 1) == 97.8


def test_compare_needs_the_same_utterances(scores):
    other = score_phones(hyp={"z": "p"}, ref={"z": "p"})
    with pytest.raises(ScoreError, match="1 of 1 in second alone: z"):
        scores.compare(other, "PER")


@pytest.mark.parametrize("rate", ["per", "WER"])
def test_rate_that_was_not_scored_is_told(rate):
    scores = score_phones(hyp=["/p/"], ref=["/b/"])
    with pytest.raises(ScoreError, match=f"rate '{rate}': not of these .* PER PFER"):
        scores.value(rate)
