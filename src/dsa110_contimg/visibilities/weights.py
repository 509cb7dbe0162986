"""Which column tells what visibilities count for, and in which unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Int, Single

__all__ = ["WeightColumn", "choose_weights"]

#: Weights beyond this, or below its inverse, are taken to a unit of their own: squares of them leave the
#: range of single precision.
LARGEST = 1e9
#: Rows that tell of a column of cells by channel, about.
PROBED = 64


@dataclass(frozen=True)
class WeightColumn:
    """Where weights are read.

    Attributes
    ----------
    name : str
        WEIGHT_SPECTRUM, WEIGHT, or empty where neither holds a positive number.
    scale : float
        What they are multiplied with: one, or the power of two that makes the median one about one.
    """

    name: str
    scale: float = 1.0


def choose_weights(main: Any, rows: Int) -> WeightColumn:
    """Choose the column of the weights.

    WEIGHT_SPECTRUM counts only where its cells are defined and not all zero; WEIGHT stands in for it.

    Parameters
    ----------
    main : table
        Main table, open.
    rows : ndarray of int
        Rows that are used.
    """
    probe = [int(r) for r in rows[:: max(1, rows.size // PROBED)]]
    if "WEIGHT_SPECTRUM" in main.colnames() and all(main.iscelldefined("WEIGHT_SPECTRUM", r) for r in probe):
        cells = np.concatenate([np.ravel(main.getcell("WEIGHT_SPECTRUM", r)) for r in probe])
        positive = _positive(cells)
        if positive.size:
            return WeightColumn("WEIGHT_SPECTRUM", _scale(positive))
    try:
        positive = _positive(np.ravel(main.getcol("WEIGHT"))[:, None])
    except RuntimeError:
        # Cells of several shapes, or not all filled.
        filled = [int(r) for r in rows if main.iscelldefined("WEIGHT", int(r))]
        positive = _positive(np.concatenate([np.zeros(0), *(main.getcell("WEIGHT", r) for r in filled)]))
    return WeightColumn("WEIGHT", _scale(positive)) if positive.size else WeightColumn("")


def _positive(weights: Single) -> Single:
    return np.asarray(weights[np.isfinite(weights) & (weights > 0)])


def _scale(positive: Single) -> float:
    typical = float(np.median(positive))
    if 1 / LARGEST <= typical <= LARGEST:
        return 1.0
    return float(2.0 ** -round(math.log2(typical)))
