"""The file in which the state of all runs is kept: its tables, how it is made, opened, and found damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsa110_contimg.errors import ResourceError, StorageError
from dsa110_contimg.visibilities.lock import NO_LINKS

__all__ = ["SCHEMA_VERSION", "STORAGE", "connect", "damaged", "make", "note_published"]

SCHEMA_VERSION = 3
#: So long a lock of somebody else is waited for, seconds.
TIMEOUT_S = 30.0
#: What SQLite says of disks that are full, read-only or away, and of a file that is locked: it passes.
STORAGE = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
)
#: Observations are known by their Measurement Set; `run` and `event` are added to until one is forgotten.
SCHEMA = """
CREATE TABLE observation (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    ms TEXT NOT NULL UNIQUE,
    folder TEXT NOT NULL UNIQUE,
    caltables TEXT,
    observed_at REAL NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'reverted')),
    run_id TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    queued_at REAL NOT NULL,
    message TEXT NOT NULL DEFAULT '',
    quality TEXT NOT NULL DEFAULT '',
    seeded INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0,
    version TEXT NOT NULL DEFAULT '',
    ended_at REAL NOT NULL DEFAULT 0,
    pruned TEXT NOT NULL DEFAULT '',
    identity TEXT NOT NULL DEFAULT '',
    thermal_ratio REAL,
    flux_ratio REAL,
    snr_gain REAL,
    seconds REAL
);
CREATE INDEX observation_queue ON observation (status, observed_at, id);
CREATE INDEX observation_time ON observation (observed_at);
CREATE INDEX observation_quality ON observation (quality, observed_at);
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    observation_id INTEGER NOT NULL REFERENCES observation (id),
    status TEXT NOT NULL,
    started_at REAL NOT NULL,
    finished_at REAL NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX run_observation ON run (observation_id);
CREATE INDEX run_finished ON run (finished_at);
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    observation_id INTEGER REFERENCES observation (id),
    run_id TEXT,
    event TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX event_observation ON event (observation_id);
CREATE INDEX event_kind ON event (event);
CREATE INDEX event_time ON event (time);
"""


class _Connection(sqlite3.Connection):
    """Says of a damaged file what can be done, and tells one that is away from it."""

    path: Path

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*arguments)
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_CORRUPT:
                raise damaged(self.path, error) from None
            if code in STORAGE:
                reads = str(arguments[0]).startswith(("SELECT", "PRAGMA"))
                raise StorageError(
                    f"cannot be {'read' if reads else 'written'} ({error})",
                    self.path,
                    "check disk, permission and who uses it, then go on",
                ) from None
            raise


def damaged(path: Path, why: object) -> ResourceError:
    """Return the error for a state file that cannot be used any more."""
    return ResourceError(
        f"is damaged ({why})",
        path,
        "contimg state rebuild OUTDIR --state-file FILE makes it anew from the records",
    )


def connect(path: Path) -> _Connection:
    """Open the database of a state file, of whatever version."""
    db = sqlite3.connect(
        path, timeout=TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    db.path = path
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode=WAL")
    return db


def note_published(db: sqlite3.Connection, key: int, record: Mapping[str, Any]) -> None:
    """Note with an observation what a record says of what is published; old ones lack parts."""
    figures = record.get("figures", {})
    values = {
        "quality": record.get("quality", ""),
        "seeded": record.get("seeded", False),
        "version": record.get("versions", {}).get("dsa110-contimg", ""),
        "pruned": "",
        **{name: figures.get(name) for name in ("thermal_ratio", "flux_ratio", "snr_gain")},
        "seconds": record.get("seconds", {}).get("total"),
    }
    columns = ", ".join(f"{name} = ?" for name in values)
    db.execute(f"UPDATE observation SET {columns} WHERE id = ?", (*values.values(), key))


def make(path: Path) -> None:
    """Make a state file whole or not at all; another process may be faster."""
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        # Whoever may read it can lock it; its companions get its rights.
        new.chmod(new.stat().st_mode & 0o770)
        try:
            if not path.exists():
                # Of a file that was moved or lost: SQLite would take them for this one's.
                for ending in ("-wal", "-shm"):
                    path.with_name(path.name + ending).unlink(missing_ok=True)
            os.link(new, path)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            new.rename(path)
    except (OSError, sqlite3.Error) as error:
        raise ResourceError(
            f"cannot be made ({error})", path, "check disk and permission, or give another --state-file"
        ) from None
    finally:
        new.unlink(missing_ok=True)
