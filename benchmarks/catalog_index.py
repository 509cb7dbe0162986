"""Which spatial index answers a cone fastest: declination bands, HEALPix cells, R*Tree, or plain RA and Dec.

    python -m benchmarks.catalog_index

Makes one strip of drawn sources as dense as NVSS (Dec +49 to +61, 129,000 rows of 11 columns) in each way,
all in SQLite, and times the same cones of 2.5 deg up to and including the exact cut, in time of the
processor.
"""

from __future__ import annotations

import math
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ducc0
import numpy as np

N, RADIUS, CONES = 129_000, 2.5, 300
NAMES = [f"v{k}" for k in range(8)]
TABLE = "id INTEGER PRIMARY KEY, ra REAL, dec REAL, " + ", ".join(f"{name} REAL" for name in NAMES)
FIELDS = "id, ra, dec, " + ", ".join(NAMES)
Query = Callable[[sqlite3.Connection, float, float], np.ndarray]


def half_width(dec: float) -> float:
    return math.degrees(math.asin(math.sin(math.radians(RADIUS)) / math.cos(math.radians(dec))))


def table(database: sqlite3.Connection, rows: np.ndarray) -> None:
    database.execute(f"CREATE TABLE s({TABLE})")
    database.executemany(f"INSERT INTO s VALUES ({', '.join('?' * 11)})", rows.tolist())


def make_radec(database: sqlite3.Connection, rows: np.ndarray) -> Query:
    table(database, rows)
    database.execute("CREATE INDEX i ON s(ra, dec)")
    sql = f"SELECT {FIELDS} FROM s WHERE ra BETWEEN ? AND ? AND dec BETWEEN ? AND ?"

    def query(db: sqlite3.Connection, ra: float, dec: float) -> np.ndarray:
        w = half_width(dec)
        return np.array(db.execute(sql, (ra - w, ra + w, dec - RADIUS, dec + RADIUS)).fetchall())

    return query


def make_rtree(database: sqlite3.Connection, rows: np.ndarray) -> Query:
    extra = ", ".join(f"+{name} REAL" for name in ("ra", "dec", *NAMES))
    database.execute(f"CREATE VIRTUAL TABLE s USING rtree(id, x0, x1, y0, y1, {extra})")
    ordered = rows[:, [0, 1, 1, 2, 2, *range(1, 11)]]
    database.executemany(f"INSERT INTO s VALUES ({', '.join('?' * 15)})", ordered.tolist())
    sql = f"SELECT {FIELDS} FROM s WHERE x1 >= ? AND x0 <= ? AND y1 >= ? AND y0 <= ?"

    def query(db: sqlite3.Connection, ra: float, dec: float) -> np.ndarray:
        w = half_width(dec)
        return np.array(db.execute(sql, (ra - w, ra + w, dec - RADIUS, dec + RADIUS)).fetchall())

    return query


