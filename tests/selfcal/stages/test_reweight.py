"""Interference loses its weight, noisy antennas most of theirs, and what was wrongly taken comes back."""

from dataclasses import replace

import numpy as np
import pytest

import dsa110_contimg.selfcal.stages.reweight as stage
from dsa110_contimg.selfcal.data_weights import NOISY
from dsa110_contimg.selfcal.stages.reweight import reweight, reweight_antennas
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.visibilities import NoiseScale
from tests.selfcal.support import add_noise, hashed, observe, open_data

ANTENNA = 5


def test_interference_has_no_weight_from_here_on(observed, stage_config, solved, log, notes):
    data = open_data(observed, stage_config)
    (block,) = data.reader.blocks()
    places = np.sort(np.random.default_rng(4).choice(np.flatnonzero(block.weight), 40, replace=False))
    block.data.reshape(-1)[places] = 1e4
    before = hashed(data)
    state = reweight(data, CalState(weights=data.nominal_weights()), stage_config, log)
    left_out = state.weights.outliers[0]
    assert np.isin(places, left_out).all()
    assert left_out.size < 1.5 * places.size
    assert state.found_outliers == {}
    assert notes.about("visibilities far beyond the noise are left out")
    assert (state.weights.noise_factor == 1).all()
    assert state.last.chi2_heldout < 1.2 * solved.last.chi2_heldout
    assert hashed(data) == before


def test_a_noisy_antenna_weighs_less(observed, stage_config, solved, log, notes):
    data = open_data(observed, stage_config)
    add_noise(data, 15 * solved.noise.rms, ANTENNA)
    start = CalState(weights=data.nominal_weights())
    state = reweight(data, start, stage_config, log)
    factor = state.weights.noise_factor
    assert (factor[ANTENNA] > NOISY).all()
    # All others by their own noise, and what the first model lacks.
    np.testing.assert_allclose(np.delete(factor, ANTENNA, axis=0), 1, atol=0.3)
    name = data.reader.ms.antennas.name[ANTENNA]
    assert notes.about("weighed by their noise")[0].endswith(f": {name}")
    # What was handed in is as it was.
    assert (start.weights.noise_factor == 1).all()
    assert not start.noise.known
    assert start.rounds == ()


def test_windows_whose_weights_were_never_set_are_weighed_by_their_noise(tmp_path, log, notes):
    ms, config = observe(tmp_path, spws=3, random_phases=True)
    data = open_data(ms, config)
    start = CalState(weights=data.nominal_weights())
    plain = reweight_antennas(data, reweight(data, start, config, log), config, log)
    assert plain.weights.window_factor == {}
    assert not notes.about("spectral windows")
    for block in data.reader.blocks():
        if block.spw.id == 2:
            block.data[...] *= 4
    state = reweight_antennas(data, reweight(data, start, config, log), config, log)
    assert notes.about("noise differs of spectral windows 2: solved again")
    factor = state.weights.window_factor
    assert (factor[0], factor[1], factor[2]) == pytest.approx((1, 1, 16), rel=0.1)
    assert state.last.chi2_heldout == pytest.approx(plain.last.chi2_heldout, rel=0.1)
    again = reweight_antennas(data, state, config, log)
    assert again.weights.windows_unlike(state.weights) == ()
    assert again.noise_at_end is None


def test_without_a_catalogue_nothing_is_known_of_the_noise(observed, stage_config, start, log):
    data = open_data(observed, stage_config.with_options(use_nvss_seeding=False))
    assert reweight(data, start, stage_config, log) is start


def test_weights_that_are_right_are_left(data, solved, stage_config, log, notes):
    again = reweight_antennas(data, solved, stage_config, log)
    assert again.rounds is solved.rounds
    assert again.statistics is solved.statistics
    assert not notes.lines


def test_the_noise_of_weights_that_are_left_is_that_of_the_result(data, solved, stage_config, log):
    again = reweight_antennas(data, solved, stage_config, log)
    assert again.noise_at_end.is_of(replace(again, tables=again.last.tables))
    measured = data.measure_residual(again.model, again.weights, again.last.tables).bounds
    assert again.noise_at_end.bounds.lowest.rms == pytest.approx(measured.lowest.rms, rel=1e-3)
    # Weights that were changed are measured with anew.
    changed = reweight_antennas(data, weighted_down(solved, ANTENNA), stage_config, log)
    assert changed.noise_at_end is None


def weighted_down(state, antenna):
    factor = state.weights.noise_factor.copy()
    factor[antenna] = 4.0
    return replace(state, weights=replace(state.weights, noise_factor=factor))


