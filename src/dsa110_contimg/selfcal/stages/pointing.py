"""Where each antenna points: offsets from the same sums as the gains, kept if held-out data gain by them.

An antenna gain cannot follow what differs across the field. Offsets are fitted to what the sky model leaves
of the calibrated data, again and again with the beams displaced by those found so far, until they no longer
change; then the gains are solved again. A squint that is common to all antennas is found from the same sums,
and kept if the visibilities that it is not from gain by it.

What is independent of what: visibilities are in two halves, which alternate over channels, baselines and
dumps. Offsets from one half are fitted to data that are calibrated with gains solved on the same half alone;
through these beams gains are solved on it again, and the other half, of which neither the offsets nor any of
these gains know, judges them, both ways round. So it is with the sources: offsets from one half of them have
to predict the other half, on the other half of the visibilities. Common to both halves, and so not
independent, is what offsets are tried on: the sky model with its fluxes, among them the two numbers of the
offset that all antennas share, the bandpass and the weights. The offsets that are delivered are from both
halves; of what is said of channels held out later on they are not independent, but of the tenth of the data
that no step uses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.calibration.pointing import AXES, PointingFit, fit_pointing
from dsa110_contimg.calibration.squint import SquintFit, fit_squint
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import TREND_SIGMAS
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.pointing_statistics import (
    OfHalves,
    centre_of,
    gains_of_halves,
    gather_pointing,
    judged_on_halves,
)
from dsa110_contimg.selfcal.sky_check import beam_trends
from dsa110_contimg.selfcal.solve_round import make_solver
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import better_with, improvement, solved_against
from dsa110_contimg.sky import AntennaBeams, ApparentSky
from dsa110_contimg.sky.apparent_sky import response_ratio, through_beams

__all__ = ["pointing"]

#: Offsets are fitted again, with the beams displaced by the last ones, at most this often, or until they move
#: by less than this fraction of the beam's width, rms. Where they moved by the other one, all that is done
#: again after the gains were solved anew, as often at most.
MOST_ITERATIONS, SETTLED, SETTLED_AGAIN = 4, 4e-3, 0.03
#: Width of the Gaussian prior on an offset, in units of the beam's width: more than any dish is off. It holds
#: antennas with hardly any data.
PRIOR_WIDTH = 0.25
#: Held-out chi-squared of other sources has to fall by this: noise alone makes it rise.
LEAST_GAIN = 25.0
#: One block of the data in so many is looked at first, where that leaves `LEAST_BLOCKS`: offsets whose
#: squares are there not this many times what their errors make them cannot lower the chi-squared of all data
#: by `LEAST_GAIN` more than noise raises it.
LOOKED_AT, LEAST_BLOCKS, LEAST_EXCESS = 4, 8, 1.3
#: Standard errors by which a squint counts, of a part of the data as of all, and a further step of it.
SQUINT_SIGMAS, AGAIN_SIGMAS = 4.0, 2.0
#: It is settled when a step is less than this part of it.
SQUINT_SETTLED = 0.01
#: What is within its errors is left out where held-out chi-squared rises by less than this part.
AS_GOOD = 1e-4


def pointing(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve for the antennas' pointing offsets, and look at the sky through beams that point there.

    Returns
    -------
    CalState
        Solved against the sky model through the antennas' own beams; the state itself where held-out channels
        or held-out sources do not gain by it.
    """
    sky = state.sky_model
    asked = config.pointing != "off" and data.catalog_model is not None
    if not asked or sky is None or not (state.last.verdict.accepted and state.noise.known):
        return state
    assert isinstance(state.model, SkyVisibilities)
    assert data.catalog_model is not None
    listed = data.catalog_model
    if listed.sky.apparent.any():
        log.note("pointing of the antennas: not looked for, as the fluxes of the model hold the beam")
        return state
    off = squinted = True
    if data.n_blocks >= LOOKED_AT * LEAST_BLOCKS:
        own_gains = gains_of_halves(make_solver(data, state, config), state)
        seen = _fitted(data, state, log, state.model, listed, own_gains, every=LOOKED_AT)
        off, squinted = _excess(seen.pointing) >= LEAST_EXCESS, _beyond(seen.squint)
        if not off:
            log.note(
                "pointing of the antennas: a part of the data shows no offsets beyond their errors "
                f"({_known_to(seen.pointing):.3f} deg each): the beams are left as they are"
            )
    if not (off or squinted):
        return state
    own_gains = gains_of_halves(make_solver(data, state, config), state)
    first: _Fit | None = _fitted(data, state, log, state.model, listed, own_gains)
    if squinted:
        # Before the offsets, which it makes a little wrong.
        apart = _with_squint(data, state, config, log, listed, first)
        first, state = first if apart is state else None, apart
    if off:
        moved = _with_offsets(data, state, config, log, listed, first)
        return _with_squint(data, moved, config, log, listed) if squinted and moved is not state else moved
    return state


