"""Spectral indices of sources that two surveys list.

Two fluxes at two frequencies give an index only if they are of one thing. A pair is taken where

* exactly one source of each survey is there: whatever else either lists within the wider of the two beams
  adds up to less than 5 % of the source, so that the wider beam has blended nothing into it;
* it is not wider (deconvolved) than the narrower beam, where the beams differ by more than half: of an
  extended source the sharper survey resolves flux out, which would look like a steep or an inverted spectrum;
* the error of the index is below 0.3, about the scatter of the population: a worse one tells less of the
  source than the median does;
* the index is physical: not above +2.5, the limit of an optically thick synchrotron source, and not below -3,
  steeper than all but a few pulsars. What is outside has varied, or is not one source.

The median of the population is measured on pairs so bright that either survey lists them whatever their
index from -1.5 to +0.5: at its limit a survey lists only what its frequency favours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.catalogs.surveys import Survey
from dsa110_contimg.sphere import unit_vectors

__all__ = [
    "LARGEST_ERROR",
    "LARGEST_INDEX",
    "SMALLEST_INDEX",
    "PairIndices",
    "pair_indices",
    "two_point_index",
]

SMALLEST_INDEX, LARGEST_INDEX = -3.0, 2.5
LARGEST_ERROR = 0.3
#: What neighbours within the wider beam may add up to, as a fraction of the source.
BLEND = 0.05
#: Beams that differ by less than this factor see the same of an extended source.
ALIKE = 1.5
#: Frequencies nearer than this factor give no index of use.
LEVERAGE = 1.2
#: A median needs so many pairs, so many times as bright as the limit of the other survey for any usual index.
MEDIAN_PAIRS, MEDIAN_MARGIN, USUAL = 10, 3.0, (-1.5, 0.5)
#: A detection limit is this many times the noise.
LIMIT_SIGMA = 5.0


@dataclass(frozen=True)
class PairIndices:
    """Spectral indices from one pair of surveys.

    Attributes
    ----------
    index, error : ndarray, shape (n_sources,)
        Exponent of flux proportional to frequency^index, and its standard error; NaN where there is none.
    median : float
        Of the population; NaN where too few pairs tell.
    n_pairs : int
        Pairs behind the median.
    """

    index: Float
    error: Float
    median: float
    n_pairs: int


def two_point_index(
    flux_a: Float, error_a: Float, freq_a_hz: float, flux_b: Float, error_b: Float, freq_b_hz: float
) -> tuple[Float, Float]:
    """Return ``ln(S_a / S_b) / ln(nu_a / nu_b)`` and its standard error, shape (n,) both.

    Parameters
    ----------
    flux_a, error_a, flux_b, error_b : ndarray, shape (n,)
        Flux densities and their standard errors, in any unit but the same.
    freq_a_hz, freq_b_hz : float
        Their frequencies in hertz.
    """
    lever = np.log(freq_a_hz / freq_b_hz)
    error = np.hypot(error_a / flux_a, error_b / flux_b) / abs(lever)
    return np.log(flux_a / flux_b) / lever, np.asarray(error)


def pair_indices(
    rows: Table, survey: Survey, others: Table, other: Survey, listed: Table | None = None
) -> PairIndices:
    """Find the index of each source of a survey that another one lists.

    Parameters
    ----------
    rows : Table
        Sources of the survey, as `dsa110_contimg.catalogs.query_cone` returns them.
    survey : Survey
        Whose fluxes they have.
    others : Table
        What another survey lists there, and a beam beyond.
    other : Survey
        The other survey.
    listed : Table, optional
        All that the survey lists there, where `rows` are the brighter ones of it: what may lie beside them.

    Returns
    -------
    PairIndices
    """
    n = len(rows)
    index, error = np.full(n, np.nan), np.full(n, np.nan)
    if abs(np.log(survey.freq_hz / other.freq_hz)) < np.log(LEVERAGE) or not n or not len(others):
        return PairIndices(index, error, np.nan, 0)
    mine, theirs = _clean_pairs(rows, survey, others, other, rows if listed is None else listed)
    flux, flux_of_other = _column(rows, "flux_mjy")[mine], _column(others, "flux_mjy")[theirs]
    found, uncertain = two_point_index(
        flux,
        _error(rows, survey)[mine],
        survey.freq_hz,
        flux_of_other,
        _error(others, other)[theirs],
        other.freq_hz,
    )
    good = (uncertain <= LARGEST_ERROR) & (found >= SMALLEST_INDEX) & (found <= LARGEST_INDEX)
    if f"{survey.name}_id" in rows.colnames:
        # Of two surveys merged: what the sharper one alone lists has a flux that was carried by an index.
        good &= np.asarray(rows[f"{survey.name}_id"])[mine] >= 0
    index[mine[good]], error[mine[good]] = found[good], uncertain[good]
    # Bright enough to be in either list whatever the index.
    ratio = other.freq_hz / survey.freq_hz
    faintest = max(
        MEDIAN_MARGIN * survey.flux_limit_mjy,
        MEDIAN_MARGIN * other.flux_limit_mjy / min(ratio**slope for slope in USUAL),
    )
    telling = good & (flux >= faintest)
    n_pairs = int(telling.sum())
    median = float(np.median(found[telling])) if n_pairs >= MEDIAN_PAIRS else np.nan
    return PairIndices(index, error, median, n_pairs)


def _column(rows: Table, name: str) -> Float:
    return np.asarray(rows[name], dtype=np.float64)


def _error(rows: Table, survey: Survey) -> Float:
    """Return errors of fluxes with that of the flux scale; where none is known, the noise of the survey's."""
    noise = survey.flux_limit_mjy / LIMIT_SIGMA
    listed = np.nan_to_num(_column(rows, "flux_err_mjy"), nan=noise)
    return np.hypot(listed, survey.flux_error * _column(rows, "flux_mjy"))


