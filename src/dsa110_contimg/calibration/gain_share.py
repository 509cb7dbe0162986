"""What gains take of a change of the sky that they were solved without knowing of.

Gains are solved against a model of the sky. Where a source is brighter in the sky than in the model they
follow the difference as far as they can, and what is left of it in the calibrated data is too small. To first
order that is a projection, and known from the model and the layout of the data alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import scipy.linalg

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.predict.averaged import where_formed
from dsa110_contimg.predict.direct import TILE, find_delays, form_phasors, tiles_of

__all__ = ["GainFreedom", "SourceOverlap", "gain_freedom", "gain_share"]

#: Added to the diagonal of normal matrices, in units of their mean: antennas without data, and the phase that
#: all have in common, are free.
RIDGE = 1e-9


@dataclass(frozen=True)
class GainFreedom:
    """Which dumps share a gain.

    Attributes
    ----------
    phase, amplitude : ndarray of int, shape (ntime,)
        Number of the interval of each dump; of amplitudes none if they were not solved.
    per_spw : bool
        Whether spectral windows have gains of their own.
    """

    phase: Int
    amplitude: Int | None
    per_spw: bool


def gain_freedom(tables: Sequence[GainTable], times_s: Float) -> GainFreedom:
    """Return what gains are free to do, by the tables that were solved one on the other.

    Parameters
    ----------
    tables : sequence of GainTable
        At least one.
    times_s : ndarray, shape (ntime,)
        Dumps, seconds.
    """

    def intervals(some: Sequence[GainTable]) -> Int:
        finest = max(some, key=lambda t: len(next(iter(t.gains.values())).time_s))
        centre = next(iter(finest.gains.values())).time_s
        return np.asarray(np.abs(times_s[:, None] - centre).argmin(axis=1))

    solved = [t for t in tables if t.kind != "B Jones"]
    with_amplitudes = [t for t in tables if t.label == "ap"]
    own = any(not t.is_shared for t in solved)
    return GainFreedom(intervals(solved), intervals(with_amplitudes) if with_amplitudes else None, own)


class SourceOverlap:
    """Sums over the data of how sources lie over a sky model, by antenna and dump.

    Parameters
    ----------
    n_sources, n_groups, n_times, n_antennas : int
        Sizes; groups are of spectral windows that share gains.
    """

    def __init__(self, n_sources: int, n_groups: int, n_times: int, n_antennas: int) -> None:
        # Of all baselines, and of those on which sources are measured; real parts, then imaginary ones.
        self.sums: Single = np.zeros((n_sources, n_groups, n_times, n_antennas, 4), dtype=np.float32)
        self.power: Float = np.zeros((n_groups, n_times, n_antennas, n_antennas))
        self.own: Float = np.zeros(n_sources)

    def add(
        self,
        group: int,
        time_index: Int,
        antenna1: Int,
        antenna2: Int,
        uvw_m: Float,
        freq_hz: Float,
        lmn: Float,
        flux_jy: Single,
        pointing: Int,
        model: Vis,
        weight: Weight,
        is_measured: Bool,
    ) -> None:
        """Take in a block.

        Parameters
        ----------
        group : int
            Of its spectral window.
        time_index, antenna1, antenna2, pointing : ndarray of int, shape (nrow,)
            Of each row; pointings are those of `flux_jy`.
        uvw_m : ndarray, shape (nrow, 3)
            Baselines in metres.
        freq_hz : ndarray, shape (nchan,)
            Channels in hertz; of several spectral windows that share gains at once it takes less time.
        lmn : ndarray, shape (n, 3)
            Direction cosines l, m, n - 1.
        flux_jy : ndarray, shape (npointing, n, nchan)
            Apparent flux densities.
        model : ndarray of complex64, shape (nrow, nchan)
            Sky model.
        weight : ndarray of float32, shape (nrow, nchan)
            Weights of the gain solution.
        is_measured : ndarray of bool, shape (nrow,)
            Whether sources are measured on the row too.
        """
        _add_power(self.power[group], time_index, antenna1, antenna2, model, weight)
        # Tiles are of one spectrum each, and channels of neighbouring rows lie side by side.
        order: slice | Int = slice(None)
        if (np.diff(pointing) < 0).any():
            order = np.argsort(pointing, kind="stable")
        of_tiles = tiles_of(len(pointing), pointing[order])
        weighted = np.empty((2, *model.T.shape), dtype=np.float32)
        _weigh(model[order], weight[order], weighted)
        freq = np.ascontiguousarray(freq_hz, dtype=np.float64)
        _add_overlap(
            self.sums[:, group],
            *of_tiles,
            time_index[order],
            antenna1[order],
            antenna2[order],
            np.ascontiguousarray(uvw_m[order], dtype=np.float64),
            freq,
            *where_formed(freq, (freq.size,)),
            np.ascontiguousarray(lmn, dtype=np.float64),
            np.ascontiguousarray(flux_jy, dtype=np.float32),
            weighted[0],
            weighted[1],
            is_measured[order],
        )
        by_pointing = np.zeros((len(flux_jy), freq_hz.size))
        for k in range(len(flux_jy)):
            by_pointing[k] = weight[is_measured & (pointing == k)].sum(axis=0, dtype=np.float64)
        self.own += np.einsum("sc,snc->n", by_pointing, np.square(flux_jy, dtype=np.float64))


def gain_share(overlap: SourceOverlap, freedom: GainFreedom) -> Float:
    """Return which fraction of a change of each source gains take, and what they make of it at others.

    Parameters
    ----------
    overlap : SourceOverlap
        Sums over all data.
    freedom : GainFreedom
        What gains are free to do.

    Returns
    -------
    ndarray, shape (n, n)
        In units in which the normal matrix of the fluxes has a diagonal of one: on the diagonal the fraction
        that is taken. What all gains have in common, the flux scale, is left out.

    Notes
    -----
    With gains ``1 + a_i + i p_i`` about the solution, a change S of the sky's visibilities over a model M
    moves them by the least squares of ``S - M (a_i + a_j + i (p_i - p_j))``: the normal matrices are
    ``diag(sum_j B_ij) + B`` of the amplitudes and ``diag(sum_j B_ij) - B`` of the phases, with ``B = sum w
    |M|^2``, and the right-hand sides ``sum_j Re(sum w S conj(M))`` and, with the sign of the antenna's place,
    the imaginary part. The part of S that they can form is gone from the residual.
    """
    n = overlap.own.size
    taken = np.zeros((n, n))
    norm = np.sqrt(np.maximum(overlap.own, 1e-300))
    common, common_measured, common_power = np.zeros(n), np.zeros(n), 0.0
    for group in range(overlap.power.shape[0]):
        for of_dumps, place, sign in ((freedom.phase, 2, -1.0), (freedom.amplitude, 0, 1.0)):
            if of_dumps is None:
                continue
            for interval in np.unique(of_dumps):
                dumps = of_dumps == interval
                power = overlap.power[group, dumps].sum(axis=0)
                total = power.sum(axis=1)
                if not total.any():
                    continue
                matrix = np.diag(total) + sign * power
                matrix[np.diag_indices(total.size)] += RIDGE * total.mean() + (total == 0)
                if sign < 0:
                    # The phase of all antennas together moves nothing.
                    matrix += total.mean() / total.size
                sums = overlap.sums[:, group, dumps].sum(axis=1, dtype=np.float64) / norm[:, None, None]
                of_all, of_measured = sums[:, :, place], sums[:, :, place + 1]
                taken += of_measured @ scipy.linalg.solve(matrix, of_all.T, assume_a="pos")
                if sign > 0:
                    common += of_all.sum(axis=1)
                    common_measured += of_measured.sum(axis=1)
                    common_power += float(matrix.sum())
    if common_power > 0:
        taken -= np.outer(common_measured, common) / common_power
    return np.asarray((taken + taken.T) / 2)


@numba.njit(cache=True)
def _add_power(
    power: Float, time_index: Int, antenna1: Int, antenna2: Int, model: Vis, weight: Weight
) -> None:
    for r in range(time_index.size):
        t, i, j = time_index[r], antenna1[r], antenna2[r]
        total = 0.0
        for c in range(model.shape[1]):
            m = model[r, c]
            total += weight[r, c] * (m.real * m.real + m.imag * m.imag)
        power[t, i, j] += total
        power[t, j, i] += total


@numba.njit(parallel=True, fastmath=True, cache=True)
def _weigh(model: Vis, weight: Weight, out: Single) -> None:
    """Weighted conjugate of a model, real and imaginary parts, shape (2, nchan, nrow)."""
    for c in numba.prange(model.shape[1]):
        for r in range(model.shape[0]):
            out[0, c, r] = weight[r, c] * model[r, c].real
            out[1, c, r] = -weight[r, c] * model[r, c].imag


@numba.njit(parallel=True, fastmath=True, cache=True)
def _add_overlap(
    sums: Single,
    first_row: Int,
    n_rows: Int,
    spectrum: Int,
    time_index: Int,
    antenna1: Int,
    antenna2: Int,
    uvw: Float,
    freq: Float,
    step: float,
    formed: Bool,
    lmn: Float,
    flux: Single,
    weighted_re: Single,
    weighted_im: Single,
    is_measured: Bool,
) -> None:
    """Sum S conj(M) over channels, by source, dump and antenna; tiles of rows are as in the prediction."""
    nchan = freq.size
    for k in numba.prange(lmn.shape[0]):
        delay = np.zeros(TILE, dtype=np.float64)
        pr = np.zeros(TILE, dtype=np.float32)
        pi = np.zeros(TILE, dtype=np.float32)
        dr = np.zeros(TILE, dtype=np.float32)
        di = np.zeros(TILE, dtype=np.float32)
        re = np.zeros(TILE, dtype=np.float32)
        im = np.zeros(TILE, dtype=np.float32)
        for tile in range(first_row.size):
            start, rows, of = first_row[tile], n_rows[tile], spectrum[tile]
            find_delays(uvw, start, rows, lmn, k, delay)
            form_phasors(delay, step, dr, di)
            re[:], im[:] = 0, 0
            for c in range(nchan):
                if formed[c]:
                    form_phasors(delay, freq[c], pr, pi)
                s = flux[of, k, c]
                for r in range(rows):
                    x, y = s * weighted_re[c, start + r], s * weighted_im[c, start + r]
                    re[r] += pr[r] * x - pi[r] * y
                    im[r] += pr[r] * y + pi[r] * x
                    turned = pr[r] * dr[r] - pi[r] * di[r]
                    pi[r] = pr[r] * di[r] + pi[r] * dr[r]
                    pr[r] = turned
            for r in range(rows):
                t, i, j = time_index[start + r], antenna1[start + r], antenna2[start + r]
                sums[k, t, i, 0] += re[r]
                sums[k, t, j, 0] += re[r]
                sums[k, t, i, 2] += im[r]
                sums[k, t, j, 2] -= im[r]
                if is_measured[start + r]:
                    sums[k, t, i, 1] += re[r]
                    sums[k, t, j, 1] += re[r]
                    sums[k, t, i, 3] += im[r]
                    sums[k, t, j, 3] -= im[r]
