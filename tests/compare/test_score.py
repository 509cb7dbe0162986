"""Scores of runs against the truth: perfect gains score perfectly, wrong ones do not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.calibration.caltables import write_gain_table
from dsa110_contimg.calibration.gains import Gains
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.cli.main import main
from dsa110_contimg.compare.score import (
    gain_errors,
    input_errors,
    lost_visibilities,
    score_run,
    true_gain_tables,
)
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError
from dsa110_contimg.predict import predict_reference
from dsa110_contimg.selfcal.run import SelfCalConfig, selfcal_ms
from dsa110_contimg.simulate import simulate
from dsa110_contimg.simulate.array import uvw_of_antennas
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set
from tests.arrays import COMPACT

OPTIONS = {"array": COMPACT, "channels": 4, "dumps": 4, "sefd_jy": 500.0, "drift": False, "min_mjy": 20.0}
TESTS = {"absent_jy": 0.05, "new_jy": 0.05, "variable_ratio": 1.3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: folder, truth."""
    folder = tmp_path_factory.mktemp("run")
    truth = simulate(folder / "o.ms", SimulationConfig(random_phases=True, **OPTIONS, **TESTS))
    build_strips("nvss", folder / "o.catalog.ecsv", folder / "c")
    config = SelfCalConfig(catalog_dir=folder / "c", size=512, cell_arcsec=24.0)
    assert selfcal_ms(folder / "o.ms", folder / "out", config).status == "improved"
    return folder, truth


def test_a_good_run_scores_well(run):
    folder, _ = run
    scores = score_run(folder / "out", folder / "o.truth.npz")
    assert scores["status"] == "improved"
    assert scores["coherence"] > 0.98
    assert scores["phase_error_deg"] < 4
    assert scores["amplitude_scatter"] < 0.03
    assert scores["amplitude_scale"] == pytest.approx(1, abs=0.05)
    assert scores["flux_ratio"] == pytest.approx(1, abs=0.05)
    assert scores["flux_ratio_n"] >= 3
    assert np.hypot(*scores["offset_arcsec"]) < 3  # the beam of this array is a minute of arc
    assert scores["rms_ratio"] == pytest.approx(1, abs=0.15)
    assert scores["true_gain_rms_jy"] > 0
    assert scores["new_ratio"] == pytest.approx(1, abs=0.15)
    assert scores["variable_ratio"] == pytest.approx(1, abs=0.15)
    assert np.isfinite(scores["absent_sigma"])
    assert np.hypot(*scores["sky_offset_arcsec"]) < 3
    assert scores["sky_offset_coherence"] > 0.98


def test_through_the_door(run, capfd):
    folder, _ = run
    assert main(["score", str(folder / "out"), str(folder / "o.truth.npz"), "--json"]) == 0
    scores = json.loads(capfd.readouterr().out)
    assert scores["coherence"] > 0.98
    assert main(["score", str(folder / "out"), str(folder / "o.truth.npz")]) == 0
    assert "coherence" in capfd.readouterr().out


