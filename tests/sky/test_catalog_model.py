"""The seed: real NVSS about NGC 5921, and made-up skies for every option."""

import re
import shutil

import numpy as np
import pytest

from dsa110_contimg.catalogs.build import build_strips
from dsa110_contimg.errors import CatalogCoverageError, CatalogMissingError, SeedError
from dsa110_contimg.simulate.population import write_catalog
from dsa110_contimg.sky import (
    AiryBeam,
    SkyModel,
    angular_separation,
    beam_for_antenna,
    build_catalog_model,
    far_bright_sources,
)
from dsa110_contimg.sky.apparent_sky import mean_apparent_flux

RA, DEC = np.radians(15 * (15 + 22 / 60)), np.radians(5 + 4 / 60)
FREQ = 1.4134e9 + 24.4e3 * np.arange(5)
VLA = beam_for_antenna("VLA", 25.0)


@pytest.fixture(scope="module")
def nvss(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvss")
    build_strips("nvss", shared_data / "catalogues" / "nvss_50mjy.csv.gz", folder, dec_range=(-10, 20))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three sources at RA 150 Dec +54.57: at the centre, at one degree, and at the first null."""
    folder = tmp_path_factory.mktemp("made")
    null = np.degrees(AiryBeam(4.65).null_rad(1.405e9))
    dec = np.radians([54.57, 55.57, 54.57 - null])
    sky = SkyModel.points(np.full(3, np.radians(150.0)), dec, np.array([0.005, 0.1, 4.0]))
    write_catalog(folder / "sky.ecsv", sky, 40.0, 70.0)
    build_strips("nvss", folder / "sky.ecsv", folder)
    return folder


def seed_of(made, **options):
    options = {
        "catalog_dir": made,
        "beam": AiryBeam(4.65),
        "freq_hz": np.linspace(1.32e9, 1.49e9, 8),
    } | options
    return build_catalog_model(np.radians([150.0, 54.57]), **options)


def distance_deg(seed, ra=RA, dec=DEC):
    return np.degrees(angular_separation(seed.sky.ra_rad, seed.sky.dec_rad, ra, dec))


def test_brightest_seed_of_ngc5921_is_the_source_in_the_beam(nvss):
    seed = build_catalog_model(np.array([RA, DEC]), FREQ, VLA, catalog_dir=nvss)
    assert 1e3 * seed.sky.flux_jy[0] == pytest.approx(82.9, abs=0.1)
    assert distance_deg(seed)[0] == pytest.approx(0.094, abs=0.001)
    assert 1e3 * seed.apparent_jy[0] == pytest.approx(75, abs=3)
    assert (np.diff(seed.apparent_jy) <= 0).all()


def test_four_jansky_in_the_null_of_ngc5921_enter_with_millijanskys(nvss):
    seed = build_catalog_model(np.array([RA, DEC]), FREQ, VLA, catalog_dir=nvss, min_apparent_mjy=0.0)
    (strong,) = np.flatnonzero(np.isclose(distance_deg(seed), 0.592, atol=0.002) & (seed.sky.flux_jy > 3.9))
    assert seed.sky.flux_jy[strong] == pytest.approx(4.03, abs=0.01)
    assert seed.apparent_jy[strong] < 0.020


def test_apparent_flux_is_catalogue_flux_times_spectrum_times_beam(nvss):
    seed = build_catalog_model(np.array([RA, DEC]), FREQ, VLA, catalog_dir=nvss)
    freq = np.array([1.3e9, 1.5e9])
    ra, dec = RA + 0.002, DEC - 0.001
    theta = angular_separation(seed.sky.ra_rad, seed.sky.dec_rad, ra, dec)
    expected = seed.sky.flux_jy[:, None] * (freq / 1.4e9) ** -0.75 * VLA.power(theta, freq)
    np.testing.assert_allclose(seed.apparent_flux(freq, ra, dec), expected, rtol=1e-6)
    np.testing.assert_allclose(
        seed.apparent_flux(np.array([seed.freq_hz]), RA, DEC)[:, 0], seed.apparent_jy, rtol=1e-6
    )


def test_seed_knows_its_catalogue(nvss):
    seed = build_catalog_model(np.array([RA, DEC]), FREQ, VLA, catalog_dir=nvss)
    assert seed.catalog == "nvss"
    assert len(seed.catalog_hash) >= 16
    assert all(name.startswith("nvss") for name in seed.sky.name)


def test_far_bright_sources_come_in_by_their_apparent_flux(nvss):
    # Virgo A at 41 degrees: 212 Jy times the far sidelobes of a small dish.
    seed = build_catalog_model(
        np.array([RA, DEC]), FREQ, AiryBeam(4.65), catalog_dir=nvss, min_apparent_mjy=0.01
    )
    far = [n for n in seed.sky.name if not n.startswith("nvss")]
    assert "Vir_A" in far
    assert distance_deg(seed).max() < 90


def test_far_sources_leave_out_the_near_ones():
    everything = far_bright_sources(0.0, 0.0, 0.0)
    cyg = everything.name.index("Cyg_A")
    ra, dec = everything.ra_rad[cyg], everything.dec_rad[cyg]
    assert "Cyg_A" not in far_bright_sources(ra, dec, 0.05).name
    assert len(far_bright_sources(ra, dec, 0.05)) == len(everything) - 1


def test_trap_5_an_empty_seed_is_an_error_with_its_numbers(made):
    with pytest.raises(SeedError) as caught:
        seed_of(made, min_apparent_mjy=1e5, min_mjy=50.0)
    text = str(caught.value)
    assert "\n" not in text
    assert "2 NVSS sources above 50 mJy within" in text
    assert "none above 100000 mJy" in text
    assert "RA 150.0000 Dec +54.5700" in text


def test_trap_5_sources_that_nothing_is_seen_of_are_no_seed(made):
    dark = AiryBeam(4.65)
    seed = seed_of(made, beam=dark, min_apparent_mjy=0.0)
    assert (seed.apparent_flux(np.linspace(1.32e9, 1.49e9, 8), np.radians(150), np.radians(54.57)) > 0).all()


def test_missing_and_uncovered_catalogues_are_errors(tmp_path, made):
    with pytest.raises(CatalogMissingError):
        seed_of(tmp_path)
    with pytest.raises(CatalogCoverageError):
        build_catalog_model(np.array([1.0, np.radians(80.0)]), FREQ, AiryBeam(4.65), catalog_dir=made)


def test_a_source_in_the_null_of_the_middle_is_seen_at_the_edges_of_the_band(made):
    wide, narrow = seed_of(made), seed_of(made, freq_hz=np.array([1.4049e9, 1.4051e9]))
    assert 4.0 in np.round(wide.sky.flux_jy, 6)
    assert 4.0 not in np.round(narrow.sky.flux_jy, 6)


@pytest.mark.parametrize(
    "option",
    [
        {"beam": AiryBeam(5.5)},
        {"freq_hz": np.array([1.0e9])},
        {"min_mjy": 50.0},
        {"min_apparent_mjy": 10.0},
        {"spectral_index": 2.0},
    ],
    ids=lambda option: next(iter(option)),
)
def test_trap_6_every_option_changes_the_seed(made, option):
    plain, changed = seed_of(made), seed_of(made, **option)
    freq = np.array([1.35e9])
    a = plain.apparent_flux(freq, np.radians(150), np.radians(54.57))
    b = changed.apparent_flux(freq, np.radians(150), np.radians(54.57))
    assert a.shape != b.shape or not np.allclose(a, b, rtol=1e-3)


def test_the_catalogue_option_chooses_the_catalogue(made):
    with pytest.raises(CatalogMissingError, match="no strip of catalogue first"):
        seed_of(made, catalog="first")


def test_merged_catalogue_seeds_first_positions_with_nvss_fluxes(made, tmp_path):
    shutil.copytree(made, tmp_path / "both")
    # The source at one degree is a double of 20 arcsec to FIRST, which misses a fifth of its flux.
    ra, apart = np.radians([150.0, 150.0]), np.radians(np.array([-10.0, 10.0]) / 3600)
    double = SkyModel.points(ra, np.radians(55.57) + apart, np.array([0.06, 0.02]))
    write_catalog(tmp_path / "first.ecsv", double, 40.0, 70.0)
    build_strips("first", tmp_path / "first.ecsv", tmp_path / "both")
    seed = seed_of(tmp_path / "both", catalog="merged")
    of_first = [k for k, name in enumerate(seed.sky.name) if name.startswith("merged1000000")]
    np.testing.assert_allclose(seed.sky.flux_jy[of_first], [0.075, 0.025])
    np.testing.assert_allclose(
        np.degrees(seed.sky.dec_rad[of_first]) - 55.57, np.array([-10, 10]) / 3600, atol=1e-6
    )
    assert len(seed) == len(seed_of(made)) + 1


def test_limits_hold_for_every_source(made):
    seed = seed_of(made, min_mjy=4.0, min_apparent_mjy=2.0)
    assert 1e3 * seed.sky.flux_jy.min() >= 4.0
    assert {5.0, 100.0} <= set(np.round(1e3 * seed.sky.flux_jy, 6))


def test_written_seed_carries_apparent_fluxes_and_spectra(made, tmp_path):
    seed = seed_of(made)
    text, region = seed.write(tmp_path / "field")
    assert (text.name, region.name) == ("field-seed.txt", "field-seed.reg")
    rows = [line for line in text.read_text().splitlines()[1:] if not line.startswith("#")]
    freq = np.linspace(*seed.band_hz, 7)
    y = freq / np.mean(seed.band_hz) - 1
    for k, row in enumerate(rows):
        flux, terms = re.search(r"([^,]+),\[(.*?)\],false,", row).groups()
        found = float(flux) + sum(float(c) * y ** (i + 1) for i, c in enumerate(terms.split(",")))
        one = seed.sky.select([k])
        exact = [mean_apparent_flux(one, seed.beam, seed.pointing, np.array([f]))[0] for f in freq]
        np.testing.assert_allclose(found, exact, atol=1e-6 * seed.apparent_jy[0])
    assert len(rows) == len(seed)
    assert region.read_text().count("# text=") == len(seed)
