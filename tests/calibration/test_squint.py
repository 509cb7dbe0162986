"""Squint from sums over baselines: recovered to its errors, by halves that know nothing of each other."""

import numpy as np
import pytest

from dsa110_contimg.calibration.squint import fit_squint
from tests.calibration.test_pointing import SIGMA, N, gathered, offset

__all__ = ["offset"]


def test_squint_comes_back_within_its_errors():
    pulls = []
    for seed in range(20):
        fit = fit_squint(gathered(np.zeros((N, 2)), seed, squint=0.001), SIGMA**2)
        pulls.append((fit.squint_rad - 0.001) / fit.error_rad)
        assert fit.gain > 25
        assert np.abs((fit.of_half_rad - 0.001) / fit.error_rad).max() < 4.5 * np.sqrt(2)
    assert np.std(pulls) == pytest.approx(1, abs=0.35)


def test_an_offset_that_all_antennas_share_is_no_squint():
    fit = fit_squint(gathered(np.full((N, 2), 0.01), squint=0.001), SIGMA**2)
    assert np.abs((fit.squint_rad - 0.001) / fit.error_rad).max() < 4.5


def test_squint_that_is_none_does_not_help(offset):
    gains = [fit_squint(gathered(offset, seed), SIGMA**2).gain for seed in range(20)]
    assert np.mean(gains) < 0
    assert max(gains) < 25


def test_squint_of_a_half_is_of_that_half_alone(offset):
    statistics = gathered(offset, squint=0.003)
    fit = fit_squint(statistics, SIGMA**2)
    statistics.residual[1] = 0
    without = fit_squint(statistics, SIGMA**2)
    np.testing.assert_array_equal(without.of_half_rad[0], fit.of_half_rad[0])
    np.testing.assert_allclose(without.of_half_rad[1], 0, atol=1e-12)


def test_one_receptor_tells_no_squint(offset):
    statistics = gathered(offset, squint=0.003)
    statistics.residual[:, :, 1] = 0
    statistics.normal[:, :, 1] = 0
    fit = fit_squint(statistics, SIGMA**2)
    assert fit.gain == 0
    np.testing.assert_array_equal(fit.squint_rad, 0)
    assert np.isinf(fit.error_rad).all()
