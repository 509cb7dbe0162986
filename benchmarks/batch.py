"""Observations per hour of the pipeline on all cores of this machine.

    python -m benchmarks.batch FOLDER [--small] [--number 8] [--workers N]

Simulates as many transits of one field as asked for, each with gains, phases and noise of its own (16 windows
of 48 channels, 96 antennas, 24 dumps; with ``--small`` 4 windows of 16 channels, 48 antennas, 12 dumps), and
takes them through ``contimg run``, one worker for each core. Simulating is not counted; the Measurement Sets
stay in FOLDER for another call. The DSA-110 records one in 309 s.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.full import FULL, SMALL, must
from benchmarks.measured import contimg, run_measured
from dsa110_contimg.files import write_json
from dsa110_contimg.pipeline.driver import DRIVER_LOG
from dsa110_contimg.pipeline.naming import DUMPS_S, RECORD

#: The field is drawn once, in an observation that is as small as can be but for its band and its length.
FIELD = {"spws": 16, "channels": 1, "antennas": 8, "seed": 7}


def prepare(folder: Path, size: dict[str, int], number: int) -> list[Path]:
    """Simulate what is not there yet; return the Measurement Sets. Strips are in ``folder / "catalogs"``."""
    done = folder / "simulated.json"
    if not done.exists() or json.loads(done.read_text("utf-8")) != size:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        field, true_sky = folder / "field.ms", folder / "true-sky"
        words = [str(w) for k, v in (FIELD | {"dumps": size["dumps"]}).items() for w in (f"--{k}", v)]
        must(run_measured(contimg("simulate", field, *words), "simulate"))
        listed = folder / "field.catalog.ecsv"
        must(run_measured(contimg("catalog", "build", "nvss", listed, "--catalog-dir", true_sky), "build"))
        write_json(done, size)
    observations = []
    for k in range(number):
        ms = folder / f"o{k:03d}.ms"
        observations.append(ms)
        if ms.with_suffix(".truth.npz").exists() and ms.exists():
            continue
        words = [str(w) for name, v in (size | {"seed": k + 1}).items() for w in (f"--{name}", v)]
        words += ["--random-phases", "--real-sky", "--catalog-dir", str(folder / "true-sky")]
        must(run_measured(contimg("simulate", ms, *words), "simulate"))
    # The first one's list of that sky, with errors, is everybody's catalogue.
    strips = folder / "catalogs"
    if not strips.exists():
        listed = folder / "o000.catalog.ecsv"
        must(run_measured(contimg("catalog", "build", "nvss", listed, "--catalog-dir", strips), "build"))
    return observations


FIGURES = (("thermal_ratio", 9), ("flux_ratio", 8), ("offset_arcsec", 8))
HEADER = "observation  outcome         verdict   seconds  thermal    flux  offset  remark"


def line(name: str, record: dict[str, Any]) -> str:
    """One line of the table: what came of an observation."""
    figures, arms = record.get("figures") or {}, record.get("arms") or {}
    outcome = arms.get(record.get("published"), {}).get("selfcal_status", record["status"])
    seconds = (record.get("seconds") or {}).get("total", float("nan"))
    told = "".join(
        f"{'-' if figures.get(key) is None else format(figures[key], '.2f'):>{width}}"
        for key, width in FIGURES
    )
    remark = record.get("fallback") or "; ".join(record.get("reasons") or [])
    if record["status"] != "done":
        remark = record.get("message", "")
    return f"{name:<13}{outcome:<16}{record.get('quality', '-'):<9}{seconds:>8.0f}{told}  {remark}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="observations for every day")
    parser.add_argument("--number", type=int, default=8)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    size = {k: v for k, v in (SMALL if given.small else FULL).items() if k != "seed"}
    folder: Path = given.folder.absolute()
    print(
        f"simulating {given.number} observations: {', '.join(f'{k} {v}' for k, v in size.items())}",
        flush=True,
    )
    made = prepare(folder / "observations", size, given.number)
    out, state = folder / "out", folder / "state.sqlite3"
    shutil.rmtree(out, ignore_errors=True)
    for old in folder.glob("state.sqlite3*"):
        old.unlink()
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    copies = [Path(shutil.copytree(ms, work / ms.name)) for ms in made]
    command = contimg("run", *copies, out, "--workers", given.workers, "--state-file", state)
    command += ["--catalog-dir", str(folder / "observations" / "catalogs")]
    took = run_measured(command, "contimg run", cwd=folder)
    rows: list[dict[str, Any]] = []
    print(HEADER)
    for ms in copies:
        file = out / ms.stem / RECORD
        record = json.loads(file.read_text("utf-8")) if file.exists() else {"status": "no record"}
        rows.append({"observation": ms.stem, "record": record})
        print(line(ms.stem, record))
    good = sum(row["record"]["status"] == "done" for row in rows)
    hourly, needed = 3600 * good / took.seconds, 3600 / DUMPS_S
    print(
        f"{good} of {len(rows)} done in {took.seconds:.0f} s by the clock, "
        f"{took.processor_s:.0f} of processors; "
        f"{given.workers} workers, the largest process {took.peak_mb / 1e3:.2f} GB\n"
        f"{hourly:.1f} observations an hour; "
        f"the telescope makes {needed:.1f}: {hourly / needed:.2f} times that"
    )
    said = out / DRIVER_LOG
    lost = said.read_text("utf-8").count('"event": "worker_lost"') if said.exists() else 0
    if lost or took.paused_s > 1:
        print(
            f"workers lost, and their work done again: {lost}; stopped by somebody else for "
            f"{took.paused_s:.0f} s, which do not count"
        )
    if took.exit_status:
        print(f"contimg run ended with status {took.exit_status}: {took.output.strip().splitlines()[-1:]}")
    write_json(
        folder / "batch.json",
        {"size": size, "took": asdict(took), "observations": rows, "per_hour": hourly, "needed": needed},
    )
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
