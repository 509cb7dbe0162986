"""The real observations of the reference data, each test with its own copy."""

import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsa110_contimg.simulate import SimulationConfig, simulate
from dsa110_contimg.visibilities import MeasurementSet, open_measurement_set
from tests.imaging.wsclean.support import FIGURES
from tests.needs import unavailable

#: Files of tests that share what takes long to set up run in one process.
IN_ONE_PROCESS = {
    "tests/compare/test_arms.py": "compared",
    "tests/compare/test_page.py": "compared",
    "tests/compare/test_report.py": "compared",
    "tests/compare/test_run.py": "compared",
}
#: Each reads the threads that it may start from a variable of its own.
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DUCC0_NUM_THREADS")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def unpack(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as tar:
        # Python before 3.11.4 (Debian 12 has 3.11.2) has no extraction filters; the loop stands in.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in tar:
            if (
                not (into / member.name).resolve().is_relative_to(into.resolve())
                or member.islnk()
                or member.issym()
            ):
                raise ValueError(f"{archive}: will not unpack {member.name}")
        tar.extractall(into)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real observations and catalogues beside the repository."""
    if not SHARED_DATA.is_dir():
        unavailable(f"no reference data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def ngc5921_raw(shared_data: Path, tmp_path: Path) -> Path:
    """A fresh copy of the uncalibrated VLA observation: two calibrators (fields 0, 1) and N5921_2 (2)."""
    unpack(shared_data / "ngc5921" / "raw.ms.tar.gz", tmp_path)
    return tmp_path / "ngc5921_small_raw.ms"


@pytest.fixture
def ngc5921_crosscal(shared_data: Path, tmp_path: Path) -> Path:
    """A fresh copy of the target field of the same observation, cross-calibrated."""
    unpack(shared_data / "ngc5921" / "crosscal.ms.tar.gz", tmp_path)
    return tmp_path / "ngc5921_small_xcal.ms"


@pytest.fixture
def vlba(shared_data: Path, tmp_path: Path) -> Path:
    """A fresh copy of a calibrated observation of M87 at 8 GHz, one channel a window."""
    unpack(shared_data / "arrays" / "mojave.ms.tar.gz", tmp_path)
    return tmp_path / "mojave.ms"


@pytest.fixture(scope="session")
def ngc5921_caltables(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The real calibration tables of the observation, by name; not to be written to."""
    folder = tmp_path_factory.mktemp("caltables")
    unpack(shared_data / "ngc5921" / "caltables.tar.gz", folder)
    return {name: folder / name for name in ("B0", "G0", "G1", "G1.flux")}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make a file system of so many megabytes; failing to is a failure where nothing may be skipped."""
    mounted = []

    def make(megabytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode:
            unavailable(f"cannot mount a small disk: {tried.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores out between the processes of `-n`, which start after this and inherit it.

    Threads of several processes that wait for one another on the same core take three times as long.
    """
    processes = len(getattr(config.option, "tx", None) or ())
    if processes and not hasattr(config, "workerinput"):
        threads = max(1, len(os.sched_getaffinity(0)) // processes)
        os.environ.update((name, str(threads)) for name in THREADS if name not in os.environ)


@lru_cache
def makes_for_all_its_tests(file: Path) -> bool:
    """Whether a file makes something once for all its tests, and in each process that runs one of them."""
    return 'scope="module"' in file.read_text("utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal out the tests one by one, but for those that stay in one process; these come first."""
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatIsShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            alone = file if makes_for_all_its_tests(config.rootpath / file) else nodeid
            return IN_ONE_PROCESS.get(file, alone)

    return ByWhatIsShared(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what was measured to the process that prints it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = FIGURES


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what was measured in another process."""
    FIGURES.extend(getattr(node, "workeroutput", {}).get("figures", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    if FIGURES:
        terminalreporter.section("measured")
        for line in FIGURES:
            terminalreporter.write_line(line)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def small_ms(tmp_path_factory: pytest.TempPathFactory) -> MeasurementSet:
    """Eight antennas, six dumps, four channels; not to be written to."""
    out: Path = tmp_path_factory.mktemp("small") / "small.ms"
    options = {"antennas": 8, "dumps": 6, "channels": 4, "min_mjy": 100.0, "drift": False}
    simulate(out, SimulationConfig(random_phases=True, **options))
    return open_measurement_set(out)
