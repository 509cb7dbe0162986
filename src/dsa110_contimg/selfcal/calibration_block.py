"""A block of data of a self-calibration: weights, what is left for the score, and a model of it."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Vis, Weight
from dsa110_contimg.visibilities import Block

__all__ = ["BY_RECEPTOR", "CalibrationBlock", "parallel_hands", "sub_band_edges", "sub_bands_of"]

#: Receptors of parallel hands that are kept by receptor.
BY_RECEPTOR = ((0, 0), (1, 1))


def sub_band_edges(n_channels: int, sub_bands: int) -> list[int]:
    """Return the channels at which the sub-bands of a window begin, and the number of channels."""
    return [k * n_channels // sub_bands for k in range(sub_bands + 1)]


def sub_bands_of(block: Block, sub_bands: int) -> list[int]:
    """Return where the sub-bands begin among the channels, or bins, of a block, and their number."""
    if block.bins is None:
        return sub_band_edges(block.spw.freq_hz.size, sub_bands)
    edges = sub_band_edges(block.bins.window.freq_hz.size, sub_bands)
    return [int(k) for k in np.searchsorted(block.bins.start, edges)]


@dataclass(frozen=True, eq=False)
class CalibrationBlock:
    """A block of data with what it counts for and what a sky model says of it.

    Attributes
    ----------
    number : int
        Which block.
    block : Block
        Data as they were read, or averages of them; not to be written to.
    weight : ndarray of float32, shape (nrow, nchan, ncorr)
        Weights, zero where flagged or an outlier.
    untouched : ndarray of bool, shape (nrow, nchan), or None
        Visibilities that no solution and no measurement may use: the calibration is scored on them. None in
        what is only written.
    model : ndarray of complex64, shape (nrow, nchan), or None
        Stokes I of the sky model in jansky.
    squint : ndarray of complex64, shape (nrow, nchan), or None
        By how much the first receptor sees more of the model, and the second less.
    """

    number: int
    block: Block
    weight: Weight
    untouched: Bool | None
    model: Vis | None
    squint: Vis | None = None

    @property
    def of_receptors(self) -> Vis:
        """The model as either receptor sees it, shape (nrow, nchan, 2), or (nrow, nchan, 1) if both do alike.

        Raises
        ------
        ValueError
            If there is no model.
        """
        if self.model is None:
            raise ValueError("a block without a model")
        if self.squint is None:
            return self.model[:, :, None]
        return np.stack([self.model + self.squint, self.model - self.squint], axis=2)

    def of_correlation(self, k: int) -> Vis:
        """Give the model as a parallel-hand correlation sees it, shape (nrow, nchan)."""
        of_receptors = self.of_receptors
        return of_receptors[:, :, self.block.spw.receptors[k][0] if of_receptors.shape[2] > 1 else 0]

    def touched(self, weight: Weight) -> Weight:
        """Take their weight from the untouched visibilities; shape (nrow, nchan, n)."""
        assert self.untouched is not None
        out = np.empty_like(weight)
        _without(weight, self.untouched, out)
        return out


def parallel_hands(block: Block, vis: Vis, weight: Weight) -> tuple[Vis, Weight]:
    """Both parallel-hand correlations on a last axis of two, by receptor; a missing one has weight zero."""
    receptor = [block.spw.receptors[k][0] for k in block.spw.parallel]
    if receptor == [0, 1] and vis.shape[2] == 2:
        return vis, weight
    shape = (*vis.shape[:2], 2)
    by_receptor, weights = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    for k, p in zip(block.spw.parallel, receptor, strict=True):
        by_receptor[:, :, p], weights[:, :, p] = vis[:, :, k], weight[:, :, k]
    return by_receptor, weights


@numba.njit(parallel=True, cache=True)
def _without(weight: Weight, left_out: Bool, out: Weight) -> None:
    """Weights, shape (nrow, nchan, n), without those of some visibilities."""
    for row in numba.prange(weight.shape[0]):
        for channel in range(weight.shape[1]):
            for k in range(weight.shape[2]):
                left = left_out[row, channel]
                out[row, channel, k] = np.float32(0) if left else weight[row, channel, k]
