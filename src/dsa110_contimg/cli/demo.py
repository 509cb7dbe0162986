"""The demonstration: a simulated transit from random phases to the noise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.score import score_run
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.progress import Progress
from dsa110_contimg.report import try_report
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import simulate

__all__ = ["run_demo"]

MARKER = ".contimg-demo"
#: Pixels: the main lobe of the primary beam, so that the demonstration takes two minutes at the most.
DEMO_SIZE = 2048


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
        ``summary`` of the run, and ``score`` against the truth.

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
    progress.note(
        "simulating a transit of 96 antennas: random phases, 10 % amplitude errors, noise; a new source of "
        "50 mJy, and one at twice its catalogue flux"
    )
    ms = outdir / "demo.ms"
    config = SimulationConfig(random_phases=True, new_jy=0.05, variable_ratio=2.0)
    simulate(ms, config, progress=progress)
    build_strips("nvss", outdir / "demo.catalog.ecsv", outdir / "catalogs")
    result = selfcal_ms(
        ms,
        outdir / "selfcal",
        SelfCalConfig(catalog_dir=outdir / "catalogs", size=DEMO_SIZE),
        progress=progress,
    )
    try_report(outdir / "selfcal")
    scores = score_run(outdir / "selfcal", outdir / "demo.truth.npz", progress, image=False)
    return {"summary": result.summary, "score": scores}
