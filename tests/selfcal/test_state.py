"""The state of a run: values that are replaced, never changed."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.model_visibilities import ImageVisibilities, SkyVisibilities
from dsa110_contimg.selfcal.state import CalState, FluxScale, MeasuredNoise, Outcome, Verdict
from dsa110_contimg.visibilities import NoiseBounds, NoiseScale


@pytest.mark.parametrize(
    ("known", "measured", "fraction", "taken"),
    [
        (2.0, 1.9, 1.0, True),
        (2.0, 2.0, 1.0, False),
        (2.0, 2.1, 1.0, False),
        (2.0, 1.97, 0.98, False),
        (2.0, 1.95, 0.98, True),
        # What was not measured is no noise, and anything is less than what is not known.
        (np.nan, 5.0, 1.0, True),
        (np.nan, 5.0, 0.98, True),
        (2.0, np.nan, 1.0, False),
        (2.0, 0.0, 1.0, False),
        (2.0, np.inf, 1.0, False),
        (np.nan, np.nan, 1.0, False),
        (np.nan, np.inf, 1.0, False),
    ],
)
def test_the_noise_is_the_lowest_that_was_measured(known, measured, fraction, taken):
    state = CalState(weights=DataWeights.nominal(3), noise=NoiseScale(known))
    noise = NoiseScale(measured)
    lower = state.at_lower_noise(noise, fraction)
    assert (lower.noise is noise) is taken
    assert (lower is not state) is taken
    assert lower.weights is state.weights


def test_a_round_is_replaced_in_another_state(solved):
    rounds = solved.rounds
    other = replace(rounds[0], verdict=Verdict(False, "no"))
    changed = solved.with_round(0, other)
    assert changed.rounds == (other, *rounds[1:])
    assert solved.rounds is rounds
    assert rounds[0].verdict.accepted
    assert changed.last is rounds[-1]
    assert changed.last.chi2_heldout == rounds[-1].solution.score.chi2_heldout


def test_only_components_are_a_sky_model(data, solved):
    assert solved.sky_model is data.catalog_model
    assert isinstance(solved.model, SkyVisibilities)
    assert CalState(weights=solved.weights).sky_model is None
    image = ImageVisibilities(np.zeros((4, 4), np.float32), data.grid)
    assert replace(solved, model=image).sky_model is None


def test_noise_holds_for_the_model_gains_and_weights_that_it_was_measured_with(solved):
    state = replace(solved, tables=solved.last.tables)
    excess = state.weights.excess
    known = MeasuredNoise(model=state.model, excess=excess, tables=state.tables, bounds=NoiseBounds())
    assert known.is_of(state)
    assert not known.is_of(replace(state, model=SkyVisibilities(state.sky_model)))
    assert not known.is_of(replace(state, tables=()))
    noisier = state.weights.noise_factor.copy()
    noisier[0] *= 1.01
    assert not known.is_of(replace(state, weights=replace(state.weights, noise_factor=noisier)))


def test_nothing_can_be_set(solved):
    values = (solved, solved.last, Verdict(True, ""), Outcome("improved", ""), FluxScale(9, 1.0, (0.0, 0.0)))
    for value in values:
        for field in fields(value):
            with pytest.raises(FrozenInstanceError):
                setattr(value, field.name, None)


def test_states_share_nothing_by_default():
    one, other = (CalState(weights=DataWeights.nominal(3)) for _ in range(2))
    assert one.found_outliers is not other.found_outliers
    assert not one.noise.known
    assert one.outcome is None
