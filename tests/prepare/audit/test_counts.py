"""Counts of a set: worked out by hand, and the same however they are cut."""

import random

import numpy as np
import pytest
from datadir_builder import make_data_dir, odd_one_out
from hypothesis import given
from hypothesis import strategies as st

from powsm.files.chunks import plan_chunks
from powsm.files.datadir import UTTERANCE_FILES
from powsm.prepare.audit.counts import (
    Histogram,
    LangStats,
    audit_chunk,
    audit_set,
    foreign_letter,
    pooled,
)
from powsm.prepare.dump import Settings, prepare_set
from powsm.prepare.filters import Limits

SECOND = 16_000  # samples


def test_audit_by_hand(tmp_path):
    stats = audit_set(odd_one_out(tmp_path / "train"))
    assert stats.n_utts == 33
    assert stats.n_samples == (30 * 2 + 1 + 8 + 1) * SECOND
    assert stats.audio_bytes == 33_000
    assert stats.n_empty_text == 1
    assert stats.corpora == {"cv": (33, stats.n_samples)}
    # 1 s is 24 frames, 60 phones need more
    assert stats.ctc_infeasible == ["cv_100_deu"]
    assert stats.filtered.dropped == {"ctc_infeasible": 1}
    assert stats.unknown.symbols == {"中": 1}
    assert stats.unknown.kinds == {"unknown": 1}
    russian = stats.langs["rus"]
    assert (russian.n_foreign, russian.foreign) == (1, ["cv_102_rus: y"])
    assert russian.rate_bounds is None  # one utterance tells nothing
    # all German utterances but two have 10 phones/s: 0.25/s and 60/s lie far outside
    n_outliers, extremes = stats.langs["deu"].rate_outliers()
    assert n_outliers == 2
    assert extremes == [(60.0, "cv_100_deu"), (0.25, "cv_101_deu")]


def test_audit_foresees_what_stage_4_does(tmp_path):
    data = odd_one_out(tmp_path / "dev")
    stats = audit_set(data)
    outcome = prepare_set(data, tmp_path / "dump" / "dev", Settings())
    assert outcome.counts == stats.filtered
    names = ("drops.json", "normaliser.json", "prepare.done.json")
    written = sum(
        path.stat().st_size
        for path in (tmp_path / "dump" / "dev").iterdir()
        if path.name not in names
    )
    assert stats.dump_bytes == pytest.approx(written, rel=0.02)


def test_what_people_wrote_counts_in_no_rate_of_unknown_symbols(tmp_path):
    data = make_data_dir(tmp_path / "test_doreco", {"doreco_a_evn": {"ipa": "pa中"}})
    outcome = prepare_set(data, tmp_path / "dump" / "test_doreco", Settings())
    assert audit_set(data).unknown == outcome.unknown
    assert outcome.unknown.n_characters == 0


def test_audit_foresees_stage_4_of_simplified_labels_and_policies(tmp_path):
    rows = {f"cv_{n}_deu": {"ipa_clean": "pata", "text": "Ja!"} for n in range(4)}
    rows["cv_1_deu"] |= {"ipa_clean": "", "n_samples": 10}  # too short, whatever else
    rows["cv_2_deu"] |= {"ipa_clean": ""}
    rows["cv_3_deu"] |= {"ipa_clean": "pa中", "n_samples": 30 * SECOND}
    data = make_data_dir(tmp_path / "dev", rows)
    policies = {"policy": "released", "text_policy": "released"}
    stats = audit_set(data, labels="clean", **policies)
    settings = Settings(labels="clean", **policies)
    outcome = prepare_set(data, tmp_path / "dump" / "dev", settings)
    assert outcome.counts == stats.filtered
    assert stats.filtered.dropped == {"too_short": 1, "no_ipa": 1, "too_long": 1}
    assert stats.unknown == outcome.unknown and stats.unknown.n_unknown == 0
    # of the two that have labels, of 2 and 30 s
    assert stats.langs["deu"].n_samples_labelled == 32 * SECOND


