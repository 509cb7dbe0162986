import numpy as np
import pytest
import scipy.ndimage

from dsa110_contimg.imaging import ImageGrid, RestoringBeam, add_gaussians
from dsa110_contimg.imaging.detection import find_sources, forced_peaks, local_noise
from dsa110_contimg.selfcal.source_fluxes import ERROR_SQUARE_BEAMS

ARCSEC = np.pi / 180 / 3600
BEAM = RestoringBeam(20 * ARCSEC, 20 * ARCSEC, 0.0)
GRID = ImageGrid(600, 5 * ARCSEC, 2.0, 0.9)
EVERYWHERE = np.ones((600, 600), dtype=bool)


def noise_image(seed, sigma=1e-3):
    """Noise as smooth as the beam."""
    width = 20 / 5 / 2.3548
    # A smooth field's autocorrelation is sqrt(2) wider than the kernel.
    field = scipy.ndimage.gaussian_filter(
        np.random.default_rng(seed).standard_normal((600, 600)), width / 2**0.5
    )
    return (sigma * field / field.std()).astype(np.float32)


def with_sources(image, x, y, flux):
    l, m = GRID.pixel_to_lm(np.array(x), np.array(y))  # noqa: E741
    zero = np.zeros(len(x))
    return add_gaussians(image, GRID, l, m, np.array(flux), BEAM, zero, zero, zero)


def test_noise_that_differs_over_the_image_is_followed():
    image = noise_image(1) * np.linspace(1, 3, 600, dtype=np.float32)
    found = local_noise(image, GRID, BEAM)
    assert found[300, 100] == pytest.approx(1e-3 * (1 + 2 * 100 / 600), rel=0.15)
    assert found[300, 500] == pytest.approx(1e-3 * (1 + 2 * 500 / 600), rel=0.15)


def test_errors_follow_noise_that_is_larger_beside_a_bright_source():
    """As what calibration leaves of it: by half within eight beams, and no more outside."""
    away = np.hypot(*(np.mgrid[:600, :600] - np.array([230, 330])[:, None, None])) * 5 / 20
    shape = (1 + 0.5 * np.exp(-0.5 * (away / 5) ** 2)).astype(np.float32)
    maps = {
        beams: np.mean([local_noise(noise_image(k) * shape, GRID, BEAM, beams) for k in range(12)], axis=0)
        for beams in (15.0, ERROR_SQUARE_BEAMS)
    }
    off = {beams: np.abs(found / (1e-3 * shape) - 1)[away < 8].mean() for beams, found in maps.items()}
    assert off[ERROR_SQUARE_BEAMS] < 0.09 < 0.11 < off[15.0]


def test_flux_at_a_known_place_between_pixels():
    image = with_sources(
        np.zeros((600, 600), dtype=np.float32), [200.37, 411.5], [301.81, 100.49], [0.02, 0.5]
    )
    places = GRID.pixel_to_sky(np.array([200.37, 411.5, -50.0]), np.array([301.81, 100.49, 10.0]))
    found = forced_peaks(image, GRID, *places)
    np.testing.assert_allclose(found[:2], [0.02, 0.5], rtol=0.005)
    assert np.isnan(found[2])


def test_its_error_is_that_of_the_noise():
    draws = []
    ra, dec = GRID.pixel_to_sky(*np.random.default_rng(5).uniform(50, 550, (2, 400)))
    for seed in (1, 2, 3):
        image = noise_image(seed)
        draws.append(
            forced_peaks(image, GRID, ra, dec) / forced_peaks(local_noise(image, GRID, BEAM), GRID, ra, dec)
        )
    assert np.std(draws) == pytest.approx(1, abs=0.06)


def test_new_sources_are_found_and_noise_is_not():
    places = np.array([[100.2, 200.7, 300.1], [400.4, 320.2, 80.8]])
    image = with_sources(noise_image(6), *places, [8e-3, 12e-3, 50e-3])
    noise = local_noise(image, GRID, BEAM)
    found = find_sources(image, noise, GRID, BEAM, EVERYWHERE, 5.0)
    assert found.ra_rad.size == 3
    order = np.argsort(found.peak_jy)
    np.testing.assert_allclose(found.peak_jy[order], [8e-3, 12e-3, 50e-3], atol=3e-3)
    x, y = GRID.sky_to_pixel(found.ra_rad[order], found.dec_rad[order])
    sigma = found.position_error_rad[order] / GRID.cell_rad
    assert (np.hypot(x - places[0], y - places[1]) < 4 * sigma).all()
    shut = EVERYWHERE.copy()
    shut[:, :150] = False
    assert find_sources(image, noise, GRID, BEAM, shut, 5.0).ra_rad.size == 2


def test_false_sources_are_as_many_as_the_negative_side_foretells():
    """At a threshold low enough to count them."""
    found = [
        find_sources(image, np.full((600, 600), 1e-3, np.float32), GRID, BEAM, EVERYWHERE, sigma)
        for image in map(noise_image, range(12))
        for sigma in (4.2,)
    ]
    expected, there = sum(f.false_expected for f in found), sum(f.ra_rad.size for f in found)
    assert 5 < there < 40
    assert expected == pytest.approx(there, abs=3 * there**0.5 + 0.2 * there)


def test_sidelobes_on_both_sides_raise_what_is_expected():
    image = noise_image(9)
    stripes = 8e-3 * np.sin(np.arange(600) / 7.0)[:, None] * (np.abs(np.arange(600) - 300) < 40)
    found = find_sources(
        (image + stripes).astype(np.float32),
        np.full((600, 600), 1e-3, np.float32),
        GRID,
        BEAM,
        EVERYWHERE,
        5.0,
    )
    assert found.n_negative > 20
    assert found.false_expected == found.n_negative


@pytest.mark.parametrize("seed", range(4))
def test_something_extended_is_not_listed_twice_at_one_place(seed):
    """Peaks of noise on a wide source are fitted by one beam each, and fits may come to the same place."""
    y, x = np.mgrid[:600, :600]
    wide = 0.02 * np.exp(-((x - 300) ** 2 + (y - 300) ** 2) / (2 * 12.0**2))
    image = (noise_image(seed) + wide).astype(np.float32)
    found = find_sources(image, np.full_like(image, 1e-3), GRID, BEAM, EVERYWHERE, 5.0)
    x, y = GRID.sky_to_pixel(found.ra_rad, found.dec_rad)
    apart = np.hypot(x[:, None] - x, y[:, None] - y)[~np.eye(len(x), dtype=bool)]
    assert len(x) > 1
    assert apart.min() >= 0.5 * BEAM.major_rad / GRID.cell_rad
