import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.calibration.apply import chain
from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.solution_intervals import solution_intervals
from dsa110_contimg.calibration.solve_settings import ObservationAxes, SolveSettings
from dsa110_contimg.calibration.solver import solve
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.score import gain_errors, score_run
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import (
    CalTableError,
    CatalogMissingError,
    ConfigError,
    MeasurementSetError,
    ResourceError,
    SeedError,
    SelectionError,
)
from dsa110_contimg.imaging import read_image
from dsa110_contimg.imaging.obs_context import open_observation
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.naming import SUMMARY
from dsa110_contimg.selfcal.run import SelfCalConfig, selfcal_ms
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.summary_schema import summary_schema
from dsa110_contimg.simulate import Truth, simulate
from dsa110_contimg.sky import SkyModel
from dsa110_contimg.visibilities import NoiseScale, VisibilityReader, open_measurement_set, restore_columns
from dsa110_contimg.visibilities.lock import lock_path
from dsa110_contimg.visibilities.measurement_set import data_hash
from dsa110_contimg.visibilities.tables import open_table
from tests.arrays import COMPACT
from tests.selfcal.support import observe

SMALL = {"array": COMPACT, "channels": 8, "dumps": 6, "sefd_jy": 2000.0}
SMALL["drift"] = False
IMAGE = {"size": 512, "cell_arcsec": 24.0}

SUMMARY_KEYS = {
    "schema_version",
    "status",
    "message",
    "seeded",
    "catalog",
    "nvss_min_mjy",
    "n_seeds",
    "seed_flux_jy",
    "initial",
    "final",
    "noise",
    "snr_improvement",
    "best_iteration",
    "iterations",
    "gaintables",
    "products",
    "seconds",
    "provenance",
}
METRIC_KEYS = {
    "snr",
    "rms_jy",
    "peak_jy",
    "dynamic_range",
    "thermal_rms_jy",
    "thermal_ratio",
    "flux_ratio",
    "flux_ratio_n",
    "offset_arcsec",
}
ITERATION_KEYS = {
    "iteration",
    "calmode",
    "solint_s",
    "model",
    "solved_fraction",
    "solver_iterations",
    "converged_fraction",
    "phase_change_deg",
    "chi2_train",
    "chi2_heldout",
    "snr",
    "rms_jy",
    "accepted",
    "reason",
    "gaintable",
    "seconds",
}


@pytest.fixture(autouse=True)
def summaries_have_the_published_form(tmp_path):
    """Hold every summary that a test leaves against the schema, whatever its status."""
    yield
    for file in tmp_path.glob(f"**/{SUMMARY}"):
        jsonschema.validate(json.loads(file.read_text()), summary_schema())


@pytest.fixture(scope="module")
def transit(tmp_path_factory):
    """A small transit with random phases, its truth and its catalogue; never changed."""
    folder = tmp_path_factory.mktemp("transit")
    truth = simulate(folder / "t.ms", SimulationConfig(random_phases=True, **SMALL))
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "catalogs")
    return folder, truth


@pytest.fixture
def config(transit):
    return SelfCalConfig(catalog_dir=transit[0] / "catalogs", **IMAGE)


@pytest.fixture
def ms(transit, tmp_path):
    return Path(shutil.copytree(transit[0] / "t.ms", tmp_path / f"{time.monotonic_ns()}.ms"))


@pytest.fixture(scope="module")
def finished(transit, tmp_path_factory):
    """One whole run: Measurement Set, output folder, result, hash of DATA before it."""
    folder = tmp_path_factory.mktemp("finished")
    ms = Path(shutil.copytree(transit[0] / "t.ms", folder / "done.ms"))
    before = data_hash(ms)
    result = selfcal_ms(ms, folder / "out", SelfCalConfig(catalog_dir=transit[0] / "catalogs", **IMAGE))
    return ms, folder / "out", result, before


def assert_same_metrics(one, other):
    """Equal but for the rounding of sums that threads add up in any order."""
    for state in ("initial", "final"):
        for key, value in other[state].items():
            close = value if value is None else pytest.approx(value, rel=1e-3, abs=1e-3)
            assert one[state][key] == close, (state, key)


def tree(folder):
    """Everything below a folder, with contents."""
    return {
        p.relative_to(folder): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
        if p.name != "table.lock"
    }


def test_random_phases_are_solved_in_one_round(transit, finished):
    ms, out, result, _ = finished
    assert result.status == "improved"
    errors = gain_errors(ms, [out / name for name in result.summary["gaintables"]], transit[1])
    assert errors["coherence"] >= 0.98
    assert errors["phase_error_deg"] <= 5
    assert errors["amplitude_scatter"] <= 0.01
    final = result.summary["final"]
    assert final["flux_ratio"] == pytest.approx(1, abs=0.05)
    assert final["thermal_ratio"] <= 1.25
    beam = read_image(out / "final-image.fits").beam
    assert np.hypot(*final["offset_arcsec"]) < 0.1 * np.degrees(beam.major_rad) * 3600
    assert result.summary["snr_improvement"] > 1.5


def test_data_are_never_written(finished):
    ms, _, _, before = finished
    assert data_hash(ms) == before


class ModelOnDisk:
    """MODEL_DATA as another program would read it."""

    name = "disk"

    def visibilities(self, block, reader):
        with open_table(reader.ms.path) as main:
            return main.getcol("MODEL_DATA")[block.rows][:, :, 0]


