"""A distortion of the field is found in shifts of sources, and moves those that were not measured."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.selfcal.distortion import distorted, fit_distortion
from dsa110_contimg.selfcal.source_measurement import SourceMeasurement
from dsa110_contimg.sky.components import ARCSEC

MATRIX = np.array([[3e-3, 1e-3], [1e-3, -2e-3]])


def measured(lm, matrix, seed=0, outliers=0):
    rng, n = np.random.default_rng(seed), len(lm)
    shift = lm @ matrix + ARCSEC * rng.normal(size=(n, 2))
    shift[:outliers] += 60 * ARCSEC
    return SourceMeasurement(
        index=np.arange(n),
        ratio=np.ones(n),
        ratio_error=np.full(n, 0.01),
        shift_rad=shift,
        shift_error=np.full((n, 2), 0.3 * ARCSEC),
        good=np.ones(n, dtype=bool),
        scale=1.0,
        offset_rad=(0.0, 0.0),
    )


@pytest.fixture
def lm():
    return np.random.default_rng(2).uniform(-0.02, 0.02, (40, 2))


def test_a_distortion_is_found_in_spite_of_outliers(lm):
    found = fit_distortion(measured(lm, MATRIX, outliers=4), lm, np.arange(40) % 2 == 0)
    np.testing.assert_allclose(found.matrix, MATRIX, atol=2e-4)
    np.testing.assert_array_equal(found.matrix, found.matrix.T)
    assert found.asked
    assert found.at_rad(0.02) == pytest.approx(0.02 * np.abs(np.linalg.eigvalsh(MATRIX)).max(), rel=0.1)


@pytest.mark.parametrize("matrix", [np.zeros((2, 2)), np.array([[0, 2e-3], [-2e-3, 0]])])
def test_errors_of_positions_and_a_rotation_are_none(lm, matrix):
    for seed in range(5):
        assert not fit_distortion(measured(lm, matrix, seed), lm, np.arange(40) % 2 == 0).asked


def test_few_sources_tell_none(lm):
    few = lm[:7]
    assert fit_distortion(measured(few, MATRIX), few, np.arange(7) % 2 == 0) is None


def test_what_was_measured_stays_and_all_else_is_moved(data, lm):
    listed, centre = data.catalog_model, data.reader.phase_center
    found = fit_distortion(measured(lm, MATRIX), lm, np.arange(40) % 2 == 0)
    placed = np.arange(len(listed)) < 5
    model = replace(listed, sky=listed.sky, apparent_jy=2 * listed.apparent_jy)
    moved = distorted(model, listed, found, placed, centre)
    was, now = (x.sky.lmn(*centre)[:, :2] for x in (listed, moved))
    np.testing.assert_array_equal(now[placed], was[placed])
    np.testing.assert_allclose((now - was)[~placed], found.shift_rad(was[~placed]), atol=1e-9)
    np.testing.assert_array_equal(moved.apparent_jy, model.apparent_jy)
