"""Light curves: what each observation measured of each source, kept over all observations."""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.errors import ImagingError, InputError
from dsa110_contimg.imaging import read_image
from dsa110_contimg.imaging.detection import forced_peaks
from dsa110_contimg.pipeline.ensemble import FEWEST, ensemble_scale
from dsa110_contimg.pipeline.lightcurve_file import open_database
from dsa110_contimg.pipeline.measured_sources import FORCED, MeasuredSources, read_sources
from dsa110_contimg.pipeline.transactions import transaction
from dsa110_contimg.pipeline.variability import SUMS, sums_of, variability
from dsa110_contimg.selfcal.naming import SOURCES

__all__ = ["COUNTING", "LightCurve", "LightCurves", "Measured"]

logger = logging.getLogger(__name__)

#: Verdicts of the pipeline with which an observation counts.
COUNTING = ("good",)
#: Sources lie in zones of declination of so many degrees, within which they are found by right ascension.
ZONE_DEG = 0.1
#: Sources that tell the flux scale: measured to this, and through at least so much of the beam. Catalogue
#: fluxes scatter by this about those of another instrument.
ENSEMBLE_ERROR, ENSEMBLE_RESPONSE, CATALOG_SCATTER = 0.1, 0.2, 0.1
#: The mean of other observations takes the place of the catalogue, but of what varies more than this.
MOST_ETA = 4.0


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


@dataclass(frozen=True, kw_only=True, eq=False)
class LightCurve:
    """Fluxes of a source over the observations that count, in their order.

    Attributes
    ----------
    source : dict
        Row of the source.
    mjd : ndarray, shape (n,)
        Middles of the observations, days (UTC).
    flux_jy, error_jy : ndarray, shape (n,)
        On the common scale of the ensemble, and the error of noise, beam and that scale together.
    stat_error_jy, beam_error_jy, scale_error_jy : ndarray, shape (n,)
        The errors apart.
    observation, method, flags : list of str, length n
        Names of the observations; how it was measured; what is to be said of it.
    """

    source: dict[str, Any]
    mjd: Float
    flux_jy: Float
    error_jy: Float
    stat_error_jy: Float
    beam_error_jy: Float
    scale_error_jy: Float
    observation: list[str]
    method: list[str]
    flags: list[str]


