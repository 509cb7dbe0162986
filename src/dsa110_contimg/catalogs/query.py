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
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Column, Table

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs.choice import choose_pair, choose_survey, surveys_built
from dsa110_contimg.catalogs.cone_coverage import Cover, bounding_box, coverage_remedy, not_covered
from dsa110_contimg.catalogs.healpix import cells_in_cone
from dsa110_contimg.catalogs.merge import LARGEST_RADIUS_DEG, Columns, merge_surveys
from dsa110_contimg.catalogs.strips import (
    STRIP_EDGES,
    StripInfo,
    default_catalog_dir,
    open_strip,
    read_strip_info,
    strip_path,
    strip_paths,
)
from dsa110_contimg.catalogs.surveys import CHOICES, SURVEYS, Survey, survey_named
from dsa110_contimg.errors import (
    CatalogCoverageError,
    CatalogFormatError,
    CatalogMissingError,
    InputError,
)
from dsa110_contimg.sphere import separation_deg

__all__ = [
    "cover_of",
    "query_cone",
    "query_first_sources",
    "query_listed",
    "query_merged_nvss_first_sources",
    "query_nvss_sources",
    "require_strips",
]


#: Strips kept open in each thread: all of a few surveys.
OPEN_STRIPS = 64


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
    *,
    freq_hz: float | None = None,
    required_deg: float | None = None,
    spectral_index: float = -0.75,
) -> Table:
    """Return the sources of a catalogue in a cone, brightest first.

    Parameters
    ----------
    catalog : str
        Name of a survey; ``"merged"`` (see `dsa110_contimg.catalogs.merge`); or ``"auto"``, the survey that
        fits the frequency best (see `dsa110_contimg.catalogs.choice`).
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
    freq_hz : float, optional
        Frequency in hertz by which ``"auto"`` and ``"merged"`` choose; without it ``"merged"`` is NVSS with
        FIRST, and ``"auto"`` chooses for 1.4 GHz. Fluxes are those of the survey all the same.
    required_deg : float, optional
        Radius about the centre that has to be covered where the coverage of the strips was declared: the
        cone is cut to it. The whole cone if not given, and where it was not declared.
    spectral_index : float
        Carries fluxes between the frequencies of two merged surveys.

    Returns
    -------
    Table
        Shape (n_sources,): ``source_id``, the columns of `dsa110_contimg.catalogs.column_families` with their
        units, and ``separation_deg`` from the centre. ``meta`` holds ``catalog`` (the survey chosen, or
        ``"merged"``), ``surveys`` (whose fluxes, and whose positions if others), ``freq_hz`` (of the fluxes),
        ``catalog_hash`` (SHA-256 over the names and source hashes of the strips used), ``n_strips``,
        ``strips`` (file names), ``faintest_mjy`` (of these strips), ``notes`` (what to know of the rows), the
        parameters of the query and, where there was a choice, ``choice``: why; for ``"merged"`` also
        ``first_fraction`` (or that of another survey), how much of the cone the sharper one covers.

    Raises
    ------
    CatalogMissingError
        No strip of this catalogue is in the directory.
    CatalogCoverageError
        Any part of the cone, or of ``required_deg``, is not covered; of ``"merged"``, by the survey of the
        fluxes.
    CatalogFormatError
        A strip is damaged.
    InputError
        An argument is out of range.
    """
    if catalog not in CHOICES:
        raise InputError(f"unknown catalogue {catalog!r}", remedy=f"known: {', '.join(CHOICES)}")
    ra_deg = _checked(ra_deg, dec_deg, radius_deg, min_flux_mjy, max_sources)
    directory = Path(catalog_dir or default_catalog_dir())
    required = (radius_deg, radius_deg if required_deg is None else min(required_deg, radius_deg))
    extra: dict[str, Any] = {}
    base, sharp, reason = _chosen(catalog, ra_deg, dec_deg, required, directory, freq_hz)
    if sharp is not None:
        # Components of sources just inside the rim may lie outside, and the other way round.
        wide = min(90.0, radius_deg + LARGEST_RADIUS_DEG)
        rows, strips = _rows_in_cone(base, ra_deg, dec_deg, wide, directory, required=required)
        components, others = _rows_in_cone(sharp, ra_deg, dec_deg, wide, directory, required=None)
        cover = Cover(tuple(others))
        rows = merge_surveys(base, sharp, rows, components, cover, spectral_index)
        strips = strips + others
        extra[f"{sharp.name}_fraction"] = cover.fraction(ra_deg, dec_deg, radius_deg)
    else:
        rows, strips = _rows_in_cone(base, ra_deg, dec_deg, radius_deg, directory, required=required)
    if reason:
        extra["choice"] = reason
    table = _cut(rows, ra_deg, dec_deg, radius_deg, min_flux_mjy, max_sources)
    faintest = min((info.faintest_mjy for info in strips if info.n_sources), default=math.nan)
    notes = sorted({note for info in strips for note in info.notes})
    if min_flux_mjy is not None and min_flux_mjy < faintest:
        notes.append(
            f"a limit of {min_flux_mjy:g} mJy selects every row: the faintest of these strips has "
            f"{faintest:.3g} mJy"
        )
    table.meta.update(
        catalog=catalog if catalog == "merged" else base.name,
        surveys=[base.name, *([sharp.name] if sharp else [])],
        freq_hz=base.freq_hz,
        catalog_hash=_hash_of(strips),
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
        One of `CHOICES`; of "merged", two have to be there.
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
    built = [survey.name for survey in surveys_built(directory)]
    needed: tuple[str, ...] = (catalog,)
    if catalog == "auto":
        needed = tuple(built) or ("nvss",)
    elif catalog == "merged":
        needed = tuple(built) if len(built) > 1 else ("nvss", "first")
    for name in needed:
        strips = strip_paths(directory, name)
        if not strips:
            raise _no_strips(name, directory)
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
    required: tuple[float, float] | None,
) -> tuple[Columns, list[StripInfo]]:
    """Return the rows of the cells that a cone touches, and the strips used.

    A cone of the first radius of ``required`` about the same centre must be covered, or of the second where
    coverage was declared; None: nothing must, so long as the catalogue has any strip.
    """
    cells = cells_in_cone(ra_deg, dec_deg, radius_deg)
    strips, without = _strips_of_cone(survey, ra_deg, dec_deg, radius_deg, directory)
    infos = [strip.info for strip in strips]
    if required is not None:
        missing = _lacking(survey, ra_deg, dec_deg, required, infos, without)
        if missing:
            enough = required[Cover(tuple(infos)).declared]
            raise CatalogCoverageError(
                f"the cone of {enough:g} deg about RA {ra_deg:.4f} Dec {dec_deg:.4f} is not covered: "
                + ", ".join(missing),
                directory.absolute(),
                coverage_remedy(survey, bounding_box(ra_deg, dec_deg, radius_deg)),
            )
    names = ["source_id", *survey.units]
    rows = np.concatenate([np.zeros((0, len(names))), *(strip.read(cells) for strip in strips)])
    units = {"source_id": None, **survey.units}
    return {name: (rows[:, k], units[name]) for k, name in enumerate(names)}, infos


