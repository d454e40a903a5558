"""Transcripts of any system: file formats, and the faults that are named."""

import json

import pytest

from powsm.files.transcripts import (
    HYP_FIELDS,
    REF_FIELDS,
    TranscriptError,
    read_transcripts,
)

EXPECTED = {"b_1_eng": "p a", "a_2_deu": "", "c_3_fra": "ʃa\u2028b"}

KALDI = "b_1_eng p a\na_2_deu\nc_3_fra  ʃa\u2028b\n"
CSV = "utt_id,seconds,text\nb_1_eng,1.5,p a\na_2_deu,2.0,\nc_3_fra,1.0,ʃa\u2028b\n"
ROWS = [{"utt_id": utt_id, "text": text} for utt_id, text in EXPECTED.items()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text", KALDI),
        ("text.tab", KALDI.replace("g p", "g\tp")),
        ("hyp.csv", CSV),
        ("hyp.tsv", CSV.replace(",", "\t")),
        ("hyp.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
        # told by the first character, whatever the name
        ("hyp", "\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS) + "\n\n"),
        ("bom.csv", "\ufeff" + CSV),
        ("hyp.CSV", CSV),
        ("blank.jsonl", "\n\n" + "\n".join(json.dumps(row) for row in ROWS)),
    ],
)
def test_formats_say_the_same(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read_transcripts(path) == EXPECTED


def test_fields_of_other_tools(tmp_path):
    path = tmp_path / "pred.jsonl"
    path.write_text('{"key": "a", "pred": "pa", "lang_sym": "<eng>", "n": null}\n')
    assert read_transcripts(path, HYP_FIELDS) == {"a": "pa"}
    assert read_transcripts(path, ["lang_sym"]) == {"a": "<eng>"}
    assert read_transcripts(path, ["n"]) == {"a": ""}


def test_a_row_without_the_field_of_others_is_no_copy_of_the_reference(tmp_path):
    path = tmp_path / "hyp.jsonl"
    path.write_text('{"id": "a", "pred": "p", "text": "p"}\n{"id": "b", "text": "k"}\n')
    with pytest.raises(
        TranscriptError, match="jsonl:2: fields id text; expected pred, as in the rows"
    ):
        read_transcripts(path, (*HYP_FIELDS, "text"))
    # nor does a row that lacks one make the others be scored by the other side
    path.write_text('{"id": "b", "text": "k"}\n{"id": "a", "pred": "p", "text": "p"}\n')
    with pytest.raises(
        TranscriptError, match="jsonl:2: fields id pred text; expected text, as in"
    ):
        read_transcripts(path, (*HYP_FIELDS, "text"))


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "hyp.csv"
    path.write_text("id,text,text\na,p,k\n")
    with pytest.raises(TranscriptError, match="csv:1: the header names 'text' twice"):
        read_transcripts(path)


def test_listed_phones_are_joined(tmp_path):
    path = tmp_path / "hyp.jsonl"
    path.write_text('{"id": 7, "phones": ["p", "a"]}\n')
    assert read_transcripts(path) == {"7": "p a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\nu1,the cat, sat\n", r"hyp.csv:2: 3 fields where the header has 2"),
        ("id,text\nu1,a\nu2\n", r"hyp.csv:3: 1 fields where the header has 2"),
        ('id,text\nu1,"' + "a" * 200_000, r"hyp.csv:2: not CSV \(field larger"),
    ],
)
def test_faults_of_tables_are_named(tmp_path, content, message):
    path = tmp_path / "hyp.csv"
    path.write_text(content)
    with pytest.raises(TranscriptError, match=message):
        read_transcripts(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a x\nb y\na z\n", r"hyp:3: 'a' is given twice"),
        ("", "holds no transcript"),
        ('{"utt_id": "a", "text": "x"}\n{"utt_id"\n', r"hyp:2: not JSON"),
        ('{"utt_id": "a", "said": "x"}\n', r"fields utt_id said; expected one of text"),
        ('{"text": "x"}\n', r"expected one of utt_id id"),
        ('[{"id": "a", "text": "x"}]', r"hyp:1: a JSON list, expected an object a li"),
        ('{"id": "a", "text": 3}', r"hyp:1: text is 3, expected text or a list of te"),
        ('{"id": "a", "text": ["p", 3]}', r"hyp:1: text is \['p', 3\], expected text"),
    ],
)
def test_faults_are_named(tmp_path, content, message):
    path = tmp_path / "hyp"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TranscriptError, match=message):
        read_transcripts(path)


def test_not_utf8_is_named(tmp_path):
    path = tmp_path / "hyp"
    path.write_bytes(b"a \xff\n")
    with pytest.raises(TranscriptError, match="not UTF-8"):
        read_transcripts(path)


