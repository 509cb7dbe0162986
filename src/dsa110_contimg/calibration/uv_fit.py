"""How far the sources are from where and how bright their model says, from the residual visibilities."""

from __future__ import annotations

import numba
import numpy as np
import scipy.linalg

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight
from dsa110_contimg.predict.averaged import where_formed
from dsa110_contimg.predict.direct import TILE, find_delays, form_phasors, sine_cosine, tiles_of
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities.noise import NoiseScale

__all__ = [
    "N_MOMENTS",
    "PRIOR_FLUX",
    "PRIOR_POSITION_RAD",
    "residual_moments",
    "sampled_coupling",
    "solve_moments",
]


#: Sums per source: three of the residual, one and three of the normal matrix.
N_MOMENTS = 7
#: So many samples are summed up at once that nothing leaves the processor's caches.
SAMPLES_AT_ONCE = 2048
#: How far a catalogue may be off in flux (fraction) and position: what the data leave open stays within.
PRIOR_FLUX = 0.3
PRIOR_POSITION_RAD = 3 * ARCSEC


def residual_moments(
    uvw_m: Float,
    freq_hz: Float,
    lmn: Float,
    flux_jy: Float | Single,
    residual: Vis,
    weight: Weight,
    spectrum: Int | None = None,
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
        Channels in hertz; of several spectral windows at once it takes less time.
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m, n - 1.
    flux_jy : ndarray, shape (n, nchan) or (nspectrum, n, nchan)
        Apparent flux density.
    residual : ndarray of complex64, shape (nrow, nchan)
        Calibrated data minus the model, Stokes I.
    weight : ndarray of float32, shape (nrow, nchan)
        Weights, zero where flagged.
    spectrum : ndarray of int, shape (nrow,), optional
        Which of several fluxes holds for each row; the first by default.

    Returns
    -------
    ndarray, shape (n, 7)
        To be added up over blocks, then given to :func:`solve_moments`.
    """
    if spectrum is not None and (np.diff(spectrum) < 0).any():
        # Tiles are of one spectrum each.
        order = np.argsort(spectrum, kind="stable")
        rows = residual[order], weight[order], spectrum[order]
        return residual_moments(uvw_m[order], freq_hz, lmn, flux_jy, *rows)
    freq, n = np.ascontiguousarray(freq_hz, dtype=np.float64), len(lmn)
    flux = np.ascontiguousarray(flux_jy, dtype=np.float32).reshape(-1, n, freq.size)
    sums, by_channel = _correlate(
        np.ascontiguousarray(uvw_m, dtype=np.float64),
        *tiles_of(len(uvw_m), spectrum),
        freq,
        *where_formed(freq, (freq.size,)),
        np.ascontiguousarray(lmn, dtype=np.float64),
        flux,
        np.ascontiguousarray(residual),
        np.ascontiguousarray(weight),
    )
    # What concerns a source alone does not depend on where it is.
    power = np.square(flux, dtype=np.float64)
    total = np.einsum("snc,sc->n", power, by_channel[:, 0])
    own = np.einsum("snc,skc->nk", power, by_channel[:, 1:] * freq**2)
    return np.concatenate([sums.sum(axis=0), total[:, None], own], axis=1)


def sampled_coupling(
    uvw_m: Float,
    freq_hz: Float,
    lmn: Float,
    flux_jy: Float | Single,
    weight: Float | Weight,
    n_known: int = 0,
) -> Float:
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
    n_known : int
        How the first sources couple with each other is known: of them only the diagonal is summed.

    Returns
    -------
    ndarray, shape (3 n, 3 n)
        For all fluxes, then all l, then all m.
    """
    n, total = len(lmn), np.zeros((3 * len(lmn), 3 * len(lmn)))
    own, fresh = np.zeros(3 * n), np.flatnonzero(np.arange(3 * n) % n >= n_known)
    at = np.ascontiguousarray(uvw_m * (freq_hz / SPEED_OF_LIGHT)[:, None], dtype=np.float64)
    root = np.sqrt(weight)
    for first in range(0, weight.size, SAMPLES_AT_ONCE):
        some = slice(first, first + SAMPLES_AT_ONCE)
        # A source's own visibilities, and i u, i v times them: real parts, then imaginary ones.
        parts = np.empty((3 * n, 2 * root[some].size), dtype=np.float32)
        size = (root[some] * flux_jy[:, some]).astype(np.float32)
        _fill(at[some], np.ascontiguousarray(lmn, dtype=np.float64), size, parts)
        if n_known:
            own += np.einsum("ks,ks->k", parts, parts)
            total[fresh] += parts[fresh] @ parts.T
        else:
            total += parts @ parts.T
    if n_known:
        total[:, fresh] = total[fresh].T
        total[np.diag_indices(3 * n)] = own
    return total


@numba.njit(parallel=True, fastmath=True, cache=True)
def _fill(uvw: Float, lmn: Float, size: Single, parts: Single) -> None:
    """Fill in visibilities of sources, and their derivatives by l and m, (3 n, 2 nsample)."""
    n, number = size.shape
    turn = np.float32(2 * np.pi)
    for k in numba.prange(n):
        for s in range(number):
            turns = uvw[s, 0] * lmn[k, 0] + uvw[s, 1] * lmn[k, 1] + uvw[s, 2] * lmn[k, 2]
            sine, cosine = sine_cosine(np.float32(turns - np.rint(turns)))
            real, imag = size[k, s] * cosine, size[k, s] * sine
            u, v = turn * np.float32(uvw[s, 0]), turn * np.float32(uvw[s, 1])
            parts[k, s], parts[k, number + s] = real, imag
            parts[n + k, s], parts[n + k, number + s] = -u * imag, u * real
            parts[2 * n + k, s], parts[2 * n + k, number + s] = -v * imag, v * real


def solve_moments(
    moments: Float,
    noise: NoiseScale,
    coupling: Float | None = None,
    *,
    prior_flux: float = PRIOR_FLUX,
    prior_position_rad: float = PRIOR_POSITION_RAD,
    taken: Float | None = None,
) -> tuple[Float, Float]:
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
    prior_flux, prior_position_rad : float
        Widths of the Gaussian priors, a fraction of the flux and radians.
    taken : ndarray, shape (n, n), optional
        What the gains have taken of changes of the fluxes, of :func:`gain_share`: fluxes and their errors are
        those of a solution for fluxes and gains together then.

    Returns
    -------
    change : ndarray, shape (n, 3)
        Fractional change of flux, and shifts in l and m in radians. What the
        data do not tell is held by the priors.
    error : ndarray, shape (n, 3)
        Their standard errors; infinite where there are no data.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the gains have taken so much of the sources that nothing tells them apart.
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
    prior = np.repeat([prior_flux, prior_position_rad, prior_position_rad], n)
    correlation[np.diag_indices(3 * n)] = 1 + noise.variance / 2 / (prior * scale) ** 2
    if taken is not None:
        correlation[:n, :n] -= taken
    # In units of each unknown's own error the matrix is of order one, whatever the fluxes.
    factor = _factored(correlation, lifted=taken is None)
    change = scipy.linalg.cho_solve(factor, np.concatenate([r0, r1, r2]) / scale) / scale
    variance = np.diag(scipy.linalg.cho_solve(factor, np.eye(3 * n))) / scale**2 * noise.variance / 2
    change = np.where(seen, change, 0.0).reshape(3, n).T
    return change, np.where(seen, np.sqrt(variance), np.inf).reshape(3, n).T


def _factored(correlation: Float, *, lifted: bool) -> tuple[Float, bool]:
    """Cholesky factor of a matrix of about unit diagonal, as :func:`scipy.linalg.cho_solve` takes it.

    Correlations that were summed in single precision, of sources that few baselines do not tell apart, may
    not be positive definite: what they lack is put on the diagonal; such sources stay as they are, with large
    errors. What `lifted` does not allow is more of that than rounding takes: LinAlgError.
    """
    try:
        return scipy.linalg.cho_factor(correlation)  # type: ignore[no-any-return]
    except np.linalg.LinAlgError:
        lowest = float(scipy.linalg.eigvalsh(correlation, subset_by_index=[0, 0])[0])
        rounding = len(correlation) * float(np.finfo(np.float32).eps)
        if not lifted and lowest < -rounding:
            raise
        lost = 2 * abs(lowest) + rounding
        return scipy.linalg.cho_factor(correlation + lost * np.eye(len(correlation)))  # type: ignore[no-any-return]


@numba.njit(parallel=True, fastmath=True, cache=True)
def _correlate(
    uvw: Float,
    first_row: Int,
    n_rows: Int,
    spectrum: Int,
    freq: Float,
    step: float,
    formed: Bool,
    lmn: Float,
    flux: Single,
    residual: Vis,
    weight: Weight,
) -> tuple[Float, Float]:
    """Three sums of the residual for each task and source; weights and their moments by spectrum and channel.

    Tiles of rows are as in the prediction.
    """
    nchan, n, ntile = freq.size, lmn.shape[0], first_row.size
    # Few large tasks: each keeps sums of its own for every source.
    ntask = max(1, min(64, ntile))
    out = np.zeros((ntask, n, 3))
    turn = 2 * np.pi / SPEED_OF_LIGHT
    of_tiles = np.zeros((ntile, 4, nchan))
    for task in numba.prange(ntask):
        re = np.zeros((nchan, TILE), dtype=np.float32)
        im = np.zeros((nchan, TILE), dtype=np.float32)
        delay = np.zeros(TILE, dtype=np.float64)
        pr = np.zeros(TILE, dtype=np.float32)
        pi = np.zeros(TILE, dtype=np.float32)
        dr = np.zeros(TILE, dtype=np.float32)
        di = np.zeros(TILE, dtype=np.float32)
        aligned = np.zeros(TILE, dtype=np.float32)
        across = np.zeros(TILE, dtype=np.float32)
        for tile in range(task * ntile // ntask, (task + 1) * ntile // ntask):
            start, rows, of = first_row[tile], n_rows[tile], spectrum[tile]
            re[:], im[:], delay[:] = 0, 0, 0
            for r in range(rows):
                u, v = turn * uvw[start + r, 0], turn * uvw[start + r, 1]
                for c in range(nchan):
                    w = weight[start + r, c]
                    re[c, r] = w * residual[start + r, c].real
                    im[c, r] = w * residual[start + r, c].imag
                    of_tiles[tile, 0, c] += w
                    of_tiles[tile, 1, c] += w * (u * u)
                    of_tiles[tile, 2, c] += w * (u * v)
                    of_tiles[tile, 3, c] += w * (v * v)
            for k in range(n):
                find_delays(uvw, start, rows, lmn, k, delay)
                aligned[:], across[:] = 0, 0
                form_phasors(delay, step, dr, di)
                for c in range(nchan):
                    if formed[c]:
                        form_phasors(delay, freq[c], pr, pi)
                    s = flux[of, k, c]
                    sf = s * np.float32(freq[c])
                    for r in range(TILE):
                        aligned[r] += s * (pr[r] * re[c, r] + pi[r] * im[c, r])
                        across[r] += sf * (pr[r] * im[c, r] - pi[r] * re[c, r])
                        turned = pr[r] * dr[r] - pi[r] * di[r]
                        pi[r] = pr[r] * di[r] + pi[r] * dr[r]
                        pr[r] = turned
                for r in range(rows):
                    out[task, k, 0] += aligned[r]
                    out[task, k, 1] += turn * uvw[start + r, 0] * across[r]
                    out[task, k, 2] += turn * uvw[start + r, 1] * across[r]
    by_channel = np.zeros((flux.shape[0], 4, nchan))
    for tile in range(ntile):
        by_channel[spectrum[tile]] += of_tiles[tile]
    return out, by_channel
