"""The whole of NVSS in every form: time and memory to build, exactness and speed of cones, kills.

    python -m benchmarks.catalog_full FOLDER [--forms vizier.fits ...] [--kills 20] [--rows 1773484]

from the root of the repository, with the real bright sources in ../shared/data among drawn ones. FOLDER takes
1.5 GB of catalogue files, made once, and the strips. Each build runs in a process of its own, in which
nothing else has been loaded; its memory is the largest that was resident (VmHWM). Times are given by the
clock and as time of the processor, which is what counts on a busy machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from dsa110_contimg.catalogs import build_strips, catalog_info, query_nvss_sources
from tests.catalogs.files import BUILDS, NVSS_FORMS, Sources, draw, real_bright, write_csv

ROWS, CONES, RADIUS = 1_773_484, 1000, 2.5
BRIGHT = Path("../shared/data/catalogues/nvss_50mjy.csv.gz")
BUILD = """
import sys
from pathlib import Path
from dsa110_contimg.catalogs import build_strips
build_strips("nvss", *sys.argv[1:])
print(next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")))
"""


def build(source: Path, strips: Path) -> tuple[float, float, float]:
    """Build in a process of its own; return seconds, seconds of processor, maximum resident megabytes."""
    shutil.rmtree(strips, ignore_errors=True)
    started = time.perf_counter()
    command = [sys.executable, "-c", BUILD, str(source), str(strips)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{source}: the build failed")
    cpu = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - started, cpu, int(told.split()[1]) / 1e3


def cones(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Draw cones all over the survey, many about the pole, 0h and the edges of strips."""
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-34)), 1, CONES)))
    ra = rng.uniform(0, 360, CONES)
    dec[:100] = 90 - rng.exponential(2.0, 100).clip(0, 20)
    dec[100:110] = 90.0
    ra[200:300] = rng.normal(0, 2, 100) % 360
    dec[300:350] = rng.choice([-23.0, -11.0, 1.0, 49.0, 61.0, 85.0], 50)
    radius = 10 ** rng.uniform(-1, np.log10(5), CONES)
    return list(zip(ra.tolist(), dec.tolist(), radius.tolist(), strict=True))


def vectors(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def compare(s: Sources, strips: Path, form: str) -> int:
    """Compare cones with brute force over what was written to the file; return the number of sources."""
    xyz, total = vectors(s.ra_deg, s.dec_deg), 0
    for ra, dec, radius in cones(np.random.default_rng(5)):
        table = query_nvss_sources(ra, dec, radius, catalog_dir=strips)
        cosine = xyz @ vectors(np.array(ra), np.array(dec))
        # At the very rim, within 0.4 mas of rounding, either answer is right.
        sure = np.flatnonzero(cosine >= np.cos(np.radians(radius - 1e-7)))
        possible = np.flatnonzero(cosine >= np.cos(np.radians(radius + 1e-7)))
        rows = np.asarray(table["source_id"]) - 1
        if len(np.unique(rows)) != len(rows) or not (set(sure) <= set(rows) <= set(possible)):
            raise SystemExit(f"{form}: RA {ra} Dec {dec} radius {radius}: other rows than brute force")
        places = ((table["ra_deg"], s.ra_deg), (table["dec_deg"], s.dec_deg))
        if not all(np.allclose(found, wrote[rows], rtol=0, atol=5.1e-8) for found, wrote in places):
            raise SystemExit(f"{form}: RA {ra} Dec {dec}: other positions")
        pairs = {
            "flux_mjy": s.flux,
            "flux_err_mjy": s.error,
            "major_arcsec": np.where(s.major_limit, 0, s.major),
            "minor_arcsec": np.where(s.minor_limit, 0, s.minor),
            "major_limit_arcsec": np.where(s.major_limit, s.major, np.nan),
            "minor_limit_arcsec": np.where(s.minor_limit, s.minor, np.nan),
        }
        # The raw fits of NRAO become fluxes and sizes on the way in.
        if form != "CATALOG.FIT" and not all(
            np.allclose(table[name], wrote[rows], rtol=1e-6, equal_nan=True) for name, wrote in pairs.items()
        ):
            raise SystemExit(f"{form}: RA {ra} Dec {dec}: other values")
        total += len(rows)
    return total


def time_cones(s: Sources, strips: Path) -> None:
    rng = np.random.default_rng(8)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-37)), 1, CONES)))
    places = list(zip(rng.uniform(0, 360, CONES), dec, strict=True))
    seconds, found = [], 0
    for place in places:
        clock, cpu = time.perf_counter(), time.process_time()
        found += len(query_nvss_sources(*place, RADIUS, catalog_dir=strips))
        seconds.append((time.perf_counter() - clock, time.process_time() - cpu))
    print(f"cone of {RADIUS} deg, {CONES} places, strips opened on the way, {found / CONES:.0f} sources:")
    for what, column in zip(("by the clock", "of processor"), np.array(seconds).T, strict=True):
        median, late, worst = (1e3 * float(x) for x in np.percentile(column, [50, 99, 100]))
        print(f"  {what}: median {median:.2f} ms, 99 % {late:.2f} ms, worst {worst:.1f} ms")
    table = Table({"flux_mjy": s.flux})
    sky = SkyCoord(s.ra_deg * u.deg, s.dec_deg * u.deg)
    brute = []
    for ra, dec_deg in places[:10]:
        started = time.process_time()
        rows = table[sky.separation(SkyCoord(ra * u.deg, dec_deg * u.deg)) <= RADIUS * u.deg]
        rows.sort("flux_mjy", reverse=True)
        brute.append(1e3 * (time.process_time() - started))
        if len(rows) != len(query_nvss_sources(ra, dec_deg, RADIUS, catalog_dir=strips)):
            raise SystemExit("astropy finds another number of sources")
    least = 1e3 * float(np.median([cpu for _, cpu in seconds]))
    slow = float(np.median(brute))
    print(f"  astropy over the whole table: {slow:.0f} ms of processor, {slow / least:.0f} times as long")


