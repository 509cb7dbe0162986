"""Times of tables: stored in the scale that a column declares, UTC everywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import erfa
import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import MeasurementSetError

__all__ = ["UTC", "in_scale", "in_utc", "is_known", "read_times", "require_known_scale", "scale_of"]

UTC = "UTC"
#: Scales of the Earth's rotation: within 0.9 s of UTC, which is kept so, and of no consequence here.
OF_ROTATION = frozenset({UTC, "UT", "UT1", "UT2"})
#: Scales that run evenly, in seconds ahead of TAI; barycentric time is within 2 ms of terrestrial time.
AHEAD_OF_TAI = {"TAI": 0.0, "IAT": 0.0} | dict.fromkeys(("TT", "TDT", "ET", "TDB"), 32.184)
MJD, DAY = 2400000.5, 86400.0


def scale_of(opened: Any, column: str = "TIME") -> str:
    """Return the time scale of a column as casacore names it; UTC where nothing is said."""
    return str(opened.getcolkeywords(column).get("MEASINFO", {}).get("Ref", UTC))


def is_known(scale: str) -> bool:
    """Whether times of a scale are taken to UTC: sidereal time and the like are not."""
    return scale in OF_ROTATION or scale in AHEAD_OF_TAI


def require_known_scale(scale: str, path: Path, column: str = "TIME") -> None:
    """Raise MeasurementSetError where :func:`is_known` does not hold."""
    if not is_known(scale):
        known = ", ".join(sorted(OF_ROTATION | set(AHEAD_OF_TAI)))
        raise MeasurementSetError(
            f"{column} is in the time scale {scale}",
            path,
            f"store it in one of {known}",
        )


def in_utc(time_s: Float, scale: str) -> Float:
    """Take times to UTC.

    Parameters
    ----------
    time_s : ndarray
        Seconds since MJD 0 of the scale.
    scale : str
        One of which :func:`is_known` holds.

    Returns
    -------
    ndarray
        The same of UTC.
    """
    return time_s if scale in OF_ROTATION else time_s - _ahead_of_utc(time_s, scale)


def in_scale(utc_s: Float, scale: str) -> Float:
    """Take times from UTC to a scale: what :func:`in_utc` undoes."""
    if scale in OF_ROTATION:
        return utc_s
    return utc_s + _ahead_of_utc(utc_s + _ahead_of_utc(utc_s, scale), scale)


def read_times(opened: Any, column: str = "TIME") -> Float:
    """Read a column of times of an open table, UTC seconds since MJD 0."""
    return in_utc(np.asarray(opened.getcol(column), dtype=np.float64), scale_of(opened, column))


def _ahead_of_utc(time_s: Float, scale: str) -> Float:
    """By how many seconds a scale is ahead of UTC at its own times; found once for each."""
    stamps, at = np.unique(time_s, return_inverse=True)
    of_tai = AHEAD_OF_TAI[scale]
    whole = np.full(stamps.shape, MJD)
    tai = (stamps - of_tai) / DAY
    days, parts = erfa.taiutc(whole, tai)
    # To the microsecond: what dumps are apart stays as it is.
    ahead = np.round(((whole - days) + (tai - parts)) * DAY, 6) + of_tai
    return np.asarray(ahead[at].reshape(np.shape(time_s)))
