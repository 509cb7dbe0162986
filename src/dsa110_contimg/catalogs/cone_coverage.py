"""What of a cone the strips of a catalogue cover."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.catalogs.coverage import Coverage, Footprint
from dsa110_contimg.catalogs.healpix import cell_centres, cells_near
from dsa110_contimg.catalogs.strips import STRIP_EDGES, StripInfo
from dsa110_contimg.catalogs.surveys import Survey

__all__ = ["Cover", "bounding_box", "cone_samples", "coverage_remedy", "not_covered"]

#: Slack (deg) for rounding in the comparison of edges; a ten-thousandth of the best position error in NVSS.
EDGE_TOLERANCE_DEG = 1e-8


@dataclass(frozen=True)
class Cover:
    """What some strips of one catalogue cover.

    Parameters
    ----------
    strips : tuple of StripInfo
        From south to north; there may be gaps.
    """

    strips: tuple[StripInfo, ...]

    @property
    def declared(self) -> bool:
        """Whether the coverage of any of them was declared, not measured."""
        return any(strip.declared for strip in self.strips)

    @cached_property
    def footprint(self) -> Footprint | None:
        """The footprints of neighbouring strips joined; None where no strip has one."""
        parts = [strip.footprint for strip in self.strips if strip.footprint is not None]
        if not parts:
            return None
        nside = parts[0].nside
        cells = np.unique(np.concatenate([part.cells for part in parts if part.nside == nside]))
        return Footprint.from_cells(nside, cells)

    def holds(self, ra_deg: Float, dec_deg: Float) -> Bool:
        """Return which directions (degrees, shape (n,)) are covered."""
        covered = np.zeros(np.shape(ra_deg), dtype=bool)
        for strip in self.strips:
            inside = strip.coverage.holds(ra_deg, dec_deg)
            if strip.circle is not None:
                inside &= strip.circle.holds(ra_deg, dec_deg)
            elif strip.footprint is not None:
                inside = (dec_deg >= strip.dec_min) & (dec_deg <= strip.dec_max)
                inside &= self.footprint.holds(ra_deg, dec_deg) if self.footprint else False
            covered |= inside
        return covered

    def fraction(self, ra_deg: float, dec_deg: float, radius_deg: float) -> float:
        """Return how much of a cone (degrees) is covered, 0 to 1."""
        if self.footprint is not None:
            return self.footprint.fraction(ra_deg, dec_deg, radius_deg)
        ra, dec, area = cone_samples(ra_deg, dec_deg, radius_deg)
        return float(np.average(self.holds(ra, dec), weights=area))


def cone_samples(
    ra_deg: float, dec_deg: float, radius_deg: float, n_rings: int = 60, n_around: int = 180
) -> tuple[Float, Float, Float]:
    """Spread directions evenly over a cone.

    Returns
    -------
    ra_deg, dec_deg, area_sr : ndarray, shape (n_rings * n_around,)
        Rings from the centre to the rim, and the solid angle that each direction stands for.
    """
    edges = np.radians(radius_deg) * np.arange(n_rings + 1) / n_rings
    distance = np.repeat((edges[1:] + edges[:-1]) / 2, n_around)
    area = np.repeat(np.cos(edges[:-1]) - np.cos(edges[1:]), n_around) * 2 * np.pi / n_around
    angle = np.tile(2 * np.pi * (np.arange(n_around) + 0.5) / n_around, n_rings)
    dec0 = np.radians(dec_deg)
    sine = np.sin(dec0) * np.cos(distance) + np.cos(dec0) * np.sin(distance) * np.cos(angle)
    dec = np.arcsin(np.clip(sine, -1.0, 1.0))
    east = np.sin(distance) * np.sin(angle)
    north = np.cos(dec0) * np.cos(distance) - np.sin(dec0) * np.sin(distance) * np.cos(angle)
    return (ra_deg + np.degrees(np.arctan2(east, north))) % 360.0, np.degrees(dec), area


def not_covered(
    survey: Survey,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    strips: list[StripInfo],
    without: list[int],
) -> list[str]:
    """Describe what of a cone strips do not cover; nothing if they cover it.

    Parameters
    ----------
    survey : Survey
        Whose strips.
    ra_deg, dec_deg, radius_deg : float
        The cone.
    strips, without : list
        The strips that it touches, and the numbers of those that are not there.
    """
    missing = [
        f"the list covers {circle.radius_deg:g} deg about RA {circle.ra_deg:g} Dec {circle.dec_deg:g} only"
        for circle in dict.fromkeys(strip.circle for strip in strips)
        if circle is not None and circle.separation(ra_deg, dec_deg) + radius_deg > circle.radius_deg + 1e-6
    ]
    missing = missing or _missing(bounding_box(ra_deg, dec_deg, radius_deg), strips, without)
    cover = Cover(tuple(strips))
    if missing or not survey.irregular:
        return missing
    footprint = cover.footprint or Footprint(1, ())
    reach = math.degrees(math.sqrt(4 * math.pi / 12) / footprint.nside)
    wanted = cells_near(ra_deg, dec_deg, min(180.0, radius_deg + reach), footprint.nside)
    outside = ~np.isin(wanted, footprint.cells)
    if any(strip.covers for strip in strips):
        # Of strips whose coverage was declared it is known already.
        _, dec = cell_centres(wanted, footprint.nside)
        measured = np.zeros(outside.shape, dtype=bool)
        for strip in strips:
            if not strip.covers:
                number = np.searchsorted(STRIP_EDGES, (strip.dec_min + strip.dec_max) / 2) - 1
                measured |= (dec >= STRIP_EDGES[number]) & (dec <= STRIP_EDGES[number + 1])
        outside &= measured
    if outside.any():
        missing = [f"{100 * outside.mean():.0f} % of it or its rim lie outside the survey's footprint"]
    return missing


def bounding_box(ra_deg: float, dec_deg: float, radius_deg: float) -> Coverage:
    """Return the smallest box in RA and Dec that holds the cone."""
    low, high = dec_deg - radius_deg, dec_deg + radius_deg
    if low <= -90.0 + EDGE_TOLERANCE_DEG or high >= 90.0 - EDGE_TOLERANCE_DEG:  # the cone holds a pole
        return Coverage(0.0, 360.0, max(low, -90.0), min(high, 90.0))
    ratio = math.sin(math.radians(radius_deg)) / math.cos(math.radians(dec_deg))
    # The tangent meridian: asin(sin r / cos dec), which r / cos dec falls short of.
    half_width = math.degrees(math.asin(min(1.0, ratio)))
    return Coverage((ra_deg - half_width) % 360.0, (ra_deg + half_width) % 360.0, low, high)


def _part_missing(part: Coverage, covered: Coverage | None) -> list[str]:
    """Describe what of ``part`` is not covered; nothing where ``part`` only touches the strip."""
    dec = f"Dec {part.dec_min:.2f} to {part.dec_max:.2f}"
    if part.dec_max - part.dec_min <= EDGE_TOLERANCE_DEG:
        return []
    if covered is None:
        return [f"{dec} has no strip"]
    missing = []
    if covered.dec_min > part.dec_min + EDGE_TOLERANCE_DEG:
        missing.append(f"Dec {part.dec_min:.2f} to {min(covered.dec_min, part.dec_max):.2f} is missing")
    if covered.dec_max < part.dec_max - EDGE_TOLERANCE_DEG:
        missing.append(f"Dec {max(covered.dec_max, part.dec_min):.2f} to {part.dec_max:.2f} is missing")
    offset = (part.ra_min - covered.ra_min + EDGE_TOLERANCE_DEG) % 360.0
    if covered.ra_width < 360.0 and offset + part.ra_width > covered.ra_width + 2 * EDGE_TOLERANCE_DEG:
        missing.append(
            f"{dec} is there for RA {covered.ra_min:.2f} to {covered.ra_max:.2f} only, "
            f"not for all of {part.ra_min:.2f} to {part.ra_max:.2f}"
        )
    return missing


def _missing(cone: Coverage, strips: list[StripInfo], without: list[int]) -> list[str]:
    """Describe what of a box the strips do not cover, from south to north."""
    by_edge: dict[float, Coverage | None] = {STRIP_EDGES[number]: None for number in without}
    for info in strips:
        low = max(edge for edge in STRIP_EDGES if edge <= max(info.dec_min, STRIP_EDGES[0]))
        # An irregular survey is judged by its map.
        whole = Coverage(0.0, 360.0, -90.0, 90.0)
        by_edge[low] = info.coverage if info.footprint is None else whole
    missing = []
    for low, high in pairwise(STRIP_EDGES):
        if low in by_edge and low <= cone.dec_max and high >= cone.dec_min:
            part = Coverage(cone.ra_min, cone.ra_max, max(low, cone.dec_min), min(high, cone.dec_max))
            missing += _part_missing(part, by_edge[low])
    return missing


def coverage_remedy(survey: Survey, cone: Coverage) -> str:
    """Return what to do where a survey does not cover a cone."""
    remedy = (
        f"build it with `contimg catalog build {survey.name} SOURCE` from a file that covers it, "
        "or ask for less"
    )
    if cone.dec_min < survey.dec_min:
        remedy += f" (the survey ends at Dec {survey.dec_min:g})"
    elif cone.dec_max > survey.dec_max:
        remedy += f" (the survey ends at Dec {survey.dec_max:+g})"
    return remedy
