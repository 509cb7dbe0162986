"""One observation as self-calibration sees it: blocks, initial tables and a model side by side."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import ducc0
import numpy as np

from dsa110_contimg.array_types import Bool, Float, Image, Int, Vis, Weight
from dsa110_contimg.calibration.apply import chain, correct
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.statistics import BaselineStatistics, accumulate
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.imaging import ImageGrid, StokesI, average_channels, stokes_i
from dsa110_contimg.predict import predict_components
from dsa110_contimg.progress import Progress
from dsa110_contimg.sky import Seed
from dsa110_contimg.visibilities import AntennaNoise, Block, NoiseEstimator, VisibilityReader, turn_phases

__all__ = ["ImageModel", "Model", "Observation", "SeedModel", "sub_band_edges"]


#: Noise before calibration is measured on the shortest third of the baselines, where the uncalibrated sky
#: changes least from channel to channel.
SHORT_BASELINES = 1 / 3
#: With fewer visibilities averaging saves less than the transforms of another grid cost.
MANY_VISIBILITIES = 20_000_000
#: Noise exceeds this many times its mean square in three samples of ten million.
OUTLIER = 15.0
#: Uncalibrated data vary with the sky: only what exceeds this many times their mean square is not of it.
WILD = 1000.0
#: Where more than this fraction of a block stands out, it is not a matter of single visibilities.
MOST_OUTLIERS = 0.4
#: From this many times the variance that its weights say, an antenna is noisier than they say.
NOISY = 2.0


def sub_band_edges(n_channels: int, sub_bands: int) -> list[int]:
    """Return the channels at which the sub-bands of a window begin, and the number of channels."""
    return [k * n_channels // sub_bands for k in range(sub_bands + 1)]


class Model(Protocol):
    """A sky whose visibilities can be predicted."""

    name: str

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Stokes I visibilities about the block's own phase centre, shape (nrow, nchan), in jansky."""
        ...


class SeedModel:
    """The catalogue seed through the beam, wherever it points at each dump.

    Parameters
    ----------
    seed : Seed
        Sources and beam.
    """

    name = "seed"

    def __init__(self, seed: Seed) -> None:
        self.seed = seed

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Predict exactly, source by source; shape (nrow, nchan), in jansky."""
        sky, freq = self.seed.sky, block.spw.freq_hz
        field = reader.ms.field(block.field_id)
        lmn = sky.lmn(field.ra_rad, field.dec_rad)
        out = np.empty((len(block.rows), freq.size), dtype=np.complex64)
        slots = np.unique(block.slot)
        pointings, which = np.unique(reader.pointing[slots], axis=0, return_inverse=True)
        of_slot = np.zeros(reader.times.size, dtype=np.int64)
        of_slot[slots] = which.reshape(-1)
        for k, pointing in enumerate(pointings):
            rows = np.flatnonzero(of_slot[block.slot] == k)
            flux = self.seed.apparent_flux(freq, *pointing)
            out[rows] = predict_components(
                block.uvw_m[rows], freq, lmn, flux, sky.major_rad, sky.minor_rad, sky.pa_rad
            )
        return out


class ImageModel:
    """Clean components on the pixels of an image about the common phase centre.

    Parameters
    ----------
    image : ndarray of float32, shape (size, size)
        Jansky per pixel.
    grid : ImageGrid
        Where the pixels are.
    threads : int
        Threads; 0 for all.
    """

    name = "clean"

    def __init__(self, image: Image, grid: ImageGrid, threads: int = 0) -> None:
        self.image, self.grid, self._threads = image, grid, threads

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Degrid: exact at pixel centres, where clean components are; shape (nrow, nchan)."""
        uvw, path = reader.move_to_center(block)
        # Axes and signs as in imaging.engine: images are [y, x] with x to the west.
        vis = ducc0.wgridder.dirty2vis(
            uvw=np.ascontiguousarray(uvw[:, [1, 0, 2]]),
            freq=block.spw.freq_hz,
            dirty=self.image,
            pixsize_x=self.grid.cell_rad,
            pixsize_y=self.grid.cell_rad,
            epsilon=2e-5,
            do_wgridding=True,
            nthreads=self._threads,
            flip_u=True,
            divide_by_n=False,
        ).astype(np.complex64)
        return turn_phases(vis, -path, block.spw.freq_hz) if path.any() else vis


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
    wild = np.asarray(power > limit * typical)
    if typical <= 0 or np.count_nonzero(wild) > MOST_OUTLIERS * used.size:
        return np.zeros(vis.shape, dtype=bool)
    return wild