def test_model_data_hold_exactly_what_the_solver_used(finished):
    """Trap: a model overwritten before the solve. Solving against MODEL_DATA gives the very gains."""
    ms, out, result, _ = finished
    opened = open_measurement_set(ms)
    reader = VisibilityReader(opened, opened.select())
    data = CalibrationData(reader, [], StageLog(LogProgress()))
    statistics = data.gather(ModelOnDisk(), data.nominal_weights()).statistics
    first = result.summary["iterations"][0]
    interval = solution_intervals(
        reader.times, float(reader.interval_s[0]), reader.scan, first["solint_s"] * (1 - 1e-6)
    )
    settings = SolveSettings(NoiseScale(1.0))
    again = solve(statistics, ObservationAxes.of(reader), interval, settings).gains[0]
    table = read_gain_table(out / first["gaintable"]).gains[0]
    # Phases of both are free by a constant: that of one antenna.
    one, other = (g.gain / g.gain[:, :1] for g in (again, table))
    np.testing.assert_allclose(one, other, atol=1e-5)
    with open_table(ms) as main:
        model = main.getcol("MODEL_DATA")
    np.testing.assert_array_equal(model[:, :, 0], model[:, :, 1])


def test_corrected_data_are_data_over_gains(finished):
    ms, out, result, _ = finished
    opened = open_measurement_set(ms)
    reader = VisibilityReader(opened, opened.select())
    tables = [read_gain_table(out / name) for name in result.summary["gaintables"]]
    # Tables on disk are single precision.
    gain, _ = chain(tables, 0, reader.times, opened.spectral_windows[0].freq_hz, len(opened.antennas))
    block = next(iter(reader.blocks()))
    g = gain[block.time_index, block.antenna1] * np.conj(gain[block.time_index, block.antenna2])
    with open_table(ms) as main:
        corrected = main.getcol("CORRECTED_DATA")[block.rows]
    np.testing.assert_allclose(corrected, block.data / g, rtol=3e-4, atol=1e-5 * np.abs(corrected).max())


@pytest.mark.parametrize("columns", ["corrected", "model", "none"])
def test_columns_that_are_not_wanted_are_not_written(columns, ms, config, finished, tmp_path):
    """And what an earlier run wrote into them is put back to what was found."""
    result = selfcal_ms(ms, tmp_path / "out", config.with_options(columns=columns, unsolved="flag"))
    assert result.improved
    written = {"corrected": {"CORRECTED_DATA"}, "model": {"MODEL_DATA"}, "none": set()}[columns]
    with open_table(ms) as main, open_table(finished[0]) as other:
        assert {"CORRECTED_DATA", "MODEL_DATA"} & set(main.colnames()) == written
        for name in written:
            one, two = main.getcol(name), other.getcol(name)
            np.testing.assert_allclose(one, two, atol=1e-3 * np.abs(two).max())
    selfcal_ms(ms, tmp_path / "out", config)
    with open_table(ms) as main:
        assert {"CORRECTED_DATA", "MODEL_DATA"} <= set(main.colnames())
    selfcal_ms(ms, tmp_path / "out", config.with_options(columns=columns))
    with open_table(ms) as main:
        assert {"CORRECTED_DATA", "MODEL_DATA"} & set(main.colnames()) == written


def test_summary_has_every_key_and_only_plain_values(finished):
    _, out, result, _ = finished
    on_disk = json.loads((out / SUMMARY).read_text())
    assert on_disk == json.loads(json.dumps(result.summary))
    assert set(on_disk) >= SUMMARY_KEYS
    for state in ("initial", "final", "final_standard"):
        assert set(on_disk[state]) >= METRIC_KEYS
    assert all(set(i) >= ITERATION_KEYS for i in on_disk["iterations"])
    stages = {"total", "read", "predict", "gather", "solve", "measure", "image", "write"}
    assert set(on_disk["seconds"]) == stages
    for name in [*on_disk["products"].values(), *on_disk["gaintables"]]:
        assert (out / name).exists(), name


def test_the_message_tells_one_signal_to_noise_that_of_what_is_delivered(finished):
    summary = finished[2].summary
    first, last = summary["initial"]["snr"], summary["final"]["snr"]
    assert summary["message"].count("signal to noise") == 1
    assert f"signal to noise {first:.1f} -> {last:.1f}" in summary["message"]
    assert summary["snr_improvement"] == pytest.approx(last / first)
    kept = summary["iterations"][summary["best_iteration"] - 1]
    assert f"at equal depth {first:.1f} -> " in kept["reason"]


def test_nothing_is_left_lying_about(finished):
    ms, out, _, _ = finished
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    with open_table(ms) as main:
        assert not [c for c in main.colnames() if c.startswith("CONTIMG_NEW")]


def test_the_same_command_again_gives_the_same_result(transit, finished, config, tmp_path):
    ms, out, first, _ = finished
    copy = shutil.copytree(ms, tmp_path / "again.ms")
    second = selfcal_ms(copy, tmp_path / "out", config)
    assert_same_metrics(second.summary, first.summary)
    for name in first.summary["products"].values():
        again, before = tmp_path / "out" / name, out / name
        if name.endswith((".txt", ".reg")):
            assert again.read_bytes() == before.read_bytes(), name
        elif name.endswith(".fits") and name != "final-model.fits":
            one, other = read_image(again).image, read_image(before).image
            np.testing.assert_allclose(one, other, atol=1e-3 * other.max())


def test_unseeded_is_unseeded(ms, config, tmp_path):
    """Trap: seeding on by default somewhere else, so that the baseline is seeded too."""
    no_catalog = config.with_options(
        use_nvss_seeding=False, catalog_dir=tmp_path / "nowhere", max_rounds=1, amplitude="off"
    )
    summary = selfcal_ms(ms, tmp_path / "out", no_catalog).summary
    assert summary["seeded"] is False
    assert summary["n_seeds"] == 0
    assert summary["provenance"]["catalog_hash"] is None
    assert all(i["model"] == "clean" for i in summary["iterations"])
    assert not list((tmp_path / "out").glob("*seed*"))


