"""Tables of text: CSV, lists of VizieR, ECSV, TDAT."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from astropy import units as u
from astropy.io import ascii as ascii_tables
from astropy.table import Table

from dsa110_contimg.catalogs.raw_table import (
    BLOCK_BYTES,
    HEADER_BYTES,
    KNOWN_FORMS,
    LINE_BYTES,
    Block,
    RawTable,
    plain,
    reason_of,
    too_long,
)
from dsa110_contimg.errors import CatalogFormatError

__all__ = ["SEPARATOR", "parse_rows", "read_delimited", "read_ecsv", "read_tdat"]

#: Stands between cells of text while a block is parsed: it occurs in no catalogue, and is no white space.
SEPARATOR = "\x1f"
DASHES = re.compile(r"^\s*-+(\s*[\t;|]\s*-+)*\s*$")


def read_delimited(stream: IO[bytes], path: Path) -> RawTable:
    """Read CSV, or a VizieR list: comments, names, units, dashes, rows."""
    lines = _text_lines(stream, path)
    names_line = next((line for line in _header(lines, path) if _is_row(line)), "")
    delimiter = next((d for d in "\t;|" if d in names_line), ",")
    names = tuple(_cells(names_line, delimiter))
    ahead = [next(lines, ""), next(lines, "")]
    units = {}
    if DASHES.match(ahead[1]):
        stated = _cells(ahead[0], delimiter)
        units = {
            name: u.Unit(unit, parse_strict="silent")
            for name, unit in zip(names, stated, strict=False)
            if unit and not unit.startswith('"')
        }
        ahead = []
    return RawTable(names, _text_blocks(lines, "".join(ahead), names, delimiter, path), units)


def read_ecsv(stream: IO[bytes], path: Path) -> RawTable:
    """Read ECSV, whose header is YAML."""
    lines = _text_lines(stream, path)
    head = []
    for line in _header(lines, path):
        head.append(line)
        if not line.startswith("#"):
            break
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            table = Table.read("".join(head) + "\n", format="ascii.ecsv")
        except MemoryError:
            raise
        except Exception as error:  # the reader raises a dozen kinds; each means that the text does not fit
            raise CatalogFormatError(
                f"is not a readable ECSV table ({reason_of(error)})", path, KNOWN_FORMS
            ) from error
    names = tuple(table.colnames)
    stated = re.search(r"^# delimiter: *['\"]?(.)", "".join(head), re.MULTILINE)
    delimiter = stated.group(1) if stated else " "
    units = {name: table[name].unit for name in names if table[name].unit is not None}
    return RawTable(names, _text_blocks(lines, "", names, delimiter, path), units, dict(table.meta))


def read_tdat(stream: IO[bytes], path: Path) -> RawTable:
    """Read the format of heasarc.gsfc.nasa.gov/docs/software/dbdocs/tdat.html, one line to a record."""
    lines = _text_lines(stream, path)
    head: dict[str, str] = {}
    n_rows, begun = None, False
    for line in _header(lines, path):
        if line.strip().upper() == "<DATA>":
            begun = True
            break
        if line.lstrip().startswith("#") and (count := re.search(r"TOTAL ROWS:\s*(\d+)", line)):
            n_rows = int(count.group(1))
        elif "=" in line and not line.lstrip().startswith(("#", "//")):
            key, value = line.split("=", 1)
            head[key.strip().lower()] = value.strip()
    if not begun or "line[1]" not in head or "line[2]" in head:
        lacking = "no <DATA> line" if not begun else "no single line[1] that names its columns"
        raise CatalogFormatError(f"the TDAT file has {lacking}", path, "fetch the file again")
    names = tuple(head["line[1]"].split())
    delimiter = head.get("field_delimiter", "|").strip("\"'`") or "|"
    units = {}
    for name in names:
        # field[ra] = float8_degree:.5f [pos.eq.ra] (key) // Right Ascension; the format may also come first.
        kind = (head.get(f"field[{name}]", "").split() or [""])[0]
        stated = re.search(r"_([^:]+)", kind)
        if stated:
            units[name] = u.Unit(stated.group(1), parse_strict="silent")

    def data() -> Iterator[str]:
        for line in lines:
            if line.strip().upper() == "<END>":
                return
            yield line
        raise CatalogFormatError("the TDAT file has no <END>: it is truncated", path, "fetch the file again")

    # Each record ends with a delimiter, behind which there is one empty cell.
    return RawTable(names, _text_blocks(data(), "", names, delimiter, path, closing=True), units, {}, n_rows)


def _text_lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    text = io.TextIOWrapper(cast(Any, stream), encoding="utf-8-sig")
    try:
        while line := text.readline(LINE_BYTES):
            if len(line) == LINE_BYTES and not line.endswith("\n"):
                raise too_long("a line", LINE_BYTES, path)
            if "\0" in line:
                raise CatalogFormatError("is neither a FITS nor a text table", path, KNOWN_FORMS)
            yield line
    except UnicodeDecodeError:
        raise CatalogFormatError("is neither a FITS nor a text table", path, KNOWN_FORMS) from None


def _header(lines: Iterator[str], path: Path) -> Iterator[str]:
    """Pass lines on, but no more than a header has."""
    size = 0
    for line in lines:
        size += len(line)
        if size > HEADER_BYTES:
            raise too_long("the header", HEADER_BYTES, path)
        yield line


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.strip("\r\n").split(delimiter)]


def _text_blocks(
    lines: Iterator[str],
    ahead: str,
    names: tuple[str, ...],
    delimiter: str,
    path: Path,
    *,
    closing: bool = False,
) -> Callable[[tuple[str, ...]], Iterator[Block]]:
    def blocks(wanted: tuple[str, ...]) -> Iterator[Block]:
        first, size = 1, len(ahead)
        batch = [line for line in ahead.splitlines(keepends=True) if _is_row(line)]
        passed_over = 0
        for line in lines:
            if not _is_row(line):
                passed_over += len(line)
                if passed_over > HEADER_BYTES:
                    raise too_long("what is no row", HEADER_BYTES, path)
                continue
            batch.append(line)
            size += len(line)
            if size > BLOCK_BYTES:
                yield parse_rows(batch, first, names, delimiter, wanted, path, closing)
                first, batch, size = first + len(batch), [], 0
        if batch:
            yield parse_rows(batch, first, names, delimiter, wanted, path, closing)

    return blocks


def _is_row(line: str) -> bool:
    return not line.isspace() and not line.startswith("#")


def parse_rows(
    lines: list[str],
    first: int,
    names: tuple[str, ...],
    delimiter: str,
    wanted: tuple[str, ...],
    path: Path,
    closing: bool = False,
) -> Block:
    """Parse rows of text, the first of which is number ``first`` of the table."""
    quoted = delimiter in ", "
    all_names = [*names, "(end)"] if closing else list(names)
    text = "".join(lines)
    if not quoted:
        text = text.replace(delimiter, SEPARATOR)
    try:
        table = ascii_tables.read(
            text + "\n",
            format="fast_no_header",
            guess=False,
            delimiter=delimiter if quoted else SEPARATOR,
            quotechar='"' if quoted else "\x01",
            comment="\x02",
            names=all_names,
            include_names=list(wanted),
        )
    except MemoryError:
        raise
    except Exception as error:  # the reader raises several kinds; each means that the rows do not fit
        for number, line in enumerate(lines, first):
            n = len(line.split(delimiter)) if delimiter != " " else len(line.split())
            if n != len(all_names) and '"' not in line:
                what = f"row {number} has {n - closing} cells, not {len(names)}"
                raise CatalogFormatError(what, path, "correct the row, or fetch the file again") from None
        raise CatalogFormatError(
            f"rows from {first} on are not a readable table ({reason_of(error)})", path, KNOWN_FORMS
        ) from error
    return {name: plain(table[name]) for name in wanted}
