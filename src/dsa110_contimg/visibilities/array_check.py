"""UVW held against where and when they should be from: antenna positions, times and phase centre.

Whether the sky of the data is where FIELD says cannot be seen in phases that are not calibrated. Baselines
tell: those of the antennas' positions, turned with the Earth to the time of each dump and looked at from the
phase centre, are the ones in UVW, or one of the four is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import erfa
import numpy as np
import scipy.optimize

from dsa110_contimg.array_types import Float, Int

__all__ = ["BaselineCheck", "check_baselines"]

#: Dumps that are looked at, and the fewest antennas.
DUMPS, FEWEST_ANTENNAS = 5, 4
#: Positions between these distances from the centre of the Earth are on it, metres.
ON_EARTH = (6.3e6, 6.4e6)
#: Baselines are as they should be within this fraction of their length, which leaves room for aberration,
#: polar motion and UT1, and this much, metres.
FRACTION, METRES = 3e-4, 0.1
#: Another direction is that of the baselines where it leaves this part of the differences.
MOSTLY = 0.01
#: Baselines that are reversed are seen from nearer to the phase centre than this, radians.
NEAR_RAD = 0.2
#: An antenna is elsewhere that is off by so many times what the median one is.
OUTLYING = 10.0
MJD, SIDEREAL_DAY = 2400000.5, 86164.1


@dataclass(frozen=True, eq=False)
class BaselineCheck:
    """How baselines differ from those of the positions of the antennas.

    Attributes
    ----------
    tolerance_m : float
        Differences that are none, metres.
    off_m : float
        Median distance between where antennas are and where UVW have them, in the plane of the sky.
    turned_rad : (float, float)
        How far east and north of the phase centre the direction lies from which the baselines are seen.
    late_s : float
        The same as a time: that of the baselines less that of the dumps, seconds. Only the first coordinate
        is in it.
    left_m : float
        The median distance once that is taken out.
    outlying : ndarray of int
        Antennas that are off by far more than others then.
    outlying_m : ndarray, same shape
        By how much.
    """

    tolerance_m: float
    off_m: float
    turned_rad: tuple[float, float]
    late_s: float
    left_m: float
    outlying: Int
    outlying_m: Float

    @property
    def agrees(self) -> bool:
        """Whether baselines are those of the positions, of all but antennas that stand out."""
        return self.off_m <= self.tolerance_m

    @property
    def turned(self) -> bool:
        """Whether they would be from another direction, or nearly."""
        return not self.agrees and self.left_m <= max(self.tolerance_m, MOSTLY * self.off_m)


def check_baselines(
    uv_m: Float, position_m: Float, time_s: Float, ra_rad: float, dec_rad: float
) -> BaselineCheck | None:
    """Hold baselines against the positions of the antennas.

    Parameters
    ----------
    uv_m : ndarray, shape (ntime, nant, 2)
        Antenna coordinates u and v about the phase centre, against any origin; not numbers without data.
    position_m : ndarray, shape (nant, 3)
        ITRF positions.
    time_s : ndarray, shape (ntime,)
        Dumps, seconds (MJD UTC).
    ra_rad, dec_rad : float
        Phase centre, ICRS radians.

    Returns
    -------
    BaselineCheck or None
        None where positions are not on the Earth, or too few.

    Notes
    -----
    UT1 is taken for UTC, and neither polar motion nor aberration is followed: together half an arc minute.
    """
    chosen = np.unique(np.linspace(0, len(time_s) - 1, DUMPS).astype(int))
    away = np.sqrt((position_m**2).sum(axis=1))
    there = (away > ON_EARTH[0]) & (away < ON_EARTH[1]) & np.isfinite(uv_m[chosen]).all(axis=(0, 2))
    if np.count_nonzero(there) < FEWEST_ANTENNAS:
        return None
    found = _centred(uv_m[chosen][:, there])
    length = float(np.sqrt(np.mean(found**2)))
    celestial = [position_m[there] @ _to_terrestrial(float(time_s[k])) for k in chosen]

    def off(turned: Float, sign: int) -> Float:
        u, v = _axes(ra_rad + turned[0] / np.cos(dec_rad), dec_rad + turned[1])
        return sign * _centred(np.stack([np.stack([p @ u, p @ v], axis=1) for p in celestial])) - found

    # Outlying antennas do not count for much.
    tolerance = max(METRES, FRACTION * length)

    def fitted(sign: int) -> tuple[float, Float]:
        def left(x: Float) -> Float:
            return off(x, sign).ravel()

        # From far away by plain least squares: what is far beyond the tolerance pulls no longer then.
        begun = scipy.optimize.least_squares(left, np.zeros(2), x_scale=1e-3).x
        fit = scipy.optimize.least_squares(left, begun, loss="cauchy", f_scale=tolerance, x_scale=1e-3)
        return float(fit.cost), np.asarray(fit.x)

    cost, solved = fitted(1)
    sign, (reverse_cost, reverse) = 1, fitted(-1)
    # Baselines from the second antenna to the first are as usual, with visibilities that are conjugated. They
    # are also those of the others as seen from the far side.
    if reverse_cost < cost and np.hypot(*reverse) < NEAR_RAD:
        sign, solved = -1, reverse
    as_is, left = (np.hypot(*np.moveaxis(off(x, sign), 2, 0)).max(axis=0) for x in (np.zeros(2), solved))
    typical = float(np.median(left))
    far = left > OUTLYING * max(typical, tolerance / OUTLYING)
    return BaselineCheck(
        tolerance_m=tolerance,
        off_m=float(np.median(as_is)),
        turned_rad=(float(solved[0]), float(solved[1])),
        late_s=float(-solved[0] / np.cos(dec_rad) / (2 * np.pi) * SIDEREAL_DAY),
        left_m=typical,
        outlying=np.flatnonzero(there)[far],
        outlying_m=left[far],
    )


def _centred(uv_m: Float) -> Float:
    """Coordinates about the median antenna of each dump."""
    return np.asarray(uv_m - np.median(uv_m, axis=1, keepdims=True))


def _to_terrestrial(time_s: float) -> Float:
    """Matrix from celestial to terrestrial coordinates, shape (3, 3)."""
    utc = MJD, time_s / 86400
    return np.asarray(erfa.c2t06a(*erfa.taitt(*erfa.utctai(*utc)), *utc, 0.0, 0.0))


def _axes(ra_rad: float, dec_rad: float) -> tuple[Float, Float]:
    """Return unit vectors east and north at a direction."""
    sa, ca, sd, cd = np.sin(ra_rad), np.cos(ra_rad), np.sin(dec_rad), np.cos(dec_rad)
    return np.array([-sa, ca, 0.0]), np.array([-sd * ca, -sd * sa, cd])
