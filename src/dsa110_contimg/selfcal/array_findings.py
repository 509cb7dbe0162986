"""What baselines say of times, phase centre and positions, before anything is solved."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.visibilities import VisibilityReader
from dsa110_contimg.visibilities.array_check import BaselineCheck, check_baselines

__all__ = ["array_findings", "said_of_baselines"]

#: How fast the right ascension of dishes that stand still grows, radians a second, and about as fast.
SIDEREAL_RATE, ABOUT = 2 * np.pi / 86164.1, 0.1
#: So many antennas are named.
MOST_NAMED = 5


def array_findings(reader: VisibilityReader) -> tuple[Finding, ...]:
    """Hold UVW against the antennas' positions, the times and the phase centre, where dishes stand still.

    There the time says where the beam is. Of dishes that follow the sky UVW is right or wrong by what the sky
    says of it: observatories differ by arc minutes in how they reckon it from their clocks.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    """
    if not _drifts(reader):
        return ()
    antennas = reader.ms.antennas
    found = check_baselines(
        reader.antenna_uv(),
        antennas.position_m,
        reader.times,
        *reader.phase_center,
    )
    return () if found is None else said_of_baselines(found, antennas.name)


def _drifts(reader: VisibilityReader) -> bool:
    """Whether the beam moves over the sky as fast as the Earth turns."""
    if reader.times.size < 2:
        return False
    ra = np.unwrap(reader.pointing[:, 0])
    rate = float(np.polyfit(reader.times - reader.times[0], ra, 1)[0])
    return abs(rate / SIDEREAL_RATE - 1) < ABOUT


def said_of_baselines(found: BaselineCheck, names: tuple[str, ...]) -> tuple[Finding, ...]:
    """Say in words what baselines are of.

    Parameters
    ----------
    found : BaselineCheck
        Of :func:`~dsa110_contimg.visibilities.array_check.check_baselines`.
    names : tuple of str
        Of all antennas.

    Returns
    -------
    tuple of Finding
        Of kind ``uvw`` where the baselines are those of the array at another time or of another direction;
        of kind ``positions`` where antennas are elsewhere.
    """
    said = []
    east, north = (float(np.degrees(x) * 60) for x in found.turned_rad)
    if found.turned:
        seen = f"{abs(east):.1f} arcmin {'east' if east > 0 else 'west'}"
        where = f"UVW is that of the antennas' positions {found.late_s:+.0f} s from TIME, or seen from {seen}"
        if abs(north) > 1 and abs(north) > 0.1 * abs(east):
            across = f"{abs(north):.1f} arcmin {'north' if north > 0 else 'south'}"
            where = f"UVW is that of the antennas' positions seen from {seen} and {across}"
        text = f"{where} of the phase centre: check both, for one is wrong by as much"
        said.append(Finding("uvw", text))
    elif not found.agrees:
        text = (
            f"UVW puts antennas {found.off_m:.2g} m from their positions in the median, as no other time or "
            "phase centre near by does: if the positions are right, UVW is wrong, and gains cannot mend that "
            "away from the phase centre"
        )
        return (Finding("positions", text),)
    if found.outlying.size:
        worst = found.outlying[np.argsort(-found.outlying_m, kind="stable")][:MOST_NAMED]
        more = f" and {found.outlying.size - worst.size} more" if found.outlying.size > worst.size else ""
        text = (
            f"UVW puts {', '.join(names[k] for k in worst)}{more} up to {found.outlying_m.max():.2g} m from "
            "where the ANTENNA table does: check the positions"
        )
        said.append(Finding("positions", text))
    return tuple(said)
