"""Containers of catalogue tables, read as a stream of blocks of rows.

FITS, VOTable, HEASARC's TDAT, VizieR's tab-separated lists, CSV and ECSV, each plain or gzipped, are told
apart by content. None but a binary VOTable is held in memory as a whole, and that up to a bound: rows come in
blocks of a few megabytes, and of their columns only those that are asked for.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from dsa110_contimg.catalogs.fits_table import read_fits_table
from dsa110_contimg.catalogs.raw_table import BLOCK_BYTES, HEAD_BYTES, KNOWN_FORMS, RawTable
from dsa110_contimg.catalogs.text_table import read_delimited, read_ecsv, read_tdat
from dsa110_contimg.catalogs.votable import read_votable
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, ResourceError
from dsa110_contimg.progress import LogProgress, Progress

__all__ = ["open_table"]

TICK_BYTES = 1 << 20


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
        return read_fits_table(stream, path, accept)
    if b"\0" in head:
        raise CatalogFormatError("is neither a FITS nor a text table", path, KNOWN_FORMS)
    if re.search(rb"<(\w+:)?VOTABLE", head[:4096]):
        return read_votable(stream, path)
    if re.search(rb"^[ \t]*<HEADER>", head, re.IGNORECASE | re.MULTILINE):
        return read_tdat(stream, path)
    if head.removeprefix(b"\xef\xbb\xbf").startswith(b"# %ECSV"):
        return read_ecsv(stream, path)
    return read_delimited(stream, path)


def _peek(stream: IO[bytes]) -> bytes:
    return bytes(cast(Any, stream).peek(HEAD_BYTES)[:HEAD_BYTES])
