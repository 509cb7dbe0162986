"""Fluxes at the observed frequency with each source's own index, and what lies beyond a declared coverage."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips, cover_of
from dsa110_contimg.catalogs.source_counts import counts_above
from dsa110_contimg.errors import CatalogCoverageError
from dsa110_contimg.selfcal.findings import carried
from dsa110_contimg.simulate.population import draw_sky
from dsa110_contimg.sky import AiryBeam, angular_separation, build_catalog_model
from dsa110_contimg.sky.uncovered import uncovered_flux

DISH = AiryBeam(4.65)
SKY = (0.0, 360.0, -90.0, 90.0)


def write(path: Path, rows: list[str], more: str = "") -> Path:
    path.write_text("\n".join([f"ra_deg,dec_deg,flux_mjy{more}", *rows, ""]))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty bright sources of index -1.0 in NVSS and TGSS, one of +0.5, one that TGSS does not list."""
    made = tmp_path_factory.mktemp("spectra")
    ra = 100.0 + 0.1 * np.arange(32)
    index = np.append(np.full(30, -1.0), [0.5, 0.0])
    there = 1000.0 * (147.5 / 1400) ** index
    nvss = [f"{a:.4f},45,1000" for a in ra]
    tgss = [f"{a:.4f},45,{f:.4f}" for a, f in zip(ra[:31], there[:31], strict=True)]
    build_strips("nvss", write(made / "n.csv", nvss), made, covers=SKY)
    build_strips("tgss", write(made / "t.csv", tgss), made, covers=SKY)
    return made


def model(folder, mhz, **options):
    freq = np.linspace(0.98, 1.02, 5) * mhz * 1e6
    at = np.radians([101.5, 45.0])
    return build_catalog_model(at, freq, DISH, catalog_dir=folder, min_apparent_mjy=0.0, **options)


@pytest.mark.parametrize("mhz", [100.0, 400.0, 700.0, 1405.0, 4000.0])
def test_fluxes_follow_the_index_that_two_catalogues_tell(folder, mhz):
    seed = model(folder, mhz, catalog="auto")
    base = "tgss" if mhz < 450 else "nvss"
    assert seed.catalog == base
    flux = dict(zip(seed.sky.name, seed.sky.flux_at(np.array([mhz * 1e6]))[:, 0], strict=True))
    assert flux[f"{base}1"] == pytest.approx((mhz / 1400) ** -1.0, rel=1e-6)
    assert flux[f"{base}31"] == pytest.approx((mhz / 1400) ** 0.5, rel=1e-6)
    assert seed.spectra.origin[f"{base}1"] in ("nvss+tgss", "tgss+nvss")
    if base == "nvss":
        assert seed.spectra.origin["nvss32"] == "median nvss+tgss"
        assert flux["nvss32"] == pytest.approx((mhz / 1400) ** -1.0, rel=1e-6)
    counts = seed.spectra.counts()
    assert counts["two catalogues"] == 31
    assert f"are carried to {mhz:.0f} MHz" in seed.spectra.sentence()
    # What is predicted has the spectrum of each source over the band too.
    low, high = seed.sky.flux_at(np.array([mhz * 0.98e6, mhz * 1.02e6])).T
    steep = seed.sky.name.index(f"{base}31")
    assert high[steep] / low[steep] == pytest.approx((1.02 / 0.98) ** 0.5)


@pytest.mark.parametrize(
    ("mhz", "catalog", "known"),
    # Between the two, and beside either; far beyond both; the 32nd source is in one of them alone.
    [
        (400.0, "nvss", 31),
        (100.0, "nvss", 31),
        (400.0, "tgss", 31),
        (4000.0, "nvss", 0),
        (1000.0, "nvss", 32),
    ],
)
def test_fluxes_are_measured_near_a_catalogue_or_between_two(folder, mhz, catalog, known):
    seed = model(folder, mhz, catalog=catalog)
    names = [name for name in seed.sky.name if name in seed.spectra.origin]
    assert seed.spectra.measured(names).sum() == known
    errors = dict(zip(names, seed.spectra.flux_errors(names), strict=True))
    factor = max(mhz / (1400 if catalog == "nvss" else 147.5), (1400 if catalog == "nvss" else 147.5) / mhz)
    own = seed.spectra.error[f"{catalog}1"]
    assert errors[f"{catalog}1"] == pytest.approx(own * np.log(factor))
    if catalog == "nvss":
        assert errors["nvss32"] == pytest.approx(0.3 * np.log(factor))
    assert carried(seed).too_far == (known == 0)
    # What is not of the catalogue has the spectrum that it was given.
    assert seed.spectra.measured(["mine"]).all()


