"""What all arms are measured against."""

import shutil

import pytest
from astropy.table import Table

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.common_images import Judge
from dsa110_contimg.progress import LogProgress


@pytest.fixture
def with_first(tiny, tmp_path):
    """Strips of NVSS as drawn, and of a FIRST that lists its brightest source alone as bright."""
    shutil.copytree(tiny / "c", tmp_path / "c")
    listed = Table.read(tiny / "t.catalog.ecsv", format="ascii.ecsv")
    listed["flux_mjy"][listed["flux_mjy"] < listed["flux_mjy"].max()] = 6.0
    listed.meta["coverage"] = {"ra_min": 120.0, "ra_max": 180.0, "dec_min": 40.0, "dec_max": 70.0}
    listed.write(tmp_path / "first.ecsv", format="ascii.ecsv")
    build_strips("first", tmp_path / "first.ecsv", tmp_path / "c")
    return tmp_path


def test_sources_are_counted_in_the_catalogue_that_the_arms_use(tiny, config, with_first):
    of = {}
    for catalog in ("nvss", "first"):
        options = config.with_options(catalog_dir=with_first / "c", catalog=catalog)
        of[catalog] = Judge(tiny / "t.ms", with_first / "out", options, [], LogProgress())
    assert [of[name].reference.catalog for name in of] == ["nvss", "first"]
    counts = {name: len(judge.catalog_model(50.0)) for name, judge in of.items()}
    assert counts["first"] < counts["nvss"]
    # An arm with a catalogue of its own has that one.
    assert of["first"].catalog_model(0.0, catalog="nvss").catalog == "nvss"


def test_a_mask_radius_for_the_masked_arms_is_no_obstacle(tiny, config, tmp_path):
    options = config.with_options(catalog_mask=True, mask_radius_arcsec=90.0)
    judge = Judge(tiny / "t.ms", tmp_path / "out", options, [], LogProgress())
    assert judge.config.mask_radius_arcsec is None