def contents(path: Path) -> tuple[int, float]:
    """Number of rows of a strip and the flux of all: those of one source or of the other."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        (intact,) = database.execute("PRAGMA integrity_check").fetchone()
        n, flux = database.execute("SELECT count(*), total(flux_mjy) FROM sources").fetchone()
        blocks = b"".join(block for (block,) in database.execute("SELECT rows FROM cells"))
    cells = np.frombuffer(blocks, "<f8").reshape(-1, 10)
    if intact != "ok" or len(cells) != n or not np.isclose(cells[:, 3].sum(), flux, rtol=1e-9):
        raise SystemExit(f"{path} is not whole")
    return n, round(flux, 3)


def watch(strips: Path, allowed: dict[str, set[tuple[int, float]]], pipe: Connection) -> None:
    """Read strips as fast as possible, whatever is being done to them; send how often."""
    reads = 0
    while not pipe.poll():
        for path in strips.glob("nvss_dec*.sqlite3"):
            if contents(path) not in allowed[path.name]:
                pipe.send(f"{path} is neither of the old rows nor of the new ones")
                return
            reads += 1
    pipe.send(reads)


def kill(folder: Path, kills: int, rows: int) -> None:
    random.seed(20)
    strips, allowed = folder / "killed", {}
    sources = []
    for k in range(2):
        source = folder / f"kill{k}.csv"
        write_csv(source, draw(rows, seed=30 + k))
        started = time.perf_counter()
        build_strips("nvss", source, strips)
        seconds = time.perf_counter() - started
        for path in strips.glob("nvss_dec*.sqlite3"):
            allowed.setdefault(path.name, set()).add(contents(path))
        sources.append(source)
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    watcher = multiprocessing.get_context("spawn").Process(target=watch, args=(strips, allowed, theirs))
    watcher.start()
    halves = struck = 0
    command = [sys.executable, "-c", BUILDS]
    builder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert builder.stdin is not None
    assert builder.stdout is not None
    for k in range(kills):
        source = sources[k % 2]
        builder.stdin.write(f"{source}|{strips}\n")
        builder.stdin.flush()
        pid = int(builder.stdout.readline())
        time.sleep(random.uniform(0, seconds))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        struck += os.waitstatus_to_exitcode(int(builder.stdout.readline())) == -signal.SIGKILL
        states = {contents(path) in allowed[path.name] for path in strips.glob("nvss_dec*.sqlite3")}
        halves += len({info.source_sha256 for info in catalog_info(strips)}) > 1
        report = build_strips("nvss", source, strips)
        good = len({info.source_sha256 for info in catalog_info(strips)}) == 1
        left = list(strips.glob(".*.tmp"))
        if states != {True} or not good or report.n_sources != rows or left:
            raise SystemExit(f"kill {k + 1}: the store is not good")
    builder.communicate()
    ours.send("stop")
    reads = ours.recv()
    watcher.join()
    if not isinstance(reads, int):
        raise SystemExit(reads)
    print(
        f"{struck} of {kills} builds of {rows} rows killed at random moments of {seconds:.1f} s,\n"
        f"all finished by the next build; {halves} left some strips new and some old;\n"
        f"another process read {reads} strips, all whole"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--forms", nargs="*", default=list(NVSS_FORMS))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kill-rows", type=int, default=300_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    s = draw(options.rows, real=real_bright(BRIGHT))
    strips = options.folder / "strips"
    if options.forms:
        print(f"{options.rows} rows{'':<12}{'file MB':>9}{'build s':>9}{'CPU s':>7}{'MB':>6}{'strips':>8}")
    for form in options.forms:
        source = options.folder / form
        if not source.exists():
            NVSS_FORMS[form](source, s)
        seconds, cpu, memory = build(source, strips)
        read, made = (sum(p.stat().st_size for p in x) / 1e6 for x in ([source], strips.iterdir()))
        found = compare(s, strips, form)
        print(
            f"{form:<25}{read:>9.0f}{seconds:>9.1f}{cpu:>7.1f}{memory:>6.0f}{made:>8.0f}"
            f"  {CONES} as brute force ({found} sources)",
            flush=True,
        )
    if options.forms:
        time_cones(s, strips)
    if options.kills:
        kill(options.folder, options.kills, options.kill_rows)


if __name__ == "__main__":
    main()
