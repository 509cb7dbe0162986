"""The main job: open and check, pass a state through the stages, write the products, sum up."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
from astropy.table import Table

from dsa110_contimg.calibration.unsolved_channels import unsolved_channels
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.files import write_json
from dsa110_contimg.imaging.backend import Backend, Embedded, open_backend
from dsa110_contimg.imaging.obs_context import enough_baselines
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.selfcal import seeded, unseeded
from dsa110_contimg.selfcal.antenna_report import antenna_report, antenna_verdicts, when_lost
from dsa110_contimg.selfcal.array_findings import array_findings
from dsa110_contimg.selfcal.beam_width import solved_with_width
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.selfcal.image_state import image_state
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.naming import (
    ANTENNAS,
    MASK,
    MODEL,
    POINTING,
    REPORT,
    SOURCES,
    STAGES,
    SUMMARY,
    VERDICT,
)
from dsa110_contimg.selfcal.params import SelfCalParams, check_params, owned
from dsa110_contimg.selfcal.pointing_report import pointing_report
from dsa110_contimg.selfcal.products import earlier_tables, write_everything
from dsa110_contimg.selfcal.source_fluxes import measure_fluxes
from dsa110_contimg.selfcal.source_report import model_table, source_report
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages import run_stages
from dsa110_contimg.selfcal.stages.acceptance import not_worse_as_delivered
from dsa110_contimg.selfcal.stages.flux_scale import flux_scale
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.summary import Figures, summary_of
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.sky.telescopes import contradiction, mixed_dishes
from dsa110_contimg.visibilities import recover_columns
from dsa110_contimg.visibilities.data_identity import data_identity

__all__ = ["SelfCalResult", "notes_before", "selfcal_ms"]

#: What time is charged to: `gather` makes the statistics, `solve` chooses and solves on them, `measure` is
#: for noise, fluxes and positions.
WORK = ("total", "read", "predict", "gather", "solve", "measure", "image", "write")


@dataclass(frozen=True)
class SelfCalResult:
    """Outcome of :func:`selfcal_ms`.

    Attributes
    ----------
    status : str
        improved, converged, no_improvement, refused or diverged.
    message : str
        The reason, in one line.
    summary : dict
        What ``selfcal_summary.json`` holds.
    output_dir : Path
        Where the products lie.
    """

    status: str
    message: str
    summary: dict[str, Any]
    output_dir: Path

    @property
    def improved(self) -> bool:
        """True if the Measurement Set now holds a better calibration than before."""
        return self.status == "improved"


def selfcal_ms(
    ms_path: Path | str,
    output_dir: Path | str,
    config: SelfCalConfig | None = None,
    initial_caltables: Sequence[Path | str] | None = None,
    *,
    progress: Progress | None = None,
    identity: str | None = None,
) -> SelfCalResult:
    """Self-calibrate one field of a Measurement Set.

    The catalogue's sky, as the telescope sees it, is the model; gains are
    solved against it on top of the initial tables, judged on channels that
    were not solved on, then by an image, and kept only if better. DATA is never
    written; MODEL_DATA and CORRECTED_DATA are written when the calibration
    improved, and what they held before is kept beside them.

    Parameters
    ----------
    ms_path : Path or str
        Measurement Set.
    output_dir : Path or str
        Folder for tables, images and summary; made if missing.
    config : SelfCalConfig, optional
        Options.
    initial_caltables : sequence of Path or str, optional
        CASA tables (B, G or T Jones) applied first, on the fly.
    progress : Progress, optional
        Where progress is reported.
    identity : str, optional
        Hash of the data, of :func:`~dsa110_contimg.visibilities.data_identity.data_identity`, if it is known.

    Returns
    -------
    SelfCalResult

    Raises
    ------
    InputError
        If something handed in cannot be used; nothing has been changed then.
    EngineError
        If an engine fails; the Measurement Set is as it was then.
    """
    path, out = Path(ms_path), Path(output_dir)
    with StageLog(progress or LogProgress()) as log, owned(path, log):
        params = check_params(path, out, config or SelfCalConfig(), initial_caltables or ())
        return _run(replace(params, data_identity=identity or data_identity(path)), log)


def _run(params: SelfCalParams, log: StageLog) -> SelfCalResult:
    started, out, config = time.perf_counter(), params.output_dir, params.config
    if config.threads:
        # NUMBA_NUM_THREADS in the environment may allow fewer than there are cores.
        numba.set_num_threads(min(config.threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    out.mkdir(parents=True, exist_ok=True)
    # Opened first: an imager that is missing shall not show after all the work.
    backend = open_backend(config, params.ms.path, params.grid, out / "final")
    earlier = earlier_tables(out / SUMMARY)
    # The summary marks a finished run: an old one goes first, and what tells of it.
    for name in (SUMMARY, REPORT, VERDICT, MASK):
        (out / name).unlink(missing_ok=True)
    log.write_to(out / STAGES)
    recover_columns(params.ms)
    data = CalibrationData(
        params.reader,
        params.initial,
        log,
        grid=params.grid,
        catalog_model=params.catalog_model,
        mask_sources=params.mask_sources,
        averaging=params.averaging,
    )
    with closing(data), enough_baselines(params.reader):
        return _calibrated(params, data, log, backend, earlier, started)


def _calibrated(
    params: SelfCalParams,
    data: CalibrationData,
    log: StageLog,
    backend: Backend,
    earlier: Sequence[str],
    started: float,
) -> SelfCalResult:
    """Pass a state through the stages, write the products, sum up."""
    out, config = params.output_dir, params.config
    listed = params.catalog_model
    for note in params.context.notes:
        log.note(note)
    if listed is not None:
        if listed.own_model is not None:
            log.note(listed.own_model.text())
            for note in listed.own_model.notes:
                log.note(f"warning: {note}")
        log.note(
            f"catalogue model: {len(listed)} {listed.catalog.upper()} sources, "
            f"{listed.apparent_jy.sum():.3f} Jy apparent, the brightest {listed.apparent_jy[0]:.3f} Jy"
        )
        for told in (*listed.notes, *([listed.spectra.sentence()] if listed.spectra else [])):
            log.note(told)
    state = CalState(weights=data.nominal_weights(), findings=notes_before(params, log))
    for finding in array_findings(params.reader):
        log.note(finding.text)
        state = replace(state, findings=(*state.findings, finding))
    if listed is not None and config.solve_beam_width:
        measured = (*seeded.SOLVE, flux_scale)
        params, data, state = solved_with_width(measured, params, data, state, log)
        state = run_stages(seeded.JUDGE, data, state, config, log)
    else:
        stages = unseeded.STAGES if listed is None else seeded.STAGES
        state = run_stages(stages, data, state, config, log)
    state, final = _final_image(data, state, config, log, backend)
    reports = {
        SOURCES: _source_report(params, data, state, final, log),
        MODEL: None
        if data.catalog_model is None
        else model_table(state.sky_model or data.catalog_model, data.catalog_model),
        ANTENNAS: _antenna_report(data, state, log),
        POINTING: _pointing_report(data, state),
    }
    with log.timed("write"):
        tables = write_everything(params, data, state, final, backend.label, earlier, reports)
    log.seconds["total"] = time.perf_counter() - started
    seconds = {work: log.seconds.get(work, 0.0) for work in WORK}
    figures = Figures(final=final, tables=tables, reports=reports, seconds=seconds, work=_work(data, log))
    summary = summary_of(params, data, state, figures)
    if summary["noise"]["note"]:
        log.note(f"warning: {summary['noise']['note']}")
    write_json(out / SUMMARY, summary)
    return SelfCalResult(summary["status"], summary["message"], summary, out)


def _work(data: CalibrationData, log: StageLog) -> dict[str, int]:
    """Count what a run's time goes into, for it does not depend on the machine."""
    reader = data.reader
    return {
        "passes": reader.passes,
        "bytes_read": reader.bytes_read,
        "bytes_spooled": 0 if data.averaged is None else data.averaged.blocks.bytes_read,
        "visibilities": reader.samples,
        "averaged_visibilities": reader.samples if data.averaged is None else data.averaged.samples,
        "predicted_visibilities": log.counts.get("predicted", 0),
        "predicted_phasors": log.counts.get("phasors", 0),
        "griddings": log.counts.get("griddings", 0),
    }