@pytest.mark.parametrize("dset", ["train", "test_cv"])
def test_audit_foresees_stage_4_of_other_limits(tmp_path, dset):
    rows = {f"cv_{n}_deu": {"ipa": "pata", "text": "Ja!"} for n in range(4)}
    rows["cv_1_deu"] |= {"n_samples": 3 * SECOND}
    rows["cv_2_deu"] |= {"ipa": "patapata"}
    rows["cv_4_rus"] = {"ipa": "pata", "lang": "rus"}
    data = make_data_dir(tmp_path / dset, rows)
    limits = Limits(1.0, 2.5, 7, only_languages=frozenset({"deu"}))
    stats = audit_set(data, limits=limits)
    outcome = prepare_set(data, tmp_path / "dump" / dset, Settings(limits=limits))
    assert outcome.counts == stats.filtered
    dropped = {"too_long": 1, "too_many_phones": 1, "other_language": 1}
    assert stats.filtered.dropped == (dropped if dset == "train" else {})


def test_rates_out_of_line_are_counted_up_to_the_bounds_that_are_told():
    """Of 10 to 10.5 phones a second but for one on each side, in the bin of a bound."""
    stats = LangStats(n_utts=30)
    for n in range(28):
        stats.add_rate(10 + n / 56, f"u{n}")
    stats.add_rate(8.55, "slow")
    stats.add_rate(11.95, "fast")
    assert stats.rate_bounds == (8.5, 12.0)
    assert stats.rate_outliers() == (0, [])
    stats.add_rate(8.49, "slower")
    stats.add_rate(12.0, "faster")
    assert stats.rate_outliers() == (2, [(12.0, "faster"), (8.49, "slower")])


def test_chunks_merge_to_the_whole(tmp_path):
    data = odd_one_out(tmp_path / "train")
    whole = audit_set(data)
    parts = [
        audit_chunk(chunk, dset="train")
        for chunk in plan_chunks(data, UTTERANCE_FILES, 100)
    ]
    assert len(parts) > 3
    merged = pooled(parts)
    assert merged.filtered == whole.filtered
    assert merged.corpora == whole.corpora
    assert merged.unknown == whole.unknown
    assert np.array_equal(merged.durations.bins, whole.durations.bins)
    for lang, stats in whole.langs.items():
        assert merged.langs[lang].rate_outliers() == stats.rate_outliers()
        assert merged.langs[lang].foreign == stats.foreign


# a test before may have told the processor to take subnormal numbers for zero
NORMAL = {"allow_subnormal": False}


@given(st.lists(st.floats(0, 30, **NORMAL), min_size=1), st.floats(0, 1, **NORMAL))
def test_quantile_lies_within_a_bin_of_the_exact_one(values, share):
    histogram = Histogram(step=0.5, n_bins=61)
    for value in values:
        histogram.add(value)
    exact = np.quantile(values, share, method="inverted_cdf")
    assert abs(histogram.quantile(share) - exact) <= 0.5 + 1e-9


def test_histogram_keeps_what_is_beyond_its_end():
    histogram = Histogram(step=1.0, n_bins=3)
    for value in (0.0, 1.0, 2.0, 99.0):
        histogram.add(value)
    assert histogram.bins.tolist() == [1, 1, 2]
    assert histogram.count_outside(1.0, 2.0) == 3


@pytest.mark.parametrize(
    ("text", "lang", "letter"),
    [
        ("hello", "eng", None),
        ("naïve", "eng", None),
        ("привет", "eng", "п"),
        ("カタカナーひら漢字", "jpn", None),  # ー belongs to no single script
        ("abc", "jpn", "a"),
        ("한국漢字", "kor", None),
        ("हिन्दी", "hin", None),
        ("12 - '", "rus", None),
        ("anything", "evn", None),  # its script is not in the table
    ],
)
def test_foreign_letter(text, lang, letter):
    assert foreign_letter(text, lang) == letter


def test_memory_does_not_grow_with_the_set():
    lottery = random.Random(0)
    stats = LangStats()
    for i in range(5_000):
        stats.add_rate(lottery.random() * 20, f"u{i}")
    assert len(stats.fastest) == len(stats.slowest) == 5
    assert stats.rate.bins.sum() == 5_000
