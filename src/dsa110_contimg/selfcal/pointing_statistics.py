"""What pointing offsets and squint are from, and what judges them: halves of the data that share nothing.

Visibilities are in two halves, which alternate over channels, baselines and dumps, as those that gains are
cross-validated on. Either is calibrated with gains solved on the same half alone. What is found from one half
is tried with gains solved on it again, and judged on the other, both ways round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Vis
from dsa110_contimg.calibration.cross_validation import GainSolver
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.pointing import AXES, PointingStatistics, accumulate_pointing, half_of
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_block import CalibrationBlock, parallel_hands
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.heldout_sources import halves
from dsa110_contimg.selfcal.model_visibilities import BeamGradient, SkyVisibilities, leading
from dsa110_contimg.selfcal.solve_round import gather, make_solver
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import ApparentSky

__all__ = ["OfHalves", "centre_of", "gains_of_halves", "gather_pointing", "judged_on_halves"]

#: Gains from either half of the visibilities alone.
OfHalves = tuple[tuple[GainTable, ...], tuple[GainTable, ...]]


def gains_of_halves(solver: GainSolver, state: CalState) -> OfHalves:
    """Solve gains on either half of the visibilities alone, as the newest rounds were solved on both."""
    used = [r.solution for r in state.rounds if any(r.solution.table is t for t in state.last.tables)]
    found = []
    for half in (0, 1):
        tables, after = list[GainTable](), solver
        for solution in used:
            tables.append(after.solve_like(solution, [half]))
            after = after.after(tables[-1])
        found.append(tuple(tables))
    return found[0], found[1]


def judged_on_halves(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    of_halves: Sequence[ApparentSky],
) -> tuple[float, float]:
    """Score the state, and skies through beams from either half of the visibilities, on the other half.

    Returns
    -------
    before, after : float
        Chi-squared in units of thermal variance, of gains from the half that the beams are from.
    """
    solver = make_solver(data, state, config)
    before = [solver.left_by(tables, half) for half, tables in enumerate(gains_of_halves(solver, state))]
    after = [_judged(data, state, config, log, sky, half) for half, sky in enumerate(of_halves)]
    return float(np.mean(before)), float(np.mean(after))


def _judged(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, sky: ApparentSky, half: int
) -> float:
    """Score a sky that is from one half on the other. What is predicted of it is forgotten on return."""
    seen = gather(data, state, log, SkyVisibilities(sky))
    with log.timed("solve"):
        other = make_solver(data, replace(seen, noise=state.noise), config)
        return other.left_by(gains_of_halves(other, state)[half], half)


def centre_of(data: CalibrationData) -> tuple[float, float]:
    """Pointing centre of the middle dump, ICRS radians."""
    ra, dec = data.reader.pointing[len(data.reader.times) // 2]
    return float(ra), float(dec)


def gather_pointing(
    data: CalibrationData,
    model: SkyVisibilities,
    weights: DataWeights,
    tables: tuple[Sequence[GainTable], ...],
    catalogue: ApparentSky,
    every: int = 1,
) -> PointingStatistics:
    """Gather what a solution for pointing offsets needs in one pass over the data.

    Parameters
    ----------
    data : CalibrationData
        The data.
    model : SkyVisibilities
        Sky model, through the beams as they are known.
    weights : DataWeights
        What the visibilities count for.
    tables : pair of sequences of GainTable
        Gains that either half of the visibilities is calibrated with: from that half alone, where the halves
        are to know nothing of each other.
    catalogue : ApparentSky
        Whose sources the sky model begins with.
    every : int, optional
        Only one block of the data in so many.

    Returns
    -------
    PointingStatistics
    """
    sky = model.sky
    first = halves(sky, catalogue, centre_of(data), data.resolution_rad)
    matter = np.zeros(len(sky), dtype=bool)
    matter[_told_by(sky, data.reader.pointing)] = True
    parts = [_selected(sky, first & matter), _selected(sky, ~first & matter)]
    gradients = [BeamGradient(part, axis) for part in parts for axis in range(AXES)]
    statistics = PointingStatistics.empty(len(data.reader.ms.antennas))
    together = data.in_turn()

    def predict(piece: CalibrationBlock, gradient: BeamGradient) -> Vis:
        return together(piece, gradient) if every == 1 else data.predict(piece.block, gradient)

    for piece in data.blocks("measure the pointing", weights, model):
        block, predicted = piece.block, piece.model
        assert predicted is not None
        # Of the windows of the same rows, which come one after the other, not the same each time.
        if (piece.number + piece.number // every) % every:
            continue
        given, first_channel = piece.touched(piece.weight), data.first_channel[block.spw.id]
        vis, weight = parallel_hands(block, *data.corrected(block, given, tables[0]))
        if tables[1] is not tables[0]:
            other = parallel_hands(block, *data.corrected(block, given, tables[1]))
            half = half_of(
                statistics.n_antennas,
                block.time_index,
                block.antenna1,
                block.antenna2,
                first_channel + np.arange(block.spw.freq_hz.size),
            )
            second = half[:, :, None] == 1
            vis, weight = np.where(second, other[0], vis), np.where(second, other[1], weight)
        accumulate_pointing(
            statistics,
            block.time_index,
            block.antenna1,
            block.antenna2,
            vis - piece.of_receptors,
            weight,
            np.stack([*(predict(piece, gradient) for gradient in gradients), predicted]),
            first_channel,
        )
    return statistics


def _told_by(sky: ApparentSky, pointing: Float) -> Int:
    """Choose the sources that tell where a beam points: the gradients of the others hardly matter."""
    at, power = np.array([sky.freq_hz]), np.zeros(len(sky))
    for ra, dec in pointing[[0, len(pointing) // 2, -1]]:
        for axis in range(AXES):
            power += np.square(BeamGradient(sky, axis).through_beam(at, float(ra), float(dec))[:, 0])
    return leading(power)


def _selected(sky: ApparentSky, chosen: Bool) -> ApparentSky:
    return replace(sky, sky=sky.sky.select(chosen), apparent_jy=sky.apparent_jy[chosen])
