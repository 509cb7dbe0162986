"""Direct Fourier sums over sky components, averaged over channels without smearing.

The mean of k evenly spaced channels of one point source is its phasor at their centre times ``sin(k x) / (k
sin x)``, x being pi times delay times channel width: the sum of a geometric series. A flux that is a
parabola in frequency adds the means of ``j exp(2 i x j)`` and ``(j^2 - <j^2>) exp(2 i x j)`` over the
channels j counted from the centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int, Single, Vis
from dsa110_contimg.predict.direct import (
    GAUSSIAN,
    RESTART,
    TILE,
    find_delays,
    form_phasors,
    predict_reference,
    projected_extents,
    sine_cosine,
    tiles_of,
)
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT

__all__ = ["predict_averaged", "predict_averaged_reference", "predict_samples"]

#: Terms of the power series of a mean over channels, and the phase of the outermost channel against the
#: centre, radians, up to which they are exact to 1e-8; beyond it the channels are summed.
TERMS = 5
SERIES_LIMIT = 0.9
#: Sources that are added up in single precision: many of one phase would round off more than their errors.
FLUSH = 32


def predict_averaged(
    uvw_m: Float,
    freq_hz: Float,
    count: Int,
    channel_width_hz: float,
    lmn: Float,
    moments_jy: Float | Single,
    major_rad: Float | None = None,
    minor_rad: Float | None = None,
    pa_rad: Float | None = None,
    spectrum: Int | None = None,
    windows: Sequence[int] | None = None,
) -> Vis:
    """Sum components into visibilities that are plain means over channels.

    Parameters
    ----------
    uvw_m : ndarray, shape (nrow, 3)
        Baselines in metres, antenna 2 minus antenna 1.
    freq_hz : ndarray, shape (nbin,)
        Centres of the bins in hertz, any spacing.
    count : ndarray of int, shape (nbin,)
        Evenly spaced channels in each bin.
    channel_width_hz : float
        Distance of neighbouring channels in hertz, with its sign.
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m and n - 1 of the components.
    moments_jy : ndarray, shape (3, n, nbin) or (nspectrum, 3, n, nbin)
        Apparent Stokes I flux density in jansky over the channels j of each bin, counted from its centre:
        mean, and the factors of j and of ``j^2`` less its mean.
    major_rad, minor_rad, pa_rad : ndarray, shape (n,), optional
        Gaussian full widths and position angles in radians; zero widths are points.
    spectrum : ndarray of int, shape (nrow,), optional
        Which of several spectra holds for each row; the first by default.
    windows : sequence of int, optional
        Bins of each spectral window, where there are several: each is predicted as it would be alone.

    Returns
    -------
    ndarray of complex64, shape (nrow, nbin)
        Visibilities in jansky, with the sign of :func:`predict_components`.

    Notes
    -----
    Points whose spectrum is a parabola over the bin are exact; errors are those of single precision, below
    1e-6 of the summed flux. The taper of a Gaussian is taken to second order as well: of one that is
    resolved to exp(-a) the third is left, ``(a width / frequency)^3 / 6`` of its flux or less.
    """
    n, nbin = len(lmn), len(freq_hz)
    out = np.zeros((len(uvw_m), nbin), dtype=np.complex64)
    if n == 0 or len(uvw_m) == 0:
        return out
    if moments_jy.shape[-3:] != (3, n, nbin):
        raise ValueError(f"moments_jy has shape {moments_jy.shape}, not {(3, n, nbin)}")
    if spectrum is not None and (np.diff(spectrum) < 0).any():
        # Tiles are of one spectrum each.
        order = np.argsort(spectrum, kind="stable")
        more = major_rad, minor_rad, pa_rad, spectrum[order], windows
        out[order] = predict_averaged(uvw_m[order], freq_hz, count, channel_width_hz, lmn, moments_jy, *more)
        return out
    freq = np.ascontiguousarray(freq_hz, dtype=np.float64)
    sizes, kind = np.unique(count, return_inverse=True)
    step, formed = where_formed(freq, windows or (nbin,))
    shape = projected_extents(lmn, major_rad, minor_rad, pa_rad)
    extended = np.zeros(n, dtype=bool) if major_rad is None else major_rad > 0
    moments = np.asarray(moments_jy, dtype=np.float32).reshape(-1, 3, n, nbin)
    if extended.any():
        # Points first: they share no branch with Gaussians within a tile.
        order = np.argsort(extended, kind="stable")
        lmn, moments, shape = lmn[order], moments[:, :, order], shape[order]
    _sum_averaged(
        np.ascontiguousarray(uvw_m, dtype=np.float64),
        *tiles_of(len(uvw_m), spectrum),
        freq,
        step,
        formed,
        float(channel_width_hz),
        sizes.astype(np.int64),
        kind.reshape(-1).astype(np.int64),
        find_series(tuple(int(k) for k in sizes)),
        np.ascontiguousarray(lmn, dtype=np.float64),
        np.ascontiguousarray(moments),
        np.ascontiguousarray(shape),
        int(np.count_nonzero(~extended)),
        out,
    )
    return out


def where_formed(freq_hz: Float, windows: Sequence[int]) -> tuple[float, Bool]:
    """By how many hertz phases are rotated on from bin to bin, and at which bins they are formed anew.

    That is at the first bin of each window, every `RESTART` bins of it, and wherever the distance is not the
    usual one.
    """
    of_windows = np.split(freq_hz, np.cumsum(windows)[:-1])
    steps = np.concatenate([np.diff(freq) for freq in of_windows])
    step = float(np.median(steps)) if steps.size else 0.0
    formed = []
    for freq in of_windows:
        even = np.abs(np.diff(freq) - step) <= 1e-9 * abs(step)
        since = 0
        for follows in (False, *even):
            since = since + 1 if follows and since < RESTART - 1 else 0
            formed.append(since == 0)
    return step, np.array(formed)


@lru_cache(maxsize=256)
def find_series(sizes: tuple[int, ...]) -> Single:
    """Coefficients of the means of cos(y j), j sin(y j) / y and (j^2 - <j^2>) cos(y j), in powers of y^2.

    Returns
    -------
    ndarray of float32, shape (nsize, 3, TERMS)
        From ``m_2n = mean of j^(2 n)``, j being k channels about their centre.
    """
    out = np.zeros((len(sizes), 3, TERMS))
    for row, k in enumerate(sizes):
        j = np.arange(k) - (k - 1) / 2
        for n in range(TERMS):
            sign = (-1) ** n
            out[row, 0, n] = sign * np.mean(j ** (2 * n)) / math.factorial(2 * n)
            out[row, 1, n] = sign * np.mean(j ** (2 * n + 2)) / math.factorial(2 * n + 1)
            square = np.mean(j ** (2 * n + 2)) - np.mean(j**2) * np.mean(j ** (2 * n))
            out[row, 2, n] = sign * square / math.factorial(2 * n)
    return out.astype(np.float32)


def predict_averaged_reference(
    uvw_m: Float,
    freq_hz: Float,
    lmn: Float,
    flux_jy: Float,
    start: Int,
    count: Int,
    major_rad: Float | None = None,
    minor_rad: Float | None = None,
    pa_rad: Float | None = None,
) -> Complex:
    """Sum the components channel by channel in float64, and take the means: the judge of the kernel.

    Parameters
    ----------
    uvw_m, freq_hz, lmn, flux_jy, major_rad, minor_rad, pa_rad
        As of :func:`predict_reference`: all channels.
    start, count : ndarray of int, shape (nbin,)
        First channel and number of channels of each bin.

    Returns
    -------
    ndarray of complex128, shape (nrow, nbin)
    """
    full = predict_reference(uvw_m, freq_hz, lmn, flux_jy, major_rad, minor_rad, pa_rad)
    return np.stack([full[:, a : a + k].mean(axis=1) for a, k in zip(start, count, strict=True)], axis=1)


def predict_samples(
    uvw_m: Float,
    freq_hz: Float,
    spectrum: Int,
    lmn: Float,
    flux_jy: Single,
    major_rad: Float,
    minor_rad: Float,
    pa_rad: Float,
) -> Vis:
    """Sum components into single visibilities, each of a baseline and a channel of its own.

    Parameters
    ----------
    uvw_m : ndarray, shape (m, 3)
        Baselines in metres.
    freq_hz : ndarray, shape (m,)
        Frequencies in hertz.
    spectrum : ndarray of int, shape (m,)
        Which row of the fluxes holds for each.
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m and n - 1.
    flux_jy : ndarray of float32, shape (nspectrum, n)
        Apparent flux densities in jansky.
    major_rad, minor_rad, pa_rad : ndarray, shape (n,)
        Gaussian full widths and position angles in radians; zero widths are points.

    Returns
    -------
    ndarray of complex64, shape (m,)
        Jansky.
    """
    out = np.zeros(len(uvw_m), dtype=np.complex64)
    if len(lmn) and len(uvw_m):
        _sum_samples(
            uvw_m / SPEED_OF_LIGHT * freq_hz[:, None],
            spectrum,
            np.ascontiguousarray(lmn.T),
            flux_jy,
            np.ascontiguousarray(projected_extents(lmn, major_rad, minor_rad, pa_rad).T),
            bool((major_rad > 0).any()),
            out,
        )
    return out


@numba.njit(parallel=True, fastmath=True, cache=True)
def _sum_samples(
    uvw: Float, spectrum: Int, lmn: Float, flux: Single, shape: Float, extended: bool, out: Vis
) -> None:
    for s in numba.prange(uvw.shape[0]):
        u, v, w = uvw[s, 0], uvw[s, 1], uvw[s, 2]
        of, total_re, total_im = spectrum[s], 0.0, 0.0
        for first in range(0, lmn.shape[1], FLUSH):
            re, im = np.float32(0), np.float32(0)
            for k in range(first, min(first + FLUSH, lmn.shape[1])):
                turns = u * lmn[0, k] + v * lmn[1, k] + w * lmn[2, k]
                sine, cosine = sine_cosine(np.float32(turns - np.rint(turns)))
                f = flux[of, k]
                if extended:
                    along = u * shape[0, k] + v * shape[1, k] + w * shape[2, k]
                    across = u * shape[3, k] + v * shape[4, k] + w * shape[5, k]
                    f *= np.float32(np.exp(-GAUSSIAN * (along * along + across * across)))
                re += f * cosine
                im += f * sine
            total_re += float(re)
            total_im += float(im)
        out[s] = complex(total_re, total_im)


@numba.njit(parallel=True, fastmath=True, cache=True)
def _sum_averaged(
    uvw: Float,
    first_row: Int,
    n_rows: Int,
    spectrum: Int,
    freq: Float,
    step: float,
    formed: Bool,
    width: float,
    sizes: Int,
    kind: Int,
    series: Single,
    lmn: Float,
    moments: Single,
    shape: Float,
    points: int,
    out: Vis,
) -> None:
    nbin, n, nsize = freq.size, lmn.shape[0], sizes.size
    # Bins from one where phases are formed to the next: what is added up for them stays in the first cache.
    changes = formed.copy()
    changes[1:] |= kind[1:] != kind[:-1]
    starts = np.append(np.flatnonzero(changes), nbin)
    for tile in numba.prange(first_row.size):
        start, rows, of = first_row[tile], n_rows[tile], spectrum[tile]
        re = np.zeros((RESTART, TILE), dtype=np.float32)
        im = np.zeros((RESTART, TILE), dtype=np.float32)
        sum_re = np.zeros((nbin, TILE), dtype=np.float64)
        sum_im = np.zeros((nbin, TILE), dtype=np.float64)
        delay = np.zeros((FLUSH, TILE), dtype=np.float64)
        size = np.zeros((FLUSH, TILE), dtype=np.float64)
        pr = np.zeros(TILE, dtype=np.float32)
        pi = np.zeros(TILE, dtype=np.float32)
        dr = np.zeros((FLUSH, TILE), dtype=np.float32)
        di = np.zeros((FLUSH, TILE), dtype=np.float32)
        u = np.zeros(TILE, dtype=np.float32)
        v = np.zeros(TILE, dtype=np.float32)
        e = np.zeros(TILE, dtype=np.float32)
        o = np.zeros(TILE, dtype=np.float32)
        d = np.zeros(TILE, dtype=np.float32)
        cr = np.zeros(TILE, dtype=np.float32)
        ci = np.zeros(TILE, dtype=np.float32)
        hr = np.zeros(TILE, dtype=np.float32)
        hi = np.zeros(TILE, dtype=np.float32)
        even = np.zeros((FLUSH, nsize, TILE), dtype=np.float32)
        odd = np.zeros((FLUSH, nsize, TILE), dtype=np.float32)
        bent = np.zeros((FLUSH, nsize, TILE), dtype=np.float32)
        for first in range(0, n, FLUSH):
            many = min(FLUSH, n - first)
            of_points = min(many, max(0, points - first))
            for i in range(many):
                k = first + i
                find_delays(uvw, start, rows, lmn, k, delay[i])
                longest = 0.0
                for r in range(rows):
                    longest = max(longest, abs(delay[i, r]))
                for q in range(nsize):
                    if 2 * np.pi * longest * abs(width) * (sizes[q] - 1) / 2 <= SERIES_LIMIT:
                        # Written out: a loop over the terms within that over rows would not be vectorised.
                        a0, a1, a2, a3, a4 = series[q, 0]
                        b0, b1, b2, b3, b4 = series[q, 1]
                        d0, d1, d2, d3, d4 = series[q, 2]
                        for r in range(TILE):
                            y = np.float32(2 * np.pi * width * delay[i, r])
                            z = y * y
                            even[i, q, r] = a0 + z * (a1 + z * (a2 + z * (a3 + z * a4)))
                            odd[i, q, r] = y * (b0 + z * (b1 + z * (b2 + z * (b3 + z * b4))))
                            bent[i, q, r] = d0 + z * (d1 + z * (d2 + z * (d3 + z * d4)))
                    else:
                        # Pairs of channels at equal distance from the centre: j = 1/2, 3/2, ... or 1, 2, ...
                        whole = sizes[q] % 2
                        square = np.float32((sizes[q] * sizes[q] - 1) / 12)
                        for r in range(TILE):
                            turns = delay[i, r] * width
                            ci[r], cr[r] = sine_cosine(np.float32(turns - np.rint(turns)))
                            half = turns if whole else 0.5 * turns
                            hi[r], hr[r] = sine_cosine(np.float32(half - np.rint(half)))
                            even[i, q, r] = np.float32(whole)
                            odd[i, q, r] = np.float32(0)
                            bent[i, q, r] = -square * np.float32(whole)
                        for pair in range(sizes[q] // 2):
                            j = np.float32(pair + 1.0) if whole else np.float32(pair + 0.5)
                            for r in range(TILE):
                                even[i, q, r] += np.float32(2) * hr[r]
                                odd[i, q, r] += np.float32(2) * j * hi[r]
                                bent[i, q, r] += np.float32(2) * (j * j - square) * hr[r]
                                turned = hr[r] * cr[r] - hi[r] * ci[r]
                                hi[r] = hr[r] * ci[r] + hi[r] * cr[r]
                                hr[r] = turned
                        share = np.float32(1.0 / sizes[q])
                        for r in range(TILE):
                            even[i, q, r] *= share
                            odd[i, q, r] *= share
                            bent[i, q, r] *= share
                form_phasors(delay[i], step, dr[i], di[i])
                if k >= points:
                    for r in range(rows):
                        east, north, up = uvw[start + r, 0], uvw[start + r, 1], uvw[start + r, 2]
                        along = east * shape[k, 0] + north * shape[k, 1] + up * shape[k, 2]
                        across = east * shape[k, 3] + north * shape[k, 4] + up * shape[k, 5]
                        size[i, r] = GAUSSIAN * (along * along + across * across) / SPEED_OF_LIGHT**2
            for part in range(starts.size - 1):
                begin, q = starts[part], kind[starts[part]]
                many_bins = starts[part + 1] - begin
                for c in range(many_bins):
                    for r in range(TILE):
                        re[c, r] = np.float32(0)
                        im[c, r] = np.float32(0)
                for i in range(of_points):
                    for r in range(TILE):
                        turns = delay[i, r] * freq[begin]
                        pi[r], pr[r] = sine_cosine(np.float32(turns - np.rint(turns)))
                        # Copied so that all but what is added up stays in registers in the loop over bins.
                        e[r], o[r], d[r] = even[i, q, r], odd[i, q, r], bent[i, q, r]
                        u[r], v[r] = dr[i, r], di[i, r]
                    for c in range(many_bins):
                        s, ds, dds = (
                            moments[of, 0, first + i, begin + c],
                            moments[of, 1, first + i, begin + c],
                            moments[of, 2, first + i, begin + c],
                        )
                        for r in range(TILE):
                            x, y = pr[r], pi[r]
                            a, b = s * e[r] + dds * d[r], ds * o[r]
                            re[c, r] += a * x - b * y
                            im[c, r] += a * y + b * x
                            pr[r] = x * u[r] - y * v[r]
                            pi[r] = x * v[r] + y * u[r]
                spread = (sizes[q] * sizes[q] - 1) / 12
                for i in range(of_points, many):
                    form_phasors(delay[i], freq[begin], pr, pi)
                    for c in range(many_bins):
                        f = freq[begin + c]
                        s, ds, dds = (
                            moments[of, 0, first + i, begin + c],
                            moments[of, 1, first + i, begin + c],
                            moments[of, 2, first + i, begin + c],
                        )
                        for r in range(rows):
                            # Flux times taper, exp(-size f^2), to second order in the channel.
                            taper = np.exp(-size[i, r] * f * f)
                            slope = -2 * size[i, r] * f * width
                            second = 0.5 * (slope * slope - 2 * size[i, r] * width * width)
                            mean = np.float32(taper * (s + (s * second + ds * slope) * spread))
                            curve = np.float32(taper * (dds + ds * slope + s * second))
                            a = mean * even[i, q, r] + curve * bent[i, q, r]
                            b = np.float32(taper * (ds + s * slope)) * odd[i, q, r]
                            re[c, r] += a * pr[r] - b * pi[r]
                            im[c, r] += a * pi[r] + b * pr[r]
                        for r in range(TILE):
                            turned = pr[r] * dr[i, r] - pi[r] * di[i, r]
                            pi[r] = pr[r] * di[i, r] + pi[r] * dr[i, r]
                            pr[r] = turned
                for c in range(many_bins):
                    for r in range(TILE):
                        sum_re[begin + c, r] += re[c, r]
                        sum_im[begin + c, r] += im[c, r]
        for r in range(rows):
            for c in range(nbin):
                out[start + r, c] = complex(sum_re[c, r], sum_im[c, r])
