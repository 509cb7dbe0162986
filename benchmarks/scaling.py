"""How time and memory of ``contimg selfcal`` grow with channels, sources, antennas, dumps and cores.

    python -m benchmarks.scaling FOLDER [--quick] [--axes channels,sources,antennas,dumps,cores]

Each axis by itself, the others held at a base that takes seconds. The arrays are drawn, all of one extent, so
that the pixels are the same. The exponent is that between neighbours: 1 is in proportion; it is low where the
start of the program is most of it. Where the program says that its memory does not do, it gets more by its
own option, which is said. Figures are in FOLDER/scaling.json, a picture is FOLDER/scaling.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import psutil

from benchmarks.measured import Measured, contimg, run_measured
from dsa110_contimg.files import save_figure, write_json

BASE: dict[str, float] = {"channels": 16, "sources": 100, "antennas": 40, "dumps": 6, "cores": 2}
AXES: dict[str, tuple[int, ...]] = {
    "channels": (8, 32, 128, 512),
    "sources": (10, 100, 1000, 10_000),
    "antennas": (20, 40, 100, 300, 1000),
    "dumps": (4, 8, 16, 32, 64),
    "cores": (1, 2),
}
#: With --quick, points of an axis beyond this are left out.
QUICK: dict[str, int] = {"channels": 128, "sources": 1000, "antennas": 100, "dumps": 16, "cores": 64}
SIZE = 512
#: Radius of the drawn arrays in metres (rms on an axis), and their largest one.
ARRAY_RMS_M, ARRAY_LARGEST_M = 300.0, 1000.0
#: Sources above a flux as seen through the beam fall with its 0.9th power, and are some 860 above 1 mJy.
COUNT_AT_1_MJY, COUNT_SLOPE = 860.0, 0.9
#: Faintest flux in the sky over the faintest one seen through the beam.
OVER_APPARENT = 2.5
MEMORY_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run.

    Attributes
    ----------
    axis : str
        What is varied.
    value : float
        Its value; of sources, how many the sky model had.
    took : Measured
        What the run took.
    status : str
        How it ended.
    memory_gb : float or None
        The program's memory option, where the default did not do.
    """

    axis: str
    value: float
    took: Measured
    status: str
    memory_gb: float | None = None


def write_array(path: Path, antennas: int) -> None:
    """Write an array of antennas drawn about the middle, where the DSA-110 is."""
    rng = np.random.default_rng(antennas)
    radius = np.minimum(ARRAY_RMS_M * np.sqrt(-2 * np.log(rng.uniform(size=antennas))), ARRAY_LARGEST_M)
    angle = rng.uniform(0, 2 * np.pi, antennas)
    east, north = radius * np.sin(angle), radius * np.cos(angle)
    # The longest baseline is the same in all, and with it the pixels.
    east[:2], north[:2] = (-ARRAY_LARGEST_M, ARRAY_LARGEST_M), 0.0
    lines = ["# telescope DSA_110", "# latitude_deg 37.23339", "# longitude_deg -118.28341"]
    lines += ["# height_m 1188", "# dish_m 4.65", "# name east north up"]
    lines += [f"a{k} {e:.2f} {n:.2f} 0.00" for k, (e, n) in enumerate(zip(east, north, strict=True))]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def faintest_mjy(sources: float) -> float:
    """Flux seen through the beam above which there are about so many sources."""
    return float((COUNT_AT_1_MJY / sources) ** (1 / COUNT_SLOPE))


