"""The account of a self-calibration: its rounds, and what ``selfcal_summary.json`` says of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg import __version__
from dsa110_contimg.calibration.cross_validation import Solution
from dsa110_contimg.calibration.gains import GainTable, phase_scatter_deg, typical_amplitude
from dsa110_contimg.imaging import ImageGrid, ImageMetrics
from dsa110_contimg.selfcal.acceptance import Verdict
from dsa110_contimg.selfcal.antenna_report import ANTENNAS, antenna_verdicts
from dsa110_contimg.selfcal.imaging import CalibratedImage, measure, metrics_dict, region_for
from dsa110_contimg.selfcal.params import IMAGES, Plan
from dsa110_contimg.selfcal.products import PICTURE
from dsa110_contimg.selfcal.source_report import QUALITY
from dsa110_contimg.selfcal.stage_log import STAGES

__all__ = ["MASK", "Round", "State", "summary_of"]

SCHEMA_VERSION = 1
#: Product of masked self-calibration.
MASK = "selfcal-mask"


@dataclass
class Round:
    """One solution and its fate."""

    solution: Solution
    model: str
    tables: tuple[GainTable, ...]
    verdict: Verdict
    seconds: float
    predicted_snr: float = 0.0
    image: CalibratedImage | None = None


@dataclass
class State:
    """The best calibration so far."""

    tables: tuple[GainTable, ...]
    image: CalibratedImage
    rounds: list[Round] = field(default_factory=list)


def summary_of(
    plan: Plan,
    state: State,
    initial: CalibratedImage,
    final: CalibratedImage,
    *,
    grid: ImageGrid,
    noise: float,
    status: str,
    message: str,
    tables: list[str],
    anchor: dict[str, Any] | None,
    quality: Table | None,
    antennas: Table | None,
    data_hash: str,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Return what ``selfcal_summary.json`` holds.

    Parameters
    ----------
    plan : Plan
        What was asked for.
    state : State
        The best calibration, and all rounds.
    initial, final : CalibratedImage
        Images before and after.
    grid : ImageGrid
        Their grid.
    noise : float
        Noise of the real part of a visibility at unit weight, jansky.
    status, message : str
        How it ended.
    tables : list of str
        Names of the gain tables, in the order of the state's.
    anchor : dict or None
        What flux scale and position were off by at first.
    quality : astropy.table.Table or None
        The seeds held against the data.
    antennas : astropy.table.Table or None
        What became of the antennas.
    data_hash : str
        Of DATA as it was read.
    seconds : dict of str to float
        Time by stage.
    """
    seed, out = plan.seed, plan.output_dir
    region = region_for(final, grid, seed, noise)

    def measured(image: CalibratedImage) -> ImageMetrics:
        return measure(image, grid, region, seed, noise)

    first, last = measured(initial), measured(final)
    best = next((r for r in reversed(state.rounds) if r.tables == state.tables and state.tables), None)
    standard = last if final.difference is None else measured(best.image) if best and best.image else None
    iterations = []
    for number, r in enumerate(state.rounds, 1):
        of_round = measure(r.image, grid, region, seed, noise, shallow=True) if r.image else None
        kept = r.solution.table in state.tables
        name = tables[state.tables.index(r.solution.table)] if kept else None
        iterations.append(
            {
                "iteration": number,
                "calmode": r.solution.mode,
                "solint_s": r.solution.solint_s,
                "interpolation": r.solution.table.interpolation,
                "gain_type": r.solution.table.kind[0],
                "combined_spw": r.solution.grouping.combined,
                "model": r.model,
                "solved_fraction": r.solution.solved_fraction,
                "median_snr": r.solution.median_snr,
                "predicted_snr": r.predicted_snr,
                "curve": [asdict(trial) for trial in r.solution.trials],
                "phase_change_deg": phase_scatter_deg(r.solution.table),
                "chi2_train": r.solution.score.chi2_train,
                "chi2_heldout": r.solution.score.chi2_heldout,
                "snr": of_round.snr if of_round else None,
                "rms_jy": of_round.rms_jy if of_round else None,
                "accepted": r.verdict.accepted,
                "reason": r.verdict.reason,
                "gaintable": name,
                "seconds": round(r.seconds, 3),
            }
        )
    present = [p.name for p in (out / f"{n}.fits" for n in IMAGES) if p.exists()]
    products = {Path(n).stem.replace("-", "_"): n for n in present}
    if seed is not None:
        products |= {"seed_list": "selfcal-seed.txt", "seed_regions": "selfcal-seed.reg"}
    if (out / f"{MASK}.fits").exists() and plan.config.catalog_mask:
        products["mask"] = f"{MASK}.fits"
    if (out / PICTURE).exists():
        products["picture"] = PICTURE
    products["stages"] = STAGES
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "message": message,
        "seeded": seed is not None,
        "catalog": seed.catalog if seed else None,
        "nvss_min_mjy": plan.config.nvss_min_mjy if seed else None,
        "n_seeds": len(seed) if seed else 0,
        "seed_flux_jy": float(seed.apparent_jy.sum()) if seed else 0.0,
        "anchor": anchor,
        "flux_units_changed": bool(abs(np.log(typical_amplitude(state.tables))) > np.log(2.0)),
        "initial": metrics_dict(first),
        "final": metrics_dict(last),
        "final_standard": metrics_dict(standard) if standard else metrics_dict(last),
        "snr_improvement": last.snr / first.snr if first.snr > 0 else None,
        "best_iteration": state.rounds.index(best) + 1 if best else 0,
        "iterations": iterations,
        "gaintables": tables,
        "products": products,
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
        "provenance": {
            "version": __version__,
            "config": json.loads(plan.config.model_dump_json()),
            "ms": str(plan.ms.path.absolute()),
            "field": plan.reader.field_name,
            "initial_caltables": [str(Path(t.label).absolute()) for t in plan.initial],
            "data_hash": data_hash,
            "catalog_hash": seed.catalog_hash if seed else None,
        },
    }
    if quality is not None:
        names, counts = np.unique(quality["verdict"], return_counts=True)
        summary["seed_verdicts"] = {str(n): int(c) for n, c in zip(names, counts, strict=True)}
        summary["products"]["seed_quality"] = QUALITY
    if antennas is not None:
        summary["antenna_verdicts"] = antenna_verdicts(antennas)
        summary["products"]["antennas"] = ANTENNAS
    return summary
