"""Direction cosines and separations against vectors on the sphere."""

import numpy as np
import pytest

from dsa110_contimg.sky import angular_separation, lmn_from_radec, radec_from_lm


def unit(ra, dec):
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


@pytest.fixture(scope="module")
def sphere():
    rng = np.random.default_rng(3)
    return rng.uniform(0, 2 * np.pi, 500), np.arcsin(rng.uniform(-1, 1, 500))


@pytest.mark.parametrize("centre", [(0.0, 0.0), (2.6, 0.95), (6.28, -1.2), (1.0, np.pi / 2)])
def test_direction_cosines_are_projections_on_east_north_and_centre(sphere, centre):
    ra, dec = sphere
    a, d = centre
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    north = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    expected = np.stack([unit(ra, dec) @ east, unit(ra, dec) @ north, unit(ra, dec) @ unit(a, d) - 1], axis=1)
    np.testing.assert_allclose(lmn_from_radec(ra, dec, a, d), expected, atol=1e-14)


def test_a_source_to_the_east_has_positive_l_and_one_to_the_north_positive_m():
    east = lmn_from_radec(1.01, 0.5, 1.0, 0.5)[0]
    north = lmn_from_radec(1.0, 0.51, 1.0, 0.5)[0]
    assert east[0] > 0
    assert north[1] > 0
    assert north[0] == 0


def test_n_minus_one_keeps_its_digits_close_to_the_centre():
    theta = 1e-7
    assert lmn_from_radec(0.0, theta, 0.0, 0.0)[0, 2] == pytest.approx(-(theta**2) / 2, rel=1e-9)


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.001, 0.95), (3.0, -1.5)])
def test_direction_cosines_there_and_back(centre):
    rng = np.random.default_rng(4)
    r, phi = 0.9 * np.sqrt(rng.uniform(size=300)), rng.uniform(0, 2 * np.pi, 300)
    ra, dec = radec_from_lm(r * np.cos(phi), r * np.sin(phi), *centre)
    lmn = lmn_from_radec(ra, dec, *centre)
    np.testing.assert_allclose(lmn[:, 0], r * np.cos(phi), atol=1e-13)
    np.testing.assert_allclose(lmn[:, 1], r * np.sin(phi), atol=1e-13)
    assert ra.min() >= 0
    assert ra.max() < 2 * np.pi


def test_separation_is_the_angle_between_the_vectors(sphere):
    ra, dec = sphere
    dot = unit(ra, dec) @ unit(1.0, 0.3)
    cross = np.linalg.norm(np.cross(unit(ra, dec), unit(1.0, 0.3)), axis=1)
    np.testing.assert_allclose(angular_separation(ra, dec, 1.0, 0.3), np.arctan2(cross, dot), atol=1e-13)


def test_separation_of_the_smallest_the_largest_and_across_0h():
    assert angular_separation(0.0, 1e-9, 0.0, 0.0) == pytest.approx(1e-9, rel=1e-6)
    assert angular_separation(0.0, 0.0, np.pi, 0.0) == pytest.approx(np.pi)
    assert angular_separation(2 * np.pi - 0.01, 0.0, 0.01, 0.0) == pytest.approx(0.02)
