"""Care of state files: checked, backed up, brought to this version, rebuilt from the records."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.files import replacing
from dsa110_contimg.pipeline.naming import (
    FAILURE,
    JOB,
    OWNER,
    RECORD,
    check_name,
    claim,
    observed_at,
    state_of,
)
from dsa110_contimg.pipeline.quality import headline
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.pipeline.state_file import (
    SCHEMA_VERSION,
    connect,
    damaged,
    note_published,
)
from dsa110_contimg.pipeline.transactions import version_of
from dsa110_contimg.visibilities.lock import lock_beside

__all__ = ["Rebuilt", "back_up", "check", "rebuild", "upgrade"]

#: From version 1 to 2: the verdict on what is published is kept with the observation.
TO_2 = """
ALTER TABLE observation ADD COLUMN quality TEXT NOT NULL DEFAULT '';
ALTER TABLE observation ADD COLUMN seeded INTEGER NOT NULL DEFAULT 0;
CREATE INDEX observation_time ON observation (observed_at);
CREATE INDEX observation_quality ON observation (quality, observed_at);
CREATE INDEX run_observation ON run (observation_id);
CREATE INDEX event_kind ON event (event);
"""
#: From version 2 to 3: what is queued, chosen and removed by.
TO_3 = """
ALTER TABLE observation ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE observation ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE observation ADD COLUMN ended_at REAL NOT NULL DEFAULT 0;
ALTER TABLE observation ADD COLUMN pruned TEXT NOT NULL DEFAULT '';
ALTER TABLE observation ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE observation ADD COLUMN thermal_ratio REAL;
ALTER TABLE observation ADD COLUMN flux_ratio REAL;
ALTER TABLE observation ADD COLUMN snr_gain REAL;
ALTER TABLE observation ADD COLUMN seconds REAL;
CREATE INDEX run_finished ON run (finished_at);
CREATE INDEX event_time ON event (time);
UPDATE observation SET ended_at =
    COALESCE((SELECT MAX(finished_at) FROM run WHERE observation_id = observation.id), 0);
"""
STEPS = {1: TO_2, 2: TO_3}
#: The last run that published anything.
PUBLISHED = """
SELECT observation_id, record FROM run WHERE id IN (
    SELECT MAX(id) FROM run WHERE status = 'done' GROUP BY observation_id
)
"""


@dataclass(frozen=True)
class Rebuilt:
    """What a state was rebuilt from.

    Attributes
    ----------
    finished, queued : int
        Observations with a record of what came of them, and those that were in work.
    unreadable : tuple of Path
        Folders whose records cannot be read: their observations are missing.
    old : Path or None
        Where the file that was there has been moved.
    """

    finished: int
    queued: int
    unreadable: tuple[Path, ...]
    old: Path | None


def check(path: Path) -> dict[str, Any]:
    """Check every page and reference of a state file.

    Returns
    -------
    dict
        ``version``, ``observations`` and ``runs``.

    Raises
    ------
    InputError
        If it is missing or of another kind or version.
    ResourceError
        If it is damaged.
    """
    with State(path, create=False), contextlib.closing(connect(path)) as db:
        problems = [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
        problems += [
            f"row of {row[0]} without its observation" for row in db.execute("PRAGMA foreign_key_check")
        ]
        if problems:
            raise damaged(path, problems[0].strip().splitlines()[0])
        for (text,) in db.execute("SELECT record FROM run"):
            try:
                json.loads(text)
            except ValueError as error:
                raise damaged(path, f"a record is no JSON: {error}") from None
        counts = {
            table: db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("observation", "run")
        }
        return {
            "version": version_of(db),
            "observations": counts["observation"],
            "runs": counts["run"],
        }


def back_up(path: Path, copy: Path) -> None:
    """Copy a state file of any version, also while a driver uses it; an earlier copy is replaced.

    Raises
    ------
    InputError
        If it is missing or no state file, or the copy is the file itself.
    ResourceError
        If it is damaged, or the copy cannot be written.
    """
    if not path.exists():
        raise InputError("no such state file", path, "give --state-file")
    if not path.stat().st_size:
        raise damaged(path, "empty")
    if copy.exists() and copy.samefile(path):
        raise InputError("is the state file itself", copy, "give another file")
    _copy(path, copy)


def _copy(path: Path, copy: Path) -> None:
    """Copy a state file of any version into one file; what comes out is checked before it is put in place."""
    try:
        with (
            replacing(copy) as temporary,
            contextlib.closing(connect(path)) as db,
            contextlib.closing(sqlite3.connect(temporary)) as target,
        ):
            db.backup(target)
            # One file, which can be copied as it is.
            target.execute("PRAGMA journal_mode=DELETE")
            (found,) = target.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise damaged(path, found)
    except sqlite3.OperationalError as error:
        raise ResourceError(f"cannot be written ({error})", copy, "choose another place") from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from None
    except OSError as error:
        raise ResourceError(f"cannot be written ({error.strerror})", copy, "choose another place") from None


def upgrade(path: Path) -> Path | None:
    """Bring a state file to this version; a copy of the old one stays beside it.

    Returns
    -------
    Path or None
        The copy; None if the file is of this version already.

    Raises
    ------
    InputError
        If it is missing, no state file, or of a later version.
    ResourceError
        If it is damaged, or a driver uses it.
    """
    if not path.exists():
        raise InputError("no such state file", path, "give --state-file")
    if not path.stat().st_size:
        raise damaged(path, "empty")
    with lock_beside(path, "contimg state upgrade"):
        try:
            with contextlib.closing(connect(path)) as db:
                version = version_of(db)
                if version == SCHEMA_VERSION:
                    return None
                if version == 0:
                    raise InputError("is a database, but no state file", path, "give another --state-file")
                if version > SCHEMA_VERSION:
                    raise InputError("is of a later version", path, "use a newer contimg")
                copy = path.with_name(f"{path.name}.version{version}")
                _copy(path, copy)
                _upgrade(db, version)
        except sqlite3.OperationalError as error:
            raise ResourceError(
                f"cannot be upgraded ({error})", path, "check disk and permission, and who uses it"
            ) from None
        except (sqlite3.DatabaseError, ValueError) as error:
            raise damaged(path, error) from None
    return copy


def _upgrade(db: sqlite3.Connection, version: int) -> None:
    """Take the tables through every version since theirs, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    for step in range(version, SCHEMA_VERSION):
        for statement in STEPS[step].split(";"):
            db.execute(statement)
    for row in db.execute(PUBLISHED).fetchall():
        note_published(db, row["observation_id"], json.loads(row["record"]))
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    db.execute("COMMIT")