def make_bands(database: sqlite3.Connection, rows: np.ndarray, per_degree: int = 4) -> Query:
    """Bands of declination, within each an index on RA that holds all columns."""
    table(database, rows)
    database.execute("ALTER TABLE s ADD COLUMN band INTEGER")
    database.execute(f"UPDATE s SET band = CAST(dec * {per_degree} AS INTEGER)")
    database.execute(f"CREATE INDEX i ON s(band, ra, dec, {', '.join(NAMES)})")

    def query(db: sqlite3.Connection, ra: float, dec: float) -> np.ndarray:
        r, d0, ends = math.radians(RADIUS), math.radians(dec), []
        tangent = math.degrees(math.asin(math.sin(d0) / math.cos(r)))
        for band in range(int((dec - RADIUS) * per_degree), int((dec + RADIUS) * per_degree) + 1):
            low, high = max(band / per_degree, dec - RADIUS), min((band + 1) / per_degree, dec + RADIUS)
            widest = 0.0
            for x in (math.radians(y) for y in ((tangent,) if low <= tangent <= high else (low, high))):
                cosine = (math.cos(r) - math.sin(d0) * math.sin(x)) / (math.cos(d0) * math.cos(x))
                widest = max(widest, math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
            ends += [band, ra - widest, ra + widest]
        sql = (
            f"WITH w(b, l, h) AS (VALUES {', '.join(['(?, ?, ?)'] * (len(ends) // 3))}) "
            f"SELECT {FIELDS} FROM w CROSS JOIN s WHERE band = b AND ra BETWEEN l AND h"
        )
        return np.array(db.execute(sql, ends).fetchall())

    return query


def maker_of_cells(nside: int, packed: bool) -> Callable[[sqlite3.Connection, np.ndarray], Query]:
    base = ducc0.healpix.Healpix_Base(nside, "RING")

    def make(database: sqlite3.Connection, rows: np.ndarray) -> Query:
        cells = base.ang2pix(np.radians(np.stack([90 - rows[:, 2], rows[:, 1]], axis=-1)))
        if packed:
            order = np.argsort(cells, kind="stable")
            filled, starts = np.unique(cells[order], return_index=True)
            database.execute("CREATE TABLE c(cell INTEGER PRIMARY KEY, rows BLOB)")
            blocks = np.split(rows[order], starts[1:])
            database.executemany(
                "INSERT INTO c VALUES (?, ?)",
                ((int(c), b.tobytes()) for c, b in zip(filled, blocks, strict=True)),
            )
            fields, source = "rows", "c"
        else:
            table(database, rows)
            database.execute("ALTER TABLE s ADD COLUMN cell INTEGER")
            database.executemany(
                "UPDATE s SET cell = ? WHERE id = ?", zip(cells.tolist(), rows[:, 0].tolist(), strict=True)
            )
            database.execute(f"CREATE INDEX i ON s(cell, ra, dec, {', '.join(NAMES)})")
            fields, source = FIELDS, "s"

        def query(db: sqlite3.Connection, ra: float, dec: float) -> np.ndarray:
            centre = np.radians([90 - dec, ra])
            ranges = base.query_disc(centre, math.radians(RADIUS) + base.max_pixrad()).tolist()
            sql = (
                f"WITH w(l, h) AS (VALUES {', '.join(['(?, ?)'] * len(ranges))}) "
                f"SELECT {fields} FROM w CROSS JOIN {source} WHERE cell >= l AND cell < h"
            )
            found = db.execute(sql, [end for pair in ranges for end in pair])
            if packed:
                return np.frombuffer(b"".join([b for (b,) in found]), "<f8").reshape(-1, 11)
            return np.array(found.fetchall())

        return query

    return make


def cut(rows: np.ndarray, ra: float, dec: float) -> np.ndarray:
    d0, d = math.radians(dec), np.radians(rows[:, 2])
    across = np.sin(np.radians(rows[:, 1] - ra) / 2) ** 2 * np.cos(d) * math.cos(d0)
    return rows[across + np.sin((d - d0) / 2) ** 2 <= math.sin(math.radians(RADIUS) / 2) ** 2]


def main() -> None:
    rng = np.random.default_rng(1)
    sines = np.sin(np.radians([49, 61]))
    ra, dec = rng.uniform(0, 360, N), np.degrees(np.arcsin(rng.uniform(*sines, N)))
    rows = np.column_stack([rng.permutation(1_773_484)[:N] + 1, ra, dec, rng.lognormal(2, 1, (N, 8))])
    rows = rows[np.argsort(rows[:, 0])]
    cones = [(rng.uniform(5, 355), rng.uniform(51.6, 58.4)) for _ in range(CONES)]
    ways: dict[str, Callable[[sqlite3.Connection, np.ndarray], Query]] = {
        "index on RA, Dec": make_radec,
        "R*Tree": make_rtree,
        "bands of 0.25 deg": make_bands,
        "cells, nside 128, a row each": maker_of_cells(128, packed=False),
        **{f"cells, nside {n}, packed": maker_of_cells(n, packed=True) for n in (64, 128, 256)},
    }
    print(f"{'index':<30}{'build s':>9}{'MB':>7}{'median ms':>11}{'99 % ms':>9}{'ratio':>7}")
    fastest: dict[str, tuple[float, ...]] = {}
    sizes = set()
    for name, make in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "strip.sqlite3"
            database = sqlite3.connect(path, isolation_level=None)
            database.execute("PRAGMA synchronous = OFF")
            started = time.perf_counter()
            database.execute("BEGIN")
            query = make(database, rows)
            database.execute("COMMIT")
            built = time.perf_counter() - started
            database.close()
            reader = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
            found = sum(len(cut(query(reader, *cone), *cone)) for cone in cones)
            sizes.add(found)
            seconds = []
            for cone in cones:
                started = time.process_time()
                cut(query(reader, *cone), *cone)
                seconds.append(time.process_time() - started)
            median, late = (1e3 * float(x) for x in np.percentile(seconds, [50, 99]))
            fastest[name] = (built, path.stat().st_size / 1e6, median, late)
            reader.close()
    least = min(row[2] for row in fastest.values())
    for name, (built, size, median, late) in fastest.items():
        print(f"{name:<30}{built:>9.1f}{size:>7.1f}{median:>11.2f}{late:>9.2f}{median / least:>7.1f}")
    assert len(sizes) == 1, f"the ways disagree: {sizes}"
    print(f"all found the same {sizes.pop() / CONES:.0f} sources a cone")


if __name__ == "__main__":
    main()
