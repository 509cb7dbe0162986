"""A dominant source that is no point gets its structure, two points or a Gaussian, before all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.structure_fit import DoubleFit, GaussianFit, fit_double, fit_gaussian
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.source_measurement import fit_sources
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.bandpass import first_solution
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import better_with, improvement
from dsa110_contimg.sky import ApparentSky, radec_from_lm
from dsa110_contimg.sky.apparent_sky import PART, joined
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["resolve_bright"]

#: A model that leaves less than this times the noise is good enough as it is.
LEAVES_MUCH = 2.0
#: The brightest source outshines its field where it has this part of the sum of the squared fluxes.
DOMINANT = 0.3
#: Two points, or a Gaussian, are tried where they leave less than this of the scatter of the amplitudes about
#: one point.
WORTH_TRYING = 0.8
#: They are kept where the held-out chi-squared falls by this factor.
WORTHWHILE = 1.1
#: No point has less of the flux than this.
LEAST_SHARE = 0.02
#: They are fitted to the calibrated data this often at most, while chi-squared falls by this factor.
MOST_REFINEMENTS, WORTH_REFINING = 5, 1.02
#: What is left of the single source, so that it keeps its place in the list.
REST = 1e-4


def resolve_bright(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Put what amplitudes and held-out channels ask for in place of a dominant source that is no point.

    Before weights, bandpass and sources are looked at: gains that bend to a wrong model of what outshines
    the field make all of these wrong.

    Returns
    -------
    CalState
        With two points, or a Gaussian, in its sky model and among its components. Else the state handed in,
        itself, or what was solved against the catalogue on the way: where the next stage would begin.
    """
    listed = data.catalog_model
    if listed is None:
        return state
    brightest = int(np.argmax(listed.apparent_jy))
    if listed.apparent_jy[brightest] ** 2 < DOMINANT * float((listed.apparent_jy**2).sum()):
        return state
    single = first_solution(data, state, config, log)
    if single.last.chi2_heldout < LEAVES_MUCH:
        return single
    with log.timed("measure"):
        amplitudes = _amplitudes(data, single, listed, brightest)
        double, gaussian = fit_double(*amplitudes), fit_gaussian(*amplitudes)
    best, said = single, ""
    if gaussian is not None and gaussian.unexplained <= WORTH_TRYING:
        best, said = _with_gaussian(data, best, listed, brightest, gaussian, config, log)
    if double is not None and double.unexplained <= WORTH_TRYING and double.share >= LEAST_SHARE:
        other = _with_double(data, best, listed, brightest, double, config, log)
        apart = float(np.hypot(*double.separation_rad)) / ARCSEC
        said = said if other is best and said else f"two points {apart:.0f} arcsec apart"
        best = other
    if not said:
        return single
    kept = best is not single and improvement(single, best) > WORTHWHILE
    log.note(
        f"{listed.sky.name[brightest]}, the brightest source: {said} "
        f"{'in its place' if kept else 'would not explain more'}, held-out chi2 "
        f"{single.last.chi2_heldout:.5g} -> {single.last.chi2_heldout / improvement(single, best):.5g}"
    )
    # The stages that follow begin anew, with this sky model.
    return replace(state, model=best.model, components=best.components) if kept else single


def _with_double(
    data: CalibrationData,
    state: CalState,
    listed: ApparentSky,
    brightest: int,
    fit: DoubleFit,
    config: SelfCalConfig,
    log: StageLog,
) -> CalState:
    """Put two points in the place of a source; the state itself if these do not explain more."""
    rest, best = _without(listed, brightest), state
    # Amplitudes do not tell which of the two is the brighter one.
    for sign in (1.0, -1.0):
        best = _better_with(data, best, rest, _pair(listed, brightest, fit, sign, data), config, log)
    for _ in range(MOST_REFINEMENTS):
        if best is state:
            break
        refined = _better_with(data, best, rest, _refined(data, best, log), config, log)
        if refined is best or improvement(best, refined) < WORTH_REFINING:
            break
        best = refined
    return best


def _with_gaussian(
    data: CalibrationData,
    state: CalState,
    listed: ApparentSky,
    brightest: int,
    fit: GaussianFit,
    config: SelfCalConfig,
    log: StageLog,
) -> tuple[CalState, str]:
    """Put a Gaussian in the place of a source, and say which; the state itself if it explains no more."""
    rest = _without(listed, brightest)
    best = _better_with(data, state, rest, _gaussian(listed, brightest, fit), config, log)
    for _ in range(MOST_REFINEMENTS):
        if best is state:
            break
        with log.timed("measure"):
            # Amplitudes that gains have corrected scatter less.
            again = fit_gaussian(*_amplitudes(data, best, listed, brightest, best.last.tables))
        if again is None:
            break
        refined = _better_with(data, best, rest, _gaussian(listed, brightest, again), config, log)
        if refined is best:
            break
        gained, best, fit = improvement(best, refined), refined, again
        if gained < WORTH_REFINING:
            break
    return best, f"a Gaussian of {fit.major_rad / ARCSEC:.0f} by {fit.minor_rad / ARCSEC:.0f} arcsec"


def _better_with(
    data: CalibrationData,
    state: CalState,
    rest: ApparentSky,
    parts: ApparentSky,
    config: SelfCalConfig,
    log: StageLog,
) -> CalState:
    trial = better_with(data, state, joined(rest, parts), config, log)
    return state if trial is state else replace(trial, components=parts)


