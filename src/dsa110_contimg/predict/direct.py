"""Direct Fourier sums over sky components.

The fast kernel works on tiles of rows in single precision: the phase of the
first channel is formed and wrapped in double precision, later channels
follow by rotation, and the rotation is restarted every `RESTART` channels so
that rounding stays below 1e-6 of the summed flux.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from dsa110_contimg.array_types import Complex, Float, Int, Single, Vis
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT

__all__ = ["predict_components", "predict_reference"]


TILE = 64
RESTART = 16
#: exp(-(pi theta b / lambda)^2 / (4 ln 2)) is the visibility of a Gaussian of FWHM theta on a baseline b.
GAUSSIAN = np.pi**2 / (4.0 * np.log(2.0))


def predict_components(
    uvw_m: Float,
    freq_hz: Float,
    lmn: Float,
    flux_jy: Float | Single,
    major_rad: Float | None = None,
    minor_rad: Float | None = None,
    pa_rad: Float | None = None,
    spectrum: Int | None = None,
) -> Vis:
    """Sum components into visibilities.

    Parameters
    ----------
    uvw_m : ndarray, shape (nrow, 3)
        Baselines in metres, antenna 2 minus antenna 1.
    freq_hz : ndarray, shape (nchan,)
        Channel frequencies in hertz, any spacing.
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m and n - 1 of the components.
    flux_jy : ndarray, shape (n, nchan) or (nspectrum, n, nchan)
        Apparent Stokes I flux density in jansky.
    major_rad, minor_rad, pa_rad : ndarray, shape (n,), optional
        Gaussian full widths and position angles in radians, the angles as of :func:`projected_extents`;
        zero widths are points.
    spectrum : ndarray of int, shape (nrow,), optional
        Which of several fluxes holds for each row; the first by default.

    Returns
    -------
    ndarray of complex64, shape (nrow, nchan)
        Visibilities in jansky: sum of ``S exp(+2 pi i (u l + v m + w (n - 1)))``,
        the sign that belongs to baselines of antenna 2 minus antenna 1.

    Notes
    -----
    Thompson, Moran & Swenson (2017), equation 3.7. Unevenly spaced channels
    are as exact but slower: each forms its own phase.
    """
    uvw = np.ascontiguousarray(uvw_m, dtype=np.float64)
    freq = np.ascontiguousarray(freq_hz, dtype=np.float64)
    out = np.zeros((uvw.shape[0], freq.size), dtype=np.complex64)
    if len(lmn) == 0 or uvw.shape[0] == 0:
        return out
    if flux_jy.shape[-2:] != (len(lmn), freq.size):
        raise ValueError(f"flux_jy has shape {flux_jy.shape}, not {(len(lmn), freq.size)}")
    if freq.size > 1 and freq[0] > freq[-1]:
        # Along falling frequencies a Gaussian's taper grows, and cannot grow out of an underflow.
        shapes = major_rad, minor_rad, pa_rad
        falling = predict_components(uvw, freq[::-1], lmn, flux_jy[..., ::-1], *shapes, spectrum)
        return np.ascontiguousarray(falling[:, ::-1])
    if spectrum is not None and (np.diff(spectrum) < 0).any():
        # Tiles are of one spectrum each.
        order = np.argsort(spectrum, kind="stable")
        shapes = major_rad, minor_rad, pa_rad
        out[order] = predict_components(uvw[order], freq, lmn, flux_jy, *shapes, spectrum[order])
        return out
    step, restart = rotation(freq)
    tiles = tiles_of(len(uvw), spectrum)
    flux = np.asarray(flux_jy, dtype=np.float32).reshape(-1, len(lmn), freq.size)
    shape = projected_extents(lmn, major_rad, minor_rad, pa_rad)
    is_extended = np.zeros(len(lmn), dtype=bool) if major_rad is None else major_rad > 0
    extended, point = np.flatnonzero(is_extended), np.flatnonzero(~is_extended)
    if point.size:
        _sum_points(
            uvw,
            *tiles,
            freq,
            step,
            restart,
            np.ascontiguousarray(lmn[point]),
            np.ascontiguousarray(flux if point.size == len(lmn) else flux[:, point]),
            out,
        )
    if extended.size:
        _sum_gaussians(
            uvw,
            *tiles,
            freq,
            step,
            restart,
            np.ascontiguousarray(lmn[extended]),
            np.ascontiguousarray(flux[:, extended]),
            np.ascontiguousarray(shape[extended]),
            out,
        )
    return out


def tiles_of(n_rows: int, spectrum: Int | None = None) -> tuple[Int, Int, Int]:
    """Divide rows into tiles of one spectrum each.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    spectrum : ndarray of int, shape (nrow,), optional
        Spectrum of each row; one for all by default.

    Returns
    -------
    first, size, of : ndarray of int, shape (ntile,)
        First row, number of rows, `TILE` at most, and spectrum of each tile.
    """
    if spectrum is None:
        spectrum = np.zeros(n_rows, dtype=np.int64)
    edges = np.flatnonzero(np.diff(spectrum, prepend=-1))
    lengths = np.diff(edges, append=n_rows)
    count = -(-lengths // TILE)
    within = TILE * (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count))
    first = np.repeat(edges, count) + within
    return first, np.minimum(np.repeat(lengths, count) - within, TILE), spectrum[first].astype(np.int64)


def rotation(freq_hz: Float) -> tuple[float, int]:
    """By how many hertz phases are rotated on, and after how many channels they are formed anew."""
    step = float(freq_hz[1] - freq_hz[0]) if freq_hz.size > 1 else 0.0
    even = freq_hz.size < 3 or np.allclose(np.diff(freq_hz), step, rtol=1e-9, atol=0.0)
    return step, RESTART if even else 1


def projected_extents(
    lmn: Float, major_rad: Float | None, minor_rad: Float | None, pa_rad: Float | None
) -> Float:
    """Project n Gaussians along u, v and w: the full width at the position angle, and that across it.

    A Gaussian lies in the plane that touches the sky at its centre: a baseline sees it as long as it is
    along two directions in that plane. The first ones are the l and m axes of the phase centre, turned to
    there along a great circle; the position angle counts from the second towards the first.

    Parameters
    ----------
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m and n - 1.
    major_rad, minor_rad, pa_rad : ndarray, shape (n,) or None
        Full widths and position angles.

    Returns
    -------
    ndarray, shape (n, 6)
        Factors of u, v and w for the one, and for the other; zero where nothing is given.
    """
    n = len(lmn)
    if major_rad is None or minor_rad is None or pa_rad is None or not (major_rad > 0).any():
        return np.zeros((n, 6))
    l, m = lmn[:, 0], lmn[:, 1]  # noqa: E741
    share = 1.0 / np.maximum(lmn[:, 2] + 2.0, 1e-12)
    east = np.stack([1 - l * l * share, -l * m * share, -l], axis=1)
    north = np.stack([-l * m * share, 1 - m * m * share, -m], axis=1)
    sine, cosine = np.sin(pa_rad)[:, None], np.cos(pa_rad)[:, None]
    along, across = east * sine + north * cosine, east * cosine - north * sine
    return np.concatenate([major_rad[:, None] * along, minor_rad[:, None] * across], axis=1)


def predict_reference(
    uvw_m: Float,
    freq_hz: Float,
    lmn: Float,
    flux_jy: Float,
    major_rad: Float | None = None,
    minor_rad: Float | None = None,
    pa_rad: Float | None = None,
) -> Complex:
    """Sum the same components in float64, slowly, as the judge of the kernel.

    Parameters and result are those of :func:`predict_components`, in complex128.
    """
    wavenumber = freq_hz[None, :] / SPEED_OF_LIGHT
    out = np.zeros((len(uvw_m), len(freq_hz)), dtype=np.complex128)
    extents = projected_extents(lmn, major_rad, minor_rad, pa_rad)
    for k in range(len(lmn)):
        delay = uvw_m @ lmn[k]
        term = flux_jy[k][None, :] * np.exp(2j * np.pi * delay[:, None] * wavenumber)
        if major_rad is not None and major_rad[k] > 0:
            along, across = uvw_m @ extents[k, :3], uvw_m @ extents[k, 3:]
            term *= np.exp(-GAUSSIAN * (along**2 + across**2)[:, None] * wavenumber**2)
        out += term
    return out


@numba.njit(inline="always", fastmath=True)
def sine_cosine(turns: np.float32) -> Any:
    """Sine and cosine of 2 pi turns, turns in [-0.5, 0.5], float32, without branches.

    Minimax-like Taylor polynomials on a quarter turn about the nearest half
    turn: error below 3e-7.
    """
    # Fold onto [-0.25, 0.25]: sin(2 pi (1/2 - x)) = sin(2 pi x), the cosine changes sign.
    half = np.float32(0.5)
    folded = turns
    sign = np.float32(1.0)
    if turns > np.float32(0.25):
        folded = half - turns
        sign = np.float32(-1.0)
    elif turns < np.float32(-0.25):
        folded = -half - turns
        sign = np.float32(-1.0)
    x = folded * np.float32(2.0 * np.pi)
    y = x * x
    s = x * (
        np.float32(1.0)
        + y
        * (
            np.float32(-1.0 / 6)
            + y
            * (
                np.float32(1.0 / 120)
                + y
                * (np.float32(-1.0 / 5040) + y * (np.float32(1.0 / 362880) - y * np.float32(1.0 / 39916800)))
            )
        )
    )
    c = np.float32(1.0) + y * (
        np.float32(-0.5)
        + y
        * (
            np.float32(1.0 / 24)
            + y
            * (
                np.float32(-1.0 / 720)
                + y
                * (
                    np.float32(1.0 / 40320)
                    + y * (np.float32(-1.0 / 3628800) + y * np.float32(1.0 / 479001600))
                )
            )
        )
    )
    return s, sign * c


@numba.njit(inline="always", fastmath=True)
def find_delays(uvw: Float, start: int, rows: int, lmn: Float, k: int, delay: Float) -> None:
    """Find the delays of source k on the rows of a tile, in seconds."""
    l, m, nm1 = lmn[k, 0], lmn[k, 1], lmn[k, 2]  # noqa: E741
    for r in range(rows):
        delay[r] = (uvw[start + r, 0] * l + uvw[start + r, 1] * m + uvw[start + r, 2] * nm1) / SPEED_OF_LIGHT


@numba.njit(inline="always", fastmath=True)
def form_phasors(delay: Float, freq: float, re: Single, im: Single) -> None:
    """Form exp(2 pi i delay freq) on a tile; the phase is wrapped in double precision."""
    for r in range(TILE):
        turns = delay[r] * freq
        im[r], re[r] = sine_cosine(np.float32(turns - np.rint(turns)))


@numba.njit(parallel=True, fastmath=True, cache=True)
def _sum_points(
    uvw: Float,
    first_row: Int,
    n_rows: Int,
    spectrum: Int,
    freq: Float,
    step: float,
    restart: int,
    lmn: Float,
    flux: Single,
    out: Vis,
) -> None:
    nchan, n = freq.size, lmn.shape[0]
    for tile in numba.prange(first_row.size):
        start, rows, of = first_row[tile], n_rows[tile], spectrum[tile]
        re = np.zeros((nchan, TILE), dtype=np.float32)
        im = np.zeros((nchan, TILE), dtype=np.float32)
        delay = np.zeros(TILE, dtype=np.float64)
        pr = np.zeros(TILE, dtype=np.float32)
        pi = np.zeros(TILE, dtype=np.float32)
        dr = np.zeros(TILE, dtype=np.float32)
        di = np.zeros(TILE, dtype=np.float32)
        for k in range(n):
            find_delays(uvw, start, rows, lmn, k, delay)
            form_phasors(delay, step, dr, di)
            for c in range(nchan):
                if c % restart == 0:
                    form_phasors(delay, freq[c], pr, pi)
                s = flux[of, k, c]
                for r in range(TILE):
                    re[c, r] += s * pr[r]
                    im[c, r] += s * pi[r]
                    turned = pr[r] * dr[r] - pi[r] * di[r]
                    pi[r] = pr[r] * di[r] + pi[r] * dr[r]
                    pr[r] = turned
        for r in range(rows):
            for c in range(nchan):
                out[start + r, c] += complex(re[c, r], im[c, r])


@numba.njit(parallel=True, fastmath=True, cache=True)
def _sum_gaussians(
    uvw: Float,
    first_row: Int,
    n_rows: Int,
    spectrum: Int,
    freq: Float,
    step: float,
    restart: int,
    lmn: Float,
    flux: Single,
    shape: Float,
    out: Vis,
) -> None:
    nchan, n = freq.size, lmn.shape[0]
    for tile in numba.prange(first_row.size):
        start, rows, of = first_row[tile], n_rows[tile], spectrum[tile]
        re = np.zeros((nchan, TILE), dtype=np.float32)
        im = np.zeros((nchan, TILE), dtype=np.float32)
        delay = np.zeros(TILE, dtype=np.float64)
        width = np.zeros(TILE, dtype=np.float64)
        pr = np.zeros(TILE, dtype=np.float32)
        pi = np.zeros(TILE, dtype=np.float32)
        dr = np.zeros(TILE, dtype=np.float32)
        di = np.zeros(TILE, dtype=np.float32)
        taper = np.zeros(TILE, dtype=np.float32)
        ratio = np.zeros(TILE, dtype=np.float32)
        ratio2 = np.zeros(TILE, dtype=np.float32)
        for k in range(n):
            find_delays(uvw, start, rows, lmn, k, delay)
            form_phasors(delay, step, dr, di)
            for r in range(rows):
                u, v, w = uvw[start + r, 0], uvw[start + r, 1], uvw[start + r, 2]
                along = u * shape[k, 0] + v * shape[k, 1] + w * shape[k, 2]
                across = u * shape[k, 3] + v * shape[k, 4] + w * shape[k, 5]
                width[r] = GAUSSIAN * (along * along + across * across) / SPEED_OF_LIGHT**2
                # exp(-width f^2) by second-order recurrence along evenly spaced channels.
                ratio2[r] = np.exp(-2.0 * width[r] * step * step)
            for c in range(nchan):
                if c % restart == 0:
                    f = freq[c]
                    form_phasors(delay, f, pr, pi)
                    for r in range(rows):
                        taper[r] = np.exp(-width[r] * f * f)
                        ratio[r] = np.exp(-width[r] * (2.0 * f * step + step * step))
                s = flux[of, k, c]
                for r in range(TILE):
                    a = s * taper[r]
                    re[c, r] += a * pr[r]
                    im[c, r] += a * pi[r]
                    taper[r] *= ratio[r]
                    ratio[r] *= ratio2[r]
                    turned = pr[r] * dr[r] - pi[r] * di[r]
                    pi[r] = pr[r] * di[r] + pi[r] * dr[r]
                    pr[r] = turned
        for r in range(rows):
            for c in range(nchan):
                out[start + r, c] += complex(re[c, r], im[c, r])
