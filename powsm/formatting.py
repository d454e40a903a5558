"""Numbers, symbols and tables as people read them: plain text and Markdown."""

import math
from collections.abc import Iterable, Mapping, Sequence

# Okabe and Ito's colours, distinct for colour-blind readers.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose other columns are numbers.

    >>> print(markdown_table(["lang", "PER"], [["eng", "12.3"]]))
    | lang | PER |
    | :--- | ---: |
    | eng | 12.3 |
    """
    lines = [list(header), [":---", *["---:"] * (len(header) - 1)], *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


def bounds(low: float, high: float, how: str = ".2f") -> str:
    """An interval; empty where there was too little to tell.

    >>> bounds(-1, 2.345, "+.1f"), bounds(math.nan, math.nan)
    ('[-1.0, +2.3]', '')
    """
    is_unknown = math.isnan(low) or math.isnan(high)
    return "" if is_unknown else f"[{low:{how}}, {high:{how}}]"


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Items by falling count, equal counts by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def code_points(symbol: str) -> str:
    """How Unicode writes the characters down.

    >>> code_points("t͡")
    'U+0074 U+0361'
    """
    return " ".join(f"U+{ord(character):04X}" for character in symbol)
