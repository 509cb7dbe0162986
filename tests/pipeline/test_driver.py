"""Whole batches: bad ones among the good, and everything killed that can be killed."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import psutil
import pytest
from distributed import Client
from distributed.security import Security

from dsa110_contimg.cli.main import main
from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import ConfigError, EngineError, ResourceError, StorageError
from dsa110_contimg.pipeline import job as jobs
from dsa110_contimg.pipeline.cluster import local_threads, open_cluster, slurm_cluster
from dsa110_contimg.pipeline.driver import MOST_RESUMED, Driver
from dsa110_contimg.pipeline.lightcurves import LightCurves
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.report import INDEX
from dsa110_contimg.visibilities.measurement_set import data_hash
from dsa110_contimg.visibilities.tables import open_table
from tests.pipeline.conftest import free_port, log_lines, rows_on, wait_until, worker_of


def truncate(ms):
    largest = max(ms.glob("table.f*"), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def flag(ms):
    with open_table(ms, writable=True) as main:
        main.putcol("FLAG", np.ones_like(main.getcol("FLAG")))


def other_telescope(ms):
    """A table whose dishes and telescope nobody knows."""
    with open_table(ms / "OBSERVATION", writable=True) as sub:
        sub.putcell("TELESCOPE_NAME", 0, "NO-SUCH-ARRAY")
    with open_table(ms / "ANTENNA", writable=True) as sub:
        sub.putcol("DISH_DIAMETER", np.zeros(sub.nrows()))


def unreadable(ms):
    (ms / "table.dat").write_bytes(b"no table")


def ends(outdir: Path) -> dict[str, int]:
    """How often each observation was calibrated to the end, by the workers' own logs."""
    return {
        file.parent.name: sum(line.get("event") == "seeded_done" for line in log_lines(file))
        for file in outdir.glob("*/log.jsonl")
    }


class OneWorker:
    """A client that takes all it is given, one at a time, and ends none of it."""

    status = "running"

    def __init__(self):
        self.taken = []

    def nthreads(self):
        return {"worker": len(self.taken) + 1}

    def submit(self, _, job, **__):
        self.taken.append(job.name)
        return type("Future", (), {"add_done_callback": lambda *_: None})()


@pytest.mark.parametrize(("tonight_h", "order"), [(24.0, ["c", "a", "b"]), (0.0, ["a", "b", "c"])])
def test_tonight_comes_before_what_is_older(config, tmp_path, tonight_h, order):
    with State(config.state_file) as state:
        driver, client = (
            Driver(state, tmp_path / "out", config.with_options(tonight_h=tonight_h)),
            OneWorker(),
        )
        for name, age_h in (("a", 100.0), ("b", 50.0), ("c", 2.0)):
            state.add(name, tmp_path / f"{name}.ms", tmp_path / "out", time.time() - 3600 * age_h)
        for _ in range(3):
            driver._fill(client)
        driver._tasks.clear()
    assert client.taken == order


def test_what_is_missing_is_not_taken_for_another_of_its_name(config, make_ms, tmp_path):
    incoming, out = tmp_path / "incoming", tmp_path / "out"
    incoming.mkdir()
    there = make_ms("a.ms", incoming)
    with State(config.state_file) as state:
        driver, client = Driver(state, out, config, incoming), OneWorker()
        driver.add(there)
        state.start(state.next_queued())
        state.add("a", tmp_path / "gone" / "a.ms", out, 0.0)
        driver._fill(client)
        assert [task.observation.ms for task in driver._tasks.values()] == [tmp_path / "gone" / "a.ms"]
        driver._tasks.clear()
        driver.arrivals.close()


def test_a_driver_that_is_killed_is_not_the_fault_of_what_runs(config, tmp_path):
    with State(config.state_file) as state:
        driver = Driver(state, tmp_path / "out", config.with_options(attempts=2))
        state.add("a", tmp_path / "a.ms", tmp_path / "out", 0.0)
        begun = 0
        while (o := state.next_queued()) is not None:
            state.start(o)
            driver._recover()
            begun += 1
        # Unless it happens every time.
        assert begun == MOST_RESUMED + 2
        (o,) = state.observations()
        assert o.status == "failed"
        assert "the driver was killed, 2 times" in o.message


