from collections import defaultdict

import numpy as np
import pytest

from dsa110_contimg.errors import ConfigError, ImagingError
from dsa110_contimg.imaging import StokesI, imaging_weights, stokes_i

C = 299_792_458.0


def brute_force(chunks, grid, kind, robust):
    """Densities in a dictionary, every visibility and its conjugate counted."""
    cells = defaultdict(float)

    def cell(chunk, row, chan, sign):
        u, v = sign * chunk.uvw[row, :2] * chunk.freq_hz[chan] / C * grid.size * grid.cell_rad
        return round(u), round(v)

    def every(chunk):
        return np.ndindex(chunk.weight.shape)

    for chunk in chunks:
        for row, chan in every(chunk):
            for sign in (1, -1):
                cells[cell(chunk, row, chan, sign)] += float(chunk.weight[row, chan])
    total = sum(2 * chunk.weight.sum(dtype=float) for chunk in chunks)
    f2 = (5 * 10**-robust) ** 2 / (sum(value**2 for value in cells.values()) / total)
    out = []
    for chunk in chunks:
        weight = np.zeros(chunk.weight.shape)
        for row, chan in every(chunk):
            w = chunk.weight[row, chan]
            if w > 0:
                density = cells[cell(chunk, row, chan, 1)]
                weight[row, chan] = {"natural": w, "uniform": w / density, "briggs": w / (1 + f2 * density)}[
                    kind
                ]
        out.append(weight)
    return out


@pytest.mark.parametrize(
    ("kind", "robust"), [("natural", 0), ("uniform", 0), ("briggs", -2), ("briggs", 0), ("briggs", 1.5)]
)
def test_weights_are_those_of_the_formula(observation, coverage_weight, kind, robust):
    vis = np.zeros(observation.shape)
    chunks = [
        StokesI(
            observation.uvw[rows], observation.freq_hz, vis[rows].astype(np.complex64), coverage_weight[rows]
        )
        for rows in (slice(0, 900), slice(900, None))
    ]
    expected = brute_force(chunks, observation.grid, kind, robust)
    got = imaging_weights(chunks, observation.grid, kind, robust)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)


def test_robust_changes_the_weights(observation):
    chunks = [observation.chunk(np.zeros(observation.shape))]
    low, high = (imaging_weights(chunks, observation.grid, "briggs", r)[0] for r in (-1, 1))
    assert np.std(low) / np.mean(low) > np.std(high) / np.mean(high)


@pytest.mark.parametrize(("kind", "robust"), [("super", 0), ("briggs", np.nan)])
def test_unknown_weighting_is_refused(observation, kind, robust):
    with pytest.raises(ConfigError):
        imaging_weights([observation.chunk(np.zeros(observation.shape))], observation.grid, kind, robust)


def test_parallel_hands_combine_with_inverse_variance():
    rng = np.random.default_rng(2)
    vis = (rng.normal(size=(5, 3, 4)) + 1j * rng.normal(size=(5, 3, 4))).astype(np.complex64)
    weight = rng.uniform(1, 2, (5, 3, 4)).astype(np.float32)
    flag = np.zeros(vis.shape, bool)
    flag[0, 0, 0] = flag[1, 1] = True
    vis[2, 2, 3] = np.nan
    weight[3, 0, 0] = np.inf
    got, got_weight = stokes_i(vis, weight, flag, [0, 3])
    with np.errstate(invalid="ignore"):
        expected = (vis[..., 0] * weight[..., 0] + vis[..., 3] * weight[..., 3]) / (
            weight[..., 0] + weight[..., 3]
        )
    total = weight[..., 0] + weight[..., 3]
    for place, hand in (((0, 0), 3), ((2, 2), 0), ((3, 0), 3)):
        expected[place], total[place] = vis[(*place, hand)], weight[(*place, hand)]
    expected[1, 1] = total[1, 1] = 0
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(got_weight, total, rtol=1e-6)


def test_weight_without_channels_stands_for_all_channels():
    vis = np.ones((2, 3, 2), np.complex64) * np.array([1, 3], np.complex64)
    weight = np.array([[1, 1], [3, 1]], np.float32)
    got, got_weight = stokes_i(vis, weight, np.zeros(vis.shape, bool), [0, 1])
    np.testing.assert_allclose(got, [[2] * 3, [1.5] * 3])
    np.testing.assert_allclose(got_weight, [[2] * 3, [4] * 3])


@pytest.mark.parametrize("hands", [[], [0, 2], [0, 1, 1]])
def test_hands_that_are_not_there_are_refused(hands):
    vis = np.ones((2, 3, 2), np.complex64)
    with pytest.raises(ImagingError):
        stokes_i(vis, np.ones(vis.shape, np.float32), np.zeros(vis.shape, bool), hands)


def test_chunk_whose_shapes_do_not_fit_is_refused(observation):
    with pytest.raises(ImagingError):
        StokesI(
            observation.uvw, observation.freq_hz, np.ones((3, 4), np.complex64), np.ones((3, 4), np.float32)
        )
