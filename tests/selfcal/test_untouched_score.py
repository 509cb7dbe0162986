"""Data that no step has used score a calibration as the rest of them would."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.selfcal.solve_round import gather, make_solver
from dsa110_contimg.selfcal.untouched_score import untouched_scores
from tests.selfcal.test_calibration_data import Points, observe, random_table


def test_untouched_data_score_a_calibration_as_the_rest_does(rng, small_ms):
    data, model = observe(small_ms.path), Points()
    weights = data.nominal_weights()
    noise = data.measure_residual(model, weights, ()).noise
    score = untouched_scores(data, model, weights, (), noise)
    as_is, found = score.calibrated, score.as_found
    # The best factor on the model can only help.
    assert found <= as_is * (1 + 1e-6)
    table = random_table(rng, small_ms, data.reader.times)
    other = untouched_scores(data, model, weights, (table,), noise)
    assert other.as_found == pytest.approx(found, rel=1e-3)
    assert other.calibrated != pytest.approx(as_is, rel=1e-3)


def test_chi_squared_is_one_of_noise_whatever_antennas_count_for(data, solved):
    """Antennas that count for less take no part of the thermal variance away."""
    misfit = np.ones_like(solved.weights.misfit_factor)
    misfit[::2] = 4.0
    less = replace(solved, weights=replace(solved.weights, misfit_factor=misfit))
    tables = solved.last.tables
    scores = [
        untouched_scores(data, solved.model, state.weights, tables, solved.noise).calibrated
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


def test_a_hand_that_sees_another_sky_is_named_and_nothing_is_kept(observed, stage_config, tmp_path):
    """Conjugated, gains may follow its brightest source and leave little else."""
    ms = Path(shutil.copytree(observed, tmp_path / "t.ms"))
    with table(str(ms), readonly=False, ack=False) as main:
        vis = main.getcol("DATA")
        vis[:, :, -1] = np.conj(vis[:, :, -1])
        main.putcol("DATA", vis)
    for path, status in ((observed, "improved"), (ms, "no_improvement")):
        result = selfcal_ms(path, tmp_path / status, stage_config.with_options(columns="none"))
        kinds = [finding["kind"] for finding in result.summary["findings"]]
        assert (result.status, "polarisation" in kinds) == (status, status != "improved"), result.message
    assert "is YY conjugated" in result.message
