"""The noise that was put in, found again behind whatever the sky and the gains leave of it."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.imaging import ImageMetrics
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.bandpass import bandpass
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.summary import _noise
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities import NoiseBounds, NoiseScale
from tests.arrays import COMPACT
from tests.selfcal.support import Notes, open_data

#: Weights are inverse variances in jansky.
TRUE_RMS = 1.0
WIDE = {"spws": 4, "channels": 2, "dumps": 12, "fields": 12}
CASES = {
    "healthy": {"channels": 8, "dumps": 6, "drift": False},
    "wide channels, a field for each dump": WIDE,
    "delays": {**WIDE, "channels": 4, "delay_rms": 10.0},
    "single channels": {**WIDE, "channels": 1},
    "a source of a third of its flux in the catalogue": {**WIDE, "wrong": 1 / 3},
}


@pytest.mark.parametrize("case", CASES)
def test_the_noise_is_that_of_the_receivers(case, tmp_path):
    options = dict(CASES[case])
    wrong = options.pop("wrong", 1.0)
    config = SimulationConfig(array=COMPACT, min_mjy=20.0, sefd_jy=2000.0, random_phases=True, **options)
    simulate(tmp_path / "t.ms", config)
    listed = tmp_path / "t.catalog.ecsv"
    table = Table.read(listed, format="ascii.ecsv")
    (flux,) = [name for name in table.colnames if "flux" in name.lower()][:1]
    table[flux][int(np.argmax(table[flux]))] *= wrong
    table.write(listed, format="ascii.ecsv", delimiter=",", overwrite=True)
    build_strips("nvss", listed, tmp_path / "c")
    run = SelfCalConfig(catalog_dir=tmp_path / "c", size=192, cell_arcsec=24.0)
    data, log = open_data(tmp_path / "t.ms", run), StageLog(Notes())
    state = bandpass(data, CalState(weights=data.nominal_weights()), run, log)
    state = reweight(data, state, run, log)
    bounds = data.measure_residual(state.model, state.weights, state.last.tables).bounds
    # Gains of twelve antennas take a little of the noise with them.
    assert bounds.lowest.rms == pytest.approx(TRUE_RMS, rel=0.03)
    before = bounds.channels if bounds.channels.known else bounds.zero
    assert bounds.lowest <= before
    assert state.noise_bounds is not None


@pytest.mark.parametrize("weights", ["nominal", "wrong"])
def test_trap_32_noise_that_the_weights_do_not_follow_is_told_by_antenna(weights, tmp_path):
    """The variance of each baseline is that of its receivers, whatever WEIGHT says of it."""
    spread = 0.3 if weights == "nominal" else 0.0
    config = SimulationConfig(
        array=COMPACT,
        min_mjy=20.0,
        sefd_jy=2000.0,
        random_phases=True,
        channels=8,
        dumps=12,
        drift=False,
        noise_spread=spread,
        weights=weights,
    )
    loud = simulate(tmp_path / "t.ms", config).instrument.loudness
    build_strips("nvss", tmp_path / "t.catalog.ecsv", tmp_path / "c")
    run = SelfCalConfig(catalog_dir=tmp_path / "c", size=192, cell_arcsec=24.0)
    data, log = open_data(tmp_path / "t.ms", run), StageLog(Notes())
    state = reweight(data, CalState(weights=data.nominal_weights()), run, log)
    residual = data.measure_residual(state.model, state.weights, state.last.tables)
    factor = state.weights.noise_factor.mean(axis=1)
    (block,) = data.reader.blocks()
    first, second = block.antenna1, block.antenna2
    assert np.ptp(np.log(block.weight[:, 0, 0])) > 1 or weights == "nominal"
    found = residual.noise.variance * factor[first] * factor[second] / block.weight[:, 0, 0]
    nominal = 2 * (2000.0 / np.sqrt(2 * block.spw.width_hz[0] * config.dump_s)) ** 2
    true = nominal * (loud[first] * loud[second]) ** 2
    error = np.log(found / true)
    assert np.median(error) == pytest.approx(0, abs=0.06)
    np.testing.assert_allclose(error, 0, atol=0.35)
    before = np.log(state.noise.variance / block.weight[:, 0, 0] / true)
    assert np.ptp(before) > 2


def metrics(ratio):
    return ImageMetrics(**dict.fromkeys(ImageMetrics.__dataclass_fields__) | {"thermal_ratio": ratio})


def told(solved, ratio, *, rms=1.0, radiometer=1.0, tables=None):
    bounds = NoiseBounds(
        NoiseScale.of_real_part(2 * rms),
        NoiseScale.of_real_part(rms),
        samples=(5000, 5000, 0, 0),
        radiometer=NoiseScale.of_real_part(radiometer),
    )
    tables = solved.last.tables if tables is None else tables
    state = replace(solved, noise=bounds.lowest, noise_bounds=bounds, tables=tables)
    return _noise(state, 1e-3, metrics(ratio))


def test_the_summary_gives_every_bound_in_the_final_image(solved):
    assert solved.last.solution.mode == "ap"
    noise = told(solved, 1.0)
    assert noise["taken"] == "polarizations"
    assert noise["polarizations_jy"] == pytest.approx(1e-3)
    assert noise["channels_jy"] == pytest.approx(2e-3)
    assert noise["dumps_jy"] is None
    assert noise["radiometer_jy"] == pytest.approx(1e-3)
    assert (noise["error"], noise["note"]) == (False, None)


def test_an_image_quieter_than_its_noise_is_an_error_of_the_noise(solved):
    assert not told(solved, 0.98)["error"]
    noise = told(solved, 0.9)
    assert noise["error"]
    assert "quieter than its noise" in noise["note"]


def test_noise_beyond_the_telescope_is_told_once_data_are_in_jansky(solved):
    assert told(solved, 1.0, rms=1.4)["note"] is None
    assert "1.6 times what the radiometer" in told(solved, 1.0, rms=1.6)["note"]
    # Nor is any telescope much better than its own.
    assert told(solved, 1.0, rms=0.7)["note"] is None
    assert "0.60 times" in told(solved, 1.0, rms=0.6)["note"]
    # Phases alone leave the units open.
    phases = tuple(replace(t, label="p") for t in solved.last.tables)
    noise = told(solved, 1.0, rms=1.6, tables=phases)
    assert (noise["radiometer_jy"], noise["note"]) == (None, None)
