"""Moving visibilities to another phase centre."""

from __future__ import annotations

import numba
import numpy as np

from dsa110_contimg.array_types import Float, Vis

__all__ = ["move_uvw", "turn_phases"]


SPEED_OF_LIGHT = 299_792_458.0


def move_uvw(uvw_m: Float, old: tuple[float, float], new: tuple[float, float]) -> Float:
    """Baselines about another phase centre.

    Parameters
    ----------
    uvw_m : ndarray, shape (nrow, 3)
        Baselines about the old centre, metres.
    old, new : (float, float)
        Right ascension and declination of the centres, ICRS radians.

    Returns
    -------
    ndarray, shape (nrow, 3)
        Baselines about the new centre.

    Notes
    -----
    A rotation of the axes u, v, w (Thompson, Moran & Swenson 2017, section
    4.1), as other imagers do it. It leaves out that annual aberration stretches the sky
    by up to 1e-4: 0.4 arcsec over a move of one degree.
    """
    return np.asarray(uvw_m @ (_axes(*new) @ _axes(*old).T).T)


def _axes(ra_rad: float, dec_rad: float) -> Float:
    """East, north and source axes of a phase centre, shape (3, 3)."""
    sa, ca, sd, cd = np.sin(ra_rad), np.cos(ra_rad), np.sin(dec_rad), np.cos(dec_rad)
    return np.array([[-sa, ca, 0.0], [-sd * ca, -sd * sa, cd], [cd * ca, cd * sa, sd]])


def turn_phases(vis: Vis, path_m: Float, freq_hz: Float) -> Vis:
    """Turn visibilities by a path difference.

    Parameters
    ----------
    vis : ndarray of complex64, shape (nrow, nchan) or (nrow, nchan, ncorr)
        Visibilities.
    path_m : ndarray, shape (nrow,)
        Old w minus new w in metres when moving from an old centre to a new one.
    freq_hz : ndarray, shape (nchan,)
        Channels in hertz.

    Returns
    -------
    ndarray of complex64, same shape
        ``vis exp(2 pi i path / lambda)``.
    """
    out = np.empty_like(vis)
    cells = vis.reshape(*vis.shape[:2], -1)
    _turn(cells, path_m, np.asarray(freq_hz, dtype=np.float64), out.reshape(cells.shape))
    return out


@numba.njit(parallel=True, cache=True)
def _turn(vis: Vis, path: Float, freq: Float, out: Vis) -> None:
    for r in numba.prange(vis.shape[0]):
        for c in range(vis.shape[1]):
            turns = path[r] * freq[c] / SPEED_OF_LIGHT
            turns -= np.rint(turns)
            phase = np.float32(2 * np.pi * turns)
            factor = complex(np.cos(phase), np.sin(phase))
            for k in range(vis.shape[2]):
                out[r, c, k] = vis[r, c, k] * factor
