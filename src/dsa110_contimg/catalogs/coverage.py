"""Which part of the sky a catalogue covers.

A catalogue file holds sources, not the outline of the sky it was cut from; yet a cone answered from beyond
that outline would be an empty sky that is not empty. So the outline is inferred from the sources.

Regular surveys and pieces of them: an interval in RA times one in Dec (`measure_coverage`)

* **RA**: sorted on the circle, n sources of one survey leave gaps with a nearly exponential distribution of
  mean s, and the largest of n gaps exceeds s (ln n + 10) by chance once in e^10 = 22,000 catalogues. If the
  largest gap is wider than that (and than 1 deg), or wider than 30 deg, it is the part that the file does
  not hold, and the coverage is its complement. Otherwise the whole circle is covered.
* **Dec**: the same in sin(Dec), in which equal steps have equal areas, between the southernmost and the
  northernmost source. A pole is reached if what is left up to it, less than 2 deg, would hold no more than
  5 sources.
* Each end is extended by one mean gap s (at most 1 deg), which is how far the outermost source of a random
  sample lies from the edge on average.
* A second implausible gap in either coordinate means several regions in one file, for which one outline
  would be a lie: the file is refused.

Irregular surveys such as FIRST: a map of HEALPix cells (`Footprint`), small ones where sources are dense
enough for at least 15 in each on average, so that a cell within the survey is empty once in millions. A cell
counts as covered if it and all cells around it hold sources: the rim, of which a part may lie outside, does
not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.catalogs.healpix import cell_centres, cell_of, cells_near, neighbours
from dsa110_contimg.errors import CatalogFormatError
from dsa110_contimg.sphere import separation_deg

__all__ = ["Circle", "Coverage", "Footprint", "measure_coverage"]


LARGEST_RA_GAP_DEG = 30.0
SMALLEST_GAP_DEG = 1.0
GAP_MARGIN = 10.0
POLE_REACH_DEG = 2.0
POLE_SOURCES = 5.0
FOOTPRINT_NSIDES = (128, 64, 32, 16, 8)
FOOTPRINT_SOURCES = 15.0


@dataclass(frozen=True)
class Coverage:
    """A piece of sky: an interval in RA times one in Dec.

    Attributes
    ----------
    ra_min, ra_max : float
        Degrees; the interval runs eastwards from ``ra_min``, through 0h where ``ra_max < ra_min``. The whole
        circle is 0 to 360.
    dec_min, dec_max : float
        Degrees.
    """

    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    @property
    def ra_width(self) -> float:
        """Length of the RA interval, in degrees."""
        width = self.ra_max - self.ra_min
        return width if 0.0 <= width <= 360.0 else width % 360.0

    def holds(self, ra_deg: Float, dec_deg: Float) -> Bool:
        """Return which directions (degrees, shape (n,)) are covered."""
        inside = (dec_deg >= self.dec_min) & (dec_deg <= self.dec_max)
        if self.ra_width < 360.0:
            inside &= (ra_deg - self.ra_min) % 360.0 <= self.ra_width
        return np.asarray(inside)


@dataclass(frozen=True)
class Circle:
    """A circle on the sky.

    Attributes
    ----------
    ra_deg, dec_deg, radius_deg : float
        Centre and radius in degrees.
    """

    ra_deg: float
    dec_deg: float
    radius_deg: float

    def separation(self, ra_deg: Float | float, dec_deg: Float | float) -> Float:
        """Return distances of directions from the centre, degrees."""
        return separation_deg(self.ra_deg, self.dec_deg, ra_deg, dec_deg)

    def holds(self, ra_deg: Float, dec_deg: Float) -> Bool:
        """Return which directions (degrees, shape (n,)) lie inside."""
        return np.asarray(self.separation(ra_deg, dec_deg) <= self.radius_deg)


@dataclass(frozen=True)
class Footprint:
    """The covered cells of an irregular survey.

    Attributes
    ----------
    nside : int
        Resolution of the HEALPix map.
    ranges : tuple of (int, int)
        Covered cells in ring order, as ranges ``(first, last)``.
    """

    nside: int
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, ra_deg: Float, dec_deg: Float) -> Footprint:
        """Map the cells that sources (degrees, shape (n,)) fill."""
        for nside in FOOTPRINT_NSIDES:
            filled, counts = np.unique(cell_of(ra_deg, dec_deg, nside), return_counts=True)
            if counts.mean() >= FOOTPRINT_SOURCES:
                break
        around = neighbours(filled, nside)
        inner = (np.isin(around, filled) | (around < 0)).all(axis=1)
        return cls.from_cells(nside, filled[inner])

    @classmethod
    def within(cls, coverage: Coverage) -> Footprint:
        """Map the cells that lie in an interval of RA times one of Dec as a whole."""
        nside = FOOTPRINT_NSIDES[0]
        cells = np.arange(12 * nside**2)
        ra, dec = cell_centres(cells, nside)
        reach = np.degrees(np.sqrt(np.pi / 3) / nside)
        south = coverage.dec_min + reach * (coverage.dec_min > -90.0)
        north = coverage.dec_max - reach * (coverage.dec_max < 90.0)
        inside = (dec >= south) & (dec <= north)
        if coverage.ra_width < 360.0:
            margin = reach / np.cos(np.radians(np.minimum(np.abs(dec) + reach, 89.9)))
            offset = (ra - coverage.ra_min) % 360.0
            inside &= (offset >= margin) & (offset <= coverage.ra_width - margin)
        return cls.from_cells(nside, cells[inside])

    @classmethod
    def from_cells(cls, nside: int, cells: Int) -> Footprint:
        """Make a footprint of cells, in ascending order."""
        if not len(cells):
            return cls(nside, ())
        breaks = np.flatnonzero(np.diff(cells) > 1)
        first = cells[np.concatenate([[0], breaks + 1])]
        last = cells[np.concatenate([breaks, [len(cells) - 1]])]
        return cls(nside, tuple(zip(first.tolist(), last.tolist(), strict=True)))

    @classmethod
    def from_text(cls, text: str) -> Footprint:
        """Read what `to_text` has written."""
        nside, _, ranges = text.partition("/")
        pairs = [[int(end) for end in pair.split("-")] for pair in ranges.split()]
        return cls(int(nside), tuple((pair[0], pair[-1]) for pair in pairs))

    def to_text(self) -> str:
        """Write as ``nside/first-last first-last ...``."""
        return f"{self.nside}/" + " ".join(f"{first}-{last}" for first, last in self.ranges)

    @cached_property
    def cells(self) -> Int:
        """All covered cells, ascending."""
        parts = [np.arange(first, last + 1) for first, last in self.ranges]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    @property
    def area_deg2(self) -> float:
        """Covered area in square degrees."""
        return float(len(self.cells) * np.degrees(np.degrees(4.0 * np.pi)) / (12 * self.nside**2))

    def holds(self, ra_deg: Float, dec_deg: Float) -> Bool:
        """Return which directions (degrees, shape (n,)) are covered."""
        return np.isin(cell_of(ra_deg, dec_deg, self.nside), self.cells)

    def fraction(self, ra_deg: float, dec_deg: float, radius_deg: float) -> float:
        """Return how much of a cone (degrees) is covered, 0 to 1, to the resolution of the map."""
        return float(np.isin(cells_near(ra_deg, dec_deg, radius_deg, self.nside), self.cells).mean())

    def between(self, dec_min: float, dec_max: float) -> Footprint:
        """Return the part whose cells have their middles in an interval of declination (degrees)."""
        dec = cell_centres(self.cells, self.nside)[1]
        return self.from_cells(self.nside, self.cells[(dec >= dec_min) & (dec <= dec_max)])


def measure_coverage(ra_deg: Float, dec_deg: Float) -> Coverage:
    """Infer the piece of sky that a list of positions was cut from.

    Parameters
    ----------
    ra_deg, dec_deg : ndarray, shape (n,)
        Degrees; n at least 1.

    Returns
    -------
    Coverage
        By the method in the docstring of this module. A single source covers nothing but itself.

    Raises
    ------
    CatalogFormatError
        The positions lie in more than one region.
    """
    ra_min, ra_max = _ra_interval(np.sort(ra_deg % 360.0))
    dec_min, dec_max = _dec_interval(np.sort(dec_deg))
    return Coverage(ra_min, ra_max, dec_min, dec_max)


def _ra_interval(ra: Float) -> tuple[float, float]:
    n = len(ra)
    if n == 1:
        return float(ra[0]), float(ra[0])
    gaps = np.diff(ra, append=ra[0] + 360.0)
    widest = int(gaps.argmax())
    spacing = (360.0 - gaps[widest]) / (n - 1)
    plausible = max(SMALLEST_GAP_DEG, spacing * (np.log(n) + GAP_MARGIN))
    if gaps[widest] <= min(plausible, LARGEST_RA_GAP_DEG):
        return 0.0, 360.0
    first, last = (widest + 1) % n, widest
    others = np.delete(gaps, widest)
    if others.max() > plausible:
        start = ra[int(np.flatnonzero(gaps == others.max())[0])]
        _refuse_hole("RA", float(start), float(start + others.max()))
    pad = min(spacing, SMALLEST_GAP_DEG)
    return float((ra[first] - pad) % 360.0), float((ra[last] + pad) % 360.0)


def _dec_interval(dec: Float) -> tuple[float, float]:
    n = len(dec)
    if n == 1:
        return float(dec[0]), float(dec[0])
    height = np.sin(np.radians(dec))
    spacing = (height[-1] - height[0]) / (n - 1)
    hole = (np.diff(height) > spacing * (np.log(n) + GAP_MARGIN)) & (np.diff(dec) > SMALLEST_GAP_DEG)
    if hole.any():
        start = int(hole.argmax())
        _refuse_hole("Dec", float(dec[start]), float(dec[start + 1]))

    def northern_end(edge: float) -> float:
        """Return the northern end of a catalogue whose northernmost source is at ``edge``."""
        sine = np.sin(np.radians(edge))
        if 90.0 - edge < POLE_REACH_DEG and 1.0 - sine <= POLE_SOURCES * spacing:
            return 90.0
        padded = float(np.degrees(np.arcsin(min(1.0, sine + spacing))))
        return max(edge, min(padded, edge + SMALLEST_GAP_DEG))

    return -northern_end(-float(dec[0])), northern_end(float(dec[-1]))


def _refuse_hole(axis: str, start: float, end: float) -> None:
    raise CatalogFormatError(
        f"no source in {axis} {start:.2f} to {end:.2f} deg, too wide a hole to be sky",
        remedy="give one region per file, or declare its coverage in an ECSV header",
    )
