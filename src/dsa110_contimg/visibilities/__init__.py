"""Measurement Sets: opening, validating, reading in blocks, writing columns that can be taken back.

DATA is never written. Result columns are built beside the present ones and
renamed into place, so that what was found can be put back.
"""

from dsa110_contimg.visibilities.averaging import (
    AveragedRows,
    ChannelBins,
    PartialBins,
    average_rows,
    bins_of_window,
    factor_by_length,
    factors_of_window,
    mean_over_bins,
    single_channels,
    with_partial,
)
from dsa110_contimg.visibilities.broken_data import BrokenDataFinder, impossible_values, nothing_usable
from dsa110_contimg.visibilities.columns import (
    ColumnStage,
    add_flags,
    back_up_columns,
    open_recovered,
    recover_columns,
    restore_columns,
)
from dsa110_contimg.visibilities.interference import find_narrow, smooth_sequences
from dsa110_contimg.visibilities.lock import lock_beside
from dsa110_contimg.visibilities.measurement_set import (
    Antennas,
    Field,
    MeasurementSet,
    Selection,
    SpectralWindow,
    open_measurement_set,
)
from dsa110_contimg.visibilities.noise import (
    AntennaNoise,
    BoundsEstimator,
    NoiseBounds,
    NoiseEstimator,
    NoiseScale,
    dumps_tell_antennas,
)
from dsa110_contimg.visibilities.reader import Block, VisibilityReader
from dsa110_contimg.visibilities.rephase import turn_phases
from dsa110_contimg.visibilities.rephase_ms import rephase_measurement_set, write_selection

__all__ = [
    "AntennaNoise",
    "Antennas",
    "AveragedRows",
    "Block",
    "BoundsEstimator",
    "BrokenDataFinder",
    "ChannelBins",
    "ColumnStage",
    "Field",
    "MeasurementSet",
    "NoiseBounds",
    "NoiseEstimator",
    "NoiseScale",
    "PartialBins",
    "Selection",
    "SpectralWindow",
    "VisibilityReader",
    "add_flags",
    "average_rows",
    "back_up_columns",
    "bins_of_window",
    "dumps_tell_antennas",
    "factor_by_length",
    "factors_of_window",
    "find_narrow",
    "impossible_values",
    "lock_beside",
    "mean_over_bins",
    "nothing_usable",
    "open_measurement_set",
    "open_recovered",
    "recover_columns",
    "rephase_measurement_set",
    "restore_columns",
    "single_channels",
    "smooth_sequences",
    "turn_phases",
    "with_partial",
    "write_selection",
]
