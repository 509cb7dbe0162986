"""A table as its file has it, and the bounds within which one is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from numpy.typing import NDArray

from dsa110_contimg.errors import CatalogFormatError

__all__ = [
    "BLOCK_BYTES",
    "HEADER_BYTES",
    "HEAD_BYTES",
    "KNOWN_FORMS",
    "LINE_BYTES",
    "WHOLE_BYTES",
    "Block",
    "Column",
    "RawTable",
    "plain",
    "reason_of",
    "too_long",
]

Column = NDArray[Any]
Block = dict[str, Column]

KNOWN_FORMS = "give a FITS, VOTable, TDAT, TSV, CSV or ECSV table (plain or .gz)"
BLOCK_BYTES = 8 << 20
HEAD_BYTES = 1 << 16
#: Longest line or row, and longest header: far above any catalogue's, far below what memory holds. A small
#: file of .gz may unpack to any length.
LINE_BYTES = 1 << 20
HEADER_BYTES = 4 << 20
#: Longest file that is held as a whole; all of NVSS as a binary VOTable takes about half of it.
WHOLE_BYTES = 256 << 20


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


def too_long(what: str, limit: int, path: Path) -> CatalogFormatError:
    """Return the error for what passes one of the bounds."""
    return CatalogFormatError(
        f"{what} is longer than {limit >> 20} MB: it is no catalogue's", path, KNOWN_FORMS
    )


def plain(column: Any) -> Column:
    """Return numbers with NaN for blanks, or text with empty strings for blanks."""
    values: Any = np.ma.asarray(column)
    if values.dtype.kind in "fiu":
        return np.asarray(values.astype(np.float64).filled(np.nan))
    if values.dtype.kind == "O":
        values = np.ma.array([str(v) for v in values.filled("")], mask=np.ma.getmaskarray(values))
    if values.dtype.kind == "S":
        values = values.astype(str)
    return np.asarray(values.filled("") if values.dtype.kind == "U" else values)


def reason_of(error: Exception) -> str:
    """Return the first line of what a reader says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
