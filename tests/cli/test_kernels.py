"""After ``contimg compile`` no observation waits for a kernel."""

import json
import subprocess
import sys

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.simulate import simulate
from tests.arrays import COMPACT

#: In a process of its own: kernels that other tests have compiled are not in it.
SCRIPT = """
import json, sys
import numba.core.event as events
from dsa110_contimg.cli.kernels import compile_kernels
from dsa110_contimg.cli.main import main
from dsa110_contimg.progress import LogProgress

compile_kernels(LogProgress())
with events.install_recorder("numba:compile") as recorder:
    codes = [main(command) for command in json.loads(sys.argv[1])]
functions = [event.data["dispatcher"].py_func for _, event in recorder.buffer if event.is_end]
late = [f"{f.__module__}.{f.__name__}" for f in functions if f.__module__.startswith("dsa110_contimg.")]
print(json.dumps({"codes": codes, "late": late}))
"""


def test_no_kernel_is_left_for_an_observation(tmp_path):
    options = {"array": COMPACT, "antennas": 14, "dumps": 3, "sefd_jy": 800.0, "min_mjy": 20.0}
    commands = []
    for name, more, flags in (
        ("drift", {"channels": 24, "spws": 2, "random_phases": True}, ["--average", "always"]),
        ("tracked", {"channels": 4, "drift": False, "autocorrelations": True}, []),
        ("bare", {"channels": 8}, ["--no-seed"]),
        ("off", {"channels": 4, "dumps": 6, "antennas": 30, "pointing_rms": 0.2, "random_phases": True}, []),
    ):
        ms = tmp_path / f"{name}.ms"
        simulate(ms, SimulationConfig(**options | more))
        build_strips("nvss", tmp_path / f"{name}.catalog.ecsv", tmp_path / f"c-{name}")
        given = ["--catalog-dir", str(tmp_path / f"c-{name}"), "--size", "256", *flags]
        commands.append(["selfcal", str(ms), str(tmp_path / f"out-{name}"), *given])
    commands.append(["image", str(tmp_path / "tracked.ms"), "--name", str(tmp_path / "i"), "--size", "256"])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["codes"] == [0] * len(commands), done.stderr
    assert said["late"] == []
