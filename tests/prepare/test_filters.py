"""Keep/drop rules at their edges, counts that add up, nested subsets."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powsm.errors import PowsmError
from powsm.prepare.filters import (
    Counts,
    Limits,
    audio_drop_reason,
    check_languages,
    languages_named,
    min_ctc_frames,
    phones_drop_reason,
)
from powsm.prepare.subset import SUBSET_HOURS, Subset, subset_bin

SECOND = 16_000  # samples


@pytest.mark.parametrize(
    ("n_samples", "reason"),
    [
        (7_999, "too_short"),  # 0.5 s is 8,000 samples
        (8_000, None),
        (320_000, None),  # exactly 20 s
        (320_001, "too_long"),
    ],
)
def test_duration_limits_include_both_ends(n_samples, reason):
    assert audio_drop_reason(Limits(), lang="eng", n_samples=n_samples) == reason


def test_interlingua_is_dropped_before_its_length_is_looked_at():
    assert audio_drop_reason(Limits(), lang="ina", n_samples=1) == "dropped_language"


def test_other_languages_than_those_asked_for_are_dropped_but_from_test_sets():
    limits = Limits(only_languages=frozenset({"eng", "rus"}))
    reasons = [
        audio_drop_reason(some, lang=lang, n_samples=SECOND)
        for some in (limits, limits.for_set("test_x"))
        for lang in ("rus", "fra")
    ]
    assert reasons == [None, "other_language", None, None]


@pytest.mark.parametrize(
    ("n_phones", "reason"), [(0, "no_phones"), (300, None), (301, "too_many_phones")]
)
def test_phone_limit_includes_300(n_phones, reason):
    phones = ["a", "b"] * 200
    phones = phones[:n_phones]
    found = phones_drop_reason(
        Limits(), n_samples=20 * SECOND, phones=phones, ctc_phones=phones
    )
    assert found == reason


@pytest.mark.parametrize(
    ("phones", "reason"),
    [
        # 1 s: 101 spectrogram frames, then 50, then 24 encoder frames
        (["a", "b"] * 11 + ["a"], None),  # 23 phones and the leading mark: 24
        (["a", "b"] * 12, "ctc_infeasible"),  # 25 frames needed
        (["a"] * 12, None),  # 12 phones, 11 blanks between, the mark: 24
        (["a"] * 13, "ctc_infeasible"),  # 13 + 12 + 1 = 26
    ],
)
def test_ctc_needs_a_blank_between_equal_phones(phones, reason):
    found = phones_drop_reason(
        Limits(), n_samples=SECOND, phones=phones, ctc_phones=phones
    )
    assert found == reason


def test_ctc_frames_of_nothing_is_the_leading_mark():
    assert min_ctc_frames([]) == 1


def test_a_test_set_keeps_what_can_be_scored():
    limits = Limits().for_set("test_doreco")
    assert audio_drop_reason(limits, lang="eng", n_samples=100) is None
    assert audio_drop_reason(limits, lang="eng", n_samples=60 * SECOND) is None
    assert audio_drop_reason(limits, lang="ina", n_samples=SECOND) == "dropped_language"
    many = ["a"] * 400
    assert (
        phones_drop_reason(limits, n_samples=100, phones=many, ctc_phones=many) is None
    )
    assert (
        phones_drop_reason(limits, n_samples=100, phones=[], ctc_phones=[])
        == "no_phones"
    )


def test_train_and_dev_keep_their_limits():
    limits = Limits()
    assert limits.for_set("train") is limits
    assert limits.for_set("dev") is limits


@given(st.lists(st.tuples(st.sampled_from(["", "too_long", "x"]), st.booleans())))
def test_counts_add_up_and_merge_in_order(events):
    def fill(counts, part):
        for number, (reason, has_text) in part:
            utt_id = f"u{number}"
            if reason:
                counts.drop(reason, utt_id)
            else:
                counts.keep(utt_id, 10, has_text)
        return counts

    numbered = list(enumerate(events))
    half = len(numbered) // 2
    whole = fill(Counts(), numbered)
    merged = fill(Counts(), numbered[:half])
    merged.merge(fill(Counts(), numbered[half:]))
    assert merged == whole
    assert whole.kept + whole.dropped.total() == whole.total == len(events)


def test_summary_names_reasons_by_falling_count():
    counts = Counts()
    counts.keep("a", 1, True)
    counts.keep("b", 1, False)
    counts.drop("too_long", "c")
    counts.drop("no_phones", "d")
    counts.drop("too_long", "e")
    assert counts.summary() == (
        "kept 2 of 5 (too_long=2 no_phones=1 kept without text: no_text=1)"
    )


def _rows(n_utts=4_000):
    lottery = random.Random(0)
    for i in range(n_utts):
        lang = "eng" if i % 10 else "isl"
        yield f"cv_{i:06d}_{lang}", lang, lottery.randrange(SECOND, 10 * SECOND)


def _chosen(hours, seed=42):
    subset = Subset.choose(_rows(), hours, seed)
    return [row for row in _rows() if subset.holds(row[0], row[1])]


def test_subsets_are_nested_and_of_the_size_asked_for():
    small, large = _chosen(0.5), _chosen(3.0)
    assert set(small) < set(large)
    for rows, hours in ((small, 0.5), (large, 3.0)):
        # each language overshoots by its last utterance, 10 s at most
        got = sum(n for _, _, n in rows) / SECOND
        assert hours * 3600 <= got <= hours * 3600 + 2 * 20


def test_subset_keeps_the_shares_of_the_languages():
    def share(rows):
        rows = list(rows)
        isl = sum(n for _, lang, n in rows if lang == "isl")
        return isl / sum(n for _, _, n in rows)

    assert share(_chosen(3.0)) == pytest.approx(share(_rows()), abs=0.005)


def test_subset_depends_on_the_seed_but_not_on_the_order_of_rows():
    assert _chosen(0.5, seed=1) != _chosen(0.5, seed=2)
    backwards = Subset.choose(reversed(list(_rows())), 0.5, 42)
    assert backwards == Subset.choose(_rows(), 0.5, 42)


def test_subset_larger_than_the_corpus_takes_everything():
    assert len(_chosen(1_000.0)) == 4_000


def test_subsets_are_what_their_names_say():
    rows = [("cv_1_eng", "eng", 3600 * SECOND), ("cv_2_eng", "eng", 1800 * SECOND)]
    assert Subset.choose(rows, 10.0, 42).hours_there == 1.5
    hours = {"10min": 600 / 3600, "10h": 10, "100h": 100, "250h": 250, "1kh": 1000}
    assert SUBSET_HOURS == hours
    # the lottery decides what is trained on: another hash would be another subset
    assert subset_bin("cv_1_eng", 42) == 9064
    assert subset_bin("cv_1_eng", 43) == 41792


def test_subset_takes_one_utterance_of_the_rarest_language():
    rows = [(f"cv_{i}_eng", "eng", 100 * SECOND) for i in range(1_000)]
    rows.append(("cv_x_isl", "isl", SECOND))
    subset = Subset.choose(rows, 0.1, 42)
    assert subset.holds("cv_x_isl", "isl")
    assert not subset.holds("cv_x_xho", "xho")


def test_languages_that_are_not_there_are_refused(tmp_path):
    assert languages_named(" eng, fra ") == {"eng", "fra"}
    assert languages_named("") is None
    with pytest.raises(PowsmError, match="--langs english: .* did you mean eng"):
        languages_named("fra english")
    with pytest.raises(PowsmError, match="--langs q9q: expected ISO 639-3 codes$"):
        languages_named("q9q")
    (tmp_path / "utt2lang").write_text("a eng\nb fra\n")
    check_languages(tmp_path, Limits(only_languages=frozenset({"eng"})))
    check_languages(tmp_path, Limits())
    with pytest.raises(PowsmError, match="--langs deu: no utterance .* has eng fra"):
        check_languages(tmp_path, Limits(only_languages=frozenset({"eng", "deu"})))
