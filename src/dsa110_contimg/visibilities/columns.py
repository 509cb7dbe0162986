"""Writing result columns so that nothing that was there is lost.

A new MODEL_DATA or CORRECTED_DATA is filled under a staging name while the
present column stays as it is; committing renames the present column to a
kept name and the staged one into its place. What was found before the first
commit stays kept however often a calibration is repeated, so that restoring
gives back the Measurement Set as it was found. A journal in the table's
keywords lets a commit that was cut short be finished or undone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from casacore.tables import makearrcoldesc
from numpy.typing import NDArray

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.visibilities.measurement_set import MeasurementSet, open_table

__all__ = [
    "ColumnStage",
    "back_up_columns",
    "recover_columns",
    "require_space",
    "restore_columns",
]

STAGED = "CONTIMG_NEW_"
KEPT = "CONTIMG_OLD_"
JOURNAL = "CONTIMG_COMMIT"
ABSENT = "CONTIMG_ABSENT"
#: Never staged, kept or restored: the observation itself.
UNTOUCHABLE = frozenset({"DATA", "UVW", "TIME", "ANTENNA1", "ANTENNA2", "WEIGHT", "SIGMA"})
#: Rows copied at a time when a column is duplicated.
COPY_ROWS = 32768
#: Left free on the disk whatever is written.
SPARE_BYTES = 16 << 20


def require_space(path: Any, needed_bytes: int, what: str) -> None:
    """Raise ResourceError if a disk has not enough room.

    Parameters
    ----------
    path : Path
        Folder on the disk concerned.
    needed_bytes : int
        Bytes about to be written.
    what : str
        What they are for, for the message.
    """
    free = shutil.disk_usage(path).free
    if free < needed_bytes + SPARE_BYTES:
        raise ResourceError(
            f"disk full: {what} needs {_megabytes(needed_bytes + SPARE_BYTES)}, {_megabytes(free)} are free",
            path,
            "free some space or choose another disk",
        )


def _megabytes(n: int) -> str:
    return f"{n / 1e6:.0f} MB"


class ColumnStage:
    """New columns of a Measurement Set, written beside and renamed into place at the end.

    Parameters
    ----------
    ms : MeasurementSet
        Where to write.
    names : sequence of str
        Complex columns to write, e.g. MODEL_DATA and CORRECTED_DATA. Each
        cell takes the shape of DATA.

    Raises
    ------
    ResourceError
        If the table cannot be written or the disk has not enough room.

    Notes
    -----
    A context manager: leaving it without :meth:`commit` removes the staged
    columns and leaves everything as it was.
    """

    def __init__(self, ms: MeasurementSet, names: Sequence[str]) -> None:
        forbidden = UNTOUCHABLE.intersection(names)
        if forbidden:
            raise ValueError(f"{', '.join(sorted(forbidden))} must not be written")
        self._ms = ms
        self._names = tuple(names)
        self._table: Any = None

    def __enter__(self) -> ColumnStage:
        self._ms.require_writable()
        recover_columns(self._ms)
        samples = 0
        with open_table(self._ms.path) as main:
            ddid = main.getcol("DATA_DESC_ID")
        for window in self._ms.spectral_windows:
            n_rows = int(np.count_nonzero(ddid == window.data_desc_id))
            samples += n_rows * window.freq_hz.size * len(window.corr_type)
        require_space(self._ms.path, 8 * samples * len(self._names), f"writing {' and '.join(self._names)}")
        self._table = open_table(self._ms.path, writable=True)
        for name in self._names:
            _add_complex_column(self._table, STAGED + name)
        return self

    def put(self, name: str, rows: NDArray[np.int64], values: NDArray[np.complex64]) -> None:
        """Write rows of a staged column.

        Parameters
        ----------
        name : str
            Final name of the column.
        rows : ndarray of int, shape (nrow,)
            Row numbers, ascending.
        values : ndarray of complex64, shape (nrow, nchan, ncorr)
            Their cells.
        """
        try:
            if rows[-1] - rows[0] + 1 == rows.size:
                self._table.putcol(STAGED + name, values, int(rows[0]), int(rows.size))
            else:
                self._table.selectrows(rows).putcol(STAGED + name, values)
        except RuntimeError as error:
            raise ResourceError(f"writing {name} failed ({error})", self._ms.path, "check the disk") from None

    def fill_rest(self, written: NDArray[np.int64]) -> None:
        """Fill the rows nothing was written to.

        They keep what the present column holds; without one, CORRECTED_DATA
        starts as DATA and MODEL_DATA as zero.

        Parameters
        ----------
        written : ndarray of int
            Rows that :meth:`put` has filled.
        """
        rest = np.ones(self._ms.n_rows, dtype=bool)
        rest[written] = False
        for rows in _runs(np.flatnonzero(rest)):
            for name in self._names:
                present = name in self._table.colnames()
                source = name if present else "DATA"
                for k in range(0, rows.size, COPY_ROWS):
                    part = rows[k : k + COPY_ROWS]
                    for sub in _equal_shapes(self._table, source, part):
                        values = self._table.getcol(source, int(sub[0]), int(sub.size))
                        if not present and name == "MODEL_DATA":
                            values = np.zeros_like(values)
                        self.put(name, sub, values)

    def commit(self) -> None:
        """Rename the staged columns into place, keeping what was there."""
        main = self._table
        try:
            main.flush(recursive=True)
        except RuntimeError as error:
            raise ResourceError(f"writing failed ({error})", self._ms.path, "check the disk") from None
        columns = main.colnames()
        absent = list(_keyword(main, ABSENT))
        absent += [n for n in self._names if n not in columns and KEPT + n not in columns and n not in absent]
        if absent:
            main.putkeyword(ABSENT, absent)
        main.putkeyword(JOURNAL, list(self._names))
        main.flush()
        _finish_commit(main)
        main.close()
        self._table = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._table is not None:
            _drop(self._table, [STAGED + n for n in self._names])
            self._table.close()
            self._table = None


def recover_columns(ms: MeasurementSet) -> None:
    """Finish a commit that was cut short, or drop staged columns that never came to one."""
    with open_table(ms.path) as main:
        if JOURNAL not in main.keywordnames() and not any(c.startswith(STAGED) for c in main.colnames()):
            return
    with open_table(ms.path, writable=True) as main:
        if JOURNAL in main.keywordnames():
            _finish_commit(main)
        else:
            _drop(main, [c for c in main.colnames() if c.startswith(STAGED)])


def _finish_commit(main: Any) -> None:
    """Rename column by column; each step may be repeated after a crash at any point."""
    for name in _keyword(main, JOURNAL):
        columns = main.colnames()
        if STAGED + name not in columns:
            continue
        if name in columns:
            if KEPT + name in columns or name in _keyword(main, ABSENT):
                main.removecols([name])
            else:
                main.renamecol(name, KEPT + name)
            main.flush()
        main.renamecol(STAGED + name, name)
        main.flush()
    main.removekeyword(JOURNAL)
    main.flush()


def back_up_columns(ms: MeasurementSet, names: Iterable[str]) -> None:
    """Copy columns aside, so that :func:`restore_columns` can bring them back.

    A column that is already kept is left: the oldest copy is what was found.

    Parameters
    ----------
    ms : MeasurementSet
        Measurement Set.
    names : iterable of str
        For example FLAG. A name that is not there is remembered as absent.
    """
    ms.require_writable()
    recover_columns(ms)
    with open_table(ms.path, writable=True) as main:
        absent = list(_keyword(main, ABSENT))
        for name in names:
            if name in UNTOUCHABLE:
                raise ValueError(f"{name} is never changed and needs no copy")
            columns = main.colnames()
            if KEPT + name in columns or name in absent:
                continue
            if name not in columns:
                absent.append(name)
                main.putkeyword(ABSENT, absent)
                continue
            staged = STAGED + name
            _add_like(main, name, staged)
            _copy(main, name, staged)
            main.renamecol(staged, KEPT + name)
        main.flush()


def restore_columns(ms: MeasurementSet, names: Iterable[str] | None = None) -> list[str]:
    """Put columns back to what was found before the first commit or back-up.

    Parameters
    ----------
    ms : MeasurementSet
        Measurement Set.
    names : iterable of str, optional
        Columns; all that are kept or remembered as absent by default.

    Returns
    -------
    list of str
        What was restored.
    """
    ms.require_writable()
    recover_columns(ms)
    done = []
    with open_table(ms.path, writable=True) as main:
        absent = list(_keyword(main, ABSENT))
        kept = [c.removeprefix(KEPT) for c in main.colnames() if c.startswith(KEPT)]
        for name in list(names) if names is not None else kept + absent:
            if name in kept:
                if name == "FLAG":
                    # A Measurement Set is never without FLAG: the values go back, then the copy goes.
                    _copy(main, KEPT + name, name)
                    main.flush()
                    main.removecols([KEPT + name])
                else:
                    _drop(main, [name])
                    main.renamecol(KEPT + name, name)
                done.append(name)
            elif name in absent:
                _drop(main, [name])
                absent.remove(name)
                main.putkeyword(ABSENT, absent) if absent else main.removekeyword(ABSENT)
                done.append(name)
            main.flush()
    return done


def _add_complex_column(main: Any, name: str) -> None:
    if name in main.colnames():
        main.removecols([name])
    shape = np.asarray(main.getcell("DATA", 0)).shape
    group = _manager_name(main, name)
    description = makearrcoldesc(
        name, 0j, ndim=2, valuetype="complex", datamanagertype="TiledShapeStMan", datamanagergroup=group
    )
    # One tile: all correlations, up to 64 channels, rows up to about 1 MB, as DATA is usually stored.
    channels = min(shape[0], 64)
    rows = max(1, (1 << 17) // (channels * shape[1]))
    manager = {
        "*1": {
            "TYPE": "TiledShapeStMan",
            "NAME": group,
            "SPEC": {"DEFAULTTILESHAPE": np.array([shape[1], channels, rows], dtype=np.int32)},
            "COLUMNS": [name],
        }
    }
    main.addcols({name: description["desc"]}, manager)


def _add_like(main: Any, source: str, name: str) -> None:
    description = dict(main.getcoldesc(source))
    group = _manager_name(main, name)
    description["dataManagerGroup"] = group
    description["dataManagerType"] = "TiledShapeStMan" if description.get("ndim", 0) > 0 else "StandardStMan"
    if name in main.colnames():
        main.removecols([name])
    manager: dict[str, Any] = {
        "*1": {"TYPE": description["dataManagerType"], "NAME": group, "SPEC": {}, "COLUMNS": [name]}
    }
    if description["dataManagerType"] == "TiledShapeStMan":
        shape = np.asarray(main.getcell(source, 0)).shape
        tile = [*reversed(shape), max(1, (1 << 20) // int(np.prod(shape)))]
        manager["*1"]["SPEC"] = {"DEFAULTTILESHAPE": np.array(tile, dtype=np.int32)}
    main.addcols({name: description}, manager)


def _manager_name(main: Any, name: str) -> str:
    """Storage managers keep their first name when a column is renamed: find one not in use."""
    used = {m["NAME"] for m in main.getdminfo().values()}
    return next(n for n in (f"{name}_{k}" for k in range(len(used) + 1)) if n not in used)


def _copy(main: Any, source: str, target: str) -> None:
    for k in range(0, main.nrows(), COPY_ROWS):
        rows = np.arange(k, min(k + COPY_ROWS, main.nrows()))
        for sub in _equal_shapes(main, source, rows):
            main.putcol(target, main.getcol(source, int(sub[0]), int(sub.size)), int(sub[0]), int(sub.size))


def _drop(main: Any, names: Iterable[str]) -> None:
    present = [n for n in names if n in main.colnames()]
    for name in present:
        main.removecols([name])


def _keyword(main: Any, name: str) -> list[str]:
    return list(main.getkeyword(name)) if name in main.keywordnames() else []


def _runs(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split ascending row numbers where they are not contiguous."""
    return np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if rows.size else []


def _equal_shapes(main: Any, column: str, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split contiguous rows where the cells' shape may change, that is where DATA_DESC_ID does."""
    ddid = main.getcol("DATA_DESC_ID", int(rows[0]), int(rows.size))
    return np.split(rows, np.flatnonzero(np.diff(ddid)) + 1)
