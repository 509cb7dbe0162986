"""Rounds whose model is the image: they go on while that helps, and end as they should."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal import unseeded
from dsa110_contimg.selfcal.model_visibilities import ImageVisibilities
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.selfcal.stages import run_stages
from dsa110_contimg.selfcal.stages.phase import phase
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.visibilities import open_measurement_set
from tests.selfcal.support import gain_errors, open_data


@pytest.fixture(scope="module")
def unseeded_config(stage_config):
    return stage_config.with_options(use_nvss_seeding=False)


@pytest.fixture(scope="module")
def disturbed(observed, data, solved, unseeded_config):
    """Calibrated data whose antennas are turned by moderate phases: initial tables do both."""
    return open_data(observed, unseeded_config, (*solved.last.tables, gain_errors(data, 40.0)))


def ended(data, config, log):
    state = run_stages(unseeded.STAGES, data, CalState(weights=data.nominal_weights()), config, log)
    assert state.outcome is not None
    assert state.n_judged == len(state.rounds)
    assert {r.model for r in state.rounds} <= {"clean"}
    return state


def modes(state):
    return [r.solution.mode for r in state.rounds]


def test_phases_while_they_help_then_amplitudes_once(disturbed, unseeded_config, log):
    state = ended(disturbed, unseeded_config, log)
    assert state.outcome.status == "improved"
    assert modes(state)[:2] == ["p", "p"]
    assert modes(state).count("ap") == 1
    assert modes(state)[-1] == "ap"
    accepted = [r for r in state.rounds if r.image is not None and r.verdict.accepted]
    assert state.tables is accepted[-1].tables
    assert isinstance(state.model, ImageVisibilities)
    rms = [r.image.cleaned.rms for r in accepted if r.solution.mode == "p"]
    # All but the last round of phases were worth another one.
    assert all(b * unseeded.WORTHWHILE_RMS < a for a, b in pairwise(rms[:-1]))
    assert state.input_score.chi2_heldout > state.last.chi2_heldout


def test_no_more_rounds_than_are_allowed(disturbed, unseeded_config, log):
    state = ended(disturbed, unseeded_config.with_options(max_rounds=1), log)
    assert modes(state) == ["p"]
    assert state.outcome.status == "improved"


def test_without_amplitudes_the_rounds_end_with_phases(disturbed, unseeded_config, log):
    state = ended(disturbed, unseeded_config.with_options(amplitude="off"), log)
    assert set(modes(state)) == {"p"}
    assert 1 < len(state.rounds) < unseeded_config.max_rounds


def test_an_image_without_components_is_refused(disturbed, unseeded_config, log):
    state = ended(disturbed, unseeded_config.with_options(clean_sigma=1e5, mask_sigma=1e5), log)
    assert state.outcome.status == "refused"
    assert "nothing to calibrate on" in state.outcome.message
    assert state.rounds == ()
    assert state.tables == ()
    assert state.image is state.initial


def test_a_round_is_added_and_nothing_is_taken_away(disturbed, unseeded_config, log):
    start = CalState(weights=disturbed.nominal_weights())
    (first, *_) = unseeded.STAGES
    imaged = first(disturbed, start, unseeded_config, log)
    one = phase(disturbed, imaged, unseeded_config, log)
    two = phase(disturbed, one, unseeded_config, log)
    assert two.rounds[:1] == one.rounds
    assert len(two.rounds) == 2
    # The input is what the first model was held against.
    assert two.input_score is one.input_score
    assert imaged.rounds == ()
    blank = replace(imaged.image.cleaned, model=np.zeros_like(imaged.image.cleaned.model))
    empty = replace(imaged, image=replace(imaged.image, cleaned=blank))
    assert phase(disturbed, empty, unseeded_config, log).outcome.status == "refused"


def test_a_resolved_source_that_is_calibrated_is_not_made_worse(vlba, tmp_path):
    """A jet whose sidelobes hide, where CLEAN usually stops, that its input is the better one."""
    config = SelfCalConfig(use_nvss_seeding=False, dish_diameter_m=25.0, size=512)
    made = selfcal_ms(vlba, tmp_path / "out", config)
    assert made.status == "no_improvement"
    assert "cleaned deep" in made.message
    assert "CORRECTED_DATA" not in open_measurement_set(vlba).columns
    assert not made.summary["gaintables"]
