"""A tiny observation with its catalogue, and one whole comparison of it."""

import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare import compare_strategies
from dsa110_contimg.config import ComparisonConfig, SelfCalConfig, SimulationConfig
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities.measurement_set import data_hash
from tests.arrays import COMPACT
from tests.browser import browser, show  # noqa: F401

IMAGE = {"size": 192, "cell_arcsec": 24.0}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder with ``t.ms``, its truth and catalogue strips ``c``; never changed."""
    folder = tmp_path_factory.mktemp("compare")
    options = {
        "array": COMPACT,
        "antennas": 12,
        "channels": 4,
        "dumps": 2,
        "sefd_jy": 500.0,
        "phase_rms": 50.0,
        "min_mjy": 5.0,
    }
    simulate(folder / "t.ms", SimulationConfig(**options))
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
    return folder


@pytest.fixture(scope="session")
def config(tiny):
    return SelfCalConfig(catalog_dir=tiny / "c", **IMAGE)


@pytest.fixture(scope="session")
def compared(tiny, config, tmp_path_factory):
    """The four usual arms: folder, results, hash of DATA before and after."""
    out = tmp_path_factory.mktemp("compared") / "out"
    before = data_hash(tiny / "t.ms")
    results = compare_strategies(tiny / "t.ms", out, config, ComparisonConfig()).results
    return out, results, before, data_hash(tiny / "t.ms")
