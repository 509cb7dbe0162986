"""Tables in FITS files, row by row."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from astropy import units as u
from astropy.io import fits
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

__all__ = ["read_fits_table"]


def read_fits_table(stream: IO[bytes], path: Path, accept: Callable[[tuple[str, ...]], bool]) -> RawTable:
    """Read the first table that is accepted, else the first one."""
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
        raise too_long("a row", LINE_BYTES, path)
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
                    block = {name: plain(table[columns.names[names.index(name)]]) for name in wanted}
                except MemoryError:
                    raise
                except Exception as error:
                    raise _damaged_fits(error, path) from error
            yield block
        if int(header.get("PCOUNT", 0)) == 0 and len(stream.read(padding)) < padding:
            raise _damaged_fits(ValueError("truncated behind its last row"), path)

    return RawTable(names, blocks, units, {}, n_rows)


def _damaged_fits(error: Exception, path: Path) -> CatalogFormatError:
    what = f"the FITS file is truncated or damaged ({reason_of(error)})"
    return CatalogFormatError(what, path, "fetch the file again")
