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
from dsa110_contimg.calibration.cross_validation import Candidate, Solution
from dsa110_contimg.calibration.gains import phase_scatter_deg, typical_amplitude
from dsa110_contimg.imaging import ImageMetrics
from dsa110_contimg.selfcal.antenna_report import antenna_verdicts
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import coherent, wrong_width
from dsa110_contimg.selfcal.imaging import CalibratedImage, measure, metrics_dict, region_for
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.naming import ANTENNAS, IMAGES, MASK, MODEL, PICTURE, POINTING, SOURCES, STAGES
from dsa110_contimg.selfcal.params import SelfCalParams
from dsa110_contimg.selfcal.pointing_report import SQUINT
from dsa110_contimg.selfcal.sky_check import Estimate
from dsa110_contimg.selfcal.state import CalState, Round
from dsa110_contimg.sky import FileBeam
from dsa110_contimg.sky.beam import RoundBeam
from dsa110_contimg.visibilities import NoiseBounds, NoiseScale

__all__ = ["Figures", "summary_of"]

SCHEMA_VERSION = 2
#: An image cannot be quieter than its thermal noise: below this ratio the noise was not measured right.
LOWEST_THERMAL_RATIO = 0.97
#: A noise this many times above or below what the telescope should have is told.
LOUD = 1.5


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
    work : dict of str to int
        Passes over the data that went to the disk and bytes that they read, visibilities before and after
        averaging and how many were predicted, griddings.
    """

    final: CalibratedImage
    tables: list[str]
    reports: Mapping[str, Table | None]
    seconds: dict[str, float]
    work: dict[str, int]


def _point_of_curve(trial: Candidate, solution: Solution) -> dict[str, Any]:
    taken = (solution.solint, solution.grouping, solution.table.interpolation)
    return {
        # By its lengths it is not found again: gaps between scans are in that of the solutions alone.
        "taken": (trial.solint, trial.grouping, trial.interpolation) == taken,
        "solint_s": trial.solint_s,
        "common": not trial.grouping.per_polarization,
        "combined": trial.grouping.combine_spw,
        "interpolation": trial.interpolation,
        "chi2_train": trial.score.chi2_train,
        "chi2_heldout": trial.score.chi2_heldout,
        "chi2_expected": trial.score.expected,
    }


def _scale_verified(state: CalState) -> bool:
    """Whether sources confirm a flux scale that the catalogue has at the observed frequency."""
    extrapolated = any(f.kind == "extrapolated" for f in state.findings)
    return state.sky_check is not None and state.sky_check.confirmed and not extrapolated


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
    noise = _noise(state, figures.final.thermal_per_noise, last)
    gained = f"signal to noise {first.snr:.1f} -> {last.snr:.1f}" if state.tables else None
    said = (state.outcome.message, gained, state.outcome.remarks, noise["note"])
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": state.outcome.status,
        "message": "; ".join(filter(None, said)),
        "seeded": catalogue is not None,
        "catalog": catalogue.catalog if catalogue else None,
        "model": asdict(catalogue.own_model) if catalogue and catalogue.own_model else None,
        "nvss_min_mjy": config.nvss_min_mjy if catalogue else None,
        "n_seeds": len(catalogue) if catalogue else 0,
        "seed_spectra": catalogue.spectra.for_summary() if catalogue and catalogue.spectra else None,
        "seed_notes": list(catalogue.notes) if catalogue else [],
        "seed_flux_jy": float(catalogue.apparent_jy.sum()) if catalogue else 0.0,
        "anchor": _flux_scale(state),
        "heldout_sources": _heldout(state),
        "chi2_untouched": _finite(state.untouched.calibrated) if state.untouched else None,
        "chi2_untouched_input": _finite(state.untouched.as_found) if state.untouched else None,
        "pointing": _pointing(figures.reports[POINTING]),
        "beam": _beam(params, state),
        "findings": [asdict(f) for f in state.findings],
        "moved_arcsec": _moved(state),
        "flux_scale": state.scale.of_input if state.scale else None,
        "flux_scale_error": state.scale.error if state.scale else None,
        "flux_scale_from": state.scale.taken_from if state.scale else "input",
        "flux_scale_verified": _scale_verified(state),
        "flux_units_changed": bool(abs(np.log(typical_amplitude(state.tables))) > np.log(2.0)),
        "initial": metrics_dict(first),
        "final": metrics_dict(last),
        "final_standard": metrics_dict(standard),
        "noise": noise,
        "snr_improvement": last.snr / first.snr if first.snr > 0 else None,
        "best_iteration": state.rounds.index(best) + 1 if best else 0,
        "iterations": [
            _iteration(number, this, state, region, params, figures.tables)
            for number, this in enumerate(state.rounds, 1)
        ],
        "gaintables": figures.tables,
        "products": _products(params),
        "seconds": {k: round(v, 3) for k, v in figures.seconds.items()},
        "work": figures.work,
        "provenance": {
            "version": __version__,
            "config": json.loads(config.model_dump_json()),
            "ms": str(params.ms.path.absolute()),
            "field": params.reader.field_name,
            "receptors": list(params.ms.spectral_window(data.spw_ids[0]).receptor_names),
            "initial_caltables": [str(Path(t.label).absolute()) for t in params.initial],
            "data_hash": data.data_hash,
            "catalog_hash": catalogue.catalog_hash if catalogue else None,
        },
    }
    sources, antennas = figures.reports[SOURCES], figures.reports[ANTENNAS]
    if sources is not None:
        names, counts = np.unique(sources["verdict"], return_counts=True)
        summary["seed_verdicts"] = {str(n): int(c) for n, c in zip(names, counts, strict=True)}
        summary["products"] |= {"sources": SOURCES, "sky_model": MODEL}
        summary["sources"] = {
            "n_measured": len(sources) - (sources.meta["n_new"] or 0),
            "n_new": sources.meta["n_new"],
            "false_new_expected": sources.meta["false_new_expected"],
            "flux_scale": sources.meta["flux_scale"],
            "flux_scale_error": sources.meta["flux_scale_error"],
            "pointing_error_deg": sources.meta["pointing_error_deg"],
        }
    if figures.reports[POINTING] is not None:
        summary["products"]["pointing"] = POINTING
    if antennas is not None:
        summary["antenna_verdicts"] = antenna_verdicts(antennas)
        summary["products"]["antennas"] = ANTENNAS
    return summary


def _pointing(report: Table | None) -> dict[str, float | None] | None:
    """Give how far the antennas point off, degrees; None if no offsets were kept."""
    if report is None:
        return None
    offsets = np.stack([report["east_deg"], report["north_deg"]])
    east, north = np.nanmean(offsets, axis=1)
    return {
        "common_east_deg": _finite(east),
        "common_north_deg": _finite(north),
        "rms_deg": _finite(np.sqrt(np.nanmean(np.square(offsets - [[east], [north]])))),
        "error_deg": _finite(np.nanmedian(report["error_deg"]))
        if np.isfinite(report["error_deg"]).any()
        else None,
        **{name: report.meta.get(name) for name in SQUINT},
    }


def _beam(params: SelfCalParams, state: CalState) -> dict[str, Any] | None:
    """Give the beam, its width as measured, and the diameter to give for it; None in an unseeded run."""
    if params.catalog_model is None:
        return None
    beam, found, config = params.context.beam, state.beam_width, params.config
    measured = Estimate() if state.sky_check is None else state.sky_check.beam_width
    if found is not None:
        measured = found.width
    assumed = beam if found is None else found.assumed
    size = assumed.diameter_m if isinstance(assumed, RoundBeam) else None
    told = size is not None and (found is not None or wrong_width(measured))
    return {
        "form": beam.form,
        "file": str(beam.path.absolute()) if isinstance(beam, FileBeam) else None,
        "antenna_beams": str(config.antenna_beams.absolute()) if config.antenna_beams is not None else None,
        "diameter_m": size,
        "width": [_finite(measured.value), _finite(measured.error)],
        "width_used": found.width.value if found is not None else 1.0,
        "diameter_to_give_m": _finite(size / measured.value) if told and size is not None else None,
    }


def _noise(state: CalState, thermal_per_noise: float, final: ImageMetrics) -> dict[str, Any]:
    """Give each bound of the noise as the thermal rms of the final image, and what is wrong with them."""
    bounds = state.noise_bounds or NoiseBounds()
    # The radiometer equation is in jansky: it says nothing before amplitudes are on the catalogue's scale.
    in_jansky = isinstance(state.model, SkyVisibilities) and any(t.label == "ap" for t in state.tables)

    def jansky(scale: NoiseScale, shown: bool = True) -> float | None:
        return thermal_per_noise * scale.rms if scale.known and shown else None

    thermal, radiometer = jansky(state.noise), jansky(bounds.radiometer, in_jansky)
    ratio, notes = final.thermal_ratio, []
    error = bool(np.isfinite(ratio) and ratio < LOWEST_THERMAL_RATIO)
    if error:
        notes.append(f"the image is quieter than its noise, by {ratio:.3f}: the noise is estimated too high")
    times = thermal / radiometer if thermal and radiometer else 1.0
    if times > LOUD:
        notes.append(
            f"the noise is {times:.1f} times what the radiometer equation gives for the telescope: check the "
            "system and the flux scale"
        )
    elif times < 1 / LOUD:
        notes.append(
            f"the noise is {times:.2f} times what the radiometer equation gives for the telescope: check the "
            "flux scale"
        )
    return {
        "taken": bounds.taken or None,
        "channels_jy": jansky(bounds.channels),
        "polarizations_jy": jansky(bounds.polarizations),
        "dumps_jy": jansky(bounds.dumps),
        "zero_jy": jansky(bounds.zero),
        "radiometer_jy": radiometer,
        "error": error,
        "note": "; ".join(notes) or None,
    }


def _flux_scale(state: CalState) -> dict[str, Any] | None:
    """Give what flux scale and position were off by at first; None if nothing was rescaled."""
    found = state.flux_scale
    if found is None:
        return None
    offset = None if found.offset_arcsec is None else list(found.offset_arcsec)
    return asdict(found) | {"offset_arcsec": offset}


def _heldout(state: CalState) -> dict[str, Any] | None:
    """Give what held-out sources say; None where there is nothing to hold out."""
    check = state.sky_check
    if check is None:
        return None
    east, north = check.pointing_arcmin

    def pair(found: Estimate) -> list[float | None]:
        return [_finite(found.value), _finite(found.error)]

    return {
        "tells": check.tells,
        "recovered_fraction": _finite(check.recovered.value),
        "recovered_error": _finite(check.recovered.error),
        "taken_by_gains": _finite(check.taken),
        "recovered_by_phases": _finite(check.phased.value),
        "recovered_by_input": _finite(check.phased_input),
        "n_sources": check.n_sources,
        "n_agreeing": check.n_agreeing,
        "scatter": _finite(check.scatter),
        "beam_width": pair(check.beam_width),
        "beam_centre_arcmin": [pair(east), pair(north)],
        "central_flux": pair(check.central_flux),
        "rotation_deg": pair(check.rotation_deg),
        "stretch": pair(check.stretch),
        "shear": pair(check.shear),
        "time_trend": pair(check.time_trend),
        "frequency_trend": pair(check.frequency_trend),
    }


def _moved(state: CalState) -> list[float] | None:
    """By how much the calibration moved the sky of an input that had one, arcsec east and north."""
    if not state.tables or state.moved is None or not coherent(state.moved):
        return None
    if any(f.kind == "position" for f in state.findings):
        return [0.0, 0.0]
    return [float(np.degrees(x) * 3600) for x in state.moved.shift_rad]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


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
        "curve": [_point_of_curve(trial, solution) for trial in solution.trials],
        "phase_change_deg": phase_scatter_deg(solution.table),
        "chi2_train": solution.score.chi2_train,
        "chi2_heldout": solution.score.chi2_heldout,
        "snr": image.snr if image else None,
        "rms_jy": image.rms_jy if image else None,
        "accepted": this.verdict.accepted,
        "reason": this.reason,
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
