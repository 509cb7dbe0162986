"""Sources held out: gains solved on one half of the sky model, the other half measured after them.

Held-out channels share the sky with those that gains were solved on, so that they cannot tell a wrong one.
Sources can: gains from one half of the flux make the other half appear where and as bright as the catalogue
has it, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.sky_check import CATALOG_SCATTER, MIN_SNR, HeldoutSources, RecoveredHalf
from dsa110_contimg.selfcal.solve_round import make_solver
from dsa110_contimg.selfcal.source_measurement import FitLimits, fit_sources
from dsa110_contimg.selfcal.split_statistics import SplitStatistics, gather_split
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.sky.apparent_sky import PART
from dsa110_contimg.sky.directions import lmn_from_radec

__all__ = ["halves", "leaders", "measure_heldout_sources", "recovered_halves"]

#: Rings of equal width out to the beam's half power, and sectors, in each of which both halves hold flux.
RINGS, SECTORS = 3, 4
#: Sources looked for in each half, and of these the brightest measured one by one, which takes longer.
MOST_SOURCES, MOST_MEASURED = 150, 75
#: After gains that give less of the model back the sources are too disturbed to be looked at one by one.
TELLS_ONE_BY_ONE = 0.7
#: The model has to give this much of itself back, whatever its suppression is.
LEAST_EXPECTED = 0.1
#: Gains from all data and the whole model have this signal to noise where a part of the data will do.
AMPLE_SNR = 50.0
#: Sources count in a part of the data if the whole sky model leaves them so much more signal than is needed.
CLEARLY = 1.5
#: What is not in the sky may be anything: the fit is hardly held to the catalogue's values.
WIDE = FitLimits(prior_flux=3.0, prior_position_arcsec=10.0)


def halves(
    model: ApparentSky, catalogue: ApparentSky, centre: tuple[float, float], resolution_rad: float
) -> Bool:
    """Draw the first half of a sky model, so that both hold flux everywhere in the beam.

    Parameters
    ----------
    model : ApparentSky
        The catalogue's sources, then others; those go with the nearest one of the catalogue.
    catalogue : ApparentSky
        As the catalogue lists them, the brightest apparent first.
    centre : (float, float)
        Where the beam points in the middle of the observation, ICRS radians.
    resolution_rad : float
        What lies this near to a brighter source of the catalogue is of one source with it, and in its half:
        the components of a model, or the lobes of a radio galaxy.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for the first half, which holds the brightest source.
    """
    n = len(catalogue)
    lm = lmn_from_radec(model.sky.ra_rad, model.sky.dec_rad, *centre)[:, :2]
    half_power = model.beam.fwhm_rad(model.freq_hz) / 2
    ring = np.minimum(np.hypot(*lm.T) / half_power * RINGS, RINGS).astype(int)
    sector = np.floor((np.arctan2(lm[:, 0], lm[:, 1]) / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
    cell = ring * SECTORS + sector
    leader = leaders(lm[:n], model.apparent_jy[:n], resolution_rad)
    together = np.bincount(leader, weights=model.apparent_jy[:n], minlength=n)
    surplus, of_cell = 0.0, np.zeros((RINGS + 1) * SECTORS)
    first = np.zeros(len(model), dtype=bool)
    own = np.flatnonzero(leader == np.arange(n))
    for k in own[np.argsort(-together[own], kind="stable")]:
        flux = float(together[k])
        first[k] = surplus + of_cell[cell[k]] <= 0
        surplus += flux if first[k] else -flux
        of_cell[cell[k]] += flux if first[k] else -flux
    first[:n] = first[leader]
    for k in range(n, len(model)):
        first[k] = first[int(np.argmin(np.hypot(*(lm[:n] - lm[k]).T)))]
    return first


def leaders(lm: Float, flux_jy: Float, within_rad: float) -> Int:
    """Find the brightest component of the source that each component belongs to.

    The brightest that is left takes all within reach that no brighter one has taken. Groups do not chain: in
    a dense sky all would be one.

    Parameters
    ----------
    lm : ndarray, shape (n, 2)
        Directions.
    flux_jy : ndarray, shape (n,)
        Apparent fluxes.
    within_rad : float
        Reach.

    Returns
    -------
    ndarray of int, shape (n,)
        An index into the components, each its own where it stands alone.
    """
    leader = np.full(len(lm), -1, dtype=np.intp)
    tree = cKDTree(lm)
    for k in np.argsort(-flux_jy, kind="stable"):
        if leader[k] < 0:
            near = np.asarray(tree.query_ball_point(lm[k], within_rad), dtype=np.intp)
            leader[near[leader[near] < 0]] = k
    return leader


def recovered_halves(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    model: ApparentSky,
    listed: ApparentSky,
    first: Bool,
    log: StageLog,
) -> tuple[RecoveredHalf, ...]:
    """Solve on either half of a sky model as the newest rounds were solved, and look for the other one.

    What is looked for is what the catalogue lists: a sky model also holds what was found with the gains that
    are in question.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        Weights, noise, and rounds: their intervals, and what shares a gain.
    config : SelfCalConfig
        Options.
    model : ApparentSky
        Sky model: the catalogue's sources, then others.
    listed : ApparentSky
        The catalogue's sources as it lists them.
    first : ndarray of bool, shape (n,)
        First half of the sky model.
    log : StageLog
        Charged with the time.

    Returns
    -------
    tuple of RecoveredHalf
        First the second half, found with gains from the first, then the other way round; less where a half
        holds nothing.
    """
    rounds = [r for r in state.rounds if r.verdict.accepted or r is state.last]
    combine = all(r.solution.grouping.combine_spw for r in rounds)
    sought = tuple(_sought(model, listed, half) for half in (first, ~first))
    parts = tuple(_selected(model, half) for half in (first, ~first))
    if not all(len(part) for part in (*sought, *parts)):
        return ()
    with log.timed("measure"):
        split = gather_split(
            data,
            (SkyVisibilities(parts[0]), SkyVisibilities(parts[1])),
            (SkyVisibilities(sought[0]), SkyVisibilities(sought[1])),
            state.weights,
            state.bandpass,
            whole=state.model if model is state.sky_model else None,
            combine_spw=combine,
        )
    found = []
    for on in (0, 1):
        held = ~first if on == 0 else first
        with log.timed("solve"):
            half = _recovered(data, state, config, split, on, held, sought[1 - on].apparent_jy)
        if half is not None:
            found.append(half)
    return tuple(found)


def _sought(model: ApparentSky, listed: ApparentSky, half: Bool) -> ApparentSky:
    """Choose the brightest listed sources of a half, without those that turned out to be two."""
    chosen = np.flatnonzero(half[: len(listed)] & ~_split(model, listed))
    brightest = chosen[np.argsort(-listed.apparent_jy[chosen], kind="stable")][:MOST_SOURCES]
    return _selected(listed, np.sort(brightest))


def _split(model: ApparentSky, listed: ApparentSky) -> Bool:
    """Find the listed sources that have parts in the sky model, shape (n,)."""
    whole = {name.rpartition(PART)[0] for name in model.sky.name[len(listed) :] if PART in name}
    return np.array([name in whole for name in listed.sky.name], dtype=bool)


def _recovered(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    split: SplitStatistics,
    solved_on: int,
    held: Bool,
    flux_jy: Float,
) -> RecoveredHalf | None:
    on, other = split.parts[solved_on], split.parts[1 - solved_on]
    overlap = split.overlap.cross if solved_on == 0 else np.conj(split.overlap.cross)
    sought, disturbing = split.sought[1 - solved_on], split.disturbing[1 - solved_on].cross
    tables = _solved_like(data, state, config, on)
    tables = _at_scale_of_model(tables, on, *_gains(data, tables, on))
    gain, solved = _gains(data, tables, on)
    num, den = _held_flux(sought, disturbing, gain, solved)
    if not den.sum() > 0:
        return None
    # The same with the amplitudes, but the phases of the input.
    as_is, _ = _held_flux(sought, disturbing, np.abs(gain).astype(np.complex128), solved)
    # What the model would give in place of the data: gains of one where they were solved.
    one = np.ones_like(gain)
    model_on = _as_if_data(on, other, overlap, one, solved, against_first=True)
    model_other = _as_if_data(on, other, overlap, one, solved, against_first=False)
    again = _solved_like(data, state, config, model_on)
    again = _at_scale_of_model(again, model_on, *_gains(data, again, model_on))
    gain_again, solved_again = _gains(data, again, model_on)
    would, would_den = _held_flux(model_other, overlap, gain_again, solved_again)
    expected = float(would.sum() / would_den.sum()) if would_den.sum() > 0 else 1.0
    expected = max(expected, LEAST_EXPECTED)
    lumpiness = float(np.sqrt((flux_jy**4).sum()) / (flux_jy**2).sum())
    noise = float(np.sqrt(state.noise.variance / 2 / den.sum()))
    with np.errstate(divide="ignore", invalid="ignore"):
        by_time = num.sum(axis=0) / den.sum(axis=0) / expected
        by_spw = num.sum(axis=1) / den.sum(axis=1) / expected
    return RecoveredHalf(
        fraction=float(num.sum() / den.sum()) / expected,
        error=float(np.hypot(noise, CATALOG_SCATTER * lumpiness)) / expected,
        of_input=float(as_is.sum() / den.sum()),
        expected=expected,
        by_time=by_time,
        by_spw=by_spw,
        tables=(*state.bandpass, *tables),
        held=held,
    )


def _solved_like(
    data: CalibrationData, state: CalState, config: SelfCalConfig, statistics: BaselineStatistics
) -> tuple[GainTable, ...]:
    """Gains as the newest rounds were solved, on other statistics."""
    solver, tables = make_solver(data, state, config, statistics=statistics), []
    if len(statistics.spw_ids) < len(data.spw_ids):
        solver = solver.combine_spws()
    rounds = [r for r in state.rounds if r.verdict.accepted] or [state.last]
    for this in rounds:
        table = solver.solve_like(this.solution)
        tables.append(table)
        solver = solver.after(table)
    if len(statistics.spw_ids) < len(data.spw_ids):
        tables = [replace(t, gains=dict.fromkeys(data.spw_ids, next(iter(t.gains.values())))) for t in tables]
    return tuple(tables)


def _gains(
    data: CalibrationData, tables: Sequence[GainTable], statistics: BaselineStatistics
) -> tuple[Complex, Bool]:
    return gains_at_times(tables, statistics.spw_ids, data.reader.times, statistics.n_antennas)


def _as_if_data(
    on: BaselineStatistics,
    other: BaselineStatistics,
    overlap: Complex,
    gain: Complex,
    solved: Bool,
    *,
    against_first: bool,
) -> BaselineStatistics:
    """Statistics of the model, seen through gains, against a part of it."""
    gi, gj = (gain[:, :, on.antenna1], gain[:, :, on.antenna2])
    both = solved[:, :, on.antenna1] & solved[:, :, on.antenna2]
    turn = np.where(both, gi * np.conj(gj), 0.0)
    power = on.model + other.model + 2 * overlap.real
    # sum w (M1 + M2) conj(M1), or conj(M2).
    against, shared = (on, np.conj(overlap)) if against_first else (other, overlap)
    cross = against.model + shared
    return replace(
        against,
        cross=(turn * cross).astype(np.complex128),
        data=np.abs(turn) ** 2 * power,
        count=np.where(both, on.count, 0.0),
        model=np.where(both, against.model, 0.0),
    )


def _at_scale_of_model(
    tables: tuple[GainTable, ...], on: BaselineStatistics, gain: Complex, solved: Bool
) -> tuple[GainTable, ...]:
    """Multiply the gains so that the data have the model's flux: phases alone leave that open."""
    scale = sum(on.scale(gain, solved, half) for half in (0, 1)) / 2
    factor = np.sqrt(np.maximum(scale, 1e-12))
    last = tables[-1]
    if next(iter(last.gains.values())).gain.shape[3] == 1:
        factor = factor.mean(keepdims=True)
    return (*tables[:-1], last.times(factor))


