"""Where each antenna points: offsets from the same sums as the gains, kept if held-out data gain by them.

An antenna gain cannot follow what differs across the field. Offsets are fitted to what the sky model leaves
of the calibrated data, again and again with the beams displaced by those found so far, until they no longer
change; then the gains are solved again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Vis
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.pointing import (
    AXES,
    PointingFit,
    PointingStatistics,
    accumulate_pointing,
    fit_pointing,
)
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationBlock, CalibrationData, parallel_hands
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.findings import TREND_SIGMAS
from dsa110_contimg.selfcal.heldout_sources import halves
from dsa110_contimg.selfcal.model_visibilities import (
    BeamGradient,
    SkyVisibilities,
    leading,
)
from dsa110_contimg.selfcal.sky_check import beam_trends
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import better_with
from dsa110_contimg.sky import AntennaBeams, ApparentSky
from dsa110_contimg.sky.apparent_sky import response_ratio, through_beams

__all__ = ["gather_pointing", "pointing"]

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
    if data.n_blocks >= LOOKED_AT * LEAST_BLOCKS:
        seen = _fitted(data, state, log, state.model, listed, every=LOOKED_AT)
        if not _excess(seen) >= LEAST_EXCESS:
            log.note(
                "pointing of the antennas: a part of the data shows no offsets beyond their errors "
                f"({_known_to(seen):.3f} deg each): the beams are left as they are"
            )
            return state
    for _ in range(MOST_ITERATIONS):
        beams, fit, step = _settled(data, state, log, listed)
        if state.pointing is not None and not fit.gain >= LEAST_GAIN:
            break
        if not fit.gain >= LEAST_GAIN:
            log.note(
                "pointing of the antennas: held-out sources are not predicted better with offsets (known to "
                f"{_known_to(fit):.3f} deg each): the beams are left as they are"
            )
            return state
        assert state.sky_model is not None
        moved = _with_common_offset(data, state, replace(state.sky_model, antenna_beams=beams), fit.known)
        trial = better_with(data, state, moved, config, log)
        assert moved.antenna_beams is not None
        log.note(_said(moved.antenna_beams, fit, state, trial))
        if trial is state:
            break
        state = replace(trial, pointing=fit, measured=None)
        if step < SETTLED_AGAIN * sky.beam.fwhm_rad(sky.freq_hz):
            break
    return state


def _with_common_offset(data: CalibrationData, state: CalState, sky: ApparentSky, known: Bool) -> ApparentSky:
    """Give the beams the common offset that the sources' fluxes ask for, in the place of that of the fit.

    Where sources were scaled to what was measured of them, one by one, they have taken it up: what is fitted
    to them has none. It shows in the trend of these fluxes against the catalogue's over the field, to which
    each source counts alike.
    """
    measured, listed, found = state.measured, data.catalog_model, sky.antenna_beams
    if found is None or listed is None or state.sky_model is None:
        return sky
    centre = _centre(data)
    # The fluxes were measured through the beams that the state has.
    before = state.sky_model
    had = np.zeros(AXES) if before.antenna_beams is None else before.antenna_beams.common_rad
    # What scaled sources hide is the mean: beams of all pairs of antennas add up to it. A median is not that.
    mean = found.offset_rad[known].mean(axis=0)
    own = np.where(known[:, None], found.offset_rad - mean, 0.0)
    if measured is None:
        common = mean if state.flux_scale is None else had
        return through_beams(before, AntennaBeams(offset_rad=own + common), *centre)
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
    beams = AntennaBeams(offset_rad=own + had + (np.radians(off / 60) if told else 0.0))
    # Sources that were scaled to what was measured of them stay as bright in the data.
    factor = np.ones(len(before))
    factor[good] = 1 / response_ratio(before, beams, *centre)[good]
    moved = through_beams(before, beams, *centre)
    scaled_sky = replace(moved.sky, flux_jy=moved.sky.flux_jy * factor)
    return replace(moved, sky=scaled_sky, apparent_jy=moved.apparent_jy * factor)


def _centre(data: CalibrationData) -> tuple[float, float]:
    """Pointing centre of the middle dump, ICRS radians."""
    ra, dec = data.reader.pointing[len(data.reader.times) // 2]
    return float(ra), float(dec)


def _settled(
    data: CalibrationData, state: CalState, log: StageLog, listed: ApparentSky
) -> tuple[AntennaBeams, PointingFit, float]:
    """Fit offsets with the beams at the last ones, at the same gains, until they stay.

    Returns
    -------
    beams : AntennaBeams
        With the offsets found.
    fit : PointingFit
        The first fit: of what the model that the gains were solved against leaves.
    moved : float
        By how much the offsets changed in all, radians rms.
    """
    sky, model = state.sky_model, state.model
    assert sky is not None
    assert isinstance(model, SkyVisibilities)
    n = len(data.reader.ms.antennas)
    start = np.zeros((n, AXES)) if sky.antenna_beams is None else sky.antenna_beams.offset_rad
    offset, fits = start, list[PointingFit]()
    for _ in range(MOST_ITERATIONS):
        fit = _fitted(data, state, log, model, listed)
        fits.append(fit)
        if not fits[0].gain >= LEAST_GAIN:
            break
        offset = np.where(fit.known[:, None], offset + fit.offset_rad, 0.0)
        model = SkyVisibilities(replace(sky, antenna_beams=AntennaBeams(offset_rad=offset)))
        if _rms(fit.offset_rad[fit.known]) < SETTLED * sky.beam.fwhm_rad(sky.freq_hz):
            break
    return AntennaBeams(offset_rad=offset), fits[0], _rms((offset - start)[fits[0].known])


def _fitted(
    data: CalibrationData,
    state: CalState,
    log: StageLog,
    model: SkyVisibilities,
    listed: ApparentSky,
    every: int = 1,
) -> PointingFit:
    """Fit offsets to what a sky model leaves of one block of the data in `every`."""
    prior_rad = PRIOR_WIDTH * model.sky.beam.fwhm_rad(model.sky.freq_hz)
    with log.timed("measure"):
        statistics = gather_pointing(data, model, state.weights, state.last.tables, listed, every)
        return fit_pointing(statistics, state.noise.variance / 2, prior_rad)


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


def _said(beams: AntennaBeams, fit: PointingFit, before: CalState, after: CalState) -> str:
    known = fit.known
    return (
        f"pointing of the antennas: off by {np.degrees(_rms(beams.offset_rad[known])):.3f} deg rms in each "
        f"direction, known to {np.degrees(np.median(fit.error_rad[known])):.3f}; held-out chi2 "
        f"{before.last.chi2_heldout:.5g} -> {after.last.chi2_heldout:.5g}: "
        f"{'left out' if after is before else 'kept'}"
    )


def gather_pointing(
    data: CalibrationData,
    model: SkyVisibilities,
    weights: DataWeights,
    tables: Sequence[GainTable],
    catalogue: ApparentSky,
    every: int = 1,
) -> PointingStatistics:
    """Gather what a solution for pointing offsets needs in one pass over the data.

    Parameters
    ----------
    data : CalibrationData
        The data.
    model : SkyVisibilities
        Sky model, through the beams as they are known.
    weights : DataWeights
        What the visibilities count for.
    tables : sequence of GainTable
        Gains that the data are calibrated with.
    catalogue : ApparentSky
        Whose sources the sky model begins with.
    every : int, optional
        Only one block of the data in so many.

    Returns
    -------
    PointingStatistics
    """
    sky = model.sky
    first = halves(sky, catalogue, _centre(data), data.resolution_rad)
    matter = np.zeros(len(sky), dtype=bool)
    matter[_told_by(sky, data.reader.pointing)] = True
    parts = [_selected(sky, first & matter), _selected(sky, ~first & matter)]
    gradients = [BeamGradient(part, axis) for part in parts for axis in range(AXES)]
    statistics = PointingStatistics.empty(len(data.reader.ms.antennas))
    together = data.in_turn()

    def predict(piece: CalibrationBlock, gradient: BeamGradient) -> Vis:
        return together(piece, gradient) if every == 1 else data.predict(piece.block, gradient)

    for piece in data.blocks("measure the pointing", weights, model):
        block, predicted = piece.block, piece.model
        assert predicted is not None
        # Of the windows of the same rows, which come one after the other, not the same each time.
        if (piece.number + piece.number // every) % every:
            continue
        vis, weight = parallel_hands(block, *data.corrected(block, piece.touched(piece.weight), tables))
        accumulate_pointing(
            statistics,
            block.time_index,
            block.antenna1,
            block.antenna2,
            vis - predicted[:, :, None],
            weight,
            np.stack([*(predict(piece, gradient) for gradient in gradients), predicted]),
            data.first_channel[block.spw.id],
        )
    return statistics


def _told_by(sky: ApparentSky, pointing: Float) -> Int:
    """Choose the sources that tell where a beam points: the gradients of the others hardly matter."""
    at, power = np.array([sky.freq_hz]), np.zeros(len(sky))
    for ra, dec in pointing[[0, len(pointing) // 2, -1]]:
        for axis in range(AXES):
            power += np.square(BeamGradient(sky, axis).through_beam(at, float(ra), float(dec))[:, 0])
    return leading(power)


def _selected(sky: ApparentSky, chosen: Bool) -> ApparentSky:
    return replace(sky, sky=sky.sky.select(chosen), apparent_jy=sky.apparent_jy[chosen])
