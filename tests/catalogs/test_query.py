"""Cones: the same as brute force everywhere, and refused where nothing is known."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.calibration import catalogs as users_module
from dsa110_contimg.catalogs.build import build_strips
from dsa110_contimg.catalogs.query import query_cone, query_nvss_sources
from dsa110_contimg.catalogs.strips import STRIP_EDGES
from dsa110_contimg.errors import (
    CatalogCoverageError,
    CatalogFormatError,
    CatalogMissingError,
    InputError,
)


class Sky:
    """A whole sky of sources in a store, with many at the poles, at 0h and at the edges of strips."""

    def __init__(self, directory: Path) -> None:
        rng = np.random.default_rng(7)
        uniform = np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
        polar = np.concatenate([90.0 - rng.exponential(1.0, 400), rng.exponential(1.0, 400) - 90.0])
        edges = rng.choice(STRIP_EDGES, 200)
        near_edges = np.clip(rng.choice(STRIP_EDGES, 400) + rng.normal(0, 0.5, 400), -90, 90)
        self.dec = np.round(np.concatenate([uniform, polar, edges, near_edges, uniform[:600]]), 6)
        ra = rng.uniform(0, 360, len(self.dec))
        ra[-600:] = rng.normal(0, 0.3, 600)
        ra[-3:] = 0.0
        self.ra = np.round(ra % 360.0, 6) % 360.0
        self.flux = np.round(rng.lognormal(2, 1, len(self.dec)), 4)
        self.flux[::50] = 5.0  # ties
        self.directory = directory / "cat"
        source = directory / "sky.ecsv"
        rows = [f"{a:.6f} {d:.6f} {f:.4f}" for a, d, f in zip(self.ra, self.dec, self.flux, strict=True)]
        names = ("ra_deg", "dec_deg", "flux_mjy")
        header = [f"# - {{name: {name}, datatype: float64}}" for name in names]
        coverage = "# meta: {coverage: {ra_min: 0, ra_max: 360, dec_min: -90, dec_max: 90}}"
        source.write_text(
            "\n".join(["# %ECSV 1.0", "# ---", "# datatype:", *header, coverage, " ".join(names), *rows])
            + "\n"
        )
        build_strips("nvss", source, self.directory)

    def separation(self, ra_deg: float, dec_deg: float) -> np.ndarray:
        """Great-circle distance by cross and dot product: another formula than the one under test."""

        def unit(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
            ra, dec = np.radians(ra), np.radians(dec)
            return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)

        centre, sources = unit(np.array(ra_deg), np.array(dec_deg)), unit(self.ra, self.dec)
        return np.degrees(np.arctan2(np.linalg.norm(np.cross(sources, centre), axis=-1), sources @ centre))


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    return Sky(tmp_path_factory.mktemp("sky"))


right_ascensions = st.floats(-360, 360) | st.sampled_from([0.0, 360.0, -1e-20, 359.999999, 180.0])
declinations = st.floats(-90, 90) | st.sampled_from([*STRIP_EDGES, 0.0, 89.999999, -89.999999])
radii = st.floats(0.01, 90) | st.floats(0.01, 5) | st.sampled_from([1.0, 7.0, 12.0, 90.0])


@settings(deadline=None, max_examples=300)
@given(ra=right_ascensions, dec=declinations, radius=radii)
def test_cone_is_that_of_brute_force(sky: Sky, ra: float, dec: float, radius: float) -> None:
    table = query_nvss_sources(ra, dec, radius, catalog_dir=sky.directory)
    separation = sky.separation(ra, dec)
    found = np.zeros(len(sky.ra), dtype=bool)
    found[np.asarray(table["source_id"]) - 1] = True
    assert found.sum() == len(table)
    clear = np.abs(separation - radius) > 1e-7  # at the very rim rounding decides
    assert np.array_equal(found[clear], (separation <= radius)[clear])
    np.testing.assert_allclose(table["separation_deg"], separation[table["source_id"] - 1], rtol=0, atol=1e-7)
    assert np.all(np.diff(table["flux_mjy"]) <= 0)


@settings(deadline=None, max_examples=100)
@given(ra=right_ascensions, dec=declinations, radius=radii, limit=st.floats(0, 30), most=st.integers(1, 50))
def test_limits_come_after_the_exact_cut(
    sky: Sky, ra: float, dec: float, radius: float, limit: float, most: int
) -> None:
    everything = query_nvss_sources(ra, dec, radius, catalog_dir=sky.directory)
    limited = query_nvss_sources(ra, dec, radius, limit, most, catalog_dir=sky.directory)
    expected = [row["source_id"] for row in everything if row["flux_mjy"] >= limit][:most]
    assert limited["source_id"].tolist() == expected


def test_limit_before_the_exact_cut_would_lose_sources(tmp_path: Path) -> None:
    # The corners of the box hold the brightest sources; a LIMIT on the box would return them alone.
    ra, dec = np.meshgrid(np.linspace(-1.2, 1.2, 25), np.linspace(-1.2, 1.2, 25))
    flux = np.where(np.hypot(ra, dec) > 1.0, 1000.0, 1.0).ravel()
    rows = [f"{a % 360:.4f},{d:.4f},{f}" for a, d, f in zip(ra.ravel(), dec.ravel(), flux, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["ra_deg,dec_deg,flux_mjy", *rows]))
    build_strips("nvss", tmp_path / "a.csv", tmp_path)
    table = query_nvss_sources(0.0, 0.0, 0.95, max_sources=20, catalog_dir=tmp_path)
    assert len(table) == 20
    assert set(table["flux_mjy"].tolist()) == {1.0}


def test_right_ascension_wrap(sky: Sky) -> None:
    wanted = set(query_nvss_sources(0.0, 10.0, 3.0, catalog_dir=sky.directory)["source_id"].tolist())
    sides = [sky.ra[identifier - 1] > 180 for identifier in wanted]
    assert any(sides)
    assert not all(sides)
    for ra in (360.0, -360.0, -1e-20):
        assert (
            set(query_nvss_sources(ra, 10.0, 3.0, catalog_dir=sky.directory)["source_id"].tolist()) == wanted
        )


@pytest.mark.parametrize("dec", [89.5, -89.5, 90.0, -90.0])
def test_poles_take_the_whole_circle(sky: Sky, dec: float) -> None:
    table = query_nvss_sources(12.0, dec, 2.0, catalog_dir=sky.directory)
    assert len(table) == np.sum(sky.separation(12.0, dec) <= 2.0)
    assert np.ptp(table["ra_deg"]) > 300.0


def test_half_width_is_that_of_the_tangent_meridian(tmp_path: Path, sky: Sky) -> None:
    # At Dec 80 a cone of 8 deg reaches 53.3 deg in RA; r / cos dec would stop at 46.1.
    far = np.degrees(np.arcsin(np.sin(np.radians(8.0)) / np.cos(np.radians(80.0))))
    tangent = np.degrees(np.arcsin(np.sin(np.radians(80.0)) / np.cos(np.radians(8.0))))
    coverage = "# meta: {coverage: {ra_min: 0, ra_max: 360, dec_min: 60, dec_max: 90}}"
    names = ("ra_deg", "dec_deg", "flux_mjy")
    header = [f"# - {{name: {name}, datatype: float64}}" for name in names]
    lines = ["# %ECSV 1.0", "# ---", "# datatype:", *header, coverage, " ".join(names)]
    lines.append(f"{100.0 + far - 0.001} {tangent} 5")
    (tmp_path / "a.ecsv").write_text("\n".join(lines) + "\n")
    build_strips("nvss", tmp_path / "a.ecsv", tmp_path)
    assert len(query_nvss_sources(100.0, 80.0, 8.0, catalog_dir=tmp_path)) == 1


def test_strips_are_joined(sky: Sky) -> None:
    table = query_nvss_sources(100.0, 61.0, 3.0, catalog_dir=sky.directory)
    assert table.meta["strips"] == ["nvss_dec+55.0.sqlite3", "nvss_dec+67.0.sqlite3"]
    assert table.meta["n_strips"] == 2
    assert len(table) == np.sum(sky.separation(100.0, 61.0) <= 3.0)


def test_table_columns_units_and_meta(sky: Sky) -> None:
    table = query_nvss_sources(-260.0, 55.0, 5.0, 2.0, 7, catalog_dir=sky.directory)
    assert table.colnames == [
        *("source_id", "ra_deg", "dec_deg", "flux_mjy", "flux_err_mjy"),
        *("major_arcsec", "minor_arcsec", "pa_deg", "major_limit_arcsec", "minor_limit_arcsec"),
        "separation_deg",
    ]
    assert str(table["flux_mjy"].unit) == "mJy"
    assert str(table["separation_deg"].unit) == "deg"
    assert np.isnan(table["flux_err_mjy"]).all()
    meta = table.meta
    assert (meta["catalog"], meta["ra_deg"], meta["dec_deg"], meta["radius_deg"]) == (
        "nvss",
        100.0,
        55.0,
        5.0,
    )
    assert (meta["min_flux_mjy"], meta["max_sources"]) == (2.0, 7)
    assert meta["notes"] == ["sizes are not known: all sources are taken as points"]
    assert meta["faintest_mjy"] <= np.min(sky.flux[(sky.dec >= 49) & (sky.dec < 61)])
    other = query_nvss_sources(200.0, 55.0, 1.0, catalog_dir=sky.directory)
    assert len(meta["catalog_hash"]) == 64
    assert other.meta["catalog_hash"] == meta["catalog_hash"]
    assert (
        query_nvss_sources(200.0, 61.0, 1.0, catalog_dir=sky.directory).meta["catalog_hash"]
        != meta["catalog_hash"]
    )


def test_notes_tell_of_peaks_and_of_a_limit_that_selects_every_row(tmp_path: Path) -> None:
    coverage = "# meta: {coverage: {ra_min: 10, ra_max: 20, dec_min: 50, dec_max: 60}}"
    names = ("ra_deg", "dec_deg", "peak_jy_beam", "major_arcsec", "minor_arcsec", "pa_deg")
    header = [f"# - {{name: {name}, datatype: float64}}" for name in names]
    lines = ["# %ECSV 1.0", "# ---", "# datatype:", *header, coverage, " ".join(names), "15 55 0.004 0 0 0"]
    (tmp_path / "a.ecsv").write_text("\n".join(lines) + "\n")
    report = build_strips("nvss", tmp_path / "a.ecsv", tmp_path)
    assert report.notes == ("fluxes are peaks: extended sources have more",)
    assert build_strips("nvss", tmp_path / "a.ecsv", tmp_path).notes == report.notes
    for limit, told in ((None, 1), (4.0, 1), (0.1, 2)):
        notes = query_nvss_sources(15.0, 55.0, 1.0, limit, catalog_dir=tmp_path).meta["notes"]
        assert notes[0] == report.notes[0]
        assert len(notes) == told
    assert notes[1] == "a limit of 0.1 mJy selects every row: the faintest of these strips has 4 mJy"


def test_empty_cone_keeps_its_columns(sky: Sky) -> None:
    table = query_nvss_sources(100.0, 55.0, 1.0, 1e9, catalog_dir=sky.directory)
    assert len(table) == 0
    assert str(table["ra_deg"].unit) == "deg"


def test_missing_database_is_an_error_not_an_empty_sky(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(CatalogMissingError, match="contimg catalog build nvss"):
            query_nvss_sources(10.0, 55.0, 1.0, catalog_dir=directory)


def test_directory_from_the_environment(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTIMG_CATALOG_DIR", str(sky.directory))
    assert len(query_nvss_sources(0.0, 10.0, 3.0)) > 0


def regional(directory: Path, ra: tuple[float, float], dec: tuple[float, float]) -> Path:
    rng = np.random.default_rng(3)
    n = 3000
    rows = [
        f"{a % 360:.6f},{d:.6f},5" for a, d in zip(rng.uniform(*ra, n), rng.uniform(*dec, n), strict=True)
    ]
    (directory / "region.csv").write_text("\n".join(["ra_deg,dec_deg,flux_mjy", *rows]))
    build_strips("nvss", directory / "region.csv", directory)
    return directory


def test_uncovered_part_is_refused(tmp_path: Path) -> None:
    regional(tmp_path, (-10, 10), (50, 60))
    assert len(query_nvss_sources(0.0, 55.0, 4.0, catalog_dir=tmp_path)) > 0
    assert len(query_nvss_sources(355.0, 55.0, 2.0, catalog_dir=tmp_path)) > 0
    for ra, dec, words in [
        (0.0, 58.0, r"Dec 60\.0\d to 61.00 is missing, Dec 61.00 to 62.00 has no strip"),
        (0.0, 52.0, "Dec 48.00 to 49.00 has no strip, Dec 49.00 to 50.00 is missing"),
        (
            8.0,
            55.0,
            r"Dec 51.00 to 59.00 is there for RA 3\d+\.\d+ to 10\.\d+ only, not for all of 1\.\d+ to 14",
        ),
        (180.0, 55.0, "for RA"),
        (0.0, -60.0, "survey ends at Dec -40"),
    ]:
        with pytest.raises(CatalogCoverageError, match=words) as caught:
            query_nvss_sources(ra, dec, 4.0, catalog_dir=tmp_path)
        assert "\n" not in str(caught.value)


def test_polar_cone_needs_the_whole_circle(tmp_path: Path) -> None:
    regional(tmp_path, (0, 100), (70, 90))
    with pytest.raises(CatalogCoverageError, match="for RA"):
        query_nvss_sources(50.0, 89.0, 2.0, catalog_dir=tmp_path)


def test_damaged_strip(tmp_path: Path) -> None:
    (tmp_path / "nvss_dec+55.0.sqlite3").write_bytes(b"rubbish" * 1000)
    with pytest.raises(CatalogFormatError, match="not a readable catalogue strip"):
        query_nvss_sources(10.0, 55.0, 1.0, catalog_dir=tmp_path)


def test_read_only_directory_with_odd_characters(tmp_path: Path) -> None:
    directory = tmp_path / "a b?c#d%e"
    directory.mkdir()
    regional(directory, (-10, 10), (50, 60))
    for path in directory.iterdir():
        path.chmod(stat.S_IRUSR)
    directory.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert len(query_nvss_sources(0.0, 55.0, 4.0, catalog_dir=directory)) > 0
    finally:
        directory.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ((float("nan"), 0.0, 1.0), "ra_deg"),
        ((float("inf"), 0.0, 1.0), "ra_deg"),
        ((400.0, 0.0, 1.0), "ra_deg"),
        ((-361.0, 0.0, 1.0), "ra_deg"),
        ((0.0, 90.5, 1.0), "dec_deg"),
        ((0.0, float("nan"), 1.0), "dec_deg"),
        ((0.0, 0.0, 0.0), "radius_deg"),
        ((0.0, 0.0, -1.0), "radius_deg"),
        ((0.0, 0.0, 90.1), "radius_deg"),
        ((0.0, 0.0, float("nan")), "radius_deg"),
        ((0.0, 0.0, 1.0, float("nan")), "min_flux_mjy"),
        ((0.0, 0.0, 1.0, None, 0), "max_sources"),
    ],
)
def test_bad_arguments(sky: Sky, arguments: tuple[float, ...], where: str) -> None:
    with pytest.raises(InputError) as caught:
        query_nvss_sources(*arguments, catalog_dir=sky.directory)
    assert caught.value.where == where


def test_unknown_catalogue(sky: Sky) -> None:
    with pytest.raises(InputError, match="unknown catalogue 'vlssr'"):
        query_cone("vlssr", 0.0, 0.0, 1.0, catalog_dir=sky.directory)


def test_users_import_path() -> None:
    assert users_module.query_nvss_sources is query_nvss_sources


@pytest.mark.shared_data
def test_real_sample_refuses_what_it_does_not_hold(shared_data: Path, tmp_path: Path) -> None:
    build_strips("nvss", shared_data / "catalogues" / "nvss_vizier_sample.fits", tmp_path)
    assert len(query_nvss_sources(97.5, -31.5, 0.45, catalog_dir=tmp_path)) > 20
    with pytest.raises(CatalogCoverageError):
        query_nvss_sources(150.0, -31.5, 0.45, catalog_dir=tmp_path)
    with pytest.raises(CatalogCoverageError):
        query_nvss_sources(97.5, -31.5, 0.6, catalog_dir=tmp_path)


@pytest.mark.shared_data
def test_real_field_is_found(shared_data: Path, tmp_path: Path) -> None:
    build_strips("nvss", shared_data / "catalogues" / "nvss_50mjy.csv.gz", tmp_path)
    table = query_nvss_sources(230.5, 5.0667, 0.7, catalog_dir=tmp_path)
    assert table["flux_mjy"][0] > 1000.0
    assert np.any(np.abs(table["flux_mjy"] - 82.9) < 0.5)