class Observation:
    """Blocks of a Measurement Set, corrected on the fly, with a model beside them.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    initial : sequence of GainTable
        Initial tables: always applied, never to DATA on disk.
    progress : Progress
        Where passes are reported.
    """

    def __init__(self, reader: VisibilityReader, initial: Sequence[GainTable], progress: Progress) -> None:
        self.reader = reader
        self.initial = tuple(initial)
        self.progress = progress
        self._first_channel: dict[int, int] = {}
        channel = 0
        for spw in reader.selection.spw_ids:
            self._first_channel[spw] = channel
            channel += reader.ms.spectral_window(spw).freq_hz.size
        self.n_channels = channel
        self._model: Model | None = None
        self._model_cache: dict[int, Vis] = {}
        self._noisy: Float | None = None
        self._measured_noise = np.ones((len(reader.ms.antennas), 2))
        self._antennas_seen = np.ones((len(reader.ms.antennas), 2), dtype=bool)
        self._found: dict[int, Int] = {}
        self._left_out: dict[int, Int] = {}
        self.data_hash = ""
        self.predict_seconds = 0.0

    @property
    def spw_ids(self) -> tuple[int, ...]:
        """Selected spectral windows."""
        return self.reader.selection.spw_ids

    @property
    def noise_factors(self) -> Float:
        """System noise over what the weights say, shape (nant, 2); 1 unless it is much more."""
        return np.ones((len(self.reader.ms.antennas), 2)) if self._noisy is None else self._noisy

    def set_model(self, model: Model) -> None:
        """Change the model; predictions of the old one are forgotten."""
        self._model = model
        self._model_cache = {}

    def swap_model(self, model: Model) -> Model:
        """Change the model and return the present one."""
        if self._model is None:
            raise RuntimeError("no model is set")
        present = self._model
        self.set_model(model)
        return present

    def corrected(self, block: Block, tables: Sequence[GainTable] = ()) -> tuple[Vis, Weight]:
        """Visibilities and weights of a block after the initial and further tables.

        Returns
        -------
        vis : ndarray of complex64, shape (nrow, nchan, ncorr)
            Corrected data; what has no solution is left as it was, with weight zero.
        weight : ndarray of float32, same shape
            Inverse variances up to one common scale.
        """
        weight = block.weight
        if self._noisy is not None:
            ends = [p for p, _ in block.spw.receptors], [q for _, q in block.spw.receptors]
            excess = self._noisy[block.antenna1][:, ends[0]] * self._noisy[block.antenna2][:, ends[1]]
            weight = (weight / excess[:, None, :]).astype(np.float32)
        applied = [*self.initial, *tables]
        if not applied:
            return block.data, weight
        slots, index = np.unique(block.slot, return_inverse=True)
        gain, flag = chain(
            applied,
            block.spw.id,
            self.reader.times[slots],
            block.spw.freq_hz,
            len(self.reader.ms.antennas),
        )
        return correct(
            block.data, weight, block.antenna1, block.antenna2, index, gain, flag, block.spw.receptors
        )

    def blocks(self, label: str, with_model: bool) -> Iterator[tuple[Block, Vis | None]]:
        """Yield each block with the model's visibilities (nrow, nchan), or None without."""
        passes = self.progress.track(self.reader.blocks(), self.reader.n_blocks, label)
        for k, block in enumerate(passes):
            if k in self._left_out:
                block.weight.reshape(-1)[self._left_out[k]] = 0
            yield block, self._predict(k, block) if with_model else None

    def _predict(self, k: int, block: Block) -> Vis:
        if self._model is None:
            raise RuntimeError("no model is set")
        if k in self._model_cache:
            return self._model_cache[k]
        started = time.perf_counter()
        model = self._model.visibilities(block, self.reader)
        self.predict_seconds += time.perf_counter() - started
        if self.reader.cached:
            self._model_cache[k] = model
        return model

    def gather(
        self, tables: Sequence[GainTable] = (), sub_bands: int = 1
    ) -> tuple[BaselineStatistics, NoiseEstimator]:
        """Gather the baseline statistics and the noise in one pass.

        Parameters
        ----------
        tables : sequence of GainTable
            Gains applied after the initial tables.
        sub_bands : int
            Parts of each window that are kept apart; they take the place of the
            windows, numbered from zero.

        Returns
        -------
        statistics : BaselineStatistics
            Of the data after the tables against the model.
        noise : NoiseEstimator
            Noise of the short baselines.

        Raises
        ------
        MeasurementSetError
            If nothing is left after flags.
        """
        parts = self.spw_ids if sub_bands == 1 else range(len(self.spw_ids) * sub_bands)
        statistics = BaselineStatistics.empty(len(self.reader.ms.antennas), parts, self.reader.times.size)
        noise = NoiseEstimator()
        digest = hashlib.sha256()
        for number, (block, model) in enumerate(self.blocks("predict and gather", with_model=True)):
            assert model is not None
            vis, weight = self._parallel(block, *self.corrected(block, tables))
            wild = outliers(vis, weight, WILD)
            if wild.any():
                self._note_outliers(number, block, wild)
                weight = np.where(wild, np.float32(0), weight)
            if not self.data_hash:
                digest.update(np.ascontiguousarray(block.data).tobytes())
            window, edges = self.spw_ids.index(block.spw.id), sub_band_edges(model.shape[1], sub_bands)
            for k, (start, end) in enumerate(pairwise(edges)):
                accumulate(
                    statistics,
                    window * sub_bands + k,
                    block.slot,
                    block.antenna1,
                    block.antenna2,
                    vis[:, start:end],
                    weight[:, start:end],
                    np.ascontiguousarray(model[:, start:end]),
                    self._first_channel[block.spw.id] + start,
                )
            length = np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1])
            short = length <= np.quantile(length, SHORT_BASELINES)
            noise.add(vis[short], weight[short])
        self.data_hash = self.data_hash or digest.hexdigest()
        if statistics.count.sum() == 0:
            raise MeasurementSetError(
                "every selected visibility is flagged or without a solution in the initial tables",
                self.reader.ms.path,
                "check FLAG, WEIGHT and the initial tables",
            )
        return statistics, noise

    def require_unflagged(self) -> None:
        """Raise MeasurementSetError if nothing is left after flags; stops at the first good block."""
        for block in self.reader.blocks():
            if not block.flag[:, :, list(block.spw.parallel)].all():
                return
        raise MeasurementSetError(
            "fully flagged: no unflagged visibility in the selection", self.reader.ms.path, "check FLAG"
        )

    def residual_noise(self, tables: Sequence[GainTable]) -> NoiseEstimator:
        """Measure the noise of the calibrated data minus the model, all baselines; notes outliers."""
        noise, of_antennas = NoiseEstimator(), AntennaNoise(len(self.reader.ms.antennas))
        for number, (block, model) in enumerate(self.blocks("measure the noise", with_model=True)):
            assert model is not None
            vis, weight = self._parallel(block, *self.corrected(block, tables))
            residual = vis - model[:, :, None]
            wild = outliers(residual, weight, OUTLIER)
            self._note_outliers(number, block, wild)
            noise.add(residual, weight)
            weight = np.where(wild, np.float32(0), weight)
            of_antennas.add(residual, weight, block.antenna1, block.antenna2)
        self._measured_noise, self._antennas_seen = of_antennas.factors(), of_antennas.seen()
        return noise

    def _note_outliers(self, number: int, block: Block, wild: Bool) -> None:
        """Remember them by their place in the block's weights; `wild` is by receptor, (nrow, nchan, 2)."""
        if not wild.any():
            return
        of_hands = np.zeros(block.weight.shape, dtype=bool)
        for k in block.spw.parallel:
            of_hands[:, :, k] = wild[:, :, block.spw.receptors[k][0]]
        known = self._found.get(number, np.zeros(0, np.int64))
        self._found[number] = np.union1d(known, np.flatnonzero(of_hands))

    def mend_weights(self) -> tuple[int, list[str]]:
        """Weigh all later passes by what the last residual showed.

        Outliers have no weight from here on, and antennas that are much noisier
        than their weights say get lower ones. Nothing on disk knows of it.

        Returns
        -------
        left_out : int
            Outliers that are new.
        noisy : list of str
            Names of antennas that are newly found noisy.
        """
        before = sum(x.size for x in self._left_out.values())
        self._left_out = dict(self._found)
        known = np.ones_like(self._measured_noise) if self._noisy is None else self._noisy
        # Measured with the weights as they were: what is still too much.
        still = self._measured_noise > NOISY
        if still.any():
            self._noisy = np.where(still, known * self._measured_noise, known)
        self._measured_noise = np.ones_like(known)
        names = self.reader.ms.antennas.name
        noisy = [names[k] for k in np.flatnonzero(still.any(axis=1))]
        return sum(x.size for x in self._left_out.values()) - before, noisy

    def measure_antennas(self, tables: Sequence[GainTable]) -> list[str]:
        """Look anew for antennas noisier than their weights say, with the model and gains at hand.

        A first model that lacks much makes the long baselines look noisy.

        Returns
        -------
        list of str
            Names of those that were found noisy before and are not, or the other way round.
        """
        known, self._noisy = self.noise_factors, None
        self.residual_noise(tables)
        self.mend_weights()
        # One without a solution shows nothing: what was found of it holds.
        self._noisy = np.where(self._antennas_seen, self.noise_factors, known)
        before = known > 1
        changed = (before != (self.noise_factors > 1)).any(axis=1)
        return [self.reader.ms.antennas.name[k] for k in np.flatnonzero(changed)]

    def stokes(
        self,
        tables: Sequence[GainTable],
        subtract: bool,
        label: str,
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
        subtract : bool
            Whether to subtract the model.
        label : str
            For progress.
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
        for block, model in self.blocks(label, with_model=subtract):
            vis, weight = self.corrected(block, tables)
            if model is not None:
                vis = vis.copy()
                for k in block.spw.parallel:
                    vis[:, :, k] -= model
            hands, freq = block.spw.parallel, block.spw.freq_hz
            precision = None
            if weight_tables is None:
                combined, total = stokes_i(vis, weight, weight == 0, hands)
            else:
                _, common = self.corrected(block, weight_tables)
                common[weight == 0] = 0
                combined, total = stokes_i(vis, common, common == 0, hands)
                # The combination's own variance: sum of w^2 / w_true over (sum of w)^2.
                with np.errstate(divide="ignore", invalid="ignore"):
                    spread = np.where(common > 0, common**2 / weight, 0)[:, :, list(hands)].sum(axis=2)
                    precision = np.where(total > 0, total**2 / spread, 0).astype(np.float32)
            uvw, path = self.reader.move_to_center(block)
            if path.any():
                combined = turn_phases(combined, path, freq)
            chunk = StokesI(uvw, freq, combined, total, precision)
            for factor, part in (average_channels(chunk, half_width_rad) if averaged else {1: chunk}).items():
                out.setdefault(factor, []).append(part)
        # Those with the same channels side by side: the imager joins them.
        return [part for parts in out.values() for part in parts]

    @staticmethod
    def _parallel(block: Block, vis: Vis, weight: Weight) -> tuple[Vis, Weight]:
        """Both parallel hands on a last axis of two, by receptor; a missing one has weight zero."""
        receptor = [block.spw.receptors[k][0] for k in block.spw.parallel]
        if receptor == [0, 1] and vis.shape[2] == 2:
            return vis, weight
        shape = (*vis.shape[:2], 2)
        hands, weights = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
        for k, p in zip(block.spw.parallel, receptor, strict=True):
            hands[:, :, p], weights[:, :, p] = vis[:, :, k], weight[:, :, k]
        return hands, weights
