"""Phase centres and baselines in the frames of old catalogues, taken to ICRS."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.coordinates import FK4, SkyCoord
from astropy.time import Time

from dsa110_contimg.array_types import Float

__all__ = ["CONVERTED", "INERTIAL", "direction_in_icrs", "frames_of_rows", "turned_baselines"]

#: Frames that are ICRS here: they differ by less than 0.03 arcsec.
INERTIAL = frozenset({"J2000", "ICRS"})
#: Epoch of observation, as a Besselian year, of directions in the mean equinox B1950. The VLA's calibrators
#: were measured in 1979.9 (casacore, measures/Measures/MDirection.h, B1950_VLA).
CONVERTED = {"B1950": "B1950", "B1950_VLA": "B1979.9"}
#: How far north of a direction its meridian is looked for, radians.
NORTH_RAD = 1e-4


def direction_in_icrs(ra_rad: float, dec_rad: float, frame: str) -> tuple[float, float, float]:
    """Convert a direction.

    Parameters
    ----------
    ra_rad, dec_rad : float
        Direction in the frame, radians.
    frame : str
        A name in `INERTIAL` or `CONVERTED`, as casacore writes it.

    Returns
    -------
    ra_rad, dec_rad : float
        ICRS.
    turn_rad : float
        Position angle, in ICRS from north through east, of the frame's north: what
        :func:`turned_baselines` takes.

    Raises
    ------
    KeyError
        If the frame is none of these.
    """
    if frame in INERTIAL:
        return float(np.mod(ra_rad, 2 * np.pi)), dec_rad, 0.0
    equinox = FK4(equinox=Time("B1950", scale="tai"), obstime=Time(CONVERTED[frame], scale="tai"))
    along = np.array([dec_rad - NORTH_RAD / 2, dec_rad, dec_rad + NORTH_RAD / 2])
    south, here, north = SkyCoord(np.full(3, ra_rad), along, unit="rad", frame=equinox).icrs
    return float(here.ra.rad), float(here.dec.rad), float(south.position_angle(north).wrap_at("180d").rad)


def turned_baselines(uvw_m: Float, turn_rad: float) -> Float:
    """Baselines (nrow, 3) about axes east and north of ICRS, of those about a frame's that is turned."""
    if turn_rad == 0.0:
        return uvw_m
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    return np.asarray(uvw_m @ np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]))


def frames_of_rows(sub: Any, column: str = "PHASE_DIR") -> list[str]:
    """Return the frame of a direction in each row of an open FIELD table, as casacore writes it."""
    info = sub.getcolkeywords(column).get("MEASINFO", {})
    if "VarRefCol" in info and info["VarRefCol"] in sub.colnames():
        codes = dict(zip(info.get("TabRefCodes", []), info.get("TabRefTypes", []), strict=True))
        return [str(codes.get(c, c)) for c in sub.getcol(info["VarRefCol"])]
    return [str(info.get("Ref", "J2000"))] * int(sub.nrows())