def test_unseeded_rounds_improve_moderate_phase_errors(transit, tmp_path):
    simulate(tmp_path / "p.ms", SimulationConfig(phase_rms=30, seed=3, **SMALL))
    config = SelfCalConfig(use_nvss_seeding=False, **IMAGE)
    result = selfcal_ms(tmp_path / "p.ms", tmp_path / "out", config)
    assert result.status == "improved"
    assert len(result.summary["iterations"]) >= 2
    assert result.summary["snr_improvement"] > 1.5


def test_a_good_field_is_left_as_it_was(tmp_path, transit):
    options = {**SMALL, "phase_rms": 0, "phase_drift": 0, "amplitude_rms": 0, "flux_error": 0, "seed": 5}
    simulate(tmp_path / "g.ms", SimulationConfig(position_error=0, **options))
    build_strips("nvss", tmp_path / "g.catalog.ecsv", tmp_path / "catalogs")
    before = tree(tmp_path / "g.ms")
    result = selfcal_ms(
        tmp_path / "g.ms", tmp_path / "out", SelfCalConfig(catalog_dir=tmp_path / "catalogs", **IMAGE)
    )
    first, last = result.summary["initial"], result.summary["final"]
    if result.status in ("converged", "no_improvement"):
        assert tree(tmp_path / "g.ms") == before
    assert last["rms_jy"] <= 1.02 * first["rms_jy"]
    assert last["flux_ratio"] == pytest.approx(first["flux_ratio"], rel=0.02)


def test_noise_alone_is_refused_and_untouched(tmp_path):
    faint = SkyModel.points(np.radians([150.0]), np.radians([54.57]), np.array([2e-3]))
    simulate(tmp_path / "n.ms", SimulationConfig(random_phases=True, **SMALL), sky=faint)
    build_strips("nvss", tmp_path / "n.catalog.ecsv", tmp_path / "catalogs")
    before = tree(tmp_path / "n.ms")
    result = selfcal_ms(
        tmp_path / "n.ms", tmp_path / "out", SelfCalConfig(catalog_dir=tmp_path / "catalogs", **IMAGE)
    )
    assert result.status in ("refused", "no_improvement")
    assert not result.improved
    assert tree(tmp_path / "n.ms") == before
    assert result.summary["gaintables"] == []
    initial = read_image(tmp_path / "out" / "initial-image.fits").image
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "final-image.fits").image, initial)


def test_a_wrong_catalogue_is_rolled_back(ms, transit, tmp_path):
    """Sources a degree from where they are: whatever gains fit them, the Measurement Set is left alone."""
    rng = np.random.default_rng(1)
    rows = "\n".join(
        f"{150 + x:.6f},{54.57 + y:.6f},{f:.3f}"
        for x, y, f in rng.uniform([-2, -1, 50], [2, 1, 900], (30, 3))
    )
    header = '# %ECSV 1.0\n# ---\n# delimiter: ","\n# datatype:\n'
    header += "".join(f"# - {{name: {n}, datatype: float64}}\n" for n in ("ra_deg", "dec_deg", "flux_mjy"))
    header += "# meta: {coverage: {ra_min: 0.0, ra_max: 360.0, dec_min: 45.0, dec_max: 65.0}}\n"
    (tmp_path / "wrong.ecsv").write_text(header + "ra_deg,dec_deg,flux_mjy\n" + rows + "\n")
    build_strips("nvss", tmp_path / "wrong.ecsv", tmp_path / "wrong")
    good = SimulationConfig(phase_rms=5, amplitude_rms=0.02, seed=8, **SMALL)
    simulate(tmp_path / "good.ms", good)
    before = tree(tmp_path / "good.ms")
    result = selfcal_ms(
        tmp_path / "good.ms", tmp_path / "out", SelfCalConfig(catalog_dir=tmp_path / "wrong", **IMAGE)
    )
    assert result.status in ("no_improvement", "diverged", "refused")
    assert tree(tmp_path / "good.ms") == before


@pytest.mark.parametrize(
    ("kind", "seed", "says"),
    [
        ("mirror", 2, "mirrored in right ascension"),
        ("other-field", 2, "another field"),
        # Few sources, that scatter so much that their median is not known.
        ("mirror", 1, "the sky is not the catalogue's"),
    ],
)
def test_another_sky_is_refused_from_random_phases(kind, seed, says, tmp_path):
    """Trap: gains made a sky appear that was not there, and held-out channels agreed."""
    observed, options = observe(tmp_path, catalog_error=kind, seed=seed, random_phases=True)
    before, hash_before = tree(observed), data_hash(observed)
    with open_table(observed) as main:
        flag = main.getcol("FLAG")
    result = selfcal_ms(observed, tmp_path / "out", options)
    assert result.status == "refused"
    assert not result.improved
    message = result.summary["message"]
    assert says in message
    assert kind == "mirror" or "mirrored" not in message
    assert "Measurement Set was not changed" in message
    assert data_hash(observed) == hash_before
    with open_table(observed) as main:
        assert not {"MODEL_DATA", "CORRECTED_DATA"} & set(main.colnames())
        np.testing.assert_array_equal(main.getcol("FLAG"), flag)
    assert tree(observed) == before
    assert result.summary["gaintables"] == []
    assert not any(i["accepted"] for i in result.summary["iterations"])
    refusing = [f for f in result.summary["findings"] if f["status"] == "refused"]
    assert refusing[0]["text"] in message
    initial = read_image(tmp_path / "out" / "initial-image.fits").image
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "final-image.fits").image, initial)


