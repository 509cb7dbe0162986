import numpy as np
import pytest

from dsa110_contimg.calibration.uv_fit import residual_moments, sampled_coupling, solve_moments
from dsa110_contimg.predict import predict_reference
from dsa110_contimg.visibilities import NoiseScale

ARCSEC = np.pi / 180 / 3600


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def sky(rng, n=1, spread=0.01):
    lm = rng.uniform(-spread, spread, (n, 2))
    return np.column_stack([lm, np.sqrt(1 - (lm**2).sum(axis=1)) - 1])


@pytest.mark.parametrize(
    "freq", [np.linspace(1.3e9, 1.5e9, 8), np.array([1.4e9]), np.array([1.3e9, 1.31e9, 1.5e9])]
)
def test_a_small_change_of_flux_and_position_is_found(rng, freq):
    uvw = rng.normal(size=(3000, 3)) * [500, 500, 50]
    lmn, flux = sky(rng), np.full((1, freq.size), 2.0)
    dl, dm, bright = 0.08 * ARCSEC, -0.14 * ARCSEC, 1.03
    moved = lmn + np.array([[dl, dm, 0.0]])
    moved[:, 2] = np.sqrt(1 - (moved[:, :2] ** 2).sum(axis=1)) - 1
    residual = predict_reference(uvw, freq, moved, bright * flux) - predict_reference(uvw, freq, lmn, flux)
    weight = rng.uniform(0.5, 2, residual.shape).astype(np.float32)
    weight[::7] = 0
    moments = residual_moments(uvw, freq, lmn, flux, residual.astype(np.complex64), weight)
    change, error = solve_moments(moments, NoiseScale(1e-4))
    assert change[0, 0] == pytest.approx(bright - 1, abs=1e-3)
    np.testing.assert_allclose(change[0, 1:], np.array([dl, dm]), atol=0.01 * ARCSEC)
    assert np.isfinite(error).all()


def test_errors_are_those_of_the_noise(rng):
    uvw, freq = rng.normal(size=(400, 3)) * [500, 500, 0], np.linspace(1.3e9, 1.5e9, 4)
    lmn, flux, sigma = sky(rng), np.full((1, 4), 1.0), 3.0
    draws = []
    for _ in range(300):
        noise = sigma * (rng.standard_normal((400, 4)) + 1j * rng.standard_normal((400, 4)))
        weight = np.full((400, 4), 1 / sigma**2, dtype=np.float32)
        change, error = solve_moments(
            residual_moments(uvw, freq, lmn, flux, noise.astype(np.complex64), weight), NoiseScale(2.0)
        )
        draws.append(change[0] / error[0])
    np.testing.assert_allclose(np.std(draws, axis=0), 1.0, atol=0.15)
    np.testing.assert_allclose(np.mean(draws, axis=0), 0.0, atol=0.25)


def test_blocks_add_up(rng):
    uvw, freq = rng.normal(size=(1000, 3)) * 300, np.linspace(1.3e9, 1.5e9, 5)
    lmn, flux = sky(rng, 6), rng.uniform(1, 2, (6, 5))
    residual = (rng.standard_normal((1000, 5)) + 1j * rng.standard_normal((1000, 5))).astype(np.complex64)
    weight = np.ones((1000, 5), dtype=np.float32)
    whole = residual_moments(uvw, freq, lmn, flux, residual, weight)
    parts = [
        residual_moments(uvw[s], freq, lmn, flux, residual[s], weight[s])
        for s in (slice(0, 10), slice(10, 700), slice(700, 1000))
    ]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-9, atol=1e-6 * np.abs(whole).max())


def test_rows_of_several_spectra_add_up(rng):
    uvw, freq = rng.normal(size=(400, 3)) * 300, np.linspace(1.3e9, 1.5e9, 5)
    lmn, flux, spectrum = sky(rng, 6), rng.uniform(1, 2, (3, 6, 5)), rng.integers(3, size=400)
    residual = (rng.standard_normal((400, 5)) + 1j * rng.standard_normal((400, 5))).astype(np.complex64)
    weight = rng.uniform(0.5, 2, (400, 5)).astype(np.float32)
    whole = residual_moments(uvw, freq, lmn, flux, residual, weight, spectrum)
    parts = [
        residual_moments(uvw[s], freq, lmn, flux[k], residual[s], weight[s])
        for k, s in enumerate(spectrum == k for k in range(3))
    ]
    size = np.abs(whole).max(axis=0)
    np.testing.assert_allclose(sum(parts) / size, whole / size, atol=1e-6)


def test_without_data_nothing_is_changed():
    change, error = solve_moments(np.zeros((3, 7)), NoiseScale(1.0))
    assert (change == 0).all()
    assert np.isinf(error).all()


