"""Statistics of the data against two parts of a sky model, for sources that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.statistics import BaselineStatistics, RowIndex, accumulate
from dsa110_contimg.selfcal.calibration_block import parallel_hands
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities

__all__ = ["SPLIT_SUMS", "SplitStatistics", "gather_split"]

#: Baseline statistics that are alive at the same time.
SPLIT_SUMS = 7


@dataclass(frozen=True, eq=False)
class SplitStatistics:
    """Statistics of the data against two parts of a sky model, and against what is to be found of each.

    Attributes
    ----------
    parts : (BaselineStatistics, BaselineStatistics)
        Of the data against either part of the model.
    overlap : BaselineStatistics
        Of the first part, as if it were data, against the second: its `cross` is ``sum w M_1 conj(M_2)``.
    sought : (BaselineStatistics, BaselineStatistics)
        Of the data against what is sought of the first and of the second part.
    disturbing : (BaselineStatistics, BaselineStatistics)
        Of the other part, as if it were data, against what is sought of the first and of the second one.
    """

    parts: tuple[BaselineStatistics, BaselineStatistics]
    overlap: BaselineStatistics
    sought: tuple[BaselineStatistics, BaselineStatistics]
    disturbing: tuple[BaselineStatistics, BaselineStatistics]


def gather_split(
    data: CalibrationData,
    parts: tuple[ModelVisibilities, ModelVisibilities],
    sought: tuple[ModelVisibilities, ModelVisibilities],
    weights: DataWeights,
    tables: Sequence[GainTable] = (),
    *,
    whole: ModelVisibilities | None = None,
    combine_spw: bool = False,
) -> SplitStatistics:
    """Gather the statistics against two parts of a model in one pass.

    Parameters
    ----------
    data : CalibrationData
        The data.
    parts : (ModelVisibilities, ModelVisibilities)
        Parts of the model.
    sought : (ModelVisibilities, ModelVisibilities)
        What is sought of each in the data, once gains were solved on the other.
    weights : DataWeights
        What the visibilities count for.
    tables : sequence of GainTable
        Gains applied after the initial tables.
    whole : ModelVisibilities, optional
        The model, if it has been predicted already: saves predicting the second part.
    combine_spw : bool
        Add up the spectral windows, which takes less memory.
    """
    reader = data.reader
    n_antennas = len(reader.ms.antennas)
    spw_ids = data.spw_ids[:1] if combine_spw else data.spw_ids
    sums = [BaselineStatistics.empty(n_antennas, spw_ids, reader.times.size) for _ in range(SPLIT_SUMS)]
    known = whole if data.remembers else None
    predict = data.in_turn()
    for piece in data.blocks("predict and gather halves of the sky", weights, known):
        block = piece.block
        vis, weight = parallel_hands(block, *data.corrected(block, piece.touched(piece.weight), tables))
        first = predict(piece, parts[0])
        second = predict(piece, parts[1]) if piece.model is None else piece.model - first
        of_first, of_second = (predict(piece, part) for part in sought)
        window = 0 if combine_spw else data.spw_ids.index(block.spw.id)
        rows = RowIndex(block.time_index, block.antenna1, block.antenna2)
        channel = data.first_channel[block.spw.id]
        as_data = [np.repeat(part[:, :, None], 2, axis=2) for part in (first, second)]
        for total, (values, against) in zip(
            sums,
            (
                (vis, first),
                (vis, second),
                (as_data[0], second),
                (vis, of_first),
                (vis, of_second),
                (as_data[1], of_first),
                (as_data[0], of_second),
            ),
            strict=True,
        ):
            accumulate(total, window, rows, values, weight, np.ascontiguousarray(against), channel)
    return SplitStatistics((sums[0], sums[1]), sums[2], (sums[3], sums[4]), (sums[5], sums[6]))