def test_a_missing_catalogue_stops_the_run(ms, config, tmp_path):
    """Trap: a failed seed was a warning, and the run went on unseeded."""
    before = tree(ms)
    with pytest.raises(CatalogMissingError):
        selfcal_ms(ms, tmp_path / "out", config.with_options(catalog_dir=tmp_path / "none"))
    assert tree(ms) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"field": "nowhere"}, SelectionError),
        ({"spw": "7"}, SelectionError),
        ({"refant": "ant1,nobody"}, ConfigError),
        ({"catalog": "first"}, CatalogMissingError),
        ({"seed_min_apparent_mjy": 1e6}, SeedError),
        ({"memory_gb": 1e-6}, ResourceError),
    ],
)
def test_bad_options_change_nothing_on_disk(ms, config, tmp_path, change, error):
    before = tree(ms)
    with pytest.raises(error) as caught:
        selfcal_ms(ms, tmp_path / "out", config.with_options(**change))
    assert "\n" not in str(caught.value)
    assert tree(ms) == before
    assert not (tmp_path / "out").exists()


def test_fully_flagged_data_are_refused_before_anything_is_written(ms, config, tmp_path):
    with open_table(ms, writable=True) as main:
        main.putcol("FLAG", np.ones_like(main.getcol("FLAG")))
    before = tree(ms)
    with pytest.raises(MeasurementSetError, match="flagged"):
        selfcal_ms(ms, tmp_path / "out", config)
    assert tree(ms) == before
    assert not (tmp_path / "out").exists()


def test_a_table_of_another_array_is_refused(ms, config, ngc5921_caltables, tmp_path):
    before = tree(ms)
    with pytest.raises(CalTableError, match="28 antennas"):
        selfcal_ms(ms, tmp_path / "out", config, [ngc5921_caltables["B0"]])
    assert tree(ms) == before
    assert not (tmp_path / "out").exists()


CHANGES = {
    "size": 480,
    "cell_arcsec": 12.0,
    "weighting": "natural",
    "robust": 1.0,
    "clean_sigma": 8.0,
    "mask_sigma": 30.0,
    "clean_iterations": 3,
    "multiscale": True,
    "catalog_mask": True,
    "nvss_min_mjy": 100.0,
    "seed_min_apparent_mjy": 50.0,
    "spectral_index": 0.5,
    "pointing_error_deg": 0.2,
    "dish_diameter_m": 5.5,
    "beam": "gaussian",
    "solint": "inf",
    "amplitude": "off",
    "amplitude_solint": "int",
    "gain_type": "T",
    "refant": "ant1",
    "min_snr": 300.0,
    "imaging": "standard",
}


@pytest.mark.parametrize("option", CHANGES)
def test_every_option_changes_something(option, ms, config, tmp_path, finished):
    """Trap: an option that was declared and never read."""
    result = selfcal_ms(ms, tmp_path / "out", config.with_options(**{option: CHANGES[option]}))
    reference = finished[2].summary
    volatile = ("seconds", "provenance")

    def plain(summary):
        kept = {k: v for k, v in summary.items() if k not in volatile}
        kept["iterations"] = [{k: v for k, v in i.items() if k != "seconds"} for i in summary["iterations"]]
        return kept

    if option == "refant":
        table = read_gain_table(tmp_path / "out" / result.summary["gaintables"][0])
        antenna = open_measurement_set(ms).antennas.name.index("ant1")
        phases = np.angle(table.gains[0].gain[:, antenna])
        assert np.abs(phases).max() < 1e-6
        assert table.gains[0].reference_antenna.tolist() == [antenna] * 6
    else:
        assert plain(result.summary) != plain(reference)


#: Proved in other tests, or without effect on this one-window, one-scan, one-field observation.
PROVED_ELSEWHERE = {
    # below: all antennas of this one have as many
    "min_baselines",
    # stages/test_beam_width.py
    "solve_beam_width",
    "beam_file",
    "beam_file_kind",
    # test_mixed_dishes.py
    "antenna_beams",
    "model",
    "model_fluxes",
    "model_adds",
    "pointing",
    "pointing_file",
    "memory_gb",
    "threads",
    "use_nvss_seeding",
    "catalog",
    "catalog_dir",
    # tests/sky/test_seed_spectra.py
    "index_from",
    "average",
    "mask_radius_arcsec",
    "field",
    "spw",
    "column",
    "combine_spw",
    "combine_scans",
    "max_rounds",
    "initial_field",
    "initial_interpolation",
    "spw_map",
    "unsolved",
    "columns",
    "spectral",
    # test_production.py
    "backend",
    "timeout_s",
    "wsclean",
    "container_engine",
    "container_image",
    "container_mounts",
}


def test_no_option_is_forgotten():
    assert set(SelfCalConfig.model_fields) == set(CHANGES) | PROVED_ELSEWHERE


def test_an_antenna_of_few_baselines_is_left_out_where_more_are_asked_for(ms, config, tmp_path):
    with open_table(ms, writable=True) as main:
        first, second = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        flag = main.getcol("FLAG")
        # Antenna 0 keeps six baselines.
        flag[(first == 0) & (second > 6)] = True
        main.putcol("FLAG", flag)
    solved = {}
    for least in (4, 8):
        out = tmp_path / str(least)
        selfcal_ms(ms, out, config.with_options(min_baselines=least, columns="none"))
        antennas = Table.read(out / "antennas.ecsv")
        solved[least] = np.asarray(antennas["solved_fraction"])[::2]
    assert solved[4][0] > 0.9
    assert solved[8][0] == 0
    assert (solved[8][1:] > 0.9).all()


