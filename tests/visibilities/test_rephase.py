import numpy as np
import pytest

from dsa110_contimg.predict import predict_reference
from dsa110_contimg.sky import lmn_from_radec
from dsa110_contimg.visibilities.pointing import celestial_to_terrestrial, meridian_direction
from dsa110_contimg.visibilities.rephase import move_uvw, turn_phases

MJD = 60968.6
OLD = (np.radians(150.0), np.radians(54.57))
NEW = (np.radians(151.1), np.radians(54.2))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_there_and_back(rng):
    uvw = rng.normal(size=(50, 3)) * 1000
    moved = move_uvw(uvw, OLD, NEW)
    assert np.abs(moved - uvw).max() > 1
    np.testing.assert_allclose(move_uvw(moved, NEW, OLD), uvw, atol=1e-9)


def test_lengths_are_kept(rng):
    uvw = rng.normal(size=(50, 3)) * 1000
    moved = move_uvw(uvw, OLD, NEW)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(uvw, axis=1))


def test_a_source_at_the_new_centre_is_real_and_positive_there(rng):
    uvw = rng.normal(size=(40, 3)) * 800
    freq = np.array([1.31e9, 1.45e9])
    lmn = lmn_from_radec(*NEW, *OLD)
    vis = predict_reference(uvw, freq, lmn, np.ones((1, 2)))[:, :, None].repeat(2, axis=2)
    moved = move_uvw(uvw, OLD, NEW)
    turned = turn_phases(vis.astype(np.complex64), uvw[:, 2] - moved[:, 2], freq)
    np.testing.assert_allclose(turned, 1.0, atol=2e-4)
    back = turn_phases(turned, moved[:, 2] - uvw[:, 2], freq)
    np.testing.assert_allclose(back, vis, atol=2e-4)


def test_phases_in_two_and_three_dimensions_alike(rng):
    vis = (rng.standard_normal((5, 4)) + 1j * rng.standard_normal((5, 4))).astype(np.complex64)
    path, freq = rng.normal(size=5), np.linspace(1.3e9, 1.5e9, 4)
    np.testing.assert_array_equal(
        turn_phases(vis, path, freq), turn_phases(vis[:, :, None], path, freq)[:, :, 0]
    )
    expected = vis * np.exp(2j * np.pi * path[:, None] * freq / 299_792_458.0)
    np.testing.assert_allclose(turn_phases(vis, path, freq), expected, atol=1e-5)


def test_the_meridian_advances_with_the_stars():
    """15.04 arcsec of right ascension of date a second, a little more in ICRS; the declination stays."""
    longitude = np.radians(-118.28341)
    minutes = 5
    first = meridian_direction(MJD, longitude, OLD, MJD)
    later = meridian_direction(MJD + minutes / 1440, longitude, OLD, MJD)
    assert np.degrees(later[0] - first[0]) * 3600 == pytest.approx(15.041 * 60 * minutes, rel=5e-3)
    assert first[1] == pytest.approx(OLD[1], abs=2e-3)
    for mjd, (ra, dec) in ((MJD, first), (MJD + minutes / 1440, later)):
        x, y, _ = celestial_to_terrestrial(mjd) @ [
            np.cos(dec) * np.cos(ra),
            np.cos(dec) * np.sin(ra),
            np.sin(dec),
        ]
        assert np.arctan2(y, x) == pytest.approx(longitude, abs=1e-9)
