"""Report sections rendered as Markdown and as a single HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of a report.

    Attributes:
        title: Heading.
        paragraphs: Text before the table.
        table: Table, if any.
        picture: Name of a PNG file in the report's folder.
        caption: Caption of the picture.
    """

    title: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    picture: str | None = None
    caption: str = ""


def number_text(value: float | None) -> str:
    """A number with four digits; empty if it is unknown."""
    return "" if value is None else f"{value:.4g}"


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The sections as Markdown; pictures are linked by file name."""
    parts = [f"# {title}"]
    for section in sections:
        parts += [f"## {section.title}", *section.paragraphs]
        if section.table:
            parts.append(_markdown_table(section.table))
        if section.picture:
            parts.append(f"![{section.caption}]({section.picture})\n\n{section.caption}")
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    head, rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(value.replace("|", "\\|") for value in line) + " |" for line in lines)


STYLE_SHEET = """
body { font: 16px/1.55 system-ui, sans-serif; color: #26323d; max-width: 68rem; margin: 2.5rem auto;
  padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p.verdict { font-size: 1.1rem; background: #eef4fb; border-left: 4px solid #2a6fbb; padding: .8rem 1rem;
  border-radius: 0 6px 6px 0; }
table { border-collapse: collapse; font-size: .92rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid #e3e7eb; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
th { color: #5b6873; font-weight: 600; } img { max-width: 100%; height: auto; } figure { margin: 0; }
figcaption { color: #5b6873; font-size: .92rem; } footer { margin: 3rem 0 1rem; color: #5b6873; font-size: .85rem; }
@media (prefers-color-scheme: dark) { body { background: #14191e; color: #dde3e8; } p.verdict { background: #1b2834; }
  th, td { border-color: #2b353e; } th, figcaption, footer { color: #98a5b0; } img { border-radius: 6px; } }
"""


def as_html(title: str, sections: Sequence[Section], folder: Path, footer: str) -> str:
    """The sections as one self-contained HTML page; the first section's paragraphs are highlighted.

    Args:
        title: Title of the report.
        sections: Sections in order.
        folder: Folder of the pictures, which are embedded.
        footer: Last line of the page.
    """
    body = [f"<h1>{html.escape(title)}</h1>"]
    for index, section in enumerate(sections):
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        kind = ' class="verdict"' if index == 0 else ""
        body += [f"<p{kind}>{html.escape(text)}</p>" for text in section.paragraphs]
        if section.table:
            body.append(_html_table(section.table))
        if section.picture:
            body.append(_html_picture(folder / section.picture, section.caption))
    body.append(f"<footer>{html.escape(footer)}</footer>")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{meta}<title>paredown: {html.escape(title)}</title><style>{STYLE_SHEET}</style></head>"
    return f'<!doctype html>\n<html lang="en">{head}\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _html_table(table: Table) -> str:
    head, rows = table
    top = f"<thead><tr>{''.join(f'<th>{html.escape(value)}</th>' for value in head)}</tr></thead>" if any(head) else ""
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table>{top}<tbody>{lines}</tbody></table>"


def _html_picture(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
