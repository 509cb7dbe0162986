"""Reference antennas: which is best, and turning phases to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.calibration.statistics import BaselineStatistics

__all__ = ["rank_reference_antennas", "refer_phases"]


def rank_reference_antennas(
    statistics: BaselineStatistics, position_m: Float, preferred: Sequence[int] = ()
) -> list[int]:
    """Order antennas as references: named ones first, then well-populated ones near the centre.

    Parameters
    ----------
    statistics : BaselineStatistics
        Statistics, for the amount of data of each antenna.
    position_m : ndarray, shape (nant, 3)
        Antenna positions in metres.
    preferred : sequence of int
        Antennas to try first, in this order.

    Returns
    -------
    list of int
        Antennas, best first.
    """
    amount = statistics.sum_to_antennas(statistics.count.sum(axis=(0, 1, 2, 4)), axis=0)
    used = amount > 0
    if not used.any():
        return list(preferred)
    distance = np.linalg.norm(position_m - np.median(position_m[used], axis=0), axis=1)
    # Fractions of the best, both: an antenna that misses half its data is worth half.
    merit = amount / amount.max() / (1.0 + distance / max(1.0, float(np.median(distance[used]))))
    order = [int(k) for k in np.argsort(-merit, kind="stable")]
    return [*preferred, *(k for k in order if k not in preferred)]


def refer_phases(gain: Complex, flag: Bool, ranked: Sequence[int]) -> tuple[Complex, Int]:
    """Turn phases so that the reference antenna's is zero, spectral window by spectral window.

    Where the reference is flagged, the next in rank takes over with the phase
    it has in the nearest interval already turned. The work starts where the
    reference is solved, and goes forwards and backwards from there.

    Parameters
    ----------
    gain : ndarray of complex128, shape (nspw, ninterval, nant, npol)
        Gains.
    flag : ndarray of bool, same shape
        True where there is no solution.
    ranked : sequence of int
        All antennas, best first.

    Returns
    -------
    gain : ndarray of complex128, same shape
        Gains with turned phases.
    reference : ndarray of int, shape (nspw, ninterval)
        The antenna of zero phase, -1 where nothing is solved.
    """
    gain = gain.copy()
    nspw, nt, _, npol = gain.shape
    reference = np.full((nspw, nt), -1, dtype=np.int64)
    for s in range(nspw):
        # The first in rank that is solved at least half as often as any: a reference lost in one SPW
        # is replaced there alone. A polarisation without any solution has no say.
        solved_at = (~flag[s]).sum(axis=0)
        often = solved_at[:, solved_at.any(axis=0)].min(axis=1, initial=nt)
        best = next(a for a in ranked if 2 * often[a] >= often.max())
        candidates = [best, *(a for a in ranked if a != best)]
        for p in range(npol):
            chosen = _refer_series(gain[s, :, :, p], flag[s, :, :, p], candidates)
            if p == 0:
                reference[s] = chosen
    return gain, reference


def _refer_series(gain: Complex, flag: Bool, candidates: Sequence[int]) -> Int:
    """Turn the phases of one series of intervals, shape (ninterval, nant), in place; the antenna of each."""
    n_intervals, n_antennas = gain.shape
    reference = np.full(n_intervals, -1, dtype=np.int64)
    good = np.flatnonzero(~flag[:, candidates[0]])
    start = int(good[0]) if good.size else 0
    held = np.full(n_antennas, np.nan)
    held[candidates[0]] = 0.0
    after_start = held
    for t in (*range(start, n_intervals), *range(start - 1, -1, -1)):
        if t == start - 1:
            held = after_start
        solved = [a for a in candidates if not flag[t, a]]
        if not solved:
            continue
        chosen = next((a for a in solved if np.isfinite(held[a])), solved[0])
        turn = np.nan_to_num(held[chosen]) - np.angle(gain[t, chosen])
        gain[t] *= np.exp(1j * turn)
        held = np.where(flag[t], held, np.angle(gain[t]))
        if t == start:
            after_start = held
        reference[t] = chosen
    return reference
