"""The packaged array against the facts, array files, and baselines against casacore's measures."""

import re
import warnings

import erfa
import numpy as np
import pytest
from astropy.coordinates import GCRS, ITRS, EarthLocation, SkyCoord, UnitSphericalRepresentation
from astropy.time import Time
from astropy.utils import iers
from casacore.measures import measures

from dsa110_contimg.errors import InputError
from dsa110_contimg.simulate import read_array
from dsa110_contimg.simulate.array import (
    apparent_direction,
    celestial_to_terrestrial,
    icrs_of_apparent,
    meridian_mjd,
    meridian_pointing,
    seen_lmn,
    uvw_of_antennas,
)
from dsa110_contimg.sky import lmn_from_radec

HEADER = [
    "# telescope T",
    "# latitude_deg 37.2",
    "# longitude_deg -118.3",
    "# height_m 1188",
    "# dish_m 4.65",
]
STATIONS = ["a 0 0 0", "b 10 0 0", "c 0 10 0"]
MJD = 60968.6


def array_file(tmp_path, lines):
    file = tmp_path / "array.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_packaged_array_is_the_dsa110():
    array = read_array()
    i, j = np.triu_indices(96, 1)
    length = np.linalg.norm(array.position_m[j] - array.position_m[i], axis=1)
    assert (len(array.name), array.telescope, array.dish_m) == (96, "DSA_110", 4.65)
    assert length.min() == pytest.approx(5.75, abs=0.01)
    assert length.max() == pytest.approx(2602, abs=1)
    assert np.median(length[length < 1000]) < 308 < np.quantile(length, 0.7)
    assert np.degrees([array.longitude_rad, array.latitude_rad]) == pytest.approx([-118.28341, 37.23339])


