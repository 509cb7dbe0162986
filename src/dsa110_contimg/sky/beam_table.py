"""Voltage patterns of round dishes looked up in a table: beams of many antennas ask for millions."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numba
import numpy as np

from dsa110_contimg.array_types import Float, Single

__all__ = ["look_up_voltages"]

#: Spacing in pi D sin(theta) / lambda: linear interpolation is exact to 5e-7 of the peak.
TABLE_STEP = 4e-3
#: How far the table goes, beyond any sidelobe.
TABLE_END = 600.0


class Shape(Protocol):
    """A shape of a beam, which can be compared."""

    def profile(self, x: Float) -> Float:
        """Voltage response by ``pi D sin(theta) / lambda``."""
        ...

    def __hash__(self) -> int: ...


def look_up_voltages(shape: Shape, scale: Float, sine: Float) -> Single:
    """Voltage patterns by the sines of the angles from the axes.

    Parameters
    ----------
    shape : Shape
        What gives the pattern; looked up again if it is equal to an earlier one.
    scale : ndarray, shape (nchan,)
        ``pi D / lambda`` of each channel.
    sine : ndarray, shape (n, nant)
        Sines; not a number behind the dish.

    Returns
    -------
    ndarray of float32, shape (n, nchan, nant)
        One on the axis; zero behind the dish.
    """
    out = np.empty((sine.shape[0], scale.size, sine.shape[1]), dtype=np.float32)
    _look_up(_table(shape), np.ascontiguousarray(scale, dtype=np.float64), sine, out)
    return out


@lru_cache(maxsize=8)
def _table(shape: Shape) -> Single:
    return np.asarray(
        shape.profile(TABLE_STEP * np.arange(int(TABLE_END / TABLE_STEP), dtype=np.float64)), np.float32
    )


@numba.njit(parallel=True, cache=True)
def _look_up(table: Single, scale: Float, sine: Float, out: Single) -> None:
    n, nchan, nant = out.shape
    for k in numba.prange(n):
        for c in range(nchan):
            for p in range(nant):
                place = scale[c] * sine[k, p] / TABLE_STEP
                # Also of what lies behind the dish, whose sine is not a number.
                if not place < table.size - 1:
                    out[k, c, p] = np.float32(0)
                    continue
                below = int(place)
                part = np.float32(place - below)
                out[k, c, p] = table[below] + part * (table[below + 1] - table[below])