def _with_offsets(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    listed: ApparentSky,
    first: _Fit | None,
) -> CalState:
    """Look at the sky through beams that point where they are found to, if that is better.

    Parameters as of the stage; `first` is the fit to what the state leaves, if that is known.
    """
    sky = state.sky_model
    assert sky is not None
    for _ in range(MOST_ITERATIONS):
        own_gains = gains_of_halves(make_solver(data, state, config), state)
        found = _settled(data, state, log, listed, own_gains, first)
        first, fit = None, found.first
        if state.pointing is not None and not fit.gain >= LEAST_GAIN:
            break
        if not fit.gain >= LEAST_GAIN:
            log.note(
                "pointing of the antennas: held-out sources are not predicted better with offsets (known to "
                f"{_known_to(fit):.3f} deg each): the beams are left as they are"
            )
            return state
        assert state.sky_model is not None
        moved, *of_halves = (
            _with_common_offset(data, state, replace(state.sky_model, antenna_beams=beams), fit.known)
            for beams in (found.beams, *found.of_halves)
        )
        scores = judged_on_halves(data, state, config, log, of_halves)
        better = scores[1] < scores[0]
        trial = better_with(data, state, moved, config, log) if better else state
        assert moved.antenna_beams is not None
        log.note(_said(moved.antenna_beams, fit, scores, kept=trial is not state))
        if trial is state:
            break
        state = replace(trial, pointing=fit, measured=None)
        if found.moved_rad < SETTLED_AGAIN * sky.beam.fwhm_rad(sky.freq_hz):
            break
    return state


def _with_squint(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    listed: ApparentSky,
    first: _Fit | None = None,
) -> CalState:
    """Look at the sky through receptors that point off to either side, if that is better.

    Parameters as of the stage; `first` is the fit to what the state leaves, if that is known.
    """
    for step in range(MOST_ITERATIONS):
        assert isinstance(state.model, SkyVisibilities)
        sky = state.model.sky
        if first is None:
            own_gains = gains_of_halves(make_solver(data, state, config), state)
            first = _fitted(data, state, log, state.model, listed, own_gains)
        squint, first = first.squint, None
        beams = sky.antenna_beams or AntennaBeams(offset_rad=np.zeros((len(data.reader.ms.antennas), AXES)))
        had = np.zeros(AXES) if beams.squint_rad is None else beams.squint_rad
        if had.any() and not _beyond(replace(squint, squint_rad=had + squint.squint_rad)):
            return _without_squint(data, state, config, log, replace(beams, squint_rad=None))
        # Gains have taken some of it: what they leave of a step is less the smaller it is.
        again = step > 0 and _beyond(squint, AGAIN_SIGMAS) and squint.gain > 0
        if not (again or (_beyond(squint) and squint.gain >= LEAST_GAIN)):
            break
        moved, *of_halves = (
            replace(sky, antenna_beams=replace(beams, squint_rad=had + more))
            for more in (squint.squint_rad, *squint.of_half_rad)
        )
        scores = judged_on_halves(data, state, config, log, of_halves)
        trial = better_with(data, state, moved, config, log) if scores[1] < scores[0] else state
        (east, north), error = np.degrees(had + squint.squint_rad), np.degrees(np.max(squint.error_rad))
        log.note(
            f"squint: the first receptor points {east:+.3f} deg east and {north:+.3f} north of the second, "
            f"known to {error:.3f}; chi2 held out from both squint and gains {scores[0]:.5g} -> "
            f"{scores[1]:.5g}: {'left out' if trial is state else 'kept'}"
        )
        if trial is state:
            break
        # Sources are measured in Stokes I, from which a squint drops out: what was measured of them holds,
        # and tells what the offsets that come next have in common.
        state = trial
        if np.hypot(*squint.squint_rad) < SQUINT_SETTLED * np.hypot(*(had + squint.squint_rad)):
            break
    return state


