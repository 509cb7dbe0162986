"""Antennas that give noise alone for part of the time, found whatever the solution interval is.

A dead receiver leaves no mark on the noise, and its gains fit themselves to it. But gains from one half of
the channels predict nothing of the other half then, in as many dumps as it takes to tell.
"""

from __future__ import annotations

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.calibration.cross_validation import DUMPS_PER_INTERVAL, MIN_HELDOUT_SNR, GainSolver
from dsa110_contimg.calibration.solve_settings import Grouping

__all__ = ["EXPECTED_SNR", "lost_antennas"]

#: A block of dumps is judged where a live antenna would stand out of the noise by this many sigma.
EXPECTED_SNR = 6.0
#: Antennas from this quantile on, in a block, say how strong the signal is in it: as many may be dead.
ARRAY_QUANTILE = 0.75


def lost_antennas(solver: GainSolver, *, combine_spw: bool, before: Bool | None = None) -> Bool:
    """Find where antennas that have a signal at other times have none.

    Parameters
    ----------
    solver : GainSolver
        With the statistics of the data against a sky model.
    combine_spw : bool
        Whether all spectral windows share a gain.
    before : ndarray of bool, shape (ntime, nant, 2), optional
        What was found before, and is in the statistics no more.

    Returns
    -------
    ndarray of bool, shape (ntime, nant, 2)
        What is found besides. Never an antenna that is dead all the time, for what it should be is not known;
        nor a dump in which the signal of most antennas is gone together, for that is the sky.

    Notes
    -----
    Each dump of an antenna and polarisation is judged once, in the shortest block in which it would be seen
    alive by `EXPECTED_SNR` errors: by the part of its model power that gains account for in the median of
    its own live blocks, less where the whole array sees less. A block under `MIN_HELDOUT_SNR` is lost. What
    was lost seldom begins with a block: dumps beside it are lost too where they are nearer to nothing than to
    what was expected of them.
    """
    grouping = Grouping(per_polarization=True, combine_spw=combine_spw)
    n_times = solver.statistics.n_times
    lost = np.zeros((n_times, solver.statistics.n_antennas, 2), dtype=bool)
    judged, single = lost.copy(), None
    for n_dumps in DUMPS_PER_INTERVAL:
        # Two blocks at least: one alive, to tell what the other should be.
        if 2 * n_dumps > n_times or judged.all():
            break
        block, aligned, power, error = solver.heldout_by_block(n_dumps, grouping)
        snr, expected = _significance(aligned, power, error)
        single = single or (snr, expected)
        can_tell = expected >= EXPECTED_SNR
        lost |= (can_tell & (snr < MIN_HELDOUT_SNR))[block] & ~judged
        judged |= can_tell[block]
    before = np.zeros_like(lost) if before is None else before
    return lost if single is None else _grown(lost | before, *single) & ~before


def _significance(aligned: Float, power: Float, error: Float) -> tuple[Float, Float]:
    """Signal to noise of each block, and what a live antenna would have; zero without data.

    All of shape (nblock, nant, 2), the arguments as of :meth:`GainSolver.heldout_by_block`.
    """
    known = (power > 0) & (error > 0)
    error, power = np.where(known, error, 1), np.where(known, power, 0)
    snr = np.where(known, aligned / error, 0)
    part = aligned / np.where(known, power, 1)
    live = known & (snr >= MIN_HELDOUT_SNR)
    own = _quantile(part, live, 0.5, axis=0)
    # Of few blocks those that the noise helped are the live ones: less by the error of their median.
    own_error = _quantile(error / np.where(known, power, 1), live, 0.5, axis=0)
    own = np.maximum(own - own_error / np.sqrt(np.maximum(live.sum(axis=0), 1)), 0)
    array = _quantile(part / np.where(own > 0, own, 1), known & (own > 0), ARRAY_QUANTILE, axis=1)
    return snr, own * np.clip(array, 0, 1) * power / error


def _grown(lost: Bool, snr: Float, expected: Float) -> Bool:
    """Lost dumps, and those beside them that single dumps tell from live ones."""
    more = (expected >= MIN_HELDOUT_SNR) & (snr < expected / 2)
    for _ in range(len(lost)):
        beside = np.zeros_like(lost)
        beside[1:] |= lost[:-1]
        beside[:-1] |= lost[1:]
        grown = lost | (beside & more)
        if np.array_equal(grown, lost):
            break
        lost = grown
    return lost


def _quantile(values: Float, known: Bool, quantile: float, axis: int) -> Float:
    """Quantile of what is known along an axis, which is kept; zero where nothing is."""
    some = known.any(axis=axis, keepdims=True)
    masked = np.where(known | ~some, values, np.nan)
    return np.asarray(np.where(some, np.nanquantile(masked, quantile, axis=axis, keepdims=True), 0.0))