def test_bad_ones_among_the_good(contimg, make_ms, tmp_path, locked):
    good = [make_ms(f"2026-01-25T0{hour}:00:00.ms") for hour in range(5)]
    hashes = {ms: data_hash(ms) for ms in good}
    spoil = {"truncated": truncate, "locked": locked, "flagged": flag, "telescope": other_telescope}
    spoil["unreadable"] = unreadable
    # The locked one, which is waited for, is the oldest.
    bad = {name: make_ms("2026-01-24T00:00:00.ms" if name == "locked" else f"{name}.ms") for name in spoil}
    names = {name: ms.stem for name, ms in bad.items()}
    for name, ms in bad.items():
        spoil[name](ms)
    out = tmp_path / "out"
    status, text = contimg.run(
        "run", *bad.values(), *good, tmp_path / "none.ms", out, "--workers", 2, "--json"
    )
    assert status == 2, contimg.errors()
    rows = {row["observation"]: row for row in json.loads(text)["observations"]}
    assert {n for n, r in rows.items() if r["status"] == "done"} == {ms.stem for ms in good}
    assert {n for n, r in rows.items() if r["status"] == "failed"} == {*names.values(), "none"}
    says = {
        "locked": "another program is writing",
        "flagged": "no usable visibility",
        "telescope": "",
        "truncated": "",
        "unreadable": "cannot be opened",
        "none": "no such Measurement Set",
    }
    for name, message in says.items():
        found = rows[names.get(name, name)]["message"]
        assert message in found, name
        assert "\n" not in found
        assert "internal error" not in found
    assert "6 of 11 failed" in contimg.errors()
    assert re.search(r"failed: .* \(\d+ of 11, \d failed, about .* left\)$", contimg.errors(), re.M)
    assert {ms: data_hash(ms) for ms in good} == hashes
    page = rows_on(out / INDEX)
    assert {n for n, row in page.items() if row["status"] == "failed"} == {*names.values(), "none"}
    assert all((out / unquote(page[ms.stem]["link"])).is_file() for ms in good)
    # They are copies of one observation, which is in the light curves once.
    with LightCurves(tmp_path / "lightcurves.sqlite3", readonly=True) as curves:
        (taken,) = curves.observations()
    assert taken["name"] in {ms.stem for ms in good}
    idle = dict.fromkeys([*names.values(), "none"], 0)
    assert idle | ends(out) == dict.fromkeys((ms.stem for ms in good), 1) | idle
    # Each again: nothing is done twice; the one that is mended is done on request.
    shutil.rmtree(bad["flagged"])
    make_ms("flagged.ms")
    assert json.loads(contimg.here("retry", bad["flagged"], "--json"))["queued"] == [str(bad["flagged"])]
    status, text = contimg.run("run", *good, bad["flagged"], tmp_path / "elsewhere")
    assert (status, text.splitlines()[-1]) == (0, f"{len(good) + 1} done; products in {out}")
    assert f"{good[0]} is done already: products in {out / good[0].stem}" in contimg.errors()
    assert contimg.run("run", good[0], good[1])[0] == 2
    assert f"{good[1]}: lies inside the table {good[1]}" in contimg.errors()
    assert ends(out)[good[0].stem] == 1
    shown = json.loads(contimg.here("status", bad["flagged"], "--json"))
    assert shown["status"] == shown["record"]["status"] == "done"
    events = [e["event"] for e in shown["history"]]
    assert events == ["queued", "started", "failed", "retry", "started", "done"]
    assert "5 failed" in contimg.here("status")
    # And back: the state knows.
    assert "restored" in contimg.here("revert", good[0])
    assert "reverted" in contimg.here("status", good[0])


