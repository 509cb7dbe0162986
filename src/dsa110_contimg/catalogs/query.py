"""Cone search over the strips: exact, and refused where the strips do not cover the cone."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import threading
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Column, Table

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs.coverage import Coverage, Footprint
from dsa110_contimg.catalogs.healpix import cells_in_cone, cells_near
from dsa110_contimg.catalogs.merge import LARGEST_RADIUS_DEG, Columns, merge_nvss_first
from dsa110_contimg.catalogs.strips import (
    STRIP_EDGES,
    StripInfo,
    default_catalog_dir,
    open_strip,
    read_strip_info,
    strip_path,
    strip_paths,
)
from dsa110_contimg.catalogs.surveys import CATALOGS, SURVEYS, Survey
from dsa110_contimg.errors import (
    CatalogCoverageError,
    CatalogFormatError,
    CatalogMissingError,
    InputError,
)

__all__ = [
    "query_cone",
    "query_first_sources",
    "query_merged_nvss_first_sources",
    "query_nvss_sources",
    "require_strips",
]


#: Slack (deg) for rounding in the comparison of edges; a ten-thousandth of the best position error in NVSS.
EDGE_TOLERANCE_DEG = 1e-8

#: Strips kept open in each thread: all of two surveys.
OPEN_STRIPS = 40


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


def query_first_sources(
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    min_flux_mjy: float | None = None,
    max_sources: int | None = None,
    *,
    catalog_dir: str | Path | None = None,
) -> Table:
    """Return the FIRST components in a cone: `query_cone` on the catalogue ``"first"``."""
    return query_cone("first", ra_deg, dec_deg, radius_deg, min_flux_mjy, max_sources, catalog_dir)


def query_merged_nvss_first_sources(
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    min_flux_mjy: float | None = None,
    max_sources: int | None = None,
    *,
    catalog_dir: str | Path | None = None,
) -> Table:
    """Return NVSS with FIRST's components in its place: `query_cone` on the catalogue ``"merged"``."""
    return query_cone("merged", ra_deg, dec_deg, radius_deg, min_flux_mjy, max_sources, catalog_dir)


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
        ``"nvss"``, ``"first"`` or ``"merged"`` (see `dsa110_contimg.catalogs.merge`).
    ra_deg, dec_deg : float
        Centre, ICRS degrees; RA from -360 to 360.
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
        Shape (n_sources,): ``source_id``, the columns of `dsa110_contimg.catalogs.column_families` with their
        units, and ``separation_deg`` from the centre. ``meta`` holds ``catalog``, ``catalog_hash`` (SHA-256
        over the names and source hashes of the strips used), ``n_strips``, ``strips`` (file names),
        ``faintest_mjy`` (of these strips), ``notes`` (what to know of the rows) and the parameters of the
        query; for ``"merged"`` also
        ``first_fraction``, how much of the cone FIRST covers.

    Raises
    ------
    CatalogMissingError
        No strip of this catalogue is in the directory.
    CatalogCoverageError
        Any part of the cone is not covered; of ``"merged"``, by NVSS.
    CatalogFormatError
        A strip is damaged.
    InputError
        An argument is out of range.
    """
    if catalog not in CATALOGS:
        raise InputError(f"unknown catalogue {catalog!r}", remedy=f"known: {', '.join(CATALOGS)}")
    ra_deg = _checked(ra_deg, dec_deg, radius_deg, min_flux_mjy, max_sources)
    directory = Path(catalog_dir or default_catalog_dir())
    extra = {}
    if catalog == "merged":
        # FIRST components of sources just inside the rim may lie outside, and the other way round.
        wide = min(90.0, radius_deg + LARGEST_RADIUS_DEG)
        rows, strips = _rows_in_cone(SURVEYS["nvss"], ra_deg, dec_deg, wide, directory, required=radius_deg)
        components, others = _rows_in_cone(SURVEYS["first"], ra_deg, dec_deg, wide, directory, required=None)
        footprint = _footprint(others)
        rows = merge_nvss_first(rows, components, footprint)
        strips = strips + others
        extra["first_fraction"] = footprint.fraction(ra_deg, dec_deg, radius_deg)
    else:
        rows, strips = _rows_in_cone(
            SURVEYS[catalog], ra_deg, dec_deg, radius_deg, directory, required=radius_deg
        )
    table = _cut(rows, ra_deg, dec_deg, radius_deg, min_flux_mjy, max_sources)
    fingerprint = "\n".join(f"{info.path.name}:{info.source_sha256}" for info in strips)
    faintest = min((info.faintest_mjy for info in strips if info.n_sources), default=math.nan)
    notes = sorted({note for info in strips for note in info.notes})
    if min_flux_mjy is not None and min_flux_mjy < faintest:
        notes.append(
            f"a limit of {min_flux_mjy:g} mJy selects every row: the faintest of these strips has "
            f"{faintest:.3g} mJy"
        )
    table.meta.update(
        catalog=catalog,
        catalog_hash=hashlib.sha256(fingerprint.encode()).hexdigest(),
        n_strips=len(strips),
        strips=[info.path.name for info in strips],
        faintest_mjy=faintest,
        notes=notes,
        ra_deg=ra_deg,
        dec_deg=float(dec_deg),
        radius_deg=float(radius_deg),
        min_flux_mjy=min_flux_mjy,
        max_sources=max_sources,
        **extra,
    )
    return table


def require_strips(catalog: str, catalog_dir: str | Path | None = None) -> None:
    """Raise if no observation could be seeded from a catalogue: it is not there, or a strip of it is damaged.

    Parameters
    ----------
    catalog : str
        One of `CATALOGS`; of "merged", both have to be there.
    catalog_dir : str or Path, optional
        `default_catalog_dir` if not given.

    Raises
    ------
    CatalogMissingError
        No strip is there.
    CatalogFormatError
        A strip is damaged.
    """
    directory = Path(catalog_dir or default_catalog_dir())
    for needed in ("nvss", "first") if catalog == "merged" else (catalog,):
        strips = strip_paths(directory, needed)
        if not strips:
            raise _no_strips(needed, directory)
        for path in strips:
            read_strip_info(path)


def _no_strips(catalog: str, directory: Path) -> CatalogMissingError:
    return CatalogMissingError(
        f"no strip of catalogue {catalog} is there",
        directory.absolute(),
        f"run `contimg catalog build {catalog} SOURCE --catalog-dir {directory}`",
    )


def _rows_in_cone(
    survey: Survey,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    directory: Path,
    *,
    required: float | None,
) -> tuple[Columns, list[StripInfo]]:
    """Return the rows of the cells that a cone touches, and the strips used.

    A cone of the radius ``required`` about the same centre must be covered; None: nothing must, so long as
    the catalogue has any strip.
    """
    cone = _bounding_box(ra_deg, dec_deg, radius_deg)
    cells = cells_in_cone(ra_deg, dec_deg, radius_deg)
    strips: list[_Strip] = []
    without: list[int] = []
    for number, (low, high) in enumerate(pairwise(STRIP_EDGES)):
        if low > cone.dec_max or high < cone.dec_min:
            continue
        strip = _open(strip_path(directory, survey.name, number))
        if strip is None:
            without.append(number)
        else:
            strips.append(strip)
    if not strips and not any(directory.glob(f"{survey.name}_dec*.sqlite3")):
        raise _no_strips(survey.name, directory)
    infos = [strip.info for strip in strips]
    if required is not None:
        missing = _missing(_bounding_box(ra_deg, dec_deg, required), infos, without)
        footprint = _footprint(infos) if survey.irregular else None
        if not missing and footprint is not None:
            reach = math.degrees(math.sqrt(4 * math.pi / 12) / footprint.nside)
            wanted = cells_near(ra_deg, dec_deg, min(180.0, required + reach), footprint.nside)
            outside = ~np.isin(wanted, footprint.cells)
            if outside.any():
                missing = [
                    f"{100 * outside.mean():.0f} % of it or its rim lie outside the survey's footprint"
                ]
        if missing:
            raise CatalogCoverageError(
                f"the cone of {required:g} deg about RA {ra_deg:.4f} Dec {dec_deg:.4f} is not covered: "
                + ", ".join(missing),
                directory.absolute(),
                _coverage_remedy(survey, cone),
            )
    names = ["source_id", *survey.units]
    rows = np.concatenate([np.zeros((0, len(names))), *(strip.read(cells) for strip in strips)])
    units = {"source_id": None, **survey.units}
    return {name: (rows[:, k], units[name]) for k, name in enumerate(names)}, infos


def _footprint(strips: list[StripInfo]) -> Footprint:
    """Join the footprints of neighbouring strips."""
    parts = [strip.footprint for strip in strips if strip.footprint is not None]
    if not parts:
        return Footprint(1, ())
    nside = parts[0].nside
    cells = np.unique(np.concatenate([part.cells for part in parts if part.nside == nside]))
    return Footprint.from_cells(nside, cells)


class _Strip:
    """A strip kept open for reading."""

    def __init__(self, path: Path, stamp: tuple[int, ...]) -> None:
        self.path, self.stamp = path, stamp
        self.database = open_strip(path)
        try:
            self.info = read_strip_info(path, self.database)
            (columns,) = self.database.execute("SELECT value FROM meta WHERE key = 'cell_columns'").fetchone()
            self.width = len(json.loads(columns))
        except (sqlite3.Error, TypeError, ValueError) as error:
            self.database.close()
            raise _unreadable(path) from error
        except CatalogFormatError:
            self.database.close()
            raise

    def read(self, ranges: list[list[int]]) -> Float:
        """Return the rows in ranges of cells, shape (n, number of columns)."""
        query = (
            f"WITH wanted(first, last) AS (VALUES {', '.join(['(?, ?)'] * len(ranges))}) "
            "SELECT rows FROM wanted CROSS JOIN cells WHERE cell >= first AND cell < last"
        )
        try:
            found = self.database.execute(query, [end for pair in ranges for end in pair])
            return np.frombuffer(b"".join([block for (block,) in found]), "<f8").reshape(-1, self.width)
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise _unreadable(self.path) from error


_threads = threading.local()


def _open(path: Path) -> _Strip | None:
    """Return a strip, still open from before unless its file has changed; None if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CatalogFormatError(
            f"cannot be read ({error.strerror})", path, "check its permissions"
        ) from error
    # A connection must not be carried into a forked process.
    stamp = (os.getpid(), stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    strips: OrderedDict[Path, _Strip] = _threads.__dict__.setdefault("strips", OrderedDict())
    key = path.absolute()
    strip = strips.get(key)
    if strip is None or strip.stamp != stamp:
        if strip is not None and strip.stamp[0] == os.getpid():
            strip.database.close()
        strip = strips[key] = _Strip(path, stamp)
    strips.move_to_end(key)
    while len(strips) > OPEN_STRIPS:
        strips.popitem(last=False)[1].database.close()
    return strip


def _unreadable(path: Path) -> CatalogFormatError:
    return CatalogFormatError(
        "is not a readable catalogue strip", path, "delete it and run `contimg catalog build` again"
    )


def _checked(
    ra_deg: float, dec_deg: float, radius_deg: float, min_flux_mjy: float | None, max_sources: int | None
) -> float:
    """Refuse arguments that make no cone; return the right ascension in [0, 360)."""
    if not -360.0 <= ra_deg <= 360.0:
        raise InputError(f"the right ascension is {ra_deg}", "ra_deg", "give degrees from -360 to 360")
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


def _missing(cone: Coverage, strips: list[StripInfo], without: list[int]) -> list[str]:
    """Describe what of a box the strips do not cover, from south to north."""
    by_edge: dict[float, Coverage | None] = {STRIP_EDGES[number]: None for number in without}
    for info in strips:
        low = max(edge for edge in STRIP_EDGES if edge <= max(info.dec_min, STRIP_EDGES[0]))
        # An irregular survey is judged by its map.
        whole = Coverage(0.0, 360.0, -90.0, 90.0)
        by_edge[low] = info.coverage if info.footprint is None else whole
    missing = []
    for low, high in pairwise(STRIP_EDGES):
        if low in by_edge and low <= cone.dec_max and high >= cone.dec_min:
            part = Coverage(cone.ra_min, cone.ra_max, max(low, cone.dec_min), min(high, cone.dec_max))
            missing += _not_covered(part, by_edge[low])
    return missing


def _coverage_remedy(survey: Survey, cone: Coverage) -> str:
    remedy = (
        f"build it with `contimg catalog build {survey.name} SOURCE` from a file that covers it, "
        "or ask for less"
    )
    if cone.dec_min < survey.dec_min:
        remedy += f" (the survey ends at Dec {survey.dec_min:g})"
    return remedy


def _cut(
    columns: Columns,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    min_flux_mjy: float | None,
    max_sources: int | None,
) -> Table:
    """Cut the rows to the cone exactly, sort them by flux, and only then limit their number."""
    separation = _separation(ra_deg, dec_deg, columns["ra_deg"][0], columns["dec_deg"][0])
    flux, identifier = columns["flux_mjy"][0], columns["source_id"][0]
    inside = np.flatnonzero(separation <= radius_deg)
    if min_flux_mjy is not None:
        inside = inside[flux[inside] >= min_flux_mjy]
    chosen = inside[np.lexsort((identifier[inside], -flux[inside]))][:max_sources]
    integers = [name for name in columns if name.endswith("_id") or name.startswith("n_")]
    cut = [
        Column(values[chosen].astype(np.int64) if name in integers else values[chosen], name, unit=unit)
        for name, (values, unit) in columns.items()
    ]
    return Table([*cut, Column(separation[chosen], "separation_deg", unit=u.deg)], copy=False)


def _separation(ra0_deg: float, dec0_deg: float, ra_deg: Float, dec_deg: Float) -> Float:
    """Return great-circle distances in degrees (haversine, exact for small distances)."""
    dec0, dec = math.radians(dec0_deg), np.radians(dec_deg)
    across = np.sin(np.radians(ra_deg - ra0_deg) / 2.0) ** 2
    haversine = np.sin((dec - dec0) / 2.0) ** 2 + math.cos(dec0) * np.cos(dec) * across
    return np.array(np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(haversine, 0.0, 1.0)))))
