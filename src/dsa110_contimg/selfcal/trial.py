"""Trying another sky model: the better of two states is returned, and the other one is forgotten."""

from __future__ import annotations

from dataclasses import replace

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import merged
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import gather, solve_rounds
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import ApparentSky

__all__ = ["better_with", "improvement", "measure_noise", "solved_against"]

#: A noise measured on the calibrated residual counts where its variance is below this fraction of the one
#: before.
REFINED_NOISE = 0.98
#: A better sky model after which held-out channels hold less by this factor leaves less in the differences of
#: neighbouring channels by twice as much at most.
NO_LOWER_NOISE = 1 + (1 - REFINED_NOISE) / 2


def measure_noise(data: CalibrationData, state: CalState, log: StageLog) -> CalState:
    """Measure the noise on what the model leaves: wide channels no longer show the sky as noise then.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        With rounds.
    log : StageLog
        Charged with the time.

    Returns
    -------
    CalState
        With the outliers that the residual shows, and the noise if it is clearly lower.
    """
    if state.model is None:
        raise RuntimeError("there is no sky model to subtract")
    with log.timed("measure"):
        residual = data.measure_residual(state.model, state.weights, state.last.tables)
    state = replace(state, found_outliers=merged([state.found_outliers, residual.outliers]))
    return state.at_lower_noise(residual.noise, REFINED_NOISE, residual.bounds)


def solved_against(
    data: CalibrationData, state: CalState, sky: ApparentSky, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Solve against another sky model, at the same weights and near the same intervals.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        With rounds.
    sky : ApparentSky
        What to solve against.
    config : SelfCalConfig
        Options.
    log : StageLog
        Told what came out.

    Returns
    -------
    CalState
        With the noise of what the model leaves, where that may be lower than it was.
    """
    like = state.rounds
    solved = solve_rounds(data, gather(data, state, log, SkyVisibilities(sky)), config, log, like=like)
    if 1 < improvement(state, solved) < NO_LOWER_NOISE:
        return solved
    refined = measure_noise(data, solved, log)
    lower = refined.noise < solved.noise
    return solve_rounds(data, refined, config, log, like=like) if lower else refined


def improvement(before: CalState, after: CalState) -> float:
    """Factor by which the held-out chi-squared fell, both at the noise that the later state knows."""
    common = before.noise.variance / after.noise.variance
    return before.last.chi2_heldout * common / after.last.chi2_heldout


def better_with(
    data: CalibrationData, state: CalState, sky: ApparentSky, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Try another sky model, and return the state that predicts held-out channels better.

    Parameters as of :func:`solved_against`.

    Returns
    -------
    CalState
        The state handed in, itself, if the trial is not better: with it stay its noise, its weights, its
        outliers and its images.
    """
    trial = solved_against(data, state, sky, config, log)
    if trial.last.verdict.accepted and improvement(state, trial) > 1:
        return trial
    return state
