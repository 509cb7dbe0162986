"""Which survey an observation is seeded from, and what a declared coverage does to its cone."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips, cover_of, query_cone, require_strips
from dsa110_contimg.catalogs.surveys import CHOICES, SURVEYS
from dsa110_contimg.config import CatalogName
from dsa110_contimg.errors import CatalogCoverageError, CatalogMissingError, InputError

EVERYWHERE = (0.0, 360.0, -90.0, 90.0)


def write(path: Path, sources: list[tuple[float, float, float]]) -> Path:
    path.write_text("\n".join(["ra_deg,dec_deg,flux_mjy", *(f"{a},{d},{f}" for a, d, f in sources), ""]))
    return path


def test_every_survey_can_be_asked_for() -> None:
    assert get_args(CatalogName) == CHOICES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five surveys of the same point at RA 10 Dec -20, each with its own flux; RACS-low lists it as two."""
    made = tmp_path_factory.mktemp("choice")
    for name, flux in (("nvss", 100.0), ("racs-mid", 101.0), ("tgss", 500.0), ("vlass", 57.0)):
        covers = (10.0, -20.0, 4.0) if name == "tgss" else EVERYWHERE
        build_strips(name, write(made / f"{name}.csv", [(10.0, -20.0, flux)]), made, covers=covers)
    pair = [(10.001, -20.0, 90.0), (9.999, -20.0, 60.0)]
    build_strips("racs-low", write(made / "racs-low.csv", pair), made, covers=(0.0, 90.0, -40.0, 0.0))
    return made


@pytest.mark.parametrize(
    ("mhz", "ra", "chosen"),
    [
        (150, 10, "tgss"),
        (150, 30, "racs-low"),
        (850, 10, "racs-low"),
        (850, 200, "nvss"),
        (1405, 10, "nvss"),
        (1250, 10, "nvss"),
        (3500, 10, "vlass"),
        (4000, 10, "vlass"),
        (100, 10, "tgss"),
    ],
)
def test_auto_takes_what_covers_the_field_nearest_in_frequency(
    folder: Path, mhz: float, ra: float, chosen: str
) -> None:
    rows = query_cone("auto", ra, -20.0, 2.0, catalog_dir=folder, freq_hz=mhz * 1e6)
    assert (rows.meta["catalog"], rows.meta["freq_hz"]) == (chosen, SURVEYS[chosen].freq_hz)
    assert rows.meta["choice"].startswith(f"{chosen} (")


def test_merged_has_the_flux_of_the_nearest_at_the_places_of_the_sharpest(folder: Path) -> None:
    rows = query_cone("merged", 10.0, -20.0, 2.0, catalog_dir=folder, freq_hz=1.4e9)
    assert rows.meta["surveys"] == ["nvss", "vlass"]
    assert rows["flux_mjy"].tolist() == [100.0]
    assert rows["vlass_id"].tolist() == rows["nvss_id"].tolist() == [1]
    assert rows.meta["vlass_fraction"] == 1.0
    with pytest.raises(CatalogMissingError, match="sharper than vlass"):
        query_cone("merged", 10.0, -20.0, 2.0, catalog_dir=folder, freq_hz=3e9)


def test_merged_carries_the_fluxes_of_what_only_the_sharper_one_lists(tmp_path: Path) -> None:
    build_strips("nvss", write(tmp_path / "n.csv", [(10.0, 0.0, 100.0)]), tmp_path, covers=EVERYWHERE)
    two = [(10.0, 0.0, 60.0), (10.5, 0.0, 1.0)]
    build_strips("vlass", write(tmp_path / "v.csv", two), tmp_path, covers=EVERYWHERE)
    rows = query_cone("merged", 10.0, 0.0, 2.0, catalog_dir=tmp_path, freq_hz=1.4e9, spectral_index=-0.7)
    assert rows["flux_mjy"].tolist() == pytest.approx([100.0, (1.4 / 3) ** -0.7])
    require_strips("merged", tmp_path)
    require_strips("auto", tmp_path)


