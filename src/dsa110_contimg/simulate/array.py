"""Arrays from text files, and baselines towards the sky."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import erfa
import numpy as np
from astropy.coordinates import EarthLocation
from astropy.time import Time
from astropy.utils import iers
from numpy.typing import NDArray

from dsa110_contimg.errors import InputError

__all__ = ["Array", "read_array", "uvw_of_antennas"]

Float = NDArray[np.float64]

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


def celestial_to_terrestrial(mjd_utc: float) -> Float:
    """Rotation from GCRS to ITRS axes (IAU 2006/2000A), shape (3, 3)."""
    with warnings.catch_warnings(), iers.conf.set_temp("auto_download", False):
        # Polar motion and UT1 beyond the bundled table change uvw by parts in 1e7.
        warnings.simplefilter("ignore")
        with iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
            time = Time(mjd_utc, format="mjd", scale="utc")
            return np.asarray(
                erfa.c2t06a(time.tt.jd1, time.tt.jd2, time.ut1.jd1, time.ut1.jd2, 0.0, 0.0), dtype=np.float64
            )


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
        u (east), v (north), w (towards the source) in metres; a baseline is
        antenna 2 minus antenna 1 (Thompson, Moran & Swenson 2017, section 4.1).
    """
    celestial = position_m @ celestial_to_terrestrial(mjd_utc)
    sa, ca, sd, cd = np.sin(ra_rad), np.cos(ra_rad), np.sin(dec_rad), np.cos(dec_rad)
    basis = np.array([[-sa, ca, 0.0], [-sd * ca, -sd * sa, cd], [cd * ca, cd * sa, sd]])
    return np.asarray(celestial @ basis.T)


def meridian_mjd(mjd_utc: float, longitude_rad: float, ra_rad: float, dec_rad: float) -> float:
    """Moment next to `mjd_utc` at which an ICRS direction crosses the meridian (to a second).

    The declination matters: precession since 2000 shifts the crossing by
    minutes towards the poles.
    """
    sidereal_day = 0.99726956633
    direction = np.array(
        [np.cos(ra_rad) * np.cos(dec_rad), np.sin(ra_rad) * np.cos(dec_rad), np.sin(dec_rad)]
    )
    terrestrial = celestial_to_terrestrial(mjd_utc) @ direction
    hour_angle = longitude_rad - np.arctan2(terrestrial[1], terrestrial[0])
    turns = (hour_angle / (2 * np.pi) + 0.5) % 1.0 - 0.5
    return float(mjd_utc - turns * sidereal_day)
