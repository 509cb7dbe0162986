"""The file in which light curves are kept: its tables, how it is made, opened and brought to this version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.pipeline.transactions import transaction, version_of

__all__ = ["SCHEMA_VERSION", "open_database"]

SCHEMA_VERSION = 1
#: So long a lock of somebody else is waited for, seconds.
TIMEOUT_S = 30.0
#: A light curve lies together: measurements are kept in the order of their sources. Sums over the
#: observations that count are kept with each source, so that ranking reads no measurement.
SCHEMA = """
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
    ensemble REAL,
    ensemble_error REAL,
    n_ensemble INTEGER NOT NULL DEFAULT 0,
    n_sources INTEGER NOT NULL DEFAULT 0,
    n_new INTEGER,
    false_new_expected REAL,
    sources BLOB NOT NULL DEFAULT x''
);
CREATE INDEX observation_time ON observation (mjd);
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    ra_deg REAL NOT NULL,
    dec_deg REAL NOT NULL,
    zone INTEGER NOT NULL,
    catalog_flux_jy REAL NOT NULL,
    n INTEGER NOT NULL DEFAULT 0,
    w REAL NOT NULL DEFAULT 0,
    wx REAL NOT NULL DEFAULT 0,
    wxx REAL NOT NULL DEFAULT 0,
    x REAL NOT NULL DEFAULT 0,
    xx REAL NOT NULL DEFAULT 0,
    ee REAL NOT NULL DEFAULT 0,
    n_detected INTEGER NOT NULL DEFAULT 0,
    peak_jy REAL NOT NULL DEFAULT 0,
    peak_sigma REAL NOT NULL DEFAULT 0,
    peak_mjd REAL
);
CREATE INDEX source_place ON source (zone, ra_deg);
CREATE INDEX source_kind ON source (kind);
CREATE TABLE measurement (
    source_id INTEGER NOT NULL,
    observation_id INTEGER NOT NULL,
    flux_jy REAL NOT NULL,
    stat_error_jy REAL NOT NULL,
    beam_error_jy REAL NOT NULL,
    method TEXT NOT NULL,
    flags TEXT NOT NULL,
    PRIMARY KEY (source_id, observation_id)
) WITHOUT ROWID;
"""
#: From each version to the next.
STEPS: dict[int, str] = {}


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
        if not db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'measurement'").fetchone()[0]:
            raise InputError("is a database, but none of light curves", path, "give another --database")
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
            _execute(db, SCHEMA)
        else:
            for step in range(version, SCHEMA_VERSION):
                _execute(db, STEPS[step])
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _execute(db: sqlite3.Connection, script: str) -> None:
    """Execute statements within the transaction that is open; `executescript` would end it."""
    for statement in filter(str.strip, script.split(";")):
        db.execute(statement)
