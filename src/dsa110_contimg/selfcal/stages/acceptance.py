"""Imaging the newest rounds and keeping the best: what is not better than the input is rolled back."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from dsa110_contimg.array_types import Bool
from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.gains import GainTable, typical_amplitude
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.acceptance import (
    EXPLAINED_CHI2,
    MIN_SOLVED_FRACTION,
    Appraisal,
    appraise_image,
    confirmed_by_sources,
    outcome_of,
    worse_than_found,
)
from dsa110_contimg.selfcal.antenna_report import time_of_day, without_solutions
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.selfcal.image_state import image_state
from dsa110_contimg.selfcal.imaging import CalibratedImage, measure, region_for
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import MIN_SIGNAL_SNR
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState, Outcome, Round, Verdict
from dsa110_contimg.selfcal.untouched_score import UntouchedScore, untouched_scores
from dsa110_contimg.selfcal.where_left import channels_left, in_words, where_left
from dsa110_contimg.sky import ApparentSky

__all__ = ["acceptance", "conclude", "initial_image", "not_worse_as_delivered", "require_signal"]

#: An image this many times above the thermal noise may hide what is better: it is cleaned deeper.
FAR_ABOVE = 3.0
#: CLEAN options of the deepest image.
DEEP: dict[str, Any] = {"mask_sigma": 3.0, "clean_sigma": 0.5}


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
        incoherent = _was_incoherent(state)
        more = {"weight_tables": weight_tables, "one_cycle": incoherent, "incoherent": incoherent}
        state, image = _image_of_input(data, state, config, log, "image before", **more)
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
    state = _not_worse_than_found(data, state, config, log)
    return _with_outcome(data, state, config, log)


def not_worse_as_delivered(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, final: CalibratedImage
) -> CalState:
    """Roll all back where the image to be delivered, made anew, is worse than that of the input after all.

    Parameters
    ----------
    data, state, config, log
        As of a stage; the state has an outcome.
    final : CalibratedImage
        The image to be delivered, by the embedded engine, with the sky model subtracted before CLEAN.

    Returns
    -------
    CalState
        The state itself, or one that keeps the input.
    """
    found = state.initial
    if not state.tables or found is None or _was_incoherent(state):
        return state
    region = region_for(final, data.grid, data.catalog_model, state.noise)
    worse = worse_than_found(
        _appraisal(data, state, found, region, ()),
        _appraisal(data, state, final, region, state.tables),
        state.sky_check,
    )
    if not worse:
        return state
    return _with_outcome(data, _rolled_back(state, log, worse), config, log)


def _with_outcome(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Say how the run ended, and image the input alone if it is kept."""
    ratios = [None if state.tables else _snr_ratio(data, state, this) for this in state.rounds]
    before = state.input_score.chi2_heldout if state.input_score else None
    outcome = outcome_of(state.rounds, ratios, before)
    left = max((r.chi2_heldout for r in state.rounds if r.tables == state.tables), default=0.0)
    if outcome.status == "improved" and left > EXPLAINED_CHI2:
        where = _where_left(data, state) or (
            "check for a bright source that the catalogue lacks, positions of antennas and UVW, "
            "interference, and what is said besides"
        )
        text = f"the model leaves {left:.1f} times the thermal variance: {where}"
        found = [f for f in state.findings if f.kind != "unexplained"]
        state = replace(state, findings=(Finding("unexplained", text), *found))
    unsolved = _unsolved(data, state)
    if unsolved and not any(f.kind == "unsolved" for f in state.findings):
        text = f"hardly a good solution for {unsolved}: noise or another signal? flag or leave them out"
        state = replace(state, findings=(*state.findings, Finding("unsolved", text)))
        outcome = replace(outcome, message=f"{outcome.message}; {text}")
    if state.findings and outcome.status == "improved":
        # Of the tables that were given, not of what became of the data, is what their edges lack.
        of_run = [f.text for f in state.findings if f.kind != "bandpass_edges"]
        outcome = replace(outcome, remarks="; ".join(of_run))
    state = replace(state, outcome=outcome)
    if state.comparison_weights and not state.tables:
        state, image = image_state(data, state, config, log, tables=(), label="image of the input")
        state = replace(state, initial=image, image=image, comparison_weights=())
    return state


