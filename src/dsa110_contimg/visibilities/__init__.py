"""Measurement Sets: opening, validating, reading in blocks, writing columns that can be taken back.

DATA is never written. Result columns are built beside the present ones and
renamed into place, so that what was found can be put back.
"""

from dsa110_contimg.visibilities.columns import (
    ColumnStage,
    add_flags,
    back_up_columns,
    open_recovered,
    recover_columns,
    restore_columns,
)
from dsa110_contimg.visibilities.lock import lock_beside
from dsa110_contimg.visibilities.measurement_set import (
    Antennas,
    Field,
    MeasurementSet,
    Selection,
    SpectralWindow,
    open_measurement_set,
)
from dsa110_contimg.visibilities.noise import AntennaNoise, NoiseEstimator, NoiseScale
from dsa110_contimg.visibilities.reader import Block, VisibilityReader
from dsa110_contimg.visibilities.rephase import turn_phases
from dsa110_contimg.visibilities.rephase_ms import rephase_measurement_set, write_selection

__all__ = [
    "AntennaNoise",
    "Antennas",
    "Block",
    "ColumnStage",
    "Field",
    "MeasurementSet",
    "NoiseEstimator",
    "NoiseScale",
    "Selection",
    "SpectralWindow",
    "VisibilityReader",
    "add_flags",
    "back_up_columns",
    "lock_beside",
    "open_measurement_set",
    "open_recovered",
    "recover_columns",
    "rephase_measurement_set",
    "restore_columns",
    "turn_phases",
    "write_selection",
]
