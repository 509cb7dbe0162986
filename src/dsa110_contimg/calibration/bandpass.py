"""Delays and a smooth bandpass, from baseline statistics kept by sub-band.

Gains that do not depend on frequency are solved on sums over all channels; a delay of more than about a
quarter of the inverse bandwidth makes those sums incoherent. So phases are solved sub-band by sub-band first,
as often as held-out channels ask for. The delay of an antenna is where its gains of all sub-bands add up
best, summed over time without regard to phase (as in the fringe search of Schwab & Cotton 1983, AJ 88, 688);
the bandpass is what is then left in the mean over time, as a polynomial of log amplitude and phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.polynomial import legendre

from dsa110_contimg.array_types import Complex, Float
from dsa110_contimg.calibration.cross_validation import GainSolver
from dsa110_contimg.calibration.gains import Gains, GainTable

__all__ = ["SUB_BANDS", "SpectralSolution", "solve_spectral"]


#: Sub-bands over all windows, at least: they set the longest delay that is found.
SUB_BANDS = 16
#: Gains of a sub-band below this signal to noise in the median tell nothing.
MIN_SNR = 2.0
#: Trial delays in the width of a fringe.
TRIALS = 8
#: Highest degree of the polynomials over frequency.
DEGREE = 4


@dataclass(frozen=True)
class SpectralSolution:
    """What depends on frequency.

    Attributes
    ----------
    table : GainTable
        B Jones with a gain for every channel: amplitude one and phase zero in the mean over the band.
    delay_s : ndarray, shape (nant, 2)
        Delays in seconds against the reference antenna; not a number where there is no solution.
    """

    table: GainTable
    delay_s: Float


def solve_spectral(
    solver: GainSolver,
    sub_freq_hz: Float,
    channels_hz: Mapping[int, Float],
    kind: Literal["delay", "bandpass"],
) -> SpectralSolution | None:
    """Solve for delays, or for delays and a smooth bandpass.

    Parameters
    ----------
    solver : GainSolver
        On statistics by sub-band, each with gains of its own.
    sub_freq_hz : ndarray, shape (nsub,)
        Centres of the sub-bands.
    channels_hz : mapping of int to ndarray, shape (nchan,)
        Channels of the data by spectral window.
    kind : {"delay", "bandpass"}
        What is solved for.

    Returns
    -------
    SpectralSolution or None
        None if the signal does not suffice.
    """
    apart = solver.best("p", "auto")
    if apart.median_snr < MIN_SNR:
        return None
    gain, weight = _stacked(apart.table)
    delay = _delays(gain, weight, sub_freq_hz)
    middle = float(sub_freq_hz.mean())
    known = np.where(np.isfinite(delay), delay, 0.0)

    def turned(freq: Float) -> Complex:
        """Gain of the delays alone, shape (nfreq, nant, 2)."""
        return np.asarray(np.exp(2j * np.pi * (freq - middle)[:, None, None] * known))

    coefficients = None
    if kind == "bandpass":
        delays = _table(apart.table, {k: turned(f[None]) for k, f in enumerate(sub_freq_hz)}, sub_freq_hz)
        left = solver.after(delays).together()
        level = left.after(left.best("p", "auto").table).apart().best("ap", "inf")
        coefficients = _polynomials(*_stacked(level.table), sub_freq_hz)

    def response(freq: Float) -> Complex:
        if coefficients is None:
            return turned(freq)
        terms = legendre.legvander(_scaled(freq, sub_freq_hz), coefficients.shape[0] - 1)
        return np.asarray(turned(freq) * np.exp(np.tensordot(terms, coefficients, (1, 0))))

    table = _table(apart.table, {spw: response(freq) for spw, freq in channels_hz.items()}, channels_hz)
    return SpectralSolution(table, delay)


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
    spacing, width = float(np.min(np.diff(np.sort(freq_hz)))), float(np.ptp(freq_hz))
    unit = weight * gain / np.abs(gain)
    step = 1 / (TRIALS * width)
    trials = step * np.arange(-np.floor(0.5 / spacing / step), np.floor(0.5 / spacing / step) + 1)

    def power(delays: Float) -> Float:
        """Sum over time without phase, for delays (ntrial, nant, 2)."""
        turn = np.exp(-2j * np.pi * offset[:, None, None, None] * delays)
        return np.asarray((np.abs(np.einsum("skap,stap->ktap", turn, unit)) ** 2).sum(axis=1))

    shape = unit.shape[2:]
    found = power(np.broadcast_to(trials[:, None, None], (trials.size, *shape)))
    best = trials[np.argmax(found, axis=0)]
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
    """Make a table of one time from gains (nchan, nant, 2) by window."""
    first = next(iter(like.gains.values()))
    start, end = first.time_s[0] - first.interval_s[0] / 2, first.time_s[-1] + first.interval_s[-1] / 2
    made = {}
    for spw, values in gains.items():
        gain = np.moveaxis(values, 0, 1)[None]
        zeros = np.zeros(gain.shape)
        made[spw] = Gains(
            np.array([(start + end) / 2]),
            np.array([end - start]),
            np.atleast_1d(freq_hz[spw]),
            gain,
            zeros.astype(bool),
            zeros,
            zeros,
            first.reference_antenna[:1],
            first.field_id[:1],
            first.scan[:1],
        )
    return GainTable("B Jones", made, "b")