def test_two_antennas_are_refused_before_anything_is_written(ms, config, tmp_path):
    pair = tmp_path / "pair.ms"
    with open_table(ms) as main:
        main.query("ANTENNA1 == 0 && ANTENNA2 == 1").copy(str(pair), deep=True).close()
    with pytest.raises(MeasurementSetError, match="one baseline an antenna"):
        selfcal_ms(pair, tmp_path / "out", config.with_options(min_baselines=1))
    assert not (tmp_path / "out").exists()


def test_the_radius_of_the_mask_counts(ms, config, tmp_path):
    masks = []
    for radius in (60.0, 240.0):
        options = config.with_options(catalog_mask=True, mask_radius_arcsec=radius)
        selfcal_ms(ms, tmp_path / "out", options)
        masks.append(read_image(tmp_path / "out" / "selfcal-mask.fits").image.astype(bool))
    assert 0 < masks[0].sum() < masks[1].sum()
    assert not (masks[0] & ~masks[1]).any()


def test_a_measurement_set_of_another_owner_is_left_alone(ms, config, tmp_path):
    owner = {"job": "x", "host": "far", "pid": 1, "boot_id": "y", "started": 1, "since": "z"}
    lock_path(ms).write_text(json.dumps(owner))
    before = tree(ms)
    with pytest.raises(ResourceError, match="process 1 on far"):
        selfcal_ms(ms, tmp_path / "out", config)
    assert tree(ms) == before
    assert not (tmp_path / "out").exists()


def test_each_stage_has_a_record_and_the_lock_is_gone(finished):
    ms, out, result, _ = finished
    records = [json.loads(line) for line in (out / "selfcal_stages.jsonl").read_text().splitlines()]
    assert records[0]["stage"] == "check"
    stages = {r["stage"] for r in records}
    assert {"predict and gather", "image of what the model leaves", "write columns"} <= stages
    assert any("signal to noise" in line for r in records for line in r["noted"])
    total = sum(r["seconds"] for r in records)
    assert total >= 0.9 * result.summary["seconds"]["total"]
    assert not lock_path(ms).exists()


def test_killed_at_any_moment_and_run_again(transit, finished, tmp_path):
    """kill -9 at moments spread over the run; then the same command gives the undisturbed result."""
    ms = Path(shutil.copytree(transit[0] / "t.ms", tmp_path / "k.ms"))
    reference = finished[2].summary
    duration = 1.2 * reference["seconds"]["total"] + 2.0
    command = [
        *(sys.executable, "-m", "dsa110_contimg", "selfcal", str(ms), str(tmp_path / "out")),
        *("--catalog-dir", str(transit[0] / "catalogs"), "--size", "512", "--cell", "24"),
    ]
    for moment in np.linspace(0.35, 1.0, 6) * duration:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert data_hash(ms) == finished[3]
    subprocess.run(command, check=True, capture_output=True)
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert_same_metrics(summary, reference)
    with open_table(ms) as again, open_table(finished[0]) as undisturbed:
        for column in ("CORRECTED_DATA", "MODEL_DATA", "FLAG"):
            np.testing.assert_array_equal(again.getcol(column), undisturbed.getcol(column))


def test_real_field_from_raw_units(ngc5921_raw, ngc5921_caltables, shared_data, tmp_path):
    """Raw VLA data, only a bandpass applied: the seed alone finds gains that the calibrators agree with."""
    source = shared_data / "catalogues" / "nvss_50mjy.csv.gz"
    build_strips("nvss", source, tmp_path / "catalogs", dec_range=(0, 10))
    before = data_hash(ngc5921_raw)
    config = SelfCalConfig(catalog_dir=tmp_path / "catalogs", field="N5921_2")
    result = selfcal_ms(ngc5921_raw, tmp_path / "out", config, [ngc5921_caltables["B0"]])
    assert result.status == "improved"
    assert data_hash(ngc5921_raw) == before
    final = result.summary["final"]
    assert final["rms_jy"] <= 0.70e-3
    assert 0.072 <= final["peak_jy"] <= 0.084
    ra, dec = final["peak_ra_dec_deg"]
    assert abs(ra - 230.47875) * 3600 * np.cos(np.radians(4.975)) < 12
    assert abs(dec - 4.975) * 3600 < 12
    assert min(i["solved_fraction"] for i in result.summary["iterations"]) >= 0.95
    # The 4.03 Jy source stands in the first null of the beam.
    seeds = (tmp_path / "out" / "selfcal-seed.txt").read_text().splitlines()[2:]
    null = [line.split(",") for line in seeds if line.split(",")[2].startswith("15:2")]
    assert len(null) == len(seeds)
    assert all(float(s[4]) < 0.02 for s in null if abs(float(s[4]) - 0.0757) > 0.01 and float(s[4]) < 0.03)

    opened = open_measurement_set(ngc5921_raw)
    reader = VisibilityReader(opened, opened.select("N5921_2"))
    freq = opened.spectral_windows[0].freq_hz[:1]
    ours = [read_gain_table(tmp_path / "out" / n) for n in result.summary["gaintables"]]
    g, flag = chain(ours, 0, reader.times, freq, 28)
    reference, bad = chain([read_gain_table(ngc5921_caltables["G1.flux"])], 0, reader.times, freq, 28)
    ratio = np.where(flag | bad, np.nan, g / reference)[:, :, 0]
    for scan in np.unique(reader.scan):
        mine = reader.scan == scan
        # Phases of two interferometers' references differ by a constant per scan and polarisation.
        turn = np.exp(-1j * np.angle(np.nanmean(np.exp(1j * np.angle(ratio[mine])), axis=(0, 1))))
        ratio[mine] = ratio[mine] * turn
    assert np.degrees(np.sqrt(np.nanmean(np.angle(ratio) ** 2))) <= 5
    assert 0.95 <= np.nanmedian(np.abs(ratio)) <= 1.05


