"""The runner: what a binary can do, how options are said to it, and how its failures come back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.wsclean_predict import compare_predictions
from dsa110_contimg.config import ImagingConfig, SimulationConfig
from dsa110_contimg.errors import ConfigError, DeadlineError, WSCleanError
from dsa110_contimg.imaging import ImageGrid, RestoringBeam
from dsa110_contimg.imaging.grid import ARCSEC
from dsa110_contimg.imaging.wsclean.arguments import Capabilities, detect_capabilities, wsclean_arguments
from dsa110_contimg.imaging.wsclean.clean import unchanged, working_folder
from dsa110_contimg.imaging.wsclean.runner import HostWSClean
from dsa110_contimg.simulate import simulate
from dsa110_contimg.sky import SkyModel
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set
from tests.imaging.wsclean.support import state
from tests.needs import program

GRID = ImageGrid(512, 3 * ARCSEC, 2.5, 0.9)
ALL = frozenset(
    [
        "-abs-mem",
        "-auto-mask",
        "-auto-threshold",
        "-beam-shape",
        "-channels-out",
        "-fit-spectral-pol",
        "-gridder",
        "-j",
        "-join-channels",
        "-make-psf",
        "-mgain",
        "-multiscale",
        "-name",
        "-niter",
        "-nmiter",
        "-no-update-model-required",
        "-pol",
        "-reorder",
        "-scale",
        "-size",
        "-temp-dir",
        "-threshold",
        "-weight",
    ]
)


@pytest.fixture
def wsclean():
    return HostWSClean(program("wsclean"))


def fake(folder, text):
    made = folder / "wsclean"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return HostWSClean(str(made))


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


def test_capabilities_of_the_real_one(wsclean):
    found = detect_capabilities(wsclean)
    assert found.version.startswith("3.")
    for option in (
        "-predict",
        "-no-update-model-required",
        "-auto-mask",
        "-fits-mask",
        "-abs-mem",
        "-reorder",
    ):
        assert found.has(option), option
    assert not found.has("-no-such-option")
    if found.version.startswith("3.1"):
        assert not found.has("-draw-model")
        assert not found.has("-gridder")
        with pytest.raises(ConfigError, match=r"WSClean 3.1.* has no -draw-model"):
            found.require("-draw-model", "predict")


def test_what_is_not_wsclean_is_told(tmp_path):
    with pytest.raises(WSCleanError, match="does not answer like WSClean"):
        detect_capabilities(fake(tmp_path, "echo hello"))


def test_options_are_said_in_its_words():
    config = ImagingConfig(
        robust=0.5, memory_gb=3, threads=2, multiscale=True, channels_out=4, spectral_terms=2
    )
    beam = RestoringBeam(20 * ARCSEC, 10 * ARCSEC, np.radians(30))
    said = wsclean_arguments(config, GRID, Capabilities("3.6", ALL), thermal_rms_jy=1e-4, beam=beam)
    text = " ".join(said)
    for part in (
        "-size 512 512 -scale 3asec",
        "-abs-mem 3 -j 2",
        "-weight briggs 0.5",
        "-gridder wgridder",
        "-threshold 0.0003 -auto-threshold 3 -auto-mask 5",
        "-beam-shape 20asec 10asec 30deg",
        "-multiscale",
        "-channels-out 4 -join-channels",
        "-fit-spectral-pol 2",
        "-no-update-model-required -reorder",
    ):
        assert part in text, part
    older = Capabilities("3.1", ALL - {"-gridder"} | {"-use-wgridder"})
    assert "-use-wgridder" in wsclean_arguments(config, GRID, older, thermal_rms_jy=1e-4)
    with pytest.raises(ConfigError, match=r"WSClean 2\.0 has no -multiscale"):
        wsclean_arguments(config, GRID, Capabilities("2.0", ALL - {"-multiscale"}), thermal_rms_jy=1e-4)


@pytest.mark.parametrize(
    ("threshold", "said", "not_said"),
    [
        ("0.1mJy", "-threshold 0.0001 -auto-mask 5", "-auto-threshold"),
        ("6sigma", "-threshold 0.0006 -auto-threshold 6", "-auto-mask"),
        (None, "-threshold 0.0003 -auto-threshold 3 -auto-mask 5", "zzz"),
    ],
)
def test_trap_23_depths_with_units(threshold, said, not_said):
    config = ImagingConfig(threshold=threshold)
    text = " ".join(wsclean_arguments(config, GRID, Capabilities("3.6", ALL), thermal_rms_jy=1e-4))
    assert said in text
    assert not_said not in text


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


def test_working_folder_goes_whatever_happens(tmp_path):
    dead = tmp_path / ".i.wsclean.4194304"
    dead.mkdir()
    alive = tmp_path / f".i.wsclean.{os.getppid()}"
    alive.mkdir()
    with pytest.raises(OSError, match="none"), working_folder(tmp_path / "i") as folder:
        (folder / "none" / "f").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [alive.name]


def test_a_changed_measurement_set_is_told(tmp_path):
    (tmp_path / "table.dat").write_text("a")
    with unchanged(tmp_path):
        (tmp_path / "table.lock").write_text("b")
    with pytest.raises(WSCleanError, match=r"1 files .* changed .*table\.dat"), unchanged(tmp_path):
        (tmp_path / "table.dat").write_text("changed")
    with pytest.raises(WSCleanError, match=r"1 files .* changed .*new"), unchanged(tmp_path):
        (tmp_path / "new").write_text("x")


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
