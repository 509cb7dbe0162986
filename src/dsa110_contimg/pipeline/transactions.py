"""Transactions of SQLite: whole or not at all, and one line where the disk fails."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from dsa110_contimg.errors import ResourceError

__all__ = ["transaction", "version_of"]


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Do what follows whole or not at all.

    Parameters
    ----------
    db : sqlite3.Connection
        Open, without transactions of its own (``isolation_level=None``).
    path : Path
        Its file, for what is said of it.

    Raises
    ------
    ResourceError
        If the file cannot be written.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as error:
        # SQLite ends a transaction by itself where the disk fails; what failed first is what is told.
        with contextlib.suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")
        # A damaged file is plainly a DatabaseError; what else is derived from it are our mistakes.
        if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
            raise ResourceError(
                f"cannot be written ({error})", path, "check disk and permission, then go on"
            ) from None
        raise


def version_of(db: sqlite3.Connection) -> int:
    """Return the version of a database's tables; 0 of one that tells none."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])
