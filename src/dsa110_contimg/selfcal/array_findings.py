"""What baselines say of times, phase centre and positions, before anything is solved."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.visibilities import VisibilityReader
from dsa110_contimg.visibilities.array_check import BaselineCheck, check_baselines

__all__ = ["array_findings", "said_of_baselines"]

#: So many antennas are named.
MOST_NAMED = 5


def array_findings(reader: VisibilityReader) -> tuple[Finding, ...]:
    """Hold UVW against the antennas' positions, the times and the phase centre.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    """
    antennas = reader.ms.antennas
    found = check_baselines(reader.antenna_uv(), antennas.position_m, reader.times, *reader.phase_center)
    return () if found is None else said_of_baselines(found, antennas.name)


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
            f"UVW puts antennas {found.off_m:.2g} m from their positions in the median, whatever the time "
            "and the phase centre: if the positions are right, UVW is wrong, and gains cannot mend that "
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
