from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.errors import InputError
from dsa110_contimg.files import write_table
from dsa110_contimg.selfcal.new_sources import NewSources, beam_error
from dsa110_contimg.selfcal.source_fluxes import SourceFluxes
from dsa110_contimg.selfcal.source_report import COLUMNS, model_table, read_model, source_report
from dsa110_contimg.sky import AiryBeam, ApparentSky, SkyModel

ARCSEC = np.pi / 180 / 3600


@pytest.fixture
def seed():
    n = 7
    sky = SkyModel.points(
        2 + 0.01 * np.arange(n), np.full(n, 0.9), np.arange(n, 0.0, -1), spectral_index=-0.7
    )
    return ApparentSky(
        sky=sky,
        beam=AiryBeam(4.65),
        apparent_jy=sky.flux_jy / 2,
        freq_hz=1.4e9,
        catalog="nvss",
        catalog_hash="",
    )


def measured(ratio, shift_arcsec, error=0.01, **more):
    ratio = np.asarray(ratio, dtype=float)
    n = ratio.size
    shift = np.zeros((n, 2))
    shift[:, 1] = np.asarray(shift_arcsec) * ARCSEC
    values = {
        "index": np.arange(n),
        "by_visibilities": np.ones(n, dtype=bool),
        "ratio": ratio,
        "ratio_error": np.full(n, error),
        "shift_rad": shift,
        "shift_error": np.full((n, 2), 0.1 * ARCSEC),
        "response": np.full(n, 0.5),
        "beam_error": np.full(n, 0.02),
        "distance_rad": np.full(n, 0.01),
        "noise_jy": np.full(n, 1e-3),
        "taken": np.full(n, 0.03),
        "typically_taken": 0.03,
        "blended": np.zeros(n, dtype=bool),
        "scale": 1.02,
        "scale_error": 0.004,
        "pointing_deg": 0.01,
        "new": None,
    }
    return SourceFluxes(**values | more)


def test_each_verdict(seed):
    found = measured([1.02, 2.0, 0.5, 0.01, 0.97, 1.1, np.nan], [0.3, 0, 0, 0, 8, 1, 0])
    table = source_report(seed, found)
    assert list(table["verdict"]) == [
        "agrees", "brighter", "fainter", "missing", "moved", "agrees", "unmeasured",
    ]  # fmt: skip
    assert table["shift_north_arcsec"][4] == pytest.approx(8)
    assert list(table["method"][5:]) == ["visibilities", "none"]


def test_what_noise_may_do_is_not_held_against_the_catalogue(seed):
    table = source_report(seed, measured([1.9, 0.1], [0, 0], error=0.2))
    assert set(table["verdict"]) == {"faint"}


def test_fluxes_are_at_the_observation_s_frequency_with_errors_apart(seed):
    """Catalogue at 1.4 GHz; observed lower, where a source of a negative index is brighter."""
    low = replace(seed, freq_hz=0.7e9)
    row = source_report(low, measured([1.5], [0]))[0]
    assert row["catalog_flux_jy"] == pytest.approx(7 * 2**0.7)
    assert row["flux_jy"] == pytest.approx(1.5 * 7 * 2**0.7)
    assert row["stat_error_jy"] == pytest.approx(0.01 * row["catalog_flux_jy"])
    assert row["scale_error_jy"] == pytest.approx(0.004 * row["flux_jy"])
    assert row["beam_error_jy"] == pytest.approx(0.02 * row["flux_jy"])
    assert row["apparent_jy"] == pytest.approx(1.5 * 3.5)


def test_new_sources_are_rows_of_their_own_on_the_same_scale(seed, tmp_path):
    new = NewSources(
        ra_rad=np.array([2.5]), dec_rad=np.array([-0.1]), position_error_rad=np.array([ARCSEC]),
        apparent_jy=np.array([0.0102]), error_jy=np.array([0.00102]), response=np.array([0.05]),
        beam_error=np.array([0.3]), distance_rad=np.array([0.02]), false_expected=0.2, n_negative=0,
        searched=0.9,
    )  # fmt: skip
    table = source_report(seed, measured([1.0], [0], new=new), {"mjd": 60000.5})
    assert table["method"][1] == "image"
    fitted = replace(new, by_visibilities=np.array([True]))
    assert source_report(seed, measured([1.0], [0], new=fitted))["method"][1] == "visibilities"
    assert list(table["kind"]) == ["catalogue", "new"]
    assert table["flux_jy"][1] == pytest.approx(0.01 / 0.05)
    assert table["beam_error_jy"][1] == pytest.approx(0.3 * 0.2)
    assert table["flags"][1] == "outer"
    write_table(tmp_path / "s.ecsv", table)
    again = Table.read(tmp_path / "s.ecsv")
    assert again.meta["n_new"] == 1
    assert again.meta["mjd"] == 60000.5
    assert {name: str(again[name].unit) for name in ("flux_jy", "ra_deg")} == {
        "flux_jy": "Jy",
        "ra_deg": "deg",
    }
    assert all(again[name].meta["ucd"] for name in COLUMNS)


def along(angle):
    return np.stack([np.sin(angle), 0 * angle, np.cos(angle) - 1], axis=1)


def test_the_beam_s_slope_makes_the_error_of_pointing():
    beam, freq = AiryBeam(4.65), 1.4e9
    off = np.radians([0.0, 0.7, 1.3])
    error = beam_error(beam, along(off), freq, np.radians(0.02))
    assert error[0] == pytest.approx(0, abs=1e-6)
    moved = beam.power(off + np.radians(0.02), freq)[:, 0] / beam.power(off, freq)[:, 0]
    np.testing.assert_allclose(error[1:], 1 - moved[1:], rtol=0.05)
    assert beam_error(beam, along(np.array([beam.null_rad(freq)])), freq, 0.01) == 1


def test_the_model_is_read_back(seed, tmp_path):
    sky = SkyModel.concatenate([seed.sky, seed.sky.select(np.array([0]))])
    model = replace(seed, sky=sky, apparent_jy=np.append(seed.apparent_jy, 0.25))
    write_table(tmp_path / "q.ecsv", model_table(model, seed))
    again = read_model(tmp_path / "q.ecsv")
    np.testing.assert_allclose(again.ra_rad, sky.ra_rad, rtol=1e-14)
    np.testing.assert_allclose(again.flux_jy, sky.flux_jy)
    assert again.name == sky.name
    assert [p.name for p in tmp_path.iterdir()] == ["q.ecsv"]


def test_a_file_that_is_no_list_is_named(tmp_path):
    (tmp_path / "q.ecsv").write_text("nothing")
    for name in ("q.ecsv", "missing.ecsv"):
        with pytest.raises(InputError, match="no list of sources"):
            read_model(tmp_path / name)
