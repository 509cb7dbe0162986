"""The short list of bright sources against published spectra and the catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from dsa110_contimg.catalogs.bright_sources import bright_sources
from dsa110_contimg.catalogs.column_families import read_catalog
from dsa110_contimg.catalogs.surveys import COLUMN_UNITS

# Perley & Butler (2017), table 6: log10 S/Jy as a polynomial in log10 nu/GHz; terms that matter at 1.4 GHz.
SPECTRA = {
    "Cas A": (3.3584, -0.7518, -0.035, -0.071),
    "Cyg A": (3.3498, -1.0022, -0.225, 0.023),
    "Tau A": (2.9516, -0.217, -0.047, -0.067),
    "Vir A": (2.4466, -0.8116, -0.048),
    "Pic A": (1.9380, -0.747, -0.074),
    "3C353": (1.8627, -0.6938, -0.100, -0.032),
    "3C123": (1.8017, -0.7884, -0.1035, -0.0248),
    "Her A": (1.8298, -1.0247, -0.0951),
    "Hya A": (1.7795, -0.9176, -0.084, -0.0139),
    "3C295": (1.4701, -0.7658, -0.2780, -0.0347),
    "3C147": (1.4516, -0.6961, -0.201, 0.064),
    "3C48": (1.3253, -0.7553, -0.1914, 0.0498),
    "3C286": (1.2481, -0.4507, -0.1798, 0.0357),
    "3C196": (1.2872, -0.8530, -0.153, -0.020),
    "3C380": (1.2320, -0.791, 0.095, 0.098),
}


def test_columns() -> None:
    table = bright_sources()
    assert table.colnames == ["source_id", *COLUMN_UNITS, "name", "spectral_index"]
    assert all(table[name].unit == unit for name, unit in COLUMN_UNITS.items())
    assert np.all(np.diff(table["flux_mjy"]) <= 0)
    assert np.all(table["source_id"] < 0)
    assert len(set(table["source_id"].tolist())) == len(set(table["name"].tolist())) == len(table)
    assert np.all(table["major_arcsec"] >= table["minor_arcsec"])


@pytest.mark.parametrize("name", SPECTRA)
def test_flux_and_index_are_those_published(name: str) -> None:
    row = bright_sources()[bright_sources()["name"] == name][0]
    spectrum = np.polynomial.Polynomial(SPECTRA[name])
    log_frequency = np.log10(1.4)
    # 3 per cent leaves room for the fading of Cas A since 2016.
    assert row["flux_mjy"] == pytest.approx(1e3 * 10 ** spectrum(log_frequency), rel=0.03)
    assert row["spectral_index"] == pytest.approx(spectrum.deriv()(log_frequency), abs=0.01)


@pytest.mark.shared_data
def test_positions_are_those_of_the_catalogue(shared_data: Path) -> None:
    catalogue = read_catalog(shared_data / "catalogues" / "nvss_50mjy.csv.gz")
    bright = bright_sources()
    bright = bright[bright["dec_deg"] > -40.0]
    index, separation, _ = SkyCoord(bright["ra_deg"], bright["dec_deg"]).match_to_catalog_sky(
        SkyCoord(catalogue["ra_deg"], catalogue["dec_deg"])[catalogue["flux_mjy"] > 10_000]
    )
    assert len(index) == len(bright)
    # Compact ones to the accuracy of NVSS; resolved ones to their size (NVSS lists their brightest parts).
    allowed = np.maximum(6.0, bright["major_arcsec"])
    assert np.all(separation.arcsec < allowed), bright["name"][separation.arcsec >= allowed]
    compact = bright["major_arcsec"] == 0.0
    assert np.median(separation[compact].to_value(u.arcsec)) < 1.0
