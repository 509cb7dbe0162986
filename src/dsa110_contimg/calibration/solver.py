"""Gain solutions from baseline statistics, antenna by antenna.

Salvini & Wijnholds (2014), A&A 571, A97: with all other gains held, the
gain of one antenna that minimises the weighted squared residual is

    g_i = sum_j A_ij g_j / sum_j B_ij |g_j|^2

A phase-only solution keeps the unit-modulus part, which is the exact minimum
over one phase (Boumal 2016, SIAM J. Optim. 26, 2355). Antennas take turns, so
that the residual never grows: with few or unevenly weighted baselines this
needs far fewer steps than updating all at once and averaging.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.calibration.gains import Gains
from dsa110_contimg.calibration.reference_antenna import _refer
from dsa110_contimg.calibration.statistics import BaselineStatistics

__all__ = ["CalMode", "solve"]

CalMode = Literal["p", "ap"]

MAX_ITERATIONS = 200
TOLERANCE = 1e-7


def solve(
    statistics: BaselineStatistics,
    interval: Int,
    times_s: Float,
    dump_s: Float,
    *,
    mode: CalMode = "p",
    halves: Sequence[int] = (0, 1),
    common: bool = False,
    combine_spw: bool = True,
    reference_antennas: Sequence[int] = (),
    min_snr: float = 3.0,
    min_baselines: int = 4,
    noise_scale2: float = 1.0,
    freq_hz: Float | None = None,
    field_id: Int | None = None,
    scan: Int | None = None,
    unusable: Bool | None = None,
) -> dict[int, Gains]:
    """Solve for antenna gains.

    Parameters
    ----------
    statistics : BaselineStatistics
        Sums over the data.
    interval : ndarray of int, shape (ntime,)
        Solution interval of each dump, from :func:`solution_intervals`.
    times_s, dump_s : ndarray, shape (ntime,)
        Time stamps and lengths of the dumps in seconds.
    mode : {"p", "ap"}
        Phases only, or amplitudes and phases.
    halves : sequence of int
        Halves of the channels to use.
    common : bool
        One gain for both polarisations (T) instead of one each (G).
    combine_spw : bool
        One gain for all spectral windows.
    reference_antennas : sequence of int
        Best first; the first one that is solved in an interval has zero
        phase, and a change of it is carried so that phases stay continuous.
    min_snr : float
        Signal to noise under which a solution is flagged.
    min_baselines : int
        Baselines an antenna must have in an interval.
    noise_scale2 : float
        Variance of a complex visibility times its weight.
    freq_hz : ndarray, shape (nspw,), optional
        Centre of each window.
    field_id, scan : ndarray of int, shape (ntime,), optional
        Field and scan of each dump.
    unusable : ndarray of bool, shape (nspw, nant, npol), optional
        Antennas to flag whatever their signal to noise.

    Returns
    -------
    dict of int to Gains
        By spectral-window identifier; with `combine_spw` the same gains under each.

    Notes
    -----
    The signal to noise of a gain is the amplitude that the data prefer over
    ``sqrt(s2 / (2 sum_j B_ij |g_j|^2))``, the error of its real part; also in
    a phase-only solution, whose error is that of the phase in radians, one
    over the signal to noise. Fitted to noise alone it is about 2.2 for large
    arrays, not zero: each phase has turned its own noise upwards.
    """
    used = list(halves)
    everything = (statistics.cross, statistics.model, statistics.data, statistics.count)
    sums = [x[used].sum(axis=0) for x in everything]
    n_intervals = int(interval.max()) + 1
    starts = np.searchsorted(interval, np.arange(n_intervals))
    sums = [np.add.reduceat(x, starts, axis=1) for x in sums]
    if combine_spw:
        sums = [x.sum(axis=0, keepdims=True) for x in sums]
    if common:
        sums = [x.sum(axis=-1, keepdims=True) for x in sums]
    cross, power, data, count = sums
    nspw = cross.shape[0]
    gain, sensitivity, amplitude, baselines = _solve_all(
        np.ascontiguousarray(cross),
        np.ascontiguousarray(power),
        statistics.antenna1,
        statistics.antenna2,
        statistics.n_antennas,
        mode == "p",
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(sensitivity > 0, amplitude / np.sqrt(noise_scale2 / (2.0 * sensitivity)), 0.0)
        snr /= np.sqrt(_excess(statistics, gain, cross, power, data, count))
        error = np.abs(gain) / snr
    flag = ~((snr >= min_snr) & (baselines >= min_baselines))
    if unusable is not None:
        flag |= unusable[:, None]
    error = np.where(np.isfinite(error), error, 0.0)
    # All of them, so that no interval is left with phases of its own.
    ranked = list(dict.fromkeys([*reference_antennas, *range(statistics.n_antennas)]))
    gain, reference = _refer(gain, flag, ranked)

    slot_weight = np.maximum(statistics.count[used].sum(axis=(0, 1, 3, 4)), 1e-30)
    centre = np.add.reduceat(times_s * slot_weight, starts) / np.add.reduceat(slot_weight, starts)
    last = np.append(starts[1:], interval.size) - 1
    length = times_s[last] - times_s[starts] + (dump_s[last] + dump_s[starts]) / 2
    zeros = np.zeros(n_intervals, dtype=np.int64)
    result: dict[int, Gains] = {}
    for k, spw in enumerate(statistics.spw_ids):
        s = 0 if nspw == 1 else k
        result[spw] = Gains(
            centre,
            length,
            np.array([0.0 if freq_hz is None else float(freq_hz[k])]),
            np.where(flag[s], 1.0, gain[s])[:, :, None, :],
            flag[s][:, :, None, :],
            error[s][:, :, None, :],
            snr[s][:, :, None, :],
            reference[s],
            zeros if field_id is None else field_id[starts],
            zeros if scan is None else scan[starts],
        )
    return result


def _excess(
    statistics: BaselineStatistics, gain: Complex, cross: Complex, power: Float, data: Float, count: Float
) -> Float:
    """Residual variance of each antenna over that of the median antenna, at least 1; shape of `gain`.

    An antenna that is noisier than its weights say has less signal to noise
    than they say; what the model lacks raises all antennas alike.
    """
    first, second = statistics.antenna1, statistics.antenna2
    gi, gj = gain[:, :, first], gain[:, :, second]
    aligned = (np.conj(gi) * gj * cross).real
    product = np.abs(gi) ** 2 * np.abs(gj) ** 2 * power
    # A common scale that a phase-only solution leaves open is taken out of each interval.
    total = product.sum(axis=2, keepdims=True)
    along = np.maximum(aligned.sum(axis=2, keepdims=True), 0)
    scale = np.where(total > 0, along / np.where(total > 0, total, 1), 0)
    residual = data - 2 * scale * aligned + scale**2 * product
    belongs = np.zeros((first.size, statistics.n_antennas))
    belongs[np.arange(first.size), first] = belongs[np.arange(first.size), second] = 1
    sums, number = (np.moveaxis(np.moveaxis(x, 2, -1) @ belongs, -1, 2) for x in (residual, count))
    mean = np.where(number > 0, sums / np.maximum(number, 1), np.nan)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # intervals without any data
        ratio = mean / np.nanmedian(mean, axis=2, keepdims=True)
    return np.asarray(np.where(np.isfinite(ratio), np.maximum(ratio, 1.0), 1.0))


@numba.njit(parallel=True, cache=True)
def _solve_all(
    cross: Complex, power: Float, antenna1: Int, antenna2: Int, n_antennas: int, phase_only: bool
) -> tuple[Complex, Float, Float, Int]:
    nspw, nt, nbl, npol = cross.shape
    shape = (nspw, nt, n_antennas, npol)
    gain = np.ones(shape, dtype=np.complex128)
    sensitivity = np.zeros(shape)
    amplitude = np.zeros(shape)
    baselines = np.zeros(shape, dtype=np.int64)
    for task in numba.prange(nspw * nt * npol):
        s = task // (nt * npol)
        t = (task // npol) % nt
        p = task % npol
        a = np.zeros((n_antennas, n_antennas), dtype=np.complex128)
        b = np.zeros((n_antennas, n_antennas))
        for k in range(nbl):
            i, j = antenna1[k], antenna2[k]
            a[i, j] = cross[s, t, k, p]
            a[j, i] = np.conj(cross[s, t, k, p])
            b[i, j] = power[s, t, k, p]
            b[j, i] = power[s, t, k, p]
        g = _start(a, b)
        _iterate(a, b, g, True)
        if not phase_only:
            # The common amplitude first, so that the iteration starts near its end.
            aligned, total = 0.0, 0.0
            for i in range(n_antennas):
                for j in range(n_antennas):
                    aligned += (np.conj(g[i]) * g[j] * a[i, j]).real
                    total += b[i, j]
            if total > 0 and aligned > 0:
                g *= np.sqrt(aligned / total)
                _iterate(a, b, g, False)
        for i in range(n_antennas):
            top = 0.0 + 0.0j
            bottom = 0.0
            for j in range(n_antennas):
                top += a[i, j] * g[j]
                bottom += b[i, j] * (g[j].real * g[j].real + g[j].imag * g[j].imag)
                if b[i, j] > 0:
                    baselines[s, t, i, p] += 1
            gain[s, t, i, p] = g[i]
            sensitivity[s, t, i, p] = bottom
            amplitude[s, t, i, p] = abs(top) / bottom if bottom > 0 else 0.0
    return gain, sensitivity, amplitude, baselines


@numba.njit(cache=True)
def _start(a: Complex, b: Float) -> Complex:
    """Phases against the antenna with the strongest correlations: near enough from any phases.

    Each correlation is divided by the root of its model power, so that it is
    weighted by its own signal to noise.
    """
    n = a.shape[0]
    best, strongest = 0, -1.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            if b[i, j] > 0:
                total += abs(a[i, j]) / np.sqrt(b[i, j])
        if total > strongest:
            best, strongest = i, total
    g = np.ones(n, dtype=np.complex128)
    for j in range(n):
        size = abs(a[j, best])
        if j != best and size > 0:
            g[j] = a[j, best] / size
    return g


@numba.njit(cache=True)
def _iterate(a: Complex, b: Float, g: Complex, phase_only: bool) -> None:
    """Minimise over one antenna after the other, each step using the newest of the others."""
    n = g.size
    for _ in range(MAX_ITERATIONS):
        change, norm = 0.0, 0.0
        for i in range(n):
            top = 0.0 + 0.0j
            bottom = 0.0
            for j in range(n):
                top += a[i, j] * g[j]
                bottom += b[i, j] * (g[j].real * g[j].real + g[j].imag * g[j].imag)
            size = abs(top)
            if size == 0.0 or bottom == 0.0:
                continue
            new = top / size if phase_only else top / bottom
            change += abs(new - g[i]) ** 2
            norm += abs(new) ** 2
            g[i] = new
        if change <= TOLERANCE**2 * norm:
            break
