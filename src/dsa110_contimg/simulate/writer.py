"""Writing a Measurement Set of one field and one spectral window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from casacore.tables import default_ms, makearrcoldesc, maketabdesc
from numpy.typing import NDArray

from dsa110_contimg.simulate.array import Array
from dsa110_contimg.visibilities.measurement_set import open_table

__all__ = ["write_measurement_set"]

Float = NDArray[np.float64]


def write_measurement_set(
    path: Path,
    array: Array,
    *,
    field_name: str,
    ra_rad: float,
    dec_rad: float,
    times_s: Float,
    dump_s: float,
    freq_hz: Float,
    width_hz: float,
    uvw_m: Float,
    vis: NDArray[np.complex64],
    sigma: float,
) -> None:
    """Write visibilities as a Measurement Set with XX and YY.

    Parameters
    ----------
    path : Path
        Folder to make.
    array : Array
        Stations.
    field_name : str
        Name of the field.
    ra_rad, dec_rad : float
        Phase centre, ICRS radians.
    times_s : ndarray, shape (ntime,)
        Dump centres, seconds (MJD UTC).
    dump_s : float
        Length of a dump in seconds.
    freq_hz : ndarray, shape (nchan,)
        Channels in hertz.
    width_hz : float
        Their width.
    uvw_m : ndarray, shape (ntime * nbl, 3)
        Baselines in metres, all pairs i < j, dump by dump.
    vis : ndarray of complex64, shape (ntime * nbl, nchan, 2)
        Visibilities in jansky.
    sigma : float
        Noise of the real part of one visibility in jansky.
    """
    nant, nchan, n_rows = len(array.name), freq_hz.size, len(uvw_m)
    first, second = np.triu_indices(nant, 1)
    tile_rows = max(1, (1 << 17) // (2 * nchan))
    described, managers = [], {}
    for name, value, kind in (("DATA", 0j, "complex"), ("WEIGHT_SPECTRUM", 0.0, "float")):
        described.append(makearrcoldesc(name, value, ndim=2, valuetype=kind, datamanagergroup="Tiled" + name))
        managers["*" + name] = {
            "TYPE": "TiledShapeStMan",
            "NAME": "Tiled" + name,
            "SPEC": {"DEFAULTTILESHAPE": np.array([2, nchan, tile_rows], dtype=np.int32)},
            "COLUMNS": [name],
        }
    with default_ms(str(path), maketabdesc(described), managers) as main:
        main.addrows(n_rows)
        main.putcol("TIME", np.repeat(times_s, first.size))
        main.putcol("TIME_CENTROID", np.repeat(times_s, first.size))
        main.putcol("ANTENNA1", np.tile(first, times_s.size).astype(np.int32))
        main.putcol("ANTENNA2", np.tile(second, times_s.size).astype(np.int32))
        main.putcol("UVW", uvw_m)
        for name, value in (("EXPOSURE", dump_s), ("INTERVAL", dump_s)):
            main.putcol(name, np.full(n_rows, value))
        main.putcol("SCAN_NUMBER", np.ones(n_rows, dtype=np.int32))
        main.putcol("STATE_ID", np.full(n_rows, -1, dtype=np.int32))
        main.putcol("DATA", vis)
        main.putcol("FLAG", np.zeros(vis.shape, dtype=bool))
        main.putcol("WEIGHT", np.full((n_rows, 2), 1 / sigma**2, dtype=np.float32))
        main.putcol("SIGMA", np.full((n_rows, 2), sigma, dtype=np.float32))
        main.putcol("WEIGHT_SPECTRUM", np.full(vis.shape, 1 / sigma**2, dtype=np.float32))
    with open_table(path / "ANTENNA", writable=True) as sub:
        sub.addrows(nant)
        sub.putcol("NAME", list(array.name))
        sub.putcol("STATION", list(array.name))
        sub.putcol("TYPE", ["GROUND-BASED"] * nant)
        sub.putcol("MOUNT", ["ALT-AZ"] * nant)
        sub.putcol("POSITION", array.position_m)
        sub.putcol("OFFSET", np.zeros((nant, 3)))
        sub.putcol("DISH_DIAMETER", np.full(nant, array.dish_m))
    with open_table(path / "FEED", writable=True) as sub:
        sub.addrows(nant)
        sub.putcol("ANTENNA_ID", np.arange(nant, dtype=np.int32))
        sub.putcol("SPECTRAL_WINDOW_ID", np.full(nant, -1, dtype=np.int32))
        sub.putcol("NUM_RECEPTORS", np.full(nant, 2, dtype=np.int32))
        sub.putcol("TIME", np.full(nant, float(times_s.mean())))
        sub.putcol("INTERVAL", np.full(nant, 1e9))
        sub.putcol("BEAM_OFFSET", np.zeros((nant, 2, 2)))
        sub.putcol("POLARIZATION_TYPE", {"shape": [nant, 2], "array": ["X", "Y"] * nant})
        sub.putcol("POL_RESPONSE", np.tile(np.eye(2, dtype=np.complex64), (nant, 1, 1)))
        sub.putcol("POSITION", np.zeros((nant, 3)))
        sub.putcol("RECEPTOR_ANGLE", np.zeros((nant, 2)))
    with open_table(path / "FIELD", writable=True) as sub:
        sub.addrows(1)
        sub.putcell("NAME", 0, field_name)
        sub.putcell("TIME", 0, float(times_s[0]))
        sub.putcell("SOURCE_ID", 0, -1)
        for name in ("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR"):
            sub.putcell(name, 0, np.array([[ra_rad, dec_rad]]))
            info = sub.getcolkeywords(name).get("MEASINFO", {})
            sub.putcolkeyword(name, "MEASINFO", {**info, "type": "direction", "Ref": "ICRS"})
    with open_table(path / "SPECTRAL_WINDOW", writable=True) as sub:
        sub.addrows(1)
        sub.putcell("NAME", 0, "band")
        sub.putcell("NUM_CHAN", 0, nchan)
        sub.putcell("CHAN_FREQ", 0, freq_hz)
        for name in ("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
            sub.putcell(name, 0, np.full(nchan, width_hz))
        sub.putcell("REF_FREQUENCY", 0, float(freq_hz[0]))
        sub.putcell("TOTAL_BANDWIDTH", 0, float(width_hz * nchan))
        sub.putcell("MEAS_FREQ_REF", 0, 5)  # TOPO
        sub.putcell("NET_SIDEBAND", 0, 1)
    with open_table(path / "POLARIZATION", writable=True) as sub:
        sub.addrows(1)
        sub.putcell("NUM_CORR", 0, 2)
        sub.putcell("CORR_TYPE", 0, np.array([9, 12], dtype=np.int32))
        sub.putcell("CORR_PRODUCT", 0, np.array([[0, 0], [1, 1]], dtype=np.int32))
    with open_table(path / "DATA_DESCRIPTION", writable=True) as sub:
        sub.addrows(1)
        sub.putcell("SPECTRAL_WINDOW_ID", 0, 0)
        sub.putcell("POLARIZATION_ID", 0, 0)
    with open_table(path / "OBSERVATION", writable=True) as sub:
        sub.addrows(1)
        sub.putcell("TELESCOPE_NAME", 0, array.telescope)
        sub.putcell("OBSERVER", 0, "simulated")
        sub.putcell("PROJECT", 0, "simulated")
        sub.putcell("TIME_RANGE", 0, np.array([times_s[0] - dump_s / 2, times_s[-1] + dump_s / 2]))
