"""Arrays from text files, and baselines towards the sky."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import erfa
import numpy as np
from astropy.coordinates import EarthLocation
from astropy.time import Time
from numpy.typing import ArrayLike

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import InputError
from dsa110_contimg.sphere import unit_vectors
from dsa110_contimg.visibilities.pointing import celestial_to_terrestrial

__all__ = ["Array", "apparent_direction", "meridian_pointing", "read_array", "seen_lmn", "uvw_of_antennas"]


#: Numbers that an array file must give, and what they may be.
HEADER_RANGES = {
    "latitude_deg": (-90.0, 90.0),
    "longitude_deg": (-360.0, 360.0),
    "height_m": (-1e4, 1e5),
    "dish_m": (0.1, 1e3),
}


@dataclass(frozen=True)
class Array:
    """Stations of an interferometer.

    Parameters
    ----------
    telescope : str
        TELESCOPE_NAME.
    name : tuple of str
        Station names.
    position_m : ndarray, shape (nant, 3)
        ITRF positions in metres.
    dish_m : float
        Dish diameter in metres.
    longitude_rad, latitude_rad : float
        Reference position.
    """

    telescope: str
    name: tuple[str, ...]
    position_m: Float
    dish_m: float
    longitude_rad: float
    latitude_rad: float


def read_array(source: Path | str = "dsa110") -> Array:
    """Read an array from a text file.

    Parameters
    ----------
    source : Path or str
        File, or the name of an array that comes with the package. Lines of
        ``name east north up`` in metres; before them comment lines ``# key
        value`` for ``telescope``, ``latitude_deg``, ``longitude_deg``,
        ``height_m`` and ``dish_m``.

    Returns
    -------
    Array

    Raises
    ------
    InputError
        If the file is missing or does not fit.
    """
    packaged = resources.files("dsa110_contimg.simulate") / "arrays" / f"{source}.txt"
    if packaged.is_file():
        text = packaged.read_text(encoding="utf-8")
    elif Path(source).is_file():
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read as text ({error})", source, "give an array file") from None
    else:
        raise InputError("no such array file", source, "give a file or 'dsa110'")
    header: dict[str, str] = {}
    names, offsets = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.lstrip("#").split()
        if line.startswith("#"):
            if len(words) == 2:
                header[words[0]] = words[1]
            continue
        if not words:
            continue
        try:
            offsets.append([float(w) for w in words[1:4]])
        except ValueError:
            offsets.append([])
        if len(offsets[-1]) != 3 or not np.isfinite(offsets[-1]).all():
            raise InputError(f"line {number} is not 'name east north up'", source, "mend the file")
        names.append(words[0])
    missing = [k for k in ("telescope", *HEADER_RANGES) if k not in header]
    if missing or len(names) < 3:
        what = f"lacks '# {missing[0]} ...'" if missing else "lists fewer than 3 antennas"
        raise InputError(what, source, "mend the file")
    value = {}
    for key, (low, high) in HEADER_RANGES.items():
        try:
            value[key] = float(header[key])
        except ValueError:
            value[key] = float("nan")
        if not low <= value[key] <= high:
            raise InputError(
                f"'# {key} {header[key]}' is not a number from {low:g} to {high:g}", source, "mend the file"
            )
    lon, lat = np.radians(value["longitude_deg"]), np.radians(value["latitude_deg"])
    centre = EarthLocation.from_geodetic(
        value["longitude_deg"], value["latitude_deg"], value["height_m"]
    ).to_geocentric()
    to_itrf = np.array(
        [
            [-np.sin(lon), -np.sin(lat) * np.cos(lon), np.cos(lat) * np.cos(lon)],
            [np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat) * np.sin(lon)],
            [0.0, np.cos(lat), np.sin(lat)],
        ]
    )
    position = np.array([x.to_value("m") for x in centre]) + np.array(offsets) @ to_itrf.T
    return Array(header["telescope"], tuple(names), position, value["dish_m"], float(lon), float(lat))


def _time(mjd_utc: float) -> Time:
    return Time(mjd_utc, format="mjd", scale="utc")


def _earth(mjd_utc: float) -> tuple[Float, float, float]:
    """Return what erfa.ab wants: barycentric velocity / c, distance to the Sun in au, sqrt(1 - v^2/c^2)."""
    # TT for TDB: the Earth's velocity changes by 1e-12 c in their 2 ms.
    tt = _time(mjd_utc).tt
    heliocentric, barycentric = erfa.epv00(tt.jd1, tt.jd2)
    velocity = np.asarray(barycentric["v"]) * (erfa.DAU / erfa.DAYSEC / erfa.CMPS)
    distance = float(np.linalg.norm(heliocentric["p"]))
    return velocity, distance, float(np.sqrt(1 - velocity @ velocity))


def apparent_direction(mjd_utc: float, ra_rad: ArrayLike, dec_rad: ArrayLike) -> Float:
    """Where ICRS directions are seen from the moving Earth.

    Parameters
    ----------
    mjd_utc : float
        Time.
    ra_rad, dec_rad : array_like, shape (...)
        ICRS directions, radians.

    Returns
    -------
    ndarray, shape (..., 3)
        Unit vectors on GCRS axes with annual aberration, up to 20.5 arcsec.
        The Sun's light deflection (milliarcseconds at night) and diurnal
        aberration (0.3 arcsec, 4 mm over the array) are left out.
    """
    return np.asarray(erfa.ab(unit_vectors(ra_rad, dec_rad), *_earth(mjd_utc)))


def icrs_of_apparent(mjd_utc: float, apparent: Float) -> tuple[float, float]:
    """ICRS direction in radians that is seen at an apparent one, shape (3,): apparent_direction undone."""
    earth = _earth(mjd_utc)
    true = np.asarray(apparent, dtype=np.float64)
    for _ in range(3):  # each turn leaves 1e-4 of the error
        true = true + apparent - erfa.ab(true / np.linalg.norm(true), *earth)
    return float(np.arctan2(true[1], true[0]) % (2 * np.pi)), float(np.arcsin(true[2] / np.linalg.norm(true)))


def axes_towards(mjd_utc: float, ra_rad: float, dec_rad: float) -> Float:
    """East, north and source axes of a phase centre as it is seen, shape (3, 3).

    Annual aberration turns the ICRS axes with the phase centre, by the
    shortest way, and does not stretch them: so do casacore and CASA.
    """
    sa, ca, sd, cd = np.sin(ra_rad), np.cos(ra_rad), np.sin(dec_rad), np.cos(dec_rad)
    axes = np.array([[-sa, ca, 0.0], [-sd * ca, -sd * sa, cd], [cd * ca, cd * sa, sd]])
    seen = apparent_direction(mjd_utc, ra_rad, dec_rad)
    # The shortest rotation from s to s' takes x to x - (x.(s + s')) (s + s') / (1 + s.s') + 2 (x.s) s'.
    both = axes[2] + seen
    along = axes @ axes[2]
    turned = axes - np.outer(axes @ both, both) / (1 + axes[2] @ seen) + 2 * np.outer(along, seen)
    return np.asarray(turned)


def uvw_of_antennas(position_m: Float, mjd_utc: float, ra_rad: float, dec_rad: float) -> Float:
    """UVW coordinates of antennas towards an ICRS direction.

    Parameters
    ----------
    position_m : ndarray, shape (nant, 3)
        ITRF positions in metres.
    mjd_utc : float
        Time.
    ra_rad, dec_rad : float
        Phase centre, ICRS radians.

    Returns
    -------
    ndarray, shape (nant, 3)
        u (east), v (north), w (towards the source as it is seen) in metres; a
        baseline is antenna 2 minus antenna 1 (Thompson, Moran & Swenson 2017,
        section 4.1), with precession, nutation and annual aberration.
    """
    celestial = position_m @ celestial_to_terrestrial(mjd_utc)
    return np.asarray(celestial @ axes_towards(mjd_utc, ra_rad, dec_rad).T)


def seen_lmn(mjd_utc: float, ra_rad: Float, dec_rad: Float, ra0_rad: float, dec0_rad: float) -> Float:
    """Direction cosines of sources where they are seen, annual aberration stretching the sky between them.

    Parameters
    ----------
    mjd_utc : float
        Time.
    ra_rad, dec_rad : ndarray, shape (n,)
        ICRS directions, radians.
    ra0_rad, dec0_rad : float
        Phase centre, ICRS radians.

    Returns
    -------
    ndarray, shape (n, 3)
        l, m and n - 1 for which ``u l + v m + w (n - 1)`` is the baseline's
        exact projection on the source less that on the phase centre.
    """
    apart = apparent_direction(mjd_utc, ra_rad, dec_rad) - apparent_direction(mjd_utc, ra0_rad, dec0_rad)
    return np.asarray(apart @ axes_towards(mjd_utc, ra0_rad, dec0_rad).T)


def meridian_pointing(
    mjd_utc: float, reference_mjd_utc: float, ra_rad: float, dec_rad: float
) -> tuple[float, float]:
    """Where dishes that stand still point.

    Parameters
    ----------
    mjd_utc : float
        Time.
    reference_mjd_utc : float
        Time at which they point at (ra_rad, dec_rad), ICRS radians.

    Returns
    -------
    ra_rad, dec_rad : float
        ICRS direction at `mjd_utc`, radians: the right ascension advances by
        15.04 arcsec a second.
    """
    fixed = celestial_to_terrestrial(reference_mjd_utc) @ apparent_direction(
        reference_mjd_utc, ra_rad, dec_rad
    )
    return icrs_of_apparent(mjd_utc, celestial_to_terrestrial(mjd_utc).T @ fixed)


def meridian_mjd(mjd_utc: float, longitude_rad: float, ra_rad: float, dec_rad: float) -> float:
    """Moment next to `mjd_utc` at which an ICRS direction is seen to cross the meridian.

    The declination matters: precession since 2000 shifts the crossing by
    minutes towards the poles.
    """
    sidereal_day = 0.99726956633
    moment = mjd_utc
    for _ in range(2):  # the second turn takes out the aberration and precession of the first step
        x, y, _ = celestial_to_terrestrial(moment) @ apparent_direction(moment, ra_rad, dec_rad)
        turns = (longitude_rad - np.arctan2(y, x)) / (2 * np.pi)
        turns = (turns + 0.5) % 1.0 - 0.5
        moment -= turns * sidereal_day
    return float(moment)
