"""The VLA calibrator list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.catalogs.calibrators import build_calibrators, calibrator, read_calibrators
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, InputError

ENTRY = """IAU NAME EQUINOX  PC RA(hh,mm,ss)    DEC(ddd,mm,ss)   POS.REF ALT.NAME

1331+305   J2000  A 13h31m08.287984s  30d30'32.958850"  Aug01  3C286
1328+307   B1950  A 13h28m49.657700s  30d45'58.640000"
-----------------------------------------------------
BAND        A B C D    FLUX(Jy)    UVMIN(kL)  UVMAX(kL)
=====================================================
 20cm    L  S S P P      15.00
  2cm    U  S S S S       ?
 90cm    P  S               33           10

0003-174   J2000  T 00h03m21.9969s   -00d27'11.781"  JVAS
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "list.txt").write_text(ENTRY)
    build_calibrators(tmp_path / "list.txt", tmp_path / "cat")
    return tmp_path / "cat"


def test_position_flux_and_codes(built: Path) -> None:
    found = calibrator("1331+305", built)
    assert found.ra_deg == pytest.approx(15 * (13 + 31 / 60 + 8.287984 / 3600), abs=1e-9)
    assert found.dec_deg == pytest.approx(30 + 30 / 60 + 32.95885 / 3600, abs=1e-9)
    assert (found.position_code, found.aliases) == ("A", ("1328+307", "3C286"))
    assert found.flux_jy == {"L": 15.0, "P": 33.0}
    assert found.quality == {"L": "SSPP", "P": "S"}
    south = calibrator("0003-174", built)
    assert south.dec_deg == pytest.approx(-(27 / 60 + 11.781 / 3600))
    assert (south.flux_jy, south.aliases) == ({}, ())


@pytest.mark.parametrize("name", ["J1331+305", "1328+307", "B1328+307", " 3c286 ", "J1331+3030", "1331+3030"])
def test_every_name_of_a_source_finds_it(built: Path, name: str) -> None:
    assert calibrator(name, built).name == "1331+305"


def test_what_is_not_there(built: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"near it: 1331\+305"):
        calibrator("1331+306", built)
    # A B1950 name is no J2000 name, and the other way round.
    for name in ("J1328+307", "B1331+305"):
        with pytest.raises(InputError, match="no calibrator"):
            calibrator(name, built)
    with pytest.raises(CatalogMissingError, match="catalog build calibrators"):
        calibrator("3C286", tmp_path)
    with pytest.raises(CatalogMissingError):
        read_calibrators(tmp_path / "gone.txt")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ra,dec\n1,2\n")
    with pytest.raises(CatalogFormatError, match="no J2000 entry"):
        read_calibrators(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text(ENTRY.replace("13h31m", "13:31:"))
    with pytest.raises(CatalogFormatError, match="line 3 is not a position"):
        read_calibrators(tmp_path / "b.txt")
    (tmp_path / "vla_calibrators.ecsv").write_text("rubbish")
    with pytest.raises(CatalogFormatError, match="not the calibrator table"):
        calibrator("3C286", tmp_path)


@pytest.mark.shared_data
def test_whole_list(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "catalogues" / "vlacalibrators.txt"
    table = read_calibrators(path)
    assert len(table) == 1865
    assert len(set(table["name"])) == 1861
    listed = sum(int(np.isfinite(table[f"flux_jy_{band}"]).sum()) for band in "PLCXUKQ")
    assert listed > 5500
    build_calibrators(path, tmp_path)
    found = calibrator("0834+555", tmp_path)
    assert (found.ra_deg, found.dec_deg) == pytest.approx((128.728767154, 55.572519717), abs=1e-8)
    assert found.flux_jy["L"] == 8.8
    assert calibrator("J0834+5534", tmp_path) == found
    assert calibrator("3C48", tmp_path).name == "0137+331"
    # Listed twice, once without a flux, with places 0.1 arcsec and 5 arcmin apart.
    assert calibrator("0354+801", tmp_path).flux_jy["L"] == 0.6
    assert calibrator("1300+142", tmp_path).ra_deg == pytest.approx(195.087, abs=1e-3)
