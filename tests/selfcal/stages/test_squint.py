"""Receptors that point apart are found, followed in the columns, and handed on to the next run."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.selfcal.stages.flux_scale import flux_scale
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import AntennaBeams
from dsa110_contimg.sky.apparent_sky import through_beams
from dsa110_contimg.visibilities import open_measurement_set
from dsa110_contimg.visibilities.tables import open_table
from tests.selfcal.support import observe, open_data

SQUINT = 0.15
OPTIONS = {"drift": True, "dumps": 6, "sefd_jy": 800.0, "random_phases": True, "squint_deg": SQUINT}


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    ms, config = observe(folder, **OPTIONS)
    plain = selfcal_ms(ms, folder / "plain", config.with_options(pointing="off", columns="none"))
    return folder, config, plain, selfcal_ms(ms, folder / "found", config)


def best(result):
    return result.summary["iterations"][result.summary["best_iteration"] - 1]


def test_squint_is_that_of_the_truth_and_explains_the_data(apart):
    _, _, plain, found = apart
    pointing = found.summary["pointing"]
    assert pointing["squint_east_deg"] == pytest.approx(SQUINT, rel=0.05)
    assert abs(pointing["squint_north_deg"]) < 0.005
    # No antenna is off.
    assert pointing["rms_deg"] < 0.005
    assert best(found)["chi2_heldout"] - 1 < (best(plain)["chi2_heldout"] - 1) / 4
    assert found.summary["final"]["rms_jy"] < plain.summary["final"]["rms_jy"]
    assert found.summary["chi2_untouched"] < plain.summary["chi2_untouched"] / 2
    assert plain.summary["pointing"] is None


def test_the_columns_hold_what_either_receptor_sees(apart):
    ms = open_measurement_set(apart[0] / "t.ms")
    with open_table(ms.path) as table:
        cross = table.getcol("ANTENNA1") != table.getcol("ANTENNA2")
        model, data = table.getcol("MODEL_DATA")[cross], table.getcol("CORRECTED_DATA")[cross]
    first, second = ms.spectral_window(0).parallel
    left, swapped = (
        np.median(np.abs(data[:, :, [first, second]] - model[:, :, at]))
        for at in ([first, second], [second, first])
    )
    assert swapped > 2 * left


def test_another_run_begins_with_it(apart):
    folder, config, _, found = apart
    table = Table.read(folder / "found" / "pointing.ecsv")
    assert table.meta["squint_east_deg"] == found.summary["pointing"]["squint_east_deg"]
    again = config.with_options(pointing_file=folder / "found" / "pointing.ecsv", columns="none")
    second = selfcal_ms(folder / "t.ms", folder / "again", again)
    assert second.summary["pointing"]["squint_east_deg"] == pytest.approx(SQUINT, rel=0.05)
    noted = (folder / "again" / "selfcal_stages.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [text for line in noted for text in json.loads(line)["noted"] if "squint:" in text]
    # It is not found a second time.
    assert len(lines) <= 1


def test_beside_pointing_errors_it_is_that_of_the_truth_and_fluxes_stay_known(tmp_path, log):
    """What was measured of sources tells the offset that all antennas share: it is not lost by a squint."""
    stage = importlib.import_module("dsa110_contimg.selfcal.stages.pointing")
    ms, config = observe(tmp_path, **OPTIONS, pointing_rms=0.2, seed=1)
    data = open_data(ms, config)
    state = reweight(data, CalState(weights=data.nominal_weights()), config, log)
    scaled = flux_scale(data, state, config, log)
    apart = stage._with_squint(data, scaled, config, log, data.catalog_model)
    assert apart is not scaled
    assert apart.measured is not None
    assert apart.measured is scaled.measured
    east, north = np.degrees(stage.pointing(data, scaled, config, log).sky_model.antenna_beams.squint_rad)
    # Through the common beam alone it came out 9 per cent low.
    assert east == pytest.approx(SQUINT, rel=0.04)
    assert abs(north) < 0.005


def test_receptors_see_the_sky_through_beams_to_either_side(data, solved):
    """Half the difference of exact predictions, to second order of the squint."""
    squint, n = np.radians([0.2, -0.1]), len(data.reader.ms.antennas)
    sky = replace(
        solved.sky_model, antenna_beams=AntennaBeams(offset_rad=np.zeros((n, 2)), squint_rad=squint)
    )
    (piece, *_) = data.blocks("test", solved.weights, SkyVisibilities(sky))
    middle = data.reader.pointing[len(data.reader.times) // 2]
    for receptor, sign in enumerate((0.5, -0.5)):
        off = AntennaBeams(offset_rad=np.tile(sign * squint, (n, 1)))
        exact = SkyVisibilities(through_beams(solved.sky_model, off, *map(float, middle)))
        exact = data.predict(piece.block, exact)
        change = np.abs(exact - piece.model).max()
        assert np.abs(piece.of_receptors[:, :, receptor] - exact).max() < 0.1 * change
        k = piece.block.spw.parallel[receptor]
        np.testing.assert_array_equal(piece.of_correlation(k), piece.of_receptors[:, :, receptor])
