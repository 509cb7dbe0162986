"""Flux scale and position of an input that had them: kept, unless many sources say otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Complex
from dsa110_contimg.calibration.gains import Gains, GainTable, typical_amplitude
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import Finding, coherent
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.sky_check import MANY_AGREE, SkyCheck
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState, Scale
from dsa110_contimg.sky import ApparentSky, radec_from_lm
from dsa110_contimg.sky.apparent_sky import scaled
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["keep_input"]

#: An input whose fluxes are this near to the catalogue's has a flux scale.
SCALE_RANGE = (0.8, 1.2)
#: Scatter of a good catalogue's fluxes, one source against another.
FLUX_SCATTER = 0.05
#: Noise within this factor of what the radiometer equation gives, and nearer to it by as much, shows which of
#: two flux scales is the right one.
RADIOMETER = 1.3
#: So many sources, by so many of their errors, change a flux scale or a position.
MANY_SOURCES, SIGMAS = 8, 3.0
#: A position is left where the input has it if the catalogue's is further off than so many errors of the
#: input's own, or if there are not many sources; shifts below this are nothing.
POSITION_SIGMAS = 5.0
LEAST_SHIFT = 0.1 * ARCSEC
#: What is wrong with the beam makes the fluxes of the sources wrong.
BEAM = ("beam_width", "beam_centre", "time", "extrapolated")


def keep_input(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Keep flux scale and position of the input where it has them; say by how much they change otherwise."""
    if data.catalog_model is None or not state.last.verdict.accepted or state.sky_model is None:
        return state
    return _position(data, _scale(data, state, log), log)


def _scale(data: CalibrationData, state: CalState, log: StageLog) -> CalState:
    """Leave the mean gain amplitude at one where the input has a flux scale, and scale the sky model."""
    if state.last.solution.mode != "ap":
        return state
    factor = typical_amplitude([t for t in state.last.tables if t.kind != "B Jones"])
    n = state.sky_check.n_agreeing if state.sky_check else 0
    error = 1.25 * FLUX_SCATTER / np.sqrt(max(n, 1))
    low, high = SCALE_RANGE
    has_scale = coherent(state.moved) and low <= factor <= high
    many = n >= MANY_SOURCES and abs(factor - 1) > SIGMAS * error
    certain = many and _whatever_the_beam(factor, state.sky_check)
    doubtful = any(f.kind in BEAM for f in state.findings)
    extrapolated = any(f.kind == "extrapolated" for f in state.findings)
    if not extrapolated and not (has_scale and (doubtful or not certain)):
        if has_scale:
            log.note(
                f"flux scale: the input's was {factor:.3f} +- {error:.3f} times the catalogue's; changed"
            )
        state = replace(state, scale=Scale(factor, error, "catalogue"))
        if coherent(state.moved) and not low <= factor <= high:
            return _another_scale(data, state, log, factor, error)
        return state
    log.note(f"flux scale: that of the input is kept, {factor:.3f} times the catalogue's ({n} sources)")
    return _with_scale_of_input(state, factor, error)


def _whatever_the_beam(factor: float, check: SkyCheck | None) -> bool:
    """Whether a flux scale differs also at the centre of the beam, where a wrong width does not matter."""
    if check is None or not check.central_flux.value > 0:
        return True
    central = check.central_flux
    return bool(abs(np.log(factor * central.value)) > SIGMAS * central.error / central.value)


def _another_scale(
    data: CalibrationData, state: CalState, log: StageLog, factor: float, error: float
) -> CalState:
    """Say that a coherent input had another flux scale; keep that where its noise shows it to be right."""
    said = f"the fluxes of the input were {factor:.3g} times those of the catalogue"
    of_catalogue = _noise_over_radiometer(data, state, log)
    of_input = of_catalogue * factor
    kept = _nearer(of_input, of_catalogue)
    if kept:
        said = (
            f"{said}, and its noise {of_input:.3g} times what the radiometer equation gives "
            f"({of_catalogue:.3g} times on the catalogue's scale): the scale of the input is kept; check the "
            "fluxes of the catalogue"
        )
    else:
        said = f"{said}, whose scale is taken"
    log.note(said)
    state = replace(state, findings=(*state.findings, Finding("scale", said)))
    return _with_scale_of_input(state, factor, error) if kept else state


def _with_scale_of_input(state: CalState, factor: float, error: float) -> CalState:
    """Leave the mean gain amplitude at one, with the sky model's fluxes as the input has them."""
    model, last = state.sky_model, state.last.tables[-1]
    assert model is not None
    state = _with_table(state, last, last.times(factor**-0.5), scaled(model, factor))
    return replace(state, scale=Scale(factor, error, "input"))


