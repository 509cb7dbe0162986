"""CASA and the real observations, for comparing the package with both."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.simulate import SimulationConfig, simulate
from dsa110_contimg.sky import SkyModel
from tests.casa.casa import casa_python, run_task


@pytest.fixture
def casa(tmp_path: Path) -> Callable[..., Any]:
    """Run ``casa("gaincal", vis=..., ...)`` in ``tmp_path / "casa"``."""
    if not casa_python().is_file():
        pytest.fail(f"no CASA environment at {casa_python()}; run: make casa")
    return partial(run_task, workdir=tmp_path / "casa")


@pytest.fixture(scope="session")
def nvss(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Catalogue strips of the real NVSS around N5921 and 3C286."""
    folder = tmp_path_factory.mktemp("catalogs")
    build_strips("nvss", shared_data / "catalogues" / "nvss_50mjy.csv.gz", folder, dec_range=(0.0, 35.0))
    return folder


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DSA-110 observation with uniformly random antenna phases; not to be written to."""
    out = tmp_path_factory.mktemp("simulation") / "sim.ms"
    simulate(
        out, SimulationConfig(antennas=30, dumps=8, channels=8, random_phases=True, min_mjy=20.0, drift=False)
    )
    return out


@pytest.fixture
def simulated(simulation: Path, tmp_path: Path) -> Path:
    """A fresh copy of the simulated observation."""
    return Path(shutil.copytree(simulation, tmp_path / "sim.ms"))


# Offsets in degrees to the east and north of the field's centre, and jansky: nothing is symmetric.
POINTS = ((0.031, 0.012, 1.0), (-0.25, 0.11, 0.7), (0.17, 0.29, 0.5), (-0.08, -0.31, 0.4), (0.3, -0.2, 0.3))


@pytest.fixture(scope="session")
def points_sky() -> SkyModel:
    """A few points around (150, 54.57) degrees."""
    east, north, flux = np.transpose(POINTS)
    dec = 54.57 + north
    ra = 150.0 + east / np.cos(np.radians(dec))
    return SkyModel.points(np.radians(ra), np.radians(dec), flux)


@pytest.fixture(scope="session")
def points_ms(points_sky: SkyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The points seen by the DSA-110 with perfect gains; not to be written to."""
    out = tmp_path_factory.mktemp("simulation") / "points.ms"
    # Three times the noise of the real receivers, so that it and not CASA's w-projection sets the residual.
    perfect = {"phase_rms": 0, "phase_drift": 0, "amplitude_rms": 0, "sefd_jy": 20000, "drift": False}
    simulate(out, SimulationConfig(antennas=60, dumps=8, channels=8, **perfect), sky=points_sky)
    return out
