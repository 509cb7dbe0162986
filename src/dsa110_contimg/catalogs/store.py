"""The strip store: one SQLite file per declination strip, each knowing what it covers.

Strips are 12 degrees wide, half-open in declination and named by their centre (``nvss_dec+55.0.sqlite3`` is
Dec +49 to +61); the polar caps are narrower. A strip file is written once, under a temporary name, and then
renamed, so that any file with a strip's name is complete.

Coverage
--------
A catalogue file holds sources, not the outline of the sky it was cut from; yet a cone answered from beyond
that outline would be an empty sky that is not empty. So the outline, taken as an interval in RA times one in
Dec, is inferred when the file is built:

* **RA**: sorted on the circle, n sources of one survey leave gaps with a nearly exponential distribution of
  mean s, and the largest of n gaps exceeds s (ln n + 10) by chance once in e^10 = 22,000 catalogues. If the
  largest gap is wider than that (and than 1 deg), or wider than 30 deg, it is the part that the file does
  not hold, and the coverage is its complement. Otherwise the whole circle is covered.
* **Dec**: the same in sin(Dec), in which equal steps have equal areas, between the southernmost and the
  northernmost source. A pole is reached if what is left up to it, less than 2 deg, would hold no more than
  5 sources.
* Each end is extended by one mean gap s (at most 1 deg), which is how far the outermost source of a random
  sample lies from the edge on average.
* A second implausible gap in either coordinate means several regions in one file, for which one outline
  would be a lie: the file is refused.

NVSS ends at Dec -40; its ragged rim of fields just south of that is not counted as covered. A file that
reaches more than a degree further south is evidently something else, and is taken at its word. A file that
declares its coverage (see `dsa110_contimg.catalogs.formats`) is believed without these tests.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.catalogs.formats import COLUMN_UNITS, read_catalog
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, InputError, ResourceError

__all__ = [
    "CATALOG_FLOORS",
    "STRIP_EDGES",
    "BuildReport",
    "Coverage",
    "StripInfo",
    "build_strips",
    "catalog_info",
    "check_catalog",
    "default_catalog_dir",
    "measure_coverage",
    "open_strip",
    "read_strip_info",
    "strip_path",
]

#: Declinations (deg) that bound the strips.
STRIP_EDGES: tuple[float, ...] = (-90.0, *(float(edge) for edge in range(-83, 74, 12)), 85.0, 90.0)

#: The known catalogues and the declination (deg) at which each survey ends in the south.
CATALOG_FLOORS: dict[str, float] = {"nvss": -40.0}

FORMAT_VERSION = 1
LARGEST_RA_GAP_DEG = 30.0
SMALLEST_GAP_DEG = 1.0
GAP_MARGIN = 10.0
POLE_REACH_DEG = 2.0
POLE_SOURCES = 5.0
FLOOR_RIM_DEG = 1.0
STALE_SECONDS = 86400.0

_SCHEMA = """
CREATE TABLE sources(source_id INTEGER PRIMARY KEY, ra_deg REAL, dec_deg REAL, flux_mjy REAL,
    flux_err_mjy REAL, major_arcsec REAL, minor_arcsec REAL, pa_deg REAL);
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT);
"""


@dataclass(frozen=True)
class Coverage:
    """A piece of sky: an interval in RA times one in Dec.

    Attributes
    ----------
    ra_min, ra_max : float
        Degrees; the interval runs eastwards from ``ra_min``, through 0h where ``ra_max < ra_min``. The whole
        circle is 0 to 360.
    dec_min, dec_max : float
        Degrees.
    """

    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    @property
    def ra_width(self) -> float:
        """Length of the RA interval, in degrees."""
        width = self.ra_max - self.ra_min
        return width if 0.0 <= width <= 360.0 else width % 360.0


@dataclass(frozen=True)
class StripInfo:
    """What one strip file says of itself.

    Attributes
    ----------
    path : Path
    catalog : str
    dec_min, dec_max, ra_min, ra_max : float
        Covered part of the sky in degrees, as in `Coverage`.
    n_sources : int
    faintest_mjy : float
        Flux density of the faintest source, NaN in a strip without sources.
    source_name, source_sha256 : str
        The catalogue file that it was built from.
    build_time : str
        UTC, ISO 8601.
    source_coverage : Coverage
        What that file covers as a whole.
    """

    path: Path
    catalog: str
    dec_min: float
    dec_max: float
    ra_min: float
    ra_max: float
    n_sources: int
    faintest_mjy: float
    source_name: str
    source_sha256: str
    build_time: str
    source_coverage: Coverage

    @property
    def coverage(self) -> Coverage:
        """The part of the sky that this strip covers."""
        return Coverage(self.ra_min, self.ra_max, self.dec_min, self.dec_max)


@dataclass(frozen=True)
class BuildReport:
    """Outcome of `build_strips`.

    Attributes
    ----------
    catalog : str
    source : Path
    source_sha256 : str
    built, kept : tuple of StripInfo
        Strips written now, and strips that already held the same.
    coverage : Coverage
        Covered part of the sky, over all these strips.
    n_sources : int
        Sources in all these strips.
    seconds : float
    """

    catalog: str
    source: Path
    source_sha256: str
    built: tuple[StripInfo, ...]
    kept: tuple[StripInfo, ...]
    coverage: Coverage
    n_sources: int
    seconds: float


def default_catalog_dir() -> Path:
    """Return the directory of the strips: ``CONTIMG_CATALOG_DIR``, else ``state/catalogs``."""
    return Path(os.environ.get("CONTIMG_CATALOG_DIR") or Path("state", "catalogs"))


def check_catalog(catalog: str) -> None:
    """Raise `InputError` if ``catalog`` is not the name of a known catalogue."""
    if catalog not in CATALOG_FLOORS:
        raise InputError(f"unknown catalogue {catalog!r}", remedy=f"known: {', '.join(CATALOG_FLOORS)}")


def strip_path(catalog_dir: Path, catalog: str, strip: int) -> Path:
    """Return the file of strip number ``strip`` (between edges ``strip`` and ``strip + 1``)."""
    centre = (STRIP_EDGES[strip] + STRIP_EDGES[strip + 1]) / 2.0
    return catalog_dir / f"{catalog}_dec{centre:+.1f}.sqlite3"


def measure_coverage(ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> Coverage:
    """Infer the piece of sky that a list of positions was cut from.

    Parameters
    ----------
    ra_deg, dec_deg : ndarray, shape (n,)
        Degrees; n at least 1.

    Returns
    -------
    Coverage
        By the method in the docstring of this module. A single source covers nothing but itself.

    Raises
    ------
    CatalogFormatError
        The positions lie in more than one region.
    """
    ra_min, ra_max = _ra_interval(np.sort(ra_deg % 360.0))
    dec_min, dec_max = _dec_interval(np.sort(dec_deg))
    return Coverage(ra_min, ra_max, dec_min, dec_max)


def _ra_interval(ra: NDArray[np.float64]) -> tuple[float, float]:
    n = len(ra)
    if n == 1:
        return float(ra[0]), float(ra[0])
    gaps = np.diff(ra, append=ra[0] + 360.0)
    widest = int(gaps.argmax())
    spacing = (360.0 - gaps[widest]) / (n - 1)
    plausible = max(SMALLEST_GAP_DEG, spacing * (np.log(n) + GAP_MARGIN))
    if gaps[widest] <= min(plausible, LARGEST_RA_GAP_DEG):
        return 0.0, 360.0
    first, last = (widest + 1) % n, widest
    others = np.delete(gaps, widest)
    if others.max() > plausible:
        start = ra[int(np.flatnonzero(gaps == others.max())[0])]
        _refuse_hole("RA", float(start), float(start + others.max()))
    pad = min(spacing, SMALLEST_GAP_DEG)
    return float((ra[first] - pad) % 360.0), float((ra[last] + pad) % 360.0)


def _dec_interval(dec: NDArray[np.float64]) -> tuple[float, float]:
    n = len(dec)
    if n == 1:
        return float(dec[0]), float(dec[0])
    height = np.sin(np.radians(dec))
    spacing = (height[-1] - height[0]) / (n - 1)
    hole = (np.diff(height) > spacing * (np.log(n) + GAP_MARGIN)) & (np.diff(dec) > SMALLEST_GAP_DEG)
    if hole.any():
        start = int(hole.argmax())
        _refuse_hole("Dec", float(dec[start]), float(dec[start + 1]))

    def northern_end(edge: float) -> float:
        """Return the northern end of a catalogue whose northernmost source is at ``edge``."""
        sine = np.sin(np.radians(edge))
        if 90.0 - edge < POLE_REACH_DEG and 1.0 - sine <= POLE_SOURCES * spacing:
            return 90.0
        padded = float(np.degrees(np.arcsin(min(1.0, sine + spacing))))
        return max(edge, min(padded, edge + SMALLEST_GAP_DEG))

    return -northern_end(-float(dec[0])), northern_end(float(dec[-1]))


def _refuse_hole(axis: str, start: float, end: float) -> None:
    raise CatalogFormatError(
        f"no source in {axis} {start:.2f} to {end:.2f} deg, too wide a hole to be sky",
        remedy="give one region per file, or declare its coverage in an ECSV header",
    )


def build_strips(
    catalog: str,
    source: str | Path,
    catalog_dir: str | Path | None = None,
    dec_range: tuple[float, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Build the strips of a catalogue from a catalogue file.

    Strips that were already built from the same file and cover what is wanted are left alone. Each of the
    others is written under a temporary name, read back, synced and renamed over the old one.

    Parameters
    ----------
    catalog : str
        ``"nvss"``.
    source : str or Path
        Catalogue file in any form that `dsa110_contimg.catalogs.formats` reads.
    catalog_dir : str or Path, optional
        Where the strips go; `default_catalog_dir` if not given.
    dec_range : tuple of float, optional
        Lowest and highest declination (deg) to take from the file.
    progress : callable, optional
        Called as ``progress(strips_done, strips_in_all)`` after each strip.

    Returns
    -------
    BuildReport

    Raises
    ------
    CatalogMissingError, CatalogFormatError
        The file is not there or does not fit.
    InputError
        An unknown catalogue, or a declination range that is not one or lies off the file.
    ResourceError
        The strips cannot be written.
    """
    started = time.monotonic()
    check_catalog(catalog)
    source, directory = Path(source), Path(catalog_dir or default_catalog_dir())
    low, high = dec_range or (-90.0, 90.0)
    if not -90.0 <= low < high <= 90.0:
        raise InputError(
            f"the declination range {low:g} to {high:g} is empty or outside -90..90", "dec_range"
        )
    digest = _sha256(source)
    existing = _strips_from(directory, catalog, digest)
    table: Table | None = None
    if existing:
        outline = next(iter(existing.values())).source_coverage
    else:
        table = read_catalog(source)
        outline = _outline(catalog, table, source)
    wanted: dict[int, Coverage] = {}
    for strip, (edge_low, edge_high) in enumerate(pairwise(STRIP_EDGES)):
        bottom, top = max(low, edge_low, outline.dec_min), min(high, edge_high, outline.dec_max)
        if bottom < top:
            wanted[strip] = Coverage(outline.ra_min, outline.ra_max, bottom, top)
    if not wanted:
        raise InputError(
            f"nothing to build: the file covers Dec {outline.dec_min:.2f} to {outline.dec_max:.2f}, "
            f"the range asked for is {low:g} to {high:g}",
            source,
            "widen the declination range, or declare the coverage in an ECSV header",
        )
    built, kept = [], []
    for done, (strip, coverage) in enumerate(wanted.items(), start=1):
        old = existing.get(strip)
        if old is not None and old.dec_min <= coverage.dec_min and old.dec_max >= coverage.dec_max:
            kept.append(old)
        else:
            if table is None:
                table = read_catalog(source)
            rows = _rows_between(table, max(low, STRIP_EDGES[strip]), min(high, STRIP_EDGES[strip + 1]))
            meta = {
                "catalog": catalog,
                **{key: repr(value) for key, value in asdict(coverage).items()},
                **{f"source_{key}": repr(value) for key, value in asdict(outline).items()},
                "n_sources": str(len(rows)),
                "faintest_mjy": repr(float(np.min(table["flux_mjy"][rows]))) if len(rows) else "nan",
                "source_name": source.name,
                "source_sha256": digest,
                "build_time": datetime.now(UTC).isoformat(timespec="seconds"),
                "format_version": str(FORMAT_VERSION),
            }
            built.append(_write_strip(strip_path(directory, catalog, strip), table, rows, meta))
        if progress is not None:
            progress(done, len(wanted))
    return BuildReport(
        catalog=catalog,
        source=source,
        source_sha256=digest,
        built=tuple(built),
        kept=tuple(kept),
        coverage=Coverage(
            outline.ra_min,
            outline.ra_max,
            min(c.dec_min for c in wanted.values()),
            max(c.dec_max for c in wanted.values()),
        ),
        n_sources=sum(info.n_sources for info in (*built, *kept)),
        seconds=time.monotonic() - started,
    )


