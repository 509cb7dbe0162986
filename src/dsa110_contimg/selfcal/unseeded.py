"""Self-calibration without a catalogue: the model comes from the image, round by round."""

from __future__ import annotations

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages import Stage, run_stages
from dsa110_contimg.selfcal.stages.acceptance import acceptance, conclude, initial_image, require_signal
from dsa110_contimg.selfcal.stages.amplitude import amplitude
from dsa110_contimg.selfcal.stages.phase import phase
from dsa110_contimg.selfcal.state import CalState

__all__ = ["STAGES", "rounds_from_images"]

#: Rounds go on while the rms falls by this factor.
WORTHWHILE_RMS = 1.02

#: One round of phases, and what follows it in the rounds that solve for amplitudes too.
PHASES: tuple[Stage, ...] = (phase, require_signal)
AMPLITUDES: tuple[Stage, ...] = (amplitude,)


def rounds_from_images(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Solve phases while that improves the image, then amplitudes once."""
    with_amplitudes = False
    while len(state.rounds) < config.max_rounds:
        tried = run_stages(PHASES, data, state, config, log)
        if tried.outcome is not None:
            return tried
        if with_amplitudes:
            phased = tried
            tried = run_stages(AMPLITUDES, data, phased, config, log)
            if tried is phased:
                break
        before = tried.image
        state = acceptance(data, tried, config, log)
        assert before is not None
        assert state.image is not None
        accepted = state.image is not before
        worthwhile = accepted and state.image.cleaned.rms * WORTHWHILE_RMS < before.cleaned.rms
        if with_amplitudes or (not worthwhile and config.amplitude == "off"):
            break
        with_amplitudes = not worthwhile
    return state


#: The job without a catalogue.
STAGES: tuple[Stage, ...] = (initial_image, rounds_from_images, conclude)