def test_worker_and_whole_process_killed(contimg, make_ms, tmp_path):
    mss = [make_ms(f"2026-01-25T0{hour}:00:00.ms") for hour in range(4)]
    hashes = {ms: data_hash(ms) for ms in mss}
    out = tmp_path / "out"
    words = ("run", *mss, out, "--workers", 2)
    first = contimg.start(*words)
    wait_until(lambda: worker_of(out, mss[0].stem), "the first is in hand")
    lost = worker_of(out, mss[0].stem)
    os.kill(lost, signal.SIGKILL)
    # Its observation is taken up by the worker that takes its place, and the whole is killed over it.
    wait_until(lambda: worker_of(out, mss[0].stem) not in (None, lost), "the first is in hand again")
    family = psutil.Process(first.pid).children(recursive=True)
    assert len(family) >= 2
    first.kill()
    first.wait()
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family), "all end with it")
    kept = {ms: (out / ms.stem / "image.fits").stat().st_mtime_ns for ms in mss if ends(out).get(ms.stem)}
    second = contimg.start(*words)
    out_text, _ = second.communicate(timeout=900)
    assert second.returncode == 0, contimg.errors()
    assert "4 done" in out_text
    done = ends(out)
    assert set(done) == {ms.stem for ms in mss}
    records = {ms: json.loads((out / ms.stem / "record.json").read_text()) for ms in mss}
    assert all(r["status"] == "done" and r["published"] == "seeded" for r in records.values())
    assert {ms: data_hash(ms) for ms in mss} == hashes
    with State(tmp_path / "pipeline.sqlite3") as state:
        history = {o.name: [e["event"] for e in state.history(o)] for o in state.observations()}
        for o in state.observations():
            assert o.run_id == records[o.ms]["run_id"]
    assert "worker_lost" in history[mss[0].stem]
    assert sum(h.count("resumed") for h in history.values()) >= 1
    assert all(h.count("done") == 1 for h in history.values())
    for ms in kept:
        if "resumed" not in history[ms.stem]:
            assert (out / ms.stem / "image.fits").stat().st_mtime_ns == kept[ms]
    assert all(n == 1 for name, n in done.items() if "resumed" not in history[name])


def test_watch_restarted_and_ended_gently(contimg, make_ms, tiny, tmp_path):
    """A folder that fills, the watcher killed in the middle and ended by SIGTERM: each taken once."""
    incoming, out = tmp_path / "incoming", tmp_path / "out"
    incoming.mkdir()
    words = ("watch", incoming, out, "--settle-s", 0.5, "--poll-s", 0.2)
    names = [f"2026-01-25T0{hour}:00:00" for hour in range(3)]

    def is_done(name):
        return lambda: (out / name / "record.json").exists()

    def arrives(name):
        # Whole, however slow the disk is: what is still being copied is another test.
        make_ms(f"{name}.ms", tmp_path).rename(incoming / f"{name}.ms")

    watcher = contimg.start(*words)
    arrives(names[0])
    wait_until(is_done(names[0]), "the first is done")
    family = psutil.Process(watcher.pid).children(recursive=True)
    assert len(family) >= 2
    watcher.kill()
    watcher.wait()
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family), "all end with it")
    arrives(names[1])
    watcher = contimg.start(*words)
    wait_until(lambda: worker_of(out, names[1]), "the second is in hand")
    watcher.terminate()
    assert watcher.wait(60) == 143
    with State(tmp_path / "pipeline.sqlite3") as state:
        assert state.counts()["running"] == 0
    watcher = contimg.start(*words)
    arrives(names[2])
    for name in names:
        wait_until(is_done(name), f"{name} is done")
    with State(tmp_path / "pipeline.sqlite3") as state:
        wait_until(lambda: not state.observations("queued", "running"), "all are written down")
        assert state.counts()["done"] == 3, [state.history(o) for o in state.observations()]
        assert [len([e for e in state.history(o) if e["event"] == "done"]) for o in state.observations()] == [
            1
        ] * 3
        assert [
            len([e for e in state.history(o) if e["event"] == "queued"]) for o in state.observations()
        ] == [1] * 3
    assert ends(out)[names[0]] == 1
    assert ends(out)[names[2]] == 1
    # A second one beside it is told so.
    state_file = tmp_path / "pipeline.sqlite3"
    with (
        State(state_file) as state,
        pytest.raises(ResourceError, match=rf"worked on by contimg run .*\(process {watcher.pid} on "),
    ):
        Driver(state, out, PipelineConfig()).run()


