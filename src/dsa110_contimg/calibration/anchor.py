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
    observation: Observation,
    tables: Sequence[GainTable],
    current: Seed,
    catalogue: Seed,
    noise_scale2: float,
) -> Anchor | None:
    """Measure the bright seeds on the calibrated data and tie them to their median.

    Parameters
    ----------
    observation : Observation
        The data, its model being the current seed.
    tables : sequence of GainTable
        A solution against it.
    current : Seed
        The catalogue's sources, perhaps moved and scaled before.
    catalogue : Seed
        The same as the catalogue lists them.
    noise_scale2 : float
        Variance of a complex visibility times its weight.

    Returns
    -------
    Anchor or None
        None if there are too few bright sources for a median.
    """
    reader = observation.reader
    chosen = np.flatnonzero(catalogue.sky.is_point)[:MOST_SOURCES]
    if chosen.size < FEWEST_SOURCES:
        return None
    few = replace(current, sky=current.sky.select(chosen), apparent_jy=current.apparent_jy[chosen])
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
    listed = catalogue.sky.select(chosen)
    centre = reader.phase_center
    there, expected = few.sky.lmn(*centre), listed.lmn(*centre)
    ratio = few.sky.flux_jy / listed.flux_jy * np.clip(1 + change[:, 0], 0.0, None)
    shift = there[:, :2] - expected[:, :2] + change[:, 1:]
    scale = float(np.median(ratio[good]))
    middle = np.median(shift[good], axis=0)
    present = few.sky.flux_jy / listed.flux_jy
    # Half the way in the logarithm: measured one by one, sources see each other's sidelobes, and a whole
    # step overshoots by up to its own length.
    wanted = np.sqrt(np.maximum(ratio / scale, 0.0) * present)
    factor = np.where(good, wanted, 1.0)
    lm = expected[:, :2] + np.where(good[:, None], shift - middle, 0.0)
    ra, dec = radec_from_lm(lm[:, 0], lm[:, 1], *centre)
    sky = catalogue.sky
    new_ra, new_dec, flux = sky.ra_rad.copy(), sky.dec_rad.copy(), sky.flux_jy.copy()
    apparent = catalogue.apparent_jy.copy()
    new_ra[chosen[good]], new_dec[chosen[good]] = ra[good], dec[good]
    flux[chosen] *= factor
    apparent[chosen] *= factor
    tied = replace(sky, ra_rad=new_ra, dec_rad=new_dec, flux_jy=flux)
    return Anchor(
        replace(catalogue, sky=tied, apparent_jy=apparent),
        int(np.count_nonzero(good)),
        scale,
        (float(middle[0]), float(middle[1])),
    )
