"""A double, or a Gaussian, is known from the amplitudes of its visibilities, whatever the phases."""

import numpy as np
import pytest

from dsa110_contimg.calibration.structure_fit import SAMPLES, fit_double, fit_gaussian

ARCSEC = np.pi / 180 / 3600


@pytest.fixture
def uv(rng):
    """Baselines of an array of a few thousand wavelengths."""
    east, north = rng.uniform(-1500, 1500, (2, 40))
    i, j = np.triu_indices(40, 1)
    return np.stack([east[j] - east[i], north[j] - north[i]], axis=1)


def powers(rng, uv, flux, share, apart_arcsec, amplitude_rms=0.0, sigma=0.0):
    """Squared amplitudes of a double less their noise, the phases of the antennas random."""
    antennas = 40
    i, j = np.triu_indices(antennas, 1)
    fringe = (1 - share) + share * np.exp(-2j * np.pi * (uv @ (np.asarray(apart_arcsec) * ARCSEC)))
    gain = (1 + amplitude_rms * rng.standard_normal(antennas)) * np.exp(
        1j * rng.uniform(-np.pi, np.pi, antennas)
    )
    noise = sigma * (rng.standard_normal(len(uv)) + 1j * rng.standard_normal(len(uv)))
    return np.abs(flux * fringe * gain[i] * gain[j].conj() + noise) ** 2 - 2 * sigma**2


def off_arcsec(fit, true):
    """How far a separation is off; that of the fit is known but for its sign."""
    found = np.asarray(fit.separation_rad) / ARCSEC
    return min(np.hypot(*(found - true)), np.hypot(*(found + true)))


@pytest.mark.parametrize("share", [0.5, 0.35, 0.2])
@pytest.mark.parametrize("apart", [(35.0, 20.0), (0.0, 60.0), (-70.0, 90.0)])
def test_a_double_is_found_exactly(rng, uv, share, apart):
    fit = fit_double(uv, powers(rng, uv, 2.5, share, apart), np.ones(len(uv)))
    assert off_arcsec(fit, np.array(apart)) < 0.5
    assert fit.share == pytest.approx(share, abs=0.02)
    assert fit.flux == pytest.approx(2.5, rel=0.02)
    assert fit.unexplained < 0.02


@pytest.mark.parametrize("share", [0.5, 0.3])
@pytest.mark.parametrize(("amplitude_rms", "sigma"), [(0.0, 0.5), (0.2, 0.0), (0.2, 0.3)])
def test_noise_and_amplitudes_that_are_off_hide_nothing(rng, uv, share, amplitude_rms, sigma):
    """Gains of uncalibrated data scatter by 20 per cent."""
    apart = np.array([-45.0, 40.0])
    fit = fit_double(uv, powers(rng, uv, 2.0, share, apart, amplitude_rms, sigma), np.ones(len(uv)))
    assert off_arcsec(fit, apart) < 4
    assert fit.share == pytest.approx(share, abs=0.15)
    assert fit.flux == pytest.approx(2.0, rel=0.25)
    assert 0.02 < fit.unexplained < 0.75


@pytest.mark.parametrize(("amplitude_rms", "sigma"), [(0.0, 0.3), (0.2, 0.0), (0.2, 0.3)])
def test_a_point_is_no_double(rng, uv, amplitude_rms, sigma):
    """Two points explain nearly nothing, or the fainter one is nothing."""
    power = powers(rng, uv, 2.0, 0.0, (0.0, 0.0), amplitude_rms, sigma)
    fit = fit_double(uv, power, np.ones(len(uv)))
    assert fit.unexplained > 0.85
    assert fit.flux == pytest.approx(2.0, rel=0.3)


def test_the_share_is_that_of_the_fainter_one(rng, uv):
    one, other = (
        fit_double(uv, powers(rng, uv, 1.0, share, (30.0, 30.0)), np.ones(len(uv))) for share in (0.3, 0.7)
    )
    assert one.share == pytest.approx(other.share, abs=1e-3)
    assert one.share <= 0.5


