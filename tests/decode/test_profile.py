"""Decode profiles: what a file may say, and names of results."""

from pathlib import Path

import pytest

from powsm.decode.profile import SHIPPED, DecodeError, Profile, find_profile
from powsm.decode.recordings.question import Question
from powsm.decode.search import SearchOptions
from powsm.errors import PowsmError
from powsm.vocabulary.phone_sets import PhoneSetError

WITH_CTC = SearchOptions(ctc_weight=0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prev": "predicted"}, "pr has no prompt"),
        ({"tasks": ("asr", "p2g"), "audio": "silence"}, "asr has no prompt"),
        ({"tasks": ("g2p",), "audio": "silence", "prev": "none"}, "nothing is left"),
        ({"tasks": ("g2p",), "prev": "golden"}, "one of gold predicted none"),
        ({"tasks": ("sing",)}, r"tasks \['sing'\] do not exist"),
        ({"tasks": ()}, "do not exist"),
        ({"dtype": "float16"}, "one of float32 bfloat16"),
        # each way to read has its options
        ({"decode": "ctc", "search": WITH_CTC}, "beam_size and nbest alone"),
        ({"decode": "ctc", "search": SearchOptions(nbest=5)}, r"no larger \(5 of 1\)"),
        ({"decode": "joint"}, "joint is with CTC"),
        ({"search": WITH_CTC}, "attention without"),
        ({"languages": ("eng", "xx")}, "xx are no ISO 639-3 codes"),
        ({"languages": ("eng",)}, "for the task lid and for lang: detected"),
        ({"tasks": ("pr", "asr"), "phones": "ita"}, "asr says no phones"),
        # a piece of a word of this spelling prompted the decoder
        ({"lang": "de"}, "lang is 'de', expected own, detected, or the symbol"),
        ({"lang": "<pr>"}, "lang is '<pr>', expected own, detected, or the symbol"),
        ({"batch_seconds": float("inf")}, "batch_seconds is inf, expected more than"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(DecodeError, match=f"decode profile decode_x: .*{message}"):
        Profile("decode_x", **settings)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        # no token at all: every text was empty
        ({"maxlenratio": -0.5}, "maxlenratio is -0.5; expected 0 or more, or a whole"),
        ({"minlenratio": -1.5}, "minlenratio is -1.5; expected 0 or more, or a whole"),
        ({"maxlenratio": float("nan")}, "maxlenratio is nan; expected 0 or more"),
        ({"penalty": float("nan")}, "penalty is nan; expected a number"),
        ({"ctc_length_bound": float("inf")}, "ctc_length_bound is inf; expected 0"),
    ],
)
def test_options_of_a_search_that_make_no_sense_are_refused(option, expected):
    with pytest.raises(PowsmError, match=f"search options: {expected}"):
        SearchOptions(**option)


def test_a_list_of_phones_is_one_of_phones_with_spaces(tmp_path):
    path = tmp_path / "decode_x.yaml"
    path.write_text("phones: [p, a]\n")
    listed = Profile.load(path)
    path.write_text("phones: p a\n")
    assert listed == Profile.load(path) and listed.phones == ("p", "a")
    path.write_text("phones: []\n")
    with pytest.raises(PhoneSetError, match="decode_x.yaml: phones: no phones"):
        Profile.load(path)


def test_phones_of_a_list_are_read_as_those_of_a_text():
    for phones in ("a tʃ", ["a", "tʃ"], iter(["a", "tʃ"])):
        asked = Question.of(["<eng>"], "pr", "unk", None, phones, has_text=False)
        assert asked.profile.phones == ("a", "t", "ʃ", "t͡ʃ")


def test_a_file_of_phones_is_read_once_for_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("p a /t/ a\n")
    (tmp_path / "decode_x.yaml").write_text(
        "phones: mine.txt\nlang: detected\nlanguages: [ita]\n"
    )
    profile = Profile.load("decode_x.yaml")
    assert (profile.phones, profile.languages) == (("p", "a", "t"), ("ita",))
    before = profile.digest()
    (tmp_path / "mine.txt").write_text("p a t k")  # another result
    assert Profile.load("decode_x.yaml").digest() != before
    (tmp_path / "mine.txt").write_text("p Q")
    with pytest.raises(PhoneSetError, match="mine.txt: Q is no IPA"):
        Profile.load("decode_x.yaml")


def test_first_pass_has_a_search_of_its_own_where_asked(tmp_path):
    path = tmp_path / "decode_x.yaml"
    text = "tasks: [p2g]\nprev: predicted\n"
    path.write_text(text)
    plain = Profile.load(path)
    assert plain.first_search is None
    path.write_text(text + "first_search: {beam_size: 3, ctc_weight: 0.3}\n")
    other = Profile.load(path)
    assert (other.first_search.beam_size, other.first_search.ctc_weight) == (3, 0.3)
    assert other.search == plain.search and other.digest() != plain.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [p2g]\nfirst_search: {beam_size: 3}\n", "is for prev: predicted"),
        (
            "tasks: [g2p]\nprev: predicted\nfirst_search: {ctc_weight: 0.3}\n",
            "the CTC head says phones",
        ),
        ("prev: predicted\nfirst_search: {beam: 3}\n", "unknown first_search.beam"),
        ("tasks: true\n", "tasks is True, expected a list"),
        ("languages: no\n", "languages is 'no', expected a list"),
        ("languages: [no]\n", "languages no are no ISO 639-3 codes"),
        ("lang: 12\ndtype: [on]\n", "lang is 12, expected text; dtype is"),
        ("search: on\n", "search hold 'key: value' lines"),
        ("search: {beam_size: on}\n", "search: beam_size is 'on', expected a whole"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, text, message):
    path = tmp_path / "decode_x.yaml"
    path.write_text(text)
    with pytest.raises(DecodeError, match=message):
        Profile.load(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_are_those_of_conf(name, tmp_path, monkeypatch):
    file = Path(__file__).parents[2] / f"conf/decode_{name}.yaml"
    assert SHIPPED[name] == Profile.load(file)
    monkeypatch.chdir(tmp_path)
    assert find_profile(name) == find_profile(f"decode_{name}") == SHIPPED[name]
    (tmp_path / "conf").mkdir()
    (tmp_path / f"conf/decode_{name}.yaml").write_text("decode: ctc\n")
    assert find_profile(name).decode == "ctc"
