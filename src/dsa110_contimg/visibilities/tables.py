"""casacore tables: opened without waiting for ever, and read with one line on what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from casacore.tables import table

from dsa110_contimg.errors import InputError, MeasurementSetError, ReferenceTableError, ResourceError

__all__ = [
    "first_line",
    "last_rows",
    "open_table",
    "read_cells",
    "reading",
    "require_outside_tables",
    "require_own_data",
    "require_whole",
    "unreadable",
]

#: A program that works on the table gives way within seconds; one that keeps it for itself does not.
LOCK_WAIT_S = 20
#: How a keyword that holds a table is read.
SUBTABLE = "Table: "
#: What can be done about it: casacore's words seldom tell a file that is cut short or missing from others.
COPY_AGAIN = "check its files and permissions; if it was copied in part, copy it again"
#: What casacore says of a column compressed by a library that it does not find.
NO_LIBRARY = "Shared library"
STORED_OTHERWISE = (
    "a column is stored by that library, which is not installed: write the data uncompressed where it is, "
    "for example with DP3"
)


def open_table(path: Path | str, *, writable: bool = False) -> Any:
    """Open a casacore table without its messages, and without waiting for ever for another program.

    Raises
    ------
    ResourceError
        If another program keeps the table locked.
    """
    # casacore's own automatic read lock waits without end. One explicit lock brings the number of rows up to
    # date, which without any lock may be that of long ago.
    options = {"option": "autonoread", "interval": 5.0, "maxwait": LOCK_WAIT_S}
    opened = table(str(path), readonly=not writable, ack=False, lockoptions=options)
    if opened.haslock(True):
        return opened
    try:
        opened.lock(writable, LOCK_WAIT_S)
    except RuntimeError:
        # The lock is there, but a program killed between writing a table and its lock file left the two at
        # odds. Opening with the automatic lock believes the table, for as long as the lock is held.
        opened.close()
        opened = table(str(path), readonly=not writable, ack=False, lockoptions="auto")
        opened.lock(writable, LOCK_WAIT_S)
        return opened
    # A lock that cannot be had is not an error to casacore: it goes on, reads what is stale, even writes.
    if not opened.haslock(writable):
        opened.close()
        raise ResourceError("another program is writing to it", path, "wait for it or end it")
    if not writable:
        opened.unlock()
    return opened


@contextmanager
def reading(path: Path | str, kind: type[InputError] = MeasurementSetError) -> Iterator[Any]:
    """Open a casacore table to read it, and say in one line what of it cannot be read.

    Not for copying a table: there casacore's errors may be of what is written.

    Parameters
    ----------
    path : Path or str
        Table, also a subtable.
    kind : type of InputError
        What is raised.

    Yields
    ------
    table
    """
    try:
        opened = open_table(path)
    except RuntimeError as error:
        words = first_line(error)
        if "does not exist" in words and (Path(path) / "table.dat").is_file():
            # What casacore says of one that is there and damaged.
            words = "table.dat is damaged"
        remedy = STORED_OTHERWISE if NO_LIBRARY in words else COPY_AGAIN
        raise kind(f"cannot be opened ({words})", path, remedy) from None
    with opened:
        try:
            yield opened
        except RuntimeError as error:
            # To look further into the table that is open would end the process where casacore has failed.
            raise unreadable(path, error, kind=kind) from None


def unreadable(
    path: Path | str, error: RuntimeError, what: str = "", kind: type[InputError] = MeasurementSetError
) -> InputError:
    """Make the error for a table, or what of it is named, that casacore cannot read."""
    return kind(f"{what} cannot be read ({first_line(error)})".lstrip(), path, COPY_AGAIN)


def read_cells(opened: Any, names: Sequence[str], rows: Sequence[int]) -> None:
    """Read those cells that are there, and forget them; the RuntimeError names a column that fails."""
    for row in rows:
        for name in names:
            try:
                if opened.iscelldefined(name, row):
                    opened.getcell(name, row)
            except RuntimeError as error:
                raise RuntimeError(f"{name} in row {row}: {first_line(error)}") from None


def last_rows(opened: Any) -> list[int]:
    """Last row, in a main table that of each DATA_DESC_ID, whose cells may have files of their own."""
    last = int(opened.nrows()) - 1
    if last < 0 or "DATA_DESC_ID" not in opened.colnames():
        return [last] if last >= 0 else []
    _, from_end = np.unique(opened.getcol("DATA_DESC_ID")[::-1], return_index=True)
    return [last - int(k) for k in from_end]


def require_whole(path: Path | str) -> None:
    """Raise MeasurementSetError if a table or one of its subtables cannot be read to its last row.

    A file that was cut short lacks its end: it is enough, and quick, to read that.
    """
    with reading(path) as main:
        read_cells(main, main.colnames(), last_rows(main))
        keywords = [main.getkeyword(name) for name in main.keywordnames() if name not in main.colnames()]
    for value in keywords:
        if isinstance(value, str) and value.startswith(SUBTABLE):
            with reading(value.removeprefix(SUBTABLE)) as sub:
                read_cells(sub, sub.colnames(), last_rows(sub))


def require_own_data(path: Path) -> None:
    """Raise if what is written to a table would land in another one.

    That is so for a reference table, which holds rows of another, for a concatenation, and for a column whose
    storage forwards it.

    Raises
    ------
    ReferenceTableError
        If it is one of these.
    MeasurementSetError
        If it cannot be opened.
    """
    if not (path / "table.dat").is_file():
        # `open_measurement_set` says what is there instead.
        return
    with reading(path) as opened:
        parts = [Path(name).resolve() for name in opened.partnames()]
        managers = opened.getdminfo().values()
    parts += [Path(str(m["SPEC"]["FORWARDTABLE"])) for m in managers if "FORWARDTABLE" in m.get("SPEC", {})]
    others = list(dict.fromkeys(str(part) for part in parts if part != path.resolve()))
    if others:
        what = "a multi-MS (concatenated)" if len(parts) > 1 else "a reference table"
        raise ReferenceTableError(
            f"{what}: its data are those of {', '.join(others[:3])}, which are not written to through it",
            path,
            "use those, or a copy with data of its own, as CASA's split or contimg rephase make it",
        )


def require_outside_tables(folder: Path) -> None:
    """Raise ResourceError if a folder for products is a table, such as a Measurement Set, or lies in one."""
    place = folder.resolve()
    for part in (place, *place.parents):
        if (part / "table.dat").is_file():
            raise ResourceError(f"lies inside the table {part}", folder, "choose another output folder")


def first_line(error: BaseException) -> str:
    """First line of what casacore says, for a message of one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
