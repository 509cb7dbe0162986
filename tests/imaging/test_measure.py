import math

import numpy as np
import pytest

from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging import (
    ImageGrid,
    RestoringBeam,
    add_gaussians,
    fit_source,
    mad_rms,
    measure_image,
    off_source_region,
)

ARCSEC = 1 / 206264.806
GRID = ImageGrid(512, 3 * ARCSEC, 2.5, 0.95)
BEAM = RestoringBeam(15 * ARCSEC, 12 * ARCSEC, 0.4)
RMS = 1e-3


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(0, RMS, (512, 512)).astype(np.float32)


def sources(image, x, y, flux):
    return add_gaussians(image, GRID, *GRID.pixel_to_lm(x, y), flux, BEAM)


def test_region_keeps_three_beams_from_sources_and_components():
    model = np.zeros((512, 512), np.float32)
    model[400, 100] = 1
    l, m = GRID.pixel_to_lm([200.5, -5.0], [300.0, 50.0])  # noqa: E741
    region = off_source_region(GRID, l, m, model, BEAM)
    y, x = np.mgrid[:512, :512]
    expected = np.ones((512, 512), bool)
    for x0, y0 in ((100, 400), (200.5, 300), (-5, 50)):
        expected &= np.hypot(x - x0, y - y0) > 15
    np.testing.assert_array_equal(region, expected)
    assert off_source_region(GRID, [], [], None, BEAM).all()
    assert off_source_region(GRID, [np.nan], [0.0], None, BEAM).all()


def test_region_that_is_too_small_is_refused():
    with pytest.raises(ImagingError, match="off source"):
        off_source_region(GRID, [], [], np.ones((512, 512), np.float32), BEAM)


def test_mad_rms_of_noise_and_of_nothing(noise):
    assert mad_rms(noise) == pytest.approx(RMS, rel=0.01)
    image = noise.copy()
    image[:100] = 50
    assert mad_rms(image, np.arange(512)[:, None] + np.zeros(512) >= 100) == pytest.approx(RMS, rel=0.01)
    assert math.isnan(mad_rms(image, np.zeros((512, 512), bool)))


@pytest.mark.parametrize(("x", "y"), [(200.0, 300.0), (200.31, 299.84), (150.5, 77.5)])
def test_source_is_fitted_between_pixels(x, y):
    image = sources(np.zeros((512, 512), np.float32), x, y, 0.8)
    fit = fit_source(image, x + 1.5, y - 2.0, BEAM, GRID)
    assert (fit.x, fit.y, fit.peak_jy) == pytest.approx((x, y, 0.8), rel=1e-5)


@pytest.mark.parametrize("pa_deg", [0, 8, 37, 83, 90, -45])
def test_source_in_a_narrow_beam_of_few_pixels(pa_deg, rng):
    """Half of the peak may be reached in two rows alone, which tell no parabola."""
    grid = ImageGrid(64, 5.7 * ARCSEC, 2.5, 0.95)
    beam = RestoringBeam(29.4 * ARCSEC, 13.5 * ARCSEC, math.radians(pa_deg))
    for x, y in 30 + rng.uniform(-0.5, 0.5, (30, 2)):
        at = grid.pixel_to_lm(np.array([x]), np.array([y]))
        image = add_gaussians(np.zeros((64, 64), np.float32), grid, *at, np.array([0.8]), beam)
        fit = fit_source(image, x, y, beam, grid)
        assert (fit.x, fit.y, fit.peak_jy) == pytest.approx((x, y, 0.8), abs=1e-3)
        fit = fit_source(image + rng.normal(0, 0.8 / 30, image.shape).astype(np.float32), x, y, beam, grid)
        assert (fit.x, fit.y) == pytest.approx((x, y), abs=0.4)
        assert fit.peak_jy == pytest.approx(0.8, rel=0.25)


def test_source_search_is_limited_to_one_beam():
    image = sources(np.zeros((512, 512), np.float32), [200.0, 212.0], [300.0, 300.0], [0.1, 5.0])
    assert fit_source(image, 200, 300, BEAM, GRID).peak_jy == pytest.approx(0.1, rel=0.5)
    for x, y in ((2, 300), (300, 510), (-40, -40), (math.nan, 3)):
        assert math.isnan(fit_source(image, x, y, BEAM, GRID).peak_jy)
    assert math.isnan(fit_source(-np.ones_like(image), 200, 300, BEAM, GRID).peak_jy)


def test_metrics_of_a_known_image(noise):
    # Three that count, at 0.9 of their flux and (+1, -2) arcsec off; then one too faint, a resolved one, a
    # close pair of equals and one outside: none of these may count, whatever its ratio.
    x = np.array([100.2, 200.7, 300.4, 400.0, 100.0, 300.0, 306.0, 700.0])
    y = np.array([150.6, 250.1, 350.8, 100.0, 400.0, 60.0, 60.0, 100.0])
    flux = np.array([0.5, 0.3, 0.2, 0.008, 1.0, 0.4, 0.4, 5.0])
    is_point = np.array([True, True, True, True, False, True, True, True])
    ra, dec = GRID.pixel_to_sky(x, y)
    scale = np.where(np.arange(8) < 3, 0.9, 0.3)
    place = np.arange(8) < 3
    image = sources(noise, x - place * 1 / 3, y - place * 2 / 3, flux * scale)
    image[480, 480] = -0.05
    region = off_source_region(GRID, *GRID.sky_to_lm(ra, dec), None, BEAM)
    got = measure_image(
        image,
        GRID,
        BEAM,
        region,
        thermal_rms_jy=8e-4,
        ra_rad=ra,
        dec_rad=dec,
        flux_jy=flux,
        is_point=is_point,
    )
    assert got.rms_jy == pytest.approx(RMS, rel=0.01)
    assert got.peak_jy == image.max()
    assert got.snr == pytest.approx(got.peak_jy / got.rms_jy)
    assert got.dynamic_range == pytest.approx(got.peak_jy / 0.05, rel=1e-4)
    assert got.min_jy == pytest.approx(-0.05)
    assert got.thermal_ratio == pytest.approx(got.rms_jy / 8e-4)
    assert got.flux_ratio_n == 3
    assert got.flux_ratio == pytest.approx(0.9, rel=0.01)
    assert got.offset_arcsec == pytest.approx((1, -2), abs=0.1)
    peak_x, peak_y = GRID.sky_to_pixel(*got.peak_position)
    assert image[round(float(peak_y)), round(float(peak_x))] == image.max()


def test_without_sources_there_is_no_ratio(noise):
    got = measure_image(noise, GRID, BEAM, np.ones((512, 512), bool), thermal_rms_jy=RMS)
    assert (got.flux_ratio, got.flux_ratio_n, got.offset_arcsec) == (None, 0, None)


def test_broken_images_are_refused(noise):
    with pytest.raises(ImagingError, match="finite"):
        measure_image(noise * np.nan, GRID, BEAM, np.ones((512, 512), bool), thermal_rms_jy=RMS)
    with pytest.raises(ImagingError, match="empty"):
        measure_image(noise, GRID, BEAM, np.zeros((512, 512), bool), thermal_rms_jy=RMS)
