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
from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.calibration.gains import Gains
from dsa110_contimg.calibration.reference_antenna import refer_phases
from dsa110_contimg.calibration.solve_settings import Grouping, ObservationAxes, SolveSettings
from dsa110_contimg.calibration.statistics import BaselineStatistics

__all__ = ["MAX_ITERATIONS", "CalMode", "SolveResult", "solve"]

CalMode = Literal["p", "ap"]

#: A gain for each polarisation and all spectral windows.
G_JONES = Grouping(per_polarization=True, combine_spw=True)
#: Sweeps over all antennas, in a phase solution and again in the amplitude solution that starts from it.
MAX_ITERATIONS = 200
#: Converged once a sweep changes the gains by no more than this fraction of their size.
TOLERANCE = 1e-7
#: Sums are shared out over the processors by so many ranges of baselines.
TASKS = 32


@dataclass(frozen=True, eq=False)
class SolveResult:
    """Gains, and how their iteration ended.

    Attributes
    ----------
    gains : dict of int to Gains
        By spectral-window identifier; the same under each where they share a gain.
    iterations : ndarray of int, shape (nspw or 1, ninterval, npol)
        Sweeps over all antennas, those of the phases that amplitudes start from included; zero
        without data.
    converged : ndarray of bool, same shape
        True where the last sweep changed the gains by less than the tolerance.
    """

    gains: dict[int, Gains]
    iterations: Int
    converged: Bool

    @property
    def converged_fraction(self) -> float:
        """Fraction of the solutions with data that converged; one if there are no data."""
        tried = self.iterations > 0
        return float(self.converged[tried].mean()) if tried.any() else 1.0


@dataclass(frozen=True, eq=False)
class _Sums:
    """Statistics by solution interval, shape (nspw or 1, ninterval, nbl, npol) each."""

    cross: Complex
    power: Float
    data: Float
    count: Float


