"""The state of all runs, in SQLite: what waits, what runs, what came of it, and everything that happened."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsa110_contimg.errors import InputError, ResourceError, StorageError
from dsa110_contimg.pipeline.naming import real_folder, run_folder
from dsa110_contimg.pipeline.quality import headline
from dsa110_contimg.visibilities.lock import NO_LINKS

__all__ = ["SCHEMA_VERSION", "STATUSES", "Observation", "State", "connect", "damaged", "schema_version"]

STATUSES = ("queued", "running", "done", "failed", "reverted")
SCHEMA_VERSION = 2
#: What SQLite says of disks that are full, read-only or away.
STORAGE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
#: Observations are known by their Measurement Set; `run` and `event` are only ever added to.
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
    seeded INTEGER NOT NULL DEFAULT 0
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
"""


@dataclass(frozen=True)
class Observation:
    """One row of the state.

    Attributes
    ----------
    id : int
        Its key.
    name : str
        Name of the observation.
    ms, folder : Path
        Measurement Set, and folder of its products.
    caltables : tuple of Path or None
        Initial tables that were given; None for the naming rule.
    observed_at, queued_at : float
        Unix times in seconds.
    status : str
        queued, running, done, failed or reverted.
    run_id : str
        The present or last run.
    attempts : int
        How often that run was begun.
    message : str
        What came of it, in one line.
    quality : str
        The verdict on what was published last; empty if there is none.
    seeded : bool
        Whether that was seeded.
    """

    id: int
    name: str
    ms: Path
    folder: Path
    caltables: tuple[Path, ...] | None
    observed_at: float
    status: str
    run_id: str
    attempts: int
    queued_at: float
    message: str
    quality: str
    seeded: bool


class _Connection(sqlite3.Connection):
    """Says of a damaged file what can be done."""

    path: Path

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*arguments)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
                raise damaged(self.path, error) from None
            raise


def damaged(path: Path, why: object) -> ResourceError:
    """Return the error for a state file that cannot be used any more."""
    return ResourceError(
        f"is damaged ({why})",
        path,
        "contimg state rebuild OUTDIR --state-file FILE makes it anew from the records",
    )


