"""A sky that is not the catalogue's ends the run, and the likely cause is named."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.sky_check import Estimate, SkyCheck
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages import check_sources as stage
from dsa110_contimg.selfcal.stages.check_sources import check_sources
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import AntennaBeams
from tests.selfcal.support import Notes, hashed, observe, open_data


@pytest.fixture(scope="module")
def wrong(request, tmp_path_factory):
    """A catalogue that is wrong altogether: data, options, the state of gains that follow it, and the end."""
    kind, seed = request.param
    folder = tmp_path_factory.mktemp(kind)
    ms, config = observe(folder, catalog_error=kind, seed=seed, random_phases=True)
    data = open_data(ms, config)
    state = reweight(data, CalState(weights=data.nominal_weights()), config, StageLog(LogProgress()))
    # Nothing else has seen it.
    assert state.last.verdict.accepted
    assert state.outcome is None
    before, notes = hashed(data), Notes()
    ended = check_sources(data, state, config, StageLog(notes))
    assert hashed(data) == before
    return data, state, ended, notes


@pytest.fixture(scope="module")
def checked(data, solved, stage_config):
    notes = Notes()
    return check_sources(data, solved, stage_config, StageLog(notes)), notes


def test_the_catalogues_sky_goes_on(solved, checked):
    state, notes = checked
    assert state.outcome is None
    assert state.rounds is solved.rounds
    assert state.weights is solved.weights
    assert not [f for f in state.findings if f.status]
    assert state.sky_check.tells
    assert state.sky_check.recovered.value == pytest.approx(1, abs=0.1)
    assert state.sky_check.phased_input < 0.2
    assert state.heldout.index.size >= state.sky_check.n_sources
    # Random phases are of no sky.
    assert state.moved.coherence < 0.7
    assert len(notes.about("of their catalogue flux")) == 1
    assert solved.heldout is None
    assert solved.findings == ()


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (("mirror", 2), "mirrored in right ascension"),
        (("mirror-dec", 4), "mirrored in declination"),
        (("other-field", 3), "another field"),
    ],
    indirect=["wrong"],
)
def test_another_sky_ends_the_run(wrong, cause):
    data, state, ended, notes = wrong
    assert ended.outcome.status == "refused"
    assert ended.outcome.message.startswith("refused: ")
    assert cause in ended.outcome.message
    assert "\n" not in ended.outcome.message
    assert ("UVW" in ended.outcome.message) or "coordinates" in ended.outcome.message
    (first, *_) = [f for f in ended.findings if f.status]
    assert first.text in ended.outcome.message
    assert (first.kind == "mirrored") == ("mirrored" in cause)
    assert not any(r.verdict.accepted for r in ended.rounds)
    assert ended.n_judged == len(ended.rounds) == len(state.rounds)
    # Gains of a wrong sky leave more of it than the input has.
    for tables in (state.last.tables, ()):
        assert ended.noise <= data.measure_residual(state.model, ended.weights, tables).noise
    # The input is what is delivered.
    assert ended.tables == ()
    assert ended.image is ended.initial is not None
    assert notes.about("the sky is not the catalogue's")
    # What was handed in is as it was.
    assert state.last.verdict.accepted
    assert state.outcome is None


@pytest.mark.parametrize("wrong", [("other-field", 3)], indirect=True)
def test_no_mirror_is_named_that_explains_no_more_than_the_catalogue(wrong, stage_config, log, monkeypatch):
    """The brightest few of a sky may lie as in a mirror of it: their flux comes back, nothing else does."""
    data, state, _, _ = wrong
    plain = stage.recovered_halves

    def told(*args):
        return tuple(replace(half, fraction=0.95, expected=0.98) for half in plain(*args))

    monkeypatch.setattr(stage, "recovered_halves", told)
    ended = check_sources(data, state, stage_config, log)
    assert ended.outcome.status == "refused"
    assert "mirrored" not in ended.outcome.message
    assert "another field" in ended.outcome.message


def test_antennas_that_a_wrong_sky_made_look_noisy_get_their_weight_back(
    data, solved, stage_config, log, monkeypatch
):
    """Whatever ends a run here: the image of the input is that of the data as they are."""
    against = Finding("rotated", "turned", "refused")
    monkeypatch.setattr(stage, "findings_of", lambda *args: (against,))
    factor = solved.weights.noise_factor.copy()
    factor[4] = 4.0
    down = replace(solved, weights=replace(solved.weights, noise_factor=factor))
    ended = check_sources(data, down, stage_config, log)
    assert ended.outcome.status == "refused"
    assert "turned" in ended.outcome.message
    assert (ended.weights.noise_factor == 1).all()
    assert (down.weights.noise_factor[4] == 4).all()
    assert ended.noise.known


def test_what_was_found_before_stays(data, solved, stage_config, log):
    earlier = Finding("noise", "earlier")
    state = check_sources(data, replace(solved, findings=(earlier,)), stage_config, log)
    assert state.findings[0] is earlier


def test_a_shift_of_the_catalogue_is_one_of_the_gains(tmp_path, log):
    """Ten arcseconds from an input that is nearly calibrated: seen, but what an input may be off by."""
    ms, config = observe(
        tmp_path, catalog_error="shift", catalog_error_size=10, phase_rms=2, phase_drift=0, amplitude_rms=0.02
    )
    data = open_data(ms, config)
    state = reweight(data, CalState(weights=data.nominal_weights()), config, log)
    found = check_sources(data, state, config, log)
    assert found.outcome is None
    assert found.moved.coherence > 0.95
    size = np.degrees(np.hypot(*found.moved.shift_rad)) * 3600
    error = np.degrees(found.moved.error_rad) * 3600
    assert abs(size - 10) < 4 * error + 0.3
    assert found.sky_check.phased_input == pytest.approx(found.sky_check.phased.value, abs=0.1)


def test_what_cannot_be_checked_is_left(observed, data, solved, stage_config, log, notes):
    few = replace(solved.last.solution, solved_fraction=0.5)
    rejected = solved.with_round(-1, replace(solved.last, solution=few))
    assert check_sources(data, rejected, stage_config, log) is rejected
    unseeded = open_data(observed, stage_config.with_options(use_nvss_seeding=False))
    assert check_sources(unseeded, solved, stage_config, log) is solved
    assert not notes.lines
    alone = open_data(observed, stage_config)
    one = np.array([0])
    alone.catalog_model = replace(
        data.catalog_model,
        sky=data.catalog_model.sky.select(one),
        apparent_jy=data.catalog_model.apparent_jy[one],
    )
    state = replace(solved, model=SkyVisibilities(alone.catalog_model))
    assert check_sources(alone, state, stage_config, log) is state
    assert notes.about("one source holds all the flux")


def test_a_common_offset_says_nothing_of_sources_that_were_not_measured(data, solved):
    listed = data.catalog_model
    offset = np.tile([np.radians(1 / 3), 0.0], (len(data.reader.ms.antennas), 1))
    seen = replace(listed, antenna_beams=AntennaBeams(offset_rad=offset))
    state = replace(solved, model=SkyVisibilities(seen))
    unknown = SkyCheck()
    assert stage._with_common_offset(unknown, state, listed) is unknown
    known = replace(unknown, pointing_arcmin=(Estimate(1.0, 0.5), Estimate(-2.0, 0.5)))
    east, north = stage._with_common_offset(known, state, listed).pointing_arcmin
    assert (east.value, north.value) == pytest.approx((21.0, -2.0), abs=1e-6)