def _where_left(data: CalibrationData, state: CalState) -> str:
    """Say in which part of the data most of what is left is; empty if in none."""
    if state.statistics is None:
        return ""
    gains = state.tables[len(state.bandpass) :]
    times, names = data.reader.times, data.reader.ms.antennas.name
    gain, solved = gains_at_times(gains, data.spw_ids, times, state.statistics.n_antennas)
    part = where_left(state.statistics, gain, solved, state.noise, state.weights.misfit_factor)
    if part is None:
        assert state.kept_model is not None
        return channels_left(data, state.kept_model, state.weights, state.tables, state.noise)
    polarisations = data.reader.ms.spectral_window(data.spw_ids[0]).receptor_names
    return in_words(part, data.spw_ids, names, polarisations, [time_of_day(t) for t in times])


def _unsolved(data: CalibrationData, state: CalState) -> str:
    """Say what has no solutions, where a run that kept the input has too few of them."""
    if state.tables or not state.rounds or state.statistics is None:
        return ""
    solution = state.last.solution
    if solution.solved_fraction > MIN_SOLVED_FRACTION:
        return ""
    window = data.reader.ms.spectral_window(data.spw_ids[0])
    names = data.reader.ms.antennas.name
    return without_solutions(solution.table, names, state.statistics.present(), window.receptor_names)


