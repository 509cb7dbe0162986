"""Where the spectral index of each catalogue source comes from, and how far its flux was carried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.catalogs import SURVEYS, default_catalog_dir, query_listed, surveys_built
from dsa110_contimg.catalogs.spectral_index import (
    LARGEST_ERROR,
    LARGEST_INDEX,
    LEVERAGE,
    SMALLEST_INDEX,
    PairIndices,
    pair_indices,
)
from dsa110_contimg.errors import CatalogFormatError

__all__ = ["FAR_IN_FREQUENCY", "ORIGINS", "SeedSpectra", "SourceIndices", "source_indices"]

#: Fluxes are carried too far beyond this factor in frequency from where they were measured.
FAR_IN_FREQUENCY = 2.0
#: Scatter of the spectral indices of a population about what is assumed of it, or about its median.
INDEX_SCATTER = LARGEST_ERROR
#: Kinds of origin, the best first.
ORIGINS = ("two catalogues", "file", "median", "assumed")


@dataclass(frozen=True)
class SourceIndices:
    """The spectral index of each source.

    Attributes
    ----------
    index, error : ndarray, shape (n,)
        Exponent of flux proportional to frequency^index and its standard error, NaN where none is known.
    origin : tuple of str, length n
        ``nvss+tgss``: from these two; ``file``; ``median nvss+tgss``: of the sources in the field that both
        list; ``assumed``.
    hashes : tuple of str
        Of the strips of the other surveys that told.
    notes : tuple of str
        Surveys that could not be asked, and why.
    """

    index: Float
    error: Float
    origin: tuple[str, ...]
    hashes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SeedSpectra:
    """How the fluxes of a catalogue model were carried to the observed frequency.

    Attributes
    ----------
    surveys : tuple of str
        Whose fluxes and, of a merged catalogue, whose positions.
    catalog_hz, observed_hz : float
        From which frequency to which, the middle of the band.
    origin : mapping of str to str
        Origin of the index by name of the source.
    error : mapping of str to float
        Its standard error, NaN where none is known.
    """

    surveys: tuple[str, ...]
    catalog_hz: float
    observed_hz: float
    origin: Mapping[str, str]
    error: Mapping[str, float]

    def counts(self) -> dict[str, int]:
        """Count the sources by kind of origin (`ORIGINS`)."""
        counts = dict.fromkeys(ORIGINS, 0)
        for origin in self.origin.values():
            counts[kind_of(origin)] += 1
        return counts

    def factor(self) -> float:
        """Return by which factor in frequency fluxes were carried, above one."""
        return float(np.exp(abs(np.log(self.observed_hz / self.catalog_hz))))

    def flux_errors(self, names: Sequence[str]) -> Float:
        """Return what spectral indices leave open of the flux of each source, as a fraction, shape (n,).

        Zero for sources that are not of the catalogue: whoever gave them gave their spectra.
        """
        known = [self.error.get(name, 0.0) for name in names]
        index_error = np.nan_to_num(np.asarray(known, dtype=np.float64), nan=INDEX_SCATTER)
        return np.asarray(index_error * np.log(self.factor()))

    def measured(self, names: Sequence[str]) -> Bool:
        """Tell which fluxes lie no further from a measurement than they may, shape (n,).

        The observed frequency is between those of the two catalogues that tell the index, or within
        `FAR_IN_FREQUENCY` of either. An index from the file of one catalogue tells of its own band alone.
        """
        near = self.factor() <= FAR_IN_FREQUENCY
        return np.array([near or self._between(self.origin.get(name, "")) for name in names], dtype=bool)

    def _between(self, origin: str) -> bool:
        if kind_of(origin) != "two catalogues":
            # What is not of the catalogue has the spectrum that it was given.
            return not origin
        other = float(np.log(SURVEYS[origin.rpartition("+")[2]].freq_hz / self.observed_hz))
        base = float(np.log(self.catalog_hz / self.observed_hz))
        return base * other < 0 or abs(other) <= np.log(FAR_IN_FREQUENCY)

    def sentence(self) -> str:
        """Say in a line how far fluxes were carried, and with what."""
        counts = self.counts()
        words = {
            "two catalogues": "from two catalogues",
            "file": "from the file",
            "median": "the median of the field's",
            "assumed": "assumed",
        }
        told = ", ".join(f"{counts[kind]} {words[kind]}" for kind in ORIGINS if counts[kind])
        return (
            f"fluxes of {self.surveys[0].upper()} at {self.catalog_hz / 1e6:g} MHz are carried to "
            f"{self.observed_hz / 1e6:.0f} MHz; spectral indices: {told}"
        )

    def for_summary(self) -> dict[str, Any]:
        """Return what the summary says."""
        return {
            "surveys": list(self.surveys),
            "catalog_mhz": self.catalog_hz / 1e6,
            "observed_mhz": self.observed_hz / 1e6,
            "indices": self.counts(),
            "message": self.sentence(),
        }


def kind_of(origin: str) -> str:
    """Return the kind (`ORIGINS`) of the origin of an index."""
    if "+" in origin:
        return "median" if origin.startswith("median") else "two catalogues"
    return origin


def source_indices(
    rows: Table,
    freq_hz: float,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    catalog_dir: Path | None,
    assumed: float,
) -> SourceIndices:
    """Give each source of a cone the best index that the catalogues at hand tell.

    Parameters
    ----------
    rows : Table
        As `dsa110_contimg.catalogs.query_cone` returns them.
    freq_hz : float
        Frequency that fluxes are to be carried to, in hertz.
    ra_deg, dec_deg, radius_deg : float
        The cone, degrees.
    catalog_dir : Path, optional
        Where the strips lie.
    assumed : float
        Index of sources of which nothing is known.

    Returns
    -------
    SourceIndices
        Of several pairs of surveys the one tells whose other frequency lies nearest to the observed one, on
        the far side of it if there is such: between two measurements no curvature is missed.
    """
    n, base = len(rows), SURVEYS[rows.meta["surveys"][0]]
    index, error = np.full(n, assumed), np.full(n, np.nan)
    origin = np.full(n, "assumed", dtype=object)
    folder = Path(catalog_dir or default_catalog_dir())
    others = [s for s in surveys_built(folder) if abs(np.log(s.freq_hz / base.freq_hz)) >= np.log(LEVERAGE)]

    def order(name: str) -> tuple[bool, float]:
        other = SURVEYS[name].freq_hz
        outside = (base.freq_hz - freq_hz) * (other - freq_hz) > 0
        return outside, abs(np.log(other / freq_hz))

    pairs: dict[str, PairIndices] = {}
    hashes: dict[str, str] = {}
    skipped: list[str] = []
    for other in sorted(others, key=lambda survey: order(survey.name)):
        wide = min(90.0, radius_deg + 2 * max(base.beam_arcsec, other.beam_arcsec) / 3600)
        try:
            listed = query_listed(other.name, ra_deg, dec_deg, wide, catalog_dir)
        except CatalogFormatError as damaged:
            # No other survey is needed: a damaged strip of one stops nobody who did not ask for it.
            skipped.append(f"spectral indices are not looked for in {other.name.upper()}: {damaged}")
            continue
        beside = query_listed(base.name, ra_deg, dec_deg, wide, catalog_dir)
        pairs[other.name] = pair_indices(rows, base, listed, other, beside)
        hashes[other.name] = str(listed.meta["catalog_hash"])
    for name, pair in pairs.items():
        if np.isfinite(pair.median):
            index[:], origin[:] = pair.median, f"median {base.name}+{name}"
            break
    if "spectral_index" in rows.colnames:
        listed_index = np.asarray(rows["spectral_index"], dtype=np.float64)
        listed_error = np.asarray(rows["spectral_index_err"], dtype=np.float64)
        known = (listed_index >= SMALLEST_INDEX) & (listed_index <= LARGEST_INDEX)
        known &= ~(listed_error > LARGEST_ERROR)
        index[known], error[known], origin[known] = listed_index[known], listed_error[known], "file"
    for name, pair in reversed(pairs.items()):
        known = np.isfinite(pair.index)
        index[known], error[known] = pair.index[known], pair.error[known]
        origin[known] = f"{base.name}+{name}"
    told = {name.rpartition("+")[2] for name in origin if "+" in name}
    of_told = tuple(hashes[name] for name in sorted(told))
    return SourceIndices(index, error, tuple(origin), of_told, tuple(skipped))
