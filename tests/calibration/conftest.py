"""Visibilities of known gains, as plain arrays and as a small Measurement Set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.calibration.solve_settings import ObservationAxes, SolveSettings
from dsa110_contimg.calibration.solver import solve
from dsa110_contimg.calibration.statistics import BaselineStatistics, RowIndex, accumulate
from dsa110_contimg.visibilities import NoiseScale

DUMP_S = 10.0


@dataclass
class Data:
    """Rows of visibilities with what they were made of; `gain` has shape (ntime, nant, 2)."""

    time_index: np.ndarray
    antenna1: np.ndarray
    antenna2: np.ndarray
    vis: np.ndarray
    weight: np.ndarray
    model: np.ndarray
    gain: np.ndarray

    @property
    def times_s(self):
        return 5e9 + DUMP_S * np.arange(len(self.gain))

    @property
    def rows(self):
        return RowIndex(self.time_index, self.antenna1, self.antenna2)

    def axes(self, **changes):
        n = len(self.gain)
        axes = ObservationAxes(
            times_s=self.times_s,
            dump_s=np.full(n, DUMP_S),
            scan=np.ones(n, int),
            field_id=np.zeros(n, int),
            freq_hz=np.array([1.4e9]),
        )
        return replace(axes, **changes)

    def statistics(self, vis=None, weight=None, first_channel=0):
        out = BaselineStatistics.empty(self.gain.shape[1], [0], len(self.gain))
        vis = self.vis if vis is None else vis
        weight = self.weight if weight is None else weight
        accumulate(out, 0, self.rows, vis, weight, self.model, first_channel)
        return out

    def solve_result(self, interval=None, statistics=None, axes=None, **options):
        """Solve with settings and options of :func:`solve` side by side."""
        interval = np.arange(len(self.gain)) if interval is None else interval
        names = SolveSettings.__dataclass_fields__
        settings = {"noise": NoiseScale(2.0)} | {k: v for k, v in options.items() if k in names}
        options = {k: v for k, v in options.items() if k not in names}
        statistics = statistics or self.statistics()
        return solve(statistics, axes or self.axes(), interval, SolveSettings(**settings), **options)

    def solve(self, *args, **options):
        return self.solve_result(*args, **options).gains


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
    time_index = np.repeat(np.arange(n_times), n_antennas * (n_antennas - 1) // 2)
    shape = (i.size, n_channels)
    model = 1 + structure * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    vis = (gain[time_index, i] * gain[time_index, j].conj())[:, None, :] * model[:, :, None]
    vis = vis + sigma * (rng.standard_normal(vis.shape) + 1j * rng.standard_normal(vis.shape))
    weight = np.full(vis.shape, 1 / sigma**2 if sigma else 1.0, np.float32)
    return Data(time_index, i, j, vis.astype(np.complex64), weight, model.astype(np.complex64), gain)


def weakly_joined(rng):
    """Two groups of six antennas that one baseline of a thousandth of the weight joins, not in the last dump.

    Each sweep over the antennas turns the groups against each other by a thousandth of what is missing:
    they cannot converge in the iterations allowed; on their own, in the last dump, they do.
    """
    data = observe(rng, random_gains(rng, 4, 12, 0.0), n_channels=1, structure=0, sigma=0.05)
    across = (data.antenna1 < 6) != (data.antenna2 < 6)
    joining = across & (np.abs(data.antenna1 - data.antenna2) == 1)
    data.weight[across & ~joining] = 0
    data.weight[joining] *= 1e-3
    data.weight[joining & (data.time_index == 3)] = 0
    return data


def turned(estimate, true):
    """Ratio of gains (..., nant, npol) with the phase that is free, the mean one, taken out."""
    ratio = estimate / true
    return ratio * np.exp(-1j * np.angle(ratio.mean(axis=-2, keepdims=True)))
