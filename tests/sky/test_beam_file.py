"""Beams from FITS cubes: against the beam that the cube was made of; and what is no such cube."""

import numpy as np
import pytest
from astropy.io import fits

from dsa110_contimg.errors import InputError
from dsa110_contimg.simulate.elliptical_beam import EllipticalBeam
from dsa110_contimg.sky import AiryBeam, PrimaryBeam, read_beam_file
from tests.beam_cubes import write_cube

AIRY, PLANES = AiryBeam(4.65), np.linspace(1.3e9, 1.5e9, 5)
#: Longer from east to west, so that a turn shows.
LONG = EllipticalBeam(AIRY, 1.3)


def drawn(n=300):
    l, m = np.random.default_rng(1).uniform(-0.05, 0.05, (2, n))  # noqa: E741
    return np.stack([l, m, np.sqrt(1 - l**2 - m**2) - 1], axis=1)


@pytest.mark.parametrize("kind", ["power", "voltage"])
@pytest.mark.parametrize("beam", [AIRY, LONG])
def test_it_is_the_beam_that_it_was_made_of(tmp_path, kind, beam):
    lmn, freq = drawn(), np.array([1.31e9, 1.333e9, 1.4e9, 1.4999e9])
    read = read_beam_file(write_cube(tmp_path / "b.fits", beam, PLANES, kind=kind), kind)
    assert isinstance(read, PrimaryBeam)
    np.testing.assert_allclose(read.power_towards(lmn, freq), beam.power_towards(lmn, freq), atol=2e-4)
    if kind == "voltage":
        np.testing.assert_allclose(
            read.voltage_towards(lmn, freq), beam.voltage_towards(lmn, freq), atol=2e-4
        )
    assert read.fwhm_rad(1.4e9) == pytest.approx(beam.fwhm_rad(1.4e9), rel=0.01)
    np.testing.assert_allclose(
        read.widened(1.1).power_towards(lmn, freq), beam.widened(1.1).power_towards(lmn, freq), atol=2e-3
    )
    offsets = np.radians([[0.0, 0.0], [0.3, -0.2]])
    got = read.voltages(lmn, offsets, freq)
    # The voltage of a power beam has no sign.
    expected = beam.voltages(lmn, offsets, freq)
    seen = np.abs(expected) > 0.1
    np.testing.assert_allclose(np.abs(got)[seen], np.abs(expected)[seen], atol=2e-3)
    assert got.dtype == np.float32


def test_between_planes_it_scales_with_frequency(tmp_path):
    """Two planes far apart: half way a mean of images alone would be far off."""
    read = read_beam_file(write_cube(tmp_path / "b.fits", AIRY, np.array([1.2e9, 1.6e9]), half_deg=7.0))
    lmn = drawn()
    np.testing.assert_allclose(read.power_towards(lmn, 1.4e9), AIRY.power_towards(lmn, 1.4e9), atol=1e-3)
    read.require(np.array([1.01e9, 1.79e9]))


@pytest.mark.parametrize("freq", [[1.2e9, 1.4e9], [1.4e9, 1.6e9]])
def test_beyond_its_planes_it_is_refused(tmp_path, freq):
    read = read_beam_file(write_cube(tmp_path / "b.fits", AIRY, PLANES))
    with pytest.raises(InputError, match=r"b.fits: its beams are for 1275.00 to 1525.00 MHz, the data"):
        read.require(np.array(freq))


def test_outside_the_image_and_behind_the_dish_nothing_is_seen(tmp_path):
    read = read_beam_file(write_cube(tmp_path / "b.fits", AIRY, PLANES))
    lmn = np.array([[0.2, 0.0, np.sqrt(0.96) - 1], [0.0, 0.01, -1.9]])
    assert not read.power_towards(lmn, PLANES).any()
    assert not read.voltages(lmn, np.zeros((2, 2)), PLANES).any()


