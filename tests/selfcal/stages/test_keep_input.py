"""An input that had a flux scale and a position keeps them, unless many sources say otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.gains import typical_amplitude
from dsa110_contimg.calibration.phase_gradient import phase_gradient
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.selfcal.sky_check import Estimate
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages import run_stages
from dsa110_contimg.selfcal.stages.check_sources import check_sources
from dsa110_contimg.selfcal.stages.flux_scale import flux_scale
from dsa110_contimg.selfcal.stages.keep_input import BEAM, MANY_SOURCES, POSITION_SIGMAS, keep_input
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState, Verdict
from dsa110_contimg.selfcal.untouched_score import untouched_scores
from dsa110_contimg.sky.apparent_sky import scaled
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.visibilities import NoiseScale
from tests.selfcal.support import observe, open_data

ARCSEC = np.pi / 180 / 3600
SHIFT = 2.0


def checked(data, config):
    """Until the sources are checked; of the rescaled sky model, for one bright source is no flux scale."""
    stages = (reweight, flux_scale, check_sources)
    return run_stages(stages, data, CalState(weights=data.nominal_weights()), config, StageLog(LogProgress()))


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Half a degree of phase errors: the input knows its position better than two arcseconds."""
    ms, config = observe(
        tmp_path_factory.mktemp("still"),
        catalog_error="shift",
        catalog_error_size=SHIFT,
        phase_rms=0.5,
        phase_drift=0,
        amplitude_rms=0.02,
    )
    data = open_data(ms, config)
    state = checked(data, config)
    assert state.outcome is None
    assert state.sky_check.n_agreeing >= MANY_SOURCES
    assert state.last.solution.mode == "ap"
    return data, config, state


@pytest.fixture(scope="module")
def kept(still):
    data, config, state = still
    return keep_input(data, state, config, StageLog(LogProgress()))


def left(data, state):
    """What the model leaves of the data, in units of thermal variance."""
    return untouched_scores(data, state.model, state.weights, state.last.tables, state.noise).calibrated


def moved(data, state):
    """How far the gains of a state move the sky."""
    (spw,) = data.spw_ids
    gain, solved = gains_at_times(state.last.tables, [spw], data.reader.times, len(data.reader.ms.antennas))
    wavelength = SPEED_OF_LIGHT / data.reader.freq_hz.mean()
    return phase_gradient(gain[0], solved[0], data.reader.antenna_uv() / wavelength)


def test_a_position_that_the_input_had_is_kept(still, kept):
    data, _, state = still
    assert np.hypot(*state.moved.shift_rad) / ARCSEC == pytest.approx(SHIFT, abs=0.6)
    assert np.hypot(*state.moved.shift_rad) > POSITION_SIGMAS * state.moved.error_rad
    assert np.hypot(*moved(data, kept).shift_rad) < 0.1 * ARCSEC
    # The model goes where the gains leave the sources.
    centre = data.reader.phase_center
    change = kept.sky_model.sky.lmn(*centre)[:, :2] - state.sky_model.sky.lmn(*centre)[:, :2]
    np.testing.assert_allclose(change, np.tile(-np.array(state.moved.shift_rad), (len(change), 1)), atol=1e-9)
    assert [f.kind for f in kept.findings if f not in state.findings] == ["position"]
    assert not any(f.status for f in kept.findings)


def test_model_and_gains_go_together(still, kept):
    """One of them alone, or the other way, would leave far more."""
    data, _, state = still
    before = left(data, state)
    assert left(data, kept) == pytest.approx(before, rel=0.02)
    assert left(data, replace(kept, model=state.model)) > 1.2 * before


def test_every_round_has_the_gains_that_were_changed(still, kept):
    _, _, state = still
    assert len(kept.rounds) == len(state.rounds)
    for one, other in zip(kept.rounds, state.rounds, strict=True):
        assert one.tables[0] is kept.rounds[0].tables[0]
        assert one.tables[0] is not other.tables[0]
        assert one.solution.table is one.tables[-1]
        assert one.verdict is other.verdict
        assert one.chi2_heldout == other.chi2_heldout


