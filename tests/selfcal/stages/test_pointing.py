"""Pointing offsets of the antennas are found where they are, left alone where they are not, and handed on."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.calibration.pointing import half_of
from dsa110_contimg.errors import InputError
from dsa110_contimg.selfcal.pointing_report import pointing_report, read_pointing
from dsa110_contimg.selfcal.pointing_statistics import gains_of_halves, judged_on_halves
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.selfcal.solve_round import gather, make_solver
from dsa110_contimg.simulate import Truth
from dsa110_contimg.sky import AntennaBeams
from dsa110_contimg.visibilities import open_measurement_set
from dsa110_contimg.visibilities.tables import open_table
from tests.selfcal.support import observe, open_data

OPTIONS = {"drift": True, "dumps": 6, "sefd_jy": 800.0, "random_phases": True}


def noted(folder):
    lines = (folder / "selfcal_stages.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        text for line in lines for text in json.loads(line)["noted"] if "pointing of the antennas" in text
    ]


@pytest.fixture(scope="module")
def off(tmp_path_factory):
    folder = tmp_path_factory.mktemp("off")
    ms, config = observe(folder, **OPTIONS, pointing_rms=0.2)
    plain = selfcal_ms(ms, folder / "plain", config.with_options(pointing="off", columns="none"))
    found = selfcal_ms(ms, folder / "found", config)
    return (
        folder,
        config,
        plain,
        found,
        np.degrees(Truth.read(folder / "t.truth.npz").instrument.pointing_rad),
    )


def test_offsets_are_those_of_the_truth(off):
    folder, _, _, found, true = off
    table = Table.read(folder / "found" / "pointing.ecsv")
    error = np.stack([table["east_deg"], table["north_deg"]], axis=1) - true
    # Offsets that all antennas share are known from fluxes of sources, which a catalogue has with errors.
    assert error.std(axis=0).max() < 0.03
    assert np.abs(error.mean(axis=0)).max() < 0.06
    assert true.std() > 0.15
    assert found.summary["products"]["pointing"] == "pointing.ecsv"
    assert found.summary["pointing"]["rms_deg"] == pytest.approx(true.std(), rel=0.15)


def test_held_out_channels_and_the_image_gain_by_them(off):
    _, _, plain, found, _ = off
    best = [r.summary["iterations"][r.summary["best_iteration"] - 1]["chi2_heldout"] for r in (plain, found)]
    assert best[1] < best[0] / 2
    assert found.summary["final"]["rms_jy"] < plain.summary["final"]["rms_jy"]
    assert plain.summary["pointing"] is None
    assert noted(off[0] / "plain") == []


def test_the_columns_hold_the_sky_through_these_beams(off):
    ms = open_measurement_set(off[0] / "t.ms")
    width = ms.spectral_window(0).width_hz[0]
    sigma = OPTIONS["sefd_jy"] / np.sqrt(2 * width * 12.884902)
    with open_table(ms.path) as table:
        cross = table.getcol("ANTENNA1") != table.getcol("ANTENNA2")
        model, data = table.getcol("MODEL_DATA")[cross], table.getcol("CORRECTED_DATA")[cross]
    # Without the offsets eleven times the variance of the noise was left.
    assert np.median(np.abs(data - model)) / (1.1774 * sigma) < 1.7


def test_another_run_begins_with_them_and_stays(off):
    folder, config, _, found, _ = off
    again = config.with_options(pointing_file=folder / "found" / "pointing.ecsv", columns="none")
    second = selfcal_ms(folder / "t.ms", folder / "again", again)
    before, after = (
        np.stack([t["east_deg"], t["north_deg"]])
        for t in (Table.read(folder / name / "pointing.ecsv") for name in ("found", "again"))
    )
    assert (after - before).std(axis=1).max() < 0.02
    assert np.abs((after - before).mean(axis=1)).max() < 0.05
    first = second.summary["iterations"][0]["chi2_heldout"]
    assert first <= 1.1 * found.summary["iterations"][0]["chi2_heldout"]


def test_antennas_that_point_where_they_should_are_left_alone(tmp_path):
    ms, config = observe(tmp_path, **OPTIONS)
    result = selfcal_ms(ms, tmp_path / "out", config.with_options(columns="none"))
    assert result.status == "improved"
    assert result.summary["pointing"] is None
    assert not (tmp_path / "out" / "pointing.ecsv").exists()
    (line,) = noted(tmp_path / "out")
    assert "left as they are" in line


def spoiled(data):
    """Make noise of one of the halves that gains are cross-validated on, in place."""
    rng, n = np.random.default_rng(7), len(data.reader.ms.antennas)
    for block in data.reader.blocks():
        channel = data.first_channel[block.spw.id] + np.arange(block.spw.freq_hz.size)
        second = half_of(n, block.time_index, block.antenna1, block.antenna2, channel) == 1
        size = np.abs(block.data).mean()
        noise = rng.normal(size=(2, *block.data[second].shape)) * size
        block.data[second] = noise[0] + 1j * noise[1]
    return data


def test_the_visibilities_that_judge_offsets_have_no_part_in_them(observed, stage_config, solved, log):
    stage = importlib.import_module("dsa110_contimg.selfcal.stages.pointing")
    found = []
    for spoil in (False, True):
        data = open_data(observed, stage_config)
        data = spoiled(data) if spoil else data
        state = replace(gather(data, solved, log), noise=solved.noise)
        gains = gains_of_halves(make_solver(data, state, stage_config), state)
        fit = stage._fitted(data, state, log, solved.model, data.catalog_model, gains).pointing
        found.append((gains, fit))
    (gains, fit), (spoiled_gains, spoiled_fit) = found
    for one, other in zip(gains[0], spoiled_gains[0], strict=True):
        for spw, of_window in one.gains.items():
            np.testing.assert_array_equal(of_window.gain, other.gains[spw].gain)
    np.testing.assert_allclose(fit.of_half_rad[0], spoiled_fit.of_half_rad[0], rtol=1e-9)
    assert np.abs(fit.of_half_rad[1] - spoiled_fit.of_half_rad[1]).max() > np.abs(fit.of_half_rad[1]).max()


def test_offsets_that_are_none_are_judged_worse(data, solved, stage_config, log):
    offset = np.radians(0.3) * np.random.default_rng(1).normal(size=(len(data.reader.ms.antennas), 2))
    nowhere, off = (
        replace(solved.sky_model, antenna_beams=AntennaBeams(offset_rad=x)) for x in (0 * offset, offset)
    )
    same, kept = judged_on_halves(data, solved, stage_config, log, [nowhere, nowhere])
    assert kept == pytest.approx(same, rel=1e-4)
    assert same == pytest.approx(solved.last.chi2_heldout, rel=0.02)
    before, after = judged_on_halves(data, solved, stage_config, log, [off, off])
    assert before == pytest.approx(same)
    assert after > 1.05 * before


def test_a_part_of_the_data_is_enough_to_see_that_there_are_no_offsets(tmp_path, monkeypatch):
    stage = importlib.import_module("dsa110_contimg.selfcal.stages.pointing")
    # As of an observation of many blocks.
    monkeypatch.setattr(stage, "LEAST_BLOCKS", 0)
    ms, config = observe(tmp_path, **OPTIONS | {"sefd_jy": 6000.0})
    selfcal_ms(ms, tmp_path / "out", config.with_options(columns="none"))
    (line,) = noted(tmp_path / "out")
    assert "a part of the data shows no offsets" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no table of pointing offsets"),
        ("# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: int64}\na\n1\n", "no table of pointing"),
        (None, "no table of pointing offsets"),
    ],
)
def test_what_is_no_table_of_offsets_is_said_in_one_line(tmp_path, text, said):
    path = tmp_path / "pointing.ecsv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_pointing(path, ["a"])


def test_offsets_are_those_of_antennas_by_name(tmp_path):
    path = tmp_path / "pointing.ecsv"
    Table({"antenna": ["b", "a"], "east_deg": [0.1, 0.2], "north_deg": [0.0, np.nan]}).write(path)
    beams = read_pointing(path, ["a", "c"])
    np.testing.assert_allclose(np.degrees(beams.offset_rad), [[0.2, 0.0], [0.0, 0.0]])
    # Of neither is known where it points: a table says so.
    assert beams.known.tolist() == [False, False]
    both = read_pointing(path, ["b", "c"])
    table = pointing_report(["b", "c"], both, None)
    np.testing.assert_array_equal(table["east_deg"], [0.1, np.nan])
    with pytest.raises(InputError, match="none of the antennas"):
        read_pointing(path, ["x"])
    Table({"antenna": ["a"], "east_deg": [100.0], "north_deg": [0.0]}).write(path, overwrite=True)
    with pytest.raises(InputError, match="more than 10 deg"):
        read_pointing(path, ["a"])
