"""Where each antenna points, as a table that the next observation can begin with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.calibration.pointing import PointingFit
from dsa110_contimg.errors import InputError
from dsa110_contimg.sky import AntennaBeams

__all__ = ["SQUINT", "pointing_report", "read_pointing"]

#: Keys in the header of the squint that all antennas are taken to have, east and north.
SQUINT = ("squint_east_deg", "squint_north_deg")


def pointing_report(names: Sequence[str], beams: AntennaBeams, fit: PointingFit | None) -> Table:
    """Describe the beams of the antennas.

    Parameters
    ----------
    names : sequence of str
        Antennas.
    beams : AntennaBeams
        Their beams.
    fit : PointingFit or None
        What the offsets were found by, if they were found in this run.

    Returns
    -------
    astropy.table.Table
        A row per antenna: ``antenna``; ``east_deg`` and ``north_deg``, by how much it points off;
        ``error_deg``, by the noise, against the mean of all antennas; ``squint_east_deg`` and
        ``squint_north_deg``, by how much its first receptor (X or R) points off more than its second, as it
        is measured by itself. Not a number where the data do not tell. Keys of the same names in the header
        are the squint of all antennas that the sky is seen with, if there is one.
    """
    n = len(names)
    known = np.ones(n, dtype=bool) if beams.known is None else beams.known
    if fit is not None:
        known = fit.known
    error, squint = np.full(n, np.nan), np.full((n, 2), np.nan)
    if fit is not None:
        error = np.degrees(fit.error_rad.max(axis=1))
        squint = np.degrees(fit.by_receptor_rad[0] - fit.by_receptor_rad[1])
    columns = {
        "east_deg": np.degrees(beams.offset_rad[:, 0]),
        "north_deg": np.degrees(beams.offset_rad[:, 1]),
        "error_deg": error,
        "squint_east_deg": squint[:, 0],
        "squint_north_deg": squint[:, 1],
    }
    table = Table({"antenna": list(names), **{k: np.where(known, v, np.nan) for k, v in columns.items()}})
    for name in columns:
        table[name].unit = "deg"
        table[name].info.format = ".4f"
    if beams.squint_rad is not None:
        table.meta |= dict(zip(SQUINT, (float(x) for x in np.degrees(beams.squint_rad)), strict=True))
    return table


def read_pointing(path: Path, names: Sequence[str]) -> AntennaBeams:
    """Read offsets as :func:`pointing_report` has them, for the antennas of an observation.

    Parameters
    ----------
    path : Path
        ECSV file.
    names : sequence of str
        Antennas; one that the file does not list, or has no offset of, is taken to point where it should, and
        is not known.

    Returns
    -------
    AntennaBeams

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, lists none of the antennas, or has an offset that is none.
    """
    try:
        table = Table.read(path, format="ascii.ecsv")
        of = {str(row["antenna"]): (float(row["east_deg"]), float(row["north_deg"])) for row in table}
        squint = np.array([float(table.meta.get(name, 0.0)) for name in SQUINT])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no table of pointing offsets: {reason}", path, "give pointing.ecsv of a run"
        ) from error
    if not set(of) & set(names):
        raise InputError(
            "none of the antennas is in it", path, "give that of an observation of the same array"
        )
    listed = np.array([of.get(name, (np.nan, np.nan)) for name in names])
    offset = np.nan_to_num(listed)
    if not (np.abs(offset).max() < 10 and np.abs(squint).max() < 10):
        raise InputError("offsets of more than 10 deg", path, "give pointing.ecsv of a run")
    return AntennaBeams(
        offset_rad=np.radians(offset),
        known=np.isfinite(listed).all(axis=1),
        squint_rad=np.radians(squint) if squint.any() else None,
    )
