"""Delays or a bandpass, solved before anything else and kept if other channels are predicted better."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from dsa110_contimg.calibration.bandpass import SUB_BANDS, BandpassSolution, solve_delays_and_bandpass
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData, sub_band_edges
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import gather, make_solver, solve_rounds
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState

__all__ = ["bandpass"]

#: With fewer parts of the band there is no telling a delay.
FEWEST_SUB_BANDS = 4


def bandpass(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve for delays, or delays and a smooth bandpass, against the catalogue model.

    Before anything else: without them what is left would be taken for interference and noise.
    """
    kind = config.spectral
    if kind == "off" or data.catalog_model is None:
        return state
    windows = [data.reader.ms.spectral_window(s) for s in data.spw_ids]
    parts = min(-(-SUB_BANDS // len(windows)), min(w.freq_hz.size for w in windows))
    if parts * len(windows) < FEWEST_SUB_BANDS:
        log.note(f"no delays: fewer than {FEWEST_SUB_BANDS} channels")
        return state
    plain = gather(data, state, log, SkyVisibilities(data.catalog_model))
    plain = solve_rounds(data, plain, config, log)
    found = _solve(data, plain, config, log, parts)
    if found is None or not np.isfinite(found.delay_s).any():
        log.note("no delays: too little signal in each sub-band")
        return state
    trial = gather(data, replace(plain, bandpass=(found.table,)), log)
    trial = solve_rounds(data, trial, config, log)
    # Both at the noise before, which the delays may have lowered.
    before = plain.last.chi2_heldout
    after = trial.last.chi2_heldout * trial.noise.variance / plain.noise.variance
    kept = after < before
    log.note(
        f"{kind}: delays of {1e9 * np.nanstd(found.delay_s):.2f} ns rms, held-out chi2 "
        f"{before:.3f} -> {after:.3f}: {'kept' if kept else 'left out'}"
    )
    return trial if kept else state


def _solve(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, parts: int
) -> BandpassSolution | None:
    """Solve on statistics kept apart in so many parts of each spectral window."""
    assert state.model is not None
    assert config.spectral != "off"
    windows = [data.reader.ms.spectral_window(s) for s in data.spw_ids]
    with log.timed("solve"):
        statistics = data.gather(state.model, state.weights, sub_bands=parts).statistics
        edges = [pairwise(sub_band_edges(w.freq_hz.size, parts)) for w in windows]
        freq = np.array([w.freq_hz[a:b].mean() for w, e in zip(windows, edges, strict=True) for a, b in e])
        solver = make_solver(data, state, config, statistics=statistics, freq_hz=freq).per_spw()
        return solve_delays_and_bandpass(solver, {w.id: w.freq_hz for w in windows}, config.spectral)
