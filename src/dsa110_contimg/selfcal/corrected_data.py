"""The data after gains, for imaging: as Stokes I in memory, or block by block for a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numba
import numpy as np

from dsa110_contimg.array_types import Float, Vis, Weight
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.imaging import StokesI, average_channels, stokes_i
from dsa110_contimg.selfcal.calibration_block import CalibrationBlock
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities
from dsa110_contimg.visibilities import Block, turn_phases

__all__ = ["corrected_blocks", "stokes_data"]

#: With fewer visibilities averaging saves less than the transforms of another grid cost.
MANY_VISIBILITIES = 20_000_000
#: From so many visibilities on the same baselines on, a grid of their own is transformed faster than each of
#: them is gridded by itself.
WORTH_A_GRID = 3_000_000


def stokes_data(
    data: CalibrationData,
    tables: Sequence[GainTable],
    weights: DataWeights,
    label: str,
    *,
    subtract: ModelVisibilities | None = None,
    weight_tables: Sequence[GainTable] | None = None,
    half_width_rad: float = np.pi / 2,
    untouched: bool = True,
) -> list[StokesI]:
    """Collect calibrated Stokes I visibilities for imaging.

    Weights follow the calibration: an antenna of low gain counts for less,
    and one without a solution not at all.

    Parameters
    ----------
    data : CalibrationData
        The data.
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
    untouched : bool
        Whether the data that no step may use are in the image.

    Returns
    -------
    list of StokesI
    """
    averaged = data.reader.n_rows * data.n_channels // len(data.spw_ids) > MANY_VISIBILITIES
    out: dict[int, list[StokesI]] = {}
    bins: list[StokesI] = []
    for piece in data.blocks(label, weights, subtract):
        block = piece.block
        given = piece.weight if untouched else piece.touched(piece.weight)
        vis, weight = data.corrected(block, given, tables)
        if piece.model is not None:
            vis = _minus(piece, vis)
        freq, precision = block.spw.freq_hz, None
        true = weights.by_noise(block, weight)
        if weight_tables is None and true is weight:
            combined, total = stokes_i(vis, weight, weight == 0, block.spw.parallel)
        else:
            common = weight if weight_tables is None else data.corrected(block, given, weight_tables)[1]
            combined, total, precision = _alike(block, vis, true, common)
        uvw, path = data.reader.move_to_center(block)
        if path.any():
            combined = turn_phases(combined, path, freq)
        chunk = StokesI(uvw, freq, combined, total, precision)
        if block.bins is not None:
            bins.append(chunk)
            continue
        for factor, part in (average_channels(chunk, half_width_rad) if averaged else {1: chunk}).items():
            out.setdefault(factor, []).append(part)
    # Those with the same channels side by side: the imager joins them.
    return [*(part for parts in out.values() for part in parts), *_arranged(bins)]


def corrected_blocks(
    data: CalibrationData,
    tables: Sequence[GainTable],
    weights: DataWeights,
    label: str,
    subtract: ModelVisibilities | None = None,
) -> Iterator[tuple[Block, Vis, Weight]]:
    """Yield each block as it was read: its calibrated data, less a model if one is given, and weights."""
    for piece in data.blocks_as_read(label, weights, subtract):
        vis, weight = data.corrected(piece.block, piece.weight, tables)
        if piece.model is not None:
            vis = _minus(piece, vis)
        yield piece.block, vis, weight


def _arranged(chunks: Sequence[StokesI]) -> list[StokesI]:
    """Put chunks of the same baselines side by side, and at one frequency what is too little for a grid.

    Every chunk costs the imager the transforms of a whole grid. Windows of the same baselines are joined
    along frequency, which a gridder is twice as fast with as with each visibility on a baseline of its own.
    """
    of_rows: dict[bytes, list[StokesI]] = {}
    for chunk in chunks:
        if chunk.weight.any():
            of_rows.setdefault(chunk.uvw.tobytes(), []).append(chunk)
    of_channels: dict[bytes, list[StokesI]] = {}
    for group in of_rows.values():
        channels = np.concatenate([chunk.freq_hz for chunk in group]).tobytes()
        of_channels.setdefault(channels, []).extend(group)
    many: list[StokesI] = []
    few: list[StokesI] = []
    for group in of_channels.values():
        (many if sum(chunk.vis.size for chunk in group) >= WORTH_A_GRID else few).extend(group)
    return many + _at_one_frequency(few)


def _at_one_frequency(chunks: Sequence[StokesI]) -> list[StokesI]:
    """Put visibilities of many frequencies side by side, on the baselines with their u, v and w at one."""
    if not chunks:
        return []
    size = sum(np.count_nonzero(chunk.weight) for chunk in chunks)
    freq, at = float(np.mean(chunks[0].freq_hz)), 0
    uvw, vis = np.empty((size, 3)), np.empty((size, 1), np.complex64)
    weight, precision = np.empty((size, 1), np.float32), np.empty((size, 1), np.float32)
    for chunk in chunks:
        scale = chunk.freq_hz / freq
        at = _put(chunk.uvw, scale, chunk.vis, chunk.weight, chunk.precision, at, uvw, vis, weight, precision)
    return [StokesI(uvw, np.array([freq]), vis, weight, precision)]


@numba.njit(cache=True)
def _put(
    uvw: Float,
    scale: Float,
    vis: Vis,
    weight: Weight,
    precision: Weight,
    at: int,
    all_uvw: Float,
    all_vis: Vis,
    all_weight: Weight,
    all_precision: Weight,
) -> int:
    """Put what has weight of a chunk behind what is there; how much is there then."""
    for row in range(vis.shape[0]):
        for channel in range(vis.shape[1]):
            if weight[row, channel] != 0:
                for k in range(3):
                    all_uvw[at, k] = uvw[row, k] * scale[channel]
                all_vis[at, 0] = vis[row, channel]
                all_weight[at, 0] = weight[row, channel]
                all_precision[at, 0] = precision[row, channel]
                at += 1
    return at


def _minus(piece: CalibrationBlock, vis: Vis) -> Vis:
    """Parallel-hand correlations less the model of a block; the others as they are."""
    left = vis.copy()
    for k in piece.block.spw.parallel:
        left[:, :, k] -= piece.of_correlation(k)
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
