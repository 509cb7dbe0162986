"""Tying flux scale and position to the catalogue as a whole.

The gains follow the brightest seed: its catalogue error in flux becomes the
flux scale, its error in position the position of the image. After a first
solution both show as a change common to all other sources. The brightest
sources are then moved and scaled to agree with the median of all, and the gains are
solved again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.observation import Observation
from dsa110_contimg.imaging import stokes_i
from dsa110_contimg.predict.moments import N_MOMENTS, residual_moments, solve_moments
from dsa110_contimg.sky import Seed, radec_from_lm

__all__ = ["Anchor", "anchor_seed"]

#: Sources measured: enough for a median, few enough to cost less than a prediction.
MOST_SOURCES = 200
#: Signal to noise from which a source is used for the median and is itself adjusted.
MIN_SNR = 20.0
#: With fewer sources a median says little.
FEWEST_SOURCES = 8


@dataclass(frozen=True)
class Anchor:
    """A seed tied to the median of its sources.

    Attributes
    ----------
    seed : Seed
        Bright sources moved and scaled to agree with the median of all.
    n_sources : int
        Sources in the median.
    scale : float
        Median of measured over catalogue flux before: what the flux scale was off by.
    shift_rad : (float, float)
        Median shift in l and m before.
    """

    seed: Seed
    n_sources: int
    scale: float
    shift_rad: tuple[float, float]


def anchor_seed(
    observation: Observation, tables: Sequence[GainTable], seed: Seed, noise_scale2: float
) -> Anchor | None:
    """Measure the bright seeds on the calibrated data and tie them to their median.

    Parameters
    ----------
    observation : Observation
        The data, its model being the seed.
    tables : sequence of GainTable
        A first solution.
    seed : Seed
        The seed.
    noise_scale2 : float
        Variance of a complex visibility times its weight.

    Returns
    -------
    Anchor or None
        None if there are too few bright sources for a median.
    """
    reader = observation.reader
    chosen = np.flatnonzero(seed.sky.is_point)[:MOST_SOURCES]
    if chosen.size < FEWEST_SOURCES:
        return None
    few = replace(seed, sky=seed.sky.select(chosen), apparent_jy=seed.apparent_jy[chosen])
    moments = np.zeros((chosen.size, N_MOMENTS))
    for block, model in observation.blocks("measure the seeds", with_model=True):
        assert model is not None
        vis, weight = observation.corrected(block, tables)
        combined, total = stokes_i(vis, weight, weight == 0, block.spw.parallel)
        residual = np.where(total > 0, combined - model, np.complex64(0))
        field = reader.ms.field(block.field_id)
        lmn = few.sky.lmn(field.ra_rad, field.dec_rad)
        for slot in np.unique(block.slot):
            rows = np.flatnonzero(block.slot == slot)
            flux = few.apparent_flux(block.spw.freq_hz, *reader.pointing[slot])
            moments += residual_moments(
                block.uvw_m[rows], block.spw.freq_hz, lmn, flux, residual[rows], total[rows]
            )
    change, error = solve_moments(moments, noise_scale2)
    good = error[:, 0] * MIN_SNR < 1
    if np.count_nonzero(good) < FEWEST_SOURCES:
        return None
    middle = np.median(change[good], axis=0)
    factor = np.where(good, (1 + change[:, 0]) / (1 + middle[0]), 1.0)
    # A source that is not there would be left out of the gains; it is none to calibrate on.
    factor = np.clip(factor, 0.0, None)
    dl, dm = (np.where(good, change[:, k] - middle[k], 0.0) for k in (1, 2))
    centre = reader.phase_center
    lm = few.sky.lmn(*centre)
    ra, dec = radec_from_lm(lm[:, 0] + dl, lm[:, 1] + dm, *centre)
    near = lm[:, 2] > -1
    sky = seed.sky
    new_ra, new_dec = sky.ra_rad.copy(), sky.dec_rad.copy()
    flux, apparent = sky.flux_jy.copy(), seed.apparent_jy.copy()
    moved = chosen[near]
    new_ra[moved], new_dec[moved] = ra[near], dec[near]
    flux[chosen] *= factor
    apparent[chosen] *= factor
    tied = replace(seed, sky=replace(sky, ra_rad=new_ra, dec_rad=new_dec, flux_jy=flux), apparent_jy=apparent)
    return Anchor(
        tied, int(np.count_nonzero(good)), float(1 + middle[0]), (float(middle[1]), float(middle[2]))
    )
