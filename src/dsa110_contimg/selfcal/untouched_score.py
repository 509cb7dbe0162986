"""The delivered calibration scored on data that no step has used."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Float, Vis
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.selfcal.calibration_block import BY_RECEPTOR, CalibrationBlock, parallel_hands
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import OUTLIER, DataWeights, outliers
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities
from dsa110_contimg.visibilities import NoiseScale

__all__ = ["UntouchedScore", "untouched_scores"]

#: Of either hand, one row in so many tells what the model leaves of the sky.
ROWS_EACH = 4
#: A hand of which this part of the sky's power, or more, is left over while the other one leaves less than so
#: much of that does not see the same sky.
MOST_LEFT, CLEARLY_LESS = 0.02, 0.2


@dataclass(frozen=True, eq=False)
class UntouchedScore:
    """How a calibration predicts what no step has used.

    Attributes
    ----------
    calibrated : float
        Mean squared residual in units of thermal variance, without outliers; not a number without data.
    as_found : float
        That of the input with the best factor on the model.
    left_over : ndarray, shape (2,)
        What the model leaves of either parallel hand, in units of its power, by receptor: the median of rows,
        of the data that solutions have used and of those that they left out as outliers. It is the same in
        neighbouring channels, and noise is not: products of these tell it. Not a number without data.
    """

    calibrated: float
    as_found: float
    left_over: Float

    def blind_receptor(self) -> int | None:
        """Return the receptor whose hand does not see the sky that the other one sees; None if both do."""
        if not np.isfinite(self.left_over).all():
            return None
        worse = int(np.argmax(self.left_over))
        most, other = self.left_over[worse], self.left_over[1 - worse]
        return worse if most > MOST_LEFT and other < CLEARLY_LESS * most else None


def untouched_scores(
    data: CalibrationData,
    model: ModelVisibilities,
    weights: DataWeights,
    tables: Sequence[GainTable],
    noise: NoiseScale,
) -> UntouchedScore:
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
    UntouchedScore
        Over the visibilities that the calibration has a solution for.
    """
    left, data_power, cross, power, count = 0.0, 0.0, 0.0, 0.0, 0
    nominal, left_over = data.nominal_weights(), []
    for piece in data.blocks("score on untouched data", weights, model):
        block, predicted = piece.block, piece.of_receptors
        assert piece.untouched is not None
        alone = np.where(piece.untouched[:, :, None], piece.weight, np.float32(0))
        vis, weight = parallel_hands(block, *data.corrected(block, alone, tables))
        residual = vis - predicted
        used = (weight > 0) & ~outliers(residual, weight, OUTLIER)
        # Both in units of the noise: what counts for less elsewhere counts in full here.
        weight = weights.by_noise(block, weight, BY_RECEPTOR)
        left += float((weight * np.abs(residual) ** 2)[used].sum(dtype=np.float64))
        found, own = parallel_hands(block, *data.corrected(block, alone))
        own = np.where(used, weights.by_noise(block, own, BY_RECEPTOR), np.float32(0))
        left_over.append(_left_over(data, piece, nominal, tables))
        data_power += float((own * np.abs(found) ** 2).sum(dtype=np.float64))
        cross += float((own * (found * np.conj(predicted)).real).sum(dtype=np.float64))
        power += float((own * np.abs(predicted) ** 2).sum(dtype=np.float64))
        count += int(np.count_nonzero(used))
    of_rows = np.concatenate(left_over) if left_over else np.zeros((0, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ratio = np.asarray(np.nanmedian(of_rows, axis=0))
    if count == 0:
        return UntouchedScore(math.nan, math.nan, ratio)
    as_found = data_power - max(cross, 0.0) ** 2 / power if power > 0 else data_power
    return UntouchedScore(left / count / noise.variance, as_found / count / noise.variance, ratio)


def _left_over(
    data: CalibrationData, piece: CalibrationBlock, nominal: DataWeights, tables: Sequence[GainTable]
) -> Float:
    """Return what the model leaves of some rows, in units of its power, shape (n, 2); NaN without data."""
    block, some = piece.block, slice(None, None, ROWS_EACH)
    weight = nominal.of_block(piece.number, block)
    vis, weight = parallel_hands(block, *data.corrected(block, weight, tables))
    predicted = piece.of_receptors[some]
    used = np.greater(weight[some], 0)
    both = used[:, 1:] & used[:, :-1]

    def power(values: Vis) -> Float:
        products = (values[:, 1:] * np.conj(values[:, :-1])).real
        return np.asarray(np.where(both, products, 0).sum(axis=1, dtype=np.float64))

    left, whole = power(vis[some] - predicted), power(predicted)
    return np.where(whole > 0, left / np.where(whole > 0, whole, 1.0), np.nan)
