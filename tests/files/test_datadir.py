"""Data directories: streaming, order, and what `validate` finds."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.files.datadir import (
    EXAMPLE_FILES,
    DataDirError,
    DataDirSummary,
    read_scp,
    validate,
    write_scp,
)

FILES = {
    "wav.scp": "a s.tar:512:9\nb s.tar:1536:9\nc c.flac\n",
    "text": "a null\nb\nc two words\n",
    "text.ipa": "a n\nb ʊ\nc l l\n",
    "utt2lang": "a deu\nb deu\nc eng\n",
    "utt2speaker": "a s2\nb s1\nc s2\n",
    "utt2spk": "a a\nb b\nc c\n",
    "spk2utt": "a a\nb b\nc c\n",
    "utt2num_samples": "a 10\nb 20\nc 30\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def test_read_scp_empty_value_and_spaces(folder):
    assert list(read_scp(folder / "text")) == [
        ("a", "null"),
        ("b", ""),
        ("c", "two words"),
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"b x\na y\n", ":2: 'a' comes after 'b'"),
        (b"a x\na y\n", ":2: 'a' is given twice"),
        (b"a x\n\nb y\n", ":2: a line without a key"),
        (b"a x\n y\n", ":2: a line without a key"),
        (b"B x\na y\n_ z\n", ":3: '_' comes after 'a'"),  # bytes 42, 61, 5F
        (b"a \xff\n", ":1: not UTF-8"),
        (b"\xef\xbb\xbfa x\n", ":1: a byte order mark"),
        ("a x\n".encode("utf-16"), ":1: not UTF-8"),
    ],
)
def test_read_scp_faults_name_the_line(tmp_path, content, fault):
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(DataDirError, match=re.escape(f"{path}{fault}")):
        list(read_scp(path))


def test_read_scp_splits_at_newlines_only(tmp_path):
    """U+2028, U+0085 and form feeds may stand in a transcript."""
    path = tmp_path / "text"
    rows = [("a", "one\u2028two\x85three\x0cfour\rfive"), ("b", "x")]
    assert write_scp(path, rows) == 2
    assert list(read_scp(path)) == rows


@pytest.mark.parametrize(
    "rows",
    [
        [("b", "x"), ("a", "y")],
        [("a", "x"), ("a", "y")],
        [("a", "x\ny")],
        [("a b", "x")],
        [("", "x")],
    ],
)
def test_write_scp_refuses_and_leaves_no_file(tmp_path, rows):
    with pytest.raises(DataDirError):
        write_scp(tmp_path / "text", rows)
    assert list(tmp_path.iterdir()) == []


def test_write_scp_keeps_the_old_file_on_error(tmp_path):
    path = tmp_path / "text"
    write_scp(path, [("a", "x")])
    with pytest.raises(DataDirError):
        write_scp(path, [("b", "x"), ("a", "y")])
    assert path.read_text() == "a x\n"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters=" \t\n"), min_size=1),
        st.text(st.characters(codec="utf-8", exclude_characters="\n")),
    )
)
def test_scp_round_trip_in_byte_order(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("scp") / "text"
    by_bytes = sorted(rows.items(), key=lambda row: row[0].encode())
    write_scp(path, by_bytes)
    assert list(read_scp(path)) == by_bytes


def test_validate_counts(folder):
    assert validate(folder) == DataDirSummary(
        n_utts=3, n_samples=60, n_speakers=2, langs=("deu", "eng")
    )


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("text", "a x\nc y\n", "text:2: found 'c', expected 'b'"),
        ("text", "a x\nb y\n", "text:3: found the end of the file, expected 'c'"),
        ("utt2lang", FILES["utt2lang"] + "d eng\n", "expected the end of the file"),
        ("utt2lang", "a deu\nb\nc eng\n", "utt2lang:2: no value after 'b'"),
        ("utt2lang", "a deu\nb eng\r\nc eng\n", "utt2lang:2: the line ends in CR LF"),
        ("text", "a x\r\nb y\r\nc z\r\n", "text:1: the line ends in CR LF"),
        ("utt2lang", "a deu\nb de\nc eng\n", "utt2lang:2: found 'de', expected an ISO"),
        ("text.ipa", "a n\nb  \nc l\n", "text.ipa:2: no value after 'b'"),
        ("utt2num_samples", "a 10\nb 0\nc 30\n", "utt2num_samples:2: found '0'"),
        ("utt2num_samples", "a 10\nb 1.5\nc 30\n", "utt2num_samples:2: found '1.5'"),
        ("spk2utt", "a a\nb a\nc c\n", "spk2utt:2: found 'a', expected 'b'"),
        ("spk2utt", "s1 b\n", "spk2utt:1: found 's1', expected 'a'"),
        ("utt2spk", "a a\nb b\n", "utt2spk:3: found the end of the file"),
        ("utt2spk", "a s2\nb b\nc c\n", "speakers are in utt2speaker"),
        ("utt2speaker", "a s2\nb\nc s1\n", "utt2speaker:2: no value after 'b'"),
        ("wav.scp", "a x\nb y\nb z\n", "wav.scp:3: 'b' is given twice"),
    ],
)
def test_validate_names_the_fault(folder, name, content, fault):
    (folder / name).write_text(content, encoding="utf-8", newline="\n")
    with pytest.raises(DataDirError, match=re.escape(fault)):
        validate(folder)


def test_validate_missing_and_empty(folder):
    (folder / "text").unlink()
    (folder / "utt2speaker").unlink()
    with pytest.raises(DataDirError, match="no text utt2speaker; rerun"):
        validate(folder)
    for name in FILES:
        (folder / name).write_text("")
    with pytest.raises(DataDirError, match="no utterances"):
        validate(folder)


def test_validate_examples_need_their_own_files(folder):
    with pytest.raises(DataDirError, match="no text.prev text.ctc"):
        validate(folder, EXAMPLE_FILES)
    (folder / "text.prev").write_text("a <na>\nb <na>\nc x\n")
    (folder / "text.ctc").write_text("a /n/\nb /ʊ/\nc /l/\n")
    with pytest.raises(DataDirError, match="text:2: no value after 'b'"):
        validate(folder, EXAMPLE_FILES)
