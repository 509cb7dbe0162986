"""Opening and validating a Measurement Set: what it holds, and what it lacks."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import (
    MeasurementSetError,
    ResourceError,
    SelectionError,
)
from dsa110_contimg.visibilities.column_removal import mend_removals
from dsa110_contimg.visibilities.frames import CONVERTED, INERTIAL, direction_in_icrs, frames_of_rows
from dsa110_contimg.visibilities.tables import SUBTABLE, first_line, last_rows, read_cells, reading
from dsa110_contimg.visibilities.time_scales import require_known_scale, scale_of

__all__ = [
    "Antennas",
    "Field",
    "MeasurementSet",
    "Selection",
    "SpectralWindow",
    "data_hash",
    "open_measurement_set",
]


REQUIRED_COLUMNS = (
    "ANTENNA1",
    "ANTENNA2",
    "DATA",
    "DATA_DESC_ID",
    "FIELD_ID",
    "FLAG",
    "FLAG_ROW",
    "INTERVAL",
    "SCAN_NUMBER",
    "TIME",
    "UVW",
    "WEIGHT",
)
REQUIRED_SUBTABLES: dict[str, tuple[str, ...]] = {
    "ANTENNA": ("NAME", "POSITION", "DISH_DIAMETER"),
    "DATA_DESCRIPTION": ("SPECTRAL_WINDOW_ID", "POLARIZATION_ID"),
    "FIELD": ("NAME", "PHASE_DIR", "REFERENCE_DIR"),
    "OBSERVATION": ("TELESCOPE_NAME",),
    "POLARIZATION": ("CORR_TYPE",),
    "SPECTRAL_WINDOW": ("CHAN_FREQ", "CHAN_WIDTH"),
}
#: casacore Stokes codes to the receptors (0 or 1) of antenna 1 and antenna 2.
RECEPTORS: dict[int, tuple[int, int]] = {
    5: (0, 0),  # RR
    6: (0, 1),
    7: (1, 0),
    8: (1, 1),  # LL
    9: (0, 0),  # XX
    10: (0, 1),
    11: (1, 0),
    12: (1, 1),  # YY
}
CIRCULAR = (5, 6, 7, 8)


@dataclass(frozen=True)
class Antennas:
    """The ANTENNA table: names, positions (nant, 3) in ITRF metres, dish diameters (nant,) in metres."""

    name: tuple[str, ...]
    position_m: Float
    dish_diameter_m: Float

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True)
class Field:
    """One row of FIELD: identifier, name, phase centre in ICRS radians.

    `turn_rad` is the position angle, from north through east, of the north that UVW is about: 0 but for
    baselines in an old frame.
    """

    id: int
    name: str
    ra_rad: float
    dec_rad: float
    turn_rad: float = 0.0


@dataclass(frozen=True)
class SpectralWindow:
    """One spectral window with the DATA_DESC_ID it is seen through.

    Parameters
    ----------
    id : int
        Row of SPECTRAL_WINDOW.
    data_desc_id : int
        Row of DATA_DESCRIPTION; the first of them.
    freq_hz, width_hz : ndarray, shape (nchan,)
        Channel frequencies and (positive) widths in hertz.
    corr_type : tuple of int, length ncorr
        casacore Stokes codes.
    other_data_desc_ids : tuple of int
        Further rows of DATA_DESCRIPTION that say the same: some writers make one for each scan.
    """

    id: int
    data_desc_id: int
    freq_hz: Float
    width_hz: Float
    corr_type: tuple[int, ...]
    other_data_desc_ids: tuple[int, ...] = ()

    @property
    def data_desc_ids(self) -> tuple[int, ...]:
        """All rows of DATA_DESCRIPTION it is seen through."""
        return (self.data_desc_id, *self.other_data_desc_ids)

    @property
    def receptors(self) -> tuple[tuple[int, int], ...]:
        """Receptors of antenna 1 and 2 by correlation."""
        return tuple(RECEPTORS[c] for c in self.corr_type)

    @property
    def parallel(self) -> tuple[int, ...]:
        """Indices of the parallel-hand correlations (XX, YY or RR, LL)."""
        return tuple(k for k, (p, q) in enumerate(self.receptors) if p == q)

    @property
    def receptor_names(self) -> tuple[str, str]:
        """What the receptors 0 and 1 are: R and L, or X and Y."""
        return ("R", "L") if min(self.corr_type) in CIRCULAR else ("X", "Y")


@dataclass(frozen=True)
class Selection:
    """Which part of a Measurement Set is worked on: field and spectral-window identifiers."""

    field_ids: tuple[int, ...]
    spw_ids: tuple[int, ...]


@dataclass(frozen=True)
class MeasurementSet:
    """A validated Measurement Set.

    Attributes
    ----------
    path : Path
        Its folder.
    telescope : str
        TELESCOPE_NAME.
    antennas : Antennas
        The array.
    fields : tuple of Field
        All fields.
    spectral_windows : tuple of SpectralWindow
        All spectral windows that rows refer to.
    columns : frozenset of str
        Columns of the main table.
    n_rows : int
        Rows of the main table.
    subtables : tuple of (str, Path)
        Names of the subtables and where they are: not below `path` where that refers to another table.
    frames : tuple of str
        Frames other than ICRS and J2000 that phase centres were converted from.
    time_scale : str
        Time scale in which TIME is stored, as casacore names it: UTC, TAI. Whatever is read is UTC.
    """

    path: Path
    telescope: str
    antennas: Antennas
    fields: tuple[Field, ...]
    spectral_windows: tuple[SpectralWindow, ...]
    columns: frozenset[str]
    n_rows: int
    subtables: tuple[tuple[str, Path], ...] = ()
    frames: tuple[str, ...] = ()
    time_scale: str = "UTC"

    def subtable(self, name: str) -> Path:
        """Return where a subtable is, or would be."""
        return dict(self.subtables).get(name, self.path / name)

    def select(self, field: str | None = None, spw: str | None = None) -> Selection:
        """Resolve a field and spectral-window selection.

        Parameters
        ----------
        field : str, optional
            Field name or identifier, several separated by commas; all by default.
        spw : str, optional
            Identifiers separated by commas, ranges as ``0~3``; all by default.

        Returns
        -------
        Selection

        Raises
        ------
        SelectionError
            If a field or window is not there.
        """
        fields = self._select_fields(field)
        known = [w.id for w in self.spectral_windows]
        spws = known if spw is None or not spw.strip() else _parse_spws(spw, known, self.path)
        return Selection(tuple(fields), tuple(dict.fromkeys(spws)))

    def _select_fields(self, field: str | None) -> list[int]:
        names = ", ".join(f"{f.id}={f.name}" for f in self.fields)
        if field is None or not field.strip():
            chosen = [f.id for f in self.fields]
        else:
            chosen = []
            for word in (w.strip() for w in field.split(",")):
                found = [f.id for f in self.fields if f.name == word]
                if not found and word.isdecimal():
                    found = [f.id for f in self.fields if f.id == int(word)]
                if not found:
                    raise SelectionError(f"no field {word!r}", self.path, f"present: {names}")
                chosen.extend(found)
        return list(dict.fromkeys(chosen))

    def field(self, field_id: int) -> Field:
        """Return the field with an identifier."""
        return next(f for f in self.fields if f.id == field_id)

    def spectral_window(self, spw_id: int) -> SpectralWindow:
        """Return the spectral window with an identifier."""
        return next(w for w in self.spectral_windows if w.id == spw_id)

    def require_writable(self) -> None:
        """Raise ResourceError unless columns can be added to the main table."""
        main = self.path / "table.dat"
        # Root passes every permission bit, so a deliberately read-only table is told by its mode.
        by_mode = not main.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
        if by_mode or not os.access(self.path, os.W_OK) or not os.access(main, os.W_OK):
            raise ResourceError(
                "the Measurement Set is read-only", self.path, "make it writable or work on a copy"
            )


def open_measurement_set(path: Path | str) -> MeasurementSet:
    """Open and validate a Measurement Set.

    Parameters
    ----------
    path : Path or str
        Its folder.

    Returns
    -------
    MeasurementSet

    Raises
    ------
    MeasurementSetError
        If it is not a Measurement Set, has no rows or columns, or cannot be
        read; the message names the table and what it lacks.
    """
    path = Path(path)
    require_table(path)
    try:
        mend_removals(path)
    except OSError as error:
        raise MeasurementSetError(
            f"cannot be opened ({first_line(error)})", path, "check its permissions"
        ) from None
    with reading(path) as main:
        return _validate(path, main)


def require_table(path: Path) -> None:
    """Raise MeasurementSetError where there is no table at all."""
    if not path.exists():
        raise MeasurementSetError("no such Measurement Set", path, "check the path")
    if not (path / "table.dat").is_file():
        raise MeasurementSetError("not a Measurement Set (no table.dat in it)", path, "check the path")


def _validate(path: Path, main: Any) -> MeasurementSet:
    columns = frozenset(main.colnames())
    missing = [c for c in REQUIRED_COLUMNS if c not in columns]
    if len(missing) > len(REQUIRED_COLUMNS) // 2:
        raise MeasurementSetError("a casacore table, but not a Measurement Set", path, "check the path")
    if missing:
        raise MeasurementSetError(f"main table lacks {', '.join(missing)}", path, "not usable without")
    if main.nrows() == 0:
        raise MeasurementSetError("main table has no rows", path, "nothing to calibrate")
    if not main.iscelldefined("DATA", 0) or main.getcoldesc("DATA")["valueType"] not in (
        "complex",
        "dcomplex",
    ):
        raise MeasurementSetError("DATA holds no complex arrays", path, "nothing to calibrate")
    places = _subtables(main)
    for name, needed in REQUIRED_SUBTABLES.items():
        if name not in places or not (places[name] / "table.dat").is_file():
            raise MeasurementSetError(f"subtable {name} is missing", path, "not usable without")
        with reading(places[name]) as sub:
            lacking = [c for c in needed if c not in sub.colnames()]
            if lacking:
                raise MeasurementSetError(f"{name} lacks {', '.join(lacking)}", path, "not usable without")
            if sub.nrows() == 0:
                raise MeasurementSetError(f"subtable {name} has no rows", path, "not usable without")
            # Gain tables get copies of them, columns that are used nowhere else included.
            read_cells(sub, sub.colnames(), last_rows(sub))
    with reading(places["OBSERVATION"]) as sub:
        telescope = str(sub.getcell("TELESCOPE_NAME", 0))
    with reading(places["ANTENNA"]) as sub:
        antennas = Antennas(
            tuple(str(n).strip() or f"#{k}" for k, n in enumerate(sub.getcol("NAME"))),
            np.asarray(sub.getcol("POSITION"), dtype=np.float64),
            np.asarray(sub.getcol("DISH_DIAMETER"), dtype=np.float64),
        )
    time_scale = scale_of(main)
    require_known_scale(time_scale, path)
    fields, frames = _read_fields(places["FIELD"], _frame_of_baselines(main))
    for columns_of, what, n in (
        (("ANTENNA1", "ANTENNA2"), "ANTENNA", len(antennas)),
        (("FIELD_ID",), "FIELD", len(fields)),
    ):
        ids = [main.getcol(c) for c in columns_of]
        wrong = [int(k) for k in (min(i.min() for i in ids), max(i.max() for i in ids)) if not 0 <= k < n]
        if wrong:
            raise MeasurementSetError(
                f"rows refer to {what.lower()} {wrong[0]}, {what} lists {n}", path, f"repair the {what} table"
            )
    return MeasurementSet(
        path,
        telescope,
        antennas,
        fields,
        _read_spectral_windows(path, places, main),
        columns,
        int(main.nrows()),
        tuple(sorted(places.items())),
        frames,
        time_scale,
    )


def _subtables(main: Any) -> dict[str, Path]:
    """Say where the subtables are: a table that refers to another one has none of its own."""
    keywords = {name: main.getkeyword(name) for name in main.keywordnames() if name not in main.colnames()}
    return {
        name: Path(value.removeprefix(SUBTABLE))
        for name, value in keywords.items()
        if isinstance(value, str) and value.startswith(SUBTABLE)
    }


def _frame_of_baselines(main: Any) -> str:
    return str(main.getcolkeywords("UVW").get("MEASINFO", {}).get("Ref", "J2000"))


def _read_fields(path: Path, of_baselines: str) -> tuple[tuple[Field, ...], tuple[str, ...]]:
    """Read the fields, and name the frames that they were converted from.

    Old data may be in B1950, half a degree from where a catalogue in ICRS would look.
    """
    fields = []
    with reading(path) as sub:
        frames = frames_of_rows(sub)
        other = sorted(set(frames) - INERTIAL - set(CONVERTED))
        if other:
            raise MeasurementSetError(
                f"phase centres are in {', '.join(other)}, which cannot be converted",
                path,
                "convert them to J2000 or ICRS: CASA's phaseshift and fixvis do it",
            )
        for k, frame in enumerate(frames):
            # Stored as (1, 2), sometimes (2, 1); further rows are polynomial terms.
            direction = np.asarray(sub.getcell("PHASE_DIR", k), dtype=np.float64).reshape(-1)
            ra, dec, turn = direction_in_icrs(float(direction[0]), float(direction[1]), frame)
            turn = turn if of_baselines in CONVERTED else 0.0
            fields.append(Field(k, str(sub.getcell("NAME", k)), ra, dec, turn))
    return tuple(fields), tuple(sorted(set(frames) - INERTIAL))


def _read_spectral_windows(path: Path, places: Mapping[str, Path], main: Any) -> tuple[SpectralWindow, ...]:
    used = sorted({int(d) for d in np.unique(main.getcol("DATA_DESC_ID"))})
    windows: list[SpectralWindow] = []
    with (
        reading(places["DATA_DESCRIPTION"]) as description,
        reading(places["SPECTRAL_WINDOW"]) as spectral,
        reading(places["POLARIZATION"]) as polarization,
    ):
        for d in used:
            if not 0 <= d < description.nrows():
                raise MeasurementSetError(
                    f"rows refer to DATA_DESC_ID {d}, DATA_DESCRIPTION lists {description.nrows()}",
                    path,
                    "repair the table",
                )
            spw = int(description.getcell("SPECTRAL_WINDOW_ID", d))
            corr_type = tuple(
                int(c)
                for c in polarization.getcell("CORR_TYPE", int(description.getcell("POLARIZATION_ID", d)))
            )
            window = SpectralWindow(
                spw,
                d,
                np.asarray(spectral.getcell("CHAN_FREQ", spw), dtype=np.float64),
                np.abs(np.asarray(spectral.getcell("CHAN_WIDTH", spw), dtype=np.float64)),
                corr_type,
            )
            if window.freq_hz.size == 0 or not np.all(window.freq_hz > 0):
                raise MeasurementSetError(
                    f"spectral window {spw} has channels without a frequency",
                    places["SPECTRAL_WINDOW"],
                    "fill CHAN_FREQ",
                )
            unknown = [c for c in corr_type if c not in RECEPTORS]
            if unknown or not window.parallel:
                raise MeasurementSetError(
                    f"correlation types {list(corr_type)} are not RR..LL or XX..YY",
                    places["POLARIZATION"],
                    "linear or circular receptors are needed",
                )
            again = next((k for k, w in enumerate(windows) if w.id == spw), None)
            if again is None:
                windows.append(window)
                continue
            first = windows[again]
            if first.corr_type != corr_type:
                raise MeasurementSetError(
                    f"spectral window {spw} appears with several sets of correlations "
                    f"(DATA_DESC_ID {first.data_desc_id} and {d})",
                    path,
                    "split off the rows of one of them",
                )
            windows[again] = replace(first, other_data_desc_ids=(*first.other_data_desc_ids, d))
    return tuple(windows)


def _parse_spws(text: str, known: list[int], path: Path) -> list[int]:
    ids: list[int] = []
    for word in (w.strip() for w in text.split(",")):
        low, tilde, high = word.partition("~")
        if not low.isdecimal() or (tilde and not high.isdecimal()):
            raise SelectionError(
                f"{word!r} is not a spectral window identifier or range", path, "write 0,2 or 0~3"
            )
        first, last = int(low), int(high or low)
        absent = [k for k in (first, last) if k not in known]
        if absent or last < first:
            what = f"no spectral window {absent[0]}" if absent else f"{word!r} runs backwards"
            raise SelectionError(what, path, f"present: {', '.join(map(str, known))}")
        ids.extend(k for k in known if first <= k <= last)
    return ids


def data_hash(path: Path, limit_rows: int = 65536) -> str:
    """SHA-256 of the DATA column's bytes, for provenance and for proof that it is never written.

    Parameters
    ----------
    path : Path
        Measurement Set.
    limit_rows : int
        Rows hashed at a time.

    Returns
    -------
    str
        Hexadecimal digest over all rows in order.
    """
    digest = hashlib.sha256()
    with reading(path) as main:
        start = 0
        while start < main.nrows():
            shape = main.getcell("DATA", start).shape
            count = min(limit_rows, main.nrows() - start)
            try:
                block = main.getcol("DATA", start, count)
            except RuntimeError:  # cells of several shapes: row by row
                block, count = main.getcell("DATA", start), 1
            digest.update(str(shape).encode())
            digest.update(np.ascontiguousarray(block).tobytes())
            start += count
    return digest.hexdigest()