def _noise_over_radiometer(data: CalibrationData, state: CalState, log: StageLog) -> float:
    """Noise of the calibrated data over what the telescope should have; not a number for an unknown one."""
    assert state.model is not None
    with log.timed("measure"):
        bounds = data.measure_residual(state.model, state.weights, state.last.tables).bounds
    if not (bounds.lowest.known and bounds.radiometer.known):
        return float("nan")
    return bounds.lowest.rms / bounds.radiometer.rms


def _nearer(one: float, other: float) -> bool:
    """Whether one ratio is near to 1 and the other is not."""
    with np.errstate(invalid="ignore"):
        distance, further = abs(np.log(one)), abs(np.log(other))
    return bool(distance < np.log(RADIOMETER) and further > distance + np.log(RADIOMETER))


def _position(data: CalibrationData, state: CalState, log: StageLog) -> CalState:
    """Leave the sky where a coherent input has it, unless many sources say otherwise."""
    moved, model = state.moved, state.sky_model
    if moved is None or model is None or not coherent(moved):
        return state
    size = float(np.hypot(*moved.shift_rad))
    n = state.sky_check.n_agreeing if state.sky_check else 0
    # Sources that are moved against each other do not tell where the sky is.
    together = state.sky_check is not None and state.sky_check.agreeing_fraction >= MANY_AGREE
    significant = size > max(POSITION_SIGMAS * moved.error_rad, LEAST_SHIFT)
    if not significant and together and n >= MANY_SOURCES:
        if size > max(moved.error_rad, LEAST_SHIFT):
            text = f"moved the sky by {size / ARCSEC:.1f} arcsec"
            log.note(text)
            state = replace(state, findings=(*state.findings, Finding("moved", text)))
        return state
    if size < LEAST_SHIFT:
        return state
    text = (
        f"the catalogue's positions{f' ({n} sources)' if n else ''} lie {size / ARCSEC:.1f} arcsec from the "
        f"input's, whose own error is {moved.error_rad / ARCSEC:.1f}: the sky stays where the input has it"
    )
    log.note(text)
    first = next(t for t in state.last.tables if t.kind != "B Jones")
    turned = _turned(data, first, moved.shift_rad)
    state = _with_table(state, first, turned, _shifted(model, moved.shift_rad, data.reader.phase_center))
    return replace(state, findings=(*state.findings, Finding("position", text)))


def _turned(data: CalibrationData, table: GainTable, shift_rad: tuple[float, float]) -> GainTable:
    """Take a phase gradient out of a table, at the frequency of each window or of all that share a gain."""
    middle = float(data.reader.freq_hz.mean())
    made: dict[int, Gains] = {}
    path = np.nan_to_num(data.reader.antenna_uv()) @ np.asarray(shift_rad)
    for gains in table.gains.values():
        freq = middle if table.is_shared else float(gains.freq_hz.mean())
        at = np.stack([np.interp(gains.time_s, data.reader.times, x) for x in path.T], axis=1)
        turn: Complex = np.exp(-2j * np.pi * freq / SPEED_OF_LIGHT * at)
        made[id(gains)] = replace(gains, gain=gains.gain * turn[:, :, None, None])
    return replace(table, gains={spw: made[id(gains)] for spw, gains in table.gains.items()})


def _shifted(model: ApparentSky, shift_rad: tuple[float, float], centre: tuple[float, float]) -> ApparentSky:
    """Sky model at where gains without their gradient have the sources."""
    lm = model.sky.lmn(*centre)[:, :2] - np.asarray(shift_rad)
    inside = np.hypot(*lm.T) < 1
    ra, dec = model.sky.ra_rad.copy(), model.sky.dec_rad.copy()
    ra[inside], dec[inside] = radec_from_lm(lm[inside, 0], lm[inside, 1], *centre)
    return replace(model, sky=replace(model.sky, ra_rad=ra, dec_rad=dec))


def _with_table(state: CalState, old: GainTable, new: GainTable, model: ApparentSky) -> CalState:
    """Return the state with a table in place of another, in every round, and another sky model."""
    rounds = tuple(
        replace(
            r,
            solution=replace(r.solution, table=new) if r.solution.table is old else r.solution,
            tables=tuple(new if t is old else t for t in r.tables),
        )
        for r in state.rounds
    )
    return replace(state, rounds=rounds, model=SkyVisibilities(model))
