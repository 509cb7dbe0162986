"""Antenna coordinates come out of those of the baselines."""

import numpy as np
import pytest

from dsa110_contimg.visibilities.antenna_coordinates import AntennaCoordinates

N_TIMES, N_ANTENNAS = 3, 30


@pytest.fixture
def uv(rng):
    """Antennas about any origin, shape (ntime, nant, 2)."""
    return rng.uniform(-1500, 1500, (N_TIMES, N_ANTENNAS, 2)) + np.array([4000.0, -700.0])


def rows_of(uv, rng, keep=1.0):
    """Baselines of all dumps in any order, some the other way round; (nrow, 3) metres."""
    n_times, n_antennas, _ = uv.shape
    i, j = (np.tile(x, n_times) for x in np.triu_indices(n_antennas, 1))
    t = np.repeat(np.arange(n_times), n_antennas * (n_antennas - 1) // 2)
    order = rng.permutation(t.size)[: int(keep * t.size)]
    t, i, j = t[order], i[order], j[order]
    swap = rng.random(t.size) < 1 / 3
    i, j = np.where(swap, j, i), np.where(swap, i, j)
    uvw = np.concatenate([uv[t, j] - uv[t, i], rng.standard_normal((t.size, 1))], axis=1)
    return np.stack([t, i, j]), uvw


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_coordinates_come_out_of_baselines_exactly(rng, uv, keep):
    coordinates = AntennaCoordinates(N_ANTENNAS, N_TIMES)
    # In blocks, as data are read.
    rows, uvw = rows_of(uv, rng, keep)
    for part in np.array_split(np.arange(len(uvw)), 3):
        coordinates.add(*rows[:, part], uvw[part])
    found = coordinates.solve()
    np.testing.assert_allclose(found, uv - uv.mean(axis=1, keepdims=True), atol=1e-8)


def test_an_antenna_without_a_row_has_no_coordinates(rng, uv):
    coordinates = AntennaCoordinates(N_ANTENNAS, N_TIMES)
    rows, uvw = rows_of(uv, rng)
    there = (rows[1:] != 4).all(axis=0) & (rows[0] != 2)
    coordinates.add(*rows[:, there], uvw[there])
    found = coordinates.solve()
    missing = np.zeros((N_TIMES, N_ANTENNAS), bool)
    missing[:, 4], missing[2] = True, True
    np.testing.assert_array_equal(np.isnan(found), np.repeat(missing[:, :, None], 2, axis=2))
    others = np.delete(np.arange(N_ANTENNAS), 4)
    for t in (0, 1):
        differences = found[t, others] - found[t, others[0]]
        np.testing.assert_allclose(differences, uv[t, others] - uv[t, others[0]], atol=1e-8)