def solve(
    statistics: BaselineStatistics,
    axes: ObservationAxes,
    interval: Int,
    settings: SolveSettings,
    *,
    mode: CalMode = "p",
    grouping: Grouping = G_JONES,
    halves: Sequence[int] = (0, 1),
    unusable: Bool | None = None,
) -> SolveResult:
    """Solve for antenna gains.

    Parameters
    ----------
    statistics : BaselineStatistics
        Sums over the data.
    axes : ObservationAxes
        Their times and spectral windows.
    interval : ndarray of int, shape (ntime,)
        Solution interval of each dump, from :func:`solution_intervals`.
    settings : SolveSettings
        Noise, reference antennas and limits.
    mode : {"p", "ap"}
        Phases only, or amplitudes and phases.
    grouping : Grouping
        What shares a gain.
    halves : sequence of int
        Halves of the channels to use.
    unusable : ndarray of bool, shape (nspw or 1, nant, npol), optional
        Antennas to flag whatever their signal to noise.

    Returns
    -------
    SolveResult

    Notes
    -----
    The signal to noise of a gain is the amplitude that the data prefer over
    ``sqrt(s2 / (2 sum_j B_ij |g_j|^2))``, the error of its real part; also in
    a phase-only solution, whose error is that of the phase in radians, one
    over the signal to noise. Fitted to noise alone it is about 2.2 for large
    arrays, not zero: each phase has turned its own noise upwards.
    """
    starts = np.searchsorted(interval, np.arange(int(interval.max()) + 1))
    sums = _interval_sums(statistics, starts, grouping, halves)
    gain, sensitivity, amplitude, baselines, iterations, converged = _solve_all(
        np.ascontiguousarray(sums.cross),
        np.ascontiguousarray(sums.power),
        statistics.antenna1,
        statistics.antenna2,
        statistics.n_antennas,
        mode == "p",
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        thermal = np.sqrt(settings.noise.variance / (2.0 * sensitivity))
        snr = np.where(sensitivity > 0, amplitude / thermal, 0.0)
        snr /= np.sqrt(_excess_variance(statistics, gain, sums))
        error = np.abs(gain) / snr
    flag = ~((snr >= settings.min_snr) & (baselines >= settings.min_baselines))
    if unusable is not None:
        flag |= unusable[:, None]
    error = np.where(np.isfinite(error), error, 0.0)
    # All antennas are ranked, so that no interval is left with phases of its own.
    ranked = list(dict.fromkeys([*settings.reference_antennas, *range(statistics.n_antennas)]))
    gain, reference = refer_phases(gain, flag, ranked)
    centre, length = _times_of_intervals(statistics, axes, starts, halves)
    gains: dict[int, Gains] = {}
    for k, spw in enumerate(statistics.spw_ids):
        s = 0 if grouping.combine_spw else k
        gains[spw] = Gains(
            time_s=centre,
            interval_s=length,
            freq_hz=axes.freq_hz[k : k + 1],
            gain=np.where(flag[s], 1.0, gain[s])[:, :, None, :],
            flag=flag[s][:, :, None, :],
            error=error[s][:, :, None, :],
            snr=snr[s][:, :, None, :],
            reference_antenna=reference[s],
            field_id=axes.field_id[starts],
            scan=axes.scan[starts],
        )
    return SolveResult(gains, np.where(sensitivity.any(axis=2), iterations, 0), converged)


def _interval_sums(
    statistics: BaselineStatistics, starts: Int, grouping: Grouping, halves: Sequence[int]
) -> _Sums:
    """Add up the halves, the dumps of each interval, and what shares a gain."""
    return _Sums(
        *_add_up(
            statistics.cross,
            statistics.model,
            statistics.data,
            statistics.count,
            np.array(halves, dtype=np.int64),
            np.append(starts, statistics.n_times),
            grouping.combine_spw,
            grouping.per_polarization,
        )
    )


@numba.njit(parallel=True, cache=True)
def _add_up(
    cross: Complex,
    model: Float,
    data: Float,
    count: Float,
    halves: Int,
    edges: Int,
    combine_spw: bool,
    per_polarization: bool,
) -> tuple[Complex, Float, Float, Float]:
    _, nspw, _, nbl, npol = cross.shape
    shape = (1 if combine_spw else nspw, edges.size - 1, nbl, npol if per_polarization else 1)
    all_cross, all_model = np.zeros(shape, dtype=np.complex128), np.zeros(shape)
    all_data, all_count = np.zeros(shape), np.zeros(shape)
    for task in numba.prange(TASKS):
        first, last = task * nbl // TASKS, (task + 1) * nbl // TASKS
        for h in halves:
            for s in range(nspw):
                to = 0 if combine_spw else s
                for k in range(edges.size - 1):
                    for t in range(edges[k], edges[k + 1]):
                        for b in range(first, last):
                            for p in range(npol):
                                q = p if per_polarization else 0
                                all_cross[to, k, b, q] += cross[h, s, t, b, p]
                                all_model[to, k, b, q] += model[h, s, t, b, p]
                                all_data[to, k, b, q] += data[h, s, t, b, p]
                                all_count[to, k, b, q] += count[h, s, t, b, p]
    return all_cross, all_model, all_data, all_count


def _times_of_intervals(
    statistics: BaselineStatistics, axes: ObservationAxes, starts: Int, halves: Sequence[int]
) -> tuple[Float, Float]:
    """Centre of the data and length of each interval in seconds, shape (ninterval,)."""
    times_s, dump_s = axes.times_s, axes.dump_s
    amount = np.maximum(statistics.count_by_dump[list(halves)].sum(axis=0), 1e-30)
    centre = np.add.reduceat(times_s * amount, starts) / np.add.reduceat(amount, starts)
    last = np.append(starts[1:], times_s.size) - 1
    return centre, times_s[last] - times_s[starts] + (dump_s[last] + dump_s[starts]) / 2


def _excess_variance(statistics: BaselineStatistics, gain: Complex, sums: _Sums) -> Float:
    """Residual variance of each antenna over that of the median antenna, at least 1; shape of `gain`.

    An antenna that is noisier than its weights say has less signal to noise
    than they say; what the model lacks raises all antennas alike.
    """
    of_antenna, number = _residual_by_antenna(
        gain,
        statistics.antenna1,
        statistics.antenna2,
        np.ascontiguousarray(sums.cross),
        np.ascontiguousarray(sums.power),
        np.ascontiguousarray(sums.data),
        np.ascontiguousarray(sums.count),
    )
    mean = np.where(number > 0, of_antenna / np.maximum(number, 1), np.nan)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # intervals without any data
        ratio = mean / np.nanmedian(mean, axis=2, keepdims=True)
    return np.asarray(np.where(np.isfinite(ratio), np.maximum(ratio, 1.0), 1.0))


@numba.njit(parallel=True, cache=True)
def _residual_by_antenna(
    gain: Complex, antenna1: Int, antenna2: Int, cross: Complex, power: Float, data: Float, count: Float
) -> tuple[Float, Float]:
    """Residual power on the baselines of each antenna, and how many visibilities it is of; shape of `gain`.

    A common scale that a phase-only solution leaves open is taken out of each interval.
    """
    nspw, nt, nbl, npol = cross.shape
    residual, number = np.zeros(gain.shape), np.zeros(gain.shape)
    for task in numba.prange(nspw * nt * npol):
        s, t, p = task // (nt * npol), (task // npol) % nt, task % npol
        aligned, total = np.empty(nbl), np.empty(nbl)
        along, norm = 0.0, 0.0
        for k in range(nbl):
            turn = np.conj(gain[s, t, antenna1[k], p]) * gain[s, t, antenna2[k], p]
            aligned[k] = (turn * cross[s, t, k, p]).real
            total[k] = (turn.real * turn.real + turn.imag * turn.imag) * power[s, t, k, p]
            along += aligned[k]
            norm += total[k]
        scale = max(along, 0.0) / norm if norm > 0 else 0.0
        for k in range(nbl):
            left = data[s, t, k, p] - 2 * scale * aligned[k] + scale * scale * total[k]
            for antenna in (antenna1[k], antenna2[k]):
                residual[s, t, antenna, p] += left
                number[s, t, antenna, p] += count[s, t, k, p]
    return residual, number


@numba.njit(parallel=True, cache=True)
def _solve_all(
    cross: Complex, power: Float, antenna1: Int, antenna2: Int, n_antennas: int, phase_only: bool
) -> tuple[Complex, Float, Float, Int, Int, Bool]:
    nspw, nt, nbl, npol = cross.shape
    shape = (nspw, nt, n_antennas, npol)
    gain = np.ones(shape, dtype=np.complex128)
    sensitivity = np.zeros(shape)
    amplitude = np.zeros(shape)
    baselines = np.zeros(shape, dtype=np.int64)
    iterations = np.zeros((nspw, nt, npol), dtype=np.int64)
    converged = np.zeros((nspw, nt, npol), dtype=np.bool_)
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
        sweeps, done = _iterate(a, b, g, True)
        if not phase_only:
            # The common amplitude first, so that the iteration starts near its end.
            aligned, total = 0.0, 0.0
            for i in range(n_antennas):
                for j in range(n_antennas):
                    aligned += (np.conj(g[i]) * g[j] * a[i, j]).real
                    total += b[i, j]
            if total > 0 and aligned > 0:
                g *= np.sqrt(aligned / total)
                more, done = _iterate(a, b, g, False)
                sweeps += more
        iterations[s, t, p], converged[s, t, p] = sweeps, done
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
    return gain, sensitivity, amplitude, baselines, iterations, converged


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
def _iterate(a: Complex, b: Float, g: Complex, phase_only: bool) -> tuple[int, bool]:
    """Minimise over one antenna after the other, each step using the newest of the others.

    Changes `g`; returns the number of sweeps over all antennas, and whether the last one changed
    them by less than the tolerance.
    """
    n = g.size
    for sweep in range(MAX_ITERATIONS):
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
            return sweep + 1, True
    return MAX_ITERATIONS, False
