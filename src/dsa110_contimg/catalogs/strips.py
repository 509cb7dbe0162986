"""A strip of a catalogue: what its file holds, how it is written, and how it is read.

Strips are 12 degrees wide, half-open in declination and named by their centre (``nvss_dec+55.0.sqlite3`` is
Dec +49 to +61); the polar caps are narrower. A strip file is written once, under a temporary name, read back,
synced and then renamed, so that any file with a strip's name is complete; readers never see another.

In a strip file

``sources``
    is the table for everybody: ``source_id`` (row number in the catalogue file, from 1), the columns of the
    survey (`dsa110_contimg.catalogs.surveys`); unknown values are NULL.
``cells``
    is the spatial index: the same rows, HEALPix cell by cell (`dsa110_contimg.catalogs.healpix`), each a
    block of little-endian doubles in the order of ``meta``'s ``cell_columns``. A cone reads about a
    hundred of them in 0.2 ms, more than ten times faster than from an R*Tree or an index on RA and Dec
    (benchmarks/catalog_index.py).
``meta``
    holds bounds, counts, faintest flux and completeness, the hash of the file it was built from, what else
    is to be known of that file, build time, and the version of this format.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.catalogs.completeness import completeness_limit
from dsa110_contimg.catalogs.coverage import Circle, Coverage, Footprint
from dsa110_contimg.catalogs.healpix import NSIDE, cell_of
from dsa110_contimg.catalogs.surveys import Survey
from dsa110_contimg.errors import CatalogFormatError, ResourceError
from dsa110_contimg.files import replacing

__all__ = [
    "FORMAT_VERSION",
    "STRIP_EDGES",
    "StripInfo",
    "default_catalog_dir",
    "open_strip",
    "read_strip_info",
    "sources_by_cell",
    "strip_path",
    "strip_paths",
    "strip_version",
    "write_strip",
]

#: Declinations (deg) that bound the strips.
STRIP_EDGES: tuple[float, ...] = (-90.0, *(float(edge) for edge in range(-83, 74, 12)), 85.0, 90.0)

FORMAT_VERSION = 2


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
    notes : tuple of str
        What a user of its fluxes and sizes should know.
    declared : bool
        The coverage was declared, by the file or when it was built, not measured from the sources.
    covers : tuple of float
        As it was declared when it was built: RA, Dec and radius of a circle, or RA and Dec between which;
        empty if it was not.
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
    notes: tuple[str, ...] = ()
    declared: bool = False
    covers: tuple[float, ...] = ()

    @property
    def circle(self) -> Circle | None:
        """The circle that was declared, if one was."""
        return Circle(*self.covers) if len(self.covers) == 3 else None

    @property
    def coverage(self) -> Coverage:
        """The part of the sky that this strip covers."""
        return Coverage(self.ra_min, self.ra_max, self.dec_min, self.dec_max)


def default_catalog_dir() -> Path:
    """Return the directory of the strips: ``CONTIMG_CATALOG_DIR``, else ``state/catalogs``."""
    return Path(os.environ.get("CONTIMG_CATALOG_DIR") or Path("state", "catalogs"))


def strip_path(catalog_dir: Path, catalog: str, strip: int) -> Path:
    """Return the file of strip number ``strip`` (between edges ``strip`` and ``strip + 1``)."""
    centre = (STRIP_EDGES[strip] + STRIP_EDGES[strip + 1]) / 2.0
    return catalog_dir / f"{catalog}_dec{centre:+.1f}.sqlite3"


def write_strip(path: Path, survey: Survey, rows: Float, meta: dict[str, str]) -> StripInfo:
    """Write one strip beside its final name, read it back, sync it and rename it.

    ``rows`` has shape (n, 1 + number of columns): source_id and the columns of the survey.
    """
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
        with replacing(path) as temporary:
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
    except (OSError, sqlite3.Error) as error:
        raise ResourceError(
            f"the strip cannot be written ({error})", path, "check free space and permissions"
        ) from error
    return read_strip_info(path)


def _in_order(rows: Float) -> Iterator[list[float]]:
    """Yield the rows by ascending source_id, in which SQLite stores them fastest."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    for start in range(0, len(rows), 10_000):
        yield from rows[start : start + 10_000].tolist()


def _verify(path: Path, rows: Float) -> None:
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
        _require_consistent(path, database, meta)
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
            notes=tuple(json.loads(meta.get("notes", "[]"))),
            declared=meta.get("declared") == "True",
            covers=tuple(json.loads(meta.get("covers", "[]"))),
        )
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise CatalogFormatError("is not a readable catalogue strip", path, rebuild) from error


def _require_consistent(path: Path, database: sqlite3.Connection, meta: dict[str, str]) -> None:
    """Raise CatalogFormatError if a strip has another's name, or not what it says that it has."""
    rebuild = "delete it and run `contimg catalog build` again"
    strip = int(np.searchsorted(STRIP_EDGES, (float(meta["dec_min"]) + float(meta["dec_max"])) / 2) - 1)
    named = strip_path(path.parent, meta["catalog"], strip).name
    if path.name.endswith(".sqlite3") and path.name != named:
        raise CatalogFormatError(f"is a strip of another name, {named}", path, rebuild)
    (filled,) = database.execute("SELECT EXISTS (SELECT 1 FROM cells)").fetchone()
    if bool(int(meta["n_sources"])) != bool(filled):
        raise CatalogFormatError(f"lacks the {meta['n_sources']} sources that it should have", path, rebuild)


def sources_by_cell(path: Path) -> tuple[Int, Int]:
    """Return the filled cells of a strip and the number of sources in each, shape (n_cells,) both."""
    with closing(open_strip(path)) as database:
        (names,) = database.execute("SELECT value FROM meta WHERE key = 'cell_columns'").fetchone()
        found = database.execute("SELECT cell, length(rows) FROM cells").fetchall()
    cells, sizes = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return cells, sizes // (8 * len(json.loads(names)))


def strip_version(path: Path) -> int:
    """Return the version of a strip's format."""
    try:
        with closing(open_strip(path)) as database:
            return int(database.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone()[0])
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise CatalogFormatError(
            "is not a readable catalogue strip", path, "delete it and run `contimg catalog build` again"
        ) from error


def strip_paths(directory: Path, catalog: str) -> list[Path]:
    """Return the files of a catalogue's strips in a directory, from south to north."""
    paths = (strip_path(directory, catalog, strip) for strip in range(len(STRIP_EDGES) - 1))
    return [path for path in paths if path.exists()]
