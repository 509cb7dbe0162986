"""What antennas with beams of their own see beside what they would see through one common beam."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis
from dsa110_contimg.predict.averaged import SERIES_LIMIT, find_series, where_formed
from dsa110_contimg.predict.direct import (
    GAUSSIAN,
    TILE,
    find_delays,
    form_phasors,
    projected_extents,
    tiles_of,
)
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT

__all__ = ["predict_own_beams"]


def predict_own_beams(
    uvw_m: Float,
    antenna1: Int,
    antenna2: Int,
    freq_hz: Float,
    count: Int,
    channel_width_hz: float,
    lmn: Float,
    voltage: Single,
    common_jy: Float,
    flux_jy: Float,
    major_rad: Float,
    minor_rad: Float,
    pa_rad: Float,
    windows: Sequence[int] | None = None,
) -> Vis:
    """Sum ``(S a_p a_q - S A) exp(2 pi i delay freq)`` over components.

    Parameters
    ----------
    uvw_m : ndarray, shape (nrow, 3)
        Baselines in metres, antenna 2 minus antenna 1.
    antenna1, antenna2 : ndarray of int, shape (nrow,)
        Antennas.
    freq_hz : ndarray, shape (nbin,)
        Centres of the channels, or of the bins that were averaged, in hertz.
    count : ndarray of int, shape (nbin,)
        Evenly spaced channels in each bin.
    channel_width_hz : float
        Distance of neighbouring channels in hertz, with its sign.
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m and n - 1 of the components about the phase centre.
    voltage : ndarray of float32, shape (n, nbin, nant)
        Voltage patterns a of the antennas towards the components.
    common_jy : ndarray, shape (n, nbin)
        Flux densities S A through the common beam, which is subtracted.
    flux_jy : ndarray, shape (n, nbin)
        Flux densities S outside the beam; they may be negative, but of one sign in each component.
    major_rad, minor_rad, pa_rad : ndarray, shape (n,)
        Gaussian full widths and position angles in radians; zero widths are points.
    windows : sequence of int, optional
        Bins of each spectral window, where there are several.

    Returns
    -------
    ndarray of complex64, shape (nrow, nbin)
        Jansky, with the sign of :func:`predict_components`.

    Notes
    -----
    Fluxes are those at the centre of a bin: what a slope of the *difference* of two beams adds within a bin
    is of second order.
    """
    n, nbin = len(lmn), len(freq_hz)
    out = np.zeros((len(uvw_m), nbin), dtype=np.complex64)
    if n == 0 or len(uvw_m) == 0:
        return out
    if voltage.shape[:2] != (n, nbin):
        raise ValueError(f"voltage has shape {voltage.shape}, not {(n, nbin)} and the antennas")
    freq = np.ascontiguousarray(freq_hz, dtype=np.float64)
    sizes, kind = np.unique(count, return_inverse=True)
    step, formed = where_formed(freq, windows or (nbin,))
    first_row, n_rows, _ = tiles_of(len(uvw_m))
    root = np.sqrt(np.abs(flux_jy)).astype(np.float32)
    _sum_differences(
        np.ascontiguousarray(uvw_m, dtype=np.float64),
        antenna1.astype(np.int32),
        antenna2.astype(np.int32),
        first_row,
        n_rows,
        freq,
        step,
        formed,
        float(channel_width_hz),
        sizes.astype(np.int64),
        kind.reshape(-1).astype(np.int64),
        find_series(tuple(int(k) for k in sizes)),
        np.ascontiguousarray(lmn, dtype=np.float64),
        voltage * root[:, :, None],
        common_jy.astype(np.float32),
        np.where(flux_jy.mean(axis=1) < 0, -1, 1).astype(np.float32),
        np.ascontiguousarray(projected_extents(lmn, major_rad, minor_rad, pa_rad)),
        major_rad > 0,
        out,
    )
    return out


@numba.njit(parallel=True, fastmath=True, cache=True)
def _sum_differences(
    uvw: Float,
    antenna1: Int,
    antenna2: Int,
    first_row: Int,
    n_rows: Int,
    freq: Float,
    step: float,
    formed: Bool,
    width: float,
    sizes: Int,
    kind: Int,
    series: Single,
    lmn: Float,
    voltage: Single,
    common: Single,
    sign: Single,
    shape: Float,
    extended: Bool,
    out: Vis,
) -> None:
    nbin, n, nsize = freq.size, lmn.shape[0], sizes.size
    for tile in numba.prange(first_row.size):
        start, rows = first_row[tile], n_rows[tile]
        re = np.zeros((nbin, TILE), dtype=np.float32)
        im = np.zeros((nbin, TILE), dtype=np.float32)
        delay = np.zeros(TILE, dtype=np.float64)
        taper = np.ones(TILE, dtype=np.float32)
        pr = np.zeros(TILE, dtype=np.float32)
        pi = np.zeros(TILE, dtype=np.float32)
        dr = np.zeros(TILE, dtype=np.float32)
        di = np.zeros(TILE, dtype=np.float32)
        p = np.zeros(TILE, dtype=np.int32)
        q = np.zeros(TILE, dtype=np.int32)
        mean = np.ones((nsize, TILE), dtype=np.float32)
        for r in range(rows):
            p[r], q[r] = antenna1[start + r], antenna2[start + r]
        for k in range(n):
            find_delays(uvw, start, rows, lmn, k, delay)
            longest = 0.0
            for r in range(rows):
                longest = max(longest, abs(delay[r]))
            for size in range(nsize):
                if 2 * np.pi * longest * abs(width) * (sizes[size] - 1) / 2 <= SERIES_LIMIT:
                    a0, a1, a2, a3, a4 = series[size, 0]
                    for r in range(TILE):
                        y = np.float32(2 * np.pi * width * delay[r])
                        z = y * y
                        mean[size, r] = a0 + z * (a1 + z * (a2 + z * (a3 + z * a4)))
                else:
                    for r in range(rows):
                        x = np.pi * width * delay[r]
                        below = sizes[size] * np.sin(x)
                        mean[size, r] = np.sin(sizes[size] * x) / below if below != 0 else 1.0
            form_phasors(delay, step, dr, di)
            towards = sign[k]
            for c in range(nbin):
                if formed[c]:
                    form_phasors(delay, freq[c], pr, pi)
                if extended[k]:
                    for r in range(rows):
                        u, v, w = uvw[start + r, 0], uvw[start + r, 1], uvw[start + r, 2]
                        along = u * shape[k, 0] + v * shape[k, 1] + w * shape[k, 2]
                        across = u * shape[k, 3] + v * shape[k, 4] + w * shape[k, 5]
                        square = (along * along + across * across) * (freq[c] / SPEED_OF_LIGHT) ** 2
                        taper[r] = np.exp(-GAUSSIAN * square)
                of, seen, size = voltage[k, c], common[k, c], kind[c]
                for r in range(TILE):
                    x, y = pr[r], pi[r]
                    a = (towards * of[p[r]] * of[q[r]] - seen) * mean[size, r] * taper[r]
                    re[c, r] += a * x
                    im[c, r] += a * y
                    pr[r] = x * dr[r] - y * di[r]
                    pi[r] = x * di[r] + y * dr[r]
            if extended[k]:
                taper[:] = np.float32(1)
        for r in range(rows):
            for c in range(nbin):
                out[start + r, c] = complex(re[c, r], im[c, r])
