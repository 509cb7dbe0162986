"""The primary beam against the Fourier integral over its aperture, and the widths of facts/dsa110.md."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import j0

from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.sky import AiryBeam, beam_for_antenna

C = 299_792_458.0
DSA = AiryBeam(4.65)


def aperture_integral(beam, theta, freq):
    """Power of the Hankel transform of the illuminated ring, normalised to its area."""
    k = 2 * np.pi * freq / C * np.sin(theta)
    inner, outer = beam.blockage_m / 2, beam.diameter_m / 2
    field = quad(lambda r: j0(k * r) * r, inner, outer, epsabs=1e-12)[0]
    return (field / ((outer**2 - inner**2) / 2)) ** 2


@pytest.mark.parametrize(("diameter", "blockage"), [(4.65, 0.0), (24.5, 2.36), (24.5, 12.0)])
def test_power_is_the_transform_of_the_aperture(diameter, blockage):
    beam, freq = AiryBeam(diameter, blockage), 1.4e9
    theta = np.linspace(0, 4 * C / freq / diameter, 60)
    expected = [aperture_integral(beam, t, freq) for t in theta]
    np.testing.assert_allclose(beam.power(theta, freq)[:, 0], expected, atol=1e-9)


@pytest.mark.parametrize(("mhz", "degrees"), [(1310, 2.90), (1405, 2.71), (1500, 2.53)])
def test_width_at_half_power_of_the_dsa110(mhz, degrees):
    half = brentq(lambda t: DSA.power(t, mhz * 1e6)[0, 0] - 0.5, 1e-3, 0.04)
    assert 2 * np.degrees(half) == pytest.approx(degrees, abs=0.006)
    assert DSA.fwhm_rad(mhz * 1e6) == pytest.approx(2 * half, rel=1e-3)


@pytest.mark.parametrize("order", [1, 2])
def test_nulls_are_dark_and_in_order(order):
    null = DSA.null_rad(1.4e9, order)
    assert np.sin(null) == pytest.approx({1: 1.220, 2: 2.233}[order] * C / 1.4e9 / 4.65)
    assert DSA.power(null, 1.4e9)[0, 0] < 1e-6
    lobe = DSA.power(np.linspace(0, null, 200)[1:-1], 1.4e9)
    assert np.count_nonzero((lobe[1:-1] < lobe[:-2]) & (lobe[1:-1] < lobe[2:])) == order - 1


def test_the_null_of_a_tiny_dish_stays_on_the_sky():
    assert AiryBeam(0.2).null_rad(1.4e9, 2) == pytest.approx(np.pi / 2)


def test_beam_per_channel():
    theta, freq = np.radians([0.3, 1.0, 2.0]), np.array([1.31e9, 1.4e9, 1.5e9])
    together = DSA.power(theta, freq)
    assert together.shape == (3, 3)
    for k, f in enumerate(freq):
        np.testing.assert_array_equal(together[:, k], DSA.power(theta, f)[:, 0])
    assert (np.diff(together[:2], axis=1) < 0).all()


def test_trap_3_the_aperture_argument_counts():
    assert beam_for_antenna("unknown", 4.0).power(0.02, 1.4e9) > beam_for_antenna("unknown", 6.0).power(
        0.02, 1.4e9
    )


def test_one_on_axis_and_dark_behind():
    np.testing.assert_allclose(
        AiryBeam(24.5, 2.36).power([0.0, np.pi / 2, 2.0, np.pi], 1.4e9)[:, 0], [1, 0, 0, 0]
    )


@pytest.mark.parametrize(
    ("telescope", "dish", "diameter", "blockage"),
    [
        ("VLA", 25.0, 24.5, 2.36),
        ("evla", 25.0, 24.5, 2.36),
        ("DSA_110", 4.65, 4.65, 0.0),
        ("DSA_110", 0.0, 4.65, 0.0),
        ("DSA_110", np.nan, 4.65, 0.0),
        ("DSA_110", 12.0, 12.0, 0.0),  # the name stands for another array
        ("uGMRT", 45.0, 45.0, 0.0),
    ],
)
def test_beam_by_name_and_diameter(telescope, dish, diameter, blockage):
    assert beam_for_antenna(telescope, dish) == AiryBeam(diameter, blockage)


@pytest.mark.parametrize("dish", [0.0, -1.0, np.nan, np.inf])
def test_unknown_telescope_without_a_diameter_is_refused(dish):
    with pytest.raises(MeasurementSetError, match=r"(?s)^ANTENNA: no primary beam.*'XYZ'.*dish_diameter_m$"):
        beam_for_antenna("XYZ", dish)
