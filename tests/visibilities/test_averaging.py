"""Bins of channels: how wide they may be, what they are means of, and models of the same means."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.visibilities import (
    SpectralWindow,
    average_rows,
    bins_of_window,
    factor_by_length,
    factors_of_window,
    mean_over_bins,
    single_channels,
    with_partial,
)
from dsa110_contimg.visibilities.averaging import MOST_TURNS, WIDEST_BIN_HZ

C = 299_792_458.0
WIDTH = 244140.625


def window(n=48, width=WIDTH, first=1.31e9, corr_type=(9, 12)):
    return SpectralWindow(3, 5, first + width * np.arange(n), np.full(n, abs(width)), corr_type)


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def random_rows(rng, n=200, channels=48, flagged=0.1, alike=True):
    shape = (n, channels, 2)
    vis = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    weight = rng.uniform(0.9, 1.1, shape).astype(np.float32)
    weight[rng.uniform(size=(n, channels, 1 if alike else 2)).repeat(2 if alike else 1, axis=2) < flagged] = 0
    return vis, weight


def test_factors_divide_the_window_and_leave_bins_enough():
    assert factors_of_window(window()) == (1, 2, 3, 4, 6, 8, 12)
    assert factors_of_window(window(), sub_bands=16) == (1, 2, 3)
    assert factors_of_window(window(63, 24414.0)) == (1, 3, 7, 9)
    # Of a prime number of channels bins are nearly equal.
    assert factors_of_window(window(61, 24414.0)) == (1, 2, 4, 8)
    for few in (1, 4, 7):
        assert factors_of_window(window(few)) == (1,)


def test_bins_are_no_wider_than_delays_and_spectra_allow():
    for n, width, first in ((48, 1e6, 1.3e9), (512, -2e5, 1.4e9), (96, 1e5, 1.5e8)):
        most = factors_of_window(window(n, width, first))[-1] * abs(width)
        assert most <= min(WIDEST_BIN_HZ, 0.0025 * first) * 1.001
        assert most > 0.3 * min(WIDEST_BIN_HZ, 0.0025 * first, n * abs(width) / 4)


def test_uneven_channels_are_left_alone():
    uneven = replace(window(), freq_hz=1.3e9 + np.cumsum(np.random.default_rng(1).uniform(1e5, 3e5, 48)))
    assert factors_of_window(uneven) == (1,)


def test_a_source_at_the_edge_loses_three_per_cent_of_a_baseline_and_one_of_its_image(rng):
    length, half_width = rng.uniform(5, 6000, 4000), 0.02
    for n in (48, 61):
        of = window(n)
        factor = factor_by_length(length, of, half_width, factors_of_window(of))
        assert set(factor) == set(factors_of_window(of))
        turns = length * np.sin(half_width) * factor * WIDTH / C
        averaged = factor > 1
        assert (turns[averaged] <= MOST_TURNS).all()
        # On a baseline that points at it.
        assert (1 - np.sinc(turns[averaged])).max() == pytest.approx(0.032, abs=1e-3)
        along = np.where(averaged, turns, 0) * np.cos(rng.uniform(0, 2 * np.pi, len(turns)))
        assert np.mean(1 - np.sinc(along)) < 0.01


def test_bins_keep_off_sub_bands_and_channels_that_nobody_has():
    present = np.full(48, 100.0)
    present[[0, 1, 20, 47]] = 0
    bins, left_over = bins_of_window(window(), 12, present, np.ones(48), sub_bands=2)
    assert left_over.tolist() == [0, 1, 20, 47]
    spans = [range(a, a + k) for a, k in zip(bins.start, bins.count, strict=True)]
    covered = [c for span in spans for c in span]
    assert covered == [c for c in range(48) if c not in (0, 1, 20, 47)]
    assert bins.count.max() <= 12
    assert not any(span.start < 24 < span.stop for span in spans)
    plain, nothing = bins_of_window(window(), 12, np.ones(48), np.ones(48))
    assert (plain.start.tolist(), plain.count.tolist(), nothing.size) == ([0, 12, 24, 36], [12] * 4, 0)


def test_the_edge_of_a_bandpass_is_not_averaged_with_its_middle():
    weight = np.ones(48)
    weight[:3] = (0.01, 0.05, 0.3)
    bins, _ = bins_of_window(window(), 12, np.ones(48), weight)
    for a, k in zip(bins.start, bins.count, strict=True):
        w = weight[a : a + k]
        assert k**2 / (w.sum() * (1 / w).sum()) >= 0.97
    assert bins.count.max() == 12


def test_means_and_their_weights(rng):
    vis, weight = random_rows(rng)
    rows = np.sort(rng.choice(200, 120, replace=False))
    bins, _ = bins_of_window(window(), 6, np.ones(48), np.ones(48))
    (part,) = average_rows(vis, weight, rows, bins)
    assert part.row is rows
    for i, b, p in zip(
        rng.integers(120, size=50), rng.integers(8, size=50), rng.integers(2, size=50), strict=True
    ):
        v, w = vis[rows[i], 6 * b : 6 * b + 6, p], weight[rows[i], 6 * b : 6 * b + 6, p]
        there = w > 0
        if there.any():
            assert part.vis[i, b, p] == pytest.approx(v[there].mean(), abs=1e-6)
            assert part.weight[i, b, p] == pytest.approx(there.sum() ** 2 / (1 / w[there]).sum(), rel=1e-6)
        else:
            assert part.weight[i, b, p] == 0
    # Noise of unit variance per channel has the variance that the weight says.
    power = part.weight * np.abs(part.vis) ** 2 / 2
    assert power[part.weight > 0].mean() == pytest.approx(np.mean(1.0), rel=0.05)


def masked_mean(model, weight, start, count):
    out = np.zeros((len(model), start.size, 2), complex)
    for b, (a, k) in enumerate(zip(start, count, strict=True)):
        there = weight[:, a : a + k] > 0
        n = np.maximum(there.sum(axis=1), 1)
        out[:, b] = (model[:, a : a + k, None] * there).sum(axis=1) / n
    return out


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("flagged", [0.02, 0.3, 0.8])
def test_a_model_is_averaged_over_the_channels_that_the_data_have(rng, flagged, alike):
    """Whatever is flagged, in one hand or in both; nothing is lost."""
    vis, weight = random_rows(rng, flagged=flagged, alike=alike)
    model = (rng.normal(size=(200, 48)) + 1j * rng.normal(size=(200, 48))).astype(np.complex64)
    bins, _ = bins_of_window(window(), 12, np.ones(48), np.ones(48))
    parts = average_rows(vis, weight, np.arange(200), bins)
    assert len(parts) == (1 if alike else 2)
    exact = masked_mean(model, weight, bins.start, bins.count)
    total = 0.0
    for part in parts:
        predicted = mean_over_bins(model[part.row], with_partial(bins, part.mask))
        used = part.weight > 0
        np.testing.assert_allclose(
            np.repeat(predicted[:, :, None], 2, axis=2)[used], exact[part.row][used], atol=2e-6
        )
        total += part.weight.sum()
    once = average_rows(vis, np.where(weight > 0, weight, 0), np.arange(200), bins)
    assert total == pytest.approx(sum(p.weight.sum() for p in once))
    variance = np.zeros((200, 4, 2))
    for b in range(4):
        w = weight[:, 12 * b : 12 * b + 12]
        with np.errstate(divide="ignore"):
            inverse = np.where(w > 0, 1 / w, 0).sum(axis=1)
        variance[:, b] = np.where(
            inverse > 0, (w > 0).sum(axis=1) ** 2 / np.where(inverse > 0, inverse, 1), 0
        )
    assert total == pytest.approx(variance.sum(), rel=1e-5)


def test_single_channels_are_as_they_were(rng):
    vis, weight = random_rows(rng)
    bins = single_channels(window())
    (part,) = average_rows(vis, weight, np.arange(200), bins)
    np.testing.assert_array_equal(part.weight, weight)
    np.testing.assert_array_equal(part.vis[weight > 0], vis[weight > 0])
    assert with_partial(bins, part.mask).partial is None


def test_a_window_of_bins_has_the_parallel_hands_at_their_centres():
    four = window(corr_type=(9, 10, 11, 12))
    bins, _ = bins_of_window(four, 12, np.ones(48), np.ones(48))
    averaged = bins.averaged_window()
    assert (averaged.id, averaged.corr_type, averaged.parallel) == (3, (9, 12), (0, 1))
    np.testing.assert_allclose(averaged.freq_hz, four.freq_hz.reshape(4, 12).mean(axis=1))
    np.testing.assert_allclose(averaged.width_hz, 12 * WIDTH)
    flux = np.random.default_rng(0).uniform(size=(5, 48)).cumsum(axis=1)
    mean, slope, curve = bins.moments(flux)
    np.testing.assert_allclose(mean, flux.reshape(5, 4, 12).mean(axis=2))
    fitted = np.polynomial.Polynomial.fit(np.arange(12) - 5.5, flux[0, :12], 2).convert().coef
    np.testing.assert_allclose([slope[0, 0], curve[0, 0]], fitted[1:])
