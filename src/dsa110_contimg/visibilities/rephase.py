"""Moving visibilities to another phase centre."""

from __future__ import annotations

from functools import lru_cache

import erfa
import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["apparent_basis", "move_uvw", "turn_phases"]

Float = NDArray[np.float64]

SPEED_OF_LIGHT = 299_792_458.0
#: Step of the numerical derivative of the apparent direction, radians.
STEP = 1e-5


@lru_cache(maxsize=4096)
def _earth_velocity(mjd: float) -> tuple[Float, float, float]:
    """Velocity of the Earth over c, its Lorentz factor's inverse and the Sun's distance (erfa)."""
    heliocentric, barycentric = erfa.epv00(2400000.5, mjd)
    velocity = np.asarray(barycentric["v"]) / 173.14463267424034  # c in au per day
    beta2 = float(velocity @ velocity)
    return velocity, float(np.sqrt(1 - beta2)), float(np.linalg.norm(heliocentric["p"]))


def apparent_basis(mjd: float, ra_rad: float, dec_rad: float) -> Float:
    """Directions along which u, v and w are measured, in GCRS axes.

    Parameters
    ----------
    mjd : float
        Time, MJD (UTC is near enough: the Earth's velocity changes by 2e-8 of
        the speed of light in a minute).
    ra_rad, dec_rad : float
        Phase centre, ICRS radians.

    Returns
    -------
    ndarray, shape (3, 3)
        Rows: how the apparent direction changes with right ascension (times
        cos Dec) and with declination, and the apparent direction itself, with
        annual aberration. A source at small (l, m) has the delay
        ``u l + v m`` against the centre then.
    """
    velocity, inverse_gamma, distance = _earth_velocity(float(mjd))

    def apparent(direction: Float) -> Float:
        return np.asarray(erfa.ab(direction, velocity, distance, inverse_gamma), dtype=np.float64)

    sa, ca, sd, cd = np.sin(ra_rad), np.cos(ra_rad), np.sin(dec_rad), np.cos(dec_rad)
    centre = np.array([cd * ca, cd * sa, sd])
    rows = []
    for tangent in (np.array([-sa, ca, 0.0]), np.array([-sd * ca, -sd * sa, cd])):
        ahead = np.cos(STEP) * centre + np.sin(STEP) * tangent
        behind = np.cos(STEP) * centre - np.sin(STEP) * tangent
        rows.append((apparent(ahead) - apparent(behind)) / (2 * np.sin(STEP)))
    return np.array([*rows, apparent(centre)])


def move_uvw(uvw_m: Float, mjd: float, old: tuple[float, float], new: tuple[float, float]) -> Float:
    """Baselines about another phase centre.

    Parameters
    ----------
    uvw_m : ndarray, shape (nrow, 3)
        Baselines of one time about the old centre, metres.
    mjd : float
        Time, MJD.
    old, new : (float, float)
        Right ascension and declination of the centres, ICRS radians.

    Returns
    -------
    ndarray, shape (nrow, 3)
        Baselines about the new centre.
    """
    to_baseline = np.linalg.inv(apparent_basis(mjd, *old))
    return np.asarray(uvw_m @ (apparent_basis(mjd, *new) @ to_baseline).T)


def turn_phases(vis: NDArray[np.complex64], path_m: Float, freq_hz: Float) -> NDArray[np.complex64]:
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
def _turn(vis: NDArray[np.complex64], path: Float, freq: Float, out: NDArray[np.complex64]) -> None:
    for r in numba.prange(vis.shape[0]):
        for c in range(vis.shape[1]):
            turns = path[r] * freq[c] / SPEED_OF_LIGHT
            turns -= np.rint(turns)
            phase = np.float32(2 * np.pi * turns)
            factor = complex(np.cos(phase), np.sin(phase))
            for k in range(vis.shape[2]):
                out[r, c, k] = vis[r, c, k] * factor
