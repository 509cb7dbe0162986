"""The page of a study, report.html: what its Markdown page says, maps in colour, links to comparisons."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dsa110_contimg.compare.study import LABELS, Point
from dsa110_contimg.files import write_text
from dsa110_contimg.report.rendering import render_page
from dsa110_contimg.report.tables import PageTable, count, page_table
from dsa110_contimg.selfcal.naming import REPORT

__all__ = ["Block", "blocks_of", "write_study_report"]

#: Marks of a cell whose interval excludes no difference.
WON, LOST = "**S**", "**U**"
FIGURE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<file>[^)/]+\.png)\)")
INLINE = re.compile(r"(`[^`]+`|\*\*[^*]+\*\*)")

#: A piece of a line and what it is: text, code or strong.
Piece = tuple[str, str]


@dataclass(frozen=True)
class Block:
    """A part of the page.

    Attributes
    ----------
    kind : str
        ``h2``, ``h3``, ``p``, ``ul``, ``table`` or ``figure``.
    lines : list of list of Piece
        The text; of a list each of its items.
    rows : list of list of (str, list of Piece)
        Of a table: classes and text of each cell; the first row is its head.
    caption : str
        Of a table, and what is seen on a figure.
    uri : str
        Data URI of a figure.
    """

    kind: str
    lines: list[list[Piece]] = field(default_factory=list)
    rows: list[list[tuple[str, list[Piece]]]] = field(default_factory=list)
    caption: str = ""
    uri: str = ""


def write_study_report(outdir: Path, markdown: Path, runs: Sequence[dict[str, Any]]) -> Path:
    """Write the page of a study into its folder.

    Parameters
    ----------
    outdir : Path
        Folder of the study.
    markdown : Path
        Its page in Markdown, with the figures beside it.
    runs : sequence of dict
        What :func:`run_study` returns.

    Returns
    -------
    Path
        ``report.html`` in the folder: one file that needs nothing else.
    """
    title, *blocks = blocks_of(markdown.read_text("utf-8"), markdown.parent)
    values = {
        "title": "".join(text for _, text in title.lines[0]),
        "folder": str(outdir.resolve()),
        "blocks": blocks,
        "parts": [
            (k, "".join(text for _, text in block.lines[0]))
            for k, block in enumerate(blocks)
            if block.kind == "h2"
        ],
        "runs": _run_table(outdir, runs),
    }
    write_text(outdir / REPORT, render_page("study.html", values))
    return outdir / REPORT


def blocks_of(markdown: str, folder: Path) -> Iterator[Block]:
    """Take apart the Markdown that a study writes: headings, paragraphs, lists, tables, figures.

    Parameters
    ----------
    markdown : str
        The text. A table is named by the heading above it.
    folder : Path
        Where the figures lie; one that is not there is left out.

    Yields
    ------
    Block
        The first one is the title.
    """
    heading = ""
    for part in re.split(r"\n\s*\n", markdown.strip()):
        lines = part.strip().splitlines()
        while lines:
            first = lines[0]
            level = len(first) - len(first.lstrip("#"))
            if level:
                heading = first[level:].strip()
                yield Block(f"h{level}", [_pieces(heading)])
                lines = lines[1:]
                continue
            kind = _kind(first)
            n = next((k for k, line in enumerate(lines) if _kind(line) != kind), len(lines))
            yield from _block(kind, lines[:n], heading, folder)
            lines = lines[n:]


def _kind(line: str) -> str:
    return "table" if line.startswith("|") else "ul" if line.startswith("* ") else "p"


def _block(kind: str, lines: Sequence[str], heading: str, folder: Path) -> Iterator[Block]:
    if kind == "table":
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
        del rows[1]
        cells = [[(_class(cell), _pieces(cell)) for cell in row] for row in rows]
        yield Block("table", rows=cells, caption=heading)
    elif kind == "ul":
        yield Block("ul", [_pieces(line[2:]) for line in lines])
    elif found := FIGURE.fullmatch(lines[0]):
        path = folder / found["file"]
        if path.is_file():
            uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            yield Block("figure", caption=found["alt"], uri=uri)
    else:
        yield Block("p", [_pieces(" ".join(lines))])


def _class(cell: str) -> str:
    return "won" if WON in cell else "lost" if LOST in cell else ""


def _pieces(text: str) -> list[Piece]:
    """Split a line into text, code and what is strong."""
    found = []
    for piece in filter(None, INLINE.split(text)):
        if piece.startswith("`"):
            found.append(("code", piece[1:-1]))
        elif piece.startswith("**"):
            found.append(("strong", piece[2:-2]))
        else:
            found.append(("text", piece))
    return found


def _run_table(outdir: Path, runs: Sequence[dict[str, Any]]) -> PageTable:
    """List every observation with what became of it, and a link to its comparison where that is kept."""
    rows, links = [], {}
    for number, run in enumerate(runs, 1):
        name = Point(run["values"], run["draw"], "").name
        arms = ", ".join(
            f"{arm} {found['run_status'] or found['status']}" for arm, found in run["arms"].items()
        )
        told = run.get("reason") or arms
        values = [*run["values"].values(), str(run["draw"]), run.get("status", "not run")]
        rows.append([str(number), *values, told])
        if (outdir / "runs" / name / REPORT).is_file():
            links[str(number)] = "./" + quote(f"runs/{name}/{REPORT}")
    axes = [LABELS[axis] for axis in runs[0]["values"]] if runs else []
    heads = ["number#", *(f"{label}#" for label in axes), "draw#", "status", "arms~"]
    return page_table("runs-table", count(len(rows), "simulated observation"), heads, rows, links)
