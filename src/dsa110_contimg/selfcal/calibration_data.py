"""The data of a self-calibration, read-only: blocks, initial tables, sums over them against a sky model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from dsa110_contimg.array_types import Bool, Int, Vis, Weight
from dsa110_contimg.calibration.apply import chain, correct
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.statistics import BaselineStatistics, RowIndex, accumulate
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.selfcal.averaged_data import (
    SHORT_BASELINES,
    AveragedData,
    Averaging,
    read_averaged,
)
from dsa110_contimg.selfcal.calibration_block import (
    BY_RECEPTOR,
    CalibrationBlock,
    parallel_hands,
    sub_bands_of,
)
from dsa110_contimg.selfcal.data_weights import (
    OUTLIER,
    WILD,
    DataWeights,
    Outliers,
    Residual,
    block_outliers,
    merged,
    outliers,
)
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities, SkyVisibilities
from dsa110_contimg.selfcal.predictions import Predictions
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.visibilities import (
    AntennaNoise,
    Block,
    BoundsEstimator,
    NoiseBounds,
    NoiseEstimator,
    NoiseScale,
    VisibilityReader,
    dumps_tell_antennas,
    impossible_values,
    nothing_usable,
)
from dsa110_contimg.visibilities.broken_data import BrokenData, BrokenDataFinder

__all__ = ["CalibrationData", "Gathered"]

#: One visibility in so many is used for nothing but the score at the end; odd, for the halves of the channels
#: alternate.
UNTOUCHED_EACH = 11
#: Where a part of the dumps is used, so many are left: they tell of a drift.
FEWEST_DUMPS = 4


@dataclass(frozen=True, eq=False)
class Gathered:
    """One pass over the data.

    Attributes
    ----------
    statistics : BaselineStatistics
        Of the data after all tables against the model.
    bounds : NoiseBounds
        Bounds of the noise, on the short baselines.
    outliers : mapping of int to ndarray of int
        Visibilities so far out that they are not of any sky, by block; without weight in the statistics.
    """

    statistics: BaselineStatistics
    bounds: NoiseBounds
    outliers: Outliers

    @property
    def noise(self) -> NoiseScale:
        """Noise: the lowest of its bounds."""
        return self.bounds.lowest


class CalibrationData:
    """Blocks of a Measurement Set after the initial tables: averages of channels, or as they are.

    With averaging one pass reads the data, applies the initial tables and averages; everything that is tried
    is tried on the averages, and only columns are written from the data as they are. Without it, or where
    it gains nothing, each pass reads, and corrects on the fly.

    Sky model, weights and further tables are arguments of its methods: whatever is tried on the data leaves
    them as they were. Predictions of a model are remembered as long as the model lives; those of one that
    differs from it in few components take only these.

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
    averaging : Averaging, optional
        How far channels are averaged; not at all by default, nor where it gains nothing.
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
        averaging: Averaging | None = None,
    ) -> None:
        self.reader = reader
        self.initial = tuple(initial)
        self.log = log
        self._grid = grid
        self.catalog_model = catalog_model
        self.mask_sources = mask_sources
        self.first_channel: dict[int, int] = {}
        channel = 0
        for spw in reader.selection.spw_ids:
            self.first_channel[spw] = channel
            channel += reader.ms.spectral_window(spw).freq_hz.size
        self.n_channels = channel
        self._predicted = Predictions()
        #: One dump in so many is used: see `sampled`.
        self.each = 1
        self._sampled: dict[int, Block] = {}
        # Which averages are left alone, by block: looked up in every pass.
        self._left_alone: dict[int, Bool] = {}
        self._hash = ""
        self._averaging = averaging if averaging is not None and averaging.worthwhile(reader) else None
        self._averaged: AveragedData | None = None
        if self._averaging is not None:
            # Read twice, for averages and for columns: the memory is for the averages.
            reader.cached = False

    def with_catalogue(
        self, catalog_model: ApparentSky | None, mask_sources: ApparentSky | None
    ) -> CalibrationData:
        """Return the same data with another catalogue model; it shares, and does not own, their averages."""
        other = copy(self)
        other.catalog_model, other.mask_sources = catalog_model, mask_sources
        return other

    def sampled(self, each: int) -> CalibrationData:
        """Return the same data with one dump in so many, for what a part of them tells well enough.

        Parameters
        ----------
        each : int
            One dump in so many is used; all of them where less than `FEWEST_DUMPS` would be left.

        Returns
        -------
        CalibrationData
            Itself where nothing is left out. What it predicts is remembered as long as it lives.
        """
        each = min(each, self.reader.times.size // FEWEST_DUMPS)
        if each <= 1 or self.each > 1:
            return self
        other = copy(self)
        other.each, other._sampled = each, {}
        known = self.averaged is not None and self.remembers
        other._predicted = self._predicted.of_rows(other._rows_of) if known else Predictions()
        return other

    def _rows_of(self, number: int) -> Int:
        """Rows of a block that are used, by its number."""
        assert self.averaged is not None
        return self._rows(self.averaged.blocks.block(number))

    def _rows(self, block: Block) -> Int:
        return np.flatnonzero(block.time_index % self.each == self.each // 2)

    def _part(self, number: int, block: Block) -> Block:
        """Rows of a block that are used, as a block of their own."""
        if number not in self._sampled or block.bins is None:
            part = block.of_rows(self._rows(block))
            if block.bins is None or not self.remembers:
                return part
            self._sampled[number] = part
        return self._sampled[number]

    @property
    def averaged(self) -> AveragedData | None:
        """Averages, which the first use makes in one pass; None if the data are used as they are."""
        if self._averaging is not None and self._averaged is None:
            read = self._as_read("read and average")
            self._averaged = read_averaged(read, self.reader, self.initial, self._averaging)
            self._hash = self._averaged.data_hash
            blocks = self._averaged.blocks
            where = "in memory" if blocks.in_memory else "in a scratch file"
            self.log.note(
                f"{self.reader.samples:,} visibilities averaged to {self._averaged.samples:,}, "
                f"{blocks.size_bytes / 1e6:,.0f} MB {where}"
            )
            if self._averaged.n_wild:
                self.log.note(f"{self._averaged.n_wild} visibilities far out of their channels are left out")
        return self._averaged

    @property
    def samples(self) -> int:
        """Visibilities that are worked on, correlations counted singly."""
        return self.reader.samples if self.averaged is None else self.averaged.samples

    @property
    def n_blocks(self) -> int:
        """Blocks that a pass takes."""
        return self.reader.n_blocks if self.averaged is None else len(self.averaged.blocks)

    def close(self) -> None:
        """Let averages go, and the room that they take on the disk."""
        if self._averaged is not None:
            self._averaged.blocks.close()

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

    @cached_property
    def resolution_rad(self) -> float:
        """One over the rms length of the baselines in wavelengths."""
        # The square of a baseline is twice the variance of the antennas, in the mean.
        spread = self.reader.antenna_uv()
        length_m = float(np.sqrt(2 * np.nanmean((spread**2).sum(axis=2))))
        return SPEED_OF_LIGHT / float(self.reader.freq_hz.mean()) / max(length_m, 1e-9)

    @property
    def data_hash(self) -> str:
        """SHA-256 of DATA as it was read; known after the first pass, else it takes one."""
        if not self._hash and self.averaged is None:
            self._hash = self._digest(self._as_read("read the data"))
        return self._hash

    def nominal_weights(self) -> DataWeights:
        """Weights as the data have them, without what can be neither sky nor noise.

        Raises
        ------
        MeasurementSetError
            If that is everything.
        """
        broken = self.broken
        if broken.everything:
            raise nothing_usable(self.reader, all_broken=True)
        plain = DataWeights.nominal(len(self.reader.ms.antennas))
        return replace(plain, broken=broken.places).without(broken.silent)

    @cached_property
    def broken(self) -> BrokenData:
        """What can be neither sky nor noise; looked for once, and noted."""
        antennas = self.reader.ms.antennas
        with self.log.timed("read"):
            if self.averaged is not None:
                found = self.averaged.broken
            else:
                finder, digest = BrokenDataFinder(self.reader.times.size, len(antennas)), hashlib.sha256()
                for number, block in self._as_read("look for broken data"):
                    digest.update(np.ascontiguousarray(block.data).tobytes())
                    finder.add(number, block)
                self._hash, found = digest.hexdigest(), finder.result()
                if found.bursts:
                    read = self._as_read("look for bursts of interference")
                    places = {number: found.in_bursts(block) for number, block in read}
                    places = {number: of_block for number, of_block in places.items() if of_block.size}
                    found = replace(found, places=merged([found.places, places]))
        for line in (*found.notes(antennas.name), *impossible_values(self.reader)):
            self.log.note(line)
        return found

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
        # In averages the initial tables are.
        applied = list(tables) if block.bins is not None else [*self.initial, *tables]
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
        yield from self._pieces(self._read(label), weights, model)

    def blocks_as_read(
        self, label: str, weights: DataWeights, model: ModelVisibilities | None = None
    ) -> Iterator[CalibrationBlock]:
        """Yield the blocks in all channels, for what is written of them.

        Parameters as of :meth:`blocks`. What was left out of the averages, or found in them, has no weight.
        """
        if self.averaged is None:
            yield from self.blocks(label, weights, model)
            return
        weights = replace(weights, outliers=self.averaged.outliers_as_read(weights.outliers, self.reader))
        yield from self._pieces(self._as_read(label), weights, model, written=True)

    def _pieces(
        self,
        blocks: Iterator[tuple[int, Block]],
        weights: DataWeights,
        model: ModelVisibilities | None,
        *,
        written: bool = False,
    ) -> Iterator[CalibrationBlock]:
        for number, block in blocks:
            weight = weights.of_block(number, block)
            untouched = None if written else self._untouched(number, block)
            if self.each > 1 and untouched is not None:
                rows = self._rows(block)
                if not rows.size:
                    continue
                block, weight, untouched = self._part(number, block), weight[rows], untouched[rows]
            predicted = None if model is None else self._predict(number, block, model)
            squint = model.squint if isinstance(model, SkyVisibilities) else None
            more = None if squint is None else self._predict(number, block, squint)
            yield CalibrationBlock(number, block, weight, untouched, predicted, more)

    def _untouched(self, number: int, block: Block) -> Bool:
        """Choose one visibility in `UNTOUCHED_EACH`, spread over baselines, dumps and channels."""
        if number in self._left_alone and block.bins is not None:
            return self._left_alone[number]
        n = len(self.reader.ms.antennas)
        row = 7 * block.time_index + n * np.minimum(block.antenna1, block.antenna2)
        row = row + np.maximum(block.antenna1, block.antenna2)
        channel = self.first_channel[block.spw.id] + np.arange(block.spw.freq_hz.size)
        chosen = ((row % UNTOUCHED_EACH)[:, None] + 3 * channel % UNTOUCHED_EACH) % UNTOUCHED_EACH == 0
        if block.bins is not None and self.remembers:
            self._left_alone[number] = chosen
        return np.asarray(chosen)

    def _read(self, label: str) -> Iterator[tuple[int, Block]]:
        """Yield what all work is done on: averages, or the data as they are."""
        if self.averaged is None:
            yield from self._as_read(label)
        else:
            yield from self._timed(iter(self.averaged.blocks), self.n_blocks, label)

    def _as_read(self, label: str) -> Iterator[tuple[int, Block]]:
        yield from self._timed(self.reader.blocks(), self.reader.n_blocks, label)

    def _timed(self, blocks: Iterator[Block], n: int, label: str) -> Iterator[tuple[int, Block]]:
        def timed() -> Iterator[Block]:
            while True:
                with self.log.timed("read"):
                    block = next(blocks, None)
                if block is None:
                    return
                yield block

        yield from enumerate(self.log.track(timed(), n, label))

    def predict(self, block: Block, model: ModelVisibilities) -> Vis:
        """Predict the visibilities of a model for one block, shape (nrow, nchan); not remembered."""
        return self._predict_blocks([block], model)[0]

    def _predict_blocks(self, blocks: Sequence[Block], model: ModelVisibilities) -> list[Vis]:
        """Predict a model for blocks of the same rows, or for a single one."""
        with self.log.timed("predict"):
            if isinstance(model, SkyVisibilities) and len(blocks) > 1:
                predicted = model.of_same_rows(blocks, self.reader)
            else:
                predicted = [model.visibilities(block, self.reader) for block in blocks]
        for of_block in predicted:
            self.log.count("predicted", of_block.size)
            if isinstance(model, SkyVisibilities):
                self.log.count("phasors", of_block.size * len(model.sky))
        return predicted

    def in_turn(self) -> Callable[[CalibrationBlock, ModelVisibilities], Vis]:
        """Give what predicts models for the blocks of one pass, in the order in which they come.

        Blocks that are best predicted together are, and kept until it is their turn.
        """
        ahead: dict[int, dict[int, Vis]] = {}

        def predict(piece: CalibrationBlock, model: ModelVisibilities) -> Vis:
            known = ahead.setdefault(id(model), {})
            if piece.number not in known:
                numbers = self.together(piece.number)
                known |= zip(numbers, self._predict_together(numbers, piece.block, model), strict=True)
            return known.pop(piece.number)

        return predict

    def together(self, number: int) -> tuple[int, ...]:
        """Blocks of the same rows that are best worked on together with one, by number, in their order."""
        if self.averaged is None or not self.remembers:
            return (number,)
        return self.averaged.together.get(number, (number,))

    def _predict_together(self, numbers: Sequence[int], block: Block, model: ModelVisibilities) -> list[Vis]:
        """Predict a model for blocks by number; of a single one it is the one given."""
        if len(numbers) == 1 or self.averaged is None:
            return [self.predict(block, model)]
        blocks = [self.averaged.blocks.block(k) for k in numbers]
        if self.each > 1:
            blocks = [self._part(k, of_number) for k, of_number in zip(numbers, blocks, strict=True)]
        return self._predict_blocks(blocks, model)

    @property
    def remembers(self) -> bool:
        """Whether predictions are remembered: the data are in memory."""
        return self.reader.cached if self.averaged is None else self.averaged.blocks.in_memory

    def _predict(self, number: int, block: Block, model: ModelVisibilities) -> Vis:
        # Beside averages, blocks as they were read have other numbers, and are seen once.
        if not self.remembers or (self.averaged is not None and block.bins is None):
            return self.predict(block, model)

        def predict(numbers: Sequence[int], some: ModelVisibilities) -> Sequence[Vis]:
            return self._predict_together(numbers, block, some)

        return self._predicted.get(number, self.together(number), model, predict)

    def least_length_m(self, block: Block, fraction: float) -> float:
        """Projected length that a fraction of the baselines is shorter than, metres; as read, of a block."""
        if block.bins is None or self.averaged is None:
            return float(np.quantile(np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1]), fraction))
        length = self.averaged.length_m
        return float(np.interp(fraction, np.linspace(0, 1, length.size), length))

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
        noise, digest = BoundsEstimator(self.reader, self.n_blocks), hashlib.sha256()
        found = {}
        for piece in self.blocks("predict and gather", weights, model):
            block, predicted = piece.block, piece.of_receptors
            vis, weight = parallel_hands(block, *self.corrected(block, piece.weight, tables))
            # Of averages they were left out one by one.
            wild = np.zeros(0, dtype=bool) if block.bins is not None else outliers(vis, weight, WILD)
            if wild.any():
                found[piece.number] = block_outliers(block, wild)
                weight = np.where(wild, np.float32(0), weight)
            weight = piece.touched(weight)
            if not self._hash:
                digest.update(np.ascontiguousarray(block.data).tobytes())
            window, edges = self.spw_ids.index(block.spw.id), sub_bands_of(block, sub_bands)
            for k, (start, end) in enumerate(pairwise(edges)):
                accumulate(
                    statistics,
                    window * sub_bands + k,
                    RowIndex(block.time_index, block.antenna1, block.antenna2),
                    vis[:, start:end],
                    weight[:, start:end],
                    np.ascontiguousarray(predicted[:, start:end]),
                    self.first_channel[block.spw.id] + start,
                )
            if _tells_noise(block):
                length = np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1])
                short = length <= self.least_length_m(block, SHORT_BASELINES)
                noise.add(block, vis, weights.by_noise(block, weight, BY_RECEPTOR), short)
        self._hash = self._hash or digest.hexdigest()
        if statistics.count.sum() == 0:
            raise MeasurementSetError(
                "every selected visibility is flagged or without a solution in the initial tables",
                self.reader.ms.path,
                "check FLAG, WEIGHT and the initial tables",
            )
        return Gathered(statistics, self._with_single_channels(noise.bounds), found)

    def measure_residual(
        self, model: ModelVisibilities, weights: DataWeights, tables: Sequence[GainTable]
    ) -> Residual:
        """Measure noise, outliers and noisy antennas on the calibrated data minus a model, all baselines."""
        noise = BoundsEstimator(self.reader, self.n_blocks)
        by_channels = AntennaNoise(len(self.reader.ms.antennas), self.n_blocks)
        by_window = {spw: NoiseEstimator(self.n_blocks) for spw in self.spw_ids}
        found, by_dumps = {}, dumps_tell_antennas(self.reader)
        for piece in self.blocks("measure the noise", weights, model):
            block = piece.block
            vis, weight = parallel_hands(block, *self.corrected(block, piece.weight, tables))
            residual = vis - piece.of_receptors
            far = outliers(residual, weight, OUTLIER)
            weight = piece.touched(weight)
            if far.any():
                found[piece.number] = block_outliers(block, far)
            if not _tells_noise(block):
                continue
            # Of an antenna with ten times the noise most would be out.
            weight = weights.by_noise(block, weight, BY_RECEPTOR)
            noise.add(block, residual, weight)
            by_channels.add(residual, weight, block.antenna1, block.antenna2)
            if block.spw.freq_hz.size > 2:
                by_window[block.spw.id].add(residual, weight)
        of_channels = by_channels.factors()
        # Too few dumps do not tell noise from what the model lacks.
        of_noise = noise.antennas.factors() if by_dumps else np.ones_like(of_channels)
        return Residual(
            bounds=self._with_single_channels(noise.bounds),
            outliers=found,
            noise_factor=of_noise,
            misfit_factor=of_channels / of_noise,
            seen=by_channels.seen(),
            window_factor=_over_median({spw: noise.scale for spw, noise in by_window.items()}),
        )

    def _with_single_channels(self, bounds: NoiseBounds) -> NoiseBounds:
        """Bounds with that of single channels, which was measured before they were averaged."""
        return bounds if self.averaged is None else bounds.with_channels_of(self.averaged.noise)


def _over_median(noise: Mapping[int, NoiseScale]) -> dict[int, float]:
    """Variances of spectral windows over that of the median one; of a single one there is nothing to tell."""
    known = {spw: scale.variance for spw, scale in noise.items() if scale.known and scale.variance > 0}
    if len(known) < 2:
        return {}
    typical = float(np.median(list(known.values())))
    return {spw: variance / typical for spw, variance in known.items()}


def _tells_noise(block: Block) -> bool:
    """Whether differences between neighbouring channels, or bins, and dumps of a block are of noise."""
    return block.bins is None or not block.bins.sparse
