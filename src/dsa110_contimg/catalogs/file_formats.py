"""Containers of catalogue tables, read as a stream of blocks of rows.

FITS, VOTable, HEASARC's TDAT, VizieR's tab-separated lists, CSV and ECSV, each plain or gzipped, are told
apart by content. None but a binary VOTable is held in memory as a whole, and that up to a bound: rows come in
blocks of a few megabytes, and of their columns only those that are asked for.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast
from xml.sax.saxutils import unescape

import numpy as np
from astropy import units as u
from astropy.io import ascii as ascii_tables
from astropy.io import fits
from astropy.io.votable import parse_single_table
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, ResourceError
from dsa110_contimg.progress import LogProgress, Progress

__all__ = ["RawTable", "open_table"]

Column = NDArray[Any]
Block = dict[str, Column]

KNOWN_FORMS = "give a FITS, VOTable, TDAT, TSV, CSV or ECSV table (plain or .gz)"
BLOCK_BYTES = 8 << 20
TICK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
#: Longest line or row, and longest header: far above any catalogue's, far below what memory holds. A small
#: file of .gz may unpack to any length.
LINE_BYTES = 1 << 20
HEADER_BYTES = 4 << 20
#: Longest file that is held as a whole; all of NVSS as a binary VOTable takes about half of it.
WHOLE_BYTES = 256 << 20
#: Stands between cells of text while a block is parsed: it occurs in no catalogue, and is no white space.
SEPARATOR = "\x1f"
DASHES = re.compile(r"^\s*-+(\s*[\t;|]\s*-+)*\s*$")


@dataclass
class RawTable:
    """A table as its file has it.

    Attributes
    ----------
    names : tuple of str
        Columns.
    blocks : callable
        Given the columns wanted, yields them block by block: names to arrays of shape (n_rows_of_block,),
        numbers (blank: NaN) or text (blank: empty).
    units : dict
        Units of the columns that state one.
    meta : dict
        What the header says besides, e.g. ``coverage`` of an ECSV file.
    n_rows : int, optional
        Rows that the header promises.
    """

    names: tuple[str, ...]
    blocks: Callable[[tuple[str, ...]], Iterator[Block]]
    units: dict[str, u.UnitBase] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    n_rows: int | None = None


@contextmanager
def open_table(
    path: Path, accept: Callable[[tuple[str, ...]], bool], progress: Progress | None = None
) -> Iterator[RawTable]:
    """Open a catalogue file and say what is in it.

    Parameters
    ----------
    path : Path
        The file.
    accept : callable
        Given the names of the columns, says whether the table is the one wanted; the others of a FITS file
        are passed over.
    progress : Progress, optional
        Follows the reading of the file.

    Yields
    ------
    RawTable
        The table, or the first one if none was accepted; to be read inside the context.

    Raises
    ------
    CatalogMissingError
        There is no such file.
    CatalogFormatError
        The file is empty, damaged or of no known kind; also raised while blocks are read.
    ResourceError
        The file may not be read.
    """
    try:
        size = path.stat().st_size
        raw = path.open("rb")
    except FileNotFoundError:
        raise CatalogMissingError("no such catalogue file", path, "check the path") from None
    except IsADirectoryError:
        raise CatalogFormatError("is a directory, not a catalogue file", path, KNOWN_FORMS) from None
    except OSError as error:
        raise ResourceError(f"cannot be read ({error.strerror})", path, "check its permissions") from error
    ticks = size // TICK_BYTES + 1
    bar = (progress or LogProgress()).track(range(ticks), ticks, f"reading {path.name}")
    try:
        with (
            raw,
            closing(cast(Any, bar)),
            _Ticking(raw, bar) as ticking,
        ):
            stream = cast(IO[bytes], io.BufferedReader(ticking, BLOCK_BYTES // 8))
            if stream.peek(2).startswith(b"\x1f\x8b"):  # type: ignore[attr-defined]
                stream = cast(IO[bytes], io.BufferedReader(gzip.GzipFile(fileobj=stream), BLOCK_BYTES // 8))
            yield _table(stream, path, accept)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise CatalogFormatError(
            "the gzip stream is truncated or damaged", path, "fetch the file again"
        ) from None


class _Ticking(io.RawIOBase):
    """A file that moves a progress bar on with every megabyte read of it."""

    def __init__(self, raw: IO[bytes], bar: Iterator[int]) -> None:
        self.raw, self.bar, self.ticks, self.done = raw, bar, 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = cast(Any, self.raw).readinto(buffer)
        self.done += n
        while self.ticks <= self.done // TICK_BYTES:
            next(self.bar, None)
            self.ticks += 1
        return int(n)


def _table(stream: IO[bytes], path: Path, accept: Callable[[tuple[str, ...]], bool]) -> RawTable:
    head = _peek(stream)
    if not head.strip():
        raise CatalogFormatError("the file is empty", path, KNOWN_FORMS)
    if head.startswith(b"SIMPLE"):
        return _first_fits_table(stream, path, accept)
    if b"\0" in head:
        raise CatalogFormatError("is neither a FITS nor a text table", path, KNOWN_FORMS)
    if re.search(rb"<(\w+:)?VOTABLE", head[:4096]):
        return _votable(stream, path)
    if re.search(rb"^[ \t]*<HEADER>", head, re.IGNORECASE | re.MULTILINE):
        return _tdat(stream, path)
    if head.removeprefix(b"\xef\xbb\xbf").startswith(b"# %ECSV"):
        return _ecsv(stream, path)
    return _delimited(stream, path)


def _peek(stream: IO[bytes]) -> bytes:
    return bytes(cast(Any, stream).peek(HEAD_BYTES)[:HEAD_BYTES])


# ---------------------------------------------------------------- FITS


def _first_fits_table(stream: IO[bytes], path: Path, accept: Callable[[tuple[str, ...]], bool]) -> RawTable:
    refused = None
    while (header := _fits_header(stream, path)) is not None:
        try:
            if header.get("XTENSION", "").strip() in ("BINTABLE", "TABLE"):
                table = _fits_table(stream, header, path)
                if accept(table.names):
                    return table
                refused = refused or table
            axes = [int(header[f"NAXIS{k + 1}"]) for k in range(int(header["NAXIS"]))]
            cells = int(header.get("PCOUNT", 0)) + (math.prod(axes) if axes else 0)
            size = abs(int(header["BITPIX"])) // 8 * int(header.get("GCOUNT", 1)) * cells
        except (KeyError, ValueError, TypeError) as error:
            raise _damaged_fits(error, path) from error
        _skip(stream, -(-size // 2880) * 2880, path)
    if refused is None:
        raise CatalogFormatError("the FITS file holds no table", path, KNOWN_FORMS)
    return refused


def _fits_header(stream: IO[bytes], path: Path) -> fits.Header | None:
    text, ended = b"", False
    while not ended:
        block = stream.read(2880)
        if not block.strip(b"\0 ") and not text:
            return None
        if len(block) < 2880 or len(text) > HEADER_BYTES:
            raise _damaged_fits(ValueError("the header has no end"), path)
        text += block
        # A block holds whole cards of 80 bytes.
        ended = re.search(rb"\A(?:.{80})*?END {77}", block, re.DOTALL) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return fits.Header.fromstring(text)
        except (ValueError, fits.VerifyError) as error:
            raise _damaged_fits(error, path) from error


def _skip(stream: IO[bytes], size: int, path: Path) -> None:
    while size > 0:
        got = len(stream.read(min(size, BLOCK_BYTES)))
        if not got:
            raise _damaged_fits(ValueError("truncated"), path)
        size -= got


def _fits_table(stream: IO[bytes], header: fits.Header, path: Path) -> RawTable:
    width, n_rows = int(header["NAXIS1"]), int(header["NAXIS2"])
    if width < 1 or n_rows < 0:
        raise ValueError(f"NAXIS1 = {width}, NAXIS2 = {n_rows}")
    if width > LINE_BYTES:
        raise _too_long("a row", LINE_BYTES, path)
    kind = fits.BinTableHDU if header["XTENSION"].strip() == "BINTABLE" else fits.TableHDU

    def rows(n: int, data: bytes) -> Any:
        part = header.copy()
        part["NAXIS2"], part["PCOUNT"] = n, 0
        padded = data + bytes(-len(data) % 2880)
        return kind.fromstring(part.tostring().encode() + padded)

    with warnings.catch_warnings():
        # Unit strings and header cards that FITS frowns on do not matter here; missing bytes do.
        warnings.simplefilter("ignore")
        try:
            columns = rows(0, b"").columns
            names = tuple(str(name).strip() for name in columns.names)
            units = {
                name: u.Unit(unit, parse_strict="silent")
                for name, unit in zip(names, columns.units, strict=True)
                if unit
            }
        except MemoryError:
            raise
        except Exception as error:  # a damaged header can surface as almost any exception inside the reader
            raise _damaged_fits(error, path) from error

    def blocks(wanted: tuple[str, ...]) -> Iterator[Block]:
        step, padding = max(1, BLOCK_BYTES // width), -n_rows * width % 2880
        for start in range(0, n_rows, step):
            n = min(step, n_rows - start)
            data = stream.read(n * width)
            if len(data) < n * width:
                raise CatalogFormatError(
                    f"the FITS file is truncated in row {start + len(data) // width + 1} of {n_rows}",
                    path,
                    "fetch the file again",
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    table = Table(rows(n, data).data)
                    block = {name: _plain(table[columns.names[names.index(name)]]) for name in wanted}
                except MemoryError:
                    raise
                except Exception as error:
                    raise _damaged_fits(error, path) from error
            yield block
        if int(header.get("PCOUNT", 0)) == 0 and len(stream.read(padding)) < padding:
            raise _damaged_fits(ValueError("truncated behind its last row"), path)

    return RawTable(names, blocks, units, {}, n_rows)


def _too_long(what: str, limit: int, path: Path) -> CatalogFormatError:
    return CatalogFormatError(
        f"{what} is longer than {limit >> 20} MB: it is no catalogue's", path, KNOWN_FORMS
    )


def _damaged_fits(error: Exception, path: Path) -> CatalogFormatError:
    what = f"the FITS file is truncated or damaged ({_reason(error)})"
    return CatalogFormatError(what, path, "fetch the file again")


# ---------------------------------------------------------------- text


def _delimited(stream: IO[bytes], path: Path) -> RawTable:
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


def _ecsv(stream: IO[bytes], path: Path) -> RawTable:
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
                f"is not a readable ECSV table ({_reason(error)})", path, KNOWN_FORMS
            ) from error
    names = tuple(table.colnames)
    stated = re.search(r"^# delimiter: *['\"]?(.)", "".join(head), re.MULTILINE)
    delimiter = stated.group(1) if stated else " "
    units = {name: table[name].unit for name in names if table[name].unit is not None}
    return RawTable(names, _text_blocks(lines, "", names, delimiter, path), units, dict(table.meta))


def _tdat(stream: IO[bytes], path: Path) -> RawTable:
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
                raise _too_long("a line", LINE_BYTES, path)
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
            raise _too_long("the header", HEADER_BYTES, path)
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
                    raise _too_long("what is no row", HEADER_BYTES, path)
                continue
            batch.append(line)
            size += len(line)
            if size > BLOCK_BYTES:
                yield _parse(batch, first, names, delimiter, wanted, path, closing)
                first, batch, size = first + len(batch), [], 0
        if batch:
            yield _parse(batch, first, names, delimiter, wanted, path, closing)

    return blocks


def _is_row(line: str) -> bool:
    return not line.isspace() and not line.startswith("#")


def _parse(
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
            f"rows from {first} on are not a readable table ({_reason(error)})", path, KNOWN_FORMS
        ) from error
    return {name: _plain(table[name]) for name in wanted}


# ---------------------------------------------------------------- VOTable


def _votable(stream: IO[bytes], path: Path) -> RawTable:
    """Read the fields of the first table with data, and its rows as text."""
    parser: ET.XMLPullParser[Any] = ET.XMLPullParser(("start",))
    names: list[str] = []
    units: dict[str, u.UnitBase] = {}
    n_rows = None
    rest = b""
    body = re.compile(rb"<(?:\w+:)?(TABLEDATA|BINARY2?|FITS)\b[^>]*?(/?)>")
    head = b""
    while not (begin := body.search(rest)):
        chunk = stream.read(HEAD_BYTES)
        if not chunk:
            raise CatalogFormatError(
                "the VOTable holds no rows or is truncated", path, "fetch the file again"
            )
        head += chunk
        rest = head
        if len(head) > HEADER_BYTES:
            raise _too_long("the header of the VOTable", HEADER_BYTES, path)
    if begin.group(1) != b"TABLEDATA":
        data = head + stream.read(WHOLE_BYTES)
        if len(data) > WHOLE_BYTES:
            raise CatalogFormatError(
                f"the VOTable is binary, to be held as a whole, and longer than {WHOLE_BYTES >> 20} MB",
                path,
                "convert it to FITS, or fetch it as TABLEDATA",
            )
        return _binary_votable(data, path)
    try:
        parser.feed(head[: begin.end()])
        events = [event[1] for event in cast(Any, parser.read_events())]
    except ET.ParseError as error:
        raise CatalogFormatError(f"the VOTable is damaged ({error})", path, "fetch the file again") from None
    for element in events:
        tag = element.tag.rsplit("}", 1)[-1]
        if tag == "TABLE":
            names, units = [], {}
            n_rows = int(element.get("nrows", "0")) or None
        elif tag == "FIELD":
            name = str(element.get("name") or element.get("ID"))
            names.append(name)
            if element.get("unit"):
                units[name] = u.Unit(element.get("unit"), parse_strict="silent")
        elif tag == "INFO" and element.get("value") == "OVERFLOW":
            raise CatalogFormatError("the server cut the table off", path, "fetch it without a limit of rows")

    def blocks(wanted: tuple[str, ...]) -> Iterator[Block]:
        if begin.group(2):
            return
        first, pending = 1, head[begin.end() :]
        while True:
            chunk = stream.read(BLOCK_BYTES)
            pending += chunk
            end = re.search(rb"</(?:\w+:)?TABLEDATA\s*>", pending)
            if end is None and not chunk:
                raise CatalogFormatError(
                    f"the VOTable is truncated after row {first - 1 + pending.count(b'</TR>')}",
                    path,
                    "fetch the file again",
                )
            cut = end.start() if end else _after_last_row(pending)
            if cut and (rows := _votable_rows(pending[:cut], first, path)):
                yield _parse(rows, first, tuple(names), SEPARATOR, wanted, path)
                first += len(rows)
            if end:
                return
            pending = pending[cut:]
            if len(pending) > LINE_BYTES:
                raise _too_long("a row of the VOTable", LINE_BYTES, path)

    return RawTable(tuple(names), blocks, units, {}, n_rows)


def _after_last_row(data: bytes) -> int:
    """Where the last whole row ends; 0 if there is none."""
    if (at := data.rfind(b"</TR>")) >= 0:
        return at + len(b"</TR>")
    return max((match.end() for match in re.finditer(rb"</(?:\w+:)?TR\s*>", data)), default=0)


def _binary_votable(data: bytes, path: Path) -> RawTable:
    """Read a VOTable whose rows are not text; the only container that is held as a whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            table = parse_single_table(io.BytesIO(data)).to_table(use_names_over_ids=True)
        except MemoryError:
            raise
        except Exception as error:  # whatever it stumbles on, the file does not fit
            raise CatalogFormatError(
                f"the VOTable is damaged ({_reason(error)})", path, "fetch the file again"
            ) from error
    units = {name: table[name].unit for name in table.colnames if table[name].unit is not None}

    def blocks(wanted: tuple[str, ...]) -> Iterator[Block]:
        yield {name: _plain(table[name]) for name in wanted}

    return RawTable(tuple(table.colnames), blocks, units)


