"""Antennas that are dead for part of the time."""

from __future__ import annotations

import numpy as np
import pytest

from dsa110_contimg.calibration.cross_validation import GainSolver
from dsa110_contimg.calibration.lost_antennas import lost_antennas
from dsa110_contimg.calibration.solve_settings import Grouping, SolveSettings
from dsa110_contimg.visibilities import NoiseScale
from tests.calibration.conftest import observe, random_gains

T, N = 16, 24


def solver_for(data, statistics=None):
    return GainSolver(
        statistics=statistics or data.statistics(),
        axes=data.axes(),
        settings=SolveSettings(NoiseScale(2.0), tuple(range(N)), 5.0, 4),
        groupings=(Grouping(True, True),),
    )


def dead(rng, data, sigma, gone):
    """Noise alone where an antenna, dump and polarisation (ntime, nant, 2) is gone."""
    noise = sigma * (rng.standard_normal(data.vis.shape) + 1j * rng.standard_normal(data.vis.shape))
    mine = gone[data.time_index, data.antenna1] | gone[data.time_index, data.antenna2]
    data.vis[:] = np.where(mine[:, None], noise, data.vis)


def found_in(data):
    """What is found in the end, and what at first."""
    solver = solver_for(data)
    first = lost_antennas(solver, combine_spw=True)
    again = solver_for(data, solver.statistics.without(first))
    return first | lost_antennas(again, combine_spw=True, before=first), first


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 4.0, 8.0])
def test_a_healthy_array_loses_nothing(rng, sigma):
    counts = [
        lost_antennas(solver_for(observe(rng, random_gains(rng, T, N), sigma=sigma)), combine_spw=True)
        for _ in range(8)
    ]
    assert np.mean(counts) < 1e-3


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_dump_is_enough_where_the_signal_allows(rng, share):
    data = observe(rng, random_gains(rng, T, N), sigma=0.5)
    gone = np.zeros((T, N, 2), bool)
    for antenna in rng.choice(N, int(share * N), replace=False):
        start = rng.integers(1, T - 1)
        gone[start : start + rng.integers(1, T // 2), antenna, rng.integers(2)] = True
    dead(rng, data, 0.5, gone)
    found, _ = found_in(data)
    np.testing.assert_array_equal(found, gone)


def test_more_dumps_are_taken_where_the_signal_is_weak(rng):
    """A dump tells by about four sigma here: blocks are longer, edges are found dump by dump."""
    data = observe(rng, random_gains(rng, T, N), sigma=1.8)
    gone = np.zeros((T, N, 2), bool)
    gone[7:, :9] = True
    dead(rng, data, 1.8, gone)
    found, first = found_in(data)
    assert first.any()
    assert found[gone].mean() > 0.85
    # A block may begin before the antenna dies.
    assert found[~gone].mean() < 0.05


def test_what_is_dead_all_the_time_is_not_lost(rng):
    """What it should be is not known; its gains predict nothing, which others see to."""
    data = observe(rng, random_gains(rng, T, N), sigma=0.5)
    gone = np.zeros((T, N, 2), bool)
    gone[:, 5] = True
    dead(rng, data, 0.5, gone)
    assert not found_in(data)[0].any()


def test_a_sky_that_is_gone_takes_no_antenna_with_it(rng):
    data = observe(rng, random_gains(rng, T, N), sigma=0.5)
    gone = np.zeros((T, N, 2), bool)
    gone[12:] = True
    dead(rng, data, 0.5, gone)
    assert not found_in(data)[0].any()


def test_phases_that_wander_are_not_lost(rng):
    """Every block has phases of its own, whatever the interval of the solution."""
    gain = random_gains(rng, T, N) * np.exp(1j * np.cumsum(rng.normal(0, 1.0, (T, N, 2)), axis=0))
    assert not found_in(observe(rng, gain, sigma=0.5))[0].any()


def test_without_signal_nothing_is_said(rng):
    data = observe(rng, random_gains(rng, T, N), sigma=0.5)
    dead(rng, data, 0.5, np.ones((T, N, 2), bool))
    assert not found_in(data)[0].any()


def test_one_dump_has_nothing_to_be_compared_with(rng):
    assert not lost_antennas(solver_for(observe(rng, random_gains(rng, 1, N))), combine_spw=True).any()
