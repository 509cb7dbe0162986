"""Where each antenna points: offsets from the same sums as the gains, kept if held-out data gain by them.

An antenna gain cannot follow what differs across the field. Offsets are fitted to what the sky model leaves
of the calibrated data, with the beams at the last ones until they stay; then the gains are solved again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.pointing import (
    AXES,
    PointingFit,
    PointingStatistics,
    accumulate_pointing,
    fit_pointing,
)
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData, parallel_hands
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.findings import TREND_SIGMAS
from dsa110_contimg.selfcal.heldout_sources import halves
from dsa110_contimg.selfcal.model_visibilities import BeamGradient, SkyVisibilities, leading
from dsa110_contimg.selfcal.sky_check import beam_trends
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import better_with
from dsa110_contimg.sky import AntennaBeams, ApparentSky

__all__ = ["gather_pointing", "pointing"]

#: Offsets are fitted again, with the beams at the last ones, at most this often, or until they move by less
#: than this fraction of the beam's width, rms; and once more with gains solved anew where they moved by the
#: other one.
MOST_ITERATIONS, SETTLED, SETTLED_AGAIN = 4, 4e-3, 0.03
#: Held-out chi-squared of other sources has to fall by this: noise alone makes it rise.
LEAST_GAIN = 25.0


def pointing(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve for the antennas' pointing offsets, and look at the sky through beams that point there.

    Returns
    -------
    CalState
        Solved against the sky model through the antennas' own beams; the state itself where held-out channels
        or held-out sources do not gain by it.
    """
    sky = state.sky_model
    if (
        config.pointing == "off"
        or data.catalog_model is None
        or sky is None
        or not state.last.verdict.accepted
    ):
        return state
    listed = data.catalog_model
    for _ in range(MOST_ITERATIONS):
        beams, fit, step = _settled(data, state, log, listed)
        if state.pointing is None and fit.gain < LEAST_GAIN:
            error = np.degrees(np.median(fit.error_rad[fit.known])) if fit.known.any() else np.inf
            log.note(
                "pointing of the antennas: held-out sources are not predicted better with offsets (known to "
                f"{error:.3f} deg each): the beams are left as they are"
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
    measured, listed, beams = state.measured, data.catalog_model, sky.antenna_beams
    if beams is None or listed is None or (measured is None and state.flux_scale is None):
        return sky
    # The fluxes were measured through the beams that the state has.
    seen = state.sky_model.antenna_beams if state.sky_model else None
    had = np.zeros(AXES) if seen is None else seen.offset_rad[known].mean(axis=0)
    own = np.where(known[:, None], beams.offset_rad - beams.offset_rad[known].mean(axis=0), 0.0)
    if measured is None:
        return replace(sky, antenna_beams=replace(beams, offset_rad=np.where(known[:, None], own + had, 0.0)))
    middle = data.reader.pointing[len(data.reader.times) // 2]
    centre = (float(middle[0]), float(middle[1]))
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
    common = had + (np.radians(off / 60) if told else 0.0)
    lmn, freq = sky.sky.select(good).lmn(*centre), np.array([sky.freq_hz])
    there, here = (AntennaBeams(offset_rad=at[None]).voltages(sky.beam, lmn, freq) for at in (common, had))
    factor = np.ones(len(sky))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor[good] = np.nan_to_num((here / there)[:, 0, 0] ** 2, nan=1.0, posinf=1.0)
    # Beside a null nothing can be said of what a source is outside the beam.
    factor = np.where(np.abs(np.log(np.maximum(factor, 1e-9))) < np.log(2.0), factor, 1.0)
    return replace(
        sky,
        sky=replace(sky.sky, flux_jy=sky.sky.flux_jy * factor),
        apparent_jy=sky.apparent_jy * factor,
        antenna_beams=replace(beams, offset_rad=np.where(known[:, None], own + common, 0.0)),
    )


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
        with log.timed("measure"):
            statistics = gather_pointing(data, model, state.weights, state.last.tables, listed)
            fit = fit_pointing(statistics, state.noise.variance / 2)
        fits.append(fit)
        if state.pointing is None and fits[0].gain < LEAST_GAIN:
            break
        offset = np.where(fit.known[:, None], offset + fit.offset_rad, 0.0)
        model = SkyVisibilities(replace(sky, antenna_beams=AntennaBeams(offset_rad=offset)))
        if _rms(fit.offset_rad[fit.known]) < SETTLED * sky.beam.fwhm_rad(sky.freq_hz):
            break
    return AntennaBeams(offset_rad=offset), fits[0], _rms((offset - start)[fits[0].known])


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

    Returns
    -------
    PointingStatistics
    """
    middle = data.reader.pointing[len(data.reader.times) // 2]
    sky = model.sky
    first = halves(sky, catalogue, (float(middle[0]), float(middle[1])))
    matter = np.zeros(len(sky), dtype=bool)
    matter[_told_by(sky, (float(middle[0]), float(middle[1])))] = True
    parts = [_selected(sky, first & matter), _selected(sky, ~first & matter)]
    gradients = [BeamGradient(part, axis) for part in parts for axis in range(AXES)]
    statistics = PointingStatistics.empty(len(data.reader.ms.antennas))
    predict = data.in_turn()
    for piece in data.blocks("measure the pointing", weights, model):
        block, predicted = piece.block, piece.model
        assert predicted is not None
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


def _told_by(sky: ApparentSky, centre: tuple[float, float]) -> Int:
    """Choose the sources that tell where a beam points: the gradients of the others hardly matter."""
    at = np.array([sky.freq_hz])
    slopes = [BeamGradient(sky, axis).through_beam(at, *centre)[:, 0] for axis in range(AXES)]
    return leading(np.sum(np.square(slopes), axis=0))


def _selected(sky: ApparentSky, chosen: Bool) -> ApparentSky:
    return replace(sky, sky=sky.sky.select(chosen), apparent_jy=sky.apparent_jy[chosen])