def test_stations_stand_where_the_observatory_says(shared_data):
    array = read_array()
    listed = {}
    for line in (
        (shared_data / "dsa110" / "DSA110_Station_Coordinates.csv").read_text("utf-8-sig").splitlines()
    ):
        found = re.search(r"DSA-?0*(\d+),(-?[\d.]+),(-?[\d.]+),(-?[\d.]+)", line)
        if found:
            listed[f"pad{found[1]}"] = [float(x) for x in found.groups()[1:]]
    assert set(array.name) <= set(listed)
    expected = [
        EarthLocation.from_geodetic(lon, lat, height).to_geocentric()
        for lat, lon, height in (listed[n] for n in array.name)
    ]
    expected = np.array([[x.to_value("m") for x in p] for p in expected])
    # The reference position is given to 1e-5 degrees, a metre; the array's shape to centimetres.
    shift = array.position_m - expected
    np.testing.assert_allclose(shift - shift.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(shift.mean(axis=0), 0, atol=2.0)


def test_east_north_up(tmp_path):
    array = read_array(array_file(tmp_path, [*HEADER, "o 0 0 0", "e 100 0 0", "n 0 100 0", "u 0 0 100"]))
    east, north, up = array.position_m[1:] - array.position_m[0]
    lat = np.radians(37.2)
    assert east[2] == pytest.approx(0, abs=1e-6)
    assert north[2] == pytest.approx(100 * np.cos(lat))
    np.testing.assert_allclose(np.cross(east, north) / 100, up, atol=1e-6)
    centre = array.position_m[0] / np.linalg.norm(array.position_m[0])
    assert up @ centre > 99.9


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*HEADER, "a 0 0", *STATIONS], "line 6 is not 'name east north up'"),
        ([*HEADER, "a 0 0 zero", *STATIONS], "line 6 is not"),
        ([*HEADER, "a 0 0 nan", *STATIONS], "line 6 is not"),
        ([*HEADER[1:], *STATIONS], "lacks '# telescope ...'"),
        ([*HEADER[:-1], *STATIONS], "lacks '# dish_m ...'"),
        ([*HEADER, *STATIONS[:2]], "fewer than 3 antennas"),
        ([*HEADER[:-1], "# dish_m big", *STATIONS], "'# dish_m big' is not a number"),
        ([*HEADER[:-1], "# dish_m -5", *STATIONS], "'# dish_m -5' is not a number from"),
        (
            [HEADER[0], "# latitude_deg 95", *HEADER[2:], *STATIONS],
            "'# latitude_deg 95' is not a number from -90",
        ),
        ([HEADER[0], "# latitude_deg nan", *HEADER[2:], *STATIONS], "'# latitude_deg nan'"),
        ([], "lacks"),
    ],
)
def test_bad_array_files_are_one_line(tmp_path, lines, said):
    file = array_file(tmp_path, lines)
    with pytest.raises(InputError) as caught:
        read_array(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ")
    assert "\n" not in text
    assert said in text


def test_array_files_that_are_none(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_array(tmp_path / "binary")
    for name in (tmp_path / "none", tmp_path, "vla"):
        with pytest.raises(InputError, match="no such array file"):
            read_array(name)


def casacore_uvw(array, ra, dec):
    """Antenna coordinates as casacore's measures have them: precession, nutation and aberration."""
    dm = measures()
    dm.do_frame(dm.epoch("UTC", f"{MJD}d"))
    dm.do_frame(dm.position("ITRF", *(f"{x}m" for x in array.position_m[0])))
    dm.do_frame(dm.direction("J2000", f"{ra}rad", f"{dec}rad"))
    baselines = []
    for position in array.position_m[1:]:
        offset = position - array.position_m[0]
        baseline = dm.baseline("ITRF", *(f"{x}m" for x in offset))
        baseline["refer"] = "ITRF"
        xyz = np.asarray(dm.to_uvw(baseline)["xyz"].get_value("m"))
        baselines.append(xyz)
    return np.array(baselines)


@pytest.mark.parametrize(("ra", "dec"), [(2.618, 0.9524), (0.0, -0.3), (4.0, 1.4)])
def test_baselines_agree_with_casacore(ra, dec):
    """To the millimetres of polar motion, which is left out; aberration alone makes 26 cm."""
    array = read_array()
    ours = uvw_of_antennas(array.position_m, MJD, ra, dec)
    np.testing.assert_allclose((ours - ours[0])[1:], casacore_uvw(array, ra, dec), atol=0.02)


def terrestrial(ra, dec):
    """Directions of ICRS ones on the axes of the Earth by astropy, with aberration."""
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        warnings.simplefilter("ignore")
        time = Time(MJD, format="mjd")
        seen = SkyCoord(ra, dec, unit="rad").transform_to(GCRS(obstime=time))
        seen = GCRS(seen.data.represent_as(UnitSphericalRepresentation), obstime=time)
        return seen.transform_to(ITRS(obstime=time)).cartesian.xyz.value


@pytest.mark.parametrize(("ra", "dec"), [(2.618, 0.9524), (0.0, -0.3), (4.0, 1.4)])
def test_baselines_are_projections_on_where_the_source_is_seen(ra, dec):
    """w on the direction by astropy, u and v along its change with right ascension and declination."""
    array = read_array()
    offset = array.position_m - array.position_m[0]
    step = 1e-5
    axes = [
        terrestrial(ra + step, dec) - terrestrial(ra - step, dec),
        terrestrial(ra, dec + step) - terrestrial(ra, dec - step),
        terrestrial(ra, dec),
    ]
    axes = [a / np.linalg.norm(a) for a in axes]
    np.testing.assert_allclose(uvw_of_antennas(offset, MJD, ra, dec), offset @ np.transpose(axes), atol=0.02)


def test_aberration_is_that_of_erfa():
    ra, dec = np.array([0.1, 2.6, 4.0]), np.array([-0.3, 0.95, 1.4])
    tt = Time(MJD, format="mjd").tt
    astrom = erfa.apcg13(tt.jd1, tt.jd2)
    # Without parallax and proper motion; the Sun's light deflection is milliarcseconds here.
    expected = erfa.s2c(*erfa.atciqz(ra, dec, astrom))
    celestial = apparent_direction(MJD, ra, dec)
    # atciqz ends on the axes of date.
    np.testing.assert_allclose(celestial @ astrom["bpn"].T, expected, atol=5e-8)
    for k in range(3):
        assert icrs_of_apparent(MJD, celestial[k]) == pytest.approx((ra[k], dec[k]), abs=1e-12)


def test_the_sky_as_seen_is_stretched_and_the_convention_is_not():
    """Directions as seen give exact projections; those of imagers differ by 1e-4 of the distance."""
    array = read_array()
    ra0, dec0 = 2.618, 0.9524
    ra, dec = np.array([2.65]), np.array([0.97])
    uvw = uvw_of_antennas(array.position_m, MJD, ra0, dec0)
    exact = (
        array.position_m
        @ (celestial_to_terrestrial(MJD))
        @ (apparent_direction(MJD, ra, dec) - apparent_direction(MJD, ra0, dec0)).T
    )
    seen = seen_lmn(MJD, ra, dec, ra0, dec0)
    np.testing.assert_allclose(uvw @ seen.T, exact, atol=1e-8)
    plain = lmn_from_radec(ra, dec, ra0, dec0)
    assert 1e-5 < np.linalg.norm(seen - plain) / np.linalg.norm(plain) < 1.5e-4


def test_dishes_that_stand_still_follow_the_meridian():
    array = read_array()
    ra, dec = np.radians([150.0, 54.57])
    transit = meridian_mjd(MJD, array.longitude_rad, ra, dec)
    assert meridian_pointing(transit, transit, ra, dec) == pytest.approx((ra, dec), abs=1e-12)
    later = meridian_pointing(transit + 100 / 86400, transit, ra, dec)
    assert 3600 * np.degrees(later[0] - ra) / 100 == pytest.approx(15.04, abs=0.06)  # of date, by precession
    assert 3600 * np.degrees(later[1] - dec) == pytest.approx(0, abs=3)
    moment = meridian_mjd(transit, array.longitude_rad, *later)
    assert (moment - transit) * 86400 == pytest.approx(100, abs=0.01)


def test_u_is_east_and_v_north_on_the_meridian():
    array = read_array()
    ra = 1.0
    mjd = meridian_mjd(MJD, array.longitude_rad, ra, array.latitude_rad)
    lon, lat = array.longitude_rad, array.latitude_rad
    east = np.array([-np.sin(lon), np.cos(lon), 0])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    uvw = uvw_of_antennas(100 * np.array([east, north]), mjd, ra, array.latitude_rad)
    # Precession since 2000 turns north by some minutes of arc and shifts the declination as much.
    np.testing.assert_allclose(uvw, [[100, 0, 0], [0, 100, 0]], atol=0.5)


def test_coordinates_keep_the_length_of_baselines():
    array = read_array()
    uvw = uvw_of_antennas(array.position_m, MJD, 1.0, 0.5)
    np.testing.assert_allclose(
        np.linalg.norm(uvw - uvw[0], axis=1), np.linalg.norm(array.position_m - array.position_m[0], axis=1)
    )


@pytest.mark.parametrize(("ra", "dec"), [(2.618, 0.9524), (0.0, -0.3), (4.0, 1.5), (6.28, 0.0)])
def test_a_transit_is_at_hour_angle_zero(ra, dec):
    array = read_array()
    mjd = meridian_mjd(MJD, array.longitude_rad, ra, dec)
    assert abs(mjd - MJD) <= 0.5
    x, y, _ = celestial_to_terrestrial(mjd) @ apparent_direction(mjd, ra, dec)
    hour_angle = np.angle(np.exp(1j * (array.longitude_rad - np.arctan2(y, x))))
    assert abs(hour_angle) / (2 * np.pi) * 86164 < 0.01