def rebuild(path: Path, outdirs: list[Path]) -> Rebuilt:
    """Make a state file anew from the records in output folders; what was there is moved aside.

    Observations that were in work are queued again. What only the state knew is lost: the history, what was
    queued and not begun, which were put back.

    Parameters
    ----------
    path : Path
        The state file to make.
    outdirs : list of Path
        Folders of all products.

    Raises
    ------
    ResourceError
        If a driver uses it, or it cannot be written.
    """
    outdirs = [outdir.absolute() for outdir in outdirs]
    for outdir in outdirs:
        if not outdir.is_dir():
            raise InputError("no such output folder", outdir, "check the path")
        owner = state_of(outdir)
        if owner is not None and owner.exists() and owner != path.resolve():
            raise ResourceError(
                f"belongs to the state file {owner}", outdir, f"give --state-file {owner}, or move that away"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    finished = queued = 0
    unreadable: list[Path] = []
    with lock_beside(path, "contimg state rebuild"):
        new = path.with_name(f".{path.name}.rebuilt")
        _remove(new)
        with State(new) as state:
            for folder in sorted(p for outdir in outdirs for p in outdir.iterdir() if (p / JOB).is_file()):
                try:
                    begun, records = _read(folder / JOB), list(_records(folder))
                    ms = Path(begun["ms"])
                    last = begun["run_id"] if begun["run_id"] not in {r["run_id"] for r in records} else None
                    times = observed_at(ms)
                    state.take_over(check_name(ms), ms, folder, times, records, last, begun.get("caltables"))
                except (OSError, ValueError, KeyError, TypeError, InputError, sqlite3.IntegrityError):
                    unreadable.append(folder)
                    continue
                finished, queued = finished + (last is None), queued + (last is not None)
        with contextlib.closing(connect(new)) as db:
            db.execute("PRAGMA journal_mode=DELETE")
        old = _set_aside(path)
        new.replace(path)
        for outdir in outdirs:
            (outdir / OWNER).unlink(missing_ok=True)
            claim(outdir, path)
    return Rebuilt(finished, queued, tuple(unreadable), old)


def _set_aside(path: Path) -> Path | None:
    """Give a state file a second name, with what its database has not taken in yet; None if there is none."""
    if not path.exists():
        return None
    old = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    with replacing(old) as temporary:
        shutil.copyfile(path, temporary)
    for ending in ("-wal", "-shm"):
        left = path.with_name(path.name + ending)
        if left.exists():
            left.rename(old.with_name(old.name + ending))
    return old


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a folder in the order of their ends; one that lacks a part raises."""
    found = [_read(folder / name) for name in (RECORD, FAILURE) if (folder / name).is_file()]
    for record in sorted(found, key=lambda record: float(record["finished"])):
        headline(record)
        needed = ("run_id", "started", *(("seeded", "quality") if record["status"] == "done" else ()))
        yield record | {name: record[name] for name in needed}


def _read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return values
