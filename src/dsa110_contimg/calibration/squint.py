r"""Squint of the receptors, which is common to all antennas, from the sums that pointing offsets are from.

The first receptor of each antenna (X or R) points off by half of the squint s, the second (Y or L) by as much
to the other side. To first order the visibilities of the first are ``M + sum_k s_k M_k``, with ``M_k`` half
the derivative of the model by the displacement of the beam, and those of the second ``M - sum_k s_k M_k``.
What an offset of all beams makes is the same for both, and an amplitude of each antenna and receptor is left
to the gains: both are solved for with it and left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.calibration.pointing import AXES, BASES, LOOSE_AMPLITUDE, PARTS, PointingStatistics

__all__ = ["SquintFit", "fit_squint"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SquintFit:
    """Squint that the sums ask for, to be added to that of the model.

    Attributes
    ----------
    squint_rad : ndarray, shape (2,)
        By how much the first receptor points further east and north than the second; zero where one of them
        has no data.
    error_rad : ndarray, shape (2,)
        Standard errors by the noise of the data; infinite where it is not known.
    of_half_rad : ndarray, shape (2, 2)
        The same squint from either half of the visibilities alone.
    gain : float
        By how much the squint from one half of the visibilities lowers chi-squared on the other one; mean of
        both ways, negative for one that noise alone makes.
    """

    squint_rad: Float
    error_rad: Float
    of_half_rad: Float
    gain: float


def fit_squint(statistics: PointingStatistics, noise_variance: float) -> SquintFit:
    """Solve for the squint, and hold what one half of the visibilities says against the other.

    Parameters
    ----------
    statistics : PointingStatistics
        Of calibrated data.
    noise_variance : float
        Variance of the real part of a visibility of weight one.

    Returns
    -------
    SquintFit
    """
    total = statistics.normal + np.swapaxes(np.tril(statistics.normal, -1), -1, -2)
    both = np.zeros((BASES, AXES + 1))
    for axis in range(AXES):
        both[axis::AXES, axis][:PARTS] = 1.0
    both[-1, -1] = 1.0
    residual, normal = statistics.residual @ both, both.T @ total @ both
    if not (normal[..., 0, 0].sum(axis=1) > 0).all():
        # A receptor without data, or no sky on a slope of the beam.
        zero, unknown = np.zeros(AXES), np.full(AXES, np.inf)
        return SquintFit(squint_rad=zero, error_rad=unknown, of_half_rad=np.zeros((2, AXES)), gain=0.0)
    halves = [_of_squint(statistics, residual[h], normal[h], noise_variance) for h in (0, 1)]
    right, matrix = _of_squint(statistics, residual.sum(axis=0), normal.sum(axis=0), noise_variance)
    found = np.stack([np.linalg.solve(of_half[1], of_half[0]) for of_half in halves])
    gains = [2 * s @ other[0] - s @ other[1] @ s for s, other in zip(found, halves[::-1], strict=True)]
    return SquintFit(
        squint_rad=np.asarray(np.linalg.solve(matrix, right), dtype=np.float64),
        error_rad=np.sqrt(noise_variance * np.diag(np.linalg.inv(matrix))),
        of_half_rad=found,
        gain=float(np.mean(gains) / noise_variance),
    )


def _of_squint(
    statistics: PointingStatistics, residual: Float, normal: Float, variance: float
) -> tuple[Float, Float]:
    """Form the normal equations of the squint alone: right-hand side and matrix, all else eliminated.

    Parameters
    ----------
    statistics : PointingStatistics
        Antennas of the baselines.
    residual : ndarray, shape (nbl, 2, 3)
        Right-hand sides of gradients and model, by receptor.
    normal : ndarray, shape (nbl, 2, 3, 3)
        Normal matrices of the same.
    variance : float
        Noise variance at weight one.
    """
    nant, pairs = statistics.n_antennas, (statistics.antenna1, statistics.antenna2)
    # Squint, and the offset of both receptors.
    matrix, right = np.zeros((2 * AXES, 2 * AXES)), np.zeros(2 * AXES)
    for p, sign in enumerate((1.0, -1.0)):
        # What the gradients of the squint and of the offset are of those of the beam.
        way = np.concatenate([sign * np.eye(AXES), np.eye(AXES)])
        of_antenna, crossed = np.zeros((nant, nant)), np.zeros((2 * AXES, nant))
        left = np.zeros(nant)
        for first, second in (pairs, pairs[::-1]):
            np.add.at(of_antenna, (first, first), normal[:, p, -1, -1])
            np.add.at(of_antenna, (first, second), normal[:, p, -1, -1])
            np.add.at(crossed.T, first, normal[:, p, :AXES, -1] @ way.T)
            np.add.at(left, first, residual[:, p, -1])
        of_antenna[np.diag_indices(nant)] += variance / LOOSE_AMPLITUDE**2
        taken = crossed @ np.linalg.inv(of_antenna)
        matrix += way @ normal[:, p, :AXES, :AXES].sum(axis=0) @ way.T - taken @ crossed.T
        right += way @ residual[:, p, :AXES].sum(axis=0) - taken @ left
    squint, offset = slice(0, AXES), slice(AXES, None)
    share = matrix[squint, offset] @ np.linalg.inv(matrix[offset, offset])
    return right[squint] - share @ right[offset], matrix[squint, squint] - share @ matrix[offset, squint]