def test_real_calibrated_field_is_not_made_worse(ngc5921_crosscal, shared_data, tmp_path):
    """Calibrated by transfer already; what is still gained comes from line emission that no catalogue has."""
    source = shared_data / "catalogues" / "nvss_50mjy.csv.gz"
    build_strips("nvss", source, tmp_path / "catalogs", dec_range=(0, 10))
    before = tree(ngc5921_crosscal)
    result = selfcal_ms(ngc5921_crosscal, tmp_path / "out", SelfCalConfig(catalog_dir=tmp_path / "catalogs"))
    first, last = result.summary["initial"], result.summary["final"]
    assert last["rms_jy"] < 1.02 * first["rms_jy"]
    assert abs(last["flux_ratio"] - 1) < abs(first["flux_ratio"] - 1) + 0.01
    assert np.hypot(*last["offset_arcsec"]) < np.hypot(*first["offset_arcsec"]) + 0.5
    if result.status != "improved":
        assert tree(ngc5921_crosscal) == before


def changed_flags(ms, change):
    with open_table(ms, writable=True) as main:
        flag = main.getcol("FLAG")
        change(flag)
        main.putcol("FLAG", flag)


def test_every_second_channel_flagged(ms, config, tmp_path):
    def change(flag):
        flag[:, ::2] = True

    changed_flags(ms, change)
    assert selfcal_ms(ms, tmp_path / "out", config).status == "improved"


def test_data_of_zeros_are_named(ms, config, tmp_path):
    with open_table(ms, writable=True) as main:
        main.putcol("DATA", np.zeros_like(main.getcol("DATA")))
    with pytest.raises(MeasurementSetError, match="noise"):
        selfcal_ms(ms, tmp_path / "out", config)


def test_an_antenna_of_noise_is_flagged(ms, config, tmp_path):
    """Its gains fit their own noise: only the other half of the channels tells."""
    rng = np.random.default_rng(2)
    with open_table(ms, writable=True) as main:
        data = main.getcol("DATA")
        mine = (main.getcol("ANTENNA1") == 5) | (main.getcol("ANTENNA2") == 5)
        noise = rng.standard_normal((2, *data[mine].shape)) * 3 * np.abs(data[~mine]).std()
        data[mine] = noise[0] + 1j * noise[1]
        main.putcol("DATA", data)
    result = selfcal_ms(ms, tmp_path / "out", config)
    gains = read_gain_table(tmp_path / "out" / result.summary["gaintables"][-1]).gains[0]
    assert gains.flag[:, 5].all()
    assert gains.flag[:, :5].mean() < 0.05
    name = open_measurement_set(ms).antennas.name[5]
    assert result.summary["antenna_verdicts"]["noise"] == [name]
    report = Table.read(tmp_path / "out" / "antennas.ecsv", format="ascii.ecsv")
    assert report["verdict"][report["antenna"] != name].tolist() == ["good"] * (len(report) - 2)


def test_what_has_no_solution_is_flagged_if_asked_for(ms, config, tmp_path):
    """And put back with the columns; by default FLAG is not written."""

    def flags():
        with open_table(ms) as main:
            mine = (main.getcol("ANTENNA1") == 5) | (main.getcol("ANTENNA2") == 5)
            return main.getcol("FLAG"), mine, main.colnames()

    rng = np.random.default_rng(2)
    found, mine, _ = flags()
    with open_table(ms, writable=True) as main:
        data = main.getcol("DATA")
        noise = rng.standard_normal((2, *data[mine].shape)) * 3 * np.abs(data[~mine]).std()
        data[mine] = noise[0] + 1j * noise[1]
        main.putcol("DATA", data)
    selfcal_ms(ms, tmp_path / "out", config)
    assert np.array_equal(flags()[0], found)
    assert selfcal_ms(ms, tmp_path / "out", config.with_options(unsolved="flag")).improved
    now, _, columns = flags()
    assert now[mine].all()
    assert np.array_equal(now[~mine], found[~mine])
    restore_columns(open_measurement_set(ms))
    now, _, columns = flags()
    assert np.array_equal(now, found)
    assert not {"MODEL_DATA", "CORRECTED_DATA"} & set(columns)
    assert not [c for c in columns if c.startswith("CONTIMG")]


def test_strong_interference_is_left_out(ms, config, transit, finished, tmp_path):
    """Unflagged, a thousand times the sky, in one visibility of a thousand; FLAG is not told."""
    rng = np.random.default_rng(3)
    with open_table(ms, writable=True) as main:
        data = main.getcol("DATA")
        data[rng.uniform(size=data.shape) < 1e-3] = 1e5
        main.putcol("DATA", data)
        flags = main.getcol("FLAG")
    result = selfcal_ms(ms, tmp_path / "out", config)
    assert result.status == "improved"
    errors = gain_errors(ms, [tmp_path / "out" / n for n in result.summary["gaintables"]], transit[1])
    assert errors["coherence"] >= 0.98
    assert errors["amplitude_scatter"] <= 0.01
    assert result.summary["final"]["rms_jy"] == pytest.approx(finished[2].summary["final"]["rms_jy"], rel=0.1)
    with open_table(ms) as main:
        np.testing.assert_array_equal(main.getcol("FLAG"), flags)


