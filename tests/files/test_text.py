"""Text of other programs: byte order marks, other encodings, pipes."""

import os
import threading

import pytest

from powsm.files.text import TextFileError, open_text, read_text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"a\xc9\x99\n", "aə\n"),
        (b"\xef\xbb\xbfa\n", "a\n"),
        (b"\xef\xbb\xbf", ""),
        (b"a\n\xef\xbb\xbfb\n", "a\n\ufeffb\n"),  # only the first is a mark
        (b"a\r\nb\r\n", "a\nb\n"),
    ],
)
def test_mark_is_no_text(tmp_path, content, text):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read_text(path) == text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("a\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (b"\xfe\xff\x00a", "UTF-16 text"),
        ("a\n".encode("utf-32"), "UTF-32 text"),
        (b"\xff\xfe", "UTF-16 text"),
        ("é".encode("latin-1"), "not UTF-8 text .*; save it as UTF-8"),
        (b"a\xef\xbb", "not UTF-8 text"),
    ],
)
def test_other_encodings_are_named(tmp_path, content, fault):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(TextFileError, match=f"^{path}: {fault}"):
        read_text(path)


def test_lines_of_a_pipe(tmp_path):
    """As of `powsm score --hyp <(sort hyp)`: it can be read once."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"\xef\xbb\xbfa\rb\nc",))
    writer.start()
    with open_text(path, newline="\n") as file:
        assert list(file) == ["a\rb\n", "c"]
    writer.join()