def test_sources_in_each_other_s_sidelobes_are_measured_together(rng):
    """Two sources half a beam apart and one far: alone each takes on its neighbour's error."""
    uvw, freq = rng.normal(size=(2000, 3)) * [500, 500, 0], np.linspace(1.3e9, 1.5e9, 4)
    near = 20 * ARCSEC
    lm = np.array([[0.0, 0.0], [near, 0.0], [0.01, -0.004]])
    lmn, flux = np.column_stack([lm, np.zeros(3)]), np.array([[2.0], [1.0], [0.5]]) * np.ones((1, 4))
    truth = np.array([0.2, -0.1, 0.3])
    residual = predict_reference(uvw, freq, lmn, truth[:, None] * flux).astype(np.complex64)
    weight = np.ones(residual.shape, dtype=np.float32)
    moments = residual_moments(uvw, freq, lmn, flux, residual, weight)
    row, channel = rng.integers(2000, size=4000), rng.integers(4, size=4000)
    coupling = sampled_coupling(uvw[row], freq[channel], lmn, flux[:, channel], weight[row, channel])
    together, _ = solve_moments(moments, NoiseScale(1e-6), coupling)
    alone, _ = solve_moments(moments, NoiseScale(1e-6))
    np.testing.assert_allclose(together[:, 0], truth, atol=0.02)
    np.testing.assert_allclose(together[:, 1:], 0, atol=0.3 * ARCSEC)
    assert abs(alone[:, 0] - truth).max() > 0.05


def test_all_visibilities_as_sample_give_the_whole_matrix(rng):
    uvw, freq = rng.normal(size=(50, 3)) * 300, np.array([1.3e9, 1.4e9])
    lmn, flux = sky(rng, 3), rng.uniform(1, 2, (3, 2))
    weight = rng.uniform(0.5, 2, (50, 2)).astype(np.float32)
    moments = residual_moments(uvw, freq, lmn, flux, np.zeros((50, 2), np.complex64), weight)
    row, channel = (x.ravel() for x in np.mgrid[:50, :2])
    coupling = sampled_coupling(uvw[row], freq[channel], lmn, flux[:, channel], weight[row, channel])
    np.testing.assert_allclose(np.diag(coupling), moments[:, [3, 4, 6]].T.ravel(), rtol=1e-5)
    np.testing.assert_allclose(np.diag(coupling[3:6, 6:]), moments[:, 5], rtol=1e-3, atol=1)


@pytest.mark.parametrize("gap", [0.0, 7e6])
def test_windows_of_the_same_rows_add_up_at_once(rng, gap):
    """Side by side or apart, of one spacing or two."""
    uvw, low = rng.normal(size=(300, 3)) * 500, 1.3e9 + 1e6 * np.arange(20)
    high = low[-1] + 1e6 + gap + (1e6 + gap / 10) * np.arange(9)
    windows, lmn = (low, high), sky(rng, 5)
    flux = [rng.uniform(1, 2, (5, f.size)) for f in windows]
    residual = [rng.standard_normal((300, f.size, 2)) @ [1, 1j] for f in windows]
    residual = [r.astype(np.complex64) for r in residual]
    weight = [rng.uniform(0.5, 2, r.shape).astype(np.float32) for r in residual]
    apart = sum(
        residual_moments(uvw, f, lmn, s, r, w)
        for f, s, r, w in zip(windows, flux, residual, weight, strict=True)
    )
    joined = [np.concatenate(x, axis=1) for x in (flux, residual, weight)]
    together = residual_moments(uvw, np.concatenate(windows), lmn, *joined)
    size = np.abs(apart).max(axis=0)
    np.testing.assert_allclose(together / size, apart / size, atol=1e-5)


def test_of_sources_whose_coupling_is_known_only_that_with_others_is_summed(rng):
    lmn, n = sky(rng, 7), 7
    uvw, freq = rng.normal(size=(5000, 3)) * [400, 400, 20], rng.uniform(1.3e9, 1.5e9, 5000)
    flux, weight = rng.uniform(0.5, 2, (n, 5000)), rng.uniform(0, 1, 5000)
    whole = sampled_coupling(uvw, freq, lmn, flux, weight)
    part = sampled_coupling(uvw, freq, lmn, flux, weight, 4)
    known = np.arange(3 * n) % n < 4
    between = np.outer(known, known) & ~np.eye(3 * n, dtype=bool)
    assert not part[between].any()
    np.testing.assert_allclose(part[~between], whole[~between], rtol=1e-4, atol=1e-4 * np.abs(whole).max())
