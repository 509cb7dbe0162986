"""The comparison over a grid of simulated observations, in parallel processes, resumable."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg import __version__
from dsa110_contimg.compare.arms import parse_arms
from dsa110_contimg.compare.run import compile_all, folder_lock
from dsa110_contimg.compare.study_run import RUN, SPEC
from dsa110_contimg.config import SelfCalConfig, SimulationConfig, StudyConfig
from dsa110_contimg.errors import ConfigError
from dsa110_contimg.files import write_json, write_text
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.settings import PREFIX
from dsa110_contimg.visibilities.tables import require_outside_tables

__all__ = ["AXES", "LABELS", "Point", "grid_points", "run_study"]

STUDY = "study.json"
#: What a point of the grid is given by: axis, option of the study, option of the simulation.
AXES = {
    "phase": ("phase_errors", "phase_rms"),
    "jy": ("brightest", "brightest_jy"),
    "amplitude": ("amplitude_errors", "amplitude_rms"),
    "flux": ("flux_errors", "flux_error"),
    "position": ("position_errors", "position_error"),
    "dec": ("decs", "dec"),
}
#: What the axes are called.
LABELS = {
    "phase": "start phase error",
    "jy": "bright source (Jy)",
    "amplitude": "amplitude error",
    "flux": "catalogue flux error",
    "position": "catalogue position error (arcsec)",
    "dec": "declination",
}
MAP = ("phase", "jy")
#: Each antenna needs `min_baselines` to others.
FEWEST_ANTENNAS = 5
#: Time for simulation, images and scores of a run besides its arms, seconds.
SPARE_S = 1800.0
#: One core each: the observations are what runs in parallel.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Point:
    """One simulated observation of a study.

    Parameters
    ----------
    values : dict
        Value of each axis, as text.
    draw : int
        Which draw of sky, gains and noise, from 0.
    arms : str
        Arms to compare.
    """

    values: dict[str, str]
    draw: int
    arms: str

    @property
    def name(self) -> str:
        """Folder name: tells every value."""
        return "_".join([*(f"{axis}{value}" for axis, value in self.values.items()), f"draw{self.draw}"])


def grid_points(config: StudyConfig) -> list[Point]:
    """List the observations of a study: the map, and what is varied by itself at its middle.

    Raises
    ------
    ConfigError
        If the arms cannot be compared.
    """
    seeded = [arm.seeded for arm in parse_arms(config.map_arms)]
    if sorted(seeded) != [False, True]:
        raise ConfigError("needs one unseeded and one seeded arm", "map_arms", "mend the option")
    further = [arm.name for arm in parse_arms(config.limit_arms)] if config.limit_arms else []
    lists = {axis: getattr(config, option).split(",") for axis, (option, _) in AXES.items()}
    usual = {axis: words[0] for axis, words in lists.items()}
    middle = {**usual, **{axis: lists[axis][len(lists[axis]) // 2] for axis in MAP}}
    choices = [{**usual, "phase": p, "jy": b} for p, b in itertools.product(lists["phase"], lists["jy"])]
    for axis in AXES:
        if axis not in MAP:
            choices += [{**middle, axis: word} for word in lists[axis][1:]]
    arms = {True: ",".join([config.map_arms, *further]), False: config.map_arms}
    return [Point(values, draw, arms[values == middle]) for draw in range(config.draws) for values in choices]


def run_study(
    outdir: Path,
    config: StudyConfig | None = None,
    progress: Progress | None = None,
    *,
    warm: bool = False,
) -> list[dict[str, Any]]:
    """Run what is not done yet; every observation of the grid is accounted for.

    Parameters
    ----------
    outdir : Path
        Folder; each observation has a folder of its own under ``runs``.
    config : StudyConfig, optional
        Options.
    progress : Progress, optional
        Where progress is reported.
    warm : bool
        Whether everything has been compiled already.

    Returns
    -------
    list of dict
        What each ``run.json`` holds, with ``values`` and ``draw``; the status of one
        whose process failed is ``failed`` and its reason says how.

    Raises
    ------
    ConfigError
        If the options make no study.
    ResourceError
        If another study works in the folder, or it cannot be one of products.
    """
    config, progress = config or StudyConfig(), progress or LogProgress()
    points = grid_points(config)
    require_outside_tables(outdir)
    array = _array(config)
    with folder_lock(outdir, wait=False):
        return _study(outdir, config, progress, points, array, warm=warm)


def _study(
    outdir: Path, config: StudyConfig, progress: Progress, points: list[Point], array: str, *, warm: bool
) -> list[dict[str, Any]]:
    file = outdir / "array.txt"
    write_text(file, array)
    specs = {p.name: _spec(p, config, file) for p in points}
    folders = {p.name: outdir / "runs" / p.name for p in points}
    runs = {p.name: _finished(folders[p.name], specs[p.name]["key"]) for p in points}
    todo = [name for name, run in runs.items() if run is None]
    progress.note(f"{len(points)} observations, {len(points) - len(todo)} done already")
    if todo and not warm:
        compile_all(progress)
    if todo:
        n_arms = len(parse_arms(f"{config.map_arms},{config.limit_arms}"))
        limit_s = SPARE_S + n_arms * config.study_arm_limit_s
        for name, run in _run_all({n: folders[n] for n in todo}, specs, config.workers, limit_s, progress):
            runs[name] = run
            told = run["reason"] or ", ".join(f"{k} {a['status']}" for k, a in run["arms"].items())
            progress.note(f"{name}: {told}")
    results = [{"values": p.values, "draw": p.draw, **(runs[p.name] or {})} for p in points]
    write_json(outdir / STUDY, {"config": config.model_dump(), "version": __version__, "runs": results})
    return results


def _run_all(
    folders: dict[str, Path],
    specs: dict[str, dict[str, Any]],
    workers: int,
    limit_s: float,
    progress: Progress,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run runs in processes; whatever ends this one ends them too."""
    running: set[subprocess.Popen[bytes]] = set()
    stop = threading.Event()
    # The specification is complete: no variable of the environment may change it.
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
    environment |= {**ONE_THREAD, "MPLBACKEND": "Agg"}

    def one(name: str) -> dict[str, Any]:
        if stop.is_set():
            return {}
        folder = folders[name]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SPEC, specs[name])
        (folder / RUN).unlink(missing_ok=True)
        with (folder / "run.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dsa110_contimg.compare.study_run", str(folder)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
            running.add(process)
            try:
                returned = process.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                _kill(process)
                return _lost(specs[name]["key"], f"no end within {limit_s:g} s")
            finally:
                running.discard(process)
        run = _finished(folder, specs[name]["key"], ("completed", "failed"))
        if run is not None:
            return run
        lines = (folder / "run.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        how = f"killed by {signal.Signals(-returned).name}" if returned < 0 else f"exit status {returned}"
        return _lost(specs[name]["key"], f"{how}: {lines[-1]}" if lines else how)

    with ThreadPoolExecutor(workers) as pool:
        try:
            waiting = {pool.submit(one, name): name for name in folders}
            for future in progress.track(as_completed(waiting), len(waiting), "observations"):
                yield waiting[future], future.result()
        finally:
            stop.set()
            for process in list(running):
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a run with the arm that it runs."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _lost(key: str, reason: str) -> dict[str, Any]:
    return {"key": key, "status": "failed", "reason": reason, "arms": {}}


def _finished(folder: Path, key: str, statuses: tuple[str, ...] = ("completed",)) -> dict[str, Any] | None:
    try:
        run: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
        return run if run["key"] == key and run["status"] in statuses else None
    except (OSError, ValueError, KeyError):
        return None


def _spec(point: Point, config: StudyConfig, array: Path) -> dict[str, Any]:
    simulation: dict[str, Any] = {
        "array": str(array),
        "channels": config.study_channels,
        "dumps": config.study_dumps,
        "fields": config.study_dumps,
        "seed": config.study_seed + point.draw,
    }
    for axis, (_, option) in AXES.items():
        value = point.values[axis]
        simulation |= {"random_phases": True} if value == "random" else {option: float(value)}
    selfcal: dict[str, Any] = {
        "size": config.study_size,
        "cell_arcsec": config.study_cell_arcsec,
        "max_rounds": config.study_rounds,
        "threads": 1,
    }
    comparison: dict[str, Any] = {"arms": point.arms, "arm_limit_s": config.study_arm_limit_s}
    SimulationConfig(**simulation)
    SelfCalConfig(**selfcal)
    spec = {"simulation": simulation, "selfcal": selfcal, "comparison": comparison}
    # Where the array's file lies does not matter, what stands in it does.
    known = {**spec, "simulation": {**simulation, "array": array.read_text("utf-8")}, "version": __version__}
    return {"key": hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest(), **spec}


def _array(config: StudyConfig) -> str:
    """Choose the stations of the study: some of the core, so that an image of the whole beam is small."""
    text = (resources.files("dsa110_contimg.simulate") / "arrays" / "dsa110.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    stations = [line for line in lines if not line.startswith("#")]
    place = np.array([[float(x) for x in line.split()[1:3]] for line in stations])
    core = np.hypot(*(place - np.median(place, axis=0)).T) < config.radius_m
    chosen = [line for line, inside in zip(stations, core, strict=True) if inside][:: config.every]
    if len(chosen) < FEWEST_ANTENNAS:
        raise ConfigError(
            f"leaves {len(chosen)} antennas, fewer than {FEWEST_ANTENNAS}",
            f"radius_m={config.radius_m:g}, every={config.every}",
            "raise radius_m or lower every",
        )
    return "\n".join([*(x for x in lines if x.startswith("#")), *chosen]) + "\n"
