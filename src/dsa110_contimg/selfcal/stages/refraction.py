"""Refraction: sources that were not measured one by one are put where those that were say that they are.

A distortion of positions that is linear across the field, the same for the whole observation, is fitted to
what the bright sources were measured off by. It is kept if either half of these sources predicts the other,
and held-out channels are predicted better. Five numbers are taken from all channels: those that are held out
are independent of the gains, and of the distortion but for that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.distortion import distorted, fit_distortion
from dsa110_contimg.selfcal.heldout_sources import halves
from dsa110_contimg.selfcal.pointing_statistics import centre_of
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.flux_scale import flux_scale, placed
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import better_with
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["refraction"]

#: Sources are measured again after others were moved, at most this often, or until the distortion changes by
#: less than this fraction of the resolution at half power.
MOST_FITS, SETTLED = 3, 0.01


def refraction(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Move the sources by a linear distortion of the field, while held-out data gain by it.

    Returns
    -------
    CalState
        Solved against the moved sky model; the state itself where nothing is gained.
    """
    listed = data.catalog_model
    if listed is None or not state.last.verdict.accepted:
        return state
    centre, radius = data.reader.phase_center, listed.beam.fwhm_rad(listed.freq_hz) / 2
    first = halves(listed, listed, centre_of(data), data.resolution_rad)
    for _ in range(MOST_FITS):
        measured, sky = state.measured, state.sky_model
        if measured is None or sky is None:
            break
        lm = listed.sky.select(measured.index).lmn(*centre)[:, :2]
        found = fit_distortion(measured, lm, first[measured.index])
        if found is None or not found.asked:
            break
        had = np.zeros((2, 2)) if state.distortion is None else state.distortion.matrix
        if replace(found, matrix=found.matrix - had).at_rad(radius) < SETTLED * data.resolution_rad:
            break
        trial = better_with(
            data, state, distorted(sky, listed, found, placed(listed, measured), centre), config, log
        )
        arcsec = found.at_rad(radius) / ARCSEC
        log.note(
            f"refraction: sources are displaced by up to {arcsec:.1f} arcsec at half power; held-out chi2 "
            f"{state.last.chi2_heldout:.5g} -> {trial.last.chi2_heldout:.5g}: "
            f"{'left out' if trial is state else 'all sources moved'}"
        )
        if trial is state:
            break
        state = flux_scale(data, replace(trial, distortion=found), config, log)
    return state
