"""Antennas with beams of their own: the list is read as it says, and what cannot be meant is refused."""

import numpy as np
import pytest

from dsa110_contimg.errors import InputError
from dsa110_contimg.sky import (
    AiryBeam,
    AntennaBeams,
    CosineBeam,
    FileBeam,
    MixedBeam,
    PrimaryBeam,
    mixed_beam,
    read_beam_list,
)
from tests.beam_cubes import write_cube

NAMES = ("m01", "m02", "s01", "s02", "x")
PLANES = np.linspace(1.3e9, 1.5e9, 3)


def drawn(n=200):
    l, m = np.random.default_rng(1).uniform(-0.05, 0.05, (2, n))  # noqa: E741
    return np.stack([l, m, np.sqrt(1 - l**2 - m**2) - 1], axis=1)


def listed(tmp_path, text):
    path = tmp_path / "beams.txt"
    path.write_text(text, encoding="utf-8")
    return read_beam_list(path, NAMES)


def test_names_patterns_files_and_forms_are_read(tmp_path):
    write_cube(tmp_path / "a dish.fits", AiryBeam(6.0), PLANES, kind="voltage")
    text = "# two kinds\nm0*  'a dish.fits'  voltage  # measured\ns01 cosine:12.3\nelsewhere airy:3\n"
    beams = listed(tmp_path, text)
    assert isinstance(beams[0], FileBeam)
    assert beams[0] is beams[1]
    assert beams[0].kind == "voltage"
    assert beams[2] == CosineBeam(12.3)
    assert beams[3:] == [None, None]
    assert read_beam_list(tmp_path / "beams.txt", ["s01"], "voltage") == [CosineBeam(12.3)]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("m01\n", "line 1 is not an antenna, its beam"),
        ("\nm01 a.fits phase\n", "line 2 is not an antenna"),
        ("m01 airy:x\n", "airy:x is not a form and a diameter"),
        ("m01 airy:-3\n", "airy:-3 is not a form and a diameter"),
        ("m01 airy:3 power\n", "airy:3 power is not a form and a diameter"),
        ("m01 airy:3\nm0* airy:4\n", "lines 1 and 2 both give a beam of m01"),
        ("y airy:3\n", "none of the antennas is in it"),
        ("m01 'a.fits\n", "line 1: No closing quotation"),
        ("m01 missing.fits\n", "missing.fits"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, text, wrong):
    with pytest.raises(InputError, match=wrong):
        listed(tmp_path, text)


def test_a_list_that_is_none_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("absent", "binary"):
        with pytest.raises(InputError, match="cannot be read as a list of beams"):
            read_beam_list(tmp_path / name, NAMES)


def test_mixed_beams_are_those_of_their_antennas_and_their_mean_together():
    small, large = AiryBeam(4.0), AiryBeam(5.0)
    beam = mixed_beam(large, [small, None, AiryBeam(4.0), None, None])
    assert isinstance(beam, MixedBeam)
    assert isinstance(beam, PrimaryBeam)
    assert beam.beams == (small, large)
    assert beam.of_antenna == (0, 1, 0, 1, 1)
    lmn, freq = drawn(), np.array([1.3e9, 1.5e9])
    offsets = np.radians(np.random.default_rng(2).normal(0, 0.2, (5, 2)))
    got = AntennaBeams(offset_rad=offsets).voltages(beam, lmn, freq)
    for k, which in enumerate(beam.of_antenna):
        alone = beam.beams[which].voltages(lmn, offsets[k : k + 1], freq)
        np.testing.assert_allclose(got[:, :, k : k + 1], alone, atol=1e-6)
    mean = 0.4 * small.voltage_towards(lmn, freq) + 0.6 * large.voltage_towards(lmn, freq)
    np.testing.assert_allclose(beam.voltage_towards(lmn, freq), mean, atol=1e-12)
    np.testing.assert_allclose(beam.power_towards(lmn, freq), mean**2, atol=1e-12)
    np.testing.assert_allclose(beam.voltages(lmn, np.zeros((1, 2)), freq)[:, :, 0], mean, atol=1e-6)
    assert beam.widened(1.2) == mixed_beam(large.widened(1.2), [small.widened(1.2), None] * 2 + [None])
    assert beam.null_rad(1.4e9) == small.null_rad(1.4e9)


def test_the_width_of_the_mean_is_where_it_falls_to_half():
    beam = mixed_beam(AiryBeam(5.0), [AiryBeam(4.0), None])
    half = beam.fwhm_rad(1.4e9) / 2
    at = np.array([[0.0, np.sin(half), np.cos(half) - 1]])
    assert beam.power_towards(at, 1.4e9)[0, 0] == pytest.approx(0.5, abs=1e-3)
    assert AiryBeam(5.0).fwhm_rad(1.4e9) < 2 * half < AiryBeam(4.0).fwhm_rad(1.4e9)


def test_where_all_are_alike_there_is_one_beam():
    common, other = AiryBeam(5.0), AiryBeam(4.0)
    assert mixed_beam(common, [None, None]) is common
    assert mixed_beam(common, [other, other]) is other
    assert mixed_beam(common, [AiryBeam(5.0), None]) == common
