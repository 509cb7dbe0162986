"""Cone search over the strips: exact, and refused where the strips do not cover the cone."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.catalogs.formats import COLUMN_UNITS
from dsa110_contimg.catalogs.store import (
    CATALOG_FLOORS,
    STRIP_EDGES,
    Coverage,
    StripInfo,
    check_catalog,
    default_catalog_dir,
    open_strip,
    read_strip_info,
    strip_path,
)
from dsa110_contimg.errors import (
    CatalogCoverageError,
    CatalogFormatError,
    CatalogMissingError,
    InputError,
)

__all__ = ["query_cone", "query_nvss_sources"]

#: Slack (deg) for rounding in the comparison of edges; a ten-thousandth of the best position error in NVSS.
EDGE_TOLERANCE_DEG = 1e-8


def query_nvss_sources(
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    min_flux_mjy: float | None = None,
    max_sources: int | None = None,
    *,
    catalog_dir: str | Path | None = None,
) -> Table:
    """Return the NVSS sources in a cone: `query_cone` on the catalogue ``"nvss"``."""
    return query_cone("nvss", ra_deg, dec_deg, radius_deg, min_flux_mjy, max_sources, catalog_dir)


def query_cone(
    catalog: str,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    min_flux_mjy: float | None = None,
    max_sources: int | None = None,
    catalog_dir: str | Path | None = None,
) -> Table:
    """Return the sources of a catalogue in a cone, brightest first.

    Parameters
    ----------
    catalog : str
        ``"nvss"``.
    ra_deg, dec_deg : float
        Centre, ICRS degrees; RA is taken modulo 360.
    radius_deg : float
        Radius of the cone in degrees, above 0 and up to 90; a source at exactly this distance is inside.
    min_flux_mjy : float, optional
        Keep sources of at least this flux density.
    max_sources : int, optional
        Of the sources inside the cone, keep only so many of the brightest.
    catalog_dir : str or Path, optional
        Directory of the strips; `default_catalog_dir` if not given.

    Returns
    -------
    Table
        Shape (n_sources,): ``source_id``, the columns of `dsa110_contimg.catalogs.formats` with their units,
        and ``separation_deg`` from the centre. ``meta`` holds ``catalog``, ``catalog_hash`` (SHA-256 over the
        names and source hashes of the strips used), ``n_strips``, ``strips`` (file names),
        ``faintest_mjy`` (of these strips) and the parameters of the query.

    Raises
    ------
    CatalogMissingError
        No strip of this catalogue is in the directory.
    CatalogCoverageError
        Any part of the cone is not covered.
    CatalogFormatError
        A strip is damaged.
    InputError
        An argument is out of range.
    """
    check_catalog(catalog)
    ra_deg = _checked(ra_deg, dec_deg, radius_deg, min_flux_mjy, max_sources)
    directory = Path(catalog_dir or default_catalog_dir())
    cone = _bounding_box(ra_deg, dec_deg, radius_deg)
    missing: list[str] = []
    used: list[StripInfo] = []
    rows: list[tuple[Any, ...]] = []
    for strip, (low, high) in enumerate(pairwise(STRIP_EDGES)):
        if low > cone.dec_max or high < cone.dec_min:
            continue
        path = strip_path(directory, catalog, strip)
        part = Coverage(cone.ra_min, cone.ra_max, max(low, cone.dec_min), min(high, cone.dec_max))
        if path.exists():
            info, found = _read_strip(path, part, min_flux_mjy)
            missing += _not_covered(part, info.coverage)
            used.append(info)
            rows += found
        else:
            missing += _not_covered(part, None)
    if not used and not any(directory.glob(f"{catalog}_dec*.sqlite3")):
        raise CatalogMissingError(
            f"no strip of catalogue {catalog} is there",
            directory.absolute(),
            f"run `contimg catalog build {catalog} SOURCE --catalog-dir {directory}`",
        )
    if missing:
        raise CatalogCoverageError(
            f"the cone of {radius_deg:g} deg about RA {ra_deg:.4f} Dec {dec_deg:.4f} is not covered: "
            + ", ".join(missing),
            directory.absolute(),
            _coverage_remedy(catalog, cone),
        )
    table = _cut(rows, ra_deg, dec_deg, radius_deg, max_sources)
    fingerprint = "\n".join(f"{info.path.name}:{info.source_sha256}" for info in used)
    table.meta.update(
        catalog=catalog,
        catalog_hash=hashlib.sha256(fingerprint.encode()).hexdigest(),
        n_strips=len(used),
        strips=[info.path.name for info in used],
        faintest_mjy=min((info.faintest_mjy for info in used if info.n_sources), default=math.nan),
        ra_deg=ra_deg,
        dec_deg=float(dec_deg),
        radius_deg=float(radius_deg),
        min_flux_mjy=min_flux_mjy,
        max_sources=max_sources,
    )
    return table


def _checked(
    ra_deg: float, dec_deg: float, radius_deg: float, min_flux_mjy: float | None, max_sources: int | None
) -> float:
    """Refuse arguments that make no cone; return the right ascension in [0, 360)."""
    if not math.isfinite(ra_deg):
        raise InputError(f"the right ascension is {ra_deg}", "ra_deg", "give degrees")
    if not -90.0 <= dec_deg <= 90.0:
        raise InputError(f"the declination is {dec_deg}", "dec_deg", "give degrees from -90 to 90")
    if not 0.0 < radius_deg <= 90.0:
        raise InputError(f"the radius is {radius_deg}", "radius_deg", "give degrees above 0 and up to 90")
    if min_flux_mjy is not None and not math.isfinite(min_flux_mjy):
        raise InputError(f"the flux limit is {min_flux_mjy}", "min_flux_mjy", "give millijansky")
    if max_sources is not None and max_sources < 1:
        raise InputError(f"the largest number of sources is {max_sources}", "max_sources", "give 1 or more")
    return float(ra_deg) % 360.0 % 360.0  # twice, as -1e-20 % 360 is 360


def _bounding_box(ra_deg: float, dec_deg: float, radius_deg: float) -> Coverage:
    """Return the smallest box in RA and Dec that holds the cone."""
    low, high = dec_deg - radius_deg, dec_deg + radius_deg
    if low <= -90.0 + EDGE_TOLERANCE_DEG or high >= 90.0 - EDGE_TOLERANCE_DEG:  # the cone holds a pole
        return Coverage(0.0, 360.0, max(low, -90.0), min(high, 90.0))
    ratio = math.sin(math.radians(radius_deg)) / math.cos(math.radians(dec_deg))
    # The tangent meridian: asin(sin r / cos dec), which r / cos dec falls short of.
    half_width = math.degrees(math.asin(min(1.0, ratio)))
    return Coverage((ra_deg - half_width) % 360.0, (ra_deg + half_width) % 360.0, low, high)


def _not_covered(part: Coverage, covered: Coverage | None) -> list[str]:
    """Describe what of ``part`` is not covered; nothing where ``part`` only touches the strip."""
    dec = f"Dec {part.dec_min:.2f} to {part.dec_max:.2f}"
    if part.dec_max - part.dec_min <= EDGE_TOLERANCE_DEG:
        return []
    if covered is None:
        return [f"{dec} has no strip"]
    missing = []
    if covered.dec_min > part.dec_min + EDGE_TOLERANCE_DEG:
        missing.append(f"Dec {part.dec_min:.2f} to {min(covered.dec_min, part.dec_max):.2f} is missing")
    if covered.dec_max < part.dec_max - EDGE_TOLERANCE_DEG:
        missing.append(f"Dec {max(covered.dec_max, part.dec_min):.2f} to {part.dec_max:.2f} is missing")
    offset = (part.ra_min - covered.ra_min + EDGE_TOLERANCE_DEG) % 360.0
    if covered.ra_width < 360.0 and offset + part.ra_width > covered.ra_width + 2 * EDGE_TOLERANCE_DEG:
        missing.append(
            f"{dec} is there for RA {covered.ra_min:.2f} to {covered.ra_max:.2f} only, "
            f"not for all of {part.ra_min:.2f} to {part.ra_max:.2f}"
        )
    return missing


def _coverage_remedy(catalog: str, cone: Coverage) -> str:
    remedy = (
        f"build it with `contimg catalog build {catalog} SOURCE` from a file that covers it, or ask for less"
    )
    if cone.dec_min < CATALOG_FLOORS[catalog]:
        remedy += f" (the survey ends at Dec {CATALOG_FLOORS[catalog]:g})"
    return remedy


def _read_strip(
    path: Path, part: Coverage, min_flux_mjy: float | None
) -> tuple[StripInfo, list[tuple[Any, ...]]]:
    """Read the rows of one strip inside a box; the exact cut comes later, and so does any limit."""
    west, east = part.ra_min - EDGE_TOLERANCE_DEG, part.ra_min + part.ra_width + EDGE_TOLERANCE_DEG
    # A box across 0h is two ranges of RA, which the index answers separately.
    ranges = [(west, east)]
    if west < 0.0:
        ranges.append((west + 360.0, 360.0))
    if east > 360.0:
        ranges.append((0.0, east - 360.0))
    if part.ra_width >= 360.0:
        ranges = [(0.0, 360.0)]
    where = " OR ".join(["ra_deg BETWEEN ? AND ?"] * len(ranges))
    values = [value for pair in ranges for value in pair]
    query = (
        f"SELECT source_id, {', '.join(COLUMN_UNITS)} FROM sources "
        f"WHERE ({where}) AND dec_deg BETWEEN ? AND ? AND flux_mjy >= ?"
    )
    values += [part.dec_min - EDGE_TOLERANCE_DEG, part.dec_max + EDGE_TOLERANCE_DEG]
    values.append(-math.inf if min_flux_mjy is None else min_flux_mjy)
    try:
        with closing(open_strip(path)) as database:
            return read_strip_info(path, database), database.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise CatalogFormatError(
            "is not a readable catalogue strip", path, "delete it and run `contimg catalog build` again"
        ) from error


def _cut(
    rows: list[tuple[Any, ...]], ra_deg: float, dec_deg: float, radius_deg: float, max_sources: int | None
) -> Table:
    """Cut the rows to the cone exactly, sort them by flux, and only then limit their number."""
    identifiers = np.array([row[0] for row in rows], dtype=np.int64)
    values = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), len(COLUMN_UNITS))
    separation = _separation(ra_deg, dec_deg, values[:, 0], values[:, 1])
    inside = np.flatnonzero(separation <= radius_deg)
    flux = values[inside, list(COLUMN_UNITS).index("flux_mjy")]
    chosen = inside[np.lexsort((identifiers[inside], -flux))][:max_sources]
    columns: dict[str, Any] = {"source_id": identifiers[chosen]}
    for index, (name, unit) in enumerate(COLUMN_UNITS.items()):
        columns[name] = values[chosen, index] * unit
    columns["separation_deg"] = separation[chosen] * u.deg
    return Table(columns)


def _separation(
    ra0_deg: float, dec0_deg: float, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return great-circle distances in degrees (haversine, exact for small distances)."""
    dec0, dec = math.radians(dec0_deg), np.radians(dec_deg)
    across = np.sin(np.radians(ra_deg - ra0_deg) / 2.0) ** 2
    haversine = np.sin((dec - dec0) / 2.0) ** 2 + math.cos(dec0) * np.cos(dec) * across
    return np.array(np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(haversine, 0.0, 1.0)))))
