"""Tiny observations, their catalogue, and the command line in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.cli.main import main
from dsa110_contimg.config import PipelineConfig, SimulationConfig
from dsa110_contimg.pipeline.job import Job
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities.tables import open_table
from tests.arrays import COMPACT
from tests.needs import REQUIRE_ALL
from tests.report.html_check import checked

LOCK = """
import sys
from casacore.tables import table
tables = [table(name, readonly=False, ack=False, lockoptions="permanent") for name in sys.argv[1:]]
print("locked", flush=True)
sys.stdin.read()
"""

OPTIONS = {"array": COMPACT, "antennas": 12, "channels": 4, "dumps": 2, "sefd_jy": 500.0, "drift": False}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [n for n in os.environ if n.upper().startswith("CONTIMG_")]:
        if name != REQUIRE_ALL:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with tiny.ms, of random phases, and its catalogue strips in `c`; never changed."""
    folder = tmp_path_factory.mktemp("tiny")
    simulate(folder / "tiny.ms", SimulationConfig(random_phases=True, **OPTIONS))
    build_strips("nvss", folder / "tiny.catalog.ecsv", folder / "c")
    return folder


@pytest.fixture
def make_ms(tiny, tmp_path) -> Callable[..., Path]:
    """Copy the tiny observation to a name."""

    def make(name: str = "2026-01-25T22:26:05.ms", folder: Path = tmp_path) -> Path:
        return Path(shutil.copytree(tiny / "tiny.ms", folder / name))

    return make


@pytest.fixture
def config(tiny, tmp_path) -> PipelineConfig:
    return PipelineConfig(
        catalog_dir=tiny / "c", size=256, threads=1, state_file=tmp_path / "state" / "pipeline.sqlite3"
    )


@pytest.fixture
def make_job(make_ms, config, tmp_path) -> Callable[..., Job]:
    """Make a job on a copy of the tiny observation."""

    def make(run_id: str = "run1", ms: Path | None = None, tables=None, **options) -> Job:
        ms = ms or make_ms()
        name = ms.name.removesuffix(".ms")
        return Job(run_id, name, ms, tmp_path / "out" / name, config.with_options(**options), tables)

    return make


@pytest.fixture
def contimg(tiny, tmp_path, monkeypatch, capfd):
    """Start contimg in a process of its own; `contimg.run` waits for it."""
    started = []

    class Contimg:
        def start(self, *words, stderr="contimg.err", **variables) -> subprocess.Popen:
            env = {
                **os.environ,
                "CONTIMG_CATALOG_DIR": str(tiny / "c"),
                "CONTIMG_STATE_FILE": str(tmp_path / "pipeline.sqlite3"),
                "CONTIMG_SIZE": "256",
                "CONTIMG_WORKER_MEMORY_GB": "3",
                **{k: str(v) for k, v in variables.items()},
            }
            with (tmp_path / stderr).open("ab") as log:
                command = [sys.executable, "-m", "dsa110_contimg", *map(str, words)]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=env, text=True)
            started.append(process)
            return process

        def run(self, *words, **variables) -> tuple[int, str]:
            process = self.start(*words, **variables)
            out, _ = process.communicate(timeout=900)
            return process.returncode, out

        def here(self, *words) -> str:
            """Call a command that needs no workers, in this process."""
            capfd.readouterr()
            monkeypatch.setenv("CONTIMG_STATE_FILE", str(tmp_path / "pipeline.sqlite3"))
            assert main([str(w) for w in words]) == 0
            return capfd.readouterr().out

        def errors(self) -> str:
            return (tmp_path / "contimg.err").read_text()

    yield Contimg()
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def locked():
    """Keep Measurement Sets locked, as a program that writes them does."""
    started = []

    def lock(*mss):
        process = subprocess.Popen(
            [sys.executable, "-c", LOCK, *map(str, mss)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "locked\n"

    yield lock
    for process in started:
        process.communicate()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def worker_of(outdir: Path, name: str) -> int | None:
    """The process that has an observation in hand, if it has."""
    job, record = outdir / name / "job.json", outdir / name / "record.json"
    return json.loads(job.read_text())["pid"] if job.exists() and not record.exists() else None


def rows_on(page: Path) -> dict[str, dict]:
    """What a page holds, by name."""
    text = page.read_text("utf-8")
    checked(text)
    columns = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])["columns"]
    for key in ("status", "verdict", "version"):
        columns[key] = [columns[key]["words"][k] for k in columns[key]["of"]]
    return {row[0]: dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)}


def wait_until(condition: Callable[[], object], what: str, seconds: float = 600.0) -> None:
    """Wait until something has happened; fail the test if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.05)


def columns(ms: Path) -> dict[str, np.ndarray]:
    """Every column of a Measurement Set."""
    with open_table(ms) as main:
        return {name: main.getcol(name) for name in main.colnames() if main.iscelldefined(name, 0)}


def assert_same_columns(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def log_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]
