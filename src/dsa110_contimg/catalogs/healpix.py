"""Equal-area cells of the sky (HEALPix, ring order): the strips' spatial index and the map of a footprint."""

from __future__ import annotations

import math

import ducc0
import numpy as np

from dsa110_contimg.array_types import Float, Int

__all__ = ["NSIDE", "cell_centres", "cell_of", "cells_in_cone", "cells_near", "neighbours"]

Cells = Int

#: 196,608 cells of 0.21 square degrees: about 10 sources of NVSS, 19 of FIRST. Half and twice as many cells
#: a side answer cones within 0.2 ms of it (benchmarks/catalog_index.py).
NSIDE = 128
_BASE = ducc0.healpix.Healpix_Base(NSIDE, "RING")
_REACH = float(_BASE.max_pixrad())


def _pointing(ra_deg: Float, dec_deg: Float) -> Float:
    return np.radians(np.stack([90.0 - dec_deg, ra_deg % 360.0], axis=-1))


def cell_of(ra_deg: Float, dec_deg: Float, nside: int = NSIDE) -> Cells:
    """Return the cell of each direction (degrees), shape (n,)."""
    base = _BASE if nside == NSIDE else ducc0.healpix.Healpix_Base(nside, "RING")
    return np.asarray(base.ang2pix(_pointing(np.asarray(ra_deg), np.asarray(dec_deg))))


def cell_centres(cells: Cells, nside: int = NSIDE) -> tuple[Float, Float]:
    """Return right ascension and declination (degrees) of the middle of cells, shape (n,) each."""
    angles = np.degrees(ducc0.healpix.Healpix_Base(nside, "RING").pix2ang(np.asarray(cells)))
    return angles[..., 1], 90.0 - angles[..., 0]


def cells_in_cone(ra_deg: float, dec_deg: float, radius_deg: float) -> list[list[int]]:
    """Return the cells that a cone (degrees) touches, and a few around, as ranges ``[first, last + 1]``."""
    centre = np.radians([90.0 - dec_deg, ra_deg])
    ranges: list[list[int]] = _BASE.query_disc(
        centre, min(math.pi, math.radians(radius_deg) + _REACH)
    ).tolist()
    return ranges


def cells_near(ra_deg: float, dec_deg: float, radius_deg: float, nside: int) -> Cells:
    """Return the cells whose middles lie in a cone (degrees) or, at least, the one that holds its centre."""
    base = ducc0.healpix.Healpix_Base(nside, "RING")
    centre = np.radians([90.0 - dec_deg, ra_deg])
    ranges = base.query_disc(centre, math.radians(radius_deg))
    inside = [np.arange(*pair) for pair in ranges.tolist()]
    return np.unique(np.concatenate([*inside, np.atleast_1d(base.ang2pix(centre))]))


def neighbours(cells: Cells, nside: int) -> Cells:
    """Return the eight cells around each, shape (n, 8); -1 where there are only seven."""
    return np.asarray(ducc0.healpix.Healpix_Base(nside, "RING").neighbors(np.asarray(cells)))
