"""Delays and a smooth bandpass, from baseline statistics kept by sub-band.

Gains that do not depend on frequency are solved on sums over all channels. A delay of more than about a
quarter of the inverse bandwidth makes those sums incoherent, so phases are solved in each sub-band first,
at the interval that predicts held-out channels best. The delay of an antenna is the one at which its gains
of all sub-bands add up best, their power summed over time (as in the fringe search of Schwab & Cotton 1983,
AJ 88, 688). The bandpass is fitted to what the delays leave of the gains, averaged over time: a polynomial
of log amplitude and phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.polynomial import legendre

from dsa110_contimg.array_types import Complex, Float, Int
from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.cross_validation import GainSolver
from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.calibration.solver import CalMode
from dsa110_contimg.calibration.statistics import BaselineStatistics, joined

__all__ = [
    "SUB_BANDS",
    "WORTHWHILE",
    "BandpassSolution",
    "depends_on_frequency",
    "solve_delays_and_bandpass",
]


#: Least number of sub-bands over all spectral windows: it sets the longest delay that is found.
SUB_BANDS = 16
#: Least median signal to noise of the gains of the sub-bands.
MIN_SNR = 2.0
#: Delays are looked for as far as the nearest sub-bands tell them apart, and no further than so many turns
#: over the whole band; so many of them at a time.
MOST_WIDTHS, TRIALS_AT_ONCE = 4096, 256
#: Trial delays in the width of a fringe.
TRIALS = 8
#: Highest degree of the polynomials over frequency.
DEGREE = 4
#: Factor by which the held-out chi-squared must fall for delays or a bandpass to be worth their trouble.
WORTHWHILE = 1.02
#: Solution intervals whose phases are looked at by sub-band: delays are in any of them.
INTERVALS_TRIED = 4
#: Standard errors by which sub-bands must predict better.
SIGNIFICANT = 5.0


@dataclass(frozen=True)
class BandpassSolution:
    """Delays and bandpass of every antenna.

    Attributes
    ----------
    table : GainTable
        B Jones with a gain for every channel: amplitude one and phase zero in the mean over the band.
    delay_s : ndarray, shape (nant, 2)
        Delays in seconds against the reference antenna; not a number where there is no solution.
    """

    table: GainTable
    delay_s: Float


def solve_delays_and_bandpass(
    solver: GainSolver,
    channels_hz: Mapping[int, Float],
    kind: Literal["delay", "bandpass"],
) -> BandpassSolution | None:
    """Solve for delays, or for delays and a smooth bandpass.

    Parameters
    ----------
    solver : GainSolver
        On statistics by sub-band: its spectral windows are the sub-bands.
    channels_hz : mapping of int to ndarray, shape (nchan,)
        Channels of the data in hertz by spectral window.
    kind : {"delay", "bandpass"}
        What is solved for.

    Returns
    -------
    BandpassSolution or None
        None if the median signal to noise in a sub-band is below `MIN_SNR`.
    """
    solver, sub_freq_hz = solver.per_spw(), solver.axes.freq_hz
    phases = solver.best("p", "auto")
    if phases.median_snr < MIN_SNR or not np.ptp(sub_freq_hz) > 0:
        return None
    gain, weight = _stacked(phases.table)
    delay = _delays(gain, weight, sub_freq_hz)
    middle = float(sub_freq_hz.mean())
    known = np.where(np.isfinite(delay), delay, 0.0)

    def delay_gain(freq: Float) -> Complex:
        """Gain of the delays alone, shape (nfreq, nant, 2)."""
        return np.asarray(np.exp(2j * np.pi * (freq - middle)[:, None, None] * known))

    coefficients = None
    if kind == "bandpass":
        of_sub_bands = {k: delay_gain(f[None]) for k, f in enumerate(sub_freq_hz)}
        undelayed = solver.after(_table(phases.table, of_sub_bands, sub_freq_hz))
        in_time = undelayed.combine_spws().best("p", "auto")
        level = undelayed.after(in_time.table).best("ap", "inf")
        coefficients = _polynomials(*_stacked(level.table), sub_freq_hz)

    def response(freq: Float) -> Complex:
        if coefficients is None:
            return delay_gain(freq)
        terms = legendre.legvander(_scaled(freq, sub_freq_hz), coefficients.shape[0] - 1)
        return np.asarray(delay_gain(freq) * np.exp(np.tensordot(terms, coefficients, (1, 0))))

    table = _table(phases.table, {spw: response(freq) for spw, freq in channels_hz.items()}, channels_hz)
    return BandpassSolution(table, delay)


def depends_on_frequency(solver: GainSolver, tables: Sequence[GainTable], interval_s: float) -> bool:
    """Tell whether gains by sub-band predict held-out channels better than those that all share.

    In two ways, both on a few sums: phases by sub-band in some of the solution intervals, as delays may be
    so long that no common gain was found; and an amplitude and phase by sub-band over all time, once the
    common gains are applied.

    Parameters
    ----------
    solver : GainSolver
        On statistics by sub-band: its spectral windows are the sub-bands.
    tables : sequence of GainTable
        Gains solved on the same data summed over the sub-bands, with sub-bands as windows.
    interval_s : float
        Their solution interval in seconds.

    Returns
    -------
    bool
        True if the held-out chi-squared falls by `WORTHWHILE` and beyond its noise either way.
    """
    statistics, axes = solver.statistics, solver.axes
    length = max(1, round(interval_s / axes.typical_dump_s))
    count = min(INTERVALS_TRIED, axes.times_s.size // length) or 1
    starts = np.linspace(0, max(0, axes.times_s.size - length), count).astype(np.int64)
    ends = np.minimum(starts + length, axes.times_s.size)
    few = _with_runs(solver, statistics.over_intervals(starts, ends), starts, ends)
    if _better_by_sub_band(few, "p", "int"):
        return True
    gain, solved = gains_at_times(tables, statistics.spw_ids, axes.times_s, statistics.n_antennas)
    everything = np.array([0]), np.array([axes.times_s.size])
    # One sub-band after the other: corrected statistics of all would take the memory twice.
    sums = [
        _at_own_level(
            statistics.of_window(k).after(gain[k : k + 1], solved[k : k + 1]).over_intervals(*everything)
        )
        for k in range(len(statistics.spw_ids))
    ]
    return _better_by_sub_band(_with_runs(solver, joined(sums), *everything), "ap", "inf")


def _with_runs(solver: GainSolver, statistics: BaselineStatistics, starts: Int, ends: Int) -> GainSolver:
    """Return a solver on sums over runs of dumps."""
    axes = solver.axes
    return replace(
        solver,
        statistics=statistics,
        axes=replace(
            axes,
            times_s=(axes.times_s[starts] + axes.times_s[ends - 1]) / 2,
            dump_s=np.full(starts.size, axes.typical_dump_s),
            scan=np.arange(starts.size),
            field_id=axes.field_id[starts],
        ),
    )


def _at_own_level(statistics: BaselineStatistics) -> BaselineStatistics:
    """Statistics against the model at the level of the data.

    What all antennas have in common is no bandpass of theirs: as well the spectrum of the sky differs from
    the model's.
    """
    ones = np.ones((len(statistics.spw_ids), statistics.n_times, statistics.n_antennas, 2), dtype=complex)
    level = sum(statistics.scale(ones, ones != 0, half) for half in (0, 1)) / 2
    return replace(statistics, cross=statistics.cross * level, model=statistics.model * level**2)


def _better_by_sub_band(solver: GainSolver, mode: CalMode, solint: str) -> bool:
    """Whether a gain of each sub-band predicts held-out channels better than a common one, beyond noise."""
    of_each, common = (
        min(score.chi2_heldout for score in each.scores(mode, solint).values())
        for each in (solver.per_spw(), solver.combine_spws())
    )
    statistics = solver.statistics
    gains = len(statistics.spw_ids) * statistics.n_times * 2 * statistics.n_antennas
    # Gains fitted to noise add one noise variance each to the held-out sum, give or take its root.
    error = np.sqrt((2 if mode == "ap" else 1) * gains) / max(1.0, float(statistics.count.sum()))
    return bool(common > max(WORTHWHILE, 1 + SIGNIFICANT * error) * of_each)


def _stacked(table: GainTable) -> tuple[Complex, Float]:
    """Gains of all sub-bands against one antenna, and weights, shape (nsub, ntime, nant, 2)."""
    gains = list(table.gains.values())
    gain = np.stack([g.gain[:, :, 0] for g in gains])
    weight = np.stack([np.where(g.flag, 0.0, g.snr**2)[:, :, 0] for g in gains])
    # Phases of sub-bands can be compared once all are against the same antenna.
    reference = int(np.argmax(weight.sum(axis=(0, 1, 3))))
    turn = np.conj(gain[:, :, reference, None] / np.abs(gain[:, :, reference, None]))
    there = weight[:, :, reference, None] > 0
    return gain * turn, np.where(there, weight, 0.0)


def _delays(gain: Complex, weight: Float, freq_hz: Float) -> Float:
    """Delay (nant, 2) at which the gains of all sub-bands add up best; not a number without any."""
    offset = freq_hz - freq_hz.mean()
    width = float(np.ptp(freq_hz))
    # Frequencies that all but coincide would ask for delays without end.
    spacing = max(float(np.min(np.diff(np.unique(freq_hz)))), width / MOST_WIDTHS)
    unit = weight * gain / np.abs(gain)
    step = 1 / (TRIALS * width)
    trials = step * np.arange(-np.floor(0.5 / spacing / step), np.floor(0.5 / spacing / step) + 1)

    def power(delays: Float) -> Float:
        """Sum over time without phase, for delays (ntrial, nant, 2)."""
        turn = np.exp(-2j * np.pi * offset[:, None, None, None] * delays)
        return np.asarray((np.abs(np.einsum("skap,stap->ktap", turn, unit)) ** 2).sum(axis=1))

    shape = unit.shape[2:]
    best, highest = np.zeros(shape), np.full(shape, -np.inf)
    for some in np.array_split(trials, -(-trials.size // TRIALS_AT_ONCE)):
        found = power(np.broadcast_to(some[:, None, None], (some.size, *shape)))
        higher = found.max(axis=0) > highest
        best = np.where(higher, some[np.argmax(found, axis=0)], best)
        highest = np.maximum(highest, found.max(axis=0))
    for fine in (step / 4, step / 40, step / 400):
        near = best + fine * np.arange(-5, 6)[:, None, None]
        best = np.take_along_axis(near, np.argmax(power(near), axis=0)[None], axis=0)[0]
    return np.where(weight.sum(axis=(0, 1)) > 0, best, np.nan)


def _polynomials(gain: Complex, weight: Float, freq_hz: Float) -> Complex:
    """Fit log amplitude and phase over the band; without their mean, shape (degree + 1, nant, 2)."""
    total = weight.sum(axis=1)
    mean = (weight * gain).sum(axis=1) / np.where(total > 0, total, 1.0)
    centre = (total * mean).sum(axis=0)
    turned = mean * np.conj(centre / np.maximum(np.abs(centre), 1e-300))
    # Near phase zero after the delay: the logarithm needs no unwrapping.
    log = np.where(total > 0, np.log(np.where(total > 0, turned, 1.0)), 0.0)
    degree = min(DEGREE, freq_hz.size // 3)
    terms = legendre.legvander(_scaled(freq_hz, freq_hz), degree)
    normal = np.einsum("sk,sap,sl->apkl", terms, total, terms)
    right = np.einsum("sk,sap->apk", terms, total * log)
    solved = (total > 0).sum(axis=0) > degree
    normal[~solved] = np.eye(degree + 1)
    right[~solved] = 0.0
    fitted = np.moveaxis(np.linalg.solve(normal, right[..., None])[..., 0], -1, 0)
    # The mean is the gain's, which is solved for elsewhere.
    fitted[0] = 0.0
    return np.asarray(fitted)


def _scaled(freq_hz: Float, sub_freq_hz: Float) -> Float:
    middle, half = float(sub_freq_hz.mean()), float(np.ptp(sub_freq_hz)) / 2
    return np.asarray(np.clip((freq_hz - middle) / half, -1.1, 1.1))


def _table(like: GainTable, gains: Mapping[int, Complex], freq_hz: Mapping[int, Float] | Float) -> GainTable:
    """Make a table of one time from gains (nchan, nant, 2) by spectral window."""
    first = next(iter(like.gains.values()))
    start, end = first.time_s[0] - first.interval_s[0] / 2, first.time_s[-1] + first.interval_s[-1] / 2
    made = {}
    for spw, values in gains.items():
        gain = np.moveaxis(values, 0, 1)[None]
        zeros = np.zeros(gain.shape)
        made[spw] = Gains(
            time_s=np.array([(start + end) / 2]),
            interval_s=np.array([end - start]),
            freq_hz=np.atleast_1d(freq_hz[spw]),
            gain=gain,
            flag=zeros.astype(bool),
            error=zeros,
            snr=zeros,
            reference_antenna=first.reference_antenna[:1],
            field_id=first.field_id[:1],
            scan=first.scan[:1],
        )
    return GainTable(kind="B Jones", gains=made, label="b")
