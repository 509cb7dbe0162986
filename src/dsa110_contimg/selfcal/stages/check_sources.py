"""Held-out sources: a sky that is not the catalogue's ends the run, with the likely cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.phase_gradient import PhaseGradient, phase_gradient
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import CatalogError, SeedError
from dsa110_contimg.selfcal.acceptance import MIN_SOLVED_FRACTION
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import (
    Finding,
    absurd_width,
    carried,
    findings_of,
    follows_from,
    size_of_beam,
    unexplained,
    weightiest_first,
)
from dsa110_contimg.selfcal.heldout_sources import (
    halves,
    measure_heldout_sources,
    recovered_halves,
)
from dsa110_contimg.selfcal.sky_check import (
    AGREES_BEAMS,
    SkyCheck,
    agreeing,
    beam_trends,
    check_sky,
    displacement,
)
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.acceptance import initial_image
from dsa110_contimg.selfcal.state import CalState, Outcome, Verdict
from dsa110_contimg.sky import ApparentSky, build_catalog_model, radec_from_lm
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT, RoundBeam

__all__ = ["check_sources"]

#: Widths of beams that are tried where the sky is not the catalogue's through the one assumed, and how near
#: (in the logarithm) to their catalogue fluxes held-out sources have to come through one of them.
OTHER_WIDTHS = (0.2, 0.35, 0.6, 1.7, 2.9, 5.0)
AS_LISTED = 0.25
#: Ways in which coordinates go wrong: factors on l and m, and what is said of them.
MIRRORS = {
    (-1.0, 1.0): "mirrored in right ascension",
    (1.0, -1.0): "mirrored in declination",
    (-1.0, -1.0): "mirrored through the phase centre",
}
#: A mirrored sky is the one seen where it recovers at least this fraction of the flux.
MIRRORED, CLEARLY_MORE = 0.6, 0.2


def check_sources(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Hold out either half of the sky model; end the run where that speaks against it."""
    listed = data.catalog_model
    if listed is None or not state.last.solution.solved_fraction > MIN_SOLVED_FRACTION:
        return state
    found = measure_heldout_sources(data, state, config, log)
    moved = None if found is None else _gradient(data, state)
    check = SkyCheck() if found is None else check_sky(found, listed.beam, listed.freq_hz)
    check = _with_all_sources(check, data, state, 0.0 if found is None else found.resolution_rad)
    log.note(_said(check) if found else "held-out sources: one source holds all the flux; the image decides")
    half_power = listed.beam.fwhm_rad(listed.freq_hz) / 2
    findings = findings_of(check, moved, half_power, carried(listed), listed.beam)
    if state.input_score is not None:
        before, after = state.input_score.chi2_heldout, state.last.chi2_heldout
        findings = weightiest_first((*unexplained(check, before, after), *findings))
    for finding in findings:
        log.note(finding.text)
    if found is not None:
        state = replace(state, heldout=found, sky_check=check, moved=moved)
    if findings:
        state = replace(state, findings=(*state.findings, *findings))
    return _ended(data, state, config, log)


def _said(check: SkyCheck) -> str:
    flux = f"{check.recovered.value:.2f} +- {check.recovered.error:.2f} of their catalogue flux"
    if check.taken > check.recovered.error:
        flux += f" (gains solved without them may take {100 * check.taken:.0f} %)"
    if not check.tells:
        return f"held-out sources: too weak to tell ({flux}); the image decides"
    if not check.n_sources:
        return f"held-out sources: {flux}"
    return (
        f"held-out sources: {flux}, {check.n_agreeing} of {check.n_sources} bright ones where and as bright "
        "as the catalogue has them"
    )