def notes_before(params: SelfCalParams, log: StageLog) -> tuple[Finding, ...]:
    """Say what speaks against an observation before anything is solved."""
    config, antennas = params.config, params.ms.antennas
    found = _of_initial_tables(params, log)
    if params.catalog_model is None:
        if config.pointing_file is not None:
            log.note(f"{config.pointing_file} has no effect: without a catalogue no beam is looked through")
        return found
    for text in params.context.beam_notes:
        log.note(text)
    if config.beam_file is not None or config.antenna_beams is not None:
        return found
    mixed = mixed_dishes(antennas.dish_diameter_m, config.dish_diameter_m)
    if mixed:
        log.note(mixed)
    text = contradiction(params.ms.telescope, antennas.dish_diameter_m, config.dish_diameter_m)
    if not text:
        return found
    log.note(text)
    return (Finding("dish", text), *found)


def _of_initial_tables(params: SelfCalParams, log: StageLog) -> tuple[Finding, ...]:
    """Say which channels are left out, for initial tables have no solutions for them."""
    reader = params.reader
    channels = {s: reader.ms.spectral_window(s).freq_hz for s in reader.selection.spw_ids}
    found = []
    for table in params.initial:
        unsolved = unsolved_channels(table, channels, float(np.mean(reader.times)))
        if unsolved is not None:
            log.note(unsolved.text())
            found.append(Finding("bandpass_edges", unsolved.text()))
    return tuple(found)


