"""Observations into the light curves and out of them, whole or not at all."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Int
from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging import read_image
from dsa110_contimg.imaging.detection import forced_peaks
from dsa110_contimg.pipeline.correction import BY_VISIBILITIES, FOLLOWS, FOUND, TELLS
from dsa110_contimg.pipeline.ensemble import ENSEMBLE_ERROR, FEWEST, best_told
from dsa110_contimg.pipeline.lightcurve_file import ENSEMBLE, FLUXES
from dsa110_contimg.pipeline.measured_sources import FORCED, MeasuredSources
from dsa110_contimg.pipeline.source_places import sources_of, within

__all__ = ["COUNTING", "Measured", "Taken", "add", "remove"]

logger = logging.getLogger(__name__)

#: Verdicts of the pipeline with which an observation counts.
COUNTING = ("good",)
#: Sources tell how an observation is off if they are seen through at least so much of the beam.
ENSEMBLE_RESPONSE = 0.2
#: Through less of the beam a source may lie beyond the main lobe, where fluxes change the other way round.
LEAST_RESPONSE = 0.05


@dataclass(frozen=True)
class Measured:
    """What came of taking in an observation.

    Attributes
    ----------
    changed : bool
        False if it was in already.
    counts : bool
        Whether its measurements count.
    n_sources, n_new : int
        Measured, and new to all observations.
    """

    changed: bool
    counts: bool
    n_sources: int
    n_new: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An observation that is taken in.

    Attributes
    ----------
    folder : Path
        Of its self-calibration.
    identity : str
        What tells its data from all others.
    run_id, name, verdict : str
        Of its run and of the pipeline.
    finished : float
        When the run ended, Unix time in seconds.
    """

    folder: Path
    identity: str
    run_id: str
    name: str
    verdict: str
    finished: float


def add(
    db: sqlite3.Connection, taken: Taken, table: Table | None, fluxes: MeasuredSources | None
) -> Measured:
    """Add an observation that is not there, in the transaction that is open.

    Parameters
    ----------
    db : sqlite3.Connection
        The file.
    taken : Taken
        What it is.
    table : Table or None
        Its list of sources.
    fluxes : MeasuredSources or None
        What that tells.
    """
    counts = taken.verdict in COUNTING and fluxes is not None and fluxes.flux.size >= FEWEST
    meta: Mapping[str, Any] = {} if table is None else table.meta
    centre = meta.get("centre_ra_deg"), meta.get("centre_dec_deg")
    cursor = db.execute(
        "INSERT INTO observation (identity, run_id, name, folder, mjd, freq_hz, verdict, counts, flux_scale,"
        " flux_scale_error, n_new, false_new_expected, centre_ra_deg, centre_dec_deg, finished)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            taken.identity,
            taken.run_id,
            taken.name,
            str(taken.folder),
            float(meta.get("mjd", 0.0)),
            meta.get("freq_hz"),
            taken.verdict,
            int(counts),
            meta.get("flux_scale"),
            meta.get("flux_scale_error"),
            meta.get("n_new"),
            meta.get("false_new_expected"),
            *centre,
            taken.finished,
        ),
    )
    assert cursor.lastrowid is not None
    if fluxes is None or not counts:
        return Measured(True, False, 0, 0)
    found, n_new = sources_of(db, fluxes)
    ids: Int = np.array(found, dtype=np.int64)
    # As fluxes of the list: on the scale of the observation, and with what gains have taken.
    scale = float(meta.get("flux_scale") or 1.0) * (1 - float(meta.get("typically_taken") or 0.0))
    fluxes, ids = _with_forced(db, fluxes, ids, taken.folder, scale)
    n = _add_fluxes(db, cursor.lastrowid, fluxes, ids, None not in centre)
    return Measured(True, True, n, n_new)