def _clean_pairs(rows: Table, survey: Survey, others: Table, other: Survey, listed: Table) -> tuple[Int, Int]:
    """Match sources one to one, unblended and unresolved; return rows of either list."""
    wide, narrow = max(survey.beam_arcsec, other.beam_arcsec), min(survey.beam_arcsec, other.beam_arcsec)
    places, places_of_other = _places(rows), _places(others)
    beside, beside_of_other = cKDTree(_places(listed)), cKDTree(places_of_other)
    # Positions of faint sources are off by a fraction of the beam: within a third of it, or three errors.
    off = 3 * np.hypot(survey.position_error_arcsec, other.position_error_arcsec)
    distance, nearest = beside_of_other.query(places, distance_upper_bound=_chord(max(off, wide / 3)))
    mine = np.flatnonzero(np.isfinite(distance))
    theirs = nearest[mine]
    beam = _chord(wide)
    flux, flux_of_other = _column(rows, "flux_mjy")[mine], _column(others, "flux_mjy")
    alone = _stand_alone(beside, places[mine], _column(listed, "flux_mjy"), flux, beam)
    alone_there = _stand_alone(
        beside_of_other, places_of_other[theirs], flux_of_other, flux_of_other[theirs], beam
    )
    good = alone & alone_there
    if wide > ALIKE * narrow:
        size = np.maximum(_column(rows, "major_arcsec")[mine], _column(others, "major_arcsec")[theirs])
        good &= size <= narrow
    return mine[good], theirs[good]


def _stand_alone(tree: cKDTree, places: Float, flux: Float, own: Float, reach: float) -> Bool:
    """Return where what else is within reach adds up to little beside a source's own flux."""
    lists = tree.query_ball_point(places, reach)
    total = np.array([flux[found].sum() for found in lists]) if len(lists) else np.zeros(0)
    return np.asarray(total - own <= BLEND * own)


def _chord(arcsec: float) -> float:
    return float(2 * np.sin(np.radians(arcsec / 3600) / 2))


def _places(rows: Table) -> Float:
    return unit_vectors(np.radians(_column(rows, "ra_deg")), np.radians(_column(rows, "dec_deg")))
