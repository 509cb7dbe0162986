"""The compiled kernel against the written-out sum, and the sum against the definition."""

import os
import subprocess
import sys

import numpy as np
import pytest

from dsa110_contimg.predict import predict_components, predict_reference
from dsa110_contimg.sky import lmn_from_radec

C = 299_792_458.0
ARCSEC = np.pi / 180 / 3600


def rows(n, longest_m, seed=0):
    rng = np.random.default_rng(seed)
    uvw = rng.normal(size=(n, 3))
    return uvw / np.linalg.norm(uvw, axis=1)[:, None] * longest_m * rng.uniform(0, 1, (n, 1))


def everywhere(n, seed=1):
    """Directions over the whole sphere, behind the telescope too."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 2 * np.pi, n), np.arcsin(rng.uniform(-1, 1, n))
    ra[: n // 2], dec[: n // 2] = 1 + 0.02 * rng.normal(size=n // 2), 0.95 + 0.02 * rng.normal(size=n // 2)
    return lmn_from_radec(ra, dec, 1.0, 0.95)


def worst(uvw, freq, lmn, flux, *shape):
    """Largest error in units of the summed flux."""
    got = predict_components(uvw, freq, lmn, flux, *shape)
    assert got.dtype == np.complex64
    return np.abs(got - predict_reference(uvw, freq, lmn, flux, *shape)).max() / np.abs(flux).sum(0).max()


def channels(n, rising=True):
    freq = np.linspace(1.31e9, 1.5e9, n) if n > 1 else np.array([1.4e9])
    return freq if rising else freq[::-1].copy()


def test_reference_is_the_definition():
    lmn, flux = everywhere(3), np.array([[1.0], [2.0], [3.0]])
    uvw, freq = np.array([[123.0, -456.0, 78.0]]), np.array([1.4e9])
    expected = sum(
        s * np.exp(2j * np.pi * (u @ x) * 1.4e9 / C)
        for u, x, s in zip([uvw[0]] * 3, lmn, flux[:, 0], strict=True)
    )
    np.testing.assert_allclose(predict_reference(uvw, freq, lmn, flux), [[expected]], rtol=1e-12)


@pytest.mark.parametrize("predict", [predict_components, predict_reference])
def test_trap_10_sign_of_the_phase(predict):
    """A source to the east turns the phase of an eastward baseline (antenna 2 minus 1) forward."""
    lmn = lmn_from_radec(1e-4, 0.0, 0.0, 0.0)
    vis = predict(np.array([[300.0, 0.0, 0.0]]), np.array([C]), lmn, np.ones((1, 1)))
    np.testing.assert_allclose(vis, [[np.exp(2j * np.pi * 300 * lmn[0, 0])]], rtol=1e-5)
    assert vis[0, 0].imag > 0.18


@pytest.mark.parametrize("longest_m", [2600.0, 30_000.0])
@pytest.mark.parametrize("n_channels", [1, 2, 48, 200])
@pytest.mark.parametrize("rising", [True, False])
def test_points_anywhere_on_the_sphere(longest_m, n_channels, rising):
    rng = np.random.default_rng(2)
    flux = rng.uniform(0.1, 1, (60, 1)) * rng.uniform(0.5, 1, (60, n_channels))
    assert worst(rows(150, longest_m), channels(n_channels, rising), everywhere(60), flux) < 1e-5


@pytest.mark.parametrize("longest_m", [2600.0, 30_000.0])
@pytest.mark.parametrize("n_channels", [1, 2, 48, 200])
@pytest.mark.parametrize("rising", [True, False])
def test_gaussians_and_points_together(longest_m, n_channels, rising):
    rng = np.random.default_rng(3)
    major = rng.uniform(0, 60, 40) * ARCSEC
    major[::4] = 0.0
    minor = major * rng.uniform(0.05, 1, 40)
    flux = np.ones((40, n_channels))
    args = (everywhere(40), flux, major, minor, rng.uniform(-np.pi, np.pi, 40))
    assert worst(rows(150, longest_m), channels(n_channels, rising), *args) < 1e-5


@pytest.mark.parametrize("extended", [False, True])
def test_uneven_channels(extended):
    freq = np.sort(np.random.default_rng(5).uniform(1.0e9, 2.0e9, 37))
    size = np.full(20, 30 * ARCSEC if extended else 0.0)
    args = (everywhere(20), np.ones((20, 37)), size, size / 3, size * 0 + 0.5)
    assert worst(rows(100, 5000.0), freq, *args) < 1e-5
    assert worst(rows(100, 5000.0), freq[::-1], *args) < 1e-5


def test_a_gaussian_resolved_at_the_top_of_the_band_is_there_at_its_bottom():
    """Falling channels in wide steps: the taper must not be lost in an underflow at the top."""
    freq, size = np.linspace(1.7e9, 0.2e9, 16), np.array([240 * ARCSEC])
    uvw = np.array([[800.0, 0.0, 0.0], [0.0, 500.0, 0.0], [9000.0, 9000.0, 0.0]])
    args = (np.zeros((1, 3)), np.ones((1, 16)), size, size, np.zeros(1))
    vis = predict_components(uvw, freq, *args)
    assert np.isfinite(vis).all()
    assert vis[0, -1].real > 0.1
    np.testing.assert_allclose(vis, predict_reference(uvw, freq, *args), atol=1e-5)


@pytest.mark.parametrize("predict", [predict_components, predict_reference])
def test_position_angle_zero_extends_north_and_ninety_east(predict):
    uvw, freq = np.array([[2000.0, 0, 0], [0, 2000.0, 0]]), np.array([1.4e9])
    major, minor = np.array([20 * ARCSEC]), np.array([2 * ARCSEC])
    along_u, along_v = predict(uvw, freq, np.zeros((1, 3)), np.ones((1, 1)), major, minor, np.zeros(1))[:, 0]
    turned = predict(uvw, freq, np.zeros((1, 3)), np.ones((1, 1)), major, minor, np.full(1, np.pi / 2))[:, 0]
    expected = np.exp(-((np.pi * 20 * ARCSEC * 2000 * 1.4e9 / C) ** 2) / (4 * np.log(2)))
    assert along_v.real == pytest.approx(expected, rel=1e-5)
    assert along_u.real > 0.99 * np.exp(-(np.log(1 / expected) / 100)) > 0.9
    np.testing.assert_allclose(turned, [along_v, along_u], atol=1e-6)


@pytest.mark.parametrize("predict", [predict_components, predict_reference])
def test_position_angle_turns_from_north_through_east(predict):
    """At 45 degrees the source lies along +u +v, and is resolved along that diagonal."""
    uvw = np.array([[1500.0, 1500.0, 0], [1500.0, -1500.0, 0]])
    shape = [np.array([x]) for x in (20 * ARCSEC, 1 * ARCSEC, np.pi / 4)]
    resolved, unresolved = np.abs(predict(uvw, np.array([1.4e9]), np.zeros((1, 3)), np.ones((1, 1)), *shape))
    assert resolved[0] < 0.3
    assert unresolved[0] > 0.99


@pytest.mark.parametrize("n_rows", [1, 63, 64, 65, 1000])
def test_full_and_partial_tiles(n_rows):
    assert worst(rows(n_rows, 2600.0), channels(7), everywhere(5), np.ones((5, 7))) < 1e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_flux_scales(scale):
    lmn, flux = everywhere(20), scale * np.ones((20, 4))
    assert worst(rows(80, 2600.0), channels(4), lmn, flux) < 1e-5


def test_bright_and_faint_together():
    flux = np.repeat(np.geomspace(1e-3, 1e3, 30)[:, None], 4, axis=1)
    assert worst(rows(80, 2600.0), channels(4), everywhere(30), flux) < 1e-5


def test_flux_per_channel_is_used_per_channel():
    flux = np.array([[1.0, 2.0, 4.0]])
    vis = predict_components(rows(3, 100.0), channels(3), np.zeros((1, 3)), flux)
    np.testing.assert_allclose(vis, np.repeat(flux, 3, axis=0), rtol=1e-6)


def test_nothing_gives_nothing():
    none = predict_components(rows(5, 100.0), channels(3), np.zeros((0, 3)), np.zeros((0, 3)))
    assert none.shape == (5, 3)
    assert not none.any()
    assert predict_components(np.zeros((0, 3)), channels(3), everywhere(2), np.ones((2, 3))).shape == (0, 3)


def test_a_component_of_unknown_size_is_not_lost():
    nan = np.array([np.nan])
    vis = predict_components(rows(2, 100.0), channels(2), np.zeros((1, 3)), np.ones((1, 2)), nan, nan, nan)
    np.testing.assert_allclose(vis, 1.0, rtol=1e-6)


def test_fluxes_that_do_not_fit_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1\), not \(2, 3\)"):
        predict_components(rows(2, 100.0), channels(3), everywhere(2), np.ones((2, 1)))


def test_several_threads_sum_as_one():
    """In a process of its own: those of a test run may be limited to one thread."""
    code = """
