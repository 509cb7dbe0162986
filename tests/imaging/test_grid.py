import math

import ducc0
import numpy as np
import pytest

from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging import ImageGrid, choose_grid

ARCSEC = math.pi / 180 / 3600


def test_sky_and_pixel_conversions_invert_each_other():
    grid = ImageGrid(1024, 5 * ARCSEC, 0.01, 1.3)
    x, y = np.random.default_rng(1).uniform(0, 1023, (2, 50))
    ra, dec = grid.pixel_to_sky(x, y)
    assert ra.min() >= 0
    back = grid.sky_to_pixel(ra, dec)
    np.testing.assert_allclose(back, (x, y), atol=1e-6)


def test_x_grows_to_the_west_and_y_to_the_north():
    grid = ImageGrid(64, ARCSEC, 1.0, 0.5)
    x, y = grid.sky_to_pixel([1.0, 1.0 - 10 * ARCSEC], [0.5 + 10 * ARCSEC, 0.5])
    np.testing.assert_allclose(x, [32, 32 + 10 * math.cos(0.5)], atol=1e-3)
    np.testing.assert_allclose(y, [42, 32], atol=1e-3)


def test_directions_behind_the_horizon_have_no_pixel():
    grid = ImageGrid(64, ARCSEC, 1.0, 0.5)
    assert np.isnan(grid.sky_to_pixel(1.0 + math.pi, -0.5)).all()


def test_chosen_grid_samples_the_fringe_and_covers_the_beam():
    fwhm = math.radians(2.9)
    grid = choose_grid(1, 1, max_baseline_m=1500, freq_lo_hz=1.31e9, freq_hi_hz=1.5e9, fwhm_rad=fwhm)
    fringe = 299_792_458 / 1.5e9 / 1500
    assert 0.9 * fringe / 5 < grid.cell_rad <= fringe / 3
    assert 1.5 * fwhm <= grid.size * grid.cell_rad < 1.6 * fwhm
    assert grid.size % 2 == 0
    assert ducc0.fft.good_size(grid.size) == grid.size


@pytest.mark.parametrize(("fwhm", "size"), [(1e-4, 512), (0.5, 4096)])
def test_chosen_size_is_bounded(fwhm, size):
    grid = choose_grid(1, 1, max_baseline_m=2600, freq_lo_hz=1.3e9, freq_hi_hz=1.5e9, fwhm_rad=fwhm)
    assert grid.size == size


@pytest.mark.parametrize("change", [{"max_baseline_m": 0}, {"freq_lo_hz": math.nan}, {"fwhm_rad": -1}])
def test_impossible_grids_are_refused(change):
    good = {"max_baseline_m": 2600, "freq_lo_hz": 1.3e9, "freq_hi_hz": 1.5e9, "fwhm_rad": 0.05}
    with pytest.raises(ImagingError):
        choose_grid(1, 1, **(good | change))


@pytest.mark.parametrize(("size", "cell"), [(63, 1e-5), (16, 1e-5), (64, 0.0), (64, 0.1)])
def test_grid_that_is_not_an_image_is_refused(size, cell):
    with pytest.raises(ImagingError):
        ImageGrid(size, cell, 0, 0)
