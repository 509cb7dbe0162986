"""Weights by what solutions and residual show: dead antennas and outliers out, antennas by their noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.calibration.lost_antennas import lost_antennas
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import OUTLIER, differing, merged
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import gather, make_solver, solve_rounds
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState, MeasuredNoise
from dsa110_contimg.selfcal.trial import REFINED_NOISE
from dsa110_contimg.visibilities import NoiseScale

__all__ = ["reweight", "reweight_antennas", "without_lost"]

#: Outliers and noisy antennas are looked for at most this often.
MOST_PASSES = 3
#: Of noise alone this part is an outlier, ``exp(-OUTLIER)``; three times as many bend no gain.
BY_CHANCE = 3 * math.exp(-OUTLIER)
#: Outliers that are none by the better sky model are worth another solution from this part of the data.
GIVEN_BACK = 1e-3
#: From this fraction of the visibilities on outliers change the noise that was measured with them.
MANY_OUTLIERS = 1e-4


def reweight(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve against the catalogue model, and take weight from what its residual shows to be no noise.

    Interference can bury every antenna: none is dropped for good before it is found.
    """
    if data.catalog_model is None:
        return state
    if state.statistics is None:
        state = gather(data, state, log, state.model or SkyVisibilities(data.catalog_model))
    names = data.reader.ms.antennas.name
    for number in range(MOST_PASSES):
        # The stage before has gathered and solved already where it looked for delays.
        if number or not state.rounds:
            state = solve_rounds(data, state, config, log, preliminary=True)
        # Before the residual is looked at: without signal it is all outliers against a bright sky.
        state = without_lost(data, state, config, log, preliminary=True)
        assert state.model is not None
        with log.timed("measure"):
            residual = data.measure_residual(state.model, state.weights, state.last.tables)
        refined = state.at_lower_noise(residual.noise, REFINED_NOISE, residual.bounds)
        lower, state = refined is not state, refined
        # Interference and the like, of no weight from here on, must not bend the gains.
        # Gains that are common to all windows make those look noisy that have others: not to be told yet.
        residual = replace(residual, window_factor={})
        weights, noisy, misfit = state.weights.after(residual, state.found_outliers)
        left_out = weights.n_outliers - state.weights.n_outliers
        state = replace(state, weights=weights, found_outliers={})
        if left_out:
            log.note(f"{left_out} visibilities far beyond the noise are left out")
        changed = left_out > BY_CHANCE * data.samples or noisy.any() or misfit.any()
        if noisy.any():
            log.note(_told(names, noisy, weights.noise_factor))
        if misfit.any():
            listed = ", ".join(names[int(k)] for k in np.flatnonzero(misfit.any(axis=1)))
            log.note(f"more than noise in what the model leaves, weighted by it: {listed}")
        if not (changed or lower):
            break
        if noisy.any():
            # At weights that are higher for some the noise may be a higher number: the one so far is of none.
            state = replace(state, noise=NoiseScale(math.nan), noise_bounds=None)
        if changed:
            state = gather(data, state, log)
    return solve_rounds(data, state, config, log)


def _told(names: Sequence[str], differ: Bool, factor: Float) -> str:
    """Say which antennas differ from what their weights say, and by how much at most."""
    listed = ", ".join(names[int(k)] for k in np.flatnonzero(differ.any(axis=1)))
    return (
        f"noise differs from what the weights say ({factor.min():.2g} to {factor.max():.2g} times the median "
        f"antenna's), antennas weighed by their noise; more than twice: {listed}"
    )


def without_lost(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    *,
    preliminary: bool = False,
) -> CalState:
    """Leave out the dumps in which antennas that are alive at other times show nothing of the sky.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        With statistics and rounds.
    config : SelfCalConfig
        Options.
    log : StageLog
        Told which antennas.
    preliminary : bool
        How is solved again, see :func:`make_solver`.

    Returns
    -------
    CalState
        Solved again without them; the state itself if there are none.
    """
    found, statistics = None, state.statistics
    assert statistics is not None
    combined = state.last.solution.grouping.combine_spw
    with log.timed("solve"):
        for _ in range(MOST_PASSES):
            # What is lost takes from the signal of all others: once it is out, more may show.
            solver = make_solver(data, state, config, statistics=statistics, preliminary=True)
            lost = lost_antennas(solver, combine_spw=combined, before=found)
            if not lost.any():
                break
            found = lost if found is None else found | lost
            statistics = statistics.without(lost)
    if found is None:
        return state
    names = data.reader.ms.antennas.name
    listed = ", ".join(names[k] for k in np.flatnonzero(found.any(axis=(0, 2))))
    log.note(
        f"nothing of the sky for part of the time, {found.any(axis=2).sum()} dumps left out of: {listed}"
    )
    everywhere = np.zeros((data.reader.times.size, len(names), 2), dtype=bool)
    everywhere[:, : found.shape[1]] = found
    state = gather(data, replace(state, weights=state.weights.without(everywhere)), log)
    return solve_rounds(data, state, config, log, preliminary=preliminary)


def reweight_antennas(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Weigh the data anew with the improved sky model, and solve again if that changes much.

    A first model that lacks much makes the long baselines look noisy, and some of their data like
    interference.
    """
    assert state.model is not None
    with log.timed("measure"):
        plain = state.weights.as_found()
        residual = data.measure_residual(state.model, plain, state.last.tables)
        weights, _, _ = plain.after(residual, state.found_outliers)
    # An antenna without a solution shows nothing: what was found of it holds.
    known, seen = state.weights, residual.seen
    weights = replace(
        weights,
        noise_factor=np.where(seen, weights.noise_factor, known.noise_factor),
        misfit_factor=np.where(seen, weights.misfit_factor, known.misfit_factor),
    )
    changed, unlike = differing(weights.excess / known.excess).any(axis=1), weights.windows_unlike(known)
    given_back = known.n_outliers - weights.n_outliers
    if not changed.any() and not unlike and given_back < GIVEN_BACK * data.samples:
        outliers = merged([known.outliers, residual.outliers, state.found_outliers])
        at_end, settled = None, replace(weights, outliers=outliers)
        as_weights_say = (weights.excess == 1).all() and not weights.window_factor
        if as_weights_say and settled.n_outliers < MANY_OUTLIERS * data.samples:
            # It was measured at the weights as found, which hold.
            at_end = MeasuredNoise(
                model=state.model, excess=weights.excess, tables=state.last.tables, bounds=residual.bounds
            )
        return replace(state, weights=settled, found_outliers={}, noise_at_end=at_end)
    state = replace(state, weights=weights, found_outliers={})
    names = [data.reader.ms.antennas.name[k] for k in np.flatnonzero(changed)]
    said = [f"noise differs of {', '.join(names)}"] if names else []
    said += [f"noise differs of spectral windows {', '.join(map(str, unlike))}"] if unlike else []
    said += [f"{given_back} visibilities are no outliers"] if given_back > 0 else []
    log.note(f"with the better sky model {' and '.join(said)}: solved again")
    if unlike:
        assert state.model is not None
        # At other weights for so many the noise is another number.
        with log.timed("measure"):
            residual = data.measure_residual(state.model, weights, state.last.tables)
        state = replace(state, noise=residual.noise, noise_bounds=residual.bounds)
    state = solve_rounds(data, gather(data, state, log), config, log, like=state.rounds)
    assert state.model is not None
    # With less weight taken the noise is higher than it was: the lowest seen so far is none of these weights.
    with log.timed("measure"):
        residual = data.measure_residual(state.model, state.weights, state.last.tables)
    return replace(state, noise=residual.noise, noise_bounds=residual.bounds)
