"""The primary beam against the Fourier integral over its aperture, and the widths of facts/dsa110.md."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import j0

from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.sky import (
    AiryBeam,
    AntennaBeams,
    CosineBeam,
    GaussianBeam,
    PrimaryBeam,
    beam_for_antenna,
    choose_beam,
    lmn_from_radec,
    radec_from_lm,
)
from dsa110_contimg.sky.beam import FORMS
from dsa110_contimg.sky.directions import angular_separation
from dsa110_contimg.sky.telescopes import TELESCOPES, contradiction, mixed_dishes

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
        ("uGMRT", 45.0, 31.3, 0.0),
        ("XYZ", 7.0, 7.0, 0.0),
    ],
)
def test_beam_by_name_and_diameter(telescope, dish, diameter, blockage):
    assert beam_for_antenna(telescope, dish) == AiryBeam(diameter, blockage)


@pytest.mark.parametrize("dish", [0.0, -1.0, np.nan, np.inf])
def test_unknown_telescope_without_a_diameter_is_refused(dish):
    with pytest.raises(MeasurementSetError, match=r"(?s)^ANTENNA: no primary beam.*'XYZ'.*dish_diameter_m$"):
        beam_for_antenna("XYZ", dish)


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_as_wide_as_the_same_aperture(form):
    beam = FORMS[form](4.65)
    assert isinstance(beam, PrimaryBeam)
    half = brentq(lambda t: beam.power(t, 1.4e9)[0, 0] - 0.5, 1e-3, 0.04)
    assert 2 * half == pytest.approx(beam.fwhm_rad(1.4e9), rel=1e-3)
    assert beam.power(0.0, 1.4e9)[0, 0] == 1
    assert beam.power(beam.null_rad(1.4e9, 2), 1.4e9)[0, 0] < 1e-5
    np.testing.assert_allclose(beam.power([np.pi / 2, 2.0], 1.4e9), 0)
    wide = beam.widened(1.3)
    np.testing.assert_allclose(np.sin(wide.fwhm_rad(1.4e9)), 1.3 * beam.fwhm_rad(1.4e9), rtol=1e-3)
    theta = np.linspace(0, 0.1, 50)
    np.testing.assert_allclose(wide.power(np.arcsin(1.3 * np.sin(theta)), 1.4e9), beam.power(theta, 1.4e9))


def test_the_cosine_beam_is_the_transform_of_a_cosine_taper():
    beam, wavelength = CosineBeam(12.3), C / 1.5e9
    # An aperture on which the field is cos(pi x / w) has this width at half power: w in wavelengths.
    size = 1.189 / beam.fwhm_rad(1.5e9)
    x = np.linspace(-0.5, 0.5, 20001) * size
    for theta in np.linspace(0, 0.05, 40):
        field = np.trapezoid(np.cos(np.pi * x / size) * np.cos(2 * np.pi * x * np.sin(theta)), x)
        assert beam.voltage(theta, 1.5e9)[0, 0] == pytest.approx(field * np.pi / 2 / size, abs=1e-7)
    assert beam.voltage(np.arcsin(0.5 / size), 1.5e9)[0, 0] == pytest.approx(np.pi / 4)
    assert np.degrees(beam.fwhm_rad(1.5e9)) * 60 == pytest.approx(57.5, abs=0.05)
    assert wavelength / 12.3 < beam.fwhm_rad(1.5e9)


@pytest.mark.parametrize("beam", [AiryBeam(4.65, 0.4), GaussianBeam(4.65), CosineBeam(4.65)])
def test_beams_of_antennas_are_looked_up_as_the_formula_has_them(beam):
    rng = np.random.default_rng(3)
    ra, dec = radec_from_lm(*rng.uniform(-0.08, 0.08, (2, 200)), 2.0, 0.95)
    offsets, freq = np.radians(rng.normal(0, 0.3, (5, 2))), np.array([1.31e9, 1.5e9])
    lmn = lmn_from_radec(ra, dec, 2.0, 0.95)
    got = AntennaBeams(offset_rad=offsets).voltages(beam, lmn, freq)
    for k, (east, north) in enumerate(offsets):
        at = radec_from_lm(east, north, 2.0, 0.95)
        np.testing.assert_allclose(
            got[:, :, k], beam.voltage(angular_separation(ra, dec, *at), freq), atol=1e-6
        )
    np.testing.assert_allclose(
        beam.voltage_towards(lmn, freq), beam.voltage(angular_separation(ra, dec, 2.0, 0.95), freq), atol=1e-9
    )


def test_every_known_telescope_says_where_its_numbers_are_from():
    names = [n.upper() for dish in TELESCOPES for n in (dish.name, *dish.aliases)]
    assert len(set(names)) == len(names)
    for dish in TELESCOPES:
        assert len(dish.source) > 10
        assert dish.beam.form == dish.form
        # An illumination that falls to the edge makes a beam that is wider, by less than a fifth. The GMRT's
        # feed at 1.4 GHz lights up the inner two thirds: its width is published.
        assert dish.name == "GMRT" or 0.8 < dish.effective_m / dish.dish_m < 1.02
        assert beam_for_antenna(dish.name.lower(), dish.dish_m) == dish.beam


@pytest.mark.parametrize(
    ("telescope", "arcmin", "mhz"),
    [
        ("MeerKAT", 57.5, 1500),
        ("ATCA", 47.9, 1000),
        ("WSRT", 34.0, 1400),
        ("GMRT", 24.2, 1400),
        ("ATA", 210, 1000),
    ],
)
def test_published_widths(telescope, arcmin, mhz):
    beam = choose_beam(telescope, np.zeros(3))
    half = brentq(lambda t: beam.power(t, mhz * 1e6)[0, 0] - 0.5, 1e-4, 0.05)
    assert np.degrees(2 * half) * 60 == pytest.approx(arcmin, rel=3e-3)


def test_a_form_and_a_diameter_that_are_asked_for_are_taken():
    dishes = np.full(3, 25.0)
    assert choose_beam("VLA", dishes, form="gaussian") == GaussianBeam(24.5)
    assert choose_beam("XYZ", dishes, form="cosine") == CosineBeam(25.0)
    assert choose_beam("XYZ", dishes, 20.0) == AiryBeam(20.0)
    narrow = choose_beam("VLA", dishes, 49.0)
    assert (narrow.diameter_m, narrow.blockage_m) == pytest.approx((49.0, 4.72))
    assert choose_beam("MeerKAT", np.full(3, 13.5), 11.0) == CosineBeam(pytest.approx(11.0))
    assert choose_beam("MeerKAT", np.full(3, 25.0)).form == "cosine"
    assert contradiction("MeerKAT", np.full(3, 25.0))
    assert not contradiction("MeerKAT", np.full(3, 13.5))


def test_dishes_that_differ_are_told():
    assert mixed_dishes(np.array([12.0, 12.0, 25.0])) == (
        "the dishes differ (2 of 12 m, 1 of 25 m): the beam of all is taken as that of their median, 12 m"
    )
    assert not mixed_dishes(np.array([12.0, 12.01, np.nan]))
    assert not mixed_dishes(np.array([12.0, 25.0]), 13.0)
