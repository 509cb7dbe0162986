"""Strips: what is written, what it claims to cover, and what a killed or repeated build does."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from dsa110_contimg.catalogs import build as store
from dsa110_contimg.catalogs import strips
from dsa110_contimg.catalogs.build import build_strips, catalog_info
from dsa110_contimg.catalogs.coverage import Coverage, measure_coverage
from dsa110_contimg.catalogs.query import query_cone
from dsa110_contimg.catalogs.strips import STRIP_EDGES
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, InputError, ResourceError
from dsa110_contimg.progress import LogProgress

T = TypeVar("T")


def sample(
    n: int, ra: tuple[float, float], dec: tuple[float, float], seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Draw n positions uniform in area; ``ra`` may run below 0."""
    rng = np.random.default_rng(seed)
    sines = rng.uniform(*np.sin(np.radians(dec)), n)
    return rng.uniform(*ra, n) % 360.0, np.degrees(np.arcsin(sines))


def write_csv(path: Path, ra: np.ndarray, dec: np.ndarray, flux: float = 10.0) -> Path:
    rows = [f"{a:.6f},{d:.6f},{flux}" for a, d in zip(ra, dec, strict=True)]
    path.write_text("\n".join(["ra_deg,dec_deg,flux_mjy", *rows]) + "\n")
    return path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


def test_strip_edges_and_names() -> None:
    assert STRIP_EDGES == (-90, -83, -71, -59, -47, -35, -23, -11, 1, 13, 25, 37, 49, 61, 73, 85, 90)
    names = [store.strip_path(Path(), "nvss", strip).name for strip in range(len(STRIP_EDGES) - 1)]
    assert names[0] == "nvss_dec-86.5.sqlite3"
    assert names[7] == "nvss_dec-5.0.sqlite3"
    assert names[12] == "nvss_dec+55.0.sqlite3"
    assert names[-1] == "nvss_dec+87.5.sqlite3"


def test_schema_and_meta(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", *sample(400, (30, 40), (50, 60)))
    report = build_strips("nvss", source, tmp_path / "cat")
    (info,) = report.built
    with closing(sqlite3.connect(info.path)) as database:
        columns = [(row[1], row[2], row[5]) for row in database.execute("PRAGMA table_info(sources)")]
        meta = dict(database.execute("SELECT key, value FROM meta"))
        rows = database.execute("SELECT * FROM sources").fetchall()
        blocks = b"".join(block for (block,) in database.execute("SELECT rows FROM cells"))
    assert columns[0] == ("source_id", "INTEGER", 1)
    names = ["ra_deg", "dec_deg", "flux_mjy", "flux_err_mjy", "major_arcsec", "minor_arcsec", "pa_deg"]
    names += ["major_limit_arcsec", "minor_limit_arcsec"]
    assert [(name, kind) for name, kind, _ in columns[1:]] == [(name, "REAL") for name in names]
    cells = np.frombuffer(blocks, "<f8").reshape(400, 10)
    np.testing.assert_array_equal(cells[np.argsort(cells[:, 0])], np.array(rows, dtype=float))
    assert json.loads(meta["cell_columns"]) == ["source_id", *names]
    needed = {"dec_min", "dec_max", "ra_min", "ra_max", "n_sources", "source_name", "source_sha256"}
    assert needed | {"build_time", "format_version", "completeness_mjy"} <= set(meta)
    assert meta["n_sources"] == "400"
    assert info.faintest_mjy == 10.0
    assert catalog_info(tmp_path / "cat") == [info]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("n", "ra", "dec"),
    [
        (639, (90, 105), (-32, -31)),
        (60, (-5, 5), (52, 58)),
        (3000, (-20, 200), (0, 60)),
        (20, (10, 14), (54, 56)),
    ],
)
def test_regional_coverage_is_neither_short_nor_generous(
    n: int, ra: tuple[float, float], dec: tuple[float, float], seed: int
) -> None:
    found = measure_coverage(*sample(n, ra, dec, seed))
    # Each end is found to within a few mean gaps, and never claimed further out than one.
    gap = (ra[1] - ra[0]) / n
    assert -8 * gap < (found.ra_min - ra[0] + 180) % 360 - 180 + gap < 8 * gap
    assert -8 * gap < (ra[1] - found.ra_max + 180) % 360 - 180 + gap < 8 * gap
    gap = 1.5 * (dec[1] - dec[0]) / n
    assert -2 * gap < found.dec_min - dec[0] < 8 * gap
    assert -2 * gap < dec[1] - found.dec_max < 8 * gap


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [300, 5000, 100_000])
def test_whole_sky_is_seen_as_whole(n: int, seed: int) -> None:
    found = measure_coverage(*sample(n, (0, 360), (-40, 90), seed))
    assert (found.ra_min, found.ra_max) == (0.0, 360.0)
    if n > 5000:
        assert found.dec_max == 90.0
        assert found.dec_min == pytest.approx(-40.0, abs=0.05)


