"""How far the sources are from where and how bright their model says, from the residual visibilities."""

from __future__ import annotations

import numba
import numpy as np
import scipy.linalg

from dsa110_contimg.array_types import Float, Vis, Weight
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities.noise import NoiseScale

__all__ = ["N_MOMENTS", "residual_moments", "sampled_coupling", "solve_moments"]


#: Sums per source: three of the residual, one and three of the normal matrix.
N_MOMENTS = 7
#: How far a catalogue may be off in flux (fraction) and position: what the data leave open stays within.
PRIOR_FLUX = 0.3
PRIOR_POSITION_RAD = 3 * ARCSEC


def residual_moments(
    uvw_m: Float,
    freq_hz: Float,
    lmn: Float,
    flux_jy: Float,
    residual: Vis,
    weight: Weight,
) -> Float:
    """Sum what the linear least squares of each source's flux and position need.

    A small change of a source's flux by a fraction e and of its position by
    (dl, dm) changes its visibilities S E by ``S E (e + 2 pi i (u dl + v dm))``. The
    right-hand side of the normal equations and, of their matrix, what concerns
    each source alone are the sums returned here.

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


def sampled_coupling(uvw_m: Float, freq_hz: Float, lmn: Float, flux_jy: Float, weight: Weight) -> Float:
    """Sum, over some visibilities, the whole matrix of the normal equations.

    What couples two sources is the synthesised beam between them: it is known
    well enough from a sample of the visibilities.

    Parameters
    ----------
    uvw_m : ndarray, shape (nsample, 3)
        Baseline of each sampled visibility in metres.
    freq_hz : ndarray, shape (nsample,)
        Its frequency in hertz.
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m, n - 1.
    flux_jy : ndarray, shape (n, nsample)
        Apparent flux density of each source in it.
    weight : ndarray, shape (nsample,)
        Its weight.

    Returns
    -------
    ndarray, shape (3 n, 3 n)
        For all fluxes, then all l, then all m.
    """
    uvw = 2 * np.pi / SPEED_OF_LIGHT * uvw_m.T * freq_hz
    phase = lmn @ uvw
    # In single precision, which is fast, once whole turns are taken out in double precision.
    phase -= 2 * np.pi * np.rint(phase / (2 * np.pi))
    size = (np.sqrt(weight) * flux_jy).astype(np.float32)
    turned = phase.astype(np.float32)
    real, imag = size * np.cos(turned), size * np.sin(turned)
    u, v = uvw[:2].astype(np.float32)
    parts = np.empty((3 * len(lmn), 2 * weight.size), dtype=np.float32)
    # A source's own visibilities, and i u, i v times them.
    for k, (first, second) in enumerate([(real, imag), (-u * imag, u * real), (-v * imag, v * real)]):
        rows = slice(k * len(lmn), (k + 1) * len(lmn))
        parts[rows, : weight.size], parts[rows, weight.size :] = first, second
    return np.asarray(parts @ parts.T, dtype=np.float64)


def solve_moments(moments: Float, noise: NoiseScale, coupling: Float | None = None) -> tuple[Float, Float]:
    """Solve the normal equations of all sources together.

    Parameters
    ----------
    moments : ndarray, shape (n, 7)
        Of :func:`residual_moments`, added up over all data.
    noise : NoiseScale
        Noise relative to the weights.
    coupling : ndarray, shape (3 n, 3 n), optional
        Of :func:`sampled_coupling`, added up, at any scale; without it every source is
        solved for as if it were alone.

    Returns
    -------
    change : ndarray, shape (n, 3)
        Fractional change of flux, and shifts in l and m in radians. What the
        data do not tell is held by a Gaussian prior of `PRIOR_FLUX` and
        `PRIOR_POSITION_RAD`.
    error : ndarray, shape (n, 3)
        Their standard errors; infinite where there are no data.
    """
    n = len(moments)
    r0, r1, r2, h0, h11, h12, h22 = moments.T
    diagonal = np.concatenate([h0, h11, h22])
    seen = diagonal > 0
    scale = np.sqrt(np.where(seen, diagonal, 1.0))
    if coupling is None:
        cross = np.diag(h12 / (scale[n : 2 * n] * scale[2 * n :]))
        correlation = np.eye(3 * n)
        correlation[n : 2 * n, 2 * n :] = cross
        correlation[2 * n :, n : 2 * n] = cross
    else:
        norm = np.sqrt(np.where(np.diag(coupling) > 0, np.diag(coupling), 1.0))
        correlation = coupling / norm / norm[:, None]
    prior = np.repeat([PRIOR_FLUX, PRIOR_POSITION_RAD, PRIOR_POSITION_RAD], n)
    correlation[np.diag_indices(3 * n)] = 1 + noise.variance / 2 / (prior * scale) ** 2
    # In units of each unknown's own error the matrix is of order one, whatever the fluxes.
    factor = scipy.linalg.cho_factor(correlation)
    change = scipy.linalg.cho_solve(factor, np.concatenate([r0, r1, r2]) / scale) / scale
    variance = np.diag(scipy.linalg.cho_solve(factor, np.eye(3 * n))) / scale**2 * noise.variance / 2
    change = np.where(seen, change, 0.0).reshape(3, n).T
    return change, np.where(seen, np.sqrt(variance), np.inf).reshape(3, n).T


@numba.njit(parallel=True, fastmath=True, cache=True)
def _moments(
    uvw: Float,
    freq: Float,
    lmn: Float,
    flux: Float,
    residual: Vis,
    weight: Weight,
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
