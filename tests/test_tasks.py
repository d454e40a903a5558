"""The exact text of the four tasks, and the way back from decoder output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powsm.languages import lang_sym
from powsm.phones.slashed import from_slashed
from powsm.score.rates import RATES
from powsm.tasks import (
    DECODED_TASKS,
    LANGUAGE,
    NOTHING,
    PHONES,
    PUBLISHED_TASKS,
    TASKS,
    TEXT,
    Task,
    examples,
    parse_output,
    strip_prompt,
)

POSSUM = ["pʰ", "ɔː", "s", "ə", "m"]
POSSUM_CTC = ["pʰ", "ɔ", "s", "ə", "m"]


def test_four_examples_as_in_the_paper():
    words = ("ls_1_eng", "eng", POSSUM, POSSUM_CTC, "possum")
    rows = examples(*words, PUBLISHED_TASKS)
    slashed = "/pʰ//ɔː//s//ə//m/"
    ctc = "/pʰ//ɔ//s//ə//m/"
    assert [tuple(row) for row in rows] == [
        ("ls_1_eng_asr", "<eng><asr><notimestamps> possum", "<na>", ctc),
        ("ls_1_eng_g2p", f"<eng><g2p><notimestamps> {slashed}", "possum", ctc),
        ("ls_1_eng_p2g", "<eng><p2g><notimestamps> possum", slashed, ctc),
        ("ls_1_eng_pr", f"<eng><pr><notimestamps> {slashed}", "<na>", ctc),
    ]


def test_examples_are_in_the_order_of_lc_all_c():
    ids = [row.example_id for row in examples("u", "eng", ["p"], ["p"], "x")]
    assert ids == sorted(ids)


def test_empty_text_leaves_only_phone_recognition():
    assert [row.example_id for row in examples("u", "eng", ["p"], ["p"], "")] == [
        "u_pr"
    ]
    assert examples("u", "eng", ["p"], ["p"], "", tasks=["asr"]) == []


@pytest.mark.parametrize("word", ["null", "na", "none", "nan"])
def test_words_that_look_like_missing_values_are_text(word):
    rows = examples("u", "deu", ["n"], ["n"], word)
    assert rows[0].text == f"<deu><asr><notimestamps> {word}"
    assert len(rows) == len(TASKS)


def test_unknown_language_is_prompted_as_unk():
    assert lang_sym("evn") == "<unk>"
    [row] = examples("u", "evn", ["p"], ["p"], "")
    assert row.text == "<unk><pr><notimestamps> /p/"


def test_no_phones_is_refused_because_it_would_be_written_as_two_slashes():
    with pytest.raises(ValueError, match="u: no phones"):
        examples("u", "eng", [], [], "text")


def test_unknown_task_is_named():
    with pytest.raises(ValueError, match="'tts'.*asr pr g2p p2g"):
        examples("u", "eng", ["p"], ["p"], "x", tasks=["tts"])


@pytest.mark.parametrize(
    ("output", "lang_sym", "task_sym", "text"),
    [
        ("<eng><pr><notimestamps> /p//ɔ/", "<eng>", "<pr>", "/p//ɔ/"),
        ("<sos><eng><asr><notimestamps> who is<eos>", "<eng>", "<asr>", "who is"),
        ("<unk><g2p> /p/", "<unk>", "<g2p>", "/p/"),
        # the decoder left the language out: <pr> is no language
        ("<pr><notimestamps> /p/", None, "<pr>", "/p/"),
        ("<eng> /p/", "<eng>", None, "/p/"),
        ("<eng><pr><0.00> /p/<1.24>", "<eng>", "<pr>", "/p/"),
        ("", None, None, ""),
        ("plain words", None, None, "plain words"),
        # a second language symbol is a mistake of the decoder and stays visible
        ("<eng><pr><notimestamps><deu> /p/", "<eng>", "<pr>", "<deu> /p/"),
        ("<na>", None, None, ""),
    ],
)
def test_parse_output(output, lang_sym, task_sym, text):
    parsed = parse_output(output)
    assert (parsed.lang_sym, parsed.task_sym, parsed.text) == (lang_sym, task_sym, text)


def test_parse_output_takes_tokens():
    tokens = ["<eng>", "<asr>", "<notimestamps>", "▁who", "▁", "i", "s"]
    parsed = parse_output(tokens)
    assert parsed.text == "who is"
    assert parsed.task_sym == "<asr>"


def test_a_caption_with_an_angle_bracket_is_no_symbol():
    assert parse_output("<eng><asr><notimestamps> a < b").text == "a < b"


@given(
    lang=st.sampled_from(["eng", "cmn", "zul"]),
    phones=st.lists(st.sampled_from(["p", "ɔː", "t͡ʃ", "ç"]), min_size=1),
    words=st.lists(st.sampled_from(["who", "naïve", "ça", "नमस्ते"]), min_size=1),
)
def test_examples_and_parse_output_are_inverse(lang, phones, words):
    text = " ".join(words)
    rows = examples("u", lang, phones, phones, text)
    assert len(rows) == len(TASKS)
    for row in rows:
        parsed = parse_output(row.text)
        assert parsed.lang_sym == f"<{lang}>"
        assert row.example_id == f"u_{parsed.task_sym[1:-1]}"
        if parsed.task_sym in ("<pr>", "<g2p>"):
            assert from_slashed(parsed.text) == tuple(phones)
        else:
            assert parsed.text == text


def test_strip_prompt_takes_only_prompts():
    assert strip_prompt("<eng><asr><notimestamps> the cat") == "the cat"
    assert strip_prompt("<unk><pr>/p/") == "/p/"
    # the word another system did not know counts as a word
    assert strip_prompt("<unk> cat") == "<unk> cat"
    assert strip_prompt("<eng>") == "<eng>"


@pytest.mark.parametrize(
    "output",
    [
        "<eng> <asr> <notimestamps> the cat",  # ESPnet puts spaces between tokens
        "<sos><eng><asr><notimestamps> the cat",
        "  <asr> the cat ",
        "<eng><asr><notimestamps><0.00> the cat",
        "<eng>\t<asr>  <na> the cat",
    ],
)
def test_both_readers_of_an_output_agree(output):
    assert strip_prompt(output) == parse_output(output).text == "the cat"


def test_tasks_begin_with_those_of_the_published_vocabulary():
    # the released model's token list has <asr> <pr> <g2p> <p2g> after the languages
    assert PUBLISHED_TASKS == ("asr", "pr", "g2p", "p2g")
    assert tuple(TASKS)[:4] == PUBLISHED_TASKS


def test_reports_list_phones_then_text_then_languages():
    known = [name for name in DECODED_TASKS if name in (*PUBLISHED_TASKS, "lid")]
    assert known == ["pr", "g2p", "asr", "p2g", "lid"]


@pytest.mark.parametrize("task", DECODED_TASKS.values(), ids=lambda task: task.name)
def test_row_of_a_task_is_coherent(task):
    assert task.metrics
    assert task.title
    assert set(task.metrics) <= set(RATES)
    if not task.is_prompted:
        assert (task.first_pass, task.sample) == (None, "<na>")
    else:  # what predicts the prompt writes what the task reads, and asks for nothing
        first = TASKS[task.first_pass]
        assert (first.reads, first.writes) == (NOTHING, task.reads)
        assert task.sample != "<na>"


def test_each_text_teaches_words_once():
    assert [task.name for task in TASKS.values() if task.teaches_words] == ["asr"]


def test_a_task_that_writes_the_language_does_not_read_it_in_the_prompt(monkeypatch):
    task = Task("which", "which language", NOTHING, LANGUAGE, ("accuracy",))
    monkeypatch.setitem(TASKS, "which", task)
    [row] = examples("v", "deu", ["p"], ["p"], "", ["which"])
    assert row.text == "<unk><which><notimestamps> <deu>"
    # evn (Evenki) has no symbol, so that there is no answer to learn
    assert examples("w", "evn", ["p"], ["p"], "x", ["which"]) == []


def test_needs_text_is_to_read_or_to_write_it():
    known = (*PUBLISHED_TASKS, "lid")
    assert {n: DECODED_TASKS[n].needs_text for n in known} == {
        "pr": False,
        "g2p": True,
        "asr": True,
        "p2g": True,
        "lid": False,
    }
    assert {t.writes for t in DECODED_TASKS.values()} == {PHONES, TEXT, LANGUAGE}