@pytest.fixture
def dask_process(tmp_path):
    """Start parts of a Dask cluster in processes of their own."""
    started = []

    def start(*words):
        command = [sys.executable, "-m", "distributed.cli." + words[0], *map(str, words[1:])]
        with (tmp_path / "dask.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(30)


def test_the_scheduler_killed_and_started_again(contimg, make_ms, tmp_path, dask_process):
    mss = [make_ms(f"2026-01-25T0{hour}:00:00.ms") for hour in range(2)]
    out, port = tmp_path / "out", free_port()
    address, files = f"tls://127.0.0.1:{port}", {}
    # Of one run, as an operator would make them with openssl.
    made = Security.temporary()
    for name, text in (
        ("ca", made.tls_ca_file),
        ("cert", made.tls_client_cert),
        ("key", made.tls_client_key),
    ):
        files[name] = tmp_path / f"{name}.pem"
        files[name].write_text(text)
    tls = ("--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"])

    def start():
        here = ("--host", "127.0.0.1", "--port", port, "--protocol", "tls")
        scheduler = dask_process("dask_scheduler", *here, "--no-dashboard", *tls)
        dask_process("dask_worker", address, "--nthreads", 1, "--no-dashboard", "--death-timeout", 20, *tls)
        return scheduler

    scheduler = start()
    driver = contimg.start(
        "run",
        *mss,
        out,
        "--scheduler",
        address,
        "--threads",
        1,
        "--tls-ca",
        files["ca"],
        "--tls-cert",
        files["cert"],
        "--tls-key",
        files["key"],
    )
    wait_until(lambda: worker_of(out, mss[0].stem), "the first is in hand")
    scheduler.kill()
    scheduler.wait()
    time.sleep(1)
    start()
    text, _ = driver.communicate(timeout=900)
    assert driver.returncode == 0, contimg.errors()
    assert "2 done" in text
    with State(tmp_path / "pipeline.sqlite3") as state:
        first = state.observations()[0]
        events = [e["event"] for e in state.history(first)]
        assert "scheduler_lost" in events
        assert events.count("done") == 1
        # The loss was not the observation's fault.
        assert first.attempts == 1
    # What the old worker brought to its end was not done again, and what it left was taken up.
    assert ends(out) == {ms.stem: 1 for ms in mss}


def driver_for(mss, config, tmp_path):
    state = State(config.state_file)
    driver = Driver(state, tmp_path / "out", config)
    for ms in mss:
        driver.add(ms)
    return state, driver


@pytest.mark.filterwarnings("ignore")
def test_a_hanging_worker_is_ended_and_the_batch_ends(config, make_ms, tmp_path, locked):
    """A lock that is waited for longer than the time allowed stands for whatever hangs."""
    ms = make_ms()
    locked(ms)
    state, driver = driver_for([ms], config.with_options(job_timeout_s=3.0, attempts=1), tmp_path)
    with state:
        driver.run()
        (observation,) = state.observations()
        events = [e["event"] for e in state.history(observation)]
    assert observation.status == "failed"
    assert "no end after 3 s, 1 times" in observation.message
    assert events.count("worker_hung") == 1


@pytest.mark.filterwarnings("ignore")
def test_a_worker_beyond_its_memory_is_ended_and_the_batch_ends(config, make_ms, tmp_path):
    """Trap 27: nobody waits for a worker that has run out of memory."""
    config = config.with_options(worker_memory_gb=0.25, attempts=1)
    state, driver = driver_for([make_ms()], config, tmp_path)
    with state:
        driver.run()
        (observation,) = state.observations()
        events = [e["event"] for e in state.history(observation)]
    assert observation.status == "failed"
    assert "its worker died, 1 times" in observation.message
    assert events.count("worker_lost") == 1


def test_threads_are_shared_out():
    cores = len(os.sched_getaffinity(0))
    assert local_threads(PipelineConfig()) == cores
    assert local_threads(PipelineConfig(workers=cores)) == 1
    assert local_threads(PipelineConfig(threads=3, workers=2)) == 3
    assert local_threads(PipelineConfig(scheduler="tcp://h:1")) == 0


def test_clusters_that_cannot_be(tmp_path):
    with (
        pytest.raises(ConfigError, match="both scheduler and slurm"),
        open_cluster(PipelineConfig(scheduler="tcp://127.0.0.1:1", slurm=True), tmp_path),
    ):
        pass
    with (
        pytest.raises(ResourceError, match="worker_memory_gb: 1024 workers of 100 GB need"),
        open_cluster(PipelineConfig(workers=1024, worker_memory_gb=100), tmp_path),
    ):
        pass
    for options, message in (
        ({"scheduler": "tcp://h:1"}, r"tcp://h:1 is not protected: .* or --unprotected-scheduler"),
        ({"scheduler": "tls://h:1"}, "tls_ca: is needed for a tls:// scheduler and not there"),
        ({"scheduler": "tls://h:1", "tls_ca": tmp_path / "none"}, "tls_ca: is needed"),
    ):
        with pytest.raises(ConfigError, match=message), open_cluster(PipelineConfig(**options), tmp_path):
            pass


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_does_not_answer(config, make_ms, tmp_path, monkeypatch):
    monkeypatch.setattr("dsa110_contimg.pipeline.cluster.CONNECT_S", 2)
    where = f"tcp://127.0.0.1:{free_port()}"
    config = config.with_options(scheduler=where, unprotected_scheduler=True, scheduler_wait_s=0)
    state, driver = driver_for([make_ms()], config, tmp_path)
    with state:
        with pytest.raises(EngineError, match="no Dask scheduler answers"):
            driver.run()
        assert state.counts()["queued"] == 1