def _not_worse_than_found(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Roll all back where the input as it was found, at its own weights, has the better image.

    Rounds are compared at the same weights, which those of the better calibration are: an antenna without a
    solution is missing in both images. An input that is far from coherent cannot be better.
    """
    check, kept, found = state.sky_check, state.image, state.initial
    if not state.tables or kept is None or found is None or state.kept_model is None:
        return state
    with log.timed("measure"):
        scores = untouched_scores(data, state.kept_model, state.weights, state.tables, state.noise)
    state = replace(state, untouched=scores)
    if scores.calibrated > scores.as_found:
        change = f"{scores.as_found:.5g} -> {scores.calibrated:.5g}"
        return _rolled_back(state, log, f"predicts data that no step has used worse: chi2 {change}")
    blind = scores.blind_receptor()
    if blind is not None:
        text = _blind(data, blind, scores)
        state = replace(state, findings=(*state.findings, Finding("polarisation", text)))
        return _rolled_back(state, log, text)
    if _was_incoherent(state):
        return state
    depth = kept.cleaned.threshold_jy
    if state.comparison_weights:
        depth *= typical_amplitude(state.tables)
        state, found = _image_of_input(data, state, config, log, "image as found", depth_jy=depth)
    region = region_for(kept, data.grid, data.catalog_model, state.noise)
    worse = worse_than_found(
        _appraisal(data, state, found, region, ()),
        _appraisal(data, state, kept, region, state.tables),
        check,
    )
    thermal = kept.thermal_per_noise * state.noise.rms
    far = measure(kept, data.grid, region, data.catalog_model, state.noise).rms_jy > FAR_ABOVE * thermal
    if not worse and far and not (check is not None and check.tells):
        state, worse = _worse_when_deep(data, state, config, log)
    return _rolled_back(state, log, worse) if worse else state


def _blind(data: CalibrationData, receptor: int, scores: UntouchedScore) -> str:
    """Say of a hand that it does not see the sky which the other one sees."""
    window = data.reader.ms.spectral_window(data.spw_ids[0])
    weak, good = (2 * window.receptor_names[r] for r in (receptor, 1 - receptor))
    return (
        f"the model leaves {100 * scores.left_over[receptor]:.0f} % of the power of {weak} and "
        f"{100 * max(0.0, scores.left_over[1 - receptor]):.0f} % of that of {good}: is {weak} conjugated, or "
        "connected to other antennas? mend or flag it"
    )


def _image_of_input(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, label: str, **more: Any
) -> tuple[CalState, CalibratedImage]:
    """Image the input; the sky model is subtracted where the input holds it."""
    subtract = _was_coherent(state)
    return image_state(data, state, config, log, tables=(), label=label, subtract=subtract, **more)


def _was_incoherent(state: CalState) -> bool:
    """Whether held-out sources show that the input was far from coherent."""
    check = state.sky_check
    return check is not None and check.tells and check.phased_input < check.phased.value / 2


def _was_coherent(state: CalState) -> bool:
    """Whether held-out sources show the sky model in the input, so that it may be subtracted before CLEAN.

    From an input that does not hold it, it would take nothing, and leave its own sidelobes.
    """
    check, known = state.sky_check, isinstance(state.model, SkyVisibilities)
    return known and check is not None and check.tells and not _was_incoherent(state)


def _worse_when_deep(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> tuple[CalState, str]:
    """Compare the end with the beginning as deep as each goes.

    The sidelobes of a resolved source hide down to where CLEAN stops what is better below it, and no source
    was held out.
    """
    deep, images = config.with_options(**DEEP), []
    for tables in ((), state.tables):
        label = "deep image of the result" if tables else "deep image as found"
        state, image = image_state(data, state, deep, log, tables=tables, label=label)
        images.append(image)
    found, kept = images
    region = region_for(kept, data.grid, data.catalog_model, state.noise)
    worse = worse_than_found(
        _appraisal(data, state, found, region, ()),
        _appraisal(data, state, kept, region, state.tables),
        None,
    )
    return state, f"cleaned deep, {worse}" if worse else ""


def _rolled_back(state: CalState, log: StageLog, worse: str) -> CalState:
    """Return the state with the input kept."""
    log.note(f"rolled back: {worse}")
    rounds = tuple(
        replace(r, verdict=Verdict(False, f"{r.verdict.reason}; {worse}")) if r.verdict.accepted else r
        for r in state.rounds
    )
    return replace(state, rounds=rounds, tables=(), kept_model=None, image=state.initial)


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
        subtract=isinstance(state.model, SkyVisibilities),
        depth_jy=best.cleaned.threshold_jy / amplitude,
        weight_tables=None if this.tables is weight_tables else weight_tables,
        like=state.initial,
    )
    region = region_for(image, data.grid, data.catalog_model, state.noise)
    was = _appraisal(data, state, best, region, state.tables)
    now = _appraisal(data, state, image, region, this.tables)
    verdict = appraise_image(was, now)
    if not verdict.accepted and confirmed_by_sources(verdict, was, now, state.sky_check):
        check = state.sky_check
        assert check is not None
        verdict = Verdict(
            True,
            f"flux of held-out sources recovered {check.phased_input:.2f} -> {check.phased.value:.2f} "
            f"(images: {verdict.reason})",
            "sources",
        )
    log.note(f"round {number + 1} {'accepted' if verdict.accepted else 'rolled back'}: {verdict.reason}")
    judged = replace(
        this,
        image=image,
        verdict=replace(this.verdict, accepted=verdict.accepted),
        image_verdict=verdict,
        seconds=this.seconds + time.perf_counter() - started,
    )
    return state.with_round(number, judged)


def _appraisal(
    data: CalibrationData,
    state: CalState,
    image: CalibratedImage,
    region: Bool,
    tables: tuple[GainTable, ...],
) -> Appraisal:
    grid, catalogue = data.grid, _expected(data, state)
    compared = measure(image, grid, region, catalogue, state.noise, shallow=True)
    # A shallow CLEAN leaves sidelobes on the fluxes: those are taken at the image's own depth.
    deep = measure(image, grid, region, catalogue, state.noise)
    return Appraisal(
        compared.snr,
        compared.rms_jy,
        image.cleaned.beam.solid_angle_sr,
        deep.flux_ratio,
        typical_amplitude(tables),
    )


def _expected(data: CalibrationData, state: CalState) -> ApparentSky | None:
    """Give the listed sources the fluxes of the sky model where most agree with the catalogue.

    A few bright ones whose entries are wrong, and a flux scale that the input keeps, are in it.
    """
    listed, model, check = data.catalog_model, state.sky_model, state.sky_check
    if listed is None or model is None or check is None or not check.confirmed:
        return listed
    return replace(listed, apparent_jy=model.apparent_jy[: len(listed)])