def test_what_has_no_weight_is_not_looked_at(rng, uv):
    power, weight = powers(rng, uv, 1.0, 0.4, (50.0, 0.0)), np.ones(len(uv))
    bad = rng.random(len(uv)) < 0.3
    weight[bad], power[bad] = 0, 1e6
    power[np.flatnonzero(~bad)[:5]] = np.nan
    fit = fit_double(uv, power, weight)
    assert off_arcsec(fit, np.array([50.0, 0.0])) < 0.5
    assert fit.share == pytest.approx(0.4, abs=0.02)


def test_interference_does_not_pull(rng, uv):
    power = powers(rng, uv, 1.0, 0.4, (50.0, 0.0))
    power[rng.random(len(uv)) < 0.02] = 1e6
    fit = fit_double(uv, power, np.ones(len(uv)))
    assert off_arcsec(fit, np.array([50.0, 0.0])) < 2
    assert fit.share == pytest.approx(0.4, abs=0.12)


def test_very_many_amplitudes_are_thinned_out(rng, uv):
    """All dumps and windows of a long observation: a part of them is enough."""
    n = int(np.ceil(2.5 * SAMPLES / len(uv)))
    power = np.concatenate([powers(rng, uv, 1.0, 0.4, (50.0, 0.0)) for _ in range(n)])
    fit = fit_double(np.tile(uv, (n, 1)), power, np.ones(power.size))
    assert off_arcsec(fit, np.array([50.0, 0.0])) < 0.5


def test_too_few_amplitudes_give_nothing(rng, uv):
    power, weight = powers(rng, uv, 1.0, 0.4, (50.0, 0.0)), np.zeros(len(uv))
    assert fit_double(uv, power, weight) is None
    weight[:19] = 1
    assert fit_double(uv, power, weight) is None


def of_gaussian(rng, uv, flux, major, minor, pa_deg, amplitude_rms=0.0, sigma=0.0):
    """Squared amplitudes of a Gaussian less their noise; widths in arcsec."""
    i, j = np.triu_indices(40, 1)
    pa = np.radians(pa_deg)
    along, across = uv @ (np.sin(pa), np.cos(pa)), uv @ (np.cos(pa), -np.sin(pa))
    size = (along * major) ** 2 + (across * minor) ** 2
    amplitude = flux * np.exp(-(np.pi**2) / (4 * np.log(2)) * ARCSEC**2 * size)
    gain = 1 + amplitude_rms * rng.standard_normal(40)
    noise = sigma * (rng.standard_normal(len(uv)) + 1j * rng.standard_normal(len(uv)))
    return np.abs(amplitude * gain[i] * gain[j] + noise) ** 2 - 2 * sigma**2


@pytest.mark.parametrize(("major", "minor"), [(60.0, 30.0), (150.0, 90.0), (40.0, 1.0)])
@pytest.mark.parametrize("pa_deg", [0.0, 50.0, 120.0])
def test_a_gaussian_is_found_exactly(rng, uv, major, minor, pa_deg):
    fit = fit_gaussian(uv, of_gaussian(rng, uv, 2.5, major, minor, pa_deg), np.ones(len(uv)))
    assert fit.major_rad / ARCSEC == pytest.approx(major, abs=0.5)
    assert fit.minor_rad / ARCSEC == pytest.approx(minor, abs=1.5)
    assert np.degrees(np.abs(np.exp(2j * fit.pa_rad) - np.exp(2j * np.radians(pa_deg)))) < 1
    assert fit.flux == pytest.approx(2.5, rel=0.01)
    assert fit.unexplained < 0.01


def test_a_gaussian_through_uncalibrated_amplitudes_and_noise(rng, uv):
    power = of_gaussian(rng, uv, 2.0, 60, 30, 20, amplitude_rms=0.15, sigma=0.1)
    power[:3] = 1e4
    fit = fit_gaussian(uv, power, np.ones(len(uv)))
    assert (fit.major_rad / ARCSEC, fit.minor_rad / ARCSEC) == pytest.approx((60, 30), rel=0.15)
    assert fit.unexplained < 0.8


def test_a_point_is_no_gaussian(rng, uv):
    power = of_gaussian(rng, uv, 2.0, 0, 0, 0, amplitude_rms=0.2, sigma=0.3)
    assert fit_gaussian(uv, power, np.ones(len(uv))).unexplained > 0.8
    assert fit_gaussian(uv[:10], power[:10], np.ones(10)) is None
