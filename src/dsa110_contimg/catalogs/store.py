"""The strip store: one SQLite file per declination strip, each knowing what it covers.

Strips are 12 degrees wide, half-open in declination and named by their centre (``nvss_dec+55.0.sqlite3`` is
Dec +49 to +61); the polar caps are narrower. A strip file is written once, under a temporary name, read back,
synced and then renamed, so that any file with a strip's name is complete; readers never see another. Builds
of one catalogue in one directory take turns by a lock that the kernel drops when its holder dies.

In a strip file

``sources``
    is the table for everybody: ``source_id`` (row number in the catalogue file, from 1), the columns of the
    survey (`dsa110_contimg.catalogs.surveys`); unknown values are NULL.
``cells``
    is the spatial index: the same rows, HEALPix cell by cell (`dsa110_contimg.catalogs.cells`), each a block
    of little-endian doubles in the order of ``meta``'s ``cell_columns``. A cone reads about a hundred of them
    in 0.2 ms, more than ten times faster than from an R*Tree or an index on RA and Dec
    (benchmarks/catalog_index.py).
``meta``
    holds bounds, counts, faintest flux and completeness, the hash of the file it was built from, build time,
    and the version of this format.

NVSS ends at Dec -40; its ragged rim of fields just south of that is not counted as covered. A file that
reaches more than a degree further south is evidently something else, and is taken at its word. A file that
declares its coverage (see `dsa110_contimg.catalogs.formats`) is believed without any test of its own; for
others see `dsa110_contimg.catalogs.coverage`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.catalogs.cells import NSIDE, cell_of
from dsa110_contimg.catalogs.completeness import completeness_limit
from dsa110_contimg.catalogs.coverage import Coverage, Footprint, measure_coverage
from dsa110_contimg.catalogs.formats import read_catalog
from dsa110_contimg.catalogs.surveys import SURVEYS, Survey, survey_named
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, InputError, ResourceError
from dsa110_contimg.progress import LogProgress, Progress

__all__ = [
    "STRIP_EDGES",
    "BuildReport",
    "StripInfo",
    "build_strips",
    "catalog_info",
    "default_catalog_dir",
    "migrate_strips",
    "open_strip",
    "read_strip_info",
    "sources_by_cell",
    "strip_path",
]

#: Declinations (deg) that bound the strips.
STRIP_EDGES: tuple[float, ...] = (-90.0, *(float(edge) for edge in range(-83, 74, 12)), 85.0, 90.0)

FORMAT_VERSION = 2
FLOOR_RIM_DEG = 1.0
#: Declination (deg) by which the footprint kept in a strip reaches beyond it.
FOOTPRINT_MARGIN_DEG = 10.0


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
    completeness_mjy : float or None
        Flux density above which 90 % of the sources are listed, by `completeness_limit`; None if too few.
    source_name, source_sha256 : str
        The catalogue file that it was built from.
    build_time : str
        UTC, ISO 8601.
    source_coverage : Coverage
        What that file covers as a whole.
    footprint : Footprint, optional
        Of an irregular survey: the covered cells of this strip and its surroundings.
    """

    path: Path
    catalog: str
    dec_min: float
    dec_max: float
    ra_min: float
    ra_max: float
    n_sources: int
    faintest_mjy: float
    completeness_mjy: float | None
    source_name: str
    source_sha256: str
    build_time: str
    source_coverage: Coverage
    footprint: Footprint | None = None

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


def strip_path(catalog_dir: Path, catalog: str, strip: int) -> Path:
    """Return the file of strip number ``strip`` (between edges ``strip`` and ``strip + 1``)."""
    centre = (STRIP_EDGES[strip] + STRIP_EDGES[strip + 1]) / 2.0
    return catalog_dir / f"{catalog}_dec{centre:+.1f}.sqlite3"