def _final_image(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, backend: Backend
) -> tuple[CalState, CalibratedImage]:
    """Make the image that is delivered: of the best round at its own depth, or that of the input."""
    assert state.initial is not None
    if not state.tables:
        return state, state.initial
    assert state.model is not None
    # The newest model leaves least of the sky in it, also where the gains of its round were not kept.
    if state.noise_at_end is not None and state.noise_at_end.is_of(state):
        bounds = state.noise_at_end.bounds
    else:
        with log.timed("measure"):
            bounds = data.measure_residual(state.model, state.weights, state.tables).bounds
    state = replace(state, noise=bounds.lowest, noise_bounds=bounds)
    subtract = data.catalog_model is not None and config.imaging == "subtracted"
    judged = state.image
    if (
        subtract
        and isinstance(backend, Embedded)
        and judged is not None
        and judged.difference is not None
        and judged.own_weights
        and state.kept_model is state.model
    ):
        # The image that the round was accepted by is the same: CLEANed to its own depth, at its own weights.
        return state, judged
    state, final = image_state(
        data,
        state,
        config,
        log,
        tables=state.tables,
        label="final image",
        subtract=subtract,
        backend=backend,
    )
    if not (subtract and isinstance(backend, Embedded)):
        # Of another imager, or with sidelobes that the input's image has not.
        return state, final
    state = not_worse_as_delivered(data, state, config, log, final)
    return state, final if state.tables or state.initial is None else state.initial


def _source_report(
    params: SelfCalParams, data: CalibrationData, state: CalState, final: CalibratedImage, log: StageLog
) -> Table | None:
    """List the sources as they were measured; None in an unseeded run."""
    if data.catalog_model is None:
        return None
    with log.timed("measure"):
        measured = measure_fluxes(data, state, params.config, final)
        times = data.reader.times
        centre = data.reader.pointing[len(times) // 2]
        when: dict[str, float | bool | str] = {
            "mjd": float((times[0] + times[-1]) / 2 / 86400.0),
            "seconds": float(times[-1] - times[0] + np.median(data.reader.interval_s)),
            "beam_major_arcsec": final.cleaned.beam.major_rad / ARCSEC,
            "calibrated": bool(state.tables),
            "centre_ra_deg": math.degrees(centre[0]) % 360,
            "centre_dec_deg": math.degrees(centre[1]),
            "data_identity": params.data_identity,
        }
        return None if measured is None else source_report(data.catalog_model, measured, when)


def _pointing_report(data: CalibrationData, state: CalState) -> Table | None:
    """Say where the antennas point, if the calibration that is kept has beams of their own."""
    kept = state.kept_model if state.tables else None
    if not isinstance(kept, SkyVisibilities) or kept.sky.antenna_beams is None:
        return None
    return pointing_report(data.reader.ms.antennas.name, kept.sky.antenna_beams, state.pointing)


def _antenna_report(data: CalibrationData, state: CalState, log: StageLog) -> Table | None:
    """Say of each antenna what became of it, if the calibration is kept."""
    last = next((r.solution for r in reversed(state.rounds) if r.tables == state.tables), None)
    if not state.tables or last is None or state.statistics is None:
        return None
    antennas = data.reader.ms.antennas
    present = np.zeros((len(antennas), 2), dtype=bool)
    known = state.statistics.present()
    present[: len(known)] = known
    report = antenna_report(
        antennas.name,
        state.tables,
        last,
        data.reader.times,
        present,
        state.weights.excess,
        dump_s=data.reader.interval_s,
        lost=state.weights.lost,
    )
    for verdict, names in antenna_verdicts(report).items():
        if verdict != "lost":
            log.note(f"antennas, {verdict}: {', '.join(names)}")
    for words, names in when_lost(report).items():
        log.note(f"antennas {words}: {', '.join(names)}")
    return report
