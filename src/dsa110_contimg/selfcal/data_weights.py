"""What a visibility counts for beyond its weight in the Measurement Set: outliers and noisy antennas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight
from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.visibilities import Block, NoiseBounds, NoiseScale

__all__ = ["OUTLIER", "WILD", "DataWeights", "Residual", "block_outliers", "differing", "merged", "outliers"]

#: Noise exceeds this many times its mean square in three samples of ten million.
OUTLIER = 15.0
#: Uncalibrated data vary with the sky: only what exceeds this many times their mean square is not of it.
WILD = 1000.0
#: Visibilities that tell the median of a block, about.
MEDIAN_OF = 20_000
#: With less than this fraction of them in use all are looked at.
FEW_USED = 0.1
#: Where more than this fraction of a block stands out, it is not a matter of single visibilities.
MOST_OUTLIERS = 0.4
#: An antenna whose noise variance differs by this factor from the median one's, at the weights as they are,
#: shows that the weights do not tell the antennas apart: all are weighed by their noise then. One at which
#: neighbouring channels differ by so much more than its noise sees what the model lacks, and counts for less.
NOISY = 2.0
#: The same of a spectral window, whose noise is known better. Weights that were never set are one in all of
#: them, however wide their channels are.
NOISY_WINDOW = 1.3
#: No antenna is taken for quieter than this variance: what is nearly silent may be broken.
QUIETEST = 0.05

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
    found = np.zeros(vis.shape, dtype=bool)
    flat, of = np.ascontiguousarray(vis).reshape(-1), np.ascontiguousarray(weight).reshape(-1)
    n_used = int(np.count_nonzero(of > 0))
    if n_used == 0:
        return found
    typical = float(np.median(_sampled_powers(flat, of, vis.shape))) / np.log(2.0)
    if typical > 0 and _mark(flat, of, limit * typical, found.reshape(-1)) > MOST_OUTLIERS * n_used:
        found[:] = False
    return found


def _sampled_powers(vis: Vis, weight: Weight, shape: Sequence[int]) -> Single:
    """Weighted powers of some of the visibilities that have weight, of all where few have."""
    step = max(1, vis.size // MEDIAN_OF)
    # A step without a common divisor comes to all channels and correlations.
    while math.gcd(step, math.prod(shape[1:])) > 1:
        step += 1
    for every in (step, 1):
        some, of = vis[::every], weight[::every]
        power = (of * (some.real**2 + some.imag**2))[of > 0]
        if power.size * step >= vis.size * FEW_USED:
            break
    return np.asarray(power, dtype=np.float32)


@numba.njit(parallel=True, cache=True)
def _mark(vis: Vis, weight: Weight, limit: float, found: Bool) -> int:
    """Mark what has more than so much power; how many."""
    n = 0
    for k in numba.prange(vis.size):
        if weight[k] * (vis[k].real * vis[k].real + vis[k].imag * vis[k].imag) > limit:
            found[k] = True
            n += 1
    return n


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


def _of_baselines(factor: Float, block: Block, receptors: Sequence[tuple[int, int]]) -> Float | None:
    """Product of the factors of the antennas of each row, shape (nrow, 1, ncorr); None if all are one."""
    if (factor == 1).all():
        return None
    first, second = [p for p, _ in receptors], [q for _, q in receptors]
    return np.asarray(factor[block.antenna1][:, first] * factor[block.antenna2][:, second])[:, None, :]


def differing(noise_factor: Float) -> Bool:
    """Where antennas are noisier or quieter than the median one by more than `NOISY`; shape as given."""
    return np.asarray(np.abs(np.log(noise_factor)) > np.log(NOISY))


def differs(window_factor: float) -> bool:
    """Whether a window is noisier or quieter than the median one by more than `NOISY_WINDOW`."""
    return abs(math.log(window_factor)) > math.log(NOISY_WINDOW)


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
    bounds : NoiseBounds
        Bounds of the noise of the residual, all baselines.
    outliers : mapping of int to ndarray of int
        Visibilities far beyond the noise, by block.
    noise_factor : ndarray, shape (nant, 2)
        System noise over what the weights of this pass say, but for what the model lacks, relative to the
        median antenna.
    misfit_factor : ndarray, shape (nant, 2)
        Differences of neighbouring channels over that noise, alike.
    seen : ndarray of bool, shape (nant, 2)
        Where there is anything to tell it from.
    window_factor : mapping of int to float
        System noise of spectral windows over what the weights of this pass say, relative to the median one.
    """

    bounds: NoiseBounds
    outliers: Outliers
    noise_factor: Float
    misfit_factor: Float
    seen: Bool
    window_factor: Mapping[int, float] = field(default_factory=dict)

    @property
    def noise(self) -> NoiseScale:
        """Noise of the residual: the lowest of its bounds."""
        return self.bounds.lowest


