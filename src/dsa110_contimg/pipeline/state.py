"""The state of all runs, in SQLite: what waits, what runs, what came of it, and everything that happened."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.pipeline.naming import identity, real_folder, run_folder
from dsa110_contimg.pipeline.observation import ENDED, STATUSES, Observation, Selection, observation_of
from dsa110_contimg.pipeline.quality import headline
from dsa110_contimg.pipeline.state_file import (
    SCHEMA_VERSION,
    connect,
    damaged,
    make,
    note_published,
)
from dsa110_contimg.pipeline.transactions import transaction, version_of

__all__ = ["State"]


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
            make(path)
        elif path.stat().st_size == 0:
            # It is made whole or not at all.
            raise damaged(path, "empty")
        try:
            self._db = connect(path)
            # A commit that was reported must survive a power failure; there are few of them.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            version = version_of(self._db)
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

    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        return transaction(self._db, self.path)

    # What the driver does

    def add(
        self,
        name: str,
        ms: Path,
        outdir: Path,
        observed_at: float,
        caltables: tuple[Path, ...] | None = None,
        priority: int = 0,
    ) -> bool:
        """Queue a Measurement Set; return False if it is known already, whatever became of it.

        The same one, by name and identity, whose own place is empty has been moved: it is known by its new
        place then.
        """
        known_by = identity(ms)
        with self._transaction():
            if self._row("SELECT 1 FROM observation WHERE ms = ?", str(ms)):
                return False
            same = self._row("SELECT * FROM observation WHERE folder = ?", str(outdir / name))
            alike = same and known_by and (same["name"], same["identity"]) == (name, known_by)
            if same is not None and alike and not os.path.lexists(same["ms"]):
                self._db.execute("UPDATE observation SET ms = ? WHERE id = ?", (str(ms), same["id"]))
                self._event("moved", same["id"], None, f"from {same['ms']}")
                return False
            taken = self._row("SELECT 1 FROM observation WHERE folder = ?", str(outdir / name)) is not None
            tables = None if caltables is None else json.dumps([str(t) for t in caltables])
            run_id, now = _new_run_id(), time.time()
            cursor = self._db.execute(
                "INSERT INTO observation"
                " (status, name, ms, folder, caltables, observed_at, run_id, queued_at, priority, identity)"
                " VALUES ('queued', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    name,
                    str(ms),
                    str(run_folder(outdir, name, ms, taken)),
                    tables,
                    observed_at,
                    run_id,
                    now,
                    priority,
                    known_by,
                ),
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
                " (status, name, ms, folder, caltables, observed_at, run_id, queued_at, identity)"
                " VALUES ('queued', ?, ?, ?, ?, ?, ?, ?, ?)",
                (name, str(ms), str(folder), tables, observed_at, run_id, now, identity(ms)),
            )
            self._event("rebuilt", cursor.lastrowid, run_id)
        for record in records:
            self.finish(replace(self.find(ms), run_id=record["run_id"]), record)
        if unfinished is not None:
            self._change(self.find(ms), "queued", "rebuilt", "its run had come to no end")

    def next_queued(self, rather_not: int | None = None, recent_since: float = 0.0) -> Observation | None:
        """Return the observation that is to be begun next.

        Parameters
        ----------
        rather_not : int, optional
            Key of one that is taken only if there is no other.
        recent_since : float
            Unix time in seconds; of the same priority, what was observed since comes before what is older.

        Returns
        -------
        Observation or None
            By priority, then the recent, then the oldest; None if none waits.
        """
        row = self._row(
            "SELECT * FROM observation WHERE status = 'queued'"
            " ORDER BY id IS ?, priority DESC, observed_at < ?, observed_at, id LIMIT 1",
            rather_not,
            recent_since,
        )
        return observation_of(row) if row else None

    def pause(self, why: str) -> None:
        """Note that nothing is begun any more, and why."""
        self.note("paused", why)

    def go_on(self) -> None:
        """Note that what was paused goes on."""
        if self.paused():
            self.note("continued")

    def paused(self, before: float | None = None) -> tuple[float, str] | None:
        """Return since when nothing is begun, Unix time, and why; None if work goes on.

        Parameters
        ----------
        before : float, optional
            As it was before this Unix time; now by default.
        """
        return self._lasting("paused", "continued", before)

    def page_is_stale(self, why: str) -> None:
        """Note that the page of all observations cannot be made, and why, unless that is noted."""
        last = self.stale_page()
        if last is None or last[1] != why:
            self.note("page_stale", why)

    def page_is_made(self) -> None:
        """Note that the page can be made again."""
        if self.stale_page():
            self.note("page_made")

    def stale_page(self) -> tuple[float, str] | None:
        """Return since when the page of all observations is stale, Unix time, and why; None if it is not."""
        return self._lasting("page_stale", "page_made")

    def _lasting(self, begins: str, ends: str, before: float | None = None) -> tuple[float, str] | None:
        row = self._row(
            "SELECT time, event, detail FROM event WHERE event IN (?, ?) AND time < ?"
            " ORDER BY id DESC LIMIT 1",
            begins,
            ends,
            1e300 if before is None else before,
        )
        return (row["time"], row["detail"]) if row and row["event"] == begins else None

    def start(self, observation: Observation) -> bool:
        """Note that a worker is given the observation; False if it waits no longer."""
        with self._transaction():
            cursor = self._db.execute(
                "UPDATE observation SET status = 'running', message = '', attempts = attempts + 1"
                " WHERE id = ? AND run_id = ? AND ms = ? AND status = 'queued'",
                (observation.id, observation.run_id, str(observation.ms)),
            )
            if not cursor.rowcount:
                return False
            detail = f"attempt {observation.attempts + 1}"
            self._event("started", observation.id, observation.run_id, detail)
        return True

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
            self._db.execute(
                "UPDATE observation SET ended_at = ?, pruned = '' WHERE id = ?",
                (record["finished"], observation.id),
            )
            if record["status"] == "done":
                # What was published before stays where a run fails.
                note_published(self._db, observation.id, record)
            self._event(record["status"], observation.id, observation.run_id, said)

    def revert(self, observation: Observation, detail: str) -> None:
        """Note that the Measurement Set was put back."""
        self._change(observation, "reverted", "reverted", detail)

    def note(self, event: str, detail: str = "", observation: Observation | None = None) -> None:
        """Add to the history."""
        with self._transaction():
            self._event(event, observation.id if observation else None, None, detail)

    # What users do

    def retry(
        self, chosen: Sequence[Observation], priority: int = 0, *, dry_run: bool = False
    ) -> list[Observation]:
        """Queue observations again, each as a new run; return them. A dry run only looks whether it can be.

        Raises
        ------
        InputError
            If one waits or runs already.
        """
        if dry_run:
            busy = [o for o in chosen if o.status not in ENDED]
            if busy:
                raise InputError(f"is {busy[0].status} already", busy[0].ms, "wait for it")
            return list(chosen)
        with self._transaction():
            for o in chosen:
                run_id = _new_run_id()
                cursor = self._db.execute(
                    "UPDATE observation SET status = 'queued', run_id = ?, attempts = 0, queued_at = ?,"
                    " message = '', priority = ? WHERE id = ? AND status NOT IN ('queued', 'running')",
                    (run_id, time.time(), priority, o.id),
                )
                if not cursor.rowcount:
                    raise InputError(f"is {self.find(o.ms).status} already", o.ms, "wait for it")
                self._event("retry", o.id, run_id)
        return [self.find(o.ms) for o in chosen]

    def prioritize(self, chosen: Sequence[Observation], priority: int) -> None:
        """Give observations that wait another place in the queue.

        Raises
        ------
        InputError
            If one does not wait.
        """
        with self._transaction():
            for o in chosen:
                cursor = self._db.execute(
                    "UPDATE observation SET priority = ? WHERE id = ? AND status = 'queued'", (priority, o.id)
                )
                if not cursor.rowcount:
                    raise InputError(f"is {self.find(o.ms).status} and does not wait", o.ms, "contimg retry")
                self._event("prioritized", o.id, o.run_id, f"priority {priority}")

    def rename(self, observation: Observation, name: str, ms: Path) -> None:
        """Know an observation by another Measurement Set; its products stay where they are.

        Raises
        ------
        InputError
            If it runs, or the other one is known already.
        """
        with self._transaction():
            self._require_idle(observation)
            if self._row("SELECT 1 FROM observation WHERE ms = ?", str(ms)):
                raise InputError("is known already", ms, "contimg forget one of the two")
            self._db.execute(
                "UPDATE observation SET name = ?, ms = ?, identity = ? WHERE id = ?",
                (name, str(ms), identity(ms), observation.id),
            )
            self._event("renamed", observation.id, None, f"from {observation.ms}")

    def forget(self, observation: Observation) -> None:
        """Remove an observation and its history; that it was forgotten stays on record.

        Raises
        ------
        InputError
            If it runs.
        """
        with self._transaction():
            self._require_idle(observation)
            published = self._row(
                "SELECT run_id FROM run WHERE observation_id = ? AND status = 'done' ORDER BY id DESC",
                observation.id,
            )
            for table, key in (("run", "observation_id"), ("event", "observation_id"), ("observation", "id")):
                self._db.execute(f"DELETE FROM {table} WHERE {key} = ?", (observation.id,))
            run_id = published["run_id"] if published else None
            self._event("forgotten", None, run_id, f"{observation.ms}, which was {observation.status}")

    def _require_idle(self, observation: Observation) -> None:
        row = self._row("SELECT status FROM observation WHERE id = ?", observation.id)
        if row is None or row["status"] == "running":
            raise InputError("is running", observation.ms, "wait for it")

    def note_pruned(self, observation: Observation, what: str, detail: str) -> None:
        """Note which products have been removed, ``images`` or ``products``; without detail, silently."""
        with self._transaction():
            self._db.execute("UPDATE observation SET pruned = ? WHERE id = ?", (what, observation.id))
            if detail:
                self._event("pruned", observation.id, observation.run_id, detail)

    def moved_folders(self, outdir: Path) -> list[Observation]:
        """Return the observations whose products are said to lie in another output folder."""
        rows = self._db.execute("SELECT * FROM observation")
        return [observation_of(row) for row in rows if row["folder"].rpartition("/")[0] != str(outdir)]

    def relocate(self, moved: Sequence[Observation], outdir: Path) -> None:
        """Note that the products of observations lie in another output folder now."""
        with self._transaction():
            for o in moved:
                self._db.execute(
                    "UPDATE observation SET folder = ? WHERE id = ?", (str(outdir / o.folder.name), o.id)
                )
                self._event("folder_moved", o.id, None, f"from {o.folder}")

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
        return observation_of(row) if row else None

    def observations(self, *statuses: str) -> list[Observation]:
        """Return observations, oldest first: all, or those of some statuses."""
        chosen = statuses or STATUSES
        marks = ",".join("?" * len(chosen))
        rows = self._db.execute(
            f"SELECT * FROM observation WHERE status IN ({marks}) ORDER BY observed_at, id", chosen
        )
        return [observation_of(row) for row in rows]

    def latest(self, number: int | None = None, *chosen: Selection) -> list[Observation]:
        """Return the observations that were observed last, the latest first.

        Parameters
        ----------
        number : int, optional
            At most so many; all if None.
        *chosen : Selection
            What any of these means; all observations if there is none.
        """
        found = [selection.where() for selection in chosen or (Selection(),)]
        condition = " OR ".join(f"({text})" for text, _ in found)
        rows = self._db.execute(
            f"SELECT * FROM observation WHERE {condition} ORDER BY observed_at DESC, id DESC LIMIT ?",
            (*(value for _, values in found for value in values), -1 if number is None else number),
        )
        return [observation_of(row) for row in rows]

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

    def published_runs(self) -> dict[int, str]:
        """Return by key of its observation the identifier of the run that published what there is.

        What was put back since is not there any more.
        """
        gone = set(self.withdrawn_runs())
        rows = self._db.execute(
            "SELECT observation_id, run_id FROM run WHERE id IN"
            " (SELECT MAX(id) FROM run WHERE status = 'done' GROUP BY observation_id)"
        )
        return {key: run_id for key, run_id in map(tuple, rows) if run_id not in gone}

    def withdrawn_runs(self) -> list[str]:
        """Return the runs of what was put back after they were done, and those that were forgotten."""
        rows = self._db.execute(
            "SELECT done.run_id FROM event done JOIN event gone ON gone.observation_id = done.observation_id"
            " WHERE done.event = 'done' AND gone.event = 'reverted' AND gone.id > done.id"
            " UNION SELECT run_id FROM event WHERE event = 'forgotten' AND run_id IS NOT NULL"
        )
        return [str(row[0]) for row in rows]

    def runs_of(self, observation: Observation) -> list[str]:
        """Return the runs of an observation that came to an end, in their order."""
        asked = "SELECT run_id FROM run WHERE observation_id = ? ORDER BY id"
        rows = self._db.execute(asked, (observation.id,))
        return [str(row[0]) for row in rows]

    def record_of(self, run_id: str) -> dict[str, Any] | None:
        """Return the record of a finished run; None if there is none."""
        row = self._row("SELECT record FROM run WHERE run_id = ?", run_id)
        return json.loads(row["record"]) if row else None

    def finished_between(self, begin: float, end: float) -> list[tuple[str, dict[str, Any]]]:
        """Return name and record of the runs that ended from `begin` to before `end`, Unix times."""
        rows = self._db.execute(
            "SELECT name, record FROM run JOIN observation ON observation.id = observation_id"
            " WHERE finished_at >= ? AND finished_at < ? ORDER BY finished_at, run.id",
            (begin, end),
        )
        return [(row["name"], json.loads(row["record"])) for row in rows]

    def events_between(self, begin: float, end: float) -> list[dict[str, Any]]:
        """Return what happened from `begin` to before `end`, Unix times, in order; ``name`` may be None."""
        rows = self._db.execute(
            "SELECT time, name, event, detail FROM event LEFT JOIN observation ON observation.id ="
            " observation_id WHERE time >= ? AND time < ? ORDER BY event.id",
            (begin, end),
        )
        return [dict(row) for row in rows]

    def history(self, observation: Observation) -> list[dict[str, Any]]:
        """Return what happened to an observation, in order."""
        rows = self._db.execute(
            "SELECT time, run_id, event, detail FROM event WHERE observation_id = ? ORDER BY id",
            (observation.id,),
        )
        return [dict(row) for row in rows]

    def happened(self, observation: Observation, event: str) -> int:
        """Count how often something happened in the present run of an observation."""
        row = self._row(
            "SELECT COUNT(*) FROM event WHERE observation_id = ? AND run_id = ? AND event = ?",
            observation.id,
            observation.run_id,
            event,
        )
        return int(row[0]) if row else 0

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
            self._set(observation.id, status, detail)
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
