"""What choosing the intervals by held-out channels costs against knowing the best ones.

    python -m studies.intervals FOLDER [PROCESSES]

Small transits with phases that drift at five rates and two noises. Each is calibrated with the chosen phase
interval, and with each interval of a ladder. What counts is the noise of the final image over that of the
image with the true gains, which only a simulation knows.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.score import score_run
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import simulate

#: Drift of each antenna's phase over the observation, degrees rms, and system noise.
DRIFTS = (0.0, 10.0, 30.0, 90.0, 200.0)
NOISE = (2000.0, 12000.0)
#: Dumps of 12.9 s in an interval.
LADDER = (1, 2, 4, 8, 12, 24)
DUMP_S = 12.884902


def core(path: Path) -> Path:
    """Every second antenna within 450 m of the middle, as a file."""
    if not path.exists():
        lines = (files("dsa110_contimg") / "simulate" / "arrays" / "dsa110.txt").read_text().splitlines()
        header = [line for line in lines if line.startswith("#")]
        stations = [line for line in lines if line.strip() and not line.startswith("#")]
        east_north = np.array([[float(x) for x in line.split()[1:3]] for line in stations])
        near = np.hypot(*(east_north - np.median(east_north, axis=0)).T) < 450.0
        kept = [line for line, k in zip(stations, near, strict=True) if k][::2]
        path.write_text("\n".join([*header, *kept]) + "\n")
    return path


def run(folder: Path, drift: float, sefd: float) -> dict[str, float]:
    """Rms of the final image over that with the true gains, for each interval and the chosen one."""
    here = folder / f"{drift:g}-{sefd:g}"
    if (here / "result.json").exists():
        return dict(json.loads((here / "result.json").read_text()))
    here.mkdir(parents=True, exist_ok=True)
    options = {"brightest_jy": 0.5, "sefd_jy": sefd, "phase_drift": drift, "phase_rms": 60.0}
    simulate(
        here / "o.ms",
        SimulationConfig(array=str(folder / "core.txt"), channels=8, dumps=24, amplitude_rms=0.1, **options),
    )
    build_strips("nvss", here / "o.catalog.ecsv", here / "c")
    found = {}
    for word in ("auto", *(str(n * DUMP_S) for n in LADDER)):
        config = SelfCalConfig(catalog_dir=here / "c", size=512, cell_arcsec=20.0, threads=1, solint=word)
        summary = selfcal_ms(here / "o.ms", here / "out", config).summary
        found[word] = score_run(here / "out", here / "o.truth.npz")["rms_ratio"]
        if word == "auto":
            found["phase_s"] = summary["iterations"][0]["solint_s"] if summary["iterations"] else 0.0
    (here / "result.json").write_text(json.dumps(found))
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    core(folder / "core.txt")
    cases = [(drift, sefd) for sefd in NOISE for drift in DRIFTS]
    with ProcessPoolExecutor(int(sys.argv[2]) if len(sys.argv) > 2 else 2) as pool:
        runs = [f.result() for f in [pool.submit(run, folder, *case) for case in cases]]
    title = "".join(f"{n:>8}" for n in LADDER)
    print(f"{'drift deg':>9}{'SEFD Jy':>9}{'chosen s':>10}{'rms':>8} |{title}  (dumps)")
    losses = []
    for (drift, sefd), r in zip(cases, runs, strict=True):
        ladder = [r[str(n * DUMP_S)] for n in LADDER]
        losses.append(r["auto"] / min(ladder) - 1)
        values = "".join(f"{x:>8.3f}" for x in ladder)
        print(f"{drift:>9g}{sefd:>9g}{r['phase_s']:>10.1f}{r['auto']:>8.3f} |{values}")
    print(
        f"loss in rms against the best of the ladder: median {100 * np.median(losses):.1f} %, "
        f"worst {100 * max(losses):.1f} %"
    )


if __name__ == "__main__":
    main()
