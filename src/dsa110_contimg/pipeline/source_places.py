"""Sources of the light curves by their places."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator

from dsa110_contimg.pipeline.measured_sources import MeasuredSources

__all__ = ["ZONE_DEG", "nearest", "sources_of", "within"]

#: Sources lie in zones of declination of so many degrees, within which they are found by right ascension.
ZONE_DEG = 0.1


def sources_of(db: sqlite3.Connection, fluxes: MeasuredSources) -> tuple[list[int], int]:
    """Find sources by their places, and add those that are new here; return their keys, and how many were."""
    ids, made = list[int](), 0
    for k in range(fluxes.flux.size):
        new = bool(fluxes.is_new[k])
        place = float(fluxes.ra[k]), float(fluxes.dec[k])
        found = nearest(db, *place, float(fluxes.reach_deg[k]), "new" if new else "")
        if found is None:
            made += new
            found = _add(db, fluxes, k)
        ids.append(found)
    return ids, made


def _add(db: sqlite3.Connection, fluxes: MeasuredSources, k: int) -> int:
    kind = "new" if fluxes.is_new[k] else "catalogue"
    dec = float(fluxes.dec[k])
    cursor = db.execute(
        "INSERT INTO source (name, kind, ra_deg, dec_deg, zone, catalog_flux_jy) VALUES (?, ?, ?, ?, ?, ?)",
        (
            fluxes.name[k],
            kind,
            float(fluxes.ra[k]),
            dec,
            math.floor(dec / ZONE_DEG),
            float(fluxes.catalog[k]),
        ),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def nearest(
    db: sqlite3.Connection, ra_deg: float, dec_deg: float, reach_deg: float, kind: str = ""
) -> int | None:
    """Return the key of the source that is nearest to a place, within a reach; None if there is none."""
    found = min(within(db, ra_deg, dec_deg, reach_deg, kind), default=None)
    return None if found is None else found[1]


def within(
    db: sqlite3.Connection, ra_deg: float, dec_deg: float, reach_deg: float, kind: str = ""
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
            for row in db.execute(
                f"SELECT id, ra_deg, dec_deg FROM source WHERE zone = ? AND ra_deg BETWEEN ? AND ?{asked}",
                (zone, begin, end),
            ):
                away = _separation_deg(ra_deg, dec_deg, row["ra_deg"], row["dec_deg"])
                if away <= reach_deg:
                    yield away, int(row["id"])


def _separation_deg(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    a1, d1, a2, d2 = map(math.radians, (ra1, dec1, ra2, dec2))
    half = math.sin((d2 - d1) / 2) ** 2 + math.cos(d1) * math.cos(d2) * math.sin((a2 - a1) / 2) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(half))))
