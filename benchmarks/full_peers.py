"""How the peers of `benchmarks.full` are called, each with the best options that fit the job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import casacore
import numpy as np
import psutil
from casacore.tables import makescacoldesc, maketabdesc

from benchmarks.measured import Measured, contimg, run_measured, total
from dsa110_contimg.visibilities.tables import open_table
from tests.casa.casa import HERE as CASA_SETTINGS
from tests.casa.casa import casa_python

__all__ = [
    "AUTO_SELFCAL_AS",
    "CASA_TELESCOPE",
    "Recipe",
    "Unavailable",
    "run_auto_selfcal",
    "run_casa",
    "run_dp3",
]

BENCHMARKS = Path(__file__).resolve().parent
CASA = BENCHMARKS / "full_casa.py"
AUTO_SELFCAL = BENCHMARKS / "full_auto_selfcal.py"
#: A telescope that CASA knows the place of; the DSA-110 stands there too.
CASA_TELESCOPE = "OVRO_MMA"
#: numpy is needed by DP3's start script, and not declared by it.
DP3_PACKAGES = ("dp3==6.6.0", "numpy==2.2.6")
AUTO_SELFCAL_PACKAGES = ("auto-selfcal==2.1",)
#: Bytes of memory that DP3's gaincal takes per visibility of an interval, measured, and the part of the
#: machine's that it may take.
GAINCAL_BYTES, GAINCAL_SHARE = 80, 0.6
#: What is not as its authors run it.
AUTO_SELFCAL_AS = (
    "auto_selfcal runs as for the EVLA, with BBC_NO and names of windows as there; sidelobethreshold is "
    "1.25, its value for the ACA, for else its masks are empty; casaplotms and casaviewer are left out, and "
    "with them its web page"
)
INSTALL_S = 900
#: Of the VLA's windows, as A0C0 is called by number.
BASEBAND = 12
CLEAN_ITERATIONS = 100_000
MAJOR_CYCLES = 15


class Unavailable(Exception):
    """A program cannot be run here."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every peer is called with.

    Attributes
    ----------
    ms : Path
        Measurement Set as the telescope writes it.
    sky : Path
        Sky model as a component list, apparent fluxes.
    mask : Path
        FITS mask of the sources that stand out, for imagers without a good automatic one.
    size : int
        Pixels on a side.
    cell_arcsec : float
        Pixel size.
    beam : (float, float, float)
        Restoring beam: axes in arcsec and position angle in degrees.
    depth_jy : float
        CLEAN down to this.
    dump_s, phase_solint_s, amplitude_solint_s : float
        A dump, and solution intervals, seconds.
    combine_windows : bool
        One gain for all spectral windows.
    reference_antenna : str
        Its name.
    n_windows : int
        Spectral windows.
    """

    ms: Path
    sky: Path
    mask: Path
    size: int
    cell_arcsec: float
    beam: tuple[float, float, float]
    depth_jy: float
    dump_s: float
    phase_solint_s: float
    amplitude_solint_s: float
    combine_windows: bool
    reference_antenna: str
    n_windows: int


class _Steps:
    """Commands one after the other, which together must not take too long."""

    def __init__(self, folder: Path, longest_s: float | None) -> None:
        self._folder, self._longest_s = folder, longest_s
        self._parts: list[Measured] = []

    @property
    def going(self) -> bool:
        """Whether all went well so far."""
        return not self._parts or self._parts[-1].exit_status == 0

    @property
    def took(self) -> Measured:
        """All of them."""
        return total(self._parts)

    def run(self, stage: str, command: Sequence[object], env: dict[str, str] | None = None) -> None:
        """Run the next one, unless one before it failed or was stopped."""
        if not self.going:
            return
        words = [str(word) for word in command]
        with (self._folder / "commands.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"# {stage}\n{' '.join(words)}\n")
        left = None if self._longest_s is None else max(1.0, self._longest_s - self.took.seconds)
        done = run_measured(words, stage, cwd=self._folder, env=env, longest_s=left)
        self._parts.append(done)
        with (self._folder / "output.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"# {stage}\n{done.output}\n")


def run_casa(recipe: Recipe, folder: Path, longest_s: float | None) -> tuple[Measured, Path]:
    """Run the CASA recipe; return what it took and the image."""
    require_casa()
    one_centre = folder / "one-centre.ms"
    combine = "scan,spw" if recipe.combine_windows else "scan"
    plan = {
        "ms": str(one_centre),
        "components": components(recipe.sky),
        "mask": str(recipe.mask),
        "gaincal": {
            "combine": combine,
            "refant": recipe.reference_antenna,
            "minsnr": 3.0,
            "minblperant": 4,
        },
        "solints": [_casa_solint(recipe, s) for s in (recipe.phase_solint_s, recipe.amplitude_solint_s)],
        "spwmap": [0] * recipe.n_windows if recipe.combine_windows else [],
        "tclean": {
            "imsize": recipe.size,
            "cell": f"{recipe.cell_arcsec}arcsec",
            "weighting": "briggs",
            "robust": 0,
            "specmode": "mfs",
            "gridder": "wproject",
            "wprojplanes": 64,
            "deconvolver": "hogbom",
            "pblimit": -1,
            "niter": CLEAN_ITERATIONS,
            "nmajor": MAJOR_CYCLES,
            "threshold": f"{recipe.depth_jy}Jy",
            "restoringbeam": [
                f"{x}{unit}" for x, unit in zip(recipe.beam, ("arcsec", "arcsec", "deg"), strict=True)
            ],
        },
    }
    (folder / "plan.json").write_text(json.dumps(plan, indent=1), "utf-8")
    steps = _Steps(folder, longest_s)
    steps.run("one phase centre (contimg rephase)", contimg("rephase", recipe.ms, one_centre))
    if steps.going:
        _name_telescope(one_centre, CASA_TELESCOPE)
    steps.run("start", [casa_python(), CASA, folder / "plan.json"], _casa_environment(folder))
    return steps.took, folder / "image.fits"


def _casa_solint(recipe: Recipe, seconds: float) -> str:
    # A dump as such: CASA rounds an interval in seconds to dumps, and may take two for one.
    return "int" if seconds < 1.5 * recipe.dump_s else f"{seconds:.3f}s"


def require_casa() -> None:
    """Raise Unavailable without CASA's Python."""
    if not casa_python().is_file():
        raise Unavailable(f"no CASA environment at {casa_python()} (make casa)")