def _rows_between(table: Table, low: float, high: float) -> NDArray[np.intp]:
    """Return the rows of a strip: half-open, so that a source on an edge is in one strip only."""
    dec = np.asarray(table["dec_deg"])
    below = dec < high if high in STRIP_EDGES[:-1] else dec <= high
    return np.flatnonzero((dec >= low) & below)


def _sha256(source: Path) -> str:
    try:
        with source.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise CatalogMissingError("no such catalogue file", source, "check the path") from None
    except IsADirectoryError:
        raise CatalogFormatError("is a directory, not a catalogue file", source) from None
    except OSError as error:
        raise ResourceError(f"cannot be read ({error.strerror})", source, "check its permissions") from error


def _strips_from(directory: Path, catalog: str, digest: str) -> dict[int, StripInfo]:
    """Return the usable strips, by number, that were built from the file with this hash."""
    found = {}
    for strip in range(len(STRIP_EDGES) - 1):
        path = strip_path(directory, catalog, strip)
        # A strip that cannot be read is rebuilt, which is the remedy anyway.
        with suppress(CatalogFormatError):
            if path.exists() and (info := read_strip_info(path)).source_sha256 == digest:
                found[strip] = info
    return found


def _outline(catalog: str, table: Table, source: Path) -> Coverage:
    if "coverage" in table.meta:
        return Coverage(**table.meta["coverage"])
    try:
        outline = measure_coverage(np.asarray(table["ra_deg"]), np.asarray(table["dec_deg"]))
    except CatalogFormatError as error:
        raise CatalogFormatError(error.what, source, error.remedy) from None
    floor = CATALOG_FLOORS[catalog]
    if floor - FLOOR_RIM_DEG <= outline.dec_min < floor < outline.dec_max:
        return Coverage(outline.ra_min, outline.ra_max, floor, outline.dec_max)
    return outline