def test_none_that_covers_is_told_of_each(folder: Path, tmp_path: Path) -> None:
    build_strips(
        "sumss", write(tmp_path / "s.csv", [(10.0, -50.0, 9.0)]), tmp_path, covers=(10.0, -50.0, 3.0)
    )
    with pytest.raises(
        CatalogCoverageError, match=r"no catalogue covers the field \(sumss: the list covers 3 deg"
    ):
        query_cone("auto", 10.0, -51.0, 2.5, catalog_dir=tmp_path, freq_hz=1e9)
    with pytest.raises(CatalogMissingError, match="no catalogue strips"):
        query_cone("auto", 10.0, -51.0, 2.5, catalog_dir=tmp_path / "none", freq_hz=1e9)


@pytest.mark.parametrize("name", [name for name in SURVEYS if name != "nvss"])
def test_cones_of_every_survey_are_those_of_brute_force(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    dec[:200], dec[200:400] = 90 - rng.exponential(1, 200), rng.exponential(1, 200) - 90
    ra = np.round(rng.uniform(0, 360, 3000), 6)
    ra[400:600] = np.round(rng.normal(0, 0.5, 200) % 360, 6)
    source = write(tmp_path / "a.csv", list(zip(ra, np.round(dec, 6), rng.uniform(1, 9, 3000), strict=True)))
    report = build_strips(name, source, tmp_path, covers=EVERYWHERE)
    # RACS lists what overlapping images share once: rows at one place are one.
    x, y = np.radians(ra), np.radians(np.round(dec, 6))
    place = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])
    for at_ra, at_dec, radius in (
        (0.0, 0.0, 5.0),
        (0.1, 90.0, 3.0),
        (200.0, -89.5, 2.0),
        (359.99, 40.0, 20.0),
    ):
        rows = query_cone(name, at_ra, at_dec, radius, catalog_dir=tmp_path)
        u, v = np.radians(at_ra), np.radians(at_dec)
        cosine = np.array([np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), np.sin(v)]) @ place
        inside = np.flatnonzero(cosine >= np.cos(np.radians(radius))) + 1
        missing = set(inside.tolist()) - set(rows["source_id"].tolist())
        assert set(rows["source_id"].tolist()) <= set(inside.tolist())
        assert len(missing) <= 3000 - report.n_sources


@pytest.mark.parametrize("at", [(10.0, 55.0), (0.1, 89.9), (359.9, -89.0)])
def test_a_declared_circle_is_cut_to_and_refused_beyond(tmp_path: Path, at: tuple[float, float]) -> None:
    source = write(tmp_path / "a.csv", [(*at, 5.0)])
    build_strips("lotss", source, tmp_path, covers=(*at, 3.0))
    assert len(query_cone("lotss", *at, 2.999, catalog_dir=tmp_path)) == 1
    with pytest.raises(CatalogCoverageError, match="the list covers 3 deg about RA"):
        query_cone("lotss", *at, 3.1, catalog_dir=tmp_path)
    assert len(query_cone("lotss", *at, 8.0, catalog_dir=tmp_path, required_deg=2.9)) == 1
    with pytest.raises(CatalogCoverageError):
        query_cone("lotss", *at, 8.0, catalog_dir=tmp_path, required_deg=3.1)
    cover = cover_of("lotss", *at, 8.0, tmp_path)
    assert cover.declared
    # A cap of 3 degrees over one of 8.
    expected = (1 - np.cos(np.radians(3))) / (1 - np.cos(np.radians(8)))
    assert cover.fraction(*at, 8.0) == pytest.approx(expected, rel=0.06)


def test_the_same_file_declared_otherwise_is_built_again(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", [(10.0, 55.0, 5.0)])
    assert build_strips("wenss", source, tmp_path, covers=(10.0, 55.0, 3.0)).kept == ()
    assert build_strips("wenss", source, tmp_path, covers=(10.0, 55.0, 3.0)).built == ()
    assert build_strips("wenss", source, tmp_path, covers=(10.0, 55.0, 2.0)).kept == ()
    box = build_strips("wenss", source, tmp_path, covers=(350.0, 20.0, 50.0, 60.0))
    assert (box.coverage.ra_min, box.coverage.ra_width) == (350.0, 30.0)
    for wrong in ((10.0, 55.0), (10.0, 95.0, 1.0), (10.0, 55.0, 0.0), (1.0, 2.0, 5.0, 5.0)):
        with pytest.raises(InputError, match="is not a piece of sky"):
            build_strips("wenss", source, tmp_path, covers=wrong)
