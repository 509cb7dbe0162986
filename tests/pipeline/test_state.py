"""The state file."""

import sqlite3
import threading
from pathlib import Path

import pytest

from dsa110_contimg.errors import InputError, ResourceError, StorageError
from dsa110_contimg.pipeline.state import State

OUT = Path("/out")


@pytest.fixture
def state(tmp_path):
    with State(tmp_path / "new" / "state.sqlite3") as state:
        yield state


def add(state, name, observed_at=0.0, folder="/in"):
    return state.add(name, Path(folder) / f"{name}.ms", OUT, observed_at)


def record(status="done", message="good"):
    verdict = {"quality": "good", "reasons": [], "seeded": True} if status == "done" else {}
    return {"status": status, "message": message, "started": 1.0, "finished": 2.0, "seconds": {}, **verdict}


def test_oldest_first_and_never_twice(state):
    assert [add(state, n, t) for n, t in (("b", 2.0), ("a", 3.0), ("c", 1.0))] == [True] * 3
    assert not add(state, "b", 0.0)
    taken = []
    while (o := state.next_queued()) is not None:
        state.start(o)
        taken.append(o.name)
    assert taken == ["c", "b", "a"]
    state.finish(state.observations()[0], record())
    assert not add(state, "c")
    assert state.counts() == {"queued": 0, "running": 2, "done": 1, "failed": 0, "reverted": 0}


