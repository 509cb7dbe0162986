"""Readers: every known form gives the same table, every misfit one clear line."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import Angle
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.catalogs.formats import read_catalog
from dsa110_contimg.catalogs.surveys import SURVEYS
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError

GOOD = "ra_deg,dec_deg,flux_mjy\n10.5,-3.25,120\n359.5,80,7.5\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refused(path: Path) -> str:
    with pytest.raises(CatalogFormatError) as caught:
        read_catalog(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_generic_csv(tmp_path: Path) -> None:
    table = read_catalog(write(tmp_path / "a.csv", "# a comment\n" + GOOD))
    units = SURVEYS["nvss"].units
    assert table.colnames == list(units)
    assert [table[name].unit for name in table.colnames] == list(units.values())
    assert table["ra_deg"].tolist() == [10.5, 359.5]
    assert table["flux_mjy"].tolist() == [120.0, 7.5]
    assert np.isnan(table["flux_err_mjy"]).all()
    assert not np.any(table["major_arcsec"])


def test_optional_columns_and_blank_cells(tmp_path: Path) -> None:
    text = (
        "pa_deg,minor_arcsec,major_arcsec,flux_err_mjy,dec_deg,ra_deg,peak_jy_beam,note\n"
        "45,10,20,1.5,2,1,0.25,x\n,,,,2,360,0.5,\n"
    )
    table = read_catalog(write(tmp_path / "a.csv", text))
    assert table["flux_mjy"].tolist() == [250.0, 500.0]
    assert table["ra_deg"].tolist() == [1.0, 0.0]
    assert table["flux_err_mjy"][0] == 1.5
    assert np.isnan(table["flux_err_mjy"][1])
    assert [table[name][0] for name in ("major_arcsec", "minor_arcsec", "pa_deg")] == [20.0, 10.0, 45.0]
    assert [table[name][1] for name in ("major_arcsec", "minor_arcsec", "pa_deg")] == [0.0, 0.0, 0.0]


def test_ecsv_units_and_declared_coverage(tmp_path: Path) -> None:
    source = Table({"ra_deg": [1.0] * u.deg, "dec_deg": [0.5] * u.rad, "flux_mjy": [2.0] * u.Jy})
    coverage = {"ra_min": 350.0, "ra_max": 10.0, "dec_min": 20.0, "dec_max": 35.0}
    source.meta["coverage"] = coverage
    source.write(tmp_path / "a.ecsv", format="ascii.ecsv")
    table = read_catalog(tmp_path / "a.ecsv")
    assert table["flux_mjy"].tolist() == [2000.0]
    assert table["dec_deg"][0] == pytest.approx(np.degrees(0.5))
    assert table.meta["coverage"] == coverage


@pytest.mark.parametrize(
    "coverage",
    [{"ra_min": 1.0}, "all", {"ra_min": 0, "ra_max": 360, "dec_min": 5, "dec_max": 4}],
)
def test_bad_declared_coverage_is_refused(tmp_path: Path, coverage: object) -> None:
    source = Table({"ra_deg": [1.0], "dec_deg": [0.5], "flux_mjy": [2.0]}, meta={"coverage": coverage})
    source.write(tmp_path / "a.ecsv", format="ascii.ecsv")
    assert "coverage" in refused(tmp_path / "a.ecsv")


def test_a_unit_that_is_no_flux_is_refused(tmp_path: Path) -> None:
    source = Table({"ra_deg": [1.0], "dec_deg": [0.5], "flux_mjy": [2.0] * u.K})
    source.write(tmp_path / "a.ecsv", format="ascii.ecsv")
    assert "flux_mjy is in K" in refused(tmp_path / "a.ecsv")


def vizier(**changes: object) -> Table:
    columns: dict[str, object] = {
        "RAJ2000": ["00 00 01.50", "12 30 49.40", "23 59 59.99"],
        "DEJ2000": ["-00 30 00.0", "+12 23 28.0", "-40 00 36.0"],
        "S1.4": [10.0, 20.0, 30.0],
        "e_S1.4": [0.5, 0.6, 0.7],
        "l_MajAxis": ["<", "", ""],
        "MajAxis": [26.5, 40.0, 30.0],
        "l_MinAxis": ["<", "<", ""],
        "MinAxis": [22.0, 18.0, 15.0],
        "PA": [np.nan, -35.0, 47.0],
    }
    columns.update(changes)
    return Table({name: values for name, values in columns.items() if values is not None})


@pytest.mark.parametrize("suffix", ["fits", "csv"])
def test_vizier_limits_are_not_sizes(tmp_path: Path, suffix: str) -> None:
    vizier().write(tmp_path / f"a.{suffix}")
    table = read_catalog(tmp_path / f"a.{suffix}")
    assert table.meta["columns"] == "vizier"
    assert table["ra_deg"] == pytest.approx([0.00625, 187.7058333333, 359.9999583333])
    assert table["dec_deg"] == pytest.approx([-0.5, 12.3911111111, -40.01])
    assert table["major_arcsec"].tolist() == [0.0, 40.0, 30.0]
    assert table["minor_arcsec"].tolist() == [0.0, 0.0, 15.0]
    assert table["pa_deg"].tolist() == [0.0, -35.0, 47.0]
    assert table["flux_err_mjy"] == pytest.approx([0.5, 0.6, 0.7])


def test_vizier_decimal_positions(tmp_path: Path) -> None:
    vizier(RAJ2000=[1.0, 2.0, 3.0], DEJ2000=[-1.0, 2.0, 3.0]).write(tmp_path / "a.fits")
    assert read_catalog(tmp_path / "a.fits")["ra_deg"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"S1.4": None}, "lacks the column S1.4"),
        ({"l_MinAxis": None}, "l_MinAxis"),
        ({"RAJ2000": ["00 00 01.50", "12 30", "23 59 59.99"]}, "row 2"),
        ({"DEJ2000": ["-00 30 00.0", "+12 23 28.0", "12 xx 11"]}, "row 3"),
        ({"DEJ2000": ["-00 30 00.0", "+12 73 28.0", "12 10 11"]}, "row 2"),
        ({"S1.4": [1.0, np.nan, np.nan]}, "2 of 3 rows have a non-finite flux_mjy, first in row 2"),
    ],
)
def test_vizier_misfits(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    vizier(**changes).write(tmp_path / "a.fits")
    assert words in refused(tmp_path / "a.fits")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("ra_deg,dec_deg,flux_mjy\n", "no rows"),
        ("ra_deg,dec_deg,flux_mjy", "no rows"),
        ("ra_deg,flux_mjy\n1,2\n", "lacks the column dec_deg"),
        ("ra_deg,dec_deg,flux\n1,2,3\n", "lacks the column flux_mjy (or peak_jy_beam)"),
        ("<html>\n<body>no\n", "the columns of none of VizieR VIII/65, HEASARC"),
        ("ra_deg,dec_deg,flux_mjy\n1,2,3\n1,2,x\n", "'x' in row 2"),
        ("ra_deg,dec_deg,flux_mjy\n1,2,3,4\n", "row 1 has 4 cells, not 3"),
        ("ra_deg,dec_deg,flux_mjy\n1,2\n", "row 1 has 2 cells, not 3"),
        (
            "ra_deg,dec_deg,flux_mjy\n1,2,3\n1,nan,3\n1,inf,3\n",
            "2 of 3 rows have a non-finite dec_deg, first in row 2",
        ),
        (
            "ra_deg,dec_deg,flux_mjy\n1,2,3\n-1,2,3\n361,2,3\n",
            "2 of 3 rows have RA outside 0..360, first in row 2",
        ),
        (
            "ra_deg,dec_deg,flux_mjy\n1,2,3\n1,-90.1,3\n",
            "1 of 2 rows have Dec outside -90..90, first in row 2",
        ),
        ("ra_deg,dec_deg,flux_mjy\n1,2,-3\n1,2,-3\n", "2 of 2 rows have a negative flux, first in row 1"),
        ("ra_deg,dec_deg,flux_mjy,major_arcsec\n1,2,3,-4\n", "negative major_arcsec"),
        ("ra_deg,dec_deg,flux_mjy,flux_err_mjy\n1,2,3,-4\n", "negative flux error"),
        ("# %ECSV 1.0\n# ---\n# rubbish: [\n", "not a readable ECSV"),
    ],
)
def test_malformed_text_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(write(tmp_path / "a.csv", text))


def test_gzip_truncated_or_damaged(tmp_path: Path) -> None:
    packed = gzip.compress((GOOD * 1000).encode())
    path = tmp_path / "a.csv.gz"
    for data in (packed[:-20], packed[:4], packed[:40] + b"\xff" * 40 + packed[80:]):
        path.write_bytes(data)
        assert "gzip" in refused(path)


def test_gzipped_files_are_known_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(gzip.compress(GOOD.encode()))
    assert len(read_catalog(tmp_path / "a.csv")) == 2
    vizier().write(tmp_path / "a.fits")
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    assert len(read_catalog(tmp_path / "b.fits.gz")) == 3


def test_fits_truncated_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    vizier().write(path)
    whole = path.read_bytes()
    for data in (
        whole[:-2880],
        whole[:-2000],
        whole[:3000],
        whole[:100],
        whole.replace(b"TFORM2", b"TFROM2"),
    ):
        path.write_bytes(data)
        assert refused(path)


def test_fits_without_a_table(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "image.fits")
    assert "no table" in refused(tmp_path / "image.fits")


def test_wrong_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert "neither a FITS nor a text table" in refused(tmp_path / "a.png")
    assert "directory" in refused(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CatalogMissingError, match=r"gone\.csv: no such catalogue file"):
        read_catalog(tmp_path / "gone.csv")


@pytest.mark.shared_data
def test_nvss_50mjy(shared_data: Path) -> None:
    started = time.perf_counter()
    table = read_catalog(shared_data / "catalogues" / "nvss_50mjy.csv.gz")
    assert time.perf_counter() - started < 5.0  # measured: 0.14 s
    assert len(table) == 125_309
    assert np.min(table["flux_mjy"]) >= 50.0


@pytest.mark.shared_data
def test_vizier_sample(shared_data: Path) -> None:
    path = shared_data / "catalogues" / "nvss_vizier_sample.fits"
    table = read_catalog(path)
    raw = Table.read(path)
    assert len(table) == 639
    np.testing.assert_allclose(table["ra_deg"], Angle(raw["RAJ2000"], "hourangle").deg, rtol=0, atol=1e-9)
    np.testing.assert_allclose(table["dec_deg"], Angle(raw["DEJ2000"], "deg").deg, rtol=0, atol=1e-9)
    # 547 unresolved, 83 resolved in the major axis alone, 9 in both.
    assert np.count_nonzero(table["major_arcsec"] == 0.0) == 547
    assert np.count_nonzero((table["major_arcsec"] > 0.0) & (table["minor_arcsec"] == 0.0)) == 83
    assert np.count_nonzero(table["minor_arcsec"] > 0.0) == 9
