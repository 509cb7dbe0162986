"""Solving gains against the sky model of a state: phases, then amplitudes where the signal allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.calibration.cross_validation import MIN_HELDOUT_SNR, GainSolver, Score, Solution
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.reference_antenna import rank_reference_antennas
from dsa110_contimg.calibration.solve_settings import Grouping, ObservationAxes, SolveSettings
from dsa110_contimg.calibration.solver import CalMode
from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.selfcal.acceptance import appraise_solution
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import merged
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities
from dsa110_contimg.selfcal.params import reference_antennas
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState, Round

__all__ = [
    "MIN_SIGNAL_SNR",
    "amplitude_round",
    "gather",
    "gather_sub_bands",
    "make_solver",
    "phase_round",
    "solve_rounds",
]

#: An amplitude solution needs this signal to noise per antenna, or it adds more noise than it takes away.
MIN_AMPLITUDE_SNR = 10.0
#: Solutions this good in the median mean that there is a signal to calibrate on.
MIN_SIGNAL_SNR = 3.0


def gather(
    data: CalibrationData, state: CalState, log: StageLog, model: ModelVisibilities | None = None
) -> CalState:
    """Gather the statistics against the state's model, or against another one from here on.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        Weights, bandpass, and the model unless another is given.
    log : StageLog
        Charged with the time.
    model : ModelVisibilities, optional
        Takes the place of the state's.

    Returns
    -------
    CalState
        With model, statistics, and the noise if that is lower than it was.

    Raises
    ------
    MeasurementSetError
        If no noise can be measured.
    """
    return gather_sub_bands(data, state, log, model, sub_bands=1)[0]


def gather_sub_bands(
    data: CalibrationData,
    state: CalState,
    log: StageLog,
    model: ModelVisibilities | None = None,
    *,
    sub_bands: int,
) -> tuple[CalState, BaselineStatistics]:
    """Gather the statistics by sub-band and, as their sums, by window, in one pass.

    Parameters as of :func:`gather`; `sub_bands` is the number of parts of each window.

    Returns
    -------
    state : CalState
        As of :func:`gather`.
    statistics : BaselineStatistics
        By sub-band, which are numbered from zero; by window if there is only one sub-band of each.
    """
    model = model or state.model
    if model is None:
        raise RuntimeError("there is no sky model to gather statistics against")
    with log.timed("gather"):
        gathered = data.gather(model, state.weights, state.bandpass, sub_bands=sub_bands)
    if not gathered.noise.known:
        raise MeasurementSetError(
            "no noise can be measured: the visibilities are all zero or infinite",
            data.reader.ms.path,
            "check DATA and WEIGHT",
        )
    found = merged([state.found_outliers, gathered.outliers])
    fine = gathered.statistics
    statistics = fine if sub_bands == 1 else fine.collapsed(data.spw_ids)
    state = replace(state, model=model, statistics=statistics, found_outliers=found)
    return state.at_lower_noise(gathered.noise, bounds=gathered.bounds), fine


def make_solver(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    *,
    statistics: BaselineStatistics | None = None,
    freq_hz: Float | None = None,
    preliminary: bool = False,
) -> GainSolver:
    """Make a solver on the statistics of a state, or on others with spectral windows of their own.

    A preliminary one takes a gain per polarisation and common to all spectral windows unless the options say
    otherwise, and drops no antenna.
    """
    statistics, reader = statistics or state.statistics, data.reader
    if statistics is None:
        raise RuntimeError("no statistics have been gathered")
    axes = ObservationAxes.of(reader)
    per_polarization: bool | None = {"auto": None, "G": True, "T": False}[config.gain_type]
    combine_spw: bool | None = {"auto": None, "on": True, "off": False}[config.combine_spw]
    if preliminary:
        per_polarization, combine_spw = per_polarization is not False, combine_spw is not False
    preferred = reference_antennas(config, reader.ms)
    ranked = rank_reference_antennas(statistics, reader.ms.antennas.position_m, preferred)
    return GainSolver(
        statistics=statistics,
        axes=axes if freq_hz is None else replace(axes, freq_hz=freq_hz),
        settings=SolveSettings(
            noise=state.noise,
            noise_share=state.weights.noise_share(statistics),
            reference_antennas=tuple(ranked),
            min_snr=config.min_snr,
            min_baselines=config.min_baselines,
        ),
        groupings=Grouping.choices(per_polarization, combine_spw, len(statistics.spw_ids)),
        combine_scans=config.combine_scans,
        min_heldout_snr=-np.inf if preliminary else MIN_HELDOUT_SNR,
    )


def phase_round(
    solver: GainSolver,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    *,
    before: Score,
    near: Solution | None = None,
) -> Round:
    """Solve phases on top of the state's bandpass.

    Parameters
    ----------
    solver : GainSolver
        Of :func:`make_solver`.
    state : CalState
        What was found so far.
    config : SelfCalConfig
        Options.
    log : StageLog
        Told what came out.
    before : Score
        Of the calibration that this round has to be better than.
    near : Solution, optional
        Intervals are looked for near that of this one.
    """
    return _solve(solver, state, log, "p", config.solint, before=before, on=state.bandpass, near=near)


def amplitude_round(
    solver: GainSolver,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    *,
    base: Round | None,
    before: Score,
    near: Solution | None = None,
) -> Round | None:
    """Solve amplitudes and phases on top of an accepted phase round; None if there is too little signal.

    Parameters as of :func:`phase_round`; `base` is the phase round, None to solve on top of the bandpass.
    """
    if base is not None:
        solver, before = solver.after(base.solution.table), base.solution.score
    on = state.bandpass if base is None else base.tables
    new = _solve(solver, state, log, "ap", config.amplitude_solint, before=before, on=on, near=near)
    if config.amplitude == "auto" and new.solution.median_snr < MIN_AMPLITUDE_SNR:
        log.note(
            f"amplitudes left alone: signal to noise {new.solution.median_snr:.1f} per antenna "
            f"is under {MIN_AMPLITUDE_SNR:g}"
        )
        return None
    return new


def _solve(
    solver: GainSolver,
    state: CalState,
    log: StageLog,
    mode: CalMode,
    solint: str,
    *,
    before: Score,
    on: tuple[GainTable, ...],
    near: Solution | None,
) -> Round:
    started = time.perf_counter()
    with log.timed("solve"):
        nearby = (near.solint, near.grouping) if near else ()
        solution = solver.best(mode, solint, *nearby)
    verdict = appraise_solution(
        before.chi2_heldout,
        solution.score.chi2_heldout,
        solution.solved_fraction,
        of_input=on == state.bandpass and not state.tables,
    )
    log.note(
        f"{'phases' if mode == 'p' else 'amplitudes and phases'} every {solution.solint_s:.0f} s: "
        f"signal to noise {solution.median_snr:.1f} per antenna, "
        f"{100 * solution.solved_fraction:.1f} % solved, {solution.convergence_note}{verdict.reason}"
    )
    return Round(
        solution=solution,
        model=state.model.name if state.model else "",
        tables=(*on, solution.table),
        verdict=verdict,
        seconds=time.perf_counter() - started,
        predicted_snr=solver.predicted_snr(solution.solint, solution.grouping),
    )


def solve_rounds(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    *,
    like: Sequence[Round] = (),
    preliminary: bool = False,
) -> CalState:
    """Solve phases, then amplitudes where the signal allows, on the statistics of a state.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        With statistics.
    config : SelfCalConfig
        Options.
    log : StageLog
        Told what came out.
    like : sequence of Round
        Intervals are looked for near those of these rounds; everywhere by default.
    preliminary : bool
        See :func:`make_solver`.

    Returns
    -------
    CalState
        With one round or two in place of the rounds it had, and the score of the input.
    """
    solver = make_solver(data, state, config, preliminary=preliminary)
    before = solver.unit_score()
    near = {r.solution.mode: r.solution for r in like}
    rounds = [phase_round(solver, state, config, log, before=before, near=near.get("p"))]
    if config.amplitude != "off" and rounds[0].solution.median_snr >= MIN_SIGNAL_SNR:
        base = rounds[0] if rounds[0].verdict.accepted else None
        second = amplitude_round(solver, state, config, log, base=base, before=before, near=near.get("ap"))
        if second is not None:
            rounds.append(second)
    return replace(state, rounds=tuple(rounds), input_score=before)
