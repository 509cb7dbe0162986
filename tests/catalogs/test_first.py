"""FIRST and the merged catalogue, from the file to the cone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.calibration import catalogs as users_module
from dsa110_contimg.catalogs import query_first_sources, query_merged_nvss_first_sources, query_nvss_sources
from dsa110_contimg.catalogs.build import build_strips, catalog_info
from dsa110_contimg.catalogs.merge import FIRST_ID_OFFSET
from dsa110_contimg.catalogs.query import query_cone
from dsa110_contimg.errors import CatalogCoverageError
from tests.catalogs.files import Sources, draw, write_csv, write_first_fits


def inside(s: Sources) -> np.ndarray:
    """A cap that no interval describes: north of Dec 20, and further where RA is near 180."""
    return (s.dec_deg > 20) & (np.abs(s.ra_deg - 180) < 100 - s.dec_deg)


def chosen(s: Sources, rows: np.ndarray) -> Sources:
    return Sources(*(getattr(s, name)[rows] for name in s.__dataclass_fields__))


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    nvss = draw(60_000, seed=1)
    write_csv(folder / "nvss.csv", nvss)
    faint = draw(300_000, seed=2, dec_min=18.0)
    faint.flux[:] = np.minimum(faint.flux / 2, 2.0)
    both = [chosen(nvss, inside(nvss)), chosen(faint, inside(faint))]
    # FIRST resolves a third of the flux out.
    both[0].flux[:] *= 0.66
    joined = Sources(
        *(np.concatenate([getattr(s, name) for s in both]) for name in nvss.__dataclass_fields__)
    )
    write_first_fits(folder / "first.fits", joined)
    build_strips("nvss", folder / "nvss.csv", folder / "cat")
    build_strips("first", folder / "first.fits", folder / "cat")
    return folder / "cat"


def test_first_is_covered_by_position_not_by_declination(strips: Path) -> None:
    table = query_first_sources(180.0, 40.0, 2.0, catalog_dir=strips)
    assert len(table) > 50
    assert str(table["peak_mjy"].unit) == "mJy / beam"
    for ra, dec in ((0.0, 40.0), (300.0, 25.0), (180.0, 20.5)):
        with pytest.raises(CatalogCoverageError, match=r"is not covered: .*(footprint|no strip)"):
            query_first_sources(ra, dec, 2.0, catalog_dir=strips)
    with pytest.raises(CatalogCoverageError, match="not covered"):
        query_first_sources(180.0, 40.0, 60.0, catalog_dir=strips)


def test_rebuild_keeps_the_map(strips: Path) -> None:
    before = [info for info in catalog_info(strips) if info.catalog == "first"]
    again = build_strips("first", strips.parent / "first.fits", strips)
    assert again.built == ()
    assert list(again.kept) == before
    assert all(info.footprint is not None for info in before)


def test_merged_counts_no_flux_twice(strips: Path) -> None:
    nvss = query_nvss_sources(180.0, 40.0, 3.0, catalog_dir=strips)
    first = query_first_sources(180.0, 40.0, 3.0, catalog_dir=strips)
    merged = query_merged_nvss_first_sources(180.0, 40.0, 3.0, catalog_dir=strips)
    assert merged.meta["first_fraction"] == 1.0
    of_nvss = merged[merged["nvss_id"] > 0]
    totals = {int(k): float(of_nvss["flux_mjy"][of_nvss["nvss_id"] == k].sum()) for k in nvss["source_id"]}
    for row in nvss[nvss["separation_deg"] < 2.98]:
        assert totals[int(row["source_id"])] == pytest.approx(row["flux_mjy"])
    alone = merged[merged["nvss_id"] < 0]
    assert len(alone) > 0.9 * np.sum(first["flux_mjy"] <= 2.0)
    assert np.all(alone["source_id"] == FIRST_ID_OFFSET + alone["first_id"])
    assert merged["flux_mjy"].sum() == pytest.approx(
        nvss["flux_mjy"].sum() + alone["flux_mjy"].sum(), rel=0.02
    )


def test_merged_is_nvss_where_first_is_not(strips: Path) -> None:
    merged = query_merged_nvss_first_sources(0.0, -20.0, 3.0, catalog_dir=strips)
    nvss = query_nvss_sources(0.0, -20.0, 3.0, catalog_dir=strips)
    assert merged.meta["first_fraction"] == 0.0
    assert merged["source_id"].tolist() == nvss["source_id"].tolist()
    assert merged["flux_mjy"].tolist() == nvss["flux_mjy"].tolist()


def test_merged_does_not_depend_on_the_cone(strips: Path) -> None:
    """A source near the rim is merged as it is at the middle, also at the edge of the footprint."""
    for ra, dec in ((180.0, 40.0), (200.0, 21.0), (110.0, 30.0)):
        wide = query_merged_nvss_first_sources(ra, dec, 3.0, catalog_dir=strips)
        near = query_merged_nvss_first_sources(ra, dec, 1.5, catalog_dir=strips)
        wanted = wide[wide["separation_deg"] <= 1.5]
        assert near["source_id"].tolist() == wanted["source_id"].tolist()
        assert near["flux_mjy"].tolist() == wanted["flux_mjy"].tolist()


def test_limits_apply_to_merged_fluxes(strips: Path) -> None:
    merged = query_cone("merged", 180.0, 40.0, 3.0, catalog_dir=strips)
    limited = query_cone("merged", 180.0, 40.0, 3.0, 3.0, 7, catalog_dir=strips)
    assert limited["source_id"].tolist() == merged["source_id"][merged["flux_mjy"] >= 3.0][:7].tolist()


def test_users_import_path() -> None:
    assert users_module.query_first_sources is query_first_sources
    assert users_module.query_merged_nvss_first_sources is query_merged_nvss_first_sources