def _casa_environment(folder: Path) -> dict[str, str]:
    # HOME: no user's settings may change what CASA does here.
    return {
        "CASASITECONFIG": str(CASA_SETTINGS / "casasiteconfig.py"),
        "HOME": str(folder),
        "MPLBACKEND": "Agg",
    }


def components(sky: Path) -> list[dict[str, object]]:
    """Read a component list as the package writes it, into plain values for CASA's own Python."""
    lines = sky.read_text("utf-8").splitlines()
    frequency_hz = float(lines[0].split("'")[1])
    found: list[dict[str, object]] = []
    for line in lines[1:]:
        name, shape, ra, dec, flux, index, _, _, major, minor, angle = line.split(",")
        h, m, s = ra.split(":")
        d, arcmin, arcsec = dec.split(".", 2)
        found.append(
            {
                "label": name,
                "shape": shape.lower(),
                "dir": f"ICRS {h}h{m}m{s}s {d}d{arcmin}m{arcsec}s",
                "flux": float(flux),
                "index": float(index.strip("[]")),
                "freq": f"{frequency_hz}Hz",
                "size": [f"{major}arcsec", f"{minor}arcsec", f"{angle}deg"] if shape == "GAUSSIAN" else [],
            }
        )
    return found


def run_dp3(recipe: Recipe, folder: Path, longest_s: float | None) -> tuple[Measured, Path]:
    """Run DP3 and WSClean; return what they took and the image."""
    wsclean = shutil.which("wsclean")
    if wsclean is None:
        raise Unavailable("no wsclean on the path (apt-get install wsclean)")
    # Beside the folder, which is made anew each time.
    python = environment(folder.with_name("dp3-environment"), DP3_PACKAGES)
    casarc = folder / "casarc"
    measures = Path(casacore.__file__).with_name("data")
    casarc.write_text(f"measures.directory: {measures}\n", "utf-8")
    env = {"CASARCFILES": str(casarc), "OPENBLAS_NUM_THREADS": "1"}
    one_centre, four = folder / "one-centre.ms", folder / "four.ms"
    cores = len(os.sched_getaffinity(0))
    dp3 = [python, python.with_name("DP3.py"), f"msin={four}", "msout=.", f"numthreads={cores}"]
    steps = _Steps(folder, longest_s)
    steps.run("one phase centre (contimg rephase)", contimg("rephase", recipe.ms, one_centre))
    expand = [sys.executable, "-m", "benchmarks.four_correlations", one_centre, four]
    steps.run("four correlations, one window", expand, {"PYTHONPATH": _python_path()})
    predict = ["steps=[predict]", f"predict.sourcedb={recipe.sky}", "msout.datacolumn=MODEL_DATA"]
    steps.run("DP3 predict", [*dp3, *predict], env)
    solve = ["msin.extradatacolumns=[MODEL_DATA]", "msout.datacolumn=CORRECTED_DATA", "steps=[p,ap]"]
    most = _dumps_in_memory(four)
    for name, kind, seconds in (
        ("p", "diagonalphase", recipe.phase_solint_s),
        ("ap", "diagonal", recipe.amplitude_solint_s),
    ):
        options = {
            "type": "gaincal",
            "caltype": kind,
            "solint": max(1, min(round(seconds / recipe.dump_s), most)),
            "nchan": 0,
            "parmdb": folder / f"{name}.h5",
            "applysolution": "true",
            "usemodelcolumn": "true",
            "maxiter": 100,
        }
        solve += [f"{name}.{option}={value}" for option, value in options.items()]
    steps.run("DP3 gaincal, applied", [*dp3, *solve], env)
    if steps.going:
        gridder = _faster_gridder(wsclean, recipe, four, folder, cores, longest_s)
        clean = [*_wsclean(wsclean, recipe, cores), *gridder, "-name", folder / "w", four]
        steps.run(" ".join(["WSClean", *gridder]), clean)
    return steps.took, folder / "w-image.fits"


