"""One small observation for all tests of the stages, with random phases, and what is found of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.simulate import simulate
from tests.arrays import COMPACT
from tests.selfcal.support import Notes, open_data


@pytest.fixture(scope="session")
def observed(tmp_path_factory) -> Path:
    """A Measurement Set of twelve antennas, six dumps and eight channels; never changed."""
    folder = tmp_path_factory.mktemp("observed")
    simulate(
        folder / "t.ms",
        SimulationConfig(
            array=COMPACT,
            channels=8,
            dumps=6,
            drift=False,
            sefd_jy=2000.0,
            min_mjy=20.0,
            random_phases=True,
        ),
    )
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
    return folder / "t.ms"


@pytest.fixture(scope="session")
def stage_config(observed) -> SelfCalConfig:
    """Options against the catalogue of the observation, with small images."""
    return SelfCalConfig(catalog_dir=observed.parent / "c", size=192, cell_arcsec=24.0)


@pytest.fixture(scope="session")
def data(observed, stage_config) -> CalibrationData:
    """The observation in memory. A stage may not change it: all tests share it."""
    return open_data(observed, stage_config)


@pytest.fixture
def notes() -> Notes:
    """What a test's stages note."""
    return Notes()


@pytest.fixture
def log(notes) -> StageLog:
    """Log of a test."""
    return StageLog(notes)


@pytest.fixture(scope="session")
def start(data) -> CalState:
    """State before anything is done."""
    return CalState(weights=data.nominal_weights())


@pytest.fixture(scope="session")
def solved(data, start, stage_config) -> CalState:
    """State after gains are solved against the catalogue and weights are settled; a value."""
    return reweight(data, start, stage_config, StageLog(Notes()))
