"""CASA calibration tables: reading B, G and T Jones tables, writing tables that applycal reads.

The layout is that of CASA's NewCalTable: main columns TIME, FIELD_ID,
SPECTRAL_WINDOW_ID, ANTENNA1, ANTENNA2 (reference antenna), INTERVAL,
SCAN_NUMBER, CPARAM, PARAMERR, FLAG, SNR, WEIGHT and the subtables ANTENNA,
FIELD, SPECTRAL_WINDOW, HISTORY and OBSERVATION.

TIME is in the scale of the Measurement Set that a table is solved on, because CASA compares the numbers as
they are stored. CASA calls that UTC whatever it is; tables written here say what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from casacore.tables import default_ms_subtable, makearrcoldesc, makescacoldesc, maketabdesc, table
from numpy.typing import NDArray

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.errors import CalTableError
from dsa110_contimg.files import replacing_folder
from dsa110_contimg.visibilities import MeasurementSet
from dsa110_contimg.visibilities.frames import CONVERTED, INERTIAL, direction_in_icrs, frames_of_rows
from dsa110_contimg.visibilities.tables import SUBTABLE, first_line, open_table, reading
from dsa110_contimg.visibilities.time_scales import UTC, in_scale, in_utc, is_known, scale_of

__all__ = ["read_gain_table", "write_gain_table"]

KINDS = ("B Jones", "G Jones", "T Jones")
COLUMNS = ("TIME", "FIELD_ID", "SPECTRAL_WINDOW_ID", "ANTENNA1", "CPARAM", "FLAG")


def read_gain_table(path: Path | str, ms: MeasurementSet | None = None) -> GainTable:
    """Read a CASA calibration table.

    Parameters
    ----------
    path : Path or str
        Table of kind B, G or T Jones.
    ms : MeasurementSet, optional
        The data it will be applied to; its antennas are compared, and times that a table calls UTC are in the
        scale of theirs.

    Returns
    -------
    GainTable

    Raises
    ------
    CalTableError
        If it is no such table, or belongs to another array.
    """
    path = Path(path)
    if not (path / "table.dat").is_file():
        raise CalTableError("no such calibration table", path, "check the path")
    try:
        with reading(path, CalTableError) as main:
            return _read(path, main, ms)
    except (LookupError, ValueError) as error:
        # Rows that refer to antennas, channels or SPWs that are not there.
        raise CalTableError(f"cannot be read ({first_line(error)})", path, "check the table") from None


def _read(path: Path, main: Any, ms: MeasurementSet | None) -> GainTable:
    kind = _checked_kind(path, main)
    with reading(path / "ANTENNA", CalTableError) as sub:
        names = [str(n) for n in sub.getcol("NAME")]
    if ms is not None:
        _require_antennas(path, names, ms)
    with reading(path / "SPECTRAL_WINDOW", CalTableError) as sub:
        channels = [np.asarray(sub.getcell("CHAN_FREQ", k), dtype=np.float64) for k in range(sub.nrows())]
    spw_of_row = main.getcol("SPECTRAL_WINDOW_ID")
    scale = scale_of(main)
    if scale == UTC and ms is not None:
        scale = ms.time_scale
    if not is_known(scale):
        raise CalTableError(f"has times in the scale {scale}", path, "solve it again")
    gains: dict[int, Gains] = {}
    for spw in np.unique(spw_of_row):
        rows = main.selectrows(np.flatnonzero(spw_of_row == spw))
        frequency, n_solved = channels[int(spw)], np.shape(rows.getcell("CPARAM", 0))[0]
        if frequency.size != n_solved:
            if n_solved != 1:
                raise CalTableError(
                    f"has {n_solved} channels of solutions, its SPECTRAL_WINDOW lists {frequency.size}",
                    path,
                    "solve it again",
                )
            frequency = np.array([frequency.mean()])
        gains[int(spw)] = _gains_of(rows, frequency, len(names), scale)
    return GainTable(kind=kind, gains=gains, label=str(path), field_direction=_field_directions(path))


def _checked_kind(path: Path, main: Any) -> str:
    """Kind of a table that holds gains; raises CalTableError if it is another, or empty."""
    info = main.info()
    kind = str(info.get("subType", ""))
    if info.get("type") != "Calibration" or kind not in KINDS:
        raise CalTableError(
            f"is a table of type {info.get('type')!r} {kind!r}, not one of {', '.join(KINDS)}",
            path,
            "give bandpass or gain tables",
        )
    missing = [c for c in COLUMNS if c not in main.colnames()]
    if missing or main.nrows() == 0:
        raise CalTableError(
            f"lacks {', '.join(missing)}" if missing else "holds no solutions", path, "solve it again"
        )
    return kind


def _require_antennas(path: Path, names: list[str], ms: MeasurementSet) -> None:
    """Raise CalTableError if a table's antennas are not those of the data."""
    if len(names) != len(ms.antennas):
        raise CalTableError(
            f"has {len(names)} antennas, the Measurement Set has {len(ms.antennas)}",
            path,
            "give a table of the same array",
        )
    if names != list(ms.antennas.name):
        raise CalTableError("lists other antenna names than the Measurement Set", path, "same array?")


