"""Distortions of intervals from sums by baseline: against displaced sources, under gains that move."""

import numpy as np
import pytest

from dsa110_contimg.calibration.distortion_sums import (
    DistortionSums,
    accumulate_distortion,
    distortion_bases,
    fit_distortions,
)
from dsa110_contimg.predict import predict_reference

ANTENNAS, DUMPS, SIGMA = 9, 4, 0.02
FREQ = np.linspace(1.35e9, 1.45e9, 5)
#: Stretch and shears of each dump.
TRUE = np.array([[2e-4, 0, 0], [-2e-4, 0, 0], [0, 1e-4, -2e-4], [0, 0, 0]])


def summed(rng, true, sigma):
    """Sums of visibilities of displaced sources under antennas' phases and amplitudes that are left over."""
    n = 60
    lm = rng.uniform(-0.02, 0.02, (n, 2))
    flux = rng.uniform(0.1, 1, n)[:, None] * np.ones(FREQ.size)
    place = rng.normal(size=(ANTENNAS, 3)) * [500, 500, 5]
    first, second = np.triu_indices(ANTENNAS, 1)
    # Half of the baselines the other way round, as tables may have them.
    swap = rng.uniform(size=first.size) < 0.5
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    uvw, zero = place[second] - place[first], np.zeros(n)

    def at(lm, weight=1.0):
        lmn = np.column_stack([lm, np.sqrt(1 - (lm**2).sum(axis=1)) - 1])
        return predict_reference(uvw, FREQ, lmn, flux * np.reshape(weight, (-1, 1)), zero, zero, zero)

    model, by_l, by_m = at(lm), at(lm, lm[:, 0]), at(lm, lm[:, 1])
    bases = distortion_bases(uvw, FREQ, *(x.astype(np.complex64) for x in (model, by_l, by_m)))
    sums = DistortionSums.empty(ANTENNAS, DUMPS)
    for t, (stretch, p, q) in enumerate(true):
        seen = at(lm + lm @ np.array([[stretch + p, q], [q, stretch - p]]))
        gain = np.exp(rng.normal(size=(2, ANTENNAS)) * 1e-3 + 1j * rng.normal(size=(2, ANTENNAS)) * 2e-3)
        vis = seen[:, :, None] * (gain[:, first] * np.conj(gain[:, second])).T[:, None]
        noise = sigma * (rng.normal(size=vis.shape) + 1j * rng.normal(size=vis.shape))
        accumulate_distortion(
            sums,
            np.full(first.size, t),
            first,
            second,
            (vis + noise - model[:, :, None]).astype(np.complex64),
            np.ones(vis.shape, dtype=np.float32),
            bases,
        )
    return sums


def test_each_interval_has_its_own_and_gains_none(rng):
    found, covariance = fit_distortions(summed(rng, TRUE, SIGMA), SIGMA**2)
    error = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert error.max() < 3e-5
    assert np.abs((found - TRUE) / error).max() < 4
    np.testing.assert_allclose(found, TRUE, atol=4 * error.max())


def test_errors_are_those_of_the_noise(rng):
    off = [
        found / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        for found, covariance in (
            fit_distortions(summed(rng, np.zeros((DUMPS, 3)), SIGMA), SIGMA**2) for _ in range(25)
        )
    ]
    assert np.std(off) == pytest.approx(1.0, abs=0.15)


def test_autocorrelations_and_flagged_visibilities_do_not_count(rng):
    sums = DistortionSums.empty(3, 1)
    one, bases = np.ones((2, 5, 2), dtype=np.complex64), np.ones((7, 2, 5), dtype=np.complex64)
    weight = np.zeros((2, 5, 2), dtype=np.float32)
    weight[0] = 1
    accumulate_distortion(sums, np.zeros(2, int), np.array([1, 0]), np.array([1, 2]), one, weight, bases)
    assert not sums.normal.any()
    assert not sums.residual.any()
