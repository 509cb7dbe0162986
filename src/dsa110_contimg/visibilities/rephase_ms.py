"""Writing copies of a Measurement Set with one phase centre."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from casacore.tables import default_ms_subtable

from dsa110_contimg.array_types import Vis, Weight
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.files import replacing_folder
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.visibilities.columns import add_spectrum_column, require_space
from dsa110_contimg.visibilities.frames import INERTIAL, turned_baselines
from dsa110_contimg.visibilities.lock import lock_beside
from dsa110_contimg.visibilities.measurement_set import open_measurement_set
from dsa110_contimg.visibilities.reader import Block, VisibilityReader
from dsa110_contimg.visibilities.rephase import turn_phases
from dsa110_contimg.visibilities.tables import (
    SUBTABLE,
    first_line,
    open_table,
    require_own_data,
    require_whole,
)
from dsa110_contimg.visibilities.time_scales import in_scale, scale_of

__all__ = ["rephase_measurement_set", "write_selection"]

COLUMNS = ("DATA", "MODEL_DATA", "CORRECTED_DATA")


def rephase_measurement_set(
    source: Path | str,
    target: Path | str,
    center: tuple[float, float] | None = None,
    progress: Progress | None = None,
    *,
    field_ids: Sequence[int] | None = None,
    column: str | None = None,
) -> tuple[float, float]:
    """Copy a Measurement Set and move all its fields to one phase centre.

    UVW, DATA and, where present, MODEL_DATA and CORRECTED_DATA are moved; the
    copy has one row in FIELD, with PHASE_DIR, DELAY_DIR and REFERENCE_DIR equal,
    and remembers in POINTING where the dishes pointed. The source is only read.

    Parameters
    ----------
    source, target : Path or str
        Measurement Sets; the target must not exist.
    center : (float, float), optional
        Right ascension and declination, ICRS radians; by default the phase
        centre of the middle dump.
    progress : Progress, optional
        Where progress is reported.
    field_ids : sequence of int, optional
        Copy the rows of these fields alone.
    column : str, optional
        Copy this data column alone, as DATA.

    Returns
    -------
    (float, float)
        The centre.

    Raises
    ------
    MeasurementSetError
        If the source cannot be read.
    ResourceError
        If the target is there already, does not fit on its disk or cannot be written.
    """
    source, target, progress = Path(source), Path(target), progress or LogProgress()
    ms = open_measurement_set(source)
    # Every column is copied: after this an error is one of writing.
    require_whole(source)
    _require_absent(target)
    there = next(p for p in target.absolute().parents if p.exists())
    require_space(there, sum(f.stat().st_size for f in source.rglob("*") if f.is_file()), "the copy")
    fields = list(field_ids) if field_ids is not None else [f.id for f in ms.fields]
    # Also says what is wrong with the data before anything is copied.
    found = VisibilityReader(ms, ms.select(",".join(map(str, fields)))).phase_center
    center = center or found
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock_beside(target, "contimg rephase", progress):
        _require_absent(target)
        try:
            with replacing_folder(target) as temporary:
                _copy(source, temporary, fields if field_ids is not None else None, column)
                copied = open_measurement_set(temporary)
                reader = VisibilityReader(copied, copied.select())
                _move(temporary, reader, center, progress)
                _one_field(temporary, reader, center)
        except (RuntimeError, OSError) as error:
            raise ResourceError(f"writing failed ({first_line(error)})", target, "check the disk") from error
    return center


def write_selection(
    target: Path,
    reader: VisibilityReader,
    visibilities: Iterable[tuple[Block, Vis, Weight]],
) -> None:
    """Copy a selection at the reader's phase centre, with other visibilities and weights in it.

    Parameters
    ----------
    target : Path
        Measurement Set to write; it must not exist.
    reader : VisibilityReader
        The selection.
    visibilities : iterable of (Block, ndarray, ndarray)
        Each block once, the visibilities that become its DATA, and their weights, which become
        WEIGHT_SPECTRUM; both of shape (nrow, nchan, ncorr). What has no weight is flagged.

    Raises
    ------
    MeasurementSetError
        If the Measurement Set of the reader cannot be read.
    ResourceError
        If the copy does not fit on its disk or cannot be written.
    """
    require_whole(reader.ms.path)
    rows = np.sort(np.concatenate([part for part, _, _ in reader.row_sets()]))
    require_space(target.parent, 25 * reader.samples, "a copy for the imager")
    try:
        with open_table(reader.ms.path) as main:
            described = {n: main.getcoldesc(n)["valueType"] for n in main.colnames()}
            names = [
                n
                for n, kind in described.items()
                if n == "DATA" or not ("complex" in kind or n.endswith("_SPECTRUM"))
            ]
            # A query on a table of chosen rows: their order is kept.
            _deep_copy(main, main.selectrows(rows).query(columns=",".join(names)), target)
        with open_table(target, writable=True) as main:
            add_spectrum_column(main, "WEIGHT_SPECTRUM", "float")
            for block, vis, weight in visibilities:
                part = main.selectrows(np.searchsorted(rows, block.rows))
                uvw, path_m = reader.move_to_center(block)
                if path_m.any():
                    vis = turn_phases(vis, path_m, block.spw.freq_hz)
                part.putcol("UVW", uvw)
                part.putcol("DATA", vis)
                part.putcol("WEIGHT_SPECTRUM", weight)
                part.putcol("FLAG", weight == 0)
                part.putcol("FLAG_ROW", (weight == 0).all(axis=(1, 2)))
            main.putcol("FIELD_ID", np.zeros(main.nrows(), dtype=np.int32))
            _to_j2000(main, "UVW")
        _one_field(target, reader, reader.phase_center)
    except RuntimeError as error:
        raise ResourceError(f"writing failed ({first_line(error)})", target, "check the disk") from error


def _copy(source: Path, target: Path, fields: Sequence[int] | None, column: str | None) -> None:
    with open_table(source) as main:
        names = [
            n
            for n in main.colnames()
            if column in (None, n) or "complex" not in main.getcoldesc(n)["valueType"]
        ]
        where = "" if fields is None else f"FIELD_ID in [{','.join(map(str, fields))}]"
        part = main if fields is None and column is None else main.query(where, columns=",".join(names))
        _deep_copy(main, part, target)
    if column not in (None, "DATA"):
        with open_table(target, writable=True) as copied:
            copied.renamecol(column, "DATA")


def _deep_copy(main: Any, part: Any, target: Path) -> None:
    """Copy rows and columns of a main table, with values of its own: of a concatenation even a copy forwards.

    What is written to a column that is forwarded to other tables lands in those.
    """
    forwarded = {
        name
        for manager in main.getdminfo().values()
        if str(manager["TYPE"]).startswith("ForwardColumn")
        for name in manager["COLUMNS"]
    }
    managers: dict[str, Any] = {}
    if forwarded:
        there = part.getdminfo()
        names = [n for m in there.values() for n in m["COLUMNS"] if n in forwarded]
        kept = [m for m in there.values() if not forwarded.intersection(m["COLUMNS"])]
        own = {"TYPE": "StandardStMan", "NAME": "own", "SPEC": {}, "COLUMNS": names}
        managers = {f"*{k + 1}": m for k, m in enumerate([*kept, own])}
    part.copy(str(target), deep=True, valuecopy=True, dminfo=managers).close()
    if forwarded:
        require_own_data(target)


def _require_absent(target: Path) -> None:
    if target.exists():
        raise ResourceError("is there already", target, "choose another name or remove it")


def _move(path: Path, reader: VisibilityReader, center: tuple[float, float], progress: Progress) -> None:
    with open_table(path, writable=True) as main:
        columns = [c for c in COLUMNS if c in main.colnames()]
        for rows, field_id, window in progress.track(reader.row_sets(), reader.n_blocks, "rephase"):
            part = main.selectrows(rows)
            turn = reader.ms.field(field_id).turn_rad
            uvw, path_m = reader.moved(turned_baselines(part.getcol("UVW"), turn), field_id, center)
            part.putcol("UVW", uvw)
            if path_m.any():
                for column in columns:
                    vis = np.asarray(part.getcol(column), dtype=np.complex64)
                    part.putcol(column, turn_phases(vis, path_m, window.freq_hz))
        main.putcol("FIELD_ID", np.zeros(main.nrows(), dtype=np.int32))
        _to_j2000(main, "UVW")


def _to_j2000(opened: Any, name: str) -> None:
    """Say that a column's directions, which are written in ICRS, are no more in an old frame."""
    info = dict(opened.getcolkeywords(name).get("MEASINFO", {}))
    if info and ("VarRefCol" in info or info.get("Ref") not in INERTIAL | {"ITRF"}):
        for key in ("VarRefCol", "TabRefTypes", "TabRefCodes"):
            info.pop(key, None)
        opened.putcolkeyword(name, "MEASINFO", info | {"Ref": "J2000"})