def _held_flux(
    sought: BaselineStatistics, disturbing: Complex, gain: Complex, solved: Bool
) -> tuple[Float, Float]:
    """Correlate what gains leave with what was held out: sums and norms, (nspw, ntime).

    `disturbing` is what the gains were solved on, correlated with the same.
    """
    i, j = sought.antenna1, sought.antenna2
    both = solved[:, :, i] & solved[:, :, j]
    turn = np.where(both, np.conj(gain[:, :, i]) * gain[:, :, j], 0.0)
    power = np.abs(turn) ** 2
    left = (turn * sought.cross.sum(axis=0)).real - power * disturbing.sum(axis=0).real
    total = power * sought.model.sum(axis=0)
    return left.sum(axis=(2, 3)), total.sum(axis=(2, 3))


def _enough(state: CalState) -> int:
    """One dump in how many tells as much as all of them of what the sky is."""
    rounds = [r.solution for r in state.rounds if r.verdict.accepted or r is state.last]
    if state.measured is None:
        return 1
    ample = int((min(solution.median_snr for solution in rounds) / AMPLE_SNR) ** 2)
    return max(1, min(ample, state.measured.enough(CLEARLY * MIN_SNR)))


def _selected(model: ApparentSky, chosen: Bool) -> ApparentSky:
    return replace(model, sky=model.sky.select(chosen), apparent_jy=model.apparent_jy[chosen])