def _dumps_in_memory(ms: Path) -> int:
    """Say how many dumps an interval of DP3's gaincal may have, all of which it keeps in memory."""
    with open_table(ms) as main:
        dumps = np.unique(main.getcol("TIME")).size
        per_dump = main.nrows() / dumps * main.getcell("DATA", 0).size * GAINCAL_BYTES
    most = max(1, int(GAINCAL_SHARE * psutil.virtual_memory().total / per_dump))
    if most < dumps:
        print(f"DP3's gaincal keeps an interval in memory: {most} dumps at most, of {dumps}", flush=True)
    return most


def _wsclean(wsclean: str, recipe: Recipe, cores: int) -> list[object]:
    size = [recipe.size, recipe.size]
    beam = [f"{x:.6g}{unit}" for x, unit in zip(recipe.beam, ("asec", "asec", "deg"), strict=True)]
    return [
        *(wsclean, "-size", *size, "-scale", f"{recipe.cell_arcsec:.12g}asec", "-pol", "I", "-j", cores),
        *("-weight", "briggs", "0", "-data-column", "CORRECTED_DATA", "-no-update-model-required"),
        *("-niter", CLEAN_ITERATIONS, "-nmiter", MAJOR_CYCLES, "-mgain", "0.8"),
        *("-threshold", f"{recipe.depth_jy:.6g}", "-auto-threshold", "3", "-auto-mask", "5"),
        *("-beam-shape", *beam),
    ]


