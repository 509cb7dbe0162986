"""Pointing offsets of the antennas are found where they are, left alone where they are not, and handed on."""

import importlib
import json

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.errors import InputError
from dsa110_contimg.selfcal.pointing_report import pointing_report, read_pointing
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import Truth
from dsa110_contimg.visibilities import open_measurement_set
from dsa110_contimg.visibilities.tables import open_table
from tests.selfcal.support import observe

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
