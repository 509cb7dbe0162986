"""Where the dishes pointed, dump by dump."""

from __future__ import annotations

import warnings

import erfa
import numpy as np
from astropy.time import Time
from astropy.utils import iers

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.sphere import unit_vectors
from dsa110_contimg.visibilities.frames import INERTIAL
from dsa110_contimg.visibilities.measurement_set import MeasurementSet
from dsa110_contimg.visibilities.tables import reading
from dsa110_contimg.visibilities.time_scales import is_known, read_times, scale_of

__all__ = ["TRANSIT_TELESCOPES", "celestial_to_terrestrial", "meridian_direction", "pointing_directions"]


#: Telescopes whose dishes stand still on the meridian while the sky drifts by.
TRANSIT_TELESCOPES = frozenset({"DSA_110", "DSA-110", "DSA110"})


def celestial_to_terrestrial(mjd_utc: float) -> Float:
    """Rotation from GCRS to ITRS axes (IAU 2006/2000A), shape (3, 3)."""
    with warnings.catch_warnings(), iers.conf.set_temp("auto_download", False):
        # Polar motion and UT1 beyond the bundled table turn baselines by less than 1e-5.
        warnings.simplefilter("ignore")
        with iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
            time = Time(mjd_utc, format="mjd", scale="utc")
            return np.asarray(
                erfa.c2t06a(time.tt.jd1, time.tt.jd2, time.ut1.jd1, time.ut1.jd2, 0.0, 0.0),
                dtype=np.float64,
            )


def meridian_direction(
    mjd_utc: float, longitude_rad: float, through: tuple[float, float], through_mjd: float
) -> tuple[float, float]:
    """ICRS direction of a point that stands still on the meridian.

    Parameters
    ----------
    mjd_utc : float
        Time asked for.
    longitude_rad : float
        Of the telescope.
    through : (float, float)
        ICRS direction in radians whose declination of date the point has.
    through_mjd : float
        Time at which it has.

    Returns
    -------
    ra_rad, dec_rad : float
    """
    seen = celestial_to_terrestrial(through_mjd) @ unit_vectors(*through)
    across = np.hypot(seen[0], seen[1])
    fixed = np.array([across * np.cos(longitude_rad), across * np.sin(longitude_rad), seen[2]])
    x, y, z = celestial_to_terrestrial(mjd_utc).T @ fixed
    return float(np.mod(np.arctan2(y, x), 2 * np.pi)), float(np.arcsin(np.clip(z, -1, 1)))


def pointing_directions(
    ms: MeasurementSet, times_s: Float, interval_s: Float, field_id: Int, *, recorded: bool = True
) -> Float:
    """Pointing centre of each dump.

    The POINTING table decides where it has rows of those times; else a transit
    telescope whose data have one phase centre points at the meridian, at the
    declination of that centre; else each dump points at its field.

    Parameters
    ----------
    ms : MeasurementSet
        Measurement Set.
    times_s, interval_s : ndarray, shape (ntime,)
        Dumps, seconds (MJD UTC).
    field_id : ndarray of int, shape (ntime,)
        Their fields.
    recorded : bool
        Whether the POINTING table is believed.

    Returns
    -------
    ndarray, shape (ntime, 2)
        Right ascension and declination, ICRS radians.
    """
    fields = np.array([(ms.field(int(f)).ra_rad, ms.field(int(f)).dec_rad) for f in field_id])
    table = _recorded(ms, times_s, interval_s) if recorded else None
    if table is not None:
        return table
    one_centre = len(np.unique(fields, axis=0)) == 1
    if ms.telescope.strip().upper() in TRANSIT_TELESCOPES and one_centre:
        x, y, _ = ms.antennas.position_m[np.isfinite(ms.antennas.position_m).all(axis=1)].mean(axis=0)
        middle = float(times_s.mean()) / 86400.0
        centre = (float(fields[0, 0]), float(fields[0, 1]))
        longitude = float(np.arctan2(y, x))
        return np.array([meridian_direction(float(t) / 86400.0, longitude, centre, middle) for t in times_s])
    return fields


def _recorded(ms: MeasurementSet, times_s: Float, interval_s: Float) -> Float | None:
    """Directions from the POINTING table; None where it says nothing of these times."""
    path = ms.subtable("POINTING")
    if not (path / "table.dat").is_file():
        return None
    with reading(path) as sub:
        if sub.nrows() == 0 or not {"DIRECTION", "TIME", "ANTENNA_ID"} <= set(sub.colnames()):
            return None
        if not is_known(scale_of(sub)):
            return None
        antenna = sub.getcol("ANTENNA_ID")
        rows = np.flatnonzero(antenna == antenna[0])
        stamp = read_times(sub)[rows]
        reference = sub.getcolkeywords("DIRECTION").get("MEASINFO", {}).get("Ref", "J2000")
        if reference not in INERTIAL:
            return None
        direction = np.array([np.asarray(sub.getcell("DIRECTION", int(r))).reshape(-1)[:2] for r in rows])
    order = np.argsort(stamp)
    stamp, direction = stamp[order], direction[order]
    nearest = np.clip(np.searchsorted(stamp, times_s), 0, stamp.size - 1)
    before = np.clip(nearest - 1, 0, None)
    nearest = np.where(np.abs(stamp[before] - times_s) < np.abs(stamp[nearest] - times_s), before, nearest)
    if (np.abs(stamp[nearest] - times_s) > np.maximum(interval_s, 1.0)).any():
        return None
    chosen = direction[nearest]
    if not np.isfinite(chosen).all():
        return None
    return np.stack([np.mod(chosen[:, 0], 2 * np.pi), chosen[:, 1]], axis=1)
