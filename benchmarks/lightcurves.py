"""Light curves of very many sources: how long one takes, and the ranking of all.

    python -m benchmarks.lightcurves FOLDER [SOURCES] [OBSERVATIONS]

Fills a file of light curves with synthetic fluxes, 100,000 sources in 1,000 observations unless said, by a
bulk path: the tables as observations that are taken in fill them, in the order of the sources. Times the
solution for all observations with the sums of all light curves, the light curve of sources drawn at random,
the search for a place, and the ranking of all, and tells the largest memory of the process.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Int
from dsa110_contimg.pipeline.correction import BY_VISIBILITIES, FOLLOWS, FOUND, TELLS
from dsa110_contimg.pipeline.lightcurve_file import ENSEMBLE, FLUXES, open_database
from dsa110_contimg.pipeline.lightcurves import LightCurves
from dsa110_contimg.pipeline.source_places import ZONE_DEG

#: Sources that are made at once.
CHUNK = 500
#: All are of one field, so large; that error of the beam is two degrees from its centre. One in so many
#: varies, by a fifth.
CENTRE, FIELD_DEG, BEAM_ERROR, VARIES = (180.0, 45.0), 4.0, 0.02, 20


def fill(path: Path, sources: int, observations: int) -> int:
    """Write what is missing; one source in twenty varies by a fifth. Return how many there are."""
    db = open_database(path)
    db.execute("PRAGMA synchronous=OFF")
    there = int(db.execute("SELECT COUNT(*) FROM source").fetchone()[0])
    if there:
        return there
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO observation (id, identity, run_id, name, folder, mjd, freq_hz, verdict, counts,"
        " centre_ra_deg, centre_dec_deg) VALUES (?, ?, '1', ?, '', ?, 1.4e9, 'good', 1, ?, ?)",
        [(k, f"o{k}", f"o{k}", 60000.0 + k, *CENTRE) for k in range(1, observations + 1)],
    )
    shape = sources, observations
    with tempfile.TemporaryFile(dir=path.parent) as room:
        blocks = np.memmap(room, dtype=FLUXES, mode="w+", shape=shape[::-1])
        for first in range(0, sources, CHUNK):
            db.execute("COMMIT")
            db.execute("BEGIN")
            _add_sources(db, blocks, np.arange(first, min(first + CHUNK, sources)), sources, observations)
        _add_blocks(db, blocks)
    db.execute("COMMIT")
    db.close()
    return sources


def _add_sources(db: Any, blocks: Any, some: Int, sources: int, observations: int) -> None:
    """Write sources with their fluxes; what is of an observation goes into its block."""
    rng = np.random.default_rng([1, int(some[0])])
    ra, dec = (c + FIELD_DEG * rng.uniform(-0.5, 0.5, some.size) for c in CENTRE)
    base = 10 ** rng.uniform(-2, 0, some.size)
    tells = some % max(1, sources // 300) == 0
    part = np.zeros((some.size, observations), dtype=FLUXES)
    part["source"] = some[:, None] + 1
    part["stat"] = np.where(tells, 0.02, 0.05)[:, None] * base[:, None]
    scale = 1 + 0.05 * np.random.default_rng(0).standard_normal(observations)
    factor = scale * (1 + 0.2 * (some % VARIES == 1)[:, None] * rng.standard_normal(part.shape))
    part["flux"] = base[:, None] * factor + part["stat"] * rng.standard_normal(part.shape)
    part["beam"] = (
        BEAM_ERROR * np.abs(part["flux"]) * (np.hypot(ra - CENTRE[0], dec - CENTRE[1]) / 2)[:, None]
    )
    part["bits"] = FOUND + FOLLOWS + (TELLS + BY_VISIBILITIES) * tells[:, None]
    blocks[:, some] = part.T
    db.executemany(
        "INSERT INTO source VALUES (?, ?, 'catalogue', ?, ?, ?, ?)",
        [(k + 1, f"s{k}", *v) for k, *v in zip(some.tolist(), ra.tolist(), dec.tolist(),
         (dec // ZONE_DEG).astype(int).tolist(), base.tolist(), strict=True)],
    )  # fmt: skip
    columns = (part[name].ravel().tolist() for name in FLUXES.names or ())
    source, flux, stat, beam, bits = columns
    db.executemany(
        "INSERT INTO measurement VALUES (?, ?, ?, ?, ?, 'image', '', ?)",
        zip(source, list(range(1, observations + 1)) * some.size, flux, stat, beam, bits, strict=True),
    )


def _add_blocks(db: Any, blocks: Any) -> None:
    """Write the blocks, and of each what tells the scale, with the true flux for that of the catalogue."""
    base = dict(map(tuple, db.execute("SELECT id, catalog_flux_jy FROM source")))
    for o, block in enumerate(blocks, 1):
        some = block[(block["bits"] & TELLS > 0) & (block["flux"] > 0)]
        ensemble = np.zeros(some.size, dtype=ENSEMBLE)
        for name in FLUXES.names:
            ensemble[name] = some[name]
        ensemble["catalog"] = [base[int(k)] for k in some["source"]]
        db.execute("INSERT INTO flux_block VALUES (?, ?, ?)", (o, block.tobytes(), ensemble.tobytes()))
    db.execute("UPDATE state SET value = 1 WHERE name = 'revision'")


def main(folder: Path, sources: int = 100_000, observations: int = 1_000) -> None:
    """Fill the file if need be, time, and print."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lightcurves-{sources}-{observations}.sqlite3"
    sources = fill(path, sources, observations)
    print(f"{sources} sources, {sources * observations} fluxes, {path.stat().st_size / 1e9:.2f} GB")
    rng = np.random.default_rng(2)
    began = time.perf_counter()
    with LightCurves(path) as curves:
        curves.settle()
    print(f"bringing all to one scale, and sums of all light curves: {time.perf_counter() - began:.1f} s")
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
