"""Data that no step has used score a calibration as the rest of them would."""

import pytest

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