def _write_strip(path: Path, table: Table, rows: NDArray[np.intp], meta: dict[str, str]) -> StripInfo:
    """Write one strip beside its final name, read it back, sync it and rename it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    # source_id is the row number in the file, from 1: unique over the strips, and traceable.
    columns = [(rows + 1).tolist(), *(np.asarray(table[name])[rows].tolist() for name in COLUMN_UNITS)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        with closing(sqlite3.connect(temporary, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.executescript(_SCHEMA)
            database.execute("BEGIN")
            database.executemany(
                "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?)", zip(*columns, strict=True)
            )
            database.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            # RA first: a cone spans a larger part of a strip's width in Dec than of the circle in RA.
            database.execute("CREATE INDEX sources_position ON sources(ra_deg, dec_deg)")
            database.execute("COMMIT")
        _verify(temporary, len(rows))
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise ResourceError(
            f"the strip cannot be written ({error})", path, "check free space and permissions"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return read_strip_info(path)


def _verify(path: Path, n_rows: int) -> None:
    with closing(open_strip(path)) as database:
        intact = database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        (count,) = database.execute("SELECT count(*) FROM sources").fetchone()
    if not intact or count != n_rows:
        raise OSError(f"read back {count} of {n_rows} rows")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    """Remove what killed builds of this strip left behind, once it is too old to be a build at work."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink()


