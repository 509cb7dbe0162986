"""Thermal noise from the data themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoiseEstimator"]

#: Samples kept per block for the median; the error of the scale is then far below 1 %.
SAMPLES_PER_BLOCK = 200_000
#: Noise exceeds this many times its mean square in three samples of ten million.
OUTLIER = 15.0


class NoiseEstimator:
    """Scale of the noise relative to the weights, by differences of adjacent channels.

    With weights w the variance of a complex visibility (real plus imaginary
    part) is taken as ``scale2 / w``. A second difference of three channels,
    ``d = v[c-1] - 2 v[c] + v[c+1]``, removes constant and linear structure of
    the sky along frequency; ``w_d |d|^2`` with ``1/w_d = 1/w[c-1] + 4/w[c] +
    1/w[c+1]`` is then exponentially distributed with mean `scale2`, and its
    median is ``scale2 ln 2``. Differences far beyond what noise can reach are
    interference and are left out. Two channels give first differences; a
    single channel gives differences of the visibilities from zero, an upper
    limit.
    """

    def __init__(self) -> None:
        self._samples: list[NDArray[np.float32]] = []
        self._rng = np.random.default_rng(20)

    def add(self, vis: NDArray[np.complex64], weight: NDArray[np.float32]) -> None:
        """Take in one block.

        Parameters
        ----------
        vis : ndarray of complex64, shape (nrow, nchan, npol)
            Visibilities, best with a model subtracted.
        weight : ndarray of float32, shape (nrow, nchan, npol)
            Weights, zero where flagged.
        """
        # Channels that are flagged altogether are stepped over: their neighbours are adjacent then.
        used = np.flatnonzero((weight > 0).any(axis=(0, 2)))
        if used.size == 0:
            return
        if used.size < vis.shape[1]:
            vis, weight = vis[:, used], weight[:, used]
        nrow, nchan, npol = vis.shape
        fraction = vis.size / SAMPLES_PER_BLOCK
        if fraction > 1:
            chosen = self._rng.choice(nrow, max(1, int(nrow / fraction)), replace=False)
            vis, weight = vis[chosen], weight[chosen]
        factors = {1: [1.0], 2: [1.0, -1.0]}.get(nchan, [1.0, -2.0, 1.0])
        width = len(factors)
        difference = np.zeros((vis.shape[0], nchan - width + 1, npol), dtype=np.complex64)
        variance = np.zeros(difference.shape, dtype=np.float32)
        usable = np.ones(difference.shape, dtype=bool)
        for k, factor in enumerate(factors):
            part = slice(k, nchan - width + 1 + k)
            difference += np.complex64(factor) * vis[:, part]
            usable &= weight[:, part] > 0
            with np.errstate(divide="ignore"):
                variance += np.float32(factor**2) / weight[:, part]
        if usable.any():
            self._samples.append((np.abs(difference[usable]) ** 2 / variance[usable]).astype(np.float32))

    @property
    def scale2(self) -> float:
        """Variance of a complex visibility times its weight; NaN without data."""
        if not self._samples:
            return float("nan")
        samples = np.concatenate(self._samples)
        scale2 = float(np.median(samples) / np.log(2.0))
        for _ in range(5):
            scale2 = float(np.median(samples[samples <= OUTLIER * scale2]) / np.log(2.0))
        return scale2
