"""Writing a Measurement Set of XX and YY, dump by dump and window by window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from casacore.tables import default_ms, makearrcoldesc, maketabdesc

from dsa110_contimg import __version__
from dsa110_contimg.array_types import Float, Int, Vis
from dsa110_contimg.simulate.array import Array
from dsa110_contimg.visibilities.tables import open_table

__all__ = ["Layout", "MeasurementSetWriter"]


#: Values in a tile of the large columns: 1 MB of DATA.
TILE_VALUES = 1 << 17


@dataclass(frozen=True)
class Layout:
    """Everything of a Measurement Set but its visibilities.

    Parameters
    ----------
    array : Array
        Stations.
    field_names : tuple of str
        One, or one per dump; with one per dump each is a scan of its own.
    phase_centre : ndarray, shape (nfield, 2)
        Phase centres, ICRS right ascension and declination in radians.
    pointing : ndarray, shape (ntime, 2)
        Where the dishes point, alike.
    tracking : bool
        Whether they follow the sky.
    times_s : ndarray, shape (ntime,)
        Dump centres, seconds (MJD UTC).
    dump_s : float
        Length of a dump in seconds.
    freq_hz : ndarray, shape (nspw, nchan)
        Channels in hertz.
    width_hz : float
        Their width.
    antenna1, antenna2 : ndarray of int, shape (nbl,)
        Pairs of a dump, in the order in which they are given.
    sigma : ndarray, shape (nbl,)
        What SIGMA and the weights say of the noise of the real part of a visibility, jansky.
    """

    array: Array
    field_names: tuple[str, ...]
    phase_centre: Float
    pointing: Float
    tracking: bool
    times_s: Float
    dump_s: float
    freq_hz: Float
    width_hz: float
    antenna1: Int
    antenna2: Int
    sigma: Float


class MeasurementSetWriter:
    """A Measurement Set that is filled block by block: rows by time, within a dump by window.

    Parameters
    ----------
    path : Path
        Folder to make.
    layout : Layout
        What it describes.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._layout = layout
        n_spw, n_chan = layout.freq_hz.shape
        self._block = layout.antenna1.size
        tile_rows = max(1, TILE_VALUES // (2 * n_chan))
        large = (
            ("DATA", 0j, "complex", [2, n_chan, tile_rows]),
            ("WEIGHT_SPECTRUM", 0.0, "float", [2, n_chan, tile_rows]),
            ("FLAG", False, "boolean", [2, n_chan, 8 * tile_rows]),
            ("WEIGHT", 0.0, "float", [2, TILE_VALUES // 4]),
            ("SIGMA", 0.0, "float", [2, TILE_VALUES // 4]),
        )
        described, managers = [], {}
        for name, value, kind, tile in large:
            group = "Tiled" + name
            described.append(
                makearrcoldesc(name, value, ndim=len(tile) - 1, valuetype=kind, datamanagergroup=group)
            )
            managers["*" + name] = {
                "TYPE": "TiledShapeStMan",
                "NAME": group,
                "SPEC": {"DEFAULTTILESHAPE": np.array(tile, dtype=np.int32)},
                "COLUMNS": [name],
            }
        self._main = default_ms(str(path), maketabdesc(described), managers)
        self._main.addrows(self._block * n_spw * layout.times_s.size)
        _write_subtables(path, layout)

    def put(self, dump: int, window: int, uvw_m: Float, vis: Vis, flagged: bool) -> None:
        """Write a window of a dump.

        Parameters
        ----------
        dump, window : int
            Which.
        uvw_m : ndarray, shape (nbl, 3)
            Baselines in metres.
        vis : ndarray of complex64, shape (nbl, nchan, 2)
            Visibilities in jansky.
        flagged : bool
            Whether all of them are flagged.
        """
        of, n = self._layout, self._block
        weight = 1 / of.sigma**2
        own = dump if len(of.field_names) > 1 else 0
        values: dict[str, Any] = {
            "TIME": np.full(n, of.times_s[dump]),
            "TIME_CENTROID": np.full(n, of.times_s[dump]),
            "EXPOSURE": np.full(n, of.dump_s),
            "INTERVAL": np.full(n, of.dump_s),
            "ANTENNA1": of.antenna1.astype(np.int32),
            "ANTENNA2": of.antenna2.astype(np.int32),
            "DATA_DESC_ID": np.full(n, window, dtype=np.int32),
            "FIELD_ID": np.full(n, own, dtype=np.int32),
            "SCAN_NUMBER": np.full(n, own + 1, dtype=np.int32),
            "UVW": uvw_m,
            "DATA": vis,
            "FLAG": np.full(vis.shape, flagged),
            "FLAG_ROW": np.full(n, flagged),
            "WEIGHT": np.repeat(weight[:, None], 2, axis=1).astype(np.float32),
            "SIGMA": np.repeat(of.sigma[:, None], 2, axis=1).astype(np.float32),
            "WEIGHT_SPECTRUM": np.broadcast_to(weight[:, None, None], vis.shape).astype(np.float32),
        }
        start = (dump * of.freq_hz.shape[0] + window) * n
        for name, value in values.items():
            self._main.putcol(name, value, startrow=start, nrow=n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._main.close()


def _fill(path: Path, values: dict[str, Any]) -> None:
    """Add rows to a subtable: columns as sequences of cells."""
    with open_table(path, writable=True) as sub:
        for name, cells in values.items():
            if sub.nrows() == 0:
                sub.addrows(len(cells))
            if isinstance(cells[0], str):
                sub.putcol(name, list(cells))
                continue
            for row, cell in enumerate(cells):
                sub.putcell(name, row, cell)


def _set_direction_frame(path: Path, names: tuple[str, ...]) -> None:
    with open_table(path, writable=True) as sub:
        for name in names:
            info = sub.getcolkeywords(name).get("MEASINFO", {})
            sub.putcolkeyword(name, "MEASINFO", {**info, "type": "direction", "Ref": "ICRS"})


def _write_subtables(path: Path, of: Layout) -> None:
    begin, end = float(of.times_s[0] - of.dump_s / 2), float(of.times_s[-1] + of.dump_s / 2)
    _write_antennas(path, of, (begin + end) / 2, end - begin)
    _write_fields(path, of, (begin + end) / 2)
    _write_spws(path, of)
    _write_observation(path, of, begin, end)


def _write_antennas(path: Path, of: Layout, middle: float, span: float) -> None:
    names = list(of.array.name)
    n_ant = len(names)
    _fill(
        path / "ANTENNA",
        {
            "NAME": names,
            "STATION": names,
            "TYPE": ["GROUND-BASED"] * n_ant,
            "MOUNT": ["ALT-AZ"] * n_ant,
            "POSITION": list(of.array.position_m),
            "OFFSET": [np.zeros(3)] * n_ant,
            "DISH_DIAMETER": [of.array.dish_m] * n_ant,
        },
    )
    with open_table(path / "FEED", writable=True) as sub:
        sub.addrows(n_ant)
        sub.putcol("POLARIZATION_TYPE", {"shape": [n_ant, 2], "array": ["X", "Y"] * n_ant})
    _fill(
        path / "FEED",
        {
            "ANTENNA_ID": list(range(n_ant)),
            "SPECTRAL_WINDOW_ID": [-1] * n_ant,
            "BEAM_ID": [-1] * n_ant,
            "NUM_RECEPTORS": [2] * n_ant,
            "TIME": [middle] * n_ant,
            "INTERVAL": [span] * n_ant,
            "BEAM_OFFSET": [np.zeros((2, 2))] * n_ant,
            "POL_RESPONSE": [np.eye(2, dtype=np.complex64)] * n_ant,
            "POSITION": [np.zeros(3)] * n_ant,
            "RECEPTOR_ANGLE": [np.zeros(2)] * n_ant,
        },
    )


def _write_fields(path: Path, of: Layout, middle: float) -> None:
    own_scans = len(of.field_names) > 1
    directions = [c[None, :] for c in of.phase_centre]
    _fill(
        path / "FIELD",
        {
            "NAME": list(of.field_names),
            "TIME": list(of.times_s) if own_scans else [middle],
            "SOURCE_ID": [-1] * len(of.field_names),
            "NUM_POLY": [0] * len(of.field_names),
            "DELAY_DIR": directions,
            "PHASE_DIR": directions,
            "REFERENCE_DIR": directions,
        },
    )
    _set_direction_frame(path / "FIELD", ("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR"))


def _write_spws(path: Path, of: Layout) -> None:
    n_spw, n_chan = of.freq_hz.shape
    widths = [np.full(n_chan, of.width_hz)] * n_spw
    _fill(
        path / "SPECTRAL_WINDOW",
        {
            "NAME": [f"spw{k}" for k in range(n_spw)],
            "NUM_CHAN": [n_chan] * n_spw,
            "CHAN_FREQ": list(of.freq_hz),
            "CHAN_WIDTH": widths,
            "EFFECTIVE_BW": widths,
            "RESOLUTION": widths,
            "REF_FREQUENCY": [float(f[0]) for f in of.freq_hz],
            "TOTAL_BANDWIDTH": [float(of.width_hz * n_chan)] * n_spw,
            "MEAS_FREQ_REF": [5] * n_spw,  # TOPO
            "NET_SIDEBAND": [1] * n_spw,
        },
    )
    _fill(
        path / "POLARIZATION",
        {
            "NUM_CORR": [2],
            "CORR_TYPE": [np.array([9, 12], dtype=np.int32)],
            "CORR_PRODUCT": [np.array([[0, 0], [1, 1]], dtype=np.int32)],
        },
    )
    windows = {"SPECTRAL_WINDOW_ID": list(range(n_spw)), "POLARIZATION_ID": [0] * n_spw}
    _fill(path / "DATA_DESCRIPTION", windows)


def _write_observation(path: Path, of: Layout, begin: float, end: float) -> None:
    _fill(
        path / "OBSERVATION",
        {
            "TELESCOPE_NAME": [of.array.telescope],
            "OBSERVER": ["simulated"],
            "PROJECT": ["simulated"],
            "TIME_RANGE": [np.array([begin, end])],
            "RELEASE_DATE": [end],
        },
    )
    _fill(path / "PROCESSOR", {"TYPE": ["CORRELATOR"], "SUB_TYPE": ["simulated"]})
    _fill(path / "STATE", {"OBS_MODE": ["OBSERVE_TARGET#ON_SOURCE"], "SIG": [True], "REF": [False]})
    _fill(
        path / "HISTORY",
        {
            "TIME": [begin],
            "APPLICATION": ["dsa110_contimg"],
            "MESSAGE": [f"simulated by dsa110_contimg {__version__}"],
            "ORIGIN": ["simulate"],
            "PRIORITY": ["INFO"],
        },
    )
    _write_pointing(path / "POINTING", of)


def _write_pointing(path: Path, of: Layout) -> None:
    """One row per antenna and dump: where the dish points."""
    n_ant, n_time = len(of.array.name), of.times_s.size
    n = n_ant * n_time
    direction = np.repeat(of.pointing, n_ant, axis=0)[:, None, :]
    times = np.repeat(of.times_s, n_ant)
    with open_table(path, writable=True) as sub:
        sub.addrows(n)
        for name, value in {
            "ANTENNA_ID": np.tile(np.arange(n_ant, dtype=np.int32), n_time),
            "TIME": times,
            "TIME_ORIGIN": times,
            "INTERVAL": np.full(n, of.dump_s),
            "NUM_POLY": np.zeros(n, dtype=np.int32),
            "TRACKING": np.full(n, of.tracking),
            "DIRECTION": direction,
            "TARGET": direction,
        }.items():
            sub.putcol(name, value)
    _set_direction_frame(path, ("DIRECTION", "TARGET"))