def test_it_is_kept_in_wal_and_survives_reopening(state):
    add(state, "a")
    with sqlite3.connect(state.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()
    with State(state.path, create=False) as again:
        assert again.next_queued().name == "a"


def test_one_name_from_two_folders_gets_two_folders(state, tmp_path):
    for folder in ("one", "two", "three"):
        (tmp_path / folder / "a.ms").mkdir(parents=True)
        assert add(state, "a", folder=tmp_path / folder)
    folders = [o.folder for o in state.observations()]
    assert folders[0] == OUT / "a"
    assert len(set(folders)) == 3
    assert all(f.parent == OUT for f in folders)


def test_history_and_attempts(state):
    add(state, "a")
    o = state.next_queued()
    state.start(o)
    state.requeue(o, "worker_lost", "its worker died")
    state.start(o)
    state.requeue(o, "scheduler_lost", "gone", blameless=True)
    assert state.find(o.ms).attempts == 1
    state.start(o)
    state.finish(o, record("failed", "bad table"))
    events = [e["event"] for e in state.history(o)]
    assert events == ["queued", "started", "worker_lost", "started", "scheduler_lost", "started", "failed"]
    assert state.find(o.ms).message == "bad table"
    assert state.event_counts()["started"] == 3


def test_retry_is_a_new_run_and_the_old_record_stays(state):
    for name in ("a", "b"):
        add(state, name)
        o = state.next_queued()
        state.start(o)
        state.finish(o, record("failed" if name == "a" else "done"))
    before = state.find(Path("/in/a.ms"))
    assert [o.name for o in state.retry(state.observations("failed"))] == ["a"]
    again = state.next_queued()
    assert again.run_id != before.run_id
    assert again.attempts == 0
    state.start(again)
    state.finish(again, record("done", "mended"))
    assert [r["status"] for _, r in state.records()] == ["failed", "done", "done"]
    assert [r["message"] for _, r in state.records(after=2)] == ["mended"]
    assert state.record(again)["message"] == "mended"
    b = state.find(Path("/in/b.ms"))
    assert state.retry([b], priority=2)[0].name == "b"
    assert state.find(b.ms).priority == 2
    with pytest.raises(InputError, match="queued already"):
        state.retry([b])
    with pytest.raises(InputError, match="unknown to the pipeline"):
        state.find(Path("/in/c.ms"))


def test_by_priority_then_tonight_then_the_oldest(state):
    now, day = 1e9, 86400.0
    for name, age in (("year", 365.0), ("month", 30.0), ("evening", 0.5), ("hour", 0.1)):
        add(state, name, now - age * day)
    state.prioritize([state.find(Path("/in/month.ms"))], 1)
    taken = []
    while (o := state.next_queued(recent_since=now - day)) is not None:
        assert state.start(o)
        taken.append(o.name)
    assert taken == ["month", "evening", "hour", "year"]
    with pytest.raises(InputError, match="is running and does not wait"):
        state.prioritize([o for o in state.observations() if o.name == "hour"], 1)


def test_what_is_forgotten_meanwhile_is_not_begun(state):
    add(state, "a")
    add(state, "b")
    a, b = state.find(Path("/in/a.ms")), state.find(Path("/in/b.ms"))
    state.start(b)
    state.requeue(b, "worker_lost", "its worker died")
    state.forget(a)
    assert not state.start(a)
    assert state.known(a.ms) is None
    assert state.counts()["running"] == 0
    # What happened stays told, and it counts as new.
    assert state.event_counts()["forgotten"] == 1
    assert add(state, "a")
    state.start(b)
    with pytest.raises(InputError, match="is running"):
        state.forget(b)
    with pytest.raises(InputError, match="is running"):
        state.rename(b, "c", Path("/in/c.ms"))


def test_readers_beside_a_writer(state):
    """Metrics and contimg status read while the driver writes; nobody sees half a change."""
    for k in range(50):
        add(state, f"o{k}")
    wrong = []

    def read():
        with State(state.path, create=False) as reader:
            while not done.is_set():
                if sum(reader.counts().values()) != 50:
                    wrong.append(reader.counts())

    done = threading.Event()
    thread = threading.Thread(target=read)
    thread.start()
    while (o := state.next_queued()) is not None:
        state.start(o)
        state.finish(o, record())
    done.set()
    thread.join()
    assert not wrong
    assert state.counts()["done"] == 50


def test_files_that_are_no_state(tmp_path):
    with pytest.raises(InputError, match="no such state file"):
        State(tmp_path / "none.sqlite3", create=False)
    assert not (tmp_path / "none.sqlite3").exists()
    (tmp_path / "text").write_text("hello" * 1000)
    with pytest.raises(ResourceError, match="cannot be used as state"):
        State(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE strip (x)")
    db.close()
    with pytest.raises(InputError, match="a database, but no state file"):
        State(tmp_path / "other")


def test_a_full_disk_is_one_line_and_undoes_all(state):
    """SQLite's own limit of pages stands in for the disk; the state goes on when there is room again."""
    add(state, "a")
    pages = state._db.execute("PRAGMA page_count").fetchone()[0]
    state._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(ResourceError, match=r"cannot be written \(database or disk is full\)"):
        state.note("much", "x" * 100_000)
    assert [o.name for o in state.observations()] == ["a"]
    assert "much" not in state.event_counts()
    state._db.execute("PRAGMA max_page_count=1000000")
    state.note("much", "x" * 100_000)
    assert state.event_counts()["much"] == 1


def test_one_that_was_moved_is_the_same(tmp_path):
    first, other = tmp_path / "in" / "a.ms", tmp_path / "archive" / "a.ms"
    (first / "OBSERVATION").mkdir(parents=True)
    (first / "OBSERVATION" / "table.f0").write_bytes(b"of this night")
    with State(tmp_path / "s.sqlite3") as state:
        assert state.add("a", first, OUT, 0.0)
        o = state.next_queued()
        state.start(o)
        state.finish(o, record())
        # Another of the same name while the first is there is another one.
        assert state.add("a", tmp_path / "b" / "a.ms", OUT, 0.0)
        other.parent.mkdir()
        first.rename(other)
        assert not state.add("a", other, OUT, 0.0)
        moved = state.find(other)
        assert (moved.id, moved.status, moved.folder) == (o.id, "done", o.folder)
        assert state.history(moved)[-1] == state.history(moved)[-1] | {
            "event": "moved",
            "detail": f"from {first}",
        }


def test_another_of_the_same_name_is_another_also_when_the_first_has_gone(tmp_path):
    first, other = tmp_path / "in" / "a.ms", tmp_path / "next" / "a.ms"
    for ms, night in ((first, b"one night"), (other, b"the next night")):
        (ms / "OBSERVATION").mkdir(parents=True)
        (ms / "OBSERVATION" / "table.f0").write_bytes(night)
    with State(tmp_path / "s.sqlite3") as state:
        assert state.add("a", first, OUT, 0.0)
        first.rename(tmp_path / "in" / "b.ms")
        state.rename(state.find(first), "b", tmp_path / "in" / "b.ms")
        (tmp_path / "in" / "b.ms").rename(tmp_path / "archived")
        assert state.add("a", other, OUT, 0.0)
        assert {o.name for o in state.observations("queued")} == {"a", "b"}
        other.rename(tmp_path / "archived too")
        # Nothing tells what this is.
        other.mkdir()
        (tmp_path / "third").mkdir()
        assert state.add("a", tmp_path / "third" / "a.ms", OUT, 0.0)


def test_a_state_is_of_its_user_and_a_lock_on_it_passes(state, monkeypatch):
    assert not state.path.stat().st_mode & 0o007
    monkeypatch.setattr("dsa110_contimg.pipeline.state_file.TIMEOUT_S", 0.1)
    with State(state.path) as impatient, sqlite3.connect(state.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="database is locked"):
            impatient.note("waits")
        other.execute("ROLLBACK")
        impatient.note("goes on")
    other.close()


def test_a_state_that_cannot_be_read_is_waited_for_too(state):
    with State(state.path) as reader, sqlite3.connect(state.path, isolation_level=None) as other:
        reader._db.execute("PRAGMA busy_timeout=50")
        # One that waits for nobody else, so that its readers are shut out.
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        state.close()
        reader.close()
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"cannot be read \(database is locked\)"):
            State(state.path)
        other.execute("ROLLBACK")
    other.close()
