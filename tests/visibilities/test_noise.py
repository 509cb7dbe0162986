"""The noise of made-up visibilities, found again within 2 percent."""

import numpy as np
import pytest

from dsa110_contimg.visibilities import AntennaNoise, NoiseEstimator

SIGMA = 3.0


def noise(rng, shape, weight=1.0):
    """Complex noise whose real part has sigma SIGMA / sqrt(weight)."""
    both = rng.standard_normal((2, *shape)) * SIGMA / np.sqrt(weight)
    return (both[0] + 1j * both[1]).astype(np.complex64)


def found_sigma(vis, weight, n_blocks=4):
    estimator = NoiseEstimator()
    for v, w in zip(np.array_split(vis, n_blocks), np.array_split(weight, n_blocks), strict=True):
        estimator.add(v, w)
    return np.sqrt(estimator.scale2 / 2)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 16])
def test_known_sigma(n_channels):
    rng = np.random.default_rng(n_channels)
    shape = (20000, n_channels, 2)
    assert found_sigma(noise(rng, shape), np.ones(shape, np.float32)) == pytest.approx(SIGMA, rel=0.02)


def test_a_bright_smooth_sky_does_not_count():
    rng = np.random.default_rng(2)
    shape = (8000, 16, 2)
    sky = 500 * np.exp(2j * np.pi * (rng.uniform(size=(8000, 1, 1)) + 0.002 * np.arange(16)[:, None]))
    assert found_sigma(noise(rng, shape) + sky, np.ones(shape, np.float32)) == pytest.approx(SIGMA, rel=0.02)


@pytest.mark.parametrize("n_channels", [1, 2, 16])
def test_interference_in_one_sample_of_twenty_does_not_count(n_channels):
    rng = np.random.default_rng(3)
    shape = (20000, n_channels, 2)
    vis = noise(rng, shape)
    vis[rng.random(shape) < 0.05] += 100 * SIGMA
    assert found_sigma(vis, np.ones(shape, np.float32)) == pytest.approx(SIGMA, rel=0.02)


@pytest.mark.parametrize("n_channels", [1, 2, 16])
def test_unequal_weights(n_channels):
    rng = np.random.default_rng(4)
    weight = rng.uniform(0.1, 10, (20000, n_channels, 2)).astype(np.float32)
    assert found_sigma(noise(rng, weight.shape, weight), weight) == pytest.approx(SIGMA, rel=0.02)


def test_what_is_flagged_is_not_looked_at():
    rng = np.random.default_rng(5)
    shape = (8000, 16, 2)
    vis, weight = noise(rng, shape), np.ones(shape, np.float32)
    bad = rng.random(shape) < 0.2
    vis[bad], weight[bad] = 1e6, 0.0
    assert found_sigma(vis, weight) == pytest.approx(SIGMA, rel=0.02)


def test_large_blocks_are_sampled():
    rng = np.random.default_rng(6)
    shape = (30000, 16, 2)
    assert found_sigma(noise(rng, shape), np.ones(shape, np.float32), 1) == pytest.approx(SIGMA, rel=0.02)


def test_without_data_there_is_no_figure():
    estimator = NoiseEstimator()
    assert np.isnan(estimator.scale2)
    estimator.add(np.ones((3, 4, 2), np.complex64), np.zeros((3, 4, 2), np.float32))
    assert np.isnan(estimator.scale2)


def test_noiseless_data_have_no_noise():
    estimator = NoiseEstimator()
    estimator.add(np.ones((3, 4, 2), np.complex64), np.ones((3, 4, 2), np.float32))
    assert estimator.scale2 == 0.0


def test_noisy_antennas_are_told_from_their_baselines():
    rng = np.random.default_rng(8)
    first, second = np.triu_indices(12, 1)
    factor = np.ones((12, 2))
    factor[3], factor[7, 1] = 100.0, 4.0
    estimator = AntennaNoise(12)
    for _ in range(3):
        scale = np.sqrt(factor[first] * factor[second])[:, None, :]
        weight = rng.uniform(0.5, 2, (first.size, 40, 2)).astype(np.float32)
        noise = rng.standard_normal(weight.shape) + 1j * rng.standard_normal(weight.shape)
        vis = 5 + scale * noise / np.sqrt(weight)
        weight[:, ::9] = 0
        estimator.add(vis.astype(np.complex64), weight, first, second)
    np.testing.assert_allclose(estimator.factors(), factor, rtol=0.2)


def test_antennas_without_data_are_taken_as_the_others():
    assert (AntennaNoise(5).factors() == 1).all()
    estimator = AntennaNoise(3)
    estimator.add(
        np.ones((1, 1, 2), np.complex64), np.ones((1, 1, 2), np.float32), np.array([0]), np.array([1])
    )
    assert (estimator.factors() == 1).all()
