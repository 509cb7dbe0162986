"""The data of a self-calibration, read-only: blocks, initial tables, sums over them against a sky model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np

from dsa110_contimg.array_types import Float, Vis, Weight
from dsa110_contimg.calibration.apply import chain, correct
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.statistics import BaselineStatistics, RowIndex, accumulate
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.imaging import ImageGrid, StokesI, average_channels, stokes_i
from dsa110_contimg.selfcal.data_weights import (
    OUTLIER,
    WILD,
    DataWeights,
    Outliers,
    Residual,
    block_outliers,
    outliers,
)
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.visibilities import (
    AntennaNoise,
    Block,
    NoiseEstimator,
    NoiseScale,
    VisibilityReader,
    turn_phases,
)

__all__ = ["CalibrationBlock", "CalibrationData", "Gathered", "sub_band_edges"]

#: Noise before calibration is measured on the shortest third of the baselines, where the uncalibrated sky
#: changes least from channel to channel.
SHORT_BASELINES = 1 / 3
#: With fewer visibilities averaging saves less than the transforms of another grid cost.
MANY_VISIBILITIES = 20_000_000


def sub_band_edges(n_channels: int, sub_bands: int) -> list[int]:
    """Return the channels at which the sub-bands of a window begin, and the number of channels."""
    return [k * n_channels // sub_bands for k in range(sub_bands + 1)]


@dataclass(frozen=True, eq=False)
class CalibrationBlock:
    """A block of data with what it counts for and what a sky model says of it.

    Attributes
    ----------
    number : int
        Which block.
    block : Block
        Data as they were read; not to be written to.
    weight : ndarray of float32, shape (nrow, nchan, ncorr)
        Weights, zero where flagged or an outlier.
    model : ndarray of complex64, shape (nrow, nchan), or None
        Stokes I of the sky model in jansky.
    """

    number: int
    block: Block
    weight: Weight
    model: Vis | None


@dataclass(frozen=True, eq=False)
class Gathered:
    """One pass over the data.

    Attributes
    ----------
    statistics : BaselineStatistics
        Of the data after all tables against the model.
    noise : NoiseScale
        Noise on the short baselines.
    outliers : mapping of int to ndarray of int
        Visibilities so far out that they are not of any sky, by block; without weight in the statistics.
    """

    statistics: BaselineStatistics
    noise: NoiseScale
    outliers: Outliers


class CalibrationData:
    """Blocks of a Measurement Set, corrected on the fly by the initial tables.

    Sky model, weights and further tables are arguments of its methods: whatever is tried on the data leaves
    them as they were. Predictions of a model are remembered as long as the model lives.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    initial : sequence of GainTable
        Initial tables: always applied, never to DATA on disk.
    log : StageLog
        Where passes are reported and timed.
    grid : ImageGrid, optional
        Grid of the images; only what makes images needs one.
    catalog_model : ApparentSky, optional
        What the catalogue lists, through the beam; none in an unseeded run.
    mask_sources : ApparentSky, optional
        Sources around which CLEAN may find components; none without a catalogue mask.
    """

    def __init__(
        self,
        reader: VisibilityReader,
        initial: Sequence[GainTable],
        log: StageLog,
        *,
        grid: ImageGrid | None = None,
        catalog_model: ApparentSky | None = None,
        mask_sources: ApparentSky | None = None,
    ) -> None:
        self.reader = reader
        self.initial = tuple(initial)
        self.log = log
        self._grid = grid
        self.catalog_model = catalog_model
        self.mask_sources = mask_sources
        self._first_channel: dict[int, int] = {}
        channel = 0
        for spw in reader.selection.spw_ids:
            self._first_channel[spw] = channel
            channel += reader.ms.spectral_window(spw).freq_hz.size
        self.n_channels = channel
        # Predictions are kept as long as their model lives, and never change.
        self._predicted: WeakKeyDictionary[ModelVisibilities, dict[int, Vis]] = WeakKeyDictionary()
        self._hash = ""

    @property
    def spw_ids(self) -> tuple[int, ...]:
        """Selected spectral windows."""
        return self.reader.selection.spw_ids

    @property
    def grid(self) -> ImageGrid:
        """Grid of the images."""
        if self._grid is None:
            raise RuntimeError("no image grid was given")
        return self._grid

    @property
    def data_hash(self) -> str:
        """SHA-256 of DATA as it was read; known after the first pass, else it takes one."""
        if not self._hash:
            self._hash = self._digest(self._read("read the data"))
        return self._hash

    def nominal_weights(self) -> DataWeights:
        """Weights as the data have them."""
        return DataWeights.nominal(len(self.reader.ms.antennas))

    def corrected(self, block: Block, weight: Weight, tables: Sequence[GainTable] = ()) -> tuple[Vis, Weight]:
        """Visibilities and weights of a block after the initial and further tables.

        Parameters
        ----------
        block : Block
            The data.
        weight : ndarray of float32, shape (nrow, nchan, ncorr)
            Weights before correction, inverse variances.
        tables : sequence of GainTable
            Gains applied after the initial tables.

        Returns
        -------
        vis : ndarray of complex64, shape (nrow, nchan, ncorr)
            Corrected data; what has no solution is left as it was, with weight zero.
        weight : ndarray of float32, same shape
            Inverse variances up to one common scale.
        """
        applied = [*self.initial, *tables]
        if not applied:
            return block.data, weight
        dumps, index = np.unique(block.time_index, return_inverse=True)
        times, n_antennas = self.reader.times[dumps], len(self.reader.ms.antennas)
        gain, flag = chain(applied, block.spw.id, times, block.spw.freq_hz, n_antennas)
        return correct(
            block.data, weight, block.antenna1, block.antenna2, index, gain, flag, block.spw.receptors
        )

    def blocks(
        self, label: str, weights: DataWeights, model: ModelVisibilities | None = None
    ) -> Iterator[CalibrationBlock]:
        """Yield each block with its weights, and with the visibilities of a model if one is given."""
        for number, block in self._read(label):
            predicted = None if model is None else self._predict(number, block, model)
            yield CalibrationBlock(number, block, weights.of_block(number, block), predicted)

    def _read(self, label: str) -> Iterator[tuple[int, Block]]:
        def timed() -> Iterator[Block]:
            blocks = self.reader.blocks()
            while True:
                with self.log.timed("read"):
                    block = next(blocks, None)
                if block is None:
                    return
                yield block

        yield from enumerate(self.log.track(timed(), self.reader.n_blocks, label))

    def _predict(self, number: int, block: Block, model: ModelVisibilities) -> Vis:
        kept = self._predicted.setdefault(model, {})
        if number in kept:
            return kept[number]
        with self.log.timed("predict"):
            predicted = model.visibilities(block, self.reader)
        if self.reader.cached:
            kept[number] = predicted
        return predicted

    def _digest(self, blocks: Iterator[tuple[int, Block]]) -> str:
        digest = hashlib.sha256()
        for _, block in blocks:
            digest.update(np.ascontiguousarray(block.data).tobytes())
        return digest.hexdigest()

    def gather(
        self,
        model: ModelVisibilities,
        weights: DataWeights,
        tables: Sequence[GainTable] = (),
        *,
        sub_bands: int = 1,
    ) -> Gathered:
        """Gather the baseline statistics and the noise in one pass.

        Parameters
        ----------
        model : ModelVisibilities
            What the gains are to be solved against.
        weights : DataWeights
            What the visibilities count for.
        tables : sequence of GainTable
            Gains applied after the initial tables.
        sub_bands : int
            Parts of each window that are kept apart; they take the place of the
            windows, numbered from zero.

        Returns
        -------
        Gathered

        Raises
        ------
        MeasurementSetError
            If nothing is left after flags.
        """
        parts = self.spw_ids if sub_bands == 1 else range(len(self.spw_ids) * sub_bands)
        statistics = BaselineStatistics.empty(len(self.reader.ms.antennas), parts, self.reader.times.size)
        noise, digest = NoiseEstimator(), hashlib.sha256()
        found = {}
        for piece in self.blocks("predict and gather", weights, model):
            block, predicted = piece.block, piece.model
            assert predicted is not None
            vis, weight = _parallel(block, *self.corrected(block, piece.weight, tables))
            wild = outliers(vis, weight, WILD)
            if wild.any():
                found[piece.number] = block_outliers(block, wild)
                weight = np.where(wild, np.float32(0), weight)
            if not self._hash:
                digest.update(np.ascontiguousarray(block.data).tobytes())
            window, edges = self.spw_ids.index(block.spw.id), sub_band_edges(predicted.shape[1], sub_bands)
            for k, (start, end) in enumerate(pairwise(edges)):
                accumulate(
                    statistics,
                    window * sub_bands + k,
                    RowIndex(block.time_index, block.antenna1, block.antenna2),
                    vis[:, start:end],
                    weight[:, start:end],
                    np.ascontiguousarray(predicted[:, start:end]),
                    self._first_channel[block.spw.id] + start,
                )
            length = np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1])
            short = length <= np.quantile(length, SHORT_BASELINES)
            noise.add(vis[short], weight[short])
        self._hash = self._hash or digest.hexdigest()
        if statistics.count.sum() == 0:
            raise MeasurementSetError(
                "every selected visibility is flagged or without a solution in the initial tables",
                self.reader.ms.path,
                "check FLAG, WEIGHT and the initial tables",
            )
        return Gathered(statistics, noise.scale, found)

    def measure_residual(
        self, model: ModelVisibilities, weights: DataWeights, tables: Sequence[GainTable]
    ) -> Residual:
        """Measure noise, outliers and noisy antennas on the calibrated data minus a model, all baselines."""
        noise, of_antennas = NoiseEstimator(), AntennaNoise(len(self.reader.ms.antennas))
        found = {}
        for piece in self.blocks("measure the noise", weights, model):
            block, predicted = piece.block, piece.model
            assert predicted is not None
            vis, weight = _parallel(block, *self.corrected(block, piece.weight, tables))
            residual = vis - predicted[:, :, None]
            far = outliers(residual, weight, OUTLIER)
            if far.any():
                found[piece.number] = block_outliers(block, far)
            noise.add(residual, weight)
            weight = np.where(far, np.float32(0), weight)
            of_antennas.add(residual, weight, block.antenna1, block.antenna2)
        return Residual(
            noise=noise.scale,
            outliers=found,
            noise_factor=of_antennas.factors(),
            seen=of_antennas.seen(),
        )

    def stokes(
        self,
        tables: Sequence[GainTable],
        weights: DataWeights,
        label: str,
        *,
        subtract: ModelVisibilities | None = None,
        weight_tables: Sequence[GainTable] | None = None,
        half_width_rad: float = np.pi / 2,
    ) -> list[StokesI]:
        """Collect calibrated Stokes I visibilities for imaging.

        Weights follow the calibration: an antenna of low gain counts for less,
        and one without a solution not at all.

        Parameters
        ----------
        tables : sequence of GainTable
            Gains applied after the initial tables.
        weights : DataWeights
            What the visibilities count for.
        label : str
            For progress.
        subtract : ModelVisibilities, optional
            Sky model to subtract.
        weight_tables : sequence of GainTable, optional
            Gains that the weights and flags follow instead of `tables`, so that
            two states of the calibration are imaged alike.
        half_width_rad : float
            From the phase centre to the edge of the image. Very many visibilities
            are averaged over channels where that does not show in it.

        Returns
        -------
        list of StokesI
        """
        averaged = self.reader.n_rows * self.n_channels // len(self.spw_ids) > MANY_VISIBILITIES
        out: dict[int, list[StokesI]] = {}
        for piece in self.blocks(label, weights, subtract):
            block = piece.block
            vis, weight = self.corrected(block, piece.weight, tables)
            if piece.model is not None:
                vis = _minus(block, vis, piece.model)
            freq, precision = block.spw.freq_hz, None
            if weight_tables is None:
                combined, total = stokes_i(vis, weight, weight == 0, block.spw.parallel)
            else:
                _, common = self.corrected(block, piece.weight, weight_tables)
                combined, total, precision = _alike(block, vis, weight, common)
            uvw, path = self.reader.move_to_center(block)
            if path.any():
                combined = turn_phases(combined, path, freq)
            chunk = StokesI(uvw, freq, combined, total, precision)
            for factor, part in (average_channels(chunk, half_width_rad) if averaged else {1: chunk}).items():
                out.setdefault(factor, []).append(part)
        # Those with the same channels side by side: the imager joins them.
        return [part for parts in out.values() for part in parts]

    def calibrated(
        self,
        tables: Sequence[GainTable],
        weights: DataWeights,
        label: str,
        subtract: ModelVisibilities | None = None,
    ) -> Iterator[tuple[Block, Vis, Weight]]:
        """Yield each block with its calibrated data, less a model if one is given, and their weights."""
        for piece in self.blocks(label, weights, subtract):
            vis, weight = self.corrected(piece.block, piece.weight, tables)
            if piece.model is not None:
                vis = _minus(piece.block, vis, piece.model)
            yield piece.block, vis, weight


def _minus(block: Block, vis: Vis, model: Vis) -> Vis:
    """Parallel-hand correlations less a model of Stokes I; the others as they are."""
    left = vis.copy()
    for k in block.spw.parallel:
        left[:, :, k] -= model
    return left


def _alike(block: Block, vis: Vis, weight: Weight, common: Weight) -> tuple[Vis, Weight, Weight]:
    """Stokes I at weights that are not the data's own: visibilities, weights and inverse variances."""
    common = np.where(weight == 0, np.float32(0), common)
    combined, total = stokes_i(vis, common, common == 0, block.spw.parallel)
    # The combination's own variance: sum of w^2 / w_true over (sum of w)^2.
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(common > 0, common**2 / weight, 0)[:, :, list(block.spw.parallel)].sum(axis=2)
        precision: Float = np.where(total > 0, total**2 / spread, 0)
    return combined, total, precision.astype(np.float32)


def _parallel(block: Block, vis: Vis, weight: Weight) -> tuple[Vis, Weight]:
    """Both parallel-hand correlations on a last axis of two, by receptor; a missing one has weight zero."""
    receptor = [block.spw.receptors[k][0] for k in block.spw.parallel]
    if receptor == [0, 1] and vis.shape[2] == 2:
        return vis, weight
    shape = (*vis.shape[:2], 2)
    by_receptor, weights = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    for k, p in zip(block.spw.parallel, receptor, strict=True):
        by_receptor[:, :, p], weights[:, :, p] = vis[:, :, k], weight[:, :, k]
    return by_receptor, weights
