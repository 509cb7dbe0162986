"""Source counts of the drawn sky, and the errors of its catalogue."""

import numpy as np
import pytest

from dsa110_contimg.catalogs import query_cone
from dsa110_contimg.catalogs.build import build_strips
from dsa110_contimg.simulate.population import draw_sky, with_catalog_errors, write_catalog
from dsa110_contimg.sky import SkyModel, angular_separation

RADIUS = np.radians(10.0)
SQUARE_DEGREES = 2 * np.pi * (1 - np.cos(RADIUS)) * np.degrees(1) ** 2


def drawn(min_mjy=2.5, brightest_jy=0.0, seed=1, ra=1.0, dec=0.9):
    return draw_sky(np.random.default_rng(seed), ra, dec, RADIUS, min_mjy, brightest_jy)


def test_as_many_sources_as_nvss_has():
    sky = drawn()
    assert len(sky) / SQUARE_DEGREES == pytest.approx(50, rel=0.05)
    flux = np.sort(1e3 * sky.flux_jy)[::-1]
    for mjy, slope in ((5, 0.9), (10, 0.9), (40, 0.9), (300, 0.9)):
        expected = 50 * SQUARE_DEGREES * (mjy / 2.5) ** -slope
        assert np.count_nonzero(flux > mjy) == pytest.approx(expected, abs=4 * np.sqrt(expected))


@pytest.mark.parametrize("min_mjy", [1.0, 2.5, 50.0, 299.0, 301.0, 1000.0])
def test_no_source_is_fainter_than_the_faintest(min_mjy):
    sky = drawn(min_mjy)
    assert min_mjy <= 1e3 * sky.flux_jy.min() < 1.5 * min_mjy
    deep = 1e3 * drawn(2.5).flux_jy
    n = np.count_nonzero(deep > max(min_mjy, 2.5))
    assert np.count_nonzero(1e3 * sky.flux_jy > 2.5) == pytest.approx(n, abs=5 * np.sqrt(2 * n) + 1)


def test_sources_fill_the_disc_evenly():
    sky = drawn(dec=1.5)  # the pole is inside
    distance = angular_separation(sky.ra_rad, sky.dec_rad, 1.0, 1.5)
    assert distance.max() < RADIUS
    within_half = np.count_nonzero(distance < RADIUS / 2) / len(sky)
    assert within_half == pytest.approx((1 - np.cos(RADIUS / 2)) / (1 - np.cos(RADIUS)), abs=0.01)
    assert (sky.spectral_index == -0.75).all()


def test_one_bright_source_a_third_of_a_degree_from_the_centre():
    plain, more = drawn(), drawn(brightest_jy=7.0)
    assert len(more) == len(plain) + 1
    assert more.flux_jy[-1] == 7.0
    distance = angular_separation(more.ra_rad[-1], more.dec_rad[-1], 1.0, 0.9)
    assert np.degrees(distance) == pytest.approx(0.33)


@pytest.mark.parametrize("dec", [0.9, 1.55, -0.3])
def test_catalogue_errors_are_as_large_as_asked(dec):
    sky = drawn(dec=dec)
    listed = with_catalog_errors(np.random.default_rng(2), sky, 0.05, 0.5)
    away = 3600 * np.degrees(angular_separation(listed.ra_rad, listed.dec_rad, sky.ra_rad, sky.dec_rad))
    assert np.std(listed.flux_jy / sky.flux_jy - 1) == pytest.approx(0.05, rel=0.05)
    assert np.sqrt(np.mean(away**2) / 2) == pytest.approx(0.5, rel=0.05)
    assert listed.ra_rad.min() >= 0
    assert listed.ra_rad.max() < 2 * np.pi
    np.testing.assert_array_equal(listed.spectral_index, sky.spectral_index)


def test_a_perfect_catalogue_is_the_sky():
    sky = drawn()
    listed = with_catalog_errors(np.random.default_rng(2), sky, 0.0, 0.0)
    np.testing.assert_array_equal(listed.flux_jy, sky.flux_jy)
    np.testing.assert_allclose(listed.ra_rad, sky.ra_rad, atol=1e-15)


def test_a_written_catalogue_can_be_built_and_asked(tmp_path):
    sky = SkyModel.points(np.radians([359.999, 0.001]), np.radians([30.0, 30.0]), np.array([0.1, 0.2]))
    write_catalog(tmp_path / "sky.ecsv", sky, 25.0, 35.0)
    assert [p.name for p in tmp_path.iterdir()] == ["sky.ecsv"]
    build_strips("nvss", tmp_path / "sky.ecsv", tmp_path)
    rows = query_cone("nvss", 0.0, 30.0, 1.0, catalog_dir=tmp_path)
    assert sorted(rows["flux_mjy"]) == pytest.approx([100.0, 200.0])
    assert len(query_cone("nvss", 180.0, 30.0, 1.0, catalog_dir=tmp_path)) == 0