def _without_squint(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, beams: AntennaBeams
) -> CalState:
    """Look at the sky through beams without a squint, which is within its errors, if that is as good.

    Offsets of the antennas make a small one, which is gone once they are followed.
    """
    assert state.sky_model is not None
    plain = replace(state.sky_model, antenna_beams=beams if beams.offset_rad.any() else None)
    trial = solved_against(data, state, plain, config, log)
    as_good = trial.last.verdict.accepted and improvement(state, trial) > 1 - AS_GOOD
    log.note(f"squint: within its errors, {'left out' if as_good else 'which predicts held-out data better'}")
    return replace(trial, measured=state.measured) if as_good else state


def _beyond(squint: SquintFit, sigmas: float = SQUINT_SIGMAS) -> bool:
    """Whether a squint is beyond its errors."""
    return bool(np.hypot(*(squint.squint_rad / squint.error_rad)) > sigmas)


def _with_common_offset(data: CalibrationData, state: CalState, sky: ApparentSky, known: Bool) -> ApparentSky:
    """Give the beams the common offset that the sources' fluxes ask for, in the place of that of the fit.

    Where sources were scaled to what was measured of them, one by one, they have taken it up: what is fitted
    to them has none. It shows in the trend of these fluxes against the catalogue's over the field, to which
    each source counts alike.
    """
    measured, listed, found = state.measured, data.catalog_model, sky.antenna_beams
    if found is None or listed is None or state.sky_model is None:
        return sky
    centre = centre_of(data)
    # The fluxes were measured through the beams that the state has.
    before = state.sky_model
    had = np.zeros(AXES) if before.antenna_beams is None else before.antenna_beams.common_rad
    # What scaled sources hide is the mean: beams of all pairs of antennas add up to it. A median is not that.
    mean = found.offset_rad[known].mean(axis=0)
    own = np.where(known[:, None], found.offset_rad - mean, 0.0)
    if measured is None:
        common = mean if state.flux_scale is None else had
        return through_beams(before, _moved(before, own + common), *centre)
    good = measured.index[measured.good]
    trends = beam_trends(
        measured.ratio[measured.good],
        measured.ratio_error[measured.good],
        listed.sky.select(good).lmn(*centre)[:, :2],
        listed.beam,
        listed.freq_hz,
    )
    off = np.array([axis.value for axis in trends[1]])
    error = np.array([axis.error for axis in trends[1]])
    told = np.hypot(*off) > TREND_SIGMAS * np.hypot(*error) / np.sqrt(2)
    beams = _moved(before, own + had + (np.radians(off / 60) if told else 0.0))
    # Sources that were scaled to what was measured of them stay as bright in the data.
    factor = np.ones(len(before))
    factor[good] = 1 / response_ratio(before, beams, *centre)[good]
    moved = through_beams(before, beams, *centre)
    scaled_sky = replace(moved.sky, flux_jy=moved.sky.flux_jy * factor)
    return replace(moved, sky=scaled_sky, apparent_jy=moved.apparent_jy * factor)


def _moved(sky: ApparentSky, offset_rad: Float) -> AntennaBeams:
    """Beams of antennas with other offsets, and the squint that they have."""
    squint = None if sky.antenna_beams is None else sky.antenna_beams.squint_rad
    return AntennaBeams(offset_rad=offset_rad, squint_rad=squint)