def test_a_source_that_is_in_the_catalogue_alone_does_not_appear(tmp_path):
    """A phantom that outshines all others: its gains would make it appear in every image."""
    options = SimulationConfig(random_phases=True, brightest_jy=0, absent_jy=5.0, **SMALL)
    simulate(tmp_path / "a.ms", options)
    build_strips("nvss", tmp_path / "a.catalog.ecsv", tmp_path / "catalogs")
    before = tree(tmp_path / "a.ms")
    config = SelfCalConfig(catalog_dir=tmp_path / "catalogs", **IMAGE)
    result = selfcal_ms(tmp_path / "a.ms", tmp_path / "out", config)
    assert result.status in ("no_improvement", "refused", "diverged")
    assert tree(tmp_path / "a.ms") == before


def catalogue_off(folder, **options):
    """A transit whose catalogue is wrong in a known way: the run and its score."""
    simulate(folder / "o.ms", SimulationConfig(random_phases=True, min_mjy=20.0, **options, **SMALL))
    build_strips("nvss", folder / "o.catalog.ecsv", folder / "c")
    # Five pixels to a beam: with two CLEAN itself loses some per cent of a source between the pixels.
    config = SelfCalConfig(catalog_dir=folder / "c", size=1024, cell_arcsec=12.0)
    result = selfcal_ms(folder / "o.ms", folder / "out", config)
    return result, score_run(folder / "out", folder / "o.truth.npz")


@pytest.mark.parametrize(("ratio", "sigma"), [(0.5, 10), (2.0, 50)])
def test_nothing_is_invented_and_nothing_is_lost(ratio, sigma, tmp_path):
    """A variable source, one of the catalogue that is not there, one that the catalogue lacks."""
    thermal_jy = 0.0005
    result, scores = catalogue_off(
        tmp_path, variable_ratio=ratio, absent_jy=sigma * thermal_jy, new_jy=200 * thermal_jy
    )
    assert result.summary["final"]["thermal_rms_jy"] == pytest.approx(thermal_jy, rel=0.1)
    assert scores["variable_ratio"] == pytest.approx(1, abs=0.05)
    assert scores["new_ratio"] == pytest.approx(1, abs=0.05)
    assert abs(scores["absent_sigma"]) < 2
    assert scores["rms_ratio"] < 1.1
    quality = Table.read(tmp_path / "out" / "sources.ecsv")
    wrong = quality[np.isin(quality["verdict"], ["brighter", "fainter", "missing"])]
    assert abs(wrong["ratio"] - (ratio if sigma == 10 else 0)).min() < 0.05


def test_a_bright_source_that_the_catalogue_lacks_joins_the_model(tmp_path):
    """The second brightest source of the field is missing: without it the gains are wrong."""
    result, scores = catalogue_off(tmp_path, new_jy=1.5)
    assert result.summary["seed_verdicts"]["new"] > 0
    assert scores["coherence"] > 0.999
    assert scores["amplitude_scatter"] < 0.01
    assert scores["flux_ratio"] == pytest.approx(1, abs=0.03)
    assert scores["new_ratio"] == pytest.approx(1, abs=0.05)


def test_tables_that_are_not_of_this_folder_s_last_run_are_left(finished, config, tmp_path):
    ms, out, result, _ = finished
    copy = shutil.copytree(ms, tmp_path / "c.ms")
    folder = Path(shutil.copytree(out, tmp_path / "out"))
    shutil.copytree(folder / "selfcal_1_p.gcal", folder / "selfcal_mine.gcal")
    # Handed in as initial tables they are refused, not replaced.
    before = tree(folder)
    with pytest.raises(ConfigError, match="output folder"):
        selfcal_ms(copy, folder, config, [folder / result.summary["gaintables"][0]])
    assert tree(folder) == before
    selfcal_ms(copy, folder, config.with_options(amplitude="off"))
    assert sorted(p.name for p in folder.glob("*.gcal")) == ["selfcal_1_p.gcal", "selfcal_mine.gcal"]


def test_output_inside_the_measurement_set_is_refused(ms, config):
    before = tree(ms)
    for inside in (ms, ms / "out"):
        with pytest.raises(ResourceError, match="inside"):
            selfcal_ms(ms, inside, config)
    assert tree(ms) == before


@pytest.mark.parametrize("fields", [24, 1])
def test_a_drift_scan_is_taken_whole(fields, tmp_path):
    """Trap: only the first of the fields, or intervals that stop at each. The beam stands, the sky moves."""
    options = {**SMALL, "drift": True, "fields": fields, "seed": 4}
    config = SimulationConfig(random_phases=True, **options)
    truth = simulate(tmp_path / "d.ms", config)
    build_strips("nvss", tmp_path / "d.catalog.ecsv", tmp_path / "catalogs")
    opened = open_measurement_set(tmp_path / "d.ms")
    assert len(opened.fields) == (1 if fields == 1 else 6)
    result = selfcal_ms(
        tmp_path / "d.ms",
        tmp_path / "out",
        SelfCalConfig(catalog_dir=tmp_path / "catalogs", amplitude_solint="inf", **IMAGE),
    )
    errors = gain_errors(
        tmp_path / "d.ms", [tmp_path / "out" / n for n in result.summary["gaintables"]], truth
    )
    assert errors["coherence"] > 0.99
    assert errors["amplitude_scatter"] < 0.02
    # One amplitude for all dumps, although each is a field and scan of its own.
    assert read_gain_table(tmp_path / "out" / result.summary["gaintables"][-1]).gains[0].time_s.size == 1
    assert np.hypot(*result.summary["final"]["offset_arcsec"]) < 3


