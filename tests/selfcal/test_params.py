"""What is handed in is checked before anything is written."""

import pytest

from dsa110_contimg.calibration.caltables import write_gain_table
from dsa110_contimg.errors import ConfigError, ResourceError
from dsa110_contimg.selfcal.params import check_params, reference_antennas
from dsa110_contimg.visibilities import open_measurement_set
from tests.selfcal.support import gain_errors


@pytest.mark.parametrize(
    ("text", "expected"), [(None, ()), ("", ()), ("{2}", (2,)), (" {2} , {0},", (2, 0)), ("{0},{2}", (0, 2))]
)
def test_reference_antennas_are_tried_in_the_order_given(text, expected, data, stage_config):
    ms = data.reader.ms
    refant = text and text.format(*ms.antennas.name)
    assert reference_antennas(stage_config.with_options(refant=refant), ms) == expected


def test_an_unknown_reference_antenna_is_named_with_those_that_are_there(data, stage_config):
    ms = data.reader.ms
    config = stage_config.with_options(refant=f"{ms.antennas.name[0]},nobody")
    with pytest.raises(ConfigError, match="no antenna 'nobody'") as caught:
        reference_antennas(config, ms)
    assert ms.antennas.name[-1] in str(caught.value)


def test_what_is_checked_is_kept_and_nothing_is_written(observed, stage_config, tmp_path):
    params = check_params(observed, tmp_path / "out", stage_config, ())
    assert len(params.catalog_model) > 0
    assert params.mask_sources is None
    assert params.grid.size == stage_config.size
    assert params.initial == ()
    assert params.output_dir == tmp_path / "out"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("seeding", "mask"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_catalogue_is_a_model_a_mask_or_both(seeding, mask, observed, stage_config, tmp_path):
    config = stage_config.with_options(use_nvss_seeding=seeding, catalog_mask=mask)
    params = check_params(observed, tmp_path / "out", config, ())
    assert (params.catalog_model is not None) is seeding
    assert (params.mask_sources is not None) is mask


@pytest.mark.parametrize(
    ("change", "says"), [({"spw_map": "0"}, "initial tables"), ({"mask_radius_arcsec": 60.0}, "mask")]
)
def test_options_without_effect_are_refused(observed, stage_config, tmp_path, change, says):
    with pytest.raises(ConfigError, match=says):
        check_params(observed, tmp_path / "out", stage_config.with_options(**change), ())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["pointing_file", "solve_beam_width"])
def test_a_model_that_holds_the_beam_allows_no_other(observed, stage_config, tmp_path, option):
    model = tmp_path / "m.csv"
    model.write_text("ra_deg,dec_deg,flux_jy\n150.0,54.57,1.0\n")
    given = {"pointing_file": tmp_path / "pointing.ecsv", "solve_beam_width": True}[option]
    change = {"model": model, "model_fluxes": "apparent", option: given}
    with pytest.raises(ConfigError, match=f"{option}: .*hold the beam"):
        check_params(observed, tmp_path / "out", stage_config.with_options(**change), ())


def test_a_file_in_place_of_the_output_folder_is_refused(observed, stage_config, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ResourceError, match="not a folder"):
        check_params(observed, tmp_path / "out", stage_config, ())
    assert (tmp_path / "out").read_text() == "mine"


def test_an_initial_table_is_given_once_and_from_elsewhere(observed, data, stage_config, tmp_path):
    path = tmp_path / "tables" / "a.gcal"
    path.parent.mkdir()
    table = gain_errors(data, 10.0)
    write_gain_table(path, table.kind, table.gains, open_measurement_set(observed))
    (read,) = check_params(observed, tmp_path / "out", stage_config, [path]).initial
    assert read.kind == "G Jones"
    with pytest.raises(ConfigError, match="twice"):
        check_params(
            observed, tmp_path / "out", stage_config, [path, path.parent / ".." / "tables" / "a.gcal"]
        )
    with pytest.raises(ConfigError, match="output folder"):
        check_params(observed, path.parent, stage_config, [path])


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_initial_tables_are_interpolated_as_asked_for(interpolation, observed, data, stage_config, tmp_path):
    table = gain_errors(data, 10.0)
    write_gain_table(tmp_path / "a.gcal", table.kind, table.gains, open_measurement_set(observed))
    config = stage_config.with_options(initial_interpolation=interpolation, spw_map="0")
    (read,) = check_params(observed, tmp_path / "out", config, [tmp_path / "a.gcal"]).initial
    assert read.interpolation == interpolation
    assert dict(read.spw_map) == {0: 0}
