"""What pointing errors of the antennas cost, with and without solving for them.

    python -m studies.pointing FOLDER [ANTENNAS] [DUMPS] [ERROR ...]

Transits of random phases, errors in the catalogue, and pointing errors of 0, 0.1, 0.2 and 0.3 degrees rms in
each direction; 96 antennas and 24 dumps; all of that unless said otherwise. One window of 16 channels. Prints
the rms of the final image over thermal noise, with and without the offsets; how far these are from the truth,
antenna by antenna and in the mean; and the scatter of the image's fluxes over the catalogue's for sources
between half power and a fifth. The Measurement Sets are removed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.selfcal.run import SelfCalResult, selfcal_ms
from dsa110_contimg.simulate import Truth, simulate
from dsa110_contimg.sky import angular_separation

ERRORS_DEG = (0.0, 0.1, 0.2, 0.3)
#: Sources whose flux the noise lets be known to this fraction tell the scatter.
BRIGHT = 0.05


def main(folder: Path, antennas: int = 96, dumps: int = 24, errors: Sequence[float] = ERRORS_DEG) -> None:
    """Run all, and print a row for each."""
    folder.mkdir(parents=True, exist_ok=True)
    print(
        "| error | rms / thermal | with offsets | these off by | in the mean | outer fluxes | with offsets |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for error in errors:
        name = folder / f"{1000 * error:.0f}-mdeg"
        options = SimulationConfig(
            channels=16, antennas=antennas, dumps=dumps, seed=11, random_phases=True, pointing_rms=error
        )
        simulate(name.with_suffix(".ms"), options)
        truth = Truth.read(name.with_suffix(".truth.npz"))
        build_strips("nvss", name.with_suffix(".catalog.ecsv"), name.with_name(f"{name.name}-catalog"))
        config = SelfCalConfig(catalog_dir=name.with_name(f"{name.name}-catalog"), columns="none")
        ms, runs = name.with_suffix(".ms"), []
        for kind in ("off", "auto"):
            out = name.with_name(f"{name.name}-{kind}")
            runs.append(selfcal_ms(ms, out, config.with_options(pointing=kind)))
        shutil.rmtree(name.with_suffix(".ms"))
        ratios = [r.summary["final"]["thermal_ratio"] for r in runs]
        told = ("left alone", "") if runs[1].summary["pointing"] is None else _off(runs[1], truth)
        scatter = [_outer(r, truth) for r in runs]
        print(
            f"| {error:g} | {ratios[0]:.3f} | {ratios[1]:.3f} | {told[0]} | {told[1]} | "
            f"{scatter[0]:.3f} | {scatter[1]:.3f} |",
            flush=True,
        )


def _off(run: SelfCalResult, truth: Truth) -> tuple[str, str]:
    table = Table.read(run.output_dir / "pointing.ecsv")
    off = np.stack([table["east_deg"], table["north_deg"]], axis=1) - np.degrees(
        truth.instrument.pointing_rad
    )
    mean = off.mean(axis=0)
    return f"{np.sqrt(np.mean((off - mean) ** 2)):.4f}", f"{np.hypot(*mean):.4f}"


def _outer(run: SelfCalResult, truth: Truth) -> float:
    """Robust scatter of measured over catalogue flux of bright sources on the slope of the beam."""
    table = Table.read(run.output_dir / "sources.ecsv")
    middle = truth.pointing[len(truth.pointing) // 2]
    away = angular_separation(np.radians(table["ra_deg"]), np.radians(table["dec_deg"]), *middle)
    power = truth.beam.power(away, truth.freq_hz.mean())[:, 0]
    ratio = np.asarray(table["ratio"], dtype=float)
    bright = np.asarray(table["ratio_error"], dtype=float) < BRIGHT
    used = np.isfinite(ratio) & bright & (power < 0.5) & (power > 0.2)
    return (
        float(1.4826 * np.median(np.abs(ratio[used] - np.median(ratio[used])))) if used.sum() > 4 else np.nan
    )


if __name__ == "__main__":
    told = [float(text) for text in sys.argv[4:]] or ERRORS_DEG
    main(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:4]), errors=told)