@dataclass(frozen=True, eq=False)
class _Fit:
    """What a model leaves, fitted."""

    pointing: PointingFit
    squint: SquintFit


@dataclass(frozen=True, kw_only=True, eq=False)
class _Settled:
    """Offsets that no longer change.

    Attributes
    ----------
    beams : AntennaBeams
        With the offsets found.
    of_halves : tuple of AntennaBeams
        With those from either half of the visibilities alone.
    first : PointingFit
        The first fit: of what the model that the gains were solved against leaves.
    moved_rad : float
        By how much the offsets changed in all, radians rms.
    """

    beams: AntennaBeams
    of_halves: tuple[AntennaBeams, AntennaBeams]
    first: PointingFit
    moved_rad: float


def _settled(
    data: CalibrationData,
    state: CalState,
    log: StageLog,
    listed: ApparentSky,
    own_gains: OfHalves,
    first: _Fit | None,
) -> _Settled:
    """Fit offsets with the beams at the last ones, at the same gains, until they stay."""
    sky, model = state.sky_model, state.model
    assert sky is not None
    assert isinstance(model, SkyVisibilities)
    n = len(data.reader.ms.antennas)
    start = np.zeros((n, AXES)) if sky.antenna_beams is None else sky.antenna_beams.offset_rad
    offset, before, fits = start, start, list[PointingFit]()
    for _ in range(MOST_ITERATIONS):
        fit = (first or _fitted(data, state, log, model, listed, own_gains)).pointing
        first = None
        fits.append(fit)
        if not fits[0].gain >= LEAST_GAIN:
            break
        before, offset = offset, np.where(fit.known[:, None], offset + fit.offset_rad, 0.0)
        model = SkyVisibilities(replace(sky, antenna_beams=_moved(sky, offset)))
        if _rms(fit.offset_rad[fit.known]) < SETTLED * sky.beam.fwhm_rad(sky.freq_hz):
            break
    # What a half alone asks for does not depend on where it is asked, to first order.
    even, odd = (
        _moved(sky, np.where(fits[-1].known[:, None], before + of_half, 0.0))
        for of_half in fits[-1].of_half_rad
    )
    return _Settled(
        beams=_moved(sky, offset),
        of_halves=(even, odd),
        first=fits[0],
        moved_rad=_rms((offset - start)[fits[0].known]),
    )


def _fitted(
    data: CalibrationData,
    state: CalState,
    log: StageLog,
    model: SkyVisibilities,
    listed: ApparentSky,
    own_gains: OfHalves,
    every: int = 1,
) -> _Fit:
    """Fit offsets and squint to what a sky model leaves of one block of the data in `every`."""
    prior_rad = PRIOR_WIDTH * model.sky.beam.fwhm_rad(model.sky.freq_hz)
    tables = tuple((*state.bandpass, *of_half) for of_half in own_gains)
    with log.timed("measure"):
        statistics = gather_pointing(data, model, state.weights, tables, listed, every)
        variance = state.noise.variance / 2
        return _Fit(fit_pointing(statistics, variance, prior_rad), fit_squint(statistics, variance))


def _excess(fit: PointingFit) -> float:
    """Mean square of the offsets over their errors: one where there are none, zero where none is known."""
    if not fit.known.any():
        return 0.0
    return float(np.mean(np.square(fit.offset_rad[fit.known] / fit.error_rad[fit.known])))


def _known_to(fit: PointingFit) -> float:
    """Typical error of an offset, degrees."""
    return float(np.degrees(np.median(fit.error_rad[fit.known]))) if fit.known.any() else np.inf


def _rms(values: Float) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _said(beams: AntennaBeams, fit: PointingFit, scores: tuple[float, float], *, kept: bool) -> str:
    known = fit.known
    return (
        f"pointing of the antennas: off by {np.degrees(_rms(beams.offset_rad[known])):.3f} deg rms in each "
        f"direction, known to {np.degrees(np.median(fit.error_rad[known])):.3f}; chi2 held out from both "
        f"offsets and gains {scores[0]:.5g} -> {scores[1]:.5g}: {'kept' if kept else 'left out'}"
    )
