"""A batch of small observations with bad ones among them, through every kind of death.

    python -m studies.pipeline_batch FOLDER [--count 200]

Simulates `count` small observations into FOLDER, spoils ten of them (truncated, locked, flagged, unknown
telescope, unreadable table: two of each), and takes them through ``contimg run`` with two workers. On the way
a worker is killed, then the whole process; the same command goes on, then with the workers of a scheduler of
its own, which is killed and started again. At the end everything is counted: what was lost, what was done
twice, whether DATA was touched.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities.measurement_set import data_hash
from tests.pipeline.conftest import LOCK, OPTIONS, free_port, log_lines, wait_until
from tests.pipeline.test_driver import ends, flag, other_telescope, truncate, unreadable


def make(folder, count):
    """The observations and the ten that are spoiled."""
    simulate(folder / "v0.ms", SimulationConfig(random_phases=True, **OPTIONS))
    build_strips("nvss", folder / "v0.catalog.ecsv", folder / "c")
    start = datetime(2026, 1, 25)
    names = [f"{start + timedelta(seconds=309 * k):%Y-%m-%dT%H:%M:%S}" for k in range(count)]
    mss = [Path(shutil.copytree(folder / "v0.ms", folder / "in" / f"{name}.ms")) for name in names]
    spoil = [truncate, None, flag, other_telescope, unreadable]
    bad, lockers = {}, []
    for k in range(10):
        ms = mss[(2 * k + 1) * count // 20]
        how = spoil[k % 5]
        bad[ms.stem] = how.__name__ if how else "locked"
        if how:
            how(ms)
        else:
            lockers.append(subprocess.Popen([sys.executable, "-c", LOCK, str(ms)], stdin=subprocess.PIPE))
    return mss, bad, lockers


def in_hand(out):
    """Processes that have an observation in hand."""
    jobs = (j for j in out.glob("*/job.json") if not (j.parent / "record.json").exists())
    return [json.loads(j.read_text())["pid"] for j in jobs]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    given = parser.parse_args()
    folder, count = given.folder.absolute(), given.count
    folder.mkdir(parents=True)
    mss, bad, lockers = make(folder, count)
    good = [ms for ms in mss if ms.stem not in bad]
    hashes = {ms: data_hash(ms) for ms in good}
    out, state_file = folder / "out", folder / "state.sqlite3"
    env = {**os.environ, "CONTIMG_CATALOG_DIR": str(folder / "c"), "CONTIMG_SIZE": "256"}
    env |= {"CONTIMG_STATE_FILE": str(state_file), "CONTIMG_WORKER_MEMORY_GB": "3", "CONTIMG_THREADS": "1"}
    log = (folder / "run.err").open("ab")

    def start(*words):
        command = [sys.executable, "-m", "dsa110_contimg", "run", *map(str, mss), str(out), *map(str, words)]
        return subprocess.Popen(command, env=env, stdout=log, stderr=log)

    def finished():
        if not state_file.exists():
            return 0
        with State(state_file) as state:
            counts = state.counts()
        return counts["done"] + counts["failed"]

    began = time.monotonic()

    def until(fraction, what):
        while finished() < fraction * count:
            time.sleep(1)
        print(f"{time.monotonic() - began:7.0f} s  {finished()} of {count}: {what}", flush=True)

    driver = start("--workers", 2)
    until(0.2, "a worker is killed")
    wait_until(lambda: in_hand(out), "something is in hand")
    os.kill(in_hand(out)[0], signal.SIGKILL)
    until(0.4, "the whole process is killed")
    driver.kill()
    driver.wait()
    driver = start("--workers", 2)
    until(0.6, "ended by SIGTERM; on with a scheduler of its own")
    driver.terminate()
    driver.wait()
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"

    def cluster():
        words = [("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")]
        words += [("dask_worker", address, "--nthreads", 1, "--no-dashboard", "--death-timeout", 60)] * 2
        return [
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{w[0]}", *map(str, w[1:])],
                stdout=log,
                stderr=log,
                cwd=folder,
            )
            for w in words
        ]

    parts = cluster()
    driver = start("--scheduler", address)
    until(0.8, "the scheduler is killed and started again")
    parts[0].kill()
    parts[0].wait()
    parts += cluster()
    status = driver.wait()
    print(f"{time.monotonic() - began:7.0f} s  contimg run ended with status {status}")
    for part in [*parts, *lockers]:
        part.terminate()
        part.wait()

    with State(state_file) as state:
        observations = state.observations()
        histories = {o.name: [e["event"] for e in state.history(o)] for o in observations}
        events = state.event_counts()
    outcome = Counter(o.status for o in observations)
    failed = {o.name for o in observations if o.status == "failed"}
    calibrated = ends(out)
    cut = {
        n
        for n, h in histories.items()
        if {"resumed", "worker_lost", "scheduler_lost", "interrupted"} & set(h)
    }
    starts = {
        f.parent.name: sum(x.get("event") == "begin" for x in log_lines(f)) for f in out.glob("*/log.jsonl")
    }
    print(f"accounted for: {len(observations)} of {count}; {dict(outcome)}")
    print(
        f"events: { {k: v for k, v in events.items() if k not in ('queued', 'started', 'done', 'failed')} }"
    )
    print(f"failed are just the bad ones: {failed == set(bad)}")
    for name, how in bad.items():
        print(f"  {how:<16} {next(o.message for o in observations if o.name == name)[-110:]}")
    print(f"good ones done: {outcome['done']} of {len(good)}")
    twice = [n for n, k in calibrated.items() if k > 1]
    again = sum(k > 1 for k in starts.values())
    print(f"cut short and taken up again: {len(cut)}; begun more than once: {again}")
    print(f"calibrated to the end more than once: {len(twice)}; never cut short: {len(set(twice) - cut)}")
    print(f"recorded as done more than once: {sum(h.count('done') > 1 for h in histories.values())}")
    same = sum(data_hash(ms) == hashes[ms] for ms in good)
    print(f"DATA untouched: {same} of {len(good)}")
    assert len(observations) == count
    assert failed == set(bad)
    assert outcome["done"] == len(good) == same
    assert not set(twice) - cut


if __name__ == "__main__":
    main()
