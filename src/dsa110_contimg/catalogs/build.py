"""The strip store: catalogue files become strips, one SQLite file each (`dsa110_contimg.catalogs.strips`).

Builds of one catalogue in one directory take turns by a lock that the kernel drops when its holder dies.

NVSS ends at Dec -40; its ragged rim of fields just south of that is not counted as covered. A file that
reaches more than a degree further south is evidently something else, and is taken at its word. A file that
declares its coverage (see `dsa110_contimg.catalogs.column_families`) is believed without any test of its own;
for others see `dsa110_contimg.catalogs.coverage`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs.column_families import read_catalog
from dsa110_contimg.catalogs.cone_coverage import bounding_box
from dsa110_contimg.catalogs.coverage import Coverage, Footprint, measure_coverage
from dsa110_contimg.catalogs.strips import (
    FORMAT_VERSION,
    STRIP_EDGES,
    StripInfo,
    default_catalog_dir,
    open_strip,
    read_strip_info,
    strip_path,
    strip_paths,
    strip_version,
    write_strip,
)
from dsa110_contimg.catalogs.surveys import SURVEYS, Survey, survey_named
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, InputError, ResourceError
from dsa110_contimg.files import remove_leftovers
from dsa110_contimg.progress import LogProgress, Progress

__all__ = ["BuildReport", "build_strips", "catalog_info", "migrate_strips"]

FLOOR_RIM_DEG = 1.0
#: Declination (deg) by which the footprint kept in a strip reaches beyond it.
FOOTPRINT_MARGIN_DEG = 10.0


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

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user of the fluxes and sizes should know."""
        return tuple(sorted({note for info in (*self.built, *self.kept) for note in info.notes}))


def build_strips(
    catalog: str,
    source: str | Path,
    catalog_dir: str | Path | None = None,
    dec_range: tuple[float, float] | None = None,
    progress: Progress | None = None,
    *,
    covers: Sequence[float] = (),
) -> BuildReport:
    """Build the strips of a catalogue from a catalogue file.

    Strips that were already built from the same file and cover what is wanted are left alone. Each of the
    others is written under a temporary name, read back, synced and renamed over the old one. A build that was
    killed is finished by the same call again.

    Parameters
    ----------
    catalog : str
        Name of a survey.
    source : str or Path
        Catalogue file in any form that `dsa110_contimg.catalogs.column_families` reads.
    catalog_dir : str or Path, optional
        Where the strips go; `default_catalog_dir` if not given.
    dec_range : tuple of float, optional
        Lowest and highest declination (deg) to take from the file.
    progress : Progress, optional
        Follows the reading of the file and the writing of the strips.
    covers : sequence of float, optional
        Which part of the sky the file is complete for, degrees: RA, Dec and radius of a circle; or lowest and
        highest RA, lowest and highest Dec of a box. Measured from the sources if not given.

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
    covers = _checked_covers(covers)
    digest = _sha256(source)
    existing = _strips_from(directory, catalog, digest, covers)
    kept = _kept(existing, low, high)
    built: list[StripInfo] = []
    if kept is None:
        table = read_catalog(source, catalog, progress)
        if covers:
            outline, footprint = _declared(covers), None
        else:
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
            "notes": json.dumps(table.meta["notes"]),
            "declared": str(bool(covers) or "coverage" in table.meta),
            "covers": json.dumps(covers),
        }
        kept = []
        with _lock(directory, catalog):
            # What another process has finished meanwhile need not be done again.
            existing = _strips_from(directory, catalog, digest, covers)
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
                built.append(write_strip(strip_path(directory, catalog, strip), survey, rows, meta))
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


def _rows_between(table: Table, survey: Survey, low: float, high: float) -> Float:
    """Return the rows of a strip: half-open, so that a source on an edge is in one strip only.

    The first column is source_id, the row number in the file from 1: unique over the strips, and traceable.
    """
    dec = np.asarray(table["dec_deg"])
    below = dec < high if high in STRIP_EDGES[:-1] else dec <= high
    rows = np.flatnonzero((dec >= low) & below)
    number = table.meta["rows"][rows] if "rows" in table.meta else rows
    columns = [(number + 1).astype(np.float64), *(np.asarray(table[name])[rows] for name in survey.units)]
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


def _checked_covers(covers: Sequence[float]) -> tuple[float, ...]:
    """Refuse a declared coverage that is no piece of sky."""
    values = tuple(float(value) for value in covers)
    if not values:
        return ()
    if len(values) == 3:
        fits = 0 <= values[0] <= 360 and abs(values[1]) <= 90 and 0 < values[2] <= 180
        form = "RA 0..360, Dec -90..90, a radius above 0"
    else:
        fits = len(values) == 4 and all(0 <= value <= 360 for value in values[:2])
        fits = fits and values[0] != values[1] and -90 <= values[2] < values[3] <= 90
        form = "RA from and to (0..360), Dec from and to (-90..90, ascending)"
    if not fits:
        raise InputError(
            f"the coverage {' '.join(f'{value:g}' for value in values)} is not a piece of sky", "covers", form
        )
    return values


def _declared(covers: tuple[float, ...]) -> Coverage:
    """Return the box that a declared coverage fills or fits into."""
    return bounding_box(*covers) if len(covers) == 3 else Coverage(*covers)


def _strips_from(
    directory: Path, catalog: str, digest: str, covers: tuple[float, ...]
) -> dict[int, StripInfo]:
    """Return the usable strips, by number, that were built from the file with this hash, for this sky."""
    found = {}
    for strip in range(len(STRIP_EDGES) - 1):
        path = strip_path(directory, catalog, strip)
        # A strip that cannot be read is rebuilt, which is the remedy anyway.
        with suppress(CatalogFormatError):
            if not path.exists():
                continue
            info = read_strip_info(path)
            if info.source_sha256 == digest and info.covers == covers:
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
        for strip in range(len(STRIP_EDGES) - 1):
            remove_leftovers(strip_path(directory, catalog, strip))
        yield
    finally:
        os.close(descriptor)


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
        old = [path for path in strip_paths(directory, survey.name) if strip_version(path) < FORMAT_VERSION]
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
                migrated.append(write_strip(path, survey, rows, meta))
    return migrated


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
    return [read_strip_info(path) for catalog in SURVEYS for path in strip_paths(directory, catalog)]
