"""The delivered calibration scored on data that no step has used."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.selfcal.calibration_data import BY_RECEPTOR, CalibrationData, parallel_hands
from dsa110_contimg.selfcal.data_weights import OUTLIER, DataWeights, outliers
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities
from dsa110_contimg.visibilities import NoiseScale

__all__ = ["untouched_scores"]


def untouched_scores(
    data: CalibrationData,
    model: ModelVisibilities,
    weights: DataWeights,
    tables: Sequence[GainTable],
    noise: NoiseScale,
) -> tuple[float, float]:
    """Score a calibration, and the input, on the data that no step has used.

    Parameters
    ----------
    data : CalibrationData
        The data.
    model : ModelVisibilities
        Sky model of the calibration.
    weights : DataWeights
        What the visibilities count for.
    tables : sequence of GainTable
        The calibration, after the initial tables.
    noise : NoiseScale
        Noise of the data.

    Returns
    -------
    calibrated, as_found : float
        Mean squared residual in units of thermal variance, without outliers; that of the input with the
        best factor on the model. Both over the visibilities that the calibration has a solution for; not
        numbers if there are none.
    """
    left, data_power, cross, power, count = 0.0, 0.0, 0.0, 0.0, 0
    for piece in data.blocks("score on untouched data", weights, model):
        block, predicted = piece.block, piece.of_receptors
        alone = np.where(piece.untouched[:, :, None], piece.weight, np.float32(0))
        vis, weight = parallel_hands(block, *data.corrected(block, alone, tables))
        residual = vis - predicted
        used = (weight > 0) & ~outliers(residual, weight, OUTLIER)
        # Both in units of the noise: what counts for less elsewhere counts in full here.
        weight = weights.by_noise(block, weight, BY_RECEPTOR)
        left += float((weight * np.abs(residual) ** 2)[used].sum(dtype=np.float64))
        found, own = parallel_hands(block, *data.corrected(block, alone))
        own = np.where(used, weights.by_noise(block, own, BY_RECEPTOR), np.float32(0))
        data_power += float((own * np.abs(found) ** 2).sum(dtype=np.float64))
        cross += float((own * (found * np.conj(predicted)).real).sum(dtype=np.float64))
        power += float((own * np.abs(predicted) ** 2).sum(dtype=np.float64))
        count += int(np.count_nonzero(used))
    if count == 0:
        return math.nan, math.nan
    as_found = data_power - max(cross, 0.0) ** 2 / power if power > 0 else data_power
    return left / count / noise.variance, as_found / count / noise.variance