class State:
    """The state file; readers and one writer at a time may share it.

    Parameters
    ----------
    path : Path
        SQLite file, made if missing.
    create : bool
        If False a missing file is an error.

    Raises
    ------
    InputError
        If it is missing and not to be made, not a state file, or one of another version.
    ResourceError
        If it cannot be opened, or is damaged.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        if not create and not path.exists():
            raise InputError("no such state file", path, "give --state-file, or begin with contimg run")
        real_folder(path.parent)
        if not path.exists():
            _create(path)
        elif path.stat().st_size == 0:
            # It is made whole or not at all.
            raise damaged(path, "empty")
        try:
            self._db = connect(path)
            # A commit that was reported must survive a power failure; there are few of them.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            version = schema_version(self._db)
        except sqlite3.DatabaseError as error:
            raise ResourceError(
                f"cannot be used as state ({error})",
                path,
                "give another --state-file; a damaged one is made anew by contimg state rebuild OUTDIR",
            ) from None
        if version == 0:
            raise InputError("is a database, but no state file", path, "give another --state-file")
        if version < SCHEMA_VERSION:
            raise InputError(
                f"is of an earlier version ({version}, not {SCHEMA_VERSION})", path, "contimg state upgrade"
            )
        if version > SCHEMA_VERSION:
            raise InputError(
                f"is of a later version ({version}, not {SCHEMA_VERSION})", path, "use a newer contimg"
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            # SQLite ends a transaction by itself where the disk fails; what failed first is what is told.
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                kind = StorageError if error.sqlite_errorcode & 0xFF in STORAGE else ResourceError
                raise kind(
                    f"cannot be written ({error})", self.path, "check disk and permission, then go on"
                ) from None
            raise

    # What the driver does

    def add(
        self,
        name: str,
        ms: Path,
        outdir: Path,
        observed_at: float,
        caltables: tuple[Path, ...] | None = None,
    ) -> bool:
        """Queue a Measurement Set; return False if it is known already, whatever became of it.

        One of the same name and output folder whose own place is empty has been moved: it is known by its new
        place then.
        """
        with self._transaction():
            if self._row("SELECT 1 FROM observation WHERE ms = ?", str(ms)):
                return False
            same = self._row("SELECT * FROM observation WHERE folder = ?", str(outdir / name))
            if same is not None and not os.path.lexists(same["ms"]):
                self._db.execute("UPDATE observation SET ms = ? WHERE id = ?", (str(ms), same["id"]))
                self._event("moved", same["id"], None, f"from {same['ms']}")
                return False
            taken = self._row("SELECT 1 FROM observation WHERE folder = ?", str(outdir / name)) is not None
            tables = None if caltables is None else json.dumps([str(t) for t in caltables])
            run_id, now = _new_run_id(), time.time()
            cursor = self._db.execute(
                "INSERT INTO observation"
                " (status, name, ms, folder, caltables, observed_at, run_id, queued_at)"
                " VALUES ('queued', ?, ?, ?, ?, ?, ?, ?)",
                (name, str(ms), str(run_folder(outdir, name, ms, taken)), tables, observed_at, run_id, now),
            )
            self._event("queued", cursor.lastrowid, run_id)
        return True

    def take_over(
        self,
        name: str,
        ms: Path,
        folder: Path,
        observed_at: float,
        records: Sequence[dict[str, Any]],
        unfinished: str | None,
        caltables: Sequence[str] | None,
    ) -> None:
        """Add an observation from its records, for a state that is rebuilt.

        Parameters
        ----------
        name, ms, folder, observed_at
            As of :class:`Observation`.
        records : sequence of dict
            Of its runs, in their order.
        unfinished : str or None
            Identifier of a run that has no record: it is queued.
        caltables : sequence of str or None
            Initial tables that were given.
        """
        run_id, now = unfinished or records[-1]["run_id"], time.time()
        tables = None if caltables is None else json.dumps(list(caltables))
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO observation"
                " (status, name, ms, folder, caltables, observed_at, run_id, queued_at)"
                " VALUES ('queued', ?, ?, ?, ?, ?, ?, ?)",
                (name, str(ms), str(folder), tables, observed_at, run_id, now),
            )
            self._event("rebuilt", cursor.lastrowid, run_id)
        for record in records:
            self.finish(replace(self.find(ms), run_id=record["run_id"]), record)
        if unfinished is not None:
            self._change(self.find(ms), "queued", "rebuilt", "its run had come to no end")

    def next_queued(self, rather_not: int | None = None) -> Observation | None:
        """Return the oldest observation that waits, one of them only if there is no other."""
        row = self._row(
            "SELECT * FROM observation WHERE status = 'queued' ORDER BY id IS ?, observed_at, id LIMIT 1",
            rather_not,
        )
        return _observation(row) if row else None

    def pause(self, why: str) -> None:
        """Note that nothing is begun any more, and why."""
        self.note("paused", why)

    def go_on(self) -> None:
        """Note that what was paused goes on."""
        if self.paused():
            self.note("continued")

    def paused(self) -> tuple[float, str] | None:
        """Return since when nothing is begun, Unix time, and why; None if work goes on."""
        row = self._row(
            "SELECT time, event, detail FROM event WHERE event IN ('paused', 'continued')"
            " ORDER BY id DESC LIMIT 1"
        )
        return (row["time"], row["detail"]) if row and row["event"] == "paused" else None

    def start(self, observation: Observation) -> None:
        """Note that a worker is given the observation."""
        self._change(observation, "running", "started", f"attempt {observation.attempts + 1}", attempts=1)

    def requeue(self, observation: Observation, event: str, why: str, *, blameless: bool = False) -> None:
        """Put back what did not come to an end; blameless, the attempt does not count."""
        self._change(observation, "queued", event, why, attempts=-1 if blameless else 0)

    def finish(self, observation: Observation, record: dict[str, Any]) -> None:
        """Note what came of a run."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO run (run_id, observation_id, status, started_at, finished_at, record)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    observation.run_id,
                    observation.id,
                    record["status"],
                    record["started"],
                    record["finished"],
                    json.dumps(record, allow_nan=False),
                ),
            )
            said = headline(record)
            self._set(observation.id, record["status"], said)
            if record["status"] == "done":
                # What was published before stays where a run fails.
                self._db.execute(
                    "UPDATE observation SET quality = ?, seeded = ? WHERE id = ?",
                    (record["quality"], record["seeded"], observation.id),
                )
            self._event(record["status"], observation.id, observation.run_id, said)

    def revert(self, observation: Observation, detail: str) -> None:
        """Note that the Measurement Set was put back."""
        self._change(observation, "reverted", "reverted", detail)

    def note(self, event: str, detail: str = "", observation: Observation | None = None) -> None:
        """Add to the history."""
        with self._transaction():
            self._event(event, observation.id if observation else None, None, detail)

    # What users do

    def retry(self, mss: list[Path] | None = None) -> list[Observation]:
        """Queue observations again, each as a new run.

        Parameters
        ----------
        mss : list of Path, optional
            Measurement Sets, whatever became of them; all that failed by default.

        Raises
        ------
        InputError
            If one is unknown, or waits or runs already.
        """
        if mss is None:
            chosen = self.observations("failed")
        else:
            chosen = [self.find(ms) for ms in mss]
            busy = [o for o in chosen if o.status in ("queued", "running")]
            if busy:
                raise InputError(f"is {busy[0].status} already", busy[0].ms, "wait for it")
        with self._transaction():
            for o in chosen:
                run_id = _new_run_id()
                self._db.execute(
                    "UPDATE observation SET status = 'queued', run_id = ?, attempts = 0, queued_at = ?,"
                    " message = '' WHERE id = ?",
                    (run_id, time.time(), o.id),
                )
                self._event("retry", o.id, run_id)
        return chosen

    def find(self, ms: Path) -> Observation:
        """Return the observation of a Measurement Set.

        Raises
        ------
        InputError
            If it is unknown.
        """
        known = self.known(ms)
        if known is None:
            raise InputError("is unknown to the pipeline", ms, f"see contimg status; state is {self.path}")
        return known

    def known(self, ms: Path) -> Observation | None:
        """Return the observation of a Measurement Set; None if it is unknown."""
        row = self._row("SELECT * FROM observation WHERE ms = ?", str(ms))
        return _observation(row) if row else None

    def observations(self, *statuses: str) -> list[Observation]:
        """Return observations, oldest first: all, or those of some statuses."""
        chosen = statuses or STATUSES
        marks = ",".join("?" * len(chosen))
        rows = self._db.execute(
            f"SELECT * FROM observation WHERE status IN ({marks}) ORDER BY observed_at, id", chosen
        )
        return [_observation(row) for row in rows]

    def latest(
        self,
        number: int | None = None,
        *,
        statuses: Sequence[str] = (),
        qualities: Sequence[str] = (),
        since: float | None = None,
    ) -> list[Observation]:
        """Return the observations that were observed last, the latest first.

        Parameters
        ----------
        number : int, optional
            At most so many; all if None.
        statuses, qualities : sequence of str, optional
            Only those of one of these statuses, or of one of these verdicts.
        since : float, optional
            Only those observed since, Unix time in seconds.
        """
        kinds = [("status", tuple(statuses)), ("quality", tuple(qualities))]
        either = " OR ".join(f"{name} IN ({','.join('?' * len(v))})" for name, v in kinds if v) or "1"
        values = [value for _, v in kinds for value in v]
        rows = self._db.execute(
            f"SELECT * FROM observation WHERE ({either}) AND observed_at >= ?"
            " ORDER BY observed_at DESC, id DESC LIMIT ?",
            (*values, -1e300 if since is None else since, -1 if number is None else number),
        )
        return [_observation(row) for row in rows]

    def qualities(self) -> dict[str, int]:
        """Count what is published by verdict."""
        rows = self._db.execute(
            "SELECT quality, COUNT(*) FROM observation WHERE quality != '' GROUP BY quality ORDER BY quality"
        )
        return dict(map(tuple, rows))

    def counts(self) -> dict[str, int]:
        """Count observations by status; every status is there."""
        rows = self._db.execute("SELECT status, COUNT(*) FROM observation GROUP BY status")
        return dict.fromkeys(STATUSES, 0) | dict(map(tuple, rows))

    def last_queued_at(self) -> float:
        """Return when an observation was queued last, Unix time; zero if none ever was."""
        row = self._row("SELECT MAX(queued_at) FROM observation")
        return float(row[0] or 0.0) if row else 0.0

    def record(self, observation: Observation) -> dict[str, Any] | None:
        """Return the record of its last finished run."""
        row = self._row(
            "SELECT record FROM run WHERE observation_id = ? ORDER BY id DESC LIMIT 1", observation.id
        )
        return json.loads(row["record"]) if row else None

    def records(self, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and record of all finished runs after a number, in order."""
        for row in self._db.execute("SELECT id, record FROM run WHERE id > ? ORDER BY id", (after,)):
            yield row["id"], json.loads(row["record"])

    def history(self, observation: Observation) -> list[dict[str, Any]]:
        """Return what happened to an observation, in order."""
        rows = self._db.execute(
            "SELECT time, run_id, event, detail FROM event WHERE observation_id = ? ORDER BY id",
            (observation.id,),
        )
        return [dict(row) for row in rows]

    def event_counts(self) -> dict[str, int]:
        """Count all that happened, by kind."""
        return dict(map(tuple, self._db.execute("SELECT event, COUNT(*) FROM event GROUP BY event")))

    # Rows

    def _row(self, query: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
        return row

    def _change(
        self, observation: Observation, status: str, event: str, detail: str, attempts: int = 0
    ) -> None:
        with self._transaction():
            self._set(observation.id, status, detail if status != "running" else "")
            self._db.execute(
                "UPDATE observation SET attempts = attempts + ? WHERE id = ?", (attempts, observation.id)
            )
            self._event(event, observation.id, observation.run_id, detail)

    def _set(self, key: int, status: str, message: str) -> None:
        self._db.execute(
            "UPDATE observation SET status = ?, message = ? WHERE id = ?", (status, message, key)
        )

    def _event(self, event: str, key: int | None, run_id: str | None, detail: str = "") -> None:
        self._db.execute(
            "INSERT INTO event (time, observation_id, run_id, event, detail) VALUES (?, ?, ?, ?, ?)",
            (time.time(), key, run_id, event, detail),
        )


def _new_run_id() -> str:
    return uuid.uuid4().hex[:12]


def _observation(row: sqlite3.Row) -> Observation:
    values = dict(row)
    tables = values["caltables"]
    values["caltables"] = None if tables is None else tuple(Path(t) for t in json.loads(tables))
    paths = {"ms": Path(values["ms"]), "folder": Path(values["folder"]), "seeded": bool(values["seeded"])}
    return Observation(**values | paths)


def connect(path: Path) -> _Connection:
    """Open the database of a state file, of whatever version."""
    db = sqlite3.connect(
        path, timeout=30.0, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    db.path = path
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode=WAL")
    return db


def schema_version(db: sqlite3.Connection) -> int:
    """Return the version of a state file's tables; 0 of another database."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _create(path: Path) -> None:
    """Make a state file whole or not at all; another process may be faster."""
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
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
