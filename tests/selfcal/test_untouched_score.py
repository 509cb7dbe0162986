"""Data that no step has used score a calibration as the rest of them would."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.selfcal.solve_round import gather, make_solver
from dsa110_contimg.selfcal.untouched_score import untouched_scores
from tests.selfcal.test_calibration_data import Points, observe, random_table


def test_untouched_data_score_a_calibration_as_the_rest_does(rng, small_ms):
    data, model = observe(small_ms.path), Points()
    weights = data.nominal_weights()
    noise = data.measure_residual(model, weights, ()).noise
    as_is, found = untouched_scores(data, model, weights, (), noise)
    # The best factor on the model can only help.
    assert found <= as_is * (1 + 1e-6)
    table = random_table(rng, small_ms, data.reader.times)
    worse, still = untouched_scores(data, model, weights, (table,), noise)
    assert still == pytest.approx(found, rel=1e-3)
    assert worse != pytest.approx(as_is, rel=1e-3)


def test_chi_squared_is_one_of_noise_whatever_antennas_count_for(data, solved):
    """Antennas that count for less take no part of the thermal variance away."""
    misfit = np.ones_like(solved.weights.misfit_factor)
    misfit[::2] = 4.0
    less = replace(solved, weights=replace(solved.weights, misfit_factor=misfit))
    tables = solved.last.tables
    scores = [
        untouched_scores(data, solved.model, state.weights, tables, solved.noise)[0]
        for state in (solved, less)
    ]
    assert scores[1] == pytest.approx(scores[0], rel=0.05)
    noise = data.measure_residual(solved.model, less.weights, tables).noise
    assert noise.variance == pytest.approx(solved.noise.variance, rel=0.05)


def test_held_out_chi_squared_is_one_of_noise_whatever_antennas_count_for(data, solved, stage_config, log):
    misfit = np.ones_like(solved.weights.misfit_factor)
    misfit[::2] = 4.0
    weights = replace(solved.weights, misfit_factor=misfit)
    less = replace(solved, weights=weights, found_outliers={})
    chi2 = [
        make_solver(data, gather(data, state, log), stage_config).best("ap", "int").score.chi2_heldout
        for state in (solved, less)
    ]
    assert chi2[1] == pytest.approx(chi2[0], rel=0.1)
