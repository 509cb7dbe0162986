"""Visibilities of known gains, as plain arrays and as a small Measurement Set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsa110_contimg.calibration.solver import solve
from dsa110_contimg.calibration.statistics import BaselineStatistics, accumulate

DUMP_S = 10.0


@dataclass
class Data:
    """Rows of visibilities with what they were made of; `gain` has shape (ntime, nant, 2)."""

    slot: np.ndarray
    antenna1: np.ndarray
    antenna2: np.ndarray
    vis: np.ndarray
    weight: np.ndarray
    model: np.ndarray
    gain: np.ndarray

    @property
    def times_s(self):
        return 5e9 + DUMP_S * np.arange(len(self.gain))

    def statistics(self, vis=None, weight=None, first_channel=0):
        out = BaselineStatistics.empty(self.gain.shape[1], [0], len(self.gain))
        vis = self.vis if vis is None else vis
        weight = self.weight if weight is None else weight
        accumulate(out, 0, self.slot, self.antenna1, self.antenna2, vis, weight, self.model, first_channel)
        return out

    def solve(self, interval=None, statistics=None, **options):
        n = len(self.gain)
        interval = np.arange(n) if interval is None else interval
        options = {"noise_scale2": 2.0} | options
        return solve(statistics or self.statistics(), interval, self.times_s, np.full(n, DUMP_S), **options)


def random_gains(rng, n_times, n_antennas, amplitude=0.1):
    """Uniformly random phases that hold through all dumps, and amplitudes near one."""
    shape = (n_antennas, 2)
    gain = (1 + amplitude * rng.standard_normal(shape)) * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    return np.broadcast_to(gain, (n_times, *shape)).copy()


def observe(rng, gain, n_channels=4, sigma=0.0, structure=0.5):
    """Observe a sky of 1 Jy and some structure; a third of the rows have antenna 1 above antenna 2.

    `sigma` is the noise of the real part; weights are ``1 / sigma^2``, so that the variance times the
    weight is 2.
    """
    n_times, n_antennas, _ = gain.shape
    i, j = (np.tile(x, n_times) for x in np.triu_indices(n_antennas, 1))
    swap = rng.random(i.size) < 1 / 3
    i, j = np.where(swap, j, i), np.where(swap, i, j)
    slot = np.repeat(np.arange(n_times), n_antennas * (n_antennas - 1) // 2)
    shape = (i.size, n_channels)
    model = 1 + structure * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    vis = (gain[slot, i] * gain[slot, j].conj())[:, None, :] * model[:, :, None]
    vis = vis + sigma * (rng.standard_normal(vis.shape) + 1j * rng.standard_normal(vis.shape))
    weight = np.full(vis.shape, 1 / sigma**2 if sigma else 1.0, np.float32)
    return Data(slot, i, j, vis.astype(np.complex64), weight, model.astype(np.complex64), gain)


def turned(estimate, true):
    """Ratio of gains (..., nant, npol) with the phase that is free, the mean one, taken out."""
    ratio = estimate / true
    return ratio * np.exp(-1j * np.angle(ratio.mean(axis=-2, keepdims=True)))
