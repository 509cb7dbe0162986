"""What becomes of a store when builds die, meet, or find an old one; and who can read it."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.catalogs import strips
from dsa110_contimg.catalogs.build import build_strips, catalog_info, migrate_strips
from dsa110_contimg.catalogs.query import query_cone, query_nvss_sources
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, ResourceError
from tests.catalogs.files import BUILDS, draw, write_csv


def whole(path: Path) -> tuple[int, float]:
    """Read a strip in full; return its number of rows and the flux of all."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        n, flux = database.execute("SELECT count(*), total(flux_mjy) FROM sources").fetchone()
        blocks = b"".join(block for (block,) in database.execute("SELECT rows FROM cells"))
    cells = np.frombuffer(blocks, "<f8").reshape(-1, 10)
    assert len(cells) == n
    assert cells[:, 3].sum() == pytest.approx(flux)
    return n, round(flux, 3)


def test_kill_at_any_moment_then_build_again(tmp_path: Path) -> None:
    strips, allowed, sources = tmp_path / "cat", {}, []
    for k in range(2):
        sources.append(tmp_path / f"{k}.csv")
        write_csv(sources[k], draw(10_000, seed=k))
        started = time.monotonic()
        build_strips("nvss", sources[k], strips)
        seconds = time.monotonic() - started
        for path in strips.glob("nvss_*"):
            allowed.setdefault(path.name, set()).add(whole(path))
    stop, wrong, reads = threading.Event(), [], [0]

    def read() -> None:
        while not stop.is_set():
            for path in strips.glob("nvss_*"):
                try:
                    assert whole(path) in allowed[path.name]
                except Exception as error:  # told below, in the main thread
                    wrong.append(f"{path.name}: {error}")
                reads[0] += 1

    reader = threading.Thread(target=read)
    reader.start()
    draws, killed = random.Random(4), 0
    command = [sys.executable, "-c", BUILDS]
    builder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert builder.stdin is not None
    assert builder.stdout is not None
    try:
        for k in range(6):
            builder.stdin.write(f"{sources[k % 2]}|{strips}\n")
            builder.stdin.flush()
            pid = int(builder.stdout.readline())
            time.sleep(draws.uniform(0.0, seconds))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed += os.waitstatus_to_exitcode(int(builder.stdout.readline())) == -signal.SIGKILL
            assert all(whole(path) in allowed[path.name] for path in strips.glob("nvss_*"))
            report = build_strips("nvss", sources[k % 2], strips)
            assert report.n_sources == 10_000
            assert {info.source_sha256 for info in catalog_info(strips)} == {report.source_sha256}
            assert not list(strips.glob(".*.tmp"))
    finally:
        stop.set()
        reader.join()
        builder.communicate()
    assert killed >= 3
    assert not wrong
    assert reads[0] > 0


def test_two_builds_at_once_take_turns_by_a_lock_that_dies_with_its_holder(tmp_path: Path) -> None:
    source, strips = tmp_path / "a.csv", tmp_path / "cat"
    write_csv(source, draw(2000))
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom dsa110_contimg.catalogs import build\n"
        "with build._lock(Path(sys.argv[1]), 'nvss'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(strips)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ResourceError, match=f"process {holder.pid} on .* is building strips of nvss"):
            build_strips("nvss", source, strips)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert len(build_strips("nvss", source, strips).built) == 12


def test_an_open_strip_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", draw(5000, seed=1))
    write_csv(tmp_path / "b.csv", draw(5000, seed=2))
    build_strips("nvss", tmp_path / "a.csv", tmp_path / "cat")
    first = query_nvss_sources(100.0, 30.0, 5.0, catalog_dir=tmp_path / "cat")
    build_strips("nvss", tmp_path / "b.csv", tmp_path / "cat")
    second = query_nvss_sources(100.0, 30.0, 5.0, catalog_dir=tmp_path / "cat")
    assert first.meta["catalog_hash"] != second.meta["catalog_hash"]
    assert first["ra_deg"].tolist() != second["ra_deg"].tolist()


def count(strips: Path) -> int:
    return len(query_nvss_sources(100.0, 30.0, 20.0, catalog_dir=strips))