def _with_all_sources(
    check: SkyCheck, data: CalibrationData, state: CalState, resolution_rad: float
) -> SkyCheck:
    """Take trends over the sky from all sources after the gains of all of them, where these were measured.

    Gains hold a common flux and place, which is what sources are held out for, but neither a beam nor a
    rotation. What gains of one half do not know of the other disturbs its sources more than the noise does.
    """
    measured, listed = state.measured, data.catalog_model
    if measured is None or listed is None:
        return check
    good = measured.good
    ratio, error = measured.ratio[good], measured.ratio_error[good]
    shift, shift_error = measured.shift_rad[good], measured.shift_error[good]
    sky, middle = listed.sky.select(measured.index[good]), data.reader.pointing[len(data.reader.times) // 2]
    width, centre, central = beam_trends(
        ratio, error, sky.lmn(float(middle[0]), float(middle[1]))[:, :2], listed.beam, listed.freq_hz
    )
    rotation, stretch, shear = displacement(shift, shift_error, sky.lmn(*data.reader.phase_center)[:, :2])
    return replace(
        check,
        n_sources=measured.n_good,
        n_agreeing=int(
            np.count_nonzero(agreeing(ratio, error, shift, shift_error, AGREES_BEAMS * resolution_rad))
        ),
        beam_width=width,
        pointing_arcmin=centre,
        central_flux=central,
        rotation_deg=rotation,
        stretch=stretch,
        shear=shear,
    )


def _ended(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """End the run where a finding speaks against it; else the state itself."""
    against = next((f for f in state.findings if f.status), None)
    if against is None:
        return state
    check = state.sky_check
    untold = check is not None and not np.isfinite(check.beam_width.value)
    if against.kind in ("sky", "few", "recovered") or (against.kind == "beam_width" and untold):
        of_beam = _through_another_beam(data, state, config, log)
        if of_beam is not None:
            others = [f for f in state.findings if f is not against and not follows_from(of_beam, f)]
            against, state = of_beam, replace(state, findings=(of_beam, *others))
    if against.kind in ("sky", "few", "shifted") and state.sky_check is not None:
        named = _named(data, state, config, log, against)
        if named.kind in ("sky", "few"):
            # What says in which way it is another one says more.
            named = next((f for f in state.findings if f.kind == "rotated" and f.status), named)
        others = [f for f in state.findings if f not in (against, named) and not follows_from(named, f)]
        against, state = named, replace(state, findings=(named, *others))
    state = _at_plain_weights(data, state, log)
    rounds = tuple(replace(r, verdict=Verdict(False, against.text)) for r in state.rounds)
    state = replace(state, rounds=rounds, n_judged=len(rounds))
    kept = "refused" if against.status == "refused" else "input kept"
    outcome = Outcome(against.status, f"{kept}: {against.text}; the Measurement Set was not changed")
    return replace(initial_image(data, state, config, log), outcome=outcome)


def _at_plain_weights(data: CalibrationData, state: CalState, log: StageLog) -> CalState:
    """Give back their weight to antennas that a wrong sky made look noisy; the noise at these weights.

    Gains solved against a wrong sky make hands and dumps differ: the input itself may be quieter.
    """
    assert state.model is not None
    weights = state.weights.without_factors()
    with log.timed("measure"):
        residual = min(
            (data.measure_residual(state.model, weights, tables) for tables in (state.last.tables, ())),
            key=lambda found: (not found.noise.known, found.noise),
        )
    return replace(state, weights=weights, noise=residual.noise, noise_bounds=residual.bounds)


def _gradient(data: CalibrationData, state: CalState) -> PhaseGradient:
    """How far the gains of the newest round move the sky."""
    tables = [t for t in state.last.tables if t.kind != "B Jones"]
    spw = data.spw_ids[len(data.spw_ids) // 2]
    gain, solved = gains_at_times(tables, [spw], data.reader.times, len(data.reader.ms.antennas))
    wavelength = SPEED_OF_LIGHT / float(np.mean(data.reader.ms.spectral_window(spw).freq_hz))
    return phase_gradient(gain[0], solved[0], data.reader.antenna_uv() / wavelength)


def _named(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, finding: Finding
) -> Finding:
    """Name the cause: whether the sky is the catalogue's in a mirror."""
    listed = data.catalog_model
    assert listed is not None
    middle = data.reader.pointing[len(data.reader.times) // 2]
    assert state.sky_check is not None
    listed_fraction = float(np.nan_to_num(state.sky_check.phased.value))
    best, cause = max(MIRRORED, listed_fraction + CLEARLY_MORE), ""
    for (east, north), words in MIRRORS.items():
        model = _mirrored(listed, east, north, data.reader.phase_center)
        first = halves(model, model, (float(middle[0]), float(middle[1])), data.resolution_rad)
        found = recovered_halves(data, state, config, model, model, first, log)
        fraction = max((h.fraction for h in found if h.expected > MIRRORED), default=0.0)
        if fraction > best:
            best, cause = fraction, words
    if cause:
        said = f"held-out sources have {listed_fraction:.2f} of their catalogue flux, {best:.2f} if mirrored"
        text = f"{said}: the sky is the catalogue's, {cause}: check the sign of UVW"
        return replace(finding, kind="mirrored", text=text)
    if finding.kind == "shifted":
        return finding
    text = f"{finding.text}; another field, phase centre or time? check the field, the coordinates and UVW"
    return replace(finding, text=text)


def _through_another_beam(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> Finding | None:
    """Say that the sky is the catalogue's through a beam of quite another width; None if it is not."""
    listed, check = data.catalog_model, state.sky_check
    if listed is None or check is None or listed.own_model is not None:
        # A model of the user's own says what it wants of the beam.
        return None
    middle = data.reader.pointing[len(data.reader.times) // 2]
    best, name = abs(np.log(np.clip(np.nan_to_num(check.phased.value), 1e-3, 1e3))), None
    said = ""
    measured = (check.beam_width.value,) if absurd_width(check.beam_width) else ()
    for width in (*measured, *OTHER_WIDTHS):
        if width < 1 < check.phased.value:
            # More flux than the catalogue's is none that a narrower beam leaves.
            continue
        try:
            model = build_catalog_model(
                data.reader.pointing,
                data.reader.freq_hz,
                listed.beam.widened(width),
                catalog=config.catalog,
                catalog_dir=config.catalog_dir,
                min_mjy=config.nvss_min_mjy,
                min_apparent_mjy=config.seed_min_apparent_mjy,
                spectral_index=config.spectral_index,
                index_from=config.index_from,
            )
        except (CatalogError, SeedError):
            # Nothing can be said of it.
            continue
        first = halves(model, model, (float(middle[0]), float(middle[1])), data.resolution_rad)
        found = recovered_halves(data, state, config, model, model, first, log)
        told = [h.fraction for h in found if h.expected > MIRRORED]
        off = max((abs(np.log(np.clip(f, 1e-3, 1e3))) for f in told), default=np.inf)
        if len(told) == len(found) > 1 and off < min(best, AS_LISTED):
            best, name = off, width
            fraction = float(np.exp(np.log(told).mean()))
            said = f"held-out sources have {check.phased.value:.2f} of their catalogue flux, {fraction:.2f}"
    if name is None:
        return None
    size = listed.beam.diameter_m / name if isinstance(listed.beam, RoundBeam) else None
    remedy = (
        "check the beam file"
        if size is None
        else f"check DISH_DIAMETER, or give --dish-diameter-m {size:.2g}"
    )
    times = f"{name:.2g} times wider" if name > 1 else f"{1 / name:.2g} times narrower"
    text = f"{said} through a beam about {times} than that of {size_of_beam(listed.beam)}: {remedy}"
    return Finding("beam_width", text, "refused")


def _mirrored(listed: ApparentSky, east: float, north: float, centre: tuple[float, float]) -> ApparentSky:
    """Negate direction cosines about the phase centre; Gaussians in one mirror lean the other way."""
    lm = listed.sky.lmn(*centre)[:, :2]
    seen = np.hypot(*lm.T) < 1
    ra, dec = radec_from_lm(east * lm[seen, 0], north * lm[seen, 1], *centre)
    some = listed.sky.select(seen)
    lean = some.pa_rad * east * north
    sky = replace(some, ra_rad=np.asarray(ra), dec_rad=np.asarray(dec), pa_rad=lean)
    return replace(listed, sky=sky, apparent_jy=listed.apparent_jy[seen])
