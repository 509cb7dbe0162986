"""The file in which light curves are kept: its tables, how it is made, opened and brought to this version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.pipeline.correction import BY_VISIBILITIES, FOUND, TELLS
from dsa110_contimg.pipeline.ensemble import ENSEMBLE_ERROR, best_told
from dsa110_contimg.pipeline.transactions import transaction, version_of

__all__ = ["ENSEMBLE", "FLUXES", "SCHEMA_VERSION", "SOLUTION", "execute", "open_database"]

SCHEMA_VERSION = 2
#: So long a lock of somebody else is waited for, seconds.
TIMEOUT_S = 30.0
#: Fluxes of an observation in one piece, in the order of its list: all of them, for what needs all of them,
#: and those that may tell its scale.
FLUXES = np.dtype([("source", "<i4"), ("flux", "<f8"), ("stat", "<f4"), ("beam", "<f4"), ("bits", "u1")])
ENSEMBLE = np.dtype(
    [("source", "<i4"), ("flux", "<f8"), ("stat", "<f4"), ("beam", "<f4"), ("bits", "u1"), ("catalog", "<f8")]
)
#: What is found from all observations together, and anew after each: how they are off, and sums over the
#: light curves, so that ranking reads no flux.
SOLUTION = """
CREATE TABLE correction (
    observation_id INTEGER PRIMARY KEY,
    band INTEGER NOT NULL,
    band_hz REAL NOT NULL,
    ensemble REAL NOT NULL,
    ensemble_error REAL NOT NULL,
    n_ensemble INTEGER NOT NULL,
    numbers BLOB NOT NULL
);
CREATE TABLE summary (
    source_id INTEGER NOT NULL,
    band INTEGER NOT NULL,
    band_hz REAL NOT NULL,
    n INTEGER NOT NULL,
    w REAL NOT NULL,
    wx REAL NOT NULL,
    wxx REAL NOT NULL,
    x REAL NOT NULL,
    xx REAL NOT NULL,
    ee REAL NOT NULL,
    n_detected INTEGER NOT NULL,
    peak_jy REAL NOT NULL,
    peak_sigma REAL NOT NULL,
    peak_mjd REAL,
    log_reference REAL,
    weight REAL,
    PRIMARY KEY (source_id, band)
) WITHOUT ROWID;
"""
#: `revision` counts what is taken in or out; `settled` is that of which the solution is.
STATE = """
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO state VALUES ('revision', 0), ('settled', 0);
"""
#: The short piece first: what lies behind a long one is only found by reading that.
BLOCKS = """
CREATE TABLE flux_block (observation_id INTEGER PRIMARY KEY, ensemble BLOB NOT NULL, fluxes BLOB NOT NULL);
"""
#: A light curve lies together: measurements are kept in the order of their sources.
SCHEMA = f"""
CREATE TABLE observation (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL,
    name TEXT NOT NULL,
    folder TEXT NOT NULL,
    mjd REAL NOT NULL,
    freq_hz REAL,
    verdict TEXT NOT NULL,
    counts INTEGER NOT NULL,
    flux_scale REAL,
    flux_scale_error REAL,
    n_sources INTEGER NOT NULL DEFAULT 0,
    n_new INTEGER,
    false_new_expected REAL,
    centre_ra_deg REAL,
    centre_dec_deg REAL,
    finished REAL NOT NULL DEFAULT 0
);
CREATE INDEX observation_time ON observation (mjd);
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    ra_deg REAL NOT NULL,
    dec_deg REAL NOT NULL,
    zone INTEGER NOT NULL,
    catalog_flux_jy REAL NOT NULL
);
CREATE INDEX source_place ON source (zone, ra_deg);
CREATE TABLE measurement (
    source_id INTEGER NOT NULL,
    observation_id INTEGER NOT NULL,
    flux_jy REAL NOT NULL,
    stat_error_jy REAL NOT NULL,
    beam_error_jy REAL NOT NULL,
    method TEXT NOT NULL,
    flags TEXT NOT NULL,
    bits INTEGER NOT NULL,
    PRIMARY KEY (source_id, observation_id)
) WITHOUT ROWID;
{BLOCKS}
{SOLUTION}
{STATE}
"""


def _to_2(db: sqlite3.Connection) -> None:
    """Fluxes of each observation in one piece, and no sums that depend on the order of observations."""
    execute(
        db,
        f"""
        ALTER TABLE measurement ADD COLUMN bits INTEGER NOT NULL DEFAULT 0;
        UPDATE measurement SET bits = (method = 'visibilities') * {BY_VISIBILITIES}
            + (method != 'forced') * {FOUND};
        ALTER TABLE observation ADD COLUMN centre_ra_deg REAL;
        ALTER TABLE observation ADD COLUMN centre_dec_deg REAL;
        ALTER TABLE observation ADD COLUMN finished REAL NOT NULL DEFAULT 0;
        {BLOCKS}
        {SOLUTION}
        {STATE}
        UPDATE state SET value = 1 WHERE name = 'revision';
        """,
    )
    for observation in db.execute("SELECT id, sources FROM observation WHERE counts = 1").fetchall():
        rows = [
            db.execute(
                "SELECT source_id, flux_jy, stat_error_jy, beam_error_jy, bits, kind, catalog_flux_jy, flags"
                " FROM measurement JOIN source ON source.id = source_id"
                " WHERE source_id = ? AND observation_id = ?",
                (int(k), observation["id"]),
            ).fetchone()
            for k in np.frombuffer(observation["sources"], dtype="<i8")
        ]
        fluxes = np.array([tuple(row)[:5] for row in rows], dtype=FLUXES)
        # As far as it is known: the response of the beam was not kept, but what is far out was flagged.
        tells = np.array(
            [r["kind"] == "catalogue" and not r["flags"] and r["catalog_flux_jy"] > 0 for r in rows], bool
        )
        own = np.hypot(fluxes["stat"], fluxes["beam"])
        tells = best_told(tells & (own < ENSEMBLE_ERROR * fluxes["flux"]), fluxes["flux"], own)
        fluxes["bits"] |= tells.astype("u1") * TELLS
        ensemble = np.zeros(np.count_nonzero(tells), dtype=ENSEMBLE)
        for name in FLUXES.names or ():
            ensemble[name] = fluxes[name][tells]
        ensemble["catalog"] = [r["catalog_flux_jy"] for r, some in zip(rows, tells, strict=True) if some]
        db.executemany(
            "UPDATE measurement SET bits = ? WHERE source_id = ? AND observation_id = ?",
            [(int(f["bits"]), int(f["source"]), observation["id"]) for f in fluxes],
        )
        db.execute(
            "INSERT INTO flux_block (observation_id, ensemble, fluxes) VALUES (?, ?, ?)",
            (observation["id"], ensemble.tobytes(), fluxes.tobytes()),
        )
    drop: dict[str, tuple[str, ...]] = {
        "observation": ("ensemble", "ensemble_error", "n_ensemble", "sources")
    }
    drop["source"] = "n", "w", "wx", "wxx", "x", "xx", "ee", "n_detected", "peak_jy", "peak_sigma", "peak_mjd"
    db.execute("DROP INDEX source_kind")
    for table, names in drop.items():
        for name in names:
            db.execute(f"ALTER TABLE {table} DROP COLUMN {name}")


#: From each version to the next.
STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _to_2}


def open_database(path: Path, *, create: bool = True, readonly: bool = False) -> sqlite3.Connection:
    """Open a file of light curves; made if missing, and brought to this version.

    Parameters
    ----------
    path : Path
        SQLite file.
    create : bool
        If False a missing file is an error.
    readonly : bool
        For readers: nothing is changed, and an earlier version is an error.

    Raises
    ------
    InputError
        If it is missing, another database, or of another version that cannot be used.
    ResourceError
        If it cannot be opened.
    """
    if not path.exists() and (readonly or not create):
        raise InputError(
            "no such file of light curves",
            path,
            "contimg run makes it beside its state file; give --database",
        )
    try:
        where = f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}"
        db = sqlite3.connect(
            where, timeout=TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True
        )
        db.row_factory = sqlite3.Row
        try:
            _bring_to_version(db, path, readonly)
            if not readonly:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
        except BaseException:
            db.close()
            raise
        return db
    except sqlite3.Error as error:
        raise ResourceError(
            f"cannot be used for light curves ({error})",
            path,
            "check disk and permission; what is damaged is moved away and made anew by contimg run",
        ) from None


def _bring_to_version(db: sqlite3.Connection, path: Path, readonly: bool) -> None:
    version = version_of(db)
    if version == SCHEMA_VERSION:
        _require_ours(db, path)
        return
    if version > SCHEMA_VERSION:
        raise InputError(
            f"is of a later version ({version}, not {SCHEMA_VERSION})", path, "use a newer contimg"
        )
    if readonly:
        raise InputError(f"is of an earlier version ({version})", path, "contimg run brings it to this one")
    with transaction(db, path):
        # Another process may have been faster.
        version = version_of(db)
        if version == 0:
            if db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                raise InputError("is a database, but none of light curves", path, "give another --database")
            execute(db, SCHEMA)
        else:
            _require_ours(db, path)
            for step in range(version, SCHEMA_VERSION):
                STEPS[step](db)
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _require_ours(db: sqlite3.Connection, path: Path) -> None:
    if not db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'measurement'").fetchone()[0]:
        raise InputError("is a database, but none of light curves", path, "give another --database")


def execute(db: sqlite3.Connection, script: str) -> None:
    """Execute statements within the transaction that is open; `executescript` would end it."""
    for statement in filter(str.strip, script.split(";")):
        db.execute(statement)
