import numpy as np
import pytest

from dsa110_contimg.imaging import StokesI, average_channels
from dsa110_contimg.predict import predict_reference

FREQ = np.linspace(1.3e9, 1.5e9, 96)
EDGE = 0.02


def chunk(rng, n=400, longest=2000.0, freq=FREQ, precision=False):
    length, angle = rng.uniform(5, longest, n), rng.uniform(0, 2 * np.pi, n)
    uvw = np.column_stack([length * np.cos(angle), length * np.sin(angle), np.zeros(n)])
    vis = predict_reference(uvw, freq, np.array([[EDGE, 0.0, 0.0]]), np.ones((1, freq.size)))
    weight = rng.uniform(0.5, 2, vis.shape).astype(np.float32)
    weight[rng.uniform(size=vis.shape) < 0.1] = 0
    inverse = (weight * rng.uniform(0.5, 1, vis.shape)).astype(np.float32) if precision else None
    return StokesI(uvw, freq, vis.astype(np.complex64), weight, inverse)


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def test_a_source_at_the_edge_loses_no_more_than_allowed(rng):
    parts = average_channels(chunk(rng), EDGE)
    assert set(parts) == {1, 4, 16}
    for part in parts.values():
        seen = part.weight > 0
        exact = predict_reference(
            part.uvw, part.freq_hz, np.array([[EDGE, 0, 0]]), np.ones((1, part.freq_hz.size))
        )
        ratio = (part.vis / exact)[seen]
        # Missing channels shift the mean frequency, and with it the phase, of single averages.
        assert abs(ratio).min() > 0.985
        assert abs(ratio.mean() - 1) < 0.01
    assert len(parts[16].uvw) < len(parts[4].uvw) < len(parts[1].uvw)


def test_weights_and_variances_add_up(rng):
    whole = chunk(rng, precision=True)
    parts = average_channels(whole, EDGE)
    assert sum(p.weight.sum(dtype=float) for p in parts.values()) == pytest.approx(
        whole.weight.sum(dtype=float), rel=1e-6
    )
    part = parts[16]
    row = int(np.flatnonzero((whole.uvw == part.uvw[0]).all(axis=1))[0])
    w, inverse = whole.weight[row, :16].astype(float), whole.precision[row, :16].astype(float)
    used = w > 0
    assert part.vis[0, 0] == pytest.approx(np.sum(w * whole.vis[row, :16]) / w.sum(), rel=1e-5)
    assert part.precision[0, 0] == pytest.approx(
        w.sum() ** 2 / np.sum(w[used] ** 2 / inverse[used]), rel=1e-5
    )


def test_the_last_average_takes_what_is_left(rng):
    parts = average_channels(chunk(rng, freq=FREQ[:50], longest=20.0), EDGE)
    assert [p.freq_hz.size for p in parts.values()] == [4]
    np.testing.assert_allclose(parts[16].freq_hz[-1], FREQ[48:50].mean())


@pytest.mark.parametrize("freq", [FREQ[:3], np.r_[FREQ[:8], FREQ[40:48]]])
def test_few_or_uneven_channels_are_left_alone(rng, freq):
    whole = chunk(rng, freq=freq)
    assert average_channels(whole, EDGE) == {1: whole}
