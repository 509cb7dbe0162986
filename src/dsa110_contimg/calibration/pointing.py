r"""Pointing offsets of the antennas, from the same sums as the gains.

The voltage pattern of an antenna that points off by d is, to first order, ``a(s - d) = a(s) - d . grad
a(s)``. A visibility of calibrated data is then ``M_pq + sum_k (d_pk + d_qk) M_k``, where ``M_k`` is the model
with half the derivative of the power beam by the displacement in the place of the beam: the same for both
antennas, east and north. With ``r = D - M`` the sums

    R_k = sum w Re(r conj(M_k)),   N_kl = sum w Re(M_k conj(M_l))

by baseline are sufficient for the offsets, as A and B are for gains: the normal equations of a linear problem
with a few unknowns per antenna. An amplitude of each antenna is solved for with them, for a beam that points
off makes most sources brighter or fainter alike; it is left to the gains.

The sources are divided in two halves, each with a gradient of its own, and the visibilities in the two that
gains are cross-validated on, which alternate over channels, baselines and dumps: offsets from one half of the
sources on one half of the visibilities predict the other half of the sources on the others, or they are not
kept. Where either half is calibrated with gains from itself alone, the two know nothing of each other but the
sky model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Vis, Weight

__all__ = [
    "AXES",
    "PARTS",
    "PointingFit",
    "PointingStatistics",
    "accumulate_pointing",
    "baseline_numbers",
    "fit_pointing",
    "half_of",
]

#: East and north; and the parts of the sky that have a gradient of their own.
AXES, PARTS = 2, 2
#: Gradients, and the model itself last.
BASES = AXES * PARTS + 1
#: An offset is known if its error is below this fraction of the width of its prior.
KNOWN = 0.5
#: Width of the Gaussian prior on amplitudes.
LOOSE_AMPLITUDE = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class PointingStatistics:
    """Sums over channels and dumps by baseline.

    Attributes
    ----------
    antenna1, antenna2 : ndarray of int, shape (nbl,)
        Antennas of each baseline.
    residual : ndarray of float64, shape (2, nbl, npol, 5)
        R, by half of the visibilities, for the gradients of the first half of the sources, east and north,
        those of the second half, and the model itself.
    normal : ndarray of float64, shape (2, nbl, npol, 5, 5)
        N of the same.
    """

    antenna1: Int
    antenna2: Int
    residual: Float
    normal: Float

    @classmethod
    def empty(cls, n_antennas: int) -> PointingStatistics:
        """Make zero statistics for all baselines between `n_antennas`."""
        first, second = np.triu_indices(n_antennas, 1)
        shape = (2, first.size, 2, BASES)
        return cls(
            antenna1=first.astype(np.int64),
            antenna2=second.astype(np.int64),
            residual=np.zeros(shape),
            normal=np.zeros((*shape, BASES)),
        )

    @property
    def n_antennas(self) -> int:
        """Number of antennas."""
        return int(self.antenna2.max()) + 1


@dataclass(frozen=True, eq=False, kw_only=True)
class PointingFit:
    """Offsets that the sums ask for.

    Attributes
    ----------
    offset_rad : ndarray, shape (nant, 2)
        East and north, to be added to the offsets that the model has.
    error_rad : ndarray, shape (nant, 2)
        Standard errors by the noise of the data.
    by_receptor_rad : ndarray, shape (npol, nant, 2)
        The same of either receptor, X and Y or R and L, by itself: a difference is squint. Not a number where
        the receptor has no data.
    gain : float
        By how much offsets from one half of the sources and visibilities lower chi-squared on the other half
        of both; mean of the four ways, negative for offsets that noise alone makes.
    of_half_rad : ndarray, shape (2, nant, 2)
        The same offsets from either half of the visibilities alone.
    known : ndarray of bool, shape (nant,)
        Antennas of which the data tell it; of the others the offset is that of the prior, about zero.
    """

    offset_rad: Float
    error_rad: Float
    by_receptor_rad: Float
    gain: float
    of_half_rad: Float
    known: Bool


def half_of(n_antennas: int, time_index: Int, antenna1: Int, antenna2: Int, channel: Int) -> Int:
    """Tell the half of each visibility, the one that the statistics of gains have it in, (nrow, nchan).

    Parameters
    ----------
    n_antennas : int
        Antennas in all.
    time_index, antenna1, antenna2 : ndarray of int, shape (nrow,)
        Dump and antennas of each row, in either order.
    channel : ndarray of int, shape (nchan,)
        Numbers of the channels in the whole band.
    """
    baseline = baseline_numbers(n_antennas, antenna1, antenna2)
    return np.asarray((channel + (baseline + time_index)[:, None]) & 1)


def baseline_numbers(n: int, antenna1: Int, antenna2: Int) -> Int:
    """Numbers of baselines, shape (nrow,); -1 for autocorrelations."""
    i, j = np.minimum(antenna1, antenna2), np.maximum(antenna1, antenna2)
    return np.where(i < j, i * n - (i * (i + 1)) // 2 + (j - i - 1), -1)


def accumulate_pointing(
    statistics: PointingStatistics,
    time_index: Int,
    antenna1: Int,
    antenna2: Int,
    residual: Vis,
    weight: Weight,
    bases: Vis,
    first_channel: int,
) -> None:
    """Add a block to the statistics, in place.

    Parameters
    ----------
    statistics : PointingStatistics
        Where to add.
    time_index, antenna1, antenna2 : ndarray of int, shape (nrow,)
        Dump and antennas of each row, in either order.
    residual : ndarray of complex64, shape (nrow, nchan, 2)
        Calibrated data less the model, parallel hands.
    weight : ndarray of float32, same shape
        Weights, zero where flagged.
    bases : ndarray of complex64, shape (5, nrow, nchan)
        Gradients and model.
    first_channel : int
        Number of the first channel in the whole band; even and odd numbers make the halves.
    """
    baseline = baseline_numbers(statistics.n_antennas, antenna1, antenna2)
    order = np.argsort(baseline, kind="stable")
    edges = np.flatnonzero(np.diff(baseline[order], prepend=-2, append=np.iinfo(np.int64).max))
    _accumulate(
        order,
        edges,
        baseline,
        time_index,
        residual,
        weight,
        np.ascontiguousarray(bases),
        first_channel,
        statistics.residual,
        statistics.normal,
    )


@numba.njit(parallel=True, cache=True)
def _accumulate(
    order: Int,
    edges: Int,
    baseline: Int,
    time_index: Int,
    data: Vis,
    weight: Weight,
    bases: Vis,
    first_channel: int,
    residual: Float,
    normal: Float,
) -> None:
    # The real part of a product with the conjugate does not tell in which order the antennas are.
    nchan, npol = data.shape[1:]
    n = bases.shape[0]
    for group in numba.prange(edges.size - 1):
        b = baseline[order[edges[group]]]
        if b < 0:
            continue
        for k in range(edges[group], edges[group + 1]):
            row = order[k]
            for c in range(nchan):
                half = (first_channel + c + b + time_index[row]) & 1
                for p in range(npol):
                    w = np.float64(weight[row, c, p])
                    if not w > 0:
                        continue
                    r = np.complex128(data[row, c, p])
                    for x in range(n):
                        of = np.complex128(bases[x, row, c])
                        residual[half, b, p, x] += w * (r.real * of.real + r.imag * of.imag)
                        for y in range(x + 1):
                            other = bases[y, row, c]
                            normal[half, b, p, x, y] += w * (of.real * other.real + of.imag * other.imag)


def fit_pointing(statistics: PointingStatistics, noise_variance: float, prior_rad: float) -> PointingFit:
    """Solve for offsets, and hold what one half of the sources says against the other.

    Parameters
    ----------
    statistics : PointingStatistics
        Of the calibrated data.
    noise_variance : float
        Variance of the real part of a visibility of weight one.
    prior_rad : float
        Width of the Gaussian prior on offsets, radians.

    Returns
    -------
    PointingFit
    """
    normal = statistics.normal + np.swapaxes(np.tril(statistics.normal, -1), -1, -2)
    both = np.zeros((BASES, AXES + 1))
    for axis in range(AXES):
        both[axis::AXES, axis][:PARTS] = 1.0
    both[-1, -1] = 1.0
    residual, total = statistics.residual.sum(axis=0), normal.sum(axis=0)
    solved, error = _solve(
        statistics, residual.sum(axis=1) @ both, both.T @ total.sum(axis=1) @ both, noise_variance, prior_rad
    )
    receptors = np.full((residual.shape[1], statistics.n_antennas, AXES), np.nan)
    for p in range(len(receptors)):
        sums = residual[:, p] @ both, both.T @ total[:, p] @ both
        of_one, its_error = _solve(statistics, *sums, noise_variance, prior_rad)
        told = _told(its_error, prior_rad)
        receptors[p, told] = of_one[told, :AXES]
    halves = [
        _solve(
            statistics,
            statistics.residual[half].sum(axis=1) @ both,
            both.T @ normal[half].sum(axis=1) @ both,
            noise_variance,
            prior_rad,
        )[0][:, :AXES]
        for half in range(2)
    ]
    gains = [_held_out_gain(statistics, normal, half, noise_variance, prior_rad) for half in range(2)]
    return PointingFit(
        offset_rad=solved[:, :AXES],
        error_rad=error[:, :AXES],
        by_receptor_rad=receptors,
        gain=float(np.mean(gains)),
        of_half_rad=np.stack(halves),
        known=_told(error, prior_rad),
    )


def _told(error: Float, prior_rad: float) -> Bool:
    """Say of which antennas the data tell where they point, shape (nant,): not the prior alone."""
    return np.asarray((error[:, :AXES] < KNOWN * prior_rad).all(axis=1))


def _held_out_gain(
    statistics: PointingStatistics, normal: Float, half: int, variance: float, prior_rad: float
) -> float:
    """By how much chi-squared on the other half falls with the offsets of the other sources; mean of two.

    Either half of the sources has offsets of its own here, so that neither takes up what is the other's.
    """
    own, other = ((statistics.residual[h].sum(axis=1), normal[h].sum(axis=1)) for h in (half, 1 - half))
    found, _ = _solve(statistics, own[0], own[1], variance, prior_rad)
    both = found[statistics.antenna1] + found[statistics.antenna2]
    total = 0.0
    for part in range(PARTS):
        here, there = (slice(AXES * k, AXES * (k + 1)) for k in (part, 1 - part))
        used = [*range(AXES * part, AXES * (part + 1)), BASES - 1]
        # What is left of the other sources once these offsets and the amplitudes are applied.
        left = other[0][:, there] - np.einsum("bkl,bl->bk", other[1][:, there][:, :, used], both[:, used])
        off = both[:, here]
        total += 2 * (off * left).sum() - np.einsum("bk,bkl,bl->", off, other[1][:, there, there], off)
    return float(total / PARTS / variance)


def _solve(
    statistics: PointingStatistics, residual: Float, normal: Float, variance: float, prior_rad: float
) -> tuple[Float, Float]:
    """Solve the normal equations of unknowns that both antennas of a baseline have alike.

    Parameters
    ----------
    statistics : PointingStatistics
        Antennas of the baselines.
    residual : ndarray, shape (nbl, n)
        Right-hand sides.
    normal : ndarray, shape (nbl, n, n)
        Normal matrices.
    variance : float
        Noise variance at weight one.
    prior_rad : float
        Width of the prior on all unknowns but the last, which is the amplitude.

    Returns
    -------
    values, errors : ndarray, shape (nant, n)
    """
    nant, n = statistics.n_antennas, residual.shape[1]
    matrix, right = np.zeros((nant, nant, n, n)), np.zeros((nant, n))
    for first, second in (
        (statistics.antenna1, statistics.antenna2),
        (statistics.antenna2, statistics.antenna1),
    ):
        np.add.at(matrix, (first, first), normal)
        np.add.at(matrix, (first, second), normal)
        np.add.at(right, first, residual)
    loose = np.full(n, variance / prior_rad**2)
    loose[-1] = variance / LOOSE_AMPLITUDE**2
    for k in range(n):
        matrix[np.arange(nant), np.arange(nant), k, k] += loose[k]
    inverse = np.linalg.inv(matrix.transpose(0, 2, 1, 3).reshape(nant * n, nant * n))
    values = (inverse @ right.reshape(-1)).reshape(nant, n)
    errors = np.sqrt(variance * np.diag(inverse)).reshape(nant, n)
    return values, errors
