"""What stands in the way of all observations is booked to none of them: the queue waits until it is over."""

import contextlib
import errno
import json
import logging
import shutil
import signal
import sqlite3
import time

import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.errors import (
    CatalogCoverageError,
    CatalogFormatError,
    CatalogMissingError,
    EngineError,
    MeasurementSetError,
    ResourceError,
    StorageError,
)
from dsa110_contimg.pipeline import pauses as pauses_module
from dsa110_contimg.pipeline.driver import Driver
from dsa110_contimg.pipeline.job import failure_record, process
from dsa110_contimg.pipeline.logs import json_log
from dsa110_contimg.pipeline.metrics import Metrics
from dsa110_contimg.pipeline.pauses import Pauses
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.pipeline.trouble import Trouble, catalogue_trouble, trouble_of
from tests.pipeline.conftest import log_lines, wait_until


def chained(error: BaseException, cause: BaseException) -> BaseException:
    """`error` as it is when it was raised because of `cause`, without showing it."""
    try:
        try:
            raise cause
        except BaseException:
            raise error from None
    except BaseException as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CatalogMissingError("no strip"), "catalogue"),
        (CatalogFormatError("damaged"), "catalogue"),
        (StorageError("disk full"), "storage"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "storage"),
        (chained(ResourceError("cannot be made"), OSError(errno.EROFS, "Read-only file system")), "storage"),
        (chained(EngineError("failed"), RuntimeError("write error: No space left on device")), "storage"),
        (CatalogCoverageError("too far south"), None),
        (MeasurementSetError("fully flagged"), None),
        (OSError(errno.ENOENT, "No such file"), None),
        (ResourceError("is locked"), None),
    ],
)
def test_whose_fault_it_is(error, kind):
    trouble = trouble_of(error)
    assert (None if trouble is None else trouble.kind) == kind


def test_a_catalogue_that_is_away_or_damaged(config, tiny, tmp_path):
    assert catalogue_trouble(config) is None
    there = shutil.copytree(tiny / "c", tmp_path / "c")
    one = next(there.glob("nvss_*.sqlite3"))
    one.write_bytes(b"")
    damaged = config.with_options(catalog_dir=there)
    assert "is not a readable catalogue strip" in catalogue_trouble(damaged).text
    away = config.with_options(catalog_dir=tmp_path / "none")
    assert "no strip of catalogue nvss" in catalogue_trouble(away).text
    # Nothing is seeded from it.
    for option in ({"use_nvss_seeding": False}, {"rollout": 0.0}):
        assert catalogue_trouble(away.with_options(**option)) is None


