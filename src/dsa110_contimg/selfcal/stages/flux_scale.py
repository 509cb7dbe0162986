"""Flux scale and position: the bright sources rescaled to the median catalogue flux and position.

The gains follow the brightest source: its catalogue error in flux becomes the flux scale, its error in
position the position of the image. After a first solution both show as a change common to all other
sources. The brightest sources are then moved and scaled to agree with the median of all, and the gains are
solved again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Bool
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.distortion import distorted
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import solve_rounds
from dsa110_contimg.selfcal.source_measurement import SourceMeasurement, measure_sources
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState, FluxScale
from dsa110_contimg.selfcal.trial import better_with, improvement
from dsa110_contimg.sky import ApparentSky, radec_from_lm
from dsa110_contimg.sky.apparent_sky import joined, scaled, through_beams
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["flux_scale", "placed", "rescaled"]

#: The sky model is rescaled at most this often, or until both medians are this near: in flux, and in position
#: within this angle or this part of the resolution.
MOST_RESCALINGS = 4
NEAR_SCALE = 0.005
NEAR_ARCSEC, NEAR_BEAMS = 0.05, 0.003
NEAR_CHI2 = 1.01
#: After amplitudes are solved the flux scale of the sources is near one, or the sky is another.
CREDIBLE_SCALE = 2.0
#: Or all sources but the brightest agree: so many of them, to within this fraction in the median.
MANY_AGREE, AGREE = 8, 0.25
#: A source fainter than this fraction of its catalogue flux tells nothing of where it is.
MIN_PLACED = 0.3


def flux_scale(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve again with the bright sources rescaled to the median of all, while that predicts better."""
    catalogue, gained = data.catalog_model, np.inf
    if catalogue is None:
        return state
    # A solution may explain nothing because the brightest source is wrong in the catalogue.
    untold = not state.last.verdict.accepted
    for _ in range(MOST_RESCALINGS):
        measured = None
        if state.measured is not None and gained < NEAR_CHI2:
            # Whether the sources are in place now, a part of the data tells.
            measured = _measure(data.sampled(state.measured.enough()), state, log, catalogue)
        if measured is None or not _is_near(data, measured):
            measured = _measure(data, state, log, catalogue)
        if measured is None:
            break
        with_amplitudes = any(r.solution.mode == "ap" for r in state.rounds)
        if untold and not _agree(measured):
            break
        credible = abs(np.log(max(measured.scale, 1e-9))) < np.log(CREDIBLE_SCALE)
        if with_amplitudes and not (credible or _agree(measured)):
            log.note(
                f"{measured.n_good} bright catalogue sources have {measured.scale:.2f} times the flux that "
                "the amplitudes were solved for: the sky is not that of the catalogue"
            )
            state = replace(state, sky_differs=True)
            break
        state = state if measured.together else replace(state, measured=measured)
        east, north = (float(np.degrees(x) * 3600) for x in measured.offset_rad)
        if _is_near(data, measured) and gained < NEAR_CHI2:
            break
        which = f"all {measured.index.size}" if measured.together else f"{measured.n_good} bright"
        place, of_both = f", position by {east:+.2f}, {north:+.2f} arcsec", "flux and position"
        if measured.together:
            # Nothing tells where all of them are.
            place, of_both = "", "flux"
        log.note(
            f"{which} catalogue sources: flux scale off by {100 * (measured.scale - 1):+.1f} %{place}; "
            f"rescaled to the median catalogue {of_both}"
        )
        added = None if state.components is None else _in_place(state.components, measured, data)
        assert state.sky_model is not None
        ra, dec = data.reader.pointing[len(data.reader.times) // 2]
        seen = through_beams(catalogue, state.sky_model.antenna_beams, float(ra), float(dec))
        model = rescaled(seen, measured, data.reader.phase_center)
        if state.distortion is not None:
            of_measured = placed(catalogue, measured)
            model = distorted(model, catalogue, state.distortion, of_measured, data.reader.phase_center)
        model = joined(model, added)
        trial = better_with(data, state, model, config, log)
        if trial is state:
            break
        trial = replace(trial, components=added)
        gained = improvement(state, trial)
        n = measured.index.size if measured.together else measured.n_good
        first = state.flux_scale or FluxScale(n, measured.scale, None if measured.together else (east, north))
        state = replace(trial, flux_scale=first)
    # All intervals once more, against the model as it is now.
    return solve_rounds(data, state, config, log) if gained < np.inf else state


def _is_near(data: CalibrationData, measured: SourceMeasurement) -> bool:
    """Whether flux scale and position are those of the catalogue."""
    in_place = max(NEAR_ARCSEC, NEAR_BEAMS * data.resolution_rad / ARCSEC)
    off = float(np.hypot(*measured.offset_rad)) / ARCSEC
    return abs(measured.scale - 1) < NEAR_SCALE and off < in_place


def _agree(measured: SourceMeasurement) -> bool:
    """Whether the sources agree among themselves: the brightest, which set the amplitudes, are wrong then."""
    if measured.together:
        # They would have nothing in common of a sky that is not there.
        return True
    off = np.abs(measured.ratio[measured.good] - 1)
    return measured.scale > 0 and measured.n_good >= MANY_AGREE and float(np.median(off)) < AGREE


def _measure(
    data: CalibrationData, state: CalState, log: StageLog, catalogue: ApparentSky
) -> SourceMeasurement | None:
    assert isinstance(state.model, SkyVisibilities)
    with log.timed("measure"):
        tables, noise = state.last.tables, state.noise_and_sidelobes
        before = state.measured
        return measure_sources(
            data,
            state.weights,
            state.model,
            tables,
            catalogue,
            noise,
            before=before,
            rescaled=state.flux_scale is not None,
        )


def _in_place(components: ApparentSky, measured: SourceMeasurement, data: CalibrationData) -> ApparentSky:
    """Bring what was added to the catalogue, found after gains that were off, to its scale and position."""
    centre = data.reader.phase_center
    lm = components.sky.lmn(*centre)[:, :2] - np.asarray(measured.offset_rad)
    ra, dec = radec_from_lm(lm[:, 0], lm[:, 1], *centre)
    placed = replace(components, sky=replace(components.sky, ra_rad=ra, dec_rad=dec))
    return scaled(placed, 1 / measured.scale)


def placed(catalogue: ApparentSky, measured: SourceMeasurement) -> Bool:
    """Tell which of the catalogue's sources :func:`rescaled` puts where they were measured, shape (n,)."""
    found = np.zeros(len(catalogue), dtype=bool)
    found[measured.index[measured.good & (measured.ratio > MIN_PLACED)]] = True
    return found


def rescaled(catalogue: ApparentSky, measured: SourceMeasurement, centre: tuple[float, float]) -> ApparentSky:
    """Move and scale the good sources to where and how bright they were measured.

    Parameters
    ----------
    catalogue : ApparentSky
        As the catalogue lists the sources.
    measured : SourceMeasurement
        Of them.
    centre : (float, float)
        Phase centre, ICRS radians.

    Returns
    -------
    ApparentSky
        Its sources in the same order; what was not measured well is as the catalogue has it.
    """
    sky, apparent = catalogue.sky, catalogue.apparent_jy.copy()
    new_ra, new_dec, flux = sky.ra_rad.copy(), sky.dec_rad.copy(), sky.flux_jy.copy()
    index = measured.index[measured.good]
    # What is not in the sky may come out a little negative: nothing is put there.
    factor = np.maximum(measured.ratio[measured.good], 0.0)
    flux[index] *= factor
    apparent[index] *= factor
    told = measured.good & (measured.ratio > MIN_PLACED)
    index = measured.index[told]
    lm = sky.select(index).lmn(*centre)[:, :2] + measured.shift_rad[told]
    new_ra[index], new_dec[index] = radec_from_lm(lm[:, 0], lm[:, 1], *centre)
    moved = replace(sky, ra_rad=new_ra, dec_rad=new_dec, flux_jy=flux)
    return replace(catalogue, sky=moved, apparent_jy=apparent)
