"""How all observations are off, and what each source did on their common scale: anew from all of them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.pipeline.correction import BY_VISIBILITIES, FOLLOWS, FOUND, Correction, correct
from dsa110_contimg.pipeline.ensemble import EnsembleFluxes, EnsembleSolution, solve_ensemble
from dsa110_contimg.pipeline.lightcurve_file import ENSEMBLE, FLUXES, SOLUTION, execute
from dsa110_contimg.pipeline.variability import SUMS, variability

__all__ = ["Solution", "forget", "leans", "revision", "solve", "store"]

#: Observations whose frequencies are nearer than this fraction are of one band; fluxes of two bands are not
#: those of one light curve.
BAND_GAP = 0.03
#: Errors by noise are scaled by the scatter of so many fluxes or more, of so many sources; of more sources
#: than so many, by that of a part of them.
FEWEST_FLUXES, FEWEST_SOURCES, MOST_SOURCES = 2000, 20, 5000
#: So many fluxes are corrected at once: few enough for the caches of a processor.
AT_ONCE = 10_000
#: Of sources whose reduced chi-squared is no more of its own errors above the typical one.
QUIET = 3.0
SUMMARY = ("source_id", "band", "band_hz", *SUMS, "n_detected", "peak_jy", "peak_sigma", "peak_mjd",
           "log_reference", "weight")  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """What is found from all observations that count.

    Attributes
    ----------
    revision : int
        Of the file.
    corrections, summaries : list of tuple
        Rows of the tables of these names.
    """

    revision: int
    corrections: list[tuple[Any, ...]]
    summaries: list[tuple[Any, ...]]


def revision(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the revision of a file, and that of which its solution is."""
    values = dict(map(tuple, db.execute("SELECT name, value FROM state")))
    return values["revision"], values["settled"]


