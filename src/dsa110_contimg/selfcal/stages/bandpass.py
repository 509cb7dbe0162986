"""Delays or a bandpass, solved before anything else and kept if other channels are predicted better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.calibration.bandpass import (
    WORTHWHILE,
    depends_on_frequency,
    solve_delays_and_bandpass,
)
from dsa110_contimg.calibration.cross_validation import GainSolver
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_block import sub_band_edges
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.memory import sub_bands_of_window
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import gather, gather_sub_bands, make_solver, solve_rounds
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import improvement

__all__ = ["bandpass", "first_solution", "without_bandpass"]

#: With fewer parts of the band there is no telling a delay.
FEWEST_SUB_BANDS = 4


def bandpass(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve for delays, or delays and a smooth bandpass, against the catalogue model.

    Before anything else: without them what is left would be taken for interference and noise. On demand
    whatever predicts better is kept; by itself only what is worth it, and nothing is solved for unless
    gains by sub-band predict held-out channels better.

    Returns
    -------
    CalState
        With the table that was kept, statistics after it, and preliminary rounds on them. Without one the
        state as it was if the table was asked for; else statistics and rounds against the catalogue, which
        the next stage begins with in any case.
    """
    kind, given = config.spectral, state if state.by_sub_band is None else replace(state, by_sub_band=None)
    if kind == "off" or data.catalog_model is None:
        return given
    parts = sub_bands_of_window(data.reader, config)
    if parts * len(data.spw_ids) < FEWEST_SUB_BANDS:
        if kind != "auto":
            log.note(f"no delays: fewer than {FEWEST_SUB_BANDS} channels")
        return given
    first = state if state.by_sub_band is not None else first_solution(data, state, config, log)
    by_sub_band, plain = first.by_sub_band, replace(first, by_sub_band=None)
    assert by_sub_band is not None
    if kind != "auto":
        found = _better_with(data, plain, config, log, kind, by_sub_band, 1.0)
        return given if found is plain else found
    with log.timed("solve"):
        solver = _solver(data, plain, config, by_sub_band, preliminary=True)
        tables = [_by_sub_band(table, data, parts) for table in plain.last.tables]
        wanted = depends_on_frequency(solver, tables, plain.rounds[0].solution.solint_s)
    if not wanted:
        return plain
    delayed = _better_with(data, plain, config, log, "delay", by_sub_band, WORTHWHILE)
    return _better_with(data, delayed, config, log, "bandpass", by_sub_band, WORTHWHILE)


def first_solution(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve preliminary rounds against the sky model of a state, or else against the catalogue.

    Returns
    -------
    CalState
        With statistics and rounds, and with the statistics by sub-band that delays are solved on.
    """
    assert data.catalog_model is not None
    model = state.model or SkyVisibilities(data.catalog_model)
    parts = max(1, sub_bands_of_window(data.reader, config))
    plain, by_sub_band = gather_sub_bands(data, state, log, model, sub_bands=parts)
    plain = solve_rounds(data, plain, config, log, preliminary=True)
    return replace(plain, by_sub_band=by_sub_band)


def without_bandpass(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Leave out delays and bandpass that nobody asked for where held-out channels are predicted better so.

    Against an incomplete sky model they follow a little of what it lacks.

    Returns
    -------
    CalState
        Solved without them; the state itself if they are kept, or there are none.
    """
    if config.spectral != "auto" or not state.bandpass:
        return state
    plain = gather(data, replace(state, bandpass=()), log)
    plain = solve_rounds(data, plain, config, log, like=state.rounds)
    factor, after = improvement(state, plain), plain.last.chi2_heldout
    left_out = factor >= 1
    log.note(
        f"bandpass with the improved sky model: held-out chi2 {factor * after:.3f}, without it {after:.3f}: "
        f"{'left out' if left_out else 'kept'}"
    )
    return plain if left_out else state


def _better_with(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    kind: Literal["delay", "bandpass"],
    by_sub_band: BaselineStatistics,
    worthwhile: float,
) -> CalState:
    """Try delays or a bandpass in place of what the state has; the state itself if the trial is not better.

    `by_sub_band` are statistics of the data without either.
    """
    with log.timed("solve"):
        solver = _solver(data, state, config, by_sub_band)
        channels = {s: data.reader.ms.spectral_window(s).freq_hz for s in data.spw_ids}
        found = solve_delays_and_bandpass(solver, channels, kind)
    if found is None or not np.isfinite(found.delay_s).any():
        log.note("no delays: too little signal in each sub-band")
        return state
    trial = gather(data, replace(state, bandpass=(found.table,)), log)
    trial = solve_rounds(data, trial, config, log, preliminary=True)
    factor = improvement(state, trial)
    before = state.last.chi2_heldout
    kept = factor > worthwhile
    log.note(
        f"{kind}: delays of {1e9 * np.nanstd(found.delay_s):.2f} ns rms, held-out chi2 "
        f"{before:.3f} -> {before / factor:.3f}: {'kept' if kept else 'left out'}"
    )
    return trial if kept else state


def _solver(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    statistics: BaselineStatistics,
    *,
    preliminary: bool = False,
) -> GainSolver:
    """Make a solver whose spectral windows are the sub-bands."""
    parts = len(statistics.spw_ids) // len(data.spw_ids)
    freq = _centres_hz({s: data.reader.ms.spectral_window(s).freq_hz for s in data.spw_ids}, parts)
    return make_solver(data, state, config, statistics=statistics, freq_hz=freq, preliminary=preliminary)


def _centres_hz(channels_hz: Mapping[int, Float], parts: int) -> Float:
    """Centres of the sub-bands of all windows in hertz."""
    edges = [(f, pairwise(sub_band_edges(f.size, parts))) for f in channels_hz.values()]
    return np.array([f[a:b].mean() for f, pairs in edges for a, b in pairs])


def _by_sub_band(table: GainTable, data: CalibrationData, parts: int) -> GainTable:
    """Give each sub-band the gains of its window."""
    if parts == 1:
        return table
    windows = [spw for spw in data.spw_ids for _ in range(parts)]
    return replace(table, gains={k: table.gains[spw] for k, spw in enumerate(windows)})