def open_strip(path: Path) -> sqlite3.Connection:
    """Open a strip for reading.

    ``immutable`` lets it be read from a mount where no lock file can be made; it is safe because a strip file
    is never changed, only replaced as a whole.
    """
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def read_strip_info(path: Path, database: sqlite3.Connection | None = None) -> StripInfo:
    """Read what a strip says of itself.

    Parameters
    ----------
    path : Path
        The strip file.
    database : sqlite3.Connection, optional
        The strip, if it is open already.

    Returns
    -------
    StripInfo

    Raises
    ------
    CatalogFormatError
        Not a strip, damaged, or of another format version.
    """
    rebuild = "delete it and run `contimg catalog build` again"
    try:
        if database is None:
            with closing(open_strip(path)) as opened:
                meta = dict(opened.execute("SELECT key, value FROM meta"))
        else:
            meta = dict(database.execute("SELECT key, value FROM meta"))
        version = meta["format_version"]
        if version != str(FORMAT_VERSION):
            raise CatalogFormatError(f"is a strip of format {version}, not {FORMAT_VERSION}", path, rebuild)
        outline = Coverage(*(float(meta[f"source_{key}"]) for key in Coverage.__dataclass_fields__))
        return StripInfo(
            path=path,
            catalog=meta["catalog"],
            dec_min=float(meta["dec_min"]),
            dec_max=float(meta["dec_max"]),
            ra_min=float(meta["ra_min"]),
            ra_max=float(meta["ra_max"]),
            n_sources=int(meta["n_sources"]),
            faintest_mjy=float(meta["faintest_mjy"]),
            source_name=meta["source_name"],
            source_sha256=meta["source_sha256"],
            build_time=meta["build_time"],
            source_coverage=outline,
        )
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise CatalogFormatError("is not a readable catalogue strip", path, rebuild) from error


def catalog_info(catalog_dir: str | Path | None = None) -> list[StripInfo]:
    """List the strips in a directory, by catalogue and then from south to north.

    Parameters
    ----------
    catalog_dir : str or Path, optional
        `default_catalog_dir` if not given; a directory that does not exist has no strips.

    Returns
    -------
    list of StripInfo

    Raises
    ------
    CatalogFormatError
        A file has the name of a strip but is none.
    """
    directory = Path(catalog_dir or default_catalog_dir())
    paths = (
        strip_path(directory, catalog, strip)
        for catalog in CATALOG_FLOORS
        for strip in range(len(STRIP_EDGES) - 1)
    )
    return [read_strip_info(path) for path in paths if path.exists()]
