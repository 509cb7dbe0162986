import math

import numpy as np
import pytest

from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging import ImageGrid, Imager, RestoringBeam, add_gaussians, fit_beam, restore

GRID = ImageGrid(256, 3 / 206265, 1.0, 0.5)


def draw(beam, x0, y0, peak=1.0):
    """Gaussian written down from its axes: the major one at pa from north (up) through east (left)."""
    y, x = np.mgrid[:256, :256]
    east, north = -(x - x0) * GRID.cell_rad, (y - y0) * GRID.cell_rad
    along = east * math.sin(beam.pa_rad) + north * math.cos(beam.pa_rad)
    across = east * math.cos(beam.pa_rad) - north * math.sin(beam.pa_rad)
    return peak * np.exp(-4 * math.log(2) * ((along / beam.major_rad) ** 2 + (across / beam.minor_rad) ** 2))


@pytest.mark.parametrize(
    ("major", "minor", "pa"), [(4.5, 3.2, 25), (4.5, 3.2, -60), (20, 12, 80), (3.0, 2.9, 5), (40, 30, -10)]
)
def test_gaussian_beam_is_found(major, minor, pa):
    beam = RestoringBeam(major * GRID.cell_rad, minor * GRID.cell_rad, math.radians(pa))
    fit = fit_beam(draw(beam, 128, 128).astype(np.float32), GRID)
    assert fit.major_rad == pytest.approx(beam.major_rad, rel=0.01)
    assert fit.minor_rad == pytest.approx(beam.minor_rad, rel=0.01)
    if major - minor > 1:
        assert fit.pa_rad == pytest.approx(beam.pa_rad, abs=math.radians(1.5))


def test_beam_of_an_array_is_the_fit_to_the_exact_lobe(observation):
    chunk = observation.chunk(np.zeros(observation.shape))
    imager = Imager([chunk], observation.grid)
    beam = fit_beam(imager.psf(), observation.grid)
    # Half-power width of the exact beam along the fitted axes.
    for width, angle in ((beam.major_rad, beam.pa_rad), (beam.minor_rad, beam.pa_rad + math.pi / 2)):
        step = width / 2 / observation.grid.cell_rad
        x, y = 128 - step * math.sin(angle), 128 + step * math.cos(angle)
        half = observation.beam_at(np.ones(observation.shape), imager._weights[0].astype(float), x, y)
        assert half == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("psf", [np.ones((256, 256)), np.zeros((256, 256)), np.eye(256)])
def test_what_is_not_a_beam_is_refused(psf):
    with pytest.raises(ImagingError, match="point spread function"):
        fit_beam(psf.astype(np.float32), GRID)


BEAM = RestoringBeam(14 / 206265, 10 / 206265, math.radians(30))


def test_restoring_is_exact_up_to_the_edge():
    model = np.zeros((256, 256), np.float32)
    model[100, 60], model[3, 250] = 2.0, -1.0
    residual = np.full((256, 256), 0.25, np.float32)
    expected = 0.25 + draw(BEAM, 60, 100, 2.0) + draw(BEAM, 250, 3, -1.0)
    np.testing.assert_allclose(restore(model, BEAM, GRID, residual), expected, atol=2e-6)
    np.testing.assert_array_equal(restore(0 * model, BEAM, GRID, residual), residual)


def test_trap_4_sources_are_drawn_at_their_exact_place():
    x, y, flux = np.array([60.37, 250.9, -2.0]), np.array([99.21, 3.3, 100.6]), np.array([2.0, -1.0, 0.7])
    image = np.full((256, 256), 0.25, np.float32)
    drawn = add_gaussians(image, GRID, *GRID.pixel_to_lm(x, y), flux, BEAM)
    expected = 0.25 + sum(draw(BEAM, *place) for place in zip(x, y, flux, strict=True))
    np.testing.assert_allclose(drawn, expected, atol=1e-6)
    assert (image == 0.25).all()


def test_resolved_source_keeps_its_flux():
    l, m = GRID.pixel_to_lm(120.3, 133.8)  # noqa: E741
    image = np.zeros((256, 256), np.float32)
    drawn = add_gaussians(image, GRID, l, m, 3.0, BEAM, 25 / 206265, 8 / 206265, math.radians(-40))
    assert drawn.sum() * GRID.cell_rad**2 / BEAM.solid_angle_sr == pytest.approx(3.0, rel=1e-4)
    # Same axes: the widths add in quadrature.
    aligned = add_gaussians(image, GRID, l, m, 1.0, BEAM, BEAM.major_rad, BEAM.minor_rad, BEAM.pa_rad)
    wide = RestoringBeam(BEAM.major_rad * math.sqrt(2), BEAM.minor_rad * math.sqrt(2), BEAM.pa_rad)
    np.testing.assert_allclose(aligned, draw(wide, 120.3, 133.8, 0.5), atol=1e-6)


def test_nothing_is_drawn_for_nothing():
    image = np.zeros((256, 256), np.float32)
    assert not add_gaussians(image, GRID, [], [], [], BEAM).any()
    assert not add_gaussians(image, GRID, [np.nan, 0.9], [0.0, 0.0], [1.0, 1.0], BEAM).any()
