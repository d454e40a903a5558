"""Sections of the data report as Markdown, and as a page that needs no other file."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from powsm.formatting import markdown_table

_NUMBER = re.compile(r"-?[\d.,]+( ?%)?")  # a column of such is set to the right
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
  max-width: 60rem; margin: 0 auto; padding: 1rem;
  background: light-dark(#fff, #14181d); color: light-dark(#1b1f24, #e6e9ed); }
a { color: light-dark(#0b5cad, #79b8ff); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; white-space: nowrap;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th.n, td.n { text-align: right; }
td:last-child:not(.n) { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
code { background: var(--soft); padding: 0 .2em; border-radius: .2em; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: .85rem; opacity: .8; }
nav a { margin-right: .8rem; white-space: nowrap; }
@media print {
  :root { color-scheme: light; }
  body { font-size: 10pt; padding: 0; }
  nav { display: none; }
  h2 { break-after: avoid; } figure, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8.5pt; } th { white-space: normal; vertical-align: bottom; }
  th, td { padding: .15rem .5rem .15rem 0; }
}
""".strip()


@dataclass(frozen=True)
class Section:
    """A part of the report: prose, then a table, then a picture; each may miss."""

    title: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    picture: str = ""  # file name of a PNG
    caption: str = ""


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The report as Markdown; pictures are links to files beside it."""
    blocks = [f"# {title}"]
    for section in sections:
        blocks.append(f"## {section.title}")
        if section.text:
            blocks.append(section.text)
        if section.picture:
            blocks.append(f"![{section.caption}]({section.picture})")
        if section.rows:
            blocks.append(markdown_table(section.header, section.rows))
        elif section.header:
            blocks.append("Nothing found.")
    return "\n\n".join(blocks) + "\n"


def to_html(
    title: str, sections: Sequence[Section], pictures: Mapping[str, Mapping[str, bytes]]
) -> str:
    """The report as one page that needs no other file.

    Args:
        pictures: for `light` and `dark` paper, by file name. Paper to print on is
            light.
    """
    links = " ".join(
        f'<a href="#s{i}">{html.escape(section.title)}</a>'
        for i, section in enumerate(sections)
    )
    body = "\n".join(
        _html_section(f"s{i}", section, pictures) for i, section in enumerate(sections)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n{body}\n"
        "</body>\n</html>\n"
    )


def _html_section(
    anchor: str, section: Section, pictures: Mapping[str, Mapping[str, bytes]]
) -> str:
    parts = [f'<h2 id="{anchor}">{html.escape(section.title)}</h2>']
    if section.text:
        parts.append(f"<p>{_html_inline(section.text)}</p>")
    if section.picture:
        light, dark = (
            base64.b64encode(pictures[paper][section.picture]).decode("ascii")
            for paper in ("light", "dark")
        )
        caption = html.escape(section.caption)
        parts.append(
            '<figure><picture><source media="screen and (prefers-color-scheme: dark)" '
            f'srcset="data:image/png;base64,{dark}">'
            f'<img alt="{caption}" src="data:image/png;base64,{light}"></picture>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if section.rows:
        columns = zip(*section.rows, strict=True)
        kinds = [' class="n"' * all(map(_NUMBER.fullmatch, c)) for c in columns]
        head, *rows = (
            "".join(
                f"<{tag}{kind}>{_html_inline(cell)}</{tag}>"
                for kind, cell in zip(kinds, row, strict=True)
            )
            for tag, row in [("th", section.header), *(("td", r) for r in section.rows)]
        )
        rows = "\n".join(f"<tr>{row}</tr>" for row in rows)
        parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
            f"{rows}\n</tbody></table></div>"
        )
    elif section.header:
        parts.append("<p>Nothing found.</p>")
    return "\n".join(parts)


def _html_inline(text: str) -> str:
    """Escaped text; what stands between backticks becomes code."""
    pieces = html.escape(text).split("`")
    if len(pieces) % 2 == 0:  # a backtick of the data, not a pair of ours
        return "`".join(pieces)
    return "".join(
        f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces)
    )