def _gains_of(rows: Any, freq_hz: Float, n_antennas: int, scale: str) -> Gains:
    """Gains from the rows of one spectral window; what no row holds is flagged."""

    def column(name: str, default: Any) -> Any:
        return rows.getcol(name) if name in rows.colnames() else default

    time = in_utc(rows.getcol("TIME"), scale)
    antenna, param = rows.getcol("ANTENNA1"), rows.getcol("CPARAM")
    time_s, time_index = np.unique(time, return_inverse=True)
    shape = (time_s.size, n_antennas, *param.shape[1:])
    gain, flag = np.ones(shape, dtype=np.complex128), np.ones(shape, dtype=bool)
    error, snr, interval_s = np.zeros(shape), np.zeros(shape), np.zeros(time_s.size)
    reference, field, scan = (np.full(time_s.size, -1, dtype=np.int64) for _ in range(3))
    cells = (time_index, antenna)
    gain[cells], flag[cells] = param, rows.getcol("FLAG").astype(bool)
    error[cells], snr[cells] = column("PARAMERR", 0.0), column("SNR", 0.0)
    flag |= ~np.isfinite(gain) | (gain == 0)
    gain[flag] = 1.0
    reference[time_index], field[time_index] = column("ANTENNA2", -1), rows.getcol("FIELD_ID")
    scan[time_index], interval_s[time_index] = column("SCAN_NUMBER", 0), column("INTERVAL", 0.0)
    return Gains(
        time_s=time_s,
        interval_s=interval_s,
        freq_hz=freq_hz,
        gain=gain,
        flag=flag,
        error=error,
        snr=snr,
        reference_antenna=reference,
        field_id=field,
        scan=scan,
    )


def _field_directions(path: Path) -> dict[int, tuple[float, float]]:
    if not (path / "FIELD" / "table.dat").is_file():
        return {}
    with reading(path / "FIELD", CalTableError) as sub:
        if "PHASE_DIR" not in sub.colnames():
            return {}
        frames = frames_of_rows(sub)
        pairs = [np.asarray(sub.getcell("PHASE_DIR", k)).reshape(-1)[:2] for k in range(sub.nrows())]
    # The nearest field is chosen by its direction: B1950 is half a degree off. Directions of other frames,
    # such as AZELGEO, are not on the sky, and none is nearest.
    return {
        k: direction_in_icrs(float(ra), float(dec), frame)[:2]
        for k, ((ra, dec), frame) in enumerate(zip(pairs, frames, strict=True))
        if frame in INERTIAL or frame in CONVERTED
    }


#: Columns kept in single precision, as CASA's are.
SINGLE = {"CPARAM": np.complex64, "PARAMERR": np.float32, "SNR": np.float32, "WEIGHT": np.float32}


def write_gain_table(path: Path, kind: str, gains: Mapping[int, Gains], ms: MeasurementSet) -> None:
    """Write a CASA calibration table, beside its final name and renamed.

    Parameters
    ----------
    path : Path
        Table to write; an older one of that name is replaced.
    kind : str
        ``"G Jones"``, ``"T Jones"`` or ``"B Jones"``.
    gains : mapping of int to Gains
        By spectral-window identifier; B Jones with the channels of the data, the
        others with one. A gain found from several spectral windows together is
        given under each of them, so that no spectral-window map is needed to apply it.
    ms : MeasurementSet
        Where the antennas, fields and spectral windows are described.
    """
    with replacing_folder(path) as temporary:
        _write(temporary, kind, gains, ms)


#: Columns of one value a row, and of an array a row, with a value that has their type.
SCALARS: dict[str, Any] = {
    "TIME": 0.0,
    "FIELD_ID": 0,
    "SPECTRAL_WINDOW_ID": 0,
    "ANTENNA1": 0,
    "ANTENNA2": 0,
    "INTERVAL": 0.0,
    "SCAN_NUMBER": 0,
    "OBSERVATION_ID": 0,
}
ARRAYS: dict[str, tuple[Any, str]] = {
    "CPARAM": (0j, "complex"),
    "PARAMERR": (0.0, "float"),
    "FLAG": (False, "boolean"),
    "SNR": (0.0, "float"),
    "WEIGHT": (0.0, "float"),
}


