"""Bright catalogue sources measured on the calibrated visibilities, all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.uv_fit import N_MOMENTS, residual_moments, sampled_coupling, solve_moments
from dsa110_contimg.imaging import stokes_i
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.visibilities import NoiseScale

__all__ = ["SourceMeasurement", "measure_sources"]


#: Sources measured: enough for a median, few enough to cost less than a prediction.
MOST_SOURCES = 200
#: Signal to noise from which a source is used for the median and is itself adjusted.
MIN_SNR = 20.0
#: Visibilities that tell how sources lie in each other's sidelobes: known to 0.6 per cent then.
SAMPLES = 25_000
#: Fraction of the baselines, the shortest, left out: they see all faint sources at once.
SHORTEST = 0.2
#: With fewer sources a median says little.
FEWEST_SOURCES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceMeasurement:
    """Bright catalogue sources as the calibrated data show them.

    Attributes
    ----------
    index : ndarray of int, shape (n,)
        Which of the catalogue's sources were measured.
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


def measure_sources(
    data: CalibrationData,
    weights: DataWeights,
    model: SkyVisibilities,
    tables: Sequence[GainTable],
    catalogue: ApparentSky,
    noise: NoiseScale,
) -> SourceMeasurement | None:
    """Measure flux and position of the bright catalogue sources on the calibrated data, all together.

    Parameters
    ----------
    data : CalibrationData
        The data.
    weights : DataWeights
        What the visibilities count for.
    model : SkyVisibilities
        Sky model: the catalogue's sources, perhaps moved and scaled before, and perhaps others after them.
    tables : sequence of GainTable
        Gains solved against it.
    catalogue : ApparentSky
        The same sources as the catalogue lists them.
    noise : NoiseScale
        Noise of the data.

    Returns
    -------
    SourceMeasurement or None
        None if there are too few bright sources for a median.
    """
    reader, current = data.reader, model.sky
    chosen = np.flatnonzero(catalogue.sky.is_point)[:MOST_SOURCES]
    if chosen.size < FEWEST_SOURCES:
        return None
    # The catalogue's fluxes at the present positions: a source scaled to nothing can still come back.
    present = current.sky.flux_jy[chosen] / catalogue.sky.flux_jy[chosen]
    sky = replace(current.sky.select(chosen), flux_jy=catalogue.sky.flux_jy[chosen])
    few = replace(current, sky=sky, apparent_jy=catalogue.apparent_jy[chosen])
    moments, coupling = _moments(data, weights, model, tables, few)
    change, error = solve_moments(moments, noise, coupling)
    good = error[:, 0] * MIN_SNR < 1
    if np.count_nonzero(good) < FEWEST_SOURCES:
        return None
    listed, centre = catalogue.sky.select(chosen), reader.phase_center
    shift = few.sky.lmn(*centre)[:, :2] - listed.lmn(*centre)[:, :2] + change[:, 1:]
    ratio = present + change[:, 0]
    scale = float(np.median(ratio[good]))
    middle = np.median(shift[good], axis=0)
    return SourceMeasurement(
        index=chosen,
        ratio=ratio / scale,
        ratio_error=error[:, 0] / scale,
        shift_rad=shift - middle,
        shift_error=error[:, 1:],
        good=good,
        scale=scale,
        offset_rad=(float(middle[0]), float(middle[1])),
    )


def _moments(
    data: CalibrationData,
    weights: DataWeights,
    model: SkyVisibilities,
    tables: Sequence[GainTable],
    few: ApparentSky,
) -> tuple[Float, Float]:
    """Moments of the residual at each source, (n, N_MOMENTS), and how sources couple, (3 n, 3 n)."""
    reader, n = data.reader, len(few)
    moments, coupling = np.zeros((n, N_MOMENTS)), np.zeros((3 * n, 3 * n))
    rng = np.random.default_rng(0)
    for piece in data.blocks("measure the bright sources", weights, model):
        block = piece.block
        assert piece.model is not None
        vis, weight = data.corrected(block, piece.weight, tables)
        combined, total = stokes_i(vis, weight, weight == 0, block.spw.parallel)
        length = np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1])
        total[length < np.quantile(length, SHORTEST)] = 0
        residual = np.where(total > 0, combined - piece.model, np.complex64(0))
        field, freq = reader.ms.field(block.field_id), block.spw.freq_hz
        lmn = few.sky.lmn(field.ra_rad, field.dec_rad)
        for dump in np.unique(block.time_index):
            rows = np.flatnonzero(block.time_index == dump)
            uvw, of_rows = block.uvw_m[rows], total[rows]
            flux = few.apparent_flux(freq, *reader.pointing[dump])
            moments += residual_moments(uvw, freq, lmn, flux, residual[rows], of_rows)
            share = int(np.ceil(SAMPLES * rows.size / reader.n_rows))
            row, channel = rng.integers(rows.size, size=share), rng.integers(freq.size, size=share)
            coupling += (rows.size * freq.size / share) * sampled_coupling(
                uvw[row], freq[channel], lmn, flux[:, channel], of_rows[row, channel]
            )
    return moments, coupling
