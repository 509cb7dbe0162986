"""Amplitudes on top of phases, once phases alone no longer improve the image."""

from __future__ import annotations

from dataclasses import replace

from dsa110_contimg.calibration.gains import typical_amplitude
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.image_state import image_state
from dsa110_contimg.selfcal.solve_round import amplitude_round, make_solver
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState, Round

__all__ = ["amplitude"]


def amplitude(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Add a round of amplitudes to the newest round of phases, against the same model.

    Returns
    -------
    CalState
        With the round, and the image of the calibration that is kept made anew at its weights; the state
        itself if the signal is too weak.
    """
    base = state.last if state.last.verdict.accepted else None
    solver = make_solver(data, state, config)
    before = solver.fixed_score(state.tables)
    new = amplitude_round(solver, state, config, log, base=base, before=before)
    if new is None:
        return state
    state = replace(state, rounds=(*state.rounds, _at_mean_one(new)))
    new = state.last
    weights = next((r.tables for r in (new, base) if r is not None and r.verdict.accepted), ())
    if not weights:
        return state
    state, image = image_state(
        data,
        state,
        config,
        log,
        tables=state.tables,
        label="image at the new weights",
        weight_tables=weights,
    )
    return replace(state, image=image)


def _at_mean_one(this: Round) -> Round:
    """Take the mean amplitude out of a round: the model came from the data, and knows of no flux scale."""
    old = this.solution.table
    table = old.times(typical_amplitude([old]) ** -0.5)
    solution = replace(this.solution, table=table)
    return replace(this, solution=solution, tables=(*this.tables[:-1], table))
