"""Tables in VOTable files."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast
from xml.sax.saxutils import unescape

from astropy import units as u
from astropy.io.votable import parse_single_table

from dsa110_contimg.catalogs.raw_table import (
    BLOCK_BYTES,
    HEAD_BYTES,
    HEADER_BYTES,
    LINE_BYTES,
    WHOLE_BYTES,
    Block,
    RawTable,
    plain,
    reason_of,
    too_long,
)
from dsa110_contimg.catalogs.text_table import SEPARATOR, parse_rows
from dsa110_contimg.errors import CatalogFormatError

__all__ = ["read_votable"]


def read_votable(stream: IO[bytes], path: Path) -> RawTable:
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
            raise too_long("the header of the VOTable", HEADER_BYTES, path)
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
            promised = element.get("nrows", "0").strip()
            if not promised.isdecimal():
                raise CatalogFormatError(
                    f"the VOTable promises {promised!a} rows", path, "fetch the file again"
                )
            n_rows = int(promised) or None
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
                yield parse_rows(rows, first, tuple(names), SEPARATOR, wanted, path)
                first += len(rows)
            if end:
                return
            pending = pending[cut:]
            if len(pending) > LINE_BYTES:
                raise too_long("a row of the VOTable", LINE_BYTES, path)

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
                f"the VOTable is damaged ({reason_of(error)})", path, "fetch the file again"
            ) from error
    units = {name: table[name].unit for name in table.colnames if table[name].unit is not None}

    def blocks(wanted: tuple[str, ...]) -> Iterator[Block]:
        yield {name: plain(table[name]) for name in wanted}

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
