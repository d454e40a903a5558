"""A filled table as Markdown, CSV and LaTeX."""

import csv
import io
import math
from collections.abc import Iterable, Sequence

from powsm.formatting import markdown_table
from powsm.report.paper.fill import Filled, Score, is_measured_otherwise
from powsm.report.paper.spec import Table
from powsm.score.rates import rate_notes

CSV_FIELDS = (
    *"table row system column set lang metric paper paper_source".split(),
    *"ours low high difference chance verdict why_empty note".split(),
)
BLANK = "–"  # a number that no source gives
_MOST_COLUMNS = 15  # of a table that is printed as published


def _metric(table: Table, cell: Filled) -> str:
    column = table.column(cell.column)
    row = next(row for row in table.rows if row.name == cell.row)
    settings = {**table.settings, **column.settings, **(row.ours or {})}
    return settings["metric"]


def _number(value: float | None) -> str:
    """Two decimals, the most that any paper gives."""
    return "" if value is None or math.isnan(value) else f"{value:.2f}"


def _interval(score: Score) -> str:
    low, high = _number(score.low), _number(score.high)
    return f"[{low}, {high}]" if low and high else ""


def _grid(table: Table, cells: Sequence[Filled]) -> list[list[str]]:
    """Published rows; below each row of ours, the same measured with our models."""
    lines = []
    for row in table.rows:
        of_row = [cell for cell in cells if cell.row == row.name]
        published = [row.cells.get(column.name) for column in table.columns]
        lines.append([row.name, *(c.text if c else BLANK for c in published)])
        for system in dict.fromkeys(cell.system for cell in of_row):
            of_system = [cell for cell in of_row if cell.system == system]
            if any(cell.ours is not None for cell in of_system):
                ours = [_number(c.ours.value) if c.ours else "" for c in of_system]
                star = " *" if of_system[0].note else ""
                lines.append([f"{row.name}: {system}{star}", *ours])
    return lines


def _tall(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list, list]:
    """Columns as lines, for tables that are too wide for a page."""
    if len(header) <= _MOST_COLUMNS:
        return list(header), [list(row) for row in rows]
    turned = [list(line) for line in zip(header, *rows, strict=True)]
    return turned[0], turned[1:]


_REFERENCES = {
    "raw": "IPA that went through no normaliser, as published",
    "normalised": "the phones that the normaliser made",
}
_COMPARISON = (
    "cell",
    "paper",
    "ours",
    "difference",
    "95 % interval",
    "chance",
    "verdict",
)


def _comparison(
    table: Table, cells: Sequence[Filled]
) -> tuple[list[str], list[list[str]]]:
    """Header, and a line for every cell that has a score of ours."""
    several = len({cell.system for cell in cells if cell.system}) > 1
    rows = [
        [
            f"{cell.row}: {cell.column}" + (f", {cell.system}" if several else ""),
            cell.paper.text if cell.paper else BLANK,
            _number(cell.ours.value),
            f"{cell.difference:+.2f}" if cell.difference is not None else "",
            _interval(cell.ours),
            _number(cell.ours.chance),
            cell.verdict(_metric(table, cell)),
        ]
        for cell in cells
        if cell.ours is not None
    ]
    at = _COMPARISON.index("chance")
    if not any(row[at] for row in rows):  # no phones
        return _without(_COMPARISON, at), [_without(row, at) for row in rows]
    return list(_COMPARISON), rows


def _without(cells: Sequence[str], at: int) -> list[str]:
    return [*cells[:at], *cells[at + 1 :]]


