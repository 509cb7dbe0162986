"""Light curves of very many sources: how long one takes, and the ranking of all.

    python -m benchmarks.lightcurves FOLDER [SOURCES] [OBSERVATIONS]

Fills a file of light curves with synthetic fluxes, 100,000 sources in 1,000 observations unless said, by a
bulk path: the tables as observations that are taken in fill them, in the order of the sources. Times the
solution for all observations with the sums of all light curves, the light curve of sources drawn at random,
the search for a place, and the ranking of all, and tells the largest memory of the process.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.pipeline.correction import BY_VISIBILITIES, FOLLOWS, FOUND, TELLS
from dsa110_contimg.pipeline.lightcurve_file import ENSEMBLE, FLUXES, open_database
from dsa110_contimg.pipeline.lightcurve_intake import Taken, add
from dsa110_contimg.pipeline.lightcurves import LightCurves
from dsa110_contimg.pipeline.measured_sources import MeasuredSources
from dsa110_contimg.pipeline.source_places import ZONE_DEG

#: Sources that are made at once; of so many there is an observation more.
CHUNK, TAKEN_IN = 500, 2000
#: All are of one field, so large; that error of the beam is two degrees from its centre. One in so many
#: varies, by a fifth.
CENTRE, FIELD_DEG, BEAM_ERROR, VARIES = (180.0, 45.0), 4.0, 0.02, 20


def fill(path: Path, sources: int, observations: int) -> None:
    """Write the file, unless it is there."""
    db = open_database(path)
    db.execute("PRAGMA synchronous=OFF")
    there = int(db.execute("SELECT COUNT(*) FROM source").fetchone()[0])
    if there:
        db.close()
        return
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


def _add_sources(db: Any, blocks: Any, some: Int, sources: int, observations: int) -> None:
    """Write sources with their fluxes; what is of an observation goes into its block."""
    rng = np.random.default_rng([1, int(some[0])])
    ra, dec = (c + FIELD_DEG * rng.uniform(-0.5, 0.5, some.size) for c in CENTRE)
    base = 10 ** rng.uniform(-2, 0, some.size)
    tells = some % max(1, sources // 300) == 0
    part = np.zeros((some.size, observations), dtype=FLUXES)
    part["source"] = some[:, None] + 1
    part["stat"] = np.where(tells, 0.02, 0.05)[:, None] * base[:, None]
    factor = scales_of(observations) * (
        1 + 0.2 * (some % VARIES == 1)[:, None] * rng.standard_normal(part.shape)
    )
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
        db.execute(
            "INSERT INTO flux_block (observation_id, ensemble, fluxes) VALUES (?, ?, ?)",
            (o, ensemble.tobytes(), block.tobytes()),
        )
    db.execute("UPDATE state SET value = 1 WHERE name = 'revision'")


def take_in_one_more(db: Any) -> float:
    """Take in an observation of some of the sources, and leave it out again; return the seconds."""
    rows = db.execute("SELECT name, ra_deg, dec_deg, catalog_flux_jy FROM source LIMIT ?", (TAKEN_IN,))
    name, ra, dec, flux = (list(column) for column in zip(*map(tuple, rows), strict=True))
    n, values = len(name), np.array([ra, dec, flux])
    table = Table({"name": name})
    table.meta |= {"mjd": 61000.0, "freq_hz": 1.4e9, "centre_ra_deg": CENTRE[0], "centre_dec_deg": CENTRE[1]}
    fluxes = MeasuredSources(
        name=name, is_new=np.zeros(n, dtype=bool), ra=values[0], dec=values[1], catalog=values[2],
        flux=values[2], stat=0.05 * values[2], beam=0.01 * values[2], noise=0.01 * values[2],
        response=np.ones(n), distance=np.ones(n), reach_deg=np.full(n, 2 / 3600), method=["image"] * n,
        flags=[""] * n,
    )  # fmt: skip
    taken = Taken(folder=Path(), identity="more", run_id="2", name="more", verdict="good", finished=0.0)
    began = time.perf_counter()
    db.execute("BEGIN")
    assert add(db, taken, table, fluxes).n_sources == n
    db.execute("ROLLBACK")
    return time.perf_counter() - began


def require_truth(table: Table, scales: Float) -> None:
    """Hold what comes out against what was put in."""
    which = np.asarray(table["id"]) - 1
    eta, varies = np.asarray(table["eta"]), which % VARIES == 1
    off = scales / scales_of(scales.size)
    print(
        f"constant sources: eta {eta[~varies].mean():.4f} in the mean; intrinsic modulation of the others "
        f"{np.median(table['intrinsic'][varies]):.3f} of 0.2; scales off by {np.std(off / off.mean()):.4f}"
    )


def scales_of(observations: int) -> Float:
    """Return the flux scales that are put in."""
    return 1 + 0.05 * np.random.default_rng(0).standard_normal(observations)


def main(folder: Path, sources: int = 100_000, observations: int = 1_000) -> None:
    """Fill the file if need be, time, and print."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lightcurves-{sources}-{observations}.sqlite3"
    # In a process of its own: the memory that is told is of what is asked.
    filling = multiprocessing.get_context("spawn").Process(target=fill, args=(path, sources, observations))
    filling.start()
    filling.join()
    with LightCurves(path, create=False) as curves:
        db = curves._db
        if db.execute("SELECT COUNT(*) FROM flux_block").fetchone()[0] != observations:
            raise SystemExit(f"{path} was not filled to its end: remove it and begin again")
        db.execute("UPDATE state SET value = value + 1 WHERE name = 'revision'")
        taking = take_in_one_more(db)
    print(f"{sources} sources, {sources * observations} fluxes, {path.stat().st_size / 1e9:.2f} GB")
    rng = np.random.default_rng(2)
    # What others do on the machine counts in the clock alone.
    began, processor = time.perf_counter(), time.process_time()
    with LightCurves(path) as curves:
        curves.settle()
    settling, processor = time.perf_counter() - began, time.process_time() - processor
    print(f"taking in an observation of {TAKEN_IN} sources: {taking:.2f} s")
    print(
        f"bringing all to one scale, and sums of all light curves: {settling:.1f} s by the clock, "
        f"{processor:.1f} processor seconds"
    )
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
        scales = np.array([o["ensemble"] for o in curves.observations()])
    require_truth(table, scales)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"a light curve of {observations} fluxes: {1e3 * np.median(seconds):.1f} ms, at most "
        f"{1e3 * np.max(seconds):.1f}; a source by its place: {1e3 * np.median(finding):.2f} ms; ranking of "
        f"{order.size} sources: {ranking:.2f} s; memory at most {memory:.0f} MB"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:]))
