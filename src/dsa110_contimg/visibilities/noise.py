"""Thermal noise from the data themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight

__all__ = ["AntennaNoise", "NoiseEstimator", "NoiseScale"]

#: Samples kept per block for the median; the error of the scale is then far below 1 %.
SAMPLES_PER_BLOCK = 200_000
#: Noise exceeds this many times its mean square in three samples of ten million.
OUTLIER = 15.0


@dataclass(frozen=True, order=True)
class NoiseScale:
    """Noise relative to the weights, in one unit everywhere.

    Attributes
    ----------
    variance : float
        Variance of a complex visibility, real plus imaginary part, times its weight: jansky squared
        where weights are pure numbers; not a number where nothing was measured.
    """

    variance: float

    @classmethod
    def of_real_part(cls, rms: float) -> NoiseScale:
        """Make it from the rms of the real part at unit weight."""
        return cls(2.0 * rms * rms)

    @property
    def rms(self) -> float:
        """Standard deviation of the real (or imaginary) part at unit weight."""
        return math.sqrt(self.variance / 2.0)

    @property
    def known(self) -> bool:
        """Whether it is a positive, finite number."""
        return 0.0 < self.variance < math.inf


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
        self._samples: list[Single] = []
        self._rng = np.random.default_rng(20)

    def add(self, vis: Vis, weight: Weight) -> None:
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
    def scale(self) -> NoiseScale:
        """Noise relative to the weights; its variance is not a number without data."""
        return NoiseScale(self.scale2)

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


class AntennaNoise:
    """Noise of each antenna over what its weights say, by differences of adjacent channels.

    Noise powers of two receivers multiply: the variance of the baseline (i, j) is taken
    as f_i f_j times that of its weight. The factors are those of the logarithms,
    by least squares over all baselines.

    Parameters
    ----------
    n_antennas : int
        Antennas.
    """

    def __init__(self, n_antennas: int) -> None:
        self._power = np.zeros((n_antennas, n_antennas, 2))
        self._count = np.zeros((n_antennas, n_antennas, 2))

    def add(
        self,
        vis: Vis,
        weight: Weight,
        antenna1: Int,
        antenna2: Int,
    ) -> None:
        """Take in one block.

        Parameters
        ----------
        vis : ndarray of complex64, shape (nrow, nchan, 2)
            Visibilities with a model subtracted; nothing is learnt of a single channel.
        weight : ndarray of float32, same shape
            Weights, zero where flagged or far out.
        antenna1, antenna2 : ndarray of int, shape (nrow,)
            Antennas.
        """
        both = (weight[:, 1:] > 0) & (weight[:, :-1] > 0)
        with np.errstate(divide="ignore"):
            variance = np.where(both, 1 / weight[:, 1:] + 1 / weight[:, :-1], np.float32(1))
        power = np.where(both, np.abs(vis[:, 1:] - vis[:, :-1]) ** 2 / variance, 0)
        pair = (np.minimum(antenna1, antenna2), np.maximum(antenna1, antenna2))
        np.add.at(self._power, pair, power.sum(axis=1))
        np.add.at(self._count, pair, both.sum(axis=1))

    def seen(self) -> Bool:
        """Antennas and polarisations that anything was added of, shape (nant, 2)."""
        return np.asarray((self._count.sum(axis=0) + self._count.sum(axis=1)) > 0)

    def factors(self) -> Float:
        """Variance of each antenna and receptor over the median one's, shape (nant, 2); 1 if unknown."""
        n = len(self._power)
        out = np.ones((n, 2))
        for p in range(2):
            seen = (self._count[:, :, p] > 0) & (self._power[:, :, p] > 0)
            first, second = np.nonzero(seen)
            if first.size < n:
                continue
            design = np.zeros((first.size, n))
            design[np.arange(first.size), first] = design[np.arange(first.size), second] = 1
            value = np.log(self._power[first, second, p] / self._count[first, second, p])
            known = design.any(axis=0)
            fitted = np.linalg.lstsq(design[:, known], value, rcond=None)[0]
            out[known, p] = np.exp(fitted - np.median(fitted))
        return out
