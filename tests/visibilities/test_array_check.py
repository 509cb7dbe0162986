"""UVW that are not those of positions, times and phase centre are told, and in which way."""

import numpy as np
import pytest

from dsa110_contimg.simulate.array import read_array, uvw_of_antennas
from dsa110_contimg.visibilities.array_check import check_baselines

RA, DEC, MJD = 2.6, 0.95, 60000.3
TIMES = (MJD + np.arange(6) * 60 / 86400) * 86400


def seen(position_m, late_s=0.0, ra=RA, dec=DEC):
    uvw = [uvw_of_antennas(position_m, (t + late_s) / 86400, ra, dec)[:, :2] for t in TIMES]
    return np.stack(uvw)


@pytest.fixture(scope="module")
def position_m():
    return read_array("dsa110").position_m[::6]


def test_baselines_of_the_positions_agree(position_m):
    found = check_baselines(seen(position_m), position_m, TIMES, RA, DEC)
    assert found.agrees
    assert not found.turned
    assert found.outlying.size == 0
    assert check_baselines(seen(position_m), position_m - position_m.mean(axis=0), TIMES, RA, DEC) is None


@pytest.mark.parametrize("late_s", [-7200.0, -3600.0, -1800.0, -600.0, 20.0, 60.0, 3600.0])
def test_a_clock_that_is_off_is_told(position_m, late_s):
    found = check_baselines(seen(position_m, late_s), position_m, TIMES, RA, DEC)
    assert found.turned
    assert found.late_s == pytest.approx(late_s, rel=0.02, abs=2.0), found.left_m
    assert abs(found.turned_rad[1]) < np.radians(0.01) + 0.01 * abs(found.turned_rad[0])


def test_a_phase_centre_that_is_off_is_told(position_m):
    ra, dec = RA + np.radians(0.25) / np.cos(DEC), DEC - np.radians(0.1)
    found = check_baselines(seen(position_m, ra=ra, dec=dec), position_m, TIMES, RA, DEC)
    assert found.turned
    assert np.degrees(found.turned_rad) == pytest.approx([0.25, -0.1], abs=0.01)


def test_antennas_elsewhere_are_named(position_m):
    rng = np.random.default_rng(1)
    moved = position_m.copy()
    moved[3] += 2.0
    found = check_baselines(seen(moved), position_m, TIMES, RA, DEC)
    assert found.agrees
    assert found.outlying.tolist() == [3]
    found = check_baselines(
        seen(position_m + rng.standard_normal(position_m.shape)), position_m, TIMES, RA, DEC
    )
    assert not found.agrees
    assert not found.turned


def test_baselines_from_the_second_antenna_to_the_first_agree_too(position_m):
    """As old data of the VLA have them, with visibilities that are conjugated."""
    assert check_baselines(-seen(position_m), position_m, TIMES, RA, DEC).agrees
