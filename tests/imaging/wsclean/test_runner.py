"""The program as it is run on this machine: how its failures come back, and how it ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.wsclean_predict import compare_predictions
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import DeadlineError, WSCleanError
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.imaging.grid import ARCSEC
from dsa110_contimg.imaging.wsclean.arguments import detect_capabilities
from dsa110_contimg.imaging.wsclean.clean import working_folder
from dsa110_contimg.imaging.wsclean.runner import HostWSClean
from dsa110_contimg.simulate import simulate
from dsa110_contimg.sky import SkyModel
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set
from tests.imaging.wsclean.support import fake, state


def ends(file):
    """Whether the process whose number a file holds ends within seconds; a zombie has ended."""
    pid, until = file.read_text().strip(), time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_its_own_words_about_a_failure(wsclean, tmp_path):
    with pytest.raises(WSCleanError, match=r"exit status 255: .*none\.ms"):
        wsclean.call(f"-name {tmp_path}/x -size 64 64 -scale 5asec {tmp_path}/none.ms".split(), 30)
    with pytest.raises(WSCleanError, match=r"ended without x-image\.fits"):
        wsclean.call(["-version"], 30, [tmp_path / "x-image.fits"])
    (tmp_path / "old.fits").write_text("of an earlier run")
    with pytest.raises(WSCleanError, match=r"ended without old\.fits"):
        wsclean.call(["-version"], 30, [tmp_path / "old.fits"])
    with pytest.raises(WSCleanError, match="cannot be run"):
        HostWSClean(str(tmp_path / "none")).call([], 30)


def test_deadline_on_the_host(tmp_path):
    slow = fake(tmp_path, f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    with pytest.raises(DeadlineError, match=r"ran past its deadline of 0.5 s and was ended"):
        slow.call([], 0.5)
    assert ends(tmp_path / "pid")


def test_it_ends_with_its_caller(tmp_path):
    """SIGKILL of Python takes the program on the host along."""
    fake(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    code = (
        f"from dsa110_contimg.imaging.wsclean.runner import *\nHostWSClean('{tmp_path}/wsclean').call([], 60)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        time.sleep(0.02)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert ends(tmp_path / "pid")


def test_trap_4_prediction_from_pixels(wsclean, tmp_path):
    """Drawn on pixels the model is wrong by ten per cent; sources on their centres come out right."""
    options = {"antennas": 30, "dumps": 3, "channels": 4, "min_mjy": 500.0, "sefd_jy": 0.0}
    simulate(tmp_path / "p.ms", SimulationConfig(fields=24, **options))
    before = state(tmp_path / "p.ms")
    ms = open_measurement_set(tmp_path / "p.ms")
    reader = VisibilityReader(ms, ms.select())
    grid = ImageGrid(1024, 3 * ARCSEC, *reader.phase_center)
    capabilities = detect_capabilities(wsclean)
    rng = np.random.default_rng(1)
    differences = []
    for pixels in (rng.uniform(200, 800, (2, 30)), rng.integers(200, 800, (2, 30))):
        sky = SkyModel.points(*grid.pixel_to_sky(*pixels), rng.exponential(0.1, 30))
        with working_folder(tmp_path / "w") as folder:
            found = compare_predictions(wsclean, capabilities, reader, sky, grid, folder)
        assert found.n_components == 30
        differences.append(found.relative)
    assert 0.02 < differences[0] < 0.3
    assert differences[1] < 5e-3
    assert state(tmp_path / "p.ms") == before
