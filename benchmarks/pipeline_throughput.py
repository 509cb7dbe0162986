"""Throughput of the pipeline against one observation at a time, and what the scheduler costs.

    python -m benchmarks.pipeline_throughput FOLDER [--count 12] [--workers 2] [--channels 4]

The same observations, once self-calibrated one after the other in one process that takes all cores, as a
loop over ``contimg selfcal`` would (less its start), and once through the pipeline with one thread for
each worker. The scheduler's share is the time of the workers in which they had nothing in hand, between
their first and their last observation: handing over, records and state.
"""

import argparse
import os
import shutil
import time
from pathlib import Path

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import PipelineConfig, SelfCalConfig, SimulationConfig
from dsa110_contimg.pipeline.driver import Driver
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import simulate
from tests.pipeline.conftest import OPTIONS


def workers_time(records):
    """Seconds that the workers were there for, and had an observation in hand, by worker."""
    there = busy = 0.0
    for worker in {r["pid"] for r in records}:
        own = sorted((r for r in records if r["pid"] == worker), key=lambda r: r["started"])
        # The first one brings the start of the process and of its compiled code with it.
        there += own[-1]["finished"] - own[0]["finished"]
        busy += sum(r["finished"] - r["started"] for r in own[1:])
    return there, busy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--channels", type=int, default=4)
    given = parser.parse_args()
    folder, count = given.folder.absolute(), given.count
    folder.mkdir(parents=True)
    simulate(folder / "v.ms", SimulationConfig(random_phases=True, **OPTIONS | {"channels": given.channels}))
    build_strips("nvss", folder / "v.catalog.ecsv", folder / "c")
    options = {"catalog_dir": folder / "c", "size": 256}

    def copies(name):
        return [shutil.copytree(folder / "v.ms", folder / name / f"{k}.ms") for k in range(count)]

    alone = copies("alone")
    selfcal_ms(alone[0], folder / "warm", SelfCalConfig(**options))
    started = time.perf_counter()
    for ms in alone[1:]:
        selfcal_ms(ms, folder / "alone-out" / ms.stem, SelfCalConfig(**options))
    one_at_a_time = (count - 1) / (time.perf_counter() - started)

    config = PipelineConfig(**options, workers=given.workers, threads=1, worker_memory_gb=3.0)
    with State(folder / "state.sqlite3") as state:
        driver = Driver(state, folder / "out", config)
        for ms in copies("together"):
            driver.add(ms)
        driver.run()
        records = [r for _, r in state.records()]
    assert [r["status"] for r in records] == ["done"] * count
    there, busy = workers_time(records)
    together = (count - given.workers) / (there / given.workers)
    cores = len(os.sched_getaffinity(0))
    print(f"one at a time, {cores} threads      {3600 * one_at_a_time:7.0f} an hour")
    print(f"pipeline, {given.workers} workers of 1 thread {3600 * together:7.0f} an hour")
    print(f"ratio                          {together / one_at_a_time:7.2f}")
    print(f"scheduler and state            {100 * (1 - busy / there):7.2f} % of the workers' time")


if __name__ == "__main__":
    main()