def test_an_antenna_that_only_seemed_noisy_gets_its_weight_back(data, solved, stage_config, log, notes):
    # Weights that an innocent antenna had lost made the noise low.
    low = replace(solved, noise=NoiseScale(0.7 * solved.noise.variance))
    again = reweight_antennas(data, weighted_down(low, ANTENNA), stage_config, log)
    assert again.noise.variance == pytest.approx(solved.noise.variance, rel=0.03)
    assert (again.weights.noise_factor == 1).all()
    assert again.rounds is not solved.rounds
    assert again.statistics is not solved.statistics
    name = data.reader.ms.antennas.name[ANTENNA]
    assert f"noise differs of {name}" in notes.about("noise differs")[0]


def test_what_was_found_of_an_antenna_without_solution_holds(data, solved, stage_config, log):
    (spw,) = data.spw_ids
    gains = solved.last.tables[-1].gains[spw]
    flag = gains.flag.copy()
    flag[:, ANTENNA] = True
    table = replace(solved.last.tables[-1], gains={spw: replace(gains, flag=flag)})
    unsolved = solved.with_round(-1, replace(solved.last, tables=(*solved.last.tables[:-1], table)))
    again = reweight_antennas(data, weighted_down(unsolved, ANTENNA), stage_config, log)
    assert (again.weights.noise_factor[ANTENNA] == 4.0).all()
    assert again.rounds is unsolved.rounds


def test_antennas_dead_for_part_of_the_time_are_lost_then(observed, stage_config, solved, log, notes):
    """Twelve of thirty give noise alone in the later half: the rest is calibrated as if they were flagged."""
    data = open_data(observed, stage_config)
    (block,) = data.reader.blocks()
    dead, rng = list(range(1, 25, 2)), np.random.default_rng(8)
    mine = (np.isin(block.antenna1, dead) | np.isin(block.antenna2, dead)) & (block.time_index >= 3)
    noise = rng.standard_normal((2, *block.data[mine].shape)) * solved.noise.rms
    block.data[mine] = (noise[0] + 1j * noise[1]) / np.sqrt(np.maximum(block.weight[mine], 1e-9))
    before = hashed(data)
    start = CalState(weights=data.nominal_weights())
    state = reweight(data, start, stage_config, log)
    expected = np.zeros((6, 30, 2), bool)
    expected[3:, dead] = True
    np.testing.assert_array_equal(state.weights.lost, expected)
    assert start.weights.lost is None
    names = ", ".join(data.reader.ms.antennas.name[k] for k in dead)
    assert notes.about("nothing of the sky for part of the time")[0].endswith(
        f"36 dumps left out of: {names}"
    )
    assert not notes.about("far beyond the noise")
    assert not notes.about("weighted down")
    assert state.last.chi2_heldout < 1.1 * solved.last.chi2_heldout
    assert hashed(data) == before


def test_healthy_antennas_are_never_lost(solved):
    assert solved.weights.lost is None


def test_what_a_first_model_took_for_interference_is_given_back(data, solved, stage_config, log, notes):
    """Innocent visibilities among the outliers, one in a hundred."""
    (block,) = data.reader.blocks()
    innocent = np.flatnonzero(block.weight > 0)[::100]
    accused = replace(solved, weights=replace(solved.weights, outliers={0: innocent}))
    again = reweight_antennas(data, accused, stage_config, log)
    assert notes.about("visibilities are no outliers")
    assert again.weights.n_outliers <= solved.weights.n_outliers
    assert again.statistics.count.sum() == pytest.approx(solved.statistics.count.sum(), rel=1e-3)


def test_outliers_as_many_as_noise_has_are_no_reason_to_solve_again(
    observed, stage_config, solved, log, monkeypatch
):
    """One in millions of a full observation: left out from here on, and the gains are what they are."""
    calls, real = [], stage.gather
    monkeypatch.setattr(stage, "gather", lambda *a, **k: calls.append(1) or real(*a, **k))
    counts, found = [], []
    for by_chance in (0.0, 1e-2):
        monkeypatch.setattr(stage, "BY_CHANCE", by_chance)
        data = open_data(observed, stage_config)
        (block,) = data.reader.blocks()
        for row, channel in np.argwhere(block.weight[:, :, 0] > 0)[[100, 2000]]:
            sigma = solved.noise.rms / np.sqrt(block.weight[row, channel, 0])
            block.data[row, channel, 0] += 30 * sigma
        calls.clear()
        found.append(reweight(data, CalState(weights=data.nominal_weights()), stage_config, log))
        counts.append(len(calls))
    assert counts[1] < counts[0]
    assert found[0].weights.n_outliers >= 2
    assert found[1].weights.n_outliers >= 2
    assert found[1].last.chi2_heldout == pytest.approx(found[0].last.chi2_heldout, rel=0.02)