def _votable_rows(data: bytes, first: int, path: Path) -> list[str]:
    """Turn the rows of a TABLEDATA into lines of separated cells."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise CatalogFormatError("the VOTable is not UTF-8", path, "fetch the file again") from None
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r">\s+<", "><", text).strip()
    text = re.sub(r"<(/?)\w+:(T[RD])", r"<\1\2", text)
    text = re.sub(r"<(T[RD])\s[^>]*?(/?)>", r"<\1\2>", text) if "<TD " in text or "<TR " in text else text
    text = text.replace("<TD/>", "<TD></TD>").replace("\n", " ").replace("\r", " ")
    rows = text.replace("</TD><TD>", SEPARATOR).replace("<TR><TD>", "").split("</TD></TR>")
    if rows.pop() or any("<" in row for row in rows):
        number = next((k for k, row in enumerate(rows) if "<" in row), len(rows))
        raise CatalogFormatError(
            f"the VOTable has no well-formed row {first + number}", path, "fetch the file again"
        )
    quotes = {"&quot;": '"', "&apos;": "'"}
    return [unescape(row, quotes) + "\n" if "&" in row else row + "\n" for row in rows]


# ---------------------------------------------------------------- cells


def _plain(column: Any) -> Column:
    """Return numbers with NaN for blanks, or text with empty strings for blanks."""
    values: Any = np.ma.asarray(column)
    if values.dtype.kind in "fiu":
        return np.asarray(values.astype(np.float64).filled(np.nan))
    if values.dtype.kind == "O":
        values = np.ma.array([str(v) for v in values.filled("")], mask=np.ma.getmaskarray(values))
    if values.dtype.kind == "S":
        values = values.astype(str)
    return np.asarray(values.filled("") if values.dtype.kind == "U" else values)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
