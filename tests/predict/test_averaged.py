"""The model of an average is the average of the model: against the float64 mean over all channels."""

import numpy as np
import pytest

from dsa110_contimg.predict import (
    predict_averaged,
    predict_averaged_reference,
    predict_reference,
    predict_samples,
)
from dsa110_contimg.sky import AiryBeam, lmn_from_radec
from dsa110_contimg.visibilities import ChannelBins, SpectralWindow

ARCSEC = np.pi / 180 / 3600
WIDTH = 244140.625


def baselines(n, longest_m, seed=0):
    rng = np.random.default_rng(seed)
    uvw = rng.normal(size=(n, 3))
    return uvw / np.linalg.norm(uvw, axis=1)[:, None] * longest_m * rng.uniform(0.02, 1, (n, 1))


def sky(n, radius_deg, seed=1):
    """Directions within a radius, with fluxes of many sizes and spectra, seen through a beam."""
    rng = np.random.default_rng(seed)
    r, angle = np.radians(radius_deg) * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * np.pi, n)
    dec = 0.95 + r * np.sin(angle)
    lmn = lmn_from_radec(2.0 + r * np.cos(angle) / np.cos(dec), dec, 2.0, 0.95)
    return lmn, rng.pareto(1.5, n) * 0.01, rng.normal(-0.8, 0.6, n), r


def spectra(flux, index, radius, freq):
    return flux[:, None] * (freq / 1.4e9) ** index[:, None] * AiryBeam(4.7).power(radius, freq)


def worst(uvw, freq, width, start, count, lmn, flux, *shape):
    """Largest error in units of the summed flux."""
    window = SpectralWindow(0, 0, freq, np.full(freq.size, abs(width)), (9, 12))
    bins = ChannelBins(window, start, count, int(count.max()))
    centre = bins.averaged_window().freq_hz
    got = predict_averaged(uvw, centre, count, width, lmn, bins.moments(flux), *shape)
    assert got.dtype == np.complex64
    exact = predict_averaged_reference(uvw, freq, lmn, flux, start, count, *shape)
    return np.abs(got - exact).max() / np.abs(flux).sum(axis=0).max()


