"""Held-out sources: a sky that is not the catalogue's ends the run, with the likely cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.phase_gradient import PhaseGradient, delay_gradient, phase_gradient
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.acceptance import MIN_SOLVED_FRACTION
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import (
    LEAVES_MUCH,
    Finding,
    carried,
    findings_of,
    follows_from,
    unexplained,
    weightiest_first,
)
from dsa110_contimg.selfcal.heldout_sources import (
    halves,
    measure_heldout_sources,
    recovered_halves,
)
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.other_widths import other_width, try_widths
from dsa110_contimg.selfcal.sky_check import (
    AGREES_BEAMS,
    Estimate,
    SkyCheck,
    agreeing,
    beam_trends,
    check_sky,
    displacement,
)
from dsa110_contimg.selfcal.solve_round import gather, solve_rounds
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.acceptance import initial_image
from dsa110_contimg.selfcal.state import CalState, Outcome, Verdict
from dsa110_contimg.sky import ApparentSky, radec_from_lm
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT

__all__ = ["check_sources"]

#: Beams of other widths are tried where the gains leave more than this of channels held out, in units of
#: thermal variance, or where sources speak against the sky or the beam in one of these kinds.
DOUBTFUL_CHI2 = 1.3
DOUBTFUL = frozenset(("sky", "few", "recovered", "shifted", "beam_width"))
#: Kinds that a distortion of the sky model takes up.
DISPLACED = frozenset(("stretched", "sheared"))
#: Ways in which coordinates go wrong: factors on l and m, and what is said of them.
MIRRORS = {
    (-1.0, 1.0): "mirrored in right ascension",
    (1.0, -1.0): "mirrored in declination",
    (-1.0, -1.0): "mirrored through the phase centre",
}
#: A mirrored sky is the one seen where it recovers at least this fraction of the flux.
MIRRORED, CLEARLY_MORE = 0.6, 0.2
#: And where it leaves at most this part of what the catalogue leaves beside noise.
MIRROR_LEAVES = 0.5


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
    check = _with_common_offset(check, state, listed)
    if state.last.chi2_heldout > LEAVES_MUCH:
        # Faint sources say little for gains that leave much of the data unexplained.
        check = replace(check, together=Estimate())
    half_power = listed.beam.fwhm_rad(listed.freq_hz) / 2
    findings = findings_of(
        check,
        moved,
        half_power,
        carried(listed),
        listed.beam,
        delay_gradient(state.bandpass, data.reader.antenna_uv()),
    )
    if state.input_score is not None:
        before, after = state.input_score.chi2_heldout, state.last.chi2_heldout
        findings = weightiest_first((*unexplained(check, before, after), *findings))
    if state.last.chi2_heldout > DOUBTFUL_CHI2 or any(f.kind in DOUBTFUL for f in findings):
        findings = _with_width(findings, data, state, config, log)
    if state.distortion is not None:
        findings = tuple(
            replace(f, text=f"{f.text}; the sky model follows it") if f.kind in DISPLACED else f
            for f in findings
        )
    for finding in findings:
        log.note(finding.text)
    if found is not None:
        state = replace(state, heldout=found, sky_check=check, moved=moved)
    if findings:
        state = replace(state, findings=(*state.findings, *findings))
    return _ended(data, state, config, log)


def _with_width(
    findings: tuple[Finding, ...],
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
) -> tuple[Finding, ...]:
    """Say in the place of what follows from it that the beam is of another width, if that is so."""
    assert data.catalog_model is not None
    trials = try_widths(data, state, config, log)
    other = other_width(trials, data.catalog_model.beam, correctable=not config.solve_beam_width)
    if other is None or (not other.status and any(f.kind == other.kind for f in findings)):
        # What the sources say of a width that is a little off is known better.
        return findings
    return weightiest_first((other, *(f for f in findings if not follows_from(other, f))))


def _with_common_offset(check: SkyCheck, state: CalState, listed: ApparentSky) -> SkyCheck:
    """Say where the beam is found to point with the offset that all antennas were found to have.

    The fluxes were measured through beams that have it. What the mean of dishes that differ is off by is
    uncertain by chance, too.
    """
    beams = None if state.sky_model is None else state.sky_model.antenna_beams
    told = all(np.isfinite([at.value, at.error]).all() for at in check.pointing_arcmin)
    if beams is None or beams is listed.antenna_beams or not told:
        return check
    had = np.zeros(2) if listed.antenna_beams is None else listed.antenna_beams.common_rad
    minutes = np.degrees(beams.common_rad - had) * 60
    own = beams.offset_rad - beams.common_rad
    chance = float(np.degrees(np.sqrt(np.mean(own**2) / len(own))) * 60)
    centre = tuple(
        Estimate(float(left.value + off), float(np.hypot(left.error, chance)))
        for left, off in zip(check.pointing_arcmin, minutes, strict=True)
    )
    return replace(check, pointing_arcmin=(centre[0], centre[1]))


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
    lm = sky.lmn(*data.reader.phase_center)[:, :2]
    rotation, stretch, shear = displacement(shift, shift_error, lm)
    # Of a field that is seen distorted a source is in its place if it is where that puts it.
    own = shift if state.distortion is None else shift - state.distortion.shift_rad(lm)
    return replace(
        check,
        n_sources=measured.n_good,
        n_agreeing=int(
            np.count_nonzero(agreeing(ratio, error, own, shift_error, AGREES_BEAMS * resolution_rad))
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
    best, cause, seen = max(MIRRORED, listed_fraction + CLEARLY_MORE), "", listed
    for (east, north), words in MIRRORS.items():
        model = _mirrored(listed, east, north, data.reader.phase_center)
        first = halves(model, model, (float(middle[0]), float(middle[1])), data.resolution_rad)
        found = recovered_halves(data, state, config, model, model, first, log)
        fraction = max((h.fraction for h in found if h.expected > MIRRORED), default=0.0)
        if fraction > best:
            best, cause, seen = fraction, words, model
    if cause and _explains_more(data, state, config, log, (listed, seen)):
        said = f"held-out sources have {listed_fraction:.2f} of their catalogue flux, {best:.2f} if mirrored"
        text = f"{said}: the sky is the catalogue's, {cause}: check the sign of UVW"
        return replace(finding, kind="mirrored", text=text)
    if finding.kind == "shifted":
        return finding
    text = f"{finding.text}; another field, phase centre or time? check the field, the coordinates and UVW"
    return replace(finding, text=text)


def _explains_more(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    models: Sequence[ApparentSky],
) -> bool:
    """Whether the second of two skies leaves clearly less of channels held out.

    The brightest few of a sky may lie as in a mirror of it.
    """
    # What a wrong sky made look like interference, or noisy, counts.
    plain = replace(state, weights=state.weights.as_found(), found_outliers={}, bandpass=())
    first, second = (
        solve_rounds(data, gather(data, plain, log, SkyVisibilities(model)), config, log).last.chi2_heldout
        for model in models
    )
    return second - 1 < MIRROR_LEAVES * (first - 1)


def _mirrored(listed: ApparentSky, east: float, north: float, centre: tuple[float, float]) -> ApparentSky:
    """Negate direction cosines about the phase centre; Gaussians in one mirror lean the other way."""
    lm = listed.sky.lmn(*centre)[:, :2]
    seen = np.hypot(*lm.T) < 1
    ra, dec = radec_from_lm(east * lm[seen, 0], north * lm[seen, 1], *centre)
    some = listed.sky.select(seen)
    lean = some.pa_rad * east * north
    sky = replace(some, ra_rad=np.asarray(ra), dec_rad=np.asarray(dec), pa_rad=lean)
    return replace(listed, sky=sky, apparent_jy=listed.apparent_jy[seen])