def test_a_batch_without_a_catalogue_is_not_begun(make_ms, tmp_path, capfd):
    ms, state = make_ms(), tmp_path / "s.sqlite3"
    given = ["--catalog-dir", str(tmp_path / "none"), "--state-file", str(state)]
    assert main(["run", str(ms), str(tmp_path / "out"), *given]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "no strip of catalogue nvss" in said
    assert "contimg catalog build" in said
    with State(state, create=False) as opened:
        assert [o.status for o in opened.observations()] == ["queued"]


def test_a_service_waits_for_the_catalogue_and_seeds_all(contimg, make_ms, tiny, tmp_path):
    incoming, catalogue = tmp_path / "incoming", tmp_path / "c"
    incoming.mkdir()
    words = ("watch", incoming, tmp_path / "out", "--settle-s", 0, "--poll-s", 0.2)
    service = contimg.start(*words, CONTIMG_CATALOG_DIR=catalogue)
    make_ms("2026-01-25T00:00:00.ms", incoming)

    def paused():
        said = json.loads(contimg.here("status", "--json"))
        return said["counts"]["queued"] and said["paused"]

    wait_until(lambda: (tmp_path / "pipeline.sqlite3").exists(), "the service begins", 60)
    wait_until(paused, "the queue is paused", 60)
    assert "no strip of catalogue nvss" in json.loads(contimg.here("status", "--json"))["paused"]["why"]
    assert contimg.here("status").startswith("PAUSED since ")
    shutil.copytree(tiny / "c", catalogue)
    record = tmp_path / "out" / "2026-01-25T00:00:00" / "record.json"
    wait_until(record.exists, "it goes on", 120)
    assert json.loads(record.read_text())["seeded"]
    wait_until(lambda: not paused(), "it is said", 20)
    service.send_signal(signal.SIGTERM)
    service.communicate(timeout=60)
    events = [line.get("event") for line in log_lines(tmp_path / "out" / "pipeline.jsonl")]
    assert [e for e in events if e in ("paused", "continued")] == ["paused", "continued"]


def test_a_full_disk_is_waited_for(contimg, make_ms, small_disk, tmp_path):
    disk = small_disk(400)
    filler = disk / "filler"
    filler.write_bytes(bytes(392 << 20))
    mss = [make_ms(f"2026-01-25T0{hour}:00:00.ms") for hour in range(2)]
    running = contimg.start("run", *mss, disk / "out")

    def why():
        if not (tmp_path / "pipeline.sqlite3").exists():
            return None
        with State(tmp_path / "pipeline.sqlite3") as state:
            return state.paused()

    wait_until(why, "the queue is paused", 120)
    assert "disk full" in why()[1]
    filler.unlink()
    out, _ = running.communicate(timeout=300)
    assert running.returncode == 0, contimg.errors()
    assert "2 done" in out
    with State(tmp_path / "pipeline.sqlite3") as state:
        assert [o.status for o in state.observations()] == ["done", "done"]
        assert state.paused() is None
        assert "postponed" in {e["event"] for o in state.observations() for e in state.history(o)}


def test_what_alone_meets_full_disks_has_failed(config, make_ms, tmp_path):
    with State(config.state_file) as state:
        driver = Driver(state, tmp_path / "out", config)
        driver.add(make_ms())
        o = state.next_queued()
        job = driver._job(o)
        record = failure_record(job, 0.0, StorageError("read-only", o.ms))
        postponed = record | {"status": "postponed", "trouble": "storage"}
        task = type("T", (), {"observation": o, "job": job, "since": 0.0})
        state.start(o)
        driver._postpone(task, postponed)
        assert state.find(o.ms).status == "queued"
        # Nothing else has gone through since: it is the disk's fault still.
        driver._postpone(task, postponed)
        assert state.find(o.ms).status == "queued"
        driver._proved_since = time.monotonic()
        driver._postpone(task, postponed)
        assert state.find(o.ms).status == "failed"
        assert "others begun since met nothing like it" in state.find(o.ms).message


def test_a_full_disk_is_not_forgotten_over_a_catalogue(config, tmp_path):
    """Both are away; the catalogue comes back first."""
    with State(config.state_file) as state:
        metrics = Metrics(state.path, config, {})
        pauses, catalogue = Pauses(state, metrics), Trouble("catalogue", "no strip")

        def gauges():
            return {k: metrics.paused.labels(k)._value.get() for k in ("catalogue", "storage", "arrivals")}

        pauses.meet(Trouble("storage", "disk full"))
        pauses.see(catalogue)
        assert pauses.holds(busy=False)
        assert state.paused()[1] == "no strip"
        assert gauges() == {"catalogue": 1, "storage": 1, "arrivals": 0}
        pauses.see(None)
        assert pauses.holds(busy=False)
        assert state.paused()[1] == "disk full"
        assert gauges() == {"catalogue": 0, "storage": 1, "arrivals": 0}
        pauses.went_through(0.0)
        assert pauses.holds(busy=False)
        pauses.went_through(time.monotonic())
        assert state.paused() is None
        assert not pauses.holds(busy=True)
        # What is seen replaces what is seen no longer.
        pauses.see(catalogue)
        pauses.see(Trouble("arrivals", "not mounted"))
        assert gauges() == {"catalogue": 0, "storage": 0, "arrivals": 1}
        pauses.see(None)
        assert gauges() == {"catalogue": 0, "storage": 0, "arrivals": 0}


def test_a_disk_is_tried_ever_more_seldom(config, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(pauses_module.time, "monotonic", lambda: clock[0])
    with State(config.state_file) as state:
        pauses, waits = Pauses(state, Metrics(state.path, config, {})), []
        for _ in range(9):
            pauses.meet(Trouble("storage", "disk full"))
            begun = clock[0]
            while pauses.holds(busy=False):
                clock[0] += 1
            waits.append(clock[0] - begun)
            pauses.tried()
            assert pauses.holds(busy=False)
        assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
        assert state.event_counts()["paused"] == 1


def test_nothing_is_recorded_of_what_is_postponed(make_job, tmp_path):
    job = make_job(catalog_dir=tmp_path / "none")
    told = process(job)
    assert (told["status"], told["trouble"]) == ("postponed", "catalogue")
    assert not (job.folder / "record.json").exists()


def test_a_folder_of_arrivals_that_is_not_mounted_is_waited_for(contimg, make_ms, tmp_path):
    incoming, out = tmp_path / "incoming", tmp_path / "out"
    incoming.mkdir()
    words = ("watch", incoming, out, "--settle-s", 0, "--poll-s", 0.2)
    ms = make_ms("2026-01-25T00:00:00.ms", incoming)
    with State(tmp_path / "pipeline.sqlite3") as state:
        state.add("2026-01-25T00:00:00", ms, out, 0.0)
    incoming.rename(tmp_path / "disk")
    incoming.mkdir()
    service = contimg.start(*words)

    def paused():
        return json.loads(contimg.here("status", "--json"))["paused"]

    wait_until(paused, "the queue is paused", 60)
    assert "is the disk mounted?" in paused()["why"]
    incoming.rmdir()
    (tmp_path / "disk").rename(incoming)
    wait_until((out / ms.stem / "record.json").exists, "it goes on", 120)
    service.send_signal(signal.SIGTERM)
    service.communicate(timeout=60)
    # What is on record is booked at the end, whether the loop came to it or not.
    assert json.loads(contimg.here("status", ms, "--json"))["status"] == "done"


def test_what_waits_moves_with_the_folder_of_arrivals(contimg, make_ms, tmp_path):
    old, new, out = tmp_path / "incoming", tmp_path / "moved", tmp_path / "out"
    old.mkdir()
    mss = [make_ms(f"2026-01-25T0{hour}:00:00.ms", old) for hour in range(2)]
    with State(tmp_path / "pipeline.sqlite3") as state:
        for ms in mss:
            state.add(ms.stem, ms, out, 0.0)
    old.rename(new)
    # Long enough to find the queue before the arrivals are complete.
    service = contimg.start("watch", new, out, "--settle-s", 600, "--poll-s", 0.2)
    for ms in mss:
        wait_until((out / ms.stem / "record.json").exists, "it is calibrated", 120)
    service.send_signal(signal.SIGTERM)
    service.communicate(timeout=60)
    with State(tmp_path / "pipeline.sqlite3") as state:
        assert [(o.ms.parent, o.status) for o in state.observations()] == [(new, "done")] * 2


def test_what_goes_away_while_it_is_worked_on_is_postponed(make_job, monkeypatch):
    job = make_job()

    def gone(*_, **__):
        job.ms.rename(job.ms.with_name("away"))
        raise MeasurementSetError("cannot be read", job.ms)

    monkeypatch.setattr("dsa110_contimg.pipeline.job.selfcal_ms", gone)
    told = process(job)
    assert (told["status"], told["trouble"]) == ("postponed", "arrivals")
    assert "went away while it was worked on (cannot be read)" in told["message"]
    # What was not there to begin with has failed.
    told = process(job)
    assert told["status"] == "failed"


@pytest.mark.parametrize("spoilt", ["named as another", "empty"])
def test_a_strip_that_is_not_what_it_says_is_damaged(config, tiny, tmp_path, spoilt):
    folder = shutil.copytree(tiny / "c", tmp_path / "c")
    one = max(folder.glob("nvss_*.sqlite3"), key=lambda p: p.stat().st_size)
    if spoilt == "empty":
        with sqlite3.connect(one) as db:
            db.execute("DELETE FROM cells")
        db.close()
    else:
        shutil.copy(one, next(p for p in folder.glob("nvss_*.sqlite3") if p != one))
    text = catalogue_trouble(config.with_options(catalog_dir=folder)).text
    assert ("lacks the" if spoilt == "empty" else "is a strip of another name") in text


def test_a_log_whose_disk_is_full_says_when_it_lacks_lines(small_disk, capfd):
    disk = small_disk(4)
    with json_log(disk / "log.jsonl"):
        logger = logging.getLogger("dsa110_contimg.pipeline.test")
        logger.warning("first")
        with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        for k in range(300):
            logger.warning("%d %s", k, "x" * 400)
        (disk / "filler").unlink()
        logger.warning("last")
    said = [line for line in capfd.readouterr().err.splitlines() if "log.jsonl" in line]
    assert len(said) == 2
    assert "cannot be written; what is logged meanwhile is not in it" in said[0]
    assert "is written again" in said[1]
    lines = log_lines(disk / "log.jsonl")
    assert (lines[0]["message"], lines[-1]["message"]) == ("first", "last")
    assert 2 <= len(lines) < 302