import numba
from tests.predict.test_direct import *
uvw, freq, lmn = rows(500, 3000.0), channels(16), everywhere(200)
flux = np.random.default_rng(3).exponential(size=(200, 16))
sums = []
for threads in (1, 4):
    numba.set_num_threads(threads)
    sums.append(predict_components(uvw, freq, lmn, flux))
assert np.abs(sums[1]).max() > 0
np.testing.assert_array_equal(*sums)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "NUMBA_NUM_THREADS": "4"})


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("width", [0.0, 2e-4])
def test_rows_of_several_spectra(ordered, width):
    """Each dump of a drift scan sees its own fluxes; rows in any order."""
    rng = np.random.default_rng(3)
    uvw, freq, lmn = rows(300, 500.0), channels(20), everywhere(7)
    flux = rng.uniform(0.1, 2, (3, 7, 20))
    spectrum = rng.integers(3, size=300)
    if ordered:
        spectrum = np.sort(spectrum)
    shape = np.full(7, width), np.full(7, width / 2), np.zeros(7)
    together = predict_components(uvw, freq, lmn, flux, *shape, spectrum)
    for k in range(3):
        alone = predict_components(uvw[spectrum == k], freq, lmn, flux[k], *shape)
        np.testing.assert_allclose(together[spectrum == k], alone, atol=1e-5)
