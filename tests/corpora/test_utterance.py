"""The record of one utterance and the ids that are made for it."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.corpora.utterance import (
    Utterance,
    UtteranceError,
    make_utt_id,
    one_line,
    safe_id,
)

GOOD = Utterance(
    utt_id="fleurs_12_eng",
    corpus="fleurs",
    split="en_us-dev",
    lang="eng",
    speaker="fleurs_ann",
    audio="a.tar:512:99",
    n_samples=24_000,
    text="",
    ipa="a",
)


def test_duration_s_is_samples_over_rate():
    assert GOOD.duration_s == 1.5  # 24,000 / 16,000


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"utt_id": "a b"}, "utt_id 'a b'"),
        ({"utt_id": ""}, "utt_id ''"),
        ({"utt_id": "ä"}, "utt_id 'ä'"),
        ({"speaker": "x\ty"}, "speaker 'x\\ty'"),
        ({"lang": "en"}, "not an ISO 639-3"),
        ({"lang": "<eng>"}, "not an ISO 639-3"),
        ({"n_samples": 0}, "n_samples 0"),
        ({"n_samples": -5}, "n_samples -5"),
        ({"ipa": ""}, "ipa is empty"),
        ({"audio": ""}, "audio is empty"),
        ({"text": "two\nlines"}, "one line"),
        ({"ipa": " a"}, "one line"),
    ],
)
def test_utterance_checks(change, fault):
    with pytest.raises(UtteranceError, match=re.escape(fault)):
        replace(GOOD, **change)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("common_voice_en_1-0", "common_voice_en_1-0"),
        ("a/b c", "a@2Fb@20c"),
        ("a@2Fb", "a@402Fb"),  # not the same as "a/b"
        ("ö", "@C3@B6"),  # UTF-8 of U+00F6
        ("x.wav-0", "x.wav-0"),
        ("a\nb", "a@0Ab"),
    ],
)
def test_safe_id_by_hand(name, expected):
    assert safe_id(name) == expected


@settings(deadline=None)
@given(st.text(), st.text())
def test_safe_id_is_safe_and_unique(one, other):
    assert re.fullmatch(r"[A-Za-z0-9.+@_-]*", safe_id(one))
    assert (safe_id(one) == safe_id(other)) == (one == other)


def test_make_utt_id_form():
    assert make_utt_id("mls_dutch", "123_4", "nld") == "mls_dutch_123_4_nld"


@settings(deadline=None)
@given(st.text())
def test_one_line_is_one_line_and_idempotent(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert one_line(line) == line
    controls = {code: " " for code in (*range(32), *range(127, 160))}
    assert line.split() == text.translate(controls).split()
