"""The demonstration: a simulated transit from random phases to the noise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.gains import chain
from dsa110_contimg.calibration.selfcal import selfcal_ms
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.progress import Progress
from dsa110_contimg.simulate import Truth, simulate
from dsa110_contimg.visibilities import open_measurement_set

__all__ = ["gain_errors", "run_demo"]

MARKER = ".contimg-demo"


def run_demo(outdir: Path, progress: Progress) -> dict[str, Any]:
    """Simulate a transit with uniformly random phases and self-calibrate it.

    Parameters
    ----------
    outdir : Path
        Folder; what an earlier demonstration left in it is replaced.
    progress : Progress
        Where progress is reported.

    Returns
    -------
    dict
        ``summary`` of the run, and against the truth ``coherence``,
        ``phase_error_deg`` and ``amplitude_scatter``.

    Raises
    ------
    ResourceError
        If the folder holds something else.
    """
    if outdir.exists() and any(outdir.iterdir()) and not (outdir / MARKER).exists():
        raise ResourceError(
            "is not empty and not of an earlier demonstration", outdir, "choose another folder"
        )
    if outdir.exists():
        shutil.rmtree(outdir)
    outdir.mkdir(parents=True)
    (outdir / MARKER).touch()
    progress.note("simulating a transit of 96 antennas: random phases, 10 % amplitude errors, real noise")
    ms = outdir / "demo.ms"
    truth = simulate(ms, SimulationConfig(random_phases=True))
    build_strips("nvss", outdir / "demo.catalog.ecsv", outdir / "catalogs")
    result = selfcal_ms(
        ms, outdir / "selfcal", SelfCalConfig(catalog_dir=outdir / "catalogs"), progress=progress
    )
    tables = [outdir / "selfcal" / name for name in result.summary["gaintables"]]
    return {"summary": result.summary, **gain_errors(ms, tables, truth)}


def gain_errors(ms_path: Path, tables: list[Path], truth: Truth) -> dict[str, float]:
    """Compare solved gains with the true ones.

    Parameters
    ----------
    ms_path : Path
        Simulated Measurement Set.
    tables : list of Path
        Tables whose product is compared.
    truth : Truth
        What the data were made of.

    Returns
    -------
    dict
        ``coherence``: mean of |sum over antennas of exp(i error)| / nant;
        ``phase_error_deg``: rms phase error after the mean phase of each dump
        and polarisation, which no interferometer can see, is taken out;
        ``amplitude_scatter``: rms of the amplitude ratios about their median.
    """
    ms = open_measurement_set(ms_path)
    window = ms.spectral_windows[0]
    solved, flag = chain(
        [read_gain_table(t) for t in tables], window.id, truth.times_s, window.freq_hz[:1], len(ms.antennas)
    )
    error = np.where(flag[:, :, 0], np.nan, solved[:, :, 0] / truth.gain)
    unit = error / np.abs(error)
    mean = np.nanmean(unit, axis=1, keepdims=True)
    angle = np.angle(unit * np.conj(mean))
    ratio = np.abs(error) / np.nanmedian(np.abs(error))
    return {
        "coherence": float(np.mean(np.abs(mean))),
        "phase_error_deg": float(np.degrees(np.sqrt(np.nanmean(angle**2)))),
        "amplitude_scatter": float(np.sqrt(np.nanmean((ratio - 1) ** 2))),
    }
