import numpy as np
import pytest

from dsa110_contimg.pipeline.variability import sparkline, structure_function, sums_of, variability


def curves(n_sources, n, amplitude, error=0.05, seed=1):
    rng = np.random.default_rng(seed)
    true = 1 + amplitude * rng.standard_normal((n_sources, n))
    sigma = error * rng.uniform(0.5, 1.5, (n_sources, n))
    flux = true + sigma * rng.standard_normal((n_sources, n))
    return variability(np.stack([sums_of(x, e) for x, e in zip(flux, sigma, strict=True)]))


def test_sums_give_what_the_definitions_do():
    rng = np.random.default_rng(2)
    x, e = 2 + 0.1 * rng.standard_normal(30), rng.uniform(0.05, 0.1, 30)
    found = variability(sums_of(x, e)[None])
    mean = np.average(x, weights=1 / e**2)
    assert found.modulation[0] == pytest.approx(np.std(x, ddof=1) / np.mean(x))
    assert found.eta[0] == pytest.approx((((x - mean) / e) ** 2).sum() / 29)


def test_constant_sources_have_an_eta_of_one_and_chances_that_are_even():
    found = curves(4000, 12, 0.0)
    assert found.eta.mean() == pytest.approx(1, abs=0.03)
    assert (found.probability < 0.1).mean() == pytest.approx(0.1, abs=0.02)
    below = found.eta < 1
    assert found.eta_error[below] == pytest.approx(np.std(found.eta), rel=0.05)


def test_the_modulation_of_variables_comes_back_with_its_error():
    found = curves(3000, 40, 0.2)
    pull = (found.intrinsic - 0.2) / found.intrinsic_error
    assert np.median(found.intrinsic) == pytest.approx(0.2, abs=0.01)
    assert np.std(pull) == pytest.approx(1, abs=0.15)


def test_the_error_of_eta_is_what_noise_makes_of_one_light_curve():
    rng = np.random.default_rng(9)
    true, error = 1 + 0.2 * rng.standard_normal(40), np.full(40, 0.05)
    draws = true + error * rng.standard_normal((3000, 40))
    found = variability(np.stack([sums_of(x, error) for x in draws]))
    assert np.std(found.eta) == pytest.approx(np.mean(found.eta_error), rel=0.1)


def test_one_flux_tells_nothing():
    found = variability(sums_of(np.ones(1), np.ones(1))[None])
    assert np.isnan(found.eta[0])
    assert np.isnan(found.probability[0])


def test_structure_grows_with_the_lag_of_a_slow_change():
    mjd = np.arange(64.0)
    flux, error = 1 + 0.2 * np.sin(mjd / 20), np.full(64, 1e-3)
    found = structure_function(mjd, flux, error)
    assert found[0][2] == 63
    assert found[0][1] < 0.02 < found[2][1] < found[4][1]
    assert len(sparkline(flux)) == 40
    assert {"\u2581", "\u2588"} <= set(sparkline(flux))
