"""What is not better than the input is rolled back; rounds are tried from the newest on."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.image_state import image_state
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.sky_check import Estimate, SkyCheck
from dsa110_contimg.selfcal.solve_round import MIN_SIGNAL_SNR
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.acceptance import (
    _expected,
    acceptance,
    conclude,
    initial_image,
    not_worse_as_delivered,
    require_signal,
)
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from tests.selfcal.support import gain_errors, open_data


@pytest.fixture(scope="module")
def near(observed, data, solved, stage_config):
    """Data that are nearly calibrated: much can be made worse, and something better."""
    return open_data(observed, stage_config, (*solved.last.tables, gain_errors(data, 20.0, 0.1)))


@pytest.fixture(scope="module")
def two_rounds(near, stage_config):
    """Phases, and amplitudes on top of them."""
    start = CalState(weights=near.nominal_weights())
    state = reweight(near, start, stage_config, StageLog(LogProgress()))
    assert [r.solution.mode for r in state.rounds] == ["p", "ap"]
    return state


@pytest.fixture(scope="module")
def wrong(data):
    """Gains that make everything worse."""
    return gain_errors(data, 90.0)


def with_wrong_round(state, wrong, number=-1):
    """A round whose held-out chi-squared speaks for gains that are wrong."""
    rounds = list(state.rounds)
    rounds[number] = replace(rounds[number], tables=(wrong,))
    return replace(state, rounds=tuple(rounds))


def weak(this):
    return replace(this, solution=replace(this.solution, median_snr=0.9 * MIN_SIGNAL_SNR))


def test_signal_lets_a_run_go_on(near, two_rounds, stage_config, log):
    assert require_signal(near, two_rounds, stage_config, log) is two_rounds


def test_too_little_signal_is_refused(near, two_rounds, stage_config, log):
    state = require_signal(near, two_rounds.with_round(0, weak(two_rounds.rounds[0])), stage_config, log)
    assert state.outcome.status == "refused"
    assert f"is under {MIN_SIGNAL_SNR:g}" in state.outcome.message
    assert not state.rounds[0].verdict.accepted
    assert state.tables == ()
    # The image of the input is what is delivered.
    assert state.image is state.initial is not None


def test_too_little_signal_after_an_accepted_round_keeps_that(near, two_rounds, stage_config, log):
    accepted = acceptance(near, two_rounds, stage_config, log)
    later = replace(accepted, rounds=(*accepted.rounds, weak(two_rounds.rounds[0])))
    state = require_signal(near, later, stage_config, log)
    assert state.outcome.status == "improved"
    assert state.tables is accepted.tables
    assert state.image is accepted.image
    assert state.n_judged == len(state.rounds) == 3


def test_the_newest_round_is_kept_if_its_image_is_better(near, two_rounds, stage_config, log, notes):
    state = acceptance(near, two_rounds, stage_config, log)
    assert state.tables is two_rounds.rounds[-1].tables
    assert state.image is state.rounds[-1].image is not state.initial
    # The round before it was not imaged.
    assert state.rounds[0] is two_rounds.rounds[0]
    assert state.n_judged == 2
    assert len(notes.about("accepted")) == 1
    assert conclude(near, state, stage_config, log).outcome.status == "improved"
    assert two_rounds.tables == ()
    assert two_rounds.image is None


def test_a_rejected_image_is_rolled_back_and_the_previous_round_tried(
    near, two_rounds, wrong, stage_config, log, notes
):
    state = acceptance(near, with_wrong_round(two_rounds, wrong), stage_config, log)
    assert [line.split(":")[0] for line in notes.lines] == ["round 2 rolled back", "round 1 accepted"]
    assert [r.verdict.accepted for r in state.rounds] == [True, False]
    assert state.tables is two_rounds.rounds[0].tables
    assert state.image is state.rounds[0].image
    ended = conclude(near, state, stage_config, log)
    assert ended.outcome.status == "improved"
    assert ended.outcome.message.startswith("improved by round 1")


def test_a_round_that_chi_squared_rejects_is_not_imaged(near, two_rounds, stage_config, log):
    last = replace(two_rounds.last, verdict=replace(two_rounds.last.verdict, accepted=False))
    state = acceptance(near, two_rounds.with_round(-1, last), stage_config, log)
    assert state.rounds[-1] is last
    assert last.image is None
    assert state.tables is two_rounds.rounds[0].tables


def test_where_nothing_is_better_the_input_is_kept(near, two_rounds, wrong, stage_config, log):
    both = with_wrong_round(with_wrong_round(two_rounds, wrong, 0), wrong, 1)
    state = conclude(near, acceptance(near, both, stage_config, log), stage_config, log)
    assert state.outcome.status in ("no_improvement", "diverged")
    assert state.tables == ()
    assert state.image is state.initial
    assert not any(r.verdict.accepted for r in state.rounds)
    # Compared at the weights of the rounds, delivered at its own.
    assert state.comparison_weights == ()
    alone = initial_image(near, two_rounds, stage_config, log)
    atol = 1e-5 * alone.image.restored.max()
    np.testing.assert_allclose(state.image.restored, alone.image.restored, atol=atol)


def test_the_input_is_imaged_once(near, two_rounds, stage_config, log):
    state = initial_image(near, two_rounds, stage_config, log)
    assert initial_image(near, state, stage_config, log) is state


def test_a_rejected_round_does_not_leave_its_model(near, two_rounds, wrong, stage_config, log):
    """MODEL_DATA holds what the kept gains were solved against."""
    accepted = acceptance(near, two_rounds, stage_config, log)
    assert accepted.kept_model is two_rounds.model
    later = with_wrong_round(two_rounds, wrong).rounds[-1]
    newer = SkyVisibilities(two_rounds.sky_model)
    state = acceptance(
        near, replace(accepted, model=newer, rounds=(*accepted.rounds, later)), stage_config, log
    )
    assert not state.last.verdict.accepted
    assert state.tables is accepted.tables
    assert state.kept_model is two_rounds.model is not newer


def test_images_are_held_against_the_fluxes_of_the_model_of_a_confirmed_sky(near, two_rounds):
    listed, known = near.catalog_model, Estimate(1.0, 0.02)
    fluxes = listed.apparent_jy * np.where(np.arange(len(listed)) < 3, 1 / 3, 1.0)
    model = replace(two_rounds.sky_model, apparent_jy=fluxes)
    check = SkyCheck(recovered=known, phased=known, phased_input=0.9, n_sources=20, n_agreeing=17)
    state = replace(two_rounds, model=SkyVisibilities(model), sky_check=check)
    assert check.confirmed
    np.testing.assert_array_equal(_expected(near, state).apparent_jy, fluxes)
    doubtful = replace(check, n_agreeing=3)
    for said in (doubtful, SkyCheck(), None):
        assert _expected(near, replace(state, sky_check=said)) is listed


def test_a_delivered_image_that_is_worse_than_the_input_after_all_is_rolled_back(
    near, two_rounds, wrong, stage_config, log, notes
):
    """Made anew, at other weights or of another model than the one that the round was accepted by."""
    state = conclude(near, acceptance(near, two_rounds, stage_config, log), stage_config, log)
    assert not_worse_as_delivered(near, state, stage_config, log, state.image) is state
    _, bad = image_state(near, state, stage_config, log, tables=(wrong,), label="", subtract=True)
    ended = not_worse_as_delivered(near, state, stage_config, log, bad)
    assert ended.tables == ()
    assert ended.outcome.status in ("no_improvement", "diverged")
    assert ended.image is ended.initial
    assert notes.about("signal to noise at the weights of each fell")
    # An input that is far from coherent cannot be better.
    check = SkyCheck(recovered=Estimate(1.0, 0.02), phased=Estimate(1.0, 0.02), phased_input=0.1)
    incoherent = replace(state, sky_check=check)
    assert not_worse_as_delivered(near, incoherent, stage_config, log, bad) is incoherent


def test_an_input_that_is_far_from_coherent_is_cleaned_like_what_it_is_compared_with(
    near, two_rounds, stage_config, log
):
    """Trap 16: signal to noise is compared at the same depth of CLEAN, whatever the input holds."""
    known = Estimate(1.0, 0.02)
    check = SkyCheck(recovered=known, phased=known, phased_input=0.01)
    judged = acceptance(near, replace(two_rounds, sky_check=check), stage_config, log)
    cleaned = judged.initial.cleaned
    peak = np.abs(cleaned.restored).max()
    assert peak > 2 * cleaned.threshold_jy
    assert cleaned.model.any()
    assert np.abs(cleaned.residual).max() < 0.7 * peak