def _as_listed(model: ApparentSky, listed: ApparentSky, inside: Bool, held: Bool) -> ApparentSky:
    """Sky model with the held-out sources as listed, and nothing of what was found beside them."""
    n, sky = len(listed), model.sky
    flux, ra, dec = sky.flux_jy.copy(), sky.ra_rad.copy(), sky.dec_rad.copy()
    chosen = np.flatnonzero(inside)
    flux[chosen] = listed.sky.flux_jy[chosen]
    ra[chosen], dec[chosen] = listed.sky.ra_rad[chosen], listed.sky.dec_rad[chosen]
    beside = held.copy()
    beside[:n] = False
    kept = ~beside | np.array([PART in name for name in sky.name])
    changed = replace(model, sky=replace(sky, flux_jy=flux, ra_rad=ra, dec_rad=dec))
    return _selected(changed, kept)


def measure_heldout_sources(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> HeldoutSources | None:
    """Hold out either half of the sky model, and measure its bright sources one by one.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        With rounds solved against a sky model.
    config : SelfCalConfig
        Options.
    log : StageLog
        Charged with the time.

    Returns
    -------
    HeldoutSources or None
        None if the sky model has no two halves.
    """
    catalogue, model = data.catalog_model, state.sky_model
    if catalogue is None or model is None or not isinstance(state.model, SkyVisibilities):
        return None
    data = data.sampled(_enough(state))
    middle = data.reader.pointing[len(data.reader.times) // 2]
    centre = (float(middle[0]), float(middle[1]))
    first = halves(model, catalogue, centre, data.resolution_rad)
    found = recovered_halves(data, state, config, model, catalogue, first, log)
    if not found:
        return None
    rows: list[tuple[Int, Int, Float, Float, Float, Float]] = []
    for number, half in enumerate(found):
        if half.expected < TELLS_ONE_BY_ONE:
            continue
        inside = half.held[: len(catalogue)] & ~_split(model, catalogue)
        chosen = np.flatnonzero(inside & catalogue.sky.is_point)
        chosen = chosen[np.argsort(-catalogue.apparent_jy[chosen], kind="stable")][:MOST_MEASURED]
        if chosen.size == 0:
            continue
        with log.timed("measure"):
            fit = fit_sources(
                data,
                state.weights,
                SkyVisibilities(_as_listed(model, catalogue, inside, half.held)),
                half.tables,
                catalogue,
                chosen,
                state.noise_and_sidelobes,
                limits=WIDE,
            )
        # Where everything is moves with the brightest source of the other half.
        shift = (
            fit.shift_rad - np.median(fit.shift_rad[fit.good], axis=0) if fit.good.any() else fit.shift_rad
        )
        of_half = np.full(chosen.size, number)
        rows.append((of_half, chosen, fit.ratio, fit.ratio_error, shift, fit.shift_error))
    if not rows:
        none, nothing, nowhere = np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, 2))
        rows.append((none, none, nothing, nothing, nowhere, nowhere))
    of_half, index, ratio, error, shift, shift_error = (np.concatenate(x) for x in zip(*rows, strict=True))
    lm = lmn_from_radec(catalogue.sky.ra_rad[index], catalogue.sky.dec_rad[index], *centre)[:, :2]
    return HeldoutSources(
        halves=found,
        half=of_half,
        index=index,
        ratio=ratio,
        ratio_error=error,
        shift_rad=shift,
        shift_error=shift_error,
        lm=lm,
        resolution_rad=data.resolution_rad,
    )