class LightCurves:
    """The file of light curves; readers and one writer at a time may share it.

    Parameters
    ----------
    path : Path
        SQLite file.
    create : bool
        Whether it is made if missing.
    readonly : bool
        Whether it is only read.

    Raises
    ------
    InputError, ResourceError
        As :func:`~dsa110_contimg.pipeline.lightcurve_file.open_database`.
    """

    def __init__(self, path: Path, *, create: bool = True, readonly: bool = False) -> None:
        self.path = path
        self._db = open_database(path, create=create, readonly=readonly)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> LightCurves:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        return transaction(self._db, self.path)

    # Observations in

    def known(self) -> dict[str, str]:
        """Return the run that was taken in of each observation, by its identity."""
        return {str(r[0]): str(r[1]) for r in self._db.execute("SELECT identity, run_id FROM observation")}

    def take_in(self, folder: Path, *, identity: str, run_id: str, name: str, verdict: str) -> Measured:
        """Take in what an observation measured, whole or not at all; once, however often it is asked for.

        Parameters
        ----------
        folder : Path
            Of its self-calibration, with ``sources.ecsv``; without it the observation is known, and counts
            for nothing.
        identity : str
            What tells it from all others. Another run of the same takes the place of the first.
        run_id : str
            Of the run.
        name : str
            Of the observation.
        verdict : str
            Of the pipeline.

        Raises
        ------
        InputError
            If the list of sources cannot be read.
        ResourceError
            If the file cannot be written.
        """
        table = read_sources(folder / SOURCES)
        fluxes = None if table is None else MeasuredSources.of(table)
        with self._transaction():
            before = self._db.execute(
                "SELECT id, run_id FROM observation WHERE identity = ?", (identity,)
            ).fetchone()
            if before is not None and before["run_id"] == run_id:
                row = self._db.execute(
                    "SELECT counts, n_sources FROM observation WHERE id = ?", (before["id"],)
                ).fetchone()
                return Measured(False, bool(row["counts"]), row["n_sources"], 0)
            if before is not None:
                self._remove(before["id"])
            counts = verdict in COUNTING and fluxes is not None and fluxes.flux.size >= FEWEST
            key = self._add_observation(table, identity, run_id, name, folder, verdict, counts)
            if fluxes is None or not counts:
                return Measured(True, False, 0, 0)
            ids, n_new = self._sources_of(fluxes)
            assert table is not None
            # As fluxes of the list: on the scale of the observation, and with what gains have taken.
            scale = float(table.meta.get("flux_scale") or 1.0)
            scale *= 1 - float(table.meta.get("typically_taken") or 0.0)
            fluxes, ids = self._with_forced(fluxes, ids, folder, scale)
            self._add(key, fluxes, ids)
            return Measured(True, True, ids.size, n_new)

    def _add_observation(
        self,
        table: Table | None,
        identity: str,
        run_id: str,
        name: str,
        folder: Path,
        verdict: str,
        counts: bool,
    ) -> int:
        meta: Mapping[str, Any] = {} if table is None else table.meta
        cursor = self._db.execute(
            "INSERT INTO observation (identity, run_id, name, folder, mjd, freq_hz, verdict, counts,"
            " flux_scale, flux_scale_error, n_new, false_new_expected)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                identity,
                run_id,
                name,
                str(folder),
                float(meta.get("mjd", 0.0)),
                meta.get("freq_hz"),
                verdict,
                int(counts),
                meta.get("flux_scale"),
                meta.get("flux_scale_error"),
                meta.get("n_new"),
                meta.get("false_new_expected"),
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _sources_of(self, fluxes: MeasuredSources) -> tuple[Int, int]:
        """Find the sources by their places, and add those that are new here."""
        ids, made = np.zeros(fluxes.flux.size, dtype=np.int64), 0
        for k in range(ids.size):
            new = bool(fluxes.is_new[k])
            reach = fluxes.reach_deg[k]
            found = self._nearest(
                float(fluxes.ra[k]), float(fluxes.dec[k]), float(reach), "new" if new else ""
            )
            if found is None:
                ids[k] = self._new_source(fluxes, k)
                made += new
            else:
                ids[k] = found
        return ids, made

    def _new_source(self, fluxes: MeasuredSources, k: int) -> int:
        kind = "new" if fluxes.is_new[k] else "catalogue"
        dec = float(fluxes.dec[k])
        place = float(fluxes.ra[k]), dec, math.floor(dec / ZONE_DEG)
        cursor = self._db.execute(
            "INSERT INTO source (name, kind, ra_deg, dec_deg, zone, catalog_flux_jy)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (fluxes.name[k], kind, *place, float(fluxes.catalog[k])),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _nearest(self, ra_deg: float, dec_deg: float, reach_deg: float, kind: str = "") -> int | None:
        found = min(self._within(ra_deg, dec_deg, reach_deg, kind), default=None)
        return None if found is None else found[1]

    def _within(
        self, ra_deg: float, dec_deg: float, reach_deg: float, kind: str = ""
    ) -> Iterator[tuple[float, int]]:
        """Yield distance in degrees and key of the sources around a place: by zones (Gray et al. 2006)."""
        zones = range(
            math.floor((dec_deg - reach_deg) / ZONE_DEG), math.floor((dec_deg + reach_deg) / ZONE_DEG) + 1
        )
        shrunk = math.cos(math.radians(min(89.9, abs(dec_deg) + reach_deg)))
        half = min(180.0, reach_deg / shrunk)
        low, high = ra_deg - half, ra_deg + half
        parts = [(low, high)]
        if low < 0:
            parts = [(0.0, high), (low + 360, 360.0)]
        elif high > 360:
            parts = [(low, 360.0), (0.0, high - 360)]
        asked = " AND kind = 'new'" if kind == "new" else ""
        for zone in zones:
            for begin, end in parts:
                for row in self._db.execute(
                    "SELECT id, ra_deg, dec_deg FROM source"
                    f" WHERE zone = ? AND ra_deg BETWEEN ? AND ?{asked}",
                    (zone, begin, end),
                ):
                    away = _separation_deg(ra_deg, dec_deg, row["ra_deg"], row["dec_deg"])
                    if away <= reach_deg:
                        yield away, int(row["id"])

    def _with_forced(
        self, fluxes: MeasuredSources, ids: Int, folder: Path, scale: float
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
        sought = [k for _, k in self._within(*centre, half, "new") if k not in here]
        if not sought:
            return fluxes, ids
        rows = [
            self._db.execute("SELECT ra_deg, dec_deg FROM source WHERE id = ?", (k,)).fetchone()
            for k in sought
        ]
        ra, dec = np.array([[r["ra_deg"], r["dec_deg"]] for r in rows], dtype=np.float64).T
        seen = forced_peaks(difference.image, grid, np.radians(ra), np.radians(dec))
        forced = fluxes.forced(ra, dec, seen / scale)
        keys = np.array(sought, dtype=np.int64)[np.isfinite(seen)]
        return fluxes.with_more(forced), np.concatenate([ids, keys])

    def _add(self, key: int, fluxes: MeasuredSources, ids: Int) -> None:
        """Add measurements on the scale of the ensemble, and to the sums of their sources."""
        order = np.argsort(ids, kind="stable")
        # Two rows of one source, as of two catalogue entries at one place: the first holds.
        order = order[np.concatenate([[True], np.diff(ids[order]) > 0])] if order.size else order
        fluxes, ids = fluxes.some(order), ids[order]
        rows = self._rows_of(ids)
        known = np.array([[row[name] for name in SUMS] for row in rows], dtype=np.float64)
        found = ensemble_scale(*self._ensemble(fluxes, known))
        flux, error = fluxes.on_scale(found.scale, found.error)
        self._db.execute(
            "UPDATE observation SET ensemble = ?, ensemble_error = ?, n_ensemble = ?, n_sources = ?,"
            " sources = ? WHERE id = ?",
            (found.scale, found.error, found.n, ids.size, ids.astype("<i8").tobytes(), key),
        )
        self._db.executemany(
            "INSERT INTO measurement VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (int(ids[k]), key, float(fluxes.flux[k]), float(fluxes.stat[k]), float(fluxes.beam[k]),
                 fluxes.method[k], fluxes.flags[k])
                for k in range(ids.size)
            ],
        )  # fmt: skip
        w, sigma = 1 / error**2, flux / error
        mjd = self._db.execute("SELECT mjd FROM observation WHERE id = ?", (key,)).fetchone()[0]
        self._db.executemany(
            "UPDATE source SET n = n + 1, w = w + ?, wx = wx + ?, wxx = wxx + ?, x = x + ?, xx = xx + ?,"
            " ee = ee + ?, n_detected = n_detected + ?,"
            " peak_mjd = CASE WHEN ? > peak_sigma THEN ? ELSE peak_mjd END,"
            " peak_jy = CASE WHEN ? > peak_sigma THEN ? ELSE peak_jy END,"
            " peak_sigma = MAX(peak_sigma, ?) WHERE id = ?",
            [
                (w[k], w[k] * flux[k], w[k] * flux[k] ** 2, flux[k], flux[k] ** 2, error[k] ** 2,
                 int(fluxes.method[k] != FORCED), sigma[k], mjd, sigma[k], flux[k], sigma[k], int(ids[k]))
                for k in range(ids.size)
            ],
        )  # fmt: skip

    def _rows_of(self, ids: Int) -> list[sqlite3.Row]:
        return [self._db.execute("SELECT * FROM source WHERE id = ?", (int(k),)).fetchone() for k in ids]

    def _ensemble(self, fluxes: MeasuredSources, known: Float) -> tuple[Float, Float, Float, Float]:
        """Return sources that tell the scale: fluxes, errors, and what they are elsewhere, with errors."""
        own = np.hypot(fluxes.stat, fluxes.beam)
        tells = fluxes.steady & (own < ENSEMBLE_ERROR * fluxes.flux) & (fluxes.response > ENSEMBLE_RESPONSE)
        if known.size:
            metrics = variability(known)
            # Of a single flux nothing is known yet of how much it varies.
            usable = tells & (known[:, 0] > 0) & (np.nan_to_num(metrics.eta, nan=0.0) < MOST_ETA)
            if np.count_nonzero(usable) >= FEWEST:
                with np.errstate(divide="ignore", invalid="ignore"):
                    reference, error = known[:, 2] / known[:, 1], 1 / np.sqrt(known[:, 1])
                return fluxes.flux[usable], own[usable], reference[usable], error[usable]
        return (
            fluxes.flux[tells],
            own[tells],
            fluxes.catalog[tells],
            CATALOG_SCATTER * fluxes.catalog[tells],
        )

    def _remove(self, key: int) -> None:
        """Take an observation out again, and the sums of its sources anew from what is left."""
        blob = self._db.execute("SELECT sources FROM observation WHERE id = ?", (key,)).fetchone()[0]
        ids = np.frombuffer(blob, dtype="<i8")
        self._db.executemany(
            "DELETE FROM measurement WHERE source_id = ? AND observation_id = ?", [(int(k), key) for k in ids]
        )
        self._db.execute("DELETE FROM observation WHERE id = ?", (key,))
        for k in ids:
            curve = self.curve(int(k))
            if not curve.mjd.size:
                self._db.execute("DELETE FROM source WHERE id = ?", (int(k),))
                continue
            sums, best = (
                sums_of(curve.flux_jy, curve.error_jy),
                int(np.argmax(curve.flux_jy / curve.error_jy)),
            )
            peak = float(curve.flux_jy[best])
            self._db.execute(
                f"UPDATE source SET {', '.join(f'{name} = ?' for name in SUMS)}, n_detected = ?, peak_jy = ?,"
                " peak_sigma = ?, peak_mjd = ? WHERE id = ?",
                (
                    *map(float, sums),
                    sum(m != FORCED for m in curve.method),
                    max(peak, 0.0),
                    max(peak, 0.0) / float(curve.error_jy[best]),
                    float(curve.mjd[best]),
                    int(k),
                ),
            )

    # What is asked for

    def find(self, ra_deg: float, dec_deg: float, radius_arcsec: float) -> int:
        """Return the key of the nearest source.

        Raises
        ------
        InputError
            If there is none within the radius.
        """
        found = self._nearest(ra_deg % 360, dec_deg, radius_arcsec / 3600)
        if found is None:
            raise InputError(
                f"no source within {radius_arcsec:g} arcsec of {ra_deg:.5f} {dec_deg:+.5f}",
                self.path,
                "check the place in degrees, or give a larger --radius",
            )
        return found

    def curve(self, key: int) -> LightCurve:
        """Return the light curve of a source."""
        source = dict(self._db.execute("SELECT * FROM source WHERE id = ?", (key,)).fetchone())
        rows = self._db.execute(
            "SELECT m.*, o.mjd, o.name, o.ensemble, o.ensemble_error FROM measurement m"
            " JOIN observation o ON o.id = m.observation_id WHERE m.source_id = ? AND o.counts = 1"
            " ORDER BY o.mjd, o.id",
            (key,),
        ).fetchall()
        columns = "flux_jy", "stat_error_jy", "beam_error_jy", "ensemble", "ensemble_error", "mjd"
        values = np.array([[row[c] for c in columns] for row in rows], dtype=np.float64).reshape(-1, 6)
        flux, stat, beam, scale, scale_error, mjd = values.T
        flux, stat, beam = flux / scale, stat / scale, beam / scale
        of_scale = np.abs(flux) * scale_error
        return LightCurve(
            source=source,
            mjd=mjd,
            flux_jy=flux,
            error_jy=np.sqrt(stat**2 + beam**2 + of_scale**2),
            stat_error_jy=stat,
            beam_error_jy=beam,
            scale_error_jy=of_scale,
            observation=[str(row["name"]) for row in rows],
            method=[str(row["method"]) for row in rows],
            flags=[str(row["flags"]) for row in rows],
        )

    def sources(self, kind: str, fewest: int = 1) -> Table:
        """List sources with their metrics, from the sums that are kept of them.

        Parameters
        ----------
        kind : str
            catalogue or new.
        fewest : int
            Only those with so many observations.

        Returns
        -------
        astropy.table.Table
            ``id``, ``name``, ``ra_deg``, ``dec_deg``, ``n``, ``n_detected``, ``mean_jy``, ``mean_error_jy``,
            ``modulation``, ``modulation_error``, ``intrinsic``, ``intrinsic_error``, ``eta``, ``eta_error``,
            ``probability``, ``peak_jy``, ``peak_sigma``, ``peak_mjd``.
        """
        names = ("id", "name", "ra_deg", "dec_deg", *SUMS, "n_detected", "peak_jy", "peak_sigma", "peak_mjd")
        rows = self._db.execute(
            f"SELECT {', '.join(names)} FROM source WHERE kind = ? AND n >= ?", (kind, fewest)
        ).fetchall()
        columns = dict(zip(names, zip(*map(tuple, rows), strict=True), strict=True)) if rows else {}
        table = Table(
            {name: columns.get(name, ()) for name in ("id", "name", "ra_deg", "dec_deg", "n", "n_detected")}
        )
        sums = np.array([columns.get(name, ()) for name in SUMS], dtype=np.float64).T.reshape(-1, len(SUMS))
        metrics = variability(sums)
        for name in (
            "mean_jy", "mean_error_jy", "modulation", "modulation_error", "intrinsic", "intrinsic_error",
            "eta", "eta_error", "probability",
        ):  # fmt: skip
            table[name] = getattr(metrics, name)
        for name in ("peak_jy", "peak_sigma", "peak_mjd"):
            table[name] = np.array(
                [np.nan if v is None else v for v in columns.get(name, ())], dtype=np.float64
            )
        for name, unit in (("ra_deg", "deg"), ("dec_deg", "deg"), ("mean_jy", "Jy"), ("mean_error_jy", "Jy"),
                           ("peak_jy", "Jy"), ("peak_mjd", "d")):  # fmt: skip
            table[name].unit = unit
        return table

    def observations(self) -> list[dict[str, Any]]:
        """List the observations, but for the keys of their sources, in the order of time."""
        rows = self._db.execute("SELECT * FROM observation ORDER BY mjd, id")
        return [{k: row[k] for k in row.keys() if k != "sources"} for row in rows]  # noqa: SIM118


def _separation_deg(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    a1, d1, a2, d2 = map(math.radians, (ra1, dec1, ra2, dec2))
    half = math.sin((d2 - d1) / 2) ** 2 + math.cos(d1) * math.cos(d2) * math.sin((a2 - a1) / 2) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(half))))