def test_read_only_mount_and_many_processes(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    disk = small_disk(30)
    write_csv(tmp_path / "a.csv", draw(5000))
    build_strips("nvss", tmp_path / "a.csv", disk / "cat")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (disk / "cat" / "x").touch()
    here = count(disk / "cat")
    assert here > 100
    # Spawned ones open the strips themselves, forked ones inherit them open.
    for method in ("spawn", "fork"):
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
            assert list(pool.map(count, [disk / "cat"] * 6)) == [here] * 6
    again = build_strips("nvss", tmp_path / "a.csv", disk / "cat")
    assert again.built == ()
    write_csv(tmp_path / "b.csv", draw(5000, seed=9))
    with pytest.raises(ResourceError, match="Read-only"):
        build_strips("nvss", tmp_path / "b.csv", disk / "cat")


def test_full_disk_leaves_the_old_store(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    disk = small_disk(4)
    write_csv(tmp_path / "a.csv", draw(3000))
    build_strips("nvss", tmp_path / "a.csv", disk / "cat")
    old = {info.source_sha256 for info in catalog_info(disk / "cat")}
    write_csv(tmp_path / "b.csv", draw(40_000, seed=3))
    with pytest.raises(ResourceError, match="cannot be written"):
        build_strips("nvss", tmp_path / "b.csv", disk / "cat")
    strips = catalog_info(disk / "cat")
    assert len(strips) == 12
    assert strips[-1].source_sha256 in old
    assert [whole(info.path)[0] for info in strips] == [info.n_sources for info in strips]
    assert not list((disk / "cat").glob(".*.tmp"))


def as_format_1(path: Path) -> None:
    """Make a strip what the first format was: no cells, no limits, no completeness."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE cells")
        database.execute("ALTER TABLE sources DROP COLUMN major_limit_arcsec")
        database.execute("ALTER TABLE sources DROP COLUMN minor_limit_arcsec")
        database.execute("CREATE INDEX sources_position ON sources(ra_deg, dec_deg)")
        database.execute("DELETE FROM meta WHERE key LIKE 'cell_%' OR key = 'completeness_mjy'")
        database.execute("UPDATE meta SET value = '1' WHERE key = 'format_version'")


def test_migration_keeps_what_an_older_format_held(tmp_path: Path) -> None:
    source, strips = tmp_path / "a.csv", tmp_path / "cat"
    write_csv(source, draw(5000))
    build_strips("nvss", source, strips)
    before = query_nvss_sources(100.0, 30.0, 5.0, catalog_dir=strips)
    for path in strips.glob("nvss_*"):
        as_format_1(path)
    with pytest.raises(CatalogFormatError, match="of format 1, not 2; run `contimg catalog migrate`"):
        query_nvss_sources(100.0, 30.0, 5.0, catalog_dir=strips)
    source.rename(tmp_path / "gone.csv")
    assert len(migrate_strips(strips)) == 12
    assert migrate_strips(strips) == []
    after = query_nvss_sources(100.0, 30.0, 5.0, catalog_dir=strips)
    assert after.meta["catalog_hash"] == before.meta["catalog_hash"]
    for name in before.colnames:
        if "limit" in name:
            assert np.isnan(after[name]).all()
        else:
            np.testing.assert_array_equal(after[name], before[name])


def test_a_build_from_the_file_replaces_an_older_format_in_full(tmp_path: Path) -> None:
    source, strips = tmp_path / "a.csv", tmp_path / "cat"
    write_csv(source, draw(5000))
    build_strips("nvss", source, strips)
    for path in strips.glob("nvss_*"):
        as_format_1(path)
    assert len(build_strips("nvss", source, strips).built) == 12
    table = query_nvss_sources(100.0, 30.0, 5.0, catalog_dir=strips)
    assert np.isfinite(table["minor_limit_arcsec"]).any()


def test_a_newer_format_is_not_touched(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", draw(2000))
    path = build_strips("nvss", tmp_path / "a.csv", tmp_path / "cat").built[0].path
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = '3' WHERE key = 'format_version'")
    with pytest.raises(CatalogFormatError, match="format 3, not 2; use a newer contimg"):
        catalog_info(tmp_path / "cat")
    assert migrate_strips(tmp_path / "cat") == []


def test_damaged_cells_are_told(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", draw(5000))
    for info in build_strips("nvss", tmp_path / "a.csv", tmp_path / "cat").built:
        with closing(sqlite3.connect(info.path)) as database, database:
            database.execute("UPDATE cells SET rows = x'0102'")
    with pytest.raises(CatalogFormatError, match="not a readable catalogue strip"):
        query_nvss_sources(100.0, 30.0, 5.0, catalog_dir=tmp_path / "cat")


def test_a_strip_that_reads_back_differently_is_never_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "a.csv", draw(2000))
    lost = strips._in_order
    monkeypatch.setattr(strips, "_in_order", lambda rows: list(lost(rows))[1:])
    with pytest.raises(ResourceError, match="read back"):
        build_strips("nvss", tmp_path / "a.csv", tmp_path / "cat")
    assert catalog_info(tmp_path / "cat") == []


def test_strips_of_other_columns_name_them(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", draw(2000))
    path = build_strips("nvss", tmp_path / "a.csv", tmp_path / "cat").built[0].path
    with closing(sqlite3.connect(path)) as database:
        (names,) = database.execute("SELECT value FROM meta WHERE key = 'cell_columns'").fetchone()
        columns = [row[1] for row in database.execute("PRAGMA table_info(sources)")]
    assert json.loads(names) == columns
    assert os.access(path, os.R_OK)


def test_query_cone_knows_all_catalogues(tmp_path: Path) -> None:
    for name in ("nvss", "first", "merged"):
        with pytest.raises(CatalogMissingError):
            query_cone(name, 0.0, 0.0, 1.0, catalog_dir=tmp_path)
