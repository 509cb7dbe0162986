"""Phases against the best image so far: the model of unseeded self-calibration."""

from __future__ import annotations

from dataclasses import replace

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.model_visibilities import ImageVisibilities
from dsa110_contimg.selfcal.solve_round import gather, make_solver, phase_round
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState, Outcome

__all__ = ["phase"]


def phase(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Take the clean components of the best image as the model, and add a round of phases solved from it."""
    assert state.image is not None
    components = state.image.cleaned.model
    if not components.any():
        return replace(state, outcome=Outcome("refused", "refused: the image holds nothing to calibrate on"))
    state = gather(data, state, log, ImageVisibilities(components, data.grid, config.threads))
    solver = make_solver(data, state, config)
    before = solver.fixed_score(state.tables)
    new = phase_round(solver, state, config, log, before=before)
    score = state.input_score or before
    return replace(state, rounds=(*state.rounds, new), input_score=score)
