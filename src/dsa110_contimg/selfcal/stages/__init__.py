"""Stages of self-calibration, one a file.

Each is a function ``stage(data, state, config, log) -> CalState``: it reads what it is given and returns a
state; a trial that was not better leaves gains, sky model, weights and noise as they were. A run is a list of
them (`selfcal.seeded.STAGES`, `selfcal.unseeded.STAGES`), which ends early where a stage sets the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState

__all__ = ["Stage", "run_stages"]

Stage = Callable[[CalibrationData, CalState, SelfCalConfig, StageLog], CalState]


def run_stages(
    stages: Sequence[Stage],
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
) -> CalState:
    """Pass a state through stages, until one sets the outcome."""
    for stage in stages:
        if state.outcome is not None:
            break
        state = stage(data, state, config, log)
    return state