def test_a_dish_turns_its_beam_with_it(tmp_path):
    read = read_beam_file(write_cube(tmp_path / "b.fits", LONG, PLANES))
    # Up is east: what was long from east to west is long from north to south.
    turned, along = read.turned(np.pi / 2), np.array([[0.0, 0.02, -0.0002], [0.02, 0.0, -0.0002]])
    np.testing.assert_allclose(
        turned.power_towards(along, 1.4e9), LONG.power_towards(along[::-1], 1.4e9), atol=1e-3
    )
    # A quarter of the way: a source at a position angle of 45 deg is up in the frame of the dish.
    half = read.turned(np.pi / 4).power_towards(np.array([[0.0141421, 0.0141421, -0.0002]]), 1.4e9)
    np.testing.assert_allclose(half, LONG.power_towards(along[:1], 1.4e9), atol=1e-3)
    mean = read.rounded().power_towards(along, 1.4e9)
    assert mean[0, 0] == pytest.approx(mean[1, 0], abs=1e-4)
    assert LONG.power_towards(along[:1], 1.4e9) < mean[0] < LONG.power_towards(along[1:], 1.4e9)


def test_axes_of_direction_cosines_and_other_units_are_read(tmp_path):
    header = {"CTYPE1": "L", "CTYPE2": "M", "CRVAL1": 0.0, "CRVAL2": 0.0, "CUNIT3": "MHz"}
    header |= {"CRVAL3": 1300.0, "CDELT3": 50.0}
    lmn = drawn()
    read = read_beam_file(write_cube(tmp_path / "b.fits", LONG, PLANES, **header))
    np.testing.assert_allclose(read.power_towards(lmn, PLANES), LONG.power_towards(lmn, PLANES), atol=2e-4)


def test_what_was_not_measured_is_dark(tmp_path):
    path = write_cube(tmp_path / "b.fits", AIRY, PLANES)
    with fits.open(path) as opened:
        cube = opened[0].data.copy()
        rows, columns = np.mgrid[:129, :129] - 64
        cube[:, np.hypot(rows, columns) > 60] = np.nan
        fits.PrimaryHDU(cube, opened[0].header).writeto(tmp_path / "n.fits")
    seen = read_beam_file(tmp_path / "n.fits").power_towards(drawn(), PLANES)
    assert np.isfinite(seen).all()
    np.testing.assert_allclose(seen, AIRY.power_towards(drawn(), PLANES), atol=1e-3)


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"CTYPE3": "STOKES"}, "it has no axis FREQ"),
        ({"CTYPE1": "FELO"}, "it has no axis RA or L"),
        ({"CDELT1": 0.0}, "its pixels have no size"),
        ({"CUNIT1": "Jy"}, "the unit of axis 1, Jy, is not one of rad"),
        ({"CRPIX1": 500.0}, "is not inside the image"),
        ({"CRPIX1": 100.0}, "is not the highest one"),
        ({"CDELT3": 0.0}, "frequencies are not positive and different"),
        ({"CRVAL3": "x"}, "CRVAL3 is not a number"),
    ],
)
def test_what_is_no_cube_of_a_beam_is_said_in_one_line(tmp_path, cards, said):
    path = write_cube(tmp_path / "b.fits", AIRY, PLANES, **cards)
    with pytest.raises(InputError, match=said) as raised:
        read_beam_file(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_what_is_no_fits_file_is_said_in_one_line(tmp_path):
    for name, content in (("missing", None), ("empty", b""), ("text", b"no beam at all\n" * 300)):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match="is not an image cube of a beam") as raised:
            read_beam_file(path)
        assert "\n" not in str(raised.value)
    fits.PrimaryHDU().writeto(tmp_path / "bare.fits")
    with pytest.raises(InputError, match="it has no image"):
        read_beam_file(tmp_path / "bare.fits")
    fits.PrimaryHDU(np.zeros((2, 5, 4, 4))).writeto(tmp_path / "bare.fits", overwrite=True)
    with pytest.raises(InputError, match="it has no axis"):
        read_beam_file(tmp_path / "bare.fits")
