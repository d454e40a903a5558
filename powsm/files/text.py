"""Text that people and their programs wrote: UTF-8, with a byte order mark or without.

A mark at the beginning (editors on Windows write one) is no part of the text. UTF-16,
which the same editors offer, is named as what it is.
"""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from powsm.errors import PowsmError

# UTF-32's mark begins with UTF-16's
_OTHERS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class TextFileError(PowsmError):
    """Text of another encoding; the message names file and encoding."""


@contextmanager
def open_text(
    path: Path, newline: str | None = None, errors: str = "strict"
) -> Iterator[TextIO]:
    """Open a text to read; the file is read once, so that pipes are files, too.

    Args:
        newline: as in `open`; "\\n" where a line may hold other line breaks.
        errors: `replace` for labels in ASCII with remarks in any encoding.

    Raises:
        TextFileError: not UTF-8, now or while it is read.
        FileNotFoundError: no such file.
    """
    with open(path, "rb") as file:
        start = file.peek(4)
        for mark, encoding in _OTHERS.items():
            if start.startswith(mark):
                raise TextFileError(f"{path}: {encoding} text; save it as UTF-8")
        try:
            yield io.TextIOWrapper(
                file, encoding="utf-8-sig", errors=errors, newline=newline
            )
        except UnicodeDecodeError as err:
            raise TextFileError(
                f"{path}: not UTF-8 text ({err}); save it as UTF-8"
            ) from err


def read_text(path: Path) -> str:
    """All of a text, lines ending in "\\n".

    Raises:
        TextFileError: not UTF-8.
        FileNotFoundError: no such file.
    """
    with open_text(path) as file:
        return file.read()
