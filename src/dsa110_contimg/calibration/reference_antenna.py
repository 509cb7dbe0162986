"""Reference antennas: which is best, and turning phases to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.calibration.statistics import BaselineStatistics

__all__ = ["rank_reference_antennas"]


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
    per_baseline = statistics.count.sum(axis=(0, 1, 2, 4))
    amount = np.bincount(statistics.antenna1, per_baseline, statistics.n_antennas)
    amount = amount + np.bincount(statistics.antenna2, per_baseline, statistics.n_antennas)
    used = amount > 0
    if not used.any():
        return list(preferred)
    distance = np.linalg.norm(position_m - np.median(position_m[used], axis=0), axis=1)
    # Fractions of the best, both: an antenna that misses half its data is worth half.
    merit = amount / amount.max() / (1.0 + distance / max(1.0, float(np.median(distance[used]))))
    order = [int(k) for k in np.argsort(-merit, kind="stable")]
    return [*preferred, *(k for k in order if k not in preferred)]


def _refer(gain: Complex, flag: Bool, ranked: Sequence[int]) -> tuple[Complex, Int]:
    """Turn phases so that the reference antenna's is zero, window by window.

    Where the reference is flagged, the next in rank takes over with the phase
    it has in the nearest interval already turned. The work starts where the
    reference is solved, and goes forwards and backwards from there.
    """
    gain = gain.copy()
    nspw, nt, _, npol = gain.shape
    reference = np.full((nspw, nt), -1, dtype=np.int64)
    for s in range(nspw):
        # The first in rank that is solved at least half as often as any: a reference lost in one window
        # is replaced there alone. A polarisation without any solution has no say.
        solved_at = (~flag[s]).sum(axis=0)
        often = solved_at[:, solved_at.any(axis=0)].min(axis=1, initial=nt)
        best = next(a for a in ranked if 2 * often[a] >= often.max())
        candidates = [best, *(a for a in ranked if a != best)]
        for p in range(npol):
            good = np.flatnonzero(~flag[s, :, best, p])
            start = int(good[0]) if good.size else 0
            held = np.full(gain.shape[2], np.nan)
            held[best] = 0.0
            after_start = held
            for t in (*range(start, nt), *range(start - 1, -1, -1)):
                if t == start - 1:
                    held = after_start
                solved = [a for a in candidates if not flag[s, t, a, p]]
                if not solved:
                    continue
                chosen = next((a for a in solved if np.isfinite(held[a])), solved[0])
                turn = np.nan_to_num(held[chosen]) - np.angle(gain[s, t, chosen, p])
                gain[s, t, :, p] *= np.exp(1j * turn)
                held = np.where(flag[s, t, :, p], held, np.angle(gain[s, t, :, p]))
                if t == start:
                    after_start = held
                if p == 0:
                    reference[s, t] = chosen
    return gain, reference
