"""Copy a Measurement Set as DP3 takes it: four correlations, and one spectral window for the whole band.

    python -m benchmarks.four_correlations ONE-CENTRE.ms OUT.ms

DP3 refuses two correlations and solves one spectral window at a time; in one window its gains are as free
in frequency as those that are combined over windows. XY and YX are zero, in the data as in any model without
polarisation, so that they neither help nor hinder.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from casacore.tables import makearrcoldesc, maketabdesc, table

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.visibilities.tables import open_table

__all__ = ["expand"]

#: MS definition 2: XX, XY, YX, YY.
CORRELATIONS = [9, 10, 11, 12]
#: Values in a tile of the large columns, some 1 MB.
TILE_VALUES = 1 << 17
#: Rows that are held in memory at once, times channels.
BLOCK_VALUES = 1 << 24


def expand(source: Path, target: Path) -> None:
    """Copy a Measurement Set of one field and two parallel hands.

    Parameters
    ----------
    source : Path
        Measurement Set whose spectral windows adjoin and hold the same baselines and times.
    target : Path
        Measurement Set to write; an old one is removed.
    """
    shutil.rmtree(target, ignore_errors=True)
    with open_table(source / "SPECTRAL_WINDOW") as windows:
        freq_hz = windows.getcol("CHAN_FREQ")
        width_hz = windows.getcol("CHAN_WIDTH")
    order = np.argsort(freq_hz[:, 0])
    joined = freq_hz[order].ravel()
    if not np.allclose(np.diff(joined), width_hz.mean(), rtol=1e-6):
        raise SystemExit(f"{source}: the spectral windows do not adjoin")
    n_channels = freq_hz.shape[1]
    with open_table(source) as main:
        rows = [np.flatnonzero(main.getcol("DATA_DESC_ID") == window) for window in order]
        first = main.selectrows(rows[0])
        large = {"DATA", "FLAG", "WEIGHT_SPECTRUM", "WEIGHT", "SIGMA", "CORRECTED_DATA", "MODEL_DATA"}
        kept = [name for name in main.colnames() if name not in large]
        first.query(columns=",".join(kept)).copy(str(target), deep=True, valuecopy=True).close()
        places = [main.selectrows(r) for r in rows]
        for name in ("TIME", "ANTENNA1", "ANTENNA2"):
            if any(not np.array_equal(part.getcol(name), places[0].getcol(name)) for part in places):
                raise SystemExit(f"{source}: the spectral windows differ in {name}")
        with open_table(target, writable=True) as copy:
            _add_columns(copy, joined.size)
            copy.putcol("DATA_DESC_ID", np.zeros(copy.nrows(), dtype=np.int32))
            step = max(1, BLOCK_VALUES // (4 * joined.size))
            for begin in range(0, copy.nrows(), step):
                _fill(copy, places, begin, min(step, copy.nrows() - begin), n_channels)
    _describe(target, order, joined, float(width_hz.mean()))


def _add_columns(copy: table, n_channels: int) -> None:
    tile = max(1, TILE_VALUES // (4 * n_channels))
    for name, value, kind, shape in (
        ("DATA", 0j, "complex", [n_channels, 4]),
        ("FLAG", False, "boolean", [n_channels, 4]),
        ("WEIGHT_SPECTRUM", 0.0, "float", [n_channels, 4]),
        ("WEIGHT", 0.0, "float", [4]),
        ("SIGMA", 0.0, "float", [4]),
    ):
        described = makearrcoldesc(name, value, ndim=len(shape), shape=shape, valuetype=kind)
        tiles = [*reversed(shape), tile if len(shape) == 2 else TILE_VALUES // 4]
        manager = {
            "TYPE": "TiledColumnStMan",
            "NAME": f"Tiled{name}",
            "SPEC": {"DEFAULTTILESHAPE": np.array(tiles, dtype=np.int32)},
        }
        copy.addcols(maketabdesc([described]), manager)


def _fill(copy: table, places: list[table], begin: int, count: int, n_channels: int) -> None:
    """Copy rows of all windows into rows of one."""
    for name in ("DATA", "FLAG", "WEIGHT_SPECTRUM"):
        out = None
        for number, part in enumerate(places):
            hands = part.getcol(name, begin, count)
            if out is None:
                out = np.zeros((count, n_channels * len(places), 4), dtype=hands.dtype)
            at = slice(number * n_channels, (number + 1) * n_channels)
            out[:, at, 0], out[:, at, 3] = hands[..., 0], hands[..., 1]
            if name != "DATA":
                # DP3 and WSClean flag and weigh all correlations of a sample alike.
                out[:, at, 1] = out[:, at, 2] = (
                    hands[..., 0] | hands[..., 1] if name == "FLAG" else hands[..., 0]
                )
        copy.putcol(name, out, begin, count)
    for name in ("WEIGHT", "SIGMA"):
        hands = places[0].getcol(name, begin, count)
        copy.putcol(name, hands[:, [0, 0, 1, 1]], begin, count)


def _describe(target: Path, order: Int, freq_hz: Float, width_hz: float) -> None:
    """Make subtables of one spectral window and four correlations."""
    for name in ("SPECTRAL_WINDOW", "DATA_DESCRIPTION"):
        with open_table(target / name, writable=True) as sub:
            keep = int(order[0]) if name == "SPECTRAL_WINDOW" else 0
            sub.removerows([row for row in range(sub.nrows()) if row != keep])
    with open_table(target / "SPECTRAL_WINDOW", writable=True) as sub:
        sub.putcell("NUM_CHAN", 0, freq_hz.size)
        sub.putcell("CHAN_FREQ", 0, freq_hz)
        for name in ("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
            sub.putcell(name, 0, np.full(freq_hz.size, width_hz))
        sub.putcell("TOTAL_BANDWIDTH", 0, freq_hz.size * width_hz)
        sub.putcell("REF_FREQUENCY", 0, float(freq_hz.mean()))
    with open_table(target / "DATA_DESCRIPTION", writable=True) as sub:
        sub.putcell("SPECTRAL_WINDOW_ID", 0, 0)
        sub.putcell("POLARIZATION_ID", 0, 0)
    with open_table(target / "POLARIZATION", writable=True) as sub:
        sub.putcell("NUM_CORR", 0, 4)
        sub.putcell("CORR_TYPE", 0, np.array(CORRELATIONS, dtype=np.int32))
        sub.putcell("CORR_PRODUCT", 0, np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.int32))


if __name__ == "__main__":
    expand(Path(sys.argv[1]), Path(sys.argv[2]))
