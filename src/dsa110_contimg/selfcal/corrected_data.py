"""The data after gains, for imaging: as Stokes I in memory, or block by block for a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dsa110_contimg.array_types import Float, Vis, Weight
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.imaging import StokesI, average_channels, stokes_i
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities
from dsa110_contimg.visibilities import Block, turn_phases

__all__ = ["corrected_blocks", "stokes_data"]

#: With fewer visibilities averaging saves less than the transforms of another grid cost.
MANY_VISIBILITIES = 20_000_000


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
            vis = _minus(block, vis, piece.model)
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
    return [*(part for parts in out.values() for part in parts), *_at_one_frequency(bins)]


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
            vis = _minus(piece.block, vis, piece.model)
        yield piece.block, vis, weight


def _at_one_frequency(chunks: Sequence[StokesI]) -> list[StokesI]:
    """Put visibilities of many frequencies side by side, on the baselines with their u, v and w at one.

    Each chunk costs the imager the transforms of a whole grid, as much as gridding a million visibilities,
    and every number of channels averaged is a chunk of its own.
    """
    chunks = [chunk for chunk in chunks if chunk.weight.any()]
    if not chunks:
        return []
    freq, parts = float(np.mean(chunks[0].freq_hz)), []
    for chunk in chunks:
        row, channel = np.nonzero(chunk.weight)
        uvw = chunk.uvw[row] * (chunk.freq_hz[channel] / freq)[:, None]
        parts.append([uvw, *(x[row, channel][:, None] for x in (chunk.vis, chunk.weight, chunk.precision))])
    uvw, vis, weight, precision = (np.concatenate(x) for x in zip(*parts, strict=True))
    return [StokesI(uvw, np.array([freq]), vis, weight, precision)]


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