def test_noisy_antennas_weigh_less(transit, tmp_path):
    """Two antennas of ten times the noise that their weights say do not spoil the image."""
    simulate(tmp_path / "n.ms", SimulationConfig(random_phases=True, bad=2, **SMALL))
    build_strips("nvss", tmp_path / "n.catalog.ecsv", tmp_path / "c")
    lines = []

    class Notes(LogProgress):
        def note(self, text):
            lines.append(text)

    config = SelfCalConfig(catalog_dir=tmp_path / "c", **IMAGE)
    result = selfcal_ms(tmp_path / "n.ms", tmp_path / "out", config, progress=Notes())
    truth = Truth.read(tmp_path / "n.truth.npz")
    names = open_measurement_set(tmp_path / "n.ms").antennas.name
    told = next(line for line in lines if "weighed by their noise" in line)
    assert {w.strip() for w in told.split("twice:")[1].split(",")} == {
        names[k] for k in np.flatnonzero(truth.instrument.bad)
    }
    assert result.summary["iterations"][-1]["chi2_heldout"] < 1.1
    assert result.summary["final"]["thermal_ratio"] < 1.25


def zeros_for_half_the_time(ms, antennas):
    """Write zeros for antennas from the third dump on; returns these rows."""
    with open_table(ms, writable=True) as main:
        data, time_s = main.getcol("DATA"), main.getcol("TIME")
        mine = np.isin(main.getcol("ANTENNA1"), antennas) | np.isin(main.getcol("ANTENNA2"), antennas)
        mine &= time_s >= np.unique(time_s)[3]
        data[mine] = 0
        main.putcol("DATA", data)
    return mine


def test_zeros_for_part_of_the_time_are_left_out(ms, config, finished, tmp_path):
    """Three of thirty antennas: the image is that of the rest of the data, and all is said."""
    mine = zeros_for_half_the_time(ms, [2, 5, 9])
    with open_table(ms) as main:
        found = main.getcol("FLAG")
    result = selfcal_ms(ms, tmp_path / "out", config)
    assert result.improved
    names = [open_measurement_set(ms).antennas.name[k] for k in (2, 5, 9)]
    assert result.summary["antenna_verdicts"] == {"lost": names}
    healthy = finished[2].summary["final"]
    assert result.summary["final"]["thermal_ratio"] < 1.1 * max(1, healthy["thermal_ratio"])
    report = Table.read(tmp_path / "out" / "antennas.ecsv", format="ascii.ecsv")
    of_them = np.isin(report["antenna"], names)
    np.testing.assert_allclose(report["solved_fraction"][of_them], 0.5)
    assert all(str(words).startswith("lost from ") for words in report["lost"][of_them])
    noted = (tmp_path / "out" / "selfcal_stages.jsonl").read_text()
    assert f"visibilities of antennas {', '.join(names)} left out" in noted
    assert f"{100 * mine.mean():.2g} % of the unflagged visibilities" in noted
    with open_table(ms) as main:
        np.testing.assert_array_equal(main.getcol("FLAG"), found)
    assert selfcal_ms(ms, tmp_path / "out", config.with_options(unsolved="flag")).improved
    with open_table(ms) as main:
        now = main.getcol("FLAG")
    assert now[mine].all()
    np.testing.assert_array_equal(now[~mine], found[~mine])


def test_the_list_that_a_run_writes_is_a_model_of_the_next(ms, config, tmp_path, finished):
    """The same calibration as from the catalogue, of which nothing is there any more."""
    text = finished[1] / "selfcal-seed.txt"
    options = config.with_options(model=text, catalog_dir=tmp_path / "none")
    summary = selfcal_ms(ms, tmp_path / "out", options).summary
    listed = finished[2].summary
    assert (summary["status"], summary["catalog"], listed["model"]) == ("improved", "model", None)
    said = summary["model"]
    assert (said["kind"], said["fluxes"], said["adds"]) == ("component list", "apparent", False)
    assert said["sha256"] == hashlib.sha256(text.read_bytes()).hexdigest()
    assert said["n_seen"] == summary["n_seeds"] == listed["n_seeds"]
    assert summary["seed_flux_jy"] == pytest.approx(listed["seed_flux_jy"], rel=1e-5)
    for key in ("thermal_ratio", "flux_ratio"):
        assert summary["final"][key] == pytest.approx(listed["final"][key], rel=0.01)
    gains = [
        read_gain_table(out / summary["gaintables"][-1]).gains[0] for out in (tmp_path / "out", finished[1])
    ]
    both = ~(gains[0].flag | gains[1].flag)
    assert np.abs(gains[0].gain / gains[1].gain - 1)[both].max() < 0.01


def test_a_model_is_added_to_the_catalogue_or_stands_alone(ms, config, tmp_path, finished):
    lines = (finished[1] / "selfcal-seed.txt").read_text().splitlines()
    (tmp_path / "few.txt").write_text("\n".join([lines[0], *lines[2:5]]) + "\n")
    few = config.with_options(model=tmp_path / "few.txt", model_fluxes="apparent")
    with_others = open_observation(ms, few.with_options(model_adds=True)).catalog_model()
    alone, listed = (open_observation(ms, c).catalog_model() for c in (few, config))
    assert (len(alone), with_others.own_model.n_replaced, len(with_others)) == (3, 3, len(listed))
    true = open_observation(ms, few.with_options(model_fluxes="true")).catalog_model()
    assert 0 < true.apparent_jy.sum() < 0.999 * alone.apparent_jy.sum()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"model_adds": True}, "model_adds is given without a model"),
        ({"model_fluxes": "true"}, "model_fluxes is given without a model"),
        ({"model": "m.txt", "use_nvss_seeding": False}, "is given where nothing starts from it"),
    ],
)
def test_options_of_a_model_without_effect_are_refused(ms, config, tmp_path, options, what):
    with pytest.raises(ConfigError, match=what):
        selfcal_ms(ms, tmp_path / "out", config.with_options(**options))