def even_bins(n, k):
    return np.arange(0, n, k), np.full(n // k, k)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("k", "longest_m"), [(1, 5000), (2, 2600), (3, 2600), (4, 1300), (12, 440)])
def test_a_sky_through_a_beam_as_baselines_are_averaged(k, longest_m, sign):
    """900 sources out to 3.5 degrees, past the first null of the beam."""
    freq = 1.31e9 + sign * WIDTH * np.arange(48)
    lmn, flux, index, radius = sky(900, 3.5)
    start, count = even_bins(48, k)
    flux = spectra(flux, index, radius, freq)
    assert worst(baselines(150, longest_m), freq, sign * WIDTH, start, count, lmn, flux) < 1e-6


@pytest.mark.parametrize("k", [3, 12, 48])
def test_sources_that_averaging_would_wash_out(k):
    """Behind the telescope and on baselines of kilometres: whole turns within a bin, many times."""
    rng = np.random.default_rng(3)
    freq = 1.2e9 + WIDTH * np.arange(48)
    ra, dec = rng.uniform(0, 2 * np.pi, 300), np.arcsin(rng.uniform(-1, 1, 300))
    flux = rng.uniform(0, 1, (300, 1)) * (freq / 1.4e9) ** rng.uniform(-1, 1, (300, 1))
    start, count = even_bins(48, k)
    lmn = lmn_from_radec(ra, dec, 1.0, 0.3)
    assert worst(baselines(100, 8000.0), freq, WIDTH, start, count, lmn, flux) < 1e-6


def test_another_array_at_another_frequency():
    """Low frequencies, narrow channels, an odd number of them, half a hundred kilometres."""
    freq = 150e6 + 12207.03125 * np.arange(63)
    lmn, flux, index, _ = sky(400, 12.0, seed=8)
    flux = flux[:, None] * (freq / 1.4e9) ** index[:, None]
    for k in (3, 9, 21):
        start, count = even_bins(63, k)
        assert worst(baselines(120, 50_000.0 / k), freq, 12207.03125, start, count, lmn, flux) < 1e-6


def test_bins_of_different_size_at_any_place():
    """What is left when channels that nobody has are cut out."""
    freq = 1.31e9 + WIDTH * np.arange(48)
    start, count = np.array([2, 13, 24, 30, 31, 40]), np.array([11, 11, 6, 1, 5, 7])
    lmn, flux, index, radius = sky(300, 3.5)
    flux = spectra(flux, index, radius, freq)
    assert worst(baselines(150, 500.0), freq, WIDTH, start, count, lmn, flux) < 1e-6


def test_far_sources_in_the_sidelobes_of_the_beam():
    """Fluxes that fall to zero and rise again within a few bins, tens of degrees off."""
    rng = np.random.default_rng(9)
    freq = 1.31e9 + WIDTH * np.arange(48)
    radius, angle = np.radians(rng.uniform(5, 80, 200)), rng.uniform(0, 2 * np.pi, 200)
    lmn = np.stack(
        [np.sin(radius) * np.cos(angle), np.sin(radius) * np.sin(angle), np.cos(radius) - 1], axis=1
    )
    flux = rng.uniform(1, 100, (200, 1)) * AiryBeam(4.7).power(radius, freq)
    major = np.where(rng.uniform(size=200) < 0.5, 0, 200 * ARCSEC)
    shape = (major, major, np.zeros(200))
    start, count = even_bins(48, 12)
    # Against a field of a few jansky, as such sources are met.
    total = np.abs(flux).sum(axis=0).max()
    assert worst(baselines(150, 440.0), freq, WIDTH, start, count, lmn, flux, *shape) * total < 1e-6 * (
        total + 5
    )


@pytest.mark.parametrize("k", [2, 12])
def test_gaussians(k):
    """From barely to entirely resolved, beside points."""
    rng = np.random.default_rng(5)
    freq = 1.31e9 + WIDTH * np.arange(48)
    lmn, flux, index, radius = sky(200, 1.5)
    flux = spectra(flux, index, radius, freq)
    major = np.where(rng.uniform(size=200) < 0.3, 0, rng.uniform(1, 300, 200)) * ARCSEC
    shape = (major, major * rng.uniform(0.2, 1, 200), rng.uniform(0, np.pi, 200))
    start, count = even_bins(48, k)
    assert worst(baselines(150, 5200.0 / k), freq, WIDTH, start, count, lmn, flux, *shape) < 1e-6


def test_no_sources_and_no_rows():
    none = np.zeros((3, 0, 2))
    args = (np.array([1e9, 1.1e9]), np.array([4, 4]), 1e5)
    assert not predict_averaged(np.ones((3, 3)), *args, np.zeros((0, 3)), none).any()
    one = np.ones((3, 1, 2))
    assert predict_averaged(np.zeros((0, 3)), *args, np.zeros((1, 3)), one).shape == (0, 2)
    with pytest.raises(ValueError, match="shape"):
        predict_averaged(np.ones((3, 3)), *args, np.zeros((1, 3)), none)


def test_single_visibilities_of_any_baseline_and_channel():
    rng = np.random.default_rng(6)
    freq = 1.31e9 + WIDTH * np.arange(16)
    lmn, flux, index, radius = sky(120, 3.0)
    flux = spectra(flux, index, radius, freq)
    major = np.where(rng.uniform(size=120) < 0.5, 0, 60 * ARCSEC)
    shape = (major, major / 2, rng.uniform(0, np.pi, 120))
    uvw, channel = baselines(500, 3000.0), rng.integers(16, size=500)
    got = predict_samples(uvw, freq[channel], channel, lmn, flux.T.astype(np.float32), *shape)
    exact = predict_reference(uvw, freq, lmn, flux, *shape)[np.arange(500), channel]
    assert np.abs(got - exact).max() / flux.sum(axis=0).max() < 1e-6


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("width", [0.0, 2e-4])
def test_rows_of_several_spectra(ordered, width):
    """Each dump of a drift scan sees its own fluxes; rows in any order."""
    rng = np.random.default_rng(4)
    uvw, centre, count = rng.normal(0, 300, (200, 3)), 1.4e9 + 1e6 * np.arange(5), np.full(5, 4)
    lm = rng.uniform(-0.02, 0.02, (6, 2))
    lmn = np.column_stack([lm, np.sqrt(1 - (lm**2).sum(axis=1)) - 1])
    moments = rng.uniform(0, 1, (3, 3, 6, 5)) * np.array([1, 1e-3, 1e-5])[:, None, None]
    spectrum = rng.integers(3, size=200)
    if ordered:
        spectrum = np.sort(spectrum)
    shape = np.full(6, width), np.full(6, width / 2), np.zeros(6)
    together = predict_averaged(uvw, centre, count, 2.5e5, lmn, moments, *shape, spectrum)
    for k in range(3):
        alone = predict_averaged(uvw[spectrum == k], centre, count, 2.5e5, lmn, moments[k], *shape)
        np.testing.assert_allclose(together[spectrum == k], alone, atol=1e-5)