def test_polar_cap_of_a_sparse_region_is_not_claimed() -> None:
    assert measure_coverage(*sample(100, (0, 360), (60, 80))).dec_max < 81.0


def test_one_source_covers_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to build"):
        build_strips("nvss", write_csv(tmp_path / "a.csv", np.array([10.0]), np.array([55.0])), tmp_path)


@pytest.mark.parametrize("axis", ["RA", "Dec"])
def test_several_regions_in_one_file_are_refused(tmp_path: Path, axis: str) -> None:
    first = sample(300, (10, 20), (0, 10))
    second = sample(300, (50, 60), (0, 10)) if axis == "RA" else sample(300, (10, 20), (40, 50))
    source = write_csv(
        tmp_path / "a.csv", *(np.concatenate(pair) for pair in zip(first, second, strict=True))
    )
    with pytest.raises(CatalogFormatError, match=rf"a\.csv: no source in {axis}"):
        build_strips("nvss", source, tmp_path / "cat")


def test_survey_floor(tmp_path: Path) -> None:
    rim = write_csv(tmp_path / "rim.csv", *sample(3000, (0, 360), (-40.4, -20)))
    assert build_strips("nvss", rim, tmp_path / "a").coverage.dec_min == -40.0
    deep = write_csv(tmp_path / "deep.csv", *sample(3000, (0, 360), (-60, -20)))
    assert build_strips("nvss", deep, tmp_path / "b").coverage.dec_min == pytest.approx(-60.0, abs=0.1)


def test_declared_coverage_is_believed(tmp_path: Path) -> None:
    source = tmp_path / "a.ecsv"
    source.write_text(
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ra_deg, datatype: float64}\n"
        "# - {name: dec_deg, datatype: float64}\n# - {name: flux_mjy, datatype: float64}\n"
        "# meta: {coverage: {ra_min: 350, ra_max: 10, dec_min: 45, dec_max: 55}}\n"
        "ra_deg dec_deg flux_mjy\n1.0 50.0 3.0\n"
    )
    report = build_strips("nvss", source, tmp_path / "cat")
    assert [(info.dec_min, info.dec_max, info.n_sources) for info in report.built] == [
        (45, 49, 0),
        (49, 55, 1),
    ]
    assert len(query_cone("nvss", 0.0, 50.0, 4.0, catalog_dir=tmp_path / "cat")) == 1


def test_edge_source_is_in_one_strip_only(tmp_path: Path) -> None:
    ra, dec = sample(2000, (0, 360), (30, 90))
    dec[:4] = [49.0, 61.0, 85.0, 90.0]
    report = build_strips("nvss", write_csv(tmp_path / "a.csv", ra, dec), tmp_path / "cat")
    assert report.n_sources == 2000
    assert len(query_cone("nvss", 0.0, 90.0, 50.0, catalog_dir=tmp_path / "cat")) == np.sum(dec >= 40.0)