def _strips_of_cone(
    survey: Survey, ra_deg: float, dec_deg: float, radius_deg: float, directory: Path
) -> tuple[list[_Strip], list[int]]:
    """Return the strips that a cone touches, from south to north, and the numbers of those not there."""
    cone = bounding_box(ra_deg, dec_deg, radius_deg)
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
    return strips, without


def _lacking(
    survey: Survey,
    ra_deg: float,
    dec_deg: float,
    required: tuple[float, float],
    infos: list[StripInfo],
    without: list[int],
) -> list[str]:
    """Describe what strips lack: what was declared to end is cut there, what merely ends is refused."""
    enough = required[Cover(tuple(infos)).declared]
    return not_covered(survey, ra_deg, dec_deg, enough, infos, without)


def query_listed(
    catalog: str, ra_deg: float, dec_deg: float, radius_deg: float, catalog_dir: str | Path | None = None
) -> Table:
    """Return whatever of a cone (degrees) a survey's strips list, covered or not, as `query_cone` does."""
    directory = Path(catalog_dir or default_catalog_dir())
    ra_deg = _checked(ra_deg, dec_deg, radius_deg, None, None)
    survey = survey_named(catalog)
    rows, strips = _rows_in_cone(survey, ra_deg, dec_deg, radius_deg, directory, required=None)
    table = _cut(rows, ra_deg, dec_deg, radius_deg, None, None)
    table.meta["catalog_hash"] = _hash_of(strips)
    return table


def _hash_of(strips: list[StripInfo]) -> str:
    fingerprint = "\n".join(f"{info.path.name}:{info.source_sha256}" for info in strips)
    return hashlib.sha256(fingerprint.encode()).hexdigest()


def cover_of(
    catalog: str, ra_deg: float, dec_deg: float, radius_deg: float, catalog_dir: str | Path | None = None
) -> Cover:
    """Return what of a cone (degrees) a survey's strips cover.

    Raises
    ------
    CatalogMissingError
        No strip of this survey is in the directory.
    CatalogFormatError
        A strip is damaged.
    """
    directory = Path(catalog_dir or default_catalog_dir())
    strips, _ = _strips_of_cone(survey_named(catalog), ra_deg % 360.0, dec_deg, radius_deg, directory)
    return Cover(tuple(strip.info for strip in strips))


def _chosen(
    catalog: str,
    ra_deg: float,
    dec_deg: float,
    required: tuple[float, float],
    directory: Path,
    freq_hz: float | None,
) -> tuple[Survey, Survey | None, str]:
    """Say whose fluxes are taken, whose positions if others, and why where that was a choice."""
    if catalog in SURVEYS:
        return SURVEYS[catalog], None, ""
    if catalog == "merged" and freq_hz is None:
        return SURVEYS["nvss"], SURVEYS["first"], ""
    frequency = SURVEYS["nvss"].freq_hz if freq_hz is None else freq_hz
    radius_deg = required[0]

    def lacks(survey: Survey) -> list[str]:
        strips, without = _strips_of_cone(survey, ra_deg, dec_deg, radius_deg, directory)
        return _lacking(survey, ra_deg, dec_deg, required, [strip.info for strip in strips], without)

    def overlap(survey: Survey) -> float:
        return cover_of(survey.name, ra_deg, dec_deg, radius_deg, directory).fraction(
            ra_deg, dec_deg, radius_deg
        )

    built = surveys_built(directory)
    if catalog == "auto":
        survey, reason = choose_survey(built, frequency, lacks, directory)
        return survey, None, reason
    return choose_pair(built, frequency, lacks, overlap, directory)


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


def _cut(
    columns: Columns,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    min_flux_mjy: float | None,
    max_sources: int | None,
) -> Table:
    """Cut the rows to the cone exactly, sort them by flux, and only then limit their number."""
    separation = separation_deg(ra_deg, dec_deg, columns["ra_deg"][0], columns["dec_deg"][0])
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