def test_the_assumed_index_is_that_of_all_on_request(folder):
    seed = model(folder, 700.0, index_from="assumed", spectral_index=-0.4)
    own = np.array([name in seed.spectra.origin for name in seed.sky.name])
    assert set(seed.sky.spectral_index[own]) == {-0.4}
    assert seed.spectra.counts()["assumed"] == own.sum() == 32
    assert seed.catalog_hash != model(folder, 700.0).catalog_hash


def test_a_damaged_strip_of_another_survey_stops_nothing(folder, tmp_path):
    made = Path(shutil.copytree(folder, tmp_path / "c"))
    for strip in made.glob("tgss*"):
        if strip.is_file():
            strip.write_bytes(b"junk")
    seed = model(made, 700.0)
    assert seed.spectra.counts()["two catalogues"] == 0
    assert any("indices are not looked for in TGSS" in note for note in seed.notes)


def test_an_index_from_the_file_is_taken(tmp_path):
    rows = ["100,45,1000,-0.6,0.05", "100.5,45,1000,,", "101,45,1000,-9,0.1"]
    source = write(tmp_path / "g.csv", rows, ",spectral_index,spectral_index_err")
    build_strips("gleam", source, tmp_path, covers=SKY)
    seed = model(tmp_path, 150.0, catalog="gleam")
    assert [seed.spectra.origin[f"gleam{k}"] for k in (1, 2, 3)] == ["file", "assumed", "assumed"]
    assert seed.sky.spectral_index[seed.sky.name.index("gleam1")] == -0.6


def test_a_circle_that_holds_the_main_beam_is_enough_and_what_is_beyond_is_told(tmp_path):
    null = float(np.degrees(DISH.null_rad(0.98 * 1.4e9)))
    source = write(tmp_path / "n.csv", ["101.5,45,1000", f"101.5,{45 + null + 0.5},90000"])
    build_strips("nvss", source, tmp_path, covers=(101.5, 45.0, null + 0.01))
    seed = model(tmp_path, 1400.0)
    assert "nvss2" not in seed.sky.name
    assert len(seed.notes) == 1
    assert "the catalogue ends inside the cone" in seed.notes[0]
    build_strips("nvss", source, tmp_path, covers=(101.5, 45.0, null - 0.05))
    with pytest.raises(CatalogCoverageError, match="the list covers"):
        model(tmp_path, 1400.0)
    build_strips("nvss", source, tmp_path, covers=(101.5, 45.0, 20.0))
    whole = model(tmp_path, 1400.0)
    assert whole.notes == ()
    assert "nvss2" in whole.sky.name


def test_what_is_beyond_is_as_much_as_drawn_skies_have_there(tmp_path):
    source = write(tmp_path / "n.csv", ["101.5,45,1000"])
    build_strips("nvss", source, tmp_path, covers=(101.5, 45.0, 2.0))
    at, radius = np.radians([[101.5, 45.0]]), np.radians(6.0)
    cover = cover_of("nvss", 101.5, 45.0, 6.0, tmp_path)
    found = uncovered_flux(cover, at, radius, DISH, 1.4e9, 0.01, -0.75)
    number, flux = [], []
    for seed in range(40):
        sky = draw_sky(np.random.default_rng(seed), *at[0], radius, 10.0)
        apart = angular_separation(sky.ra_rad, sky.dec_rad, *at[0])
        seen = (sky.flux_jy * DISH.power(apart, 1.4e9)[:, 0])[apart > np.radians(2.0)]
        number.append((seen > 0.01).sum())
        flux.append(seen[seen > 0.01].sum())
    assert found.fraction == pytest.approx(1 - (2 / 6) ** 2, rel=0.05)
    # The simulator's population is another fit to the counts: the two agree to a quarter.
    assert found.n_sources == pytest.approx(np.mean(number), rel=0.25)
    assert found.flux_jy == pytest.approx(np.mean(flux), rel=0.35)
    assert found.scatter_jy == pytest.approx(np.std(flux), rel=0.5)
    # Twice as far up the counts, fewer; at another frequency the population has another flux.
    assert uncovered_flux(cover, at, radius, DISH, 1.4e9, 0.02, -0.75).n_sources < found.n_sources
    assert counts_above(0.01) > counts_above(0.02)