def test_dec_range_clips(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", *sample(3000, (0, 360), (30, 90)))
    report = build_strips("nvss", source, tmp_path / "cat", dec_range=(52.0, 64.0))
    assert [(info.dec_min, info.dec_max) for info in report.built] == [(52.0, 61.0), (61.0, 64.0)]
    with pytest.raises(InputError, match="nothing to build"):
        build_strips("nvss", source, tmp_path / "cat", dec_range=(-30.0, 0.0))
    with pytest.raises(InputError, match="declination range"):
        build_strips("nvss", source, tmp_path / "cat", dec_range=(10.0, 5.0))


def test_rebuild_is_a_no_op_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_csv(tmp_path / "a.csv", *sample(3000, (0, 360), (30, 90)))
    first = build_strips("nvss", source, tmp_path / "cat")
    before = contents(tmp_path / "cat")
    with monkeypatch.context() as patch:
        patch.setattr(store, "read_catalog", None)
        again = build_strips("nvss", source, tmp_path / "cat")
        narrower = build_strips("nvss", source, tmp_path / "cat", dec_range=(52.0, 64.0))
    assert again.built == narrower.built == ()
    assert again.kept == first.built
    assert again.coverage == first.coverage
    assert contents(tmp_path / "cat") == before


def test_changed_source_or_wider_range_is_rebuilt(tmp_path: Path) -> None:
    ra, dec = sample(3000, (0, 360), (30, 90))
    source = write_csv(tmp_path / "a.csv", ra, dec)
    build_strips("nvss", source, tmp_path / "cat", dec_range=(52.0, 64.0))
    wider = build_strips("nvss", source, tmp_path / "cat", dec_range=(49.0, 64.0))
    assert (len(wider.built), len(wider.kept)) == (1, 1)
    changed = build_strips(
        "nvss", write_csv(source, ra, dec, flux=11.0), tmp_path / "cat", dec_range=(49, 64)
    )
    assert (len(changed.built), len(changed.kept)) == (2, 0)
    assert changed.source_sha256 != wider.source_sha256


def test_missing_strip_of_a_finished_build_is_made_again(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", *sample(3000, (0, 360), (30, 90)))
    first = build_strips("nvss", source, tmp_path / "cat")
    first.built[2].path.unlink()
    first.built[3].path.write_bytes(b"damaged")
    again = build_strips("nvss", source, tmp_path / "cat")
    assert [info.path for info in again.built] == [info.path for info in first.built[2:4]]


def test_build_killed_in_the_middle_leaves_the_old_store(tmp_path: Path) -> None:
    ra, dec = sample(3000, (0, 360), (30, 90))
    build_strips("nvss", write_csv(tmp_path / "a.csv", ra, dec), tmp_path / "cat")
    before = contents(tmp_path / "cat")
    new = write_csv(tmp_path / "b.csv", ra, dec, flux=20.0)
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom dsa110_contimg.catalogs import build, strips\n"
        "strips._verify = lambda path, rows: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"build.build_strips('nvss', Path({str(new)!r}), Path({str(tmp_path / 'cat')!r}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    leftovers = list((tmp_path / "cat").glob(".*.tmp"))
    assert len(leftovers) == 1
    assert contents(tmp_path / "cat") == before
    assert query_cone("nvss", 10.0, 50.0, 5.0, catalog_dir=tmp_path / "cat")["flux_mjy"][0] == 10.0
    # The same command again finishes, and clears what was left.
    assert len(build_strips("nvss", new, tmp_path / "cat").kept) == 0
    assert query_cone("nvss", 10.0, 50.0, 5.0, catalog_dir=tmp_path / "cat")["flux_mjy"][0] == 20.0
    assert not list((tmp_path / "cat").glob(".*.tmp"))


def test_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_csv(tmp_path / "a.csv", *sample(300, (0, 360), (30, 90)))

    def full(path: Path, rows: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(strips, "_verify", full)
    with pytest.raises(ResourceError, match="No space left"):
        build_strips("nvss", source, tmp_path / "cat")
    assert [path.name for path in (tmp_path / "cat").iterdir()] == [".nvss.lock"]


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", *sample(300, (0, 360), (30, 90)))
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError):
        build_strips("nvss", source, tmp_path / "file" / "cat")


class Counting(LogProgress):
    """Counts what is tracked."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, int]] = {}

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        for done, item in enumerate(items, 1):
            self.seen[label] = (done, total)
            yield item


def test_progress_follows_the_file_and_the_strips(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", *sample(100_000, (0, 360), (30, 90)))
    progress = Counting()
    build_strips("nvss", source, tmp_path / "cat", progress=progress)
    megabytes = source.stat().st_size // (1 << 20) + 1
    assert megabytes > 2
    assert progress.seen == {"reading a.csv": (megabytes, megabytes), "writing strips": (6, 6)}


def test_unknown_catalogue_and_missing_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown catalogue 'vlssr'"):
        build_strips("vlssr", tmp_path / "a.csv", tmp_path)
    with pytest.raises(CatalogMissingError):
        build_strips("nvss", tmp_path / "a.csv", tmp_path)


def test_catalog_info_of_nothing_and_of_rubbish(tmp_path: Path) -> None:
    assert catalog_info(tmp_path / "none") == []
    (tmp_path / "nvss_dec+55.0.sqlite3").write_bytes(b"rubbish" * 1000)
    with pytest.raises(CatalogFormatError, match="not a readable catalogue strip"):
        catalog_info(tmp_path)


def test_strip_of_another_format_version(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", *sample(300, (30, 40), (50, 60)))
    (info,) = build_strips("nvss", source, tmp_path / "cat").built
    with closing(sqlite3.connect(info.path)) as database, database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'format_version'")
    with pytest.raises(CatalogFormatError, match="format 99"):
        catalog_info(tmp_path / "cat")


def test_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTIMG_CATALOG_DIR", raising=False)
    assert store.default_catalog_dir() == Path("state/catalogs")
    monkeypatch.setenv("CONTIMG_CATALOG_DIR", "/somewhere")
    assert store.default_catalog_dir() == Path("/somewhere")


@pytest.mark.shared_data
def test_whole_nvss(shared_data: Path, tmp_path: Path) -> None:
    report = build_strips("nvss", shared_data / "catalogues" / "nvss_50mjy.csv.gz", tmp_path)
    assert report.coverage == Coverage(0.0, 360.0, -40.0, 90.0)
    assert report.n_sources == 125_309
    assert len(report.built) == 12


@pytest.mark.shared_data
def test_vizier_sample_claims_only_what_it_holds(shared_data: Path, tmp_path: Path) -> None:
    coverage = build_strips("nvss", shared_data / "catalogues" / "nvss_vizier_sample.fits", tmp_path).coverage
    assert coverage.ra_min == pytest.approx(90.0, abs=0.05)
    assert coverage.ra_max == pytest.approx(105.0, abs=0.05)
    assert (coverage.dec_min, coverage.dec_max) == pytest.approx((-32.0, -31.0), abs=0.01)
