"""Applying gains: the product of tables, and visibilities corrected by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int, Vis, Weight
from dsa110_contimg.calibration.gains import GainTable

__all__ = ["chain", "correct", "gains_at_times"]


def chain(
    tables: Sequence[GainTable], spw_id: int, time_s: Float, freq_hz: Float, n_antennas: int
) -> tuple[Complex, Bool]:
    """Multiply the gains of several tables.

    Parameters
    ----------
    tables : sequence of GainTable
        Tables, in any order: scalar gains per receptor commute.
    spw_id : int
        Spectral window of the data.
    time_s : ndarray, shape (n,)
        Times in seconds (MJD UTC).
    freq_hz : ndarray, shape (nchan,)
        Channels in hertz.
    n_antennas : int
        Antennas of the array.

    Returns
    -------
    gain : ndarray of complex128, shape (n, nant, nchan or 1, 2)
        Product of the gains; the channel axis is 1 if none depends on frequency.
    flag : ndarray of bool, same shape
        True where any table has no solution.
    """
    factors = [table.evaluate(spw_id, time_s, freq_hz) for table in tables]
    channels = max((gain.shape[2] for gain, _ in factors), default=1)
    return _product(factors, (len(time_s), n_antennas, channels, 2))


def gains_at_times(
    tables: Sequence[GainTable], spw_ids: Sequence[int], time_s: Float, n_antennas: int
) -> tuple[Complex, Bool]:
    """Multiply the gains of several tables where frequency within a spectral window does not matter.

    Parameters
    ----------
    tables : sequence of GainTable
        Tables, in any order; of one that depends on frequency its first channel is taken.
    spw_ids : sequence of int
        Spectral windows of the data.
    time_s : ndarray, shape (ntime,)
        Times in seconds (MJD UTC).
    n_antennas : int
        Antennas of the array.

    Returns
    -------
    gain : ndarray of complex128, shape (nspw, ntime, nant, 2)
        Product of the gains, one without tables.
    solved : ndarray of bool, same shape
        True where every table has a solution.
    """
    shape = (len(time_s), n_antennas, 1, 2)
    products = [_product((_first_channel(table, spw, time_s) for table in tables), shape) for spw in spw_ids]
    gain = np.stack([g[:, :, 0] for g, _ in products])
    solved = ~np.stack([f[:, :, 0] for _, f in products])
    return gain, solved


def _first_channel(table: GainTable, spw_id: int, time_s: Float) -> tuple[Complex, Bool]:
    gain, flag = table.for_spw(spw_id).at_times(time_s, table.interpolation, table.max_gap)
    return gain[:, :, :1], flag[:, :, :1]


def _product(
    factors: Iterable[tuple[Complex, Bool]], shape: tuple[int, int, int, int]
) -> tuple[Complex, Bool]:
    """Product of gains and union of flags, shape (ntime, nant, nchan, 2)."""
    total, flagged = np.ones(shape, dtype=np.complex128), np.zeros(shape, dtype=bool)
    for gain, flag in factors:
        total *= gain
        flagged |= flag
    return total, flagged


def correct(
    vis: Vis,
    weight: Weight,
    antenna1: Int,
    antenna2: Int,
    time_index: Int,
    gain: Complex,
    flag: Bool,
    receptors: Sequence[tuple[int, int]],
) -> tuple[Vis, Weight]:
    """Correct visibilities and carry their weights along.

    Parameters
    ----------
    vis : ndarray of complex64, shape (nrow, nchan, ncorr)
        Visibilities.
    weight : ndarray of float32, same shape
        Weights (inverse variances), zero where flagged.
    antenna1, antenna2 : ndarray of int, shape (nrow,)
        Antennas.
    time_index : ndarray of int, shape (nrow,)
        Index of each row into the time axis of `gain`.
    gain : ndarray of complex128, shape (ntime, nant, nchan or 1, 2)
        Gains.
    flag : ndarray of bool, same shape
        Where there are none.
    receptors : sequence of (int, int)
        Receptors of antenna 1 and 2 by correlation.

    Returns
    -------
    vis : ndarray of complex64, shape (nrow, nchan, ncorr)
        ``V / (g_i conj(g_j))``; unchanged where flagged.
    weight : ndarray of float32, same shape
        ``w |g_i|^2 |g_j|^2``; zero where flagged.
    """
    pairs = np.asarray(receptors, dtype=np.int64).reshape(-1, 2)
    out, new_weight = np.empty_like(vis), np.empty_like(weight)
    good = ~flag & (gain != 0)
    # Divided once per antenna, in double precision; zero where there is no solution.
    inverse = np.divide(1.0, gain, out=np.zeros_like(gain), where=good)
    power = np.where(good, gain.real**2 + gain.imag**2, 0.0)
    _correct(
        np.ascontiguousarray(vis),
        np.ascontiguousarray(weight),
        antenna1,
        antenna2,
        time_index,
        inverse.astype(np.complex64),
        power,
        pairs,
        out,
        new_weight,
    )
    return out, new_weight


@numba.njit(parallel=True, cache=True)
def _correct(
    vis: Vis,
    weight: Weight,
    antenna1: Int,
    antenna2: Int,
    time_index: Int,
    inverse: Vis,
    power: Float,
    receptors: Int,
    out: Vis,
    out_weight: Weight,
) -> None:
    nrow, nchan, ncorr = vis.shape
    step = 0 if power.shape[2] == 1 else 1
    for r in numba.prange(nrow):
        t, i, j = time_index[r], antenna1[r], antenna2[r]
        for c in range(nchan):
            for k in range(ncorr):
                p, q = receptors[k, 0], receptors[k, 1]
                strength = power[t, i, c * step, p] * power[t, j, c * step, q]
                v = vis[r, c, k]
                if strength > 0:
                    v *= inverse[t, i, c * step, p] * np.conj(inverse[t, j, c * step, q])
                out[r, c, k] = v
                out_weight[r, c, k] = weight[r, c, k] * strength
