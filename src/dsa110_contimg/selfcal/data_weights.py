"""What a visibility counts for beyond its weight in the Measurement Set: outliers and noisy antennas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Vis, Weight
from dsa110_contimg.visibilities import Block, NoiseScale

__all__ = ["OUTLIER", "WILD", "DataWeights", "Residual", "block_outliers", "merged", "outliers"]

#: Noise exceeds this many times its mean square in three samples of ten million.
OUTLIER = 15.0
#: Uncalibrated data vary with the sky: only what exceeds this many times their mean square is not of it.
WILD = 1000.0
#: Where more than this fraction of a block stands out, it is not a matter of single visibilities.
MOST_OUTLIERS = 0.4
#: From this many times the variance of the median antenna, at the weights as they are, an antenna is noisy.
NOISY = 2.0

#: Outliers by number of the block: places in its flattened weights, ascending.
Outliers = Mapping[int, Int]


def outliers(vis: Vis, weight: Weight, limit: float) -> Bool:
    """Find visibilities that stand far out of their block.

    Parameters
    ----------
    vis : ndarray of complex64, any shape
        Visibilities, or what a model leaves of them.
    weight : ndarray of float32, same shape
        Weights, zero where flagged.
    limit : float
        How far, in units of the mean of ``w |V|^2`` that its median would have if the
        visibilities were noise, ``median / ln 2``.

    Returns
    -------
    ndarray of bool, same shape
        Nothing if it would be more than `MOST_OUTLIERS` of the block.
    """
    power = weight * (vis.real**2 + vis.imag**2)
    used = power[weight > 0]
    if used.size == 0:
        return np.zeros(vis.shape, dtype=bool)
    typical = float(np.median(used[:: max(1, used.size // 100_000)])) / np.log(2.0)
    found = np.asarray(power > limit * typical)
    if typical <= 0 or np.count_nonzero(found) > MOST_OUTLIERS * used.size:
        return np.zeros(vis.shape, dtype=bool)
    return found


def block_outliers(block: Block, found: Bool) -> Int:
    """Places in a block's flattened weights of outliers found by receptor.

    Parameters
    ----------
    block : Block
        The block.
    found : ndarray of bool, shape (nrow, nchan, 2)
        By receptor, as :func:`outliers` gives them for its parallel-hand visibilities.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    by_correlation = np.zeros(block.weight.shape, dtype=bool)
    for k in block.spw.parallel:
        by_correlation[:, :, k] = found[:, :, block.spw.receptors[k][0]]
    return np.flatnonzero(by_correlation)


def merged(many: Iterable[Outliers]) -> dict[int, Int]:
    """Outliers of any of several findings."""
    total: dict[int, Int] = {}
    for found in many:
        for number, places in found.items():
            total[number] = np.union1d(total[number], places) if number in total else places
    return total


@dataclass(frozen=True, kw_only=True)
class Residual:
    """What a calibration and a sky model leave of the data.

    Attributes
    ----------
    noise : NoiseScale
        Noise of the residual, all baselines.
    outliers : mapping of int to ndarray of int
        Visibilities far beyond the noise, by block.
    noise_factor : ndarray, shape (nant, 2)
        System noise over what the weights of this pass say, relative to the median antenna.
    seen : ndarray of bool, shape (nant, 2)
        Where there is anything to tell it from.
    """

    noise: NoiseScale
    outliers: Outliers
    noise_factor: Float
    seen: Bool


@dataclass(frozen=True, eq=False)
class DataWeights:
    """Which visibilities have no weight, and which antennas have less than the data say.

    Nothing on disk knows of it. A value: what a rejected sky model found out about the data goes with it.

    Attributes
    ----------
    noise_factor : ndarray, shape (nant, 2)
        System noise over what the weights say, 1 where they are right: the variance of a visibility
        is larger by the product of its two antennas' factors.
    outliers : mapping of int to ndarray of int
        Visibilities of no weight, by block.
    """

    noise_factor: Float
    outliers: Outliers = field(default_factory=dict)

    @classmethod
    def nominal(cls, n_antennas: int) -> DataWeights:
        """Weights as the data have them."""
        return cls(np.ones((n_antennas, 2)))

    @property
    def n_outliers(self) -> int:
        """Number of visibilities without weight."""
        return sum(places.size for places in self.outliers.values())

    def of_block(self, number: int, block: Block) -> Weight:
        """Weights of a block, shape (nrow, nchan, ncorr)."""
        weight = block.weight
        if number in self.outliers:
            weight = weight.copy()
            weight.reshape(-1)[self.outliers[number]] = 0
        if (self.noise_factor == 1).all():
            return weight
        first, second = [p for p, _ in block.spw.receptors], [q for _, q in block.spw.receptors]
        factor = self.noise_factor
        excess = factor[block.antenna1][:, first] * factor[block.antenna2][:, second]
        return np.asarray((weight / excess[:, None, :]).astype(np.float32))

    def after(self, residual: Residual, *found: Outliers) -> tuple[DataWeights, Bool]:
        """Weights by what a residual showed that was measured with these.

        Parameters
        ----------
        residual : Residual
            Of the calibrated data.
        *found : mapping of int to ndarray of int
            Outliers found before it.

        Returns
        -------
        weights : DataWeights
            Without the outliers, and with less weight for antennas that are `NOISY` still.
        noisy : ndarray of bool, shape (nant, 2)
            The antennas that got less.
        """
        noisy = np.asarray(residual.noise_factor > NOISY)
        factor = np.where(noisy, self.noise_factor * residual.noise_factor, self.noise_factor)
        together = merged([self.outliers, *found, residual.outliers])
        return replace(self, noise_factor=factor, outliers=together), noisy

    def without_factors(self) -> DataWeights:
        """Return weights with the same outliers, and all antennas as noisy as WEIGHT says."""
        return replace(self, noise_factor=np.ones_like(self.noise_factor))
