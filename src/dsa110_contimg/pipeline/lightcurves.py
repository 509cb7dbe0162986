"""Light curves: what each observation measured of each source, kept over all observations."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.errors import ContimgError, InputError
from dsa110_contimg.pipeline.correction import Correction, correct
from dsa110_contimg.pipeline.lightcurve_file import open_database
from dsa110_contimg.pipeline.lightcurve_intake import COUNTING, Measured, Taken, add, remove
from dsa110_contimg.pipeline.lightcurve_solution import forget, leans, revision, solve, store
from dsa110_contimg.pipeline.measured_sources import MeasuredSources, read_sources
from dsa110_contimg.pipeline.source_places import nearest
from dsa110_contimg.pipeline.transactions import transaction
from dsa110_contimg.pipeline.variability import SUMS, variability
from dsa110_contimg.selfcal.naming import SOURCES

__all__ = ["COUNTING", "LightCurve", "LightCurves", "Measured", "settled"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class LightCurve:
    """Fluxes of a source over the observations that count, in their order.

    Attributes
    ----------
    source : dict
        Row of the source.
    mjd : ndarray, shape (n,)
        Middles of the observations, days (UTC).
    freq_hz : ndarray, shape (n,)
        Mean frequency of the band; fluxes of two bands are of two light curves.
    flux_jy, error_jy : ndarray, shape (n,)
        On the scale of all observations, and the error by which it scatters: noise, beam and scale together.
    stat_error_jy, beam_error_jy, scale_error_jy : ndarray, shape (n,)
        The errors apart.
    observation, method, flags : list of str, length n
        Names of the observations; how it was measured; what is to be said of it.
    """

    source: dict[str, Any]
    mjd: Float
    freq_hz: Float
    flux_jy: Float
    error_jy: Float
    stat_error_jy: Float
    beam_error_jy: Float
    scale_error_jy: Float
    observation: list[str]
    method: list[str]
    flags: list[str]

    def bands(self) -> Iterator[LightCurve]:
        """Yield the light curve of each band, the lowest first."""
        for freq in np.unique(self.freq_hz):
            some = np.flatnonzero(self.freq_hz == freq)
            values: dict[str, Any] = {
                field.name: [value[k] for k in some] if isinstance(value, list) else value[some]
                for field in fields(self)
                if field.name != "source" and (value := getattr(self, field.name)) is not None
            }
            yield LightCurve(source=self.source, **values)


class LightCurves:
    """The file of light curves; readers and one writer at a time may share it.

    Fluxes are kept as they were measured. What brings them to one scale is found from all observations
    together, whenever it is asked for and anything has changed; it depends on no order.

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
        self._readonly = readonly
        self._db = open_database(path, create=create, readonly=readonly)
        self._solved = -1

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> LightCurves:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        return transaction(self._db, self.path)

    # Observations in and out

    def known(self) -> set[str]:
        """Return the runs that were taken in."""
        return {str(r[0]) for r in self._db.execute("SELECT run_id FROM observation")}

    def take_in(
        self, folder: Path, *, identity: str, run_id: str, name: str, verdict: str, finished: float = 0.0
    ) -> Measured:
        """Take in what an observation measured, whole or not at all; once, however often it is asked for.

        Parameters
        ----------
        folder : Path
            Of its self-calibration, with ``sources.ecsv``; without it the observation is known, and counts
            for nothing.
        identity : str
            What tells it from all others, where the list of sources does not say of which data it is.
        run_id : str
            Of the run. Another run on the same data takes the place of the first, if it ended later.
        name : str
            Of the observation.
        verdict : str
            Of the pipeline.
        finished : float
            When the run ended, Unix time in seconds.

        Raises
        ------
        InputError
            If the list of sources cannot be read.
        ResourceError
            If the file cannot be written.
        """
        table = read_sources(folder / SOURCES)
        fluxes = None if table is None else MeasuredSources.of(table)
        of_data = "" if table is None else str(table.meta.get("data_identity") or "")
        with self._transaction():
            # A list of an earlier version does not say of which data it is, nor does a run without one.
            before = self._db.execute(
                "SELECT id, run_id, counts, n_sources, finished FROM observation"
                " WHERE identity IN (?, ?) ORDER BY finished DESC, id DESC",
                (of_data or identity, identity),
            ).fetchall()
            for row in before:
                if row["run_id"] == run_id or row["finished"] > finished:
                    return Measured(False, bool(row["counts"]), row["n_sources"], 0)
            for row in before:
                remove(self._db, row["id"])
            taken = Taken(
                folder=folder,
                identity=of_data or identity,
                run_id=run_id,
                name=name,
                verdict=verdict,
                finished=finished,
            )
            found = add(self._db, taken, table, fluxes)
            self._changed()
            return found

    def drop(self, run_ids: Sequence[str]) -> int:
        """Take out what these runs measured; return of how many that was there."""
        with self._transaction():
            asked = set(run_ids)
            keys = [
                r["id"]
                for r in self._db.execute("SELECT id, run_id FROM observation")
                if r["run_id"] in asked
            ]
            for key in keys:
                remove(self._db, key)
            if keys:
                self._changed()
        return len(keys)

    def _changed(self) -> None:
        self._db.execute("UPDATE state SET value = value + 1 WHERE name = 'revision'")

    # All observations together

    def settle(self) -> None:
        """Find anew how observations are off, and sum up the light curves, if anything has changed.

        Raises
        ------
        ResourceError
            If the file cannot be written.
        """
        now, known = revision(self._db)
        if now == known:
            if self._readonly and self._solved >= 0:
                forget(self._db)
                self._solved = -1
            return
        if now == self._solved:
            return
        # Others may write while it is worked out.
        solution = solve(self._db)
        if self._readonly:
            store(self._db, solution, temporary=True)
        else:
            with self._transaction():
                if revision(self._db)[1] < solution.revision:
                    store(self._db, solution)
        self._solved = solution.revision

    # What is asked for

    def find(self, ra_deg: float, dec_deg: float, radius_arcsec: float) -> int:
        """Return the key of the nearest source.

        Raises
        ------
        InputError
            If there is none within the radius.
        """
        found = nearest(self._db, ra_deg % 360, dec_deg, radius_arcsec / 3600)
        if found is None:
            raise InputError(
                f"no source within {radius_arcsec:g} arcsec of {ra_deg:.5f} {dec_deg:+.5f}",
                self.path,
                "check the place in degrees, or give a larger --radius",
            )
        return found

    def curve(self, key: int) -> LightCurve:
        """Return the light curve of a source."""
        self.settle()
        source = dict(self._db.execute("SELECT * FROM source WHERE id = ?", (key,)).fetchone())
        rows = self._db.execute(
            "SELECT m.flux_jy, m.stat_error_jy, m.beam_error_jy, m.bits, o.mjd, o.centre_ra_deg,"
            " o.centre_dec_deg, c.band_hz, s.log_reference, s.weight, m.method, m.flags, o.name, c.numbers"
            " FROM measurement m JOIN observation o ON o.id = m.observation_id"
            " JOIN correction c ON c.observation_id = o.id"
            " JOIN summary s ON s.source_id = m.source_id AND s.band = c.band"
            " WHERE m.source_id = ? ORDER BY o.mjd, o.identity",
            (key,),
        ).fetchall()
        columns = list(zip(*map(tuple, rows), strict=True)) or [()] * 14
        values = np.array(columns[:10], dtype=np.float64)
        flux, stat, beam, bits, mjd, _, _, band_hz, log_reference, weight = values
        of_all: Int = bits.astype(np.int64)
        place = np.full(flux.size, source["ra_deg"]), np.full(flux.size, source["dec_deg"])
        lean = leans(*place, values[5:7].T, flux, beam, of_all)
        by = Correction.of(np.frombuffer(b"".join(columns[13])).reshape(-1, Correction.WIDTH))
        fluxes = correct(flux, stat, beam, lean, of_all, by, log_reference, weight)
        return LightCurve(
            source=source,
            mjd=mjd,
            freq_hz=band_hz,
            flux_jy=fluxes.flux,
            error_jy=fluxes.error,
            stat_error_jy=fluxes.stat,
            beam_error_jy=fluxes.beam,
            scale_error_jy=fluxes.scale,
            observation=[str(name) for name in columns[12]],
            method=[str(method) for method in columns[10]],
            flags=[str(flags) for flags in columns[11]],
        )

    def sources(self, kind: str, fewest: int = 1) -> Table:
        """List sources with their metrics, from the sums that are kept of them: a row for each band.

        Parameters
        ----------
        kind : str
            catalogue or new.
        fewest : int
            Only those with so many observations.

        Returns
        -------
        astropy.table.Table
            ``id``, ``name``, ``ra_deg``, ``dec_deg``, ``band_hz``, ``n``, ``n_detected``, ``mean_jy``,
            ``mean_error_jy``, ``modulation``, ``modulation_error``, ``intrinsic``, ``intrinsic_error``,
            ``eta``, ``eta_error``, ``probability``, ``peak_jy``, ``peak_sigma``, ``peak_mjd``.
        """
        self.settle()
        shown = ("id", "name", "ra_deg", "dec_deg", "band_hz", "n", "n_detected")
        names = (*shown, *SUMS[1:], "peak_jy", "peak_sigma", "peak_mjd")
        rows = self._db.execute(
            f"SELECT {', '.join(names)} FROM summary JOIN source ON source.id = source_id"
            " WHERE kind = ? AND n >= ? ORDER BY source_id, band",
            (kind, fewest),
        ).fetchall()
        columns = dict(zip(names, zip(*map(tuple, rows), strict=True), strict=True)) if rows else {}
        table = Table({name: columns.get(name, ()) for name in shown})
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
        for name, unit in (("ra_deg", "deg"), ("dec_deg", "deg"), ("band_hz", "Hz"), ("mean_jy", "Jy"),
                           ("mean_error_jy", "Jy"), ("peak_jy", "Jy"), ("peak_mjd", "d")):  # fmt: skip
            table[name].unit = unit
        return table

    def observations(self) -> list[dict[str, Any]]:
        """List the observations in the order of time, with what they are off by where they count."""
        self.settle()
        rows = self._db.execute(
            "SELECT o.*, c.band_hz, c.ensemble, c.ensemble_error, c.n_ensemble FROM observation o"
            " LEFT JOIN correction c ON c.observation_id = o.id ORDER BY mjd, identity"
        )
        return [dict(row) for row in rows]


def settled(path: Path) -> LightCurves:
    """Open a file of light curves to read it; what is found from all together is kept in it, if it may be.

    Raises
    ------
    InputError, ResourceError
        If it cannot be read.
    """
    curves = LightCurves(path, readonly=True)
    if len(set(revision(curves._db))) > 1:
        try:
            with LightCurves(path, create=False) as writer:
                writer.settle()
        except ContimgError as error:
            # It is found for this once, then.
            logger.info("%s", error)
    return curves
