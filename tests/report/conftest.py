"""Runs of every kind, each made once."""

import shutil
import time
from pathlib import Path

import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.cli.main import main
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.report import write_report
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import simulate
from tests.arrays import COMPACT
from tests.browser import browser, show  # noqa: F401
from tests.report.synthetic import write_run

OPTIONS = {"array": COMPACT, "antennas": 12, "channels": 4, "dumps": 4, "sefd_jy": 500.0, "drift": False}
IMAGE = {"size": 256, "threads": 1}


@pytest.fixture(scope="session")
def observed(tmp_path_factory) -> Path:
    """A folder with x.ms, of random phases, and its catalogue strips in `c`; never changed."""
    folder = tmp_path_factory.mktemp("observed")
    simulate(folder / "x.ms", SimulationConfig(random_phases=True, **OPTIONS))
    build_strips("nvss", folder / "x.catalog.ecsv", folder / "c")
    return folder


@pytest.fixture(scope="session")
def good(observed, tmp_path_factory) -> Path:
    """What `contimg selfcal` leaves of a run that improved."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(observed / "x.ms", folder / "x.ms")
    words = ["--catalog-dir", observed / "c", "--size", "256", "--threads", "1"]
    assert main([str(w) for w in ("selfcal", folder / "x.ms", folder / "out", *words)]) == 0
    return folder / "out"


@pytest.fixture(scope="session")
def unseeded(observed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unseeded")
    shutil.copytree(observed / "x.ms", folder / "x.ms")
    selfcal_ms(folder / "x.ms", folder / "out", SelfCalConfig(use_nvss_seeding=False, max_rounds=2, **IMAGE))
    return folder / "out"


@pytest.fixture(scope="session")
def refused(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    simulate(
        folder / "x.ms",
        SimulationConfig(random_phases=True, catalog_error="mirror", **OPTIONS | {"seed": 5}),
    )
    build_strips("nvss", folder / "x.catalog.ecsv", folder / "c")
    result = selfcal_ms(folder / "x.ms", folder / "out", SelfCalConfig(catalog_dir=folder / "c", **IMAGE))
    assert result.status == "refused"
    return folder / "out"


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """A run on input that is calibrated already: no round is accepted."""
    folder = tmp_path_factory.mktemp("kept")
    perfect = {"phase_rms": 0, "phase_drift": 0, "amplitude_rms": 0, "flux_error": 0, "position_error": 0}
    simulate(folder / "x.ms", SimulationConfig(**OPTIONS | perfect | {"sefd_jy": 5000.0, "seed": 5}))
    build_strips("nvss", folder / "x.catalog.ecsv", folder / "c")
    result = selfcal_ms(folder / "x.ms", folder / "out", SelfCalConfig(catalog_dir=folder / "c", **IMAGE))
    assert result.status in ("converged", "no_improvement")
    return folder / "out"


@pytest.fixture(scope="session")
def large(tmp_path_factory) -> tuple[Path, float]:
    """Products of a full-size observation with their page, and the processor seconds that this took."""
    names = [f"pad{k}" for k in range(117)]
    folder = write_run(tmp_path_factory.mktemp("large") / "out", names, n_sources=900, size=4096)
    begun = time.process_time()
    write_report(folder)
    return folder, time.process_time() - begun
