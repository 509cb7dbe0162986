"""A wrong beam is found, told with the diameter to give, corrected on demand, and refused if absurd."""

import json
import shutil

import numpy as np
import pytest

from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import ConfigError, InputError
from dsa110_contimg.imaging.beam_choice import parallactic_angles
from dsa110_contimg.imaging.obs_context import open_observation
from dsa110_contimg.selfcal.params import check_params
from dsa110_contimg.selfcal.run import notes_before, selfcal_ms
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.simulate import Truth
from dsa110_contimg.simulate.elliptical_beam import EllipticalBeam
from dsa110_contimg.sky import AiryBeam
from dsa110_contimg.visibilities.pointing import celestial_to_terrestrial
from dsa110_contimg.visibilities.tables import open_table
from tests.beam_cubes import write_cube
from tests.selfcal.support import Notes, observe

OPTIONS = {"drift": True, "dumps": 4, "sefd_jy": 1500.0, "random_phases": True, "min_mjy": 40.0}
BAND = SimulationConfig()
PLANES = np.linspace(BAND.low_mhz, BAND.high_mhz, 5) * 1e6


def noted(folder, words):
    lines = (folder / "selfcal_stages.jsonl").read_text(encoding="utf-8").splitlines()
    return [text for line in lines for text in json.loads(line)["noted"] if words in text]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The dishes are smaller than they are said to be, by a tenth."""
    folder = tmp_path_factory.mktemp("wide")
    ms, config = observe(folder, **OPTIONS, beam_width=1.1)
    config = config.with_options(columns="none")
    plain = selfcal_ms(ms, folder / "plain", config)
    solved = selfcal_ms(ms, folder / "solved", config.with_options(solve_beam_width=True))
    return folder, config, plain, solved


def best(result):
    return result.summary["iterations"][result.summary["best_iteration"] - 1]


def test_a_beam_that_is_a_tenth_too_wide_is_told_with_the_diameter_to_give(wide):
    _, _, plain, _ = wide
    beam = plain.summary["beam"]
    assert plain.status == "improved"
    assert beam["form"] == "airy"
    assert beam["diameter_m"] == 4.65
    assert beam["width_used"] == 1
    assert beam["width"][0] == pytest.approx(1.1, abs=min(0.06, 3 * beam["width"][1]))
    assert beam["diameter_to_give_m"] == pytest.approx(4.65 / beam["width"][0])
    (text,) = [f["text"] for f in plain.summary["findings"] if f["kind"] == "beam_width"]
    assert "% wider than that of a dish of 4.65 m" in text
    assert f"give --dish-diameter-m {beam['diameter_to_give_m']:.3g}" in text
    assert "--solve-beam-width" in text


def test_it_is_corrected_on_demand_where_held_out_data_gain_by_it(wide):
    folder, _, plain, solved = wide
    beam = solved.summary["beam"]
    assert beam["width_used"] == pytest.approx(1.1, abs=min(0.03, 3 * beam["width"][1]))
    assert beam["diameter_m"] == 4.65
    assert beam["diameter_to_give_m"] == pytest.approx(4.65 / beam["width_used"])
    kinds = [f["kind"] for f in solved.summary["findings"]]
    assert "beam_corrected" in kinds
    assert "beam_width" not in kinds
    # The same noise in both: what is left beside it is less.
    assert best(solved)["chi2_heldout"] < best(plain)["chi2_heldout"] - 0.05
    assert solved.summary["final"]["rms_jy"] < plain.summary["final"]["rms_jy"]
    # Sources further out are in the model.
    assert solved.summary["n_seeds"] > plain.summary["n_seeds"]
    assert all("kept" in line for line in noted(folder / "solved", "width of the beam")[:1])


def test_a_beam_that_is_right_stays(wide):
    folder, config, _, solved = wide
    true = Truth.read(folder / "t.truth.npz").beam.diameter_m
    told = config.with_options(dish_diameter_m=true, solve_beam_width=True)
    again = selfcal_ms(folder / "t.ms", folder / "again", told.with_options(pointing="off"))
    assert again.summary["beam"]["width_used"] == 1
    assert again.summary["beam"]["diameter_to_give_m"] is None
    assert not [f for f in again.summary["findings"] if f["kind"].startswith("beam")]
    assert "left as it is" in noted(folder / "again", "width of the beam")[0]
    assert best(solved)["chi2_heldout"] < 1.1 * best(again)["chi2_heldout"]


def test_a_diameter_that_is_wrong_by_a_factor_of_five_is_refused_and_named(wide):
    folder, config, _, _ = wide
    wrong = config.with_options(dish_diameter_m=5 * 4.65 / 1.1, solve_beam_width=True)
    result = selfcal_ms(folder / "t.ms", folder / "five", wrong)
    assert result.status == "refused"
    assert result.summary["findings"][0]["kind"] == "beam_width"
    assert "a beam about 5 times wider than that of a dish of 21.1 m (held-out chi2 " in result.message
    assert "check DISH_DIAMETER, or give --dish-diameter-m 4.2;" in result.message


def test_a_beam_that_is_five_times_narrower_is_refused_and_named(tmp_path):
    """All but a source near its middle are missing, for which flux scale, bandpass and CLEAN make up."""
    ms, config = observe(tmp_path, beam_width=0.2, dumps=2, seed=3, random_phases=True)
    result = selfcal_ms(ms, tmp_path / "out", config.with_options(columns="none"))
    assert result.status == "refused"
    assert "a beam about 5 times narrower than that of a dish of 4.65 m" in result.message
    assert "check DISH_DIAMETER, or give --dish-diameter-m 23;" in result.message
    # It is no other sky.
    assert [f["kind"] for f in result.summary["findings"]] == ["beam_width"]


def test_a_field_too_faint_to_tell_leaves_the_beam_alone(tmp_path):
    """Signal for gains, but none for the offsets of antennas or for a width."""
    ms, config = observe(tmp_path, **(OPTIONS | {"sefd_jy": 60000.0, "dumps": 3}), pointing_rms=0.02)
    result = selfcal_ms(ms, tmp_path / "out", config.with_options(columns="none", solve_beam_width=True))
    assert result.summary["pointing"] is None
    assert result.summary["beam"]["width_used"] == 1
    assert noted(tmp_path / "out", "width of the beam: ")
    (line,) = noted(tmp_path / "out", "pointing of the antennas")
    assert "left as they are" in line


def test_a_beam_file_is_what_the_catalogue_is_looked_at_through(tmp_path):
    """Longer from east to west than any formula has it: with its file less is left."""
    ms, config = observe(tmp_path, **OPTIONS, beam_ellipticity=1.25)
    config = config.with_options(columns="none")
    cube = write_cube(tmp_path / "beam.fits", Truth.read(tmp_path / "t.truth.npz").beam, PLANES, half_deg=6.0)
    with_file = selfcal_ms(ms, tmp_path / "file", config.with_options(beam_file=cube))
    formula = selfcal_ms(ms, tmp_path / "formula", config)
    assert best(with_file)["chi2_heldout"] < best(formula)["chi2_heldout"] - 0.1
    assert with_file.summary["final"]["rms_jy"] < formula.summary["final"]["rms_jy"]
    assert with_file.summary["beam"]["form"] == "file"
    assert with_file.summary["beam"]["file"] == str(cube)
    assert with_file.summary["beam"]["diameter_m"] is None
    with pytest.raises(ConfigError, match="is given beside a beam file"):
        selfcal_ms(ms, tmp_path / "o", config.with_options(beam_file=cube, dish_diameter_m=4.0))
    narrow = write_cube(tmp_path / "narrow.fits", AiryBeam(4.65), np.array([1.39e9, 1.41e9]))
    with pytest.raises(InputError, match=r"its beams are for 1380.00 to 1420.00 MHz, the data are at"):
        selfcal_ms(ms, tmp_path / "o", config.with_options(beam_file=narrow))
    voltage = config.with_options(beam_file=cube, beam_file_kind="voltage")
    other = selfcal_ms(ms, tmp_path / "voltage", voltage)
    assert best(other)["chi2_heldout"] > best(with_file)["chi2_heldout"] + 0.1


def test_dishes_that_differ_and_a_pointing_file_without_effect_are_noted(tmp_path):
    ms, config = observe(tmp_path, dumps=1)
    with open_table(ms / "ANTENNA", writable=True) as table:
        sizes = table.getcol("DISH_DIAMETER")
        sizes[:3] = 12.0
        table.putcol("DISH_DIAMETER", sizes)
    notes = Notes()
    with StageLog(notes) as log:
        assert notes_before(check_params(ms, tmp_path / "o", config, ()), log) == ()
        (mixed,) = notes.about("the dishes differ (")
        assert "3 of 12 m): the beam of all is taken as that of their median, 4.65 m" in mixed
        plain = config.with_options(use_nvss_seeding=False, pointing_file=tmp_path / "p.ecsv")
        assert notes_before(check_params(ms, tmp_path / "o", plain, ()), log) == ()
        assert len(notes.about("p.ecsv has no effect")) == 1


def test_a_beam_file_turns_with_dishes_that_follow_the_sky(tmp_path):
    """Tracking through the meridian for a moment it stands upright, or upside down; for hours it turns."""
    cube = write_cube(tmp_path / "beam.fits", EllipticalBeam(AiryBeam(4.65), 1.25), PLANES)
    at = np.array([[0.02, 0.0, -0.0002], [0.0, 0.02, -0.0002]])
    found = {}
    for name, dump_s in (("short", 10.0), ("long", 7200.0)):
        ms, config = observe(tmp_path, dumps=3, antennas=5, dump_s=dump_s)
        context = open_observation(ms, config.with_options(beam_file=cube))
        found[name] = context.beam.power_towards(at, 1.4e9)[:, 0], context.beam_notes
        shutil.rmtree(ms)
    true = EllipticalBeam(AiryBeam(4.65), 1.25).power_towards(at, 1.4e9)[:, 0]
    np.testing.assert_allclose(found["short"][0], true, atol=1e-3)
    assert found["short"][1] == ()
    assert found["long"][0][0] == pytest.approx(found["long"][0][1], abs=1e-3)
    assert "which is not followed" in found["long"][1][0]


def test_the_parallactic_angle_is_that_of_the_textbook():
    """tan q = sin h / (tan phi cos d - sin d cos h), at an hour angle h."""
    latitude, dec, hour = 0.65, 0.2, np.array([-0.5, 0.0, 0.8])
    place = 6.37e6 * np.array([[np.cos(latitude), 0.0, np.sin(latitude)]])
    mjd = np.full(3, 60968.6)
    axis = celestial_to_terrestrial(60968.6).T
    # Right ascension of what is on the meridian of Greenwich, and of what went through it before.
    towards = [axis @ [np.cos(dec) * np.cos(h), -np.cos(dec) * np.sin(h), np.sin(dec)] for h in hour]
    pointing = np.array([[np.arctan2(y, x), np.arcsin(z)] for x, y, z in towards])
    expected = np.arctan2(np.sin(hour), np.tan(latitude) * np.cos(dec) - np.sin(dec) * np.cos(hour))
    np.testing.assert_allclose(parallactic_angles(place, mjd, pointing), expected, atol=5e-3)
