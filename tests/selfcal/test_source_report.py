from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.errors import InputError
from dsa110_contimg.files import write_table
from dsa110_contimg.selfcal.source_measurement import SourceMeasurement
from dsa110_contimg.selfcal.source_report import read_model, source_report
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


def measured(ratio, shift_arcsec, error=0.01):
    ratio = np.asarray(ratio)
    n = ratio.size
    shift = np.zeros((n, 2))
    shift[:, 1] = np.asarray(shift_arcsec) * ARCSEC
    good = np.ones(n, dtype=bool)
    small = np.full((n, 2), 0.1 * ARCSEC)
    return SourceMeasurement(
        index=np.arange(n),
        ratio=ratio,
        ratio_error=np.full(n, error),
        shift_rad=shift,
        shift_error=small,
        good=good,
        scale=1.0,
        offset_rad=(0.0, 0.0),
    )


def test_each_verdict(seed):
    found = measured([1.02, 2.0, 0.5, 0.01, 0.97, 1.1], [0.3, 0, 0, 0, 8, 1])
    table = source_report(seed, seed, found)
    assert list(table["verdict"]) == [
        "agrees", "brighter", "fainter", "missing", "moved", "agrees", "faint",
    ]  # fmt: skip
    assert table["shift_north_arcsec"][4] == pytest.approx(8)
    assert np.isnan(table["ratio"][6])


def test_what_noise_may_do_is_not_held_against_the_catalogue(seed):
    table = source_report(seed, seed, measured([1.9, 0.1], [0, 0], error=0.2))
    assert set(table["verdict"]) == {"agrees", "faint"}


def test_components_come_after_the_seeds_and_the_model_is_read_back(seed, tmp_path):
    sky = SkyModel.concatenate([seed.sky, seed.sky.select(np.array([0]))])
    model = replace(seed, sky=sky, apparent_jy=np.append(seed.apparent_jy, 0.25))
    table = source_report(seed, model, None)
    assert list(table["verdict"]) == ["unmeasured"] * 7 + ["new"]
    assert table["catalog_apparent_jy"][7] == 0
    write_table(tmp_path / "q.ecsv", table)
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