def _one_field(path: Path, reader: VisibilityReader, center: tuple[float, float]) -> None:
    with open_table(path / "FIELD", writable=True) as sub:
        for name in ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR"):
            if name in sub.colnames():
                sub.putcell(name, 0, np.array([center]))
                _to_j2000(sub, name)
        if "NUM_POLY" in sub.colnames():
            sub.putcell("NUM_POLY", 0, 0)
        sub.putcell("NAME", 0, reader.field_name)
        if sub.nrows() > 1:
            sub.removerows(list(range(1, sub.nrows())))
    if not (path / "POINTING" / "table.dat").is_file():
        default_ms_subtable("POINTING", str(path / "POINTING")).close()
        with open_table(path, writable=True) as main:
            main.putkeyword("POINTING", SUBTABLE + str(path / "POINTING"))
    with open_table(path / "POINTING", writable=True) as sub:
        if sub.nrows():
            return
        n = reader.times.size
        sub.addrows(n)
        sub.putcol("ANTENNA_ID", np.zeros(n, dtype=np.int32))
        sub.putcol("TIME", in_scale(reader.times, scale_of(sub)))
        sub.putcol("INTERVAL", reader.interval_s)
        sub.putcol("TRACKING", np.zeros(n, dtype=bool))
        for name in ("DIRECTION", "TARGET"):
            for k in range(n):
                sub.putcell(name, k, reader.pointing[k][None, :])