def test_folders_and_files_that_do_not_fit(run, tmp_path):
    folder, _ = run
    with pytest.raises(InputError, match="no summary of a finished run"):
        score_run(tmp_path, folder / "o.truth.npz")
    simulate(tmp_path / "p.ms", SimulationConfig(**{**OPTIONS, "antennas": 4, "dumps": 1}))
    with pytest.raises(InputError, match="is not the truth of these data"):
        score_run(folder / "out", tmp_path / "p.truth.npz", image=False)


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Write gains as a table and score them."""
    folder = tmp_path_factory.mktemp("solved")
    truth = simulate(folder / "o.ms", SimulationConfig(**{**OPTIONS, "dead": 1, "min_mjy": 200.0}))
    ms = open_measurement_set(folder / "o.ms")

    def score(gain):
        table = true_gain_tables(truth)[0].gains[0]
        fields = {name: getattr(table, name) for name in Gains.__dataclass_fields__}
        write_gain_table(folder / "g", "G Jones", {0: Gains(**{**fields, "gain": gain[:, :, None]})}, ms)
        errors = gain_errors(folder / "o.ms", [folder / "g"], truth)
        shutil.rmtree(folder / "g")
        return errors

    score.folder = folder
    return truth, score


def test_true_gains_are_perfect(solved):
    truth, score = solved
    errors = score(truth.gain)
    assert errors["coherence"] == pytest.approx(1, abs=1e-6)
    assert errors["phase_error_deg"] < 1e-3
    assert errors["amplitude_scatter"] < 1e-5
    assert errors["amplitude_scale"] == pytest.approx(1, abs=1e-5)


def test_a_common_phase_is_no_error_and_a_common_scale_is_one_of_scale_only(solved):
    truth, score = solved
    common = np.exp(1j * np.arange(truth.gain.shape[0]))[:, None, None] * np.array([1.0, 1j])
    errors = score(1.1 * truth.gain * common)
    assert errors["phase_error_deg"] < 1e-3
    assert errors["amplitude_scatter"] < 1e-5
    assert errors["amplitude_scale"] == pytest.approx(1.1, abs=1e-5)


def test_errors_come_out_as_large_as_they_are(solved):
    truth, score = solved
    rng = np.random.default_rng(3)
    phase, amplitude = 0.1 * rng.standard_normal((2, *truth.gain.shape))
    errors = score(truth.gain * (1 + amplitude) * np.exp(1j * phase))
    assert errors["phase_error_deg"] == pytest.approx(np.degrees(0.1), rel=0.15)
    assert errors["amplitude_scatter"] == pytest.approx(0.1, rel=0.15)
    assert errors["coherence"] == pytest.approx(np.exp(-0.005), abs=0.003)


def test_without_tables_there_is_nothing_to_say_of_gains(solved):
    assert set(gain_errors(Path("none"), [], solved[0]).values()) == {None}


def test_channel_factors_have_a_table_of_their_own(tmp_path):
    config = SimulationConfig(**{**OPTIONS, "antennas": 4, "min_mjy": 500.0, "spws": 2, "delay_rms": 3.0})
    truth = simulate(tmp_path / "o.ms", config)
    in_time, in_frequency = true_gain_tables(truth)
    for spw in range(2):
        gain, _ = in_time.evaluate(spw, truth.times_s, truth.freq_hz[spw])
        factor, _ = in_frequency.evaluate(spw, truth.times_s, truth.freq_hz[spw])
        expected = truth.gain[:, :, None] * truth.instrument.bandpass[spw].transpose(1, 0, 2)
        np.testing.assert_allclose(gain * factor, expected)


ARCSEC = np.pi / 648000


def antenna_uvw(folder, truth):
    """Antennas in wavelengths of the middle of the band, shape (ntime, nant, 3)."""
    position = open_measurement_set(folder / "o.ms").antennas.position_m
    pointed = zip(truth.times_s, truth.phase_centre, strict=True)
    uvw = np.array([uvw_of_antennas(position, t / 86400, *centre) for t, centre in pointed])
    return uvw * float(truth.freq_hz.mean()) / 299792458


@pytest.mark.parametrize("shift", [(0.0, 0.0), (7.0, -4.0), (-1200.0, 300.0)])
def test_gains_that_move_the_sky_are_found_out(solved, shift):
    """East and north, from less than a turn of phase to many."""
    truth, score = solved
    uvw = antenna_uvw(score.folder, truth)
    moved = np.exp(2j * np.pi * uvw[..., :2] @ (np.array(shift) * ARCSEC))
    common = np.exp(1j * np.arange(truth.gain.shape[0]))[:, None, None] * np.array([1.0, 1j])
    errors = score(truth.gain * moved[:, :, None] * common)
    np.testing.assert_allclose(errors["sky_offset_arcsec"], shift, atol=1e-2)
    assert errors["sky_offset_coherence"] == pytest.approx(1, abs=1e-4)
    # The same as a source that stands there: data over such gains are those of the sky moved so.
    lmn = np.array([[*np.array(shift) * ARCSEC, 0.0]])
    baseline = (uvw[0, 1] - uvw[0, 0])[None] * 299792458 / 1.4e9
    there = predict_reference(baseline, np.array([1.4e9]), lmn, np.ones((1, 1)))[0, 0]
    assert 1 / (moved[0, 0] * np.conj(moved[0, 1])) == pytest.approx(there)


def test_an_offset_of_random_phases_says_that_it_means_nothing(solved):
    truth, score = solved
    rng = np.random.default_rng(5)
    errors = score(truth.gain * np.exp(2j * np.pi * rng.uniform(size=truth.gain.shape)))
    assert errors["sky_offset_coherence"] < 0.6


def test_the_input_has_the_errors_of_gains_of_one(solved):
    truth, score = solved
    figures = input_errors(score.folder / "o.ms", truth)
    solved_ones = score(np.ones_like(truth.gain))
    for name, value in figures.items():
        assert value == pytest.approx(solved_ones[name], rel=1e-5), name
    assert figures["phase_error_deg"] == pytest.approx(31, abs=8)
    assert figures["amplitude_scatter"] == pytest.approx(0.1, abs=0.04)
    assert set(figures) == set(gain_errors(Path("none"), [], truth))


def test_dumps_without_a_gain_are_left_out(tmp_path):
    """Silent, zero and frozen ones: their gains may be anything."""
    options = {"dumps": 6, "min_mjy": 500.0, "dead_fraction": 0.2, "zeros": 0.2, "stuck": 0.1}
    truth = simulate(tmp_path / "o.ms", SimulationConfig(**{**OPTIONS, **options}))
    lost = truth.instrument.lost
    assert 0 < lost.mean() < 0.5
    table = true_gain_tables(truth)[0].gains[0]
    np.testing.assert_array_equal(table.flag[:, :, 0, 0], lost)
    gain = np.where(lost[:, :, None], 5j, truth.gain)[:, :, None]
    fields = {name: getattr(table, name) for name in Gains.__dataclass_fields__}
    wrong = Gains(**{**fields, "gain": gain, "flag": np.zeros(gain.shape, dtype=bool)})
    write_gain_table(tmp_path / "g", "G Jones", {0: wrong}, open_measurement_set(tmp_path / "o.ms"))
    errors = gain_errors(tmp_path / "o.ms", [tmp_path / "g"], truth)
    assert errors["coherence"] == pytest.approx(1, abs=1e-6)
    assert errors["phase_error_deg"] < 1e-3
    assert errors["amplitude_scatter"] < 1e-5
    assert np.hypot(*errors["sky_offset_arcsec"]) < 1e-2


def test_what_holds_no_gain_has_no_weight_in_the_image_with_the_true_ones(tmp_path):
    options = {"dumps": 4, "min_mjy": 500.0, "zeros": 0.2}
    truth = simulate(tmp_path / "o.ms", SimulationConfig(**{**OPTIONS, **options}))
    ms = open_measurement_set(tmp_path / "o.ms")
    reader = VisibilityReader(ms, ms.select())
    places = lost_visibilities(reader, truth)
    for number, block in enumerate(reader.blocks()):
        empty = np.zeros(block.data.size, dtype=bool)
        empty[places[number]] = True
        np.testing.assert_array_equal(empty.reshape(block.data.shape), block.data == 0)