def _refined(data: CalibrationData, state: CalState, log: StageLog) -> ApparentSky:
    """Move and scale the two points to where and how bright the calibrated data have them."""
    model, pair = state.sky_model, state.components
    assert model is not None
    assert pair is not None
    assert isinstance(state.model, SkyVisibilities)
    chosen = np.arange(len(model) - len(pair), len(model))
    with log.timed("measure"):
        noise, tables = state.noise_and_sidelobes, state.last.tables
        fit = fit_sources(data, state.weights, state.model, tables, model, chosen, noise)
    factor = np.maximum(fit.ratio, LEAST_SHARE)
    # Gains and catalogue share one flux scale: what both points have together stays.
    factor *= float(pair.apparent_jy.sum() / (pair.apparent_jy * factor).sum())
    centre = data.reader.phase_center
    flux = pair.apparent_jy * factor
    # And so does their centroid, which the gains would follow.
    middle = (flux[:, None] * fit.shift_rad).sum(axis=0) / flux.sum()
    old, new = pair.apparent_jy / pair.apparent_jy.sum(), flux / flux.sum()
    middle = middle + (new - old) @ pair.sky.lmn(*centre)[:, :2]
    lm = pair.sky.lmn(*centre)[:, :2] + fit.shift_rad - middle
    ra, dec = radec_from_lm(lm[:, 0], lm[:, 1], *centre)
    sky = replace(pair.sky, ra_rad=ra, dec_rad=dec, flux_jy=pair.sky.flux_jy * factor)
    return replace(pair, sky=sky, apparent_jy=flux)


def _amplitudes(
    data: CalibrationData,
    state: CalState,
    listed: ApparentSky,
    brightest: int,
    tables: Sequence[GainTable] | None = None,
) -> tuple[Float, Float, Float]:
    """Baselines in wavelengths, squared amplitudes in units of a source's flux, less noise, and weights.

    Of the data after the bandpass of a state, or after other tables.
    """
    one, none = _only(listed, brightest), np.zeros(1)
    # A point, whatever size the catalogue has: the whole structure is in the amplitudes then.
    point = replace(one.sky, major_rad=none, minor_rad=none, pa_rad=none)
    alone = SkyVisibilities(replace(one, sky=point))
    source = data.gather(alone, state.weights, state.bandpass if tables is None else tables).statistics
    cross, model = source.cross.sum(axis=0), source.model.sum(axis=0)
    uv_m = data.reader.antenna_uv()[:, : source.n_antennas]
    baselines_m = uv_m[:, source.antenna2] - uv_m[:, source.antenna1]
    placed = np.isfinite(baselines_m[:, :, 0]) & np.isfinite(baselines_m[:, :, 1])
    known = (model > 0) & placed[:, :, None]
    norm = np.where(known, model, 1.0)
    power = np.abs(cross / norm) ** 2 - state.noise.variance / norm
    freq = [float(np.mean(data.reader.ms.spectral_window(s).freq_hz)) for s in source.spw_ids]
    uv = np.multiply.outer(np.array(freq) / SPEED_OF_LIGHT, np.nan_to_num(baselines_m))
    each = np.broadcast_to(uv[:, :, :, None], (*known.shape, 2)).reshape(-1, 2)
    return each, power.reshape(-1), known.reshape(-1).astype(np.float64)


def _only(listed: ApparentSky, which: int) -> ApparentSky:
    chosen = np.array([which])
    return replace(listed, sky=listed.sky.select(chosen), apparent_jy=listed.apparent_jy[chosen])


def _without(listed: ApparentSky, which: int) -> ApparentSky:
    """Take nearly all the flux of a source out of a list."""
    factor = np.ones(len(listed))
    factor[which] = REST
    sky = replace(listed.sky, flux_jy=listed.sky.flux_jy * factor)
    return replace(listed, sky=sky, apparent_jy=listed.apparent_jy * factor)


def _gaussian(listed: ApparentSky, which: int, fit: GaussianFit) -> ApparentSky:
    """Make a Gaussian at the place of a source, with its flux."""
    one = _only(listed, which)
    shaped = replace(
        one.sky,
        name=(f"{one.sky.name[0]}{PART}0",),
        major_rad=np.array([fit.major_rad]),
        minor_rad=np.array([fit.minor_rad]),
        pa_rad=np.array([fit.pa_rad]),
    )
    return replace(one, sky=shaped)


def _pair(listed: ApparentSky, which: int, fit: DoubleFit, sign: float, data: CalibrationData) -> ApparentSky:
    """Make two points about the place of a source, with its flux and its centroid."""
    one, centre = _only(listed, which), data.reader.phase_center
    lm, apart = one.sky.lmn(*centre)[0, :2], sign * np.asarray(fit.separation_rad)
    share = np.array([fit.share, 1 - fit.share])
    places = lm + np.stack([(1 - fit.share) * apart, -fit.share * apart])
    ra, dec = radec_from_lm(places[:, 0], places[:, 1], *centre)
    two = replace(
        one.sky.select(np.zeros(2, dtype=int)),
        name=tuple(f"{one.sky.name[0]}{PART}{k}" for k in range(2)),
        ra_rad=ra,
        dec_rad=dec,
        flux_jy=float(one.sky.flux_jy[0]) * share,
        major_rad=np.zeros(2),
        minor_rad=np.zeros(2),
        pa_rad=np.zeros(2),
    )
    return replace(one, sky=two, apparent_jy=float(one.apparent_jy[0]) * share)
