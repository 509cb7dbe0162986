"""The state of all runs, in SQLite: what waits, what runs, what came of it, and everything that happened."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.pipeline.naming import real_folder, run_folder

__all__ = ["STATUSES", "Observation", "State"]

STATUSES = ("queued", "running", "done", "failed", "reverted")
SCHEMA_VERSION = 1
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
    message TEXT NOT NULL DEFAULT ''
);
CREATE INDEX observation_queue ON observation (status, observed_at, id);
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    observation_id INTEGER NOT NULL REFERENCES observation (id),
    status TEXT NOT NULL,
    started_at REAL NOT NULL,
    finished_at REAL NOT NULL,
    record TEXT NOT NULL
);
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    observation_id INTEGER REFERENCES observation (id),
    run_id TEXT,
    event TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX event_observation ON event (observation_id);
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
        If it is missing and not to be made, or not a state file.
    ResourceError
        If it cannot be opened.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        if not create and not path.exists():
            raise InputError("no such state file", path, "give --state-file, or begin with contimg run")
        real_folder(path.parent)
        try:
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            # A commit that was reported must survive a power failure; there are few of them.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            if self._version() == 0:
                self._create()
            if self._version() != SCHEMA_VERSION:
                raise InputError("is no state file of this version", path, "give another --state-file")
        except sqlite3.DatabaseError as error:
            raise ResourceError(
                f"cannot be used as state ({error})", path, "give another --state-file"
            ) from None

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _create(self) -> None:
        with self._transaction():
            # Another process may have been faster, and a database of others is left alone.
            if self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                return
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

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
                raise ResourceError(
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
        """Queue a Measurement Set; return False if it is known already, whatever became of it."""
        with self._transaction():
            if self._row("SELECT 1 FROM observation WHERE ms = ?", str(ms)):
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

    def next_queued(self) -> Observation | None:
        """Return the oldest observation that waits."""
        row = self._row("SELECT * FROM observation WHERE status = 'queued' ORDER BY observed_at, id LIMIT 1")
        return _observation(row) if row else None

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
            self._set(observation.id, record["status"], record["message"])
            self._event(record["status"], observation.id, observation.run_id, record["message"])

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
        row = self._row("SELECT * FROM observation WHERE ms = ?", str(ms))
        if row is None:
            raise InputError("is unknown to the pipeline", ms, f"see contimg status; state is {self.path}")
        return _observation(row)

    def observations(self, *statuses: str) -> list[Observation]:
        """Return observations, oldest first: all, or those of some statuses."""
        chosen = statuses or STATUSES
        marks = ",".join("?" * len(chosen))
        rows = self._db.execute(
            f"SELECT * FROM observation WHERE status IN ({marks}) ORDER BY observed_at, id", chosen
        )
        return [_observation(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Count observations by status; every status is there."""
        rows = self._db.execute("SELECT status, COUNT(*) FROM observation GROUP BY status")
        return dict.fromkeys(STATUSES, 0) | dict(map(tuple, rows))

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
    return Observation(**values | {"ms": Path(values["ms"]), "folder": Path(values["folder"])})