@pytest.mark.filterwarnings("ignore")
def test_the_slurm_profile(tmp_path):
    """What the queue is asked for: one Measurement Set at a time, memory, cores, partition, time.

    Nobody without the certificates of this run has work done by it.
    """
    config = PipelineConfig(
        slurm=True, slurm_queue="astro", slurm_account="dsa", slurm_walltime="08:00:00", worker_memory_gb=8.0
    )
    with slurm_cluster(config.with_options(threads=4), tmp_path) as cluster:
        script = cluster.job_script()
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        assert all(not p.stat().st_mode & 0o077 for p in tmp_path.iterdir())
        for stranger, security in (
            (address, Security.temporary()),
            (address, None),
            (address.replace("tls://", "tcp://"), None),
        ):
            with pytest.raises((OSError, TypeError)):
                Client(stranger, timeout=3, security=security, set_as_default=False)
            # A client that failed is closed when it is collected: in the middle of the start of another one,
            # whose lock it waits for, that would never end.
            gc.collect()
        with Client(address, timeout=10, security=cluster.security, set_as_default=False) as ours:
            assert ours.status == "running"
    for line in ("-p astro", "-A dsa", "-t 08:00:00", "--cpus-per-task=4", "--mem=8G", "-n 1"):
        assert f"#SBATCH {line}\n" in script, script
    assert "--nthreads 1" in script
    assert "--memory-limit 7.45GiB" in script


def test_a_service_waits_for_a_state_that_cannot_be_written_and_takes_up_what_ran(
    config, make_ms, tmp_path, monkeypatch
):
    monkeypatch.setattr("dsa110_contimg.pipeline.driver.STATE_S", 0.05)
    state, driver = driver_for([make_ms()], config, tmp_path)
    with state:
        state.start(state.next_queued())
        note, tries = state.note, []

        def full(event, detail="", observation=None):
            tries.append(event)
            if len(tries) < 3:
                raise StorageError("cannot be written (database or disk is full)", state.path)
            note(event, detail, observation)

        monkeypatch.setattr(state, "note", full)
        driver._wait_for_state(StorageError("full"))
        assert len(tries) >= 3
        assert state.counts()["running"] == 0
        assert state.counts()["queued"] == 1


def test_good_products_come_back_where_the_driver_gives_up(config, make_ms, tmp_path):
    state, driver = driver_for([make_ms()], config.with_options(attempts=1), tmp_path)
    with state:
        o = state.next_queued()
        state.start(o)
        state.finish(o, jobs.process(driver._job(o)))
        good = (o.folder / "seeded" / "final-image.fits").read_bytes()
        (again,) = state.retry([o])
        again = state.find(again.ms)
        state.start(again)
        # Its worker has begun, and died.
        job = driver._job(again)
        jobs._Work(job, time.time())
        assert not (o.folder / "seeded").exists()
        driver._again(state.find(o.ms), job, "worker_lost", "its worker died")
        assert state.find(o.ms).status == "failed"
        assert (o.folder / "seeded" / "final-image.fits").read_bytes() == good
        assert json.loads((o.folder / "failure.json").read_text())["run_id"] == again.run_id


@pytest.mark.parametrize("kind", ["unknown", "no state"])
def test_revert_says_what_the_state_was_told(config, make_ms, tmp_path, capfd, kind):
    ms = make_ms()
    if kind == "unknown":
        State(config.state_file).close()
        assert main(["revert", str(ms), "--state-file", str(config.state_file)]) == 0
        assert "no state file" not in capfd.readouterr().out
        # One that cannot be used is not passed over.
        config.state_file.write_bytes(b"")
        assert main(["revert", str(ms), "--state-file", str(config.state_file)]) == 2
        assert "is damaged (empty)" in capfd.readouterr().err
    else:
        assert main(["revert", str(ms)]) == 0
        assert "no state file was told: give --state-file" in capfd.readouterr().out
