"""What ``selfcal_summary.json`` says of a self-calibration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg import __version__
from dsa110_contimg.array_types import Bool
from dsa110_contimg.calibration.cross_validation import Candidate
from dsa110_contimg.calibration.gains import phase_scatter_deg, typical_amplitude
from dsa110_contimg.imaging import ImageMetrics
from dsa110_contimg.selfcal.antenna_report import antenna_verdicts
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.imaging import CalibratedImage, measure, metrics_dict, region_for
from dsa110_contimg.selfcal.naming import ANTENNAS, IMAGES, MASK, PICTURE, QUALITY, STAGES
from dsa110_contimg.selfcal.params import SelfCalParams
from dsa110_contimg.selfcal.state import CalState, Round

__all__ = ["Figures", "summary_of"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """What a summary says beside the state.

    Attributes
    ----------
    final : CalibratedImage
        The image that was delivered.
    tables : list of str
        Names of the gain tables, in the order of the state's.
    reports : mapping of str to astropy.table.Table or None
        Reports by file name.
    seconds : dict of str to float
        Time by kind of work.
    """

    final: CalibratedImage
    tables: list[str]
    reports: Mapping[str, Table | None]
    seconds: dict[str, float]


def _point_of_curve(trial: Candidate) -> dict[str, Any]:
    return {
        "solint_s": trial.solint_s,
        "common": not trial.grouping.per_polarization,
        "combined": trial.grouping.combine_spw,
        "interpolation": trial.interpolation,
        "chi2_train": trial.score.chi2_train,
        "chi2_heldout": trial.score.chi2_heldout,
        "chi2_expected": trial.score.expected,
    }


def summary_of(
    params: SelfCalParams, data: CalibrationData, state: CalState, figures: Figures
) -> dict[str, Any]:
    """Return what ``selfcal_summary.json`` holds.

    Parameters
    ----------
    params : SelfCalParams
        What was asked for.
    data : CalibrationData
        The data.
    state : CalState
        The best calibration, all rounds, and how the run ended.
    figures : Figures
        What was delivered.
    """
    catalogue, config = params.catalog_model, params.config
    assert state.initial is not None
    assert state.outcome is not None
    region = region_for(figures.final, params.grid, catalogue, state.noise)

    def measured(image: CalibratedImage) -> ImageMetrics:
        return measure(image, params.grid, region, catalogue, state.noise)

    first, last = measured(state.initial), measured(figures.final)
    best = next((r for r in reversed(state.rounds) if r.tables == state.tables and state.tables), None)
    subtracted = figures.final.difference is not None
    standard = measured(best.image) if subtracted and best and best.image else last
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": state.outcome.status,
        "message": state.outcome.message,
        "seeded": catalogue is not None,
        "catalog": catalogue.catalog if catalogue else None,
        "nvss_min_mjy": config.nvss_min_mjy if catalogue else None,
        "n_seeds": len(catalogue) if catalogue else 0,
        "seed_flux_jy": float(catalogue.apparent_jy.sum()) if catalogue else 0.0,
        "anchor": _flux_scale(state),
        "flux_units_changed": bool(abs(np.log(typical_amplitude(state.tables))) > np.log(2.0)),
        "initial": metrics_dict(first),
        "final": metrics_dict(last),
        "final_standard": metrics_dict(standard),
        "snr_improvement": last.snr / first.snr if first.snr > 0 else None,
        "best_iteration": state.rounds.index(best) + 1 if best else 0,
        "iterations": [
            _iteration(number, this, state, region, params, figures.tables)
            for number, this in enumerate(state.rounds, 1)
        ],
        "gaintables": figures.tables,
        "products": _products(params),
        "seconds": {k: round(v, 3) for k, v in figures.seconds.items()},
        "provenance": {
            "version": __version__,
            "config": json.loads(config.model_dump_json()),
            "ms": str(params.ms.path.absolute()),
            "field": params.reader.field_name,
            "initial_caltables": [str(Path(t.label).absolute()) for t in params.initial],
            "data_hash": data.data_hash,
            "catalog_hash": catalogue.catalog_hash if catalogue else None,
        },
    }
    quality, antennas = figures.reports[QUALITY], figures.reports[ANTENNAS]
    if quality is not None:
        names, counts = np.unique(quality["verdict"], return_counts=True)
        summary["seed_verdicts"] = {str(n): int(c) for n, c in zip(names, counts, strict=True)}
        summary["products"]["seed_quality"] = QUALITY
    if antennas is not None:
        summary["antenna_verdicts"] = antenna_verdicts(antennas)
        summary["products"]["antennas"] = ANTENNAS
    return summary


def _flux_scale(state: CalState) -> dict[str, Any] | None:
    """Give what flux scale and position were off by at first; None if nothing was rescaled."""
    found = state.flux_scale
    return None if found is None else asdict(found) | {"offset_arcsec": list(found.offset_arcsec)}


def _iteration(
    number: int,
    this: Round,
    state: CalState,
    region: Bool,
    params: SelfCalParams,
    tables: list[str],
) -> dict[str, Any]:
    """Describe a round."""
    solution, image = this.solution, None
    if this.image is not None:
        image = measure(this.image, params.grid, region, params.catalog_model, state.noise, shallow=True)
    kept = solution.table in state.tables
    return {
        "iteration": number,
        "calmode": solution.mode,
        "solint_s": solution.solint_s,
        "interpolation": solution.table.interpolation,
        "gain_type": solution.table.kind[0],
        "combined_spw": solution.grouping.combine_spw,
        "model": this.model,
        "solved_fraction": solution.solved_fraction,
        "median_snr": solution.median_snr,
        "predicted_snr": this.predicted_snr,
        "solver_iterations": solution.iterations,
        "converged_fraction": solution.converged_fraction,
        "curve": [_point_of_curve(trial) for trial in solution.trials],
        "phase_change_deg": phase_scatter_deg(solution.table),
        "chi2_train": solution.score.chi2_train,
        "chi2_heldout": solution.score.chi2_heldout,
        "snr": image.snr if image else None,
        "rms_jy": image.rms_jy if image else None,
        "accepted": this.verdict.accepted,
        "reason": this.verdict.reason,
        "gaintable": tables[state.tables.index(solution.table)] if kept else None,
        "seconds": round(this.seconds, 3),
    }


def _products(params: SelfCalParams) -> dict[str, str]:
    """Name what lies in the output folder."""
    out = params.output_dir
    present = [p.name for p in (out / f"{n}.fits" for n in IMAGES) if p.exists()]
    products = {Path(n).stem.replace("-", "_"): n for n in present}
    if params.catalog_model is not None:
        products |= {"seed_list": "selfcal-seed.txt", "seed_regions": "selfcal-seed.reg"}
    optional = {"mask": MASK, "picture": PICTURE}
    products |= {key: name for key, name in optional.items() if (out / name).exists()}
    return products | {"stages": STAGES}
