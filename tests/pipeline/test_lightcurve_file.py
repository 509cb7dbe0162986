"""Files of light curves of earlier versions, brought to this one."""

import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.errors import InputError
from dsa110_contimg.pipeline import lightcurve_file
from dsa110_contimg.pipeline.lightcurve_file import open_database
from dsa110_contimg.pipeline.lightcurves import LightCurves
from tests.pipeline.schema1 import KEPT, NEW, days

DUMP = Path(__file__).with_name("schema1.sql")


def made(path):
    """Make a file of schema 1 as it was left by the code of that version."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(DUMP.read_text())
    db.close()
    return path


@pytest.fixture
def earlier(tmp_path):
    return made(tmp_path / "earlier.sqlite3")


def dump(path):
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
        return list(db.iterdump())


def columns(path):
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        return {
            (kind, name, *sorted(r[1] for r in db.execute(f"PRAGMA table_info({name})")))
            for kind, name in rows
        }


def test_a_file_of_schema_1_tells_what_the_same_lists_tell_today(earlier, tmp_path):
    with LightCurves(tmp_path / "today.sqlite3") as today, LightCurves(earlier) as brought:
        for day, run, verdict, folder in days(tmp_path):
            today.take_in(folder, identity=f"day{day}", run_id=run, name=f"day{day}", verdict=verdict)
        for kind, n in (("catalogue", KEPT), ("new", 1)):
            one, other = brought.sources(kind), today.sources(kind)
            assert len(one) == n
            for table in (one, other):
                table.sort("name")
            for name in one.colnames[2:]:
                np.testing.assert_allclose(one[name], other[name], rtol=1e-6, err_msg=name)
        seen, expected = (c.curve(c.find(*NEW[:2], 5.0)) for c in (brought, today))
        assert seen.method == expected.method == ["image", "forced"]
        np.testing.assert_allclose(seen.flux_jy, expected.flux_jy, rtol=1e-6)
        of_observations = ("name", "run_id", "verdict", "counts", "mjd", "n_sources")
        assert [[o[k] for k in of_observations] for o in brought.observations()] == [
            [o[k] for k in of_observations] for o in today.observations()
        ]
        # It goes on as any other: an observation more, and one out.
        for day, _, verdict, folder in days(tmp_path / "more"):
            if day == 6:
                brought.take_in(folder, identity="day7", run_id="7", name="day7", verdict=verdict)
        assert brought.drop(["2"]) == 1
        assert (np.asarray(brought.sources("catalogue")["n"]) == 6).all()
    assert columns(earlier) == columns(tmp_path / "today.sqlite3")


def test_killed_while_it_is_brought_to_this_version_a_file_is_of_the_earlier_one(earlier, tmp_path):
    whole = made(tmp_path / "whole.sqlite3")
    db, statements = open_database(earlier, create=False), list[str]()
    db.close()
    before = dump(whole)
    with sqlite3.connect(whole, isolation_level=None) as db:
        db.row_factory = sqlite3.Row
        db.set_trace_callback(statements.append)
        lightcurve_file._bring_to_version(db, whole, False)
    brought = dump(whole)
    assert brought == dump(earlier)
    for n in np.linspace(2, len(statements), 12).astype(int):
        path = made(tmp_path / f"killed{n}.sqlite3")
        child = os.fork()
        if child == 0:
            _die_at(path, n)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        with pytest.raises(InputError, match="earlier version"):
            open_database(path, readonly=True)
        assert dump(path) == before
        open_database(path).close()
        assert dump(path) == brought


def _die_at(path: Path, n: int) -> None:
    """Begin to bring a file to this version, and be killed at a statement."""
    db = sqlite3.connect(path, isolation_level=None)
    db.row_factory = sqlite3.Row
    # Pages are written to the disk before the end.
    db.execute("PRAGMA cache_size=4")
    count = 0

    def at(_: str) -> None:
        nonlocal count
        count += 1
        if count == n:
            os.kill(os.getpid(), signal.SIGKILL)

    db.set_trace_callback(at)
    lightcurve_file._bring_to_version(db, path, False)
    os._exit(0)
