"""Writing result columns so that nothing that was there is lost.

A new MODEL_DATA or CORRECTED_DATA is filled under a staging name while the
present column stays as it is; committing renames the present column to a
kept name and the staged one into its place. What was found before the first
commit stays kept however often a calibration is repeated, so that restoring
gives back the Measurement Set as it was found. A journal in the table's
keywords lets a commit that was cut short be finished or undone.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from casacore.tables import makearrcoldesc
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Int, Vis
from dsa110_contimg.errors import MeasurementSetError, ResourceError, StorageError
from dsa110_contimg.visibilities.column_removal import finish_removals, interrupted_removals, remove_columns
from dsa110_contimg.visibilities.lock import lock_beside
from dsa110_contimg.visibilities.measurement_set import MeasurementSet, open_measurement_set
from dsa110_contimg.visibilities.tables import first_line, last_rows, open_table, read_cells, reading

__all__ = [
    "ColumnStage",
    "add_flags",
    "add_spectrum_column",
    "back_up_columns",
    "column_as_found",
    "open_recovered",
    "recover_columns",
    "require_space",
    "restore_columns",
]

STAGED = "CONTIMG_NEW_"
KEPT = "CONTIMG_OLD_"
JOURNAL = "CONTIMG_COMMIT"
ABSENT = "CONTIMG_ABSENT"
FLAGGING = "CONTIMG_FLAGGING"
#: Never staged, kept or restored: the observation itself.
UNTOUCHABLE = frozenset({"DATA", "UVW", "TIME", "ANTENNA1", "ANTENNA2", "WEIGHT", "SIGMA"})
#: Rows copied at a time when a column is duplicated.
COPY_ROWS = 32768
#: Left free on the disk whatever is written.
SPARE_BYTES = 16 << 20


def require_space(path: Any, needed_bytes: int, what: str) -> None:
    """Raise StorageError if a disk has not enough room.

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
        raise StorageError(
            f"disk full: {_megabytes(needed_bytes + SPARE_BYTES)} needed for {what}, {_megabytes(free)} free",
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
        self._flushed = self._committing = False
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> ColumnStage:
        self._ms.require_writable()
        what = f"writing {' and '.join(self._names)}"
        with contextlib.ExitStack() as lock:
            lock.enter_context(lock_beside(self._ms.path, what))
            recover_columns(self._ms)
            require_space(self._ms.path, 8 * _samples(self._ms) * len(self._names), what)
            with _writing(self._ms, what):
                self._table = open_table(self._ms.path, writable=True)
                for name in self._names:
                    add_spectrum_column(self._table, STAGED + name)
            self._lock = lock.pop_all()
        return self

    def put(self, name: str, rows: Int, values: Vis) -> None:
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
        if rows.size == 0:
            return
        with _writing(self._ms, f"writing {name}"):
            if rows[-1] - rows[0] + 1 == rows.size:
                self._table.putcol(STAGED + name, values, int(rows[0]), int(rows.size))
            else:
                self._table.selectrows(rows).putcol(STAGED + name, values)

    def fill_rest(self, written: Int) -> None:
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
                for part, values in _cells(self._table, name if present else "DATA", rows):
                    zero = not present and name == "MODEL_DATA"
                    self.put(name, part, np.zeros_like(values) if zero else values)

    def commit(self) -> None:
        """Rename the staged columns into place, keeping what was there."""
        main = self._table
        what = f"writing {' and '.join(self._names)}"
        # casacore ends the whole process if it cannot write a table's description.
        require_space(self._ms.path, 0, what)
        with _writing(self._ms, what):
            self._flushed = True
            main.flush(recursive=True)
            main.putkeyword(JOURNAL, list(self._names))
            main.flush()
            # From here on there is only forward: what is cut short, recover_columns finishes.
            self._committing = True
            _finish_commit(main)
            main.close()
        self._table = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        main, self._table = self._table, None
        with self._lock:
            if main is not None:
                self._clear_away(main)

    def _clear_away(self, main: Any) -> None:
        # What failed is on its way up already; what cannot be cleared away now, recover_columns will.
        with contextlib.suppress(RuntimeError):
            if not self._committing:
                if JOURNAL in main.keywordnames():
                    main.removekeyword(JOURNAL)
                remove_columns(main, [STAGED + n for n in self._names], on_disk=self._flushed)
        with contextlib.suppress(RuntimeError):
            main.close()


def column_as_found(ms: MeasurementSet, name: str) -> str:
    """Return under which name a column lies that was there before anything was committed.

    So that a run that is repeated reads what the first one read.

    Raises
    ------
    MeasurementSetError
        If there was none.
    """
    if KEPT + name in ms.columns:
        return KEPT + name
    with reading(ms.path) as main:
        absent = name in _keyword(main, ABSENT)
    if absent:
        raise MeasurementSetError(
            f"{name} was not there before an earlier run wrote it",
            ms.path,
            "take it away with contimg revert, or calibrate DATA",
        )
    return name


def open_recovered(path: Path | str) -> MeasurementSet:
    """Open a Measurement Set, finishing first what a killed run left half done.

    Raises
    ------
    MeasurementSetError
        If it cannot be used.
    ResourceError
        If it needs tidying up but cannot be written.
    """
    ms = open_measurement_set(path)
    return open_measurement_set(path) if recover_columns(ms) else ms


def recover_columns(ms: MeasurementSet) -> bool:
    """Finish a commit that was cut short, or drop staged columns that never came to one.

    Returns
    -------
    bool
        Whether there was anything to do, by this process or another one.

    Raises
    ------
    ResourceError
        If there is something to do but it cannot be written, or if what looks
        interrupted is at work in another process.
    """
    if not _interrupted(ms):
        return False
    ms.require_writable()
    what = "tidying up after an interrupted run"
    with lock_beside(ms.path, what):
        # Its owner may just have finished.
        if not _interrupted(ms):
            return True
        with _writing(ms, what), open_table(ms.path, writable=True) as main:
            finish_removals(main)
            if FLAGGING in main.keywordnames():
                _copy(main, KEPT + "FLAG", "FLAG")
                main.removekeyword(FLAGGING)
                main.flush()
            if JOURNAL in main.keywordnames():
                _finish_commit(main)
            else:
                remove_columns(main, [c for c in main.colnames() if c.startswith(STAGED)])
    return True


def _interrupted(ms: MeasurementSet) -> bool:
    with reading(ms.path) as main:
        staged = any(c.startswith(STAGED) for c in main.colnames())
        begun = {JOURNAL, FLAGGING}.intersection(main.keywordnames())
        return staged or bool(begun) or bool(interrupted_removals(ms.path))


def _finish_commit(main: Any) -> None:
    """Rename column by column; each step may be repeated after a crash at any point."""
    for name in _keyword(main, JOURNAL):
        columns, absent = main.colnames(), _keyword(main, ABSENT)
        if STAGED + name not in columns:
            continue
        if name in columns:
            if KEPT + name in columns or name in absent:
                remove_columns(main, [name])
            else:
                main.renamecol(name, KEPT + name)
        elif KEPT + name not in columns and name not in absent:
            main.putkeyword(ABSENT, [*absent, name])
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
    names = list(names)
    forbidden = UNTOUCHABLE.intersection(names)
    if forbidden:
        raise ValueError(f"{', '.join(sorted(forbidden))} is never changed and needs no copy")
    what = f"keeping {' and '.join(names)}"
    with (
        lock_beside(ms.path, what),
        _writing(ms, what),
        open_table(ms.path, writable=True) as main,
    ):
        absent = _keyword(main, ABSENT)
        for name in names:
            columns = main.colnames()
            if KEPT + name in columns or name in absent:
                continue
            if name not in columns:
                absent.append(name)
                main.putkeyword(ABSENT, absent)
                continue
            require_space(ms.path, int(_samples(ms) * _bytes_per_sample(main, name)), what)
            staged = STAGED + name
            _add_like(main, name, staged)
            _copy(main, name, staged)
            main.renamecol(staged, KEPT + name)
            main.flush()


def add_flags(ms: MeasurementSet, flags: Iterable[tuple[Int, Bool]]) -> int:
    """Flag visibilities in FLAG, after what it holds was kept for :func:`restore_columns`.

    Cut short, it is undone by :func:`recover_columns`.

    Parameters
    ----------
    ms : MeasurementSet
        Measurement Set.
    flags : iterable of (ndarray of int, ndarray of bool)
        Rows, and where they are to be flagged besides what is; shape (nrow, nchan, ncorr).

    Returns
    -------
    int
        Visibilities newly flagged, correlations counted singly.
    """
    back_up_columns(ms, ["FLAG"])
    what, count = "flagging", 0
    with (
        lock_beside(ms.path, what),
        _writing(ms, what),
        open_table(ms.path, writable=True) as main,
    ):
        main.putkeyword(FLAGGING, True)
        main.flush()
        for rows, flag in flags:
            if flag.any():
                part = main.selectrows(rows)
                present = part.getcol("FLAG")
                part.putcol("FLAG", present | flag)
                count += int(np.count_nonzero(flag & ~present))
        main.flush(recursive=True)
        main.removekeyword(FLAGGING)
        main.flush()
    return count


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
    with reading(ms.path) as main:
        # Open for writing, casacore makes zeros of what a file lacks: noticed here, before that.
        read_cells(main, [c for c in main.colnames() if c == KEPT + "FLAG"], last_rows(main))
    done = []
    with (
        lock_beside(ms.path, "restoring"),
        _writing(ms, "restoring"),
        open_table(ms.path, writable=True) as main,
    ):
        absent = _keyword(main, ABSENT)
        kept = [c.removeprefix(KEPT) for c in main.colnames() if c.startswith(KEPT)]
        for name in list(names) if names is not None else kept + absent:
            if name in kept and name == "FLAG":
                # A Measurement Set is never without FLAG: the values go back, then the copy goes.
                _copy(main, KEPT + name, name)
                main.flush()
                remove_columns(main, [KEPT + name])
            elif name in kept or name in absent:
                # Both names change in one flush; only then is anything deleted.
                if name in main.colnames():
                    main.renamecol(name, STAGED + name)
                if name in kept:
                    main.renamecol(KEPT + name, name)
                else:
                    absent.remove(name)
                    main.putkeyword(ABSENT, absent) if absent else main.removekeyword(ABSENT)
                main.flush()
                remove_columns(main, [STAGED + name])
            else:
                continue
            done.append(name)
    return done


def add_spectrum_column(main: Any, name: str, kind: Literal["complex", "float"] = "complex") -> None:
    """Add a column of values by channel and correlation to a main table, stored as DATA usually is."""
    if name in main.colnames():
        main.removecols([name])
    shape = np.asarray(main.getcell("DATA", 0)).shape
    group = _manager_name(main, name)
    description = makearrcoldesc(
        name,
        0j if kind == "complex" else 0.0,
        ndim=2,
        valuetype=kind,
        datamanagertype="TiledShapeStMan",
        datamanagergroup=group,
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
    for part, values in _cells(main, source, np.arange(main.nrows())):
        main.putcol(target, values, int(part[0]), int(part.size))


def _cells(main: Any, column: str, rows: Int) -> Iterator[tuple[Int, NDArray[Any]]]:
    """Yield contiguous rows piece by piece with their cells, leaving out cells that are not defined."""
    for k in range(0, rows.size, COPY_ROWS):
        for part in _equal_shapes(main, rows[k : k + COPY_ROWS]):
            try:
                yield part, main.getcol(column, int(part[0]), int(part.size))
            except RuntimeError:
                for row in part:
                    if main.iscelldefined(column, int(row)):
                        yield np.array([row]), np.asarray(main.getcell(column, int(row)))[None]


def _samples(ms: MeasurementSet) -> int:
    """Visibilities of the whole Measurement Set, correlations counted singly."""
    with reading(ms.path) as main:
        ddid = main.getcol("DATA_DESC_ID")
    return sum(
        int(np.count_nonzero(np.isin(ddid, w.data_desc_ids))) * w.freq_hz.size * len(w.corr_type)
        for w in ms.spectral_windows
    )


def _bytes_per_sample(main: Any, column: str) -> float:
    # Flags are stored as bits.
    return {"boolean": 1 / 8, "float": 4.0, "dcomplex": 16.0}.get(main.getcoldesc(column)["valueType"], 8.0)


@contextlib.contextmanager
def _writing(ms: MeasurementSet, what: str) -> Iterator[None]:
    """Turn what casacore raises into one line."""
    try:
        yield
    except RuntimeError as error:
        raise ResourceError(f"{what} failed ({first_line(error)})", ms.path, "check the disk") from None


def _keyword(main: Any, name: str) -> list[str]:
    return list(main.getkeyword(name)) if name in main.keywordnames() else []


def _runs(rows: Int) -> list[Int]:
    """Split ascending row numbers where they are not contiguous."""
    return np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if rows.size else []


def _equal_shapes(main: Any, rows: Int) -> list[Int]:
    """Split contiguous rows where the cells' shape may change, that is where DATA_DESC_ID does."""
    ddid = main.getcol("DATA_DESC_ID", int(rows[0]), int(rows.size))
    return np.split(rows, np.flatnonzero(np.diff(ddid)) + 1)
