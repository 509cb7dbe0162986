"""A sky model that is tried and rejected leaves nothing behind."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.params import check_params
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.bandpass import bandpass
from dsa110_contimg.selfcal.stages.reweight import reweight, reweight_antennas
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import better_with, improvement, solved_against
from dsa110_contimg.simulate import simulate
from dsa110_contimg.sky import ApparentSky, SkyModel
from dsa110_contimg.sky.apparent_sky import joined


def open_simulated(folder, **options):
    """Data, options and log of a simulated observation against its own catalogue."""
    simulate(folder / "t.ms", SimulationConfig(min_mjy=20.0, seed=3, random_phases=True, **options))
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
    config = SelfCalConfig(catalog_dir=folder / "c", size=256)
    params = check_params(folder / "t.ms", folder / "out", config, [])
    log = StageLog(LogProgress())
    data = CalibrationData(
        params.reader, params.initial, log, grid=params.grid, catalog_model=params.catalog_model
    )
    return data, config, log


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """32 antennas with random phases."""
    folder = tmp_path_factory.mktemp("trial")
    return open_simulated(folder, antennas=32, channels=8, dumps=6, fields=6, rfi=0.002)


@pytest.fixture(scope="module")
def calibrated(opened):
    data, config, log = opened
    return reweight(data, CalState(weights=data.nominal_weights()), config, log)


def with_bogus_source(state: CalState) -> ApparentSky:
    """The sky model and a broad source of 20 Jy beside it that nobody has seen."""
    model = state.sky_model
    sky = model.sky
    broad = SkyModel.points(sky.ra_rad[:1] + 0.003, sky.dec_rad[:1], np.array([20.0]), prefix="bogus")
    broad = replace(broad, major_rad=np.array([5e-3]), minor_rad=np.array([5e-3]))
    return joined(model, replace(model, sky=broad, apparent_jy=np.array([20.0])))


def test_trap_36_a_rejected_trial_is_forgotten(opened, calibrated):
    data, config, log = opened
    before = [(b.data.copy(), b.weight.copy(), b.flag.copy()) for b in data.reader.blocks()]
    tried = better_with(data, calibrated, with_bogus_source(calibrated), config, log)
    assert tried is calibrated
    after = reweight_antennas(data, tried, config, log)
    undisturbed = reweight_antennas(data, calibrated, config, log)
    assert after.weights.n_outliers == undisturbed.weights.n_outliers
    n_visibilities = sum(b.weight.size for b in data.reader.blocks())
    assert after.weights.n_outliers < 0.01 * n_visibilities
    np.testing.assert_array_equal(after.weights.noise_factor, undisturbed.weights.noise_factor)
    assert after.noise == undisturbed.noise
    for old, block in zip(before, data.reader.blocks(), strict=True):
        for was, now in zip(old, (block.data, block.weight, block.flag), strict=True):
            np.testing.assert_array_equal(was, now)


def test_the_trial_itself_finds_many_outliers(opened, calibrated):
    """Else the test above would prove nothing: they are what must be forgotten."""
    data, config, log = opened
    trial = solved_against(data, calibrated, with_bogus_source(calibrated), config, log)
    assert sum(x.size for x in trial.found_outliers.values()) > 1000
    assert not calibrated.found_outliers


def test_a_better_model_is_kept(opened, calibrated):
    data, config, log = opened
    model = calibrated.sky_model
    # Every second source at a third of its flux: a start from which the catalogue is the better model.
    flux = model.sky.flux_jy * np.where(np.arange(len(model)) % 2, 0.3, 1.0)
    start = solved_against(
        data, calibrated, replace(model, sky=replace(model.sky, flux_jy=flux)), config, log
    )
    again = better_with(data, start, model, config, log)
    assert again is not start
    assert improvement(start, again) > 1
    assert again.sky_model is model


@pytest.mark.parametrize("kind", ["delay", "bandpass"])
def test_a_rejected_bandpass_leaves_the_state_as_it_was(kind, tmp_path):
    """So noisy that delays are noise; the noise that they lower is not kept either."""
    data, config, log = open_simulated(
        tmp_path, antennas=16, channels=8, dumps=4, drift=False, sefd_jy=80_000.0
    )
    start = CalState(weights=data.nominal_weights())
    assert bandpass(data, start, config.with_options(spectral=kind), log) is start


def test_delays_that_are_there_are_kept(tmp_path):
    data, config, log = open_simulated(
        tmp_path, antennas=16, channels=16, dumps=4, drift=False, delay_rms=3.0
    )
    start = CalState(weights=data.nominal_weights())
    found = bandpass(data, start, config.with_options(spectral="delay"), log)
    assert [table.kind for table in found.bandpass] == ["B Jones"]
    assert found.noise.known


@pytest.mark.parametrize(("gain", "measured"), [(0.9, True), (1.005, False), (1.02, True)])
def test_noise_is_measured_again_only_where_it_may_be_lower(opened, calibrated, monkeypatch, gain, measured):
    data, config, log = opened
    monkeypatch.setattr("dsa110_contimg.selfcal.trial.improvement", lambda *_: gain)
    passes = []
    monkeypatch.setattr(
        data, "measure_residual", lambda *a: passes.append(a) or type(data).measure_residual(data, *a)
    )
    solved_against(data, calibrated, calibrated.sky_model, config, log)
    assert bool(passes) == measured
