"""A state file that is damaged, old or lost."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.pipeline.driver import Driver
from dsa110_contimg.pipeline.job import process
from dsa110_contimg.pipeline.naming import claim
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.pipeline.state_care import back_up, check, rebuild, upgrade

#: What version 1 had.
VERSION_1 = """
CREATE TABLE observation (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, ms TEXT NOT NULL UNIQUE, folder TEXT NOT NULL UNIQUE,
    caltables TEXT, observed_at REAL NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'reverted')),
    run_id TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, queued_at REAL NOT NULL,
    message TEXT NOT NULL DEFAULT ''
);
CREATE INDEX observation_queue ON observation (status, observed_at, id);
CREATE TABLE run (
    id INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE,
    observation_id INTEGER NOT NULL REFERENCES observation (id), status TEXT NOT NULL,
    started_at REAL NOT NULL, finished_at REAL NOT NULL, record TEXT NOT NULL
);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, observation_id INTEGER REFERENCES observation (id),
    run_id TEXT, event TEXT NOT NULL, detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX event_observation ON event (observation_id);
PRAGMA user_version=1;
"""


def record(status="done", run_id="r", **more):
    verdict = {"quality": "good", "reasons": [], "seeded": True, "fallback": None} if status == "done" else {}
    times = {"started": 1.0, "finished": 2.0}
    return {
        "run_id": run_id,
        "status": status,
        "message": "it went",
        **times,
        "seconds": {},
        **verdict,
        **more,
    }


@pytest.fixture
def filled(tmp_path) -> Path:
    """A state file with three hundred observations, and something of every kind."""
    path = tmp_path / "s.sqlite3"
    with State(path) as state:
        for k in range(300):
            state.add(f"o{k:03d}", Path(f"/in/o{k:03d}.ms"), Path("/out"), float(k))
            o = state.next_queued()
            state.start(o)
            state.finish(o, record(run_id=o.run_id, message="x" * 200))
    return path


def test_a_whole_one_is_whole(filled):
    assert check(filled) == {"version": 3, "observations": 300, "runs": 300}


@pytest.mark.parametrize("kind", ["page", "header", "half", "empty", "text", "record", "orphan"])
def test_every_kind_of_damage_is_said_and_mended(filled, tmp_path, kind, capfd):
    size = filled.stat().st_size
    if kind == "page":
        with filled.open("r+b") as file:
            for at in range(8192, size, 4096):
                file.seek(at)
                file.write(b"\xff" * 300)
    elif kind == "header":
        with filled.open("r+b") as file:
            file.write(b"\0" * 100)
    elif kind == "half":
        with filled.open("r+b") as file:
            file.truncate(size // 2)
    elif kind == "empty":
        filled.write_bytes(b"")
    elif kind == "text":
        filled.write_text("hello" * 1000)
    else:
        with sqlite3.connect(filled) as db:
            if kind == "record":
                db.execute("UPDATE run SET record = '{' WHERE id = 7")
            else:
                db.execute("DELETE FROM observation WHERE id = 7")
        db.close()
    capfd.readouterr()
    assert main(["state", "check", "--state-file", str(filled)]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "contimg state rebuild" in line
    assert "internal error" not in line
    # Whoever uses it says the same, or does not come across it.
    code = main(["status", "--all", "--state-file", str(filled)])
    said = capfd.readouterr().err
    assert code == 0 or "contimg state rebuild" in said
    assert "internal error" not in said
    out = tmp_path / "out"
    folder = out / "a"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"run_id": "r1", "ms": "/in/a.ms"}))
    (folder / "record.json").write_text(json.dumps(record(run_id="r1", observation="a")))
    assert main(["state", "rebuild", str(out), "--state-file", str(filled)]) == 0
    assert check(filled) == {"version": 3, "observations": 1, "runs": 1}
    assert list(tmp_path.glob("s.sqlite3.before-*"))


def test_a_rebuilt_state_goes_on_where_the_lost_one_stood(config, make_ms, tmp_path):
    mss = [make_ms(f"2026-01-25T0{hour}:00:00.ms") for hour in range(4)]
    out = tmp_path / "out"
    with State(config.state_file) as state:
        driver = Driver(state, out, config)
        for ms in mss[:3]:
            driver.add(ms)
        for o in state.observations()[:2]:
            state.start(o)
            job = driver._job(o)
            if o.ms == mss[1]:
                shutil.rmtree(o.ms)
            state.finish(o, process(job))
        before = {o.ms: (o.name, o.status, o.folder, o.run_id, o.quality) for o in state.observations()}
        begun = state.find(mss[2])
        begun.folder.mkdir()
        (begun.folder / "job.json").write_text(json.dumps({"run_id": begun.run_id, "ms": str(begun.ms)}))
    (out / "broken").mkdir()
    (out / "broken" / "job.json").write_text("{")
    (out / "notes.txt").write_text("of somebody")
    copied = out / f"{before[mss[0]][0]}.bak"
    shutil.copytree(before[mss[0]][2], copied)
    lacking = out / "lacking"
    lacking.mkdir()
    (lacking / "job.json").write_text(json.dumps({"run_id": "x", "ms": "/in/lacking.ms"}))
    (lacking / "record.json").write_text(json.dumps({"run_id": "x", "status": "done", "finished": 1.0}))
    with pytest.raises(ResourceError, match="belongs to the state file"):
        rebuild(tmp_path / "other.sqlite3", [out])
    config.state_file.unlink()
    with State(config.state_file) as state, pytest.raises(ResourceError, match="contimg state rebuild"):
        Driver(state, out, config)
    config.state_file.unlink()
    made = rebuild(config.state_file, [out])
    assert (made.finished, made.queued, made.old) == (2, 1, None)
    assert set(made.unreadable) == {out / "broken", copied, lacking}
    with State(config.state_file, create=False) as state:
        after = {o.ms: (o.name, o.status, o.folder, o.run_id, o.quality) for o in state.observations()}
        assert after == before
        assert [r["status"] for _, r in state.records()] == ["done", "failed"]
        # The folder is the new file's now.
        Driver(state, out, config)


def test_an_output_folder_has_one_state_file(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    one, other = out / "pipeline.sqlite3", tmp_path / "other.sqlite3"
    one.touch()
    claim(out, one)
    claim(out, one)
    with pytest.raises(
        ResourceError, match=r"holds the products of another state file, .*pipeline.sqlite3; give"
    ):
        claim(out, other)
    # What lies elsewhere stays where it is, however deep the folder moves.
    (tmp_path / "second").mkdir()
    elsewhere = tmp_path / "elsewhere.sqlite3"
    elsewhere.touch()
    claim(tmp_path / "second", elsewhere)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    claim((tmp_path / "second").rename(tmp_path / "deep" / "er" / "second"), elsewhere)
    # What lies in the folder moves with it.
    moved = out.rename(tmp_path / "moved")
    claim(moved, moved / "pipeline.sqlite3")
    (moved / "pipeline.sqlite3").unlink()
    with pytest.raises(ResourceError, match="contimg state rebuild"):
        claim(moved, other)


def test_a_backup_is_the_same_and_of_one_piece(filled, tmp_path):
    with State(filled) as state:
        state.note("still", "in the log of the database")
        back_up(filled, tmp_path / "copy")
    assert check(tmp_path / "copy") == check(filled)
    with State(tmp_path / "copy", create=False) as state:
        assert state.event_counts()["still"] == 1
    with pytest.raises(InputError, match="is the state file itself"):
        back_up(filled, filled)
    with pytest.raises(InputError, match="no such state file"):
        back_up(tmp_path / "none", tmp_path / "copy")
    good = (tmp_path / "copy").read_bytes()
    filled.write_bytes(b"")
    with pytest.raises(ResourceError, match="is damaged"):
        back_up(filled, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == good
    assert filled.stat().st_size == 0


def test_an_earlier_version_is_upgraded(tmp_path, capfd):
    path = tmp_path / "old.sqlite3"
    db = sqlite3.connect(path)
    db.executescript(VERSION_1)
    for k, status in enumerate(("done", "failed", "queued")):
        values = (k + 1, f"o{k}", f"/in/o{k}.ms", f"/out/o{k}", float(k), status, f"r{k}", 0.0)
        db.execute(
            "INSERT INTO observation (id, name, ms, folder, observed_at, status, run_id, queued_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        if status != "queued":
            figures = {"thermal_ratio": 3.5, "flux_ratio": None, "snr_gain": 2.0}
            versions = {"dsa110-contimg": "0.1.0"}
            told = record(status, f"r{k}", quality="bad", seeded=False, figures=figures, versions=versions)
            told = json.dumps(told)
            db.execute("INSERT INTO run VALUES (?, ?, ?, ?, 1, 2, ?)", (k + 1, f"r{k}", k + 1, status, told))
    db.commit()
    db.close()
    assert main(["status", "--state-file", str(path)]) == 2
    assert "is of an earlier version (1, not 3); contimg state upgrade" in capfd.readouterr().err
    copy = upgrade(path)
    assert upgrade(path) is None
    with sqlite3.connect(copy) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    db.close()
    assert check(path) == {"version": 3, "observations": 3, "runs": 2}
    with State(path, create=False) as state:
        found = [(o.status, o.quality, o.seeded) for o in state.observations()]
        first = state.observations()[0]
    assert (first.version, first.thermal_ratio, first.flux_ratio, first.ended_at) == ("0.1.0", 3.5, None, 2.0)
    assert found == [("done", "bad", False), ("failed", "", False), ("queued", "", False)]
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(InputError, match="is of a later version"):
        State(path)
    with pytest.raises(InputError, match="use a newer contimg"):
        upgrade(path)


def test_what_a_killed_driver_had_written_is_moved_aside_with_the_rest(filled, tmp_path):
    """The last changes are in the log of the database."""
    script = (
        "import os, sys; from pathlib import Path; from dsa110_contimg.pipeline.state import State;"
        "State(Path(sys.argv[1])).note('last'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(filled)], check=False).returncode == 9
    (tmp_path / "out").mkdir()
    made = rebuild(filled, [tmp_path / "out"])
    with State(made.old, create=False) as state:
        assert state.event_counts()["last"] == 1
    with State(filled, create=False) as state:
        assert state.event_counts() == {}