def markdown(table: Table, cells: Sequence[Filled]) -> str:
    """The table as published with our rows in it, the comparison, and what is empty.

    Args:
        table: its description.
        cells: from `powsm.report.paper.fill.fill`.
    """
    names = [column.name for column in table.columns]
    metric = table.settings.get("metric", "")
    unit = "" if is_measured_otherwise(metric) else " in percent"
    how = ""
    if table.cleaning or table.references == "raw":
        reading = f"by the cleaning `{table.cleaning}`" if table.cleaning else "as made"
        against = _REFERENCES[table.references]
        how = f" Phones are read {reading}, against {against}."
    parts = [
        f"# {table.title}",
        f"{table.paper}; {metric}{unit}. Published cells: {table.source}. "
        f"{BLANK} is a cell that no source gives.{how}",
        markdown_table(*_tall(["system", *names], _grid(table, cells))),
    ]
    if notes := list(dict.fromkeys(cell.note for cell in cells if cell.note)):
        parts.append("\n".join(f"\\* {note}." for note in notes))
    parts.append("## Paper and ours")
    header, compared = _comparison(table, cells)
    if compared:
        parts.append(markdown_table(header, compared))
        parts.append(
            "`agrees`: the published number lies in our interval; `undecided`: it "
            "does, but the interval is wider than the number itself. Published numbers "
            "have no interval of their own."
            + " `chance` is the PFER of the same outputs against other utterances' "
            "references of like length." * ("chance" in header)
        )
    else:
        parts.append("No cell of ours could be filled.")
    if notes := rate_notes([metric]):
        parts += ["## Metric", notes]
    parts += ["## Cells that stay empty", _reasons(cells)]
    other = {
        (c.row, c.column): c.paper.source
        for c in cells
        if c.paper is not None and c.paper.source != table.source
    }
    if other:
        parts.append("## Other sources of published cells")
        parts.append(
            "\n".join(f"- {r}, {c}: {source}" for (r, c), source in other.items())
        )
    # a row called <unk> is no tag
    return "\n\n".join(parts).replace("<", r"\<") + "\n"


def _reasons(cells: Sequence[Filled]) -> str:
    """One line a reason, with the cells it holds for."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        if cell.ours is None:
            rows = by_reason.setdefault(cell.why, {})
            name = f"{cell.row}: {cell.system}" if cell.system else cell.row
            rows.setdefault(name, []).append(cell.column)
    if not by_reason:
        return "None."
    n_columns = len({cell.column for cell in cells})
    lines = []
    for reason, rows in by_reason.items():
        places = [
            row if len(columns) == n_columns else f"{row} ({', '.join(columns)})"
            for row, columns in rows.items()
        ]
        lines.append(f"- {'; '.join(places)}: {reason}.")
    return "\n".join(lines)


def to_csv(table: Table, cells: Sequence[Filled]) -> str:
    """One line a cell, with the fields `CSV_FIELDS`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        column = table.column(cell.column)
        metric = _metric(table, cell)
        ours = cell.ours
        writer.writerow(
            {
                "table": table.name,
                **{key: getattr(cell, key) for key in ("row", "system", "column")},
                "set": column.set,
                "lang": "" if column.mean_of else column.lang,
                "metric": metric,
                "paper": cell.paper.text if cell.paper else "",
                "paper_source": cell.paper.source if cell.paper else "",
                "ours": _number(ours.value) if ours else "",
                "low": _number(ours.low) if ours else "",
                "high": _number(ours.high) if ours else "",
                "difference": _number(cell.difference),
                "chance": _number(ours.chance) if ours else "",
                "verdict": cell.verdict(metric),
                "why_empty": cell.why,
                "note": cell.note,
            }
        )
    return text.getvalue()


_LATEX = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        BLANK: "--",
    }
)


def to_latex(table: Table, cells: Sequence[Filled]) -> str:
    """The grid, and the comparison, as LaTeX tables; needs the package booktabs.

    >>> "test_x < 5 %".translate(_LATEX)
    'test\\\\_x \\\\textless{} 5 \\\\%'
    """
    names = [column.name for column in table.columns]
    lines = [f"% {table.paper}"]
    lines += _tabular(*_tall(["System", *names], _grid(table, cells)))
    notes = dict.fromkeys(cell.note for cell in cells if cell.note)
    lines += [f"% * {line}" for note in notes for line in note.splitlines()]
    header, compared = _comparison(table, cells)
    if compared:
        lines += ["", *_tabular(header, compared)]
    lines += ["", "% cells that stay empty:"]
    lines += [f"% {line}" for line in _reasons(cells).splitlines()]
    return "\n".join(lines) + "\n"


def _tabular(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"

    return [
        r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
        r"\toprule",
        line(header),
        r"\midrule",
        *map(line, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