def leans(ra_deg: Float, dec_deg: Float, centre_deg: Float, flux: Float, beam: Float, bits: Int) -> Float:
    """Return how fluxes change where the beam points one standard error east or north, shape (n, 2).

    Parameters
    ----------
    ra_deg, dec_deg : ndarray, shape (n,)
        Places of the sources.
    centre_deg : ndarray, shape (2,) or (n, 2)
        Where the beam's centre is.
    flux, beam : ndarray, shape (n,)
        Fluxes, and their errors by the beam.
    bits : ndarray of int, shape (n,)
        What is known of them; zero comes of what does not follow.
    """
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    ra0, dec0 = np.radians(np.asarray(centre_deg, dtype=np.float64)).T
    cos, sin = np.cos(dec), np.sin(dec)
    east = cos * np.sin(ra - ra0)
    north = sin * np.cos(dec0) - cos * np.sin(dec0) * np.cos(ra - ra0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where((bits & FOLLOWS) > 0, beam / np.abs(flux), 0.0)
    relative /= np.maximum(np.hypot(east, north), 1e-12)
    return np.stack([relative * east, relative * north], axis=1)


def solve(db: sqlite3.Connection) -> Solution:
    """Find it, from what the file holds at one moment.

    Parameters
    ----------
    db : sqlite3.Connection
        The file.
    """
    db.execute("BEGIN")
    try:
        return _Solver(db).solution()
    finally:
        db.execute("COMMIT")


def store(db: sqlite3.Connection, solution: Solution, *, temporary: bool = False) -> None:
    """Write a solution, in the transaction that is open.

    Parameters
    ----------
    db : sqlite3.Connection
        The file.
    solution : Solution
        What is written; what was before goes.
    temporary : bool
        Only for this connection, as where the file can only be read.
    """
    if temporary:
        forget(db)
        execute(db, SOLUTION.replace("CREATE TABLE", "CREATE TEMP TABLE"))
    place = "temp" if temporary else "main"
    for table, rows in (("correction", solution.corrections), ("summary", solution.summaries)):
        db.execute(f"DELETE FROM {place}.{table}")
        if rows:
            db.executemany(f"INSERT INTO {place}.{table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    if not temporary:
        db.execute("UPDATE state SET value = ? WHERE name = 'settled'", (solution.revision,))


def forget(db: sqlite3.Connection) -> None:
    """Remove what was stored for this connection only; what is in the file holds again."""
    for table in ("correction", "summary"):
        db.execute(f"DROP TABLE IF EXISTS temp.{table}")


class _Solver:
    """What is read once: places of sources, and observations in an order that is theirs."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.revision = revision(db)[0]
        rows = db.execute("SELECT id, ra_deg, dec_deg, kind = 'new' FROM source ORDER BY id").fetchall()
        values = np.array([tuple(row) for row in rows], dtype=np.float64).reshape(-1, 4)
        self.ids = values[:, 0].astype(np.int64)
        self.ra, self.dec, self.is_new = values[:, 1], values[:, 2], values[:, 3] > 0
        self.number = np.full(int(self.ids.max(initial=0)) + 1, -1)
        self.number[self.ids] = np.arange(self.ids.size)
        self.observations = db.execute(
            "SELECT id, mjd, freq_hz, centre_ra_deg, centre_dec_deg FROM observation WHERE counts = 1"
            " ORDER BY mjd, identity"
        ).fetchall()
        self.band, self.band_hz = _bands([o["freq_hz"] for o in self.observations])
        self.n_curves = self.ids.size * self.band_hz.size

    def solution(self) -> Solution:
        """Solve, then sum up the light curves twice: the first time tells how noise scatters."""
        found = self._solve()
        noise = np.ones(2)
        sums, n_visibilities, _ = self._sums(found, noise, self._some())
        noise = self._noise(sums, n_visibilities)
        sums, _, peaks = self._sums(found, noise)
        by = self._corrections(found, noise).packed()
        corrections = [
            (o["id"], int(band), float(self.band_hz[band]), float(np.exp(found.offset[k, 0])),
             float(np.sqrt(found.covariance[k, 0, 0])), int(found.n[k]), by[k].tobytes())
            for k, (o, band) in enumerate(zip(self.observations, self.band, strict=True))
        ]  # fmt: skip
        some = np.flatnonzero(sums[:, 0])
        band, source = np.divmod(some, max(self.ids.size, 1))
        n_detected, peak_jy, peak_sigma, peak_mjd = peaks[some].T
        never = [None if np.isnan(v) else float(v) for v in peak_mjd]
        unknown = [[None if np.isnan(v) else float(v) for v in values[some]] for values in
                   (found.log_reference, found.weight)]  # fmt: skip
        summaries = list(
            zip(
                self.ids[source].tolist(), band.tolist(), self.band_hz[band].tolist(),
                *sums[some].T.tolist(), n_detected.tolist(), peak_jy.tolist(), peak_sigma.tolist(), never,
                *unknown, strict=True,
            )
        )  # fmt: skip
        return Solution(revision=self.revision, corrections=corrections, summaries=summaries)

    def _some(self) -> Bool:
        """Choose sources that tell how noise scatters, shape (n_sources,), whatever their order."""
        fraction = np.modf(np.abs(np.sin(self.ra * 1e3) * 1e5 + np.cos(self.dec * 1e3) * 1e5))[0]
        limit = np.partition(fraction, MOST_SOURCES)[MOST_SOURCES] if fraction.size > MOST_SOURCES else 1.0
        return np.asarray(fraction < limit)

    def _block(self, observation: sqlite3.Row, column: str, kind: np.dtype[Any]) -> Any:
        row = self.db.execute(
            f"SELECT {column} FROM flux_block WHERE observation_id = ?", (observation["id"],)
        ).fetchone()
        return np.frombuffer(row[0], dtype=kind)

    def _leans(self, observation: sqlite3.Row, block: Any, number: Int) -> Float:
        centre = np.array([observation["centre_ra_deg"], observation["centre_dec_deg"]], dtype=np.float64)
        if not np.isfinite(centre).all():
            return np.zeros((number.size, 2))
        place = self.ra[number], self.dec[number]
        return leans(*place, centre, block["flux"], block["beam"].astype(np.float64), block["bits"])

    def _solve(self) -> EnsembleSolution:
        parts = []
        for k, o in enumerate(self.observations):
            block = self._block(o, "ensemble", ENSEMBLE)
            number = self.number[block["source"]]
            stat, beam = block["stat"].astype(np.float64), block["beam"].astype(np.float64)
            own = np.where((block["bits"] & FOLLOWS) > 0, stat, np.hypot(stat, beam))
            curve = number + self.band[k] * self.ids.size
            parts.append(
                (np.full(number.size, k), curve, block["flux"], own, block["catalog"],
                 self._leans(o, block, number), (block["bits"] & BY_VISIBILITIES) > 0)
            )  # fmt: skip
        columns = [np.concatenate(values) for values in zip(*parts, strict=True)] if parts else []
        if not columns:
            columns = [
                np.zeros(0, int),
                np.zeros(0, int),
                *np.zeros((3, 0)),
                np.zeros((0, 2)),
                np.zeros(0, bool),
            ]
        names = ("observation", "source", "flux", "error", "catalog", "lean", "by_visibilities")
        # Only of what is there: most sources of most bands tell nothing.
        some, columns[1] = np.unique(columns[1], return_inverse=True)
        found = solve_ensemble(
            EnsembleFluxes(**dict(zip(names, columns, strict=True))), len(self.observations), some.size
        )
        log_reference, weight = np.full((2, self.n_curves), np.nan)
        log_reference[some], weight[some] = found.log_reference, found.weight
        values: dict[str, Any] = vars(found) | {"log_reference": log_reference, "weight": weight}
        return EnsembleSolution(**values)

    def _corrections(self, found: EnsembleSolution, noise: Float) -> Correction:
        n = len(self.observations)
        return Correction(
            offset=found.offset,
            covariance=found.covariance,
            chi2=found.chi2,
            dof=found.dof,
            times=found.times,
            noise=np.broadcast_to(noise, (n, 2)),
        )

    def _sums(
        self, found: EnsembleSolution, noise: Float, wanted: Bool | None = None
    ) -> tuple[Float, Float, Float]:
        """Sum up all light curves, or those of some sources, observation by observation.

        Returns
        -------
        sums, n_visibilities, peaks : ndarray, shape (n_curves, ...)
            What `SUMS` names; fluxes from visibilities; how often it was found, and where it was most
            significant: flux, flux over error, and day.
        """
        sums, n_visibilities = np.zeros((len(SUMS), self.n_curves)), np.zeros(self.n_curves)
        peaks = np.zeros((4, self.n_curves))
        peaks[3] = np.nan
        by = self._corrections(found, noise).packed()
        for k, o in enumerate(self.observations):
            block = self._block(o, "fluxes", FLUXES)
            if wanted is not None:
                block = block[wanted[self.number[block["source"]]]]
            for first in range(0, block.size, AT_ONCE):
                part = block[first : first + AT_ONCE]
                number = self.number[part["source"]]
                curve, bits = number + self.band[k] * self.ids.size, part["bits"]
                fluxes = correct(
                    part["flux"],
                    part["stat"].astype(np.float64),
                    part["beam"].astype(np.float64),
                    self._leans(o, part, number),
                    bits,
                    Correction.of(by[k]),
                    found.log_reference[curve],
                    found.weight[curve],
                )
                flux, w = fluxes.flux, 1 / fluxes.error**2
                # A source is once in an observation.
                for m, more in enumerate((1.0, w, w * flux, w * flux**2, flux, flux**2, fluxes.error**2)):
                    sums[m, curve] += more
                n_visibilities[curve] += (bits & BY_VISIBILITIES) > 0
                peaks[0, curve] += (bits & FOUND) > 0
                sigma = flux / fluxes.whole_error
                higher = sigma > peaks[2, curve]
                at = curve[higher]
                peaks[1, at], peaks[2, at], peaks[3, at] = flux[higher], sigma[higher], o["mjd"]
        return sums.T, n_visibilities, peaks.T

    def _noise(self, sums: Float, n_visibilities: Float) -> Float:
        """Return what part of the errors by noise scatters, of images and of visibilities.

        An image has a part of its noise in common with all others of its field: sidelobes of what does not
        change. The reduced chi-squared of the sources that do not stand out tells.
        """
        n = sums[:, 0]
        eta = variability(sums).eta
        listed = np.tile(~self.is_new, self.band_hz.size) & (n >= 3)
        found = np.ones(2)
        for k, of_class in enumerate((n_visibilities < n / 2, n_visibilities > n / 2)):
            some: Bool = listed & of_class
            if np.count_nonzero(some) < FEWEST_SOURCES or n[some].sum() < FEWEST_FLUXES:
                continue
            count, which = np.unique(n[some] - 1, return_inverse=True)
            middle = scipy.stats.chi2.median(count) / count
            typical = np.median(eta[some] / middle[which])
            # The mean says it better than the median, of what does not vary.
            quiet = eta[some] < typical * (1 + QUIET * np.sqrt(2 / count[which]))
            found[k] = np.sqrt(np.average(eta[some][quiet], weights=count[which][quiet]))
        return found


def _bands(freq_hz: list[float | None]) -> tuple[Int, Float]:
    """Return the band of each observation, and the mean frequency of each; zero where none is told."""
    freq = np.array([f or 0.0 for f in freq_hz], dtype=np.float64)
    if not freq.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    order = np.argsort(freq, kind="stable")
    ordered = freq[order]
    jump = np.concatenate([[0], np.cumsum(np.diff(ordered) > BAND_GAP * ordered[:-1])])
    band = np.empty(freq.size, dtype=np.int64)
    band[order] = jump
    return band, np.bincount(band, freq) / np.bincount(band)
