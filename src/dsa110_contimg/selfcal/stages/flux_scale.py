"""Measuring the bright seeds, and tying flux scale and position to the catalogue as a whole.

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

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.uv_fit import N_MOMENTS, residual_moments, sampled_coupling, solve_moments
from dsa110_contimg.imaging import stokes_i
from dsa110_contimg.selfcal.calibration_data import Observation
from dsa110_contimg.sky import Seed, radec_from_lm

__all__ = ["SeedMeasurement", "measure_seeds", "tied_seed"]


#: Sources measured: enough for a median, few enough to cost less than a prediction.
MOST_SOURCES = 200
#: Signal to noise from which a source is used for the median and is itself adjusted.
MIN_SNR = 20.0
#: Visibilities that tell how sources lie in each other's sidelobes: known to 0.6 per cent then.
SAMPLES = 25_000
#: Fraction of the baselines, the shortest, left out: they see all faint sources at once.
SHORTEST = 0.2
#: A source fainter than this fraction of its catalogue flux tells nothing of where it is.
MIN_PLACED = 0.3
#: With fewer sources a median says little.
FEWEST_SOURCES = 8


@dataclass(frozen=True)
class SeedMeasurement:
    """The bright seeds as the calibrated data show them.

    Attributes
    ----------
    index : ndarray of int, shape (n,)
        Which of the seed's sources were measured.
    ratio, ratio_error : ndarray, shape (n,)
        Measured over catalogue flux in units of the median of all good ones, and its error.
    shift_rad, shift_error : ndarray, shape (n, 2)
        Measured minus catalogued direction in l and m about the phase centre, less the
        median of all, and its error, radians.
    good : ndarray of bool, shape (n,)
        True where the signal to noise is above `MIN_SNR`.
    scale : float
        Median of measured over catalogue flux: what the flux scale is off by.
    offset_rad : (float, float)
        Median shift in l and m: what the positions are off by.
    """

    index: Int
    ratio: Float
    ratio_error: Float
    shift_rad: Float
    shift_error: Float
    good: Bool
    scale: float
    offset_rad: tuple[float, float]

    @property
    def n_good(self) -> int:
        """Sources in the medians."""
        return int(np.count_nonzero(self.good))


def measure_seeds(
    observation: Observation,
    tables: Sequence[GainTable],
    current: Seed,
    catalogue: Seed,
    noise_scale2: float,
) -> SeedMeasurement | None:
    """Measure flux and position of the bright seeds on the calibrated data, all together.

    Parameters
    ----------
    observation : Observation
        The data, its model being the current seed.
    tables : sequence of GainTable
        A solution against it.
    current : Seed
        The catalogue's sources, perhaps moved and scaled before, and perhaps others after them.
    catalogue : Seed
        The same as the catalogue lists them.
    noise_scale2 : float
        Variance of a complex visibility times its weight.

    Returns
    -------
    SeedMeasurement or None
        None if there are too few bright sources for a median.
    """
    reader = observation.reader
    chosen = np.flatnonzero(catalogue.sky.is_point)[:MOST_SOURCES]
    if chosen.size < FEWEST_SOURCES:
        return None
    # The catalogue's fluxes at the present positions: a source scaled to nothing can still come back.
    present = current.sky.flux_jy[chosen] / catalogue.sky.flux_jy[chosen]
    sky = replace(current.sky.select(chosen), flux_jy=catalogue.sky.flux_jy[chosen])
    few = replace(current, sky=sky, apparent_jy=catalogue.apparent_jy[chosen])
    moments = np.zeros((chosen.size, N_MOMENTS))
    coupling = np.zeros((3 * chosen.size, 3 * chosen.size))
    rng = np.random.default_rng(0)
    for block, model in observation.blocks("measure the seeds", with_model=True):
        assert model is not None
        vis, weight = observation.corrected(block, tables)
        combined, total = stokes_i(vis, weight, weight == 0, block.spw.parallel)
        length = np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1])
        total[length < np.quantile(length, SHORTEST)] = 0
        residual = np.where(total > 0, combined - model, np.complex64(0))
        field, freq = reader.ms.field(block.field_id), block.spw.freq_hz
        lmn = few.sky.lmn(field.ra_rad, field.dec_rad)
        for slot in np.unique(block.slot):
            rows = np.flatnonzero(block.slot == slot)
            uvw, weights = block.uvw_m[rows], total[rows]
            flux = few.apparent_flux(freq, *reader.pointing[slot])
            moments += residual_moments(uvw, freq, lmn, flux, residual[rows], weights)
            share = int(np.ceil(SAMPLES * rows.size / reader.n_rows))
            row, channel = rng.integers(rows.size, size=share), rng.integers(freq.size, size=share)
            coupling += (rows.size * freq.size / share) * sampled_coupling(
                uvw[row], freq[channel], lmn, flux[:, channel], weights[row, channel]
            )
    change, error = solve_moments(moments, noise_scale2, coupling)
    good = error[:, 0] * MIN_SNR < 1
    if np.count_nonzero(good) < FEWEST_SOURCES:
        return None
    listed, centre = catalogue.sky.select(chosen), reader.phase_center
    shift = few.sky.lmn(*centre)[:, :2] - listed.lmn(*centre)[:, :2] + change[:, 1:]
    ratio = present + change[:, 0]
    scale = float(np.median(ratio[good]))
    middle = np.median(shift[good], axis=0)
    return SeedMeasurement(
        chosen,
        ratio / scale,
        error[:, 0] / scale,
        shift - middle,
        error[:, 1:],
        good,
        scale,
        (float(middle[0]), float(middle[1])),
    )


def tied_seed(catalogue: Seed, measured: SeedMeasurement, centre: tuple[float, float]) -> Seed:
    """Move and scale the good sources to where and how bright they were measured.

    Parameters
    ----------
    catalogue : Seed
        As the catalogue lists the sources.
    measured : SeedMeasurement
        Of them.
    centre : (float, float)
        Phase centre, ICRS radians.

    Returns
    -------
    Seed
        Its sources in the same order; what was not measured well is as the catalogue has it.
    """
    sky, apparent = catalogue.sky, catalogue.apparent_jy.copy()
    new_ra, new_dec, flux = sky.ra_rad.copy(), sky.dec_rad.copy(), sky.flux_jy.copy()
    index = measured.index[measured.good]
    # What is not in the sky may come out a little negative: nothing is put there.
    factor = np.maximum(measured.ratio[measured.good], 0.0)
    flux[index] *= factor
    apparent[index] *= factor
    placed = measured.good & (measured.ratio > MIN_PLACED)
    index = measured.index[placed]
    lm = sky.select(index).lmn(*centre)[:, :2] + measured.shift_rad[placed]
    new_ra[index], new_dec[index] = radec_from_lm(lm[:, 0], lm[:, 1], *centre)
    tied = replace(sky, ra_rad=new_ra, dec_rad=new_dec, flux_jy=flux)
    return replace(catalogue, sky=tied, apparent_jy=apparent)