def _with_forced(
    db: sqlite3.Connection, fluxes: MeasuredSources, ids: Int, folder: Path, scale: float
) -> tuple[MeasuredSources, Int]:
    """Look for known new sources where this observation did not find them, in its difference image."""
    image = folder / "final-difference.fits"
    try:
        difference = read_image(image) if image.is_file() else None
    except ImagingError as error:
        # What was measured counts all the same.
        logger.warning("%s", error)
        difference = None
    if difference is None:
        return fluxes, ids
    grid, here = difference.grid, set(ids.tolist())
    half = 0.72 * math.degrees(grid.size * grid.cell_rad)
    centre = math.degrees(grid.ra_rad) % 360, math.degrees(grid.dec_rad)
    sought = [k for _, k in within(db, *centre, half, "new") if k not in here]
    if not sought:
        return fluxes, ids
    rows = [db.execute("SELECT ra_deg, dec_deg FROM source WHERE id = ?", (k,)).fetchone() for k in sought]
    ra, dec = np.array([[r["ra_deg"], r["dec_deg"]] for r in rows], dtype=np.float64).T
    seen = forced_peaks(difference.image, grid, np.radians(ra), np.radians(dec))
    forced = fluxes.forced(ra, dec, seen / scale)
    keys = np.array(sought, dtype=np.int64)[np.isfinite(seen)]
    return fluxes.with_more(forced), np.concatenate([ids, keys])


def _add_fluxes(db: sqlite3.Connection, key: int, fluxes: MeasuredSources, ids: Int, has_centre: bool) -> int:
    """Add measurements, each by itself and all in one piece."""
    # Two rows of one source, as of two catalogue entries at one place: the first holds.
    order = np.sort(np.unique(ids, return_index=True)[1])
    fluxes, ids = fluxes.some(order), ids[order]
    bits = np.array([BY_VISIBILITIES * (m == "visibilities") + FOUND * (m != FORCED) for m in fluxes.method])
    bits += FOLLOWS * (has_centre & (fluxes.response > LEAST_RESPONSE) & (fluxes.flux != 0))
    own = np.hypot(fluxes.stat, fluxes.beam)
    tells = fluxes.steady & (own < ENSEMBLE_ERROR * fluxes.flux) & (fluxes.response > ENSEMBLE_RESPONSE)
    bits += TELLS * best_told(tells, fluxes.flux, own)
    block = np.zeros(ids.size, dtype=FLUXES)
    for name, values in (
        ("source", ids), ("flux", fluxes.flux), ("stat", fluxes.stat), ("beam", fluxes.beam), ("bits", bits)
    ):  # fmt: skip
        block[name] = values
    some = (bits & TELLS) > 0
    ensemble = np.zeros(np.count_nonzero(some), dtype=ENSEMBLE)
    for name in FLUXES.names or ():
        ensemble[name] = block[name][some]
    ensemble["catalog"] = fluxes.catalog[some]
    db.execute(
        "INSERT INTO flux_block (observation_id, ensemble, fluxes) VALUES (?, ?, ?)",
        (key, ensemble.tobytes(), block.tobytes()),
    )
    db.executemany(
        "INSERT INTO measurement VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (source, key, flux, stat, beam, method, flags, bit)
            for (source, flux, stat, beam, bit), method, flags in zip(
                block.tolist(), fluxes.method, fluxes.flags, strict=True
            )
        ],
    )
    db.execute("UPDATE observation SET n_sources = ? WHERE id = ?", (ids.size, key))
    return int(ids.size)


def remove(db: sqlite3.Connection, key: int) -> None:
    """Take an observation out, and sources of which nothing is left, in the transaction that is open."""
    block = db.execute("SELECT fluxes FROM flux_block WHERE observation_id = ?", (key,)).fetchone()
    if block is not None:
        ids = np.frombuffer(block[0], dtype=FLUXES)["source"].tolist()
        db.executemany(
            "DELETE FROM measurement WHERE source_id = ? AND observation_id = ?", [(k, key) for k in ids]
        )
        db.executemany(
            "DELETE FROM source WHERE id = ? AND NOT EXISTS"
            " (SELECT 1 FROM measurement WHERE source_id = source.id)",
            [(k,) for k in ids],
        )
        db.execute("DELETE FROM flux_block WHERE observation_id = ?", (key,))
    db.execute("DELETE FROM observation WHERE id = ?", (key,))
