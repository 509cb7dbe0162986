"""An observation as the pipeline knows it, and which of them are meant."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ENDED", "STATUSES", "Observation", "Selection", "observation_of"]

#: Statuses of what is not to be done any more, unless somebody asks for it.
ENDED = ("done", "failed", "reverted")
STATUSES = ("queued", "running", *ENDED)


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
    priority : int
        Those with a higher one are begun first.
    version : str
        The version of contimg that published it.
    ended_at : float
        When its last run ended, Unix time in seconds; zero if none has.
    pruned : str
        What has been removed of its products: nothing (empty), ``images`` or ``products``.
    identity : str
        What tells it from another of its name; empty where that is not known.
    thermal_ratio, flux_ratio, snr_gain : float or None
        Of what is published: noise over thermal, flux over the catalogue's, signal to noise over that before.
    seconds : float or None
        What that took.
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
    priority: int
    version: str
    ended_at: float
    pruned: str
    identity: str
    thermal_ratio: float | None
    flux_ratio: float | None
    snr_gain: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which observations are meant.

    Attributes
    ----------
    statuses, qualities : tuple of str
        Of one of these statuses, and of one of these verdicts; of all where empty.
    since, until : float or None
        Observed since and before, Unix times in seconds.
    version : str or None
        Published by this version of contimg.
    seeded : bool or None
        Published seeded, or unseeded.
    """

    statuses: tuple[str, ...] = ()
    qualities: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    version: str | None = None
    seeded: bool | None = None

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL, and its values."""
        kinds = [("status", self.statuses), ("quality", self.qualities)]
        parts = ["1", *(f"{name} IN ({','.join('?' * len(v))})" for name, v in kinds if v)]
        values: list[Any] = [value for _, v in kinds for value in v]
        bounds = {
            "observed_at >= ?": self.since,
            "observed_at < ?": self.until,
            "version = ?": self.version,
            "quality != '' AND seeded = ?": self.seeded,
        }
        for condition, value in bounds.items():
            if value is not None:
                parts.append(condition)
                values.append(value)
        return " AND ".join(parts), values


def observation_of(row: sqlite3.Row) -> Observation:
    """Return the observation of a row of its table."""
    values = dict(row)
    tables = values["caltables"]
    values["caltables"] = None if tables is None else tuple(Path(t) for t in json.loads(tables))
    paths = {"ms": Path(values["ms"]), "folder": Path(values["folder"]), "seeded": bool(values["seeded"])}
    return Observation(**values | paths)
