"""Self-calibration against the catalogue: solve first, image last."""

from __future__ import annotations

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages import Stage
from dsa110_contimg.selfcal.stages.acceptance import acceptance, conclude, require_signal
from dsa110_contimg.selfcal.stages.add_components import add_components
from dsa110_contimg.selfcal.stages.bandpass import bandpass, without_bandpass
from dsa110_contimg.selfcal.stages.changing_refraction import changing_refraction
from dsa110_contimg.selfcal.stages.check_sources import check_sources
from dsa110_contimg.selfcal.stages.flux_scale import flux_scale
from dsa110_contimg.selfcal.stages.keep_input import keep_input
from dsa110_contimg.selfcal.stages.pointing import pointing
from dsa110_contimg.selfcal.stages.refraction import refraction
from dsa110_contimg.selfcal.stages.resolve_bright import resolve_bright
from dsa110_contimg.selfcal.stages.reweight import reweight, reweight_antennas
from dsa110_contimg.selfcal.state import CalState

__all__ = ["JUDGE", "SOLVE", "STAGES", "improve_sky_model", "settle_weights"]

#: Images are searched for what the catalogue does not list at most this often.
MOST_SEARCHES = 3


def improve_sky_model(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Rescale the sky model, and add what an image shows beside it, while held-out channels gain by it."""
    scaled = refraction(data, flux_scale(data, state, config, log), config, log)
    state = pointing(data, scaled, config, log)
    if state is not scaled:
        state = flux_scale(data, state, config, log)
    for _ in range(MOST_SEARCHES):
        fuller = add_components(data, state, config, log)
        if fuller.components is state.components:
            return fuller
        state = flux_scale(data, fuller, config, log)
    return state


def settle_bandpass(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Ask again whether the bandpass is wanted; the flux scale again if it is not."""
    if not state.last.verdict.accepted:
        return state
    plain = without_bandpass(data, state, config, log)
    return state if plain is state else flux_scale(data, plain, config, log)


def settle_weights(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Weigh the antennas anew with the improved sky model; the flux scale again if that changed the gains."""
    if not state.last.verdict.accepted:
        return state
    weighed = reweight_antennas(data, state, config, log)
    if weighed.rounds is state.rounds:
        return weighed
    return flux_scale(data, weighed, config, log)


#: From the data to a first solution, and from there to a verdict.
SOLVE: tuple[Stage, ...] = (
    resolve_bright,
    bandpass,
    reweight,
    require_signal,
)
JUDGE: tuple[Stage, ...] = (
    improve_sky_model,
    settle_bandpass,
    settle_weights,
    check_sources,
    changing_refraction,
    keep_input,
    acceptance,
    conclude,
)
#: The job, from the data to a verdict.
STAGES: tuple[Stage, ...] = (*SOLVE, *JUDGE)