def _write(path: Path, kind: str, gains: Mapping[int, Gains], ms: MeasurementSet) -> None:
    group = "MSMTAB"
    described = [makescacoldesc(n, v, datamanagergroup=group) for n, v in SCALARS.items()]
    described += [
        makearrcoldesc(n, v, ndim=-1, valuetype=t, datamanagergroup=group) for n, (v, t) in ARRAYS.items()
    ]
    rows = _rows_of(gains)
    rows["TIME"] = [in_scale(part, ms.time_scale) for part in rows["TIME"]]
    # CASA looks solutions up in the order of time.
    order = np.argsort(np.concatenate(rows["TIME"]), kind="stable")
    main = table(str(path), maketabdesc(described), nrow=int(order.size), ack=False)
    try:
        for name, parts in rows.items():
            if name in ARRAYS and len({part.shape[1] for part in parts}) > 1:
                _put_cells(main, name, parts, order)
                continue
            values = np.concatenate(parts)[order]
            if isinstance(SCALARS.get(name), int):
                values = values.astype(np.int32)
            main.putcol(name, values.astype(SINGLE.get(name, values.dtype)))
        seconds = {"QuantumUnits": ["s"]}
        main.putcolkeywords("TIME", {**seconds, "MEASINFO": {"type": "epoch", "Ref": ms.time_scale}})
        main.putcolkeywords("INTERVAL", seconds)
        main.putinfo({"type": "Calibration", "subType": kind, "readme": ""})
        main.putkeywords(
            {
                "ParType": "Complex",
                "MSName": ms.path.name,
                "VisCal": kind,
                "PolBasis": "unknown",
                "CASA_Version": "dsa110-contimg",
            }
        )
        _copy_subtables(main, path, ms, one_channel=kind != "B Jones")
        main.flush(recursive=True)
    finally:
        main.close()


def _rows_of(gains: Mapping[int, Gains]) -> dict[str, list[NDArray[Any]]]:
    """Columns of a table, one part for each spectral window: by time, within a time by antenna."""
    npol = next(iter(gains.values())).gain.shape[3]
    rows: dict[str, list[NDArray[Any]]] = {n: [] for n in (*SCALARS, *ARRAYS)}
    for spw, g in sorted(gains.items()):
        nt, nant, nchan = g.gain.shape[:3]
        repeat: dict[str, NDArray[Any]] = {
            "TIME": g.time_s,
            "FIELD_ID": g.field_id,
            "ANTENNA2": g.reference_antenna,
            "INTERVAL": g.interval_s,
            "SCAN_NUMBER": g.scan,
        }
        for name, values in repeat.items():
            rows[name].append(np.repeat(values, nant))
        rows["SPECTRAL_WINDOW_ID"].append(np.full(nt * nant, spw))
        rows["OBSERVATION_ID"].append(np.zeros(nt * nant, dtype=np.int64))
        rows["ANTENNA1"].append(np.tile(np.arange(nant), nt))
        cells = (nt * nant, nchan, npol)
        rows["CPARAM"].append(np.where(g.flag, 1.0, g.gain).reshape(cells))
        rows["PARAMERR"].append(g.error.reshape(cells))
        rows["FLAG"].append(g.flag.reshape(cells))
        rows["SNR"].append(g.snr.reshape(cells))
        with np.errstate(divide="ignore"):
            rows["WEIGHT"].append(np.where(g.error > 0, 1.0 / g.error**2, 0.0).reshape(cells))
    return rows


def _copy_subtables(main: Any, path: Path, ms: MeasurementSet, *, one_channel: bool) -> None:
    """Describe antennas, fields and spectral windows as the Measurement Set does."""
    for name in ("ANTENNA", "FIELD", "OBSERVATION", "SPECTRAL_WINDOW"):
        with open_table(ms.subtable(name)) as source:
            source.copy(str(path / name), deep=True, valuecopy=True).close()
        if name == "SPECTRAL_WINDOW" and one_channel:
            with open_table(path / name, writable=True) as spectral:
                _one_channel(spectral)
        main.putkeyword(name, SUBTABLE + str(path / name))
    default_ms_subtable("HISTORY", str(path / "HISTORY")).close()
    main.putkeyword("HISTORY", SUBTABLE + str(path / "HISTORY"))


def _put_cells(main: Any, name: str, parts: list[NDArray[Any]], order: Int) -> None:
    """Write cells of spectral windows that differ in their number of channels."""
    cells = [cell for part in parts for cell in part]
    for row, k in enumerate(order):
        main.putcell(name, row, cells[k].astype(SINGLE.get(name, cells[k].dtype)))


def _one_channel(spectral: Any) -> None:
    """Give every spectral window the single channel that the solutions have; CASA aborts on a mismatch."""
    for name in ("CHAN_FREQ", "CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
        if name in spectral.colnames():
            _let_shapes_vary(spectral, name)
    for k in range(spectral.nrows()):
        freq = np.asarray(spectral.getcell("CHAN_FREQ", k))
        width = float(np.abs(np.asarray(spectral.getcell("CHAN_WIDTH", k))).sum())
        spectral.putcell("CHAN_FREQ", k, np.array([freq.mean()]))
        for name in ("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
            if name in spectral.colnames():
                spectral.putcell(name, k, np.array([width]))
        spectral.putcell("NUM_CHAN", k, 1)


def _let_shapes_vary(spectral: Any, name: str) -> None:
    """Make a column anew whose cells all have one declared shape, as some writers do."""
    if "shape" not in spectral.getcoldesc(name):
        return
    cells = [np.asarray(spectral.getcell(name, k)) for k in range(spectral.nrows())]
    keywords = spectral.getcolkeywords(name)
    spectral.removecols([name])
    spectral.addcols(makearrcoldesc(name, 0.0, ndim=1, valuetype="double"))
    for k, cell in enumerate(cells):
        spectral.putcell(name, k, cell.astype(np.float64))
    spectral.putcolkeywords(name, keywords)
