"""How far each source is from where and how bright its model says, from the residual visibilities."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.sky.beam import SPEED_OF_LIGHT

__all__ = ["N_MOMENTS", "residual_moments", "solve_moments"]

Float = NDArray[np.float64]

#: Sums per source: three of the residual, one and three of the normal matrix.
N_MOMENTS = 7


def residual_moments(
    uvw_m: Float,
    freq_hz: Float,
    lmn: Float,
    flux_jy: Float,
    residual: NDArray[np.complex64],
    weight: NDArray[np.float32],
) -> Float:
    """Sum what the linear least squares of each source's flux and position need.

    A small change of a source's flux by a fraction e and of its position by
    (dl, dm) changes its visibilities S E by ``S E (e + 2 pi i (u dl + v dm))``. Source by
    source, the others held, the normal equations need the sums returned here.

    Parameters
    ----------
    uvw_m : ndarray, shape (nrow, 3)
        Baselines in metres.
    freq_hz : ndarray, shape (nchan,)
        Channels in hertz.
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m, n - 1.
    flux_jy : ndarray, shape (n, nchan)
        Apparent flux density.
    residual : ndarray of complex64, shape (nrow, nchan)
        Calibrated data minus the model, Stokes I.
    weight : ndarray of float32, shape (nrow, nchan)
        Weights, zero where flagged.

    Returns
    -------
    ndarray, shape (n, 7)
        To be added up over blocks, then given to :func:`solve_moments`.
    """
    tiles = _moments(
        np.ascontiguousarray(uvw_m, dtype=np.float64),
        np.ascontiguousarray(freq_hz, dtype=np.float64),
        np.ascontiguousarray(lmn, dtype=np.float64),
        np.ascontiguousarray(flux_jy, dtype=np.float64),
        np.ascontiguousarray(residual),
        np.ascontiguousarray(weight),
    )
    return np.asarray(tiles.sum(axis=0))


def solve_moments(moments: Float, noise_scale2: float) -> tuple[Float, Float]:
    """Solve each source's normal equations.

    Parameters
    ----------
    moments : ndarray, shape (n, 7)
        Added up over all data.
    noise_scale2 : float
        Variance of a complex visibility times its weight.

    Returns
    -------
    change : ndarray, shape (n, 3)
        Fractional change of flux, and shifts in l and m in radians.
    error : ndarray, shape (n, 3)
        Their standard errors; infinite where there are no data.
    """
    r0, r1, r2, h0, h11, h12, h22 = moments.T
    determinant = h11 * h22 - h12**2
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.stack(
            [r0 / h0, (h22 * r1 - h12 * r2) / determinant, (h11 * r2 - h12 * r1) / determinant], axis=1
        )
        variance = np.stack([1 / h0, h22 / determinant, h11 / determinant], axis=1) * noise_scale2 / 2
    bad = ~(np.isfinite(change) & np.isfinite(variance) & (variance > 0))
    return np.where(bad, 0.0, change), np.where(bad, np.inf, np.sqrt(np.where(bad, 1.0, variance)))


@numba.njit(parallel=True, fastmath=True, cache=True)
def _moments(
    uvw: Float,
    freq: Float,
    lmn: Float,
    flux: Float,
    residual: NDArray[np.complex64],
    weight: NDArray[np.float32],
) -> Float:
    nrow, nchan, n = uvw.shape[0], freq.size, lmn.shape[0]
    # Few large tasks: each keeps sums of its own for every source.
    ntask = max(1, min(64, nrow // 64))
    out = np.zeros((ntask, n, N_MOMENTS))
    step = freq[1] - freq[0] if nchan > 1 else 0.0
    even = True
    for c in range(2, nchan):
        if abs(freq[c] - freq[c - 1] - step) > 1e-9 * abs(step):
            even = False
    for task in numba.prange(ntask):
        for row in range(task * nrow // ntask, (task + 1) * nrow // ntask):
            u = 2 * np.pi * uvw[row, 0] / SPEED_OF_LIGHT
            v = 2 * np.pi * uvw[row, 1] / SPEED_OF_LIGHT
            w = 2 * np.pi * uvw[row, 2] / SPEED_OF_LIGHT
            for k in range(n):
                delay = u * lmn[k, 0] + v * lmn[k, 1] + w * lmn[k, 2]
                phase = delay * freq[0]
                re, im = np.cos(phase), np.sin(phase)
                cos, sin = np.cos(delay * step), np.sin(delay * step)
                real = imag = power = spread = 0.0
                for c in range(nchan):
                    if not even:
                        phase = delay * freq[c]
                        re, im = np.cos(phase), np.sin(phase)
                    d = residual[row, c]
                    s = weight[row, c] * flux[k, c]
                    f = freq[c]
                    real += s * (re * d.real + im * d.imag)
                    imag += s * f * (re * d.imag - im * d.real)
                    power += s * flux[k, c]
                    spread += s * flux[k, c] * f * f
                    re, im = re * cos - im * sin, re * sin + im * cos
                sums = out[task, k]
                sums[0] += real
                sums[1] += u * imag
                sums[2] += v * imag
                sums[3] += power
                sums[4] += u * u * spread
                sums[5] += u * v * spread
                sums[6] += v * v * spread
    return out
