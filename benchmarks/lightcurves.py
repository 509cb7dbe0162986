"""Light curves of very many sources: how long one takes, and the ranking of all.

    python -m benchmarks.lightcurves FOLDER [SOURCES] [OBSERVATIONS] [MINUTES]

Fills a file of light curves with synthetic fluxes, 100,000 sources in 1,000 observations unless said, in the
order of its table, which is that of the sources. Times the light curve of sources drawn at random, the search
for a place, and the ranking of all, and tells the largest memory of the process. Filling ends
after MINUTES, if given; the same command goes on where it stopped.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np

from dsa110_contimg.pipeline.lightcurve_file import open_database
from dsa110_contimg.pipeline.lightcurves import LightCurves
from dsa110_contimg.pipeline.source_places import ZONE_DEG
from dsa110_contimg.pipeline.variability import SUMS, sums_of


def fill(path: Path, sources: int, observations: int, minutes: float) -> int:
    """Write what is missing; one source in twenty varies by a fifth. Return how many there are."""
    began, db = time.monotonic(), open_database(path)
    db.execute("PRAGMA synchronous=OFF")
    there = int(db.execute("SELECT COUNT(*) FROM source").fetchone()[0])
    db.execute("BEGIN")
    db.executemany(
        "INSERT OR IGNORE INTO observation (id, identity, run_id, name, folder, mjd, verdict, counts,"
        " ensemble, ensemble_error) VALUES (?, ?, '1', ?, '', ?, 'good', 1, 1.0, 0.002)",
        [(k, f"o{k}", f"o{k}", 60000.0 + k) for k in range(1, observations + 1)],
    )
    names = ", ".join(SUMS)
    for k in range(there, sources):
        if k % 500 == 0:
            db.execute("COMMIT")
            db.execute("BEGIN")
            if time.monotonic() - began > 60 * minutes:
                break
        rng = np.random.default_rng([1, k])
        ra, dec = rng.uniform(0, 360), float(np.degrees(np.arcsin(rng.uniform(0, 1))))
        base = float(10 ** rng.uniform(-2, 0))
        error = np.full(observations, 0.05 * base)
        flux = base * (1 + 0.2 * (k % 20 == 0) * rng.standard_normal(observations))
        flux += error * rng.standard_normal(observations)
        sums = tuple(map(float, sums_of(flux, np.hypot(error, 0.002 * flux))))
        db.execute(
            f"INSERT INTO source (id, name, kind, ra_deg, dec_deg, zone, catalog_flux_jy, {names})"
            " VALUES (?, ?, 'catalogue', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (k + 1, f"s{k}", ra, dec, int(dec // ZONE_DEG), base, *sums),
        )
        db.executemany(
            "INSERT INTO measurement VALUES (?, ?, ?, ?, 0.0, 'image', '')",
            zip(
                [k + 1] * observations, range(1, observations + 1), flux.tolist(), error.tolist(), strict=True
            ),
        )
        there = k + 1
    db.execute("COMMIT")
    db.close()
    return there


def main(folder: Path, sources: int = 100_000, observations: int = 1_000, minutes: float = 1e9) -> None:
    """Fill the file if need be, time, and print."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lightcurves-{sources}-{observations}.sqlite3"
    sources = fill(path, sources, observations, minutes)
    print(f"{sources} sources, {sources * observations} fluxes, {path.stat().st_size / 1e9:.2f} GB")
    rng = np.random.default_rng(2)
    with LightCurves(path, readonly=True) as curves:
        seconds, finding = [], []
        for k in rng.integers(1, sources + 1, 50):
            began = time.perf_counter()
            curve = curves.curve(int(k))
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            assert curves.find(curve.source["ra_deg"], curve.source["dec_deg"], 5.0) == k
            finding.append(time.perf_counter() - began)
            assert curve.mjd.size == observations
        began = time.perf_counter()
        table = curves.sources("catalogue", 3)
        order = np.argsort(table["probability"])
        ranking = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"a light curve of {observations} fluxes: {1e3 * np.median(seconds):.1f} ms, at most "
        f"{1e3 * np.max(seconds):.1f}; a source by its place: {1e3 * np.median(finding):.2f} ms; ranking of "
        f"{order.size} sources: {ranking:.2f} s; memory at most {memory:.0f} MB"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:]))
