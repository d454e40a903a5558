"""Read Praat TextGrids as annotators leave them: UTF-8 or UTF-16, items misnumbered.

Both text forms: the long one, in which every corpus here comes, and the short one.
"""

import codecs
import re
from pathlib import Path
from typing import NamedTuple

from powsm.errors import PowsmError

_NUMBER = r"([\d.eE+-]+)"
_TEXT = r'"((?:[^"]|"")*)"'
_NAME = re.compile(rf"name\s*=\s*{_TEXT}")
_INTERVAL = re.compile(
    rf"xmin\s*=\s*{_NUMBER}\s*xmax\s*=\s*{_NUMBER}\s*text\s*=\s*{_TEXT}\s*?$", re.M
)
_SIZE = re.compile(r"intervals\s*:\s*size\s*=\s*(\d+)")
_SHORT = re.compile(rf"\s*{_TEXT}\s+{_NUMBER}\s+{_NUMBER}\s+(?P<size>\d+)\s")
_SHORT_INTERVAL = re.compile(rf"{_NUMBER}\s+{_NUMBER}\s+{_TEXT}\s*?$", re.M)
_TIER = re.compile(r'(?<!")"IntervalTier"(?!")')  # doubled, they are of a label


class TextGridError(PowsmError):
    """Not a TextGrid, or one without the tier; the message names the file."""


class Interval(NamedTuple):
    """A labelled stretch of a recording."""

    start_s: float
    end_s: float
    label: str


def read_tier(data: bytes, *names: str, where: Path | str) -> list[Interval]:
    """The intervals of the first of some tiers that is there, in order.

    Args:
        data: the file's bytes.
        names: of tiers; capitals do not matter.
        where: the file, for messages.

    Raises:
        TextGridError: not text, not a TextGrid, or none of the tiers.
    """
    tiers = {}
    for name, intervals in read_tiers(data, where):
        tiers.setdefault(name.casefold(), intervals)
    for name in names:
        if name.casefold() in tiers:
            return tiers[name.casefold()]
    raise TextGridError(
        f"{where}: no tier {' or '.join(names)}; found {' '.join(tiers) or 'none'}"
    )


def read_tiers(data: bytes, where: Path | str) -> list[tuple[str, list[Interval]]]:
    """All tiers of intervals with their names, of which two may be the same.

    Args:
        data: the file's bytes.
        where: the file, for messages.

    Raises:
        TextGridError: not text, no tier of intervals, or one that says another number
            of them than can be read, as of a file that was cut off.
    """
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as err:
        raise TextGridError(f"{where}: not UTF-8 or UTF-16 text ({err})") from err
    tiers = []
    for part in _TIER.split(text)[1:]:
        if match := _SHORT.match(part):
            size = int(match["size"])  # what follows may be points of another tier
            rows = _SHORT_INTERVAL.findall(part, match.end())[:size]
        elif match := _NAME.search(part):
            said = _SIZE.search(part)
            rows = _INTERVAL.findall(part)
            size = int(said[1]) if said else len(rows)
        else:
            continue
        name = match[1].replace('""', '"')
        if size != len(rows):
            raise TextGridError(
                f"{where}: tier {name} says {size} intervals, {len(rows)} "
                'can be read; is the file cut off, or a " in a label not doubled?'
            )
        intervals = [
            Interval(float(start), float(end), label.replace('""', '"').strip())
            for start, end, label in rows
        ]
        tiers.append((name, intervals))
    if not tiers:
        raise TextGridError(
            f"{where}: no tier of intervals; expected a TextGrid that Praat saved as a "
            "text file"
        )
    return tiers