def _faster_gridder(
    wsclean: str, recipe: Recipe, ms: Path, folder: Path, cores: int, longest_s: float | None
) -> list[str]:
    """Return the option of the gridder that makes a point spread function sooner; not counted."""
    seconds = {}
    for options in ((), ("-use-wgridder",)):
        trial = [*_wsclean(wsclean, recipe, cores), *options, "-make-psf-only", "-name", folder / "trial", ms]
        took = run_measured([str(x) for x in trial], "trial", cwd=folder, longest_s=longest_s)
        seconds[options] = took.seconds if took.exit_status == 0 else float("inf")
    return list(min(seconds, key=lambda options: seconds[options]))


def run_auto_selfcal(recipe: Recipe, folder: Path, longest_s: float | None) -> tuple[Measured, Path]:
    """Run auto_selfcal; return what it took and its final image.

    Its Python is CASA's, with the package itself in a folder of its own. The telescope is called EVLA and its
    windows as those of the VLA, as it knows no other.
    """
    require_casa()
    installed = folder.with_name("auto_selfcal-environment")
    environment(installed, AUTO_SELFCAL_PACKAGES, dependencies=False)
    packages = next((installed / "lib").glob("python*/site-packages"))
    ms = folder / "f1_target.ms"
    shutil.copytree(recipe.ms, ms)
    _name_telescope(ms, "EVLA")
    with open_table(ms / "SPECTRAL_WINDOW", writable=True) as sub:
        sub.putcol("NAME", [f"EVLA_L#A0C0#{k}" for k in range(sub.nrows())])
        sub.addcols(maketabdesc([makescacoldesc("BBC_NO", 0)]))
        sub.putcol("BBC_NO", np.full(sub.nrows(), BASEBAND, dtype=np.int32))
    _one_scan(ms)
    plan = {
        "packages": str(packages),
        "ms": ms.name,
        "imsize": [recipe.size, recipe.size],
        "cell": f"{recipe.cell_arcsec}arcsec",
        "refant": recipe.reference_antenna,
        "image": str(folder / "image.fits"),
    }
    (folder / "plan.json").write_text(json.dumps(plan, indent=1), "utf-8")
    steps = _Steps(folder, longest_s)
    steps.run("auto_selfcal", [casa_python(), AUTO_SELFCAL, folder / "plan.json"], _casa_environment(folder))
    return steps.took, folder / "image.fits"


def _name_telescope(ms: Path, name: str) -> None:
    with open_table(ms / "OBSERVATION", writable=True) as sub:
        sub.putcol("TELESCOPE_NAME", [name] * sub.nrows())


def _one_scan(ms: Path) -> None:
    with open_table(ms, writable=True) as main:
        main.putcol("SCAN_NUMBER", main.getcol("SCAN_NUMBER") * 0 + 1)


def environment(folder: Path, packages: Sequence[str], *, dependencies: bool = True) -> Path:
    """Python of a virtual environment with pinned packages, made if it is not there.

    Raises
    ------
    Unavailable
        If it cannot be made, with the reason in one line.
    """
    python, ready = folder / "bin" / "python", folder / "installed.txt"
    if ready.exists() and ready.read_text("utf-8").split() == list(packages):
        return python
    shutil.rmtree(folder, ignore_errors=True)
    install = [python, "-m", "pip", "install", "--quiet", *([] if dependencies else ["--no-deps"]), *packages]
    for command in ([sys.executable, "-m", "venv", folder], install):
        words = [str(word) for word in command]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{' '.join(packages)}: no end of the installation") from None
        if done.returncode:
            said = next(
                (x for x in reversed(done.stderr.splitlines()) if x.startswith("ERROR")), "no reason given"
            )
            raise Unavailable(f"{' '.join(packages)} cannot be installed ({said})")
    ready.write_text("\n".join(packages) + "\n", "utf-8")
    return python


def _python_path() -> str:
    return os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
