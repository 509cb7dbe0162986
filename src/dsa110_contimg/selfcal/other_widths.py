"""Beams of quite another width than the one assumed, told by what each leaves of channels held out.

Fluxes of sources tell the width of a beam only while there are enough of them to see: through a beam that is
a few times narrower all but those in its middle are missing, and the flux scale, the gains and what CLEAN
finds beside the catalogue make up for it. So gains are solved against the catalogue as beams of some widths
show it, fluxes and positions as listed. What is judged, one half of the channels, none of these gains has
seen, nor have the widths been fitted to it: they are a few that are given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.calibration.statistics import BaselineStatistics, RowIndex, accumulate
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import CatalogError, SeedError
from dsa110_contimg.imaging.obs_context import catalogue_through
from dsa110_contimg.selfcal.calibration_block import parallel_hands
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import ABSURD_WIDTH, Finding, size_of_beam
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import make_solver
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import ApparentSky, PrimaryBeam
from dsa110_contimg.sky.beam import RoundBeam

__all__ = ["OTHER_WIDTHS", "WidthTrial", "other_width", "try_widths"]

#: Widths over the assumed one that are tried, each within 15 per cent of whatever is between the ends.
OTHER_WIDTHS = (0.15, 0.2, 0.26, 0.35, 0.46, 0.6, 0.78, 1.3, 1.7, 2.2, 2.9, 3.8, 5.0)
#: A width is another one where it leaves less than this fraction of what the assumed one leaves above the
#: noise. A sky that is not there, looked at through a beam so narrow that nothing of it is left, leaves half
#: of what it left; faults of catalogues, pointing and widths within ten per cent leave six tenths or more.
MUCH_LESS = 0.25
#: That tells nothing where the assumed one leaves less than this, in units of the noise: a noise taken for
#: higher than it is by a tenth may make any fraction of it.
LEAST_LEFT = 0.25
#: Of a fainter sky, one that leaves less than `MUCH_LESS` of all that the data hold above the noise, where
#: the assumed one explains less than this part of what it explains, by so many standard errors.
EXPLAINS_LESS, SIGMAS = 0.6, 8.0
#: Blocks of the data that are looked at: what a beam of another width makes shows in each.
BLOCKS = 6


@dataclass(frozen=True)
class WidthTrial:
    """What gains solved against the catalogue through a beam of some width leave.

    Attributes
    ----------
    width : float
        Over the assumed one.
    chi2 : float
        On channels that were not solved on, in units of thermal variance.
    of_data : float
        The same of the data without a model.
    error : float
        Standard error of either, by the noise.
    """

    width: float
    chi2: float
    of_data: float
    error: float


def try_widths(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> tuple[WidthTrial, ...]:
    """Solve against the catalogue through beams of several widths, the assumed one first.

    Parameters
    ----------
    data : CalibrationData
        The data, with a catalogue model.
    state : CalState
        With rounds, whose intervals are taken, and the noise.
    config : SelfCalConfig
        Options.
    log : StageLog
        Charged with the time.

    Returns
    -------
    tuple of WidthTrial
        Only the assumed one where that leaves hardly more than noise; without those that the catalogue does
        not reach as far as; none for a model of the user's own.
    """
    listed, trials = data.catalog_model, list[WidthTrial]()
    if listed is None or listed.own_model is not None:
        # A model of the user's own says what it wants of the beam.
        return ()
    for width in (1.0, *OTHER_WIDTHS):
        if trials and not trials[0].chi2 - 1 > SIGMAS * trials[0].error:
            break
        model = _through(data, config, listed, width)
        if model is not None:
            trials.append(_tried(width, data, state, config, log, model))
        elif width == 1:
            break
    return tuple(trials)


def other_width(
    trials: tuple[WidthTrial, ...], beam: PrimaryBeam, *, correctable: bool = True
) -> Finding | None:
    """Say that the beam is of another width; None if none of those tried leaves much less.

    Parameters
    ----------
    trials : tuple of WidthTrial
        Of :func:`try_widths`.
    beam : PrimaryBeam
        The assumed one.
    correctable : bool, optional
        Whether a width that is not far off may be said to be corrected by an option.
    """
    if not trials:
        return None
    assumed, best = trials[0], min(trials, key=lambda t: t.chi2)
    gained = assumed.chi2 - best.chi2
    much_less = gained > LEAST_LEFT and best.chi2 - 1 < MUCH_LESS * (assumed.chi2 - 1)
    explains_more = (
        gained > SIGMAS * best.error
        and best.chi2 - 1 < MUCH_LESS * (best.of_data - 1)
        and assumed.of_data - assumed.chi2 < EXPLAINS_LESS * (best.of_data - best.chi2)
    )
    if not (much_less or explains_more):
        return None
    far = abs(np.log(best.width)) > ABSURD_WIDTH
    remedy = f"check {size_of_beam(beam)}"
    if isinstance(beam, RoundBeam):
        remedy = f"check DISH_DIAMETER, or give --dish-diameter-m {beam.diameter_m / best.width:.2g}"
    if not far and correctable:
        remedy += "; --solve-beam-width corrects it"
    times = f"{best.width:.2g} times wider" if best.width > 1 else f"{1 / best.width:.2g} times narrower"
    text = (
        f"the data are those of the catalogue through a beam about {times} than that of {size_of_beam(beam)} "
        f"(held-out chi2 {best.chi2:.3g} in the place of {assumed.chi2:.3g}): {remedy}"
    )
    return Finding("beam_width", text, "refused" if far else "")


def _through(
    data: CalibrationData, config: SelfCalConfig, listed: ApparentSky, width: float
) -> ApparentSky | None:
    """Look at the catalogue through a beam that is wider by a factor; None where it does not reach."""
    try:
        return catalogue_through(listed.beam.widened(width), data.reader, config)
    except (CatalogError, SeedError):
        # Nothing can be said of it.
        return None


def _tried(
    width: float,
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    model: ApparentSky,
) -> WidthTrial:
    """Solve against a model as the newest rounds were solved, and score it on channels held out.

    Neither a bandpass nor weights that were found with another model are used: both take up what a wrong
    beam makes.
    """
    # The noise is at these factors.
    weights = replace(state.weights.as_found(), window_factor=state.weights.window_factor)
    statistics = BaselineStatistics.empty(len(data.reader.ms.antennas), data.spw_ids, data.reader.times.size)
    seen = SkyVisibilities(model)
    every = max(1, data.n_blocks // BLOCKS)
    for piece in data.blocks("look through beams of other widths", weights):
        # Of the windows of the same rows, which come one after the other, not the same each time.
        if (piece.number + piece.number // every) % every:
            continue
        block = piece.block
        vis, weight = parallel_hands(block, *data.corrected(block, piece.touched(piece.weight)))
        accumulate(
            statistics,
            data.spw_ids.index(block.spw.id),
            RowIndex(block.time_index, block.antenna1, block.antenna2),
            vis,
            weight,
            np.ascontiguousarray(data.predict(block, seen)),
            data.first_channel[block.spw.id],
        )
    with log.timed("solve"):
        plain = replace(state, weights=weights, bandpass=(), statistics=statistics)
        solver = make_solver(data, plain, config)
        chi2 = solver.unit_score().chi2_heldout
        for near in (r.solution for r in state.rounds):
            solint = config.solint if near.mode == "p" else config.amplitude_solint
            solution = solver.best(near.mode, solint, near.solint, near.grouping)
            solver, chi2 = solver.after(solution.table), solution.score.chi2_heldout
    n = max(1.0, float(statistics.count.sum()))
    noise = solver.settings.noise.variance * solver.settings.noise_share
    return WidthTrial(width, float(chi2), float(statistics.data.sum() / n / noise), float(n**-0.5))