def test_a_shift_within_the_inputs_own_error_goes_to_the_catalogue(still, log, notes):
    data, config, state = still
    uncertain = replace(state, moved=replace(state.moved, error_rad=np.hypot(*state.moved.shift_rad) / 2))
    after = keep_input(data, uncertain, config, log)
    np.testing.assert_allclose(moved(data, after).shift_rad, state.moved.shift_rad, atol=0.1 * ARCSEC)
    assert "moved" in [f.kind for f in after.findings]
    assert notes.about("moved the sky by")
    # Sources that are moved against each other do not tell where the sky is.
    half = replace(state.sky_check, n_agreeing=state.sky_check.n_sources // 2)
    scattered = replace(uncertain, sky_check=half)
    assert half.n_agreeing >= MANY_SOURCES
    assert np.hypot(*moved(data, keep_input(data, scattered, config, log)).shift_rad) < 0.1 * ARCSEC
    # Of few sources it may be theirs.
    few = replace(uncertain, sky_check=replace(state.sky_check, n_agreeing=MANY_SOURCES - 1))
    assert np.hypot(*moved(data, keep_input(data, few, config, log)).shift_rad) < 0.1 * ARCSEC


def test_five_degrees_of_phase_errors_hide_two_arcseconds(tmp_path, log):
    """Of a small array: its position is known to less than the shift, the catalogue's is taken."""
    ms, config = observe(
        tmp_path,
        catalog_error="shift",
        catalog_error_size=SHIFT,
        phase_rms=5,
        phase_drift=2,
        amplitude_rms=0.02,
    )
    data = open_data(ms, config)
    state = checked(data, config)
    size, error = np.hypot(*state.moved.shift_rad), state.moved.error_rad
    assert abs(size - SHIFT * ARCSEC) < 4 * error
    after = keep_input(data, state, config, log)
    assert error < size < POSITION_SIGMAS * error
    assert "moved" in [f.kind for f in after.findings]
    np.testing.assert_allclose(moved(data, after).shift_rad, state.moved.shift_rad, atol=0.1 * ARCSEC)


def test_an_input_without_coherence_has_no_position(still, log):
    data, config, state = still
    random = replace(state, moved=replace(state.moved, coherence=0.4))
    after = keep_input(data, random, config, log)
    np.testing.assert_allclose(moved(data, after).shift_rad, state.moved.shift_rad, atol=0.1 * ARCSEC)
    assert after.scale.taken_from == "catalogue"
    assert after.sky_model is state.sky_model


def test_a_flux_scale_within_its_error_is_kept(still, kept):
    _data, _, state = still
    factor = typical_amplitude(state.last.tables)
    assert kept.scale.taken_from == "input"
    assert kept.scale.of_input == pytest.approx(factor)
    assert typical_amplitude(kept.last.tables) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(kept.sky_model.apparent_jy, factor * state.sky_model.apparent_jy)


def other_scale(still, factor):
    """The input's flux scale `factor` times the catalogue's: as if gains were that much higher."""
    data, config, state = still
    table = state.last.tables[-1]
    now = typical_amplitude(state.last.tables)
    changed = table.times(np.sqrt(factor / now))
    last = replace(
        state.last,
        tables=(*state.last.tables[:-1], changed),
        solution=replace(state.last.solution, table=changed),
    )
    # The position is another matter.
    still_there = replace(state.moved, shift_rad=(0.0, 0.0))
    return data, config, replace(state.with_round(-1, last), moved=still_there)


@pytest.mark.parametrize(
    ("factor", "n", "kinds", "taken_from"),
    [
        # Many sources are certain of ten per cent; few are not; of one per cent none are.
        (1.1, 100, (), "catalogue"),
        (0.9, 100, (), "catalogue"),
        (1.1, MANY_SOURCES - 1, (), "input"),
        (1.01, 20, (), "input"),
        # Where the beam is wrong so are the fluxes.
        *((1.1, 100, (kind,), "input") for kind in BEAM),
        (1.1, 100, ("few", "frequency"), "catalogue"),
        # Raw units are no flux scale.
        (30.0, 100, (), "catalogue"),
        (0.02, 3, ("beam_width",), "catalogue"),
        (30.0, 100, ("extrapolated",), "input"),
    ],
)
def test_whose_flux_scale(still, log, notes, factor, n, kinds, taken_from):
    data, config, state = other_scale(still, factor)
    findings = tuple(Finding(kind, kind) for kind in kinds)
    check = replace(state.sky_check, n_agreeing=n, central_flux=Estimate())
    state = replace(state, findings=findings, sky_check=check)
    after = keep_input(data, state, config, log)
    assert after.scale.taken_from == taken_from
    assert after.scale.of_input == pytest.approx(factor, rel=1e-6)
    if taken_from == "input":
        assert typical_amplitude(after.last.tables) == pytest.approx(1, abs=1e-6)
        expected = scaled(state.sky_model, factor)
        np.testing.assert_allclose(after.sky_model.sky.flux_jy, expected.sky.flux_jy)
        assert notes.about("that of the input is kept")
    else:
        assert after.last.tables is state.last.tables
        assert after.sky_model is state.sky_model


@pytest.mark.parametrize(("central", "taken_from"), [(1.0, "catalogue"), (0.93, "input"), (0.8, "catalogue")])
def test_a_flux_scale_that_a_wrong_beam_explains_is_no_other_scale(still, log, central, taken_from):
    data, config, state = other_scale(still, 1.1)
    check = replace(state.sky_check, n_agreeing=100, central_flux=Estimate(central, 0.02))
    assert keep_input(data, replace(state, sky_check=check), config, log).scale.taken_from == taken_from


@pytest.mark.parametrize(("sefd", "taken_from"), [(1.0, "input"), (0.5, "catalogue"), (None, "catalogue")])
def test_the_radiometer_equation_tells_which_flux_scale_is_right(still, log, notes, sefd, taken_from):
    # The catalogue is half as bright as the sky: gains on its scale leave half of the telescope's noise.
    data, config, state = other_scale(still, 2.0)
    bounds = data.measure_residual(state.model, state.weights, state.last.tables).bounds

    class Known(type(data)):
        def measure_residual(self, *given):
            # The noise of the input is that of the telescope times `sefd`, on the scale that it has.
            variance = np.nan if sefd is None else bounds.lowest.variance * 4 / sefd**2
            found = super().measure_residual(*given)
            return replace(found, bounds=replace(bounds, radiometer=NoiseScale(variance)))

    known = Known(data.reader, (), log, catalog_model=data.catalog_model)
    after = keep_input(known, state, config, log)
    assert after.scale.taken_from == taken_from
    assert after.scale.of_input == pytest.approx(2.0, rel=1e-6)
    assert [f.kind for f in after.findings if f not in state.findings] == ["scale"]
    assert notes.about("2 times those of the catalogue")
    expected = 1.0 if taken_from == "input" else 2.0
    assert typical_amplitude(after.last.tables) == pytest.approx(expected, abs=1e-6)


def test_model_and_amplitudes_go_together(still, log):
    data, config, state = other_scale(still, 1.15)
    state = replace(state, sky_check=replace(state.sky_check, n_agreeing=1))
    model = scaled(state.sky_model, typical_amplitude(still[2].last.tables) / 1.15)
    state = replace(state, model=type(state.model)(model))
    after = keep_input(data, state, config, log)
    assert after.scale.taken_from == "input"
    assert left(data, after) == pytest.approx(left(data, state), rel=0.02)


def test_phases_alone_have_no_flux_scale(still, log):
    data, config, state = still
    assert state.rounds[0].solution.mode == "p"
    phases = replace(state, rounds=state.rounds[:1])
    after = keep_input(data, phases, config, log)
    assert after.scale is None
    assert typical_amplitude(after.last.tables) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(after.sky_model.apparent_jy, state.sky_model.apparent_jy)


def test_what_has_nothing_to_keep_is_left(still, log):
    data, config, state = still
    rejected = state.with_round(-1, replace(state.last, verdict=Verdict(False, "")))
    assert keep_input(data, rejected, config, log) is rejected
    unseeded = open_data(data.reader.ms.path, config.with_options(use_nvss_seeding=False))
    assert keep_input(unseeded, state, config, log) is state
