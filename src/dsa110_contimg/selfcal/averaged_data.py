"""One pass over a Measurement Set: broken data and interference out, initial tables in, channels averaged."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Float, Int, Vis, Weight
from dsa110_contimg.calibration.apply import chain, correct
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.selfcal.block_store import BlockStore
from dsa110_contimg.selfcal.data_weights import WILD, Outliers, merged, outliers
from dsa110_contimg.visibilities import (
    AveragedRows,
    Block,
    ChannelBins,
    NoiseBounds,
    NoiseEstimator,
    SpectralWindow,
    VisibilityReader,
    average_rows,
    bins_of_window,
    factor_by_length,
    factors_of_window,
    find_narrow,
    single_channels,
    smooth_sequences,
    turn_phases,
    with_partial,
)
from dsa110_contimg.visibilities.averaging import MOST_TURNS
from dsa110_contimg.visibilities.broken_data import BrokenData, BrokenDataFinder

__all__ = [
    "SHORT_BASELINES",
    "AveragedData",
    "Averaging",
    "averaged_samples",
    "read_averaged",
]

#: With fewer visibilities (correlations counted singly) a pass takes a fraction of a second as it is.
FEWEST_SAMPLES = 4_000_000
#: Averaging is worth it from this many times fewer visibilities.
WORTHWHILE = 1.5
#: A block of averaged data is about so large, or what of the memory limit falls to each kind of blocks.
BLOCK_BYTES = 64 << 20
#: Predictions of a model in Stokes I, bytes for each averaged visibility of one hand.
BYTES_PREDICTED = 4
#: An averaged visibility: data, weight and flag.
BYTES_PER_BIN = 13
#: Half of a Stokes I visibility that is imaged by itself: baseline twice, visibility and three weights.
BYTES_PER_SCATTERED = 34
#: A row: its number, dump, antennas and baseline.
BYTES_PER_ROW = 56
#: Bins of a row that are predicted together, at most: their sums stay near the processor.
MOST_BINS_TOGETHER = 96
#: Noise before calibration is measured on the shortest third of the baselines, where the uncalibrated sky
#: changes least from channel to channel.
SHORT_BASELINES = 1 / 3
#: Instrumental delays that may be in the data before they are calibrated, seconds.
DELAY_S = 1e-8

Mask = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """How far channels are averaged, and where the averages are kept.

    Attributes
    ----------
    half_width_rad : float
        From the phase centre to the edge of the image: a source there loses about 1 per cent of its image.
    sub_bands : int
        Parts of each spectral window that stay apart.
    memory_bytes : float
        Memory for visibilities.
    scratch : Path
        Folder for what does not fit into it.
    models : int
        Models whose predictions are kept in memory beside the data, at the most.
    working_bytes : float
        Memory that is needed beside both.
    average : {"auto", "always", "never"}
        Auto: data of fewer than `FEWEST_SAMPLES` visibilities are left as they are; in any case those that
        averaging would hardly reduce.
    """

    half_width_rad: float
    sub_bands: int
    memory_bytes: float
    scratch: Path
    average: Literal["auto", "always", "never"] = "auto"
    models: int = 2
    working_bytes: float = 0.0

    @property
    def data_bytes(self) -> float:
        """Memory that the averages may take: what predictions and work leave of it, at least a quarter."""
        left = max(self.memory_bytes - self.working_bytes, self.memory_bytes / 2)
        return max(left * BYTES_PER_BIN / (BYTES_PER_BIN + self.models * BYTES_PREDICTED), left / 4)

    def worthwhile(self, reader: VisibilityReader) -> bool:
        """Whether it gains anything."""
        samples = reader.samples
        if self.average == "never" or (self.average == "auto" and samples < FEWEST_SAMPLES):
            return False
        return samples > WORTHWHILE * averaged_samples(reader, self)


def averaged_samples(reader: VisibilityReader, averaging: Averaging) -> int:
    """Visibilities that are left after averaging, parallel hands counted singly, about.

    Parameters
    ----------
    reader : VisibilityReader
        The data; only its baselines are looked at.
    averaging : Averaging
        How far.
    """
    total, lengths = 0.0, reader.length_quantiles_m
    per_window = reader.n_rows / len(reader.selection.spw_ids)
    for spw in reader.selection.spw_ids:
        window = reader.ms.spectral_window(spw)
        factors = factors_of_window(window, averaging.sub_bands)
        factor = factor_by_length(lengths, window, averaging.half_width_rad, factors)
        # Bins are nearly equal parts: their number is rounded up.
        bins = -(-window.freq_hz.size // factor)
        total += per_window * float(bins.mean()) * len(window.parallel)
    return int(total)


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragedData:
    """What one pass made of a Measurement Set.

    Attributes
    ----------
    blocks : BlockStore
        Averages of the parallel hands about the common phase centre, after the initial tables.
    broken : BrokenData
        What can be neither sky nor noise; places are those of the blocks as they were read.
    wild : mapping of int to ndarray of int
        Visibilities far out of all others, and single channels that stand out of their row, by number of
        the block as it was read: places in its flattened weights. None of them is in the averages.
    noise : NoiseBounds
        Of differences of single channels, on the short baselines.
    data_hash : str
        SHA-256 of DATA as it was read.
    length_m : ndarray, shape (101,)
        Percentiles, from 0 to 100, of the projected lengths of the baselines, metres.
    """

    blocks: BlockStore
    broken: BrokenData
    wild: Outliers
    noise: NoiseBounds
    data_hash: str
    length_m: Float

    @cached_property
    def together(self) -> dict[int, tuple[int, ...]]:
        """Blocks that are best predicted together, by number of each: several windows on the same baselines.

        Those of single channels are not among them: with so many of a row nothing is gained.
        """
        groups: dict[Hashable, list[list[int]]] = {}
        for number, block in enumerate(self.blocks):
            bins = block.bins
            if bins is None or (bins.count == 1).all():
                continue
            size = bins.count.size
            key = block.uvw_m.tobytes(), block.time_index.tobytes(), bins.channel_width_hz, size
            of_key = groups.setdefault(key, [[]])
            if (len(of_key[-1]) + 1) * size > MOST_BINS_TOGETHER:
                of_key.append([])
            of_key[-1].append(number)
        found = [tuple(group) for of_key in groups.values() for group in of_key]
        return {number: group for group in found for number in group}

    @property
    def samples(self) -> int:
        """Averages, parallel hands counted singly."""
        return sum(
            block.spw.freq_hz.size * rows * len(block.spw.corr_type)
            for block, rows in zip(self.blocks.frames(), self.blocks.n_rows, strict=True)
        )

    @property
    def n_wild(self) -> int:
        """Number of visibilities that were left out."""
        return sum(places.size for places in self.wild.values())

    def outliers_as_read(self, found: Outliers, reader: VisibilityReader) -> Outliers:
        """Return places in the blocks as read of outliers among averages and of what was kept out of these.

        Parameters
        ----------
        found : mapping of int to ndarray of int
            Places in the flattened weights of the averaged blocks, by number.
        reader : VisibilityReader
            What the data were read by.

        Returns
        -------
        mapping of int to ndarray of int
            By number of the block as it is read.
        """
        row, start, count, hand = [], [], [], []
        for number, block in enumerate(self.blocks) if found else ():
            if number in found and block.bins is not None:
                rows, bins, hands = np.unravel_index(found[number], block.weight.shape)
                row.append(block.rows[rows])
                start.append(block.bins.start[bins])
                count.append(block.bins.count[bins])
                hand.append(hands)
        if not row:
            return self.wild
        order = np.argsort(np.concatenate(row), kind="stable")
        of_row, first, n, receptor = (np.concatenate(x)[order] for x in (row, start, count, hand))
        total: dict[int, Int] = {}
        for number, (rows, _, window) in enumerate(reader.row_sets()):
            some = slice(np.searchsorted(of_row, rows[0]), np.searchsorted(of_row, rows[-1], side="right"))
            at = np.searchsorted(rows, of_row[some])
            mine = np.flatnonzero(rows[at] == of_row[some]) + int(some.start)
            at = at[mine - int(some.start)]
            each = np.repeat(np.arange(mine.size), n[mine])
            channel = (
                first[mine][each] + np.arange(each.size) - np.repeat(np.cumsum(n[mine]) - n[mine], n[mine])
            )
            correlation = np.asarray(window.parallel)[receptor[mine]][each]
            places = (at[each] * window.freq_hz.size + channel) * len(window.corr_type) + correlation
            if places.size:
                total[number] = np.sort(places)
        return merged([total, self.wild])


@dataclass(eq=False)
class _Pile:
    """Averaged rows that will be a block."""

    bins: ChannelBins
    rows: list[tuple[Int, Int, Int, Int, Float]] = field(default_factory=list)
    values: list[tuple[Vis, Weight, Mask]] = field(default_factory=list)
    size: int = 0

    def add(self, block: Block, uvw_m: Float, part: AveragedRows) -> None:
        row = part.row
        self.rows.append(
            (block.rows[row], block.time_index[row], block.antenna1[row], block.antenna2[row], uvw_m[row])
        )
        self.values.append((part.vis, part.weight, part.mask))
        self.size += part.vis.nbytes + part.weight.nbytes + part.mask.nbytes + row.size * BYTES_PER_ROW

    def block(self, field_id: int) -> Block:
        rows, time_index, antenna1, antenna2, uvw = (np.concatenate(x) for x in zip(*self.rows, strict=True))
        vis, weight, mask = (np.concatenate(x) for x in zip(*self.values, strict=True))
        self.rows, self.values, self.size = [], [], 0
        return Block(
            rows=rows,
            field_id=field_id,
            spw=self.bins.averaged_window(),
            time_index=time_index,
            antenna1=antenna1,
            antenna2=antenna2,
            uvw_m=uvw,
            data=vis,
            flag=weight == 0,
            weight=weight,
            bins=with_partial(self.bins, mask),
        )


class _Averager:
    """Sorts rows by how many of their channels are averaged, and makes blocks of them.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    averaging : Averaging
        How far.
    """

    def __init__(self, reader: VisibilityReader, averaging: Averaging) -> None:
        self._reader, self._averaging = reader, averaging
        self.store = BlockStore(averaging.data_bytes, averaging.scratch)
        # All blocks are about the phase centre of the middle dump, which is that of its field.
        self._field = int(reader.field_id[reader.times.size // 2])
        self._piles: dict[tuple[int, int, int], _Pile] = {}
        self._keys: list[tuple[int, int, int]] = []
        self._layouts: dict[int, dict[int, tuple[ChannelBins, Int]]] = {}
        n_piles = sum(
            len(factors_of_window(reader.ms.spectral_window(s), averaging.sub_bands))
            for s in reader.selection.spw_ids
        )
        self._block_bytes = min(BLOCK_BYTES, averaging.memory_bytes / 8 / n_piles)

    def add(self, block: Block, vis: Vis, weight: Weight) -> None:
        """Take in the corrected parallel hands of a block, shape (nrow, nchan, npol)."""
        window = block.spw
        uvw, path = self._reader.move_to_center(block)
        if path.any():
            vis = turn_phases(vis, path, window.freq_hz)
        if window.id not in self._layouts:
            self._layouts[window.id] = self._layout(window, weight)
        layouts = self._layouts[window.id]
        factor = self.factor(block)
        for k, (bins, left_over) in layouts.items():
            rows = np.flatnonzero(factor == k)
            if rows.size == 0:
                continue
            for second, part in enumerate(average_rows(vis, weight, rows, bins)):
                of_part = replace(bins, sparse=True) if second else bins
                self._put((window.id, k, second), of_part, block, uvw, part)
            if left_over.size:
                rows = rows[(weight[rows][:, left_over] > 0).any(axis=(1, 2))]
                if rows.size:
                    alone = single_channels(window, left_over, sparse=True)
                    (part,) = average_rows(vis, weight, rows, alone)
                    self._put((window.id, 0, 0), alone, block, uvw, part)

    def factor(self, block: Block) -> Int:
        """How many channels of each row are averaged."""
        factors = factors_of_window(block.spw, self._averaging.sub_bands)
        length = np.sqrt((block.uvw_m**2).sum(axis=1))
        return factor_by_length(length, block.spw, self._averaging.half_width_rad, factors)

    def finish(self) -> BlockStore:
        """Make blocks of what is left; those of the same rows side by side, but for single channels."""
        for key in list(self._piles):
            self._seal(key)
        before: Counter[tuple[int, int, int]] = Counter()
        order = []
        for number, key in enumerate(self._keys):
            window, factor, second = key
            order.append((factor, second, before[key] if factor > 1 else 0, window, number))
            before[key] += 1
        self.store.sort([number for *_, number in sorted(order)])
        return self.store

    def _layout(self, window: SpectralWindow, weight: Weight) -> dict[int, tuple[ChannelBins, Int]]:
        """Bins for each number of channels, by what the first block of a window has of them."""
        present = np.count_nonzero(weight > 0, axis=(0, 2)).astype(np.float64)
        mean = weight.sum(axis=(0, 2), dtype=np.float64) / np.maximum(present, 1)
        if not present.any():
            present, mean = np.ones_like(present), np.ones_like(mean)
        nothing = np.zeros(0, dtype=np.int64)
        layouts = {1: (single_channels(window), nothing)}
        for k in factors_of_window(window, self._averaging.sub_bands)[1:]:
            layouts[k] = bins_of_window(window, k, present, mean, self._averaging.sub_bands)
        return layouts

    def _put(
        self, key: tuple[int, int, int], bins: ChannelBins, block: Block, uvw_m: Float, part: AveragedRows
    ) -> None:
        pile = self._piles.setdefault(key, _Pile(bins))
        pile.add(block, uvw_m, part)
        if pile.size >= self._block_bytes:
            self._seal(key)

    def _seal(self, key: tuple[int, int, int]) -> None:
        pile = self._piles[key]
        if pile.rows:
            self.store.add(pile.block(self._field))
            self._keys.append(key)


class _Interference:
    """Finds what no sky and no noise makes, row by row.

    Parameters
    ----------
    averager : _Averager
        Says how fast the sky may turn over the channels of a row.
    """

    def __init__(self, averager: _Averager) -> None:
        self._averager = averager
        self._sequences: dict[tuple[int, int], Float | None] = {}

    def find(self, block: Block, vis: Vis, weight: Weight) -> Bool:
        """Find visibilities wildly out, and single channels that stand out; shape (nrow, nchan, npol)."""
        found = outliers(vis, weight, WILD)
        if found.any():
            weight = np.where(found, np.float32(0), weight)
        factor = self._averager.factor(block)
        for k in np.unique(factor):
            # Longer baselines may turn by any amount from channel to channel: the residual shows them.
            sequences = self._of(block.spw, int(k)) if k > 1 else None
            if sequences is not None:
                found[find_narrow(vis, weight, np.flatnonzero(factor == k), sequences)] = True
        return found

    def _of(self, window: SpectralWindow, factor: int) -> Float | None:
        key = (window.id, factor)
        if key not in self._sequences:
            n = window.freq_hz.size
            width = abs(float(window.freq_hz[-1] - window.freq_hz[0])) / (n - 1)
            self._sequences[key] = smooth_sequences(n, MOST_TURNS / factor + DELAY_S * width)
        return self._sequences[key]


class _HashBeside:
    """SHA-256 of arrays one after the other, formed beside other work."""

    def __init__(self) -> None:
        self._digest, self._beside = hashlib.sha256(), ThreadPoolExecutor(max_workers=1)
        self._last: Future[None] | None = None

    def add(self, values: Vis) -> None:
        """Take in an array, which must not be changed until the next one is taken in."""
        self._wait()
        self._last = self._beside.submit(self._digest.update, np.ascontiguousarray(values).data)

    def hexdigest(self) -> str:
        """Digest of all."""
        self._wait()
        self._beside.shutdown()
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()


def read_averaged(
    blocks: Iterable[tuple[int, Block]],
    reader: VisibilityReader,
    initial: Sequence[GainTable],
    averaging: Averaging,
) -> AveragedData:
    """Make averages of all data in one pass.

    Parameters
    ----------
    blocks : iterable of (int, Block)
        The data as they are read, numbered.
    reader : VisibilityReader
        What they are read by.
    initial : sequence of GainTable
        Initial tables: applied before anything is averaged.
    averaging : Averaging
        How far.

    Raises
    ------
    ResourceError
        If averages have to be written to the disk and cannot be.
    """
    averager = _Averager(reader, averaging)
    try:
        return _read(blocks, reader, initial, averager)
    except BaseException:
        averager.store.close()
        raise


def _read(
    blocks: Iterable[tuple[int, Block]],
    reader: VisibilityReader,
    initial: Sequence[GainTable],
    averager: _Averager,
) -> AveragedData:
    n_antennas = len(reader.ms.antennas)
    finder, digest = BrokenDataFinder(reader.times.size, n_antennas), _HashBeside()
    interference, noise = _Interference(averager), NoiseEstimator(reader.n_blocks)
    wild: dict[int, Int] = {}
    lengths = []
    for number, block in blocks:
        digest.add(block.data)
        finder.add(number, block)
        parallel = list(block.spw.parallel)
        weight = block.weight[:, :, parallel]
        broken = finder.places(number)
        if broken.size:
            sound = np.ones(block.weight.shape, dtype=bool)
            sound.reshape(-1)[broken] = False
            weight = np.where(sound[:, :, parallel], weight, np.float32(0))
        vis, weight = _corrected(block, weight, reader, initial)
        found = interference.find(block, vis, weight)
        if found.any():
            weight = np.where(found, np.float32(0), weight)
            everywhere = np.zeros(block.weight.shape, dtype=bool)
            everywhere[:, :, parallel] = found
            wild[number] = np.flatnonzero(everywhere)
        length = np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1])
        lengths.append(length)
        if block.spw.freq_hz.size > 2:
            short = length <= np.quantile(length, SHORT_BASELINES)
            noise.add(vis[short], weight[short])
        averager.add(block, vis, weight)
    return AveragedData(
        blocks=averager.finish(),
        broken=finder.result(),
        wild=wild,
        noise=NoiseBounds(channels=noise.scale, samples=(noise.independent, 0.0, 0.0, 0.0)),
        data_hash=digest.hexdigest(),
        length_m=np.quantile(np.concatenate(lengths), np.linspace(0, 1, 101)),
    )


def _corrected(
    block: Block, weight: Weight, reader: VisibilityReader, tables: Sequence[GainTable]
) -> tuple[Vis, Weight]:
    """Parallel hands of a block as it was read, after tables."""
    window, parallel = block.spw, list(block.spw.parallel)
    vis = block.data if len(parallel) == block.data.shape[2] else block.data[:, :, parallel]
    if not tables:
        return vis, weight
    dumps, index = np.unique(block.time_index, return_inverse=True)
    gain, flag = chain(tables, window.id, reader.times[dumps], window.freq_hz, len(reader.ms.antennas))
    receptors = [window.receptors[k] for k in parallel]
    return correct(vis, weight, block.antenna1, block.antenna2, index, gain, flag, receptors)