def test_words_that_look_like_gaps_stay_text(tmp_path):
    path = tmp_path / "hyp.csv"
    path.write_text("utt_id,text\na,null\nb,NA\nc,None\n")
    assert read_transcripts(path) == {"a": "null", "b": "NA", "c": "None"}


PRISM_LINES = """\
{"0": {"pred": [{"processed_transcript": "pæt"}], "passthrough": {"utt_id": "a", \
"target": "bæt", "lang_sym": "eng"}}, "1": {"pred": [{"processed_transcript": ""}], \
"passthrough": {"utt_id": "b", "target": "ta"}}}
{"2": {"pred": [{"processed_transcript": "o"}], "passthrough": {"target": "u"}}}
"""


def test_output_of_prisms_inference_holds_both_sides(tmp_path):
    path = tmp_path / "transcription.0.jsonl"
    path.write_text(PRISM_LINES, encoding="utf-8")
    assert read_transcripts(path, HYP_FIELDS) == {"a": "pæt", "b": "", "2": "o"}
    assert read_transcripts(path, REF_FIELDS) == {"a": "bæt", "b": "ta", "2": "u"}
    with pytest.raises(TranscriptError, match=r":1: fields utt_id hyp ref; expected"):
        read_transcripts(path)  # says neither which


@pytest.mark.parametrize(
    "value",
    [
        '{"pred": [], "passthrough": {}}',
        '{"pred": [{"text": "a"}], "passthrough": {}}',
        '{"pred": null, "passthrough": {}}',
        '{"pred": [{"processed_transcript": "a"}], "passthrough": 1}',
    ],
)
def test_broken_output_of_prisms_inference_is_named(tmp_path, value):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"7": {value}}}')
    with pytest.raises(TranscriptError, match=r"a.jsonl:1: '7' has no pred\[0\]"):
        read_transcripts(path, HYP_FIELDS)


@pytest.mark.parametrize("field", ['"pa', 'p"a', '"', 'pa"', '"pa" ta', "'pa"])
def test_quotation_marks_of_a_tsv_are_letters(tmp_path, field):
    path = tmp_path / "hyp.tsv"
    path.write_text(f"id\ttext\nu1\t{field}\nu2\tta\nu3\t{field}\nu4\tma\n")
    assert read_transcripts(path) == {"u1": field, "u2": "ta", "u3": field, "u4": "ma"}


@pytest.mark.parametrize(
    "content",
    [
        'id,text\nu1,"pa\nu2,ta"\nu3,ka\n',
        'id,text\nu1,"pa\r\nta"\n',
        'id,text\nu1,"pa\n"\nu2,ta\n',
        'id,text\n"u\n1",pa\n',
        'id,text\nu1,"pa\rta"\n',
    ],
)
def test_line_break_in_a_field_is_an_error(tmp_path, content):
    path = tmp_path / "hyp.csv"
    path.write_bytes(content.encode())
    with pytest.raises(TranscriptError, match="line break in a field"):
        read_transcripts(path)


def test_tables_of_windows(tmp_path):
    for name, delimiter in (("hyp.csv", ","), ("hyp.tsv", "\t")):
        path = tmp_path / name
        path.write_bytes(f"\ufeffid{delimiter}text\r\nu1{delimiter}pa\r\n".encode())
        assert read_transcripts(path) == {"u1": "pa"}


def test_trn_of_sclite(tmp_path):
    path = tmp_path / "hyp.trn"
    path.write_text(
        "\ufeff;; a comment\np a t a (spk1-u1)\nthe (laughs) cat (spk1_u2) \n"
        "(spk1-u3)\n\n  m a\t(u4)\r\n",
        encoding="utf-8",
    )
    assert read_transcripts(path) == {
        "spk1-u1": "p a t a",
        "spk1_u2": "the (laughs) cat",
        "spk1-u3": "",
        "u4": "m a",
    }


@pytest.mark.parametrize("line", ["u1 p a t a", "p a ()", "p a (u 1)", "p (u1", "u1)"])
def test_trn_without_an_id_is_named(tmp_path, line):
    path = tmp_path / "ref.trn"
    path.write_text(f"p a (u0)\n{line}\n")
    with pytest.raises(TranscriptError, match=r"ref.trn:2: found .*the id in brackets"):
        read_transcripts(path)


def test_white_space_alone_ends_an_id(tmp_path):
    path = tmp_path / "text"
    path.write_text("a,1:b\tp a\nc|d p\n")
    assert read_transcripts(path) == {"a,1:b": "p a", "c|d": "p"}
