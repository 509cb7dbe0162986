"""Imaging the newest rounds and keeping the best: what is not better than the input is rolled back."""

from __future__ import annotations

import time
from dataclasses import replace

from dsa110_contimg.array_types import Bool
from dsa110_contimg.calibration.gains import GainTable, typical_amplitude
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.acceptance import (
    HOPELESS_SNR,
    Appraisal,
    appraise_image,
    outcome_of,
    worth_second_look,
)
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.image_state import image_state
from dsa110_contimg.selfcal.imaging import CalibratedImage, measure, region_for
from dsa110_contimg.selfcal.solve_round import MIN_SIGNAL_SNR
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState, Outcome, Round, Verdict

__all__ = ["acceptance", "conclude", "initial_image", "require_signal"]


def initial_image(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Image the input at its own weights, unless that has been done."""
    if state.initial is not None:
        return state
    state, image = image_state(data, state, config, log, tables=(), label="image before")
    return replace(state, initial=image, image=image)


def require_signal(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """End the run where the first new round has too little signal: refused, or with what was kept before."""
    this = state.rounds[state.n_judged]
    if this.solution.median_snr >= MIN_SIGNAL_SNR:
        return state
    refused = replace(this, verdict=Verdict(False, "too little signal"))
    state = replace(state.with_round(state.n_judged, refused), n_judged=len(state.rounds))
    if state.tables:
        return conclude(data, state, config, log)
    message = (
        f"refused: signal to noise {this.solution.median_snr:.1f} per antenna in "
        f"{this.solution.solint_s:.0f} s is under {MIN_SIGNAL_SNR:g} ({this.predicted_snr:.1f} was to be "
        "expected of the model if the data are in jansky); the Measurement Set was not changed"
    )
    return replace(initial_image(data, state, config, log), outcome=Outcome("refused", message))


def acceptance(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Image the newest round accepted on held-out chi-squared; if its image is rejected, try the previous.

    All images that are compared take their weights and flags from the newest of these rounds, but for an
    image of the input that was made before it.
    """
    fresh = range(len(state.rounds) - 1, state.n_judged - 1, -1)
    weight_tables = next((state.rounds[k].tables for k in fresh if state.rounds[k].verdict.accepted), ())
    if state.initial is None:
        state, image = image_state(
            data, state, config, log, tables=(), label="image before", weight_tables=weight_tables
        )
        state = replace(state, initial=image, image=image, comparison_weights=weight_tables)
    for k in fresh:
        if not state.rounds[k].verdict.accepted:
            continue
        state = _judge(data, state, config, log, k, weight_tables)
        this = state.rounds[k]
        if this.verdict.accepted:
            state = replace(state, tables=this.tables, image=this.image, kept_model=state.model)
            break
    return replace(state, n_judged=len(state.rounds))


def conclude(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Say how the run ended; where the input is kept, its image is that of the input alone."""
    ratios = [None if state.tables else _snr_ratio(data, state, this) for this in state.rounds]
    before = state.input_score.chi2_heldout if state.input_score else None
    state = replace(state, outcome=outcome_of(state.rounds, ratios, before))
    if state.comparison_weights and not state.tables:
        state, image = image_state(data, state, config, log, tables=(), label="image of the input")
        state = replace(state, initial=image, image=image, comparison_weights=())
    return state


def _snr_ratio(data: CalibrationData, state: CalState, this: Round) -> float | None:
    """Signal to noise of a round's image over that of the input at the same depth; None without an image."""
    if this.image is None or state.initial is None:
        return None
    region = region_for(this.image, data.grid, data.catalog_model, state.noise)
    was = measure(state.initial, data.grid, region, data.catalog_model, state.noise)
    now = measure(this.image, data.grid, region, data.catalog_model, state.noise, shallow=True)
    return now.snr / was.snr if was.snr > 0 else None


def _judge(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    number: int,
    weight_tables: tuple[GainTable, ...],
) -> CalState:
    """Image a round and hold it against the best image so far."""
    best, this, started = state.image, state.rounds[number], time.perf_counter()
    assert best is not None
    amplitude = typical_amplitude(this.tables) / typical_amplitude(state.tables)
    state, image = image_state(
        data,
        state,
        config,
        log,
        tables=this.tables,
        label=f"image after round {number + 1}",
        depth_jy=best.cleaned.threshold_jy / amplitude,
        weight_tables=None if this.tables is weight_tables else weight_tables,
    )
    region = region_for(image, data.grid, data.catalog_model, state.noise)
    was = _appraisal(data, state, best, region, state.tables)
    now = _appraisal(data, state, image, region, this.tables)
    verdict = appraise_image(was, now)
    before = state.input_score.chi2_heldout if state.input_score and data.catalog_model else None
    if (
        not verdict.accepted
        and now.snr > HOPELESS_SNR * was.snr
        and worth_second_look(before, this.chi2_heldout)
    ):
        verdict = _second_look(data, state, config, log, this, weight_tables, verdict)
    log.note(f"round {number + 1} {'accepted' if verdict.accepted else 'rolled back'}: {verdict.reason}")
    judged = replace(
        this,
        image=image,
        verdict=Verdict(verdict.accepted, f"{this.verdict.reason}; {verdict.reason}"),
        seconds=this.seconds + time.perf_counter() - started,
    )
    return state.with_round(number, judged)


def _second_look(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    this: Round,
    weight_tables: tuple[GainTable, ...],
    first: Verdict,
) -> Verdict:
    """Compare images with the sky model subtracted.

    Sources outside a small image, coherent again after calibration, can hide in
    their sidelobes that everything has become better.
    """
    appraisals, label = [], "second look, sky model subtracted"
    (_, was), (_, now) = (
        image_state(
            data, state, config, log, tables=tables, label=label, subtract=True, weight_tables=weight_tables
        )
        for tables in (state.tables, this.tables)
    )
    region = region_for(now, data.grid, data.catalog_model, state.noise)
    for image, tables in ((was, state.tables), (now, this.tables)):
        appraisals.append(_appraisal(data, state, image, region, tables, own_depth=True))
    verdict = appraise_image(*appraisals)
    if verdict.accepted:
        return Verdict(True, f"{verdict.reason} with the sky model subtracted (plain images: {first.reason})")
    return first


def _appraisal(
    data: CalibrationData,
    state: CalState,
    image: CalibratedImage,
    region: Bool,
    tables: tuple[GainTable, ...],
    *,
    own_depth: bool = False,
) -> Appraisal:
    grid, catalogue = data.grid, data.catalog_model
    compared = measure(image, grid, region, catalogue, state.noise, shallow=not own_depth)
    # A shallow CLEAN leaves sidelobes on the fluxes: those are taken at the image's own depth.
    deep = measure(image, grid, region, catalogue, state.noise)
    return Appraisal(
        compared.snr,
        compared.rms_jy,
        image.cleaned.beam.solid_angle_sr,
        deep.flux_ratio,
        typical_amplitude(tables),
    )