@dataclass(frozen=True, eq=False)
class DataWeights:
    """Which visibilities have no weight, and which antennas have less than the data say.

    Nothing on disk knows of it. A value: what a rejected sky model found out about the data goes with it.

    Attributes
    ----------
    noise_factor : ndarray, shape (nant, 2)
        System noise over what the weights say, relative to the median antenna; all 1 where the weights are
        right: the variance of a visibility is larger by the product of its two antennas' factors.
    misfit_factor : ndarray, shape (nant, 2)
        By how much the variance is taken to be larger on the baselines of antennas at which the model lacks
        most; 1 elsewhere.
    outliers : mapping of int to ndarray of int
        Visibilities of no weight, by block.
    broken : mapping of int to ndarray of int
        Visibilities that can be neither sky nor noise, by block as it was read: of no weight. They are not in
        averages.
    lost : ndarray of bool, shape (ntime, nant, 2), or None
        Dumps in which an antenna and receptor gives nothing of the sky: of no weight.
    window_factor : mapping of int to float
        Factor on the variance of all visibilities of a spectral window; 1 where none is given.
    """

    noise_factor: Float
    misfit_factor: Float
    outliers: Outliers = field(default_factory=dict)
    broken: Outliers = field(default_factory=dict)
    lost: Bool | None = None
    window_factor: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def nominal(cls, n_antennas: int) -> DataWeights:
        """Weights as the data have them."""
        return cls(np.ones((n_antennas, 2)), np.ones((n_antennas, 2)))

    @property
    def excess(self) -> Float:
        """Factor of each antenna on the variance of its visibilities, shape (nant, 2)."""
        return self.noise_factor * self.misfit_factor

    @property
    def n_outliers(self) -> int:
        """Number of outliers."""
        return sum(places.size for places in self.outliers.values())

    def unfit(self, number: int, block: Block) -> Bool:
        """Where a block holds broken visibilities or those of lost antennas, shape (nrow, nchan, ncorr)."""
        out = np.zeros(block.weight.shape, dtype=bool)
        if self._is_broken(number, block):
            out.reshape(-1)[self.broken[number]] = True
        if self.lost is not None:
            first, second = [p for p, _ in block.spw.receptors], [q for _, q in block.spw.receptors]
            of_dump = self.lost[block.time_index]
            rows = np.arange(block.time_index.size)
            lost = of_dump[rows, block.antenna1][:, first] | of_dump[rows, block.antenna2][:, second]
            out |= lost[:, None, :]
        return out

    def _is_broken(self, number: int, block: Block) -> bool:
        return block.bins is None and number in self.broken

    def of_block(self, number: int, block: Block) -> Weight:
        """Weights of a block, shape (nrow, nchan, ncorr)."""
        weight = block.weight
        if self._is_broken(number, block) or self.lost is not None:
            weight = np.where(self.unfit(number, block), np.float32(0), weight)
        if number in self.outliers:
            weight = weight.copy()
            weight.reshape(-1)[self.outliers[number]] = 0
        excess, of_window = _of_baselines(self.excess, block, block.spw.receptors), self._of_window(block)
        if excess is None and of_window == 1:
            return weight
        total = of_window * (1.0 if excess is None else excess)
        return np.asarray((weight / total).astype(np.float32))

    def _of_window(self, block: Block) -> float:
        return self.window_factor.get(block.spw.id, 1.0)

    def by_noise(
        self, block: Block, weight: Weight, receptors: Sequence[tuple[int, int]] | None = None
    ) -> Weight:
        """Weights that tell the noise, from those of a block: what the model lacks is no noise.

        Parameters
        ----------
        block : Block
            The block.
        weight : ndarray of float32, shape (nrow, nchan, n)
            Its weights with all factors.
        receptors : sequence of (int, int), length n, optional
            Receptors of antenna 1 and 2 on the last axis; those of the block's correlations by default.

        Returns
        -------
        ndarray of float32, same shape
        """
        misfit = _of_baselines(self.misfit_factor, block, receptors or block.spw.receptors)
        return weight if misfit is None else np.asarray((weight * misfit).astype(np.float32))

    def noise_share(self, statistics: BaselineStatistics) -> float:
        """Return what noise alone leaves of a weighted visibility over its variance, in the mean.

        One where nothing counts for less than its noise says.
        """
        share = 1 / self.misfit_factor
        of_baseline = share[statistics.antenna1] * share[statistics.antenna2]
        count = statistics.count.sum(axis=(0, 1, 2))
        total = float(count.sum())
        return float((count * of_baseline).sum()) / total if total else 1.0

    def after(self, residual: Residual, *before: Outliers) -> tuple[DataWeights, Bool, Bool]:
        """Weights by what a residual showed that was measured with these.

        Parameters
        ----------
        residual : Residual
            Of the calibrated data.
        *before : mapping of int to ndarray of int
            Outliers found before it.

        Returns
        -------
        weights : DataWeights
            Without the outliers; if an antenna's noise differs by `NOISY` still, with all antennas weighed by
            their noise, and windows by theirs if one differs by `NOISY_WINDOW`; with less weight for antennas
            at which the model lacks much.
        noisy : ndarray of bool, shape (nant, 2)
            The antennas whose noise differs so.
        misfit : ndarray of bool, shape (nant, 2)
            Those that count for less now, or no longer, for what the model lacks.
        """
        noisy, noise = differing(residual.noise_factor), self.noise_factor
        if noisy.any():
            noise = np.maximum(noise * residual.noise_factor, QUIETEST)
        windows = self.window_factor
        if any(differs(factor) for factor in residual.window_factor.values()):
            measured = residual.window_factor
            found = {**windows, **{k: windows.get(k, 1.0) * factor for k, factor in measured.items()}}
            windows = {k: factor / float(np.median(list(found.values()))) for k, factor in found.items()}
        lacking = np.where(residual.misfit_factor > NOISY, residual.misfit_factor, 1.0)
        misfit = differing(lacking / self.misfit_factor)
        lacking = np.where(misfit, lacking, self.misfit_factor)
        together = merged([self.outliers, *before, residual.outliers])
        weights = replace(
            self, noise_factor=noise, misfit_factor=lacking, outliers=together, window_factor=windows
        )
        return weights, noisy, misfit

    def windows_unlike(self, other: DataWeights) -> tuple[int, ...]:
        """Return the spectral windows that count for clearly more or less than with other weights."""
        known = {*self.window_factor, *other.window_factor}
        ratio = {k: self.window_factor.get(k, 1.0) / other.window_factor.get(k, 1.0) for k in known}
        return tuple(sorted(k for k, factor in ratio.items() if differs(factor)))

    def without(self, lost: Bool) -> DataWeights:
        """Return weights without some more dumps of antennas, shape (ntime, nant, 2)."""
        if not lost.any():
            return self
        return replace(self, lost=lost if self.lost is None else self.lost | lost)

    def without_factors(self) -> DataWeights:
        """Return weights with the same outliers, and all antennas and windows as noisy as WEIGHT says."""
        one = np.ones_like(self.noise_factor)
        return replace(self, noise_factor=one, misfit_factor=one, window_factor={})

    def as_found(self) -> DataWeights:
        """Return weights without anything that a residual has shown."""
        return replace(self.without_factors(), outliers={})