def run_point(folder: Path, axis: str, at: Mapping[str, float]) -> Point:
    """Simulate an observation, self-calibrate it and measure that."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ms, array, apparent = folder / "o.ms", folder / "array.txt", faintest_mjy(at["sources"])
    write_array(array, int(at["antennas"]))
    sky = ("--min-mjy", f"{OVER_APPARENT * apparent:.6g}")
    size = [w for name in ("channels", "dumps") for w in (f"--{name}", int(at[name]))]
    for command in (
        contimg("simulate", ms, "--array", array, "--random-phases", *sky, *size),
        contimg("catalog", "build", "nvss", folder / "o.catalog.ecsv", "--catalog-dir", folder / "c"),
    ):
        made = run_measured(command, "prepare")
        if made.exit_status:
            raise SystemExit(f"{axis} {at[axis]:g}: {made.output}")
    run = contimg("selfcal", ms, folder / "out", "--catalog-dir", folder / "c", "--columns", "corrected")
    run += ["--size", str(SIZE), "--threads", str(int(at["cores"]))]
    run += [*sky, "--seed-min-apparent-mjy", f"{apparent:.6g}"]
    memory_gb = None
    took = run_measured(run, "all")
    if took.exit_status and "memory" in took.output:
        memory_gb = math.floor(MEMORY_SHARE * psutil.virtual_memory().available / 1e9)
        took = run_measured([*run, "--memory-gb", str(memory_gb)], "all")
    value, status = at[axis], f"exit status {took.exit_status}: {took.output.strip().splitlines()[-1:]}"
    if took.exit_status == 0:
        summary = json.loads((folder / "out" / "selfcal_summary.json").read_text("utf-8"))
        status = summary["status"]
        value = summary["n_seeds"] if axis == "sources" else value
    shutil.rmtree(folder)
    return Point(axis=axis, value=value, took=replace(took, output=""), status=status, memory_gb=memory_gb)


def exponents(points: Sequence[Point], figure: str) -> list[float]:
    """Local exponents of a figure, one for each point; none for the first."""
    found = [math.nan]
    for one, next_ in itertools.pairwise(points):
        ratio = getattr(next_.took, figure) / getattr(one.took, figure)
        apart = math.log(next_.value / one.value)
        found.append(math.log(ratio) / apart if apart else math.nan)
    return found


def in_words(points: Sequence[Point]) -> list[str]:
    """Lay the points of an axis out as lines of a table."""
    lines = []
    figures = ("seconds", "processor_s", "peak_mb")
    slopes = zip(*(exponents(points, figure) for figure in figures), strict=True)
    for point, slope in zip(points, slopes, strict=True):
        line = f"{point.axis:<10}{point.value:>8g}"
        for figure, exponent in zip(figures, slope, strict=True):
            value = getattr(point.took, figure)
            power = "" if math.isnan(exponent) else f"{exponent:+.2f}"
            line += f"{value:>10.1f}{power:>7}"
        more = "" if point.memory_gb is None else f", --memory-gb {point.memory_gb:g}"
        lines.append(f"{line}  {point.status}{more}")
    return lines


def picture(path: Path, found: Mapping[str, Sequence[Point]]) -> None:
    """Draw seconds, processor seconds and memory against each axis."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        2, len(found), figsize=(3.2 * len(found), 6), squeeze=False, sharey="row"
    )
    for column, (axis, points) in enumerate(found.items()):
        x = [p.value for p in points]
        upper, lower = panels[0][column], panels[1][column]
        upper.loglog(x, [p.took.seconds for p in points], "o-", label="by the clock")
        upper.loglog(x, [p.took.processor_s for p in points], "s--", label="of processors")
        lower.loglog(x, [p.took.peak_mb / 1e3 for p in points], "o-", color="tab:green")
        upper.set_title(axis)
        lower.set_xlabel(axis)
        for panel in (upper, lower):
            panel.grid(visible=True, which="both", alpha=0.3)
            panel.set_xticks(x, [f"{value:g}" for value in x], minor=False)
            panel.set_xticks([], minor=True)
    for row in panels:
        row[0].yaxis.set_major_formatter("{x:g}")
        row[0].yaxis.set_minor_formatter("{x:g}")
    panels[0][0].set_ylabel("seconds")
    panels[1][0].set_ylabel("peak memory, GB")
    panels[0][0].legend()
    figure.tight_layout()
    save_figure(path, figure, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="leave the large points out")
    parser.add_argument("--axes", default=",".join(AXES), help="of " + ",".join(AXES))
    given = parser.parse_args()
    axes: list[str] = given.axes.split(",")
    if unknown := set(axes) - set(AXES):
        parser.error(f"no such axis: {', '.join(sorted(unknown))}")
    folder: Path = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    base = BASE | {"cores": cores}
    print(f"base: {', '.join(f'{k} {v:g}' for k, v in base.items())}, images of {SIZE} pixels")
    # What is compiled at the first call is not counted.
    run_point(folder / "point", "channels", base)
    print(
        f"{'axis':<10}{'value':>8}{'clock s':>10}{'power':>7}{'CPU s':>10}{'power':>7}{'MB':>10}{'power':>7}"
    )
    found: dict[str, list[Point]] = {}
    for axis in axes:
        largest = min(QUICK[axis], cores) if axis == "cores" else QUICK[axis]
        values = [v for v in AXES[axis] if v <= largest or not given.quick]
        values = [v for v in values if axis != "cores" or v <= cores]
        found[axis] = []
        for value in values:
            found[axis].append(run_point(folder / "point", axis, base | {axis: value}))
            print(in_words(found[axis])[-1], flush=True)
            write_json(
                folder / "scaling.json",
                {"base": base, "points": [asdict(p) for points in found.values() for p in points]},
            )
    picture(folder / "scaling.png", found)


if __name__ == "__main__":
    main()
