"""A small array with w terms, its exact transforms, and skies of points."""

from __future__ import annotations

import numpy as np
import pytest

from dsa110_contimg.imaging import ImageGrid, StokesI

C = 299_792_458.0


class Observation:
    """A field at declination +54 seen by 30 antennas over two hours; every transform in float64."""

    freq_hz = np.linspace(1.31e9, 1.49e9, 4)

    def __init__(self, n_antennas=30, n_times=8, seed=5):
        rng = np.random.default_rng(seed)
        self.grid = ImageGrid(size=256, cell_rad=6 / 206265, ra_rad=2.5, dec_rad=0.95)
        core = rng.normal(0, 150, (n_antennas // 2, 2))
        east, north = np.concatenate([core, rng.uniform(-900, 900, (n_antennas - len(core), 2))]).T
        lat, dec = 0.65, self.grid.dec_rad
        x, y, z = -np.sin(lat) * north, east, np.cos(lat) * north
        i, j = np.triu_indices(n_antennas, 1)
        x, y, z = x[j] - x[i], y[j] - y[i], z[j] - z[i]
        rows = []
        for h in np.linspace(0.2, 0.7, n_times):
            s, c = np.sin(h), np.cos(h)
            u = s * x + c * y
            v = -np.sin(dec) * c * x + np.sin(dec) * s * y + np.cos(dec) * z
            w = np.cos(dec) * c * x - np.cos(dec) * s * y + np.sin(dec) * z
            rows.append(np.stack([u, v, w], axis=1))
        self.uvw = np.concatenate(rows)
        self.shape = (len(self.uvw), len(self.freq_hz))

    def points(self, ra, dec, flux):
        """Visibilities of points: the definition of the Measurement Set, written out."""
        total = np.zeros(self.shape, complex)
        for a, d, s in zip(ra, dec, flux, strict=True):
            dra, d0 = a - self.grid.ra_rad, self.grid.dec_rad
            l = np.cos(d) * np.sin(dra)  # noqa: E741
            m = np.sin(d) * np.cos(d0) - np.cos(d) * np.sin(d0) * np.cos(dra)
            path = self.uvw @ [l, m, np.sqrt(1 - l * l - m * m) - 1]
            total += s * np.exp(2j * np.pi * path[:, None] * self.freq_hz / C)
        return total

    def beam_at(self, vis, weight, x, y):
        """Exact dirty image at pixel (x, y), counted from 0, x to the west."""
        l = -(x - self.grid.size // 2) * self.grid.cell_rad  # noqa: E741
        m = (y - self.grid.size // 2) * self.grid.cell_rad
        path = self.uvw @ [l, m, np.sqrt(1 - l * l - m * m) - 1]
        phase = np.exp(-2j * np.pi * path[:, None] * self.freq_hz / C)
        return (weight * vis * phase).real.sum() / weight.sum()

    def chunk(self, vis, weight=None):
        weight = np.ones(self.shape) if weight is None else weight
        return StokesI(self.uvw, self.freq_hz, vis.astype(np.complex64), weight.astype(np.float32))

    def noise(self, rng, sigma=1.0):
        return sigma * (rng.normal(size=self.shape) + 1j * rng.normal(size=self.shape))

    def sky(self, pixels):
        """RA and Dec of (x, y) pixels."""
        x, y = np.transpose(pixels)
        return self.grid.pixel_to_sky(x, y)


@pytest.fixture(scope="session")
def observation():
    return Observation()


@pytest.fixture(scope="session")
def coverage_weight(observation):
    """Weights that differ between rows and channels, with flags."""
    rng = np.random.default_rng(9)
    weight = rng.uniform(0.5, 2, observation.shape)
    weight[rng.random(observation.shape) < 0.1] = 0
    return weight.astype(np.float32)
