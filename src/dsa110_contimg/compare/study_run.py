"""One simulated observation of a study, from simulation to scores: run as a process of its own.

    python -m dsa110_contimg.compare.study_run FOLDER

FOLDER holds ``spec.json``; ``run.json`` is written last.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.run import compare_strategies, folder_lock
from dsa110_contimg.compare.score import gain_errors, image_scores, input_errors, true_gain_tables
from dsa110_contimg.config import ComparisonConfig, SelfCalConfig, SimulationConfig
from dsa110_contimg.errors import ContimgError
from dsa110_contimg.files import write_json
from dsa110_contimg.imaging import read_image
from dsa110_contimg.selfcal.naming import REPORT
from dsa110_contimg.simulate import Truth, simulate
from dsa110_contimg.sky.apparent_sky import mean_apparent_flux

__all__ = ["RUN", "SPEC", "run_point"]

SPEC = "spec.json"
RUN = "run.json"
#: What is kept of a run; images and visibilities can be made again from the specification.
KEPT = ("comparison_report.txt", "comparison_results.json", "comparison.png", REPORT)


def run_point(folder: Path) -> dict[str, Any]:
    """Simulate, compare and score; return what ``run.json`` holds.

    Parameters
    ----------
    folder : Path
        Folder with ``spec.json``: ``key``, ``simulation``, ``selfcal`` and ``comparison`` options.
    """
    spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    with folder_lock(folder, wait=True):
        try:
            done: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
            if done["key"] == spec["key"] and done["status"] == "completed":
                return done
        except (OSError, ValueError, KeyError):
            pass
        started, work = time.perf_counter(), folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        run: dict[str, Any] = {"key": spec["key"], "status": "completed", "reason": "", "arms": {}}
        try:
            run |= _work(work, spec)
            for name in KEPT:
                if (work / "compare" / name).exists():  # there is no picture where no arm was completed
                    (work / "compare" / name).replace(folder / name)
        except ContimgError as error:
            run |= {"status": "failed", "reason": str(error)}
        finally:
            shutil.rmtree(work, ignore_errors=True)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        run["seconds"] = round(time.perf_counter() - started, 1)
        run["cpu_seconds"] = round(sum(u.ru_utime + u.ru_stime for u in used), 1)
        write_json(folder / RUN, run)
    return run


def _work(work: Path, spec: dict[str, Any]) -> dict[str, Any]:
    work.mkdir(parents=True)
    ms = work / "t.ms"
    truth = simulate(ms, SimulationConfig(**spec["simulation"]))
    build_strips("nvss", work / "t.catalog.ecsv", work / "catalogs")
    config = SelfCalConfig(**spec["selfcal"], catalog_dir=work / "catalogs")
    numba.set_num_threads(max(1, min(config.threads or numba.get_num_threads(), numba.get_num_threads())))
    compared = compare_strategies(
        ms,
        work / "compare",
        config,
        ComparisonConfig(**spec["comparison"]),
        warm=True,
        references={"true gains": true_gain_tables(truth)},
    ).results
    start = input_errors(ms, truth)
    band = np.linspace(float(truth.freq_hz.min()), float(truth.freq_hz.max()), 9)
    apparent = mean_apparent_flux(truth.sky, truth.beam, truth.pointing, band)
    arms = {}
    for entry in compared["arms"]:
        folder = work / "compare" / (entry["identical_to"] or entry["name"])
        arms[entry["name"]] = {k: v for k, v in entry.items() if k != "name"}
        if entry["figures"] is not None:
            arms[entry["name"]]["truth"] = _truth_scores(folder, ms, truth, start)
    return {
        "start": start,
        "before": compared["before"],
        "true_gains": compared["references"].get("true gains"),
        "beam_arcsec": compared["beam_arcsec"],
        "brightest_apparent_jy": float(apparent.max()),
        "total_apparent_jy": float(apparent.sum()),
        "arms": arms,
    }


def _truth_scores(folder: Path, ms: Path, truth: Truth, start: dict[str, Any]) -> dict[str, Any]:
    """Errors of the gains that an arm kept, and of its image under equal conditions."""
    summary = json.loads((folder / "selfcal_summary.json").read_text(encoding="utf-8"))
    tables = [folder / name for name in summary["gaintables"]]
    scores = image_scores(read_image(folder / "common-image.fits"), truth)
    return {**(gain_errors(ms, tables, truth) if tables else start), **scores}


if __name__ == "__main__":
    run_point(Path(sys.argv[1]))
