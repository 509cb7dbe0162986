r"""Distortion of positions by interval, from the same kind of sums as pointing offsets.

Sources that are displaced by ``(dl, dm) = E x`` of their direction cosines x about the phase centre, E
symmetric, change a visibility to first order by ``2 pi i (u dl + v dm)`` of what each contributes. With
``V_l`` and ``V_m``, in which each source counts with its l or m, that of a stretch is ``2 pi i (u V_l + v
V_m)``, and those of the two shears ``2 pi i (u V_l - v V_m)`` and ``2 pi i (u V_m + v V_l)``. A shift of all
sources, ``2 pi i (u V, v V)``, and phases and amplitudes of the antennas are solved for with them, by
interval and receptor: gains take up what they can of a distortion, and the errors say what is left to tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Float, Int, Vis, Weight
from dsa110_contimg.calibration.pointing import baseline_numbers
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT

__all__ = ["SHAPES", "DistortionSums", "accumulate_distortion", "distortion_bases", "fit_distortions"]

#: Stretch and shears; beside them the shift of all sources; and amplitude and phase of an antenna.
SHAPES, SHIFTS, OF_ANTENNA = 3, 2, 2
BASES = SHAPES + SHIFTS + OF_ANTENNA
#: Width of the Gaussian priors on amplitudes and phases, and of that on shifts and distortions: radians, and
#: shift over distance. They hold what the data do not tell.
LOOSE_GAIN, LOOSE_SHIFT_RAD, LOOSE_SHAPE = 1.0, 1e-2, 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class DistortionSums:
    """Sums over channels and the dumps of an interval, by baseline.

    Attributes
    ----------
    antenna1, antenna2 : ndarray of int, shape (nbl,)
        Antennas of each baseline.
    residual : ndarray of float64, shape (ninterval, 2, nbl, 7)
        ``sum w Re(r conj(B))`` by receptor: of stretch and shears, shifts, amplitude and phase.
    normal : ndarray of float64, shape (ninterval, 2, nbl, 7, 7)
        ``sum w Re(B conj(B'))`` of the same.
    """

    antenna1: Int
    antenna2: Int
    residual: Float
    normal: Float

    @classmethod
    def empty(cls, n_antennas: int, n_intervals: int) -> DistortionSums:
        """Make zero sums for all baselines between `n_antennas`."""
        first, second = np.triu_indices(n_antennas, 1)
        shape = (n_intervals, 2, first.size, BASES)
        return cls(
            antenna1=first, antenna2=second, residual=np.zeros(shape), normal=np.zeros((*shape, BASES))
        )

    @property
    def n_antennas(self) -> int:
        """Number of antennas."""
        return int(self.antenna2.max()) + 1


def distortion_bases(uvw_m: Float, freq_hz: Float, model: Vis, by_l: Vis, by_m: Vis) -> Vis:
    """Form what displacements and gains make of a model.

    Parameters
    ----------
    uvw_m : ndarray, shape (nrow, 3)
        Baselines in metres.
    freq_hz : ndarray, shape (nchan,)
        Channels, or bins.
    model, by_l, by_m : ndarray of complex64, shape (nrow, nchan)
        The model, and those in which each source counts with its direction cosine l or m.

    Returns
    -------
    ndarray of complex64, shape (7, nrow, nchan)
        Jansky per radian, or per unit of shift over distance.
    """
    turn = np.complex64(2j * np.pi) * (freq_hz / SPEED_OF_LIGHT).astype(np.float32)
    u, v = (uvw_m[:, k, None].astype(np.float32) * turn for k in (0, 1))
    ul, vm = u * by_l, v * by_m
    bases = (ul + vm, ul - vm, u * by_m + v * by_l, u * model, v * model, model, np.complex64(1j) * model)
    return np.stack(bases).astype(np.complex64)


def accumulate_distortion(
    sums: DistortionSums,
    interval: Int,
    antenna1: Int,
    antenna2: Int,
    residual: Vis,
    weight: Weight,
    bases: Vis,
) -> None:
    """Add a block to the sums, in place.

    Parameters
    ----------
    sums : DistortionSums
        Where to add.
    interval, antenna1, antenna2 : ndarray of int, shape (nrow,)
        Interval and antennas of each row, in either order; autocorrelations are left out.
    residual : ndarray of complex64, shape (nrow, nchan, 2)
        Calibrated data less the model, parallel hands.
    weight : ndarray of float32, same shape
        Weights, zero where flagged.
    bases : ndarray of complex64, shape (7, nrow, nchan)
        Of :func:`distortion_bases`.
    """
    baseline = baseline_numbers(sums.n_antennas, antenna1, antenna2)
    cross = np.flatnonzero(baseline >= 0)
    # A phase of the first antenna is one of the second, turned, where the antennas are the other way round.
    sign = np.where(antenna1 < antenna2, 1.0, -1.0)[cross]
    of = bases[:, cross]
    parts = np.concatenate([of.real, of.imag], axis=2)
    for p in range(residual.shape[2]):
        left, w = residual[cross, :, p], np.maximum(weight[cross, :, p], 0)
        seen = np.concatenate([w * left.real, w * left.imag], axis=1)
        right = np.einsum("xrc,rc->rx", parts, seen, dtype=np.float64)
        twice = np.concatenate([w, w], axis=1)
        matrix = np.einsum("xrc,rc,yrc->rxy", parts, twice, parts, dtype=np.float64, optimize=True)
        right[:, -1] *= sign
        matrix[:, :, -1] *= sign[:, None]
        matrix[:, -1] *= sign[:, None]
        np.add.at(sums.residual[:, p], (interval[cross], baseline[cross]), right)
        np.add.at(sums.normal[:, p], (interval[cross], baseline[cross]), matrix)


def fit_distortions(sums: DistortionSums, noise_variance: float) -> tuple[Float, Float]:
    """Solve for the distortion of each interval.

    Parameters
    ----------
    sums : DistortionSums
        Of the calibrated data.
    noise_variance : float
        Variance of the real part of a visibility of weight one.

    Returns
    -------
    shapes : ndarray, shape (ninterval, 3)
        Stretch and the two shears, shift over distance, to be added to those that the model has.
    covariance : ndarray, shape (ninterval, 3, 3)
        Their covariances by the noise.
    """
    n_intervals, found, errors = len(sums.residual), [], []
    kept = SHAPES + SHIFTS
    for k in range(n_intervals):
        matrix = np.diag(
            [*[noise_variance / LOOSE_SHAPE**2] * SHAPES, *[noise_variance / LOOSE_SHIFT_RAD**2] * SHIFTS]
        )
        right = np.zeros(kept)
        for p in range(sums.residual.shape[1]):
            more = _without_gains(sums, sums.residual[k, p], sums.normal[k, p], noise_variance)
            matrix, right = matrix + more[0], right + more[1]
        inverse = np.linalg.inv(matrix)
        found.append((inverse @ right)[:SHAPES])
        errors.append(noise_variance * inverse[:SHAPES, :SHAPES])
    return np.array(found), np.array(errors)


def _without_gains(
    sums: DistortionSums, residual: Float, normal: Float, variance: float
) -> tuple[Float, Float]:
    """Form the normal equations of the displacements alone, amplitudes and phases of antennas eliminated."""
    n, kept = sums.n_antennas, SHAPES + SHIFTS
    of_gains, crossed, left = np.zeros((2, n, 2, n)), np.zeros((kept, 2, n)), np.zeros((2, n))
    # An amplitude counts the same for both antennas, a phase the other way round for the second.
    for first, sign in ((sums.antenna1, np.ones(OF_ANTENNA)), (sums.antenna2, np.array([1.0, -1.0]))):
        for g in range(OF_ANTENNA):
            np.add.at(left[g], first, sign[g] * residual[:, kept + g])
            np.add.at(crossed[:, g].T, first, sign[g] * normal[:, :kept, kept + g])
        for second, other in ((sums.antenna1, np.ones(OF_ANTENNA)), (sums.antenna2, np.array([1.0, -1.0]))):
            for g in range(OF_ANTENNA):
                for h in range(OF_ANTENNA):
                    np.add.at(
                        of_gains[g, :, h], (first, second), sign[g] * other[h] * normal[:, kept + g, kept + h]
                    )
    flat = of_gains.reshape(2 * n, 2 * n)
    flat[np.diag_indices(2 * n)] += variance / LOOSE_GAIN**2
    taken = crossed.reshape(kept, 2 * n) @ np.linalg.inv(flat)
    matrix = normal[:, :kept, :kept].sum(axis=0) - taken @ crossed.reshape(kept, 2 * n).T
    return matrix, residual[:, :kept].sum(axis=0) - taken @ left.reshape(-1)
