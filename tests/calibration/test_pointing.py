"""Offsets from sums over baselines: recovered to their errors, held against held-out sources."""

import numpy as np
import pytest

from dsa110_contimg.calibration.pointing import PointingStatistics, accumulate_pointing, fit_pointing

N, SIGMA, PRIOR = 10, 0.02, 0.05


def gathered(offset, seed=0, squint=0.0, lost=()):
    """Statistics of data in which gradients of two halves of a sky answer to offsets, and noise."""
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(N, 1)
    n_times, n_chan = 12, 6
    bases = rng.normal(size=(5, first.size * n_times, n_chan)) + 1j * rng.normal(
        size=(5, first.size * n_times, n_chan)
    )
    bases = bases.astype(np.complex64)
    a, b = np.tile(first, n_times), np.tile(second, n_times)
    time = np.repeat(np.arange(n_times), first.size)
    residual = np.zeros((*bases.shape[1:], 2), dtype=np.complex64)
    for p, sign in enumerate((0.5, -0.5)):
        own = offset + sign * squint
        off = own[a] + own[b]
        for axis in range(2):
            residual[:, :, p] += off[:, axis, None] * (bases[axis] + bases[2 + axis])
    residual += SIGMA * (rng.normal(size=residual.shape) + 1j * rng.normal(size=residual.shape))
    weight = np.ones(residual.shape, dtype=np.float32)
    weight[np.isin(a, lost) | np.isin(b, lost)] = 0
    statistics = PointingStatistics.empty(N)
    # In either order, a dump at a time, as blocks come.
    for k in range(n_times):
        rows = time == k
        pair = (b, a) if k % 2 else (a, b)
        accumulate_pointing(
            statistics,
            time[rows],
            pair[0][rows],
            pair[1][rows],
            residual[rows],
            weight[rows],
            bases[:, rows],
            k,
        )
    return statistics


@pytest.fixture
def offset():
    return np.random.default_rng(3).normal(0, 0.004, (N, 2))


def test_offsets_come_back_within_their_errors(offset):
    pulls = []
    for seed in range(20):
        fit = fit_pointing(gathered(offset, seed), SIGMA**2, PRIOR)
        assert fit.known.all()
        pulls.append((fit.offset_rad - offset) / fit.error_rad)
    assert np.std(pulls) == pytest.approx(1, abs=0.12)
    assert np.abs(np.mean(pulls, axis=0)).max() < 1


def test_held_out_sources_gain_by_offsets_that_are_there_and_lose_by_others(offset):
    assert fit_pointing(gathered(offset), SIGMA**2, PRIOR).gain > 100
    for seed in range(5):
        assert fit_pointing(gathered(np.zeros((N, 2)), seed), SIGMA**2, PRIOR).gain < 0


def test_either_half_of_the_visibilities_has_offsets_of_its_own(offset):
    statistics = gathered(offset)
    fit = fit_pointing(statistics, SIGMA**2, PRIOR)
    for of_half in fit.of_half_rad:
        assert np.abs((of_half - offset) / fit.error_rad).max() < 4 * np.sqrt(2)
    statistics.residual[1] = 0
    without = fit_pointing(statistics, SIGMA**2, PRIOR)
    np.testing.assert_array_equal(without.of_half_rad[0], fit.of_half_rad[0])
    np.testing.assert_allclose(without.of_half_rad[1], 0, atol=1e-12)


def test_an_antenna_without_data_is_not_known_and_stays(offset):
    fit = fit_pointing(gathered(offset, lost=(4,)), SIGMA**2, PRIOR)
    np.testing.assert_array_equal(fit.known, np.arange(N) != 4)
    np.testing.assert_allclose(fit.offset_rad[4], 0, atol=1e-12)
    assert np.abs((fit.offset_rad - offset)[fit.known]).max() < 5 * fit.error_rad[fit.known].max()


def test_squint_shows_in_the_receptors(offset):
    fit = fit_pointing(gathered(offset, squint=0.003), SIGMA**2, PRIOR)
    difference = fit.by_receptor_rad[0] - fit.by_receptor_rad[1]
    np.testing.assert_allclose(difference, 0.003, atol=8 * fit.error_rad.max())


def test_a_receptor_without_data_has_no_squint(offset):
    statistics = gathered(offset)
    of_antenna = (statistics.antenna1 == 4) | (statistics.antenna2 == 4)
    statistics.residual[:, of_antenna, 1] = 0
    statistics.normal[:, of_antenna, 1] = 0
    fit = fit_pointing(statistics, SIGMA**2, PRIOR)
    assert fit.known.all()
    np.testing.assert_array_equal(np.isnan(fit.by_receptor_rad[1]).all(axis=1), np.arange(N) == 4)
    assert np.isfinite(fit.by_receptor_rad[0]).all()


def test_an_antenna_that_the_data_hardly_tell_of_stays_near(offset):
    statistics = gathered(offset)
    of_antenna = (statistics.antenna1 == 4) | (statistics.antenna2 == 4)
    statistics.residual[:, of_antenna] *= 1e-7
    statistics.normal[:, of_antenna] *= 1e-7
    fit = fit_pointing(statistics, SIGMA**2, PRIOR)
    assert not fit.known[4]
    assert np.abs(fit.offset_rad[4]).max() < PRIOR
