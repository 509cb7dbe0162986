"""Weights by what the calibrated residual shows: outliers out, noisy antennas down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import gather, solve_rounds
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import REFINED_NOISE

__all__ = ["reweight", "reweight_antennas"]

#: Outliers and noisy antennas are looked for at most this often.
MOST_PASSES = 3


def reweight(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve against the catalogue model, and take weight from what its residual shows to be no noise.

    Interference can bury every antenna: none is dropped for good before it is found.
    """
    if data.catalog_model is None:
        return state
    state = gather(data, state, log, SkyVisibilities(data.catalog_model))
    names = data.reader.ms.antennas.name
    for _ in range(MOST_PASSES):
        state = solve_rounds(data, state, config, log, preliminary=True)
        assert state.model is not None
        with log.timed("measure"):
            residual = data.measure_residual(state.model, state.weights, state.last.tables)
        refined = state.at_lower_noise(residual.noise, REFINED_NOISE)
        lower, state = refined is not state, refined
        # Interference and the like, of no weight from here on, must not bend the gains.
        weights, noisy = state.weights.after(residual, state.found_outliers)
        left_out = weights.n_outliers - state.weights.n_outliers
        state = replace(state, weights=weights, found_outliers={})
        if left_out:
            log.note(f"{left_out} visibilities far beyond the noise are left out")
        if noisy.any():
            found = ", ".join(names[k] for k in np.flatnonzero(noisy.any(axis=1)))
            log.note(f"noisier than their weights say, and weighted down: {found}")
        if not (left_out or noisy.any() or lower):
            break
        if left_out or noisy.any():
            state = gather(data, state, log)
    return solve_rounds(data, state, config, log)


def reweight_antennas(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Weigh the antennas anew with the improved sky model, and solve again if that changes which are noisy.

    A first model that lacks much makes the long baselines look noisy.
    """
    assert state.model is not None
    with log.timed("measure"):
        plain = state.weights.without_factors()
        residual = data.measure_residual(state.model, plain, state.last.tables)
        weights, _ = plain.after(residual, state.found_outliers)
    # An antenna without a solution shows nothing: what was found of it holds.
    known = state.weights.noise_factor
    weights = replace(weights, noise_factor=np.where(residual.seen, weights.noise_factor, known))
    changed = ((known > 1) != (weights.noise_factor > 1)).any(axis=1)
    state = replace(state, weights=weights, found_outliers={})
    if not changed.any():
        return state
    names = [data.reader.ms.antennas.name[k] for k in np.flatnonzero(changed)]
    log.note(f"noise differs with the better sky model, solved again: {', '.join(names)}")
    state = gather(data, replace(state, residual_image=None), log)
    return solve_rounds(data, state, config, log, like=state.rounds)
