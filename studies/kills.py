"""Killed at a random moment, run again: are the products those of an undisturbed run?

    python -m studies.kills FOLDER [KILLS] [PROCESSES]

A small transit from random phases. Each time `contimg selfcal` gets SIGKILL somewhere between its start and
its end, then the same command runs to its end. One thread, so that sums are made in one order: products are
compared bit by bit, headers apart, and DATA by its hash after the kill and at the end.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from astropy.io import fits

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities.measurement_set import data_hash
from dsa110_contimg.visibilities.tables import open_table

ARRAY = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "core.txt"
COLUMNS = ("MODEL_DATA", "CORRECTED_DATA", "FLAG")


def command(ms: Path, out: Path) -> list[str]:
    """Self-calibrate, flagging what has no solution: everything that can be written is."""
    options = ["--size", "512", "--cell", "24", "--threads", "1", "--unsolved", "flag"]
    program = [sys.executable, "-m", "dsa110_contimg", "selfcal", str(ms), str(out)]
    return [*program, "--catalog-dir", str(ms.parents[1] / "catalogs"), *options]


def products(ms: Path, out: Path) -> dict[str, np.ndarray]:
    """Everything that a run leaves, by name."""
    found = {path.name: fits.getdata(path) for path in sorted(out.glob("*.fits"))}
    for path in sorted(out.glob("*.?cal")):
        for spw, gains in read_gain_table(path).gains.items():
            found[f"{path.name} {spw}"] = np.where(gains.flag, 0, gains.gain)
    with open_table(ms) as main:
        found |= {name: main.getcol(name) for name in COLUMNS}
        found["columns"] = np.array(sorted(main.colnames()))
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    kills, processes = (int(x) for x in (*sys.argv[2:4], "50", "2")[:2])
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "o.ms"
    if not source.exists():
        options = {"array": str(ARRAY), "channels": 8, "dumps": 6, "sefd_jy": 2000.0, "drift": False}
        simulate(source, SimulationConfig(random_phases=True, bad=1, **options))
        build_strips("nvss", folder / "o.catalog.ecsv", folder / "catalogs")
    digest = data_hash(source)

    def fresh(name: str) -> tuple[Path, Path]:
        here = folder / name
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        return Path(shutil.copytree(source, here / "o.ms")), here / "out"

    ms, out = fresh("undisturbed")
    subprocess.run(command(ms, out), check=True, capture_output=True)
    started = time.perf_counter()
    subprocess.run(command(*fresh("timed")), check=True, capture_output=True)
    length = time.perf_counter() - started
    wanted = products(ms, out)
    moments = np.random.default_rng(50).uniform(0.0, length, kills)

    def once(number: int) -> tuple[bool, list[str]]:
        here, left = fresh(f"k{number}")
        process = subprocess.Popen(command(here, left), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments[number])
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        problems = [] if data_hash(here) == digest else ["DATA after the kill"]
        subprocess.run(command(here, left), check=True, capture_output=True)
        if data_hash(here) != digest:
            problems.append("DATA at the end")
        found = products(here, left)
        if found.keys() != wanted.keys():
            problems.append(f"other products: {sorted(found.keys() ^ wanted.keys())}")
        else:
            problems += [n for n in wanted if found[n].tobytes() != wanted[n].tobytes()]
        struck = process.returncode == -signal.SIGKILL
        if not problems:
            shutil.rmtree(here.parent)
        return struck, problems

    with ThreadPoolExecutor(processes) as pool:
        results = list(pool.map(once, range(kills)))
    for number, (_, problems) in enumerate(results):
        if problems:
            print(f"kill {number} after {moments[number]:.2f} s: {', '.join(problems)}")
    struck = sum(hit for hit, _ in results)
    same = sum(not problems for _, problems in results)
    intact = sum(not any(p.startswith("DATA") for p in problems) for _, problems in results)
    print(
        f"{struck} of {kills} runs of {length:.1f} s killed at random; {same} of {kills} then gave all "
        f"{len(wanted)} products of the undisturbed run bit by bit; DATA unchanged in {intact}"
    )


if __name__ == "__main__":
    main()