def build_strips(
    catalog: str,
    source: str | Path,
    catalog_dir: str | Path | None = None,
    dec_range: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build the strips of a catalogue from a catalogue file.

    Strips that were already built from the same file and cover what is wanted are left alone. Each of the
    others is written under a temporary name, read back, synced and renamed over the old one. A build that was
    killed is finished by the same call again.

    Parameters
    ----------
    catalog : str
        ``"nvss"`` or ``"first"``.
    source : str or Path
        Catalogue file in any form that `dsa110_contimg.catalogs.formats` reads.
    catalog_dir : str or Path, optional
        Where the strips go; `default_catalog_dir` if not given.
    dec_range : tuple of float, optional
        Lowest and highest declination (deg) to take from the file.
    progress : Progress, optional
        Follows the reading of the file and the writing of the strips.

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
        The strips cannot be written, or another process is building them.
    """
    started = time.monotonic()
    survey = survey_named(catalog)
    source, directory = Path(source), Path(catalog_dir or default_catalog_dir())
    low, high = dec_range or (-90.0, 90.0)
    if not -90.0 <= low < high <= 90.0:
        raise InputError(
            f"the declination range {low:g} to {high:g} is empty or outside -90..90", "dec_range"
        )
    digest = _sha256(source)
    existing = _strips_from(directory, catalog, digest)
    kept = _kept(existing, low, high)
    built: list[StripInfo] = []
    if kept is None:
        table = read_catalog(source, catalog, progress)
        outline, footprint = _outline(survey, table, source)
        wanted = _pieces(outline, low, high)
        if not wanted:
            raise InputError(
                f"nothing to build: the file covers Dec {outline.dec_min:.2f} to {outline.dec_max:.2f}, "
                f"the range asked for is {low:g} to {high:g}",
                source,
                "widen the declination range, or declare the coverage in an ECSV header",
            )
        written_from = {
            **{f"source_{key}": repr(value) for key, value in asdict(outline).items()},
            "source_name": source.name,
            "source_sha256": digest,
        }
        kept = []
        with _lock(directory, catalog):
            # What another process has finished meanwhile need not be done again.
            existing = _strips_from(directory, catalog, digest)
            todo = (progress or LogProgress()).track(list(wanted.items()), len(wanted), "writing strips")
            for strip, piece in todo:
                old = existing.get(strip)
                if old is not None and _serves(old, piece):
                    kept.append(old)
                    continue
                bounds = {key: repr(value) for key, value in asdict(piece).items()}
                meta = {**written_from, **bounds, **_map_of(footprint, piece)}
                rows = _rows_between(
                    table, survey, max(low, STRIP_EDGES[strip]), min(high, STRIP_EDGES[strip + 1])
                )
                built.append(_write_strip(strip_path(directory, catalog, strip), survey, rows, meta))
    strips = (*built, *kept)
    outline = strips[0].source_coverage
    return BuildReport(
        catalog=catalog,
        source=source,
        source_sha256=digest,
        built=tuple(built),
        kept=tuple(kept),
        coverage=Coverage(
            outline.ra_min,
            outline.ra_max,
            max(low, outline.dec_min),
            min(high, outline.dec_max),
        ),
        n_sources=sum(info.n_sources for info in strips),
        seconds=time.monotonic() - started,
    )


def _pieces(outline: Coverage, low: float, high: float) -> dict[int, Coverage]:
    """Cut a piece of sky into strips, by number."""
    pieces = {}
    for strip, (edge_low, edge_high) in enumerate(pairwise(STRIP_EDGES)):
        bottom, top = max(low, edge_low, outline.dec_min), min(high, edge_high, outline.dec_max)
        if bottom < top:
            pieces[strip] = Coverage(outline.ra_min, outline.ra_max, bottom, top)
    return pieces


def _serves(old: StripInfo | None, wanted: Coverage) -> bool:
    return old is not None and old.dec_min <= wanted.dec_min and old.dec_max >= wanted.dec_max


def _kept(existing: dict[int, StripInfo], low: float, high: float) -> list[StripInfo] | None:
    """Return the strips wanted if all of them are there already."""
    if not existing:
        return None
    wanted = _pieces(next(iter(existing.values())).source_coverage, low, high)
    if not wanted or not all(_serves(existing.get(strip), part) for strip, part in wanted.items()):
        return None
    return [existing[strip] for strip in wanted]


def _map_of(footprint: Footprint | None, piece: Coverage) -> dict[str, str]:
    """Return the part of a footprint that a strip keeps, with its surroundings."""
    if footprint is None:
        return {}
    low, high = piece.dec_min - FOOTPRINT_MARGIN_DEG, piece.dec_max + FOOTPRINT_MARGIN_DEG
    return {"footprint": footprint.between(low, high).to_text()}


def _rows_between(table: Table, survey: Survey, low: float, high: float) -> NDArray[np.float64]:
    """Return the rows of a strip: half-open, so that a source on an edge is in one strip only.

    The first column is source_id, the row number in the file from 1: unique over the strips, and traceable.
    """
    dec = np.asarray(table["dec_deg"])
    below = dec < high if high in STRIP_EDGES[:-1] else dec <= high
    rows = np.flatnonzero((dec >= low) & below)
    columns = [(rows + 1).astype(np.float64), *(np.asarray(table[name])[rows] for name in survey.units)]
    return np.stack(columns, axis=1)


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


def _outline(survey: Survey, table: Table, source: Path) -> tuple[Coverage, Footprint | None]:
    if "coverage" in table.meta:
        declared = Coverage(**table.meta["coverage"])
        return declared, Footprint.within(declared) if survey.irregular else None
    ra, dec = np.asarray(table["ra_deg"]), np.asarray(table["dec_deg"])
    if survey.irregular:
        return Coverage(0.0, 360.0, float(dec.min()), float(dec.max())), Footprint.of(ra, dec)
    try:
        outline = measure_coverage(ra, dec)
    except CatalogFormatError as error:
        raise CatalogFormatError(error.what, source, error.remedy) from None
    if survey.dec_min - FLOOR_RIM_DEG <= outline.dec_min < survey.dec_min < outline.dec_max:
        outline = Coverage(outline.ra_min, outline.ra_max, survey.dec_min, outline.dec_max)
    return outline, None


def _write_strip(path: Path, survey: Survey, rows: NDArray[np.float64], meta: dict[str, str]) -> StripInfo:
    """Write one strip beside its final name, read it back, sync it and rename it.

    ``rows`` has shape (n, 1 + number of columns): source_id and the columns of the survey.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    names = ["source_id", *survey.units]
    flux = rows[:, names.index("flux_mjy")]
    cells = cell_of(rows[:, 1], rows[:, 2])
    order = np.argsort(cells, kind="stable")
    filled, starts = np.unique(cells[order], return_index=True)
    blocks = np.split(rows[order].astype("<f8", copy=False), starts[1:]) if len(rows) else []
    meta = {
        "catalog": survey.name,
        **meta,
        "n_sources": str(len(rows)),
        "faintest_mjy": repr(float(flux.min())) if len(rows) else "nan",
        "completeness_mjy": repr(completeness_limit(flux)),
        "build_time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cell_nside": str(NSIDE),
        "cell_columns": json.dumps(names),
        "format_version": str(FORMAT_VERSION),
    }
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            columns = ", ".join(f"{name} REAL" for name in survey.units)
            database.execute(f"CREATE TABLE sources(source_id INTEGER PRIMARY KEY, {columns})")
            database.execute("CREATE TABLE cells(cell INTEGER PRIMARY KEY, rows BLOB)")
            database.execute("CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT)")
            database.execute("BEGIN")
            database.executemany(
                f"INSERT INTO sources VALUES (?{', ?' * len(survey.units)})", _in_order(rows)
            )
            database.executemany(
                "INSERT INTO cells VALUES (?, ?)",
                ((int(cell), block.tobytes()) for cell, block in zip(filled, blocks, strict=True)),
            )
            database.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            database.execute("COMMIT")
        _verify(temporary, rows)
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


def _in_order(rows: NDArray[np.float64]) -> Iterator[list[float]]:
    """Yield the rows by ascending source_id, in which SQLite stores them fastest."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    for start in range(0, len(rows), 10_000):
        yield from rows[start : start + 10_000].tolist()


def _verify(path: Path, rows: NDArray[np.float64]) -> None:
    """Read a strip back: whole, with the same rows in both tables."""
    with closing(open_strip(path)) as database:
        intact = database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        count, *sums = database.execute(
            "SELECT count(*), total(source_id), total(ra_deg), total(dec_deg), total(flux_mjy) FROM sources"
        ).fetchone()
        blocks = b"".join(block for (block,) in database.execute("SELECT rows FROM cells"))
    stored = np.frombuffer(blocks, "<f8").reshape(-1, rows.shape[1])
    stored = stored[np.argsort(stored[:, 0], kind="stable")]
    wanted = rows[np.argsort(rows[:, 0], kind="stable")]
    same = np.array_equal(stored, wanted, equal_nan=True)
    same &= count == len(rows) and np.allclose(sums, rows[:, :4].sum(axis=0), rtol=1e-9, atol=1e-6)
    if not intact or not same:
        raise OSError(f"read back {count} of {len(rows)} rows, {len(stored)} in cells")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _lock(directory: Path, catalog: str) -> Iterator[None]:
    """Hold the right to write strips of a catalogue here; whatever a killed holder left is cleared away.

    The lock is one of the kernel on an open file: it ends with the process, however that ends.
    """
    path = directory / f".{catalog}.lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ResourceError(
            f"strips cannot be written here ({error.strerror})",
            directory,
            "check the folder and its permissions",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise ResourceError(
                f"{holder} is building strips of {catalog} here", directory, "wait until it has finished"
            ) from None
        except OSError as error:
            raise ResourceError(
                f"cannot be locked ({error.strerror})", path, "use a file system that has locks"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        for leftover in directory.glob(f".{catalog}_dec*.tmp"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


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
                return read_strip_info(path, opened)
        meta = dict(database.execute("SELECT key, value FROM meta"))
        version = int(meta["format_version"])
        if version != FORMAT_VERSION:
            raise CatalogFormatError(
                f"is a strip of format {version}, not {FORMAT_VERSION}",
                path,
                "run `contimg catalog migrate`" if version < FORMAT_VERSION else "use a newer contimg",
            )
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
            completeness_mjy=None if (limit := meta["completeness_mjy"]) == "None" else float(limit),
            source_name=meta["source_name"],
            source_sha256=meta["source_sha256"],
            build_time=meta["build_time"],
            source_coverage=outline,
            footprint=Footprint.from_text(meta["footprint"]) if "footprint" in meta else None,
        )
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise CatalogFormatError("is not a readable catalogue strip", path, rebuild) from error


def sources_by_cell(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the filled cells of a strip and the number of sources in each, shape (n_cells,) both."""
    with closing(open_strip(path)) as database:
        (names,) = database.execute("SELECT value FROM meta WHERE key = 'cell_columns'").fetchone()
        found = database.execute("SELECT cell, length(rows) FROM cells").fetchall()
    cells, sizes = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return cells, sizes // (8 * len(json.loads(names)))


def migrate_strips(catalog_dir: str | Path | None = None) -> list[StripInfo]:
    """Rewrite strips of an older format in the present one, without the file they were built from.

    Parameters
    ----------
    catalog_dir : str or Path, optional
        `default_catalog_dir` if not given.

    Returns
    -------
    list of StripInfo
        The strips rewritten. Columns that the older format did not keep are unknown in them.

    Raises
    ------
    CatalogFormatError
        A strip is damaged or of a newer format.
    ResourceError
        The strips cannot be written, or another process is building them.
    """
    directory = Path(catalog_dir or default_catalog_dir())
    migrated = []
    for survey in SURVEYS.values():
        old = [path for path in _strip_paths(directory, survey.name) if _version(path) < FORMAT_VERSION]
        if not old:
            continue
        with _lock(directory, survey.name):
            for path in old:
                with closing(open_strip(path)) as database:
                    meta = dict(database.execute("SELECT key, value FROM meta"))
                    there = {row[1] for row in database.execute("PRAGMA table_info(sources)")}
                    names = [name if name in there else "NULL" for name in survey.units]
                    found = database.execute(f"SELECT source_id, {', '.join(names)} FROM sources").fetchall()
                rows = np.array(found, dtype=np.float64).reshape(len(found), 1 + len(names))
                migrated.append(_write_strip(path, survey, rows, meta))
    return migrated


def _version(path: Path) -> int:
    try:
        with closing(open_strip(path)) as database:
            return int(database.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone()[0])
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise CatalogFormatError(
            "is not a readable catalogue strip", path, "delete it and run `contimg catalog build` again"
        ) from error


def _strip_paths(directory: Path, catalog: str) -> list[Path]:
    paths = (strip_path(directory, catalog, strip) for strip in range(len(STRIP_EDGES) - 1))
    return [path for path in paths if path.exists()]


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
    return [read_strip_info(path) for catalog in SURVEYS for path in _strip_paths(directory, catalog)]
